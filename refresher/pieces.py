"""What is copied in one stream, and in which order. Pure.

A large table is cut into ranges of pages that streams copy side by side; small ones go one after
the other through the same stream, for each costs two connections. Large ones come first, so that
no stream is left alone with one at the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

from installer.quoting import quoted
from refresher.catalog import ExtensionTable, Source
from refresher.model import Column, Table, TableName

LARGE = 512 * 1024 * 1024
"""Bytes of a piece of a large table, at least: below that it is one piece, and can be frozen."""
MASKED = 32 * 1024 * 1024
"""The same where rows are masked: that takes the source longer than the target has to load them."""
SMALL = 8 * 1024 * 1024
"""Bytes up to which tables share a stream, and bytes of all of them in one."""
MOST = 100
"""Tables in one stream."""


class Condition(Protocol):
    """Which rows of a table are copied."""

    @property
    def rows(self) -> int:
        """How many it are."""

    @property
    def condition(self) -> str:
        """What follows WHERE."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table: what is selected on the source, and the columns that it goes into.

    `bytes` is an estimate of what it takes on disk. No columns: all of them. `part` has a condition
    that is large, and made when it is asked for. A piece that is `sole` is all that its table is
    to have, and one that is `plain` all that its table has: COPY reads the table, and no query.
    """

    table: TableName
    columns: tuple[str, ...]
    select: str
    bytes: int
    part: Condition | None = None
    sole: bool = False
    plain: bool = False

    @property
    def source(self) -> str:
        """What follows COPY on the source; a table takes it an eighth less than a query does."""
        if self.plain:
            return self.into
        return f"({self.select} WHERE {self.part.condition})" if self.part else f"({self.select})"

    @property
    def into(self) -> str:
        """The table and its columns, as COPY has them."""
        columns = ", ".join(map(quoted, self.columns))
        return f"{self.table.sql} ({columns})" if columns else self.table.sql


@dataclass(frozen=True, slots=True)
class Stream:
    """Pieces that go through one pair of programs, in their order.

    A binary stream has one piece only: psql reads a binary COPY to the end of its input.
    """

    pieces: tuple[Piece, ...]
    binary: bool

    @property
    def bytes(self) -> int:
        """What its pieces take, in bytes."""
        return sum(piece.bytes for piece in self.pieces)

    def analysed(self, parents: AbstractSet[TableName]) -> tuple[TableName, ...]:
        """The tables that are analysed as soon as their rows are there.

        Not `parents` of others: that reads the children, too, which another stream may hold.
        """
        whole = (piece.table for piece in self.pieces if piece.sole)
        return tuple(table for table in whole if table not in parents)


def streams(pieces: Iterable[Piece]) -> tuple[Stream, ...]:
    """The streams for all pieces, the largest first."""
    found: list[Stream] = []
    small: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.bytes, reverse=True):
        if piece.bytes > SMALL:
            found.append(Stream((piece,), binary=True))
            continue
        if small and (sum(p.bytes for p in small) + piece.bytes > SMALL or len(small) == MOST):
            found.append(Stream(tuple(small), binary=False))
            small = []
        small.append(piece)
    if small:
        found.append(Stream(tuple(small), binary=False))
    return tuple(found)


def whole(source: Source) -> tuple[Piece, ...]:
    """All rows of all tables. A partitioned table has none: its partitions are tables, too."""
    tables = (table for table in source.catalog.tables if not table.is_partitioned)
    own = (piece for table in tables for piece in pieces_of(table, source.pages[table.name]))
    return (*own, *map(_extension_piece, (t for t in source.extension_tables if not t.is_sequence)))


def pieces_of(
    table: Table, pages: int, expressions: Mapping[str, str] | None = None
) -> tuple[Piece, ...]:
    """A table in pieces of `LARGE` bytes, or `MASKED` ones, which its `pages` are divided into.

    `expressions` are what is selected for columns; without them, these are. The first piece has no
    lower bound and the last no upper one, so that every row is in one of them.
    """
    size = MASKED if expressions else LARGE
    count = min(max(1, table.bytes // size), max(1, pages))
    all_of_it = _piece(table, expressions)
    return tuple(
        replace(
            all_of_it,
            select=all_of_it.select + where,
            bytes=table.bytes // count,
            sole=count == 1,
            plain=count == 1 and not expressions,
        )
        for where in _ranges(pages, count)
    )


def parts_of(
    table: Table, parts: Sequence[Condition], expressions: Mapping[str, str] | None = None
) -> tuple[Piece, ...]:
    """Some of a table's rows, a piece for each of the parts that they come in."""
    piece, each = _piece(table, expressions), table.bytes / max(1, table.rows)
    return tuple(
        replace(piece, part=part, bytes=min(table.bytes, int(each * part.rows))) for part in parts
    )


def _piece(table: Table, expressions: Mapping[str, str] | None) -> Piece:
    columns = copied(table)
    names = tuple(column.name for column in columns)
    given = names if len(columns) < len(table.columns) else ()
    selected = (expressions[name] if expressions else quoted(name) for name in names)
    select = f"SELECT {', '.join(selected)} FROM ONLY {table.name.sql}"  # noqa: S608 - quoted
    return Piece(table.name, given, select, table.bytes)


def copied(table: Table) -> tuple[Column, ...]:
    """The columns that have values of their own: the target computes the generated ones."""
    return tuple(column for column in table.columns if not column.generated)


def _extension_piece(table: ExtensionTable) -> Piece:
    """The rows of an extension's table that are its user's."""
    selected = ", ".join(map(quoted, table.columns))
    select = f"SELECT {selected} FROM ONLY {table.name.sql} {table.condition}"  # noqa: S608 - quoted
    return Piece(table.name, table.columns, select, table.bytes)


def _ranges(pages: int, count: int) -> list[str]:
    """`count` conditions on ctid, which a TID range scan answers (PostgreSQL 14)."""
    cuts = [pages * number // count for number in range(1, count)]
    lower = ["", *(f"ctid >= '({cut},0)'" for cut in cuts)]
    upper = [*(f"ctid < '({cut},0)'" for cut in cuts), ""]
    both = (" AND ".join(filter(None, bounds)) for bounds in zip(lower, upper, strict=True))
    return [f" WHERE {bounds}" if bounds else "" for bounds in both]
