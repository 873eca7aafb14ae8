import re
import tomllib
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.errors import ConfigurationError, DowngradeError, PlanDivergedError
from installer.manifest import Accepted, Content, Database, Manifest, Online, Script, Source
from installer.planning import (
    names_to_run,
    pending_scripts,
    phases,
    require_none_online,
    require_not_older,
)
from installer.tree import Digest, digest_of


def script(name: str, content: bytes = b"SELECT 1;") -> Script:
    return Script(name, digest_of(content), len(content), (0,))


def database(*scripts: Script, accept: tuple[Accepted, ...] = ()) -> Database:
    return Database("crm", scripts, (), accept)


def applied(*scripts: Script) -> dict[str, Digest]:
    return {script.name: script.digest for script in scripts}


ONE, TWO, THREE = script("sql/1.sql"), script("sql/2.sql"), script("sql/3.sql")
RELEASE = Manifest(
    digest=digest_of(b"manifest"),
    product="crm",
    version="1.4.0",
    sequence=14,
    summary="Order history",
    source=Source("git", "v1.4.0", "0" * 40, 0),
    application=None,
    database=database(ONE),
    content=Content("xz", digest_of(b""), 0),
)
OTHER = digest_of(b"another manifest")


def refusal(release: Database, already: dict[str, Digest]) -> tuple[str, list[str]]:
    with pytest.raises(PlanDivergedError) as caught:
        pending_scripts(release, already)
    assert caught.value.exit_code == 32
    return str(caught.value), [line.strip() for line in caught.value.detail.splitlines()]


def test_a_new_database_gets_every_script_in_the_order_of_the_release() -> None:
    for order in permutations((ONE, TWO, THREE)):
        assert pending_scripts(database(*order), {}) == order


def test_a_database_gets_what_it_has_not_had() -> None:
    assert pending_scripts(database(ONE, TWO, THREE), applied(ONE)) == (TWO, THREE)


def test_a_database_that_has_had_everything_gets_nothing() -> None:
    assert pending_scripts(database(ONE, TWO), applied(TWO, ONE)) == ()


def test_a_release_without_scripts_fits_a_database_that_has_had_none() -> None:
    assert pending_scripts(database(), {}) == ()


def entry(detail: list[str]) -> dict[str, object]:
    """The entry of release.toml that a message prints, as TOML reads it."""
    lines = detail[detail.index("[[database.accept]]") :]
    found: dict[str, object] = tomllib.loads("\n".join(lines))["database"]["accept"][0]
    return found


def accepted(script: Script, change: str, *digests: Digest) -> tuple[Accepted, ...]:
    return (Accepted(script.name, change, digests, "agreed"),)


def test_an_edited_script_is_refused_with_both_digests() -> None:
    edited = script(ONE.name, b"SELECT 2;")
    message, detail = refusal(database(edited, TWO), applied(ONE))
    assert message == (
        "sql/1.sql was edited after it was released: "
        f"applied as {ONE.digest[:16]}…, now {edited.digest[:16]}…"
    )
    assert detail[0].startswith("Restore it as it was applied, and put the change in a new script")
    assert entry(detail) == {
        "script": "sql/1.sql",
        "change": "edited",
        "applied": [ONE.digest],
        "digest": edited.digest,
        "reason": "…",
    }


def test_what_to_write_for_a_name_beyond_ascii_is_read_by_toml() -> None:
    named = script("sql/\N{PARTY POPPER}.sql")
    _, detail = refusal(database(), applied(named))
    assert entry(detail)["script"] == named.name


def test_an_applied_script_that_the_release_lacks_is_refused() -> None:
    message, detail = refusal(database(TWO), applied(ONE))
    assert message == f"sql/1.sql was applied as {ONE.digest[:16]}… and is not in this release"
    assert detail[0].startswith("Restore it under this name: a release has all scripts since")
    assert entry(detail) == {
        "script": "sql/1.sql",
        "change": "removed",
        "applied": [ONE.digest],
        "reason": "…",
    }


def test_a_script_that_sorts_before_applied_ones_is_refused_with_what_to_write() -> None:
    message, detail = refusal(database(ONE, TWO, THREE), applied(ONE, THREE))
    assert message == "sql/2.sql is new and sorts before sql/3.sql, which was applied"
    assert entry(detail) == {
        "script": "sql/2.sql",
        "change": "late",
        "digest": TWO.digest,
        "reason": "…",
    }


def test_the_last_applied_script_is_the_one_named() -> None:
    message, _ = refusal(database(ONE, TWO, THREE), applied(TWO, THREE))
    assert message == "sql/1.sql is new and sorts before sql/3.sql, which was applied"


