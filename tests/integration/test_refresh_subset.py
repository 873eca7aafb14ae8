"""A limited copy of a real database: it loads under every constraint, and holds no row too many."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer.session import Session
from refresher.catalog import read_source
from refresher.clients import Endpoint, Programs, Running
from refresher.closing import Selection, selected
from refresher.errors import SubsetError
from refresher.limit import Follow, Limit, Reference, Subset
from refresher.model import Catalog, TableName
from refresher.pieces import Piece, Stream
from refresher.stream import copy_stream
from tests.closures import (
    TABLES,
    Keys,
    Toy,
    catalog_of,
    foreign_keys,
    naive,
    rules_for,
    some_tables,
    sound,
    toys,
)
from tests.cluster import Cluster

pytestmark = pytest.mark.integration

READ_ONLY = {"options": "-c default_transaction_read_only=on -c row_security=off"}

SHOP = """
CREATE EXTENSION citext;
CREATE COLLATION german (provider = icu, locale = 'de-u-ks-level2', deterministic = false);
CREATE SCHEMA "Odd Names";

CREATE TABLE region (code citext PRIMARY KEY, title text);
CREATE TABLE person (name text COLLATE german PRIMARY KEY);
CREATE TABLE customer (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    region citext NOT NULL REFERENCES region,
    number text NOT NULL UNIQUE,
    recommended_by int REFERENCES customer,                     -- a self-reference
    best_order int,                                             -- one half of a cycle
    contact text COLLATE "C" REFERENCES person
);
CREATE TABLE orders (
    customer int REFERENCES customer, number int, shipped_by text, shipped_at int,
    PRIMARY KEY (customer, number)
);
ALTER TABLE customer ADD FOREIGN KEY (id, best_order) REFERENCES orders (customer, number)
    DEFERRABLE INITIALLY DEFERRED;                              -- the other half, composite
CREATE TABLE carrier (name text, depot int, PRIMARY KEY (name, depot));
ALTER TABLE orders ADD FOREIGN KEY (shipped_by, shipped_at) REFERENCES carrier; -- partly null
CREATE TABLE "Odd Names"."product ""x"" %s" (
    id int PRIMARY KEY, sku varchar(10) UNIQUE, replaced_by varchar(10),
    EXCLUDE USING btree (id WITH =)
);
ALTER TABLE "Odd Names"."product ""x"" %s"
    ADD FOREIGN KEY (replaced_by) REFERENCES "Odd Names"."product ""x"" %s" (sku);
CREATE TABLE line (
    customer int, "number" int, sku varchar(10) REFERENCES "Odd Names"."product ""x"" %s" (sku),
    amount numeric CHECK (amount > 0),
    FOREIGN KEY (customer, number) REFERENCES orders MATCH FULL
);                                                              -- no primary key
CREATE TABLE event (at date, customer text REFERENCES customer (number), id int,
    PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)
    PARTITION BY HASH (id);
CREATE TABLE event_new_0 PARTITION OF event_new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE event_new_1 PARTITION OF event_new FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE note (at date, id int, FOREIGN KEY (at, id) REFERENCES event);
CREATE TABLE visit (customer text, page text);                  -- a key that nobody declared
CREATE TABLE setting (name text PRIMARY KEY, region citext REFERENCES region);

INSERT INTO region VALUES ('eu', 'Europe'), ('us', 'America'), ('xx', 'Nowhere'), ('zz', 'None');
INSERT INTO person SELECT 'Person ' || g FROM generate_series(1, 100) AS g;
INSERT INTO carrier SELECT 'carrier ' || g, d
    FROM generate_series(1, 5) AS g, generate_series(1, 3) AS d;
INSERT INTO "Odd Names"."product ""x"" %s"
    SELECT g, 'sku' || g, CASE WHEN g > 1 THEN 'sku' || g / 2 END FROM generate_series(1, 300) AS g;
INSERT INTO customer (region, number, recommended_by, contact) SELECT
    CASE WHEN g % 10 = 0 THEN 'EU' ELSE 'us' END, 'C' || g, CASE WHEN g > 7 THEN g / 7 END,
    CASE WHEN g % 3 = 0 THEN 'PERSON ' || g % 100 + 1 END FROM generate_series(1, 1000) AS g;
INSERT INTO orders SELECT c, n, CASE WHEN n = 1 THEN 'carrier ' || c % 5 + 1 END,
    CASE WHEN n < 3 THEN c % 3 + 1 END
    FROM generate_series(1, 1000) AS c, generate_series(1, 3) AS n;
