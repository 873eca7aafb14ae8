"""One transaction of a database: scripts inside it, what they did, and the ledger's rows for them.

Rules that it keeps (docs/decisions/0002, 0014):

- Each script runs inside `countersign.run_script`, a function: so the server itself refuses COMMIT,
  ROLLBACK and SAVEPOINT. The function is SECURITY DEFINER and belongs to the owner role: so the
  server also refuses SET ROLE and SET SESSION AUTHORIZATION, and a script cannot become the login
  role, which owns the ledger. It lives for the transaction only, in a schema that scripts cannot
  use, and a call is refused once it has been changed.
- Rows of a COPY are streamed into a table of texts, which runs nobody's code, and are moved on by
  another function like that.
- Between scripts the session is as it was at the start: settings, temporary objects, prepared
  statements, cursors. Settings of ours are start-up options, to which RESET ALL returns.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from itertools import islice
from typing import Self

from installer import queries
from installer.bundle import ContentReader
from installer.errors import (
    DatabaseUnavailableError,
    InstallerError,
    LockTimeoutError,
    MalformedError,
    ScriptFailedError,
    StorageError,
)
from installer.fingerprint import SETTINGS, Schema, schema_of
from installer.host_file import DatabaseTarget
from installer.manifest import Copy, Script
from installer.quoting import literal, quoted
from installer.receipt import Lock, Retry
from installer.runs import FOR_PSQL, INSERT_ROWS, RUN_SCRIPT, Cut, Part, cuts, place
from installer.session import ServerError, Session
from installer.tree import Digest


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


class Transaction:
    """A transaction that has begun and holds the install lock."""

    def __init__(
        self, session: Session, target: DatabaseTarget, retries: tuple[Retry, ...] = ()
    ) -> None:
        self._session = session
        self._name = target.name
        self._owner = quoted(target.owner)
        self.retries = retries
        self._id = self._execute("the transaction", b"SELECT pg_catalog.pg_current_xact_id()")

    @cached_property
    def _functions(self) -> Mapping[str, tuple[bytes, ...]]:
        """The functions that run scripts, made when the first script is to run.

        The oid of each, and the place of its row: any change to a function moves the row.
        """
        make = (
            f"GRANT USAGE, CREATE ON SCHEMA countersign TO {self._owner}; SET ROLE {self._owner};"
            f"{RUN_SCRIPT};{INSERT_ROWS}; RESET ROLE;"
            f"REVOKE ALL ON SCHEMA countersign FROM {self._owner}"
        )
        self._execute("the transaction", make.encode())
        found = (self._execute("the transaction", q) for q in queries.FIND_FUNCTION.values())
        return dict(zip(queries.FIND_FUNCTION, found, strict=True))

    def run(self, script: Script, content: ContentReader) -> ScriptRun:
        """Run one script as the owner role, cut by cut.

        Its digest is known with the last cut; should that be wrong, the transaction takes the cuts
        before it back.

        Raises:
            ScriptFailedError: with the script, line, column and the server's words.
            LockTimeoutError: a lock was not to be had within the host file's lock_timeout.
            DatabaseUnavailableError: the connection was lost; the server rolls back.
            DigestError: its content is not what was signed.
        """
        started = time.monotonic()
        self.reset_session(script.name)
        cut_up = list(cuts(script))
        pieces = _Counted(content.parts(script, [end for cut in cut_up for end in cut.ends]))
        rows = sum(self._run_cut(script.name, cut, pieces) for cut in cut_up)
        pieces.require_end()
        return ScriptRun(script.name, script.digest, milliseconds_since(started), rows)

    def run_part(self, name: str, part: Part) -> int:
        """Run the runs of a part as the owner role; returns how many rows they processed."""
        texts = part.texts()
        if not texts:
            return 0
        return self._call("run_script", name, [_array(texts)], part)

    def reset_session(self, what: str) -> None:
        """Put the session into the state that it had at the start."""
        self._execute(what, queries.RESET_SESSION)

    def schema(self) -> Schema:
        """What the schema is at this point of the transaction."""
        self.reset_session("the schema")
        with server_words(DatabaseUnavailableError, "the schema"):
            return read_schema(self._session)

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
        self.reset_session("the locks")
        (found,) = self._execute("the locks", queries.LOCKS)
        held = [(int(oid), name, mode) for oid, name, mode in json.loads(found or b"[]")]
        old = {Lock(before[oid], mode) for oid, _, mode in held if oid in before}
        new = {name for oid, name, _ in held if oid not in before and name}
        return tuple(sorted(old)), tuple(sorted(new))

    def settle_constraints(self) -> None:
        """Check deferred constraints now, as the owner role, while an error still has a name."""
        name = "deferred constraints"
        self.reset_session(name)
        self._call("run_script", name, [_array(["SET CONSTRAINTS ALL IMMEDIATE"])])
        self.drop_functions()

    def drop_functions(self) -> None:
        """Leave nothing of the installer's own in the database."""
        if "_functions" in self.__dict__:
            self._execute("the transaction", queries.DROP_FUNCTIONS)

    def record(
        self, verb: str, origin: Origin, runs: Sequence[ScriptRun] = (), **columns: object
    ) -> Digest:
        """Append a row for each of `runs`, then one for the release, which has `columns` besides.

        `verb` is what happened: applied, adopted or failed. Returns the last row's hash.
        """
        rows = [asdict(run) | {"event": f"script {verb}"} for run in runs]
        return self.append(origin, [*rows, {**columns, "event": f"release {verb}"}])

    def append(self, origin: Origin, rows: Sequence[Mapping[str, object]]) -> Digest:
        """Append rows to the ledger, each with its own columns; returns the last one's hash.

        From the first time on the database says which environment it is.
        """
        common = asdict(origin)
        self.reset_session("the ledger")
        self._execute("the ledger", queries.KEEP_ENVIRONMENT, [origin.environment.encode()])
        entries = json.dumps([common | dict(row) for row in rows]).encode()
        (head,) = self._execute("the ledger", b"SELECT countersign.append($1)", [entries])
        return Digest(head.decode())

    def _run_cut(self, name: str, cut: Cut, pieces: "_Counted") -> int:
        part = Part(next(pieces), cut.offsets, pieces.lines_before)
        if cut.gap is None:
            return self.run_part(name, part)
        if cut.gap.copy is None:
            if not FOR_PSQL.fullmatch(part.content[cut.gap.start - cut.gap.end :]):
                raise MalformedError(f"{name}: the manifest leaves out what is no line for psql")
            return 0
        rows = self._copy(name, part, cut.gap.copy, islice(pieces, len(cut.ends) - 2))
        next(pieces)  # the line that ends the rows
        return rows

    def _copy(self, name: str, part: Part, copy: Copy, pieces: Iterator[bytes]) -> int:
        """Do what the COPY in `part` would: its rows are `pieces`."""
        columns = [quoted(column) for column in copy.columns]
        table = ", ".join(f"{column} pg_catalog.text" for column in columns)
        make = (
            f"CREATE TEMPORARY TABLE countersign_rows ({table});"
            f"GRANT SELECT ON pg_temp.countersign_rows TO {self._owner}"
        )
        options = "".join(f", {key} {literal(value)}" for key, value in copy.options.items())
        self._execute(name, make.encode(), part=part)
        try:
            self._session.copy(
                f"COPY pg_temp.countersign_rows ({', '.join(columns)}) FROM STDIN "
                f"WITH (ENCODING 'UTF8'{options})",
                pieces,
            )
        except ServerError as error:
            raise failure(name, error, part) from None
        arguments = [copy.table.encode(), _array(copy.columns)]
        rows = self._call("insert_rows", name, arguments, part)
        self._execute(name, b"DROP TABLE pg_temp.countersign_rows", part=part)
        return rows

    def _call(
        self, function: str, name: str, arguments: Sequence[bytes], part: Part | None = None
    ) -> int:
        """Call one of the functions; returns how many rows it processed."""
        query = queries.CALL_FUNCTION[function]
        found = self._execute(name, query, [*arguments, *self._functions[function]], part)
        if found[1:] != self._id or not self._session.is_in_transaction:
            raise ScriptFailedError(f"{name}: the release's transaction was tampered with")
        return int(found[0])

    def _execute(
        self,
        what: str,
        query: bytes,
        parameters: Sequence[bytes] | None = None,
        part: Part | None = None,
    ) -> tuple[bytes, ...]:
        try:
            return self._session.execute(query, parameters)
        except ServerError as error:
            raise failure(what, error, part) from None


