"""A refresh from each major version of PostgreSQL to the same one, and to a newer one.

Three majors: the one that is installed, and two that a pinned wheel brings along.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import pytest

from installer.session import Session
from refresher.clients import find_programs
from refresher.configuration import Configuration, parse_configuration
from refresher.copying import Watch, refresh
from refresher.errors import NotReadyError
from refresher.report import Report
from tests.cluster import BROUGHT, Cluster, brought, private_cluster
from tests.hosts.cluster import installation
from tests.production import (
    EXTENSION,
    ROLES,
    make_production,
    new_mask_key,
    programs_with_extension,
)

pytestmark = pytest.mark.integration

INSTALLED = installation().name
MAJORS = sorted({INSTALLED, *BROUGHT}, key=int)
PAIRS = [pair for pair in combinations_with_replacement(MAJORS, 2) if pair[1] != INSTALLED]
"""Source and target; all other tests are of the installed version alone."""

# 15.20 notes in its catalog what pg_dump of the wheel's 16.14 and 18.4 take for an option.
WITHOUT_NOTES = """
UPDATE pg_attribute SET attoptions = NULL WHERE attoptions::text LIKE '{pg_attver=%' AND attnum > 0
"""
# What only newer servers have, by the first that has it.
NEWER = {
    17: "GRANT MAINTAIN ON sales.person TO clerk;",
    18: """
SET ROLE crm_owner;
CREATE TABLE sales.newer (id int PRIMARY KEY, half int,
    whole int GENERATED ALWAYS AS (half * 2) VIRTUAL);
INSERT INTO sales.newer VALUES (1, NULL), (2, 21), (3, -1);
ALTER TABLE sales.newer ADD CONSTRAINT known NOT NULL half NOT VALID,
    ADD CONSTRAINT wish CHECK (half > 0) NOT ENFORCED;
""",
}
# A key and what references it, by the time for which that holds.
TEMPORAL = """
SET ROLE crm_owner;
CREATE TABLE price (product int4range, valid daterange, amount int,
    PRIMARY KEY (product, valid WITHOUT OVERLAPS));
CREATE TABLE sale (id int PRIMARY KEY, product int4range, valid daterange,
    FOREIGN KEY (product, PERIOD valid) REFERENCES price (product, PERIOD valid));
INSERT INTO price SELECT int4range(n, n + 1), daterange('2024-01-01'::date + 100 * k,
    '2024-01-01'::date + 100 * (k + 1)), n FROM generate_series(1, 50) AS n,
    generate_series(0, 2) AS k;
INSERT INTO sale SELECT n, int4range(n, n + 1), '[2024-02-01,2024-08-01)'
    FROM generate_series(1, 50) AS n;
"""
PEOPLE = """
SET ROLE crm_owner;
CREATE TABLE customer (id int PRIMARY KEY, mail text NOT NULL, born date, note jsonb, town text);
INSERT INTO customer SELECT n, 'raw' || n % 10 || '@real.example', '1990-01-01'::date + n,
    jsonb_build_object('mail', 'raw@real.example'), 'rawtown' FROM generate_series(1, 500) AS n;
CREATE STATISTICS together ON mail, town FROM customer;
CREATE INDEX ON customer (lower(mail));
ANALYZE customer;
"""
RULES = """
[columns."public.customer"]
id = { class = "integer", domain = "customer" }
mail = { class = "email", domain = "mail" }
born = { class = "date", domain = "customer", by = "id" }
note = { class = "json", paths = { mail = { class = "email", domain = "mail" } } }
town = { class = "text", domain = "town" }
"""
TEMPORAL_RULES = """
[[subset]]
table = "public.sale"
where = "id <= 10"
[columns."public.price"]
product = { class = "keep" }
valid = { class = "keep" }
amount = { class = "keep" }
[columns."public.sale"]
id = { class = "keep" }
product = { class = "keep" }
valid = { class = "keep" }
"""
BUILTIN = """
CREATE DATABASE plain OWNER crm_owner TEMPLATE template0
    LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'
