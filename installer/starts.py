"""From what a release's tree is made on this host: the current tree, and the patch that fits it.

The patch that fits is the one whose tree before is on the disk, not one that some record claims.
Local files are in no comparison (`installer.local`), yet a patch may change the release's own
version of one. Where the signed bytes of that are not on this host any more, since the file was
edited before it was declared local, the tree is made from the patch that starts from nothing, which
brings them all. A release without such a patch leaves these files out of the one that it has: their
new version then is not known here either, and the host's own stays in use.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace

from installer.errors import ApplicationError
from installer.host_file import HOST_FILE
from installer.local import LocalPaths
from installer.local_files import LocalFiles
from installer.manifest import EMPTY, Application, Patch
from installer.strict_json import is_control
from installer.tree import LINK, Tree, differences

MAX_NAMED = 20
"""Differing files that a message names."""


@dataclass(frozen=True, slots=True)
class Start:
    """A way to the new tree: `patch` on `tree`, or `tree` as it is.

    `missing` are the local files of `tree` whose signed bytes are not on this host.
    """

    patch: Patch | None
    tree: Tree
    missing: Collection[str] = frozenset()

    @property
    def left_out(self) -> Collection[str]:
        """What the patch would change, and cannot."""
        touched = {entry.path for entry in self.patch.before} if self.patch else set()
        return touched & set(self.missing)


def choose_start(
    application: Application, before: Tree, local: LocalFiles, current: str | None
) -> Start:
    """The way to the release's tree from exactly `before`, the current tree without local files.

    Raises:
        ApplicationError: there is none; the files that differ from the nearest start are named.
    """
    own = local.paths.without
    ways = [Start(patch, application.tree_before(patch)) for patch in application.patches]
    already = [Start(None, application.tree)] if current else []
    fitting = [way for way in (*already, *ways) if own(way.tree) == before]
    if not fitting:
        raise _refusal(application, before, local.paths)
    fitting = [_missing(way, local, current) for way in fitting]
    best = min(fitting, key=lambda way: len(way.missing))
    anew = [patch for patch in application.patches if patch.name == EMPTY]
    return Start(anew[0], {}) if best.missing and anew else best


def require_tree(expected: Tree, actual: Tree, what: str) -> None:
    """Refuse a tree that is not the one expected, naming the files that differ.

    Raises:
        ApplicationError: with a line for each of the first differing files.
    """
    if found := differences(expected, actual):
        raise ApplicationError(f"{what}: {len(found)} files differ", detail=named(found))


def named(found: list[str], most: int = MAX_NAMED) -> str:
    """The first `most` of these lines, and how many there are besides."""
    more = [f"… and {len(found) - most} more"] if len(found) > most else []
    return "\n".join(f"  {line}" for line in found[:most] + more)


def declaration(expected: Tree, actual: Tree, local: LocalPaths, root: str) -> str:
    """What to write into the host file for files that differ and are the host's own; or nothing."""
    files = [
        path
        for path, entry in sorted(actual.items())
        if entry != expected.get(path) and entry.mode != LINK and not any(map(is_control, path))
    ]
    if not files or len(files) > MAX_NAMED:
        return ""
    quoted = ", ".join(json.dumps(text, ensure_ascii=False) for text in (*local.declared, *files))
    return (
        f'A file that is this host\'s own: declare it in {HOST_FILE}, below root = "{root}"; '
        f"for all of them:\n  local = [{quoted}]"
    )


def _missing(way: Start, local: LocalFiles, current: str | None) -> Start:
    entries = local.paths.within(way.tree).values()
    lost = {entry.path for entry in entries if not local.has_release_version(entry, current)}
    return replace(way, missing=frozenset(lost))


def _refusal(application: Application, before: Tree, local: LocalPaths) -> ApplicationError:
    starts = {p.name: local.without(application.tree_before(p)) for p in application.patches}
    if not starts or not before:
        return ApplicationError(
            f"this host has no application; the release starts from: {', '.join(starts)}"
        )
    nearest = min(starts, key=lambda n: (n == EMPTY, len(differences(starts[n], before))))
    found = differences(starts[nearest], before)
    declared = declaration(starts[nearest], before, local, application.root)
    return ApplicationError(
        f"{application.root}/current is no tree that the release starts from; "
        f"{len(found)} of its files differ from {nearest}",
        detail="\n".join(filter(None, [named(found), declared])),
    )
