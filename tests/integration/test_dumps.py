"""What pg_dump writes is a script: the real one's output, checked, cut and run as on a host."""

import io
import lzma
import subprocess
from collections.abc import Iterator

import pytest

from installer.bundle import ContentReader, Section
from installer.database import connect
from installer.manifest import Script
from installer.tree import digest_of
from packager import sqlcheck
from packager.sqlcheck import check_script
from tests.cluster import Cluster
from tests.integration.test_database import ORIGIN, database_name, target

pytestmark = pytest.mark.integration

PRODUCT = """
SET ROLE crm_owner;
CREATE SCHEMA "Verkauf;";
CREATE DOMAIN "Verkauf;".plz AS text CHECK (VALUE ~ '^[0-9]{5}$');
CREATE TYPE "Verkauf;".art AS ENUM ('neu', 'alt');
CREATE TABLE "Verkauf;"."Größe;" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "né ""e""é" text, wert numeric(12, 2), blob bytea, wann timestamptz, tags text[], doc jsonb,
    plz "Verkauf;".plz, art "Verkauf;".art, kurz varchar(3),
    doppelt numeric GENERATED ALWAYS AS (wert * 2) STORED
);
INSERT INTO "Verkauf;"."Größe;" ("né ""e""é", wert, blob, wann, tags, doc, plz, art, kurz) VALUES
    (E'tab\\t line\\n\\\\.\\n back\\\\slash', 1.5, '\\x00ff', '2026-01-02 03:04:05+00',
        ARRAY['a;', E'\\\\.', NULL], '{"a": [1, null]}', '12345', 'neu', 'abc'),
    ('O''Brien; COMMIT;', NULL, NULL, NULL, '{}', NULL, NULL, NULL, ''),
    ('COPY t FROM stdin;', -1, '', 'infinity', NULL, '[]', '00000', 'alt', '\\N');
CREATE TABLE "Verkauf;".zeilen (id int, größe bigint REFERENCES "Verkauf;"."Größe;");
INSERT INTO "Verkauf;".zeilen SELECT n, 1 + n % 3 FROM generate_series(1, 5000) AS n;
CREATE TABLE leer (a int);
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    -- \\restrict no line for psql;
    RETURN 1; END $$;
CREATE VIEW v AS SELECT count(*) AS n FROM "Verkauf;".zeilen;
CREATE INDEX zeilen_größe ON "Verkauf;".zeilen (größe);
COMMENT ON TABLE leer IS E'COPY leer (a) FROM stdin;\\n1\\n\\\\.\\n\\\\unrestrict x\\n';
"""


def dump(cluster: Cluster, database: str, *options: str) -> bytes:
    key = ("--restrict-key=a1B2", "--exclude-schema=countersign")  # each dump has another key
    connection = cluster.conninfo(database, "postgres")
    command = [str(cluster.program("pg_dump")), *key, *options, connection]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def install(conninfo: str, content: bytes) -> Script:
    """Run a script as a release would; returns it with its cuts."""
    cuts = check_script("sql/1.sql", content)
    script = Script("sql/1.sql", digest_of(content), len(content), cuts.runs, cuts.gaps)
    compressed = lzma.compress(content)
    reader = ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), (script,))
    with connect(target(conninfo), "test") as database, database.transaction() as transaction:
        run = transaction.run(script, reader)
        transaction.settle_constraints()
        transaction.record("applied", ORIGIN, (run,))
    return script


@pytest.fixture
def source(cluster: Cluster) -> Iterator[str]:
    """A database with what is awkward in a dump."""
    cluster.new_database("source")
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "source")
    cluster.psql(PRODUCT, "source")
    yield "source"
    cluster.psql("DROP DATABASE source")


@pytest.mark.parametrize("run_size", [1, sqlcheck.RUN_SIZE])
def test_a_dump_with_its_rows_makes_the_database_that_it_is_from(
    cluster: Cluster, database: str, source: str, run_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlcheck, "RUN_SIZE", run_size)
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", database_name(database))
    content = dump(cluster, source)

    script = install(database, content)

    assert dump(cluster, database_name(database)) == content
    rows = [gap.copy for gap in script.gaps if gap.copy]
    assert [copy.table for copy in rows] == [
        '"Verkauf;"."Größe;"',
        '"Verkauf;"."zeilen"',
        '"public"."leer"',
    ]
    lines = [content[gap.start : gap.end] for gap in script.gaps if not gap.copy]
    assert lines == [b"\\restrict a1B2\n", b"\\unrestrict a1B2\n"]


def test_rows_as_csv_are_those_that_psql_reads(cluster: Cluster, database: str) -> None:
    content = (
        b"CREATE TABLE t (a int, b text);\r\n"
        b"COPY t (b, a) FROM STDIN WITH CSV HEADER DELIMITER ';' NULL 'none' QUOTE '|';\r\n"
        b"b;a\r\n|x;|| y|;1\r\nnone;2\r\n\\.\r\n"
        b"UPDATE t SET a = a + 1;\r\n"
    )
    name = database_name(database)
    cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", name)
    install(database, content)
    installed = cluster.psql("TABLE t", name)
    cluster.psql("DROP TABLE t", name)
    cluster.psql(content.decode(), name)
    assert installed == cluster.psql("TABLE t", name) == "2|x;| y\n3|"
