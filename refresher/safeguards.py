"""Which database may be written: never production, never the source, never what is ahead of it.

Pure. What is known of both sides is asked before anything is opened for writing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from refresher.errors import WrongWayError

PRODUCTION = "PRD"
"""The environment that is never a target, as the policies of hosts call it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a database says of itself.

    `system` is the cluster's system identifier, which a copy of its files has as well; `started` is
    when its server started, in seconds since 1970: two servers of one identifier differ in that.
    `environment` is None where the database does not say, `releases` has the highest sequence of
    each product that its ledger knows.
    """

    system: str
    database: str
    environment: str | None = None
    releases: Mapping[str, int] = field(default_factory=dict)
    is_standby: bool = False
    started: str = ""


def require_right_way(
    source: Identity, target: Identity, environment: str, *, target_exists: bool
) -> None:
    """Refuse a target that a refresh may not replace; `environment` is what it is to be.

    Raises:
        WrongWayError: with the reason, and both databases by name.
    """
    where = f"the target {target.database!r}"
    if environment == PRODUCTION:
        raise WrongWayError(f"refresh.toml says environment {PRODUCTION}: it is never refreshed")
    if environment == source.environment:
        raise WrongWayError(f"the source says that it is {environment}, which the target is to be")
    if (source.system, source.database) == (target.system, target.database):
        if source.started == target.started:
            raise WrongWayError(f"{where} is the source: the same database of the same cluster")
        if source.is_standby:
            raise WrongWayError(
                f"{where} has the source's system identifier: the source is a standby, and may "
                "follow it"
            )
    if target.is_standby:
        raise WrongWayError(f"{where}: its server is a standby, which follows another one")
    if target_exists:
        _require_replaceable(source, target, environment, where)


def _require_replaceable(source: Identity, target: Identity, environment: str, where: str) -> None:
    if target.environment == PRODUCTION:
        raise WrongWayError(f"{where} says that it is {PRODUCTION}")
    if target.environment not in {None, environment}:
        raise WrongWayError(
            f"{where} says that it is {target.environment}, refresh.toml calls it {environment}"
        )
    ahead = [
        f"{product} has sequence {sequence}, the source {source.releases.get(product, 'none')}"
        for product, sequence in sorted(target.releases.items())
        if sequence > source.releases.get(product, 0)
    ]
    if ahead:
        raise WrongWayError(f"{where} is newer than the source: {'; '.join(ahead)}")
