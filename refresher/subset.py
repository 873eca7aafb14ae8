"""Which rows a limited copy takes: rules and foreign keys become questions to the source. Pure.

Every row that is copied is *chosen*. Some of the chosen are *members*: they belong to the subset
for their own sake, and not only because another row needs them.

- A row for which a `[[subset]]` says yes is a member.
- A row that a chosen row references is chosen: upwards, always, as the copy has to satisfy keys.
- A row that references a member is a member: downwards, unless its key has `follow = false`. With
  `follow = true`, a row is a member when it references any chosen row.
- Tables that none of this can reach, whatever rows they hold, are copied whole (`rest = "all"`,
  the default) or stay empty (`rest = "none"`). The rows of whole tables are chosen, and no members,
  so that what they reference comes along. The ledger is always copied whole.

So a customer of the subset brings its orders and their lines; the product that a line names comes
along, and the lines of other orders that name it do not. What is chosen is the least set for which
all of this holds, and it satisfies every foreign key: a key's rows are chosen in pairs. Other
constraints hold for any part of a table. A null references nothing, be it one of several columns.

Tables are those that hold rows: a rule or a key of a partitioned table is one of its partitions.
What inherits otherwise is a table of its own, as it is for foreign keys.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import Enum

from installer.quoting import quoted
from installer.settings import nearest
from refresher.errors import RefreshFileError
from refresher.limit import Follow, Limit, Reference, Subset
from refresher.model import Catalog, ForeignKey, Table, TableName

LEDGER = "countersign"
"""The schema that says which releases a database has."""


class Level(Enum):
    """What a row is to the subset; every member is chosen as well."""

    CHOSEN = "chosen"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Equality:
    """How a foreign key compares two columns: an operator, and a collation where it says one."""

    operator: str = "="
    collation: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one table that are at a level."""

    table: TableName
    level: Level


@dataclass(frozen=True, slots=True)
class Seed:
    """Asks for the rows of a subset: where the members begin."""

    subset: Subset
    table: TableName
    spread: bool

    @property
    def target(self) -> TableName:
        """The table whose rows it finds."""
        return self.table

    @property
    def level(self) -> Level:
        """What the rows found are."""
        return Level.MEMBER

    @property
    def query(self) -> str:
        """The SELECT, without parameters; its condition ends at the end of a line."""
        return _packed(_source(self.table, spread=self.spread), f"(\n{self.subset.where}\n)")


