"""`refresh.toml`: where from, where to, and how. Opens no files.

    [refresh]
    mode = "copy"                 # or "masked"
    environment = "QAT"           # what the target is
    jobs = 2                      # streams side by side
    programs = "/opt/pgsql/bin"   # PostgreSQL's, where they are not in a usual folder

    [source]
    service = "crm-prd"           # or conninfo = "…"; its role only reads

    [target]
    service = "qat"               # or conninfo = "…"; a maintenance database of the cluster
    database = "crm"
    owner = "crm_owner"

Only in masked mode there are besides `key` in [refresh], the file with the key of the masks, and
`[columns]` (`refresher.rules`), `[search]`, whose `allow` names texts of the schema that may hold
raw values (`refresher.disclosure`), and `[limit]` with what belongs to it (`refresher.limit`): a
copy is whole, and true.

It holds no password: a libpq service, a password file or peer authentication provides one.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from installer.errors import ConfigurationError
from installer.host_file import connection_of
from installer.manifest import ENVIRONMENT
from installer.settings import Table, load_toml
from refresher.errors import RefreshFileError
from refresher.limit import Limit, parse_limit
from refresher.rules import Rules, parse_rules

FILE = "refresh.toml"
LIMITING = ("limit", "subset", "reference", "foreign_key")
"""Tables of the file that say which rows are copied."""

_MODE = re.compile("copy|masked")
# With what a run adds to it, a name has at most 63 bytes.
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,37}")
_ABSOLUTE = re.compile(r"/[^\0\n]+")
_PLACE = re.compile(r"[^\0\n]+")
_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$.@-]{0,62}")


@dataclass(frozen=True, slots=True)
class Target:
    """The database that is refreshed; `connection` leads to its cluster, not to it."""

    connection: str
    database: str
    owner: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """`refresh.toml` as parsed. `source` is a libpq conninfo; no `limit` means all rows."""

    mode: str
    environment: str
    jobs: int
    source: str
    target: Target
    rules: Rules = field(default_factory=dict)
    limit: Limit | None = None
    key: Path | None = None
    programs: Path | None = None
    allowed: tuple[str, ...] = ()


def parse_configuration(text: bytes, name: str = FILE) -> Configuration:
    """The file called `name`, whose content is `text`.

    Raises:
        RefreshFileError: a key is unknown, missing, or has a value that it cannot have.
    """
    try:
        return _parsed(load_toml(text, name))
    except ConfigurationError as error:
        raise RefreshFileError(str(error)) from None


def _parsed(top: Table) -> Configuration:
    masked = ("columns", "search", *LIMITING)
    top.only("refresh", "source", "target", *masked)
    refresh = top.table("refresh").only("mode", "environment", "jobs", "key", "programs")
    if refresh.text("mode", _MODE) == "copy":
        if refresh.has("key") or any(map(top.has, masked)):
            top.refuse(f"mode copy copies all as it is; key, {', '.join(masked)} are for masked")
    elif not refresh.has("key"):
        refresh.refuse("mode masked needs a key: the file with 64 hexadecimal digits")
    source = top.table("source").only("service", "conninfo")
    return Configuration(
        mode=refresh.text("mode", _MODE),
        environment=refresh.text("environment", ENVIRONMENT),
        jobs=refresh.integer("jobs", 1, 16, 2),
        source=connection_of(source),
        target=_target(top.table("target").only("service", "conninfo", "database", "owner")),
        rules=parse_rules(top.tables("columns")),
        limit=parse_limit(top) if any(map(top.has, LIMITING)) else None,
        key=_path(refresh, "key"),
        programs=_path(refresh, "programs"),
        allowed=_allowed(top),
    )


def _allowed(top: Table) -> tuple[str, ...]:
    """Texts of the schema that may repeat what a mask hides, as messages name them."""
    return top.table("search").only("allow").texts("allow", _PLACE) if top.has("search") else ()


def _path(table: Table, key: str) -> Path | None:
    return Path(table.text(key, _ABSOLUTE)) if table.has(key) else None


def _target(table: Table) -> Target:
    return Target(
        connection=connection_of(table),
        database=table.text("database", _DATABASE),
        owner=table.text("owner", _ROLE),
    )
