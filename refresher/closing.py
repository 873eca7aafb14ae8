"""Asks the source which rows a limited copy takes, and says so to the copying worker.

No key leaves the source, and no other value of a row: what travels is where rows are, six bytes
for each (`refresher.rowset`). A chunk of known positions goes to the source as one bound array,
the server joins along the foreign key, and positions come back. Nothing is made there, not even a
temporary object: a question is a cursor, within the transaction whose snapshot the copy is of.

A position holds for every session that has the same snapshot, for as long as this transaction is
open: the snapshot keeps each row where it is, and the lock that reading a table takes keeps the
table from being rewritten. So that transaction has to outlive the workers.

The worker then selects by `ctid = ANY (…)`, an array of some 100,000 positions in a condition of
its own (`Part.condition`): digits and punctuation only, no value of a row, nothing to quote.
Through two psql, 1,000,000 rows of pgbench's accounts take 1.6 s, and 100,000 of them, by their
positions, 0.45 s (PostgreSQL 15, two cores).

Memory: of the rows one bit on disk, here what a fetch brings (at most 32 segments of 224 KB), and
a chunk of positions as text. The server sorts six bytes for each row that one question finds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer.session import ServerError, Session
from refresher.errors import SubsetError
from refresher.limit import Limit
from refresher.model import Catalog, TableName
from refresher.rowset import Chunk, RowSet
from refresher.subset import Equality, Level, Plan, Rows, Seed, Step, plan

Packed = tuple[TableName, int, bytes]
"""Rows that were found: their table, the segment, and the positions in it."""
Ask = Callable[[Seed | Step, str | None], Iterable[Packed]]
"""What a question finds, from an array of known positions where it takes one."""

FETCHED = 32
"""Segments that come from the server at a time."""

_SETTINGS = b"""
SET LOCAL jit = off; SET LOCAL cursor_tuple_fraction = 1
"""

# Which operators a key compares with is in pg_constraint: the `=` of an extension's type is in no
# search_path. The collation is the referenced column's, as for the server's own triggers.
_EQUALITIES = """
SELECT n.nspname, c.relname, k.conname, array_agg(
    format('OPERATOR(%I.%s)', s.nspname, o.oprname) ORDER BY u.place
), array_agg(
    CASE WHEN there.attcollation <> here.attcollation AND there.attcollation <> 0
        THEN format(' COLLATE %I.%I', cs.nspname, co.collname) ELSE '' END ORDER BY u.place
)
FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace,
unnest(k.conpfeqop, k.conkey, k.confkey) WITH ORDINALITY AS u (operator, here, there, place)
JOIN pg_operator AS o ON o.oid = u.operator JOIN pg_namespace AS s ON s.oid = o.oprnamespace
JOIN pg_attribute AS here ON here.attnum = u.here
JOIN pg_attribute AS there ON there.attnum = u.there
LEFT JOIN pg_collation AS co ON co.oid = there.attcollation
LEFT JOIN pg_namespace AS cs ON cs.oid = co.collnamespace
WHERE k.contype = 'f' AND here.attrelid = k.conrelid AND there.attrelid = k.confrelid
    AND u.place <= cardinality(k.conkey)  -- without what has PERIOD: see catalog.sql
        - coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)::integer
GROUP BY k.oid, n.nspname, c.relname, k.conname
"""

# Of other kinds of storage nothing is known of what a position means.
_TABLES = """
SELECT c.oid, n.nspname, c.relname, coalesce(m.amname, 'foreign')
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_am AS m ON m.oid = c.relam
WHERE c.relkind IN ('r', 'f')
"""


@dataclass(frozen=True, slots=True)
class Part:
    """At most some 170,000 of the chosen rows of a table: `rows` of them."""

    chosen: RowSet
    table: TableName
    chunk: Chunk

    @property
    def rows(self) -> int:
        """How many rows it are."""
        return self.chunk.count

    @property
    def condition(self) -> str:
        """What follows WHERE to select them: made when it is asked for, of 12 bytes for a row."""
        array = self.chosen.array(Rows(self.table, Level.CHOSEN), self.chunk)
        # Where a scan is cheaper than a fetch for each row, it is one of these blocks only.
        first, last = self.chunk.blocks
        bounds = f"ctid >= '({first},0)' AND ctid <= '({last},65535)'"
        return f"{bounds} AND ctid = ANY ('{array}'::pg_catalog.tid[])"


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that are chosen, while the context is open that it comes from."""

    plan: Plan
    chosen: RowSet

    def count(self, table: TableName) -> int | None:
        """How many of its rows are copied; None where all are, however many."""
        if table in self.plan.whole:
            return None
        return self.chosen.count(Rows(table, Level.CHOSEN))

    def parts(self, table: TableName) -> tuple[Part, ...] | None:
        """The rows of a table that are copied; None where all are, no part where none is."""
        if table in self.plan.whole:
            return None
        chunks = self.chosen.chunks(Rows(table, Level.CHOSEN))
        return tuple(Part(self.chosen, table, chunk) for chunk in chunks)


