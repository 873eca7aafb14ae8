"""Writes that survive a loss of power: content first, then its name, then the folder."""

import os
from pathlib import Path


def write_file(file: Path, content: bytes) -> None:
    """Replace `file` in one step; a reader sees the old content or the new, never a part."""
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.chmod(0o644)
    new.rename(file)
    sync_folder(file.parent)


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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
