"""What the server refuses of the installer itself: its ledger, a COMMIT, a look at a lock."""

from collections.abc import Iterator

import psycopg
import pytest

from installer import database as database_module
from installer.database import Database, connect
from installer.errors import DatabaseUnavailableError, LockTimeoutError, ScriptFailedError
from installer.session import ServerError
from installer.tree import Digest
from tests.cluster import Cluster
from tests.integration.test_database import apply, database_name, script, target

pytestmark = pytest.mark.integration

FAILS_AT_COMMIT = """
CREATE TABLE a (i int PRIMARY KEY);
CREATE TABLE b (i int REFERENCES a DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO b VALUES (1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION late();
INSERT INTO a VALUES (2);
"""


@pytest.fixture
def connection(cluster: Cluster, database: str) -> Iterator[Database]:
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    with connect(target(database), "test") as opened:
        yield opened


def test_a_ledger_that_cannot_be_made_is_refused_with_the_server_s_words(
    cluster: Cluster, database: str, connection: Database
) -> None:
    name = database_name(database)
    cluster.psql("CREATE SCHEMA countersign AUTHORIZATION countersign", name)
    cluster.psql("CREATE DOMAIN countersign.ledger AS int", name)

    with pytest.raises(DatabaseUnavailableError, match='type "ledger" already exists'):
        apply(connection, script("sql/1.sql", "CREATE TABLE a ();"))

    assert cluster.psql("SELECT to_regclass('a') IS NULL", name) == "t"
    assert connection.state("crm").applied == {}


def test_a_release_that_the_server_does_not_commit_is_not_there(
    cluster: Cluster, database: str, connection: Database
) -> None:
    with pytest.raises(ScriptFailedError, match="the server refused to commit: "):
        apply(connection, script("sql/1.sql", FAILS_AT_COMMIT))

    assert cluster.psql("SELECT to_regclass('a') IS NULL", database_name(database)) == "t"
    assert connection.state("crm").applied == {}


def test_where_nobody_may_look_who_holds_the_lock_that_is_said(
    cluster: Cluster, database: str, connection: Database
) -> None:
    name = database_name(database)
    cluster.psql("CREATE TABLE a (); ALTER TABLE a OWNER TO crm_owner", name)
    cluster.psql("ALTER ROLE countersign CONNECTION LIMIT 1")
    try:
        with psycopg.connect(cluster.conninfo(name, "postgres")) as other:
            other.execute("LOCK TABLE a")
            with (
                pytest.raises(LockTimeoutError) as refused,
                connection.transaction(watched=True) as transaction,
            ):
                transaction.run(*script("sql/1.sql", "ALTER TABLE a ADD i int;"))
    finally:
        cluster.psql("ALTER ROLE countersign CONNECTION LIMIT -1")

    assert refused.value.held[0].startswith("held by a session that cannot be seen: ")
    assert connection.state("crm").applied == {}


def test_a_session_whose_server_is_gone_is_left_and_the_next_statement_tells(
    cluster: Cluster, connection: Database
) -> None:
    cluster.psql(f"SELECT pg_terminate_backend({connection._session.pid})")

    for _ in range(2):  # when it is found out, and when it is known
        connection._session.leave_role()

    with pytest.raises(DatabaseUnavailableError, match="the ledger"):
        connection.state("crm")


def test_a_role_that_cannot_be_left_is_not_passed_over(connection: Database) -> None:
    connection._session.execute(b"BEGIN")
    with pytest.raises(ServerError):
        connection._session.execute(b"SELECT 1 / 0")

    with pytest.raises(ServerError, match="current transaction is aborted"):
        connection._session.leave_role()

    connection._session.rollback()
    connection._session.leave_role()


def test_what_an_edited_online_script_has_done_before_it_was_edited_counts_nothing() -> None:
    old, new = Digest("a" * 64), Digest("b" * 64)
    rows = [("sql/1.sql", old, 1, "applied"), ("sql/1.sql", new, 2, "started")]

    (progress,) = database_module._progress(rows).values()

    assert (progress.digest, progress.statements) == (new, {2: "started"})
