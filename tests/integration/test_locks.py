"""What is said of each statement's locks is compared with pg_locks, on a real server."""

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from packager.locks import Mode, Work
from tests.cluster import Cluster
from tests.locking import ALONE, OF_AN_INDEX, SCHEMA, STATEMENTS, Claims

pytestmark = pytest.mark.integration

Found = dict[str, tuple[Mode, str]]
"""Of each table that is locked, the strongest mode, and what became of its rows."""

DEADLINE = 30
"""Seconds that a test waits."""

TABLES = """
SELECT oid, oid::regclass::text, relfilenode, pg_stat_get_xact_numscans(oid) FROM pg_class
WHERE relkind IN ('r', 'v', 'm', 'p')
    AND relnamespace IN ('public'::regnamespace, 's'::regnamespace)
"""
WAITED_FOR = """
SELECT relation::regclass::text, mode FROM pg_locks
WHERE locktype = 'relation' AND NOT granted AND pid = %s
"""
HELD = """
SELECT relation, mode FROM pg_locks
WHERE locktype = 'relation' AND granted AND pid = pg_backend_pid()
"""
ROWS_ARE = {
    Work.NONE: {"left alone"},
    Work.VERIFY: {"left alone", "read"},
    Work.SCAN: {"read"},
    Work.INDEX: {"read"},
    Work.REINDEX: {"read"},
    Work.REWRITE_IF_VOLATILE: {"left alone", "rewritten"},
    Work.REWRITE_UNLESS_SAME: {"left alone", "rewritten"},
    Work.REWRITE: {"rewritten"},
}


@pytest.fixture(scope="module")
def conninfo(cluster: Cluster) -> str:
    cluster.new_database("locking")
    cluster.psql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''")
    cluster.psql(SCHEMA, "locking")
    return cluster.conninfo("locking", "postgres")


@pytest.fixture
def connection(conninfo: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(conninfo) as connection:
        yield connection
        connection.rollback()


def mode_of(name: str) -> Mode:
    """A mode as pg_locks has it: AccessExclusiveLock."""
    return next(mode for mode in Mode if mode.title.title().replace(" ", "") + "Lock" == name)


def observe(connection: psycopg.Connection, statement: str) -> Found:
    """Run a statement, and see what it has locked."""
    before = {row[0]: row[1:] for row in connection.execute(TABLES)}
    connection.execute(statement)
    after = {row[0]: row[1:] for row in connection.execute(TABLES)}
    held: dict[int, Mode] = {}
    for oid, name in connection.execute(HELD):
        held[oid] = max(held.get(oid, Mode.ACCESS_SHARE), mode_of(name))
    found = {}
    for oid in held.keys() & before.keys():
        name, file, scans = before[oid]
        _, new_file, new_scans = after.get(oid, before[oid])
        rows = "read" if new_scans > scans else "left alone"
        found[name] = (held[oid], rows if new_file == file else "rewritten")
    return found


def blocking(found: Found) -> dict[str, Mode]:
    return {table: mode for table, (mode, _) in found.items() if mode >= Mode.SHARE}


def rows_of(found: Found, claims: Claims) -> dict[str, str]:
    """What became of the rows of tables that are not just read from.

    A foreign key may or may not have all of the table read that it leads to; nothing is said of it.
    """
    shown = {table for table, (mode, _) in found.items() if mode > Mode.ACCESS_SHARE}
    other_end = {"customers"} if "customers" in claims and len(claims) > 1 else set()
    return {table: found[table][1] for table in shown - other_end}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_locks_on_a_real_server_what_it_is_said_to(
    connection: psycopg.Connection, statement: str
) -> None:
    claims = STATEMENTS[statement]

    found = observe(connection, statement)

    assert blocking(found) == {t: mode for t, (mode, _) in claims.items() if mode >= Mode.SHARE}
    assert all(found[table][0] == mode for table, (mode, _) in claims.items())
    for table, rows in rows_of(found, claims).items():
        _, work = claims.get(table, (None, Work.NONE))
        assert rows in ROWS_ARE[work] or statement.startswith("TRUNCATE")


@pytest.mark.parametrize(
    "statement, table, rows",
    [
        ("ALTER TABLE orders ALTER COLUMN total SET NOT NULL", "orders", "read"),
        ("ALTER TABLE orders ALTER COLUMN certain SET NOT NULL", "orders", "left alone"),
        ("ALTER TABLE spare ADD PRIMARY KEY USING INDEX spare_loose", "spare", "read"),
        ("ALTER TABLE spare ADD PRIMARY KEY USING INDEX spare_id", "spare", "left alone"),
        ("ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2)", "parts_2", "read"),
        ("ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES IN (3)", "parts_3", "left alone"),
        ("ALTER TABLE orders ADD COLUMN x int DEFAULT same()", "orders", "left alone"),
        ("ALTER TABLE orders ADD COLUMN x float DEFAULT 1 + other()", "orders", "rewritten"),
        ("ALTER TABLE orders ALTER COLUMN name TYPE text", "orders", "left alone"),
        ("ALTER TABLE orders ALTER COLUMN total TYPE bigint", "orders", "rewritten"),
    ],
)
def test_what_is_said_to_depend_does_depend(
    connection: psycopg.Connection, statement: str, table: str, rows: str
) -> None:
    assert statement in STATEMENTS
    assert observe(connection, statement)[table][1] == rows


@pytest.mark.parametrize("statement", OF_AN_INDEX)
def test_a_statement_about_an_index_locks_its_table(
    connection: psycopg.Connection, statement: str
) -> None:
    ((mode, _),) = OF_AN_INDEX[statement].values()

    assert blocking(observe(connection, statement)) == {"orders": mode}


@pytest.mark.parametrize("statement", [s for s, claims in ALONE.items() if claims])
def test_a_statement_that_runs_alone_waits_for_the_lock_that_it_is_said_to_take(
    conninfo: str, connection: psycopg.Connection, statement: str
) -> None:
    ((table, (mode, _)),) = ALONE[statement].items()
    connection.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
    with psycopg.connect(conninfo, autocommit=True) as other:
        running = threading.Thread(target=other.execute, args=(statement,))
        running.start()
        waited_for = waiting(connection, other.info.backend_pid)
        connection.rollback()
        running.join(DEADLINE)

    assert waited_for == (table, mode)
    assert not running.is_alive()


def waiting(connection: psycopg.Connection, process: int) -> tuple[str, Mode]:
    """The table and the mode of the lock that a server process comes to wait for."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        row = connection.execute(WAITED_FOR, (process,)).fetchone()
        if row:
            return row[0], mode_of(row[1])
        time.sleep(0.01)
    raise AssertionError("it waits for no lock")
