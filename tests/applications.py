"""Releases of an application for tests without a package: real patches, in the real content's form.

host = folder(tmp_path / "crm", "config/app.toml", "uploads/")
install(host, release("1.0", {"app": "1", "config/app.toml": "a"}))
"""

import lzma
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from installer.application import ApplicationFolder
from installer.bundle import ContentReader, Section
from installer.local import LocalPaths
from installer.manifest import Application, Patch
from installer.tree import Tree, digest_of, scan
from packager.patches import make_patch

ROOT = "/opt/crm"
Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Release:
    """What is staged, and its content."""

    version: str
    files: Files
    application: Application
    blobs: tuple[bytes, ...]

    @property
    def content(self) -> ContentReader:
        packed = lzma.compress(b"".join(self.blobs), lzma.FORMAT_XZ)
        section = Section(BytesIO(packed), 0, len(packed))
        return ContentReader(section, self.application.patches)


def release(version: str, files: Files, *starts: Release, empty: bool = True) -> Release:
    """The release that has `files`, from nothing (where `empty`) and from `starts`."""
    with tempfile.TemporaryDirectory() as scratch:
        after = grow(Path(scratch) / "after", files)
        nothing = [("empty", Path(scratch) / "nothing")] if empty else []
        before = [
            (start.version, grow(Path(scratch) / start.version, start.files)) for start in starts
        ]
        made = [make_patch(name, folder, after) for name, folder in (*nothing, *before)]
        application = Application(ROOT, scan(after), tuple(patch for patch, _ in made))
    return Release(version, files, application, tuple(content for _, content in made))


def hostile(version: str, tree: Tree, patch: str) -> Release:
    """A release whose patch from nothing is not what the build makes."""
    content = patch.encode()
    named = Patch("empty", digest_of(content), len(content), (), tuple(tree))
    return Release(version, {}, Application(ROOT, tree, (named,)), (content,))


def grow(root: Path, files: Files) -> Path:
    """A folder with these files; `-> x` is a link to x."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            (root / path).symlink_to(content.removeprefix("-> "))
        else:
            (root / path).write_text(content, encoding="utf-8")
            (root / path).chmod(0o644)
    return root


def local(declared: Sequence[str]) -> LocalPaths:
    """As the host file has them."""
    return LocalPaths(
        tuple(text.removesuffix("/") for text in declared if text.endswith("/")),
        tuple(text for text in declared if not text.endswith("/")),
    )


def folder(root: Path, *declared: str, keep_local: bool = True) -> ApplicationFolder:
    """An application's root on a host that declares these paths local."""
    return ApplicationFolder(root, local(declared), keep_local=keep_local)


def install(host: ApplicationFolder, new: Release) -> list[str]:
    """Stage and switch; returns what is told of local files."""
    told = host.stage(new.application, new.version, new.content)
    host.switch(new.version)
    return told