UPDATE customer SET best_order = 2 WHERE id % 2 = 0;
INSERT INTO line SELECT c, n, 'sku' || (c * n) % 300 + 1, 1 FROM generate_series(1, 1000) AS c,
    generate_series(1, 3) AS n, generate_series(1, 2);
INSERT INTO line VALUES (NULL, NULL, 'sku1', 1);
INSERT INTO event SELECT date '2025-12-01' + g % 60, 'C' || g, g
    FROM generate_series(1, 1000) AS g;
INSERT INTO note SELECT at, id FROM event WHERE id % 5 = 0;
INSERT INTO visit SELECT 'C' || g % 1200, '/' FROM generate_series(1, 5000) AS g;
INSERT INTO setting VALUES ('default', 'XX'), ('none', NULL);
"""

PRODUCT = '"Odd Names"."product ""x"" %s"'
CONTENT = "SELECT md5(string_agg(c::text, ' ' ORDER BY id)) FROM customer AS c"
RULES = Limit(
    subsets=(Subset("public.customer", "region OPERATOR(public.=) 'eu'"),),
    references=(Reference("public.visit", ("customer",), "public.customer", ("number",)),),
    follows=(
        Follow("public.setting", None, follow=False),
        Follow("public.customer", "customer_recommended_by_fkey", follow=False),
    ),
)


@contextmanager
def snapshot(cluster: Cluster, database: str) -> Iterator[tuple[Session, str]]:
    """The session that holds a snapshot, and the snapshot's name."""
    with Session.open(cluster.conninfo(database, "postgres"), **READ_ONLY) as session:
        session.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        session.execute(b"SET LOCAL search_path = pg_catalog")
        yield session, session.one("SELECT pg_export_snapshot()")


def endpoint(cluster: Cluster, database: str) -> Endpoint:
    return Endpoint({"host": str(cluster.folder), "dbname": database, "user": "postgres"})


def dump(cluster: Cluster, source: str, section: str) -> str:
    """A section of the schema, as SQL."""
    command = [
        str(cluster.program("pg_dump")),
        f"--section={section}",
        "--schema-only",
        f"--dbname={cluster.conninfo(source, 'postgres')}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def copy(  # noqa: PLR0917 - all that a copy is of
    cluster: Cluster, name: str, source: str, target: str, catalog: Catalog, chosen: Selection
) -> None:
    """Copy what is chosen, by the worker's own streams."""
    running = Running(Programs(cluster.programs, 15))
    ends = endpoint(cluster, source), endpoint(cluster, target)
    for table in catalog.tables:
        parts = () if table.is_partitioned else chosen.parts(table.name)
        select = f"SELECT * FROM ONLY {table.name.sql}"
        wheres = [""] if parts is None else [f" WHERE {part.condition}" for part in parts]
        for number, where in enumerate(wheres):
            piece = Piece(table.name, (), select + where, 0)
            copied = copy_stream(Stream((piece,), binary=True), name, *ends, running)
            assert parts is None or copied == (parts[number].rows,)


def limited_copy(cluster: Cluster, source: str, rules: Limit, folder: Path) -> str:
    """A new database with what `rules` choose, under all the constraints of `source`."""
    target = f"{source}_limited"
    cluster.psql(f"CREATE DATABASE {target}")
    with snapshot(cluster, source) as (session, name):
        catalog = read_source(session).catalog
        with selected(session, rules, catalog, folder) as chosen:
            cluster.psql(dump(cluster, source, "pre-data"), target)
            copy(cluster, name, source, target, catalog, chosen)
    cluster.psql(dump(cluster, source, "post-data"), target)
    return target


def counted(cluster: Cluster, database: str, *tables: str) -> list[int]:
    return [int(cluster.psql(f"SELECT count(*) FROM {table}", database)) for table in tables]


@pytest.fixture
def shop(cluster: Cluster, database: str) -> str:
    name = database.split("dbname=")[1].split(maxsplit=1)[0]
    cluster.psql(SHOP, name)
    return name