def test_a_late_script_that_the_release_accepts_runs_in_its_place() -> None:
    release = database(ONE, TWO, THREE, accept=accepted(ONE, "late"))
    assert pending_scripts(release, applied(TWO)) == (ONE, THREE)


def test_accepting_one_late_script_accepts_no_other() -> None:
    release = database(ONE, TWO, THREE, accept=accepted(ONE, "late"))
    assert "sql/2.sql" in refusal(release, applied(THREE))[0]


def test_an_edited_script_that_the_release_accepts_does_not_run_again() -> None:
    edited = script(ONE.name, b"SELECT 2;")
    release = database(edited, TWO, accept=accepted(ONE, "edited", ONE.digest))
    assert pending_scripts(release, applied(ONE)) == (TWO,)
    assert pending_scripts(release, {}) == (edited, TWO)
    assert pending_scripts(release, applied(edited)) == (TWO,)


def test_an_edit_is_accepted_by_digest_only() -> None:
    edited, other = script(ONE.name, b"SELECT 2;"), script(ONE.name, b"SELECT 3;")
    release = database(edited, accept=accepted(ONE, "edited", ONE.digest))
    assert "edited" in refusal(release, applied(other))[0]


def test_a_script_that_is_gone_may_have_been_applied_where_that_is_accepted_by_digest() -> None:
    release = database(TWO, accept=accepted(ONE, "removed", ONE.digest))
    assert pending_scripts(release, applied(ONE)) == (TWO,)
    other = script(ONE.name, b"SELECT 3;")
    assert "is not in this release" in refusal(release, applied(other))[0]


@pytest.mark.parametrize("change", ["late", "removed", "reordered"])
def test_accepting_one_change_of_a_script_accepts_no_other(change: str) -> None:
    edited = script(ONE.name, b"SELECT 2;")
    release = database(edited, accept=accepted(ONE, change, ONE.digest))
    assert "edited" in refusal(release, applied(ONE))[0]


def test_an_online_script_is_never_late() -> None:
    """Those that come after the transaction run behind later ones; a rerun has to go on."""
    online = replace(ONE, online=Online("after", repeat=False, indexes=()))
    assert pending_scripts(database(online, TWO), applied(TWO)) == (online,)


def test_an_online_script_that_ran_ahead_makes_no_other_late() -> None:
    online = replace(TWO, online=Online("before", repeat=False, indexes=()))
    assert pending_scripts(database(ONE, online), applied(TWO)) == (ONE,)


def test_a_reordered_script_is_refused_where_the_order_was_released() -> None:
    release, order = database(TWO, THREE, ONE), [ONE.name, TWO.name, THREE.name]
    assert pending_scripts(release, applied(ONE, TWO, THREE)) == ()

    with pytest.raises(PlanDivergedError) as refused:
        pending_scripts(release, applied(ONE, TWO, THREE), order)

    assert str(refused.value) == (
        "sql/1.sql ran before sql/2.sql when it was released, and comes after it now"
    )
    detail = [line.strip() for line in refused.value.detail.splitlines()]
    assert entry(detail)["change"] == "reordered"
    assert entry(detail)["digest"] == ONE.digest
    fine = database(TWO, THREE, ONE, accept=accepted(ONE, "reordered"))
    assert pending_scripts(fine, applied(ONE, TWO, THREE), order) == ()


def test_a_script_that_comes_earlier_now_is_told_with_the_nearest_that_it_passed() -> None:
    release, order = database(THREE, ONE, TWO), [ONE.name, TWO.name, THREE.name]
    with pytest.raises(PlanDivergedError) as refused:
        pending_scripts(release, applied(ONE, TWO, THREE), order)
    assert str(refused.value) == (
        "sql/3.sql ran after sql/2.sql when it was released, and comes before it now"
    )


def test_a_moved_script_is_told_with_one_that_has_kept_its_place() -> None:
    four = script("sql/4.sql")
    release = database(four, THREE, ONE, TWO)
    order = [ONE.name, TWO.name, THREE.name, four.name]
    with pytest.raises(PlanDivergedError) as refused:
        pending_scripts(release, applied(ONE, TWO, THREE, four), order)
    told = [line for line in refused.value.detail.splitlines() if line.startswith("sql/")]
    assert told == [
        "sql/3.sql ran after sql/2.sql when it was released, and comes before it now",
        "sql/4.sql ran after sql/2.sql when it was released, and comes before it now",
    ]


@pytest.mark.parametrize("moved", [ONE, TWO])
def test_of_two_that_changed_places_either_may_be_the_one_that_is_accepted(moved: Script) -> None:
    release = database(TWO, ONE, THREE, accept=accepted(moved, "reordered"))
    order = [ONE.name, TWO.name, THREE.name]
    assert pending_scripts(release, applied(ONE, TWO, THREE), order) == ()


