"""The target's cluster: the new database beside the old one, and which of them has the name.

A new database is called `<database>_refresh_<run>`, and says in a comment which run made it. Both
together tell the next run what one that was killed has left. The old database keeps its name until
the new one is good: both are renamed in one transaction, and so always one of them has it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from installer.quoting import literal, quoted
from installer.session import ServerError, Session
from refresher.catalog import Locale
from refresher.errors import NotReadyError, TargetError

LOCK = 0x7265667265736800  # "refresh" in ASCII: one refresh at a time of a database
TRIES = 10
"""How often sessions in the old database are ended: an application may connect again at once."""

_RUN = r"[0-9]{14}"
_COMMENT = "countersign refresh, run "
_LEFT = """
SELECT d.datname, shobj_description(d.oid, 'pg_database') FROM pg_catalog.pg_database AS d
WHERE d.datname ~ %s ORDER BY 1
"""
# Privileges and settings of a database belong to its host: the new one gets those of the old one.
_PRIVILEGES = """
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    a.privilege_type, a.is_grantable
FROM pg_catalog.pg_database AS d, aclexplode(d.datacl) AS a
WHERE d.datname = %s AND a.grantee <> d.datdba
"""
_SETTINGS = """
SELECT CASE WHEN s.setrole <> 0 THEN quote_ident(pg_get_userbyid(s.setrole)) END, pair
FROM pg_catalog.pg_db_role_setting AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase,
    unnest(s.setconfig) AS pair
WHERE d.datname = %s
"""
_LISTS = {"search_path", "datestyle", "session_preload_libraries", "local_preload_libraries",
    "temp_tablespaces"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """What the databases of one run are called."""

    database: str
    run: str

    @property
    def new(self) -> str:
        """What is being built."""
        return f"{self.database}_refresh_{self.run}"

    @property
    def old(self) -> str:
        """What the database before is called once the new one has its name."""
        return f"{self.database}_before_{self.run}"


class TargetCluster:
    """The cluster, through a maintenance connection in it."""

    def __init__(self, session: Session, names: Names, owner: str) -> None:
        self._session = session
        self._names = names
        self._owner = owner

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this database's refresh.

        Raises:
            NotReadyError: another refresh holds it.
        """
        key = "hashtextextended(%s, %s)"
        parameters = [self._names.database, LOCK]
        if not self._one(f"SELECT pg_catalog.pg_try_advisory_lock({key})", parameters):
            raise NotReadyError(f"another refresh of {self._names.database!r} is running")
        yield  # the end of the session frees it

    def exists(self, database: str) -> bool:
        """Whether the cluster has a database of this name."""
        found = self._one("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", [database])
        return found is not None

    def lacking_roles(self, roles: tuple[str, ...]) -> list[str]:
        """Those of the roles that the cluster does not have."""
        query = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (%s)"
        there = {row[0] for row in self._rows(query, [list(roles)])}
        return [role for role in roles if role not in there]

    def lacking_extensions(self, extensions: tuple[tuple[str, str], ...]) -> list[str]:
        """Those of the extensions that the cluster cannot make, in that version."""
        query = "SELECT name, version FROM pg_catalog.pg_available_extension_versions"
        there = {(row[0], row[1]) for row in self._rows(query, [])}
        return [f"{name} {version}" for name, version in extensions if (name, version) not in there]

    def drop_left(self) -> tuple[str, ...]:
        """Drop what runs before have left; returns the names. Only under `locked`."""
        pattern = f"^{re.escape(self._names.database)}_refresh_{_RUN}$"
        left = self._rows(_LEFT, [pattern])
        mine = [name for name, comment in left if (comment or "").startswith(_COMMENT)]
        for name in mine:
            self.drop(name)
        return tuple(mine)

    def create(self, locale: Locale) -> None:
        """Make the new database, empty, with the locale of the source's."""
        new = quoted(self._names.new)
        self._run(f"CREATE DATABASE {new} {_made_with(self._owner, locale)}")
        self._run(f"COMMENT ON DATABASE {new} IS {literal(_COMMENT + self._names.run)}")

    def drop(self, database: str) -> None:
        """Drop a database, and end the sessions in it."""
        self._run(f"DROP DATABASE IF EXISTS {quoted(database)} WITH (FORCE)")

    def take_place(self) -> bool:
        """Give the new database the name, with the privileges and settings of the old one.

        Sessions in the old one are ended: it could not be renamed else. Returns whether there was
        an old one, which has the name `Names.old` now.
        """
        names = self._names
        rename = f"ALTER DATABASE {quoted(names.new)} RENAME TO {quoted(names.database)}"
        is_there = self.exists(names.database)
        if is_there:
            for statement in self._host_settings():
                self._run(statement)
            first = f"ALTER DATABASE {quoted(names.database)} RENAME TO {quoted(names.old)}"
            rename = f"{first}; {rename}"
        for _ in range(TRIES - 1):
            with suppress(TargetError):  # someone has connected since
                self._rename(rename)
                return is_there
        self._rename(rename)
        return is_there

    def _rename(self, statements: str) -> None:
        self._end_sessions(self._names.database)
        self._end_sessions(self._names.new)
        self._run(statements)  # in one message, and so in one transaction

    def _host_settings(self) -> Iterator[str]:
        new = quoted(self._names.new)
        grants = self._rows(_PRIVILEGES, [self._names.database])
        if grants:
            yield f"REVOKE ALL ON DATABASE {new} FROM PUBLIC"
        for grantee, privilege, grantable in grants:
            option = " WITH GRANT OPTION" if grantable else ""
            yield f"GRANT {privilege} ON DATABASE {new} TO {grantee}{option}"
        for role, pair in self._rows(_SETTINGS, [self._names.database]):
            name, _, value = pair.partition("=")
            of = f"ROLE {role} IN DATABASE {new}" if role else f"DATABASE {new}"
            shown = value if name.lower() in _LISTS else literal(value)
            yield f"ALTER {of} SET {name} = {shown or literal('')}"

    def _end_sessions(self, database: str) -> None:
        """End the sessions in a database, and wait for that: they are gone when it is renamed."""
        ended = "pg_catalog.pg_terminate_backend(pid, 10000)"
        query = f"SELECT {ended} FROM pg_catalog.pg_stat_activity WHERE datname = %s"  # noqa: S608
        self._rows(query, [database])

    def _one(self, query: str, parameters: list[object]) -> object:
        rows = self._rows(query, parameters)
        return rows[0][0] if rows else None

    def _rows(self, query: str, parameters: list[object]) -> list[tuple[str, ...]]:
        try:
            return self._session.rows(query, parameters)
        except ServerError as error:
            raise TargetError(f"the target's server: {error}") from None

    def _run(self, statement: str) -> None:
        try:
            self._session.execute(statement.encode())
        except ServerError as error:
            raise TargetError(f"the target's server refused: {statement}: {error}") from None


def _made_with(owner: str, locale: Locale) -> str:
    parts = [
        f"OWNER {quoted(owner)} TEMPLATE template0 ENCODING {literal(locale.encoding)}",
        f"LC_COLLATE {literal(locale.collate)} LC_CTYPE {literal(locale.ctype)}",
    ]
    if locale.provider == "i":
        parts.append(f"LOCALE_PROVIDER icu ICU_LOCALE {literal(locale.locale or '')}")
    if locale.provider == "b":
        parts.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(locale.locale or '')}")
    return " ".join(parts)
