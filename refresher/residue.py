"""How many values of a masked column are raw ones: counted on the target, with the source's help.

The source sends a digest for each raw value of a column, whatever of the table is copied, into a
temporary table of the target's session. There it is held against the same digest of what arrived.
Digests go from psql to psql, as rows do, and this process sees numbers only.

They are keyed with a seed that is made for one run, kept nowhere, and known to no user of the
target: it is a setting of both sessions, by start-up option, and is in no text of SQL.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from installer.session import Session
from refresher import digests
from refresher.digests import Comparison, Digested, form
from refresher.errors import RawValueError
from refresher.hidden import Hidden
from refresher.keyed import KEY_SETTING
from refresher.model import Catalog, Table, TableName
from refresher.pieces import Piece, Stream, streams
from refresher.sections import Sections
from refresher.stream import pass_on

NEVER_RAW = frozenset({"hash", "email", "phone", "null"})
"""Classes whose masks are no raw values, but by a wrong rule."""
FEW = 0.1
"""Distinct values per row, up to which a column is sent without what is there twice."""

_OPTIONS = {
    "search_path": "pg_catalog",
    "jit": "off",
    "row_security": "off",
    "TimeZone": "UTC",  # this and the next: both sides write a value alike
    "lc_monetary": "C",
}
_IN_CACHE = {"work_mem": "8MB", "hash_mem_multiplier": "1"}
"""A hash join in small batches: of two million digests it takes half as long as in one."""
_REPEATING = """
SELECT s.schemaname, s.tablename, s.attname
FROM pg_catalog.pg_stats AS s JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schemaname
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
WHERE s.inherited = (c.relkind = 'p') AND c.reltuples > 0 AND %s >=
    CASE WHEN s.n_distinct < 0 THEN -s.n_distinct ELSE s.n_distinct / c.reltuples END
"""
_COUNT = re.compile(r"^(\d+)=(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Residue:
    """How many values of each masked column are raw ones, by its name, and sentences about them."""

    counts: Mapping[str, int] = field(default_factory=dict)
    by_chance: tuple[str, ...] = ()


def residue_of(  # noqa: PLR0913, PLR0917 - both ends, as what asks and as what copies
    places: Sequence[Hidden],
    catalog: Catalog,
    rows: Mapping[TableName, int],
    sections: Sections,
    source: Session,
    target: Session,
) -> Residue:
    """Count the values of each place on the target that are raw ones of it on the source.

    `rows` are those that tables have on the target.

    Raises:
        RawValueError: there are some where a mask cannot be one; `detail` has the numbers.
        CopyError: a server refused; where a session asked it, that is a ServerError.
    """
    is_alike = source.one(digests.KNOWN) == target.one(digests.KNOWN)
    digest = digests.quick if is_alike else digests.portable
    repeating = {tuple(row) for row in source.rows(_REPEATING, [FEW])}
    told = [place for place in places if place.rule.kind != "null" or _has_values(target, place)]
    seeded = _seeded(sections)
    few = {place for place in told if _is_few(place, repeating)}
    first = [
        Digested(place, digest(place.value if place in few else form(place)), few=True)
        for place in told
        if place in few or form(place)
    ]
    met = _compared(first, catalog, seeded)
    rest = [
        Digested(place, digest(place.value), few=False)
        for place in told
        if place not in few and met.get(place, 1)
    ]
    known = {place: met[place] for place in few}
    counts = {**dict.fromkeys(places, 0), **known, **_compared(rest, catalog, seeded)}
    _require_no_raw_values(counts)
    return Residue(
        counts={str(place): count for place, count in counts.items()},
        by_chance=tuple(
            _sentence(place, count, _in_all(place.table, catalog, lambda t: rows.get(t.name, 0)))
            for place, count in counts.items()
            if count
        ),
    )


def _require_no_raw_values(counts: Mapping[Hidden, int]) -> None:
    wrong = [
        f"{place} ({place.rule.kind}): {count}"
        for place, count in counts.items()
        if place.rule.kind in NEVER_RAW and count
    ]
    if wrong:
        raise RawValueError("masked columns hold raw values", detail="\n".join(wrong))


def _sentence(place: Hidden, count: int, rows: int) -> str:
    why = "let through by its SQL" if place.rule.kind == "sql" else "by chance"
    return f"{place} ({place.rule.kind}): {count} in {rows} rows, {why}"


def _seeded(sections: Sections) -> Sections:
    """The ends with a seed; the key of the masks is not for these sessions."""
    seed = str(secrets.randbits(digests.SEED_BITS))
    options = {digests.SEED_SETTING: seed, **_OPTIONS}
    source, target = sections.source, sections.target
    keyless = {name: value for name, value in source.options.items() if name != KEY_SETTING}
    return replace(
        sections,
        source=replace(source, options={**keyless, **options}),
        target=replace(target, options={**target.options, **options, **_IN_CACHE}),
    )


def _has_values(target: Session, place: Hidden) -> bool:
    rows = f"SELECT FROM {place.rows} WHERE {place.value} IS NOT NULL"
    return bool(target.one(f"SELECT EXISTS ({rows})"))


def _is_few(place: Hidden, repeating: set[tuple[str, ...]]) -> bool:
    table = place.table.name
    return (table.schema, table.name, place.column.name) in repeating


def _compared(
    digested: Sequence[Digested], catalog: Catalog, sections: Sections
) -> Mapping[Hidden, int]:
    """How many rows of places have a digest that the source sent."""
    by_name = {comparison.name: comparison for comparison in _comparisons(digested)}
    pieces = (_piece(comparison, catalog) for comparison in by_name.values())

    def compared(stream: Stream) -> str:
        own = [by_name[piece.table] for piece in stream.pieces]
        number = min(own[0].columns)
        before, after = (sections.folder / f"{number}-{when}.sql" for when in ("before", "after"))
        before.write_text("".join(comparison.made for comparison in own), encoding="utf-8")
        after.write_text("".join(comparison.counted for comparison in own), encoding="utf-8")
        ends = (sections.source, sections.target, sections.running)
        return pass_on(stream, sections.snapshot, *ends, before=before, after=after)

    said = "".join(words for _, words in sections.side_by_side(compared, streams(pieces)))
    found = ((digested[int(number)].place, int(count)) for number, count in _COUNT.findall(said))
    return dict(found)


def _comparisons(digested: Iterable[Digested]) -> Iterator[Comparison]:
    numbered = enumerate(digested)
    for table, group in groupby(numbered, lambda item: item[1].place.table.name):
        columns = dict(group)
        name = f"digests_{min(columns)} of {table}".encode()[:63].decode(errors="ignore")
        yield Comparison(TableName("pg_temp", name), columns)


def _piece(comparison: Comparison, catalog: Catalog) -> Piece:
    table = next(iter(comparison.columns.values())).place.table
    size = _in_all(table, catalog, lambda part: part.bytes)
    return Piece(comparison.name, (), comparison.query, size)


def _in_all(table: Table, catalog: Catalog, number: Callable[[Table], int]) -> int:
    """The sum of a number over a table and all of its partitions."""
    parts = (part for part in catalog.tables if part.partition_of == table.name)
    return number(table) + sum(_in_all(part, catalog, number) for part in parts)
