"""The application on disk: `releases/<version>` below its root, and `current`, a link to one.

A release is staged beside the current one: a copy of the current tree, patched, every file's digest
checked before and after, written through to the disk. Only then may the database change begin; the
switch after it is one rename of a link. Nothing outside the root is written, and links inside a
tree are never followed. The current tree is not modified, but where the host file has a path as
local: those are not the release's, and in no comparison (`installer.local_files`).
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from installer.below import Below
from installer.bundle import ContentReader
from installer.durable import sync_folder, sync_tree
from installer.errors import ApplicationError, ConfigurationError, NotSwitchedError
from installer.local import NOTHING, LocalPaths
from installer.local_files import LocalFiles
from installer.manifest import Application, Patch
from installer.starts import (
    MAX_NAMED,
    Start,
    choose_start,
    declaration,
    named,
    require_tree,
)
from installer.tools import run, words
from installer.tree import LINK, Tree, differences, scan

GIT = "/usr/bin/git"
GIT_TIMEOUT = 600
GIT_SETTINGS = (
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.protectHFS=false",
    "core.protectNTFS=false",
    "core.symlinks=true",
)
GIT_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "GIT_DIR": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
}


class ApplicationFolder:
    """An application's root on this host.

    `local` is what of a tree is the host's own. `keep_local`: where a release has that too, the
    host's version stays in use.
    """

    def __init__(self, root: Path, local: LocalPaths = NOTHING, *, keep_local: bool = True) -> None:
        self.root = root
        self._local = LocalFiles(root, local)
        self._keep_local = keep_local
        self._releases = root / "releases"
        self._current = root / "current"
        self._made: list[Path] = []

    def current_version(self) -> str | None:
        """The release that `current` leads to; None where the application is not installed.

        Raises:
            ApplicationError: `current` is something else than this tool made of it.
        """
        if not os.path.lexists(self._current):
            return None
        folder, _, version = os.fspath(self._link()).partition("/")
        if folder != "releases" or "/" in version or not self.folder(version).is_dir():
            raise ApplicationError(f"{self._current}: does not lead to a release below {self.root}")
        return version

    def folder(self, version: str) -> Path:
        """Where the tree of a release is, or will be."""
        return self._releases / version

    def tree(self) -> Tree:
        """The current tree as it is on the disk, but for what is local; empty if there is none."""
        version = self.current_version()
        return self.tree_of(version) if version else {}

    def tree_of(self, version: str) -> Tree:
        """The same of a release that is or was staged."""
        return scan(self.folder(version), self._local.paths)

    def own(self, tree: Tree) -> Tree:
        """What of a release's tree is to be found here: it is not local."""
        return self._local.paths.without(tree)

    def require_whole(self, application: Application, most: int = MAX_NAMED) -> None:
        """Refuse a current tree that is not the release's; at most `most` files are named.

        Raises:
            ApplicationError: files differ.
        """
        expected, actual = self.own(application.tree), self.tree()
        if found := differences(expected, actual):
            declared = declaration(expected, actual, self._local.paths, str(self.root))
            detail = "\n".join(filter(None, [named(found, most), declared]))
            raise ApplicationError(f"{self.root}: {len(found)} files differ", detail=detail)

    def start(self, application: Application) -> Start:
        """From what the release is made here; nothing is touched.

        Raises:
            ApplicationError: the current tree is not one that the release starts from, or something
                that is local could not be kept.
        """
        current = self.current_version()
        self._local.require_plain(application.tree, current)
        return choose_start(application, self.tree(), self._local, current)

    def apart(self, application: Application, start: Start, verbs: tuple[str, str]) -> list[str]:
        """A line for each local file that the release has otherwise; it is kept, or replaced."""
        keep, replace = verbs
        return [
            apart.told(keep if self._keep_local or apart.path in start.missing else replace)
            for apart in self._local.apart(application.tree, self.current_version())
        ]

    def stage(self, application: Application, version: str, content: ContentReader) -> list[str]:
        """Make the folder of `version`, complete and on the disk, without touching `current`.

        Returns lines for the report, on local files.

        Raises:
            ApplicationError: the current tree is not one that the release starts from, a patch
                does not apply, or the result is not what was signed.
        """
        if self._is_staged(application, version):
            return []
        start, current = self.start(application), self.current_version()
        with self._staging(application, version, start.missing) as staging:
            if current:
                _copy(self.folder(current), staging, self.own(start.tree))
                self._copy_signed(staging, start, current)
            if start.patch and start.patch.size:
                with _spooled(content, start.patch, self._releases) as file:
                    _apply(file, staging, start.left_out)
        return self.apart(application, start, ("kept local:", "replacing local:"))

    def take_over(self, application: Application, version: str, existing: Path) -> None:
        """Stage a copy of a tree that was installed by other means, and of its local files.

        Raises:
            ApplicationError: it is not the release's tree.
        """
        tree = scan(existing, self._local.paths)
        require_tree(self.own(application.tree), tree, str(existing))
        self._local.require_plain(application.tree, None)
        self.require_private()
        self._local.bring(existing)
        local, there = self._local.paths.within(application.tree), Below(existing.resolve())
        same = {path: e for path, e in local.items() if there.digest(path) == e.digest}
        with self._staging(application, version, local.keys() - same.keys()) as staging:
            _copy(existing, staging, {**tree, **same})

    def switch(self, version: str) -> None:
        """Let `current` lead to `version`: at every moment it leads to one whole tree.

        Raises:
            NotSwitchedError: the link could not be renamed, or a local file not be made.
        """
        link = self.root / ".current.new"
        try:
            self._local.settle(version, keep=self._keep_local)
            link.unlink(missing_ok=True)
            link.symlink_to(f"releases/{version}")
            link.rename(self._current)
            sync_folder(self.root)
        except (OSError, ApplicationError) as error:
            raise NotSwitchedError(f"{self._current}: cannot be switched: {error}") from None

    def discard(self, version: str) -> None:
        """Remove what was staged for `version`; the current tree is left alone."""
        current = self._current.readlink().name if self._current.is_symlink() else None
        for folder in (self._releases / f".{version}.staging", self.folder(version)):
            if folder.is_dir() and folder.name != current:
                shutil.rmtree(folder)
        if current and self.folder(current).is_dir():
            self._local.mend(current)
        if current != version:
            self._local.discard(version)
        while self._made and not any(self._made[-1].iterdir()):
            self._made.pop().rmdir()

    def prune(self, keep: int) -> None:
        """Remove all but the `keep` trees that were staged last, and never the current one."""
        current = self.current_version()
        found = (item for item in self._releases.iterdir() if not item.is_symlink())
        trees = [item for item in found if item.name != current]
        trees.sort(key=lambda item: item.stat().st_mtime_ns, reverse=True)
        for tree in trees[keep - 1 :]:
            shutil.rmtree(tree)
        self._local.prune()

    def require_private(self) -> None:
        """Make the root, and what is above it, if absent; refuse one that others can write to."""
        for folder in (*reversed(self.root.parents), self.root, self._releases):
            if not os.path.lexists(folder):
                folder.mkdir()
                folder.chmod(0o755)  # the application runs as another user
                sync_folder(folder.parent)
                self._made.append(folder)
        for folder in (self.root, self._releases):
            status = folder.lstat()
            writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or writable:
                raise ConfigurationError(
                    f"{folder}: must be a folder that only root can write to; "
                    f"run: chown root {folder} && chmod 755 {folder}"
                )

    def _link(self) -> Path:
        try:
            return self._current.readlink()
        except OSError:
            raise ApplicationError(f"{self._current}: is not a symbolic link") from None

    def _is_staged(self, application: Application, version: str) -> bool:
        current = self.current_version()
        return (
            self.folder(version).is_dir()
            and self.tree_of(version) == self.own(application.tree)
            and (version == current or self._local.are_linked(application.tree, version, current))
        )

    def _copy_signed(self, staging: Path, start: Start, current: str) -> None:
        """Copy what the patch starts from and the current tree has no longer, but this host has."""
        for path, entry in self._local.paths.within(start.tree).items():
            if file := self._local.release_version(entry, current):
                with file:
                    copy = staging / path
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    with copy.open("xb") as to:
                        shutil.copyfileobj(file, to)
                    copy.chmod(int(entry.mode[-3:], 8))

    @contextmanager
    def _staging(
        self, application: Application, version: str, unknown: Collection[str] = ()
    ) -> Iterator[Path]:
        """A new folder to fill; then it is checked, written through, and given its name.

        All that was signed is in it, but for the local files `unknown`; then links are in the place
        of those that are local.
        """
        if (current := self.current_version()) == version:
            raise ApplicationError(f"{self._current} is {version} already, with another tree")
        self.discard(version)
        self.require_private()
        staging = self._releases / f".{version}.staging"
        staging.mkdir()
        try:
            yield staging
            signed = {p: entry for p, entry in application.tree.items() if p not in unknown}
            require_tree(signed, scan(staging), f"{version} as staged")
            self._local.set_aside(staging, signed, version)
            self._local.link(staging, application.tree, current)
            _open_folders(staging)
            sync_tree(staging)
            if current:
                self._local.take_over(current, version)
            staging.rename(self.folder(version))
            sync_folder(self._releases)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)  # it may have its name already
            raise


