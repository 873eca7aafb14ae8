import codecs
from collections.abc import Callable
from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast.parser import split

from packager import sqlcheck, sqljudge
from packager.errors import SqlError
from packager.sqlcheck import RUN_SIZE, check_script

STATEMENTS = (
    'CREATE TABLE "Größe;" (id int, "né" text)',
    "INSERT INTO \"Größe;\" VALUES (1, 'é;\n;\n''') , (2, E'\\';\n')",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1;\n SELECT 2;\n END",
    "CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS $ü$ BEGIN\n -- $u$ ';\n END;\n $ü$",
    "DO $$ BEGIN PERFORM 1;\n END $$",
    'CREATE RULE r AS ON DELETE TO "Größe;" DO INSTEAD (SELECT 1;\n SELECT 2;\n)',
    "SELECT 1 -- unfinished;\n + 1",
    "SELECT 1 /* a;\n /* nested; */ b;\n */ + 1",
    "SELECT 'a'\n  'b;\n'",
    "COMMENT ON TABLE \"Größe;\" IS 'COPY t FROM stdin;\n\\.\nCOMMIT;\n'",
    "SELECT 1 AS x\u3000",
)
BETWEEN = (";", ";\n", ";\r\n", " ;;\n;", ";-- é; 'not a string\n", ";\n/* ü /* ; */ ;\n' */\n\t")
BOM = codecs.BOM_UTF8.decode()


INLINE = "COPY FROM STDIN has inline data, which only psql hands to the server"

