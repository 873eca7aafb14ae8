"""`countersign refresh` as it is typed: what it says, where it says it, and its exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.production import new_mask_key, production_of

pytestmark = pytest.mark.integration

COMMAND = (str(Path(sys.executable).with_name("countersign")), "refresh")
SCHEMA = """
SET ROLE crm_owner;
CREATE TABLE customer (id int PRIMARY KEY, email text UNIQUE, region text);
CREATE TABLE visit (id int PRIMARY KEY, customer int REFERENCES customer, day date);
CREATE TABLE rate (region text PRIMARY KEY);
INSERT INTO customer SELECT n, 'raw' || n || '@real.example', 'EU' FROM generate_series(1, 40) AS n;
INSERT INTO visit SELECT n, 1 + n % 40, '2026-01-01' FROM generate_series(1, 200) AS n;
ANALYZE;
"""
RULES = """
[[subset]]
table = "public.customer"
where = "id <= 10"
[limit]
rest = "none"
[columns."public.customer"]
id = { class = "keep" }
email = { class = "email", domain = "mail" }
region = { class = "keep" }
[columns."public.visit"]
id = { class = "keep" }
customer = { class = "keep" }
day = { class = "constant", value = "2000-01-01" }
[columns."public.rate"]
region = { class = "keep" }
"""
NEVER = "(SELECT email FROM pg_sleep(60))"
"""A mask that takes longer than anybody waits."""
ASLEEP = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
DATABASES = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder with a refresh.toml, and the cluster that has both databases."""

    cluster: Cluster
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def init(self, mode: str, environment: str, *more: str) -> subprocess.CompletedProcess[str]:
        source = self.cluster.conninfo("crm", "reader")
        target = self.cluster.conninfo("postgres", "refresher")
        ends = ("--source", source, "--target", target, "--database", "crm2")
        owner = ("--owner", "crm_owner", *more)
        return self.run("init", "--mode", mode, "--environment", environment, *ends, *owner)

    def write_masked(self, rules: str = RULES) -> None:
        """A refresh.toml for DEV, by hand but for what `init` writes for any file."""
        key = new_mask_key(self.folder)
        self.init("copy", "DEV")
        file = self.folder / "refresh.toml"
        masked = f'mode = "masked"\nkey = "{key}"'
        file.write_text(file.read_text().replace('mode = "copy"', masked) + rules)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with production_of(SCHEMA) as cluster:
        yield cluster


@pytest.fixture
def desk(server: Cluster, tmp_path: Path) -> Iterator[Desk]:
    yield Desk(server, tmp_path)
    server.psql("DROP DATABASE IF EXISTS crm2")


def test_from_init_to_the_report_of_a_copy(desk: Desk) -> None:
    assert desk.init("copy", "QAT").stdout == "wrote refresh.toml\n"

    planned, done, report = desk.run("plan"), desk.run("run"), desk.run("report")

    assert planned.stdout.startswith("copy: makes crm2 (QAT) from crm (PRD)\n")
    assert done.returncode == 0
    assert done.stdout.startswith("copy: crm2 (QAT) is made from crm (PRD)\n")
    assert "releases      crm, sequence 14\n" in done.stdout
    assert done.stderr == ""  # a pipe gets no progress
    assert report.stdout == done.stdout
    assert desk.cluster.psql("SELECT count(*) FROM visit", "crm2") == "200"


def test_a_plan_of_masks_says_what_becomes_of_columns_and_which_rows_are_chosen(desk: Desk) -> None:
    desk.write_masked()

    planned = desk.run("plan")
    tables = {
        table["table"]: table for table in json.loads(desk.run("plan", "--json").stdout)["tables"]
    }

    said = [" ".join(line.split()) for line in planned.stdout.splitlines()]
    assert "public.customer 10 of 40 rows 0.0 MiB" in said
    assert "public.visit 50 of 200 rows 0.0 MiB" in said
    assert "masked email (email)" in said
    assert "kept id, region" in said
    assert tables["public.customer"]["masks"]["email"] == "email"
    assert (tables["public.rate"]["rows"], tables["public.rate"]["bytes"]) == (0, 0)
    assert tables["countersign.ledger"]["masks"] == {}
    assert "crm2" not in desk.cluster.psql(DATABASES)


