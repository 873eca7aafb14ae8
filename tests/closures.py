"""Small tables and foreign keys among them, and which rows a limited copy of them takes.

By the rules as refresher.subset states them, tried on all rows until nothing changes: slow, and
written apart from what it is compared with.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from refresher.closing import Packed
from refresher.limit import Follow, Limit, Reference, Subset
from refresher.model import Catalog, Column, ForeignKey, Table, TableName
from refresher.subset import Seed, Step

COLUMNS = ("a", "b", "c")
Row = tuple[int | None, ...]


def name(text: str) -> TableName:
    return TableName(*text.split(".")) if "." in text else TableName("public", text)


def table(text: str, partition_of: str | None = None, *, partitioned: bool = False) -> Table:
    columns = tuple(
        Column(column, "integer", "integer", None, False, False, False, False)  # noqa: FBT003
        for column in COLUMNS
    )
    above = name(partition_of) if partition_of else None
    return Table(name(text), columns, 0, 0, (), above, partitioned, ())


def key(child: str, columns: str, parent: str, referenced: str = "a") -> ForeignKey:
    constraint = f"{child}_{columns}_fkey"
    columns_of = tuple(columns), tuple(referenced)
    return ForeignKey(constraint, name(child), columns_of[0], name(parent), columns_of[1], True)  # noqa: FBT003


@dataclass(frozen=True)
class Toy:
    """Tables of a few rows, of columns a, b and c; asked as the source is."""

    rows: Mapping[TableName, list[Row]]

    def ask(self, question: Seed | Step, known: str | None) -> Iterator[Packed]:
        for number in self.found(question, known):
            block = number * 100
            yield question.target, block // 256, bytes([block % 256, 0, number + 1])

    def found(self, question: Seed | Step, known: str | None) -> list[int]:
        candidates = enumerate(self.rows[question.target])
        if isinstance(question, Seed):
            return [i for i, row in candidates if f"b = {row[1]}" == question.subset.where]
        own, key = self.rows[question.origin], question.key
        taken = own if known is None else [own[int(n) - 1] for n in re.findall(r",(\d+)\)", known)]
        if question.down:
            return [i for i, row in candidates if any(ties(key, row, there) for there in taken)]
        return [i for i, row in candidates if any(ties(key, here, row) for here in taken)]


def values(row: Row, columns: tuple[str, ...]) -> list[int | None]:
    return [row[COLUMNS.index(column)] for column in columns]


def ties(key: ForeignKey, child: Row, parent: Row) -> bool:
    found = values(child, key.columns)
    return None not in found and found == values(parent, key.referenced)


def until_nothing_changes(improve: Callable[[], int]) -> None:
    before = -1
    while before != (before := improve()):
        pass


Keys = Mapping[ForeignKey, bool | None]
Numbers = dict[TableName, set[int]]


def naive_reach(seeds: set[TableName], keys: Keys) -> set[TableName]:
    """Tables in which there may be a row that is chosen."""
    may, may_be_member = set(seeds), set(seeds)

    def improve() -> int:
        for key, follow in keys.items():
            if key.table in may:
                may.add(key.references)
            origin = {True: may, None: may_be_member, False: set[TableName]()}[follow]
            if key.references in origin:
                may.add(key.table)
                may_be_member.add(key.table)
        return len(may) + len(may_be_member)

    until_nothing_changes(improve)
    return may


def naive(toy: Toy, rules: Limit, keys: Keys) -> Numbers:
    """The rows chosen, by the rules as the docstring of refresher.subset has them."""
    whole = set(toy.rows) - naive_reach({name(rule.table) for rule in rules.subsets}, keys)
    chosen: Numbers = {t: set() for t in toy.rows}
    member: Numbers = {t: set() for t in toy.rows}
    if rules.rest_is_copied:
        chosen |= {t: set(range(len(toy.rows[t]))) for t in whole}
    for rule in rules.subsets:
        rows = enumerate(toy.rows[name(rule.table)])
        member[name(rule.table)] |= {i for i, row in rows if f"b = {row[1]}" == rule.where}
    tied = [
        (key, i, j)
        for key in keys
        for i, child in enumerate(toy.rows[key.table])
        for j, parent in enumerate(toy.rows[key.references])
        if ties(key, child, parent)
    ]

    def improve() -> int:
        for t, found in member.items():
            chosen[t] |= found
        for key, i, j in tied:
            if i in chosen[key.table]:
                chosen[key.references].add(j)
            origin: Numbers = {True: chosen, None: member, False: {}}[keys[key]]
            if j in origin.get(key.references, ()) and key.table not in whole:
                member[key.table].add(i)
        return sum(map(len, (*chosen.values(), *member.values())))

    until_nothing_changes(improve)
    return chosen


TABLES = tuple(name(f"t{number}") for number in range(4))
cells = st.sampled_from([None, 0, 1, 2, 3])
rows_of_a_table = st.lists(st.tuples(cells, cells, cells), min_size=2, max_size=6)
columns = st.sampled_from(["a", "b", "c", "ab", "bc", "ca"])


@st.composite
def foreign_keys(draw: st.DrawFn) -> Keys:
    """Keys among four tables, cycles and self-references with them, and whether to follow each."""
    found: dict[tuple[object, ...], tuple[ForeignKey, bool | None]] = {}
    for number in range(draw(st.integers(1, 6))):
        child, parent = draw(st.sampled_from(TABLES)), draw(st.sampled_from(TABLES))
        here = draw(columns)
        there = draw(st.sampled_from(["a", "b", "c"] if len(here) == 1 else ["ab", "bc", "ca"]))
        declared = draw(st.booleans())
        k = ForeignKey(
            f"k{number}", child, tuple(here), parent, tuple(there), nullable=True, declared=declared
        )
        follow = draw(st.sampled_from([None, None, True, False]))
        found[child, here, parent, there] = (k, follow)
    return dict(found.values())


def sound(toy: Toy, keys: Keys) -> Keys:
    """The keys, declared only where what they reference is unique, as a database demands it."""
    found: dict[ForeignKey, bool | None] = {}
    for k, follow in keys.items():
        there = [tuple(values(row, k.referenced)) for row in toy.rows[k.references]]
        known = [value for value in there if None not in value]
        found[replace(k, declared=k.declared and len(set(known)) == len(known))] = follow
    return found


def rules_for(toy: Toy, keys: Keys, seeds: set[TableName], *, rest: bool) -> Limit:
    """Members begin where b is 1, in tables that have such a row."""
    return Limit(
        subsets=tuple(Subset(str(t), "false") for t in seeds)
        + tuple(Subset(str(t), "b = 1") for t in seeds if any(r[1] == 1 for r in toy.rows[t])),
        references=tuple(
            Reference(str(k.table), k.columns, str(k.references), k.referenced, say)
            for k, say in keys.items()
            if not k.declared
        ),
        follows=tuple(
            Follow(str(k.table), k.name, say)
            for k, say in keys.items()
            if k.declared and say is not None
        ),
        rest_is_copied=rest,
    )


def catalog_of(keys: Keys) -> Catalog:
    declared = tuple(key for key in keys if key.declared)
    return Catalog(tuple(table(t.name) for t in TABLES), declared, ())


toys = st.tuples(*[rows_of_a_table] * len(TABLES)).map(
    lambda contents: Toy(dict(zip(TABLES, contents, strict=True)))
)
some_tables = st.sets(st.sampled_from(TABLES), min_size=1, max_size=2)