ENDS, INSIDE, DIVIDES = (
    "ends the release's transaction",
    "begins a transaction inside the release's",
    "divides the release's transaction",
)
ALONE, ROLE = "cannot run inside a transaction", "changes the role that the release runs as"
# The server refuses these too, in a function that belongs to another role.
BY_SERVER = {
    "BEGIN": f"BEGIN {INSIDE}",
    "BEGIN WORK ISOLATION LEVEL SERIALIZABLE": f"BEGIN {INSIDE}",
    "START TRANSACTION": f"START TRANSACTION {INSIDE}",
    "COMMIT": f"COMMIT {ENDS}",
    "COMMIT/**/AND CHAIN": f"COMMIT {ENDS}",
    "END TRANSACTION": f"END {ENDS}",
    "ROLLBACK": f"ROLLBACK {ENDS}",
    "ABORT": f"ABORT {ENDS}",
    "SAVEPOINT commit": f"SAVEPOINT {DIVIDES}",
    "RELEASE x": f"RELEASE {DIVIDES}",
    "ROLLBACK TO x": f"ROLLBACK TO {DIVIDES}",
    "PREPARE TRANSACTION 'x'": f"PREPARE TRANSACTION {ENDS}",
    "COMMIT PREPARED 'x'": f"COMMIT PREPARED {ALONE}",
    "ROLLBACK PREPARED 'x'": f"ROLLBACK PREPARED {ALONE}",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": "SET TRANSACTION changes the",
    "DO $$ BEGIN COMMIT; END $$": f"COMMIT {ENDS}",
    "DO $$ BEGIN ROLLBACK; END $$": f"ROLLBACK {ENDS}",
    "CREATE INDEX CONCURRENTLY i ON t (a)": f"CREATE INDEX CONCURRENTLY {ALONE}",
    "DROP INDEX CONCURRENTLY IF EXISTS i": f"DROP INDEX CONCURRENTLY {ALONE}",
    "REINDEX TABLE CONCURRENTLY t": f"REINDEX CONCURRENTLY {ALONE}",
    "REINDEX (VERBOSE, CONCURRENTLY) TABLE t": f"REINDEX CONCURRENTLY {ALONE}",
    "REINDEX SCHEMA public": f"REINDEX SCHEMA {ALONE}",
    "REINDEX DATABASE postgres": f"REINDEX DATABASE {ALONE}",
    "REINDEX SYSTEM postgres": f"REINDEX SYSTEM {ALONE}",
    "ALTER TABLE r DETACH PARTITION p CONCURRENTLY": f"DETACH PARTITION CONCURRENTLY {ALONE}",
    "VACUUM": f"VACUUM {ALONE}",
    "VACUUM (FULL) t": f"VACUUM {ALONE}",
    "CLUSTER": f"CLUSTER without a table {ALONE}",
    "CREATE DATABASE d": f"CREATE DATABASE {ALONE}",
    "DROP DATABASE IF EXISTS d": f"DROP DATABASE {ALONE}",
    "ALTER DATABASE postgres SET TABLESPACE pg_default": "ALTER DATABASE … SET TABLESPACE",
    "CREATE TABLESPACE x LOCATION '/srv/x'": f"CREATE TABLESPACE {ALONE}",
    "DROP TABLESPACE x": f"DROP TABLESPACE {ALONE}",
    "ALTER SYSTEM SET work_mem = 1": f"ALTER SYSTEM {ALONE}",
    "ALTER SYSTEM RESET ALL": f"ALTER SYSTEM {ALONE}",
    "DISCARD ALL": f"DISCARD ALL {ALONE}",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p": "CREATE SUBSCRIPTION that makes a slot",
    "SELECT 1 INTO x": "SELECT INTO cannot run in a function",
    "(SELECT 1 INTO TEMP x UNION SELECT 2)": "SELECT INTO cannot run in a function",
    "WITH a AS (SELECT 1) SELECT * INTO x FROM a": "SELECT INTO cannot run in a function",
    "COPY t FROM STDIN": INLINE,
    "COPY t (a) FROM STDIN WITH (FORMAT csv)": INLINE,
    "COPY t TO STDOUT": "COPY TO STDOUT has no one to read it",
    "SET ROLE postgres": f"SET ROLE {ROLE}",
    "SET LOCAL ROLE NONE": f"SET ROLE {ROLE}",
    "SET \"role\" = 'postgres'": f"SET ROLE {ROLE}",
    "RESET ROLE": f"RESET ROLE {ROLE}",
    "SET SESSION AUTHORIZATION DEFAULT": f"SET SESSION AUTHORIZATION {ROLE}",
    "RESET SESSION AUTHORIZATION": f"RESET SESSION AUTHORIZATION {ROLE}",
    "SELECT set_config('role', 'postgres', true)": f"set_config('role', …) {ROLE}",
    "SELECT pg_catalog.set_config('session_authorization', 'x', true)": "set_config('session_auth",
}
REFUSED = BY_SERVER | {
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SET SESSION CHARACTERISTICS changes",
    "SET TRANSACTION SNAPSHOT 'x'": "SET TRANSACTION SNAPSHOT changes",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (create_slot)": "CREATE SUBSCRIPTION",
    "ALTER SUBSCRIPTION s REFRESH PUBLICATION": "ALTER SUBSCRIPTION that refreshes it",
    "ALTER SUBSCRIPTION s SET PUBLICATION p": "ALTER SUBSCRIPTION that refreshes it",
    "DROP SUBSCRIPTION s": "DROP SUBSCRIPTION of one that has a slot",
    "COPY t FROM PROGRAM 'gen'": "COPY … PROGRAM runs a program on the database server",
    "COPY t TO PROGRAM 'mail'": "COPY … PROGRAM runs a program on the database server",
    "COPY t FROM '/srv/x.csv'": "COPY FROM a file reads the database server's files",
    "COPY (SELECT 1) TO '/srv/x.csv'": "COPY TO a file writes to the database",
    "SELECT lo_import('/srv/x')": "lo_import() uses the database server's files",
    "INSERT INTO t VALUES (1, pg_catalog.lo_import('/srv/x'))": "lo_import() uses the",
    "UPDATE t SET a = pg_read_binary_file('x')": "pg_read_binary_file() uses the",
    "CREATE TABLE t AS SELECT * FROM pg_ls_dir('.')": "pg_ls_dir() uses the",
    "CALL p(pg_read_file('x'))": "pg_read_file() uses the",
    "EXPLAIN ANALYZE SELECT lo_export(1, '/srv/x')": "lo_export() uses the",
    "SET client_encoding = 'LATIN1'": "client_encoding LATIN1 is not that of the scripts",
    "SET NAMES 'win1252'": "client_encoding win1252 is not that of the scripts",
    **dict.fromkeys(
        [
            "DELETE FROM countersign.ledger",
            "SELECT countersign.append('[]')",
            "CREATE VIEW v AS SELECT * FROM countersign . ledger",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT id FROM countersign.ledger; END",
            "CREATE FUNCTION countersign.run_script() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TABLE IF NOT EXISTS countersign.t ()",
            "CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION countersign.f()",
            "CREATE TABLE t (a countersign.t)",
            "CREATE SCHEMA IF NOT EXISTS countersign",
            "DROP SCHEMA a, countersign CASCADE",
            "ALTER SCHEMA countersign RENAME TO x",
            "ALTER SCHEMA x RENAME TO countersign",
            "ALTER SCHEMA countersign OWNER TO x",
            "ALTER TABLE t SET SCHEMA countersign",
            "ALTER TABLE countersign.ledger DISABLE TRIGGER ALL",
            "ALTER FUNCTION countersign.append(jsonb) OWNER TO x",
            "DROP TABLE t, countersign.ledger",
            "DROP FUNCTION countersign.append",
            "DROP TRIGGER t ON countersign.ledger",
            "COMMENT ON COLUMN countersign.ledger.id IS ''",
            "COMMENT ON SCHEMA countersign IS ''",
            "GRANT USAGE ON SCHEMA countersign TO x",
            "GRANT SELECT ON ALL TABLES IN SCHEMA countersign TO x",
            "REVOKE ALL ON countersign.ledger FROM x",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA countersign GRANT SELECT ON TABLES TO x",
            "CREATE EXTENSION x SCHEMA countersign",
            "SET search_path = public, countersign",
            "LOCK TABLE countersign.ledger",
            "TRUNCATE countersign.ledger",
            "DO $$ BEGIN TRUNCATE countersign.ledger; END $$",
        ],
        "the schema countersign is the ledger's, which no release touches",
    ),
}