def test_a_terminal_shows_how_far_it_is(desk: Desk) -> None:
    desk.init("copy", "QAT")
    ours, theirs = pty.openpty()

    done = subprocess.run(
        [*COMMAND, "run"],
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert "rows: 5 tables, " in shown
    assert "compare\r\n" in shown
    assert b"rows: 5 tables" not in done.stdout


@pytest.mark.parametrize(
    "sql, told",
    [
        ("mail", 'column "mail" does not exist'),
        ("1) AS text); DROP TABLE visit; SELECT CAST((1", "multiple commands"),
    ],
)
def test_a_mask_that_is_no_sql_is_told_by_the_plan(desk: Desk, sql: str, told: str) -> None:
    rule = f'class = "sql", sql = "{sql}", unique = true'
    desk.write_masked(RULES.replace('class = "email", domain = "mail"', rule))

    refused = desk.run("plan")

    assert refused.returncode == 66
    assert refused.stderr.startswith("error: public.customer: the source says: ")
    assert told in refused.stderr
    assert desk.cluster.psql("SELECT count(*) FROM visit", "crm") == "200"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_the_old_database(desk: Desk, number: int) -> None:
    desk.write_masked()
    assert desk.run("run").returncode == 0
    before = desk.cluster.psql(DATABASES)
    never = f'class = "sql", sql = "{NEVER}", unique = true'
    file = desk.folder / "refresh.toml"
    file.write_text(file.read_text().replace('class = "email", domain = "mail"', never))

    with subprocess.Popen(
        [*COMMAND, "run"],
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        wait_for(desk.cluster, f"SELECT (EXISTS ({ASLEEP}))::int")
        running.send_signal(number)
        said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert said == ("", "\ninterrupted: crm2 is as it was; the source is unchanged\n")
    assert desk.cluster.psql(DATABASES) == before
    assert desk.cluster.psql("SELECT count(*) FROM customer", "crm2") == "10"
    wait_for(desk.cluster, f"SELECT (NOT EXISTS ({ASLEEP}))::int")


def wait_for(cluster: Cluster, query: str) -> None:
    """Wait until a query returns a number other than 0."""
    until = time.monotonic() + 30
    while cluster.psql(query) == "0":
        assert time.monotonic() < until, query
        time.sleep(0.05)


def test_init_overwrites_nothing(desk: Desk) -> None:
    file = desk.folder / "refresh.toml"
    file.write_text("mine")

    refused = desk.init("copy", "QAT")

    assert refused.returncode == 10
    assert refused.stderr.startswith("error: refresh.toml is there already, and is not overwritten")
    assert file.read_text() == "mine"


def test_what_is_refused_says_which_database_was_not_refreshed(desk: Desk) -> None:
    desk.init("copy", "PRD")

    refused = desk.run("run")

    assert refused.returncode == 60
    assert refused.stderr.startswith("error: crm2 was not refreshed: refresh.toml says environment")
    assert "crm2" not in desk.cluster.psql(DATABASES)


def test_the_last_report_is_that_of_the_file_s_environment(desk: Desk) -> None:
    desk.init("copy", "QAT")
    assert desk.run("run").returncode == 0
    desk.init("copy", "DEV", "--configuration", "dev.toml")

    refused = desk.run("report", "-c", "dev.toml")
    found = desk.run("report", "--json")

    assert refused.returncode == 10
    assert "has no report about 'crm2' (DEV) yet" in refused.stderr
    assert json.loads(found.stdout)["environment"] == "QAT"