@dataclass(frozen=True, slots=True)
class Step:
    """Asks for the rows that a foreign key ties to rows of `origin`.

    `down`: from the referenced rows to those that reference them. `spread`: the rows found may be
    those of several partitions. `whole`: from all rows of `origin`, which holds nothing else.
    """

    key: ForeignKey
    equalities: tuple[Equality, ...]
    origin: TableName
    down: bool
    spread: bool = False
    whole: bool = False

    @property
    def level(self) -> Level:
        """What the rows found are."""
        return Level.MEMBER if self.down else Level.CHOSEN

    @property
    def target(self) -> TableName:
        """The table whose rows it finds."""
        return self.key.table if self.down else self.key.references

    @property
    def query(self) -> str:
        """The SELECT; `$1` is an array of the positions of known rows, unless `whole`."""
        referencing, referenced = ("found", "known") if self.down else ("known", "found")
        pairs = zip(self.key.columns, self.key.referenced, self.equalities, strict=True)
        conditions = [] if self.whole else ["known.ctid = ANY ($1::tid[])"]
        conditions += [
            f"{referenced}.{quoted(there)} {equality.operator} "
            f"{referencing}.{quoted(here)}{equality.collation}"
            for here, there, equality in pairs
        ]
        known = f"SELECT FROM ONLY {self.origin.sql} AS known WHERE {' AND '.join(conditions)}"
        found = f"{_source(self.target, spread=self.spread)} AS found"
        return _packed(found, f"EXISTS ({known})", "found.")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, and of which tables nothing has to be asked.

    `openings` are asked first, and once. `steps` says for rows that are new what to ask then.
    """

    openings: tuple[Seed | Step, ...]
    steps: Mapping[Rows, tuple[Step, ...]]
    limited: frozenset[TableName]
    whole: frozenset[TableName]
    empty: frozenset[TableName]

    def questions(self, rows: Rows) -> tuple[Step, ...]:
        """What to ask next when `rows` has new ones."""
        return self.steps.get(rows, ())


def plan(
    limit: Limit,
    catalog: Catalog,
    equalities: Mapping[tuple[TableName, str], tuple[Equality, ...]] | None = None,
) -> Plan:
    """The questions that find what `limit` chooses.

    `equalities` has, by table and name, how a foreign key compares its columns; others use `=`.

    Raises:
        RefreshFileError: a rule names a table, column or foreign key that there is not.
    """
    names = _Names(catalog)
    seeds = tuple(_seed(names, subset) for subset in limit.subsets)
    virtual = {_virtual(names, reference): reference.follow for reference in limit.references}
    keys = [*catalog.foreign_keys, *virtual]
    steps = _steps(names, keys, virtual | _followed(names, limit.follows, keys), equalities or {})

    begin = [Rows(leaf, seed.level) for seed in seeds for leaf in names.leaves[seed.table]]
    rest = names.holding - {rows.table for rows in _reach(names, steps, begin)}
    whole = rest if limit.rest_is_copied else {table for table in rest if table.schema == LEDGER}
    begin += [Rows(table, Level.CHOSEN) for table in sorted(whole, key=str)]
    reached = _reach(names, steps, begin)
    limited = {rows.table for rows in reached} - whole
    openings: tuple[Seed | Step, ...] = (*seeds, *_from_whole(names, steps, whole, limited))
    useful = {rows: _into(names, limited, steps[rows]) for rows in reached & steps.keys()}
    return Plan(
        openings=openings,
        steps=_without_returns(names, openings, useful),
        limited=frozenset(limited),
        whole=frozenset(whole),
        empty=frozenset(names.holding - limited - whole),
    )


class _Names:
    """The tables of a catalog, by the names that a configuration calls them."""

    def __init__(self, catalog: Catalog) -> None:
        self.tables: dict[TableName, Table] = {table.name: table for table in catalog.tables}
        self.by_text = {str(name): name for name in self.tables}
        self.holding = {name for name, table in self.tables.items() if not table.is_partitioned}
        self.leaves: dict[TableName, list[TableName]] = defaultdict(list)
        for name in self.holding:
            for above in self.lineage(name):
                self.leaves[above].append(name)

    def lineage(self, name: TableName) -> Iterator[TableName]:
        """The table, then what it is a partition of, and so on upwards."""
        above: TableName | None = name
        while above in self.tables:
            yield above
            above = self.tables[above].partition_of

    def spread(self, name: TableName) -> bool:
        """Whether its rows are those of its partitions."""
        return self.tables[name].is_partitioned

    def table(self, text: str, where: str) -> TableName:
        if text not in self.by_text:
            raise RefreshFileError(
                f"{where}: the source has no table {text!r}; {nearest(text, self.by_text)}"
            )
        return self.by_text[text]

    def require_columns(self, table: TableName, columns: Iterable[str], where: str) -> None:
        known = [column.name for column in self.tables[table].columns]
        for column in columns:
            if column not in known:
                raise RefreshFileError(
                    f"{where}: {table} has no column {column!r}; {nearest(column, known)}"
                )


def _seed(names: _Names, subset: Subset) -> Seed:
    table = names.table(subset.table, "[[subset]]")
    return Seed(subset, table, names.spread(table))


def _virtual(names: _Names, reference: Reference) -> ForeignKey:
    where = f"[[reference]] of {reference.table}"
    table = names.table(reference.table, where)
    references = names.table(reference.references, where)
    names.require_columns(table, reference.columns, where)
    names.require_columns(references, reference.referenced, where)
    return ForeignKey(
        name=f"reference to {references}",
        table=table,
        columns=reference.columns,
        references=references,
        referenced=reference.referenced,
        nullable=True,
        declared=False,
    )


def _followed(
    names: _Names, follows: Sequence[Follow], keys: Sequence[ForeignKey]
) -> dict[ForeignKey, bool | None]:
    """What was said of keys; of one by its name it counts for more than of all of its table."""
    said: dict[ForeignKey, bool | None] = {}
    for rule in sorted(follows, key=lambda rule: rule.name is not None):
        table = names.table(rule.table, "[[foreign_key]]")
        own = {key.name: key for key in keys if key.table == table and key.declared}
        if rule.name is not None and rule.name not in own:
            raise RefreshFileError(
                f"[[foreign_key]]: {table} has no foreign key {rule.name!r}; "
                f"{nearest(rule.name, own) if own else 'it has none'}"
            )
        said |= {key: rule.follow for name, key in own.items() if rule.name in {None, name}}
    return said


def _steps(
    names: _Names,
    keys: Iterable[ForeignKey],
    follow: Mapping[ForeignKey, bool | None],
    equalities: Mapping[tuple[TableName, str], tuple[Equality, ...]],
) -> dict[Rows, list[Step]]:
    """What each key asks, of the rows that it is asked for."""
    steps: dict[Rows, list[Step]] = defaultdict(list)
    for key in keys:
        compared = (Equality(),) * len(key.columns)
        if key.declared:
            compared = equalities.get((key.table, key.name), compared)
        up = Step(key, compared, key.table, down=False, spread=names.spread(key.references))
        for leaf in names.leaves[key.table]:
            steps[Rows(leaf, Level.CHOSEN)].append(replace(up, origin=leaf))
        if follow.get(key) is False:
            continue
        down = Step(key, compared, key.references, down=True, spread=names.spread(key.table))
        begin = Level.CHOSEN if follow.get(key) else Level.MEMBER
        for leaf in names.leaves[key.references]:
            steps[Rows(leaf, begin)].append(replace(down, origin=leaf))
    return steps


def _reach(
    names: _Names, steps: Mapping[Rows, Sequence[Step]], begin: Collection[Rows]
) -> set[Rows]:
    """Everything that may hold chosen rows, when these may."""
    reached: set[Rows] = set()
    ahead = list(begin)
    while ahead:
        rows = ahead.pop()
        if rows in reached:
            continue
        reached.add(rows)
        if rows.level is Level.MEMBER:
            ahead.append(Rows(rows.table, Level.CHOSEN))
        for step in steps.get(rows, ()):
            ahead += [Rows(leaf, step.level) for leaf in names.leaves[step.target]]
    return reached


def _into(
    names: _Names, limited: AbstractSet[TableName], steps: Iterable[Step]
) -> tuple[Step, ...]:
    """The steps that can find a row which is not chosen anyway."""
    return tuple(step for step in steps if not limited.isdisjoint(names.leaves[step.target]))


def _from_whole(
    names: _Names,
    steps: Mapping[Rows, Sequence[Step]],
    whole: Iterable[TableName],
    limited: AbstractSet[TableName],
) -> Iterator[Step]:
    """What the rows of tables that are copied whole bring along."""
    for table in sorted(whole, key=str):
        for step in _into(names, limited, steps.get(Rows(table, Level.CHOSEN), ())):
            yield replace(step, whole=True)


def _without_returns(
    names: _Names, openings: Iterable[Seed | Step], steps: Mapping[Rows, tuple[Step, ...]]
) -> dict[Rows, tuple[Step, ...]]:
    """The steps but for those up a key where rows are only ever found down that very key.

    The one row that such a row references is where it was found from: asking finds nothing new.
    A key that is not declared may reference several rows, so that it is asked.
    """
    ways: dict[TableName, set[ForeignKey | None]] = defaultdict(set)
    for question in (*openings, *(step for found in steps.values() for step in found)):
        down = None
        if isinstance(question, Step) and question.down and question.key.declared:
            down = question.key
        for leaf in names.leaves[question.target]:
            ways[leaf].add(down)
    left = {
        rows: tuple(step for step in found if step.down or ways[rows.table] != {step.key})
        for rows, found in steps.items()
    }
    return left if left == steps else _without_returns(names, openings, left)


def _source(table: TableName, *, spread: bool) -> str:
    return table.sql if spread else f"ONLY {table.sql}"


def _packed(source: str, condition: str, prefix: str = "") -> str:
    """The positions of the rows for which `condition` is true, as `RowSet.add` reads them."""
    position = f"tidsend({prefix}ctid)"
    return (
        f"SELECT {prefix}tableoid, substring({position}, 1, 3), "  # noqa: S608 - names are quoted
        f"string_agg(substring({position}, 4, 3), '') "
        f"FROM {source} WHERE {condition} GROUP BY 1, 2"
    )