class _Counted:
    """The pieces of a script, and the lines in those before the last one taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._lines = 0
        self.lines_before = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.lines_before = self._lines
        self._lines += piece.count(b"\n")
        return piece

    def require_end(self) -> None:
        """Take what is left, which is nothing: only then is the digest of them all checked."""
        list(self._pieces)


def read_schema(session: Session) -> Schema:
    """Read the catalog within a transaction, and give back the locks that this takes."""
    settings = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items())
    session.execute(f"SAVEPOINT countersign_schema; {settings}".encode())
    query = files("installer").joinpath("fingerprint.sql").read_text(encoding="utf-8")
    schema = schema_of(session.major, session.one(queries.OBJECTS % query) or ())
    session.execute(b"ROLLBACK TO countersign_schema; RELEASE countersign_schema")
    return schema


def failure(name: str, error: ServerError, part: Part | None = None) -> InstallerError:
    """What the server refused while `name` ran, with the place in `part`, as the installer's."""
    if error.lost:
        return DatabaseUnavailableError(f"{name}: the connection was lost: {error}")
    where, shown = place(part, error.context, error.query, error.position) if part else ("", "")
    refusal: type[InstallerError] = StorageError if error.is_disk_full else ScriptFailedError
    if error.is_lock:  # a deadlock, too: PostgreSQL has ended the wait
        refusal = LockTimeoutError
    return refusal(f"{name}{where}: {error}", detail=shown)


@contextmanager
def server_words(refusal: type[InstallerError], what: str) -> Iterator[None]:
    """Turn the server's errors into `refusal`, with what it was about and the server's words."""
    try:
        yield
    except ServerError as error:
        raise refusal(f"{what}: {error}") from None


def milliseconds_since(started: float) -> int:
    """Whole milliseconds since `time.monotonic()` was `started`."""
    return round((time.monotonic() - started) * 1000)


def _array(texts: Sequence[str]) -> bytes:
    """A text array as PostgreSQL reads it (PostgreSQL, "Array Input and Output Syntax")."""
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return ("{" + ",".join(f'"{text}"' for text in escaped) + "}").encode()
