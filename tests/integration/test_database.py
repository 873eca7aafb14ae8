"""Scripts in a real server: what they may do, what the server refuses, what the ledger keeps."""

import io
import lzma
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from installer.bundle import ContentReader, Section
from installer.database import Database, connect
from installer.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DigestError,
    LockedError,
    MalformedError,
    OutcomeUnknownError,
    ScriptFailedError,
)
from installer.host_file import DatabaseTarget
from installer.manifest import Script
from installer.queries import ADVISORY_LOCK
from installer.transaction import Origin, ScriptRun
from installer.tree import Digest, digest_of
from tests.cluster import Cluster, private_cluster

pytestmark = pytest.mark.integration

ORIGIN = Origin(
    product="crm",
    version="1.0",
    sequence=1,
    manifest=Digest("a" * 64),
    signers=("developer Ada 0123",),
    environment="QAT",
    host="qat1",
    package="crm-1.0-1.noarch",
    installer="0.1.0",
)


def target(conninfo: str, **changes: object) -> DatabaseTarget:
    values: dict[str, object] = {
        "name": "crm",
        "connection": conninfo,
        "owner": "crm_owner",
        "search_path": "public",
        "lock_timeout": 1,
        "statement_timeout": 0,
        "lock_wait": 1,
    }
    return DatabaseTarget(**(values | changes))  # type: ignore[arg-type]


def script(name: str, *statements: str) -> tuple[Script, ContentReader]:
    """A script whose runs are the given statements, and a reader of its content."""
    content = "".join(statements).encode()
    runs = [len("".join(statements[:i]).encode()) for i in range(len(statements))]
    made = Script(name, digest_of(content), len(content), tuple(runs))
    compressed = lzma.compress(content)
    return made, ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), (made,))


def apply(database: Database, *scripts: tuple[Script, ContentReader]) -> tuple[ScriptRun, ...]:
    with database.transaction() as transaction:
        runs = tuple(transaction.run(*one) for one in scripts)
        transaction.settle_constraints()
        transaction.record("applied", ORIGIN, runs)
    return runs


@pytest.fixture
def connection(cluster: Cluster, database: str) -> Iterator[Database]:
    # PostgreSQL 15 gives PUBLIC no CREATE on public; a product's owner has it.
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    with connect(target(database), "test") as opened:
        yield opened


def database_name(conninfo: str) -> str:
    return re.search(r"dbname=(\w+)", conninfo)[1]  # type: ignore[index]


def tables(cluster: Cluster, conninfo: str) -> str:
    sql = (
        "SELECT string_agg(tablename || ':' || tableowner, ' ' ORDER BY 1) FROM pg_tables "
        "WHERE schemaname = 'public'"
    )
    return cluster.psql(sql, database_name(conninfo))


def test_scripts_run_in_order_as_the_owner_role_and_the_ledger_says_so(
    cluster: Cluster, database: str, connection: Database
) -> None:
    first = script("sql/1.sql", "CREATE TABLE a (i int);\n", "INSERT INTO a VALUES (1), (2);\n")
    second = script("sql/2.sql", "-- no final semicolon\nALTER TABLE a ADD COLUMN j text")

    runs = apply(connection, first, second)

    assert [(run.script, run.rows) for run in runs] == [("sql/1.sql", 2), ("sql/2.sql", 0)]
    assert tables(cluster, database) == "a:crm_owner"
    state = connection.state("crm")
    assert state.applied == {"sql/1.sql": first[0].digest, "sql/2.sql": second[0].digest}
    assert (state.version, state.sequence, state.manifest) == ("1.0", 1, ORIGIN.manifest)
    assert connection.first_broken_row() is None


