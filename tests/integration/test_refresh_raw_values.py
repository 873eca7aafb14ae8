"""What a masked copy would tell: searched for on PRD before, counted on DEV after."""

import hashlib
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from refresher import digests
from refresher.clients import Process, Running
from refresher.configuration import Configuration, parse_configuration
from refresher.copying import Watch, refresh
from refresher.ends import target_end
from refresher.errors import RawValueError
from refresher.hidden import hidden
from refresher.preparing import prepared
from refresher.report import Report, lines
from refresher.residue import residue_of
from refresher.sections import SERVICE, Sections
from tests.cluster import Cluster
from tests.production import new_mask_key, production_of

pytestmark = pytest.mark.integration

SCHEMA = """
SET ROLE crm_owner;
CREATE SCHEMA crm;
CREATE TABLE crm.customer (id int PRIMARY KEY, email text UNIQUE, city text, phone varchar(20),
    born date, token uuid, note text, settings jsonb, region text);
INSERT INTO crm.customer SELECT n, 'raw' || n || '@real.example', 'Realtown ' || n % 7,
    '0171' || n, '1960-02-28'::date + n, md5(n::text)::uuid, NULL,
    jsonb_build_object('contact', jsonb_build_object('mail', 'json' || n || '@real.example'),
        'tags', jsonb_build_array('tag' || n, 'often'), 'theme', 'dark' || n), 'EU'
    FROM generate_series(1, 1000) AS n;
CREATE TABLE crm.visit (day date, guest text, PRIMARY KEY (day, guest)) PARTITION BY RANGE (day);
CREATE TABLE crm.visit_old PARTITION OF crm.visit FOR VALUES FROM (MINVALUE) TO ('2021-01-01');
CREATE TABLE crm.visit_new PARTITION OF crm.visit DEFAULT;
INSERT INTO crm.visit SELECT '2020-12-01'::date + n % 60, 'guest' || n
    FROM generate_series(1, 500) AS n;
RESET ROLE;
ANALYZE;
"""
RULES = """
[columns."crm.customer"]
id = { class = "integer", domain = "customer", bits = 12 }
email = { class = "email", domain = "mail" }
city = { class = "city", domain = "city" }
phone = { class = "phone", domain = "phone" }
born = { class = "date", domain = "customer", by = "id" }
token = { class = "hash", domain = "token" }
note = { class = "null" }
region = { class = "keep" }
[columns."crm.customer".settings]
class = "json"
paths."contact.mail" = { class = "email", domain = "mail" }
paths."tags[*]" = { class = "hash", domain = "tag" }
paths.theme = { class = "text", domain = "theme" }
[columns."crm.visit"]
day = { class = "keep" }
guest = { class = "hash", domain = "guest" }
"""
OLD = "CREATE TABLE old (a int); INSERT INTO old VALUES (1)"


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """PRD, and DEV on the same cluster, which tells all that it is asked."""
    with production_of(SCHEMA) as cluster:
        cluster.psql("ALTER SYSTEM SET log_statement = 'all'")
        cluster.psql("SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_mask_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def old(server: Cluster) -> Cluster:
    """The servers, with DEV as it was before."""
    renew_old(server)
    return server


def renew_old(server: Cluster) -> None:
    server.psql("DROP DATABASE IF EXISTS dev")
    server.new_database("dev")
    server.psql(OLD, "dev")


def require_old(server: Cluster) -> None:
    assert server.psql("SELECT datname FROM pg_database WHERE datname LIKE 'dev%'") == "dev"
    assert server.psql("SELECT a FROM old", "dev") == "1"


def text_of(server: Cluster, key: Path, rest: str) -> str:
    return (
        f'[refresh]\nmode = "masked"\nenvironment = "DEV"\nkey = "{key}"\n'
        f'[source]\nconninfo = "{server.conninfo("crm", "reader")}"\n'
        f'[target]\nconninfo = "{server.conninfo("postgres", "refresher")}"\n'
        f'database = "dev"\nowner = "crm_owner"\n{rest}'
    )


def configuration(server: Cluster, key: Path, rest: str) -> Configuration:
    return parse_configuration(text_of(server, key, rest).encode())


def run(server: Cluster, key: Path, rest: str = RULES) -> Report:
    found = configuration(server, key, rest)
    return refresh(found, key.parent / "reports", Watch(lambda _: None))


def log(server: Cluster) -> str:
    return (server.folder / "log").read_text()


TOKEN = UUID(hashlib.md5(b"17", usedforsecurity=False).hexdigest())
TOLD = [
    (
        "ALTER TABLE crm.customer ALTER city SET DEFAULT 'Realtown 3'",
        "ALTER TABLE crm.customer ALTER city DROP DEFAULT",
        "default of crm.customer.city holds a value of crm.customer.city",
    ),
    (
        "COMMENT ON COLUMN crm.customer.note IS 'Ask raw17@real.example!'",
        "COMMENT ON COLUMN crm.customer.note IS NULL",
        "comment on table column crm.customer.note holds a value of crm.customer.email",
    ),
    (
        "COMMENT ON TABLE crm.visit IS 'of Realtown 3, mostly'",
        "COMMENT ON TABLE crm.visit IS NULL",
        "comment on table crm.visit holds a value of crm.customer.city",
    ),
    (
        "COMMENT ON DATABASE crm IS 'see guest17'",
        "COMMENT ON DATABASE crm IS NULL",
        "comment on database crm holds a value of crm.visit.guest",
    ),
    (
        "CREATE VIEW crm.few AS SELECT id FROM crm.customer WHERE email = 'raw17@real.example'",
        "DROP VIEW crm.few",
        "view crm.few holds a value of crm.customer.email",
    ),
    (
        "CREATE MATERIALIZED VIEW crm.few AS SELECT date '1960-03-02' AS day",
        "DROP MATERIALIZED VIEW crm.few",
        "view crm.few holds a value of crm.customer.born",
    ),
    (
        (
            "CREATE FUNCTION crm.f(a text DEFAULT 'x') RETURNS void LANGUAGE plpgsql AS $f$ BEGIN "
            "EXECUTE 'SELECT ''tag17'''; END $f$"
        ),
        "DROP FUNCTION crm.f",
        "function crm.f(text) holds a value of crm.customer.settings tags[*]",
    ),
    (
        "CREATE FUNCTION crm.f(a text DEFAULT 'Realtown 3') RETURNS int LANGUAGE sql RETURN 1",
        "DROP FUNCTION crm.f",
        "function crm.f(text) holds a value of crm.customer.city",
    ),
    (
        "CREATE FUNCTION crm.f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT 'Realtown 3'; END",
        "DROP FUNCTION crm.f",
        "function crm.f() holds a value of crm.customer.city",
    ),
    (
        "CREATE AGGREGATE crm.all_of(text) (sfunc = textcat, stype = text, initcond = '017117')",
        "DROP AGGREGATE crm.all_of(text)",
        "function crm.all_of(text) holds a value of crm.customer.phone",
    ),
    (
        "ALTER TABLE crm.customer ADD CONSTRAINT c CHECK (email <> 'json17@real.example')",
        "ALTER TABLE crm.customer DROP CONSTRAINT c",
        "check c of crm.customer holds a value of crm.customer.settings contact.mail",
    ),
    (
        "CREATE DOMAIN crm.code AS text DEFAULT 'dark17' CHECK (VALUE <> 'dark18')",
        "DROP DOMAIN crm.code",
        (
            "check code_check of crm.code holds a value of crm.customer.settings theme\n"
            "default of crm.code holds a value of crm.customer.settings theme"
        ),
    ),
    (
        "CREATE TYPE crm.town AS ENUM ('Realtown 3', 'other')",
        "DROP TYPE crm.town",
        "label of crm.town holds a value of crm.customer.city",
    ),
    (
        "CREATE POLICY p ON crm.visit USING (true) WITH CHECK (guest <> 'guest17')",
        "DROP POLICY p ON crm.visit",
        "policy p of crm.visit holds a value of crm.visit.guest",
    ),
    (
        (
            "CREATE TABLE crm.some PARTITION OF crm.visit FOR VALUES FROM ('2030-01-01') TO "
            "('2031-01-01') PARTITION BY LIST (guest);"
            "CREATE TABLE crm.one PARTITION OF crm.some FOR VALUES IN ('guest17')"
        ),
        "DROP TABLE crm.some",
        "bounds of crm.one holds a value of crm.visit.guest",
    ),
    (
        f"CREATE INDEX i ON crm.customer (id) WHERE token = '{TOKEN}'",
        "DROP INDEX crm.i",
        "index crm.i holds a value of crm.customer.token",
    ),
    (
        "CREATE STATISTICS crm.s ON (phone || '017117') FROM crm.customer",
        "DROP STATISTICS crm.s",
        "statistics s of crm.customer holds a value of crm.customer.phone",
    ),
    (
        "CREATE RULE r AS ON DELETE TO crm.visit WHERE OLD.guest = 'guest17' DO INSTEAD NOTHING",
        "DROP RULE r ON crm.visit",
        "rule r of crm.visit holds a value of crm.visit.guest",
    ),
    (
        (
            "CREATE TRIGGER t BEFORE UPDATE ON crm.customer FOR EACH ROW "
            "WHEN (OLD.phone = '017117') EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        "DROP TRIGGER t ON crm.customer",
        "trigger t of crm.customer holds a value of crm.customer.phone",
    ),
]


@pytest.mark.parametrize("made, undone, told", TOLD, ids=[told for *_, told in TOLD])
def test_a_text_of_the_schema_that_tells_a_value_stops_the_run(
    old: Cluster, key: Path, made: str, undone: str, told: str
) -> None:
    old.psql(made, "crm")
    before = len(log(old))
    try:
        with pytest.raises(RawValueError) as refused:
            run(old, key)
    finally:
        asked = log(old)[before:]
        old.psql(undone, "crm")

    assert refused.value.exit_code == 69
    assert refused.value.detail == told
    assert not re.search(r"raw17|Realtown", str(refused.value))
    assert "CREATE DATABASE" not in asked
    require_old(old)


def test_texts_that_are_allowed_pass_and_are_in_the_report(old: Cluster, key: Path) -> None:
    old.psql(
        "ALTER TABLE crm.customer ALTER city SET DEFAULT 'Realtown 3';"
        "COMMENT ON SCHEMA crm IS 'Realtown 4'",
        "crm",
    )
    places = '"default of crm.customer.city", "comment on schema crm", "view crm.gone"'
    try:
        with pytest.raises(RawValueError) as refused:
            run(old, key, f'[search]\nallow = ["default of crm.customer.city"]\n{RULES}')
        require_old(old)
        report = run(old, key, f"[search]\nallow = [{places}]\n{RULES}")
    finally:
        old.psql(
            "ALTER TABLE crm.customer ALTER city DROP DEFAULT; COMMENT ON SCHEMA crm IS NULL", "crm"
        )

    assert refused.value.detail == "comment on schema crm holds a value of crm.customer.city"
    assert report.allowed == (
        "comment on schema crm holds a value of crm.customer.city",
        "default of crm.customer.city holds a value of crm.customer.city",
    )
    assert "allowed       view crm.gone, which was not found" in lines(report.document)


def test_a_constant_that_a_mask_writes_is_nobodys_value(old: Cluster, key: Path) -> None:
    rules = RULES.replace('"city", domain = "city"', '"constant", value = "Realtown 3"')
    old.psql("ALTER TABLE crm.customer ALTER city SET DEFAULT 'Realtown 3'", "crm")
    try:
        report = run(old, key, rules)
    finally:
        old.psql("ALTER TABLE crm.customer ALTER city DROP DEFAULT", "crm")

    assert report.raw_values["crm.customer.city"] == 1000


def test_neither_texts_of_the_ledger_nor_values_that_are_kept_are_searched(
    old: Cluster, key: Path
) -> None:
    old.psql(
        "ALTER TABLE crm.customer ALTER region SET DEFAULT 'EUROPE';"
        "UPDATE crm.customer SET region = 'EUROPE', city = 'release applied' WHERE id = 1",
        "crm",
    )
    try:
        report = run(old, key)
    finally:
        old.psql("UPDATE crm.customer SET city = 'Realtown 1' WHERE id = 1", "crm")

    assert report.allowed == ()


def test_every_masked_column_is_counted_and_what_is_met_by_chance_is_told(
    old: Cluster, key: Path
) -> None:
    report = run(old, key)

    by_chance = {"crm.customer.id", "crm.customer.born"}
    assert set(report.raw_values) - by_chance == {
        "crm.customer.email",
        "crm.customer.city",
        "crm.customer.phone",
        "crm.customer.token",
        "crm.customer.note",
        "crm.customer.settings contact.mail",
        "crm.customer.settings tags[*]",
        "crm.customer.settings theme",
        "crm.visit.guest",
    }
    assert all((number > 0) == (name in by_chance) for name, number in report.raw_values.items())
    ids = old.psql("SELECT count(*) FROM crm.customer WHERE id BETWEEN 1 AND 1000", "dev")
    assert report.raw_values["crm.customer.id"] == int(ids)
    shown = "\n".join(lines(report.document))
    assert f"crm.customer.id (integer): {ids} in 1000 rows, by chance" in shown
    assert f"raw values    {sum(report.raw_values.values())} in 11 masked columns" in shown


def test_statistics_on_the_target_are_of_masked_rows(old: Cluster, key: Path) -> None:
    run(old, key)

    stored = "SELECT string_agg(concat(most_common_vals, histogram_bounds), ' ') FROM pg_stats"
    found = old.psql(f"{stored} WHERE schemaname = 'crm'", "dev")
    assert "@example.com" in found
    assert not re.search(r"real\.example|Realtown|guest\d|[{,]0171\d", found)


def test_what_sql_lets_through_is_counted(old: Cluster, key: Path) -> None:
    sql = "CASE WHEN id <= 12 THEN phone WHEN id < 900 THEN '-' END"
    rules = RULES.replace('"phone", domain = "phone"', f'"sql", sql = "{sql}"')

    report = run(old, key, rules)

    assert report.raw_values["crm.customer.phone"] == 12
    told = "crm.customer.phone (sql): 12 in 1000 rows, let through by its SQL"
    assert told in report.by_chance


@pytest.mark.parametrize(
    "masks, raw, told",
    [
        (
            "SELECT email FROM crm.customer LIMIT 3",
            "INSERT INTO crm.customer (id, email) SELECT 2000 + n, m FROM {masks}",
            "crm.customer.email (email): 3",
        ),
        (
            "SELECT guest FROM crm.visit WHERE day < '2021-01-01' LIMIT 2",
            "INSERT INTO crm.visit SELECT '2024-01-01', m FROM {masks}",
            "crm.visit.guest (hash): 2",
        ),
        (
            "SELECT settings #>> '{tags,0}' FROM crm.customer LIMIT 2",
            (
                "INSERT INTO crm.customer (id, settings) SELECT 2000 + n,"
                " jsonb_build_object('tags', jsonb_build_array(m)) FROM {masks}"
            ),
            "crm.customer.settings tags[*] (hash): 2",
        ),
    ],
    ids=["unique", "other partition", "document"],
)
def test_a_mask_that_is_a_raw_value_elsewhere_stops_the_run(
    old: Cluster, key: Path, masks: str, raw: str, told: str
) -> None:
    run(old, key)
    found = old.psql(masks, "dev").splitlines()
    values = ", ".join(f"('{mask}', {number})" for number, mask in enumerate(found))
    renew_old(old)
    old.psql(raw.replace("{masks}", f"(VALUES {values}) AS v (m, n)"), "crm")
    try:
        with pytest.raises(RawValueError) as refused:
            run(old, key)
    finally:
        old.psql(
            "DELETE FROM crm.customer WHERE id > 1000;"
            "DELETE FROM crm.visit WHERE day = '2024-01-01'",
            "crm",
        )

    assert refused.value.exit_code == 69
    assert refused.value.detail == told
    require_old(old)


@pytest.mark.parametrize("digest", [digests.quick, digests.portable])
def test_a_copy_without_masks_is_seen_through(
    old: Cluster, key: Path, monkeypatch: pytest.MonkeyPatch, digest: digests.Digest
) -> None:
    monkeypatch.setattr(digests, "quick", digest)
    old.psql("UPDATE crm.customer SET note = 'secret' || id WHERE id <= 3", "crm")
    old.psql("CREATE DATABASE twin TEMPLATE crm")
    configured = configuration(old, key, RULES)
    end = target_end(configured.target.connection)
    try:
        with prepared(configured) as ready, end.session("twin") as target:
            source = ready.reading.endpoint(ready.session, "UTF8")
            ends = (source, end.endpoint(target, "UTF8"), Running(ready.programs))
            sections = Sections(ready.folder, ready.snapshot, *ends, jobs=2)
            catalog = ready.source.catalog
            places = hidden(catalog, configured.rules)
            with pytest.raises(RawValueError) as refused:
                residue_of(places, catalog, {}, sections, ready.session, target)
    finally:
        old.psql("DROP DATABASE twin")
        old.psql("UPDATE crm.customer SET note = NULL", "crm")

    assert refused.value.detail.splitlines() == [
        "crm.customer.email (email): 1000",
        "crm.customer.phone (phone): 1000",
        "crm.customer.token (hash): 1000",
        "crm.customer.note (null): 3",
        "crm.customer.settings contact.mail (email): 1000",
        "crm.customer.settings tags[*] (hash): 2000",
        "crm.visit.guest (hash): 500",
    ]


def test_neither_the_seed_nor_a_value_is_in_a_log_or_a_process_list(
    old: Cluster, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, seen = 8070605040302010907, ""
    monkeypatch.setattr(secrets, "randbits", lambda _: seed)
    started = Running.start

    @contextmanager
    def observed(*arguments: Any, **named: Any) -> Iterator[Process]:
        nonlocal seen
        with started(*arguments, **named) as process:
            listed = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True)
            seen += "\n".join(line for line in listed.stdout.splitlines() if SERVICE in line)
            yield process

    monkeypatch.setattr(Running, "start", observed)
    before = len(log(old))

    run(old, key)

    asked = log(old)[before:]
    assert "digests_0 of crm.customer" in asked
    assert "--single-transaction" in seen
    for place in (asked, seen):
        assert str(seed) not in place
        assert not re.search(r"raw\d+@|Realtown \d|guest\d|tag\d", place)


def test_a_cast_that_somebody_wrote_is_not_called(old: Cluster, key: Path) -> None:
    old.psql(
        "CREATE TYPE crm.mood AS ENUM ('glad', 'cross');"
        "CREATE FUNCTION crm.leak(crm.mood) RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'called with %', current_setting('countersign.seed', true); END $$;"
        "CREATE CAST (crm.mood AS text) WITH FUNCTION crm.leak(crm.mood);"
        "CREATE TABLE crm.feeling (mood crm.mood); INSERT INTO crm.feeling VALUES ('glad'), (NULL)",
        "crm",
    )
    rule = '[columns."crm.feeling"]\nmood = { class = "constant", value = "cross" }\n'
    try:
        report = run(old, key, RULES + rule)
    finally:
        old.psql("DROP TABLE crm.feeling; DROP TYPE crm.mood CASCADE", "crm")

    assert report.raw_values["crm.feeling.mood"] == 0


ODD = r"""
SET ROLE crm_owner;
CREATE DOMAIN crm.nick AS text;
CREATE TABLE crm."odd %s ""t"" x" (t text, leaf char(12), "100%" crm.nick, ci citext, "a b" json,
    at timestamptz);
INSERT INTO crm."odd %s ""t"" x" VALUES ('tango', 'lima', 'nick one', 'Charlie', NULL,
    '2020-02-29 12:00+00'), ('', NULL,
    NULL, NULL, '{"x.y": [{"'': \\": "juliet"}, 7]}', NULL);
COMMENT ON SCHEMA crm IS 'tango lima (nick one), Charlie; juliet';
"""
ODD_RULES = r"""
[columns.'crm.odd %s "t" x']
t = { class = "sql", sql = '"t"' }
leaf = { class = "sql", sql = '"leaf"' }
"100%" = { class = "sql", sql = '"100%"' }
ci = { class = "sql", sql = '"ci"' }
at = { class = "sql", sql = '"at"' }
[columns.'crm.odd %s "t" x'."a b"]
class = "json"
paths = { "\"x.y\"[*].\"': \\\"" = { class = "constant", value = "juliet" } }
"""


def test_odd_names_and_types_are_searched_and_counted(old: Cluster, key: Path) -> None:
    old.psql("CREATE EXTENSION citext", "crm")
    old.psql(ODD, "crm")
    old.psql("ALTER ROLE refresher SET timezone = 'Asia/Tokyo'")
    allow = '[search]\nallow = ["comment on schema crm"]\n'
    try:
        with pytest.raises(RawValueError) as refused:
            run(old, key, RULES + ODD_RULES)
        report = run(old, key, allow + RULES + ODD_RULES)
    finally:
        undone = 'DROP TABLE crm."odd %s ""t"" x"; DROP DOMAIN crm.nick; DROP EXTENSION citext;'
        old.psql(f"{undone} COMMENT ON SCHEMA crm IS NULL; ALTER ROLE refresher RESET ALL", "crm")

    table = 'crm.odd %s "t" x'
    text = ("100%", "ci", "leaf", "t")
    assert refused.value.detail.splitlines() == [
        f"comment on schema crm holds a value of {table}.{column}" for column in text
    ]
    counts = {name: n for name, n in report.raw_values.items() if name.startswith(table)}
    assert counts == {
        f"{table}.t": 2,
        f"{table}.leaf": 1,
        f"{table}.100%": 1,
        f"{table}.ci": 1,
        f"{table}.at": 1,
        f'{table}.a b "x.y"[*]."\': \\"': 1,
    }


CHILD = """
import sys
from pathlib import Path
from refresher.configuration import parse_configuration
from refresher.copying import Watch, refresh

def tell(text):
    if text == "raw values":
        print(text, flush=True)
        sys.stdin.readline()

refresh(parse_configuration(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), Watch(tell))
"""


def test_a_run_that_is_killed_while_it_counts_leaves_the_old_database(
    old: Cluster, key: Path, tmp_path: Path
) -> None:
    file = tmp_path / "refresh.toml"
    file.write_text(text_of(old, key, RULES))
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name = 'countersign refresh'"
    )
    command = [sys.executable, "-c", CHILD, str(file), str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as counting:
        assert line_of(counting) == "raw values\n"
        new = old.psql("SELECT datname FROM pg_database WHERE datname LIKE 'dev_refresh_%'")
        psql = [str(old.program("psql")), "-XqAt", "-d", old.conninfo(new, "postgres")]
        with subprocess.Popen(psql, **pipes) as holding:
            print("BEGIN; LOCK TABLE crm.visit; SELECT 1;", file=holding.stdin, flush=True)
            assert line_of(holding) == "1\n"
            print(file=counting.stdin, flush=True)
            wait_until(lambda: old.psql(waiting) == "1")
            counting.kill()
            wait_until(lambda: old.psql(waiting) == "0")

    assert old.psql("SELECT a FROM old", "dev") == "1"
    assert run(old, key).dropped == (new,)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
