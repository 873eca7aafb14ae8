"""Gives a product's own repository what it needs to build releases: release.toml and a Makefile.

Both are for people to read and change, so they come from templates with comments. Nothing that is
there is ever overwritten.
"""

import tomllib
from pathlib import Path
from typing import Any

from installer.manifest import PRODUCT
from packager.errors import OutputError, ProjectError
from packager.templates import render

FIRST_VERSION = "0.1.0"
TAGS = {"git": "v", "svn": "tags/", "tree": "releases/"}
"""What comes before a version in the names of released trees, by version control."""

DATABASE_LENGTH = 63
"""Bytes of a PostgreSQL name."""


def detect_vcs(folder: Path) -> str:
    """The version control that `folder` is under: `git`, `svn`, or `tree` for none."""
    for parent in (folder.resolve(), *folder.resolve().parents):
        for vcs in ("git", "svn"):
            if (parent / f".{vcs}").exists():
                return vcs
    return "tree"


def initialise(folder: Path, name: str, vcs: str) -> list[Path]:
    """Write release.toml and a Makefile for the product `name` into `folder`; returns both.

    `vcs` is one of TAGS.

    Raises:
        OutputError: one of them is there already, or cannot be written; then neither is.
        ProjectError: no product can have this name.
    """
    if not PRODUCT.fullmatch(name):
        raise ProjectError(
            f"{name!r} is no name for a product, which has small letters, digits and -; "
            "choose one with --name"
        )
    texts = {
        folder / "release.toml": _release(first_release(name, vcs), vcs),
        folder / "Makefile": render("Makefile.j2", name=name),
    }
    if there := [path for path in texts if path.exists() or path.is_symlink()]:
        raise OutputError(f"{there[0]} is there already, and is not overwritten")
    _write(texts)
    return list(texts)


def first_release(name: str, vcs: str) -> dict[str, dict[str, Any]]:
    """What the release.toml of a new product says."""
    return {
        "release": {
            "name": name,
            "version": FIRST_VERSION,
            "sequence": 1,
            "summary": "The first release",
        },
        "application": {
            "vcs": vcs,
            "path": "app",
            "to": f"{TAGS[vcs]}{FIRST_VERSION}",
            "from": ["empty"],
            "root": f"/opt/{name}",
        },
        "database": {
            "name": name[:DATABASE_LENGTH],
            "scripts": ["sql/*.sql"],
            "order": "name",
        },
    }


def _release(document: dict[str, dict[str, Any]], vcs: str) -> str:
    text = render("release.toml.j2", next_tag=f"{TAGS[vcs]}0.2.0", **document)
    if tomllib.loads(text) != document:
        raise OutputError("the template of release.toml does not say what it was given")
    return text


def _write(texts: dict[Path, str]) -> None:
    written: list[Path] = []
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise OutputError(f"{error.filename}: {error.strerror}; nothing was written") from None