def test_an_empty_script_is_recorded_and_runs_nothing(connection: Database) -> None:
    (run,) = apply(connection, script("sql/empty.sql"))

    assert run.rows == 0
    assert "sql/empty.sql" in connection.state("crm").applied


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "SAVEPOINT s",
        "/* comment */ END",
        "DO $$ BEGIN COMMIT; END $$",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$; CALL p()",
        "CREATE INDEX CONCURRENTLY ON a (i)",
        "VACUUM",
        "RESET ROLE",
        "SET ROLE countersign",
        "SET SESSION AUTHORIZATION countersign",
        "SET LOCAL ROLE countersign",
        "DO $$ BEGIN PERFORM set_config('role', 'countersign', false); END $$",
        "DELETE FROM countersign.ledger",
        "UPDATE countersign.ledger SET host = 'x'",
        "TRUNCATE countersign.ledger",
        "DROP SCHEMA countersign CASCADE",
        "ALTER TABLE countersign.ledger DISABLE TRIGGER ALL",
        "SELECT countersign.append('[]')",
        "COPY a FROM PROGRAM 'id'",
        "COPY a FROM STDIN",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_what_a_script_must_not_do_is_refused_by_the_server_and_nothing_stays(
    cluster: Cluster, database: str, connection: Database, statement: str
) -> None:
    good = script("sql/1.sql", "CREATE TABLE a (i int);\n")
    bad = script("sql/2.sql", "SELECT 1;\n", f"{statement};\n", "CREATE TABLE b ();\n")

    with pytest.raises(ScriptFailedError) as refused:
        apply(connection, good, bad)

    assert str(refused.value).startswith("sql/2.sql:2")
    assert tables(cluster, database) == ""
    assert connection.state("crm").applied == {}


FUNCTION = "countersign.run_script(text[])"


@pytest.mark.parametrize(
    "change",
    [
        f"ALTER FUNCTION {FUNCTION} SECURITY INVOKER",
        f"ALTER FUNCTION {FUNCTION} SET role = countersign",
        f"DROP FUNCTION {FUNCTION}",
        "CREATE OR REPLACE FUNCTION countersign.run_script(runs text[]) LANGUAGE sql RETURN 0",
        "DROP OWNED BY crm_owner",
        "REASSIGN OWNED BY crm_owner TO countersign",
    ],
)
def test_a_script_cannot_change_the_function_that_runs_the_next_one(
    cluster: Cluster, database: str, connection: Database, change: str
) -> None:
    trap = script("sql/1.sql", f"{change};\n")
    escape = script("sql/2.sql", "CREATE TABLE countersign.made ();\n")

    with pytest.raises(ScriptFailedError):
        apply(connection, trap, escape)

    assert tables(cluster, database) == ""
    assert connection.state("crm").applied == {}


def test_a_function_that_was_changed_all_the_same_is_not_called_again(
    cluster: Cluster, database: str, connection: Database
) -> None:
    with (  # noqa: PT012
        pytest.raises(ScriptFailedError, match="transaction was tampered with"),
        connection.transaction() as transaction,
    ):
        transaction.run(*script("sql/1.sql", "CREATE TABLE a ();\n"))
        connection._session._connection.execute(f"ALTER FUNCTION {FUNCTION} SECURITY INVOKER")
        transaction.run(*script("sql/2.sql", "CREATE TABLE b ();\n"))

    assert tables(cluster, database) == ""


def test_nothing_of_the_installer_s_own_is_left_in_the_database(
    cluster: Cluster, database: str, connection: Database
) -> None:
    apply(connection, script("sql/1.sql", "CREATE TABLE a ();\n"))

    name = database_name(database)
    assert cluster.psql("SELECT to_regprocedure('countersign.run_script(text[])')", name) == ""
    grants = "SELECT nspacl FROM pg_namespace WHERE nspname = 'countersign'"
    assert "crm_owner" not in cluster.psql(grants, name)


