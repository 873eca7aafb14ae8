"""Columns that scripts add, and whether refresh.toml has a class for each."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from packager.columns import Tables
from packager.sqlcolumns import play, statements
from packager.sqlrules import LONGEST
from refresher.checking import Added, check
from refresher.errors import RefreshFileError, UnclassifiedError
from tests.production import MASKED_FILE

COPY = MASKED_FILE.replace("masked", "copy").replace('key = "/etc/countersign/mask.key"\n', "")


def added(*scripts: str, released: int = 0) -> list[str]:
    """What is told of scripts, of which the first ones are released: line and column."""
    tables = Tables()
    for number, text in enumerate(scripts):
        for at, root in statements(text):
            line = text.count("\n", 0, at) + 1
            play(root, tables, None if number < released else (number, line))
    names = [f"{number}.sql" for number in range(len(scripts))]
    return [
        f"{found.script}:{found.line}: {found.schema}.{found.table}.{found.column}"
        for found in tables.added(names)
    ]


def told(statement: str, before: str = "") -> list[str]:
    """What is told of a new statement, of which the line is known."""
    return [line.partition(": ")[2] for line in added(before, statement, released=1)]


BASE = (
    "CREATE TABLE crm.customer "
    "(id bigint, mail text, twice bigint GENERATED ALWAYS AS (id * 2) STORED)"
)


@pytest.mark.parametrize(
    "statement, columns",
    [
        ("ALTER TABLE crm.customer ADD COLUMN mobile text, ADD fax text", "mobile fax"),
        ("ALTER TABLE customer ADD COLUMN mobile text", "mobile"),
        ("ALTER TABLE crm.customer ADD COLUMN IF NOT EXISTS mail text", ""),
        ("ALTER TABLE crm.customer ADD n int GENERATED ALWAYS AS (1) STORED", ""),
        ("ALTER TABLE crm.customer ALTER COLUMN twice DROP EXPRESSION", "twice"),
        ("ALTER TABLE crm.customer RENAME COLUMN mail TO email", "email"),
        ("ALTER TABLE crm.customer RENAME COLUMN twice TO double", ""),
        ("ALTER TABLE crm.customer ADD x int; ALTER TABLE crm.customer DROP x", ""),
        ("ALTER TABLE crm.customer ADD x int; DROP TABLE crm.customer", ""),
        ("ALTER TABLE crm.customer ADD x int; DROP SCHEMA crm CASCADE", ""),
        ("CREATE TABLE IF NOT EXISTS crm.customer (fax text)", ""),
        ("ALTER TABLE crm.customer ALTER COLUMN mail SET NOT NULL", ""),
        ("CREATE INDEX ON crm.customer (mail); INSERT INTO crm.customer VALUES (1)", ""),
        ("ALTER VIEW crm.shown RENAME COLUMN a TO b", ""),
        ("CREATE TYPE crm.pair AS (a int); ALTER TYPE crm.pair ADD ATTRIBUTE b int", ""),
        ("CREATE DOMAIN d AS text; DROP DOMAIN d", ""),
    ],
)
def test_what_a_statement_adds_to_a_table_is_told(statement: str, columns: str) -> None:
    assert told(statement, BASE) == [f"crm.customer.{column}" for column in columns.split()]


@pytest.mark.parametrize(
    "statement, columns",
    [
        ("CREATE TABLE t (a int, b text, CHECK (a > 0))", ".t.a .t.b"),
        ("CREATE TEMP TABLE t (a int)", ""),
        ("CREATE TEMP TABLE t AS SELECT 1 AS a", ""),
        ("CREATE UNLOGGED TABLE t (a int)", ".t.a"),
        ("CREATE FOREIGN TABLE t (a int) SERVER s", ""),
        ("CREATE FOREIGN TABLE t (a int) SERVER s; DROP FOREIGN TABLE t", ""),
        ("CREATE VIEW t AS SELECT 1 AS a; ALTER TABLE t RENAME COLUMN a TO b", ""),
        ("CREATE MATERIALIZED VIEW t AS SELECT 1 AS a", ""),
        ("CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT 1 AS b", "s.t.a"),
        ("CREATE TABLE t (LIKE crm.customer, b int)", ".t.id .t.mail .t.twice .t.b"),
        ("CREATE TABLE t (LIKE crm.customer INCLUDING ALL)", ".t.id .t.mail"),
        ("CREATE TABLE t (LIKE elsewhere)", ".t."),
        ("CREATE TABLE t OF pair", ".t."),
        ("CREATE TABLE t (a int) INHERITS (crm.customer)", ".t.a .t.id .t.mail"),
        ("CREATE TABLE t PARTITION OF crm.customer DEFAULT", ""),
        ("CREATE TABLE t (a int); ALTER TABLE crm.customer ATTACH PARTITION t DEFAULT", ""),
        ("CREATE TABLE t AS SELECT c.id, c.mail::text, 1 AS one FROM c", ".t.id .t.mail .t.one"),
        ("CREATE TABLE t (a) AS SELECT id, mail FROM c UNION SELECT 1, 'x'", ".t.a .t.mail"),
        ("CREATE TABLE t AS SELECT * FROM c", ".t."),
        ("CREATE TABLE t AS SELECT count(*) FROM c", ".t."),
        ("CREATE TABLE t (n) AS SELECT count(*) FROM c", ".t.n"),
        ("CREATE TABLE t (n) AS SELECT *, 1 AS one FROM c", ".t.n .t.one .t."),
        ("CREATE TABLE t AS SELECT", ""),
        ("CREATE TABLE t AS VALUES (1, 2)", ".t.column1 .t.column2"),
        ("CREATE TABLE t AS EXECUTE q", ".t."),
        ("CREATE TABLE IF NOT EXISTS crm.customer AS SELECT 1 AS a", ""),
        ("SELECT id, mail INTO t FROM c", ".t.id .t.mail"),
        ("WITH c AS (SELECT 1 AS id) SELECT id INTO t FROM c UNION SELECT 2", ".t.id"),
        ("SELECT 1", ""),
    ],
)
def test_what_a_new_table_has_is_told(statement: str, columns: str) -> None:
    assert told(statement, BASE) == columns.split()


@pytest.mark.parametrize(
    "statement, columns",
    [
        ("ALTER TABLE crm.customer RENAME TO client", "crm.client.id crm.client.mail"),
        ("ALTER TABLE customer SET SCHEMA old", "old.customer.id old.customer.mail"),
        ("ALTER SCHEMA crm RENAME TO old", "old.customer.id old.customer.mail"),
        ("ALTER TABLE elsewhere RENAME TO known", ".known."),
        ("ALTER TABLE elsewhere ADD a int", ".elsewhere.a"),
        ("ALTER INDEX i RENAME TO j", ""),
        ("ALTER SEQUENCE s SET SCHEMA old", ""),
    ],
)
def test_rules_under_an_old_name_of_a_table_do_not_count(statement: str, columns: str) -> None:
    assert told(statement, BASE) == columns.split()


def test_a_table_that_takes_the_place_of_another_is_told_where_it_does() -> None:
    script = (
        "CREATE TABLE crm.wide (id bigint, fax text);\n"
        "DROP TABLE crm.customer;\n"
        "ALTER TABLE crm.wide RENAME TO customer;\n"
    )

    found = added(BASE, script, released=1)

    assert found == ["1.sql:3: crm.customer.id", "1.sql:3: crm.customer.fax"]


def test_children_have_what_is_added_to_their_parent_and_partitions_no_rules() -> None:
    tables = (
        f"{BASE}; CREATE TABLE child () INHERITS (crm.customer); CREATE TABLE grand (LIKE child);"
        "ALTER TABLE grand INHERIT child; CREATE TABLE part PARTITION OF crm.customer DEFAULT"
    )
    changed = "ALTER TABLE crm.customer ADD fax text"

    assert told(changed, tables) == ["crm.customer.fax", ".child.fax", ".grand.fax"]
    assert told(f"{changed}; ALTER TABLE crm.customer DROP fax", tables) == []
    assert told(f"ALTER TABLE child NO INHERIT crm.customer; {changed}", tables) == [
        "crm.customer.fax"
    ]
    detached = f"{changed}; ALTER TABLE crm.customer DETACH PARTITION part"
    assert [name for name in told(detached, tables) if ".part." in name] == [
        ".part.id",
        ".part.mail",
        ".part.fax",
    ]
    assert told(f"{changed}; DROP TABLE crm.customer CASCADE", tables) == []


def test_only_new_scripts_are_told_and_what_a_later_one_drops_is_not() -> None:
    first = "CREATE TABLE a (x int)"
    second = "\n\nALTER TABLE a ADD y int, ADD z int;"
    third = "ALTER TABLE a DROP z;\nALTER TABLE a RENAME x TO v"

    assert added(first, second, third, released=1) == ["1.sql:3: .a.y", "2.sql:2: .a.v"]
    assert added(first, second, third, released=2) == ["2.sql:2: .a.v"]
    assert added(first, second, third, released=3) == []


def test_what_the_text_does_not_show_is_not_told() -> None:
    long = f"CREATE TABLE long (a text DEFAULT '{'x' * LONGEST}')"

    assert told("DO $$BEGIN EXECUTE 'CREATE TABLE t (a int)'; END$$") == []
    assert told(long) == []


# ------------------------------------------------------------------------------------ the rules


def columns(*names: str) -> Iterable[Added]:
    """Columns as "schema.table.column", one a line of a script."""
    for line, name in enumerate(names, 1):
        schema, table, column = name.split(".")
        yield "sql/7.sql", line, schema, table, column


def write(folder: Path, rules: str, text: str = MASKED_FILE) -> None:
    (folder / "refresh.toml").write_text(text + rules, encoding="utf-8")


RULES = '[columns."crm.customer"]\nmail = { class = "keep" }\n'


@pytest.mark.parametrize("name", ["crm.customer.mail", ".customer.mail", "crm.customer."])
def test_a_column_with_a_class_passes_where_its_schema_is_not_known_too(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path, RULES)

    assert check([tmp_path], columns(name)) == "new columns with a class in refresh.toml: 1"


@pytest.mark.parametrize(
    "name, problem, entry",
    [
        (
            "crm.customer.fax",
            "crm.customer.fax has no class in refresh.toml",
            '[columns."crm.customer"]\nfax = { class = "…" }',
        ),
        (
            "old.customer.mail",
            "old.customer.mail has no class in refresh.toml",
            '[columns."old.customer"]\nmail = { class = "…" }',
        ),
        (
            ".customer.an fax",
            "customer.an fax has no class in refresh.toml",
            '[columns."crm.customer"]\n"an fax" = { class = "…" }',
        ),
        (
            ".sale.day",
            "sale.day has no class in refresh.toml",
            '[columns."….sale"]\nday = { class = "…" }',
        ),
        (
            "crm.sale.",
            "crm.sale has no rules in refresh.toml, and columns that are not named here",
            '[columns."crm.sale"]\n# each of its columns',
        ),
    ],
)
def test_a_column_without_a_class_is_refused_with_the_lines_to_write(
    tmp_path: Path, name: str, problem: str, entry: str
) -> None:
    write(tmp_path, RULES)

    with pytest.raises(UnclassifiedError) as refused:
        check([tmp_path], columns(name))

    assert refused.value.exit_code == 66
    assert str(refused.value) == f"sql/7.sql:1: {problem}"
    assert refused.value.detail == entry


def test_all_columns_are_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path, RULES)

    with pytest.raises(UnclassifiedError) as refused:
        check([tmp_path], columns("a.t.x", "crm.customer.mail", "a.t.y"))

    assert str(refused.value) == "refresh.toml lacks what the release adds: 2 problems"
    assert refused.value.detail.splitlines() == [
        "sql/7.sql:1: a.t.x has no class in refresh.toml",
        "sql/7.sql:3: a.t.y has no class in refresh.toml",
        '[columns."a.t"]',
        'x = { class = "…" }',
        'y = { class = "…" }',
    ]


def test_nothing_is_asked_of_a_copy_nor_without_a_file(tmp_path: Path) -> None:
    assert check([tmp_path], columns("a.t.x")) == ""

    write(tmp_path, "", COPY)

    assert check([tmp_path], columns("a.t.x")) == ""


def test_a_release_that_adds_nothing_has_nothing_to_tell(tmp_path: Path) -> None:
    write(tmp_path, RULES)

    assert check([tmp_path], columns()) == ""


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    near = tmp_path / "releases"
    near.mkdir()
    write(tmp_path, RULES)

    assert check([near, tmp_path], columns("crm.customer.mail"))
    write(near, "", COPY)
    assert check([near, tmp_path], columns("a.t.x")) == ""


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "refresh.toml").mkdir()

    with pytest.raises(RefreshFileError, match=r"refresh\.toml: Is a directory"):
        check([tmp_path], columns())
