"""What is in an application's folder: one entry for each file or link, and a digest over them all.

A release has the modes that version control carries: a file, an executable file, a symbolic link.
A scan reports the mode as it is found, so that a changed one shows as a difference. Empty folders,
owners and times are not part of a tree; a device, FIFO or socket is refused by name. Links are
never followed. What is local to a host is left out, whatever it is (`installer.local`).
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

from installer.errors import ApplicationError
from installer.local import NOTHING, LocalPaths

Digest = NewType("Digest", str)
"""SHA-256 in 64 lower-case hexadecimal digits."""

FILE = "100644"
EXECUTABLE = "100755"
LINK = "120000"
MODES = frozenset({FILE, EXECUTABLE, LINK})
"""Modes that a release may carry, as git writes them."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file or link. `size` and `digest` are of its content; a link's content is its target."""

    path: str
    mode: str
    size: int
    digest: Digest


Tree = Mapping[str, Entry]
"""Entries by path; paths are relative, with `/` between their parts."""


def digest_of(content: bytes) -> Digest:
    """SHA-256 of `content`."""
    return Digest(hashlib.sha256(content).hexdigest())


def tree_digest(tree: Tree) -> Digest:
    """One digest for the whole tree: over its entries in the order of their paths."""
    lines = (f"{e.mode} {e.digest} {e.path}\0" for e in sorted(tree.values()))
    return digest_of("".join(lines).encode())


def scan(root: Path, local: LocalPaths = NOTHING) -> dict[str, Entry]:
    """Read the tree below `root`, but for what is local; an absent `root` is an empty tree.

    Raises:
        ApplicationError: something below `root` has no place in a release.
    """
    return {entry.path: entry for entry in _walk(root, "", local)} if root.is_dir() else {}


def local_files(root: Path, local: LocalPaths) -> list[str]:
    """Paths below `root` that a pattern of `local` is for; an absent `root` has none."""
    return sorted(_walk_local(root, "", local)) if local.patterns and root.is_dir() else []


def differences(expected: Tree, actual: Tree) -> list[str]:
    """Say, a line for each path, how `actual` differs from `expected`; empty where it does not."""
    return sorted(
        _difference(path, expected.get(path), actual.get(path))
        for path in expected.keys() | actual.keys()
        if expected.get(path) != actual.get(path)
    )


def by_path(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The tree that has these entries."""
    return {entry.path: entry for entry in entries}


def _walk(root: Path, folder: str, local: LocalPaths) -> Iterator[Entry]:
    with os.scandir(root / folder) as found:
        for item in sorted(found, key=lambda item: item.name):
            path = f"{folder}{item.name}"
            is_folder = item.is_dir(follow_symlinks=False)
            if local.in_folder(path) or (not is_folder and local.has_file(path)):
                continue
            _require_utf8(path)
            if is_folder:
                yield from _walk(root, f"{path}/", local)
            else:
                yield _entry(Path(item.path), path, item.stat(follow_symlinks=False))


def _walk_local(root: Path, folder: str, local: LocalPaths) -> Iterator[str]:
    with os.scandir(root / folder) as found:
        for item in found:
            path = f"{folder}{item.name}"
            if local.in_folder(path):
                continue
            if item.is_dir(follow_symlinks=False):
                yield from _walk_local(root, f"{path}/", local)
            elif local.has_file(path):
                yield path


def _require_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ApplicationError(f"{path!a}: its name is not UTF-8") from None


def _entry(file: Path, path: str, status: os.stat_result) -> Entry:
    if stat.S_ISLNK(status.st_mode):
        # Path.readlink would drop a slash at the end, and a `.` or a second slash within.
        target = os.readlink(os.fsencode(file))  # noqa: PTH115
        return Entry(path, LINK, len(target), digest_of(target))
    if not stat.S_ISREG(status.st_mode):
        raise ApplicationError(f"{path}: neither a file, a folder nor a symbolic link")
    digest, size = _digest_of_file(file)
    return Entry(path, f"{status.st_mode:o}", size, digest)


def _digest_of_file(file: Path) -> tuple[Digest, int]:
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return Digest(digest), content.tell()


def _difference(path: str, expected: Entry | None, actual: Entry | None) -> str:
    if expected is None:
        return f"{path}: not part of the release"
    if actual is None:
        return f"{path}: missing"
    if expected.digest != actual.digest:
        return f"{path}: expected {expected.digest[:16]}…, found {actual.digest[:16]}…"
    return f"{path}: expected mode {expected.mode}, found {actual.mode}"