"""
STATISTICS = "SELECT coalesce(string_agg(s::text, ' '), '') FROM pg_stats AS s WHERE schemaname "

Servers = Mapping[str, Cluster]


def with_extension(folder: Path, major: str) -> Path:
    """The programs of `major`, and beside them the extension that production has."""
    programs = brought(folder, major)
    for name, content in EXTENSION.items():
        (programs.parent / "share/postgresql/extension" / name).write_text(content)
    return programs


@pytest.fixture(scope="module")
def all_servers() -> Iterator[Servers]:
    """PRD, once in each major version."""
    programs: dict[str, Callable[[Path], Path]] = {
        major: partial(with_extension, major=major) for major in BROUGHT
    }
    programs[INSTALLED] = programs_with_extension
    with ExitStack() as stack:
        found = {}
        for major, where in programs.items():
            found[major] = cluster = stack.enter_context(private_cluster(where))
            cluster.psql(ROLES)
            make_production(cluster)
            for first, text in NEWER.items():
                cluster.psql(text if int(major) >= first else "", "crm")
            cluster.new_database("people")
            cluster.psql(PEOPLE, "people")
        for database in ("crm", "people"):
            found[INSTALLED].psql(WITHOUT_NOTES, database)
        yield found


@pytest.fixture
def servers(all_servers: Servers) -> Iterator[Servers]:
    """All of them; what a test has made is gone after it."""
    yield all_servers
    for cluster in all_servers.values():
        cluster.psql("DROP DATABASE IF EXISTS made WITH (FORCE)")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_mask_key(tmp_path)


def configuration(
    source: str, target: Cluster, rest: str = "", *, key: Path | None = None
) -> Configuration:
    """From the conninfo `source` to the database `made`, with the programs of the target."""
    mode = f'mode = "masked"\nkey = "{key}"' if key else 'mode = "copy"'
    head = (
        f'[refresh]\n{mode}\nenvironment = "DEV"\nprograms = "{target.programs}"\n'
        f'[source]\nconninfo = "{source}"\n'
        f'[target]\nconninfo = "{target.conninfo("postgres", "refresher")}"\n'
        'database = "made"\nowner = "crm_owner"\n'
    )
    return parse_configuration((head + rest).encode())


def run(configuration: Configuration, folder: Path) -> Report:
    return refresh(configuration, folder, Watch(lambda _: None))


def dumped(cluster: Cluster, database: str, program: Path) -> list[str]:
    """All rows and all of the schema, line by line in the order of their text.

    In a view, 15 writes the table's name before a column where 16 needs none: it is left out.
    """
    options = ("--inserts", "--no-publications", "--large-objects", "--restrict-key=none")
    command = [str(program), *options, "-d", cluster.conninfo(database, "postgres")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    text = re.sub(r"\b(visit|z_first|m_between)\.(?=(shop|n)\b)", "", done.stdout)
    lines = (line for line in text.splitlines() if not line.startswith("--"))
    return sorted(line for line in lines if "countersign.database" not in line)


@pytest.mark.parametrize("old, new", PAIRS)
def test_a_copy_is_what_it_was_to_the_last_row_and_privilege(
    servers: Servers, tmp_path: Path, old: str, new: str
) -> None:
    source, target = servers[old], servers[new]

    report = run(configuration(source.conninfo("crm", "reader"), target), tmp_path)

    program = target.program("pg_dump")
    assert dumped(target, "made", program) == dumped(source, "crm", program)
    assert report.large_objects == 1
    # Two majors have two ways to write a definition: only within one are they compared.
    assert (report.fingerprints is None) == (old != new)


@pytest.mark.parametrize("old, new", PAIRS)
def test_no_raw_value_comes_with_rows_or_statistics(
    servers: Servers, key: Path, old: str, new: str
) -> None:
    source, target = servers[old], servers[new]
    assert "raw1@real.example" in source.psql(f"{STATISTICS} = 'public'", "people")

    run(configuration(source.conninfo("people", "reader"), target, RULES, key=key), key.parent)

    assert "raw" not in "\n".join(dumped(target, "made", target.program("pg_dump")))
    found = target.psql(f"{STATISTICS} = 'public'", "made")
    assert "raw" not in found
    assert "@example.com" in found


def test_a_value_has_the_same_mask_on_every_version(servers: Servers, key: Path) -> None:
    masked = set()
    for source in servers.values():
        conninfo = source.conninfo("people", "reader")
        run(configuration(conninfo, servers["18"], RULES, key=key), key.parent)
        rows = "SELECT string_agg(c::text, E'\\n' ORDER BY id) FROM customer AS c"
        masked.add(servers["18"].psql(rows, "made"))

    assert len(masked) == 1
    assert len(masked.pop().splitlines()) == 500


@pytest.mark.parametrize("old, new", list(combinations(MAJORS, 2)))
def test_an_older_target_is_refused(servers: Servers, tmp_path: Path, old: str, new: str) -> None:
    source, target = servers[new].conninfo("people", "reader"), servers[old]
    with pytest.raises(NotReadyError) as refused:
        run(configuration(source, target), tmp_path)

    assert refused.value.exit_code == 61
    assert refused.value.detail == f"  PostgreSQL {new} or newer: the target's server has {old}"
    assert target.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'made%'") == "0"


def test_the_locale_of_the_server_itself_is_copied(servers: Servers, tmp_path: Path) -> None:
    server = servers["18"]
    server.psql(BUILTIN)

    run(configuration(server.conninfo("plain", "reader"), server), tmp_path)

    locale = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'made'"
    assert server.psql(locale) == "b|C.UTF-8"


def test_a_subset_takes_all_that_a_key_with_a_period_needs(servers: Servers, key: Path) -> None:
    server = servers["18"]
    server.new_database("temporal")
    server.psql(TEMPORAL, "temporal")
    source = server.conninfo("temporal", "reader")

    report = run(configuration(source, server, TEMPORAL_RULES, key=key), key.parent)

    assert report.rows == {"public.price": 30, "public.sale": 10}
    assert report.constraints["foreign key"] == 1


def test_a_time_limit_on_transactions_does_not_end_a_run(servers: Servers, tmp_path: Path) -> None:
    server = servers["18"]
    server.psql("ALTER ROLE reader SET transaction_timeout = '400ms'")
    server.psql("ALTER ROLE refresher SET transaction_timeout = '400ms'")
    try:
        run(configuration(server.conninfo("crm", "reader"), server), tmp_path)
    finally:
        server.psql("ALTER ROLE reader RESET ALL; ALTER ROLE refresher RESET ALL")

    count = "SELECT count(*) FROM sales.wide"
    assert server.psql(count, "made") == server.psql(count, "crm")


def test_programs_of_another_version_are_told_where_to_connect_and_no_default_of_ours(
    servers: Servers,
) -> None:
    server = servers["18"]
    conninfo = f"{server.conninfo('postgres')} sslmode=disable"

    with Session.open(conninfo, application_name="test") as session:
        settings = session.settings

    assert settings["host"] == str(server.folder)
    assert (settings["port"], settings["sslmode"]) == ("5432", "disable")
    assert settings.keys().isdisjoint({"sslcertmode", "sslnegotiation", "gssencmode"})


def test_programs_that_the_target_would_not_understand_are_refused(
    servers: Servers, tmp_path: Path
) -> None:
    programs = {major: server.programs for major, server in servers.items()}

    assert find_programs(15, programs["16"]).major == 16
    for major, folder, wanted in (
        (18, programs["16"], "18 or newer"),
        (15, programs["18"], "15 or newer, 16 at most,"),
        (15, tmp_path, "15 or newer, 16 at most,"),
    ):
        with pytest.raises(NotReadyError, match=f"PostgreSQL {wanted} in {folder}"):
            find_programs(major, folder)
