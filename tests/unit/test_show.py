from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from installer.bundle import Bundle, Head, Section
from installer.manifest import (
    Accepted,
    Application,
    Database,
    Online,
    Patch,
    Script,
)
from installer.tree import Digest, Entry, by_path
from packager import show
from packager.package_reader import PackageInfo
from packager.project import Project
from packager.release import Release
from tests.manifests import a_manifest

NOT_ONE = "This release is not one transaction"
D, OTHER = Digest("0" * 64), Digest("1" * 64)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("größe — 日本\nnext", "größe — 日本\nnext"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("invoice\u202etxt.exe", "invoice\\u202etxt.exe"),
        ("half \udcff", "half \\udcff"),
    ],
)
def test_a_name_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert show.printable(text) == shown


def test_a_program_learns_what_a_patch_does() -> None:
    tree = by_path([Entry("new", "100644", 1, D), Entry("same", "100644", 1, D)])
    before = (Entry("gone", "100644", 1, D), Entry("same", "100644", 1, OTHER))
    patch = Patch("v1", D, 1, before, ("new",))

    assert show.changes(Application("/opt/crm", tree, (patch,)), patch) == {
        "added": ["new"],
        "changed": ["same"],
        "removed": ["gone"],
    }


def test_a_long_list_of_changes_is_cut_short() -> None:
    assert show.shortened(["a"]) == ["a"]
    assert show.shortened(list("abcdefgh")) == [*"abcde", "and 3 more"]


BEFORE = Script("sql/1.sql", D, 9, (0,), online=Online("before", repeat=True, indexes=()))
PLAIN = Script("sql/2.sql", D, 9, (0, 3))
AFTER = Script("sql/3.sql", D, 9, (0, 3), online=Online("after", repeat=False, indexes=()))
MANIFEST = a_manifest(database=Database("crm", (BEFORE, PLAIN, AFTER), ()))
SPEC = Project(
    file=Path("release.toml"),
    name="crm",
    version="1.0",
    sequence=1,
    summary="CRM",
    description="",
    license="Proprietary",
    vcs="git",
    to="v1",
    signed_tag=False,
    application=None,
    database=None,
    package_key=None,
)


INFO = PackageInfo("deb", "crm", {})
BUNDLE = Bundle(Head(b"{}", {}), Section(BytesIO(), 0, 0))


LINES = (
    (
        "sql/1.sql runs before the transaction, its one statement by itself, again and again until "
        "it processes no row"
    ),
    "sql/3.sql runs after the transaction, each of its 2 statements by itself",
)


def planned(**pending: tuple[Script, ...]) -> dict[str, tuple[str, ...]]:
    """The sections of a plan, by title, from starting points with these scripts to run."""
    sections = show.show_plan(Release(SPEC, MANIFEST, b"", b"", pending, ()))
    return {section.title: section.lines for section in sections}


def test_each_accepted_change_is_told_in_words_by_plan_and_package() -> None:
    old = (Digest("3f" * 32), Digest("9a" * 32))
    accept = (
        Accepted("sql/1.sql", "edited", old, "a comment only"),
        Accepted("sql/0.sql", "removed", old[:1], "merged into sql/1.sql"),
        Accepted("sql/2.sql", "late", (), "touches nothing else"),
        Accepted("sql/3.sql", "reordered", (), "to\u202eo\x1b[2J late"),
    )
    manifest = replace(MANIFEST, database=Database("crm", (BEFORE, PLAIN, AFTER), (), accept))
    plan = show.show_plan(Release(SPEC, manifest, b"", b"", {}, ()))
    now = f"{D[:16]}…"

    for sections in (plan, show.show_package(INFO, BUNDLE, manifest)):
        told = {section.title: section.lines for section in sections}
        assert told["Changes of released scripts that are accepted"] == (
            (
                "sql/1.sql: edited after it was released: "
                f"applied as 3f3f3f3f3f3f3f3f… or 9a9a9a9a9a9a9a9a…, now {now}: a comment only"
            ),
            (
                "sql/0.sql: removed after it was released: "
                "applied as 3f3f3f3f3f3f3f3f…: merged into sql/1.sql"
            ),
            f"sql/2.sql: new, and sorts before a released one: {now}: touches nothing else",
            (
                f"sql/3.sql: at another place than it was released with: {now}: "
                "to\\u202eo\\x1b[2J late"
            ),
        )


def test_a_plan_says_which_scripts_are_outside_of_the_transaction() -> None:
    assert planned(v1=(AFTER,), empty=(BEFORE, PLAIN, AFTER))[NOT_ONE] == LINES
    assert planned(v1=(AFTER,), v2=())[NOT_ONE] == LINES[1:]


def test_a_plan_whose_online_scripts_have_all_run_is_one_transaction() -> None:
    assert NOT_ONE not in planned(v1=(PLAIN,), v2=())


def test_a_package_says_which_scripts_are_outside_of_the_transaction() -> None:
    title = "Outside of the transaction, where they have yet to run"
    assert [s.lines for s in show.show_package(INFO, BUNDLE, MANIFEST) if s.title == title] == [
        LINES
    ]
    plain = replace(MANIFEST, database=Database("crm", (PLAIN,), ()))
    assert title not in [s.title for s in show.show_package(INFO, BUNDLE, plain)]
