"""What a refresh decides without a server: the file, which way round, what goes in a stream."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.quoting import literal
from refresher import pieces
from refresher.catalog import in_order
from refresher.clients import Endpoint, server_words, start_options
from refresher.closing import Part
from refresher.configuration import parse_configuration
from refresher.errors import RefreshFileError, WrongWayError
from refresher.model import Column, Table, TableName
from refresher.pieces import Piece, Stream, copied, parts_of, pieces_of, streams
from refresher.report import last_report
from refresher.rowset import RowSet
from refresher.safeguards import Identity, require_right_way
from refresher.stream import script
from refresher.subset import Level, Rows
from refresher.target import Names

FILE = """
[refresh]
mode = "copy"
environment = "QAT"
[source]
service = "crm-prd"
[target]
service = "qat"
database = "crm"
owner = "crm_owner"
"""
COLUMN = Column(
    name="id",
    type="integer",
    base="integer",
    length=None,
    not_null=True,
    generated=False,
    identity=False,
    unique=True,
)
TABLE = Table(
    name=TableName("s", "t"),
    columns=(COLUMN,),
    rows=10,
    bytes=0,
    primary_key=("id",),
    partition_of=None,
    is_partitioned=False,
    parents=(),
)
PRD = Identity("1", "crm", "PRD", {"crm": 14})
QAT = Identity("2", "crm", "QAT", {"crm": 14})
CLONE = replace(PRD, environment="QAT", started="2")
"""A cluster that was made of the files of PRD's: it has the same identifier, and another server."""


def test_a_file_needs_little() -> None:
    found = parse_configuration(FILE.encode())

    assert (found.mode, found.environment, found.jobs) == ("copy", "QAT", 2)
    assert found.source == "service=crm-prd"
    assert found.target.database == "crm"


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("mode", "mood", "did you mean 'mode'"),
        ('"copy"', '"both"', "does not match"),
        ("[refresh]", "[refresh]\njobs = 17", "outside 1..16"),
        ("[source]", "[sauce]", "unknown key 'sauce'"),
        ('service = "crm-prd"', 'conninfo = "password=x host=y"', "holds a password"),
        ('service = "qat"', "", "either service or conninfo"),
        ('database = "crm"', f'database = "{"x" * 39}"', "does not match"),
        ("[source]", '[columns."s.t"]\n[source]', "mode copy copies all"),
        ("[refresh]", '[refresh]\nkey = "/k"', "mode copy copies all"),
        ("[refresh]", '[refresh]\nprograms = "bin"', "programs is 'bin'"),
        ('"copy"', '"masked"', "needs a key"),
        ("[refresh]", "[refresh", "not TOML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(before: str, after: str, told: str) -> None:
    with pytest.raises(RefreshFileError, match=re.escape(told)) as refused:
        parse_configuration(FILE.replace(before, after).encode())

    assert refused.value.exit_code == 10


def test_a_report_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RefreshFileError, match="no report about 'crm'"):
        last_report(tmp_path, "crm", "QAT")


@pytest.mark.parametrize(
    "source, target, told",
    [
        (PRD, replace(QAT, environment="PRD"), "says that it is PRD"),
        (PRD, replace(QAT, environment="DEV"), "says that it is DEV, refresh.toml calls it QAT"),
        (PRD, replace(PRD, environment="QAT"), "is the source"),
        (replace(PRD, is_standby=True), CLONE, "the source is a standby, and may follow it"),
        (PRD, replace(QAT, is_standby=True), "standby"),
        (PRD, replace(QAT, releases={"crm": 15}), "crm has sequence 15, the source 14"),
        (PRD, replace(QAT, releases={"erp": 1}), "erp has sequence 1, the source none"),
        (replace(PRD, environment="QAT"), QAT, "the source says that it is QAT"),
    ],
)
def test_a_target_that_may_not_be_replaced(source: Identity, target: Identity, told: str) -> None:
    with pytest.raises(WrongWayError, match=re.escape(told)):
        require_right_way(source, target, "QAT", target_exists=True)


def test_prd_is_never_made_anew_even_where_it_is_gone() -> None:
    with pytest.raises(WrongWayError, match="never refreshed"):
        require_right_way(replace(PRD, environment=None), QAT, "PRD", target_exists=False)


@pytest.mark.parametrize(
    "target", [QAT, CLONE, replace(QAT, environment=None), replace(QAT, releases={})]
)
def test_a_target_that_is_older_or_says_nothing_may_be_replaced(target: Identity) -> None:
    require_right_way(PRD, target, "QAT", target_exists=True)


def test_another_database_of_the_sources_cluster_may_be_replaced() -> None:
    require_right_way(PRD, replace(QAT, system="1", database="qat"), "QAT", target_exists=True)


@given(size=st.integers(0, 10**12), pages=st.integers(0, 10**6), block=st.integers(0, 2**32 - 2))
def test_every_row_is_in_exactly_one_piece(size: int, pages: int, block: int) -> None:
    table = replace(TABLE, bytes=min(size, 300 * pieces.LARGE))

    found = [piece.select for piece in pieces_of(table, pages)]

    assert sum(_holds(select, block) for select in found) == 1


def _holds(select: str, block: int) -> bool:
    least = re.search(r"ctid >= '\((\d+),0\)'", select)
    most = re.search(r"ctid < '\((\d+),0\)'", select)
    return (not least or block >= int(least[1])) and (not most or block < int(most[1]))


