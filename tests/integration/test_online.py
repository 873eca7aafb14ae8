"""Online scripts in a real server: what the ledger says of them, and what a rerun makes of that."""

import io
import lzma
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
import pytest

from installer.bundle import ContentReader, Section
from installer.change import Change, run_transaction
from installer.database import Database, connect
from installer.errors import (
    InstallerError,
    LockTimeoutError,
    OnlineUnfinishedError,
    PlanDivergedError,
)
from installer.manifest import (
    ConcurrentIndex,
    Content,
    Online,
    Script,
)
from installer.manifest import Database as Scripts
from installer.online import run_after, run_before, told_of_before
from installer.planning import pending_scripts
from installer.promotion import Measure
from installer.receipts import Measurement
from installer.tree import Digest, digest_of
from tests.cluster import Cluster
from tests.integration.test_database import ORIGIN, database_name, target
from tests.manifests import a_manifest

pytestmark = pytest.mark.integration

BUILD = "CREATE INDEX CONCURRENTLY orders_total ON orders (total);\n"
DROP = "DROP INDEX CONCURRENTLY orders_total;\n"
ORDERS = "CREATE TABLE orders (id int, total int, note text);\n"
FILL = "INSERT INTO orders SELECT i, i, NULL FROM generate_series(1, 1000) AS i;\n"


@dataclass
class Told:
    """Who is told how a change goes on."""

    lines: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.lines.append(text)

    def script(self, number: int, total: int, name: str) -> None:
        self.lines.append(f"[{number}/{total}] {name}")


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def script(name: str, *statements: str, online: Online | None = None) -> tuple[Script, bytes]:
    content = "".join(statements).encode()
    runs = tuple(len("".join(statements[:i]).encode()) for i in range(len(statements)))
    return Script(name, digest_of(content), len(content), runs, online=online), content


def online(
    name: str, *statements: str, when: str = "after", repeat: bool = False
) -> tuple[Script, bytes]:
    indexes = tuple(
        ConcurrentIndex(run, "create" if text.startswith("CREATE") else "drop", '"orders_total"')
        for run, text in enumerate(statements)
        if "CONCURRENTLY" in text
    )
    return script(name, *statements, online=Online(when, repeat, indexes))


def change_of(database: Database, *scripts: tuple[Script, bytes]) -> Change:
    """The release that has these scripts; its digest is made of theirs."""
    blobs = tuple(made for made, _ in scripts)
    compressed = lzma.compress(b"".join(content for _, content in scripts))
    scripts_of = Scripts("crm", blobs, ())
    manifest = a_manifest(
        digest=digest_of("".join(made.digest for made in blobs).encode()),
        database=scripts_of,
        content=Content("xz", digest_of(compressed), len(compressed)),
    )
    origin = replace(ORIGIN, manifest=manifest.digest)
    return Change(
        manifest=manifest,
        database=database,
        content=ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), blobs),
        measure=Measure(),
        measured=Measurement(manifest, origin),
        plan=lambda: pending_scripts(scripts_of, database.state("crm").applied),
        keep=lambda: None,
        report=Told(),
    )


def bring(change: Change) -> None:
    """All phases of a change, as an install has them."""
    with change.database.held():
        run_before(change)
        change.measured.earlier = change.database.scripts_of(change.manifest.digest)
        run_transaction(change)
        run_after(change)


@contextmanager
def opened_as(conninfo: str, **changes: object) -> Iterator[Database]:
    with connect(target(conninfo, **changes), "test") as found:
        yield found


@pytest.fixture
def opened(cluster: Cluster, database: str) -> Iterator[Database]:
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    with opened_as(database) as found:
        yield found


@pytest.fixture
def ledger(cluster: Cluster, database: str) -> "Ledger":
    return Ledger(cluster, database_name(database))


@dataclass
class Ledger:
    """What the ledger and the catalog say, asked by a superuser."""

    cluster: Cluster
    database: str

    @property
    def events(self) -> list[str]:
        return self.ask(
            "SELECT event || coalesce(' ' || script, '') || coalesce(' ' || statement, '') "
            "FROM countersign.ledger ORDER BY id"
        ).splitlines()

    def ask(self, sql: str) -> str:
        return self.cluster.psql(sql, self.database)

    @property
    def index(self) -> str:
        """Whether the index is valid, t or f; empty where there is none."""
        return self.ask(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('orders_total')"
        )

    @property
    def left_behind(self) -> str:
        """Functions of the installer's own, and locks that are still held."""
        return self.ask(
            "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'countersign'::regnamespace "
            "AND proname IN ('run_script', 'insert_rows')), "
            "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
        )


