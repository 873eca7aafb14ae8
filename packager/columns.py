"""Which columns scripts leave behind, and where each was given its name.

Pure, and knows no SQL: packager.sqlcolumns reads the statements and plays them on `Tables`, in the
order of the release, so that what a later script drops or renames is not told.

A name without a schema may mean any schema's table of that name, and is taken to. A table that no
script has made has columns that are not known here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from packager.locks import Name

OTHERS = ""
"""Stands for the columns of a table that are not known here."""

TEMPORARY = "pg_temp"
"""The schema of temporary tables."""

Place = tuple[int, int]
"""The number of a script, and a line in it; both are for sorting, too."""


class Added(NamedTuple):
    """A column that a script gave its name, or its table; a plain tuple for `countersign.checks`.

    `schema` is "" where the statement names none, `column` is "" for all that are not known.
    """

    script: str
    line: int
    schema: str
    table: str
    column: str


@dataclass(slots=True, eq=False)
class _Table:
    """A table's columns, each with the place to be told, which is None in a released script.

    `generated` columns are computed from others. What is not `copied` is a temporary or foreign
    table, a view, or a partition, which is what its partitioned table is.
    """

    columns: dict[str, Place | None] = field(default_factory=dict)
    generated: set[str] = field(default_factory=set)
    parents: list["_Table"] = field(default_factory=list)
    copied: bool = True


class Tables:
    """The tables that the statements played so far have left. Each method plays one.

    `place` is where the statement is, or None if the script is released.
    """

    def __init__(self) -> None:
        self._tables: dict[Name, _Table] = {}

    def has(self, name: Name, column: str | None = None) -> bool:
        """Whether a table is known, or a column of it."""
        key = self._key(name)
        return key is not None and (column is None or column in self._tables[key].columns)

    def make(self, name: Name, *, copied: bool = True) -> None:
        """Make a table, or what else is a relation, without columns."""
        self._tables[name] = _Table(copied=copied)

    def add(
        self, name: Name, columns: Iterable[str], place: Place | None, *, generated: bool = False
    ) -> None:
        """Add columns to a table, and to those that inherit from it; or change what they are."""
        for table in self._family(name):
            for column in columns:
                table.columns[column] = place
                (table.generated.add if generated else table.generated.discard)(column)

    def add_like(
        self, name: Name, other: Name, place: Place | None, *, generated: bool = True
    ) -> None:
        """Add the columns of another table; those that are `generated` may become plain ones."""
        table, known = self._table(name), self._table(other)
        table.columns |= dict.fromkeys(known.columns, place)
        table.generated |= known.generated if generated else set()

    def inherit(self, name: Name, parent: Name, place: Place | None, *, part: bool) -> None:
        """Have a table the columns of its parent, as a partition of it or not."""
        child = self._table(name)
        known = child.columns
        self.add_like(name, parent, place)
        child.columns |= known
        child.parents.append(self._table(parent))
        child.copied &= not part

    def detach(self, name: Name, parent: Name, place: Place | None) -> None:
        """Part a table from its parent; what was a partition is a table with rules of its own."""
        child, above = self._table(name), self._table(parent)
        child.parents = [table for table in child.parents if table is not above]
        if not child.copied:
            child.columns = dict.fromkeys(child.columns, place)
            child.copied = True

    def rename_column(self, name: Name, old: str, new: str, place: Place | None) -> None:
        """Give a column another name, in what inherits it too."""
        for table in self._family(name):
            table.columns.pop(old, None)
            table.columns[new] = place
            if old in table.generated:
                table.generated ^= {old, new}

    def drop_column(self, name: Name, column: str) -> None:
        """Drop a column, from what inherits it too."""
        for table in self._family(name):
            table.columns.pop(column, None)

    def move(self, old: Name, new: Name, place: Place | None) -> None:
        """Give a table another name or schema; one without a schema stays in its own."""
        table = self._table(old)
        key = self._key(old) or old
        del self._tables[key]
        table.columns = dict.fromkeys(table.columns, place)
        self._tables[new[0] or key[0], new[1]] = table

    def drop(self, name: Name) -> None:
        """Drop a table, and what inherits from it: it cannot stay."""
        if self.has(name):
            gone = self._family(name)
            self._tables = {key: t for key, t in self._tables.items() if t not in gone}

    def in_schema(self, schema: str) -> list[Name]:
        """The tables that are known to be in a schema."""
        return [name for name in self._tables if name[0] == schema]

    def added(self, scripts: Sequence[str]) -> Iterator[Added]:
        """The columns that have a place, in its order; `scripts` are the names, by number."""
        found = [
            (place, name, column)
            for name, table in self._tables.items()
            for column, place in table.columns.items()
            if table.copied and place and column not in table.generated
        ]
        for (number, line), name, column in sorted(found, key=lambda each: each[0]):
            yield Added(scripts[number], line, *name, column)

    def _key(self, name: Name) -> Name | None:
        """The name under which a table is known; a temporary one comes last."""
        schema, table = name
        if name in self._tables:
            return name
        if schema:
            return ("", table) if ("", table) in self._tables else None
        found = [known for known in self._tables if known[1] == table]
        return min(found, key=lambda known: known[0] == TEMPORARY, default=None)

    def _table(self, name: Name) -> _Table:
        key = self._key(name)
        if key is None:
            self._tables[name] = _Table({OTHERS: None})
        return self._tables[key or name]

    def _family(self, name: Name) -> list[_Table]:
        """A table, and all that inherit from it."""
        family = [self._table(name)]
        for table in family:  # which grows meanwhile
            family += [
                below
                for below in self._tables.values()
                if table in below.parents and below not in family
            ]
        return family
