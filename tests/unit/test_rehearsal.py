"""What a rehearsal concludes, without a server."""

from dataclasses import replace

import pytest

from installer.fingerprint import schema_of
from installer.manifest import Database, Rehearsal
from installer.tree import Digest
from packager.errors import RehearsalError
from packager.rehearsal import Standing, require_no_op, way_out
from packager.rehearsed import Record, merged
from packager.show import rehearsal_words
from tests.manifests import a_manifest

BEFORE = schema_of(15, [["structure", "table", "public.a", "(i)"]])
AFTER = schema_of(15, [["structure", "table", "public.a", "(i, j)"]])
ROWS = [{"id": 1, "event": "release applied"}]
D, OTHER = Digest("0" * 64), Digest("1" * 64)


def test_a_release_that_changes_nothing_the_second_time_is_fine() -> None:
    require_no_op(Standing(ROWS, BEFORE), Standing(ROWS, BEFORE), "v1")


@pytest.mark.parametrize(
    "second, words",
    [
        (Standing([*ROWS, {"id": 2}], BEFORE), "the ledger had 1 rows, and has 2"),
        (Standing(ROWS, AFTER), "it has changed the schema"),
    ],
)
def test_a_release_that_does_something_the_second_time_is_refused(
    second: Standing, words: str
) -> None:
    with pytest.raises(RehearsalError, match=f"from v1: installed a second time, .*{words}"):
        require_no_op(Standing(ROWS, BEFORE), second, "v1")


def test_a_failure_that_is_known_comes_with_ways_out() -> None:
    assert "[[database.online]]" in way_out('unsafe use of new value "x" of enum type t')
    assert way_out('role "app" does not exist').endswith("--role app")
    assert way_out("division by zero") == ""


def run(start: str, milliseconds: int) -> dict[str, object]:
    return {"start": start, "milliseconds": milliseconds}


def test_what_was_rehearsed_before_stays_and_what_is_new_takes_its_place() -> None:
    before = Record(D, 15, (run("a copy", 1), run("empty", 2)))

    assert merged(Record(D, 15, (run("empty", 3),)), before).runs == (
        run("a copy", 1),
        run("empty", 3),
    )


@pytest.mark.parametrize("before", [None, Record(OTHER, 15, (run("v1", 1),)), Record(D, 14, ())])
def test_nothing_stays_of_another_release_or_major_version(before: Record | None) -> None:
    new = Record(D, 15, (run("empty", 3),))

    assert merged(new, before) == new


def test_a_manifest_says_in_words_how_it_was_rehearsed() -> None:
    database = Database("crm", (), ())
    manifest = a_manifest(database=database)
    rehearsal = Rehearsal(15, ("empty", "v1\x1b[31m"))
    said = replace(manifest, database=replace(database, rehearsal=rehearsal))

    assert rehearsal_words(manifest) == "not rehearsed"
    assert rehearsal_words(said) == "rehearsed on PostgreSQL 15 from empty, v1\\x1b[31m"