def test_a_deferred_trigger_runs_as_the_owner_role_too(
    cluster: Cluster, database: str, connection: Database
) -> None:
    trap = script(
        "sql/1.sql",
        "CREATE TABLE a (i int);\n",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN EXECUTE 'CREATE TABLE made_by_trigger ()'; RETURN NULL; END $$;\n",
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION f();\n",
        "INSERT INTO a VALUES (1);\n",
    )

    apply(connection, trap)

    assert tables(cluster, database) == "a:crm_owner made_by_trigger:crm_owner"


def test_a_deferred_constraint_that_does_not_hold_rolls_everything_back(
    cluster: Cluster, database: str, connection: Database
) -> None:
    broken = script(
        "sql/1.sql",
        "CREATE TABLE a (i int PRIMARY KEY, j int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\n",
        "INSERT INTO a VALUES (1, 2);\n",
    )

    with pytest.raises(ScriptFailedError, match=r"deferred constraints: .*violates foreign key"):
        apply(connection, broken)

    assert tables(cluster, database) == ""


def test_settings_and_temporary_tables_do_not_leak_into_the_next_script(
    connection: Database,
) -> None:
    leaky = script(
        "sql/1.sql",
        "SET search_path = pg_catalog;\n",
        "SET lock_timeout = '1ms';\n",
        "SET timezone = 'Asia/Tokyo';\n",
        "CREATE TEMP TABLE t (i int);\n",
        "PREPARE p AS SELECT 1;\n",
    )
    next_one = script(
        "sql/2.sql",
        "DO $$ BEGIN ASSERT current_setting('search_path') = 'public'; END $$;\n",
        "DO $$ BEGIN ASSERT current_setting('lock_timeout') = '1s'; END $$;\n",
        "DO $$ BEGIN ASSERT current_setting('timezone') <> 'Asia/Tokyo'; END $$;\n",
        "DO $$ BEGIN ASSERT to_regclass('t') IS NULL; END $$;\n",
        "PREPARE p AS SELECT 2;\n",
    )

    assert len(apply(connection, leaky, next_one)) == 2


def test_an_error_names_script_line_column_and_shows_the_line(connection: Database) -> None:
    bad = script("sql/2.sql", "SELECT 'ä';\n", "-- a comment\n\nSELECT 1,\n  'ü', nothing;\n")

    with pytest.raises(ScriptFailedError) as refused:
        apply(connection, bad)

    assert str(refused.value) == 'sql/2.sql:5:8: column "nothing" does not exist'
    assert refused.value.detail == "   5 |   'ü', nothing;\n     |        ^"


def test_an_error_without_a_position_names_the_statement_s_first_line(connection: Database) -> None:
    bad = script(
        "sql/2.sql",
        "CREATE TABLE a (i int PRIMARY KEY);\n",
        "INSERT INTO a VALUES (1);\n",
        "\n-- the same again\nINSERT INTO a VALUES (1);\n",
    )

    with pytest.raises(ScriptFailedError) as refused:
        apply(connection, bad)

    assert re.fullmatch(
        r"sql/2.sql:5: duplicate key .*; Key \(i\)=\(1\) already .*", str(refused.value)
    )
    assert refused.value.detail == "   5 | INSERT INTO a VALUES (1);"


def test_an_error_in_a_large_script_has_the_line_in_the_whole_script(
    cluster: Cluster, database: str, connection: Database
) -> None:
    rows = ["CREATE TABLE a (i int, t text);\n"]
    rows += [f"INSERT INTO a VALUES ({n}, '{'x' * 1000}');\n" for n in range(500)]
    bad = script("sql/large.sql", *rows, "INSERT INTO a VALUES (1, nothing);\n")

    with pytest.raises(ScriptFailedError) as refused:
        apply(connection, bad)

    assert str(refused.value) == 'sql/large.sql:502:26: column "nothing" does not exist'
    assert tables(cluster, database) == ""


