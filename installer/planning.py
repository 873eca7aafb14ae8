"""Decides what a release has still to do to a database, from what was applied to it before.

Pure: no file, no connection, no clock. What was applied is a set of scripts, not a position: it
may have come in another order. A script that was applied is fixed: edited, removed or overtaken by
a new one, it is told, never worked around. The one way around is for the signed release to accept
the change by script and digest, with a reason (docs/decisions/0016).
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from installer.errors import ConfigurationError, DowngradeError, PlanDivergedError
from installer.manifest import (
    AFTER,
    BEFORE,
    EDITED,
    LATE,
    REMOVED,
    REORDERED,
    Database,
    Manifest,
    Script,
)
from installer.tree import Digest


@dataclass(frozen=True, slots=True)
class _Offence:
    """What is wrong with a script, and what to do about it."""

    words: str
    remedy: str


def pending_scripts(
    database: Database, applied: Mapping[str, Digest], order: Sequence[str] = ()
) -> tuple[Script, ...]:
    """Scripts of the release that `applied` lacks, in release order.

    `applied` has every script that was ever applied for the product, by name. `order` are the names
    of those in the order of a release before, where that is to be the same in this one.

    Raises:
        PlanDivergedError: an applied script was edited or is not in the release, or a pending one
            sorts before an applied one, or applied ones changed places: and the release does not
            accept it, by script, change and digest.
    """
    offences = [
        *_edited(database, applied),
        *_removed(database, applied),
        *_late(database, applied),
        *_reordered(database, order),
    ]
    if len(offences) == 1:
        raise PlanDivergedError(offences[0].words, detail=offences[0].remedy)
    if offences:
        raise PlanDivergedError(
            f"{len(offences)} scripts disagree with what was applied",
            detail="\n".join(f"{offence.words}\n{offence.remedy}" for offence in offences),
        )
    return tuple(script for script in database.scripts if script.name not in applied)


def phases(
    scripts: Iterable[Script],
) -> tuple[tuple[Script, ...], tuple[Script, ...], tuple[Script, ...]]:
    """Scripts by when they run: before the release's transaction, in it, and after it."""
    when: dict[str | None, list[Script]] = {BEFORE: [], None: [], AFTER: []}
    for script in scripts:
        when[script.online.when if script.online else None].append(script)
    return tuple(when[BEFORE]), tuple(when[None]), tuple(when[AFTER])


def names_to_run(done: Iterable[str], pending: Iterable[Script]) -> list[str]:
    """Names of the scripts of a release, in the order of its phases: done already, and pending."""
    return [*done, *(script.name for phase in phases(pending) for script in phase)]


def require_none_online(pending: Iterable[Script], environment: str) -> None:
    """Refuse scripts outside of the release's transaction.

    Raises:
        ConfigurationError: names them, and what allows them.
    """
    if names := [script.name for script in pending if script.online]:
        raise ConfigurationError(
            f"{environment} allows no scripts outside of the release's transaction, and this "
            f"release has {', '.join(names)}",
            detail=f"The policy allows them with online = true in [require.{environment}].",
        )


def require_not_older(
    manifest: Manifest,
    installed: Manifest | None,
    ledger_sequence: int | None,
    ledger_digest: Digest | None,
) -> None:
    """Refuse a release that is older than what is here; the same one again is fine.

    What is here is the release that the host has installed, and the one with the highest sequence
    in the ledger: its sequence and the digest of its manifest.

    Raises:
        DowngradeError: either has a higher sequence, or this sequence and another manifest.
    """
    if installed is not None:
        _require_after(
            manifest, installed.sequence, installed.digest, f"this host ({installed.title})"
        )
    if ledger_sequence is not None:
        _require_after(manifest, ledger_sequence, ledger_digest, "the ledger of the database")


def _require_after(manifest: Manifest, sequence: int, digest: Digest | None, where: str) -> None:
    if manifest.sequence < sequence:
        raise DowngradeError(
            f"it has sequence {manifest.sequence}, and {where} is at {sequence} already"
        )
    if manifest.sequence == sequence and manifest.digest != digest:
        raise DowngradeError(
            f"another release with its sequence, {sequence}, is on {where}: "
            f"that one's manifest is {_short(digest)}, this one's {_short(manifest.digest)}"
        )


