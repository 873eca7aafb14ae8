"""What a release's script tries so as to become more than its owner role, now or later.

Each attempt is a script of a real release in a real server: in the release's transaction, as an
online script, or as a trap that one release lays for the login role, as which the next one's
installer logs in. `test_database.py` has more that the server refuses within a transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from installer.database import connect
from installer.errors import (
    ConfigurationError,
    InstallerError,
    LockedError,
    LockTimeoutError,
)
from installer.manifest import Script
from installer.runs import whole
from installer.session import ServerError
from tests.cluster import Cluster, private_cluster
from tests.integration.test_database import database_name, target
from tests.integration.test_online import BUILD, ORDERS, Ledger, bring, change_of, online
from tests.integration.test_online import script as ordinary

pytestmark = pytest.mark.integration

WARN = "RAISE WARNING 'sprung as %', current_user"
"""In a trap's body: the server's log has it, whatever becomes of the transaction."""
SOUND = """
SET ROLE none;
SET search_path = pg_catalog;
SELECT countersign.first_broken() IS NULL AS chain,
    (SELECT string_agg(DISTINCT host, ',') FROM countersign.ledger) AS hosts,
    (SELECT string_agg(DISTINCT owner::regrole::text, ',') FROM (
        SELECT nspowner FROM pg_namespace WHERE nspname = 'countersign'
        UNION ALL SELECT relowner FROM pg_class WHERE relnamespace = 'countersign'::regnamespace
        UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'countersign'::regnamespace
    ) AS of(owner)) AS owners,
    (SELECT string_agg(tgname || tgenabled::text, ',') FROM pg_trigger
        WHERE tgrelid = 'countersign.ledger'::regclass) AS triggers,
    (SELECT count(*) FROM pg_auth_members WHERE member = 'crm_owner'::regrole) AS memberships,
    (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'crm_owner') AS privileged
"""
IS_SOUND = "t|qat1|countersign|append_onlyO|0|f"


class Product:
    """A product in a database: its releases, and what they leave."""

    def __init__(self, cluster: Cluster, conninfo: str) -> None:
        self.conninfo = conninfo
        self.ledger = Ledger(cluster, database_name(conninfo))
        self._scripts: list[tuple[Script, bytes]] = []
        self._log = cluster.folder / "log"
        self._start = len(self._log.read_text())

    def release(self, *statements: str, when: str = "", **changes: object) -> None:
        """Bring a release that adds one script, an online one if it says when.

        Later ones have it only if it succeeds.
        """
        name = f"sql/{len(self._scripts)}.sql"
        made = online(name, *statements, when=when) if when else ordinary(name, *statements)
        with connect(target(self.conninfo, **changes), "test") as opened:
            bring(change_of(opened, *self._scripts, made))
        self._scripts.append(made)

    def as_owner(self, sql: str) -> None:
        """Run SQL as the owner role, without any release."""
        self.ledger.ask(f"SET ROLE crm_owner; {sql}")

    @property
    def sprung(self) -> set[str]:
        """As which roles traps were sprung."""
        lines = self._log.read_text()[self._start :].splitlines()
        return {line.rpartition(" ")[2] for line in lines if "WARNING:  sprung as" in line}

    @property
    def made(self) -> str:
        """The relations and functions outside of the ledger."""
        return self.ledger.ask("""
