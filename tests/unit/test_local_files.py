"""Files that are a host's own, in trees that releases replace."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from installer.application import ApplicationFolder
from installer.below import Below
from installer.errors import ApplicationError, NotSwitchedError
from tests.applications import Release, folder, grow, install, release

CONFIG = "config/app.toml"
FIRST = release("1.0", {"app": "1\n", CONFIG: "port = 1\n", "uploads/.keep": ""})
SECOND = release("1.1", {"app": "2\n", CONFIG: "port = 2\n", "uploads/.keep": ""}, FIRST)
THIRD = release("1.2", {"app": "3\n", CONFIG: "port = 3\nnew = 1\n", "uploads/.keep": ""}, SECOND)
DECLARED = (CONFIG, "uploads/", "plugins/*.ini")


@pytest.fixture(autouse=True)
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "products" / "crm"


@pytest.fixture
def installed(root: Path) -> ApplicationFolder:
    """A host with 1.0, which declares local files and has its own configuration and an upload."""
    host = folder(root, *DECLARED)
    install(host, FIRST)
    (root / "current" / CONFIG).write_text("port = 8080\n")
    (root / "current/uploads/a.png").write_text("a picture")
    return host


def files(root: Path) -> dict[str, str]:
    """Everything below a folder: contents, and where links lead."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_text()
    return found


def refusal(host: ApplicationFolder, new: Release) -> str:
    """Assert that nothing is staged and nothing changed; returns what was said."""
    before = files(host.root)
    with pytest.raises(ApplicationError) as refused:
        host.stage(new.application, new.version, new.content)
    host.discard(new.version)
    assert files(host.root) == before
    return f"{refused.value}\n{refused.value.detail}"


def test_the_first_release_s_own_version_becomes_the_host_s(root: Path) -> None:
    told = install(folder(root, *DECLARED), FIRST)

    assert told == []
    assert files(root / "local") == {CONFIG: "port = 1\n", "uploads/.keep": ""}
    assert (root / "releases/1.0" / CONFIG).readlink() == Path("../../../local", CONFIG)
    assert (root / "releases/1.0/uploads").readlink() == Path("../../local/uploads")
    assert (root / "local/uploads").stat().st_mode & 0o777 == 0o755


def test_configuration_and_uploads_survive_releases(
    root: Path, installed: ApplicationFolder
) -> None:
    for new in (SECOND, THIRD):
        install(installed, new)

    assert (root / "current/app").read_text() == "3\n"
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"
    assert (root / "current/uploads/a.png").read_text() == "a picture"
    installed.require_whole(THIRD.application)


def test_what_is_uploaded_while_a_release_is_staged_is_there_after_the_switch(
    root: Path, installed: ApplicationFolder
) -> None:
    installed.stage(SECOND.application, "1.1", SECOND.content)
    (root / "current/uploads/late.png").write_text("late")
    installed.switch("1.1")

    assert (root / "current/uploads/late.png").read_text() == "late"


def test_another_default_lies_beside_and_is_told_with_both_digests(
    root: Path, installed: ApplicationFolder
) -> None:
    told = install(installed, SECOND)

    expected = SECOND.application.tree[CONFIG].digest[:16]
    here = str(Below(root).digest(f"local/{CONFIG}"))[:16]
    assert told == [f"kept local: {CONFIG} (the release has {expected}…, here is {here}…)"]
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 2\n"


def test_a_default_that_the_host_has_taken_over_lies_beside_no_longer(
    root: Path, installed: ApplicationFolder
) -> None:
    install(installed, SECOND)
    (root / "current" / CONFIG).write_text("port = 3\nnew = 1\n")

    assert install(installed, THIRD) == []
    assert not (root / "local" / f"{CONFIG}.release").exists()


@pytest.mark.usefixtures("installed")
def test_the_release_s_own_version_is_installed_where_that_is_asked_for(root: Path) -> None:
    (root / "local" / CONFIG).chmod(0o640)

    (told,) = install(folder(root, *DECLARED, keep_local=False), SECOND)

    assert told.startswith(f"replacing local: {CONFIG} (the release has ")
    assert (root / "local" / CONFIG).read_text() == "port = 2\n"
    assert (root / "local" / CONFIG).stat().st_mode & 0o777 == 0o640
    assert (root / "local" / f"{CONFIG}.before-1.1").read_text() == "port = 8080\n"
    assert (root / "current/uploads/a.png").read_text() == "a picture"


