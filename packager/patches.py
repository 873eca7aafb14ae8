"""Makes the patch from one released tree to the next, and says what it does.

The same two trees give the same bytes for every developer: git compares them as objects of a
scratch repository, where no attributes, no configuration and no path of this machine have an
effect; content that is not text is stored, not deflated, for zlib and zlib-ng deflate to different
bytes; only exact renames are looked for, for likeness is estimated differently by different
versions of git.

A patch is applied with `git apply -p1` in the application's folder. Before it is returned it has
been, and gave the new tree.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from installer.manifest import Patch
from installer.tree import (
    EXECUTABLE,
    LINK,
    Digest,
    Entry,
    Tree,
    by_path,
    differences,
    digest_of,
    scan,
)
from packager.errors import ProjectError, ToolError
from packager.vcs.export import normalise, write_file, write_link
from packager.vcs.git import run_git

MAX_SIZE = 1023 * 1024 * 1024
"""The largest patch, in bytes, that `git apply` reads."""

_DIFF = (
    "diff-tree",
    "--patch",
    "--binary",
    "--full-index",
    "--find-renames=100%",
    "--diff-algorithm=myers",
    "--no-indent-heuristic",
    "--unified=3",
    "--inter-hunk-context=0",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
)


@dataclass(frozen=True, slots=True)
class _Side:
    """The entries of the tree at `root` that the other tree has not, or has otherwise."""

    root: Path
    entries: tuple[Entry, ...]

    def content(self, entry: Entry) -> bytes:
        file = self.root / entry.path
        if entry.mode == LINK:
            return os.readlink(os.fsencode(file))  # noqa: PTH115 - Path.readlink drops slashes
        return file.read_bytes()


def make_patch(name: str, before: Path, after: Path) -> tuple[Patch, bytes]:
    """The patch called `name` that leads from the exported tree `before` to `after`.

    An absent folder is an empty tree. The bytes are empty if the trees do not differ; `git apply`
    does not take those, so there is nothing to run then.

    Raises:
        ProjectError: git could not apply a patch to such trees, or it is too large.
        ToolError: git is missing or failed, or the patch does not give the new tree.
    """
    old, new = scan(before), scan(after)
    removed, added = _Side(before, _missing(old, new)), _Side(after, _missing(new, old))
    content = b""
    if removed.entries or added.entries:
        _require_names((*removed.entries, *added.entries))
        with tempfile.TemporaryDirectory(prefix="countersign-") as scratch:
            content = _compare(Path(scratch), removed, added)
            _require_result(Path(scratch) / "tree", content, removed, added)
    new_paths = tuple(entry.path for entry in added.entries if entry.path not in old)
    return Patch(name, digest_of(content), len(content), removed.entries, new_paths), content


def summarise(patch: Patch, after: Tree) -> list[str]:
    """Say, a line for each path in the order of paths, what `patch` does on the way to `after`."""
    gone = [entry for entry in patch.before if entry.path not in after]
    added = [after[path] for path in patch.added]
    renamed = dict(_renames(gone, added))
    lines = {new.path: f"renamed {old.path} -> {new.path}" for new, old in renamed.items()}
    lines |= {new.path: f"added {new.path}, {_sized(new)}" for new in added if new not in renamed}
    moved = set(renamed.values())
    lines |= {old.path: f"removed {old.path}" for old in gone if old not in moved}
    kept = [(entry, after[entry.path]) for entry in patch.before if entry.path in after]
    lines |= {new.path: f"modified {new.path}, {_change(old, new)}" for old, new in kept}
    return [lines[path] for path in sorted(lines)]


def _missing(tree: Tree, other: Tree) -> tuple[Entry, ...]:
    return tuple(entry for path, entry in sorted(tree.items()) if other.get(path) != entry)


def _require_names(entries: Iterable[Entry]) -> None:
    for entry in entries:
        if ".git" in entry.path.casefold().split("/"):
            raise ProjectError(f"{entry.path}: git patches nothing that is called .git")
        if " /" in entry.path:  # `diff --git a/x /y b/x /y` could be read in two ways
            raise ProjectError(
                f"{entry.path}: git patches nothing in a folder whose name ends in a space"
            )


def _compare(scratch: Path, removed: _Side, added: _Side) -> bytes:
    repository = {"GIT_DIR": str(scratch / "git")}
    init = ("init", "--bare", "--quiet", "--template=", "--object-format=sha1")
    run_git(*init, "--initial-branch=after", cwd=scratch, environment=repository)
    stream = b"".join([*_commit("before", removed), *_commit("after", added)])
    run_git("fast-import", "--quiet", cwd=scratch, environment=repository, stdin=stream)
    trees = ("refs/heads/before", "refs/heads/after")
    content = run_git(*_DIFF, *trees, cwd=scratch, environment=repository)
    if len(content) > MAX_SIZE:
        raise ProjectError(f"a patch of {len(content)} bytes; git applies at most {MAX_SIZE}")
    return content


def _commit(branch: str, side: _Side) -> Iterator[bytes]:
    """A commit of these entries alone, in the words of git-fast-import(1)."""
    yield f"commit refs/heads/{branch}\ncommitter - <-> 0 +0000\ndata 0\n".encode()
    for entry in side.entries:
        quoted = entry.path.replace("\\", "\\\\").replace('"', '\\"')
        content = side.content(entry)
        yield f'M {entry.mode} inline "{quoted}"\ndata {len(content)}\n'.encode()
        yield content + b"\n"


def _require_result(tree: Path, content: bytes, removed: _Side, added: _Side) -> None:
    """Apply the patch to a copy of what it changes, and refuse it if the result is not `added`."""
    tree.mkdir()
    for entry in sorted(removed.entries, key=lambda entry: entry.mode == LINK):
        _copy(removed, entry, tree)
    # A GIT_DIR that is none keeps git from any repository above the folder: it would apply the
    # patch relative to that one's top, and convert line ends as its attributes say.
    nowhere = {"GIT_DIR": "/dev/null"}
    apply = ("apply", "--whitespace=nowarn", "-p1", "-")
    run_git(*apply, cwd=tree, environment=nowhere, stdin=content)
    normalise(tree)
    if wrong := differences(by_path(added.entries), scan(tree)):
        raise ToolError("git made a patch that does not give the new tree", detail="\n".join(wrong))


def _copy(side: _Side, entry: Entry, tree: Path) -> None:
    if entry.mode == LINK:
        write_link(tree / entry.path, side.content(entry))
    else:
        write_file(tree / entry.path, side.content(entry), executable=entry.mode == EXECUTABLE)


def _renames(gone: Iterable[Entry], added: Iterable[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Pairs of a new and an old entry that differ in nothing but their paths."""
    waiting: dict[tuple[str, Digest], list[Entry]] = {}
    for old in gone:
        waiting.setdefault((old.mode, old.digest), []).append(old)
    for new in added:
        if new.size and (olds := waiting.get((new.mode, new.digest))):
            yield new, olds.pop(0)


def _change(old: Entry, new: Entry) -> str:
    mode = f"mode {old.mode} -> {new.mode}"
    size = f"{old.size} -> {new.size} bytes"
    return ", ".join([mode] * (old.mode != new.mode) + [size] * (old.digest != new.digest))


def _sized(entry: Entry) -> str:
    return f"{entry.size} bytes"