def test_a_large_script_whose_digest_is_wrong_is_taken_back(
    cluster: Cluster, database: str, connection: Database
) -> None:
    rows = [f"CREATE TABLE t{n} (t text DEFAULT '{'x' * 1000}');\n" for n in range(100)]
    made, content = script("sql/large.sql", *rows)
    content._offsets = {replace(made, digest=Digest("0" * 64)): 0}

    with pytest.raises(DigestError, match="its digest is not the one that was signed"):
        apply(connection, (replace(made, digest=Digest("0" * 64)), content))

    assert tables(cluster, database) == ""


def test_a_number_without_end_in_a_script_that_fails_is_no_line(
    cluster: Cluster, database: str, connection: Database
) -> None:
    nines = "9" * 5000  # more than int() takes; the server repeats the statement in its answer
    text = f"SELECT 1/0 /*\nCOPY countersign_rows, line {nines}\nrun {nines}*/;\n"

    with pytest.raises(ScriptFailedError, match=r"^sql/1\.sql:1: division by zero$"):
        apply(connection, script("sql/1.sql", "CREATE TABLE a ();\n" + text))

    assert tables(cluster, database) == ""


def test_a_run_that_ends_within_a_character_is_refused_and_all_is_rolled_back(
    cluster: Cluster, database: str, connection: Database
) -> None:
    made, _ = script("sql/2.sql", "SELECT 'é'")
    cut = replace(made, runs=(0, 9))
    compressed = lzma.compress("SELECT 'é'".encode())
    reader = ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), (cut,))

    with pytest.raises(MalformedError, match="bytes 0 to 11 is not UTF-8, or one of its"):
        apply(connection, script("sql/1.sql", "CREATE TABLE a ();\n"), (cut, reader))

    assert tables(cluster, database) == ""
    assert connection.state("crm").applied == {}


def test_an_error_inside_a_function_names_the_statement_that_called_it(
    connection: Database,
) -> None:
    bad = script(
        "sql/2.sql",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1/0; END $$;\n",
        "SELECT f();\n",
    )

    with pytest.raises(ScriptFailedError, match=r"sql/2.sql:2: division by zero"):
        apply(connection, bad)


def test_a_locked_table_is_told_apart_from_a_failing_script(
    cluster: Cluster, database: str, connection: Database
) -> None:
    apply(connection, script("sql/1.sql", "CREATE TABLE a (i int);\n"))
    with psycopg.connect(cluster.conninfo(database_name(database), "postgres")) as blocker:
        blocker.execute("LOCK TABLE a")
        with pytest.raises(
            LockedError, match=r"sql/2\.sql:1: canceling statement due to lock timeout"
        ):
            apply(connection, script("sql/2.sql", "ALTER TABLE a ADD COLUMN j int;\n"))

    assert list(connection.state("crm").applied) == ["sql/1.sql"]


def test_a_second_install_waits_and_is_then_refused_with_the_holder_named(
    database: str, connection: Database
) -> None:
    holder = r"pid \d+ \(countersign test, user countersign"
    with (
        connect(target(database, lock_wait=0), "second") as second,
        connection.transaction(),
        pytest.raises(LockedError, match=holder),
        second.transaction(),
    ):
        pytest.fail("two installs held the lock at once")


def test_eight_writers_make_one_chain(database: str, connection: Database) -> None:
    def write(number: int) -> None:
        with connect(target(database, lock_wait=30), f"writer {number}") as writer:
            for _ in range(5):
                with writer.transaction() as transaction:
                    transaction.record("failed", ORIGIN, detail=f"writer {number}")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    rows = connection.history("crm")
    assert [row["id"] for row in rows] == list(range(1, 41))
    assert connection.first_broken_row() is None


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE countersign.ledger SET host = 'elsewhere' WHERE id = 2",
        "DELETE FROM countersign.ledger WHERE id = 2",
    ],
)
def test_a_superuser_s_edit_breaks_the_chain_and_is_found(
    cluster: Cluster, database: str, connection: Database, edit: str
) -> None:
    for _ in range(3):
        with connection.transaction() as transaction:
            transaction.record("failed", ORIGIN)
    cluster.psql(f"SET session_replication_role = replica; {edit}", database_name(database))

    broken = connection.first_broken_row()

    assert broken is not None
    assert broken >= 2


