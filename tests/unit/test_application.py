"""The application's root as the installer makes it, which runs with a umask that lets nobody in."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from installer.application import ApplicationFolder
from installer.errors import ApplicationError, ConfigurationError
from installer.manifest import Application, Patch
from installer.tree import EXECUTABLE, FILE, LINK, Entry, by_path, digest_of
from tests.applications import Release, folder, grow, hostile, install, release

FIRST = release("1.0", {"app": "1\n", "lib/a": "a\n", "lib/link": "-> a"})
SECOND = release("1.1", {"app": "2\n", "lib/a": "a\n", "lib/link": "-> a"}, FIRST)


@pytest.fixture(autouse=True)
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_application_s_user_can_enter_the_folders_above_the_root(tmp_path: Path) -> None:
    root = tmp_path / "products" / "sales" / "crm"

    ApplicationFolder(root).require_private()

    made = (root.parents[1], root.parent, root, root / "releases")
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o755] * 4


def test_an_install_that_is_taken_back_leaves_none_of_the_folders_that_it_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "products").mkdir()
    folder = ApplicationFolder(tmp_path / "products" / "sales" / "crm")
    folder.require_private()

    folder.discard("1.0")

    assert list((tmp_path / "products").iterdir()) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where 1.0 is installed."""
    install(folder(tmp_path / "products/crm"), FIRST)
    return tmp_path / "products/crm"


