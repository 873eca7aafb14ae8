"""Writes that survive a loss of power: content first, then its name, then the folder.

What the system says of a file, such as that its disk is full, is a refusal with the file's name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installer.errors import StorageError


@contextmanager
def storage_refusals() -> Iterator[None]:
    """Let an error of the system's be a refusal.

    Raises:
        StorageError: with the file, and the system's words.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(told(error)) from None


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Let an error of the system's that names no file name `path`: one of write(2) does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def told(error: OSError) -> str:
    """An error of the system's as messages have it: the file, and why."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return f"{where}{error.strerror or error.args[0]}"  # of Python's own, some have no number


def write_file(file: Path, content: bytes) -> None:
    """Replace `file` in one step; a reader sees the old content or the new, never a part."""
    new = file.with_name(f".{file.name}.new")
    try:
        with about(file), new.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        new.rename(file)
    except OSError:
        new.unlink(missing_ok=True)  # what there is of it takes room
        raise
    sync_folder(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with their names on the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what calls of `write_file` that were cut short have left in `folder`."""
    for new in folder.glob(".*.new"):
        new.unlink()


def sync_tree(root: Path) -> None:
    """Write a whole tree through to the disk, contents before the folders that name them."""
    for folder, _, names in os.walk(root, topdown=False):
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():  # its target is written with the folder
                _sync(path, os.O_RDONLY | os.O_NOFOLLOW)
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` through to the disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        with about(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
