"""The application on disk: `releases/<version>` below its root, and `current`, a link to one.

A release is staged beside the current one: a copy of the current tree, patched, every file's digest
checked before and after, written through to the disk. Only then may the database change begin; the
switch after it is one rename of a link. Nothing outside the root is written, and links inside a
tree are never followed. The current tree is never modified.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from installer.bundle import ContentReader
from installer.durable import sync_folder, sync_tree
from installer.errors import ApplicationError, ConfigurationError, NotSwitchedError
from installer.manifest import Application, Patch
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
MAX_NAMED = 20
"""Differing files that a message names."""


class ApplicationFolder:
    """An application's root on this host."""

    def __init__(self, root: Path) -> None:
        self.root = root
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
        """The current tree as it is on the disk; empty where there is none."""
        version = self.current_version()
        return scan(self.folder(version)) if version else {}

    def stage(self, application: Application, version: str, content: ContentReader) -> None:
        """Make the folder of `version`, complete and on the disk, without touching `current`.

        Raises:
            ApplicationError: the current tree is not one that the release starts from, a patch
                does not apply, or the result is not what was signed.
        """
        target = self.folder(version)
        if target.is_dir() and scan(target) == application.tree:
            return
        before = self.tree()
        patch = None if before == application.tree else choose_patch(application, before)
        with self._staging(application, version) as staging:
            if current := self.current_version():
                _copy(self.folder(current), staging, before)
            if patch and patch.size:
                with _spooled(content, patch, self._releases) as file:
                    _apply(file, staging)

    def take_over(self, application: Application, version: str, existing: Path) -> None:
        """Stage a copy of a tree that was installed by other means.

        Raises:
            ApplicationError: it is not the release's tree.
        """
        tree = scan(existing)
        require_tree(application.tree, tree, str(existing))
        with self._staging(application, version) as staging:
            _copy(existing, staging, tree)

    def switch(self, version: str) -> None:
        """Let `current` lead to `version`: at every moment it leads to one whole tree.

        Raises:
            NotSwitchedError: the link could not be renamed.
        """
        link = self.root / ".current.new"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(f"releases/{version}")
            link.rename(self._current)
            sync_folder(self.root)
        except OSError as error:
            raise NotSwitchedError(f"{self._current}: cannot be switched: {error}") from None

    def discard(self, version: str) -> None:
        """Remove what was staged for `version`; the current tree is left alone."""
        for folder in (self._releases / f".{version}.staging", self.folder(version)):
            if folder.is_dir() and self.current_version() != folder.name:
                shutil.rmtree(folder)
        while self._made and not any(self._made[-1].iterdir()):
            self._made.pop().rmdir()

    def prune(self, keep: int) -> None:
        """Remove all but the `keep` trees that were staged last, and never the current one."""
        current = self.current_version()
        trees = [item for item in self._releases.iterdir() if item.name != current]
        trees.sort(key=lambda item: item.stat().st_mtime_ns, reverse=True)
        for tree in trees[keep - 1 :]:
            shutil.rmtree(tree)

    def require_private(self) -> None:
        """Make the root, and what is above it, if absent; refuse one that others can write to."""
        for folder in (*reversed(self.root.parents), self.root, self._releases):
            if not os.path.lexists(folder):
                folder.mkdir()
                folder.chmod(0o755)  # the application runs as another user
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

    @contextmanager
    def _staging(self, application: Application, version: str) -> Iterator[Path]:
        """A new folder to fill; then it is checked, written through, and given its name."""
        self.discard(version)
        self.require_private()
        staging = self._releases / f".{version}.staging"
        staging.mkdir()
        try:
            yield staging
            _open_folders(staging)
            require_tree(application.tree, scan(staging), f"{version} as staged")
            sync_tree(staging)
            staging.rename(self.folder(version))
            sync_folder(self._releases)
        except BaseException:
            shutil.rmtree(staging)
            raise


def choose_patch(application: Application, before: Tree) -> Patch:
    """The patch that starts from exactly the tree `before`.

    Raises:
        ApplicationError: none does; the files that differ from the nearest start are named.
    """
    apart: list[tuple[Patch, list[str]]] = []
    for patch in application.patches:
        found = differences(application.tree_before(patch), before)
        if not found:
            return patch
        apart.append((patch, found))
    if not apart or not before:
        starts = ", ".join(patch.name for patch in application.patches)
        raise ApplicationError(f"this host has no application; the release starts from: {starts}")
    nearest, found = min(apart, key=lambda item: len(item[1]))
    raise ApplicationError(
        f"{application.root}/current is no tree that the release starts from; "
        f"{len(found)} of its files differ from {nearest.name}",
        detail=_named(found),
    )


def require_tree(expected: Tree, actual: Tree, what: str) -> None:
    """Refuse a tree that is not the one expected, naming the files that differ.

    Raises:
        ApplicationError: with a line for each of the first differing files.
    """
    if found := differences(expected, actual):
        raise ApplicationError(f"{what}: {len(found)} files differ", detail=_named(found))


def _named(found: list[str]) -> str:
    more = [f"… and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return "\n".join(f"  {line}" for line in found[:MAX_NAMED] + more)


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


def _apply(patch: BinaryIO, folder: Path) -> None:
    """Apply a patch with git, which sees no repository, no configuration and no attributes.

    In a folder of a repository `git apply` changes nothing and says so to nobody, and attributes in
    the tree would change line ends. A GIT_DIR that is no repository rules out both.
    """
    settings = [word for setting in GIT_SETTINGS for word in ("-c", setting)]
    done = run(
        [GIT, *settings, "apply", "--whitespace=nowarn", "-p1", "-"],
        cwd=folder,
        stdin=patch,
        environment=GIT_ENVIRONMENT,
        umask=0o022,
        timeout=GIT_TIMEOUT,
    )
    if done.returncode:
        raise ApplicationError("the application's patch does not apply", detail=words(done))
