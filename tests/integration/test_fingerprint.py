"""The schema's fingerprint on real servers: what leaves it as it is, and what it names as changed.

Three majors: the one that is installed, and two that a pinned wheel brings along.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from installer.database import Database, connect
from installer.errors import SchemaDiffersError
from installer.fingerprint import LAYERS, Schema, changes, require_same
from installer.host_file import DatabaseTarget
from installer.session import Session
from installer.transaction import read_schema
from tests.cluster import BROUGHT, Cluster, brought, installed, private_cluster

pytestmark = pytest.mark.integration

TIMEOUT = 120

ROLES = """
CREATE ROLE reader; CREATE ROLE "Web Users"; CREATE ROLE login_of_app LOGIN;
"""
TABLES = """
SET ROLE crm_owner;
CREATE SCHEMA crm; CREATE SCHEMA "Two Words"; CREATE SCHEMA "pg-like";
SET search_path = crm;

CREATE TYPE status AS ENUM ('new', 'paid', 'shipped');
CREATE TYPE address AS (street text, "ZIP code" varchar(10) COLLATE "C");
CREATE DOMAIN email AS varchar(200) COLLATE "C" DEFAULT 'nobody@example.org' NOT NULL
    CONSTRAINT has_at CHECK (VALUE LIKE '%@%') CHECK (VALUE <> 'x');
CREATE DOMAIN code AS varchar(5) CHECK (VALUE IN ('a', 'b''c', 'd"e'));
CREATE FUNCTION minutes(a timestamp, b timestamp) RETURNS float8 IMMUTABLE LANGUAGE sql
    AS 'SELECT extract(epoch FROM a - b) / 60';
CREATE TYPE period AS RANGE (SUBTYPE = timestamp, SUBTYPE_DIFF = minutes,
    MULTIRANGE_TYPE_NAME = periods);

CREATE TABLE customer (
    gone_first int,
    id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5 CACHE 3) PRIMARY KEY,
    mail email UNIQUE DEFERRABLE INITIALLY DEFERRED,
    gone text,
    home address,
    name text COLLATE "POSIX" NOT NULL,
    upper_name text GENERATED ALWAYS AS (upper(name)) STORED,
    born date CHECK (born > '1900-01-01'),
    notes text, photo bytea, tags text[] DEFAULT '{a,b}',
    UNIQUE (name, born) WITH (fillfactor = 80)
) WITH (fillfactor = 70, toast.autovacuum_enabled = false, autovacuum_enabled = false);
ALTER TABLE customer DROP COLUMN gone_first, DROP COLUMN gone,
    ALTER notes SET STORAGE EXTERNAL, ALTER photo SET COMPRESSION pglz,
    ALTER name SET STATISTICS 500, ALTER born SET (n_distinct = 100, n_distinct_inherited = 200);
CREATE TABLE orders (
    id serial PRIMARY KEY,
    customer bigint NOT NULL DEFAULT -1 REFERENCES customer ON DELETE CASCADE DEFERRABLE,
    state status DEFAULT 'new',
    kind varchar(10) NOT NULL DEFAULT 'a' CHECK (kind IN ('a', 'b, c', 'it''s', '(ARRAY[x])')),
    other varchar, network cidr CHECK (network IN ('10.0.0.0/8', '192.168.0.0/16')),
    amount numeric(10, 2) DEFAULT 0.00, valid period, at timestamptz DEFAULT now(),
    seconds interval DEFAULT '1 day 02:03:04', price money DEFAULT 12.5,
    CONSTRAINT mixed CHECK (kind NOT IN (other, 'z', lower(other), coalesce(other, 'q, r'))),
    CONSTRAINT within CHECK (id BETWEEN 1 AND 5 AND amount NOT BETWEEN 2 AND 3 AND other > 'a'),
    CONSTRAINT listed CHECK (id IN (amount, 1, customer) OR (id, customer) = (2, 3) AND id < 9),
    CONSTRAINT alone EXCLUDE USING gist (valid WITH &&) WHERE (amount > 0)
);
ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount >= 0) NOT VALID,
    ADD CONSTRAINT late FOREIGN KEY (id) REFERENCES orders (id) NOT VALID;
ALTER TABLE orders CLUSTER ON orders_pkey;
CREATE TABLE "Two Words"."it's a ""table"".x" ("a.b" int PRIMARY KEY, c int REFERENCES customer);
CREATE UNLOGGED TABLE cache (key text, value text);
CREATE UNIQUE INDEX cache_key ON cache (key);
ALTER TABLE cache ALTER key SET NOT NULL, REPLICA IDENTITY USING INDEX cache_key;
CREATE TABLE audit (what text, at timestamptz); ALTER TABLE audit REPLICA IDENTITY FULL;
CREATE TABLE of_type OF address (street WITH OPTIONS DEFAULT 'unknown', PRIMARY KEY (street));

CREATE TABLE base (a int, b text DEFAULT 'b', CONSTRAINT base_a CHECK (a > 0));
CREATE TABLE child (c int, d int) INHERITS (base);
ALTER TABLE base ADD COLUMN late int CHECK (late IS NOT NULL);
ALTER TABLE child ALTER b SET DEFAULT 'c', ALTER a SET NOT NULL;
CREATE TABLE second (d int, z int);
CREATE TABLE grandchild (x int) INHERITS (child, second);

CREATE TABLE event (id int, day date NOT NULL, customer bigint REFERENCES customer, kind varchar)
    PARTITION BY RANGE (day);
CREATE TABLE event_2024 PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE event_2025 (kind varchar, dropped int, day date NOT NULL, id int NOT NULL,
    customer bigint, CHECK (id > 0));
ALTER TABLE event_2025 DROP COLUMN dropped;
ALTER TABLE event ATTACH PARTITION event_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE event_rest PARTITION OF event DEFAULT PARTITION BY LIST (kind);
CREATE TABLE event_rest_a PARTITION OF event_rest FOR VALUES IN ('a', 'b');
ALTER TABLE event ADD PRIMARY KEY (id, day, kind);
CREATE INDEX event_day ON event (day DESC NULLS LAST) INCLUDE (kind);
CREATE TABLE refers (id int, day date, kind varchar,
    FOREIGN KEY (id, day, kind) REFERENCES event);
CREATE TABLE hashed (a int) PARTITION BY HASH (a, (a + 1));
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);

CREATE INDEX orders_open ON orders USING btree (lower(other) text_pattern_ops, at DESC)
    WITH (fillfactor = 50) WHERE kind IN ('a', 'b') AND amount > 1.5;
