"""What is measured here against what was measured where the release was tested."""

from dataclasses import replace

import pytest

from installer.errors import SchemaDiffersError
from installer.fingerprint import LAYERS, Schema, schema_of
from installer.promotion import Measure
from tests.unit.test_receipt import AFTER, BEFORE, RECEIPT


def named(name: str) -> Schema:
    return schema_of(15, [("structure", "table", f"public.{name}", "()")])


START, END = named("start"), named("end")


def measure(*, online: bool = False) -> Measure:
    database = RECEIPT.database
    assert database is not None
    if online:
        database = replace(database, online=(START, END))
    return Measure(replace(RECEIPT, database=database), LAYERS)


def test_without_a_receipt_everything_may_be_as_it_is() -> None:
    free = Measure()
    free.require_scripts(["sql/any.sql"])
    for require in (
        free.require_start,
        free.require_before,
        free.require_after,
        free.require_end,
    ):
        require(START)


def test_the_scripts_that_ran_there_may_run_here() -> None:
    measure().require_scripts(["sql/0001.sql"])


@pytest.mark.parametrize("here", [[], ["sql/0002.sql"], ["sql/0001.sql", "sql/0002.sql"]])
def test_other_scripts_are_refused_with_both_lists(here: list[str]) -> None:
    with pytest.raises(SchemaDiffersError) as refused:
        measure().require_scripts(here)
    assert refused.value.exit_code == 35
    assert "QAT ran: sql/0001.sql" in refused.value.detail
    assert f"to run here: {', '.join(here) or 'none'}" in refused.value.detail


def test_the_schema_has_to_be_the_same_at_each_of_four_moments() -> None:
    there = measure(online=True)
    there.require_start(START)
    there.require_before(BEFORE)
    there.require_after(AFTER)
    there.require_end(END)


def test_without_online_scripts_the_start_is_before_the_transaction_and_the_end_after_it() -> None:
    there = measure()
    there.require_start(BEFORE)
    there.require_end(AFTER)
    with pytest.raises(SchemaDiffersError, match="had before this release: "):
        there.require_before(START)


def test_a_difference_says_at_which_moment_it_is() -> None:
    there, other = measure(online=True), named("other")
    with pytest.raises(SchemaDiffersError, match="not what QAT had before this release: "):
        there.require_start(other)
    with pytest.raises(SchemaDiffersError, match="had before this release's transaction: "):
        there.require_before(other)
    with pytest.raises(SchemaDiffersError, match="the release makes of the schema something else"):
        there.require_after(other)
    with pytest.raises(SchemaDiffersError, match="the online scripts make of the schema something"):
        there.require_end(other)