SELECT string_agg(name, ' ' ORDER BY name) FROM (
    SELECT relname, relnamespace FROM pg_class
    UNION ALL SELECT proname, pronamespace FROM pg_proc
) AS of(name, schema) WHERE schema = 'public'::regnamespace""")

    @property
    def state(self) -> str:
        """Whether the ledger and the roles are what the installer made of them."""
        return self.ledger.ask(SOUND)


@pytest.fixture
def empty(cluster: Cluster, database: str) -> Product:
    """A product of which no release was installed, and so without a ledger."""
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    return Product(cluster, database)


@pytest.fixture
def product(empty: Product) -> Product:
    empty.release("CREATE TABLE first (i int);\n")
    return empty


@pytest.fixture(scope="module")
def standing(cluster: Cluster) -> Product:
    """A product for all tests of what is refused: each finds it as it was."""
    conninfo = cluster.new_database("crm_standing")
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "crm_standing")
    made = Product(cluster, conninfo)
    made.release("CREATE TABLE first (i int);\n")
    return made


FUNCTION = "CREATE FUNCTION f() RETURNS void LANGUAGE"
BODY = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
TRIGGER = "CREATE TRIGGER t BEFORE INSERT ON countersign.ledger EXECUTE FUNCTION f()"
HEARD = "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'"
BECOMING = [
    "RESET ROLE",
    "SET ROLE countersign",
    "SET LOCAL ROLE none",
    "SET SESSION AUTHORIZATION countersign",
    "RESET SESSION AUTHORIZATION",
    "DO $$ BEGIN EXECUTE 'SET ROLE countersign'; END $$",
    "DO $$ BEGIN PERFORM set_config('role', 'none', false); END $$",
    "SELECT set_config('session_authorization', 'countersign', false)",
    f"{FUNCTION} sql SET role = countersign AS ''; SELECT f()",
    f"{FUNCTION} plpgsql SECURITY DEFINER AS 'BEGIN RESET ROLE; END'; SELECT f()",
    f"{FUNCTION} sql SECURITY DEFINER AS ''; ALTER FUNCTION f OWNER TO countersign",
    "GRANT countersign TO crm_owner",
    "ALTER ROLE crm_owner SUPERUSER",
    "ALTER ROLE crm_owner CREATEROLE",
    "ALTER ROLE countersign PASSWORD 'known'",
    "ALTER ROLE countersign SET search_path = trap",
    "ALTER ROLE ALL SET search_path = trap",
    "CREATE ROLE more SUPERUSER",
    "UPDATE pg_catalog.pg_authid SET rolsuper = true",
    "ALTER DEFAULT PRIVILEGES FOR ROLE countersign GRANT ALL ON TABLES TO crm_owner",
]
THE_LEDGER = [
    "INSERT INTO countersign.ledger DEFAULT VALUES",
    "DELETE FROM countersign.ledger",
    "TRUNCATE countersign.ledger",
    "DROP SCHEMA countersign CASCADE",
    "ALTER SCHEMA countersign RENAME TO old",
    "ALTER SCHEMA countersign OWNER TO crm_owner",
    "ALTER TABLE countersign.ledger OWNER TO crm_owner",
    "ALTER TABLE countersign.ledger DISABLE TRIGGER ALL",
    "ALTER TABLE countersign.ledger ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY none ON countersign.ledger USING (false)",
    "DROP TRIGGER append_only ON countersign.ledger",
    f"CREATE FUNCTION f() {BODY}; {TRIGGER}",
    "CREATE RULE r AS ON INSERT TO countersign.ledger DO INSTEAD NOTHING",
    "CREATE VIEW v AS SELECT * FROM countersign.ledger",
    "CREATE TABLE heir () INHERITS (countersign.ledger)",
    "CREATE TABLE child (i bigint REFERENCES countersign.ledger)",
    "CREATE TABLE countersign.more ()",
    "CREATE OR REPLACE FUNCTION countersign.refuse_change() " + BODY,
    "ALTER FUNCTION countersign.append(jsonb) SECURITY DEFINER",
    "GRANT ALL ON SCHEMA countersign TO crm_owner",
    "GRANT INSERT ON countersign.ledger TO crm_owner",
    "REASSIGN OWNED BY countersign TO crm_owner",
    "DROP OWNED BY countersign",
    "SET session_replication_role = replica",
    "SET TRANSACTION READ ONLY",
]
THE_SERVER = [
    "COPY first FROM PROGRAM 'echo 1'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY first FROM '/etc/passwd'",
    "COPY first TO '/tmp/countersign-escaped'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(lo_creat(-1), '/tmp/countersign-escaped')",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION file_fdw",
    "CREATE SERVER s FOREIGN DATA WRAPPER dblink_fdw",
    "CREATE LANGUAGE plpython3u",
    f"{FUNCTION} c AS 'libc.so.6', 'system'",
    f"{FUNCTION} internal AS 'pg_reload_conf'",
    "LOAD 'auto_explain'",
    "ALTER SYSTEM SET archive_command = 'true'",
    "SELECT pg_reload_conf()",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "ALTER DATABASE postgres SET search_path = trap",
    "SET session_preload_libraries = 'x'",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "PREPARE TRANSACTION 'x'",
    f"{HEARD}; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
    "CREATE FUNCTION pg_catalog.f() RETURNS int LANGUAGE sql RETURN 1",
    "CREATE OR REPLACE FUNCTION pg_catalog.pg_backend_pid() RETURNS int LANGUAGE sql RETURN 1",
    "ALTER FUNCTION pg_catalog.lower(text) SET search_path = trap",
    "CREATE OPERATOR CLASS o DEFAULT FOR TYPE text USING btree AS STORAGE text",
    "CREATE CAST (text AS name) WITH INOUT AS IMPLICIT",
    "UPDATE pg_catalog.pg_proc SET prosecdef = true",
]


@pytest.mark.parametrize("when,code", [("", 33), ("before", 37)], ids=["in", "online"])
@pytest.mark.parametrize("statement", BECOMING + THE_LEDGER + THE_SERVER)
def test_a_script_that_reaches_beyond_the_owner_role_is_refused_and_leaves_nothing(
    standing: Product, statement: str, when: str, code: int
) -> None:
    events = standing.ledger.events

    with pytest.raises(InstallerError) as refused:
        standing.release(f"{statement};\n", "SELECT 1;\n", when=when)

    assert refused.value.exit_code == code
    assert standing.ledger.events == events
    assert standing.made == "first"
    assert standing.state == IS_SOUND


TRAPS = [
    "ALTER ROLE crm_owner SET search_path = trap",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "CREATE SCHEMA trap; CREATE TABLE trap.ledger (); SET search_path = trap",
    "CREATE TEMP TABLE ledger (i int) ON COMMIT DROP; CREATE TEMP TABLE database ()",
    "CREATE TEMP TABLE kept (i int) ON COMMIT DELETE ROWS",
    "CREATE TEMP VIEW pg_class AS SELECT 1; CREATE TEMP VIEW pg_roles AS SELECT 1",
    "CREATE DOMAIN pg_temp.text AS int; CREATE DOMAIN pg_temp.oid AS text",
    "SET statement_timeout = 0; SET lock_timeout = 0",
    "SET idle_in_transaction_session_timeout = 60000; SET default_transaction_read_only = on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "PREPARE _pg3_0 AS SELECT 1",
    "LISTEN countersign; NOTIFY countersign",
    "SELECT pg_advisory_lock(1)",
    "DISCARD TEMP",
]


@pytest.mark.parametrize("when", ["", "before"], ids=["in", "online"])
def test_what_a_script_leaves_in_its_session_and_for_later_ones_is_harmless(
    product: Product, when: str
) -> None:
    for count, trap in enumerate(TRAPS, 1):
        product.release(f"{trap};\n", when=when)
        product.release("INSERT INTO public.first VALUES (1);\n")

        assert product.ledger.ask("SELECT count(*) FROM public.first") == str(count), trap
        assert product.state == IS_SOUND, trap


SETTINGS = [
    "search_path = trap, pg_catalog",
    "default_transaction_read_only = on",
    "default_transaction_isolation = serializable",
    "statement_timeout = 1",
    "lock_timeout = 1",
    "idle_in_transaction_session_timeout = 1",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "bytea_output = escape",
    "timezone = 'Asia/Tokyo'",
    "datestyle = 'German'",
]


@pytest.mark.parametrize("settings", [["role = crm_owner"], SETTINGS], ids=["role", "others"])
@pytest.mark.parametrize("is_first", [True, False], ids=["no ledger yet", "later"])
def test_settings_that_the_database_s_owner_gives_to_all_sessions_change_nothing(
    empty: Product, settings: list[str], *, is_first: bool
) -> None:
    change = f"ALTER DATABASE {empty.ledger.database}"
    if not is_first:
        empty.release("CREATE TABLE zeroth ();\n")
    empty.as_owner("".join(f"{change} SET {setting};" for setting in settings))

    empty.release("CREATE TABLE first (i int);\n")

    empty.ledger.cluster.psql(f"{change} RESET ALL")
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'first'"
    assert empty.ledger.ask(owner) == "crm_owner"
    assert empty.state == IS_SOUND


OPERATORS = f"""
DO $do$
DECLARE
    types text[] := '{{name,text,oid,"\\"char\\"",int2,int4,int8,bool,timestamptz,xid,xid8,tid,
        regclass,regprocedure,regnamespace,regrole,json,jsonb,timestamp,text[],name[],int4[],oid[]}}';
    l text; r text; o text; gives text;
