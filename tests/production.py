"""A production database with everything in it that makes copies hard, for tests of refreshes.

Its cluster has besides the roles of a host: `reader`, which may read all and write nothing,
`blinkered`, from whom a policy hides some of it, and
`refresher`, which may make databases and is a member of all who own something. Its ledger is the
installer's own.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from tests.cluster import Cluster, private_cluster
from tests.hosts.cluster import installation

MASKED_FILE = """\
[refresh]
mode = "masked"
environment = "DEV"
key = "/etc/countersign/mask.key"
[source]
service = "crm-prd"
[target]
service = "dev"
database = "crm"
owner = "crm_owner"
"""
"""A refresh.toml without rules, for what connects to nothing."""

ROLES = """
CREATE ROLE clerk;
CREATE ROLE reader LOGIN BYPASSRLS IN ROLE pg_read_all_data;
CREATE ROLE blinkered LOGIN IN ROLE pg_read_all_data;
CREATE ROLE refresher LOGIN SUPERUSER;
"""

SCHEMA = r"""
CREATE EXTENSION noted;
INSERT INTO noted_word VALUES ('mine', false);
SET ROLE crm_owner;
CREATE SCHEMA sales;
CREATE DOMAIN sales.code AS varchar(8) CHECK (VALUE ~ '^[A-Z]');
CREATE TYPE sales.mood AS ENUM ('glad', 'cross');

-- circular foreign keys, one of them deferrable
CREATE TABLE sales.department (id int PRIMARY KEY, head int);
CREATE TABLE sales.person (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    department int NOT NULL REFERENCES sales.department,
    chief int REFERENCES sales.person,
    name text NOT NULL UNIQUE,
    shout text GENERATED ALWAYS AS (upper(name)) STORED,
    mood sales.mood, code sales.code, photo bytea, weight double precision, since timestamptz
);
ALTER TABLE sales.department ADD FOREIGN KEY (head) REFERENCES sales.person
    DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO sales.department SELECT n, n FROM generate_series(1, 5) AS n;
INSERT INTO sales.person (department, chief, name, mood, code, photo, weight, since)
    SELECT 1 + n % 5, nullif(n / 2, 0), E'N\\.\t' || n || E'\n', 'glad', 'C' || n,
        decode(md5(n::text), 'hex'), pi() * n, '2024-02-29 12:00+02'
    FROM generate_series(1, 500) AS n;
COMMIT;

-- a trigger that writes elsewhere: it must not when rows are copied
CREATE TABLE sales.trail (id bigserial PRIMARY KEY, what text);
CREATE FUNCTION sales.note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO sales.trail (what) VALUES (TG_OP); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT ON sales.person FOR EACH ROW EXECUTE FUNCTION sales.note();
INSERT INTO sales.person (department, name) VALUES (1, 'last');

-- partitions, one below another, and inheritance
CREATE TABLE sales.visit (day date, shop int, note text, PRIMARY KEY (day, shop))
    PARTITION BY RANGE (day);
CREATE TABLE sales.visit_2024 PARTITION OF sales.visit
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY HASH (shop);
CREATE TABLE sales.visit_2024_a PARTITION OF sales.visit_2024
    FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE sales.visit_2024_b PARTITION OF sales.visit_2024
    FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE sales.visit_else PARTITION OF sales.visit DEFAULT;
INSERT INTO sales.visit SELECT '2024-06-01'::date + n, n, 'x' FROM generate_series(1, 400) AS n;
CREATE TABLE sales.thing (id int, what text);
CREATE TABLE sales.car (wheels int) INHERITS (sales.thing);
INSERT INTO sales.thing VALUES (1, 'stone');
INSERT INTO sales.car VALUES (2, 'car', 4);

-- names that have to be quoted, a column that is gone, no columns at all
CREATE TABLE sales."Odd ""one"";" ("a\b" int, ":x" text, gone int, "tab	" text);
ALTER TABLE sales."Odd ""one"";" DROP gone;
INSERT INTO sales."Odd ""one"";" VALUES (1, E'\\N', NULL), (2, E'\\.\n', '');
CREATE TABLE sales.bare ();
INSERT INTO sales.bare DEFAULT VALUES;
CREATE UNLOGGED TABLE sales.fleeting AS SELECT 1 AS a;

-- a large one, of several pieces when pieces are small
CREATE TABLE sales.wide (id int PRIMARY KEY, filler text);
INSERT INTO sales.wide SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 30000) AS n;
DELETE FROM sales.wide WHERE id % 7 = 0;
CREATE INDEX ON sales.wide (md5(filler));