ALTER INDEX orders_open ALTER COLUMN 1 SET STATISTICS 300;
CREATE INDEX customer_tags ON customer USING gin (tags);
CREATE STATISTICS customer_stats (ndistinct, dependencies) ON name, born FROM customer;
CREATE STATISTICS customer_expression ON (lower(name)), (born + 1) FROM customer;
ALTER STATISTICS customer_stats SET STATISTICS 50;

CREATE SEQUENCE numbers AS smallint INCREMENT -1 MINVALUE -100 MAXVALUE -1 START -5 CYCLE;
CREATE SEQUENCE owned OWNED BY audit.what;

CREATE VIEW open_orders WITH (security_barrier) AS
    SELECT id, customer, kind, amount::text || ' EUR' AS shown FROM orders
    WHERE kind IN ('a', 'b') AND state <> 'shipped' WITH LOCAL CHECK OPTION;
ALTER VIEW open_orders ALTER kind SET DEFAULT 'a';
CREATE RECURSIVE VIEW counted (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 9;
CREATE VIEW joined AS SELECT o.*, c.name, sum(o.amount) OVER (PARTITION BY c.id) AS total
    FROM orders AS o LEFT JOIN customer AS c ON c.id = o.customer
    WHERE EXISTS (SELECT FROM event e WHERE e.customer = c.id AND e.kind IN ('x', o.other));
CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) AS total FROM orders GROUP BY 1;
CREATE UNIQUE INDEX totals_customer ON totals (customer);
CREATE MATERIALIZED VIEW empty AS SELECT * FROM totals WITH NO DATA;
CREATE RULE orders_log AS ON DELETE TO orders WHERE old.kind IN ('a', 'b')
    DO ALSO INSERT INTO audit VALUES (old.kind, now());
