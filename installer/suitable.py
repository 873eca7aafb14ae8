"""Whether a release may be applied to a database: what its server is, and what its roles may do.

Pure. A script must not reach the ledger, nor anything outside of what the owner role owns: the
server sees to that, as long as neither role is one for which it enforces nothing.
"""

from dataclasses import dataclass

from installer.errors import ConfigurationError, DatabaseUnavailableError
from installer.host_file import HOST_FILE, DatabaseTarget


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says of itself and of the two roles, as `installer.queries.SUITABLE` asks.

    Names are as SQL has them. `pid` serves the connection. `owner_is_member` says whether the owner
    role is a member of the login role, or the same, `login_is_member` the reverse; None, as
    `owner_is_superuser`, where there is no owner role. The login role `may_mark` the WAL. `beyond`
    are roles that the owner role is, or is a member of, and that may do more than own objects;
    `event_triggers` those that run a function which it may replace. Both are None where none is.
    """

    pid: int
    is_standby: bool
    wal_level: str
    database: str
    login: str
    owner: str
    login_is_superuser: bool
    login_is_member: bool | None
    owner_is_superuser: bool | None
    owner_is_member: bool | None
    may_mark: bool
    beyond: str | None
    event_triggers: str | None


def require_suitable(target: DatabaseTarget, server: Server, greeted_by: int) -> None:
    """Refuse what a release may not be applied to; `greeted_by` is the pid that libpq was told.

    Raises:
        DatabaseUnavailableError: a pooler is in between, or the server is a standby.
        ConfigurationError: a role may do more than it should, or less than it has to.
    """
    where = f"database {target.name}"
    if server.pid != greeted_by:
        raise DatabaseUnavailableError(f"{where}: a connection pooler is in between")
    if server.is_standby:
        raise DatabaseUnavailableError(f"{where}: the server is a standby")
    _require_owner(server, where)
    if server.login_is_superuser and not target.superuser:
        raise ConfigurationError(
            f"{where}: its login role {server.login} is a superuser, for whom the server enforces "
            "nothing: what got hold of it, such as an event trigger, would have the whole cluster",
            detail=_ways_out(target, server),
        )
    if target.restore_point:
        _require_restore_point(server, where)


def _require_owner(server: Server, where: str) -> None:
    owner, login = server.owner, server.login
    if server.owner_is_superuser is None:
        raise ConfigurationError(f"{where}: its owner role {owner} does not exist")
    if server.owner_is_superuser or server.owner_is_member:
        raise ConfigurationError(
            f"{where}: its owner role {owner} could change the ledger: it is a "
            f"superuser, or it is or may become the login role {login}"
        )
    if server.beyond:
        raise ConfigurationError(
            f"{where}: its owner role {owner} could change the ledger as, or by way of, "
            f"{server.beyond}: which is a superuser, has CREATEROLE, or may write all data or use "
            f"the server's files; run REVOKE … FROM {owner}, or ALTER ROLE {owner} NOCREATEROLE"
        )
    if server.event_triggers:
        raise ConfigurationError(
            f"{where}: its owner role {owner} could change the ledger: it owns a function that "
            f"runs for everybody, by the event trigger {server.event_triggers}; give the function "
            "to the role that owns the event trigger"
        )
    if not server.login_is_member:
        raise ConfigurationError(
            f"{where}: the login role {login} is no member of {owner}; "
            f"run: GRANT {owner} TO {login}"
        )


def _require_restore_point(server: Server, where: str) -> None:
    if not server.may_mark:
        raise ConfigurationError(
            f"{where}: the login role {server.login} may not make a restore point; run in "
            f"{server.database}: GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO "
            f"{server.login}"
        )
    if server.wal_level == "minimal":
        raise ConfigurationError(
            f"{where}: the server makes no restore point with wal_level = minimal; set it to "
            "replica in postgresql.conf and restart the server"
        )


def _ways_out(target: DatabaseTarget, server: Server) -> str:
    login = server.login
    return (
        f"What it needs:\nALTER ROLE {login} NOSUPERUSER;\nGRANT {server.owner} TO {login};\n"
        f"GRANT CREATE ON DATABASE {server.database} TO {login};\n"
        f"or let it be one, in {HOST_FILE}:\n[database.{target.name}]\nsuperuser = true"
    )