CREATE SEQUENCE sales.loose START 7 INCREMENT 3;
CREATE SEQUENCE sales.moved; SELECT setval('sales.moved', 4711);
CREATE SEQUENCE sales.waiting; SELECT setval('sales.waiting', 99, false);

-- views that have to be filled in an order which is not that of their names
CREATE MATERIALIZED VIEW sales.z_first AS SELECT shop, count(*) AS n FROM sales.visit GROUP BY shop;
CREATE VIEW sales.m_between AS SELECT sum(n) AS n FROM sales.z_first;
CREATE MATERIALIZED VIEW sales.a_last AS SELECT n FROM sales.m_between;
CREATE UNIQUE INDEX ON sales.a_last (n);
CREATE MATERIALIZED VIEW sales.empty AS SELECT 1 AS a WITH NO DATA;

CREATE FUNCTION sales.big(int) RETURNS bigint LANGUAGE sql AS 'SELECT $1::bigint';
ALTER TABLE sales.thing ADD CONSTRAINT later CHECK (id > 5) NOT VALID;
GRANT SELECT ON sales.person TO clerk;
ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT SELECT ON TABLES TO clerk;
COMMENT ON TABLE sales.person IS 'who';
CREATE RULE quiet AS ON DELETE TO sales.thing DO INSTEAD NOTHING;
ALTER TABLE sales.car ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON sales.car TO clerk USING (true);
SELECT lo_from_bytea(4242, 'a large object');
COMMENT ON LARGE OBJECT 4242 IS 'large';
GRANT SELECT ON LARGE OBJECT 4242 TO reader;
RESET ROLE;
CREATE PUBLICATION everything FOR ALL TABLES;
"""

EXTENSION = {
    "noted.control": "default_version = '1.0'\nrelocatable = true\n",
    "noted--1.0.sql": """
CREATE TABLE noted_word (word text PRIMARY KEY, standard boolean);
INSERT INTO noted_word VALUES ('theirs', true);
SELECT pg_extension_config_dump('noted_word', 'WHERE NOT standard');
""",
}
"""An extension with a configuration table, which it fills itself in part."""

LEDGER = """
SET ROLE countersign;
{ledger}
INSERT INTO countersign.database (environment) VALUES ('PRD');
SELECT countersign.append(jsonb_build_array(jsonb_build_object('event', 'release applied',
    'product', 'crm', 'version', '1.4.0', 'sequence', 14, 'manifest', repeat('0', 64),
    'signers', '[]'::jsonb, 'environment', 'PRD', 'host', 'h', 'package', 'p',
    'installer', '0')));
"""


def make_production(cluster: Cluster, name: str = "crm") -> None:
    """The database `name`, owned by `crm_owner`, with a ledger that says PRD."""
    cluster.new_database(name)
    cluster.psql(SCHEMA, name)
    add_ledger(cluster, name)


@contextmanager
def production_of(schema: str) -> Iterator[Cluster]:
    """A cluster whose database `crm` has the objects that `schema` makes, and a ledger."""
    with private_cluster() as cluster:
        cluster.psql(ROLES)
        cluster.new_database("crm")
        cluster.psql(schema, "crm")
        add_ledger(cluster, "crm")
        yield cluster


def new_mask_key(folder: Path) -> Path:
    """A key of masks, in a file that only its owner may read."""
    file = folder / "mask.key"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    return file


def add_ledger(cluster: Cluster, name: str) -> None:
    """The installer's own ledger, with one release of crm."""
    parts = (files("installer").joinpath(file) for file in ("ledger.sql", "environment.sql"))
    ledger = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    cluster.psql(LEDGER.format(ledger=ledger), name)


def programs_with_extension(folder: Path) -> Path:
    """The installed programs, moved so that they find an extension more: they look beside them.

    PostgreSQL finds its folders from that of its program, as long as they stand to each other as
    they were built.
    """
    installed = installation()
    programs, shared = folder / installed.relative_to("/usr"), Path("share/postgresql")
    (programs / "bin").mkdir(parents=True)
    for program in (installed / "bin").iterdir():
        shutil.copy(program, programs / "bin")
    (programs / "lib").symlink_to(installed / "lib")
    extensions = folder / shared / installed.name / "extension"
    extensions.mkdir(parents=True)
    _link_all(Path("/usr") / shared / installed.name, extensions.parent)
    _link_all(Path("/usr") / shared / installed.name / "extension", extensions)
    for name, content in EXTENSION.items():
        (extensions / name).write_text(content)
    return programs / "bin"


def _link_all(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        if not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)
