import codecs
from collections.abc import Callable
from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast.parser import split

from installer.manifest import Copy, Gap
from packager import sqlcheck, sqlcopy, sqlparts, sqlrules
from packager.errors import SqlError
from packager.sqlcheck import RUN_SIZE, Cuts, check_script
from tests.refused import BY_SERVER, NO_END, REFUSED

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
ROWS = (
    "1\tO'Brien\n",
    "",
    "\\N\t1\n",
    "select\t1\nx y\n",
    "select 1;\nCOMMIT;\n",
    "1;2\t'\n;x\n",
    "copy t (a) from stdin;\n1\n",
    "$$\t\\\\.\n\\.x\n \\.\n",
    "/* \t--\n",
    "\\restrict a\nBEGIN;\n",
    "漢\té\n",
    "\n\n",
)
BLANKS = st.sampled_from(["", "\n", "-- é; 'not a string\n", "/* ü /* ; */\n */\n", " ;\n"])
BOM = codecs.BOM_UTF8.decode()


def slices(content: bytes) -> list[str]:
    """The script's runs, as a host cuts them."""
    ends = [*check_script("sql/1.sql", content).runs, len(content)]
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
    assert check_script("sql/1.sql", script.encode()) == Cuts(())


def test_a_byte_order_mark_is_in_no_run() -> None:
    assert check_script("sql/1.sql", f"{BOM}SELECT 1".encode()) == Cuts((3,))


COPIES = ('COPY "Größe;" (id, "né") FROM stdin', "copy t(a) FROM /* ; */ STDIN (NULL ';')")
PIECES = st.one_of(
    st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(BETWEEN)),
    st.tuples(
        st.sampled_from(COPIES), st.builds(";\n{}\\.\n{}".format, st.sampled_from(ROWS), BLANKS)
    ),
    st.tuples(st.just("\\restrict x1\n"), BLANKS),
)


def covered(content: bytes, cuts: Cuts) -> tuple[list[bytes], bytes]:
    """The runs of a script as a host takes them, and what is in neither a run nor a gap."""
    ends = sorted([*cuts.runs, *(gap.start for gap in cuts.gaps), len(content)])
    runs = [content[start : min(end for end in ends if end > start)] for start in cuts.runs]
    taken = sorted(
        [(gap.start, gap.end) for gap in cuts.gaps]
        + [(start, start + len(run)) for start, run in zip(cuts.runs, runs, strict=True)]
    )
    places = [(0, 0), *taken, (len(content), len(content))]
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    return runs, b"\n".join(content[a[1] : b[0]] for a, b in pairwise(places))


@given(
    pieces=st.lists(PIECES, max_size=8),
    first=st.sampled_from(["", BOM, "-- é;\n", " ;\n"]),
    part_size=st.sampled_from([1, 40, 300]),
)
def test_runs_and_gaps_are_all_of_a_script_but_comments(
    pieces: list[tuple[str, str]], first: str, part_size: int
) -> None:
    content, begun = first.encode(), []
    for number, (piece, behind) in enumerate(pieces):
        if piece.startswith("\\") and not content.endswith(b"\n"):
            content += b"\n" if number else b"\n" * bool(content.removeprefix(BOM.encode()))
        begun += [(len(content), piece)]
        content += f"{piece}{behind}".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlparts, "PART_SIZE", part_size)  # parsed in parts, as large scripts are
        cuts = check_script("sql/1.sql", content)
    assert list(cuts.runs) == [start for start, piece in begun if not piece.startswith("\\")]
    assert len(cuts.gaps) == sum(piece.startswith("\\") or piece in COPIES for _, piece in begun)
    runs, rest = covered(content, cuts)
    assert all(len(split(run.decode())) == 1 for run in runs)
    assert split(rest.decode().removeprefix(BOM)) == ()
    for gap in cuts.gaps:
        after = gap.copy.size if gap.copy else 0
        assert content[gap.start + after : gap.end] in {b"\\.\n", b"\\restrict x1\n"}


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
    assert check_script("sql/1.sql", (statement * 4).encode()) == Cuts((0, RUN_SIZE))


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
    count = 2 * sqlparts.PART_SIZE // len(row)
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
        ("SELECT 1;\n\\.\n", 2, "\\.", "ends the rows of a COPY"),
        ("\\connect other\r\nSELECT 1;\r\n", 1, "\\connect", "the host file says"),
    ],
)
def test_a_command_of_psql_is_called_that(
    script: str, line: int, command: str, way_out: str
) -> None:
    said, detail = refusal(script)
    assert said == f"sql/1.sql:{line}: {command} is a command of psql, not SQL for the server"
    assert way_out in detail[0]


def test_what_pg_dump_writes_for_psql_is_a_gap() -> None:
    script = b"--\n\\restrict aB1\n\nSELECT 1;\r\n\\unrestrict aB1\r\n-- end\n\\restrict 2"
    cuts = check_script("sql/1.sql", script)
    assert cuts.runs == (script.index(b"SELECT"),)
    assert [script[gap.start : gap.end] for gap in cuts.gaps] == [
        b"\\restrict aB1\n",
        b"\\unrestrict aB1\r\n",
        b"\\restrict 2",
    ]
    assert not any(gap.copy for gap in cuts.gaps)


