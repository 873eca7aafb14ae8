"""QAT as a copy of PRD: what arrives, what is refused, and what a run that is killed leaves."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from refresher import clients, pieces
from refresher.configuration import Configuration, parse_configuration
from refresher.copying import Watch, refresh
from refresher.errors import (
    CopyError,
    DiffersError,
    NotKeptError,
    NotReadyError,
    RefreshFileError,
    SourceError,
    TargetError,
    WrongWayError,
)
from refresher.plan import plan, plan_lines
from refresher.report import Report
from refresher.workplace import remove_left
from tests.cluster import Cluster, private_cluster
from tests.production import ROLES, add_ledger, make_production, programs_with_extension

pytestmark = pytest.mark.integration

# What is written, and what has ever been: rows, transactions that have a number, and objects.
UNTOUCHED = """
SELECT pg_snapshot_xmax(pg_current_snapshot()), (SELECT count(*) FROM pg_class),
    (SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database)
"""
# A run comes to a view that takes a minute to fill.
LASTING = """
CREATE VIEW slow AS SELECT pg_sleep(60)::text;
CREATE MATERIALIZED VIEW lasting AS SELECT 1 FROM slow WITH NO DATA;
UPDATE pg_class SET relispopulated = true WHERE relname = 'lasting';
"""
COMMAND: tuple[str | Path, ...] = (sys.executable, "-m", "packager", "refresh")


@dataclass(frozen=True, slots=True)
class Pair:
    """PRD and QAT, each on a cluster of its own."""

    prd: Cluster
    qat: Cluster

    def text(self, **changed: str) -> str:
        """refresh.toml."""
        values = {
            "mode": "copy",
            "environment": "QAT",
            "source": self.prd.conninfo("crm", "reader"),
            "target": self.qat.conninfo("postgres", "refresher"),
            "database": "crm",
            **changed,
        }
        return (
            '[refresh]\nmode = "{mode}"\nenvironment = "{environment}"\n'
            '[source]\nconninfo = "{source}"\n[target]\nconninfo = "{target}"\n'
            'database = "{database}"\nowner = "crm_owner"\n'
        ).format(**values)

    def configuration(self, **changed: str) -> Configuration:
        return parse_configuration(self.text(**changed).encode())

    def databases(self) -> str:
        return self.qat.psql("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database "
            "WHERE datname LIKE 'crm%'")  # fmt: skip


@pytest.fixture(scope="module")
def clusters() -> Iterator[Pair]:
    with (
        private_cluster(programs_with_extension) as prd,
        private_cluster(programs_with_extension) as qat,
    ):
        for cluster in (prd, qat):
            cluster.psql(ROLES)
        make_production(prd)
        yield Pair(prd, qat)


@pytest.fixture
def writing(clusters: Pair) -> Iterator[Pair]:
    """For tests that write to PRD themselves; no database of QAT's is left after it."""
    yield clusters
    for name in clusters.databases().split():
        clusters.qat.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def pair(writing: Pair) -> Iterator[Pair]:
    """PRD has to be untouched after the test."""
    before = writing.prd.psql(UNTOUCHED, "crm")
    yield writing
    assert writing.prd.psql(UNTOUCHED, "crm") == before


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a megabyte are large, so that some are copied in ranges and in binary."""
    monkeypatch.setattr(pieces, "LARGE", 1024 * 1024)
    monkeypatch.setattr(pieces, "SMALL", 512 * 1024)


def run(configuration: Configuration, folder: Path, *, keep_old: bool = False) -> Report:
    return refresh(configuration, folder, Watch(lambda _: None), keep_old=keep_old)


def old_database(pair: Pair) -> None:
    """QAT as it was before, with one row that nobody may lose."""
    pair.qat.new_database("crm")
    pair.qat.psql("CREATE TABLE old (a int); INSERT INTO old VALUES (1)", "crm")


def require_old(pair: Pair) -> None:
    assert pair.databases() == "crm"
    assert pair.qat.psql("SELECT a FROM old", "crm") == "1"


def dumped(cluster: Cluster) -> str:
    """All rows, in the order of their text, and all of the schema: as pg_dump sees them."""
    options = ("--inserts", "--no-publications", "--blobs")
    command: list[str | Path] = [cluster.program("pg_dump"), *options]
    done = subprocess.run(
        [*command, "-d", cluster.conninfo("crm", "postgres")], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    lines = (line for line in done.stdout.splitlines() if "restrict " not in line)
    kept = (line for line in lines if not line.startswith("--"))
    return "\n".join(sorted(line for line in kept if "countersign.database" not in line))


@pytest.mark.usefixtures("small_pieces")
def test_qat_is_prd_to_the_last_row_and_privilege(pair: Pair, tmp_path: Path) -> None:
    old_database(pair)

    report = run(pair.configuration(), tmp_path)

    assert dumped(pair.qat) == dumped(pair.prd)
    assert pair.databases() == "crm"
    assert report.rows["sales.wide"] == 25715
    assert report.rows["public.noted_word"] == 1
    assert report.left_out == ("publication everything",)
    assert report.not_valid == ("sales.car: later", "sales.thing: later")
    assert sorted(report.fingerprints or {}) == ["comments", "owners", "privileges", "structure"]


def test_qat_says_that_it_is_qat_and_knows_the_releases_of_prd(pair: Pair, tmp_path: Path) -> None:
    report = run(pair.configuration(), tmp_path)

    assert pair.qat.psql("SELECT environment FROM countersign.database", "crm") == "QAT"
    assert pair.qat.psql("SELECT countersign.first_broken() IS NULL", "crm") == "t"
    assert pair.qat.psql("SELECT max(sequence) FROM countersign.ledger", "crm") == "14"
    assert report.environment == "QAT"
    assert report.source.releases == {"crm": 14}


def test_views_are_filled_after_those_that_they_read(pair: Pair, tmp_path: Path) -> None:
    report = run(pair.configuration(), tmp_path)

    assert report.materialized_views == ("sales.z_first", "sales.a_last")
    assert pair.qat.psql("SELECT n FROM sales.a_last", "crm") == "400"
    populated = "SELECT relispopulated FROM pg_class WHERE relname = 'empty'"
    assert pair.qat.psql(populated, "crm") == "f"


STATISTICS = """
SELECT schemaname, tablename, attname, inherited FROM pg_stats
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS (
    SELECT FROM pg_class WHERE relname = tablename AND relkind = 'p')
