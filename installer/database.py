"""The database: one connection, one transaction, and the ledger inside it.

The only module that imports psycopg. Rules that it keeps:

- One release is one transaction. Each script runs inside `countersign.run_script`, a function: so
  the server itself refuses COMMIT, ROLLBACK and SAVEPOINT. The function is SECURITY DEFINER and
  belongs to the owner role: so the server also refuses SET ROLE and SET SESSION AUTHORIZATION, and
  a script cannot become the login role, which owns the ledger. It lives for the transaction only,
  in a schema that scripts cannot use, and a call is refused once it has been changed.
- Between scripts the session is as it was at the start: settings, temporary objects, prepared
  statements. Settings of ours are start-up options, to which RESET ALL returns.
- A lock is polled for, never queued for: a waiting lock deadlocks with CREATE INDEX CONCURRENTLY.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from threading import Event, Thread
from typing import Self

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import dict_row

from installer import queries
from installer.bundle import ContentReader
from installer.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    InstallerError,
    LockedError,
    LockTimeoutError,
    OutcomeUnknownError,
    ScriptFailedError,
)
from installer.fingerprint import SETTINGS, Schema, schema_of
from installer.host_file import DatabaseTarget
from installer.manifest import Script
from installer.receipt import Lock, Retry
from installer.runs import RUN_SCRIPT, Part, parts, place
from installer.tree import Digest

POLL_INTERVAL = 0.05


@dataclass(frozen=True, slots=True)
class Origin:
    """What every row of the ledger says about where a change comes from."""

    product: str
    version: str
    sequence: int
    manifest: Digest
    signers: tuple[str, ...]
    environment: str
    host: str
    package: str
    installer: str


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger says of one product: scripts that stand, and the newest release."""

    applied: Mapping[str, Digest]
    releases: frozenset[Digest] = frozenset()
    version: str | None = None
    sequence: int | None = None
    manifest: Digest | None = None


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """How one script went."""

    script: str
    script_digest: Digest
    milliseconds: int
    rows: int


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Which database this is: its name, and of its cluster the identifier and the version."""

    name: str
    system: str
    version: str


@contextmanager
def connect(target: DatabaseTarget, label: str) -> Iterator["Database"]:
    """Connect as the host file says; `label` is the application name that others see.

    Raises:
        DatabaseUnavailableError: no connection, a standby, or a pooler in between.
        ConfigurationError: the roles give a script more than it should have.
    """
    try:
        connection = psycopg.connect(
            target.connection,
            autocommit=True,
            prepare_threshold=None,
            application_name=f"countersign {label}",
            client_encoding="UTF8",
            connect_timeout=10,
            options=_startup_options(target),
        )
    except psycopg.Error as error:
        words = str(error).strip()
        raise DatabaseUnavailableError(
            f"cannot connect to database {target.name}: {words}"
        ) from None
    with connection:
        database = Database(connection, target)
        database.require_suitable()
        yield database


class Database:
    """An open connection to a database that releases may be applied to."""

    def __init__(self, connection: psycopg.Connection, target: DatabaseTarget) -> None:
        self._connection = connection
        self._target = target

    def require_suitable(self) -> None:
        """Refuse a pooler, a standby, and roles that let a script reach the ledger."""
        with _server_words(DatabaseUnavailableError, f"database {self._target.name}"):
            row = self._connection.execute(
                queries.SUITABLE, {"owner": self._target.owner}
            ).fetchall()[0]
        pid, standby, exists, superuser, member, reverse, login = row
        name, owner = self._target.name, self._target.owner
        if pid != self._connection.info.backend_pid:
            raise DatabaseUnavailableError(f"database {name}: a connection pooler is in between")
        if standby:
            raise DatabaseUnavailableError(f"database {name}: the server is a standby")
        if not exists:
            raise ConfigurationError(f"database {name}: its owner role {owner} does not exist")
        if superuser or reverse or owner == login:
            raise ConfigurationError(
                f"database {name}: its owner role {owner} could change the ledger: it is a "
                f"superuser, or it is or may become the login role {login}"
            )
        if not member:
            raise ConfigurationError(
                f"database {name}: the login role {login} is no member of {owner}; "
                f"run: GRANT {owner} TO {login}"
            )

    def state(self, product: str) -> LedgerState:
        """What the ledger says of `product`; nothing stands where there is no ledger yet."""
        with _server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return LedgerState({})
            scripts = self._connection.execute(queries.SCRIPTS, [product]).fetchall()
            releases = self._connection.execute(queries.RELEASES, [product]).fetchall()
        newest = releases[0] if releases else ()
        return LedgerState(dict(scripts), frozenset(row[2] for row in releases), *newest)

    def newest_release(self) -> Digest | None:
        """The manifest of the release that was applied last, of whatever product."""
        with _server_words(DatabaseUnavailableError, "the ledger"):
            found = _one(self._connection, queries.NEWEST_RELEASE) if self._has_ledger() else None
        return Digest(str(found)) if found else None

    def history(self, product: str | None) -> list[dict[str, object]]:
        """The ledger's rows, oldest first, of one product or of all."""
        with _server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return []
            cursor = self._connection.cursor(row_factory=dict_row)
            return cursor.execute(queries.HISTORY, {"product": product}).fetchall()

    @property
    def patience(self) -> int:
        """Seconds that an install waits for other sessions, in all."""
        return self._target.lock_wait

    def schema(self) -> Schema:
        """What the database's schema is now."""
        with _server_words(DatabaseUnavailableError, "the schema"), self._connection.transaction():
            return _read_schema(self._connection)

    def first_broken_row(self) -> int | None:
        """The first row of the ledger that does not fit its chain."""
        with _server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return None
            row = self._connection.execute("SELECT countersign.first_broken()").fetchone()
        return row[0] if row else None

    @contextmanager
    def transaction(self, *, watched: bool = False) -> Iterator["Transaction"]:
        """One transaction that holds the install lock and has a ledger; commits at the end.

        Where it is `watched`, a LockTimeoutError names those who held the lock.

        Raises:
            LockedError: another install held the lock for longer than the host file allows.
            OutcomeUnknownError: the connection was lost during COMMIT.
            ScriptFailedError: the server refused to commit.
        """
        try:
            with _server_words(DatabaseUnavailableError, f"database {self._target.name}"):
                self._connection.execute("BEGIN")
                retries = self._lock()
                self._ensure_ledger()
            transaction = Transaction(self._connection, self._target, retries)
            with self._naming_holders() if watched else nullcontext():
                yield transaction
        except BaseException:
            self._rollback()
            raise
        self._commit()

    @contextmanager
    def _naming_holders(self) -> Iterator[None]:
        with _Watch(self._target.connection, self._connection.info.backend_pid) as watch:
            try:
                yield
            except LockTimeoutError as error:
                error.holders = watch.holders
                raise

    def _lock(self) -> tuple[Retry, ...]:
        """Take the install lock; returns what it had to wait for."""
        started, holder = time.monotonic(), ""
        query = "SELECT pg_catalog.pg_try_advisory_xact_lock(%s)"
        while not _one(self._connection, query, [queries.ADVISORY_LOCK]):
            found = _one(self._connection, queries.LOCK_HOLDER, [queries.ADVISORY_LOCK])
            holder = str(found or holder or "it has just ended")
            if time.monotonic() >= started + self._target.lock_wait:
                raise LockedError(
                    f"another install holds the lock of database {self._target.name} "
                    f"for more than {self._target.lock_wait} s: {holder}"
                )
            time.sleep(POLL_INTERVAL)
        waited = f"another install held the lock: {holder}"
        return (Retry(waited, _milliseconds(started)),) if holder else ()

    def _has_ledger(self) -> bool:
        """Whether the ledger exists; one that another role owns is not ours, and is refused."""
        owned = _one(self._connection, queries.LEDGER_IS_OURS)
        if owned is False:
            raise ConfigurationError(
                f"database {self._target.name}: the schema countersign belongs to another role "
                "than the login role; nothing in it can be trusted"
            )
        return bool(_one(self._connection, "SELECT to_regclass('countersign.ledger') IS NOT NULL"))

    def _ensure_ledger(self) -> None:
        if self._has_ledger():
            return
        try:
            self._connection.execute(files("installer").joinpath("ledger.sql").read_bytes())
        except psycopg.errors.InsufficientPrivilege as error:
            info = self._connection.info
            raise ConfigurationError(
                f"database {self._target.name}: the ledger cannot be made: {_words(error)}; "
                f"run: GRANT CREATE ON DATABASE {_quoted(info.dbname)} TO {_quoted(info.user)}"
            ) from None

    def _rollback(self) -> None:
        if not self._connection.closed:
            self._connection.rollback()

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except psycopg.Error as error:
            if self._connection.closed:
                raise OutcomeUnknownError(
                    f"the connection was lost during COMMIT: {error}"
                ) from None
            raise ScriptFailedError(f"the server refused to commit: {_words(error)}") from None