@pytest.mark.parametrize(
    "edit", ["UPDATE countersign.ledger SET host = 'x'", "TRUNCATE countersign.ledger"]
)
def test_even_the_ledger_s_owner_cannot_change_it_by_accident(
    database: str, connection: Database, edit: str
) -> None:
    with connection.transaction() as transaction:
        transaction.record("failed", ORIGIN)

    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.RaiseException):
        owner.execute(edit)

    assert len(connection.history(None)) == 1


def test_every_column_of_the_ledger_is_documented(
    cluster: Cluster, database: str, connection: Database
) -> None:
    apply(connection)
    undocumented = cluster.psql(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'countersign.ledger'::regclass "
        "AND attnum > 0 AND col_description(attrelid, attnum) IS NULL",
        database_name(database),
    )

    assert undocumented == ""


def test_a_ledger_schema_of_another_role_is_not_trusted(
    cluster: Cluster, database: str, connection: Database
) -> None:
    cluster.psql("CREATE SCHEMA countersign AUTHORIZATION crm_owner", database_name(database))

    with pytest.raises(ConfigurationError, match="belongs to another role"):
        connection.state("crm")


def test_a_login_role_that_may_not_make_the_ledger_is_told_what_to_grant(
    cluster: Cluster, database: str
) -> None:
    name = database_name(database)
    cluster.psql(f"ALTER DATABASE {name} OWNER TO postgres")
    cluster.psql(f"REVOKE CREATE ON DATABASE {name} FROM countersign")
    grant = f'run: GRANT CREATE ON DATABASE "{name}" TO "countersign"'

    with (
        connect(target(database), "test") as opened,
        pytest.raises(ConfigurationError, match=grant),
        opened.transaction(),
    ):
        pytest.fail("it has a ledger")


def test_a_database_that_does_not_answer_is_exit_code_30(cluster: Cluster) -> None:
    nobody = target(f"host={cluster.folder} port=1 dbname=crm user=countersign")
    with (
        pytest.raises(DatabaseUnavailableError, match="cannot connect to database crm") as refused,
        connect(nobody, "test"),
    ):
        pytest.fail("it connected")

    assert refused.value.exit_code == 30


@pytest.mark.parametrize(
    "owner,words",
    [
        ("nobody_there", "does not exist"),
        ("postgres", "could change the ledger"),
        ("countersign", "could change the ledger"),
        ("stranger", "is no member of stranger; run: GRANT stranger TO countersign"),
    ],
)
def test_roles_that_would_let_a_script_reach_the_ledger_are_refused(
    cluster: Cluster, database: str, owner: str, words: str
) -> None:
    cluster.psql(
        "DO $$ BEGIN CREATE ROLE stranger; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    with (
        pytest.raises(ConfigurationError, match=words),
        connect(target(database, owner=owner), "test"),
    ):
        pytest.fail("it connected")


@pytest.fixture
def dba(cluster: Cluster, database: str) -> Iterator[str]:
    """The conninfo of a login role that is a superuser, and a member of the owner role."""
    cluster.psql("CREATE ROLE dba LOGIN SUPERUSER IN ROLE crm_owner")
    yield cluster.conninfo(database_name(database), "dba")
    cluster.psql("DROP OWNED BY dba", database_name(database))
    cluster.psql("DROP ROLE dba")


def test_a_login_role_that_is_a_superuser_is_refused_with_the_grants_that_it_needs_instead(
    cluster: Cluster, database: str, dba: str
) -> None:
    name = database_name(database)
    with (
        pytest.raises(ConfigurationError, match="its login role dba is a superuser") as refused,
        connect(target(dba), "test"),
    ):
        pytest.fail("it connected")

    advice = refused.value.detail
    assert "[database.crm]\nsuperuser = true" in advice
    cluster.psql(advice[advice.index("ALTER ROLE") : advice.index("or let it be one")])
    with connect(target(dba), "test") as opened, opened.transaction() as transaction:
        transaction.record("failed", ORIGIN)
    assert cluster.psql("SELECT count(*) FROM countersign.ledger", name) == "1"


