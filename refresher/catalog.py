"""Reads the source's catalog: what there is to copy, and what has to be there before.

Reads rows of the catalog only, never one of a table. All of it is read in one transaction, the one
whose snapshot the copy is of.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files
from typing import Any

from installer.session import Session
from refresher.model import Catalog, Column, ForeignKey, Sequence, Table, TableName


@dataclass(frozen=True, slots=True)
class ExtensionTable:
    """A table or sequence of an extension whose rows are its user's; `condition` says which.

    `condition` is empty or a WHERE clause, as the extension gave it to pg_extension_config_dump().
    """

    name: TableName
    is_sequence: bool
    condition: str
    bytes: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Locale:
    """What a database is made with, as CREATE DATABASE has it; `provider` is 'c', 'i' or 'b'."""

    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """Everything that a refresh knows of the source before it reads a row.

    `pages` has the size of each table in blocks, by its name. `refreshed` are the materialized
    views that are populated, each after those that it reads; `left_out` says what is not copied,
    and `unreadable` what the login role cannot read, and why.
    """

    catalog: Catalog
    pages: Mapping[TableName, int]
    extension_tables: tuple[ExtensionTable, ...]
    extensions: tuple[tuple[str, str], ...]
    roles: tuple[str, ...]
    refreshed: tuple[TableName, ...]
    left_out: tuple[str, ...]
    unreadable: tuple[str, ...]
    locale: Locale
    large_objects: int


def read_source(session: Session) -> Source:
    """What the database of `session` has, within the transaction that is open.

    Raises:
        ServerError: the server refused a query.
    """
    session.execute(b"SET LOCAL search_path = pg_catalog")
    rows = session.rows(_query("tables"))
    oids = {"tables": [row[0] for row in rows]}
    columns = session.rows(_query("columns"), oids)
    keys = session.rows(_query("foreign keys"), oids)
    *locale, large_objects = session.rows(_query("database"))[0]
    names = {row[0]: TableName(row[1], row[2]) for row in rows}
    source = Source(
        catalog=Catalog(
            tables=_tables(rows, columns, names),
            foreign_keys=tuple(_foreign_key(row, names) for row in keys),
            sequences=tuple(map(_sequence, session.rows(_query("sequences")))),
        ),
        pages={names[row[0]]: row[5] for row in rows},
        extension_tables=tuple(map(_extension_table, session.rows(_query("extension tables")))),
        extensions=tuple((row[0], row[1]) for row in session.rows(_query("extensions"))),
        roles=tuple(row[0] for row in session.rows(_query("roles"))),
        refreshed=in_order(session.rows(_query("views"))),
        left_out=tuple(row[0] for row in session.rows(_query("left out"))),
        unreadable=tuple(row[0] for row in session.rows(_query("unreadable"))),
        locale=Locale(*locale),
        large_objects=large_objects,
    )
    session.execute(b"SET LOCAL search_path TO DEFAULT")  # for what refresh.toml says in SQL
    return source


def in_order(views: Iterable[tuple[Any, ...]]) -> tuple[TableName, ...]:
    """The materialized views that are populated, each after all that it reads through others.

    Rows are (oid, schema, name, is materialized, is populated, oids that it reads).
    """
    found = {row[0]: row for row in views}
    reads = {oid: [other for other in row[5] if other in found] for oid, row in found.items()}
    ordered = (found[oid] for oid in TopologicalSorter(reads).static_order())
    return tuple(TableName(row[1], row[2]) for row in ordered if row[3] and row[4])


@cache
def _query(kind: str) -> str:
    text = files("refresher").joinpath("catalog.sql").read_text(encoding="utf-8")
    sections = (section.partition("]\n") for section in text.split("-- [")[1:])
    return {name: query for name, _, query in sections}[kind]


def _tables(
    rows: Iterable[tuple[Any, ...]],
    columns: Iterable[tuple[Any, ...]],
    names: Mapping[int, TableName],
) -> tuple[Table, ...]:
    by_table: defaultdict[int, list[Column]] = defaultdict(list)
    for oid, *column in columns:
        by_table[oid].append(Column(*column))
    return tuple(_table(row, tuple(by_table[row[0]]), names) for row in rows)


def _table(
    row: tuple[Any, ...], columns: tuple[Column, ...], names: Mapping[int, TableName]
) -> Table:
    oid, _, _, estimate, size, _, is_partitioned, is_partition, parents, key = row
    above = tuple(names[parent] for parent in parents or () if parent in names)
    return Table(
        name=names[oid],
        columns=columns,
        rows=estimate,
        bytes=size,
        primary_key=tuple(key or ()),
        partition_of=above[0] if is_partition and above else None,
        is_partitioned=is_partitioned,
        parents=() if is_partition else above,
    )


def _foreign_key(row: tuple[Any, ...], names: Mapping[int, TableName]) -> ForeignKey:
    name, table, references, columns, referenced, nullable = row
    return ForeignKey(
        name, names[table], tuple(columns), names[references], tuple(referenced), nullable
    )


def _sequence(row: tuple[Any, ...]) -> Sequence:
    schema, name, *owner = row
    owned_by = (TableName(owner[0], owner[1]), owner[2]) if owner[1] is not None else None
    return Sequence(TableName(schema, name), owned_by)


def _extension_table(row: tuple[Any, ...]) -> ExtensionTable:
    schema, name, is_sequence, condition, size, columns = row
    return ExtensionTable(
        TableName(schema, name), is_sequence, condition or "", size, tuple(columns)
    )
