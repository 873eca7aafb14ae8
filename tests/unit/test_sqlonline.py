"""Scripts that are declared online: what they may hold, and how a host runs them."""

from collections.abc import Callable

import pytest

from installer.manifest import AFTER, BEFORE, ConcurrentIndex, Online
from packager import sqlrules
from packager.errors import SqlError
from packager.sqlcheck import RUN_SIZE, Cuts, check_script
from packager.sqlrules import ONE_STATEMENT
from tests.refused import REFUSED


def refusal(script: str) -> list[str]:
    """What is told of a script that is part of the release's transaction."""
    with pytest.raises(SqlError) as caught:
        check_script("sql/1.sql", script.encode())
    return [str(caught.value), *caught.value.detail.splitlines()]


def declared(script: str, *, repeat: bool = False) -> Cuts:
    """The cuts of a script that is online."""
    online = Online(AFTER, repeat, ())
    return check_script("sql/1.sql", script.encode(), online=online)


def refused_online(script: str, *, repeat: bool = False) -> tuple[str, list[str]]:
    with pytest.raises(SqlError) as caught:
        declared(script, repeat=repeat)
    return str(caught.value), caught.value.detail.splitlines()


def test_each_statement_of_an_online_script_is_a_run_whatever_its_size() -> None:
    row = "UPDATE t SET a = 'größer;' WHERE a IS NULL;\n"
    cuts = declared(row * (2 * RUN_SIZE // len(row)))
    assert len(cuts.runs) == 2 * RUN_SIZE // len(row)
    assert cuts.online == Online(AFTER, repeat=False, indexes=())


def test_the_indexes_of_an_online_script_are_named() -> None:
    cuts = declared(
        "SET lock_timeout = '1s';\n"
        "CREATE INDEX CONCURRENTLY i ON t (a);\n"
        'create unique index\n concurrently if not exists "I""x" ON ONLY S.t (a);\n'
        "VACUUM (ANALYZE) t;\n"
        "DROP INDEX CONCURRENTLY i;\n"
        'DROP INDEX CONCURRENTLY IF EXISTS S."I";\n'
        "CREATE INDEX j ON t (a);\n"
        "DROP INDEX j, k;\n"
        "ALTER TYPE e ADD VALUE 'x';\n"
    )
    assert len(cuts.runs) == 9
    assert cuts.online
    assert cuts.online.indexes == (
        ConcurrentIndex(1, "create", '"i"'),
        ConcurrentIndex(2, "create", '"s"."I""x"'),
        ConcurrentIndex(4, "drop", '"i"'),
        ConcurrentIndex(5, "drop", '"s"."I"'),
    )


MAY_BE_ONLINE = ("CREATE INDEX CONCURRENTLY", "DROP INDEX CONCURRENTLY", "VACUUM")


@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize(
    "statement, words", [(s, w) for s, w in REFUSED.items() if not s.startswith(MAY_BE_ONLINE)]
)
def test_what_no_release_can_run_no_online_script_can(
    statement: str, words: str, case: Callable[[str], str]
) -> None:
    words = words.replace("the release's", "the statement's")
    if statement.startswith("COPY") and "FROM STDIN" in statement:
        words = "COPY FROM STDIN has rows behind it, which no online"
    said, detail = refused_online(f"SELECT 1;\n{case(statement)};\n")
    assert "2: " + words.lower() in "\n".join([said, *detail]).lower()
    assert "release is one transaction" not in "\n".join(detail)


@pytest.mark.parametrize(
    "script, line, words, way_out",
    [
        ("BEGIN;", 1, "BEGIN begins a transaction inside the statement's", ONE_STATEMENT),
        ("COMMIT;", 1, "COMMIT ends the statement's transaction", ONE_STATEMENT),
        (
            "DO $$ BEGIN\nCOMMIT; END $$;",
            2,
            "COMMIT ends the statement's transaction",
            ONE_STATEMENT,
        ),
        ("REINDEX INDEX CONCURRENTLY i;", 1, "REINDEX CONCURRENTLY cannot", "make a new index"),
        (
            "ALTER TABLE r DETACH PARTITION p CONCURRENTLY;",
            1,
            "DETACH PARTITION CONCURRENTLY cannot run",
            "Leave CONCURRENTLY out",
        ),
        (
            "COPY t (a) FROM stdin;\n1\n\\.\n",
            1,
            "COPY FROM STDIN has rows behind it, which no online script can have",
            "a script that is not online",
        ),
        ("\\restrict a\nVACUUM;", 1, "a line for psql, which an online script", "Leave the line"),
        ("CREATE INDEX CONCURRENTLY ON t (a);", 1, "does not name the index", "Name the index, so"),
        ("DROP INDEX CONCURRENTLY i, j;", 1, "of several indexes", "in a statement of its own"),
        ("CREATE /* c */ INDEX CONCURRENTLY i ON t (a);", 1, "a comment among the first", "before"),
        (
            "DROP INDEX -- c\n CONCURRENTLY i;",
            1,
            "a comment among the first words",
            "before the st",
        ),
        (
            "DO $$ BEGIN\nCREATE INDEX CONCURRENTLY i ON t (a); END $$;",
            2,
            "CREATE INDEX CONCURRENTLY cannot run inside a transaction",
            "Write it as a statement by itself",
        ),
        (
            f"SELECT 1;\nINSERT INTO t VALUES ('{'x' * sqlrules.LONGEST}');",
            2,
            "a statement of more than 32768 characters",
            "Divide it",
        ),
    ],
)
def test_what_an_online_script_cannot_hold_is_refused_with_the_way_out(
    script: str, line: int, words: str, way_out: str
) -> None:
    said, (detail,) = refused_online(script)
    assert said.startswith(f"sql/1.sql:{line}: ")
    assert words in said
    assert way_out in detail


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET a = 1 WHERE id IN (SELECT id FROM t WHERE a IS NULL LIMIT 1000);",
        "WITH gone AS (DELETE FROM t WHERE a = 1 RETURNING *) INSERT INTO u SELECT * FROM gone;",
        "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 1000);",
        "MERGE INTO t USING u ON t.id = u.id WHEN NOT MATCHED THEN INSERT VALUES (1);",
    ],
)
def test_a_statement_that_processes_rows_may_be_repeated(statement: str) -> None:
    cuts = declared(f"SET LOCAL lock_timeout = '1s';\nRESET work_mem;\n{statement}", repeat=True)
    assert cuts.online == Online(AFTER, repeat=True, indexes=())


