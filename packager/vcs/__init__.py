"""Where a release's files come from: a tag in version control, never the working copy."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from installer.manifest import Source
from packager.errors import ProjectError
from packager.vcs.export import nearest
from packager.vcs.folders import Folders
from packager.vcs.git import Git
from packager.vcs.svn import Subversion


class Repository(Protocol):
    """The repository that release.toml lies in."""

    def export(self, tag: str, into: Path) -> Source:
        """Write the tree of `tag`, from the repository's top, into the new or empty folder `into`.

        What is written are the bytes that version control stores: no line end is converted, no
        keyword expanded, no file left out. After an error, `into` may hold part of the tree.

        Raises:
            ProjectError: there is no such tag, or its tree holds what a release cannot carry.
            ToolError: the version control's program is missing or failed.
        """
        ...

    def changes(self) -> list[str]:
        """How the working copy differs from what is committed, a line for each path.

        Raises:
            ProjectError: the folder is not in a repository of this kind.
            ToolError: the version control's program is missing or failed.
        """
        ...


REPOSITORIES: dict[str, Callable[[Path], Repository]] = {
    "git": Git,
    "svn": Subversion,
    "tree": Folders,
}


def open_repository(vcs: str, folder: Path) -> Repository:
    """The repository of kind `vcs` in which `folder`, that of release.toml, lies.

    Raises:
        ProjectError: no such kind is known.
    """
    if vcs not in REPOSITORIES:
        raise ProjectError(f"vcs = {vcs!r} is not known{nearest(vcs, REPOSITORIES)}")
    return REPOSITORIES[vcs](folder)