CREATE RULE off AS ON UPDATE TO audit DO INSTEAD NOTHING;
ALTER TABLE audit DISABLE RULE off;
"""
ROUTINES = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE FUNCTION total(customer bigint, VARIADIC kinds varchar[] DEFAULT ARRAY['a']) RETURNS numeric
    LANGUAGE sql STABLE SECURITY DEFINER COST 7 SET search_path = crm, pg_temp
    SET work_mem = '8MB' AS $$ SELECT sum(amount) FROM orders WHERE kind = ANY (kinds) $$;
CREATE FUNCTION total(text) RETURNS TABLE (id int, "what ever" text) LANGUAGE sql ROWS 5
    RETURN (1, 'a');
CREATE FUNCTION parsed(k varchar) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM orders WHERE kind IN ('a', k); END;
CREATE FUNCTION text_only() RETURNS text LANGUAGE sql
    AS $$ SELECT 'x' WHERE 'a'::text = ANY ((ARRAY['a'::varchar, 'b'])::text[]) $$;
CREATE PROCEDURE close_day(IN day date, INOUT closed int DEFAULT 0) LANGUAGE plpgsql
    AS $$ BEGIN closed := 1; END $$;
CREATE AGGREGATE longest(text) (SFUNC = textcat, STYPE = text, INITCOND = '', PARALLEL = SAFE);
CREATE AGGREGATE moving(numeric) (SFUNC = numeric_add, STYPE = numeric, MSFUNC = numeric_add,
    MINVFUNC = numeric_sub, MSTYPE = numeric, COMBINEFUNC = numeric_add, INITCOND = '0');

CREATE TRIGGER touch BEFORE UPDATE OF amount ON orders FOR EACH ROW
    WHEN (new.kind IN ('a', 'b')) EXECUTE FUNCTION touch();
CREATE TRIGGER off AFTER INSERT ON orders EXECUTE FUNCTION touch();
CREATE TRIGGER always AFTER INSERT ON orders EXECUTE FUNCTION touch();
CREATE TRIGGER on_replica AFTER INSERT ON orders EXECUTE FUNCTION touch();
ALTER TABLE orders DISABLE TRIGGER off, ENABLE ALWAYS TRIGGER always,
    ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER statement AFTER UPDATE ON orders REFERENCING OLD TABLE AS o NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION touch();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER event_touch BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER instead INSTEAD OF INSERT ON open_orders FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE event_2024 DISABLE TRIGGER event_touch;

ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE customer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON orders FOR SELECT TO reader, "Web Users" USING (kind IN ('a', 'b'));
CREATE POLICY strict ON orders AS RESTRICTIVE FOR INSERT WITH CHECK (amount < 1000);

CREATE FUNCTION same(int, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2::int';
CREATE FUNCTION same(varchar, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $2 = $1::int';
CREATE OPERATOR === (FUNCTION = same, LEFTARG = int, RIGHTARG = varchar, COMMUTATOR = ===,
    NEGATOR = !==, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR === (FUNCTION = same, LEFTARG = varchar, RIGHTARG = int, COMMUTATOR = ===);
CREATE OPERATOR !== (FUNCTION = same, LEFTARG = int, RIGHTARG = varchar, NEGATOR = ===);
CREATE CAST (address AS text) WITH INOUT AS ASSIGNMENT;
CREATE FUNCTION cents(address) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE CAST (address AS int) WITH FUNCTION cents(address);
CREATE COLLATION ordinal FROM "C";
CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = pg_catalog.simple, Accept = false);
CREATE TEXT SEARCH CONFIGURATION search (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION search ALTER MAPPING FOR word, asciiword WITH plain, simple;
CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
"""
OF_A_SUPERUSER = """
RESET ROLE;
CREATE AGGREGATE percent(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition,
    STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA,
    FINALFUNC_MODIFY = READ_WRITE);
CREATE TYPE shell;
CREATE TYPE number;
CREATE FUNCTION number_in(cstring) RETURNS number LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION number_out(number) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE number (INPUT = number_in, OUTPUT = number_out, INTERNALLENGTH = 4, PASSEDBYVALUE,
    ALIGNMENT = int4, DEFAULT = '7', CATEGORY = 'N');
CREATE CAST (number AS int) WITHOUT FUNCTION AS IMPLICIT;
CREATE OPERATOR FAMILY numbers USING btree;
CREATE OPERATOR CLASS int_class FOR TYPE int USING btree FAMILY numbers AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 btint4cmp(int, int);
ALTER OPERATOR FAMILY numbers USING btree ADD
    OPERATOR 1 < (int, bigint), OPERATOR 2 <= (int, bigint), OPERATOR 3 = (int, bigint),
    OPERATOR 4 >= (int, bigint), OPERATOR 5 > (int, bigint),
    FUNCTION 1 (int, bigint) btint48cmp(int, bigint);
CREATE INDEX special ON orders (id int_class);
CREATE TEXT SEARCH PARSER words (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,
    LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE simplest (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE ACCESS METHOD gist2 TYPE INDEX HANDLER gisthandler;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_heap (a int) USING heap2;
CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c
    AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE TRUSTED LANGUAGE plother HANDLER handler;
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal),
    TO SQL WITH FUNCTION int4recv(internal));
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE CONVERSION', 'CREATE CAST')
    EXECUTE FUNCTION watch();
CREATE EVENT TRIGGER watch_not ON sql_drop EXECUTE FUNCTION watch();
ALTER EVENT TRIGGER watch_not DISABLE;
CREATE FOREIGN DATA WRAPPER wrapper OPTIONS (debug 'true');
CREATE SERVER remote TYPE 'crm' VERSION '7' FOREIGN DATA WRAPPER wrapper
    OPTIONS (host 'db.example.org', fetch_size '100');
CREATE USER MAPPING FOR crm_owner SERVER remote OPTIONS (user 'crm', password 'secret');
CREATE USER MAPPING FOR PUBLIC SERVER remote;
CREATE FOREIGN TABLE elsewhere (a int OPTIONS (column_name 'b') NOT NULL, c text DEFAULT 'x')
    SERVER remote OPTIONS (table_name 'there');
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert, update');
CREATE PUBLICATION two_tables FOR TABLE customer, orders;
CREATE SUBSCRIPTION feed CONNECTION 'host=db.example.org password=secret' PUBLICATION b, a
    WITH (connect = false);
"""
FROM_15 = """
CREATE PUBLICATION parts FOR TABLE crm.orders (id, kind) WHERE (id > 5);
CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA "pg-like", crm;
CREATE TABLE crm.once (a int, UNIQUE NULLS NOT DISTINCT (a));
CREATE VIEW crm.invoker WITH (security_invoker = true) AS SELECT 1 AS one;
"""
FROM_17 = """
ALTER TABLE crm.hashed ALTER a SET NOT NULL;
CREATE COLLATION crm.built (PROVIDER = builtin, LOCALE = 'C.UTF-8');
"""
FROM_18 = """
CREATE TABLE crm.virtual (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL,
    CONSTRAINT loose FOREIGN KEY (a) REFERENCES crm.orders NOT ENFORCED,
    CONSTRAINT named NOT NULL a);
ALTER TABLE crm.virtual ADD CONSTRAINT later NOT NULL b NOT VALID;
CREATE TABLE crm.during (id int4range, valid period, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
CREATE PUBLICATION generated FOR TABLE crm.virtual WITH (publish_generated_columns = stored);
"""
PRIVILEGES = """
GRANT USAGE ON SCHEMA crm TO reader, PUBLIC;
GRANT SELECT ON customer, open_orders, totals TO reader, "Web Users";
GRANT ALL ON orders TO reader WITH GRANT OPTION;
SET ROLE reader; GRANT SELECT ON crm.orders TO "Web Users"; RESET ROLE;
GRANT SELECT (name, born), UPDATE (born) ON customer TO login_of_app;
REVOKE ALL ON audit FROM crm_owner;
GRANT USAGE ON SEQUENCE numbers TO reader;
REVOKE EXECUTE ON FUNCTION touch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION total(text) TO reader;
GRANT EXECUTE ON PROCEDURE close_day TO reader;
REVOKE USAGE ON TYPE status FROM PUBLIC;
GRANT USAGE ON DOMAIN email TO reader;
GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO reader;
GRANT USAGE ON FOREIGN SERVER remote TO "Web Users";
GRANT USAGE ON LANGUAGE plother TO reader;
-- What is the default, written down.
GRANT ALL ON cache TO crm_owner; GRANT EXECUTE ON FUNCTION same(int, varchar) TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE crm_owner IN SCHEMA crm GRANT SELECT ON TABLES TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE crm_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE reader GRANT USAGE ON SEQUENCES TO "Web Users";
ALTER TABLE audit OWNER TO reader;
ALTER FUNCTION parsed OWNER TO "Web Users";
ALTER SCHEMA "pg-like" OWNER TO "Web Users";
ALTER TYPE period OWNER TO reader;
"""
COMMENTED = {
    "SCHEMA": ["crm"],
    "TABLE": ["orders", "event_2024"],
    "COLUMN": ["orders.kind", "open_orders.shown", 'address."ZIP code"', "totals.total"],
    "VIEW": ["open_orders"],
    "MATERIALIZED VIEW": ["totals"],
    "FOREIGN TABLE": ["elsewhere"],
    "SEQUENCE": ["numbers"],
    "INDEX": ["orders_open", "customer_pkey"],
    "CONSTRAINT": ["mixed ON orders", "has_at ON DOMAIN email", "customer_pkey ON customer"],
    "TRIGGER": ["touch ON orders"],
    "RULE": ["orders_log ON orders"],
    "POLICY": ["own ON orders"],
    "STATISTICS": ["customer_stats"],
    "FUNCTION": ["total(text)"],
    "PROCEDURE": ["close_day"],
    "AGGREGATE": ["longest(text)"],
    "TYPE": ["status", "address", "number"],
    "DOMAIN": ["email"],
    "OPERATOR": ["=== (int, varchar)"],
    "OPERATOR CLASS": ["int_class USING btree"],
    "OPERATOR FAMILY": ["numbers USING btree"],
    "CAST": ["(address AS text)"],
    "TRANSFORM": ["FOR int LANGUAGE sql"],
    "CONVERSION": ["latin"],
    "COLLATION": ["ordinal"],
    "TEXT SEARCH CONFIGURATION": ["search"],
    "TEXT SEARCH DICTIONARY": ["plain"],
    "TEXT SEARCH PARSER": ["words"],
    "TEXT SEARCH TEMPLATE": ["simplest"],
    "LANGUAGE": ["plother"],
    "ACCESS METHOD": ["gist2"],
    "EVENT TRIGGER": ["watch"],
    "PUBLICATION": ["two_tables"],
    "SUBSCRIPTION": ["feed"],
    "FOREIGN DATA WRAPPER": ["wrapper"],
    "SERVER": ["remote"],
}
COMMENTS = ";".join(
    f"COMMENT ON {kind} {name} IS 'It''s {name.replace(chr(39), '')}\n2nd line'"
    for kind, names in COMMENTED.items()
    for name in names
)