@pytest.mark.parametrize(
    "statement",
    ["SELECT f()", "VACUUM t", "DO $$ BEGIN END $$", "ALTER TABLE t ADD a int", "CALL p()"],
)
def test_a_statement_that_never_processes_no_row_is_not_repeated(statement: str) -> None:
    said, (detail,) = refused_online(f"UPDATE t SET a = 1;\n{statement};", repeat=True)
    assert said.startswith(f"sql/1.sql:2: {statement.split(maxsplit=1)[0]} in a script with repeat")
    assert "Leave repeat out" in detail


def test_what_could_be_online_is_told_how_to_be_declared() -> None:
    said, *detail = refusal(
        "SET lock_timeout = 0;\nCREATE INDEX CONCURRENTLY i ON t (a);\nVACUUM t;"
    )
    assert said == "sql/1.sql: 2 problems"
    assert detail == [
        "  sql/1.sql:2: CREATE INDEX CONCURRENTLY cannot run inside a transaction",
        "  sql/1.sql:3: VACUUM cannot run inside a transaction",
        "    Declare the script online in release.toml; it is then no part of the transaction:",
        "    [[database.online]]",
        '    script = "sql/1.sql"',
        '    when = "after"',
    ]


@pytest.mark.parametrize(
    "other",
    [
        "CREATE TABLE t ();",
        "BEGIN;",
        "COPY t (a) FROM stdin;\n1\n\\.\n",
        f"SELECT '{'x' * 40_000}';",
    ],
)
def test_what_could_be_online_is_told_to_leave_the_other_statements(other: str) -> None:
    _, *detail = refusal(f"CREATE INDEX CONCURRENTLY i ON t (a);\n{other}")
    way_out = "Put it into a script of its own, and declare that online in release.toml"
    assert way_out in "\n".join(detail)
    assert 'script = "' not in "\n".join(detail)


def test_a_script_that_runs_nowhere_any_more_stays_online_as_it_is() -> None:
    script = b"BEGIN;\nCREATE INDEX CONCURRENTLY i ON t (a);\nCOPY t FROM stdin;\n1\n\\.\nSELECT 1;"
    online = Online(BEFORE, repeat=True, indexes=())
    cuts = check_script("sql/1.sql", script, runs=False, online=online)
    index = ConcurrentIndex(1, "create", '"i"')
    assert cuts == Cuts((0, 7, 45, 69), (), Online(BEFORE, repeat=True, indexes=(index,)))