def _copy(source: Path, target: Path, tree: Tree) -> None:
    """Copy what `tree` names; the copy is checked after the patch, so a race shows there."""
    for path, entry in tree.items():
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, copy, follow_symlinks=False)
        if entry.mode != LINK:
            copy.chmod(int(entry.mode[-3:], 8))


def _open_folders(root: Path) -> None:
    """Let everyone read the tree's folders: the application runs as another user."""
    for folder, _, _ in os.walk(root):
        Path(folder).chmod(0o755)


@contextmanager
def _spooled(content: ContentReader, patch: Patch, folder: Path) -> Iterator[BinaryIO]:
    """The patch as an unnamed file: its digest is checked before git sees a byte of it."""
    with TemporaryFile(dir=folder) as file:
        for piece in content.pieces(patch):
            file.write(piece)
        file.seek(0)
        yield file


def _apply(patch: BinaryIO, folder: Path, left_out: Collection[str]) -> None:
    """Apply a patch with git, which sees no repository, no configuration and no attributes.

    In a folder of a repository `git apply` changes nothing and says so to nobody, and attributes in
    the tree would change line ends. A GIT_DIR that is no repository rules out both. `left_out` are
    local files whose signed bytes this host does not have.
    """
    plain = (re.sub(r"([*?\[\\])", r"\\\1", path) for path in sorted(left_out))
    excluded = [f"--exclude={path}" for path in plain]
    settings = [word for setting in GIT_SETTINGS for word in ("-c", setting)]
    done = run(
        [GIT, *settings, "apply", "--whitespace=nowarn", "-p1", *excluded, "-"],
        cwd=folder,
        stdin=patch,
        environment=GIT_ENVIRONMENT,
        umask=0o022,
        timeout=GIT_TIMEOUT,
    )
    if done.returncode:
        _require_room(words(done), folder)
        raise ApplicationError("the application's patch does not apply", detail=words(done))


def _require_room(said: str, folder: Path) -> None:
    """Raise what git has met, where that was no room on the disk of `folder`."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(number) in said:
            raise OSError(number, os.strerror(number), os.fspath(folder))
