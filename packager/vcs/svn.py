"""Exports a tag from the Subversion repository of the working copy that release.toml lies in.

A tag is a path relative to the repository's root, such as `tags/1.4.0`, at the revision in which
it was last changed: who changes a tag later makes another release. Keywords are not expanded. A
file with svn:eol-style comes out with the line ends that the property asks for, LF for `native`,
on every machine. Externals are refused by name: their content is not fixed by the revision.

svn takes what follows the last `@` of a path for a revision: every path it is given ends in one.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

from installer.manifest import Source
from packager import tools
from packager.errors import ProjectError, ToolError
from packager.vcs.export import nearest, normalise, require_name, shown

_UNCHANGED = frozenset({"", "none", "normal", "external", "ignored"})
_VISIBLE = bytes(byte if byte >= ord(" ") or byte in b"\t\n\r" else ord("?") for byte in range(256))
_ABSENT = ("E155007", "W155007", "E160013", "W160013", "W170000", "E170000")
"""Subversion's codes for: no working copy, no such path in the repository, no such URL."""


@dataclass(frozen=True, slots=True)
class Subversion:
    """The Subversion repository that `folder`, a part of a working copy, comes from."""

    folder: Path

    def export(self, tag: str, into: Path) -> Source:
        """Write the tree of `tag` into the new or empty folder `into`.

        `revision` is `UUID/TAG@REVISION`, which every checkout has in common; its URL may differ
        from one developer to the next. `committed` is the revision's svn:date.

        Raises:
            ProjectError: no such tag, or an external or a bad name in its tree.
            ToolError: svn is missing or failed, or the repository cannot be reached.
        """
        root = _text(self._working_copy(), "repository/root")
        entry = self._tag(root, require_name(tag))
        revision = _part(entry, "commit").get("revision")
        url = f"{root}/{quote(tag)}@{revision}"
        self._require_no_externals(url)
        options = ("--force", "--quiet", "--ignore-keywords", "--ignore-externals")
        self._svn("export", *options, "--native-eol=LF", url, f"{into}@")
        normalise(into)
        uuid = _text(entry, "repository/uuid")
        return Source("svn", tag, f"{uuid}/{tag}@{revision}", _seconds(entry))

    def changes(self) -> list[str]:
        """How the working copy differs from the revision that it was updated to.

        Raises:
            ProjectError: the folder is not in a working copy.
            ToolError: svn is missing or failed.
        """
        top = Path(_text(self._working_copy(), "wc-info/wcroot-abspath"))
        status = self._look("status", f"{top}@")
        entries = status.iter("entry") if status is not None else ()
        return [
            f"{shown(os.path.relpath(entry.get('path', ''), top))}: {change}, not committed"
            for entry in entries
            if (change := _change(entry))
        ]

    def _svn(self, *arguments: str) -> bytes:
        return tools.run(["svn", *arguments, "--non-interactive"], cwd=self.folder)

    def _look(self, *arguments: str) -> ET.Element | None:
        """What svn says in XML; None where it says that there is no such thing."""
        try:
            answer = self._svn(*arguments, "--xml")
        except ToolError as error:
            if any(code in error.detail for code in _ABSENT):
                return None
            raise
        # svn escapes names, but not their control characters, which XML does not have.
        return ET.fromstring(answer.translate(_VISIBLE))  # noqa: S314 - written by svn itself

    def _working_copy(self) -> ET.Element:
        found = self._look("info", ".")
        if found is None:
            raise ProjectError(f"{self.folder} is not in a Subversion working copy")
        return _part(found, "entry")

    def _tag(self, root: str, tag: str) -> ET.Element:
        """What svn says about `tag` as it is now."""
        found = self._look("info", f"{root}/{quote(tag)}@")
        if found is None:
            raise ProjectError(f"the repository has no folder {tag!r}{self._nearest(root, tag)}")
        entry = _part(found, "entry")
        if entry.get("kind") != "dir":
            raise ProjectError(f"{tag} is a file in the repository; a tag is a folder")
        return entry

    def _nearest(self, root: str, tag: str) -> str:
        folders = {tag.rpartition("/")[0], "tags"}
        return nearest(tag, [path for folder in sorted(folders) for path in self._in(root, folder)])

    def _in(self, root: str, folder: str) -> list[str]:
        """The paths of what a folder of the repository holds; nothing where there is none."""
        listed = self._look("list", f"{root}/{quote(folder)}@")
        names = listed.iter("name") if listed is not None else ()
        return [f"{folder}/{name.text}".lstrip("/") for name in names]

    def _require_no_externals(self, url: str) -> None:
        found = self._look("propget", "svn:externals", "--recursive", url)
        for target in found.iter("target") if found is not None else ():
            if (target.findtext("property") or "").strip():
                raise ProjectError(
                    f"{unquote(target.get('path', ''))} has svn:externals, whose content no "
                    "revision fixes; copy what the release needs into the tag"
                )


def _part(element: ET.Element, path: str) -> ET.Element:
    """A part that svn gives whenever it gives `element`."""
    found = element.find(path)
    if found is None:
        raise ToolError(f"svn does not say {path} of {element.get('path', 'what was asked for')}")
    return found


def _text(entry: ET.Element, path: str) -> str:
    return _part(entry, path).text or ""


def _seconds(entry: ET.Element) -> int:
    return int(datetime.fromisoformat(_text(entry, "commit/date")).timestamp())


def _change(entry: ET.Element) -> str:
    """What a working copy did with a path, or with its properties; nothing where it did not."""
    status = _part(entry, "wc-status")
    item, properties = status.get("item", ""), status.get("props", "")
    if item not in _UNCHANGED:
        return item
    return f"properties {properties}" if properties not in _UNCHANGED else ""