BEGIN
    FOREACH l IN ARRAY types LOOP
    FOREACH r IN ARRAY types LOOP
        FOREACH gives IN ARRAY '{{bool,text}}'::text[] LOOP
            EXECUTE format($f$CREATE FUNCTION public.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS
                $$ BEGIN %s; RETURN NULL; END $$ $f$, 'trap_' || gives, l, r, gives, $w${WARN}$w$);
        END LOOP;
        FOREACH o IN ARRAY '{{=,<>,<,>,<=,>=,~,!~,~~,!~~,||,+,-,<<,->,->>}}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %s)',
                o, l, r, CASE WHEN o ~ '[=~]|^[<>]$' THEN 'trap_bool' ELSE 'trap_text' END);
        END LOOP;
    END LOOP;
    END LOOP;
END $do$;
"""
"""Every operator that the installer might write, for every two types that it might mean."""


@contextmanager
def locked_by_another(product: Product) -> Iterator[int]:
    """A superuser's session holds a table; the pid that serves it."""
    superuser = product.ledger.cluster.conninfo(product.ledger.database, "postgres")
    with psycopg.connect(superuser) as session:
        session.execute("LOCK TABLE first")
        yield session.info.backend_pid


def test_no_operator_of_a_release_s_is_called_by_the_next_installer(product: Product) -> None:
    """Not even where it fits the types better than PostgreSQL's own (CVE-2018-1058)."""
    product.release(OPERATORS)
    product.release("ALTER TABLE first ADD j int;\n")
    product.release(ORDERS, BUILD, when="before")
    with (
        locked_by_another(product) as blocker,
        pytest.raises(LockTimeoutError) as locked,
    ):
        product.release("ALTER TABLE first ADD k int;\n", lock_timeout=0.2, lock_wait=3)
    with connect(target(product.conninfo), "reading") as opened:
        assert opened.history("crm")
        assert opened.ahead("crm") == []
        assert opened.newest_release()
        assert opened.first_broken_row() is None
        with opened.ledger("QAT") as reading:
            assert {row["host"] for row in reading.rows} == {"qat1"}

    assert f"pid {blocker} (user postgres, since" in locked.value.held[0]
    assert product.sprung == set()
    assert product.state == IS_SOUND


