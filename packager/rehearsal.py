"""Tries a release before anybody signs it: the engine of the hosts, on a real server.

A scratch database is brought to each starting point by its own scripts, run by psql as they may
have been at the time. From there the release goes as on a host: what is pending runs as one change.
Then it is installed a second time, which has to change nothing. A restored copy is where it is: its
own ledger says what is pending.
"""

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from installer.bundle import ContentReader, Section
from installer.change import Change, run_transaction
from installer.database import Database, connect
from installer.errors import InstallerError
from installer.fingerprint import Schema
from installer.host_file import DatabaseTarget
from installer.manifest import Database as Scripts
from installer.manifest import Manifest, Script
from installer.online import run_after, run_before
from installer.planning import pending_scripts, require_not_older
from installer.promotion import Measure
from installer.receipt import MeasuredDatabase, ScriptReceipt
from installer.receipts import Measurement
from installer.report import Steps
from installer.session import Session
from installer.transaction import Origin, ScriptRun
from installer.tree import digest_of
from packager import __version__
from packager.errors import RehearsalError, ToolError
from packager.locktable import LockTable
from packager.rehearsal_words import Rehearsed
from packager.release import Release, Start, export_starts
from packager.scratch import Programs, Scratch, scratch_cluster

A_COPY = "a copy"
"""In place of a starting point: a restored copy. No git tag has a space in its name."""

# Fast-path locks are not in the table (PostgreSQL, lmgr/README): they need no room there. Looked
# at through another connection, which the session's own settings do not reach.
LOCK_ENTRIES = """
SELECT pg_catalog.count(*) FILTER (WHERE NOT l.fastpath),
    pg_catalog.current_setting('max_locks_per_transaction')::int,
    pg_catalog.current_setting('max_connections')::int
        + pg_catalog.current_setting('max_prepared_transactions')::int
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE a.datname = pg_catalog.current_database() AND a.usename = session_user
    AND a.application_name LIKE 'countersign %'
"""

WAYS_OUT = {
    r"unsafe use of new value": (
        "  A value that was added to an enum type can be used once it is committed. Ways out:\n"
        "  - in release.toml, let the script that adds it be committed before the others run:\n"
        "      [[database.online]]\n"
        '      script = "…"\n'
        '      when = "before"\n'
        "  - or make a new type with all values, and let the columns have that."
    ),
    r'role "([^"]+)" does not exist': (
        "  A scratch cluster has the owner role, and those that you name: --role {0}"
    ),
}
"""What the server says, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a database is like after a release: the ledger's rows, and the schema."""

    ledger: Sequence[Mapping[str, object]]
    schema: Schema


def rehearse_starts(
    release: Release,
    programs: Programs,
    target: DatabaseTarget,
    roles: Sequence[str],
    report: Steps,
) -> tuple[Rehearsed, ...]:
    """Try a release from each of its starting points, in a scratch cluster.

    `target` is the database as hosts have it, but for the connection; `roles` are those that
    scripts name besides its owner.

    Raises:
        RehearsalError: it failed from one of them, or that one cannot be rebuilt.
        NoServerError: the scratch cluster does not start.
    """
    with scratch_cluster(programs, target.owner, roles) as scratch:
        report.step(f"PostgreSQL {programs.major} is running in {scratch.folder}")
        starts = export_starts(release.project, scratch.folder)
        return tuple(_from_start(release, start, scratch, target, report) for start in starts)


def rehearse_copy(release: Release, target: DatabaseTarget, report: Steps) -> Rehearsed:
    """Try a release on a restored copy, which is changed.

    Raises:
        RehearsalError: it failed there, or the copy is not what a host would change.
    """
    return _rehearse(release, A_COPY, target, report, lambda _: None)


def require_no_op(first: Standing, second: Standing, start: str) -> None:
    """Refuse a release that did something when it was installed again.

    Raises:
        RehearsalError: says what is otherwise.
    """
    if first.ledger != second.ledger:
        raise RehearsalError(
            f"from {start}: installed a second time, it is not left alone: the ledger had "
            f"{len(first.ledger)} rows, and has {len(second.ledger)}"
        )
    if first.schema != second.schema:
        raise RehearsalError(f"from {start}: installed a second time, it has changed the schema")


def way_out(words: str) -> str:
    """What to do about a failure that the server told in `words`; empty where nobody knows."""
    found = ((re.search(pattern, words), advice) for pattern, advice in WAYS_OUT.items())
    return "\n".join(advice.format(*match.groups()) for match, advice in found if match)


def _from_start(
    release: Release, start: Start, scratch: Scratch, target: DatabaseTarget, report: Steps
) -> Rehearsed:
    connection = scratch.new_database(target.name)
    _rebuild(start, scratch, target.name, report)
    return _rehearse(
        release,
        start.name,
        replace(target, connection=connection),
        report,
        lambda database: _adopt(database, start, release),
    )


