"""Online scripts: what a release does outside of its transaction (docs/decisions/0015).

Each statement is a transaction by itself, and in the ledger; a rerun goes on behind the last one
that is applied. A session is as it was at the start before each statement, apart from what the
script itself sets before it: the ledger is never read under settings of a script.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from installer.change import Change, until_unlocked
from installer.database import APPLIED, STARTED, Progress
from installer.errors import (
    InstallerError,
    LockTimeoutError,
    OnlineUnfinishedError,
    OutcomeUnknownError,
    PlanDivergedError,
    ScriptFailedError,
)
from installer.fingerprint import Schema
from installer.manifest import AFTER, BEFORE, ConcurrentIndex, Script
from installer.planning import phases
from installer.quoting import literal
from installer.runs import AT_TOP_LEVEL, SETTING, Part, whole
from installer.transaction import ScriptRun, Transaction, milliseconds_since
from installer.tree import Digest

MOST_BATCHES = 100_000
"""How often a statement is repeated; one that never processes no row would go on for ever."""
TELL_EVERY = 10.0
"""Seconds between two words about a statement that is repeated."""


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement of an online script, by its number from 1, and what the script sets before it."""

    script: Script
    number: int
    part: Part
    settings: Sequence[Part]

    @property
    def text(self) -> str:
        """The statement."""
        (text,) = self.part.texts()
        return text

    @property
    def index(self) -> ConcurrentIndex | None:
        """The index that it makes or drops concurrently."""
        online = self.script.online
        found = (i for i in online.indexes if i.run == self.number - 1) if online else iter(())
        return next(found, None)

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"{self.script.name}, statement {self.number} of {len(self.script.runs)}"


def run_before(change: Change) -> None:
    """Run what is left of the online scripts that come before the transaction.

    Raises:
        OnlineUnfinishedError: a statement failed; `state` says what stands.
        InstallerError: the database cannot be reached or is locked; `state` likewise.
    """
    with _told(change, BEFORE):
        before, _, _ = phases(change.plan())
        _run_scripts(change, before, BEFORE)


def run_after(change: Change) -> Schema:
    """Run what is left of those that come after it; returns the schema that they leave.

    Raises:
        OnlineUnfinishedError: a statement failed; `state` says what stands.
        SchemaDiffersError: they leave another schema than where the release was tested.
        InstallerError: the database cannot be reached or is locked; `state` likewise.
    """
    with _told(change, AFTER):
        _, _, after = phases(change.plan())
        _run_scripts(change, after, AFTER)
        end = change.database.schema()
        change.measure.require_end(end)
        return end


def _run_scripts(change: Change, scripts: Sequence[Script], when: str) -> None:
    for number, script in enumerate(scripts, 1):
        change.report.script(number, len(scripts), f"{script.name} (online, {when})")
        change.measured.ledger = _run_script(change, script)


@contextmanager
def _told(change: Change, when: str) -> Iterator[None]:
    """Let an error say what stands: it is not what other errors leave behind."""
    try:
        yield
    except InstallerError as error:
        if isinstance(error, ScriptFailedError | OutcomeUnknownError):
            error = OnlineUnfinishedError(str(error), detail=error.detail)
        error.state = _STATES[when].format(change.manifest.version)
        if when == AFTER:
            error.verdict = "is not wholly installed"
        raise error from None


@contextmanager
def told_of_before(change: Change) -> Iterator[None]:
    """Let an error of the transaction say so where online scripts have run before it."""
    try:
        yield
    except InstallerError as error:
        if change.measured.earlier and not isinstance(error, OutcomeUnknownError):
            error.state = _STATES[BEFORE]
        raise


_STATES = {
    AFTER: "Database and application are at {}; online statements are left, which "
    "`countersign-install status` names.",
    BEFORE: "The application is unchanged, and so is the database but for the online statements "
    "that `countersign-install history` shows as applied.",
}


def _run_script(change: Change, script: Script) -> Digest:
    """Run what is left of a script; returns the hash of the ledger's row for all of it."""
    started, rows = time.monotonic(), 0
    ledger = change.database.state(change.manifest.product)
    progress = ledger.unfinished.get(script.name, Progress(script.digest, {}))
    if progress.digest != script.digest:
        raise PlanDivergedError(
            f"{script.name} was begun as {progress.digest[:16]}…, and is {script.digest[:16]}… now",
            detail="  Restore it as it was begun, and finish it.",
        )
    for statement in _statements(script, change.content.read(script)):
        event = progress.statements.get(statement.number)
        if event != APPLIED:
            rows += _run_statement(change, statement, begun=event == STARTED)
    run = ScriptRun(script.name, script.digest, milliseconds_since(started), rows)
    with change.database.transaction() as transaction:
        row = asdict(run) | {"event": "script applied"}
        return transaction.append(change.measured.origin, [row])


