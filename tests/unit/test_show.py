import pytest

from installer.manifest import Application, Patch
from installer.tree import Digest, Entry, by_path
from packager import show

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