def test_a_limited_copy_satisfies_every_constraint_and_holds_what_the_rules_say(
    cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    target = limited_copy(cluster, shop, RULES, tmp_path)
    constraints = "SELECT count(*) FROM pg_constraint WHERE convalidated"
    assert cluster.psql(constraints, target) == cluster.psql(constraints, shop)

    # 100 customers of the EU, and whoever recommended them, down to the first.
    needed = """WITH RECURSIVE needed AS (
        SELECT id, recommended_by FROM customer WHERE region = 'eu'
        UNION SELECT c.id, c.recommended_by
        FROM customer AS c JOIN needed ON needed.recommended_by = c.id
    ) SELECT id FROM needed ORDER BY id"""
    customers = cluster.psql(needed, shop)
    assert len(customers.splitlines()) > 100
    assert cluster.psql("SELECT id FROM customer ORDER BY id", target) == customers

    # Orders and what hangs on them: all of the EU's, and best orders of who comes along.
    best = "SELECT count(*) FROM customer WHERE region <> 'eu' AND best_order IS NOT NULL"
    others = int(cluster.psql(best, target))
    assert others > 0
    assert counted(cluster, target, "orders", "line", "event", "note") == [
        300 + others,
        600,
        100,
        100,
    ]
    assert counted(cluster, target, "event_old", "event_new_0", "event_new_1") == counted(
        cluster,
        shop,
        *(f"{table} WHERE id % 10 = 0" for table in ("event_old", "event_new_0", "event_new_1")),
    )
    visits = "visit WHERE customer IN (SELECT number FROM customer WHERE region = 'eu')"
    assert counted(cluster, target, "visit") == counted(cluster, shop, visits)
    orphans = "visit WHERE customer NOT IN (SELECT number FROM customer)"
    assert counted(cluster, target, orphans) == [0]

    # A table that is whole brings what it references; what nobody needs stays.
    assert cluster.psql("SELECT code FROM region ORDER BY code", target) == "eu\nus\nxx"
    assert counted(cluster, target, "setting", "person") == [
        2,
        int(cluster.psql("SELECT count(DISTINCT lower(contact)) FROM customer", target)),
    ]
    used = f"""WITH RECURSIVE used AS (
        SELECT sku FROM line UNION SELECT replaced_by FROM {PRODUCT} JOIN used USING (sku)
    ) SELECT sku FROM used WHERE sku IS NOT NULL ORDER BY sku"""
    products = cluster.psql(f"SELECT sku FROM {PRODUCT} ORDER BY sku", target)
    assert products == cluster.psql(used, target)
    assert 0 < len(products.splitlines()) < 300


def test_rows_are_those_of_the_snapshot_though_they_are_changed_and_vacuumed_meanwhile(
    cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    target = f"{shop}_limited"
    cluster.psql(f"CREATE DATABASE {target}")
    cluster.psql(dump(cluster, shop, "pre-data"), target)
    before = cluster.psql(CONTENT, shop)
    with snapshot(cluster, shop) as (session, name):
        catalog = read_source(session).catalog
        rules = Limit((Subset("public.customer", "true"),))
        with selected(session, rules, catalog, tmp_path) as chosen:
            cluster.psql(
                "UPDATE customer SET best_order = NULL; "
                "DELETE FROM line; INSERT INTO line SELECT NULL, NULL, 'sku1', 1",
                shop,
            )
            cluster.psql("VACUUM", shop)
            with pytest.raises(AssertionError, match="lock timeout"):
                cluster.psql("SET lock_timeout = '50ms'; VACUUM FULL customer", shop)
            copy(cluster, name, shop, target, catalog, chosen)
    assert cluster.psql(CONTENT, target) == before
    assert counted(cluster, target, "line") == [6000]


def test_nothing_is_made_on_the_source(cluster: Cluster, shop: str, tmp_path: Path) -> None:
    made = "SELECT count(*), max(oid) FROM pg_class"
    before = cluster.psql(made, shop)
    with snapshot(cluster, shop) as (session, _):
        catalog = read_source(session).catalog
        with selected(session, RULES, catalog, tmp_path):
            assert session.one("SELECT pg_current_xact_id_if_assigned()") is None
            assert session.rows("SELECT name FROM pg_cursors") == []
            assert session.one("SELECT pg_my_temp_schema()") == 0
    assert cluster.psql(made, shop) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "rules, said",
    [
        (
            Limit((Subset("public.customer", "regin = 'eu'"),)),
            "where regin = 'eu': the source says: column \"regin\" does not exist",
        ),
        (
            Limit((Subset("public.customer", "true); COMMIT; DROP TABLE line; SELECT (true"),)),
            "cannot insert multiple commands into a prepared statement",
        ),
        (
            Limit((Subset("public.customer", "id < 0"),)),
            "[[subset]] of public.customer: no row has id < 0",
        ),
        (
            Limit(
                (Subset("public.customer", "true"),),
                (Reference("public.visit", ("page",), "public.customer", ("id",)),),
            ),
            "of public.visit to public.customer: the source says: operator does not exist",
        ),
    ],
)
def test_a_rule_that_finds_nothing_or_is_refused_is_told_in_the_servers_words(
    cluster: Cluster, shop: str, tmp_path: Path, rules: Limit, said: str
) -> None:
    with ExitStack() as stack:
        session, _ = stack.enter_context(snapshot(cluster, shop))
        catalog = read_source(session).catalog
        with pytest.raises(SubsetError) as refused:
            stack.enter_context(selected(session, rules, catalog, tmp_path))
    assert said in str(refused.value)
    assert counted(cluster, shop, "line") == [6001]
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_stored_elsewhere_are_refused_and_not_left_out(
    cluster: Cluster, shop: str, tmp_path: Path
) -> None:
    file = cluster.folder / "event.csv"
    file.write_text("2024-01-01,C1,5\n")
    file.chmod(0o644)
    cluster.psql(
        f"""CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE TABLE old (at date, customer text, id int) PARTITION BY RANGE (at);
        CREATE FOREIGN TABLE old_1 PARTITION OF old FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
            SERVER files OPTIONS (filename '{file}', format 'csv');""",
        shop,
    )
    with snapshot(cluster, shop) as (session, _):
        catalog = read_source(session).catalog
        rules = Limit((Subset("public.old", "id = 5"),))
        with (
            pytest.raises(SubsetError, match=r"public\.old_1 is a foreign table"),
            selected(session, rules, catalog, tmp_path),
        ):
            pass


@pytest.fixture(scope="module")
def toy_tables(cluster: Cluster) -> str:
    cluster.psql("CREATE DATABASE toys")
    for table in TABLES:
        cluster.psql(f"CREATE TABLE {table.name} (a int, b int, c int, n int)", "toys")
    return "toys"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(toys, foreign_keys(), some_tables, st.booleans())
def test_the_source_answers_as_the_rules_say_for_any_keys_among_tables(  # noqa: PLR0917 - drawn
    cluster: Cluster,
    toy_tables: str,
    tmp_path: Path,
    toy: Toy,
    keys: Keys,
    seeds: set[TableName],
    rest: bool,  # noqa: FBT001
) -> None:
    keys = sound(toy, keys)
    rules = rules_for(toy, keys, seeds, rest=rest)
    expected = naive(toy, rules, keys)
    with Session.open(cluster.conninfo(toy_tables, "postgres")) as session:
        session.execute(b"BEGIN")
        for table, rows in toy.rows.items():
            for number, row in enumerate(rows):
                session.rows(f"INSERT INTO {table.sql} VALUES (%s, %s, %s, %s)", [*row, number])
        with selected(session, rules, catalog_of(keys), tmp_path) as chosen:
            for table in toy.rows:
                parts = chosen.parts(table)
                wheres = ["true"] if parts is None else [part.condition for part in parts]
                found = [
                    row[0]
                    for where in wheres
                    for row in session.rows(f"SELECT n FROM {table.sql} WHERE {where}")
                ]
                assert sorted(found) == sorted(expected[table])
        session.rollback()


MEASURED = """
import resource, sys
from pathlib import Path
from installer.session import Session
from refresher.catalog import read_source
from refresher.closing import selected
from refresher.limit import Limit, Subset
from refresher.model import TableName

for least in 900_000, 0:
    with Session.open(sys.argv[1]) as session:
        session.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        catalog = read_source(session).catalog
        rules = Limit((Subset("public.parent", f"id > {least}"),))
        with selected(session, rules, catalog, Path(sys.argv[2])) as chosen:
            counts = [chosen.count(TableName("public", name)) for name in ("parent", "child")]
            for part in chosen.parts(TableName("public", "child")):
                assert part.condition.count("(") > part.rows
    print(*counts, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_million_chosen_rows_take_no_more_memory_than_a_tenth_of_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.psql("CREATE DATABASE million")
    cluster.psql(
        """CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL);
        INSERT INTO parent SELECT generate_series(1, 1000000);
        INSERT INTO child SELECT g, g FROM generate_series(1, 1000000) AS g;
        ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent; ANALYZE""",
        "million",
    )
    conninfo = cluster.conninfo("million", "postgres")
    command = [sys.executable, "-c", MEASURED, conninfo, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    few, many = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert few[:2] == [100_000, 100_000]
    assert many[:2] == [1_000_000, 1_000_000]
    assert many[2] - few[2] < 8 * 1024, "kilobytes more"