@pytest.mark.parametrize(
    "script",
    [
        "\\restrict\n",
        "\\restrict a b\n",
        "\\restrict a;\n",
        "\\restrict é\n",
        "\\unrestricted a\n",
        " \\restrict a\n",
        "\\restrict a \n",
        "SELECT 1; \\restrict a\n",
        "/* c */ \\restrict a\n",
        "SELECT 1\n\\restrict a\n;",
        "SELECT (1\n\\restrict a\n",
    ],
)
def test_what_is_like_a_line_for_psql_is_no_gap(script: str) -> None:
    said, _ = refusal(script)
    assert said.endswith("is a command of psql, not SQL for the server")


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("part_size", [1, 60, sqlparts.PART_SIZE])
def test_rows_behind_a_copy_are_a_gap(
    rows: str, line_end: str, part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlparts, "PART_SIZE", part_size)
    copy, after = "copy t (a, b)\n  FROM --\n stdin ; \n", "-- c\nSELECT 2;\n"
    pieces = ("SELECT 1;\n-- data;\n", copy, rows, "\\.\n", after)
    encoded = [piece.replace("\n", line_end).encode() for piece in pieces]
    cuts = check_script("sql/1.sql", b"".join(encoded))
    first, _, size, end, _ = map(len, encoded)
    begun = first + len(encoded[1])
    assert cuts.runs == (0, first, begun + size + end + len(f"-- c{line_end}"))
    assert cuts.gaps == (Gap(begun, begun + size + end, Copy('"t"', ("a", "b"), {}, size)),)


def test_rows_end_with_the_script_where_their_last_line_has_no_end() -> None:
    (gap,) = check_script("sql/1.sql", b"COPY t (a) FROM stdin;\n1\n\\.").gaps
    assert gap == Gap(23, 27, Copy('"t"', ("a",), {}, 2))


@pytest.mark.parametrize(
    "statement, table, columns, options",
    [
        ("COPY t (a) FROM stdin", '"t"', ("a",), {}),
        ('COPY S."T""x" ("A""", b) FROM stdin', '"s"."T""x"', ('A"', "b"), {}),
        ("COPY d.s.t (a) FROM stdin", '"d"."s"."t"', ("a",), {}),
        ("COPY t (a) FROM stdin CSV", '"t"', ("a",), {"format": "csv"}),
        (
            "COPY t (a) FROM stdin WITH CSV HEADER DELIMITER AS ';' NULL 'x' QUOTE '|' ESCAPE '\\'",
            '"t"',
            ("a",),
            {
                "format": "csv",
                "header": "true",
                "delimiter": ";",
                "null": "x",
                "quote": "|",
                "escape": "\\",
            },
        ),
        (
            "COPY t (a) FROM stdin (FORMAT text, HEADER off, DELIMITER E'\\t', ENCODING 'utf-8')",
            '"t"',
            ("a",),
            {"format": "text", "header": "false", "delimiter": "\t"},
        ),
        ("COPY t (a) FROM stdin (HEADER)", '"t"', ("a",), {"header": "true"}),
        (
            "COPY t (a) FROM stdin (HEADER 1, NULL 0)",
            '"t"',
            ("a",),
            {"header": "true", "null": "0"},
        ),
        (
            "COPY t (a) FROM stdin DELIMITER ';' NULL ''",
            '"t"',
            ("a",),
            {"delimiter": ";", "null": ""},
        ),
    ],
)
def test_a_copy_is_in_the_manifest_as_the_server_reads_it(
    statement: str, table: str, columns: tuple[str, ...], options: dict[str, str]
) -> None:
    (gap,) = check_script("sql/1.sql", f"{statement};\n1\n\\.\n".encode()).gaps
    assert gap.copy == Copy(table, columns, options, 2)


TAKEN = "Write the rows without it; a release takes FORMAT text or csv, DELIMITER, NULL, HEADER, "


