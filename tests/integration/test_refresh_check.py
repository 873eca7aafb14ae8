"""`countersign check` and `manifest` refuse a release that adds a column without a class."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from installer.session import Session
from packager.columns import Tables
from packager.sqlcolumns import play, statements
from refresher.catalog import read_source
from refresher.classification import masked_columns
from tests.cluster import Cluster
from tests.keys import Keyring
from tests.product import Product
from tests.production import MASKED_FILE

pytestmark = pytest.mark.integration

RELEASED = "CREATE TABLE crm.customer (id bigint PRIMARY KEY, mail text);\n"
NEW = """\
-- Customers have telephones.
ALTER TABLE crm.customer ADD COLUMN mobile text;
CREATE TABLE crm.call (id bigint, said text);
"""
RELEASE = """\
[release]
name = "crm"
version = "1.1.0"
sequence = 2
summary = "Telephones"

[database]
name = "crm"
vcs = "{vcs}"
to = "{to}"
from = {starts}
scripts = ["sql/*.sql"]
"""
MASKED = (
    MASKED_FILE
    + """\
[columns."crm.customer"]
id = { class = "integer", domain = "customer" }
mail = { class = "email", domain = "mail" }
"""
)
ALL = (
    MASKED
    + """\
mobile = { class = "phone", domain = "mobile" }
[columns."crm.call"]
id = { class = "keep" }
said = { class = "null" }
"""
)
REFUSED = """\
error: refresh.toml lacks what the release adds: 3 problems
sql/0002.sql:2: crm.customer.mobile has no class in refresh.toml
sql/0002.sql:3: crm.call.id has no class in refresh.toml
sql/0002.sql:3: crm.call.said has no class in refresh.toml
[columns."crm.customer"]
mobile = { class = "…" }
[columns."crm.call"]
id = { class = "…" }
said = { class = "…" }
Give every column a class in refresh.toml; docs/how-to/mask-dev.md describes them.
"""


class Desk:
    """A product without version control, with the releases 1.0.0 and 1.1.0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put({"1.0.0/sql/0001.sql": RELEASED, "1.1.0/sql/0001.sql": RELEASED})
        self.put({"1.1.0/sql/0002.sql": NEW})
        self.describe('["empty", "1.0.0"]')

    def put(self, files: Mapping[str, str]) -> None:
        for path, content in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")

    def describe(self, starts: str) -> None:
        self.put({"release.toml": RELEASE.format(vcs="tree", to="1.1.0", starts=starts)})

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, *arguments)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("countersign"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with Keyring.create() as keyring:
        keyring.new_key("Ada Developer <ada@example.org>")
        monkeypatch.setenv("GNUPGHOME", str(keyring.home))
        yield


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_column_without_a_class_is_refused_with_file_and_line(desk: Desk) -> None:
    desk.put({"refresh.toml": MASKED})

    done = desk.run("check")

    assert done.returncode == 66
    assert done.stderr == REFUSED
    assert "ok from 1.0.0: 1 scripts to run\n" in done.stdout  # all else was told before


@pytest.mark.parametrize("command", ["manifest", "sign"])
@pytest.mark.usefixtures("signing")
def test_nothing_is_written_to_be_signed(desk: Desk, command: str) -> None:
    desk.put({"refresh.toml": MASKED})

    done = desk.run(command)

    assert done.returncode == 66
    assert "sql/0002.sql:2: crm.customer.mobile has no class in refresh.toml\n" in done.stderr
    assert not (desk.folder / "dist").exists()


def test_a_release_whose_columns_have_classes_passes(desk: Desk) -> None:
    desk.put({"refresh.toml": ALL})

    done = desk.run("check")

    assert done.returncode == 0
    assert done.stdout.endswith("ok new columns with a class in refresh.toml: 3\n")
    assert desk.run("manifest").returncode == 0
    assert (desk.folder / "dist/crm-1.1.0/manifest.json").exists()


def test_the_class_of_a_released_column_is_not_asked_for(desk: Desk) -> None:
    desk.put({"refresh.toml": ALL.replace("id = { class", "was = { class", 1)})

    assert desk.run("check").returncode == 0


def test_all_columns_of_a_first_release_are_new(desk: Desk) -> None:
    desk.put({"refresh.toml": ALL.replace("id = { class", "was = { class", 1)})
    desk.describe('["empty"]')

    done = desk.run("check")

    assert done.returncode == 66
    assert "error: sql/0001.sql:1: crm.customer.id has no class in refresh.toml\n" in done.stderr


def test_a_release_without_rules_is_as_before(desk: Desk) -> None:
    done = desk.run("check")

    assert done.returncode == 0
    assert "refresh.toml" not in done.stdout + done.stderr


def test_a_malformed_file_is_refused_as_a_refresh_refuses_it(desk: Desk) -> None:
    desk.put({"refresh.toml": MASKED.replace('class = "email"', 'class = "e-mail"')})

    checked, planned = desk.run("check"), desk.run("refresh", "plan")

    assert checked.returncode == planned.returncode == 10
    assert checked.stderr == planned.stderr
    assert "class is 'e-mail'" in checked.stderr


def test_the_file_at_the_top_of_a_git_repository_is_found(tmp_path: Path) -> None:
    (tmp_path / "refresh.toml").write_text(ALL, encoding="utf-8")  # not the repository's
    product = Product(tmp_path / "crm")
    product.folder.mkdir()
    product.git("init", "--quiet", "--initial-branch=main")
    product.tag("v1.0.0", {"sql/0001.sql": RELEASED})
    release = RELEASE.format(vcs="git", to="v1.1.0", starts='["v1.0.0"]')
    product.tag("v1.1.0", {"sql/0002.sql": NEW, "releases/1.1.0.toml": release})
    arguments = ("check", "--release", "releases/1.1.0.toml")

    assert "refresh.toml" not in run(product.folder, *arguments).stdout

    (product.folder / "refresh.toml").write_text(MASKED, encoding="utf-8")

    done = run(product.folder, *arguments)

    assert done.returncode == 66
    assert done.stderr.endswith(REFUSED)


SCRIPTS = """\
CREATE SCHEMA crm CREATE TABLE person (id bigint, mail text, n int GENERATED ALWAYS AS (1) STORED);
CREATE SCHEMA old;
CREATE TABLE crm.sale (day date, who bigint) PARTITION BY RANGE (day);
CREATE TABLE crm.sale_1 PARTITION OF crm.sale FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE sale_2 (LIKE crm.sale);
CREATE TABLE sale_3 (LIKE crm.sale);
ALTER TABLE crm.sale ATTACH PARTITION sale_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
ALTER TABLE crm.sale ATTACH PARTITION sale_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
ALTER TABLE crm.sale ADD COLUMN note text, ADD COLUMN IF NOT EXISTS day date;
ALTER TABLE crm.sale DETACH PARTITION sale_3;
ALTER TABLE sale_3 DROP COLUMN note;
CREATE TABLE worker (wage int) INHERITS (crm.person);
CREATE TABLE guest (like crm.person INCLUDING GENERATED, until date);
CREATE TABLE copied (LIKE crm.person);
ALTER TABLE guest INHERIT crm.person;
ALTER TABLE crm.person RENAME COLUMN mail TO email;
ALTER TABLE crm.person ADD fax text, ADD tax text;
ALTER TABLE crm.person DROP tax;
ALTER TABLE worker NO INHERIT crm.person;
ALTER TABLE crm.person ADD later text;
ALTER TABLE worker ALTER COLUMN n DROP EXPRESSION;
CREATE TABLE made AS SELECT id, email::text, 1 AS one FROM crm.person;
SELECT p.id, p.fax INTO made_too FROM crm.person AS p UNION SELECT 2, 'x';
CREATE TABLE named (a) AS TABLE crm.sale WITH NO DATA;
ALTER TABLE made RENAME COLUMN one TO two;
ALTER TABLE made SET SCHEMA old;
ALTER TABLE copied RENAME TO kept;
CREATE TEMP TABLE work (a int);
CREATE VIEW seen AS SELECT id FROM crm.person;
ALTER TABLE seen RENAME COLUMN id TO number;
CREATE MATERIALIZED VIEW counted AS SELECT 1 AS a;
CREATE TABLE gone (a int);
DROP TABLE gone;
CREATE TABLE base (a int);
CREATE TABLE above_base () INHERITS (base);
DROP TABLE base CASCADE;
ALTER SCHEMA old RENAME TO past;
"""


def test_what_is_told_of_scripts_is_what_a_server_has_after_them(cluster: Cluster) -> None:
    cluster.new_database("columns")
    cluster.psql(SCRIPTS, "columns")
    with Session.open(cluster.conninfo("columns", "postgres")) as session:
        catalog = read_source(session).catalog
    there = {
        f"{table.name}.{column.name}"
        for table in catalog.tables
        if table.partition_of is None
        for column in masked_columns(table)
    }
    tables = Tables()
    for at, root in statements(SCRIPTS):
        play(root, tables, (0, at))

    told = {f"{c.schema or 'public'}.{c.table}.{c.column}" for c in tables.added(["1.sql"])}

    assert told - there == {"public.named."}  # TABLE does not say which columns
    assert there - told == {"public.named.who", "public.named.note"}
