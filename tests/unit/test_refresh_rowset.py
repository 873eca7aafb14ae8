"""Sets of rows by their positions, kept in a file: as a set of pairs would be, at any size."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refresher.model import TableName
from refresher.rowset import CHUNK, SEGMENT, RowSet
from refresher.subset import Level, Rows

CUSTOMER = TableName("public", "customer")
CHOSEN, MEMBER = Rows(CUSTOMER, Level.CHOSEN), Rows(CUSTOMER, Level.MEMBER)

positions = st.sets(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 291)), max_size=40)


def add(rows: RowSet, level: Rows, found: Iterable[tuple[int, int]]) -> None:
    for block, offset in found:
        rows.add(level, block // SEGMENT, bytes([block % SEGMENT]) + offset.to_bytes(2, "big"))


def read(array: str) -> list[tuple[int, int]]:
    assert re.fullmatch(r'\{("\(\d+,\d+\)"(,|(?=\})))*\}', array)
    return [(int(block), int(offset)) for block, offset in re.findall(r"\((\d+),(\d+)\)", array)]


@settings(max_examples=50)
@given(st.lists(positions, max_size=6))
def test_every_row_is_taken_once_however_often_it_is_found(
    tmp_path_factory: pytest.TempPathFactory, batches: list[set[tuple[int, int]]]
) -> None:
    known: set[tuple[int, int]] = set()
    with RowSet(tmp_path_factory.getbasetemp()) as rows:
        for batch in batches:
            add(rows, CHOSEN, batch)
            assert rows.fullest() == (CHOSEN if batch - known else None)
            taken = read(rows.take(CHOSEN))
            assert sorted(taken) == sorted(batch - known)
            known |= batch
        assert rows.count(CHOSEN) == len(known)
        assert [
            row for chunk in rows.chunks(CHOSEN) for row in read(rows.array(CHOSEN, chunk))
        ] == sorted(known)
        assert rows.fullest() is None


def test_a_member_is_chosen_and_a_chosen_row_may_become_a_member(tmp_path: Path) -> None:
    with RowSet(tmp_path) as rows:
        add(rows, CHOSEN, [(0, 1)])
        rows.take(CHOSEN)
        add(rows, MEMBER, [(0, 1), (0, 2)])
        assert read(rows.take(MEMBER)) == [(0, 1), (0, 2)]
        assert read(rows.take(CHOSEN)) == [(0, 2)]
        assert (rows.count(MEMBER), rows.count(CHOSEN)) == (2, 2)


def test_rows_that_nobody_asks_for_are_new_no_more_and_chosen(tmp_path: Path) -> None:
    with RowSet(tmp_path) as rows:
        add(rows, CHOSEN, [(0, 1), (300, 2)])
        rows.leave(CHOSEN)
        assert rows.fullest() is None
        assert rows.count(CHOSEN) == 2
        assert read(rows.take(CHOSEN)) == []


def test_tables_do_not_share_rows(tmp_path: Path) -> None:
    other = Rows(TableName("sales", "customer"), Level.CHOSEN)
    with RowSet(tmp_path) as rows:
        add(rows, CHOSEN, [(7, 3)])
        assert rows.count(other) == 0
        assert list(rows.chunks(other)) == []


def test_what_is_no_position_of_a_heap_is_refused_and_not_taken_for_another_row(
    tmp_path: Path,
) -> None:
    with RowSet(tmp_path) as rows:
        with pytest.raises(ValueError, match="offset 4000 in a block of at most 296 rows"):
            add(rows, CHOSEN, [(0, 4000)])
        assert rows.count(CHOSEN) == 0
    with RowSet(tmp_path, block_size=32768) as rows:
        add(rows, CHOSEN, [(0, 1169), (1, 1)])
        assert [read(rows.array(CHOSEN, chunk)) for chunk in rows.chunks(CHOSEN)] == [
            [(0, 1169), (1, 1)]
        ]


A_MILLION = """
import resource, sys
from pathlib import Path
from refresher.rowset import RowSet
from refresher.subset import Level, Rows

rows_of_a_table = Rows(None, Level.CHOSEN)
packed = bytes(part for block in range(256) for low in range(1, 62) for part in (block, 0, low))
for segments in 8, 65:
    with RowSet(Path(sys.argv[1])) as rows:
        for segment in range(segments):
            rows.add(rows_of_a_table, segment, packed)
        taken = []
        while rows.fullest():
            taken.append(rows.take(rows_of_a_table).count("("))
        chunks = [
            rows.array(rows_of_a_table, chunk).count("(") for chunk in rows.chunks(rows_of_a_table)
        ]
        assert sum(taken) == sum(chunks) == rows.count(rows_of_a_table) == segments * 256 * 61
    print(sum(taken), max(taken + chunks), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_million_rows_take_chunks_of_memory_and_no_more_than_fewer_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", A_MILLION, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    few, many = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert (few[0], many[0]) == (124_928, 1_015_040)
    assert max(few[1], many[1]) < CHUNK + 256 * 61
    assert many[2] - few[2] < 4 * 1024, "kilobytes that eight times as many rows take"


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    with RowSet(tmp_path) as rows:
        add(rows, CHOSEN, [(0, 1)])
    assert list(tmp_path.iterdir()) == []