def test_scripts_run_before_in_and_after_the_transaction_and_each_statement_is_in_the_ledger(
    opened: Database, ledger: Ledger
) -> None:
    change = change_of(
        opened,
        online("sql/1.sql", "CREATE TYPE mood AS ENUM ('sad');\n", when="before"),
        online("sql/2.sql", "ALTER TYPE mood ADD VALUE 'glad';\n", when="before"),
        online("sql/3.sql", BUILD),
        script("sql/4.sql", ORDERS, FILL, "ALTER TABLE orders ADD m mood DEFAULT 'glad';\n"),
        online("sql/5.sql", "VACUUM orders;\n", "UPDATE orders SET note = 'x' WHERE id = 1;\n"),
    )

    bring(change)

    assert ledger.events == [
        "statement applied sql/1.sql 1",
        "script applied sql/1.sql",
        "statement applied sql/2.sql 1",
        "script applied sql/2.sql",
        "script applied sql/4.sql",
        "release applied",
        "statement started sql/3.sql 1",
        "statement applied sql/3.sql 1",
        "script applied sql/3.sql",
        "statement started sql/5.sql 1",
        "statement applied sql/5.sql 1",
        "statement applied sql/5.sql 2",
        "script applied sql/5.sql",
    ]
    assert ledger.index == "t"
    assert ledger.left_behind == "0|0"
    assert ledger.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'") == "crm_owner"
    assert opened.first_broken_row() is None
    assert opened.state("crm").unfinished == {}


def test_a_second_run_does_nothing(opened: Database, ledger: Ledger) -> None:
    scripts = (script("sql/1.sql", ORDERS), online("sql/2.sql", BUILD))
    bring(change_of(opened, *scripts))
    events = ledger.events

    again = change_of(opened, *scripts)
    assert again.plan() == ()
    bring(again)

    assert ledger.events == events


def test_a_statement_that_fails_before_leaves_the_transaction_undone(
    opened: Database, ledger: Ledger
) -> None:
    scripts = (
        online("sql/1.sql", "CREATE TABLE a ();\n", "-- oops\nSELECT nope;\n", when="before"),
        script("sql/2.sql", ORDERS),
    )

    with pytest.raises(OnlineUnfinishedError) as failed:
        bring(change_of(opened, *scripts))

    assert str(failed.value).startswith('sql/1.sql:3:8: column "nope" does not exist')
    assert "The application is unchanged" in failed.value.state
    assert failed.value.exit_code == 37
    assert ledger.events == ["statement applied sql/1.sql 1"]
    assert ledger.ask("SELECT to_regclass('a'), to_regclass('orders')") == "a|"
    assert ledger.left_behind == "0|0"
    assert list(opened.state("crm").unfinished) == ["sql/1.sql"]


def test_a_statement_that_fails_after_is_finished_by_the_same_release(
    opened: Database, ledger: Ledger
) -> None:
    scripts = (
        script("sql/1.sql", ORDERS, FILL),
        online(
            "sql/2.sql",
            "UPDATE orders SET note = 'first' WHERE id = 1;\n",
            "UPDATE missing SET note = 'second';\n",
        ),
    )
    with pytest.raises(OnlineUnfinishedError) as failed:
        bring(change_of(opened, *scripts))
    assert "Database and application are at 1.0" in failed.value.state
    assert failed.value.verdict == "is not wholly installed"
    assert ledger.events[-2:] == ["release applied", "statement applied sql/2.sql 1"]

    ledger.ask("UPDATE orders SET note = 'mine' WHERE id = 1; CREATE TABLE missing (note text)")
    ledger.ask("ALTER TABLE missing OWNER TO crm_owner")
    bring(change_of(opened, *scripts))

    assert ledger.events[-2:] == ["statement applied sql/2.sql 2", "script applied sql/2.sql"]
    # The statement that was applied did not run again.
    assert ledger.ask("SELECT note FROM orders WHERE id = 1") == "mine"


def test_a_failing_statement_leaves_neither_itself_nor_its_row(
    opened: Database, ledger: Ledger
) -> None:
    late = "DO $$ BEGIN UPDATE orders SET total = 0; PERFORM 1/0; END $$;\n"
    scripts = (script("sql/1.sql", ORDERS, FILL), online("sql/2.sql", late))

    with pytest.raises(OnlineUnfinishedError, match="division by zero"):
        bring(change_of(opened, *scripts))

    assert ledger.ask("SELECT count(*) FROM orders WHERE total = 0") == "0"
    assert ledger.events[-1] == "release applied"


