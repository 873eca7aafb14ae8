"""What this host is: its environment, its databases, where its applications are.

Opens no files. The host file says where a release goes; a release can neither add to it nor change
it. It holds no password: a libpq service, a password file or peer authentication provides one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from installer.errors import ConfigurationError
from installer.local import NOTHING, LocalPaths
from installer.manifest import ENVIRONMENT, PRODUCT
from installer.settings import Table, load_toml
from installer.strict_json import is_control

HOST_FILE = Path("/etc/countersign/host.toml")
DAY = 24 * 60 * 60
BACKUP_ACCOUNTS = {"pgbackrest": "postgres", "barman": "barman"}
"""The account that each tool's package lets own the backups."""

_DATABASE = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$.@-]{0,62}")
_SEARCH_PATH = re.compile(r"[a-z_][a-z0-9_$]{0,62}(, ?[a-z_][a-z0-9_$]{0,62})*")
_BACKUP_TOOL = re.compile("|".join(BACKUP_ACCOUNTS))
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,240}\.(service|socket|target|timer|path)")
_ANYTHING = re.compile(r".*", re.DOTALL)
# A value in a conninfo: quoted, or up to the next space; a backslash makes the next character
# literal in both (libpq, "Keyword/Value Connection Strings").
_SETTING = re.compile(r"\s*([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'(?=\s|$)|(?:[^\s'\\]|\\.)+)\s*")


@dataclass(frozen=True, slots=True)
class BackupCheck:
    """Where a fresh backup of a database has to be found before a release changes it.

    `name` is pgBackRest's stanza or Barman's server, `user` the account that owns the backups.
    """

    tool: str
    name: str
    user: str
    max_age_hours: int


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """A database of this host, under the name by which manifests call it.

    `connection` is a libpq conninfo. `search_path` has no spaces. Times are in seconds: 0 means no
    `statement_timeout`; a statement waits for a lock for `lock_timeout`, and the whole install for
    other sessions for `lock_wait`. `superuser` allows a login role that is one. `restore_point`
    and `backup` are what happens before a release changes the database.
    """

    name: str
    connection: str
    owner: str
    search_path: str
    lock_timeout: float
    statement_timeout: int
    lock_wait: int
    superuser: bool = False
    restore_point: bool = False
    backup: BackupCheck | None = None


@dataclass(frozen=True, slots=True)
class ApplicationTarget:
    """Where a product's application is, how many trees stay in all, which units restart.

    `local` is what of its tree is this host's own. `keep_local`: where the release has it too, the
    host's own version stays in use.
    """

    product: str
    root: Path
    keep: int
    services: tuple[str, ...]
    local: LocalPaths = NOTHING
    keep_local: bool = True


@dataclass(frozen=True, slots=True)
class HostFile:
    """The host file as parsed."""

    environment: str
    databases: Mapping[str, DatabaseTarget]
    applications: Mapping[str, ApplicationTarget]

    def database(self, name: str) -> DatabaseTarget:
        """The database that a manifest calls `name`.

        Raises:
            ConfigurationError: this host has none of that name.
        """
        if name not in self.databases:
            raise _absent("database", name, f'service = "{name}"\nowner = "…"')
        return self.databases[name]

    def application(self, product: str, root: str) -> ApplicationTarget:
        """The application called `product`, which its release puts below `root`.

        Raises:
            ConfigurationError: this host has none of that name, or has it elsewhere.
        """
        if product not in self.applications:
            raise _absent("application", product, f'root = "{root}"')
        target = self.applications[product]
        if str(target.root) != root:
            raise ConfigurationError(
                f"{HOST_FILE}: [application.{product}] has root {target.root}, "
                f"but the release goes below {root}"
            )
        return target


def parse_host_file(text: bytes) -> HostFile:
    """The host file whose content is `text`.

    Raises:
        ConfigurationError: a key is unknown, missing, or has a value that it cannot have.
    """
    top = load_toml(text, HOST_FILE.name).only("environment", "database", "application")
    return HostFile(
        environment=top.text("environment", ENVIRONMENT),
        databases={name: _database(name, t) for name, t in top.tables("database").items()},
        applications={name: _application(name, t) for name, t in top.tables("application").items()},
    )