@contextmanager
def selected(session: Session, limit: Limit, catalog: Catalog, folder: Path) -> Iterator[Selection]:
    """What `limit` chooses in the snapshot of the transaction that `session` has open.

    `folder` is for a temporary file, of two bits for each row that a touched block can hold.

    Raises:
        RefreshFileError: a rule names a table, column or foreign key that there is not.
        SubsetError: the source refused a question, or a subset has no row.
    """
    session.execute(_SETTINGS)
    source = _Source(session)
    to_ask = plan(limit, catalog, source.equalities())
    with RowSet(folder, int(session.one("SHOW block_size"))) as rows:
        close(to_ask, rows, source.ask)
        yield Selection(to_ask, rows)


def close(to_ask: Plan, rows: RowSet, ask: Ask) -> None:
    """Ask until no row is new: the least set that `to_ask` allows.

    Raises:
        SubsetError: a subset has no row.
    """
    for question in to_ask.openings:
        found = _keep(to_ask, rows, question, ask(question, None))
        if isinstance(question, Seed) and not found and not question.subset.is_nothing:
            raise SubsetError(
                f"[[subset]] of {question.table}: no row has {question.subset.where}",
                detail='Where none is meant, say so: where = "false".',
            )
    while new := rows.fullest():
        if not (questions := to_ask.questions(new)):
            rows.leave(new)
            continue
        known = rows.take(new)
        for step in questions:
            _keep(to_ask, rows, step, ask(step, known))


def _keep(to_ask: Plan, rows: RowSet, question: Seed | Step, found: Iterable[Packed]) -> int:
    """Add what was found, but for tables that are copied whole; how many segments it was."""
    segments = 0
    for table, segment, packed in found:
        segments += 1
        if table not in to_ask.whole:
            rows.add(Rows(table, question.level), segment, packed)
    return segments


class _Source:
    """The source, asked through the session that holds its snapshot."""

    def __init__(self, session: Session) -> None:
        self._session = session
        tables = session.rows(_TABLES)
        self._names = {oid: TableName(schema, name) for oid, schema, name, _ in tables}
        self._storage = {oid: storage for oid, _, _, storage in tables}

    def equalities(self) -> Mapping[tuple[TableName, str], tuple[Equality, ...]]:
        """How each foreign key compares, by its table and its name."""
        return {
            (TableName(schema, table), key): tuple(map(Equality, operators, collations))
            for schema, table, key, operators, collations in self._session.rows(_EQUALITIES)
        }

    def ask(self, question: Seed | Step, known: str | None) -> Iterator[Packed]:
        """What `question` finds, fetched as it is read.

        Raises:
            SubsetError: the server refused it.
        """
        # One statement, whatever a condition holds, as it has parameters, be they none.
        query = f"DECLARE found NO SCROLL CURSOR FOR {question.query}"
        try:
            self._session.execute(query.encode(), [] if known is None else [known.encode()])
            while found := self._session.rows(f"FETCH {FETCHED} FROM found"):
                for oid, segment, packed in found:
                    yield self._table(oid), int.from_bytes(segment, "big"), packed
            self._session.execute(b"CLOSE found")
        except ServerError as error:
            raise SubsetError(f"{_described(question)}: the source says: {error}") from None

    def _table(self, oid: int) -> TableName:
        if self._storage[oid] != "heap":
            raise SubsetError(
                f"{self._names[oid]} is a {self._storage[oid]} table: which of its rows are chosen "
                "cannot be kept"
            )
        return self._names[oid]


def _described(question: Seed | Step) -> str:
    if isinstance(question, Seed):
        return f"[[subset]] of {question.table}, where {question.subset.where}"
    key = question.key
    if key.declared:
        return f"foreign key {key.name} of {key.table}"
    return f"[[reference]] of {key.table} to {key.references}"