def _rebuild(start: Start, scratch: Scratch, database: str, report: Steps) -> None:
    """Run the scripts of a starting point, as psql does, on what there was before the first."""
    files = [(start.prepared, file) for file in start.prepare]
    files += [(start.tree, script) for script in start.scripts]
    for number, (tree, file) in enumerate(files, 1):
        report.script(number, len(files), f"{file} of {start.name}")
        try:
            scratch.run_file(tree, file, database)
        except ToolError as error:
            raise RehearsalError(
                f"{start.name} cannot be rebuilt: its {file} failed",
                detail="\n".join(filter(None, [error.detail, way_out(error.detail)])),
            ) from None


def _adopt(database: Database, start: Start, release: Release) -> None:
    """Let the ledger say what it does on a host that is at this starting point."""
    if not start.scripts:
        return
    origin = _origin(release.manifest, start.name, 0)
    runs = [
        ScriptRun(script, digest_of((start.tree / script).read_bytes()), 0, 0)
        for script in start.scripts
    ]
    with database.transaction() as transaction:
        transaction.record("adopted", origin, runs, detail="rebuilt for a rehearsal")


def _rehearse(
    release: Release,
    start: str,
    target: DatabaseTarget,
    report: Steps,
    prepare: Callable[[Database], None],
) -> Rehearsed:
    report.step(f"{release.manifest.title}: from {start}")
    try:
        with connect(target, release.manifest.title) as database:
            prepare(database)
            rehearsed = _measured(release, start, database, report)
            first = _standing(database, release.manifest)
            _bring(_change(release, database, report, lambda: None))
            require_no_op(first, _standing(database, release.manifest), start)
    except InstallerError as error:
        detail = "\n".join(filter(None, [error.detail, way_out(str(error))]))
        raise RehearsalError(f"from {start}: {error}", detail=detail) from None
    return rehearsed


def _measured(release: Release, start: str, database: Database, report: Steps) -> Rehearsed:
    """Bring the release to the database, and put together what was measured."""
    held: list[LockTable] = []
    change = _change(
        release, database, report, lambda: held.append(_lock_table(database.target.connection))
    )
    ends = _bring(change)
    measured, scripts = change.measured, database.scripts_of(release.manifest.digest)
    if not (measured.server and measured.before and measured.after and measured.ledger):
        raise RehearsalError(f"from {start}: this very release has been installed there already")
    return Rehearsed(
        start,
        measured.after.major,
        MeasuredDatabase(
            name=measured.server.name,
            system=measured.server.system,
            version=measured.server.version,
            ledger=measured.ledger,
            milliseconds=measured.milliseconds,
            before=measured.before,
            after=measured.after,
            scripts=tuple(
                ScriptReceipt(run.script, run.script_digest, run.milliseconds, run.rows)
                for run in scripts
            ),
            locks=measured.locks,
            created=measured.created,
            retries=measured.retries,
            online=ends,
        ),
        held[-1],
    )


def _bring(change: Change) -> tuple[Schema, Schema]:
    """All phases of a change, as an install has them; returns the schema before and after."""
    database, digest = change.database, change.manifest.digest
    with database.held():
        before = database.schema()
        run_before(change)
        change.measured.earlier = database.scripts_of(digest)
        run_transaction(change)
        return before, run_after(change)


def _change(
    release: Release, database: Database, report: Steps, keep: Callable[[], None]
) -> Change:
    manifest, compressed = release.manifest, release.compressed
    section = Section(BytesIO(compressed), 0, len(compressed))
    scripts = _scripts_of(release)

    def plan() -> tuple[Script, ...]:
        ledger = database.state(manifest.product)
        require_not_older(manifest, None, ledger.sequence, ledger.manifest)
        return pending_scripts(scripts, ledger.applied)

    return Change(
        manifest=manifest,
        database=database,
        content=ContentReader(section, manifest.blobs),
        measure=Measure(),
        measured=Measurement(manifest, _origin(manifest, manifest.version, manifest.sequence)),
        plan=plan,
        keep=keep,
        report=report,
    )


def _lock_table(connection: str) -> LockTable:
    """What the session that brings the release holds in the server's lock table now."""
    with Session.open(connection) as looking:
        return LockTable(*looking.rows(LOCK_ENTRIES)[0])


def _standing(database: Database, manifest: Manifest) -> Standing:
    return Standing(database.history(manifest.product), database.schema())


def _origin(manifest: Manifest, version: str, sequence: int) -> Origin:
    return Origin(
        product=manifest.product,
        version=version,
        sequence=sequence,
        manifest=manifest.digest if sequence else digest_of(version.encode()),
        signers=(),
        environment="rehearsal",
        host=socket.gethostname(),
        package="rehearsal",
        installer=__version__,
    )


def _scripts_of(release: Release) -> Scripts:
    if release.manifest.database is None:
        raise RehearsalError(f"{release.manifest.title} has no database to rehearse")
    return release.manifest.database