def test_functions_that_wait_for_the_ledger_to_be_made_are_not_in_it(empty: Product) -> None:
    """They fit better than jsonb_build_array(VARIADIC "any") and lag(anyelement)."""
    columns = "bigint, text, text, text, text, text, bigint, text, text, text, integer, bigint"
    more = "bigint, text[], text, text, text, text, text"
    empty.as_owner(f"""
CREATE FUNCTION jsonb_build_array({columns}, {more}) RETURNS jsonb LANGUAGE plpgsql
    AS $$ BEGIN {WARN}; RETURN to_jsonb(random()); END $$;
CREATE FUNCTION step(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {WARN}; END $$;
CREATE AGGREGATE lag(text) (SFUNC = step, STYPE = text);
""")

    empty.release("CREATE TABLE first (i int);\n")

    assert empty.state == IS_SOUND
    assert empty.sprung == set()


def test_a_ledger_that_the_owner_role_made_first_is_not_trusted(empty: Product) -> None:
    empty.as_owner("CREATE SCHEMA countersign; CREATE TABLE countersign.ledger ()")

    with pytest.raises(ConfigurationError, match="belongs to another role"):
        empty.release("CREATE TABLE first (i int);\n")

    assert empty.made == ""


REWRITE = f"""
CREATE FUNCTION strike() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    {WARN};
    PERFORM set_config('role', 'none', false);
    {WARN};
    ALTER TABLE countersign.ledger DISABLE TRIGGER ALL;
    UPDATE countersign.ledger SET host = 'stolen';
    RETURN true;
END $$;
"""