def test_a_file_that_is_declared_after_it_was_edited_moves_with_its_mode(
    root: Path,
) -> None:
    install(folder(root), FIRST)
    edited = root / "current" / CONFIG
    edited.write_text("port = 8080\n")
    edited.chmod(0o600)
    (root / "current/uploads/a.png").write_text("a picture")
    (root / "current/plugins").mkdir()
    (root / "current/plugins/own.ini").write_text("own")

    install(folder(root, *DECLARED), SECOND)

    assert (root / "local" / CONFIG).stat().st_mode & 0o777 == 0o600
    for tree in ("current", "releases/1.0"):
        assert (root / tree / CONFIG).read_text() == "port = 8080\n"
        assert (root / tree / "uploads/a.png").read_text() == "a picture"
        assert (root / tree / "plugins/own.ini").read_text() == "own"
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 2\n"


def test_patches_go_on_from_the_signed_version_of_an_edited_file(
    root: Path, installed: ApplicationFolder
) -> None:
    only_patch = release("1.1", SECOND.files, FIRST, empty=False)

    install(installed, only_patch)
    install(installed, release("1.2", THIRD.files, only_patch, empty=False))

    assert (root / "signed/1.2" / CONFIG).read_text() == "port = 3\nnew = 1\n"
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 3\nnew = 1\n"
    assert (root / "local" / CONFIG).read_text() == "port = 8080\n"


def test_a_signed_version_that_was_tampered_with_is_no_start_for_a_patch(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "signed/1.0" / CONFIG).write_text("port = 666\n")
    only_patch = release("1.1", SECOND.files, FIRST, empty=False)

    install(installed, only_patch)

    assert not (root / "signed/1.1" / CONFIG).exists()
    assert not (root / "local" / f"{CONFIG}.release").exists()
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"


def test_a_file_that_was_edited_before_it_was_declared_comes_from_the_patch_from_nothing(
    root: Path,
) -> None:
    install(folder(root), FIRST)
    (root / "current" / CONFIG).write_text("port = 8080\n")

    host = folder(root, *DECLARED)
    assert host.start(SECOND.application).patch == SECOND.application.patches[0]
    install(host, SECOND)

    assert (root / "signed/1.1" / CONFIG).read_text() == "port = 2\n"
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"
    assert (root / "current/app").read_text() == "2\n"


@pytest.mark.parametrize("name", [CONFIG, "config/a*[b]?\\.toml"])
def test_without_a_patch_from_nothing_such_a_file_is_left_out_of_the_patch(
    root: Path, name: str
) -> None:
    first = release("1.0", {"app": "1\n", name: "port = 1\n"})
    second = release("1.1", {"app": "2\n", name: "port = 2\n"}, first, empty=False)
    install(folder(root), first)
    (root / "current" / name).write_text("port = 8080\n")

    told = install(folder(root, "config/a*.toml"), second)

    assert [line.partition(" (")[0] for line in told] == [f"kept local: {name}"]
    assert (root / "current" / name).read_text() == "port = 8080\n"
    assert (root / "current/app").read_text() == "2\n"
    assert not (root / "signed").exists()


def test_a_release_that_differs_in_a_local_file_only_is_a_release(
    root: Path, installed: ApplicationFolder
) -> None:
    second = release("1.1", {**FIRST.files, CONFIG: "port = 2\n"}, FIRST)

    install(installed, second)

    assert (root / "signed/1.1" / CONFIG).read_text() == "port = 2\n"
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 2\n"


def test_a_local_file_that_a_release_drops_stays(root: Path, installed: ApplicationFolder) -> None:
    second = release("1.1", {"app": "2\n"}, FIRST)

    install(installed, second)

    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"
    assert (root / "current/uploads/a.png").read_text() == "a picture"


