"""A refresh: the new database beside the old one, then its name.

The order is that of the sections: schema, rows, and what is made over the rows. Whatever fails, or
ends this process, leaves the source untouched and the target's old database where it was; what was
built is dropped, by this run or by the next.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from installer.fingerprint import Schema
from installer.host_key import HostKey
from installer.session import Session
from installer.transaction import read_schema
from refresher.clients import Running
from refresher.comparing import require_same_schema
from refresher.configuration import Configuration
from refresher.disclosure import Search, require_none_told
from refresher.ends import target_end
from refresher.identity import set_environment
from refresher.model import TableName
from refresher.pieces import Stream
from refresher.preparing import Prepared, prepared
from refresher.progress import Progress
from refresher.report import Report, require_folder, write_report
from refresher.residue import Residue, residue_of
from refresher.sections import Sections, copy_sequences, refresh_views
from refresher.stream import copy_stream
from refresher.target import Names, TargetCluster

_CONSTRAINTS = """
SELECT contype::text, count(*) FROM pg_catalog.pg_constraint
WHERE convalidated AND conrelid <> 0
    AND connamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
GROUP BY contype ORDER BY contype
"""
_NOT_VALID = """
SELECT conrelid::regclass || ': ' || conname FROM pg_catalog.pg_constraint WHERE NOT convalidated
ORDER BY 1
"""
_KINDS = {"c": "check", "f": "foreign key", "n": "not null", "p": "primary key", "u": "unique",
    "x": "exclusion", "t": "trigger"}  # fmt: skip


class Watch:
    """Tells how it goes on, and how long each phase took, in seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One phase."""
        self.tell(name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)


def refresh(
    configuration: Configuration,
    reports: Path,
    watch: Watch,
    *,
    keep_old: bool = False,
    key: HostKey | None = None,
) -> Report:
    """Replace the target's database by a copy of the source; returns the report that was kept.

    The report is signed with `key`, where there is one.

    Raises:
        RefreshFileError: there is no folder for the report.
        RefreshError: refused or failed; the target's database is as it was.
        NotKeptError: it is done, and the report could not be written.
    """
    require_folder(reports)
    end = target_end(configuration.target.connection)
    run = time.strftime("%Y%m%d%H%M%S", time.gmtime())
    names = Names(configuration.target.database, run)
    with prepared(configuration) as ready, end.session() as session:
        cluster = TargetCluster(session, names, configuration.target.owner)
        with cluster.locked():
            search = _search(ready, configuration.allowed, watch)
            dropped = cluster.drop_left()
            with _new_database(cluster, names, ready):
                report = _build(configuration, ready, names, watch)
                had_one = cluster.take_place()
            kept = names.old if keep_old and had_one else None
            report = replace(
                report,
                dropped=dropped,
                kept=kept,
                allowed=search.allowed,
                allowed_unknown=search.unknown,
            )
            write_report(reports, report, key)
            if had_one and not keep_old:
                cluster.drop(names.old)
    return report


def _search(ready: Prepared, allowed: Collection[str], watch: Watch) -> Search:
    """Whether the schema tells what is masked; where nothing is, there is nothing to look for."""
    if not ready.is_masked:
        return Search()
    with watch.phase("search"):
        return require_none_told(ready.session, ready.hidden, allowed)


@contextmanager
def _new_database(cluster: TargetCluster, names: Names, ready: Prepared) -> Iterator[None]:
    """The new database; dropped unless all of what is done with it goes well."""
    try:
        cluster.create(ready.source.locale)
        yield
    except BaseException:
        cluster.drop(names.new)
        raise


def _build(configuration: Configuration, ready: Prepared, names: Names, watch: Watch) -> Report:
    """Fill the new database, and hold it against the source."""
    end = target_end(configuration.target.connection)
    running = Running(ready.programs)
    encoding = ready.source.locale.encoding
    source = ready.reading.endpoint(ready.session, encoding)
    with end.session(names.new) as session:
        target = end.endpoint(session, encoding)
        sections = Sections(
            ready.folder, ready.snapshot, source, target, running, configuration.jobs
        )
        try:
            rows, expected = _fill(ready, sections, session, watch)
            residue = _residue(ready, sections, session, rows, watch)
            _complete(ready, sections, session, watch)
        finally:
            running.end()
        with watch.phase("compare"):
            fingerprints = _compare(expected, session)
        says = set_environment(session, configuration.environment)
        report = _report(configuration, ready, names, session, rows, fingerprints, says, watch)
        return replace(report, raw_values=residue.counts, by_chance=residue.by_chance)


def _fill(
    ready: Prepared, sections: Sections, session: Session, watch: Watch
) -> tuple[Mapping[TableName, int], Schema]:
    """The schema's tables and their rows; returns the rows by table, and the schema to be."""
    with watch.phase("schema"):
        sections.dump()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_schema, ready.session)  # the source has nothing else to do
            sections.before_rows()
            expected = reading.result()
    with watch.phase("rows"):
        rows = _copy_rows(ready, sections, watch)
        copy_sequences(ready.session, session, ready.source)
    return rows, expected