def late(body: str) -> str:
    """A deferred trigger that lets `body` wait until COMMIT, by deferring it anew.

    Until PostgreSQL 17 what waits runs as whoever commits, later as whoever queued it.
    """
    return f"""
CREATE TABLE late (i int);
CREATE FUNCTION struck() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.i = 1 THEN
        SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO late VALUES (2);
    ELSE
        {body};
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION struck();
INSERT INTO late VALUES (1);
"""


@pytest.mark.parametrize("when,code", [("", 33), ("before", 37)], ids=["in", "online"])
@pytest.mark.parametrize("first", ["", "PERFORM set_config('transaction_read_only', 'off', false)"])
def test_a_trigger_that_waits_for_commit_changes_nothing_and_the_release_is_refused(
    product: Product, first: str, when: str, code: int
) -> None:
    events = product.ledger.events
    body = f"{first};\nPERFORM strike()".removeprefix(";\n")

    with pytest.raises(InstallerError, match=r"read-(only|write)|role") as refused:
        product.release(REWRITE, late(body), when=when)

    assert refused.value.exit_code == code
    added = ["statement applied sql/1.sql 1"] if when else []  # each is a transaction of its own
    assert product.ledger.events == events + added
    assert product.made == ("first strike" if when else "first")
    assert product.state == IS_SOUND


def test_what_a_trigger_sets_at_commit_is_gone_for_the_installer_s_next_statement(
    product: Product,
) -> None:
    body = """
PERFORM set_config('search_path', 'trap', false);
BEGIN
    PERFORM set_config('role', 'crm_owner', false);
EXCEPTION WHEN insufficient_privilege THEN NULL;  -- PostgreSQL 18 does not let it
END"""
    product.release(late(body), when="before")
    product.release("CREATE TABLE second ();\n")

    assert product.made == "first late second struck"
    assert product.state == IS_SOUND


@pytest.mark.parametrize("when", ["", "before"], ids=["in", "online"])
@pytest.mark.parametrize("is_late", [False, True], ids=["script", "deferred trigger"])
def test_a_cursor_that_is_to_be_held_over_commit_never_runs(
    product: Product, when: str, *, is_late: bool
) -> None:
    declare = "DECLARE c CURSOR WITH HOLD FOR SELECT public.strike()"
    trigger = late("NULL").replace("SET CONSTRAINTS ALL DEFERRED", f"EXECUTE '{declare}'")

    product.release(REWRITE, trigger if is_late else f"{declare};\n", when=when)

    assert product.sprung == set()
    assert product.state == IS_SOUND


INDEX = "CREATE INDEX {} first_f ON first ((f() OR i > 0));\n"


@pytest.mark.parametrize(
    "inside,online_one",
    [("SELECT 1;\n", INDEX.format("CONCURRENTLY")), (INDEX.format(""), "VACUUM ANALYZE first;\n")],
    ids=["index", "vacuum"],
)
def test_code_that_an_online_statement_calls_at_the_top_level_cannot_change_the_role(
    product: Product, inside: str, online_one: str
) -> None:
    strike = REWRITE.replace("strike() RETURNS boolean", "f() RETURNS boolean IMMUTABLE")
    harmless = strike.replace("AS $$ BEGIN", "AS $$ BEGIN RETURN true;")
    product.release("INSERT INTO first SELECT generate_series(1, 9);\n")
    product.release(harmless, inside, strike.replace("CREATE", "CREATE OR REPLACE"))

    with pytest.raises(InstallerError, match="within security-restricted operation") as refused:
        product.release(online_one, when="before")

    assert refused.value.exit_code == 37
    assert product.sprung == {"crm_owner"}
    assert product.state == IS_SOUND