def slices(content: bytes) -> list[str]:
    """The script's runs, as a host cuts them."""
    ends = [*check_script("sql/1.sql", content), len(content)]
    return [content[start:end].decode() for start, end in pairwise(ends)]


def refusal(script: str | bytes) -> tuple[str, list[str]]:
    content = script.encode() if isinstance(script, str) else script
    with pytest.raises(SqlError) as caught:
        check_script("sql/1.sql", content)
    assert caught.value.exit_code == 52
    return str(caught.value), caught.value.detail.splitlines()


def test_each_statement_of_a_small_script_is_a_run() -> None:
    script = b"-- what it does\nCREATE TABLE t ();\r\n\n-- next\nSELECT 1;;\nSELECT 2 -- end"
    assert slices(script) == [
        "CREATE TABLE t ();\r\n\n-- next\n",
        "SELECT 1;;\n",
        "SELECT 2 -- end",
    ]


@pytest.mark.parametrize("script", ["", " \r\n\t", ";;", "-- nothing", "/* a /* b */ ; */;", BOM])
def test_a_script_without_statements_has_no_runs(script: str) -> None:
    assert check_script("sql/1.sql", script.encode()) == ()


def test_a_byte_order_mark_is_in_no_run() -> None:
    assert check_script("sql/1.sql", f"{BOM}SELECT 1".encode()) == (3,)


@given(
    parts=st.lists(st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(BETWEEN)), max_size=8),
    first=st.sampled_from(["", BOM, "-- é;\n", " ;\n"]),
    part_size=st.sampled_from([1, 40, 300]),
)
def test_each_run_holds_the_statement_it_begins_with(
    parts: list[tuple[str, str]], first: str, part_size: int
) -> None:
    content = (first + "".join(statement + between for statement, between in parts)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlcheck, "PART_SIZE", part_size)  # parsed in parts, as large scripts are
        runs = slices(content)
    assert len(runs) == len(parts)
    for run, (statement, _) in zip(runs, parts, strict=True):
        assert run.startswith(statement)
        assert len(split(run)) == 1


