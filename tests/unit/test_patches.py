"""A patch, applied as a host applies it, gives the new tree and nothing else."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer.application import GIT_ENVIRONMENT, GIT_SETTINGS
from installer.manifest import Application, Patch
from installer.tools import ENVIRONMENT
from installer.tree import EXECUTABLE, FILE, LINK, scan
from packager import patches
from packager.errors import ProjectError, ToolError
from packager.patches import make_patch, summarise

pytestmark = pytest.mark.integration

Files = Mapping[str, tuple[str, bytes]]
"""Path to mode and content; a link's content is its target."""

BINARY = bytes(range(256)) * 4
TEXT = b"".join(b"line %d\n" % number for number in range(40))


def file(content: bytes) -> tuple[str, bytes]:
    return FILE, content


def program(content: bytes) -> tuple[str, bytes]:
    return EXECUTABLE, content


def link(target: str) -> tuple[str, bytes]:
    return LINK, target.encode()


def grow(root: Path, files: Files) -> Path:
    for path, (mode, content) in files.items():
        new = root / path
        new.parent.mkdir(parents=True, exist_ok=True)
        if mode == LINK:
            new.symlink_to(os.fsdecode(content))
        else:
            new.write_bytes(content)
            new.chmod(int(mode[-3:], 8))
    return root


def apply(patch: bytes, folder: Path, *, umask: int = 0o022) -> subprocess.CompletedProcess[bytes]:
    """Apply `patch` with the words that a host uses."""
    settings = [word for setting in GIT_SETTINGS for word in ("-c", setting)]
    return subprocess.run(
        ["git", *settings, "apply", "--whitespace=nowarn", "-p1", "-"],
        cwd=folder,
        input=patch,
        umask=umask,
        capture_output=True,
        check=False,
        env=ENVIRONMENT | GIT_ENVIRONMENT,
    )


def require_reproduction(before: Path, after: Path, staged: Path) -> tuple[Patch, bytes]:
    """Make the patch, apply it to a copy of `before` at `staged`, and compare with `after`."""
    patch, content = make_patch("v1", before, after)
    shutil.copytree(before, staged, symlinks=True)
    if content:
        done = apply(content, staged)
        assert done.returncode == 0, done.stderr
    assert scan(staged) == scan(after)
    application = Application("/opt/crm", scan(after), (patch,))
    assert application.tree_before(patch) == scan(before)
    assert patch.size == len(content)
    return patch, content