KINDS = {kind.lower() for kind in COMMENTED} | {
    *("extension", "user mapping", "publication schema", "publication table"),
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running cluster with the rich schema in database `rich`."""

    cluster: Cluster
    major: int

    def restored(self, source: str, name: str, tmp_path: Path) -> str:
        """A new database with what pg_dump and pg_restore make of `source`."""
        archive = tmp_path / f"{name}.dump"
        self.cluster.new_database(name)
        self._run("pg_dump", "--format=custom", f"--file={archive}", self._login(source))
        self._run("pg_restore", "--exit-on-error", self._login(name), str(archive))
        return name

    def schema(self, database: str) -> Schema:
        """What the installer reads, as its own role."""
        with self.opened(database) as connection:
            return connection.schema()

    def opened(self, database: str) -> AbstractContextManager[Database]:
        return opened(self.cluster.conninfo(database))

    def _login(self, database: str) -> str:
        return f"--dbname={self.cluster.conninfo(database, 'postgres')}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.cluster.program(program)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr


def opened(conninfo: str) -> AbstractContextManager[Database]:
    target = DatabaseTarget(
        name="crm",
        connection=conninfo,
        owner="crm_owner",
        search_path="public",
        lock_timeout=5,
        statement_timeout=0,
        lock_wait=1,
    )
    return connect(target, "test")


def rich_schema(major: int, extension: str) -> str:
    """SQL that makes objects of every kind that this major version has."""
    parts = [TABLES, ROUTINES, OF_A_SUPERUSER, PRIVILEGES, f"{COMMENTS};"]
    newer = {15: FROM_15, 17: FROM_17, 18: FROM_18}
    parts += [text for first, text in newer.items() if major >= first]
    parts.append(f"CREATE EXTENSION {extension}; COMMENT ON EXTENSION {extension} IS 'ours'")
    return "".join(parts)


@pytest.fixture(scope="module", params=["installed", *BROUGHT])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each major version in turn, in a cluster of its own: it has further roles."""
    # Each has an extension with types, functions, operators and casts, and not the same one.
    programs, extension = (
        (installed, "hstore")
        if request.param == "installed"
        else (partial(brought, major=request.param), "vector")
    )
    with private_cluster(programs) as cluster:
        major = int(cluster.psql("SHOW server_version_num")) // 10000
        cluster.psql(ROLES)
        cluster.new_database("rich")
        cluster.psql(rich_schema(major, extension), "rich")
        yield Server(cluster, major)


@pytest.fixture(scope="module")
def rich(server: Server) -> Schema:
    """The rich schema, as it is before each change."""
    return server.schema("rich")


@pytest.fixture
def session(server: Server) -> Iterator[psycopg.Connection]:
    """A superuser's transaction in the rich schema, which is taken back afterwards."""
    with psycopg.connect(server.cluster.conninfo("rich", "postgres")) as connection:
        connection.execute("SET client_min_messages = error; SET search_path = crm")
        yield connection
        connection.rollback()


# ---- the same ------------------------------------------------------------------------------------


def test_a_restored_copy_and_its_own_copy_have_the_same_schema(
    server: Server, tmp_path: Path
) -> None:
    # OIDs are others in the copies, and dropped columns are gone.
    original = server.schema("rich")
    first = server.restored("rich", "first", tmp_path)
    second = server.restored(first, "second", tmp_path)
    require_same(original, server.schema(first), LAYERS, "the copy")
    require_same(original, server.schema(second), LAYERS, "the copy's copy")
    assert original.fingerprints == server.schema(second).fingerprints


def test_using_a_database_leaves_its_schema_as_it_is(server: Server, tmp_path: Path) -> None:
    database = server.restored("rich", "used", tmp_path)
    before = server.schema(database)
    server.cluster.psql(
        """
        SELECT nextval('crm.numbers'), nextval('crm.numbers');
        INSERT INTO crm.customer (name, mail) SELECT n, n || '@' FROM generate_series(1, 2000) AS n;
        INSERT INTO crm.event VALUES (1, '2024-02-03', NULL, 'a');
        REFRESH MATERIALIZED VIEW crm.empty;
        CREATE TEMPORARY TABLE passing (id int PRIMARY KEY, CHECK (id > 0));
        CREATE TEMPORARY VIEW passed AS SELECT id FROM passing;
        """,
        database,
    )
    for statement in ("ANALYZE", "VACUUM FULL", "REINDEX DATABASE used", "CLUSTER"):
        server.cluster.psql(statement, database)
    require_same(before, server.schema(database), LAYERS, "the used database")


SAME = {
    "columns that were added and dropped again": """
        ALTER TABLE orders ADD passing int; ALTER TABLE orders DROP passing;
        ALTER TABLE event ADD passing int; ALTER TABLE event DROP passing;
        ALTER TABLE base ADD passing int; ALTER TABLE base DROP passing;
        ALTER TYPE address ADD ATTRIBUTE passing int CASCADE;
        ALTER TYPE address DROP ATTRIBUTE passing CASCADE
    """,
    "an index made anew": """
        DROP INDEX customer_tags; CREATE INDEX customer_tags ON customer USING gin (tags)
    """,
    "a function made anew": """
        DROP FUNCTION total(text);
        CREATE FUNCTION total(text) RETURNS TABLE (id int, "what ever" text) LANGUAGE sql ROWS 5
            RETURN (1, 'a');
        ALTER FUNCTION total(text) OWNER TO crm_owner; SET ROLE crm_owner;
        REVOKE EXECUTE ON FUNCTION total(text) FROM PUBLIC, reader;
        GRANT EXECUTE ON FUNCTION total(text) TO PUBLIC;
        GRANT EXECUTE ON FUNCTION total(text) TO reader;
        COMMENT ON FUNCTION total(text) IS E'It''s total(text)\\n2nd line'
    """,
    "privileges in another order": """
        REVOKE ALL ON customer FROM reader, "Web Users";
        GRANT SELECT ON customer TO "Web Users"; GRANT SELECT ON customer TO reader
    """,
    "a default privilege that is written down": """
        GRANT ALL ON of_type, base TO crm_owner; REVOKE SELECT ON base FROM crm_owner;
        GRANT SELECT ON base TO crm_owner; GRANT USAGE ON TYPE address TO PUBLIC;
        REVOKE USAGE ON SCHEMA "Two Words" FROM PUBLIC
    """,
    "options in another order": """
        ALTER TABLE customer RESET (fillfactor); ALTER TABLE customer SET (fillfactor = 70);
        ALTER VIEW open_orders RESET (security_barrier);
        ALTER VIEW open_orders SET (security_barrier)
    """,
    "what the ledger and the server keep": """
        CREATE SCHEMA countersign; CREATE TABLE countersign.ledger (id int PRIMARY KEY);
        CREATE FUNCTION countersign.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        COMMENT ON TABLE countersign.ledger IS 'ours'; GRANT ALL ON SCHEMA countersign TO reader;
        ALTER DEFAULT PRIVILEGES IN SCHEMA countersign GRANT SELECT ON TABLES TO reader
    """,
    "the database's own privileges and settings": """
        GRANT CREATE ON DATABASE rich TO reader; ALTER DATABASE rich SET work_mem = '8MB';
        ALTER ROLE reader SET search_path = crm; COMMENT ON DATABASE rich IS 'production'
    """,
    "temporary objects": """
        CREATE TEMPORARY TABLE orders (id int PRIMARY KEY, at date CHECK (at > '2000-01-01'));
        CREATE TEMPORARY VIEW passing AS SELECT id FROM pg_temp.orders;
        CREATE TYPE pg_temp.colour AS ENUM ('red'); GRANT SELECT ON pg_temp.orders TO reader;
        COMMENT ON TABLE pg_temp.orders IS 'passing'
    """,
    "where a foreign server is, and with which password": """
        ALTER SERVER remote OPTIONS (SET host 'other.example.org');
        ALTER USER MAPPING FOR crm_owner SERVER remote OPTIONS (SET password 'other');
        ALTER SUBSCRIPTION feed CONNECTION 'host=other.example.org'
    """,
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_schema_is_the_same_after(
    rich: Schema, session: psycopg.Connection, change: str
) -> None:
    session.execute(change)
    require_same(rich, read_schema(Session(session)), LAYERS, "the schema")


def test_a_database_in_another_encoding_is_read_alike(server: Server) -> None:
    definition = 'CREATE TABLE public."Gebühr" ("für" text DEFAULT \'größer\')'
    server.cluster.psql(
        """
        CREATE DATABASE latin OWNER crm_owner TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
        GRANT CREATE ON DATABASE latin TO countersign
        """
    )
    server.cluster.new_database("unicode")
    for database in ("latin", "unicode"):
        server.cluster.psql(f"SET client_encoding = 'UTF8'; {definition}", database)
    require_same(server.schema("unicode"), server.schema("latin"), LAYERS, "the schema")
    assert 'public."Gebühr"."für"' in {one.name for one in server.schema("latin").objects}


# ---- different -----------------------------------------------------------------------------------
# What is done, and all that differs then.

STRUCTURE: list[tuple[str, set[str]]] = [
    ("CREATE SCHEMA more", {"schema more"}),
    ("DROP TABLE other_heap", {"table crm.other_heap", "column crm.other_heap.a"}),
    (
        "ALTER TABLE other_heap RENAME a TO b",
        {"table crm.other_heap", "column crm.other_heap.a", "column crm.other_heap.b"},
    ),
    ("ALTER TABLE audit ADD who text", {"table crm.audit", "column crm.audit.who"}),
    ("ALTER TABLE cache SET LOGGED", {"table crm.cache"}),
    ("ALTER TABLE customer SET (fillfactor = 71)", {"table crm.customer"}),
    ("ALTER TABLE customer RESET (toast.autovacuum_enabled)", {"table crm.customer"}),
    ("ALTER TABLE customer NO FORCE ROW LEVEL SECURITY", {"table crm.customer"}),
    ("ALTER TABLE orders DISABLE ROW LEVEL SECURITY", {"table crm.orders"}),
    ("ALTER TABLE audit REPLICA IDENTITY DEFAULT", {"table crm.audit"}),
    (
        "ALTER TABLE hashed DETACH PARTITION hashed_0",
        {"table crm.hashed_0", "column crm.hashed_0.a"},
    ),
    (
        "ALTER TABLE grandchild NO INHERIT second",
        {"table crm.grandchild", "column crm.grandchild.z"},
    ),
    ("ALTER TABLE cache ALTER value TYPE varchar(9)", {"column crm.cache.value"}),
    ("ALTER TABLE audit ALTER what SET NOT NULL", {"column crm.audit.what"}),
    ("ALTER TABLE audit ALTER what SET DEFAULT 'x'", {"column crm.audit.what"}),
    ("ALTER TABLE orders ALTER kind SET DEFAULT 'b'", {"column crm.orders.kind"}),
    ("ALTER TABLE orders ALTER amount DROP DEFAULT", {"column crm.orders.amount"}),
    ("ALTER TABLE customer ALTER id SET GENERATED BY DEFAULT", {"column crm.customer.id"}),
    ("ALTER TABLE customer ALTER id SET INCREMENT 6", {"sequence crm.customer_id_seq"}),
    ("ALTER TABLE customer ALTER upper_name DROP EXPRESSION", {"column crm.customer.upper_name"}),
    ('ALTER TABLE cache ALTER value TYPE text COLLATE "C"', {"column crm.cache.value"}),
    ("ALTER TABLE audit ALTER what SET STORAGE PLAIN", {"column crm.audit.what"}),
    ("ALTER TABLE audit ALTER what SET COMPRESSION pglz", {"column crm.audit.what"}),
    ("ALTER TABLE audit ALTER what SET STATISTICS 7", {"column crm.audit.what"}),
    ("ALTER TABLE audit ALTER what SET (n_distinct = 7)", {"column crm.audit.what"}),
    ("ALTER VIEW open_orders ALTER kind SET DEFAULT 'b'", {"column crm.open_orders.kind"}),
    ("ALTER TABLE orders VALIDATE CONSTRAINT positive", {"constraint crm.orders.positive"}),
    ("ALTER TABLE orders DROP CONSTRAINT mixed", {"constraint crm.orders.mixed"}),
    (
        "ALTER TABLE orders ADD CONSTRAINT more CHECK (amount < 10) NOT VALID",
        {"constraint crm.orders.more"},
    ),
    (
        "ALTER TABLE orders ALTER CONSTRAINT orders_customer_fkey INITIALLY DEFERRED",
        {"constraint crm.orders.orders_customer_fkey"},
    ),
    (
        'ALTER TABLE "Two Words"."it\'s a ""table"".x" DISABLE TRIGGER ALL',
        {'constraint "Two Words"."it\'s a ""table"".x"."it\'s a ""table"".x_c_fkey"'},
    ),
    (
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        {
            "constraint crm.orders.late",
            "constraint crm.orders.orders_customer_fkey",
            *(f"trigger crm.orders.{name}" for name in ("always", "later", "on_replica")),
            *(f"trigger crm.orders.{name}" for name in ("statement", "touch")),
        },
    ),
    (
        "ALTER TABLE customer DISABLE TRIGGER ALL",
        {
            "constraint crm.customer.customer_mail_key",
            "constraint crm.event.event_customer_fkey",
            "constraint crm.orders.orders_customer_fkey",
            'constraint "Two Words"."it\'s a ""table"".x"."it\'s a ""table"".x_c_fkey"',
        },
    ),
    ("ALTER TABLE orders SET WITHOUT CLUSTER", {"constraint crm.orders.orders_pkey"}),
    ("ALTER TABLE cache CLUSTER ON cache_key", {"index crm.cache_key"}),
    ("DROP INDEX orders_open", {"index crm.orders_open"}),
    ("CREATE INDEX more ON audit (at)", {"index crm.more"}),
    ("ALTER INDEX orders_open SET (fillfactor = 51)", {"index crm.orders_open"}),
    ("ALTER INDEX orders_open ALTER COLUMN 1 SET STATISTICS 301", {"index crm.orders_open"}),
    ("ALTER INDEX customer_pkey SET (fillfactor = 51)", {"constraint crm.customer.customer_pkey"}),
    ("CREATE INDEX late ON ONLY event (customer)", {"index crm.late"}),
    ("ALTER TABLE cache REPLICA IDENTITY NOTHING", {"index crm.cache_key", "table crm.cache"}),
    ("ALTER TABLE orders DISABLE TRIGGER touch", {"trigger crm.orders.touch"}),
    ("ALTER TABLE orders ENABLE REPLICA TRIGGER touch", {"trigger crm.orders.touch"}),
    ("ALTER TABLE event_2024 ENABLE TRIGGER event_touch", {"trigger crm.event_2024.event_touch"}),
    ("DROP TRIGGER always ON orders", {"trigger crm.orders.always"}),
    ("ALTER TABLE audit ENABLE RULE off", {"rule crm.audit.off"}),
    ("DROP RULE orders_log ON orders", {"rule crm.orders.orders_log"}),
    ("ALTER POLICY own ON orders TO reader", {"policy crm.orders.own"}),
    ("ALTER POLICY own ON orders USING (true)", {"policy crm.orders.own"}),
    ("DROP POLICY strict ON orders", {"policy crm.orders.strict"}),
    ("ALTER STATISTICS customer_stats SET STATISTICS 51", {"statistics crm.customer_stats"}),
    ("DROP STATISTICS customer_expression", {"statistics crm.customer_expression"}),
    ("ALTER SEQUENCE numbers NO CYCLE", {"sequence crm.numbers"}),
    ("ALTER SEQUENCE owned OWNED BY NONE", {"sequence crm.owned"}),
    ("CREATE OR REPLACE VIEW counted AS SELECT 2 AS n", {"view crm.counted"}),
    ("ALTER VIEW open_orders RESET (check_option)", {"view crm.open_orders"}),
    (
        "DROP MATERIALIZED VIEW empty",
        {"materialized view crm.empty", *(f"column crm.empty.{n}" for n in ("customer", "total"))},
    ),
    (
        """
        CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN old; END'
        """,
        {"function crm.touch()"},
    ),
    ("ALTER FUNCTION touch() SECURITY DEFINER", {"function crm.touch()"}),
    ("ALTER FUNCTION total(text) STRICT", {"function crm.total(text)"}),
    (
        """
        CREATE OR REPLACE FUNCTION text_only() RETURNS text LANGUAGE sql
            AS $$ SELECT 'x' WHERE 'a'::text = ANY (ARRAY[('a'::varchar)::text, ('b')::text]) $$
        """,
        {"function crm.text_only()"},
    ),
    ("DROP PROCEDURE close_day", {"procedure crm.close_day(date,integer)"}),
    ("DROP AGGREGATE longest(text)", {"aggregate crm.longest(text)"}),
    ("ALTER TYPE status ADD VALUE 'lost' BEFORE 'paid'", {"type crm.status"}),
    (
        "ALTER TYPE status RENAME VALUE 'new' TO 'open'",
        {"type crm.status", "column crm.orders.state"},
    ),
    (
        "ALTER TYPE address ADD ATTRIBUTE city text CASCADE",
        {
            *("type crm.address", "column crm.address.city"),
            *("table crm.of_type", "column crm.of_type.city"),
        },
    ),
    ("ALTER DOMAIN email SET DEFAULT 'a@b'", {"domain crm.email"}),
    ("ALTER DOMAIN email DROP CONSTRAINT has_at", {"constraint crm.email.has_at"}),
    (
        """
        CREATE FUNCTION sent(number) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT
            AS 'int4send';
        ALTER TYPE number SET (SEND = sent)
        """,
        {"type crm.number", "function crm.sent(crm.number)"},
    ),
    ("DROP CAST (number AS int)", {"cast (crm.number AS integer)"}),
    (
        "ALTER OPERATOR === (int, varchar) SET (RESTRICT = NONE)",
        {"operator crm.===(integer,character varying)"},
    ),
    (
        "ALTER OPERATOR FAMILY numbers USING btree DROP FUNCTION 1 (int, bigint)",
        {"operator family crm.numbers USING btree"},
    ),
    ("ALTER COLLATION ordinal RENAME TO x", {"collation crm.ordinal", "collation crm.x"}),
    ("DROP CONVERSION latin", {"conversion crm.latin"}),
    (
        "ALTER TEXT SEARCH CONFIGURATION search DROP MAPPING FOR email",
        {"text search configuration crm.search"},
    ),
    (
        "ALTER TEXT SEARCH DICTIONARY plain (accept = true)",
        {"text search dictionary crm.plain"},
    ),
    ("DROP TEXT SEARCH PARSER words", {"text search parser crm.words"}),
    ("DROP TEXT SEARCH TEMPLATE simplest", {"text search template crm.simplest"}),
    ("DROP ACCESS METHOD gist2", {"access method gist2"}),
    (
        'ALTER TABLE other_heap SET SCHEMA "Two Words"',
        {
            f"{kind} {schema}.other_heap{column}"
            for schema in ("crm", '"Two Words"')
            for kind, column in (("table", ""), ("column", ".a"))
        },
    ),
    ("DROP TRANSFORM FOR int LANGUAGE sql", {"transform FOR integer LANGUAGE sql"}),
    ("ALTER LANGUAGE plother RENAME TO x", {"language plother", "language x"}),
    ("ALTER EVENT TRIGGER watch DISABLE", {"event trigger watch"}),
    ("ALTER PUBLICATION everything SET (publish = 'insert')", {"publication everything"}),
    (
        "ALTER PUBLICATION two_tables DROP TABLE orders",
        {"publication table two_tables.crm.orders"},
    ),
    ("ALTER SUBSCRIPTION feed SET PUBLICATION c WITH (refresh = false)", {"subscription feed"}),
    (
        "ALTER FOREIGN DATA WRAPPER wrapper OPTIONS (SET debug 'no')",
        {"foreign data wrapper wrapper"},
    ),
    ("ALTER SERVER remote OPTIONS (SET fetch_size '99')", {"server remote"}),
    ("ALTER SERVER remote OPTIONS (DROP host)", {"server remote"}),
    ("DROP USER MAPPING FOR PUBLIC SERVER remote", {"user mapping remote.public"}),
    (
        "ALTER FOREIGN TABLE elsewhere OPTIONS (SET table_name 'here')",
        {"foreign table crm.elsewhere"},
    ),
    (
        "ALTER FOREIGN TABLE elsewhere ALTER a OPTIONS (SET column_name 'c')",
        {"column crm.elsewhere.a"},
    ),
]
FROM_15_STRUCTURE: list[tuple[str, set[str]]] = [
    (
        "ALTER PUBLICATION parts SET TABLE orders (id, kind) WHERE (id > 6)",
        {"publication table parts.crm.orders"},
    ),
    (
        "ALTER PUBLICATION parts SET TABLE orders (id) WHERE (id > 5)",
        {"publication table parts.crm.orders"},
    ),
    (
        'ALTER PUBLICATION whole_schema DROP TABLES IN SCHEMA "pg-like"',
        {'publication schema whole_schema."pg-like"'},
    ),
    (
        "ALTER TABLE once DROP CONSTRAINT once_a_key, ADD UNIQUE (a)",
        {"constraint crm.once.once_a_key"},
    ),
    ("ALTER VIEW invoker RESET (security_invoker)", {"view crm.invoker"}),
]
PRIVILEGE: list[tuple[str, set[str]]] = [
    ("GRANT CREATE ON SCHEMA crm TO reader", {"schema crm"}),
    ("GRANT INSERT ON audit TO login_of_app", {"table crm.audit"}),
    ("REVOKE SELECT ON open_orders FROM reader", {"view crm.open_orders"}),
    ("REVOKE GRANT OPTION FOR UPDATE ON orders FROM reader", {"table crm.orders"}),
    ("GRANT UPDATE (at) ON audit TO reader", {"column crm.audit.at"}),
    ("REVOKE SELECT (name) ON customer FROM login_of_app", {"column crm.customer.name"}),
    ("GRANT SELECT ON SEQUENCE owned TO login_of_app", {"sequence crm.owned"}),
    ("GRANT EXECUTE ON FUNCTION touch() TO PUBLIC", {"function crm.touch()"}),
    (
        "GRANT EXECUTE ON PROCEDURE close_day TO login_of_app",
        {"procedure crm.close_day(date,integer)"},
    ),
    ("REVOKE EXECUTE ON FUNCTION longest(text) FROM PUBLIC", {"aggregate crm.longest(text)"}),
    ("GRANT USAGE ON TYPE status TO reader", {"type crm.status"}),
    ("REVOKE USAGE ON TYPE email FROM PUBLIC", {"domain crm.email"}),
    ("REVOKE USAGE ON LANGUAGE plother FROM PUBLIC", {"language plother"}),
    (
        "GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO login_of_app",
        {"foreign data wrapper wrapper"},
    ),
    ('REVOKE USAGE ON FOREIGN SERVER remote FROM "Web Users"', {"server remote"}),
    (
        """
        ALTER DEFAULT PRIVILEGES FOR ROLE crm_owner IN SCHEMA crm
            GRANT INSERT ON TABLES TO reader
        """,
        {"default privileges crm_owner IN SCHEMA crm ON TABLES"},
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE reader GRANT USAGE ON SCHEMAS TO PUBLIC",
        {"default privileges reader ON SCHEMAS"},
    ),
]
OWNED = {
    "SCHEMA crm": "schema crm",
    "TABLE base": "table crm.base",
    "VIEW open_orders": "view crm.open_orders",
    "MATERIALIZED VIEW empty": "materialized view crm.empty",
    "FOREIGN TABLE elsewhere": "foreign table crm.elsewhere",
    "SEQUENCE numbers": "sequence crm.numbers",
    "FUNCTION same(int, varchar)": "function crm.same(integer,character varying)",
    "PROCEDURE close_day": "procedure crm.close_day(date,integer)",
    "AGGREGATE moving(numeric)": "aggregate crm.moving(numeric)",
    "TYPE address": "type crm.address",
    "DOMAIN code": "domain crm.code",
    "OPERATOR === (int, varchar)": "operator crm.===(integer,character varying)",
    "OPERATOR CLASS int_class USING btree": "operator class crm.int_class USING btree",
    "OPERATOR FAMILY numbers USING btree": "operator family crm.numbers USING btree",
    "COLLATION ordinal": "collation crm.ordinal",
    "CONVERSION latin": "conversion crm.latin",
    "STATISTICS customer_stats": "statistics crm.customer_stats",
    "TEXT SEARCH CONFIGURATION search": "text search configuration crm.search",
    "TEXT SEARCH DICTIONARY plain": "text search dictionary crm.plain",
    "LANGUAGE plother": "language plother",
    "EVENT TRIGGER watch": "event trigger watch",
    "PUBLICATION two_tables": "publication two_tables",
    "SUBSCRIPTION feed": "subscription feed",
    "FOREIGN DATA WRAPPER wrapper": "foreign data wrapper wrapper",
    "SERVER remote": "server remote",
}
OWNER = [(f"ALTER {what} OWNER TO successor", {name}) for what, name in OWNED.items()]


Different = Callable[[str], list[tuple[str, str]]]


@pytest.fixture
def different(rich: Schema, session: psycopg.Connection) -> Different:
    """Layer and object of all that a change changes."""

    def apply(change: str) -> list[tuple[str, str]]:
        session.execute(change)
        found = changes(rich, read_schema(Session(session)))
        return [(one.layer, f"{one.kind} {one.name}") for one in found]

    return apply


@pytest.mark.parametrize("change, objects", STRUCTURE)
def test_a_change_of_structure_is_told_with_its_objects(
    different: Different, change: str, objects: set[str]
) -> None:
    found = {name for layer, name in different(change) if layer == "structure"}
    # From 18 on NOT NULL is a constraint besides, with a name of its own.
    assert {name for name in found if not name.endswith("_not_null")} == objects


@pytest.mark.parametrize("change, objects", FROM_15_STRUCTURE)
def test_what_came_with_15_is_told_too(
    server: Server, different: Different, change: str, objects: set[str]
) -> None:
    assert server.major >= 15
    assert set(different(change)) == {("structure", name) for name in objects}


@pytest.mark.parametrize("change, objects", PRIVILEGE)
def test_a_change_of_privileges_is_told_with_its_object(
    different: Different, change: str, objects: set[str]
) -> None:
    assert set(different(change)) == {("privileges", name) for name in objects}


@pytest.mark.parametrize("change, objects", OWNER)
def test_a_change_of_owner_is_told_with_its_object(
    session: psycopg.Connection, different: Different, change: str, objects: set[str]
) -> None:
    session.execute("CREATE ROLE successor SUPERUSER")
    found = different(change)
    assert {name for layer, name in found if layer == "owners"} == objects
    assert {layer for layer, _ in found} <= {"owners", "privileges"}


@pytest.mark.parametrize("kind", COMMENTED)
def test_a_comment_is_told_with_its_object(different: Different, kind: str) -> None:
    changed = "; ".join(f"COMMENT ON {kind} {name} IS 'new'" for name in COMMENTED[kind])
    found = different(changed)
    assert [layer for layer, _ in found] == ["comments"] * len(COMMENTED[kind])


def test_an_index_that_was_left_invalid_is_told(server: Server) -> None:
    server.cluster.new_database("invalid")
    server.cluster.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)", "invalid")
    with psycopg.connect(
        server.cluster.conninfo("invalid", "postgres"), autocommit=True
    ) as connection:
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
        broken = server.schema("invalid")
        connection.execute("DELETE FROM t; REINDEX INDEX t_a")
    (change,) = changes(broken, server.schema("invalid"))
    assert (change.kind, change.name) == ("index", "public.t_a")
    assert change.before == f"{change.after} INVALID"


def test_drift_is_refused_with_the_object_and_both_definitions(
    rich: Schema, session: psycopg.Connection
) -> None:
    session.execute(
        "ALTER TABLE orders ALTER amount SET DEFAULT 1; CREATE INDEX drift ON audit (at)"
    )
    with pytest.raises(SchemaDiffersError, match="database crm: 2 objects differ") as refusal:
        require_same(rich, read_schema(Session(session)), LAYERS, "database crm")
    assert refusal.value.exit_code == 35
    assert refusal.value.detail == (
        "  column crm.orders.amount (structure)\n"
        "    expected numeric(10,2) DEFAULT 0.00\n"
        "    found    numeric(10,2) DEFAULT 1\n"
        "  index crm.drift (structure)\n"
        "    expected no such object\n"
        "    found    CREATE INDEX drift ON crm.audit USING btree (at)"
    )


def test_a_function_is_told_where_it_differs(session: psycopg.Connection) -> None:
    body = "BEGIN {} RETURN new; END"
    make = "CREATE OR REPLACE FUNCTION long() RETURNS trigger LANGUAGE plpgsql AS '{}'"
    long = " ".join(f"PERFORM {number};" for number in range(200))
    session.execute(make.format(body.format(long)))
    before = read_schema(Session(session))
    session.execute(make.format(body.format(long.replace(" 150;", " 15;"))))
    with pytest.raises(SchemaDiffersError) as refusal:
        require_same(before, read_schema(Session(session)), LAYERS, "database crm")
    lines = refusal.value.detail.splitlines()
    assert lines[0] == "  function crm.long() (structure)"
    assert all("PERFORM 149;" in line and len(line) < 200 for line in lines[1:])


@pytest.mark.parametrize("server", ["18"], indirect=True)
def test_schemas_of_two_majors_are_not_compared(server: Server, database: str) -> None:
    with opened(database) as connection:
        here = connection.schema()
    words = f"a schema of PostgreSQL {here.major} cannot be compared with one of 18"
    with pytest.raises(SchemaDiffersError, match=words) as refusal:
        require_same(here, server.schema("rich"), LAYERS, "database crm")
    assert refusal.value.exit_code == 35


# ---- what reading it leaves ----------------------------------------------------------------------


def test_reading_in_a_transaction_leaves_neither_locks_nor_settings(server: Server) -> None:
    state = """
        SELECT (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND
                relation <> 'pg_locks'::regclass AND locktype = 'relation'),
            (SELECT string_agg(name || setting, ',' ORDER BY name) FROM pg_settings)
    """
    with server.opened("rich") as database, database.transaction() as transaction:
        connection = database._session._connection
        connection.execute(state)
        before = connection.execute(state).fetchone()
        transaction.schema()
        assert connection.execute(state).fetchone() == before
    with server.opened("rich") as database:
        before = database._session._connection.execute(state).fetchone()
        database.schema()
        assert database._session._connection.execute(state).fetchone() == before


def test_a_transaction_reads_what_it_has_made_and_never_the_ledger(
    server: Server, tmp_path: Path
) -> None:
    name = server.restored("rich", "ours", tmp_path)
    before = server.schema(name)
    with server.opened(name) as database, database.transaction() as transaction:
        require_same(before, transaction.schema(), LAYERS, "the schema beside the ledger")
        make = "SET ROLE crm_owner; CREATE TABLE crm.made (); RESET ROLE"
        database._session._connection.execute(make)
        made = {(one.layer, one.name) for one in changes(before, transaction.schema())}
    # What reader may do there is a default privilege of crm_owner.
    assert made == {(layer, "crm.made") for layer in ("structure", "owners", "privileges")}


def test_an_extension_is_its_version_and_none_of_its_objects(server: Server) -> None:
    name, version = server.cluster.psql(
        "SELECT extname, extversion FROM pg_extension WHERE oid >= 16384", "rich"
    ).split("|")
    named = [one for one in server.schema("rich").objects if name in one.name]
    assert named == [
        ("comments", "extension", name, "ours"),
        ("structure", "extension", name, f"VERSION '{version}' SCHEMA crm"),
    ]


def test_no_password_and_no_address_is_in_a_schema(server: Server) -> None:
    schema = str(server.schema("rich").objects)
    assert "secret" not in schema
    assert "db.example.org" not in schema


def test_every_kind_of_object_is_there(server: Server) -> None:
    objects = server.schema("rich").objects
    keys = [one[:3] for one in objects]
    assert len(keys) == len(set(keys))
    assert all(isinstance(text, str) for one in objects for text in one)
    assert {kind for layer, kind, _ in keys if layer == "structure"} == KINDS
    assert {layer for layer, _, _ in keys} == set(LAYERS)