def test_a_file_that_an_editor_put_into_the_link_s_place_is_the_newer_one(
    root: Path, installed: ApplicationFolder
) -> None:
    link = root / "current" / CONFIG
    (root / "new").write_text("port = 9090\n")
    (root / "new").rename(link)
    installed.require_whole(FIRST.application)

    install(installed, SECOND)

    assert (root / "current" / CONFIG).read_text() == "port = 9090\n"
    assert (root / "releases/1.0" / CONFIG).is_symlink()
    assert (root / "local" / f"{CONFIG}.before-1.1").read_text() == "port = 8080\n"


def test_what_lies_beside_a_local_file_is_not_local_itself(root: Path) -> None:
    host = folder(root, "config/*")
    install(host, FIRST)
    (root / "local" / CONFIG).write_text("port = 8080\n")
    install(host, SECOND)

    install(host, THIRD)

    assert files(root / "current")[CONFIG].startswith("-> ")
    assert [path.name for path in (root / "current/config").iterdir()] == ["app.toml"]


@pytest.mark.usefixtures("installed")
def test_a_second_file_of_the_same_name_and_version_takes_no_earlier_one_s_place(
    root: Path,
) -> None:
    (root / "local" / f"{CONFIG}.before-1.1").write_text("from earlier\n")

    install(folder(root, *DECLARED, keep_local=False), SECOND)

    assert (root / "local" / f"{CONFIG}.before-1.1").read_text() == "from earlier\n"
    assert (root / "local" / f"{CONFIG}.before-1.1.2").read_text() == "port = 8080\n"


def test_a_file_that_was_put_into_local_by_hand_is_linked(root: Path) -> None:
    grow(root / "local", {"plugins/own.ini": "own", CONFIG: "port = 8080\n"})
    for made in (root.parent, root, root / "local", root / "local/plugins"):
        made.chmod(0o755)

    install(folder(root, *DECLARED), FIRST)

    assert (root / "current/plugins/own.ini").read_text() == "own"
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"


def test_what_is_taken_back_leaves_local_files_as_they_were(
    root: Path, installed: ApplicationFolder
) -> None:
    before = files(root)

    installed.stage(SECOND.application, "1.1", SECOND.content)
    installed.discard("1.1")

    assert files(root) == before


def test_a_first_install_that_is_taken_back_leaves_nothing_of_local_files(root: Path) -> None:
    root.parent.mkdir()
    host = folder(root, *DECLARED)

    host.stage(FIRST.application, "1.0", FIRST.content)
    host.discard("1.0")

    assert list(root.parent.iterdir()) == []


def test_pruning_removes_old_trees_and_neither_local_files_nor_what_links_lead_to(
    root: Path, installed: ApplicationFolder
) -> None:
    install(installed, SECOND)
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere/x").write_text("x")
    (root / "releases/0.9").symlink_to(root.parent / "elsewhere")

    installed.prune(1)

    assert sorted(path.name for path in (root / "releases").iterdir()) == ["0.9", "1.1"]
    assert [path.name for path in (root / "signed").iterdir()] == ["1.1"]
    assert (root.parent / "elsewhere/x").read_text() == "x"
    assert (root / "local/uploads/a.png").read_text() == "a picture"


def test_a_staged_release_is_not_staged_again_unless_a_link_is_wanting(
    root: Path, installed: ApplicationFolder
) -> None:
    installed.stage(SECOND.application, "1.1", SECOND.content)
    first_made = (root / "releases/1.1").stat().st_ino

    installed.stage(SECOND.application, "1.1", SECOND.content)
    assert (root / "releases/1.1").stat().st_ino == first_made

    (root / "local/plugins").mkdir()
    (root / "local/plugins/own.ini").write_text("own")
    installed.stage(SECOND.application, "1.1", SECOND.content)
    assert (root / "releases/1.1/plugins/own.ini").read_text() == "own"


def test_a_pipe_among_uploads_is_no_matter(root: Path, installed: ApplicationFolder) -> None:
    os.mkfifo(root / "local/uploads/pipe")

    install(installed, SECOND)

    assert (root / "current/uploads/pipe").is_fifo()


class Cut(BaseException):
    """The process ends here."""


STEPS = ("link", "link_to", "rename", "write")
STEPS_OF_AN_INSTALL = 14


