"""DEV as a limited and masked copy of PRD: what arrives, and what never leaves."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from refresher.configuration import Configuration, parse_configuration
from refresher.copying import Watch, refresh
from refresher.errors import RefreshFileError, UnclassifiedError
from refresher.report import Report
from tests.cluster import Cluster
from tests.production import new_mask_key, production_of

pytestmark = pytest.mark.integration

SCHEMA = """
SET ROLE crm_owner;
CREATE TABLE customer (id int PRIMARY KEY, email text UNIQUE, region text, note text);
CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customer, mail text,
    total numeric, tax numeric GENERATED ALWAYS AS (total / 5) STORED);
INSERT INTO customer SELECT n, 'raw' || n || '@real.example', CASE WHEN n % 10 = 0 THEN 'EU'
    ELSE 'US' END, nullif('secret' || n, 'secret7') FROM generate_series(1, 1000) AS n;
INSERT INTO orders SELECT n, 1 + n % 1000, 'raw' || (1 + n % 1000) || '@real.example', n
    FROM generate_series(1, 5000) AS n;
SELECT lo_from_bytea(4242, 'raw and large');
GRANT SELECT ON LARGE OBJECT 4242 TO reader;
"""
RULES = """
[columns."public.customer"]
id = { class = "integer", domain = "customer" }
email = { class = "email", domain = "mail" }
region = { class = "keep" }
note = { class = "text", domain = "note" }
[columns."public.orders"]
id = { class = "keep" }
customer = { class = "integer", domain = "customer" }
mail = { class = "email", domain = "mail" }
total = { class = "keep" }
"""
SUBSET = '[[subset]]\ntable = "public.customer"\nwhere = "region = \'EU\'"\n'


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """PRD, and DEV on the same cluster, which tells all that it is asked."""
    with production_of(SCHEMA) as cluster:
        cluster.psql("ALTER SYSTEM SET log_statement = 'all'")
        cluster.psql("SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_mask_key(tmp_path)


def head(server: Cluster, key: Path) -> str:
    return (
        f'[refresh]\nmode = "masked"\nenvironment = "DEV"\nkey = "{key}"\n'
        f'[source]\nconninfo = "{server.conninfo("crm", "reader")}"\n'
        f'[target]\nconninfo = "{server.conninfo("postgres", "refresher")}"\n'
        'database = "dev"\nowner = "crm_owner"\n'
    )


def configuration(server: Cluster, key: Path, rest: str) -> Configuration:
    return parse_configuration((head(server, key) + rest).encode())


def run(server: Cluster, key: Path, rest: str) -> Report:
    folder = key.parent / "reports"
    return refresh(configuration(server, key, rest), folder, Watch(lambda _: None))


def dumped(server: Cluster, database: str) -> str:
    program = str(server.program("pg_dump"))
    command = [program, "--inserts", "-d", server.conninfo(database, "postgres")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_no_raw_value_arrives_and_every_key_still_matches(server: Cluster, key: Path) -> None:
    report = run(server, key, RULES)

    found = dumped(server, "dev")
    assert not re.search(r"raw\d+@|raw and large|real\.example|secret\d", found)
    assert report.rows["public.orders"] == 5000
    assert "1 large objects" in report.left_out
    matching = (
        "SELECT count(*), count(DISTINCT c.id) FROM orders AS o JOIN customer AS c ON c.id = "
    )
    assert server.psql(f"{matching} o.customer AND c.email = o.mail", "dev") == "5000|1000"
    assert server.psql("SELECT count(*) FROM customer WHERE note IS NULL", "dev") == "1"
    assert server.psql("SELECT sum(tax) = sum(total / 5) FROM orders", "dev") == "t"
    assert server.psql("SELECT environment FROM countersign.database", "dev") == "DEV"


def test_a_part_of_the_rows_is_whole_in_itself(server: Cluster, key: Path) -> None:
    report = run(server, key, SUBSET + RULES)

    assert server.psql("SELECT count(*), min(region), max(region) FROM customer", "dev") == (
        "100|EU|EU"
    )
    assert report.rows["public.orders"] == 500
    assert report.constraints["foreign key"] == 1
    assert server.psql("SELECT max(sequence) FROM countersign.ledger", "dev") == "14"


def test_the_key_is_in_no_log_no_report_and_no_argument(server: Cluster, key: Path) -> None:
    said: list[str] = []
    arguments = ""

    def tell(text: str) -> None:
        nonlocal arguments
        said.append(text)
        listed = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True)
        activity = server.psql("SELECT string_agg(query, ' ') FROM pg_stat_activity")
        arguments += listed.stdout + activity

    report = refresh(configuration(server, key, RULES), key.parent, Watch(tell))

    secret = key.read_text()
    log = (server.folder / "log").read_text()
    assert "COPY (SELECT" in log
    assert "pg_stat_activity" in arguments
    for place in (log, arguments, "".join(said), json.dumps(report.document)):
        assert secret not in place


def test_a_column_without_a_class_stops_the_run_by_name(server: Cluster, key: Path) -> None:
    before = server.psql("SELECT count(*) FROM pg_database")
    less = RULES.replace('note = { class = "text", domain = "note" }\n', "")

    with pytest.raises(UnclassifiedError) as refused:
        run(server, key, less)

    assert refused.value.exit_code == 66
    assert "public.customer: column note (text) has no class" in refused.value.detail
    assert server.psql("SELECT count(*) FROM pg_database") == before


@pytest.mark.parametrize("sql", ["1) \\! touch {there}", r"'a' \! touch {there}", r"E'\'"])
def test_an_expression_is_no_way_to_a_command_of_psql(
    server: Cluster, key: Path, tmp_path: Path, sql: str
) -> None:
    there = tmp_path / "there"
    rule = f'class = "sql", sql = {json.dumps(sql.format(there=there))}'
    rules = RULES.replace('class = "text", domain = "note"', rule)

    with pytest.raises(UnclassifiedError, match=r"column note: .* backslash"):
        run(server, key, rules)

    assert not there.exists()


def test_an_expression_may_have_backslashes_in_its_quotes(server: Cluster, key: Path) -> None:
    sql = r"""'\' || E'\' \! x' || "region" || $$\'$$"""
    rule = f'class = "sql", sql = {json.dumps(sql)}'

    run(server, key, RULES.replace('class = "text", domain = "note"', rule))

    found = server.psql("SELECT DISTINCT note FROM customer WHERE region = 'EU'", "dev")
    assert found == r"\' ! xEU\'"


