"""Plain folders as releases: copied exactly, with normalised modes, and nothing that is no file."""

import os
import socket
from pathlib import Path

import pytest

from installer.tree import scan, tree_digest
from packager.errors import ProjectError
from packager.vcs import open_repository

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _no_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "product" / "releases" / "1.0"
    (folder / "app").mkdir(parents=True)
    (folder / "app/main.py").write_bytes(b"print()\r\n")
    (folder / "app/run").write_bytes(b"#!/bin/sh\n")
    (folder / "link").symlink_to("./app//run")
    (folder / "app/main.py").chmod(0o666)
    (folder / "app/run").chmod(0o740)
    os.utime(folder / "app/main.py", (1_600_000_000, 1_600_000_000))
    os.utime(folder / "app/run", (1_500_000_000, 1_500_000_000))
    os.utime(folder / "link", (1_400_000_000, 1_400_000_000), follow_symlinks=False)
    return folder


def test_a_folder_is_copied_with_the_modes_of_a_release(release: Path, tmp_path: Path) -> None:
    (release / "empty folder").mkdir()
    previous = os.umask(0o077)
    try:
        source = open_repository("tree", tmp_path / "product").export(
            "releases/1.0", tmp_path / "out"
        )
    finally:
        os.umask(previous)
    tree = scan(tmp_path / "out")
    assert {path: entry.mode for path, entry in tree.items()} == {
        "app/main.py": "100644",
        "app/run": "100755",
        "link": "120000",
    }
    before = scan(release)
    assert {path: entry.digest for path, entry in tree.items()} == {
        p: e.digest for p, e in before.items()
    }
    assert (tmp_path / "out/app").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "out/empty folder").exists()
    assert (source.vcs, source.tag) == ("tree", "releases/1.0")
    assert (source.revision, source.committed) == (tree_digest(tree), 1_600_000_000)


def test_an_absolute_folder_is_taken_as_it_is(release: Path, tmp_path: Path) -> None:
    source = open_repository("tree", tmp_path / "elsewhere").export(str(release), tmp_path / "out")
    assert source.revision == tree_digest(scan(tmp_path / "out"))


def test_the_time_can_be_fixed(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    source = open_repository("tree", release).export(".", tmp_path / "out")
    assert source.committed == 1_234_567_890


@pytest.mark.parametrize("value", ["yesterday", "-1", "1.5", "\u0661"])
def test_a_time_that_is_none_is_refused(
    value: str, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(ProjectError, match="SOURCE_DATE_EPOCH"):
        open_repository("tree", release).export(".", tmp_path / "out")


def test_a_missing_folder_is_named_with_the_nearest(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"1\.1 is not a folder; the nearest is '1\.0'"):
        open_repository("tree", release.parent).export("1.1", tmp_path / "out")
    with pytest.raises(ProjectError, match="is not a folder; there is none"):
        open_repository("tree", release / "nowhere").export("1.1", tmp_path / "out")


def test_a_fifo_is_refused_by_name(release: Path, tmp_path: Path) -> None:
    os.mkfifo(release / "app/pipe")
    with pytest.raises(ProjectError, match="app/pipe: neither a file"):
        open_repository("tree", release).export(".", tmp_path / "out")


def test_a_socket_is_refused_by_name(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        with pytest.raises(ProjectError, match="sock: neither a file"):
            open_repository("tree", release).export(".", tmp_path / "out")


@pytest.mark.parametrize("bit", [0o4000, 0o2000])
def test_a_setuid_or_setgid_file_is_refused_by_name(
    bit: int, release: Path, tmp_path: Path
) -> None:
    (release / "app/run").chmod(0o755 | bit)
    with pytest.raises(ProjectError, match="app/run: it is setuid or setgid"):
        open_repository("tree", release).export(".", tmp_path / "out")


def test_a_folder_shared_by_its_group_is_no_setgid_file(release: Path, tmp_path: Path) -> None:
    (release / "app").chmod(0o2775)
    open_repository("tree", release).export(".", tmp_path / "out")
    assert (tmp_path / "out/app").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("name,words", [(b"\xff", "not UTF-8"), (b"a\nb", "plain relative path")])
def test_a_name_that_no_release_may_carry_is_refused(
    name: bytes, words: str, release: Path, tmp_path: Path
) -> None:
    (release / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(ProjectError, match=words):
        open_repository("tree", release).export(".", tmp_path / "out")


def test_a_link_out_of_the_folder_is_copied_and_not_followed(release: Path, tmp_path: Path) -> None:
    (release / "out").symlink_to("/etc")
    (release / "broken").symlink_to("nowhere")
    open_repository("tree", release).export(".", tmp_path / "out")
    assert str((tmp_path / "out/out").readlink()) == "/etc"
    assert str((tmp_path / "out/broken").readlink()) == "nowhere"


def test_a_folder_has_no_changes(release: Path) -> None:
    assert open_repository("tree", release).changes() == []