def cut_after(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """The process ends right after call `number` of what changes names; returns how many ran."""
    done = 0

    def counting(name: str) -> None:
        real = getattr(Below, name)

        def call(self: Below, *arguments: object) -> None:
            nonlocal done
            real(self, *arguments)
            done += 1
            if done == number:
                raise Cut

        monkeypatch.setattr(Below, name, call)

    for name in STEPS:
        counting(name)
    return lambda: done


@pytest.mark.parametrize("number", range(1, STEPS_OF_AN_INSTALL + 1))
def test_an_install_that_is_cut_short_between_any_two_renames_is_finished_by_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    install(folder(root, CONFIG), FIRST)
    (root / "current" / CONFIG).unlink()
    (root / "current" / CONFIG).write_text("port = 9090\n")  # an editor wrote it so
    (root / "local" / CONFIG).write_text("port = 8080\n")
    (root / "current/uploads/a.png").write_text("a picture")
    host = folder(root, *DECLARED)

    with monkeypatch.context() as patched:
        ran = cut_after(patched, number)
        with pytest.raises(Cut):
            install(host, SECOND)
        assert ran() == number
    contents = set(files(root).values())
    assert {"port = 9090\n", "port = 8080\n", "a picture"} <= contents
    assert (root / "current" / CONFIG).read_text() == "port = 9090\n"  # at every moment

    if host.current_version() == "1.0":
        host.discard("1.1")  # what recover does before anything else
        assert (root / "current/uploads/a.png").read_text() == "a picture"
    install(host, SECOND)

    assert files(root / "local") == {
        CONFIG: "port = 9090\n",
        f"{CONFIG}.before-1.1": "port = 8080\n",
        f"{CONFIG}.release": "port = 2\n",
        "uploads/.keep": "",
        "uploads/a.png": "a picture",
    }
    assert (root / "current/uploads/a.png").read_text() == "a picture"


def test_the_steps_above_are_all_that_there_are(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder(root, CONFIG), FIRST)
    (root / "current" / CONFIG).unlink()
    (root / "current" / CONFIG).write_text("port = 9090\n")
    (root / "local" / CONFIG).write_text("port = 8080\n")

    ran = cut_after(monkeypatch, 0)
    install(folder(root, *DECLARED), SECOND)

    assert ran() == STEPS_OF_AN_INSTALL


def test_a_folder_in_local_that_is_a_link_is_refused(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "local/config").rename(root.parent / "out")
    (root / "local/config").symlink_to(root.parent / "out")

    assert "local/config: is a symbolic link, or no folder" in refusal(installed, SECOND)
    assert files(root.parent / "out") == {"app.toml": "port = 8080\n"}


def test_a_link_among_uploads_leads_the_release_s_files_nowhere(
    root: Path, installed: ApplicationFolder
) -> None:
    (root.parent / "out").mkdir()
    (root / "local/uploads/deep").symlink_to(root.parent / "out")
    second = release("1.1", {**SECOND.files, "uploads/deep/x": "x"}, FIRST)

    assert "local/uploads/deep: is a symbolic link, or no folder" in refusal(installed, second)
    assert list((root.parent / "out").iterdir()) == []


def test_a_link_that_is_put_there_after_staging_leads_nowhere_either(
    root: Path, installed: ApplicationFolder
) -> None:
    second = release("1.1", {**SECOND.files, "uploads/deep/x": "x"}, FIRST)
    installed.stage(second.application, "1.1", second.content)
    (root.parent / "out").mkdir()
    (root / "local/uploads/deep").symlink_to(root.parent / "out")

    with pytest.raises(NotSwitchedError, match="uploads/deep: is a symbolic link"):
        installed.switch("1.1")

    assert list((root.parent / "out").iterdir()) == []
    assert installed.current_version() == "1.0"
    (root / "local/uploads/deep").unlink()
    installed.switch("1.1")
    assert (root / "current/uploads/deep/x").read_text() == "x"


def test_a_link_of_somebody_s_at_a_local_path_is_refused_with_the_way_out(root: Path) -> None:
    install(folder(root), FIRST)
    (root / "current" / CONFIG).unlink()
    (root / "current" / CONFIG).symlink_to("/etc/hostname")

    words = refusal(folder(root, *DECLARED), SECOND)

    assert f"releases/1.0/{CONFIG}: is a symbolic link; put what it leads to at " in words
    assert f"local/{CONFIG}, and remove the link" in words


@pytest.mark.usefixtures("installed")
def test_a_link_in_local_may_lead_to_another_disk(root: Path) -> None:
    (root / "local/config/app.toml").rename(root.parent / "mine")
    (root / "local/config/app.toml").symlink_to(root.parent / "mine")

    (told,) = install(folder(root, *DECLARED, keep_local=False), SECOND)

    assert "here is no plain file" in told
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 2\n"


def test_a_link_that_the_release_has_on_the_way_is_refused(root: Path) -> None:
    first = release("1.0", {"app": "1\n", "plugins": "-> /tmp"})
    root.mkdir(parents=True)
    grow(root / "local", {"plugins/own.ini": "own"})
    root.chmod(0o755)

    words = refusal(folder(root, *DECLARED), first)

    assert "plugins/own.ini: host.toml has it as local, and the release has something" in words


@pytest.mark.parametrize(
    "content",
    [
        {CONFIG: "-> /etc/hostname"},
        {"uploads": "a file"},
        {"uploads": "-> /srv"},
        {"plugins/x.ini": "-> ../app"},
        {f"{CONFIG}/x": "a folder"},
    ],
)
def test_a_release_with_another_kind_at_a_local_path_is_refused(
    installed: ApplicationFolder, content: dict[str, str]
) -> None:
    second = release("1.1", {"app": "2\n", **content}, FIRST)

    assert "host.toml has it as local, and the release has something" in refusal(installed, second)


def test_a_folder_where_a_file_is_declared_is_refused(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "local" / CONFIG).unlink()
    (root / "local" / CONFIG).mkdir()

    assert f"{CONFIG}: host.toml has it as local, and it is no plain file" in refusal(
        installed, SECOND
    )


def test_a_fifo_where_a_file_is_declared_is_refused_and_not_waited_for(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "local" / CONFIG).unlink()
    os.mkfifo(root / "local" / CONFIG)

    assert "it is no plain file" in refusal(installed, SECOND)


def test_a_socket_where_a_folder_is_declared_is_refused(
    root: Path, installed: ApplicationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "local/uploads").rename(root / "local/other")
    monkeypatch.chdir(root / "local")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("uploads")
        assert "uploads: host.toml has it as local, and it is no plain folder" in refusal(
            installed, SECOND
        )


def test_two_folders_with_files_are_for_the_sysadmin_to_put_together(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "current/uploads").unlink()
    (root / "current/uploads").mkdir()
    (root / "current/uploads/b.png").write_text("b")

    assert "both have files; put all of them into the second" in refusal(installed, SECOND)

    (root / "current/uploads/b.png").rename(root / "local/uploads/b.png")
    install(installed, SECOND)
    assert (root / "current/uploads/b.png").read_text() == "b"
    assert (root / "releases/1.0/uploads").is_symlink()


def test_a_name_that_leaves_no_room_for_what_lies_beside_is_refused(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "local/plugins").mkdir()
    (root / "local/plugins" / f"{'x' * 170}.ini").write_text("")

    assert "its name is too long for a local file" in refusal(installed, SECOND)


def test_a_file_that_others_may_run_as_its_owner_is_replaced_by_one_that_they_may_not(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "local" / CONFIG).chmod(0o6755)
    replacing = folder(root, *DECLARED, keep_local=False)

    install(replacing, SECOND)

    assert (root / "local" / CONFIG).stat().st_mode & 0o7777 == 0o755
    assert installed.current_version() == "1.1"


@pytest.mark.usefixtures("installed")
def test_a_path_that_is_no_longer_declared_is_the_release_s_again(root: Path) -> None:
    words = refusal(folder(root, "uploads/"), SECOND)

    assert f"{CONFIG}: expected" in words


def test_a_path_is_taken_off_the_list_as_the_how_to_says(
    root: Path, installed: ApplicationFolder
) -> None:
    install(installed, SECOND)
    (root / "current" / CONFIG).unlink()
    shutil.copy(root / "signed/1.1" / CONFIG, root / "current" / CONFIG)
    fewer = folder(root, "uploads/", "plugins/*.ini")

    fewer.require_whole(SECOND.application)
    install(fewer, THIRD)

    assert (root / "current" / CONFIG).read_text() == "port = 3\nnew = 1\n"
    assert (root / "local" / CONFIG).read_text() == "port = 8080\n"


def test_what_cannot_be_replaced_is_not_said_to_be(root: Path) -> None:
    second = release("1.1", SECOND.files, FIRST, empty=False)
    install(folder(root), FIRST)
    (root / "current" / CONFIG).write_text("port = 8080\n")

    (told,) = install(folder(root, *DECLARED, keep_local=False), second)

    assert told.startswith(f"kept local: {CONFIG} (")
    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"


def test_a_current_that_leads_nowhere_does_not_hide_why_an_install_failed(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "current").unlink()
    (root / "current").symlink_to("/nowhere")

    assert "does not lead to a release below" in refusal(installed, SECOND)


def test_a_hand_edited_file_is_refused_with_the_line_that_declares_it(
    root: Path, installed: ApplicationFolder
) -> None:
    (root / "current/app").write_text("by hand\n")
    (root / 'current/naïve "x"').write_text("added\n")

    words = refusal(installed, SECOND)

    expected, here = FIRST.application.tree["app"].digest, Below(root).digest("releases/1.0/app")
    assert f"app: expected {expected[:16]}…, found {str(here)[:16]}…" in words
    assert (
        "A file that is this host's own: declare it in /etc/countersign/host.toml, below "
        'root = "/opt/crm"; for all of them:\n'
        '  local = ["uploads/", "config/app.toml", "plugins/*.ini", "app", "naïve \\"x\\""]'
    ) in words


def test_adopting_brings_local_files_with_their_modes(root: Path, tmp_path: Path) -> None:
    old = grow(
        tmp_path / "old",
        {**FIRST.files, CONFIG: "port = 8080\n", "uploads/sub/a.png": "a", "plugins/x.ini": "x"},
    )
    (old / "uploads/b").symlink_to("sub/a.png")
    (old / "uploads").chmod(0o770)
    (old / CONFIG).chmod(0o640)
    before = files(old)
    host = folder(root, *DECLARED)

    host.take_over(FIRST.application, "1.0", old)
    host.switch("1.0")

    assert files(old) == before
    current = root / "current"
    assert (current / CONFIG).read_text() == "port = 8080\n"
    assert (current / CONFIG).stat().st_mode & 0o777 == 0o640
    assert (current / "uploads/b").read_text() == "a"
    assert (current / "plugins/x.ini").read_text() == "x"
    assert (root / "local/uploads").stat().st_mode & 0o777 == 0o770
    host.require_whole(FIRST.application)
    install(host, SECOND)
    assert (root / "local" / f"{CONFIG}.release").read_text() == "port = 2\n"


def test_adopting_replaces_no_local_file_that_is_there(root: Path, tmp_path: Path) -> None:
    old = grow(tmp_path / "old", {**FIRST.files, CONFIG: "port = 1\n"})
    root.mkdir(parents=True)
    grow(root / "local", {CONFIG: "port = 8080\n"})
    root.chmod(0o755)
    host = folder(root, *DECLARED)

    host.take_over(FIRST.application, "1.0", old)
    host.switch("1.0")

    assert (root / "current" / CONFIG).read_text() == "port = 8080\n"
    assert (root / "signed/1.0" / CONFIG).read_text() == "port = 1\n"


def test_adopting_that_was_cut_short_while_a_folder_was_copied_starts_over(
    root: Path, tmp_path: Path
) -> None:
    old = grow(tmp_path / "old", {**FIRST.files, "uploads/a.png": "a"})
    grow(root / ".local.new", {"half": "h"})
    root.chmod(0o755)

    folder(root, *DECLARED).take_over(FIRST.application, "1.0", old)

    assert files(root / "local")["uploads/a.png"] == "a"
    assert not (root / ".local.new").exists()
    assert not (root / "local/uploads/half").exists()


def test_adopting_refuses_a_link_at_a_local_path(root: Path, tmp_path: Path) -> None:
    old = grow(tmp_path / "old", {**FIRST.files, CONFIG: "-> /etc/hostname"})

    with pytest.raises(ApplicationError, match=r"app\.toml: not what host\.toml has as local"):
        folder(root, *DECLARED).take_over(FIRST.application, "1.0", old)

    assert not (root / "current").exists()
