"""The database: who may use it, what the ledger says of it, and its transactions.

A lock is polled for, never queued for: a waiting lock deadlocks with CREATE INDEX CONCURRENTLY.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from threading import Event, Thread
from typing import Any, Self

from installer import queries
from installer.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    LockedError,
    LockTimeoutError,
    OutcomeUnknownError,
    ScriptFailedError,
)
from installer.fingerprint import Schema
from installer.host_file import DatabaseTarget
from installer.ledger_chain import COLUMNS, Row
from installer.quoting import quoted
from installer.receipt import Retry
from installer.runs import Part
from installer.session import ServerError, Session
from installer.suitable import Server, require_suitable
from installer.transaction import (
    ScriptRun,
    ServerIdentity,
    Transaction,
    failure,
    milliseconds_since,
    read_schema,
    server_words,
)
from installer.tree import Digest

POLL_INTERVAL = 0.05
STARTED, APPLIED = "statement started", "statement applied"
_OWN_OPTIONS = "-c search_path=pg_catalog -c role=none"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an online script came: the event of each of its statements, by its number from 1."""

    digest: Digest
    statements: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger says of one product: scripts that stand, and the newest release.

    `unfinished` has the online scripts of which a statement was begun, and not all are applied.
    """

    applied: Mapping[str, Digest]
    releases: frozenset[Digest] = frozenset()
    version: str | None = None
    sequence: int | None = None
    manifest: Digest | None = None
    unfinished: Mapping[str, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The ledger at one moment: in which server, since when this is that environment, all rows."""

    server: ServerIdentity
    since: str
    rows: Iterator[Row]


@contextmanager
def connect(target: DatabaseTarget, label: str) -> Iterator["Database"]:
    """Connect as the host file says; `label` is the application name that others see.

    Raises:
        DatabaseUnavailableError: no connection, a standby, or a pooler in between.
        ConfigurationError: the roles give a script more than it should have.
    """
    label, options = f"countersign {label}", _startup_options(target)
    with ExitStack() as stack:
        with server_words(DatabaseUnavailableError, f"cannot connect to database {target.name}"):
            opened = Session.open(target.connection, application_name=label, options=options)
            session = stack.enter_context(opened)
        database = Database(session, target)
        database.require_suitable()
        yield database