def _edited(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    for script in database.scripts:
        digest = applied.get(script.name, script.digest)
        if digest != script.digest and not _accepts(database, script.name, EDITED, digest):
            yield _Offence(
                f"{script.name} was edited after it was released: applied as {_short(digest)}, "
                f"now {_short(script.digest)}",
                "  Restore it as it was applied, and put the change in a new script; or, if a "
                "database ends the same with either, accept it in release.toml:\n"
                + _entry(script.name, EDITED, digest=script.digest, applied=digest),
            )


def _removed(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    for name in sorted(applied.keys() - {script.name for script in database.scripts}):
        if not _accepts(database, name, REMOVED, applied[name]):
            yield _Offence(
                f"{name} was applied as {_short(applied[name])} and is not in this release",
                "  Restore it under this name: a release has all scripts since the first; or, if "
                "a database ends the same without it, accept it in release.toml:\n"
                + _entry(name, REMOVED, applied=applied[name]),
            )


def _late(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    """Pending scripts that come before the last applied one; online ones have their own order.

    One that is online and applied makes no other late: it may have run ahead of the transaction.
    """
    in_order = (not script.online and script.name in applied for script in database.scripts)
    places = [place for place, is_applied in enumerate(in_order) if is_applied]
    last = max(places, default=0)
    for script in database.scripts[:last]:
        new = script.name not in applied and not script.online
        if new and not _accepts(database, script.name, LATE):
            yield _Offence(
                f"{script.name} is new and sorts before {database.scripts[last].name}, "
                "which was applied",
                "  Give it a place after that; or, if it may run late, accept it in release.toml:\n"
                + _entry(script.name, LATE, digest=script.digest),
            )


def _reordered(database: Database, order: Sequence[str]) -> Iterator[_Offence]:
    """Of the scripts in `order`, as few as can be that are at another place now.

    Those that are accepted may be anywhere; it is the others that have to be in order. Each is told
    with the nearest of those that keep their places.
    """
    scripts = {script.name: script for script in database.scripts}
    now = {name: place for place, name in enumerate(scripts)}
    common = [n for n in order if n in now and not _accepts(database, n, REORDERED)]
    then = {name: place for place, name in enumerate(common)}
    kept = _longest_rising([now[name] for name in common])
    for name in common:
        if now[name] not in kept:
            passed = [
                other
                for other in common
                if now[other] in kept and (then[other] < then[name]) != (now[other] < now[name])
            ]
            other = min(passed, key=lambda one: abs(then[one] - then[name]))
            was, comes = ("before", "after") if then[name] < then[other] else ("after", "before")
            yield _Offence(
                f"{name} ran {was} {other} when it was released, and comes {comes} it now",
                "  Give it that place again; or, if a database ends the same in either order, "
                "accept it in release.toml:\n"
                + _entry(name, REORDERED, digest=scripts[name].digest),
            )


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """The longest subsequence of distinct `numbers` that rises (patience sorting)."""
    tops: list[int] = []
    below: dict[int, int | None] = {}
    for number in numbers:
        pile = bisect_left(tops, number)
        below[number] = tops[pile - 1] if pile else None
        tops[pile : pile + 1] = [number]
    kept: set[int] = set()
    top = tops[-1] if tops else None
    while top is not None:
        kept.add(top)
        top = below[top]
    return kept


def _accepts(database: Database, script: str, change: str, applied: Digest | None = None) -> bool:
    return any(
        (entry.script, entry.change) == (script, change)
        and (applied is None or applied in entry.applied)
        for entry in database.accept
    )


def _entry(
    script: str, change: str, *, digest: Digest | None = None, applied: Digest | None = None
) -> str:
    """The entry of release.toml that accepts a change, but for its reason."""
    lines = ["[[database.accept]]", f"script = {_quoted(script)}", f'change = "{change}"']
    if applied:
        lines.append(f'applied = ["{applied}"]')
    if digest:
        lines.append(f'digest = "{digest}"')
    return "\n".join(f"  {line}" for line in [*lines, 'reason = "…"'])


def _short(digest: Digest | None) -> str:
    return f"{digest[:16]}…" if digest else "unknown"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