@pytest.mark.parametrize(
    "content, mode, told",
    [
        ("ab" * 32, 0o640, "others can read"),
        ("short", 0o600, "64 hexadecimal"),
        (None, 0, "No such"),
    ],
)
def test_a_key_that_others_can_read_or_that_is_none_is_refused(
    server: Cluster, tmp_path: Path, content: str | None, mode: int, told: str
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
        key.chmod(mode)

    with pytest.raises(RefreshFileError, match=told) as refused:
        run(server, key, RULES)

    assert "ab" * 32 not in str(refused.value)


def test_init_writes_every_column_and_a_run_asks_for_those_without_a_class(
    server: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "refresh.toml"
    options = {
        "mode": "masked",
        "environment": "DEV",
        "source": server.conninfo("crm", "reader"),
        "target": server.conninfo("postgres", "refresher"),
        "database": "dev",
        "owner": "crm_owner",
    }
    command = [sys.executable, "-m", "packager", "refresh", "init", "-c", str(file)]
    given = [word for name, value in options.items() for word in (f"--{name}", value)]

    first = subprocess.run([*command, *given], capture_output=True, timeout=60, check=False)
    again = subprocess.run([*command, *given], capture_output=True, timeout=60, check=False)

    assert first.returncode == 0, first.stderr
    assert again.returncode == 10
    text = file.read_text()
    assert '[columns."public.customer"]' in text
    assert 'email = { class = "email"' in text
    rules = parse_configuration(text.encode()).rules
    assert rules["public.orders"]["customer"] == rules["public.customer"]["id"]


def test_a_role_that_makes_databases_for_their_owners_is_enough(
    server: Cluster, tmp_path: Path
) -> None:
    server.psql(
        "CREATE ROLE plain LOGIN CREATEDB IN ROLE crm_owner, countersign, pg_signal_backend"
    )
    text = (
        '[refresh]\nmode = "copy"\nenvironment = "QAT"\n'
        f'[source]\nconninfo = "{server.conninfo("crm", "reader")}"\n'
        f'[target]\nconninfo = "{server.conninfo("postgres", "plain")}"\n'
        'database = "qat"\nowner = "crm_owner"\n'
    )
    found = parse_configuration(text.encode())

    first = refresh(found, tmp_path, Watch(lambda _: None))
    second = refresh(found, tmp_path, Watch(lambda _: None))

    assert first.fingerprints == second.fingerprints != {}
    assert server.psql("SELECT environment FROM countersign.database", "qat") == "QAT"
    assert server.psql("SELECT count(*) FROM orders", "qat") == "5000"