def test_new_and_removed_scripts_reorder_nothing() -> None:
    accept = accepted(TWO, "removed", TWO.digest)
    release = database(ONE, THREE, script("sql/4.sql"), accept=accept)
    order = [ONE.name, TWO.name, THREE.name]
    assert [s.name for s in pending_scripts(release, applied(ONE, TWO, THREE), order)] == [
        "sql/4.sql"
    ]


@given(st.permutations(range(7)))
def test_as_few_scripts_as_can_be_are_told_to_have_another_place(order: list[int]) -> None:
    scripts = [script(f"sql/{number}.sql") for number in range(7)]
    told: set[str] = set()
    try:
        pending_scripts(database(*scripts), applied(*scripts), [scripts[n].name for n in order])
    except PlanDivergedError as refused:
        told = set(re.findall(r"(sql/\d\.sql) ran ", f"{refused}\n{refused.detail}"))
    rest = [number for number in order if f"sql/{number}.sql" not in told]
    assert rest == sorted(rest)
    longest = max(len(c) for n in range(8) for c in combinations(order, n) if list(c) == sorted(c))
    assert len(rest) == longest


def test_phases_are_before_in_and_after_the_transaction() -> None:
    before, after = (
        replace(s, online=Online(when, repeat=False, indexes=()))
        for s, when in ((THREE, "before"), (ONE, "after"))
    )
    assert phases([after, TWO, before]) == ((before,), (TWO,), (after,))
    assert names_to_run(["sql/0.sql"], [after, TWO, before]) == [
        "sql/0.sql",
        before.name,
        TWO.name,
        after.name,
    ]


def test_a_policy_that_allows_no_online_script_names_those_that_there_are() -> None:
    require_none_online([ONE, TWO], "PRD")
    one, two = (replace(s, online=Online("after", repeat=False, indexes=())) for s in (ONE, THREE))
    with pytest.raises(ConfigurationError) as refused:
        require_none_online([one, TWO, two], "PRD")
    assert str(refused.value) == (
        "PRD allows no scripts outside of the release's transaction, and this release has "
        "sql/1.sql, sql/3.sql"
    )
    assert refused.value.detail == "The policy allows them with online = true in [require.PRD]."


def test_every_offender_is_told_at_once() -> None:
    edited, unknown = script(TWO.name, b"SELECT 2;"), script("sql/0.sql")
    message, detail = refusal(database(ONE, edited, THREE), applied(TWO, unknown))
    assert message == "3 scripts disagree with what was applied"
    assert [line.partition(": ")[0] for line in detail if line.startswith("sql/")] == [
        "sql/2.sql was edited after it was released",
        f"sql/0.sql was applied as {unknown.digest[:16]}… and is not in this release",
        "sql/1.sql is new and sorts before sql/2.sql, which was applied",
    ]


def test_a_first_release_is_not_older_than_anything() -> None:
    require_not_older(RELEASE, None, None, None)


def test_the_same_release_may_come_again() -> None:
    require_not_older(RELEASE, RELEASE, RELEASE.sequence, RELEASE.digest)


def test_a_later_release_may_come() -> None:
    before = replace(RELEASE, sequence=13, digest=OTHER)
    require_not_older(RELEASE, before, 12, OTHER)


def test_an_older_release_than_the_installed_one_is_refused() -> None:
    after = replace(RELEASE, version="1.5.0", sequence=15, digest=OTHER)
    with pytest.raises(DowngradeError) as caught:
        require_not_older(RELEASE, after, None, None)
    assert str(caught.value) == "it has sequence 14, and this host (crm 1.5.0) is at 15 already"
    assert caught.value.exit_code == 24


def test_an_older_release_than_the_ledger_has_is_refused_on_a_new_host() -> None:
    with pytest.raises(DowngradeError, match="the ledger of the database is at 15 already"):
        require_not_older(RELEASE, None, 15, OTHER)


def test_another_release_with_the_same_sequence_is_refused_in_words_of_its_own() -> None:
    twin = replace(RELEASE, digest=OTHER)
    with pytest.raises(DowngradeError) as caught:
        require_not_older(RELEASE, twin, None, None)
    assert str(caught.value) == (
        "another release with its sequence, 14, is on this host (crm 1.4.0): "
        f"that one's manifest is {OTHER[:16]}…, this one's {RELEASE.digest[:16]}…"
    )


def test_a_sequence_without_its_manifest_is_not_taken_for_the_same_release() -> None:
    with pytest.raises(DowngradeError, match="that one's manifest is unknown"):
        require_not_older(RELEASE, RELEASE, 14, None)