UNION ALL SELECT schemaname, statistics_name, dependencies::text, false FROM pg_stats_ext
ORDER BY 1, 2, 3, 4
"""


@pytest.mark.usefixtures("small_pieces")
def test_the_planner_knows_as_much_as_if_all_were_analysed_at_the_end(
    writing: Pair, tmp_path: Path
) -> None:
    writing.prd.psql(
        "CREATE STATISTICS sales.both (dependencies) ON id, name FROM sales.person", "crm"
    )

    run(writing.configuration(), tmp_path)

    found = writing.qat.psql(STATISTICS, "crm")
    writing.qat.psql("ANALYZE", "crm")
    assert found == writing.qat.psql(STATISTICS, "crm")
    assert "sales|both|{" in found
    assert {"sales|wide_md5_idx|md5|f", "sales|a_last|n|f", "sales|thing|what|t"} <= {
        *found.split()
    }
    writing.prd.psql("DROP STATISTICS sales.both", "crm")


def test_a_trigger_does_not_fire_for_rows_that_are_copied(pair: Pair, tmp_path: Path) -> None:
    run(pair.configuration(), tmp_path)

    count = "SELECT count(*), max(id) FROM sales.trail"
    assert pair.qat.psql(count, "crm") == pair.prd.psql(count, "crm")
    enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'note'"
    assert pair.qat.psql(enabled, "crm") == "O"


def test_sequences_go_on_where_those_of_prd_are(pair: Pair, tmp_path: Path) -> None:
    run(pair.configuration(), tmp_path)

    for sequence, comes in (("loose", "7"), ("moved", "4712"), ("waiting", "99")):
        assert pair.qat.psql(f"SELECT nextval('sales.{sequence}')", "crm") == comes
    pair.qat.psql("INSERT INTO sales.person (department, name) VALUES (1, 'new')", "crm")


def test_rows_committed_while_it_runs_are_in_no_table(writing: Pair, tmp_path: Path) -> None:
    writing.prd.psql("CREATE TABLE pair_a (n int); CREATE TABLE pair_b (n int)", "crm")
    both = "INSERT INTO pair_a VALUES (1); INSERT INTO pair_b VALUES (1)"

    def tell(text: str) -> None:
        if text == "rows":
            writing.prd.psql(both, "crm")

    try:
        report = refresh(writing.configuration(), tmp_path, Watch(tell))
    finally:
        assert writing.prd.psql("SELECT count(*) FROM pair_a", "crm") == "1"
        writing.prd.psql("DROP TABLE pair_a, pair_b", "crm")
    assert report.rows["public.pair_a"] == report.rows["public.pair_b"] == 0


def test_the_old_database_is_kept_where_that_is_asked_for(pair: Pair, tmp_path: Path) -> None:
    old_database(pair)

    report = run(pair.configuration(), tmp_path, keep_old=True)

    assert pair.databases() == f"crm {report.kept}"
    assert pair.qat.psql("SELECT a FROM old", str(report.kept)) == "1"


def test_privileges_and_settings_of_the_old_database_stay_with_the_host(
    pair: Pair, tmp_path: Path
) -> None:
    old_database(pair)
    pair.qat.psql("ALTER DATABASE crm SET work_mem = '8MB'; REVOKE CONNECT ON DATABASE crm FROM "
        "PUBLIC; GRANT CONNECT ON DATABASE crm TO clerk WITH GRANT OPTION; ALTER ROLE clerk IN "
        "DATABASE crm SET search_path = sales, public")  # fmt: skip
    asked = (
        "SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) AS a), (SELECT "
        "array_agg(setconfig::text ORDER BY setconfig) FROM pg_db_role_setting "
        "WHERE setdatabase = d.oid) "
        "FROM pg_database AS d WHERE datname = 'crm'"
    )
    before = pair.qat.psql(asked)

    run(pair.configuration(), tmp_path)

    assert pair.qat.psql(asked) == before


def test_sessions_in_the_old_database_do_not_hold_it_up(pair: Pair, tmp_path: Path) -> None:
    old_database(pair)
    command: list[str | Path] = [pair.qat.program("psql"), "-Xqc", "SELECT pg_sleep(60)"]
    with subprocess.Popen(
        [*command, "-d", pair.qat.conninfo("crm", "postgres")], stderr=subprocess.PIPE
    ) as idle:
        run(pair.configuration(), tmp_path)
        assert "terminating connection" in str(idle.communicate(timeout=30)[1])
    assert pair.qat.psql("SELECT count(*) FROM sales.car", "crm") == "1"


def test_a_plan_says_what_would_be_copied_and_changes_nothing(pair: Pair) -> None:
    old_database(pair)

    document = plan(pair.configuration())

    assert document["replaces"] is True
    assert document["tables"][0]["table"] == "sales.wide"
    assert len(document["tables"]) == 14
    assert any("publication everything" in line for line in plan_lines(document))
    require_old(pair)


WRONG = {
    "the source itself": "is the source",
    "says that it is PRD": "says that it is PRD",
    "environment is PRD": "never refreshed",
    "says that it is DEV": "says that it is DEV",
    "newer": "crm has sequence 15, the source 14",
}


@pytest.mark.parametrize("case", WRONG)
def test_the_wrong_way_round_is_refused_before_anything_is_written(
    pair: Pair, tmp_path: Path, case: str
) -> None:
    configuration = pair.configuration()
    if case == "the source itself":
        target = replace(configuration.target, connection=pair.prd.conninfo("crm", "reader"))
        configuration = replace(configuration, target=target)
    elif case == "environment is PRD":
        configuration = replace(configuration, environment="PRD")
    else:
        pair.qat.new_database("crm")
        add_ledger(pair.qat, "crm")
        environment = "PRD" if "PRD" in case else "DEV" if "DEV" in case else "QAT"
        pair.qat.psql(f"UPDATE countersign.database SET environment = '{environment}'", "crm")
    if case == "newer":
        pair.qat.psql("SELECT countersign.append(jsonb_agg(to_jsonb(l) || '{\"sequence\": 15}')) "
            "FROM countersign.ledger AS l", "crm")  # fmt: skip
    before = pair.qat.psql(UNTOUCHED)

    with pytest.raises(WrongWayError, match=WRONG[case]) as refused:
        run(configuration, tmp_path)

    assert refused.value.exit_code == 60
    assert pair.qat.psql(UNTOUCHED) == before


def test_roles_and_extensions_that_qat_lacks_are_named_at_once(pair: Pair, tmp_path: Path) -> None:
    old_database(pair)
    with private_cluster() as bare:
        bare.psql("CREATE ROLE refresher LOGIN SUPERUSER")
        target = bare.conninfo("postgres", "refresher")
        with pytest.raises(NotReadyError) as refused:
            run(pair.configuration(target=target), tmp_path)
        databases = bare.psql("SELECT count(*) FROM pg_database")

    assert refused.value.exit_code == 61
    assert refused.value.detail.split("\n") == [
        "  the extension noted 1.0",
        "  the role clerk",
        "  the role reader",
    ]
    assert databases == "3"


def test_a_role_from_which_rows_are_hidden_is_refused_by_name(pair: Pair, tmp_path: Path) -> None:
    old_database(pair)
    blinkered = pair.prd.conninfo("crm", "blinkered")

    with pytest.raises(NotReadyError) as refused:
        run(pair.configuration(source=blinkered), tmp_path)

    assert "table sales.car: a policy hides rows" in refused.value.detail
    assert "large object 4242" in refused.value.detail
    require_old(pair)


def test_a_side_that_cannot_be_reached_is_told_apart(pair: Pair, tmp_path: Path) -> None:
    nowhere = f"host={tmp_path} dbname=crm"
    with pytest.raises(SourceError, match="the source: ") as source:
        run(pair.configuration(source=nowhere), tmp_path)
    with pytest.raises(TargetError, match="the target: ") as target:
        run(pair.configuration(target=nowhere), tmp_path)

    assert (source.value.exit_code, target.value.exit_code) == (62, 63)


def test_a_row_that_qat_refuses_is_told_with_its_table_and_the_old_database_stays(
    writing: Pair, tmp_path: Path
) -> None:
    old_database(writing)
    writing.prd.psql(
        "CREATE TABLE lying (a int); INSERT INTO lying VALUES (1); CREATE FUNCTION no() RETURNS "
        "boolean LANGUAGE sql AS 'SELECT current_user = ''reader'''; ALTER TABLE lying ADD "
        "CONSTRAINT lie CHECK (no()) NOT VALID; UPDATE pg_constraint SET convalidated = true "
        "WHERE conname = 'lie'",
        "crm",
    )
    try:
        with pytest.raises(CopyError, match=r'public\.lying: the target: .*"lie"') as failed:
            run(writing.configuration(), tmp_path)
    finally:
        writing.prd.psql("DROP TABLE lying; DROP FUNCTION no()", "crm")

    assert failed.value.exit_code == 64
    require_old(writing)


def test_a_row_that_breaks_a_foreign_key_on_prd_is_found(writing: Pair, tmp_path: Path) -> None:
    old_database(writing)
    tables = "CREATE TABLE up (a int PRIMARY KEY); CREATE TABLE down (a int REFERENCES up);"
    unchecked = "SET session_replication_role = replica; INSERT INTO down VALUES (7)"
    writing.prd.psql(f"{tables} {unchecked}", "crm")
    try:
        with pytest.raises(CopyError, match="down_a_fkey") as failed:
            run(writing.configuration(), tmp_path)
    finally:
        writing.prd.psql("DROP TABLE up, down", "crm")

    assert "Key (a)=(7) is not present" in failed.value.detail
    require_old(writing)


def test_a_schema_that_came_out_different_is_refused_with_the_object(
    writing: Pair, tmp_path: Path
) -> None:
    old_database(writing)
    # pg_dump does not tell that the triggers of a foreign key are switched off.
    writing.prd.psql("ALTER TABLE sales.person DISABLE TRIGGER ALL", "crm")
    try:
        with pytest.raises(DiffersError, match="differ") as failed:
            run(writing.configuration(), tmp_path)
    finally:
        writing.prd.psql("ALTER TABLE sales.person ENABLE TRIGGER ALL", "crm")

    assert failed.value.exit_code == 65
    assert "sales.person" in failed.value.detail
    require_old(writing)


def test_a_report_that_could_not_be_kept_is_found_before_anything_is_done(
    pair: Pair, tmp_path: Path
) -> None:
    old_database(pair)
    (tmp_path / "file").touch()

    with pytest.raises(RefreshFileError, match="folder for reports"):
        run(pair.configuration(), tmp_path / "file")

    require_old(pair)


def test_a_report_that_cannot_be_kept_in_the_end_keeps_the_old_database(
    pair: Pair, tmp_path: Path
) -> None:
    old_database(pair)
    folder = tmp_path / "reports"

    def tell(text: str) -> None:
        if text == "compare":
            folder.rmdir()

    with pytest.raises(NotKeptError, match=str(folder)) as failed:
        refresh(pair.configuration(), folder, Watch(tell))

    assert failed.value.exit_code == 68
    kept = pair.databases().split()[1]
    assert pair.qat.psql("SELECT a FROM old", kept) == "1"
    assert pair.qat.psql("SELECT count(*) FROM sales.car", "crm") == "1"


def test_two_refreshes_of_one_database_do_not_meet(pair: Pair, tmp_path: Path) -> None:
    def tell(text: str) -> None:
        if text == "rows":
            with pytest.raises(NotReadyError, match="another refresh"):
                run(pair.configuration(), tmp_path)

    refresh(pair.configuration(), tmp_path, Watch(tell))

    assert pair.databases() == "crm"


def test_a_run_that_is_killed_leaves_the_old_database_and_the_next_one_clears_up(
    writing: Pair, tmp_path: Path
) -> None:
    old_database(writing)
    writing.prd.psql(LASTING, "crm")
    try:
        killed = _start(writing, tmp_path)
        _wait_until(lambda: "refresh" in writing.databases() and _busy(writing))
        killed.kill()
        killed.wait(30)
        _wait_until(lambda: not _busy(writing))
        assert writing.qat.psql("SELECT a FROM old", "crm") == "1"
        left = writing.databases()
    finally:
        writing.prd.psql("DROP VIEW slow CASCADE", "crm")

    report = run(writing.configuration(), tmp_path)

    assert left == f"crm {report.dropped[0]}"
    assert list(Path(gettempdir()).glob(f"countersign-refresh-{killed.pid}-*")) == []
    assert writing.databases() == "crm"
    assert writing.qat.psql("SELECT count(*) FROM sales.car", "crm") == "1"


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_clears_up_itself(
    writing: Pair, tmp_path: Path, name: signal.Signals
) -> None:
    old_database(writing)
    writing.prd.psql(LASTING, "crm")
    try:
        ended = _start(writing, tmp_path)
        _wait_until(lambda: _busy(writing))
        ended.send_signal(name)
        assert ended.wait(60) == 130
    finally:
        writing.prd.psql("DROP VIEW slow CASCADE", "crm")

    require_old(writing)


def test_no_program_outlives_the_command(writing: Pair, tmp_path: Path) -> None:
    writing.prd.psql("CREATE TABLE big AS SELECT repeat('x', 1000) AS a "
        "FROM generate_series(1, 200000)", "crm")  # fmt: skip
    try:
        killed = _start(writing, tmp_path)
        _wait_until(lambda: _copies(writing.prd) > 0)
        killed.kill()
        killed.wait(30)
        _wait_until(lambda: _copies(writing.prd) == 0 and _copies(writing.qat) == 0)
    finally:
        writing.prd.psql("DROP TABLE big", "crm")
    with subprocess.Popen(["ps", "-eo", "args"], stdout=subprocess.PIPE, text=True) as listed:
        running = listed.communicate(timeout=30)[0]
    remove_left(Path(gettempdir()))
    assert f"{writing.qat.programs}/psql" not in running


def _start(pair: Pair, folder: Path) -> subprocess.Popen[bytes]:
    file = folder / "refresh.toml"
    file.write_text(pair.text())
    return subprocess.Popen([*COMMAND, "run", "-c", file, "-o", folder])


def _busy(pair: Pair) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'REFRESH%'"
    return pair.qat.psql(query) != "0"


def _copies(cluster: Cluster) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'"
    return int(cluster.psql(query))


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_prints_the_report_and_keeps_it(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "refresh.toml"
    file.write_text(pair.text())
    shared: tuple[str | Path, ...] = ("-c", file, "-o", tmp_path / "reports")

    done = subprocess.run(
        [*COMMAND, "run", "--json", *shared], capture_output=True, timeout=120, check=False
    )
    kept = subprocess.run(
        [*COMMAND, "report", "--json", *shared], capture_output=True, timeout=60, check=False
    )
    shown = subprocess.run(
        [*COMMAND, "report", *shared], capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(kept.stdout)
    assert "copy: crm (QAT) is made from crm (PRD)" in shown.stdout.decode()


def test_the_command_refuses_with_an_exit_code_of_its_own(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "refresh.toml"
    file.write_text(pair.text(environment="PRD"))

    done = subprocess.run(
        [*COMMAND, "run", "-c", file], capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 60
    assert "never refreshed" in done.stderr.decode()


def test_a_machine_without_the_programs_is_told_so() -> None:
    with pytest.raises(NotReadyError, match="no psql, pg_dump"):
        clients.find_programs(15, Path("/nowhere"))
