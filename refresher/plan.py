"""What a run would do, said beforehand."""

from collections.abc import Iterator, Mapping
from typing import Any

from installer.report import printable
from refresher.configuration import Configuration
from refresher.preparing import Prepared, prepared
from refresher.report import mib

RATE = 100 * 1024 * 1024
"""Bytes of tables that a stream copies in a second, about, with their indexes made afterwards."""


def plan(configuration: Configuration) -> dict[str, Any]:
    """The plan as a document; both sides are read, and nothing is changed.

    Raises:
        RefreshError: a run would be refused, for the same reason.
    """
    with prepared(configuration) as ready:
        return {
            "mode": configuration.mode,
            "environment": configuration.environment,
            "source": ready.origin.database,
            "target": configuration.target.database,
            "replaces": ready.target_exists,
            "tables": _tables(ready),
            "bytes": ready.bytes,
            "streams": len(ready.streams),
            "jobs": configuration.jobs,
            "sequences": len(ready.source.catalog.sequences),
            "large_objects": 0 if ready.is_masked else ready.source.large_objects,
            "materialized_views": [str(name) for name in ready.source.refreshed],
            "left_out": list(ready.left_out),
            "seconds": round(ready.bytes / RATE / configuration.jobs * 2),
        }


def _tables(ready: Prepared) -> list[dict[str, Any]]:
    """The tables in the order in which they are copied, with the planner's estimates."""
    found = {table.name: table for table in ready.source.catalog.tables}
    ordered = dict.fromkeys(piece.table for stream in ready.streams for piece in stream.pieces)
    known = (found[name] for name in ordered if name in found)
    return [{"table": str(t.name), "rows": t.rows, "bytes": t.bytes} for t in known]


def plan_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A plan for people."""
    verb = "replaces" if document["replaces"] else "makes"
    yield f"{document['mode']}: {verb} {document['target']} from {document['source']}"
    yield f"environment   {document['environment']}"
    for table in document["tables"]:
        size = f"{table['rows']:>12} rows {mib(table['bytes']):>12}"
        yield f"  {printable(table['table']):<40} {size}"
    yield f"in all        {len(document['tables'])} tables, {mib(document['bytes'])}"
    yield f"streams       {document['streams']}, {document['jobs']} at a time"
    yield f"sequences     {document['sequences']}"
    yield f"large objects {document['large_objects']}"
    yield f"views filled  {len(document['materialized_views'])}"
    for what in document["left_out"]:
        yield f"not copied    {printable(what)}"
    yield f"time          about {document['seconds']} s"