class _Watch:
    """Looks, through a connection of its own, who holds the locks that a session waits for.

    `holders` are those seen last: pid, user, application, since when, and what they run.
    """

    def __init__(self, connection: str, pid: int) -> None:
        self.holders: tuple[str, ...] = ()
        self._connection = connection
        self._pid = pid
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        try:
            with psycopg.connect(self._connection, autocommit=True, connect_timeout=10) as watching:
                while not self._ended.wait(POLL_INTERVAL):
                    rows = watching.execute(queries.BLOCKERS, [self._pid]).fetchall()
                    self.holders = tuple(row[0] for row in rows) or self.holders
        except psycopg.Error as error:
            self.holders = (f"a session that cannot be seen: {_words(error)}",)


class Transaction:
    """The release's transaction, begun and holding the install lock."""

    def __init__(
        self, connection: psycopg.Connection, target: DatabaseTarget, retries: tuple[Retry, ...]
    ) -> None:
        self._connection = connection
        self._name = target.name
        self._owner = _quoted(target.owner)
        self.retries = retries
        self._id = self._execute("the transaction", b"SELECT pg_catalog.pg_current_xact_id()")

    @cached_property
    def _function(self) -> tuple[bytes, ...]:
        """The function that runs scripts, made when the first script is to run.

        Its oid, and the place of its row: any change to the function moves the row.
        """
        make = (
            f"GRANT USAGE, CREATE ON SCHEMA countersign TO {self._owner}; SET ROLE {self._owner};"
            f"{RUN_SCRIPT}; RESET ROLE; REVOKE ALL ON SCHEMA countersign FROM {self._owner}"
        )
        self._execute("the transaction", make.encode())
        return self._execute("the transaction", queries.FIND_FUNCTION)

    def run(self, script: Script, content: ContentReader) -> ScriptRun:
        """Run one script as the owner role, part by part.

        Its digest is known with the last part; should that be wrong, the transaction takes the
        parts before it back.

        Raises:
            ScriptFailedError: with the script, line, column and the server's words.
            LockTimeoutError: a lock was not to be had within the host file's lock_timeout.
            DatabaseUnavailableError: the connection was lost; the server rolls back.
            DigestError: its content is not what was signed.
        """
        started = time.monotonic()
        rows, lines = 0, 0
        cut = list(parts(script.runs, script.size))
        self._execute(script.name, queries.RESET_SESSION)
        for offsets, text in zip(cut, content.parts(script, [o[-1] for o in cut]), strict=True):
            part = Part(text, offsets, lines)
            rows += self._run(script.name, part.texts(), part)
            lines += text.count(b"\n")
        return ScriptRun(script.name, script.digest, _milliseconds(started), rows)

    def schema(self) -> Schema:
        """What the schema is at this point of the transaction."""
        self._execute("the schema", queries.RESET_SESSION)
        with _server_words(DatabaseUnavailableError, "the schema"):
            return _read_schema(self._connection)

    def identity(self) -> ServerIdentity:
        """Which database this is."""
        found = self._execute("the server", queries.IDENTITY)
        return ServerIdentity(self._name, *(value.decode() for value in found))

    def relations(self) -> Mapping[int, str]:
        """The relations there are, by oid: to name those that are dropped, and tell new ones."""
        (found,) = self._execute("the relations", queries.RELATIONS)
        return {int(oid): name for oid, name in json.loads(found or b"{}").items()}

    def locks(self, before: Mapping[int, str]) -> tuple[tuple[Lock, ...], tuple[str, ...]]:
        """The strongest lock on each of the relations `before`, and the names of newer ones."""
        self._execute("the locks", queries.RESET_SESSION)
        (found,) = self._execute("the locks", queries.LOCKS)
        held = [(int(oid), name, mode) for oid, name, mode in json.loads(found or b"[]")]
        old = {Lock(before[oid], mode) for oid, _, mode in held if oid in before}
        new = {name for oid, name, _ in held if oid not in before and name}
        return tuple(sorted(old)), tuple(sorted(new))

    def settle_constraints(self) -> None:
        """Check deferred constraints now, as the owner role, while an error still has a name."""
        self._execute("deferred constraints", queries.RESET_SESSION)
        self._run("deferred constraints", ["SET CONSTRAINTS ALL IMMEDIATE"])
        self._execute("the transaction", b"DROP FUNCTION countersign.run_script(text[])")

    def record(
        self, verb: str, origin: Origin, runs: Sequence[ScriptRun] = (), **columns: object
    ) -> Digest:
        """Append a row for each of `runs`, then one for the release, which has `columns` besides.

        `verb` is what happened: applied, adopted or failed. Returns the last row's hash.
        """
        common = asdict(origin)
        entries = [common | asdict(run) | {"event": f"script {verb}"} for run in runs]
        entries.append(common | columns | {"event": f"release {verb}"})
        self._execute("the ledger", queries.RESET_SESSION)
        parameters = [json.dumps(entries).encode()]
        (head,) = self._execute("the ledger", b"SELECT countersign.append($1)", parameters)
        return Digest(head.decode())

    def _run(self, name: str, texts: Sequence[str], part: Part | None = None) -> int:
        if not texts:
            return 0
        parameters = [_array(texts), *self._function]
        found = self._execute(name, queries.CALL_FUNCTION, parameters, part)
        status = self._connection.info.transaction_status
        if found[1:] != self._id or status != TransactionStatus.INTRANS:
            raise ScriptFailedError(f"{name}: the release's transaction was tampered with")
        return int(found[0])

    def _execute(
        self, what: str, query: bytes, parameters: Sequence[bytes] = (), part: Part | None = None
    ) -> tuple[bytes, ...]:
        """The first row of what `query` returns, as text; empty where there is none.

        Goes past psycopg's cursors, which cost about as much as a small script does.
        """
        pgconn = self._connection.pgconn
        try:
            if parameters:
                pgconn.send_query_params(query, parameters)
            else:
                pgconn.send_query(query)
            results = self._connection.wait(execute(pgconn))
            for result in results:
                if result.status == ExecStatus.FATAL_ERROR:
                    raise error_from_result(result)
        except psycopg.Error as error:
            raise self._failure(what, error, part) from None
        last = results[-1]
        return tuple(
            last.get_value(0, i) or b"" for i in range(last.nfields if last.ntuples else 0)
        )

    def _failure(self, name: str, error: psycopg.Error, part: Part | None = None) -> InstallerError:
        if self._connection.closed:
            return DatabaseUnavailableError(f"{name}: the connection was lost: {_words(error)}")
        where, shown = _place(error, part) if part else ("", "")
        message = f"{name}{where}: {_words(error)}"
        # A deadlock is a lock that was not to be had, too; PostgreSQL has ended the wait.
        if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
            return LockTimeoutError(message, detail=shown)
        return ScriptFailedError(message, detail=shown)