@given(st.lists(st.integers(0, 3 * pieces.SMALL), max_size=300))
def test_every_piece_is_in_one_stream_and_the_largest_come_first(sizes: list[int]) -> None:
    made = [Piece(TableName("s", str(n)), (), "SELECT 1", size) for n, size in enumerate(sizes)]

    found = streams(made)

    gone = [piece for stream in found for piece in stream.pieces]
    assert sorted(gone, key=lambda p: p.table.name) == sorted(made, key=lambda p: p.table.name)
    assert all(len(stream.pieces) == 1 for stream in found if stream.binary)
    assert all(stream.bytes <= pieces.SMALL for stream in found if not stream.binary)
    assert [stream.binary for stream in found] == sorted((s.binary for s in found), reverse=True)


def test_a_generated_column_is_left_to_the_target() -> None:
    made = replace(COLUMN, name="made", generated=True)
    table = replace(TABLE, columns=(COLUMN, made))

    (piece,) = pieces_of(table, 0)

    assert copied(table) == (COLUMN,)
    assert piece.into == '"s"."t" ("id")'


def test_a_table_is_analysed_with_its_rows_where_they_are_all_there_and_its_only_ones() -> None:
    large = replace(TABLE, name=TableName("s", "large"), bytes=3 * pieces.LARGE)
    parent = replace(TABLE, name=TableName("s", "parent"))
    made = [piece for table in (TABLE, large, parent) for piece in pieces_of(table, 100)]

    found = [name for stream in streams(made) for name in stream.analysed({parent.name})]

    assert found == [TABLE.name]


def test_a_table_is_read_by_a_query_only_where_its_rows_are_chosen_or_masked() -> None:
    (plain,) = pieces_of(TABLE, 100)
    (masked,) = pieces_of(TABLE, 100, {"id": "md5(id)"})
    first, _ = pieces_of(replace(TABLE, bytes=2 * pieces.LARGE), 100)

    assert plain.source == '"s"."t"'
    assert masked.source == '(SELECT md5(id) FROM ONLY "s"."t")'
    assert first.source == """(SELECT "id" FROM ONLY "s"."t" WHERE ctid < '(50,0)')"""


def test_rows_at_positions_are_fetched_at_the_price_of_a_scan_and_others_are_not(
    tmp_path: Path,
) -> None:
    with RowSet(tmp_path) as rows:
        rows.add(Rows(TABLE.name, Level.CHOSEN), 0, bytes([7, 0, 1]))
        chunks = rows.chunks(Rows(TABLE.name, Level.CHOSEN))
        (some,) = parts_of(TABLE, [Part(rows, TABLE.name, chunk) for chunk in chunks])
        text = "".join(script(Stream((some,), binary=True), "00-1", 5))
    (every,) = pieces_of(TABLE, 100)

    query = 'COPY (SELECT "id" FROM ONLY "s"."t" WHERE ctid >= \'(0,0)\''
    assert f"SET LOCAL random_page_cost = 0.05;\n{query}" in text
    assert """ctid = ANY ('{"(7,1)"}'::pg_catalog.tid[])) TO STDOUT""" in text
    assert "SET LOCAL" not in "".join(script(Stream((every,), binary=True), "00-1", 5))


def test_what_is_sent_is_said_in_constants_that_cannot_end_early() -> None:
    odd = replace(TABLE, name=TableName('a"b', "c'd\\e"))

    text = "".join(script(Stream(pieces_of(odd, 0), binary=True), "00-1", 5))

    name = r'''"a""b"."c''d\\e"'''
    assert f"E'TRUNCATE ONLY {name}; COPY {name} FROM STDIN (FORMAT binary, FREEZE);'" in text
    assert literal("it's") == "'it''s'"


def test_small_tables_are_not_emptied_to_be_frozen() -> None:
    (small,) = streams(pieces_of(TABLE, 0))

    text = "".join(script(small, "00-1", 5))

    assert not small.binary
    assert "TRUNCATE" not in text
    assert "FREEZE" not in text
    assert small.analysed(frozenset()) == (TABLE.name,)


def test_an_option_with_spaces_stays_one_option() -> None:
    assert start_options({"a": "x y\\z"}) == "-c a=x\\ y\\\\z"


def test_a_service_has_the_settings_and_not_those_of_this_process() -> None:
    endpoint = Endpoint({"host": "h", "dbname": "d", "options": "mine", "service": "s"}, {"a": "1"})

    lines = endpoint.service().decode().splitlines()

    assert lines == ["[countersign]", "application_name=countersign refresh", "host=h", "dbname=d",
        "options=-c a=1"]  # fmt: skip


def test_the_servers_words_come_without_the_program_that_passed_them_on() -> None:
    said = "psql:<stdin>:3: NOTICE:  x\npsql:<stdin>:4: ERROR:  no\nDETAIL:  because\n"

    assert server_words(said) == ["ERROR:  no", "DETAIL:  because"]


def test_views_that_read_each_other_through_others_are_in_order() -> None:
    rows = [(1, "s", "a", True, True, [2]), (2, "s", "b", False, True, [3, 99]),
        (3, "s", "c", True, True, []), (4, "s", "d", True, False, [])]  # fmt: skip

    assert in_order(rows) == (TableName("s", "c"), TableName("s", "a"))


def test_names_that_a_run_gives_fit_into_what_postgresql_takes() -> None:
    names = Names("x" * 38, "20260131000000")

    assert max(len(names.new), len(names.old)) <= 63