def below(top: Path) -> dict[str, tuple[int, str]]:
    """Everything below a folder: its mode, and its content or target."""
    found = {}
    for path in sorted(top.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = path.read_text()
        found[str(path.relative_to(top))] = (path.lstat().st_mode, content)
    return found


def refusal(root: Path, new: Release) -> str:
    """Assert that the release is not staged, and nothing is changed or left, outside neither."""
    top = root.parents[1]
    before = below(top)
    host = folder(root)
    with pytest.raises(ApplicationError) as refused:
        host.stage(new.application, new.version, new.content)
    host.discard(new.version)
    assert below(top) == before
    return f"{refused.value}\n{refused.value.detail}"


def edit(root: Path) -> str:
    (root / "current/app").write_text("by hand\n")
    return "app: expected 4355a46b19d348dc…, found "


def remove(root: Path) -> str:
    (root / "current/lib/a").unlink()
    return "lib/a: missing"


def add(root: Path) -> str:
    (root / "current/lib/b").write_text("b\n")
    return "lib/b: not part of the release"


def make_executable(root: Path) -> str:
    (root / "current/app").chmod(0o755)
    return "app: expected mode 100644, found 100755"


def make_setuid(root: Path) -> str:
    (root / "current/app").chmod(0o4755)
    return "app: expected mode 100644, found 104755"


def lead_elsewhere(root: Path) -> str:
    (root / "current/lib/link").unlink()
    (root / "current/lib/link").symlink_to("/etc/passwd")
    return "lib/link: expected "


def exchange_for_a_link(root: Path) -> str:
    (root / "current/app").unlink()
    (root / "current/app").symlink_to("lib/a")
    return "app: expected "


def exchange_a_folder_for_a_link(root: Path) -> str:
    (root / "current/lib").rename(root.parent / "lib")
    (root / "current/lib").symlink_to(root.parent / "lib")
    return "lib/a: missing"


def put_a_pipe(root: Path) -> str:
    os.mkfifo(root / "current/lib/pipe")
    return "lib/pipe: neither a file, a folder nor a symbolic link"


@pytest.mark.parametrize(
    "tamper",
    [
        edit,
        remove,
        add,
        make_executable,
        make_setuid,
        lead_elsewhere,
        exchange_for_a_link,
        exchange_a_folder_for_a_link,
        put_a_pipe,
    ],
)
def test_a_tree_that_was_changed_by_hand_is_refused_and_the_file_named(
    root: Path, tamper: Callable[[Path], str]
) -> None:
    named = tamper(root)

    assert named in refusal(root, SECOND)
    with pytest.raises(ApplicationError):
        folder(root).require_whole(FIRST.application)


def entries(**contents: tuple[str, str]) -> dict[str, Entry]:
    """A tree; each path has a mode and a content."""
    return by_path(
        Entry(path, mode, len(content), digest_of(content.encode()))
        for path, (mode, content) in contents.items()
    )


NEW_FILE = """\
diff --git a/{path} b/{path}
new file mode {mode}
--- /dev/null
+++ b/{path}
@@ -0,0 +1 @@
+evil
"""
LINK_OUT = """\
diff --git a/out b/out
new file mode 120000
--- /dev/null
+++ b/out
@@ -0,0 +1 @@
+{target}
\\ No newline at end of file
"""


@pytest.mark.parametrize(
    "path", ["../evil", "../../../evil", "lib/../../evil", "/evil", ".git/config", ".GIT/x"]
)
def test_a_patch_that_leads_out_of_the_root_writes_nothing(tmp_path: Path, path: str) -> None:
    root = grow(tmp_path / "products/crm", {})
    root.chmod(0o755)
    patch = NEW_FILE.format(path=path, mode=FILE)

    words = refusal(root, hostile("1.0", entries(evil=(FILE, "evil\n")), patch))

    assert "patch does not apply" in words or "files differ" in words


def test_a_patch_that_writes_through_a_link_of_its_own_writes_nothing(tmp_path: Path) -> None:
    root = grow(tmp_path / "products/crm", {})
    root.chmod(0o755)
    elsewhere = grow(tmp_path / "elsewhere", {"kept": "kept"})
    patch = LINK_OUT.format(target=elsewhere) + NEW_FILE.format(path="out/evil", mode=FILE)

    words = refusal(root, hostile("1.0", entries(out=(LINK, str(elsewhere))), patch))

    assert "out/evil" in words


def test_a_patch_that_writes_through_a_link_of_the_current_tree_writes_nothing(
    tmp_path: Path,
) -> None:
    elsewhere = grow(tmp_path / "elsewhere", {"kept": "kept"})
    root = tmp_path / "products/crm"
    first = release("1.0", {"app": "1\n", "out": f"-> {elsewhere}"})
    install(folder(root), first)
    patch = NEW_FILE.format(path="out/evil", mode=FILE).encode()
    named = Patch("1.0", digest_of(patch), len(patch), (), ("new",))
    tree = {**first.application.tree, **entries(new=(FILE, "evil\n"))}
    second = Release("1.1", {}, Application("/opt/crm", tree, (named,)), (patch,))

    assert "patch does not apply" in refusal(root, second)


@pytest.mark.parametrize("mode", ["020666", "060660", "010644", "140755", "104755", "100666"])
def test_a_patch_that_makes_a_device_a_pipe_or_a_setuid_file_makes_a_plain_one(
    tmp_path: Path, mode: str
) -> None:
    root = grow(tmp_path / "products/crm", {})
    root.chmod(0o755)
    patch = NEW_FILE.format(path="app", mode=mode)
    signed = EXECUTABLE if mode.endswith("755") else FILE

    install(folder(root), hostile("1.0", entries(app=(signed, "evil\n")), patch))

    assert f"{(root / 'current/app').stat().st_mode:o}" == signed


def test_a_release_that_changes_nothing_of_the_application_needs_no_patch(root: Path) -> None:
    same = release("1.1", FIRST.files)

    install(folder(root), same)

    folder(root).require_whole(same.application)
    assert folder(root).current_version() == "1.1"


def test_a_release_is_not_staged_over_the_current_tree_of_its_version(root: Path) -> None:
    other = release("1.0", {"app": "other\n"}, FIRST)

    assert "current is 1.0 already, with another tree" in refusal(root, other)


def test_a_patch_that_gives_another_tree_than_was_signed_is_refused(tmp_path: Path) -> None:
    root = grow(tmp_path / "products/crm", {})
    root.chmod(0o755)
    patch = NEW_FILE.format(path="app", mode=EXECUTABLE)

    words = refusal(root, hostile("1.0", entries(app=(FILE, "evil\n")), patch))

    assert "1.0 as staged: 1 files differ" in words
    assert "app: expected mode 100644, found 100755" in words


def test_a_host_without_the_application_is_told_what_the_release_starts_from(
    tmp_path: Path,
) -> None:
    root = grow(tmp_path / "products/crm", {})
    root.chmod(0o755)
    only_upgrade = release("1.1", SECOND.files, FIRST, empty=False)

    words = refusal(root, only_upgrade)

    assert "this host has no application; the release starts from: 1.0" in words


def test_a_current_that_this_tool_did_not_make_is_refused(root: Path) -> None:
    (root / "current").unlink()
    (root / "current").symlink_to("/etc")
    with pytest.raises(ApplicationError, match="does not lead to a release below"):
        folder(root).stage(SECOND.application, "1.1", SECOND.content)

    (root / "current").unlink()
    (root / "current").mkdir()
    with pytest.raises(ApplicationError, match="is not a symbolic link"):
        folder(root).stage(SECOND.application, "1.1", SECOND.content)

    assert [path.name for path in (root / "releases").iterdir()] == ["1.0"]


def test_a_root_that_others_can_write_to_is_refused_with_the_command(root: Path) -> None:
    root.chmod(0o775)

    with pytest.raises(ConfigurationError, match=r"chown root .* && chmod 755"):
        folder(root).stage(SECOND.application, "1.1", SECOND.content)

    assert [path.name for path in (root / "releases").iterdir()] == ["1.0"]
