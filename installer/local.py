"""Which paths of an application are this host's own: configuration, uploads.

Opens no files. The host file declares them, relative to the application's tree; a release cannot. A
folder is local with everything below it. A pattern is for files: in it, within one part of the
path, `*` is any text and `?` any character. What the installer itself puts beside a local file, the
release's own version and earlier ones, is never local itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

RELEASE = ".release"
"""What follows a local file's name where the release's own version of it lies beside."""
BEFORE = ".before-"
"""What follows it, and is followed by a version, where an earlier one of the host's own does."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalPaths:
    """Declared folders, without the `/` at their ends, and patterns of files."""

    folders: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[str, ...]:
        """As the host file has them."""
        return (*(f"{folder}/" for folder in self.folders), *self.patterns)

    @property
    def plain(self) -> tuple[str, ...]:
        """Patterns that are for one path."""
        return tuple(pattern for pattern in self.patterns if not {"*", "?"} & set(pattern))

    def in_folder(self, path: str) -> bool:
        """Whether `path` is a declared folder, or below one."""
        return any(f"{path}/".startswith(f"{folder}/") for folder in self.folders)

    def has(self, path: str) -> bool:
        """Whether a file at `path` is local."""
        return self.in_folder(path) or self.has_file(path)

    def has_file(self, path: str) -> bool:
        """Whether one of the patterns is for the file at `path`."""
        name = path.rpartition("/")[2]
        if not self.patterns or name.endswith(RELEASE) or BEFORE in name:
            return False
        return _expression(self.patterns).fullmatch(path) is not None

    def without(self, tree: Mapping[str, T]) -> dict[str, T]:
        """What of `tree` is the release's own and not local."""
        return {path: entry for path, entry in tree.items() if not self.has(path)}

    def within(self, tree: Mapping[str, T]) -> dict[str, T]:
        """What of `tree` is local."""
        return {path: entry for path, entry in tree.items() if self.has(path)}


NOTHING = LocalPaths()


def link_text(path: str) -> str:
    """Where the link in the place of the local `path` leads, as seen from its folder.

    A tree is two folders below the application's root, in which `local` is.
    """
    return "../" * (path.count("/") + 2) + f"local/{path}"


@cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    wild = {"*": "[^/]*", "?": "[^/]"}
    made = ("".join(wild.get(char, re.escape(char)) for char in pattern) for pattern in patterns)
    return re.compile("|".join(made), re.DOTALL)
