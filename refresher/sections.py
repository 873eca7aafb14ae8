"""The schema, by pg_dump and pg_restore: what comes before the rows, and what is made over them.

Tables come first, bare; constraints, indexes and triggers when the rows are there, which proves
them. So nothing is ever disabled. See pg_restore, --section.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from installer.quoting import literal
from installer.session import Session
from refresher.catalog import Source
from refresher.clients import Endpoint, Running
from refresher.model import TableName
from refresher.pieces import Stream

T = TypeVar("T")

SERVICE = "--dbname=service=countersign"
# A restored database has what the source has, but not where a host keeps it, nor who hears of it.
DUMP = ("--format=custom", "--no-publications", "--no-subscriptions", "--no-tablespaces", SERVICE)
RESTORE = ("--exit-on-error", "--no-tablespaces", SERVICE)
_LARGE_OBJECT = re.compile(
    r"^\d+; \d+ \d+ (BLOB|BLOBS|BLOB METADATA|(ACL|COMMENT|SECURITY LABEL) - LARGE OBJECT) ?"
)
STATISTICS = 18
"""The first major version whose pg_dump can dump them."""
# Indexes of expressions and extended statistics have statistics of their own.
_TABLES = """
SELECT n.nspname, c.relname,
    EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = c.oid AND indexprs IS NOT NULL)
    OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext WHERE stxrelid = c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
_AT_ONCE = 500
"""Sequences that one query reads."""


@dataclass(frozen=True, slots=True)
class Sections:
    """The source's schema in an archive of pg_dump's, and where it is restored."""

    folder: Path
    snapshot: str
    source: Endpoint
    target: Endpoint
    running: Running
    jobs: int

    def side_by_side(
        self, work: Callable[[Stream], T], streams: Iterable[Stream]
    ) -> Iterator[tuple[Stream, T]]:
        """Do `work` with each stream, `jobs` at a time, as they end; when one fails, all end."""
        with ThreadPoolExecutor(self.jobs) as pool:
            submitted = {pool.submit(work, stream): stream for stream in streams}
            try:
                for future in as_completed(submitted):
                    yield submitted[future], future.result()
            except BaseException:
                self.running.end()
                pool.shutdown(cancel_futures=True)
                raise

    @property
    def _archive(self) -> Path:
        return self.folder / "schema.dump"

    def dump(self) -> None:
        """Read the schema of the snapshot.

        Raises:
            CopyError: pg_dump failed, in its words; so for all that follow.
        """
        schema = ("--schema-only", f"--snapshot={self.snapshot}", f"--file={self._archive}")
        # Statistics hold values of rows; they are gathered anew on the target.
        without = ("--no-statistics",) if self.running.programs.major >= STATISTICS else ()
        self.running.run("pg_dump", (*DUMP, *schema, *without), self.source)

    def before_rows(self) -> None:
        """Make schemas, types, functions and bare tables."""
        self.running.run("pg_restore", (*RESTORE, "--section=pre-data", self._archive), self.target)

    def over_rows(self) -> None:
        """Make constraints, indexes, triggers and rules, over the rows that are there."""
        options = ("--section=post-data", f"--jobs={self.jobs}")
        self.running.run("pg_restore", (*RESTORE, *options, self._archive), self.target)

    def analyse(self, session: Session, done: AbstractSet[TableName]) -> None:
        """Gather statistics of the tables that are not `done`, and of expressions in what is made.

        Raises:
            ServerError: the server refused; CopyError: vacuumdb failed.
        """
        rows = session.rows(_TABLES)
        found = (TableName(*name) for *name, again in rows if again or TableName(*name) not in done)
        if tables := [f"--table={name.sql}" for name in found]:
            jobs = f"--jobs={self.jobs}"
            self.running.run("vacuumdb", ("--analyze-only", jobs, SERVICE, *tables), self.target)

    def large_objects(self) -> None:
        """Copy the large objects, which pg_dump gives with no schema and no table alone."""
        archive, chosen = self.folder / "large-objects.dump", self.folder / "large-objects.list"
        none = ("--blobs", "--exclude-table=*", f"--snapshot={self.snapshot}")
        self.running.run("pg_dump", (*DUMP, *none, f"--file={archive}"), self.source)
        listed = self.running.run("pg_restore", ("--list", archive), None).splitlines()
        entries = (line for line in listed if _LARGE_OBJECT.match(line))
        chosen.write_text("\n".join([*entries, ""]), encoding="utf-8")
        only = (f"--use-list={chosen}", archive)
        self.running.run("pg_restore", (*RESTORE, *only), self.target)


def copy_sequences(source: Session, target: Session, found: Source) -> int:
    """Bring all sequences to where the source's are; returns how many there are.

    They are in no snapshot: they are at least as far as the rows are.

    Raises:
        ServerError: either server refused.
    """
    names = [sequence.name for sequence in found.catalog.sequences]
    names += [table.name for table in found.extension_tables if table.is_sequence]
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        read = " UNION ALL ".join(map(_position, some))
        target.rows(
            "SELECT pg_catalog.setval(name::regclass, last, called) FROM json_to_recordset(%s)"
            " AS s (name text, last bigint, called boolean)",
            [source.one(f"SELECT json_agg(s)::text FROM ({read}) AS s")],  # noqa: S608 - quoted
        )
    return len(names)


def _position(name: TableName) -> str:
    return (
        f"SELECT {literal(name.sql)} AS name, last_value AS last, is_called AS called "  # noqa: S608
        f"FROM {name.sql}"
    )


def refresh_views(target: Session, views: tuple[TableName, ...]) -> None:
    """Fill the materialized views, and gather their statistics, each after those that it reads.

    Raises:
        ServerError: the server refused.
    """
    for view in views:
        target.execute(f"REFRESH MATERIALIZED VIEW {view.sql}".encode())
        target.execute(f"ANALYZE {view.sql}".encode())
