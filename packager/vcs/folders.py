"""Takes releases from plain folders, for a product without version control.

A tag is a folder, relative to that of release.toml. Files keep whether their owner may execute
them, and nothing else of their modes. Refused by name: devices, FIFOs, sockets, and files that are
setuid or setgid, for no release gives a program the rights of its owner.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from installer.manifest import Source
from installer.tree import scan, tree_digest
from packager.errors import ProjectError
from packager.vcs.export import is_executable, make_folder, nearest, set_mode, walk


@dataclass(frozen=True, slots=True)
class Folders:
    """Released trees in folders, found from `folder`."""

    folder: Path

    def export(self, tag: str, into: Path) -> Source:
        """Copy the folder `tag` into the new or empty folder `into`.

        `revision` is the digest of the tree. `committed` is SOURCE_DATE_EPOCH from the environment
        or, without it, the time of the file that was changed last: who copies the folder without
        its times gets another manifest, so set SOURCE_DATE_EPOCH where several people build.

        Raises:
            ProjectError: no such folder, or something in it has no place in a release.
        """
        source = self._source(tag)
        make_folder(into)
        newest = 0
        for path, status in _files(source):
            _copy(source / path, into / path, status)
            newest = max(newest, int(status.st_mtime))
        return Source("tree", tag, tree_digest(scan(into)), _source_date_epoch(newest))

    def changes(self) -> list[str]:
        """Nothing: the folder is what is released."""
        return []

    def _source(self, tag: str) -> Path:
        source = self.folder / tag
        if not source.is_dir():
            beside = source.parent.iterdir() if source.parent.is_dir() else ()
            names = sorted(item.name for item in beside if item.is_dir())
            raise ProjectError(f"{source} is not a folder{nearest(source.name, names)}")
        return source


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path, status in walk(folder):
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise ProjectError(f"{path}: it is setuid or setgid; remove that with `chmod ug-s`")
        if not stat.S_ISDIR(status.st_mode):
            yield path, status


def _copy(source: Path, copy: Path, status: os.stat_result) -> None:
    make_folder(copy.parent)
    shutil.copyfile(source, copy, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        set_mode(copy, executable=is_executable(status))


def _source_date_epoch(otherwise: int) -> int:
    value = os.environ.get("SOURCE_DATE_EPOCH", "")
    if value and not (value.isascii() and value.isdigit()):
        raise ProjectError(f"SOURCE_DATE_EPOCH is {value!r}, not a number of seconds since 1970")
    return int(value) if value else otherwise