def _startup_options(target: DatabaseTarget) -> str:
    """Settings as start-up options: RESET ALL, in a script or between two, returns to them."""
    settings = {
        "search_path": target.search_path,
        "lock_timeout": f"{round(target.lock_timeout * 1000)}ms",
        "statement_timeout": f"{target.statement_timeout}s",
        "idle_in_transaction_session_timeout": "0",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "default_transaction_deferrable": "off",
        "check_function_bodies": "on",
        "standard_conforming_strings": "on",
        "row_security": "on",
    }
    pairs = (f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    return " ".join(pairs)


def _read_schema(connection: psycopg.Connection) -> Schema:
    """Read the catalog within the transaction, and give back the locks that this takes."""
    settings = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items())
    connection.execute(f"SAVEPOINT countersign_schema; {settings}")
    query = queries.OBJECTS % files("installer").joinpath("fingerprint.sql").read_text(
        encoding="utf-8"
    )
    row = connection.execute(query).fetchone()
    schema = schema_of(connection.info.server_version // 10000, row[0] if row else ())
    connection.execute("ROLLBACK TO countersign_schema; RELEASE countersign_schema")
    return schema


def _place(error: psycopg.Error, part: Part) -> tuple[str, str]:
    diagnostic = error.diag
    query, position = diagnostic.internal_query, diagnostic.internal_position
    return place(part, diagnostic.context or "", query or "", int(position or 0))


def _words(error: psycopg.Error) -> str:
    """The server's message, detail and hint; or libpq's, where the server said nothing."""
    parts = [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint]
    return "; ".join(part for part in parts if part) or str(error).strip()


@contextmanager
def _server_words(refusal: type[InstallerError], what: str) -> Iterator[None]:
    """Turn psycopg's errors into `refusal`, with what it was about and the server's words."""
    try:
        yield
    except psycopg.Error as error:
        raise refusal(f"{what}: {_words(error)}") from None


def _one(connection: psycopg.Connection, query: str, parameters: Sequence[object] = ()) -> object:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None


def _array(texts: Sequence[str]) -> bytes:
    """A text array as PostgreSQL reads it (PostgreSQL, "Array Input and Output Syntax")."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return ("{" + ",".join(f'"{text}"' for text in escaped) + "}").encode()


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
