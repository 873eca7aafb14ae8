"""An application's local files: kept in `local` below its root, with links to them in each tree.

    local/PATH              the host's own file or folder, which no release replaces
    local/PATH.release      the release's version of it, where that is another
    local/PATH.before-1.1   what was there before 1.1 was installed, where two had a claim
    signed/1.1/PATH         1.1's version: the next patch starts from that, not from the host's own
    releases/1.1/PATH       a link to local/PATH

While a release is staged, `local` changes in one way only: what lies in the current tree itself, as
its path was declared just now or an editor has put a file in the link's place, moves there, and a
link takes over. The current tree is touched in no other case. A file gets a second name in `local`
before the link takes its first one: a rerun finds it wherever an install is cut short, and the
application never misses it. A folder can have one name only, so between two renames it has none for
an instant. All else happens with the switch, from `signed`: until then there is nothing to take
back.

The bytes that a patch starts from are taken from `signed`, the current tree or `local`: from
wherever the digest is the one that was signed. Where they are nowhere, since the file was edited
before it was declared, `installer.starts` says what becomes of the patch.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from installer.below import Below
from installer.durable import sync_folder, sync_tree
from installer.errors import ApplicationError
from installer.local import BEFORE, RELEASE, LocalPaths, link_text
from installer.tree import LINK, Entry, Tree, local_files, scan

LOCAL = "local"
SIGNED = "signed"
NEW = ".local.new"
"""What is about to get its place, in the application's root: a leftover shows in no tree."""

MAX_NAME = 170
"""Bytes of a local file's name: what is put beside it has a version at its end."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A local file that the release has, too, with other content."""

    path: str
    release: str
    here: str

    def told(self, verb: str) -> str:
        """As a line of the report."""
        return f"{verb} {self.path} (the release has {self.release}, here is {self.here})"