def test_a_backfill_is_repeated_until_no_row_is_left(opened: Database, ledger: Ledger) -> None:
    batch = (
        "UPDATE orders SET note = 'filled' WHERE id IN "
        "(SELECT id FROM orders WHERE note IS NULL LIMIT 300);\n"
    )
    scripts = (script("sql/1.sql", ORDERS, FILL), online("sql/2.sql", batch, repeat=True))

    bring(change_of(opened, *scripts))

    assert ledger.ask("SELECT count(DISTINCT xmin::text), count(note) FROM orders") == "4|1000"
    assert ledger.events[-2:] == ["statement applied sql/2.sql 1", "script applied sql/2.sql"]
    rows = "SELECT rows FROM countersign.ledger WHERE event = 'script applied' ORDER BY id DESC"
    assert ledger.ask(f"{rows} LIMIT 1") == "1000"


def test_a_transaction_that_fails_before_any_online_script_says_that_nothing_is_changed(
    opened: Database,
) -> None:
    change = change_of(opened, script("sql/1.sql", "SELECT 1 / 0;\n"), online("sql/2.sql", BUILD))

    with pytest.raises(InstallerError) as refused, told_of_before(change):
        run_transaction(change)

    assert refused.value.state == "The database and the application are unchanged."


def test_a_backfill_that_takes_long_tells_how_far_it_is(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("installer.online.TELL_EVERY", 0)
    batch = "DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 600);\n"
    change = change_of(
        opened, script("sql/1.sql", ORDERS, FILL), online("sql/2.sql", batch, repeat=True)
    )

    bring(change)

    assert isinstance(change.report, Told)
    told = [text.strip() for text in change.report.lines if text.endswith("so far")]
    assert told == [
        "sql/2.sql, statement 1 of 1: 600 rows so far",
        "sql/2.sql, statement 1 of 1: 1000 rows so far",
    ]


def test_an_index_that_is_not_valid_after_all_is_not_taken_for_made(
    opened: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([None, False])  # as of a superuser's event trigger that has a hand in it
    monkeypatch.setattr("installer.online._is_valid", lambda *_: next(asked))
    index = online("sql/2.sql", BUILD)

    with pytest.raises(OnlineUnfinishedError, match='orders_total" is not valid'):
        bring(change_of(opened, script("sql/1.sql", ORDERS, FILL), index))

    assert ledger.events[-1] == "statement started sql/2.sql 1"


def test_a_backfill_that_never_ends_is_stopped(
    opened: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("installer.online.MOST_BATCHES", 3)
    scripts = (
        script("sql/1.sql", ORDERS, FILL),
        online("sql/2.sql", "UPDATE orders SET total = 1;\n", repeat=True),
    )

    with pytest.raises(OnlineUnfinishedError, match="would go on for ever"):
        bring(change_of(opened, *scripts))

    assert ledger.events[-1] == "release applied"


# An index whose build was cut short


@contextmanager
def reader(cluster: Cluster, database: str) -> Iterator[None]:
    """A session that keeps an old snapshot of the table, for which an index has to wait."""
    with psycopg.connect(cluster.conninfo(database)) as other:
        other.execute("SET default_transaction_isolation = 'repeatable read'")
        other.commit()
        other.execute("SELECT count(*) FROM orders")
        yield


def cut_short(cluster: Cluster, database: str, *scripts: tuple[Script, bytes]) -> LockTimeoutError:
    """An install whose index has to wait for somebody longer than it may."""
    with (
        opened_as(database, lock_wait=1) as impatient,
        reader(cluster, database_name(database)),
        pytest.raises(LockTimeoutError) as waited,
    ):
        bring(change_of(impatient, *scripts))
    return waited.value


@pytest.fixture
def begun(opened: Database) -> tuple[tuple[Script, bytes], ...]:
    """A table, and a release whose index is still to be built."""
    first = script("sql/1.sql", ORDERS, FILL)
    bring(change_of(opened, first))
    return (first, online("sql/2.sql", BUILD))


def test_an_index_that_had_to_wait_too_long_is_dropped_and_built_again(
    cluster: Cluster,
    database: str,
    opened: Database,
    ledger: Ledger,
    begun: tuple[tuple[Script, bytes], ...],
) -> None:
    error = cut_short(cluster, database, *begun)

    assert error.exit_code == 31
    assert "held by pid" in error.detail
    assert "SELECT count(*) FROM orders" in error.detail
    assert "Database and application are at 1.0" in error.state
    assert ledger.index == "f"
    assert ledger.events[-1] == "statement started sql/2.sql 1"
    assert ledger.left_behind == "0|0"

    change = change_of(opened, *begun)
    bring(change)

    assert ledger.index == "t"
    assert any("its build was cut short" in line for line in change.report.lines)  # type: ignore[attr-defined]
    assert ledger.events[-2:] == ["statement applied sql/2.sql 1", "script applied sql/2.sql"]


def test_an_index_that_was_built_although_nobody_heard_is_taken_as_built(
    opened: Database, ledger: Ledger, begun: tuple[tuple[Script, bytes], ...]
) -> None:
    lost_after(opened, ledger, begun, then=BUILD)
    node = ledger.ask("SELECT to_regclass('orders_total')::oid")

    bring(change_of(opened, *begun))

    assert ledger.ask("SELECT to_regclass('orders_total')::oid") == node
    assert ledger.events[-2:] == ["statement applied sql/2.sql 1", "script applied sql/2.sql"]


def test_an_index_that_was_dropped_although_nobody_heard_is_taken_as_dropped(
    opened: Database, ledger: Ledger, begun: tuple[tuple[Script, bytes], ...]
) -> None:
    bring(change_of(opened, *begun))
    release = (*begun, online("sql/3.sql", DROP))
    lost_after(opened, ledger, release, then=DROP)

    bring(change_of(opened, *release))

    assert ledger.index == ""
    assert ledger.events[-2:] == ["statement applied sql/3.sql 1", "script applied sql/3.sql"]


def lost_after(
    opened: Database, ledger: Ledger, scripts: tuple[tuple[Script, bytes], ...], then: str
) -> None:
    """The connection is lost when the statement was begun; the server does it all the same."""

    def lose(*_: object) -> None:
        raise InstallerError("the connection was lost")

    change = change_of(opened, *scripts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Database, "run_alone", lose)
        with pytest.raises(InstallerError, match="lost"):
            bring(change)
    ledger.ask(f"SET ROLE crm_owner; {then.replace(' CONCURRENTLY', '')}")


def test_an_invalid_index_of_somebody_else_s_is_left_alone(
    opened: Database, ledger: Ledger, begun: tuple[tuple[Script, bytes], ...]
) -> None:
    ledger.ask("CREATE INDEX orders_total ON orders (total)")
    ledger.ask("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_total'::regclass")

    with pytest.raises(OnlineUnfinishedError, match="which no release made") as refused:
        bring(change_of(opened, *begun))

    assert "DROP INDEX CONCURRENTLY" in refused.value.detail
    assert ledger.index == "f"
    assert ledger.events[-1] == "release applied"


def test_if_not_exists_does_not_pass_an_invalid_index_off_as_built(
    cluster: Cluster, database: str, opened: Database, ledger: Ledger
) -> None:
    first = script("sql/1.sql", ORDERS, FILL)
    second = online("sql/2.sql", BUILD.replace("CONCURRENTLY", "CONCURRENTLY IF NOT EXISTS"))
    bring(change_of(opened, first))
    cut_short(cluster, database, first, second)
    assert ledger.index == "f"

    bring(change_of(opened, first, second))

    assert ledger.index == "t"


def test_settings_of_a_script_hold_for_its_later_statements_in_a_rerun_too(
    opened: Database, ledger: Ledger
) -> None:
    scripts = (
        script("sql/1.sql", "CREATE SCHEMA s;\n", "CREATE TABLE s.orders (id int, total int);\n"),
        online(
            "sql/2.sql",
            "SET search_path = s;\n",
            "INSERT INTO orders VALUES (1, 1);\n",
            BUILD,
            "INSERT INTO later VALUES (1);\n",
        ),
    )
    with pytest.raises(OnlineUnfinishedError, match='relation "later" does not exist'):
        bring(change_of(opened, *scripts))
    assert (
        ledger.ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 's.orders_total'::regclass")
        == "t"
    )

    ledger.ask("SET ROLE crm_owner; CREATE TABLE s.later (id int)")
    bring(change_of(opened, *scripts))

    assert (
        ledger.ask("SELECT (SELECT count(*) FROM s.orders), (SELECT count(*) FROM s.later)")
        == "1|1"
    )


def test_settings_of_one_script_do_not_reach_the_ledger_or_the_next_script(
    opened: Database, ledger: Ledger
) -> None:
    """An operator of a script's own, before PostgreSQL's in search_path, is called by nobody."""
    trap = (
        "CREATE SCHEMA trap;\n"
        "CREATE FUNCTION trap.f(text, text) RETURNS boolean LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'trapped'; END$$;\n"
        "CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.f);\n"
    )
    scripts = (
        script("sql/1.sql", trap, ORDERS),
        online(
            "sql/2.sql", "SET search_path = trap, pg_catalog, public;\n", BUILD, "VACUUM orders;\n"
        ),
        online("sql/3.sql", "INSERT INTO orders VALUES (1, 1, current_setting('search_path'));\n"),
    )

    bring(change_of(opened, *scripts))

    assert ledger.index == "t"
    assert ledger.ask("SELECT note FROM orders") == "public"


@pytest.mark.parametrize(
    "statement",
    [
        "RESET ROLE;\n",
        "SET ROLE countersign;\n",
        "SELECT set_config('role', 'none', false);\n",
        "DO $$ BEGIN COMMIT; END $$;\n",
        "COMMIT;\n",
        "/* CREATE INDEX CONCURRENTLY */ DO $$ BEGIN SET ROLE NONE; END $$;\n",
        "/*/**/CREATE INDEX CONCURRENTLY x ON orders (id) */ DO $$ BEGIN SET ROLE NONE; END $$;\n",
        "UPDATE countersign.ledger SET event = 'release applied';\n",
        "VACUUM orders; SET ROLE countersign;\n",
        "VACUUM countersign.ledger; DROP SCHEMA countersign CASCADE;\n",
    ],
)
def test_a_statement_cannot_become_the_login_role_or_touch_the_ledger(
    opened: Database, ledger: Ledger, statement: str
) -> None:
    more = "INSERT INTO orders VALUES (1);\n"
    scripts = (script("sql/1.sql", ORDERS, FILL), online("sql/2.sql", statement, more))

    with pytest.raises(OnlineUnfinishedError):
        bring(change_of(opened, *scripts))

    assert opened.first_broken_row() is None
    assert [e for e in ledger.events if e.startswith("statement applied")] == []


def test_an_index_expression_cannot_become_the_login_role(opened: Database, ledger: Ledger) -> None:
    function = (
        "CREATE FUNCTION leave(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM set_config('role', 'none', false); RETURN $1; END$$;\n"
    )
    build = BUILD.replace("(total)", "(leave(total))")
    scripts = (script("sql/1.sql", ORDERS, FILL, function), online("sql/2.sql", build))

    with pytest.raises(OnlineUnfinishedError, match='cannot set parameter "role"'):
        bring(change_of(opened, *scripts))

    assert ledger.left_behind == "0|0"
    assert ledger.index != "t"


def test_a_script_that_was_edited_while_half_applied_is_refused(
    opened: Database, ledger: Ledger
) -> None:
    first = script("sql/1.sql", ORDERS)
    half = online("sql/2.sql", "INSERT INTO orders VALUES (1);\n", "SELECT nope;\n")
    with pytest.raises(OnlineUnfinishedError):
        bring(change_of(opened, first, half))
    mended = online("sql/2.sql", "INSERT INTO orders VALUES (1);\n", "SELECT 1;\n")

    with pytest.raises(PlanDivergedError, match="was begun as"):
        bring(change_of(opened, first, mended))

    assert ledger.ask("SELECT count(*) FROM orders") == "1"


def test_another_install_waits_while_online_scripts_run(
    database: str, opened: Database, ledger: Ledger
) -> None:
    scripts = (
        script("sql/1.sql", ORDERS),
        online("sql/2.sql", "SELECT pg_sleep(0.6);\n", "VACUUM orders;\n"),
    )
    first = threading.Thread(target=bring, args=(change_of(opened, *scripts),))
    first.start()
    is_there = "SELECT to_regclass('countersign.ledger')"
    until(lambda: ledger.ask(is_there) != "" and "release applied" in ledger.events)

    with opened_as(database, lock_wait=20) as second:
        bring(change_of(second, *scripts))
    first.join()

    assert len([e for e in ledger.events if e == "script applied sql/2.sql"]) == 1
    assert len([e for e in ledger.events if e == "statement applied sql/2.sql 1"]) == 1


def test_a_connection_lost_in_an_online_statement_leaves_what_the_ledger_says(
    database: str, opened: Database, ledger: Ledger
) -> None:
    scripts = (
        script("sql/1.sql", ORDERS),
        online(
            "sql/2.sql",
            "INSERT INTO orders VALUES (1);\n",
            "SELECT pg_sleep(30);\n",
        ),
    )
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with opened_as(database) as lost:
        stop = threading.Thread(target=lambda: until(lambda: ledger.ask(end) == "t"))
        stop.start()
        with pytest.raises(InstallerError) as failed:
            bring(change_of(lost, *scripts))
        stop.join()

    assert failed.value.exit_code == 30
    assert "online statements are left" in failed.value.state
    assert ledger.events[-1] == "statement applied sql/2.sql 1"
    assert ledger.left_behind == "0|0"
    assert Digest(opened.state("crm").unfinished["sql/2.sql"].digest) == scripts[1][0].digest