def test_a_large_script_is_grouped_into_runs_of_whole_statements() -> None:
    row = "INSERT INTO größe VALUES ('größer;', $$;\n$$);\n"
    content = (row * (4 * RUN_SIZE // len(row))).encode()
    runs = slices(content)
    assert "".join(runs).encode() == content
    assert all(RUN_SIZE - 100 < len(run.encode()) <= RUN_SIZE for run in runs[:-1])
    assert all(run.startswith("INSERT") for run in runs)


def test_a_statement_larger_than_a_run_is_a_run_by_itself() -> None:
    large = f"SELECT '{'x' * RUN_SIZE}';\n"
    assert slices(f"SELECT 1;\nSELECT 2;\n{large}SELECT 3;".encode()) == [
        "SELECT 1;\nSELECT 2;\n",
        large,
        "SELECT 3;",
    ]


def test_runs_that_fill_their_size_exactly_are_not_cut() -> None:
    statement = f"SELECT '{'x' * (RUN_SIZE // 2 - 11)}';\n"
    assert len(statement) * 2 == RUN_SIZE
    assert check_script("sql/1.sql", (statement * 4).encode()) == (0, RUN_SIZE)


@pytest.mark.parametrize(
    "script, message, caret",
    [
        ("SELECT 1;\nSELEC 2;", '2:1: syntax error at or near "SELEC"', "SELEC 2;"),
        ("SELECT 'é', 漢 漢 x;\r\n", '1:17: syntax error at or near "x"', "x;"),
        ("SELECT $$;$$, x y z;", '1:19: syntax error at or near "z"', "z;"),
        ("SELECT 'e\u0301' x y;", '1:15: syntax error at or near "y"', "y;"),
        ("\tSELECT a b c;", '1:13: syntax error at or near "c"', "c;"),
        (BOM + "SELEC", '1:1: syntax error at or near "SELEC"', "SELEC"),
        ("SELECT 1 FROM\n\n", "1:14: syntax error at end of input", ""),
        ("SELECT 'x\n;\n", "1:8: unterminated quoted string at or near \"'x", "'x"),
        ("/* a", '1:1: unterminated /* comment at or near "/* a"', "/* a"),
    ],
)
def test_a_syntax_error_has_line_column_and_caret(script: str, message: str, caret: str) -> None:
    said, (source, pointer) = refusal(script)
    assert said == f"sql/1.sql:{message}"
    # A terminal gives two columns to 漢, and none to a combining accent.
    assert source[pointer.index("^") - source.count("漢") + source.count("\u0301") :] == caret
    assert source[:7].strip() == f"{message.partition(':')[0]} |"


def test_the_caret_of_a_long_line_is_in_sight() -> None:
    _, (source, pointer) = refusal(f"SELECT '{'x' * 5000}' a b;")
    assert len(source) < 160
    assert source[pointer.index("^") :] == "b;"


def test_what_looks_like_a_copy_before_a_syntax_error_does_not_hide_it() -> None:
    said, _ = refusal("SELECT 'COPY t FROM stdin;\n'; -- from stdin;\nSELECT 1;\nSELEC 2;")
    assert said == 'sql/1.sql:4:1: syntax error at or near "SELEC"'


def test_a_message_does_not_quote_the_rest_of_the_script() -> None:
    said, _ = refusal("SELECT 'x" + "y" * 5000)
    assert len(said) < 200
    assert said.endswith("y…")


def test_an_excerpt_cannot_drive_a_terminal() -> None:
    assert "\x1b" not in "".join(refusal("SELECT '\x1b[31m' a b;")[1])


def test_an_error_late_in_a_large_script_has_its_own_line() -> None:
    row = "INSERT INTO größe VALUES (1);\n"
    count = 2 * sqlcheck.PART_SIZE // len(row)
    said, _ = refusal(row * count + "INSERT INTO;\n" + row * count)
    assert said == f'sql/1.sql:{count + 1}:12: syntax error at or near ";"'


@pytest.mark.parametrize(
    "script, line, command, way_out",
    [
        ("\\set ON_ERROR_STOP on\nSELECT 1;", 1, "\\set", "Leave the line out"),
        ("SELECT 1;\n  \\i other.sql\n", 2, "\\i", "a script of the release"),
        ("SELECT 1 \\gexec\n", 1, "\\gexec", "End the statement with `;`"),
        ("\\echo 'it''s'", 1, "\\echo", "Leave the line out"),
        ("\\copy t from 'x.csv'", 1, "\\copy", "INSERT"),
        ("\\! rm -rf /\n", 1, "\\!", "No program runs"),
        ("\\connect other\r\nSELECT 1;\r\n", 1, "\\connect", "the host file says"),
    ],
)
def test_a_command_of_psql_is_called_that(
    script: str, line: int, command: str, way_out: str
) -> None:
    said, detail = refusal(script)
    assert said == f"sql/1.sql:{line}: {command} is a command of psql, not SQL for the server"
    assert way_out in detail[0]


def test_what_keeps_psql_s_commands_out_of_a_restore_is_named() -> None:
    said, detail = refusal("--\n\\restrict aB1\n\nSELECT 1;\n\n\\unrestrict aB1\n")
    assert said == "sql/1.sql: 2 problems"
    assert detail == [
        "  sql/1.sql:2: \\restrict is a command of psql, not SQL for the server",
        "  sql/1.sql:6: \\unrestrict is a command of psql, not SQL for the server",
        "    pg_dump writes \\restrict and \\unrestrict for psql; leave out both lines.",
    ]


@pytest.mark.parametrize(
    "data",
    [
        "1\tO'Brien\n\\.\n",
        "\\.\n",
        "",
        "-5\tx\n",
        "\\N\t1\n",
        "select\t1\nx y\n\\.\n",
        "1;2\t'\n;x",
    ],
)
def test_inline_copy_data_is_called_that(data: str) -> None:
    said, detail = refusal(f"CREATE TABLE t ();\n-- data;\ncopy t (a)\n  FROM stdin;\n{data}")
    assert said == f"sql/1.sql:3: {INLINE}"
    assert detail == ["  Write the rows as INSERT, or build the table in the script."]


def test_a_dump_with_many_tables_is_told_at_once() -> None:
    rows = "".join(f"{number}\tO'Brien; \\N\n" for number in range(40_000))
    table = f"COPY public.t (id, name) FROM stdin;\n{rows}\\.\n\n"
    said, detail = refusal("CREATE TABLE t ();\n" + table * 3 + "COMMIT;\n")
    assert said == "sql/1.sql: 4 problems"
    lines = [2 + number * 40_003 for number in range(4)]
    assert [int(line.split(":")[1]) for line in detail if "sql/1.sql:" in line] == lines


@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("statement, words", REFUSED.items())
def test_what_no_release_can_run_is_refused_with_its_line(
    statement: str, words: str, case: Callable[[str], str]
) -> None:
    before = "-- COMMIT;\nSELECT 'VACUUM;', $$\nCOMMIT;\n$$; /* ROLLBACK;\n*/ "
    said, detail = refusal(f"{before}{case(statement)};\nSELECT 1;\n")
    assert said.lower().startswith(f"sql/1.sql:5: {words}".lower())
    assert len(detail) == 1
    assert detail[0].endswith(".")


@pytest.mark.parametrize(
    "script, line, words",
    [
        ("SELECT 1,\n  pg_read_file('x');", 2, "pg_read_file() uses"),
        ("UPDATE t SET a = 1 FROM\n\ncountersign.ledger;", 3, "the schema countersign"),
        ("DO $$\nBEGIN\n  COMMIT AND CHAIN;\nEND\n$$;", 3, "COMMIT ends"),
        (
            "DO $$ BEGIN\n LOOP IF a THEN\n ROLLBACK;\n END IF; END LOOP; END $$;",
            3,
            "ROLLBACK ends",
        ),
        ("DO LANGUAGE plpgsql\n'BEGIN\nSAVEPOINT x; END';", 3, "SAVEPOINT divides"),
        ("DO $$ BEGIN\nPERFORM 1,\nlo_import('x'); END $$;", 3, "lo_import() uses"),
        ("DO $$ BEGIN\nCREATE INDEX CONCURRENTLY i ON t (a); END $$;", 2, "CREATE INDEX CONC"),
        ("DO $$ BEGIN\n\nNULL; EXCEPTION WHEN others THEN\nABORT; END $$;", 4, "ABORT ends"),
        ("CREATE SCHEMA s\n CREATE INDEX CONCURRENTLY i ON t (a);", 1, "CREATE INDEX CONC"),
        ("\r\nCOMMIT;\r\n", 2, "COMMIT ends"),
        (BOM + "\ncommit", 2, "COMMIT ends"),
    ],
)
def test_an_offence_inside_a_statement_has_its_own_line(script: str, line: int, words: str) -> None:
    assert refusal(script)[0].startswith(f"sql/1.sql:{line}: {words}")


def test_all_that_is_wrong_with_a_script_is_told_in_order() -> None:
    said, detail = refusal(
        "BEGIN;\nCREATE TABLE t ();\nCOMMIT;\n\\i x.sql\nCOPY t FROM stdin;\n1\n\\.\n"
        "SELECT lo_import('a'),\n countersign.f();\nSELECT 1 \\gset\nVACUUM;\nSELECT a b c;\nEND;\n"
    )
    assert said == "sql/1.sql: 9 problems"
    assert [line.split(":")[1:] for line in detail if line.startswith("  sql/1.sql:")] == [
        ["1", " BEGIN begins a transaction inside the release's"],
        ["3", " COMMIT ends the release's transaction"],
        ["4", " \\i is a command of psql, not SQL for the server"],
        ["5", f" {INLINE}"],
        ["8", " lo_import() uses the database server's files, which no release carries"],
        ["9", " the schema countersign is the ledger's, which no release touches"],
        ["10", " \\gset is a command of psql, not SQL for the server"],
        ["11", " VACUUM cannot run inside a transaction"],
        ["12", "12", ' syntax error at or near "c"'],
    ]
    assert detail[-1].index("^") == detail[-2].index("c;")


def test_a_way_out_is_told_once_for_those_that_share_it() -> None:
    _, detail = refusal("BEGIN;\nCOMMIT;\n" * 20)
    assert len(detail) == 41


@pytest.mark.parametrize(
    "script",
    [
        'SELECT "commit", rollback.begin FROM "vacuum" AS rollback;',
        'CREATE TABLE "COMMIT" (savepoint int, "end" int);',
        "COMMENT ON TABLE t IS 'COMMIT; \\i x; VACUUM; countersign.ledger';",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN EXECUTE $$ VACUUM $$; $f$;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM countersign.f(); END';",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET role = x AS 'SELECT lo_import(''x'')';",
        "CREATE FUNCTION f() RETURNS oid LANGUAGE sql BEGIN ATOMIC SELECT lo_import('x'); END;",
        "CREATE VIEW v AS SELECT pg_read_file('x');",
        "CALL p();",
        "DO LANGUAGE plpython3u $$ COMMIT $$;",
        "DO $$ BEGIN EXECUTE 'CREATE TABLE commit ()'; RAISE NOTICE 'COMMIT;'; END $$;",
        "DO $$ DECLARE n int; BEGIN SELECT 1 INTO n; END $$;",
        "DO $$ DECLARE x no.such_type; BEGIN x := 1; END $$;",
        "ALTER TYPE t ADD VALUE 'x';",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
        "REINDEX TABLE t; REINDEX (CONCURRENTLY false) INDEX i; CLUSTER t; ANALYZE; ANALYZE t;",
        'ALTER TABLE t DETACH PARTITION p; DROP INDEX i; CREATE INDEX ON t ("concurrently");',
        "ALTER DATABASE d SET lock_timeout = '1s'; ALTER DATABASE d CONNECTION LIMIT 1;",
        "ALTER ROLE r SET role = x; ALTER ROLE r NOSUPERUSER;",
        "CREATE TABLE t () TABLESPACE x; ALTER TABLE t SET TABLESPACE x;",
        "DISCARD TEMP; RESET ALL; SET search_path = a; SET LOCAL lock_timeout = 0;",
        "SELECT set_config('search_path', '', false); SELECT app.set_config('role', 'x', true);",
        "SELECT app.lo_import('x'); SELECT set_config(role, 'x', true) FROM t;",
        "SET client_encoding = 'UTF8'; SET NAMES 'utf-8'; RESET client_encoding;",
        "CREATE TABLE t AS SELECT 1; INSERT INTO t SELECT 1; WITH a AS (SELECT 1) SELECT 1;",
        "PREPARE q AS SELECT 1; EXECUTE q; LOCK TABLE t; SET CONSTRAINTS ALL DEFERRED;",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (create_slot = false);",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = off);",
        "ALTER SUBSCRIPTION s ADD PUBLICATION p WITH (refresh = false);",
        "ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s;",
        "GRANT SELECT ON t TO countersign; ALTER TABLE t OWNER TO countersign;",
        "SELECT countersign.id FROM public.countersign; COMMENT ON COLUMN countersign.id IS '';",
        "DROP TRIGGER x ON countersign; CREATE TABLE countersign (); CREATE ROLE countersign;",
        "CREATE SEQUENCE s OWNED BY countersign.id;",
        f"CREATE VIEW v AS SELECT {'+'.join(['1'] * (sqljudge.LONGEST // 2 - 20))}, 'countersign';",
        f"COPY t FROM 'x' WHERE a = {'+'.join(['1'] * 50_000)};",
    ],
)
def test_what_a_release_may_run_is_not_refused(script: str) -> None:
    assert check_script("sql/1.sql", script.encode())


def test_a_subscription_that_keeps_its_slot_is_told_from_one_that_gave_it_up() -> None:
    said, detail = refusal("ALTER SUBSCRIPTION a SET (slot_name = NONE);\nDROP SUBSCRIPTION b;")
    assert said.startswith("sql/1.sql:2: DROP SUBSCRIPTION")
    assert "SET (slot_name = NONE)" in detail[0]


@pytest.mark.parametrize(
    "content, line, words",
    [
        ("SELECT 1;\n-- Größe".encode("latin-1"), 2, "not UTF-8: byte 16 of the file is 0xf6"),
        (b"SELECT 1;\nSELECT '\0'", 2, "a NUL byte, which PostgreSQL does not accept"),
        ("SELECT 1;".encode("utf-16"), 1, "it is UTF-16, not UTF-8"),
        (codecs.BOM_UTF16_BE + "SELECT 1;".encode("utf-16-be"), 1, "it is UTF-16, not UTF-8"),
        ("SELECT 1;".encode("utf-32"), 1, "it is UTF-32, not UTF-8"),
        (f"SELECT 1;\n{BOM}SELECT 2;".encode(), 2, "a byte order mark inside the script"),
    ],
)
def test_another_encoding_is_refused_by_name_with_its_line(
    content: bytes, line: int, words: str
) -> None:
    said, detail = refusal(content)
    assert said == f"sql/1.sql:{line}: {words}"
    assert len(detail) == 1


def test_line_ends_of_windows_are_in_the_runs_as_they_were_signed() -> None:
    assert slices(b"SELECT 'a\r\nb';\r\nSELECT 2;\r\n") == ["SELECT 'a\r\nb';\r\n", "SELECT 2;\r\n"]


def test_depth_beyond_the_parser_is_refused_and_not_a_crash() -> None:
    assert "memory exhausted" in refusal("SELECT " + "(" * 100_000)[0]


@pytest.mark.integration
@pytest.mark.parametrize("run_size", [0, 200, RUN_SIZE])
def test_a_server_executes_each_run_as_it_is_cut(
    database: str, run_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlcheck, "RUN_SIZE", run_size)
    content = f"{BOM}-- é;\n{BETWEEN[-1].join(STATEMENTS)}; -- end;\n/* ; */".encode()
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.run_script(s text) RETURNS void LANGUAGE plpgsql "
            "AS $$ BEGIN EXECUTE s; END $$"
        )
        for run in slices(content):
            connection.execute("SELECT pg_temp.run_script(%s)", [run])
        found = connection.execute('SELECT "né" FROM "Größe;" ORDER BY id').fetchall()
    assert found == [("é;\n;\n'",), ("';\n",)]


@pytest.mark.integration
def test_the_server_refuses_what_the_build_says_that_it_does(database: str) -> None:
    refusals = (
        psycopg.errors.ActiveSqlTransaction,
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.InvalidTransactionTermination,
    )
    ran = []
    with psycopg.connect(database, user="postgres", autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (a int); CREATE TABLE r (a int) PARTITION BY LIST (a);"
            "CREATE TABLE p PARTITION OF r FOR VALUES IN (1);"
            "CREATE FUNCTION pg_temp.run_script(s text) RETURNS void LANGUAGE plpgsql "
            "SECURITY DEFINER AS $$ BEGIN EXECUTE s; END $$"
        )
        for statement in BY_SERVER:
            try:
                connection.execute("SELECT pg_temp.run_script(%s)", [statement])
            except refusals:
                continue
            ran.append(statement)
    assert ran == []