def _complete(ready: Prepared, sections: Sections, session: Session, watch: Watch) -> None:
    """What is made over the rows."""
    if ready.large_objects:
        with watch.phase("large objects"):
            sections.large_objects()
    with watch.phase("constraints"):
        sections.over_rows()
    with watch.phase("statistics"):
        parents = ready.parents
        done = {table for stream in ready.streams for table in stream.analysed(parents)}
        sections.analyse(session, done)
    with watch.phase("views"):
        refresh_views(session, ready.source.refreshed)


def _copy_rows(ready: Prepared, sections: Sections, watch: Watch) -> Mapping[TableName, int]:
    """All streams; returns the rows by table."""
    tables = (table for table in ready.source.catalog.tables if not table.is_partitioned)
    rows, parents = Counter({table.name: 0 for table in tables}), ready.parents
    progress = Progress(ready.bytes, watch.tell, started=time.monotonic())

    def copied(stream: Stream) -> tuple[int, ...]:
        ends = (sections.source, sections.target)
        return copy_stream(
            stream, ready.snapshot, *ends, sections.running, stream.analysed(parents)
        )

    for stream, found in sections.side_by_side(copied, ready.streams):
        rows.update(_by_table(stream, found))
        progress.done(stream, sum(found), time.monotonic())
    return rows


def _residue(
    ready: Prepared,
    sections: Sections,
    session: Session,
    rows: Mapping[TableName, int],
    watch: Watch,
) -> Residue:
    """What of the source's raw values is in masked columns of the new database."""
    if not ready.is_masked:
        return Residue()
    with watch.phase("raw values"):
        catalog, ends = ready.source.catalog, (ready.session, session)
        return residue_of(ready.hidden, catalog, rows, sections, *ends)


def _by_table(stream: Stream, found: tuple[int, ...]) -> Counter[TableName]:
    rows: Counter[TableName] = Counter()
    for piece, number in zip(stream.pieces, found, strict=True):
        rows[piece.table] += number
    return rows


def _compare(expected: Schema, session: Session) -> Mapping[str, str] | None:
    """Hold the schema against the source's; returns its fingerprints."""
    session.execute(b"BEGIN")
    try:
        return require_same_schema(expected, read_schema(session))
    finally:
        session.rollback()


def _report(  # noqa: PLR0913, PLR0917 - a report is of everything
    configuration: Configuration,
    ready: Prepared,
    names: Names,
    session: Session,
    rows: Mapping[TableName, int],
    fingerprints: Mapping[str, str] | None,
    says: bool,  # noqa: FBT001 - one of many, and named
    watch: Watch,
) -> Report:
    source = ready.source
    return Report(
        run=names.run,
        mode=configuration.mode,
        environment=configuration.environment if says else None,
        source=ready.origin,
        target=replace(ready.target, database=names.database),
        rows={
            str(table): number for table, number in sorted(rows.items(), key=lambda i: str(i[0]))
        },
        bytes=ready.bytes,
        sequences=len(source.catalog.sequences),
        large_objects=ready.large_objects,
        materialized_views=tuple(map(str, source.refreshed)),
        left_out=ready.left_out,
        unused=ready.unused,
        constraints={_KINDS[row[0]]: row[1] for row in session.rows(_CONSTRAINTS)},
        not_valid=tuple(row[0] for row in session.rows(_NOT_VALID)),
        fingerprints=fingerprints,
        dropped=(),
        kept=None,
        seconds=watch.seconds,
    )
