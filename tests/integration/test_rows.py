"""Inline rows of COPY in a real server: what comes of them, and what they cannot do."""

import io
import lzma
import re
from collections.abc import Iterator

import pytest

from installer.bundle import ContentReader, Section
from installer.database import Database, connect
from installer.errors import InstallerError, MalformedError, ScriptFailedError
from installer.manifest import Copy, Gap, Script
from installer.tree import digest_of
from tests.cluster import Cluster
from tests.integration.test_database import ORIGIN, database_name, target

pytestmark = pytest.mark.integration

Piece = str | tuple[str, Copy] | tuple[str, None]


def with_gaps(*pieces: Piece) -> tuple[Script, ContentReader]:
    """A script of statements, and of what is behind them: rows of a COPY, or lines for psql."""
    content, runs, gaps = b"", [], []
    for piece in pieces:
        text, copy = (piece, None) if isinstance(piece, str) else piece
        if isinstance(piece, str):
            runs.append(len(content))
        else:
            gaps.append(Gap(len(content), len(content) + len(text.encode()), copy))
        content += text.encode()
    script = Script("sql/1.sql", digest_of(content), len(content), tuple(runs), tuple(gaps))
    compressed = lzma.compress(content)
    return script, ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), (script,))


def rows(
    table: str, columns: str, *lines: str, closed: str = "\\.\n", **options: str
) -> tuple[str, tuple[str, Copy]]:
    """A COPY and its rows."""
    data = "".join(f"{line}\n" for line in lines)
    statement = f"COPY {table} ({columns}) FROM stdin;\n"
    copy = Copy(table, tuple(columns.split(", ")), options, len(data.encode()))
    return statement, (data + closed, copy)


@pytest.fixture
def opened(cluster: Cluster, database: str) -> Iterator[Database]:
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    with connect(target(database), "test") as found:
        yield found


def apply(database: Database, *pieces: Piece) -> int:
    with database.transaction() as transaction:
        run = transaction.run(*with_gaps(*pieces))
        transaction.settle_constraints()
        transaction.record("applied", ORIGIN, [run])
    return run.rows


def refused(database: Database, *pieces: Piece, by: type[InstallerError]) -> str:
    with pytest.raises(by) as error:
        apply(database, *pieces)
    assert database.state("crm").applied == {}
    return str(error.value)


def test_rows_arrive_as_copy_would_have_them(
    cluster: Cluster, database: str, opened: Database
) -> None:
    made = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, name text, at date);\n"
    copied = rows("t", "id, name, at", "7\ta\\tb\t2026-01-31", "8\t\\N\t\\N", "9\tgröße\\\\\t\\N")

    count = apply(
        opened, made, *copied, "INSERT INTO t (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'x');\n"
    )

    assert count == 4
    found = cluster.psql("SELECT * FROM t ORDER BY id", database_name(database))
    assert found.splitlines() == ["1|x|", "7|a\tb|2026-01-31", "8||", "9|größe\\|"]