@pytest.mark.parametrize(
    "copy, words, way_out",
    [
        ("COPY t FROM stdin", "COPY names no columns", "Name the columns: COPY t (a, b)"),
        ("COPY BINARY t (a) FROM stdin", "COPY … FORMAT binary cannot be carried out", TAKEN),
        ("COPY t (a) FROM stdin (FORMAT 'CSV')", "COPY … FORMAT CSV cannot be", TAKEN),
        ("COPY t (a) FROM stdin WHERE a > 1", "COPY … WHERE cannot be", "Leave WHERE out"),
        ("COPY t (a) FROM stdin FREEZE", "COPY … FREEZE cannot be", TAKEN),
        ("COPY t (a) FROM stdin (FREEZE false)", "COPY … FREEZE cannot be", TAKEN),
        ("COPY t (a) FROM stdin CSV FORCE NOT NULL a", "COPY … FORCE_NOT_NULL cannot be", TAKEN),
        ("COPY t (a) FROM stdin (FORCE_NULL *)", "COPY … FORCE_NULL cannot be", TAKEN),
        ("COPY t (a) FROM stdin ENCODING 'latin1'", "COPY … ENCODING cannot be", TAKEN),
        ("COPY t (a) FROM stdin (ON_ERROR ignore)", "COPY … ON_ERROR cannot be", TAKEN),
        ("COPY t (a) FROM stdin (DEFAULT 'x')", "COPY … DEFAULT cannot be", TAKEN),
        ("COPY t (a) FROM stdin (HEADER match)", "COPY … HEADER match cannot be", TAKEN),
        ("COPY t (a) FROM stdin (NULL)", "COPY … NULL true cannot be", TAKEN),
        ("COPY t (a) FROM stdin (NULL 'a', NULL 'b')", "COPY has NULL twice", "Leave one of them"),
    ],
)
def test_a_copy_that_no_host_can_carry_out_is_refused(copy: str, words: str, way_out: str) -> None:
    said, (detail,) = refusal(f"SELECT 1;\n{copy};\n1\n\\.\nSELECT 2;\n")
    assert said.startswith(f"sql/1.sql:2: {words}")
    assert detail.startswith(f"  {way_out}")


@pytest.mark.parametrize(
    "script, line, words",
    [
        ("COPY t (a) FROM stdin;\n1\n", 1, NO_END),
        ("COPY t (a) FROM stdin;\n1\n\\.x\n \\.\nSELECT 1;\n", 1, NO_END),
        ("COPY t (a) FROM stdin;", 1, NO_END),
        ("SELECT 1;\nCOPY t (a) FROM stdin", 2, NO_END),
        ("COPY t (a) FROM stdin; SELECT 1;\n1\n\\.\n", 1, "what follows COPY … FROM STDIN; on its"),
        ("COPY t (a) FROM stdin; -- c\n1\n\\.\n", 1, "what follows COPY … FROM STDIN; on its line"),
    ],
)
def test_rows_that_do_not_end_or_begin_as_psql_has_it_are_refused(
    script: str, line: int, words: str
) -> None:
    said, detail = refusal(script)
    assert said.startswith(f"sql/1.sql:{line}: {words}")
    assert len(detail) == 1


@pytest.mark.parametrize("size", [1, 3 * sqlcopy.PIECE])
def test_rows_in_another_encoding_are_refused_with_their_line(size: int) -> None:
    rows = b"12345678\n" * (size // 9)
    said, _ = refusal(b"COPY t (a) FROM stdin;\n" + rows + b"gr\xf6\xdfe\n\\.\n")
    line, place = 2 + size // 9, 23 + len(rows) + 3
    assert said == f"sql/1.sql:{line}: not UTF-8: byte {place} of the file is 0xf6"


def test_a_script_that_runs_nowhere_any_more_keeps_the_copy_that_it_was_released_with() -> None:
    script = b"COPY t FROM stdin (FORCE_NULL *);\n1\n\\.\nSELECT 1;\nCOPY t FROM stdin;\n1\n"
    assert check_script("sql/1.sql", script, runs=False) == Cuts(
        (0, 39, 49), (Gap(34, 39, None), Gap(68, 70, None))
    )


def test_what_is_wrong_with_a_dump_of_many_tables_is_told_at_once() -> None:
    rows = "".join(f"{number}\tO'Brien; \\N\n" for number in range(40_000))
    table = f"COPY public.t FROM stdin;\n{rows}\\.\n\n"
    said, detail = refusal("CREATE TABLE t ();\n" + table * 3 + "COMMIT;\n")
    assert said == "sql/1.sql: 4 problems"
    lines = [2 + number * 40_003 for number in range(4)]
    assert [int(line.split(":")[1]) for line in detail if "sql/1.sql:" in line] == lines


def test_a_copy_is_a_run_of_its_own_among_statements_that_are_grouped() -> None:
    row, copy = "INSERT INTO t VALUES (1);\n", "COPY t (a) FROM stdin;\n"
    rows = "1\n" * RUN_SIZE + "\\.\n"
    content = f"{row}{row}{copy}{rows}{row}{row}{copy}{rows}{copy}{rows}\\restrict a\n{row}{row}"
    cuts = check_script("sql/1.sql", content.encode())
    ends = sorted([*cuts.runs, *(end for gap in cuts.gaps for end in (gap.start, gap.end))])
    pieces = [content[start:end] for start, end in pairwise([*ends, len(content)]) if start < end]
    assert pieces == [
        *(row * 2, copy, rows, row * 2, copy, rows, copy, rows),
        *("\\restrict a\n", row * 2),
    ]


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
        ["5", " COPY names no columns, of which its rows have the values"],
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
        f"CREATE VIEW v AS SELECT {'+'.join(['1'] * (sqlrules.LONGEST // 2 - 20))}, 'countersign';",
        f"COPY t FROM 'x' WHERE a = {'+'.join(['1'] * 50_000)};",
    ],
)
def test_what_a_release_may_run_is_not_refused(script: str) -> None:
    assert check_script("sql/1.sql", script.encode()).runs


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