class Database:
    """An open connection to a database that releases may be applied to."""

    def __init__(self, session: Session, target: DatabaseTarget) -> None:
        self._session = session
        self._target = target
        self._is_held = False

    def require_suitable(self) -> None:
        """Refuse a pooler, a standby, and roles that let a script reach the ledger."""
        with server_words(DatabaseUnavailableError, f"database {self._target.name}"):
            row = self._session.rows(queries.SUITABLE, {"owner": self._target.owner})[0]
        require_suitable(self._target, Server(*row), self._session.pid)

    def restore_point(self, name: str) -> str:
        """Mark this moment in the server's WAL; returns the LSN. `name` has at most 63 bytes.

        Raises:
            ConfigurationError: the server makes none.
            DatabaseUnavailableError: the connection was lost.
        """
        try:
            return str(self._session.one(queries.RESTORE_POINT, [name]))
        except ServerError as error:
            refusal = DatabaseUnavailableError if error.lost else ConfigurationError
            raise refusal(f"database {self._target.name}: no restore point: {error}") from None

    def state(self, product: str) -> LedgerState:
        """What the ledger says of `product`; nothing stands where there is no ledger yet."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return LedgerState({})
            scripts = self._session.rows(queries.SCRIPTS, [product])
            releases = self._session.rows(queries.RELEASES, [product])
            statements = self._session.rows(queries.STATEMENTS, [product])
        version, sequence, manifest = releases[0] if releases else (None, None, None)
        return LedgerState(
            dict(scripts),
            frozenset(row[2] for row in releases),
            version,
            sequence,
            manifest,
            _progress(statements),
        )

    def ahead(self, product: str) -> list[tuple[str, str]]:
        """(version, script) of online scripts that are applied, of a release that is not."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return []
            return [(str(v), str(s)) for v, s in self._session.rows(queries.AHEAD, [product])]

    def scripts_of(self, manifest: Digest) -> tuple[ScriptRun, ...]:
        """The scripts that were applied from one release, in the order in which they ended."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            found = self._session.rows(queries.SCRIPTS_OF, [manifest]) if self._has_ledger() else []
        return tuple(ScriptRun(*row) for row in found)

    def newest_release(self) -> Digest | None:
        """The manifest of the release that was applied last, of whatever product."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            found = self._session.one(queries.NEWEST_RELEASE) if self._has_ledger() else None
        return Digest(str(found)) if found else None

    def history(self, product: str | None) -> list[dict[str, object]]:
        """The ledger's rows, oldest first, of one product or of all."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return []
            return self._session.records(queries.HISTORY, {"product": product})

    @contextmanager
    def ledger(self, environment: str) -> Iterator[Reading]:
        """All rows of the ledger as they are at one moment; `environment` is the host's.

        No function of the ledger's is called: whoever changed rows can change those, too.

        Raises:
            DatabaseUnavailableError: the connection was lost, or the rows cannot be read.
        """
        with server_words(DatabaseUnavailableError, "the ledger"):
            self._session.execute(queries.BEGIN_READING)
            try:
                server = [value.decode() for value in self._session.execute(queries.IDENTITY)]
                has_ledger, copied = self._has_ledger(), None
                if has_ledger and self._session.one(queries.HAS_ENVIRONMENT):
                    copied = self._session.one(queries.COPIED, [environment])
                identity = ServerIdentity(self._target.name, *server)
                yield Reading(identity, copied or "", self._rows() if has_ledger else iter(()))
            finally:
                self._session.rollback()

    def _rows(self) -> Iterator[Row]:
        self._session.rows(queries.LEDGER)
        while found := self._session.rows(queries.NEXT_ROWS):
            yield from (dict(zip((*COLUMNS, "hash"), row, strict=True)) for row in found)

    @property
    def target(self) -> DatabaseTarget:
        """What the host file says of it."""
        return self._target

    @property
    def patience(self) -> int:
        """Seconds that an install waits for other sessions, in all."""
        return self._target.lock_wait

    def schema(self) -> Schema:
        """What the database's schema is now."""
        with server_words(DatabaseUnavailableError, "the schema"):
            self._session.execute(b"BEGIN")
            try:
                return read_schema(self._session)
            finally:
                self._session.rollback()

    def first_broken_row(self) -> int | None:
        """The first row of the ledger that does not fit its chain."""
        with server_words(DatabaseUnavailableError, "the ledger"):
            if not self._has_ledger():
                return None
            found: int | None = self._session.one("SELECT countersign.first_broken()")
        return found

    @contextmanager
    def transaction(
        self, *, watched: bool = False, keeps_settings: bool = False
    ) -> Iterator["Transaction"]:
        """One transaction that holds the install lock and has a ledger; commits at the end.

        Where it is `watched`, a LockTimeoutError names those who held the lock. Its settings end
        with it, unless it `keeps_settings` for `run_alone`.

        Raises:
            LockedError: another install held the lock for longer than the host file allows.
            OutcomeUnknownError: the connection was lost during COMMIT.
            ScriptFailedError: the server refused to commit.
        """
        try:
            with server_words(DatabaseUnavailableError, f"database {self._target.name}"):
                self._session.execute(queries.RESET_SESSION)
                self._session.execute(b"BEGIN")
                retries = self._lock("pg_try_advisory_xact_lock")
                self._ensure_ledger()
            transaction = Transaction(self._session, self._target, retries)
            with self._naming_holders() if watched else nullcontext():
                yield transaction
        except BaseException:
            self._session.rollback()
            raise
        self._commit()
        if not keeps_settings:  # also those of what COMMIT itself has run
            self._session.leave_role()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the install lock from one transaction to the next, as online scripts need it.

        Raises:
            LockedError: as for `transaction`.
        """
        with server_words(DatabaseUnavailableError, f"database {self._target.name}"):
            self._lock("pg_try_advisory_lock")
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if not self._session.is_lost:  # whose end frees the lock
                with server_words(DatabaseUnavailableError, f"database {self._target.name}"):
                    self._session.rows(queries.UNLOCK, [queries.ADVISORY_LOCK])

    def run_alone(self, name: str, part: Part) -> None:
        """Run the one statement of a part as the owner role, outside of any transaction.

        It must be one of `installer.runs.AT_TOP_LEVEL`. It waits for others for as long as an
        install may: its locks hold nobody up.

        Raises:
            ScriptFailedError, LockTimeoutError, DatabaseUnavailableError: as for scripts.
        """
        (text,) = part.texts()
        patience = f"SET lock_timeout = '{self._target.lock_wait}s'"
        with self._naming_holders():
            try:
                self._session.execute(f"{patience}; SET ROLE {quoted(self._target.owner)}".encode())
                self._session.execute(text.encode(), [])
            except ServerError as error:
                raise failure(name, error, part) from None
            finally:
                self._session.leave_role()

    @contextmanager
    def _naming_holders(self) -> Iterator[None]:
        with _Watch(self._target.connection, self._session.pid) as watch:
            try:
                yield
            except LockTimeoutError as error:
                error.holders = watch.holders
                raise

    def _lock(self, function: str) -> tuple[Retry, ...]:
        """Take the install lock with `function`; returns what it had to wait for."""
        started, holder = time.monotonic(), ""
        while not self._session.one(f"SELECT pg_catalog.{function}(%s)", [queries.ADVISORY_LOCK]):
            found = self._session.one(queries.LOCK_HOLDER, [queries.ADVISORY_LOCK])
            holder = str(found or holder or "it has just ended")
            if time.monotonic() >= started + self._target.lock_wait:
                raise LockedError(
                    f"another install holds the lock of database {self._target.name} "
                    f"for more than {self._target.lock_wait} s: {holder}"
                )
            time.sleep(POLL_INTERVAL)
        waited = f"another install held the lock: {holder}"
        return (Retry(waited, milliseconds_since(started)),) if holder else ()

    def _has_ledger(self) -> bool:
        """Whether the ledger exists; one that another role owns is not ours, and is refused."""
        owned = self._session.one(queries.LEDGER_IS_OURS)
        if owned is False:
            raise ConfigurationError(
                f"database {self._target.name}: the schema countersign belongs to another role "
                "than the login role; nothing in it can be trusted"
            )
        return bool(
            self._session.one("SELECT pg_catalog.to_regclass('countersign.ledger') IS NOT NULL")
        )

    def _ensure_ledger(self) -> None:
        has_ledger = self._has_ledger()
        if has_ledger and self._session.one(queries.HAS_ENVIRONMENT):
            return
        needed = ["environment.sql"] if has_ledger else ["ledger.sql", "environment.sql"]
        try:
            # What is made here keeps the functions and operators that it names.
            self._session.execute(b"SET LOCAL search_path = pg_catalog, pg_temp")
            for name in needed:
                self._session.execute(files("installer").joinpath(name).read_bytes())
            self._session.execute(b"SET LOCAL search_path TO DEFAULT")
        except ServerError as error:
            if not error.is_privilege:
                raise
            name, user = quoted(self._session.database), quoted(self._session.user)
            raise ConfigurationError(
                f"database {self._target.name}: the ledger cannot be made: {error}; "
                f"run: GRANT CREATE ON DATABASE {name} TO {user}"
            ) from None

    def _commit(self) -> None:
        try:
            if self._is_held:  # a script may have let go of it
                self._session.rows(queries.HOLD_ON, [queries.ADVISORY_LOCK] * 2)
            self._session.execute(queries.BEFORE_COMMIT)
            self._session.commit()
        except ServerError as error:
            if error.lost:
                raise OutcomeUnknownError(
                    f"the connection was lost during COMMIT: {error}"
                ) from None
            raise ScriptFailedError(f"the server refused to commit: {error}") from None


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
            with Session.open(self._connection, options=_OWN_OPTIONS) as watching:
                while not self._ended.wait(POLL_INTERVAL):
                    rows = watching.rows(queries.BLOCKERS, [self._pid])
                    self.holders = tuple(row[0] for row in rows) or self.holders
        except ServerError as error:
            self.holders = (f"a session that cannot be seen: {error}",)


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
        "role": "none",
    }
    pairs = (f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    return " ".join(pairs)


def _progress(rows: list[tuple[Any, ...]]) -> dict[str, Progress]:
    """From the rows (script, digest, statement, event) of the ledger, oldest first."""
    found: dict[str, dict[int, str]] = {}
    digests: dict[str, Digest] = {}
    for script, digest, statement, event in rows:
        if digests.setdefault(script, digest) != digest:
            found[script] = {}
        digests[script] = digest
        found.setdefault(script, {})[statement] = event
    return {script: Progress(digests[script], events) for script, events in found.items()}
