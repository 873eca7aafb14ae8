"""The crash matrix of docs/explanation/atomicity.md names tests and exit codes that there are."""

import re

import pytest

from tests.unit.test_assurance import EXIT_CODES, ROOT, TEST

DOCUMENT = ROOT / "docs/explanation/atomicity.md"
HEADING = "| what happens | when | what stands | the rerun | tests |"


def rows() -> list[tuple[str, ...]]:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    begun = lines.index(HEADING) + 2
    table = [line for line in lines[begun:] if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table]


ROWS = rows()


def test_each_crash_is_told_once() -> None:
    assert len(ROWS) > 20
    assert len({row[:3] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_every_crash_is_tested_by_tests_that_exist(row: tuple[str, ...]) -> None:
    named = TEST.findall(row[-1])

    assert named
    assert not TEST.sub("", row[-1]).strip(), "something else than tests"
    for file, test in named:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", text, re.MULTILINE), test


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_every_exit_code_of_the_matrix_is_one(row: tuple[str, ...]) -> None:
    told = {int(code) for code in re.findall(r"exit code (\d+)", " ".join(row))}
    assert told <= EXIT_CODES