@pytest.mark.parametrize(
    "kind, value, stored",
    [
        ("varchar(3)", "abc", "abc"),
        ("char(4)", "ab", "ab  "),
        ("bit(3)", "101", "101"),
        ("numeric(5,2)", "1.239", "1.24"),
        ("int[]", "{1,2}", "{1,2}"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("bytea", "\\\\x00ff", "\\x00ff"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("timestamptz", "2026-01-31 12:00+00", "2026-01-31 12:00:00+00"),
        ("interval", "1 day 02:00", "1 day 02:00:00"),
        ('"char"', "x", "x"),
        ("name", "n", "n"),
        ("public.word", "fine", "fine"),
        ("public.word[]", "{fine,good}", "{fine,good}"),
        ("public.pair", '"(1,two)"', "(1,two)"),
        ("public.mood", "glad", "glad"),
        ("boolean", "t", "t"),
        ("money", "12.50", "$12.50"),
        ("tsvector", "a b", "'a' 'b'"),
        ("int4range", "[1\\,5)", "[1,5)"),
    ],
)
def test_a_value_of_any_type_is_read_by_that_type(
    cluster: Cluster, database: str, opened: Database, kind: str, value: str, *, stored: str
) -> None:
    types = (
        "CREATE DOMAIN word AS varchar(5) CHECK (VALUE <> 'bad');\n",
        "CREATE TYPE pair AS (a int, b text);\n",
        "CREATE TYPE mood AS ENUM ('glad', 'sad');\n",
        f"CREATE TABLE t (v {kind});\n",
    )
    line = value.replace('"(', "(").replace(')"', ")")

    apply(opened, *types, *rows("t", "v", line))

    name = database_name(database)
    assert cluster.psql("SET timezone = 'UTC'; SELECT v FROM t", name) == stored.strip()


@pytest.mark.parametrize(
    "kind, value, words",
    [
        ("varchar(3)", "abcd", "value too long for type character varying(3)"),
        ("public.word", "longer", "value too long for type character varying(5)"),
        ("public.word", "bad", "violates check constraint"),
        ("bit(3)", "10", "bit string length 2 does not match type bit(3)"),
        ("int", "x", "invalid input syntax for type integer"),
        ("numeric(3,1)", "123", "numeric field overflow"),
    ],
)
def test_a_value_that_its_type_refuses_takes_everything_back(
    opened: Database, kind: str, value: str, words: str
) -> None:
    domain = "CREATE DOMAIN word AS varchar(5) CHECK (VALUE <> 'bad');\n"

    said = refused(
        opened,
        domain,
        f"CREATE TABLE t (v {kind});\n",
        *rows("t", "v", value),
        by=ScriptFailedError,
    )

    assert words in said
    assert said.startswith("sql/1.sql:3: ")


def test_a_row_that_has_too_few_columns_is_named_by_its_line(opened: Database) -> None:
    copied = rows("t", "a, b", "1\t2", "3\t4", "5")

    said = refused(
        opened, "-- first\nCREATE TABLE t (a int, b int);\n", *copied, by=ScriptFailedError
    )

    assert said.startswith("sql/1.sql:6: ")
    assert 'missing data for column "b"' in said


def test_a_column_or_table_that_is_not_there_is_told(opened: Database) -> None:
    said = refused(opened, "CREATE TABLE t (a int);\n", *rows("t", "b", "1"), by=ScriptFailedError)
    assert said.startswith('sql/1.sql:2: column "b" of relation "t" does not exist')

    said = refused(opened, *rows("gone", "b", "1"), by=ScriptFailedError)
    assert said.startswith('sql/1.sql:1: relation "gone" does not exist')


def test_csv_with_its_options_is_read(cluster: Cluster, database: str, opened: Database) -> None:
    options = {
        "format": "csv",
        "delimiter": ";",
        "null": "none",
        "header": "true",
        "quote": "'",
        "escape": "\\",
    }
    copied = rows("t", "a, b", "a;b", "1;'x;\\'y'", "2;none", **options)

    assert apply(opened, "CREATE TABLE t (a int, b text);\n", *copied) == 2

    found = cluster.psql("SELECT * FROM t ORDER BY a", database_name(database))
    assert found.splitlines() == ["1|x;'y", "2|"]


def test_no_rows_and_no_closing_line_are_fine(opened: Database) -> None:
    assert apply(opened, "CREATE TABLE t (a int);\n", *rows("t", "a")) == 0


def test_rows_to_the_end_of_the_file_are_read(opened: Database) -> None:
    assert apply(opened, "CREATE TABLE t (a int);\n", *rows("t", "a", "1", closed="")) == 1


def test_many_rows_are_streamed_in_pieces_that_cut_rows(
    cluster: Cluster, database: str, opened: Database
) -> None:
    lines = [f"{number}\t{'x' * 100}" for number in range(20_000)]

    assert apply(opened, "CREATE TABLE t (a int, b text);\n", *rows("t", "a, b", *lines)) == 20_000

    found = cluster.psql("SELECT count(*), sum(a), min(length(b)) FROM t", database_name(database))
    assert found == "20000|199990000|100"


def test_what_copy_calls_cannot_become_the_login_role(opened: Database) -> None:
    """A check that leaves the role: at the top level it would be the login role from there on."""
    leave = "CREATE TABLE t (a int CHECK (set_config('role', 'none', false) IS NOT NULL));\n"

    said = refused(opened, leave, *rows("t", "a", "1"), by=ScriptFailedError)

    assert 'cannot set parameter "role" within security-definer function' in said


def test_a_trigger_of_the_table_runs_as_the_owner_role(
    cluster: Cluster, database: str, opened: Database
) -> None:
    trigger = (
        "CREATE TABLE t (a int, by name);\n",
        """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.by := current_user; RETURN NEW; END$$;\n""",
        "CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();\n",
    )

    apply(opened, *trigger, *rows("t", "a", "1"))

    assert cluster.psql("SELECT by FROM t", database_name(database)) == "crm_owner"


def test_a_script_that_is_in_the_way_of_the_rows_is_refused(opened: Database) -> None:
    ours = "CREATE TEMPORARY TABLE countersign_rows (a text);\n"
    said = refused(
        opened, "CREATE TABLE t (a int);\n", ours, *rows("t", "a", "1"), by=ScriptFailedError
    )
    assert 'relation "countersign_rows" already exists' in said


def test_options_of_a_manifest_are_values_and_no_sql(opened: Database) -> None:
    options = {"null": "x') WHERE pg_sleep(100) IS NULL; --"}
    copied = rows("t", "a", "1", **options)

    assert apply(opened, "CREATE TABLE t (a int);\n", *copied) == 1


def test_lines_for_psql_are_passed_over(cluster: Cluster, database: str, opened: Database) -> None:
    apply(
        opened,
        ("\\restrict abcDEF123\n", None),
        "CREATE TABLE t (a int);\n",
        *rows("t", "a", "1"),
        "CREATE TABLE u (a int);\n",
        ("\\unrestrict abcDEF123\n", None),
    )

    found = cluster.psql(
        "SELECT count(*) FROM t, pg_class WHERE relname = 'u'", database_name(database)
    )
    assert found == "1"


@pytest.mark.parametrize("hidden", ["DROP TABLE t;\n", "\\! id\n", "\\restrict a; DROP TABLE t\n"])
def test_nothing_else_can_be_hidden_in_a_gap(opened: Database, hidden: str) -> None:
    said = refused(opened, "CREATE TABLE t ();\n", (hidden, None), by=MalformedError)
    assert "leaves out what is no line for psql" in said


def test_a_place_after_rows_has_the_line_of_the_whole_script(opened: Database) -> None:
    copied = rows("t", "a", *map(str, range(10)))
    said = refused(
        opened,
        "CREATE TABLE t (a int);\n",
        *copied,
        "SELECT 1;\nSELECT nope;\n",
        by=ScriptFailedError,
    )
    assert re.match(r"sql/1\.sql:1[45]", said)


def test_what_a_script_puts_before_postgresql_s_own_is_not_called_for_its_rows(
    cluster: Cluster, database: str, opened: Database
) -> None:
    trap = (
        "CREATE SCHEMA trap;\n",
        "CREATE TABLE public.ran (who name);\n",
        """CREATE FUNCTION trap.f(oid, oid) RETURNS boolean LANGUAGE sql VOLATILE AS
        $$ INSERT INTO public.ran VALUES (current_user); SELECT true $$;\n""",
        "CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.f);\n",
        """CREATE FUNCTION trap.g(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN true; END $$;\n""",
        "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (trap.g(VALUE));\n",
        "CREATE TABLE public.t (a int);\n",
        "SET search_path = trap, pg_catalog, public;\n",
    )

    assert apply(opened, *trap, *rows("public.t", "a", "1", "2")) >= 2

    ran = "SELECT count(*) FROM ran WHERE who <> 'crm_owner'"
    assert cluster.psql(ran, database_name(database)) == "0"
