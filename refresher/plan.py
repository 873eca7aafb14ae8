"""What a run would do, said beforehand."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from installer.report import printable
from refresher.classification import masked_columns, rules_of
from refresher.configuration import Configuration
from refresher.preparing import Prepared, prepared
from refresher.report import called, mib, not_done

RATE = 50 * 1024 * 1024
"""Bytes of tables that a stream copies in a second, about, with their indexes made afterwards."""
MASK = 1e-6
"""What masking one value takes, in seconds, about."""
WIDTH = 96


def plan(configuration: Configuration) -> dict[str, Any]:
    """The plan as a document; both sides are read, and nothing is changed.

    Raises:
        RefreshError: a run would be refused, for the same reason.
    """
    with prepared(configuration) as ready:
        tables = list(_tables(configuration, ready))
        return {
            "mode": configuration.mode,
            "environment": configuration.environment,
            "source": ready.origin.database,
            "source_environment": ready.origin.environment,
            "target": configuration.target.database,
            "replaces": ready.target_exists,
            "tables": tables,
            "bytes": ready.bytes,
            "streams": len(ready.streams),
            "jobs": configuration.jobs,
            "sequences": len(ready.source.catalog.sequences),
            "large_objects": ready.large_objects,
            "materialized_views": [str(name) for name in ready.source.refreshed],
            "left_out": list(ready.left_out),
            "unused": list(ready.unused),
            "seconds": _seconds(ready.bytes, tables, configuration.jobs),
        }


def _tables(configuration: Configuration, ready: Prepared) -> Iterator[dict[str, Any]]:
    """The tables in the order in which they are copied, those of which no row is at the end.

    `rows` and `bytes` are what is copied: of a limited table as it is known by now, of others as
    the planner estimates it, like `of_rows`, which all of a table has. `masks` has the class of
    each column that has one.
    """
    catalog = ready.source.catalog
    pieces = [piece for stream in ready.streams for piece in stream.pieces]
    size, chosen = Counter[str](), Counter[str]()
    for piece in pieces:
        size[str(piece.table)] += piece.bytes
        chosen[str(piece.table)] += piece.part.rows if piece.part else 0
    whole = {str(piece.table) for piece in pieces if piece.part is None}
    order = {name: place for place, name in enumerate(size)}
    holding = (table for table in catalog.tables if not table.is_partitioned)
    for table in sorted(holding, key=lambda table: order.get(str(table.name), len(order))):
        name = str(table.name)
        own = rules_of(catalog, table, configuration.rules)
        yield {
            "table": name,
            "rows": table.rows if name in whole else chosen[name],
            "of_rows": table.rows,
            "bytes": size[name],
            "masks": {c.name: own[c.name].kind for c in masked_columns(table) if c.name in own},
        }


def _seconds(size: int, tables: Iterable[Mapping[str, Any]], jobs: int) -> int:
    values: int = sum(
        table["rows"] * sum(kind != "keep" for kind in table["masks"].values()) for table in tables
    )
    return max(1, round((size / RATE + values * MASK) / jobs))


def plan_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A plan for people."""
    verb = "replaces" if document["replaces"] else "makes"
    target = called(document["target"], document["environment"])
    source = called(document["source"], document["source_environment"])
    yield f"{document['mode']}: {verb} {target} from {source}"
    for table in document["tables"]:
        yield from _table_lines(table)
    yield f"in all        {len(document['tables'])} tables, {mib(document['bytes'])}"
    yield f"streams       {document['streams']}, {document['jobs']} at a time"
    yield f"sequences     {document['sequences']}"
    yield f"large objects {document['large_objects']}"
    yield f"views filled  {len(document['materialized_views'])}"
    yield from not_done(document)
    yield f"time          about {document['seconds']} s"


def _table_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """A table, and below it what becomes of its columns."""
    rows = str(table["rows"])
    if table["rows"] != table["of_rows"]:
        rows += f" of {table['of_rows']}"
    yield f"  {printable(table['table']):<40} {rows:>18} rows {mib(table['bytes']):>12}"
    masks = table["masks"].items()
    masked = ", ".join(f"{column} ({kind})" for column, kind in masks if kind != "keep")
    kept = ", ".join(column for column, kind in masks if kind == "keep")
    for label, columns in (("masked", masked), ("kept", kept)):
        if columns:
            yield from textwrap.wrap(
                printable(columns),
                WIDTH,
                initial_indent=f"      {label:<8}",
                subsequent_indent=" " * 14,
                break_on_hyphens=False,
            )
