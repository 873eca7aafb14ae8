import codecs
from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast.parser import split

from packager import sqlcheck
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
    "COPY \"Größe;\" FROM '/srv/data.csv'",
    "SELECT 1 AS x\u3000",
)
BETWEEN = (";", ";\n", ";\r\n", " ;;\n;", ";-- é; 'not a string\n", ";\n/* ü /* ; */ ;\n' */\n\t")
BOM = codecs.BOM_UTF8.decode()


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
    "script, where, command",
    [
        ("\\set ON_ERROR_STOP on\nSELECT 1;", "1:1", "\\set"),
        ("SELECT 1;\n  \\i other.sql\n", "2:3", "\\i"),
        ("SELECT 1 \\gexec\n", "1:10", "\\gexec"),
        ("\\echo 'it''s'", "1:1", "\\echo"),
        ("\\copy t from 'x.csv'", "1:1", "\\copy"),
    ],
)
def test_a_command_of_psql_is_called_that(script: str, where: str, command: str) -> None:
    said, _ = refusal(script)
    assert said == f"sql/1.sql:{where}: {command} is a command of psql, not SQL for the server"


@pytest.mark.parametrize(
    "data", ["1\tO'Brien\n\\.\n", "\\.\n", "", "-5\tx\n", "\\N\t1\n", "select\t1\nx y\n\\.\n"]
)
def test_inline_copy_data_is_called_that(data: str) -> None:
    said, (source, _) = refusal(f"CREATE TABLE t ();\n-- data;\ncopy t (a)\n  FROM stdin;\n{data}")
    assert said.startswith("sql/1.sql:3:1: inline COPY data is not supported; use INSERT")
    assert source.endswith("copy t (a)")


def test_copy_to_a_client_that_is_not_there_is_refused() -> None:
    assert "1:11: COPY TO STDOUT" in refusal("SELECT 1; COPY t TO STDOUT;")[0]


@pytest.mark.parametrize("script", ["COPY t FROM '/srv/x.csv';", "COPY t FROM PROGRAM 'gen';"])
def test_copy_on_the_server_is_for_the_server_to_judge(script: str) -> None:
    assert check_script("sql/1.sql", script.encode()) == (0,)


@pytest.mark.parametrize("script", ["BEGIN; COMMIT;", "SAVEPOINT x; ROLLBACK TO x;"])
def test_transaction_control_is_for_the_server_to_refuse(script: str) -> None:
    assert len(check_script("sql/1.sql", script.encode())) == 2


def test_another_encoding_is_refused_with_line_and_column() -> None:
    said, _ = refusal("SELECT 1;\n-- Größe".encode("latin-1"))
    assert said == "sql/1.sql:2:6: byte 0xf6 is not UTF-8"


def test_nul_is_refused_with_line_and_column() -> None:
    said, _ = refusal("SELECT 1;\nSELECT '\0'")
    assert said == "sql/1.sql:2:9: a NUL byte, which PostgreSQL does not accept"


def test_depth_beyond_the_parser_is_refused_and_not_a_crash() -> None:
    assert "memory exhausted" in refusal("SELECT " + "(" * 100_000)[0]


@pytest.mark.integration
@pytest.mark.parametrize("run_size", [0, 200, RUN_SIZE])
def test_a_server_executes_each_run_as_it_is_cut(
    database: str, run_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlcheck, "RUN_SIZE", run_size)
    statements = [statement for statement in STATEMENTS if not statement.startswith("COPY")]
    content = f"{BOM}-- é;\n{BETWEEN[-1].join(statements)}; -- end;\n/* ; */".encode()
    with psycopg.connect(database) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.run_script(s text) RETURNS void LANGUAGE plpgsql "
            "AS $$ BEGIN EXECUTE s; END $$"
        )
        for run in slices(content):
            connection.execute("SELECT pg_temp.run_script(%s)", [run])
        found = connection.execute('SELECT "né" FROM "Größe;" ORDER BY id').fetchall()
    assert found == [("é;\n;\n'",), ("';\n",)]