def _statements(script: Script, content: bytes) -> Iterator[_Statement]:
    """The statements of a script that do something in the database; others only set the session."""
    settings: list[Part] = []
    for number, start in enumerate(script.runs, 1):
        end = script.runs[number] if number < len(script.runs) else script.size
        part = Part(content[start:end], (start, end), content.count(b"\n", 0, start))
        statement = _Statement(script, number, part, tuple(settings))
        if SETTING.match(statement.text):
            settings.append(part)
        else:
            yield statement


def _run_statement(change: Change, statement: _Statement, *, begun: bool) -> int:
    change.report.step(f"  {statement.title}")
    if AT_TOP_LEVEL.match(statement.text):
        _run_alone(change, statement, begun=begun)
        return 0
    online, total, told = statement.script.online, 0, time.monotonic()
    for _ in range(MOST_BATCHES):
        rows = until_unlocked(change, lambda attempt: _run_inside(change, statement, attempt))
        total += rows
        if rows == 0 or not (online and online.repeat):
            return total
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            change.report.step(f"  {statement.title}: {total} rows so far")
    raise ScriptFailedError(
        f"{statement.title}: it processed rows {MOST_BATCHES} times, and would go on for ever"
    )


def _run_inside(change: Change, statement: _Statement, attempt: int) -> int:
    """Run a statement in a transaction of its own, which has the ledger's row, too.

    Repeated, it has the row in the transaction that found no row to process any more.
    """
    started, online = time.monotonic(), statement.script.online
    with change.database.transaction(watched=attempt > 1) as transaction:
        _set_up(statement, transaction)
        rows = transaction.run_part(statement.script.name, statement.part)
        transaction.settle_constraints()
        if rows == 0 or not (online and online.repeat):
            took = milliseconds_since(started)
            _record(change, statement, transaction, APPLIED, milliseconds=took, rows=rows)
    return rows


def _run_alone(change: Change, statement: _Statement, *, begun: bool) -> None:
    """Run a statement that must be outside of any transaction, with a row before and after it."""
    started, index = time.monotonic(), statement.index
    if not (index and _settled(change, statement, index, begun=begun)):
        with change.database.transaction() as transaction:
            _record(change, statement, transaction, STARTED)
        with change.database.transaction(keeps_settings=True) as transaction:
            _set_up(statement, transaction)
            transaction.drop_functions()
        try:
            change.database.run_alone(statement.script.name, statement.part)
        except LockTimeoutError as error:
            error.name_holders()
            raise
        if index and index.verb == "create" and not _is_valid(change, statement, index):
            raise ScriptFailedError(f"{statement.title}: the index {index.name} is not valid")
    with change.database.transaction() as transaction:
        took = milliseconds_since(started)
        _record(change, statement, transaction, APPLIED, milliseconds=took)


def _settled(change: Change, statement: _Statement, index: ConcurrentIndex, *, begun: bool) -> bool:
    """Whether a statement that was begun did what it should; else it is made ready to run."""
    is_valid = _is_valid(change, statement, index)
    if index.verb == "drop":
        return begun and is_valid is None
    if is_valid is False and not begun:
        raise ScriptFailedError(
            f"{statement.title}: there is an invalid index {index.name}, which no release made",
            detail=f"  Look where it is from; then DROP INDEX CONCURRENTLY {index.name}.",
        )
    if is_valid is False:
        change.report.step(f"  {index.name} is invalid: its build was cut short; dropping it")
        drop = f"DROP INDEX CONCURRENTLY {index.name}".encode()
        change.database.run_alone(statement.script.name, whole(drop))
    return begun and is_valid is True


def _is_valid(change: Change, statement: _Statement, index: ConcurrentIndex) -> bool | None:
    """Whether the index is valid, as the script would find it; None: there is none of that name."""
    of_name = f"pg_catalog.to_regclass({literal(index.name)})::pg_catalog.oid"
    queries = (
        f"SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) {of_name}",
        (
            "SELECT FROM pg_catalog.pg_index WHERE indisvalid "
            f"AND indexrelid OPERATOR(pg_catalog.=) {of_name}"
        ),
    )
    with change.database.transaction() as transaction:
        _set_up(statement, transaction)
        exists, valid = (
            transaction.run_part(statement.script.name, whole(query.encode())) for query in queries
        )
        transaction.settle_constraints()
    return bool(valid) if exists else None


def _set_up(statement: _Statement, transaction: Transaction) -> None:
    transaction.reset_session(statement.script.name)
    for part in statement.settings:
        transaction.run_part(statement.script.name, part)


def _record(
    change: Change, statement: _Statement, transaction: Transaction, event: str, **measured: int
) -> None:
    row = {
        "event": event,
        "script": statement.script.name,
        "script_digest": statement.script.digest,
        "statement": statement.number,
    }
    transaction.append(change.measured.origin, [row | measured])