class LocalFiles:
    """The local files of one application. `current` is the version of its current tree."""

    def __init__(self, root: Path, paths: LocalPaths) -> None:
        self.paths = paths
        self._root = root
        self._signed = root / SIGNED
        self._below = Below(root)

    def due(self, tree: Tree, current: str | None) -> list[str]:
        """Paths at which a release that has `tree` gets links."""
        files = {path for path in self.paths.within(tree) if not self.paths.in_folder(path)}
        files.update(local_files(self._root / LOCAL, self.paths))
        if current:
            files.update(local_files(self._root / "releases" / current, self.paths))
        return sorted(files.union(self.paths.folders))

    def are_linked(self, tree: Tree, version: str, current: str | None) -> bool:
        """Whether the tree of `version` has all its links."""
        return all(self._is_link(f"releases/{version}/{path}") for path in self.due(tree, current))

    def require_plain(self, tree: Tree, current: str | None) -> None:
        """Find what could not be kept, before anything is touched.

        Raises:
            ApplicationError: something on the way is a link, or not of the kind that was declared.
        """
        for path in sorted({*self.due(tree, current), *self.paths.plain, *self.paths.within(tree)}):
            self._require_room(path, tree)
            self._require_home(path)
            if current:
                self._require_movable(path, f"releases/{current}/{path}")

    def apart(self, tree: Tree, current: str | None) -> list[Apart]:
        """Local files that this host has otherwise than a release that has `tree`."""
        found = []
        for path, entry in sorted(self.paths.within(tree).items()):
            here = [place for place in self._places(path, current) if self._below.status(place)]
            if here and (digest := self._below.digest(here[0])) != entry.digest:
                shown = f"{digest[:16]}…" if digest else "no plain file"
                found.append(Apart(path, f"{entry.digest[:16]}…", shown))
        return found

    def release_version(self, entry: Entry, current: str | None) -> BinaryIO | None:
        """The signed bytes of a local file, wherever they are; None where they are nowhere."""
        signed = [f"{SIGNED}/{current}/{entry.path}"] if current else []
        for place in (*signed, *self._places(entry.path, current)):
            if self._below.digest(place) == entry.digest:
                return self._below.open(place)
        return None

    def has_release_version(self, entry: Entry, current: str | None) -> bool:
        """Whether these bytes are anywhere."""
        file = self.release_version(entry, current)
        if file:
            file.close()
        return file is not None

    def set_aside(self, staging: Path, tree: Tree, version: str) -> None:
        """Put the release's own local files out of the staged tree, into `signed`."""
        self.discard(version)
        for path in self.paths.within(tree):
            self._below.rename(f"releases/{staging.name}/{path}", f"{SIGNED}/{version}/{path}")
        if (self._signed / version).is_dir():
            sync_tree(self._signed / version)
            sync_folder(self._signed)

    def link(self, staging: Path, tree: Tree, current: str | None) -> None:
        """Put the links into the staged tree."""
        for path in self.due(tree, current):
            if path in self.paths.folders and (staging / path).is_dir():
                shutil.rmtree(staging / path)  # what was in it is in `signed`
            self._below.link_to(link_text(path), f"releases/{staging.name}/{path}")

    def take_over(self, current: str, version: str) -> None:
        """Move what lies in the current tree itself, before `version` takes its place."""
        self.mend(current)
        # Folders first: they may be mounts, which are found out to be so before anything is moved.
        for path in sorted(self.due({}, current), key=lambda path: path not in self.paths.folders):
            there = f"releases/{current}/{path}"
            status = self._below.status(there)
            if status is None or self._is_link(there):
                continue
            try:
                if stat.S_ISDIR(status.st_mode):
                    self._move_folder(path, there)
                else:
                    self._move_file(path, there, version)
            except OSError as error:
                raise self._unmovable(path, there, str(error.strerror)) from None

    def mend(self, current: str) -> None:
        """Link a folder that lost its first name, in a run that was cut short, and got no link."""
        for folder in self.paths.folders:
            there = f"releases/{current}/{folder}"
            cut_short = self._below.target(NEW) == link_text(folder)
            if cut_short and self._below.status(there) is None:
                self._put_link(folder, there)
        self._remove_new()

    def bring(self, existing: Path) -> None:
        """Copy the local files of a tree elsewhere that are not here yet, with owner and mode."""
        for path in (*self.paths.folders, *local_files(existing, self.paths)):
            source, home = existing / path, f"{LOCAL}/{path}"
            if not os.path.lexists(source) or self._below.status(home):
                continue
            if source.is_symlink() or source.is_dir() != (path in self.paths.folders):
                raise ApplicationError(f"{source}: not what host.toml has as local at {path}")
            self._remove_new()
            _copy_owned(source, self._root / NEW)
            self._below.rename(NEW, home)

    def settle(self, version: str, *, keep: bool) -> None:
        """Bring `local` to what it is under `version`: what is wanting, and what differs.

        `keep` says whose version is in use where both have one.
        """
        for folder in self.paths.folders:
            if self._below.status(f"{LOCAL}/{folder}") is None:
                self._below.make_folder(f"{LOCAL}/{folder}")
        for entry in self.paths.within(scan(self._signed / version)).values():
            self._settle_file(entry, version, keep=keep)

    def discard(self, version: str) -> None:
        """Remove a release's own versions of local files."""
        if (self._signed / version).is_dir():
            shutil.rmtree(self._signed / version)
        if self._signed.is_dir() and not any(self._signed.iterdir()):
            self._signed.rmdir()

    def prune(self) -> None:
        """Remove them where the release's tree is gone."""
        for item in list(self._signed.iterdir()) if self._signed.is_dir() else []:
            if not (self._root / "releases" / item.name).is_dir():
                self.discard(item.name)

    def _is_link(self, there: str) -> bool:
        """Whether at `releases/VERSION/PATH` is the link that leads to PATH's place in `local`."""
        return self._below.target(there) == link_text(there.split("/", 2)[2])

    def _places(self, path: str, current: str | None) -> list[str]:
        """Where the host's own file may be: in the current tree itself first, or in `local`."""
        there, home = f"releases/{current}/{path}", f"{LOCAL}/{path}"
        links = (f"releases/{current}/{linked}" for linked in (*self.paths.folders, path))
        linked = any(f"{there}/".startswith(f"{link}/") and self._is_link(link) for link in links)
        return [home] if linked or not current else [there, home]

    def _require_room(self, path: str, tree: Tree) -> None:
        """Refuse a release that has something else where a link goes, or on the way to it."""
        parts = path.split("/")
        if len(os.fsencode(parts[-1])) > MAX_NAME:
            raise ApplicationError(
                f"{path}: its name is too long for a local file, which has another one beside it"
            )
        above = ("/".join(parts[:end]) for end in range(1, len(parts)))
        folder = path if path in self.paths.folders else ""
        entry = tree.get(path)
        if (
            (entry and (entry.mode == LINK or folder))
            or any(parent in tree for parent in above)
            or (not folder and any(other.startswith(f"{path}/") for other in tree))
        ):
            raise ApplicationError(
                f"{path}: host.toml has it as local, and the release has something there that is "
                "no plain file or folder: a symbolic link, or one in the place of the other"
            )

    def _require_home(self, path: str) -> None:
        """Refuse a place in `local` that is of another kind; a link may lead where root likes."""
        status = self._below.status(f"{LOCAL}/{path}")
        if status is not None and not stat.S_ISLNK(status.st_mode):
            self._require_kind(path, self._root / LOCAL / path, status)

    def _require_movable(self, path: str, there: str) -> None:
        if self.paths.in_folder(path) and path not in self.paths.folders:
            return  # it goes with its folder
        status = self._below.status(there)
        if status is None or self._is_link(there):
            return
        where, home = self._root / there, self._root / LOCAL / path
        if stat.S_ISLNK(status.st_mode):
            raise ApplicationError(
                f"{where}: is a symbolic link; put what it leads to at {home}, and remove the link"
            )
        self._require_kind(path, where, status)
        if stat.S_ISDIR(status.st_mode):  # of files, some file systems do not say where they are
            if status.st_dev != self._root.stat().st_dev:
                raise self._unmovable(path, there, "it is a disk of its own")
            if any(where.iterdir()) and os.path.lexists(home):
                raise ApplicationError(
                    f"{where} and {home} both have files; put all of them into the second"
                )

    def _unmovable(self, path: str, there: str, reason: str) -> ApplicationError:
        return ApplicationError(
            f"{self._root / there} cannot be moved to {self._root / LOCAL / path}: {reason}; "
            "move it there by hand"
        )

    def _require_kind(self, path: str, where: Path, status: os.stat_result) -> None:
        kind = stat.S_IFDIR if path in self.paths.folders else stat.S_IFREG
        if stat.S_IFMT(status.st_mode) != kind:
            word = "folder" if kind == stat.S_IFDIR else "file"
            raise ApplicationError(f"{where}: host.toml has it as local, and it is no plain {word}")

    def _move_file(self, path: str, there: str, version: str) -> None:
        home = f"{LOCAL}/{path}"
        while not self._below.is_same(there, home):  # once, unless an editor writes it right now
            self._remove_new()
            self._below.link(there, NEW)
            self._keep(home, version)
            self._below.rename(NEW, home)
        self._put_link(path, there)

    def _put_link(self, path: str, there: str) -> None:
        self._remove_new()
        self._below.link_to(link_text(path), NEW)
        self._below.rename(NEW, there)

    def _move_folder(self, path: str, there: str) -> None:
        home = f"{LOCAL}/{path}"
        self._remove_new()
        self._below.link_to(link_text(path), NEW)
        if self._below.status(home) is None:
            self._below.rename(there, home)
        else:
            self._below.remove(there)  # it is empty
        self._below.rename(NEW, there)

    def _keep(self, home: str, version: str) -> None:
        """Give the host's own file at `home` a second name, before another takes the first."""
        if self._below.status(home) is None:
            return
        first = f"{home}{BEFORE}{version}"
        names = chain([first], (f"{first}.{number}" for number in count(2)))
        taken = self._below.status
        name = next(n for n in names if not taken(n) or self._below.is_same(home, n))
        if not taken(name):
            self._below.link(home, name)

    def _settle_file(self, entry: Entry, version: str, *, keep: bool) -> None:
        home, signed = f"{LOCAL}/{entry.path}", self._signed / version / entry.path
        mode, nobody = int(entry.mode[-3:], 8), (-1, -1)
        there = self._below.status(home)
        if there is None:
            self._put(signed, home, mode, nobody)
        elif self._below.digest(home) == entry.digest:
            self._below.remove(home + RELEASE)
        elif keep or not stat.S_ISREG(there.st_mode):
            self._put(signed, home + RELEASE, mode, nobody)
        else:
            self._keep(home, version)
            self._put(signed, home, there.st_mode & 0o777, (there.st_uid, there.st_gid))
            self._below.remove(home + RELEASE)

    def _put(self, signed: Path, path: str, mode: int, owner: tuple[int, int]) -> None:
        """Copy a signed file to `path`, whole or not at all."""
        self._remove_new()
        with signed.open("rb") as content:
            self._below.write(NEW, content, mode, owner)
        self._below.rename(NEW, path)

    def _remove_new(self) -> None:
        new = self._root / NEW
        if new.is_dir() and not new.is_symlink():  # a folder whose copying was cut short
            shutil.rmtree(new)
        self._below.remove(NEW)


def _copy_owned(source: Path, target: Path) -> None:
    """Copy a file, or a folder with everything in it, with owners and modes; links stay links."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    for folder, folders, files in os.walk(target):
        for path in (Path(folder, name) for name in (*folders, *files)):
            _own(path, source / path.relative_to(target))
    _own(target, source)


def _own(path: Path, like: Path) -> None:
    status = like.lstat()
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
