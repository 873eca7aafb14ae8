"""Files below a folder, with links on the way."""

import os
import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from installer.below import Below
from installer.errors import ApplicationError


@pytest.fixture
def below(tmp_path: Path) -> Below:
    """A folder with a file `in/file`, a link `out` that leads out of it, and a file out there."""
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in/file").write_text("content")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("kept")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "in/link").symlink_to("file")
    return Below(root)


def test_nothing_is_done_through_a_link(below: Below, tmp_path: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: below.status("out/file"),
        lambda: below.target("out/file"),
        lambda: below.open("out/file"),
        lambda: below.digest("out/file"),
        lambda: below.make_folder("out/new"),
        lambda: below.write("out/new", BytesIO(b"evil"), 0o644, (-1, -1)),
        lambda: below.link("in/file", "out/new"),
        lambda: below.link("out/file", "new"),
        lambda: below.link_to("x", "out/new"),
        lambda: below.rename("in/file", "out/new"),
        lambda: below.rename("out/file", "new"),
        lambda: below.remove("out/file"),
        lambda: below.make_folder("in/file/new"),
    ]
    for attempt in attempts:
        with pytest.raises(ApplicationError, match="is a symbolic link, or no folder"):
            attempt()

    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]
    assert sorted(path.name for path in below.root.iterdir()) == ["in", "out"]
    assert (below.root / "in/file").read_text() == "content"


def test_a_root_that_is_a_link_is_refused(below: Below, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(below.root)

    with pytest.raises(ApplicationError, match="alias: is a symbolic link"):
        Below(tmp_path / "alias").status("in/file")


def test_a_link_at_the_end_is_itself_what_is_meant(below: Below) -> None:
    assert below.target("in/link") == "file"
    assert below.digest("in/link") is None
    below.remove("in/link")
    assert (below.root / "in/file").read_text() == "content"


def test_a_file_that_replaces_a_link_does_not_go_where_it_led(below: Below, tmp_path: Path) -> None:
    below.write("new", BytesIO(b"new"), 0o640, (-1, -1))
    below.rename("new", "out")

    assert (below.root / "out").read_text() == "new"
    assert (below.root / "out").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "elsewhere/file").read_text() == "kept"


def test_a_new_file_takes_nobody_s_place(below: Below) -> None:
    for name in ("in/file", "in/link", "out"):
        with pytest.raises(FileExistsError):
            below.write(name, BytesIO(b"new"), 0o644, (-1, -1))

    assert (below.root / "in/file").read_text() == "content"


def test_what_is_no_file_has_no_content_and_is_not_waited_for(
    below: Below, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(below.root / "pipe")
    monkeypatch.chdir(below.root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("pipe", "socket", "in", "in/link", "in/nothing", "nothing/at/all"):
            assert below.open(name) is None
            assert below.target(name) is None or name == "in/link"


def test_a_name_that_no_file_can_have_is_an_error_and_not_nothing(below: Below) -> None:
    for attempt in (below.status, below.target, below.open):
        with pytest.raises(OSError, match="File name too long"):
            attempt("x" * 300)


def test_folders_that_are_made_can_be_read_by_all_whatever_the_umask(below: Below) -> None:
    before = os.umask(0o077)
    try:
        below.make_folder("a/b")
        below.make_folder("in/b")
    finally:
        os.umask(before)

    assert [(below.root / path).stat().st_mode & 0o777 for path in ("a", "a/b", "in/b")] == [
        0o755
    ] * 3
