"""What is known before anything is written: both sides, and what of the source is copied.

Opens the source in the one transaction whose snapshot is copied, and the target read only. Refuses
the wrong way round, and lists at once what the target lacks.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from installer.session import ServerError, Session
from refresher.catalog import Source, read_source
from refresher.classification import unused
from refresher.clients import Programs, find_programs
from refresher.closing import Selection
from refresher.closing import selected as rows_selected
from refresher.configuration import Configuration
from refresher.ends import End, source_end, target_end
from refresher.errors import NotReadyError, UnclassifiedError
from refresher.hidden import Hidden, hidden
from refresher.identity import identity_of
from refresher.keyed import KEY_SETTING
from refresher.masking import Selected, read_key, selected
from refresher.model import TableName
from refresher.pieces import Piece, Stream, parts_of, pieces_of, streams, whole
from refresher.rules import Rules
from refresher.safeguards import Identity, require_right_way
from refresher.target import Names, TargetCluster
from refresher.workplace import workplace

BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_AT_ONCE = 500
"""Tables that one statement locks."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run starts from; `session` holds the source's snapshot and locks while it is open.

    `reading` is how its programs connect to the source, `folder` a private one that is temporary.
    """

    session: Session
    snapshot: str
    source: Source
    origin: Identity
    target: Identity
    target_exists: bool
    streams: tuple[Stream, ...]
    programs: Programs
    reading: End
    folder: Path
    rules: Rules

    @property
    def is_masked(self) -> bool:
        """Whether rows go through masks; what has no rows then stays behind, as `left_out` says."""
        return KEY_SETTING in self.reading.options

    @property
    def hidden(self) -> tuple[Hidden, ...]:
        """What masks hide."""
        return hidden(self.source.catalog, self.rules)

    @property
    def large_objects(self) -> int:
        """How many large objects are copied."""
        return 0 if self.is_masked else self.source.large_objects

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the source is not copied."""
        if not self.is_masked:
            return self.source.left_out
        tables = (table for table in self.source.extension_tables if not table.is_sequence)
        more = [f"rows of the extension's table {table.name}" for table in tables]
        if self.source.large_objects:
            more.append(f"{self.source.large_objects} large objects")
        return (*self.source.left_out, *more)

    @property
    def unused(self) -> tuple[str, ...]:
        """Rules for what the source does not have."""
        return tuple(unused(self.source.catalog, self.rules))

    @property
    def parents(self) -> frozenset[TableName]:
        """Tables that others inherit from."""
        return frozenset(above for table in self.source.catalog.tables for above in table.parents)

    @property
    def bytes(self) -> int:
        """What all rows take on the source's disk, about."""
        return sum(stream.bytes for stream in self.streams)


@contextmanager
def prepared(configuration: Configuration) -> Iterator[Prepared]:
    """Both sides as they are, while the source's snapshot is held.

    Raises:
        WrongWayError: the target may not be written.
        NotReadyError: it lacks roles, extensions, or this machine lacks programs.
        SourceError, TargetError: a server cannot be reached, or refuses to be read.
    """
    end = source_end(configuration.source)
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        session = stack.enter_context(end.session())
        session.execute(BEGIN)
        snapshot = str(session.one("SELECT pg_catalog.pg_export_snapshot()"))
        origin = identity_of(session)
        target, exists, major = _target(configuration, origin)
        source = read_source(session)
        _require_ready(configuration, source, session.major, major)
        programs = find_programs(major, configuration.programs)
        _lock(session, source)
        pieces = whole(source)
        if configuration.mode == "masked":
            pieces = _chosen(configuration, session, source, folder, stack)
        yield Prepared(
            session=session,
            snapshot=snapshot,
            source=source,
            origin=origin,
            target=target,
            target_exists=exists,
            streams=streams(pieces),
            programs=programs,
            reading=_reading(configuration, end),
            folder=folder,
            rules=configuration.rules,
        )


def _chosen(
    configuration: Configuration, session: Session, source: Source, folder: Path, stack: ExitStack
) -> tuple[Piece, ...]:
    """The rows that the limit chooses, masked; an extension's rows are not copied."""
    masks = selected(source.catalog, configuration.rules)
    _require_planned(session, masks)
    rows: Selection | None = None
    if (limit := configuration.limit) is not None:
        rows = stack.enter_context(rows_selected(session, limit, source.catalog, folder))
    found: list[Piece] = []
    for table in source.catalog.tables:
        if table.is_partitioned:
            continue
        parts, columns = rows.parts(table.name) if rows else None, masks.get(table.name)
        if parts is None:
            found += pieces_of(table, source.pages[table.name], columns)
        else:
            found += parts_of(table, parts, columns)
    return tuple(found)


def _require_planned(session: Session, masks: Selected) -> None:
    """Let the source plan what it is to select: that reads no row, and finds what is wrong in SQL.

    Raises:
        UnclassifiedError: an expression or a constant in refresh.toml is none.
    """
    for table, columns in masks.items():
        chosen = ", ".join(columns.values())
        query = f"EXPLAIN SELECT {chosen} FROM ONLY {table.sql}"  # noqa: S608 - that is what we ask
        try:
            session.execute(query.encode(), [])  # with parameters, be they none: one statement
        except ServerError as error:
            raise UnclassifiedError(f"{table}: the source says: {error}") from None


def _reading(configuration: Configuration, end: End) -> End:
    """The source as programs connect to it: in masked mode with the key, as a start-up option."""
    if configuration.key is None:
        return end
    return replace(end, options={**end.options, KEY_SETTING: read_key(configuration.key)})


def _target(configuration: Configuration, origin: Identity) -> tuple[Identity, bool, int]:
    """What the target is, whether its database is there, and its server's major version."""
    end, database = target_end(configuration.target.connection), configuration.target.database
    with end.session(default_transaction_read_only="on") as cluster:
        major, exists = (
            cluster.major,
            TargetCluster(cluster, Names(database, ""), "").exists(database),
        )
        found = identity_of(cluster)
    target = replace(found, database=database, environment=None, releases={})
    if exists:
        with end.session(database, default_transaction_read_only="on") as session:
            target = identity_of(session)
    require_right_way(origin, target, configuration.environment, target_exists=exists)
    return target, exists, major


def _require_ready(
    configuration: Configuration, source: Source, source_major: int, major: int
) -> None:
    if source.unreadable:
        raise NotReadyError(
            "the source's login role does not see everything",
            detail="\n".join(f"  {what}" for what in source.unreadable),
        )
    lacking: list[str] = []
    if major < source_major:
        lacking.append(f"PostgreSQL {source_major} or newer: the target's server has {major}")
    end = target_end(configuration.target.connection)
    with end.session(default_transaction_read_only="on") as session:
        cluster = TargetCluster(session, Names(configuration.target.database, ""), "")
        roles = tuple({*source.roles, configuration.target.owner})
        lacking += [f"the role {role}" for role in cluster.lacking_roles(roles)]
        extensions = cluster.lacking_extensions(source.extensions)
        lacking += [f"the extension {extension}" for extension in extensions]
    if lacking:
        lines = "\n".join(f"  {what}" for what in sorted(lacking))
        raise NotReadyError("the target's cluster lacks what the source has", detail=lines)


def _lock(session: Session, source: Source) -> None:
    """Hold off whoever would change a table while it is copied; readers and writers go on."""
    names = [table.name for table in source.catalog.tables]
    for start in range(0, len(names), _AT_ONCE):
        tables = ", ".join(f"ONLY {name.sql}" for name in names[start : start + _AT_ONCE])
        session.execute(f"LOCK TABLE {tables} IN ACCESS SHARE MODE".encode())