def test_a_script_that_lets_go_of_the_install_lock_lets_nobody_in(product: Product) -> None:
    release = "SELECT pg_advisory_unlock_all();\n"
    with connect(target(product.conninfo), "test") as opened, opened.held():
        with opened.transaction() as transaction:
            transaction.run_part("sql/1.sql", whole(release.encode()))
            transaction.settle_constraints()
        with (
            connect(target(product.conninfo, lock_wait=0), "second") as second,
            pytest.raises(LockedError, match="another install holds the lock"),
            second.transaction(),
        ):
            pytest.fail("it got the lock")

    assert product.ledger.left_behind == "0|0"


def test_a_connection_that_is_lost_right_after_commit_takes_nothing_back(
    product: Product,
) -> None:
    """It is put back to its start; where it cannot be for another reason, that is an error."""
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name ="
    with connect(target(product.conninfo), "lost") as opened:
        product.ledger.ask(f"{end} 'countersign lost'")
        opened._session.leave_role()
        assert opened._session.is_lost

    with connect(target(product.conninfo), "test") as opened:
        with pytest.raises(ServerError), opened.transaction():  # noqa: PT012
            with pytest.raises(ServerError, match="division by zero"):
                opened._session.execute(b"SELECT 1/0")
            opened._session.leave_role()
        assert not opened._session.is_lost

    assert product.state == IS_SOUND


@contextmanager
def granted(product: Product, grant: str, revoke: str) -> Iterator[None]:
    product.ledger.ask(grant)
    try:
        yield
    finally:
        product.ledger.ask(revoke)


@pytest.mark.parametrize(
    "grant,revoke",
    [
        ("ALTER ROLE crm_owner CREATEROLE", "ALTER ROLE crm_owner NOCREATEROLE"),
        *(
            (f"GRANT {role} TO crm_owner", f"REVOKE {role} FROM crm_owner")
            for role in (
                "postgres",
                "pg_execute_server_program",
                "pg_read_server_files",
                "pg_write_server_files",
                "pg_write_all_data",
            )
        ),
    ],
)
def test_an_owner_role_that_may_do_more_than_own_objects_is_refused(
    product: Product, grant: str, revoke: str
) -> None:
    with (
        granted(product, grant, revoke),
        pytest.raises(ConfigurationError, match=r"its owner role \S+ could change the ledger"),
    ):
        product.release("CREATE TABLE second ();\n")

    assert product.made == "first"
    assert product.state == IS_SOUND


def test_an_event_trigger_whose_function_a_script_may_replace_is_refused(product: Product) -> None:
    product.ledger.ask(
        "SET ROLE crm_owner; CREATE FUNCTION public.heard() RETURNS event_trigger "
        "LANGUAGE plpgsql AS 'BEGIN END'; RESET ROLE; "
        "CREATE EVENT TRIGGER hears ON ddl_command_end EXECUTE FUNCTION public.heard()"
    )

    with pytest.raises(ConfigurationError, match="runs for everybody, by the event trigger hears"):
        product.release("CREATE TABLE second ();\n")

    assert product.made == "first heard"
    product.ledger.ask("ALTER FUNCTION public.heard() OWNER TO postgres")
    product.release("CREATE TABLE second ();\n")
    assert product.made == "first heard second"


def test_a_commit_is_on_the_disk_although_the_database_s_owner_does_not_wait_for_it() -> None:
    with private_cluster() as alone:
        conninfo = alone.new_database("crm")
        alone.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "crm")
        alone.psql("ALTER SYSTEM SET wal_writer_delay = '10s'")
        alone.psql("SELECT pg_reload_conf()")
        product = Product(alone, conninfo)
        product.release("ALTER DATABASE crm SET synchronous_commit = off;\n")
        product.release("CREATE TABLE second ();\n")
        alone.crash()
        alone.start()

        assert product.made == "second"
        assert product.ledger.events[-1] == "release applied"
