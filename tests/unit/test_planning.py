from dataclasses import replace
from itertools import permutations

import pytest

from installer.errors import DowngradeError, PlanDivergedError
from installer.manifest import Accepted, Content, Database, Manifest, Script, Source
from installer.planning import pending_scripts, require_not_older
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


def test_an_edited_script_is_refused_with_both_digests() -> None:
    edited = script(ONE.name, b"SELECT 2;")
    message, detail = refusal(database(edited, TWO), applied(ONE))
    assert message == (
        "sql/1.sql was edited after it was released: "
        f"applied as {ONE.digest[:16]}…, now {edited.digest[:16]}…"
    )
    assert detail == ["Restore it as it was applied, and put the change in a new script."]


def test_an_applied_script_that_the_release_lacks_is_refused() -> None:
    message, detail = refusal(database(TWO), applied(ONE))
    assert message == f"sql/1.sql was applied as {ONE.digest[:16]}… and is not in this release"
    assert detail == ["Restore it under this name: a release has all scripts since the first."]


def test_a_script_that_sorts_before_applied_ones_is_refused_with_what_to_write() -> None:
    message, detail = refusal(database(ONE, TWO, THREE), applied(ONE, THREE))
    assert message == "sql/2.sql is new and sorts before sql/3.sql, which was applied"
    assert detail[1:] == ["[[database.accept]]", 'script = "sql/2.sql"', 'reason = "…"']


def test_the_last_applied_script_is_the_one_named() -> None:
    message, _ = refusal(database(ONE, TWO, THREE), applied(TWO, THREE))
    assert message == "sql/1.sql is new and sorts before sql/3.sql, which was applied"


def test_a_late_script_that_the_release_accepts_runs_in_its_place() -> None:
    release = database(ONE, TWO, THREE, accept=(Accepted(ONE.name, "touches nothing else"),))
    assert pending_scripts(release, applied(TWO)) == (ONE, THREE)


def test_accepting_one_late_script_accepts_no_other() -> None:
    release = database(ONE, TWO, THREE, accept=(Accepted(ONE.name, "touches nothing else"),))
    assert "sql/2.sql" in refusal(release, applied(THREE))[0]


def test_accepting_a_script_does_not_allow_to_edit_it() -> None:
    edited = script(ONE.name, b"SELECT 2;")
    release = database(edited, accept=(Accepted(ONE.name, "touches nothing else"),))
    assert "edited" in refusal(release, applied(ONE))[0]


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
