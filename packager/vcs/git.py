"""Exports a tag from a git repository, object by object.

`git archive` is never used: it follows export-ignore, export-subst and line end attributes. Neither
the user's nor the system's configuration has an effect, nor do replaced objects; hooks and the
file system monitor that a repository configures are not run. Refused by name: submodules and Git
LFS pointers, for their content is not in the repository.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from installer.manifest import Source
from installer.tree import EXECUTABLE, LINK
from packager import tools
from packager.errors import ProjectError, ToolError
from packager.vcs.export import make_folder, nearest, require_name, shown, write_file, write_link

_ENVIRONMENT = {
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",  # `git status` by root would leave an index that only root may write
    "GIT_TERMINAL_PROMPT": "0",
}
_SETTINGS = {
    "core.attributesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.compression": "0",  # stored, not deflated: zlib and zlib-ng deflate to different bytes
    "core.eol": "lf",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.protectHFS": "false",
    "core.protectNTFS": "false",
    "core.quotePath": "true",
    "core.symlinks": "true",
    "safe.directory": "*",  # root may build from a developer's repository
}
_SUBMODULE = "160000"
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/[^\n]*\n(?s:.*)^oid ", re.MULTILINE
)
_POINTER_SIZE = 1024
"""An LFS pointer is smaller than this (the specification of Git LFS, 'The Pointer')."""
_BATCH_SIZE = 64 * 1024 * 1024
"""Bytes of content that are read from git at a time; a larger file is read alone."""
_COMMITTER = re.compile(rb"^committer [^\n]*> (\d+) [-+]\d{4}$", re.MULTILINE)
_CHANGES = {
    "?": "not in version control",
    "A": "added, not committed",
    "D": "deleted, not committed",
    "M": "modified, not committed",
    "T": "changed its kind, not committed",
    "U": "not merged",
}


def run_git(
    *arguments: str,
    cwd: Path,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
) -> bytes:
    """Run git, independent of anybody's configuration, and return what it printed.

    Raises:
        ToolError: git is missing or ended with a code that is not in `accept`.
    """
    settings = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
    return tools.run(
        ["git", *settings, *arguments],
        cwd=cwd,
        stdin=stdin,
        environment=_ENVIRONMENT | dict(environment or {}),
        accept=accept,
    )


@dataclass(frozen=True, slots=True)
class _Blob:
    """A file or link as a commit has it; `object_name` is that of its content, `size` in bytes."""

    path: str
    mode: str
    object_name: str
    size: int


@dataclass(frozen=True, slots=True)
class Git:
    """The git repository that `folder` lies in."""

    folder: Path

    def export(self, tag: str, into: Path) -> Source:
        """Write the tree of refs/tags/`tag` into the new or empty folder `into`.

        `revision` is the commit's full name, `committed` its committer's time.

        Raises:
            ProjectError: no such tag, or a submodule, an LFS pointer or a bad name in its tree.
            ToolError: git is missing or failed.
        """
        commit = self._commit(tag)
        blobs = self._blobs(commit)
        make_folder(into)
        for batch in _batches(blobs):
            for blob, content in zip(batch, self._contents(batch), strict=True):
                _write(into, blob, content)
        return Source("git", tag, commit, self._committed(commit))

    def changes(self) -> list[str]:
        """How working copy and index differ from the commit that is checked out.

        Raises:
            ProjectError: the folder is not in a git repository.
            ToolError: git is missing or failed.
        """
        self._require_repository()
        status = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
        lines = self._git(*status, "--ignore-submodules=dirty").split(b"\0")
        return [_change(line.decode(errors="surrogateescape")) for line in lines if line]

    def _git(self, *arguments: str, stdin: bytes = b"", accept: Sequence[int] = (0,)) -> bytes:
        return run_git(*arguments, cwd=self.folder, stdin=stdin, accept=accept)

    def _require_repository(self) -> None:
        try:
            self._git("rev-parse", "--git-dir")
        except ToolError as error:
            if "not a git repository" not in error.detail:
                raise
            raise ProjectError(f"{self.folder} is not in a git repository") from None

    def _commit(self, tag: str) -> str:
        """The commit that `tag` names; `tag` is a tag's very name and no revision expression."""
        self._require_repository()
        listed = self._git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags")
        tags = listed.decode(errors="surrogateescape").splitlines()
        if tag not in tags:
            raise ProjectError(f"{self.folder} has no git tag {tag!r}{nearest(tag, tags)}")
        name = f"refs/tags/{tag}^{{commit}}"
        commit = self._git("rev-parse", "--verify", "--quiet", name, accept=(0, 1, 128))
        if not commit:
            raise ProjectError(f"the git tag {tag!r} does not name a commit")
        return commit.decode().strip()

    def _committed(self, commit: str) -> int:
        header = self._git("cat-file", "commit", commit).partition(b"\n\n")[0]
        found = _COMMITTER.search(header)
        if found is None:
            raise ProjectError(f"the commit {commit} does not say when it was made")
        return int(found[1])

    def _blobs(self, commit: str) -> list[_Blob]:
        """What the commit holds, links last: nothing is ever written through one."""
        listed = self._git("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0")
        blobs = [_blob(line) for line in listed if line]
        return sorted(blobs, key=lambda blob: blob.mode == LINK)

    def _contents(self, blobs: Sequence[_Blob]) -> Iterator[bytes]:
        """The content of each blob, framed as git-cat-file(1) says under 'Batch output'."""
        names = "".join(f"{blob.object_name}\n" for blob in blobs).encode()
        answer, position = self._git("cat-file", "--batch", stdin=names), 0
        for blob in blobs:
            start = answer.find(b"\n", position) + 1
            if answer[position:start] != f"{blob.object_name} blob {blob.size}\n".encode():
                raise ToolError(f"git did not give the content of {blob.path}; try `git fsck`")
            yield answer[start : start + blob.size]
            position = start + blob.size + 1


def _blob(line: bytes) -> _Blob:
    """A line of `git ls-tree -l -z`: mode, type, name and size of the object; a tab; the path."""
    fields, _, name = line.partition(b"\t")
    mode, _, object_name, size = fields.decode().split()
    path = require_name(name.decode(errors="surrogateescape"))
    if mode == _SUBMODULE:
        raise ProjectError(f"{path} is a git submodule: its content is not in this repository")
    if not size.isdigit():
        raise ToolError(f"git does not have the content of {path}; try `git fsck`")
    return _Blob(path, mode, object_name, int(size))


def _batches(blobs: Iterable[_Blob]) -> Iterator[list[_Blob]]:
    """`blobs` in their order, in parts of at most `_BATCH_SIZE` bytes of content, or one blob."""
    batch: list[_Blob] = []
    size = 0
    for blob in blobs:
        if batch and size + blob.size > _BATCH_SIZE:
            yield batch
            batch, size = [], 0
        batch.append(blob)
        size += blob.size
    if batch:
        yield batch


def _write(into: Path, blob: _Blob, content: bytes) -> None:
    if blob.mode == LINK:
        write_link(into / blob.path, content)
    elif len(content) < _POINTER_SIZE and _POINTER.match(content):
        raise ProjectError(
            f"{blob.path} is a Git LFS pointer: its content is not in the repository"
        )
    else:
        write_file(into / blob.path, content, executable=blob.mode == EXECUTABLE)


def _change(line: str) -> str:
    """A line of `git status --porcelain=v1`: two letters, for the index and the files; the path."""
    index, files, path = line[0], line[1], line[3:]
    return f"{shown(path)}: {_CHANGES.get(index.strip() or files, 'changed, not committed')}"