def _database(name: str, table: Table) -> DatabaseTarget:
    _require_name(name, _DATABASE, table)
    table.only(
        "service",
        "conninfo",
        "owner",
        "search_path",
        "lock_timeout",
        "statement_timeout",
        "lock_wait",
        "superuser",
        "restore_point",
        "backup",
    )
    return DatabaseTarget(
        name=name,
        connection=connection_of(table),
        owner=table.text("owner", _ROLE),
        search_path=table.text("search_path", _SEARCH_PATH, "public").replace(" ", ""),
        lock_timeout=table.seconds("lock_timeout", 0.001, DAY, 0.5),
        statement_timeout=table.integer("statement_timeout", 0, 7 * DAY, 0),
        lock_wait=table.integer("lock_wait", 0, DAY, 60),
        superuser=table.flag("superuser"),
        restore_point=table.flag("restore_point"),
        backup=_backup(table.table("backup")) if table.has("backup") else None,
    )


def _backup(table: Table) -> BackupCheck:
    table.only("tool", "name", "user", "max_age_hours")
    tool = table.text("tool", _BACKUP_TOOL)
    return BackupCheck(
        tool=tool,
        name=table.text("name", _SERVICE),
        user=table.text("user", _ACCOUNT, BACKUP_ACCOUNTS[tool]),
        max_age_hours=table.integer("max_age_hours", 1, 365 * 24, 24),
    )


def connection_of(table: Table) -> str:
    """The libpq conninfo that `service` or `conninfo` of a table says; it holds no password.

    Raises:
        ConfigurationError: both or neither is given, or a setting that has no place in it.
    """
    if table.has("service") == table.has("conninfo"):
        table.refuse("give either service or conninfo")
    if table.has("service"):
        return f"service={table.text('service', _SERVICE)}"
    conninfo = table.text("conninfo", _ANYTHING)
    _require_settings(conninfo, table)
    return conninfo


def _require_settings(conninfo: str, table: Table) -> None:
    """Refuse what is no list of settings, and settings that have no place in it.

    No message repeats the text, which may hold a password all the same.
    """
    position = 0
    while match := _SETTING.match(conninfo, position):
        position = match.end()
        if "password" in match[1]:
            table.refuse(
                "conninfo holds a password; a file of root's, named by passfile=, may hold it"
            )
        if match[1] == "options":
            table.refuse("conninfo holds options; search_path and timeouts are keys of the table")
    if position == 0 or position < len(conninfo):
        table.refuse(
            "conninfo is not a list of keyword=value, such as host=/run/postgresql dbname=crm"
        )


def _application(product: str, table: Table) -> ApplicationTarget:
    _require_name(product, PRODUCT, table)
    table.only("root", "keep", "services", "local")
    return ApplicationTarget(
        product=product,
        root=_root(table),
        keep=table.integer("keep", 1, 1000, 3),
        services=table.texts("services", _UNIT, ()),
        local=_local_paths(table),
    )


def _local_paths(table: Table) -> LocalPaths:
    declared = table.texts("local", _ANYTHING, ())
    for text in declared:
        if reason := _objection(text):
            table.refuse(f"local holds {text!r}: {reason}")
    local = LocalPaths(
        folders=tuple(text.removesuffix("/") for text in declared if text.endswith("/")),
        patterns=tuple(text for text in declared if not text.endswith("/")),
    )
    for text in declared:
        above = text.removesuffix("/").rpartition("/")[0] if text.endswith("/") else text
        if local.in_folder(above):
            table.refuse(f"local holds {text!r}, and a folder that it is in")
    return local


def _objection(text: str) -> str | None:
    """Why `text` declares nothing that can be local; None where it can."""
    parts = text.removesuffix("/").split("/")
    if any(part in {"", ".", ".."} for part in parts) or any(map(is_control, text)):
        return "not a path below the application's tree, such as config/local.toml or uploads/"
    wild = any(char in text for char in "*?")
    if text.endswith("/") and wild:
        return "a folder is named without * and ?"
    if "**" in text or (wild and not any(part.strip("*?") for part in parts)):
        return "it would be for any file; * and ? stand for a part of one name"
    return None


def _root(table: Table) -> Path:
    text = table.text("root", _ANYTHING)
    root = Path(text)
    shared = root.parent == Path(root.anchor)  # such as /opt, and / itself
    if not root.is_absolute() or shared or ".." in root.parts or str(root) != text:
        table.refuse(f"root is {text!r}, which is not a plain absolute path such as /opt/crm")
    return root


def _require_name(name: str, pattern: re.Pattern[str], table: Table) -> None:
    if not pattern.fullmatch(name):
        table.refuse(f"the name does not match {pattern.pattern}, so no release can use it")


def _absent(kind: str, name: str, lines: str) -> ConfigurationError:
    return ConfigurationError(
        f"{HOST_FILE} has no [{kind}.{name}], which this release needs",
        detail=f"Add to {HOST_FILE}:\n[{kind}.{name}]\n{lines}",
    )