def test_a_login_role_may_be_a_superuser_where_the_host_file_says_so(
    cluster: Cluster, database: str, dba: str
) -> None:
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    with connect(target(dba, superuser=True), "test") as opened:
        apply(opened, script("sql/1.sql", "CREATE TABLE a ();\n"))

    assert tables(cluster, database) == "a:crm_owner"


def test_a_restore_point_is_refused_with_the_grant_that_it_needs(
    cluster: Cluster, database: str
) -> None:
    marking = target(database, restore_point=True)
    with (
        pytest.raises(ConfigurationError, match="countersign may not make a restore") as refused,
        connect(marking, "test"),
    ):
        pytest.fail("it connected")

    grant = str(refused.value).partition(f"run in {database_name(database)}: ")[2]
    cluster.psql(grant, database_name(database))
    with connect(marking, "test") as opened:
        before = cluster.psql("SELECT pg_current_wal_lsn()")
        lsn = opened.restore_point("countersign crm 1.0")
    assert cluster.psql(f"SELECT '{before}'::pg_lsn < '{lsn}'") == "t"
    assert f'restore point "countersign crm 1.0" created at {lsn}' in log(cluster)


@pytest.mark.parametrize(
    "name, words",
    [("x" * 64, "value too long for restore point"), ("x", "permission denied for function")],
)
def test_a_restore_point_that_the_server_does_not_make_is_told_in_its_words(
    connection: Database, cluster: Cluster, database: str, name: str, words: str
) -> None:
    if len(name) > 1:
        function = "FUNCTION pg_create_restore_point(text)"
        cluster.psql(f"GRANT EXECUTE ON {function} TO countersign", database_name(database))

    with pytest.raises(ConfigurationError, match=f"no restore point: {words}"):
        connection.restore_point(name)


def test_a_connection_lost_before_the_restore_point_is_exit_code_30(
    cluster: Cluster, connection: Database
) -> None:
    _terminate(cluster, "true")

    with pytest.raises(DatabaseUnavailableError, match="no restore point"):
        connection.restore_point("x")


def test_a_server_that_writes_too_little_wal_for_a_restore_point_is_refused() -> None:
    with private_cluster() as minimal:
        conninfo = minimal.new_database("crm")
        function = "FUNCTION pg_create_restore_point(text)"
        minimal.psql(f"GRANT EXECUTE ON {function} TO countersign", "crm")
        minimal.psql("ALTER SYSTEM SET wal_level = minimal")
        minimal.psql("ALTER SYSTEM SET max_wal_senders = 0")
        minimal.crash()
        minimal.start()

        with (
            pytest.raises(ConfigurationError, match="makes no restore point with wal_level = min"),
            connect(target(conninfo, restore_point=True), "test"),
        ):
            pytest.fail("it connected")


def log(cluster: Cluster) -> str:
    return (cluster.folder / "log").read_text()


def test_a_connection_lost_in_a_script_leaves_nothing(
    cluster: Cluster, database: str, connection: Database
) -> None:
    slow = script(
        "sql/1.sql",
        "CREATE TABLE a ();\n",
        "SELECT pg_sleep(30);\n",
    )
    killer = threading.Thread(target=_terminate, args=(cluster, "wait_event = 'PgSleep'"))
    killer.start()
    with pytest.raises(DatabaseUnavailableError, match="connection was lost"):
        apply(connection, slow)
    killer.join(60)

    assert tables(cluster, database) == ""


def test_a_connection_lost_during_commit_is_an_unknown_outcome(
    cluster: Cluster, connection: Database
) -> None:
    with pytest.raises(OutcomeUnknownError), connection.transaction() as transaction:  # noqa: PT012
        transaction.record("applied", ORIGIN)
        _terminate(cluster, "query LIKE '%countersign.append%'")


