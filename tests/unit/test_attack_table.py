"""The tables of docs/explanation/attacks.md name tests and exit codes that there are."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from installer.errors import InstallerError

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/explanation/attacks.md"
SECTIONS = ("Signatures and roles", "Promotion", "Application", "Ledger")
HEADING = "| attack | what happens | tests |"
RULE = "| --- | --- | --- |"
TEST = re.compile(r"`((?:unit|integration|acceptance)/test_\w+\.py)::(test_\w+)`")
EXIT_CODES = {0} | {error.exit_code for error in InstallerError.__subclasses__()}


@dataclass(frozen=True, slots=True)
class Row:
    attack: str
    outcome: str
    tests: str


def section(title: str) -> str:
    """What stands below a heading, up to the next of its rank."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(f"\n## {title}\n") == 1, title
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[Row]:
    """The section's table, which may be wanting. No cell holds a bar."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    assert lines[:2] in ([], [HEADING, RULE]), title
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines[2:]]


ROWS = [row for title in SECTIONS for row in rows(title)]


def test_the_attacks_on_signatures_are_told_each_once() -> None:
    attacks = [row.attack for row in ROWS]

    assert rows("Signatures and roles")
    assert len(set(attacks)) == len(attacks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.attack))
def test_every_test_that_an_attack_is_told_to_have_exists(row: Row) -> None:
    named = TEST.findall(row.tests)

    assert named
    assert not TEST.sub("", row.tests).strip(), "something else than tests"
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.attack))
def test_every_exit_code_that_an_attack_is_told_to_have_is_one(row: Row) -> None:
    told = {int(code) for code in re.findall(r"\bexit (\d+)", row.outcome)}

    assert told or "known gap" in row.outcome
    assert told <= EXIT_CODES