CASES: dict[str, tuple[Files, Files]] = {
    "text": ({"a/b.txt": file(TEXT)}, {"a/b.txt": file(TEXT.replace(b"line 7\n", b"seven\n"))}),
    "binary": ({"logo": file(BINARY)}, {"logo": file(BINARY[:300] + b"\0new\0" + BINARY[300:])}),
    "binary added and removed": ({"old": file(BINARY)}, {"new": file(BINARY[::-1])}),
    "large binary": (
        {"big": file(BINARY * 300)},
        {"big": file(BINARY * 150 + hashlib.shake_256(b"noise").digest(200_000) + BINARY * 100)},
    ),
    "text becoming binary": ({"a": file(TEXT)}, {"a": file(BINARY)}),
    "mode only": (
        {"run me": file(b"x\n"), "b": program(b"y")},
        {"run me": program(b"x\n"), "b": file(b"y")},
    ),
    "mode and content": ({"run": file(b"x\n")}, {"run": program(b"y\n")}),
    "mode of an empty file": ({"e": file(b"")}, {"e": program(b"")}),
    "file to link": ({"a": file(b"b")}, {"a": link("b")}),
    "link to file": ({"a": link("b")}, {"a": file(b"b")}),
    "link to another target": ({"a": link("b")}, {"a": link("../c d")}),
    "link to an unusual form of a target": (
        {"a": link("./b//c/"), "b": link("c")},
        {"a": link("b/c"), "b": link("./c/")},
    ),
    "link out of the tree": ({"a": link("/etc/passwd")}, {"a": link("/etc/passwd\n")}),
    "link to folder becoming the folder": (
        {"a/x": file(b"1"), "b": link("a")},
        {"b/x": file(b"1"), "a": link("b")},
    ),
    "rename": ({"a b/c": program(TEXT)}, {"d/e f": program(TEXT)}),
    "rename with edit": ({"a/c": file(TEXT)}, {"d/e": file(TEXT + b"more\n")}),
    "rename onto its own folder": ({"a/a": file(TEXT)}, {"a": file(TEXT)}),
    "rename into its own name": ({"a": file(TEXT)}, {"a/a/a": file(TEXT)}),
    "names exchanged": ({"a": file(TEXT), "b": file(BINARY)}, {"b": file(TEXT), "a": file(BINARY)}),
    "copies of one file": (
        {"a": file(TEXT)},
        {"b": file(TEXT), "c": file(TEXT), "d/a": file(TEXT)},
    ),
    "name in another case": ({"Readme": file(TEXT)}, {"README": file(TEXT)}),
    "everything removed": ({"a/b/c": file(TEXT), "d": link("a")}, {}),
    "folder to file": ({"a/b": file(b"1"), "a/c/d": file(b"2")}, {"a": file(b"3")}),
    "file to folder": ({"a": file(b"3")}, {"a/b": file(b"1"), "a/c/d": file(b"2")}),
    "folder to link": ({"a/b": file(b"1")}, {"a": link("elsewhere")}),
    "crlf": ({"a": file(b"1\r\n2\r\n3\r\n")}, {"a": file(b"1\r\ntwo\r\n3\r\n")}),
    "crlf to lf": ({"a": file(b"1\r\n2\r\n")}, {"a": file(b"1\n2\n")}),
    "mixed line ends": ({"a": file(b"1\r\n2\n3\r4\n\r")}, {"a": file(b"1\n2\r\n3\r4\n\r\n")}),
    "no final newline": (
        {"a": file(b"1\n2"), "b": file(b"1\n")},
        {"a": file(b"1\n2\n"), "b": file(b"1")},
    ),
    "empty files": ({"a": file(b""), "b": file(b"x")}, {"b": file(b""), "c d": file(b"")}),
    "trailing space": ({"a": file(b"x  \n\t\n")}, {"a": file(b"x   \n\t\n \n\n\n")}),
    "not utf-8": ({"a": file(b"\xff\xfe\n1\n")}, {"a": file(b"\xff\xfe\n2\n")}),
    "non-ascii names": ({"übung/ñ.sql": file(TEXT)}, {"übung/日本 語.sql": file(TEXT + b"x")}),
    "composed and decomposed names": ({"\u00fc": file(b"1\n")}, {"u\u0308": file(b"1\n")}),
    "odd names": (
        {"q\"uo'te": file(b"1"), "back\\slash": file(b"2"), "-rf": file(b"3"), "x b/x": file(b"4")},
        {
            "q\"uo'te": file(b"5"),
            "back\\slash": program(b"2"),
            "-rf": link("-"),
            "y b/y ": file(b""),
        },
    ),
    "names that only Windows reserves": (
        {"git~1": file(b"1\n"), "a:b": file(b"1\n"), ".git ": file(b""), "nul": file(b"1")},
        {"git~1": file(b"2\n"), "a:b": link("x"), "g\\.git": file(b"3"), "nul": file(b"2")},
    ),
    "dev null": ({"dev/null": file(b"1\n")}, {"dev/null": file(b""), "a/dev/null": file(b"2\n")}),
    "text like a diff": (
        {"a.diff": file(b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n-- \n2.39\n")},
        {
            "a.diff": file(
                b"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\nGIT binary patch\n\\ No\n"
            )
        },
    ),
    "very long lines": (
        {"min.js": file(b"x" * 300_000 + b"\ny")},
        {"min.js": file(b"x" * 300_001 + b"\ny" + b"z" * 100_000)},
    ),
    "git's own files": (
        {
            ".gitattributes": file(b"* text eol=crlf\n"),
            ".gitignore": file(b"*\n"),
            "a": file(b"1\n2\n"),
        },
        {
            ".gitattributes": file(b"* -diff -text\n*.c ident\n"),
            "a": file(b"1\n"),
            "b.c": file(b"$Id$\n"),
        },
    ),
    "first release": (
        {},
        {"a/b": file(TEXT), "bin/run": program(b"#!/bin/sh\n"), "l": link("a/b")},
    ),
    "nothing changed": ({"a": file(TEXT), "l": link("a")}, {"a": file(TEXT), "l": link("a")}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_patch_gives_the_new_tree(case: str, tmp_path: Path) -> None:
    (tmp_path / "after").mkdir()
    (tmp_path / "before").mkdir()
    before, after = (
        grow(tmp_path / name, files)
        for name, files in zip(("before", "after"), CASES[case], strict=True)
    )
    require_reproduction(before, after, tmp_path / "staged")


def test_equal_trees_give_an_empty_patch(tmp_path: Path) -> None:
    tree = grow(tmp_path / "tree", {"a": file(TEXT), "b": file(BINARY)})
    patch, content = make_patch("v1", tree, tree)
    assert content == b""
    assert (patch.size, patch.before, patch.added) == (0, (), ())


def test_an_absent_folder_is_the_empty_starting_point(tmp_path: Path) -> None:
    after = grow(tmp_path / "after", {"a/b": file(TEXT), "c": file(BINARY)})
    patch, content = make_patch("empty", tmp_path / "absent", after)
    (tmp_path / "staged").mkdir()
    assert apply(content, tmp_path / "staged").returncode == 0
    assert scan(tmp_path / "staged") == scan(after)
    assert (patch.name, patch.before, patch.added) == ("empty", (), ("a/b", "c"))


def test_a_patch_holds_what_changed_and_nothing_of_what_did_not(tmp_path: Path) -> None:
    kept: Files = {f"kept{number}": file(TEXT) for number in range(20)}
    before = grow(tmp_path / "before", {**kept, "gone": file(b"1\n"), "edited": file(b"2\n")})
    after = grow(tmp_path / "after", {**kept, "new": file(b"3\n"), "edited": file(b"4\n")})
    patch, content = require_reproduction(before, after, tmp_path / "staged")
    assert [entry.path for entry in patch.before] == ["edited", "gone"]
    assert patch.added == ("new",)
    assert b"kept" not in content


def test_the_bytes_of_a_patch_are_the_same_on_every_machine(tmp_path: Path) -> None:
    """Another version of git or zlib that fails here signs other releases than its colleagues."""
    before = grow(tmp_path / "before", CORPUS_BEFORE)
    after = grow(tmp_path / "after", CORPUS_AFTER)
    patch, _ = make_patch("v1", before, after)
    assert (patch.size, patch.digest) == (
        188_809,
        "b8621d3648bc188464d14ba5dc85139ef089ee83aa64ccccc93c93cb2e878d57",
    )


CORPUS_BEFORE: Files = {
    "app/main.py": file(b"".join(b"def f%d():\n    return %d\n\n" % (n, n) for n in range(300))),
    "app/moved.py": file(TEXT),
    "logo": file(b"".join(bytes([n % 251, 0]) for n in range(100_000))),
    "über/x": program(b"#!/bin/sh\n"),
}
CORPUS_AFTER: Files = {
    "app/main.py": file(
        b"".join(b"def f%d():\n    return %d\n\n" % (n, n + (n % 7 == 0)) for n in range(20, 310))
    ),
    "lib/moved.py": file(TEXT),
    "logo": file(b"".join(bytes([n % 251, 0]) for n in range(90_000)) + BINARY),
    "new": file(b"".join(bytes([n % 241, n % 7]) for n in range(70_000))),
    "über/x": link("../new"),
}


def test_nobody_s_configuration_changes_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = grow(tmp_path / "b", CORPUS_BEFORE), grow(tmp_path / "a", CORPUS_AFTER)
    _, plain = make_patch("v1", before, after)
    home = tmp_path / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/attributes").write_text("* -diff\nlogo diff=hex text\n")
    (home / ".gitconfig").write_text(
        "[diff]\nnoprefix = true\nalgorithm = patience\ncontext = 9\nrenames = copies\n"
        'external = /bin/false\n[diff "hex"]\ntextconv = hexdump\n'
        "[core]\nquotePath = false\nattributesFile = ~/.config/git/attributes\ncompression = 9\n"
        "autocrlf = true\nwhitespace = tab-in-indent\n[init]\ndefaultObjectFormat = sha256\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    _, configured = make_patch("v1", before, after)
    assert configured == plain


def test_attributes_in_the_trees_change_nothing_but_themselves(tmp_path: Path) -> None:
    attributes = {
        ".gitattributes": file(b"* -diff -text\n*.py diff=python eol=crlf ident\nlogo text\n")
    }
    plain = make_patch(
        "v1", grow(tmp_path / "b", CORPUS_BEFORE), grow(tmp_path / "a", CORPUS_AFTER)
    )
    before = grow(tmp_path / "b2", {**CORPUS_BEFORE, **attributes})
    after = grow(tmp_path / "a2", {**CORPUS_AFTER, **attributes})
    assert make_patch("v1", before, after) == plain


@pytest.mark.usefixtures("tight_umask")
def test_neither_umask_nor_place_changes_a_patch(tmp_path: Path) -> None:
    plain = make_patch(
        "v1", grow(tmp_path / "b", CORPUS_BEFORE), grow(tmp_path / "a", CORPUS_AFTER)
    )
    elsewhere = tmp_path / "some where" / "ü"
    before, after = grow(elsewhere / "b", CORPUS_BEFORE), grow(elsewhere / "a", CORPUS_AFTER)
    assert make_patch("v1", before, after) == plain
    assert os.fsencode(tmp_path) not in plain[1]


@pytest.fixture
def tight_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    yield
    os.umask(previous)


@pytest.mark.parametrize("where", ["above", "in the folder itself"])
def test_a_repository_does_not_fool_the_host(where: str, tmp_path: Path) -> None:
    """Its attributes would convert line ends, and below its top nothing would be applied."""
    files: Files = {".gitattributes": file(b"* text eol=crlf\n"), "a": file(b"1\n2\n")}
    before = grow(tmp_path / "before", files)
    after = grow(tmp_path / "after", {**files, "a": file(b"1\nII\n"), "b": file(b"new\n")})
    _, content = make_patch("v1", before, after)
    staged = tmp_path / "host" / "releases" / "staged"
    shutil.copytree(before, staged)
    repository = tmp_path / "host" if where == "above" else staged
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    shutil.copy(before / ".gitattributes", repository / ".git" / "info" / "attributes")
    assert apply(content, staged).returncode == 0
    shutil.rmtree(repository / ".git")
    assert scan(staged) == scan(after)


def test_a_patch_replaces_files_so_that_hard_links_to_them_keep_the_old_release(
    tmp_path: Path,
) -> None:
    before = grow(tmp_path / "before", CORPUS_BEFORE)
    after = grow(tmp_path / "after", CORPUS_AFTER)
    old = scan(before)
    shutil.copytree(before, tmp_path / "staged", symlinks=True, copy_function=os.link)
    assert apply(make_patch("v1", before, after)[1], tmp_path / "staged").returncode == 0
    assert scan(tmp_path / "staged") == scan(after)
    assert scan(before) == old


def test_a_patch_does_not_apply_to_a_file_that_was_edited_by_hand(tmp_path: Path) -> None:
    before = grow(tmp_path / "before", {"a": file(b"1\n2\n"), "b": file(b"1\n")})
    after = grow(tmp_path / "after", {"a": file(b"1\n3\n"), "b": file(b"2\n")})
    _, content = make_patch("v1", before, after)
    (before / "b").write_bytes(b"by hand\n")
    edited = scan(before)
    assert apply(content, before).returncode != 0
    assert scan(before) == edited


@pytest.mark.parametrize("name", [".git/config", "a/.GIT", "a/.Git/hooks/x", "a /b"])
def test_a_path_that_git_does_not_patch_is_refused_by_name(name: str, tmp_path: Path) -> None:
    after = grow(tmp_path / "after", {name: file(b"x")})
    with pytest.raises(ProjectError, match=name):
        make_patch("v1", tmp_path / "before", after)


def test_what_else_git_does_not_patch_is_refused_in_its_own_words(tmp_path: Path) -> None:
    after = grow(tmp_path / "after", {".gitmodules": link("x")})
    with pytest.raises(ToolError) as refused:
        make_patch("v1", tmp_path / "before", after)
    assert ".gitmodules" in refused.value.detail


def test_a_patch_that_is_larger_than_git_reads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "MAX_SIZE", 1000)
    after = grow(tmp_path / "after", {"a": file(TEXT * 4)})
    with pytest.raises(ProjectError, match="applies at most 1000"):
        make_patch("v1", tmp_path / "before", after)


def test_a_patch_that_does_not_give_the_new_tree_is_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "_DIFF", (*patches._DIFF, "--diff-filter=A"))
    before = grow(tmp_path / "before", {"a": file(TEXT)})
    after = grow(tmp_path / "after", {"a": file(BINARY), "b": file(TEXT)})
    with pytest.raises(ToolError) as refused:
        make_patch("v1", before, after)
    assert refused.value.detail.startswith("a: ")


def test_what_a_patch_does_is_said_path_by_path(tmp_path: Path) -> None:
    before = grow(
        tmp_path / "before",
        {
            "a.py": file(b"1\n"),
            "bin/run": file(b"x"),
            "old name": file(TEXT),
            "gone": file(b"x\n"),
            "z": file(b"both"),
            "same": file(b""),
        },
    )
    after = grow(
        tmp_path / "after",
        {
            "a.py": file(b"1\n2\n"),
            "bin/run": program(b"x"),
            "new name": file(TEXT),
            "new": file(b"xyz"),
            "z": link("x"),
            "same": file(b""),
        },
    )
    patch, _ = make_patch("v1", before, after)
    assert summarise(patch, scan(after)) == [
        "modified a.py, 2 -> 4 bytes",
        "modified bin/run, mode 100644 -> 100755",
        "removed gone",
        "added new, 3 bytes",
        "renamed old name -> new name",
        "modified z, mode 100644 -> 120000, 4 -> 1 bytes",
    ]


def test_of_several_equal_files_each_is_renamed_once(tmp_path: Path) -> None:
    before = grow(tmp_path / "before", {"a": file(TEXT), "b": file(TEXT), "e": file(b"")})
    after = grow(
        tmp_path / "after", {"c": file(TEXT), "d": file(TEXT), "f": file(TEXT), "g": file(b"")}
    )
    patch, _ = make_patch("v1", before, after)
    assert summarise(patch, scan(after)) == [
        "renamed a -> c",
        "renamed b -> d",
        "removed e",
        f"added f, {len(TEXT)} bytes",
        "added g, 0 bytes",
    ]


PARTS = st.one_of(
    st.sampled_from(["a", "b", "c", "a b", " b", "é", '"', "\\", "-", "a.b", ".gitattributes"]),
    st.text(
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/"),
        min_size=1,
        max_size=6,
    ),
).filter(lambda part: part not in {".", ".."} and part.casefold() != ".git" and part[-1] != " ")
CONTENTS = st.one_of(
    st.sampled_from([TEXT, BINARY, TEXT + b"x", b"", b"* text eol=crlf\n"]),
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"a", b"b\r", b"", b"c ", b"\0", b"-- ", b"@@ -1 +1 @@"])).map(
        b"\n".join
    ),
)
LEAVES = st.one_of(
    st.tuples(st.sampled_from([FILE, EXECUTABLE]), CONTENTS),
    st.tuples(
        st.just(LINK), st.binary(min_size=1, max_size=20).filter(lambda target: b"\0" not in target)
    ),
)
Node = tuple[str, bytes] | dict[str, "Node"]
TREES = st.dictionaries(
    PARTS,
    st.recursive(
        LEAVES, lambda node: st.dictionaries(PARTS, node, min_size=1, max_size=3), max_leaves=6
    ),
    max_size=5,
)


def flat(tree: Mapping[str, Node], above: str = "") -> Files:
    files: dict[str, tuple[str, bytes]] = {}
    for name, node in tree.items():
        files |= flat(node, f"{above}{name}/") if isinstance(node, dict) else {above + name: node}
    return files


@settings(max_examples=60, deadline=None)
@given(TREES, TREES)
def test_any_tree_is_patched_into_any_other(old: dict[str, Node], new: dict[str, Node]) -> None:
    with TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        before.mkdir()
        after.mkdir()
        grow(before, flat(old))
        grow(after, flat(new))
        made = require_reproduction(before, after, Path(folder, "staged"))
        assert make_patch("v1", before, after) == made