def _terminate(cluster: Cluster, condition: str) -> None:
    """End the backend of `countersign test` once pg_stat_activity says `condition` of it."""
    sql = (
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        f"WHERE application_name = 'countersign test' AND {condition}"
    )
    deadline = time.monotonic() + 20
    while cluster.psql(sql) == "0":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_strongest_lock_on_each_relation_is_told_and_what_is_new_apart(
    cluster: Cluster, database: str, connection: Database
) -> None:
    made = "CREATE TABLE old (a int); CREATE TABLE gone (a int); CREATE TABLE read ();"
    given = "ALTER TABLE old OWNER TO crm_owner; ALTER TABLE gone OWNER TO crm_owner;"
    cluster.psql(f"{made} {given} GRANT SELECT ON read TO crm_owner", database_name(database))
    first = script("sql/1.sql", "ALTER TABLE old ADD b int;", "DROP TABLE gone;")
    second = script("sql/2.sql", "CREATE TABLE made ();", "SELECT FROM read;")

    with connection.transaction() as transaction:
        before = transaction.relations()
        transaction.schema()  # which looks at all relations, and keeps no lock on them
        for one in (first, second):
            transaction.run(*one)
        transaction.schema()
        locks, created = transaction.locks(before)

    assert [(lock.relation, lock.mode) for lock in locks] == [
        ("public.gone", "AccessExclusiveLock"),
        ("public.old", "AccessExclusiveLock"),
        ("public.read", "AccessShareLock"),
    ]
    assert created == ("public.made",)


def test_the_database_says_which_it_is(cluster: Cluster, connection: Database) -> None:
    with connection.transaction() as transaction:
        found = transaction.identity()

    assert found.name == "crm"
    assert found.system == cluster.psql("SELECT system_identifier FROM pg_control_system()")
    assert found.version == cluster.psql("SHOW server_version")


def test_waiting_for_another_install_is_kept_for_the_receipt(
    cluster: Cluster, database: str, connection: Database
) -> None:
    other = psycopg.connect(
        cluster.conninfo(database_name(database), "postgres"), application_name="other install"
    )
    other.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
    release = threading.Timer(0.3, other.close)
    release.start()

    with connection.transaction() as transaction:
        (retry,) = transaction.retries
    release.join()

    assert "another install held the lock: pid" in retry.reason
    assert "other install" in retry.reason
    assert retry.milliseconds > 0


@pytest.mark.parametrize("place", ["trap", "pg_temp"])
def test_what_a_script_puts_before_postgresql_s_own_is_not_called_by_the_login_role(
    cluster: Cluster, database: str, connection: Database, place: str
) -> None:
    """Operators in its search_path, and types, which are looked for among temporary ones first."""
    own = "CREATE SCHEMA trap;\nCREATE TABLE public.ran (who name);\n"
    note = "INSERT INTO public.ran VALUES (current_user)"
    operators = "".join(
        f"CREATE FUNCTION trap.f({kind}, {kind}) RETURNS boolean LANGUAGE sql VOLATILE AS "
        f"$$ {note}; SELECT true $$;\n"
        f"CREATE OPERATOR trap.= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = trap.f);\n"
        for kind in ("oid", "tid")
    )
    text = (
        "CREATE FUNCTION trap.g(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS "
        f"$$ BEGIN {note}; RETURN true; END $$;\n"
        f"CREATE DOMAIN {place}.text AS pg_catalog.text CHECK (trap.g(VALUE));\n"
    )
    path = "SET search_path = trap, pg_catalog, public;\n"
    filler = f"SELECT '{'x' * 40_000}';\n"

    (run,) = apply(connection, script("sql/1.sql", own, operators, text, path, filler, filler))

    assert run.rows == 2
    assert cluster.psql("SELECT count(*) FROM ran", database_name(database)) == "0"
