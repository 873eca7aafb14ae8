"""Which packages a repository takes: releases, approvals and withdrawals, and the installer's own.

Releases and statements are read as strictly as hosts read them.

A package lies in a repository under the name that follows from what is in it, not under that of the
file that was given: a version is there once.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.deb import MAGIC as DEB_MAGIC
from installer.errors import MalformedError
from installer.manifest import parse_manifest
from packager.companion_reader import brings_statements, read_companion
from packager.errors import ToolError
from packager.formats import FORMATS
from packager.package_reader import RPM_MAGIC, read_package
from packager.tools import run

INSTALLER = "countersign-installer"
FILE_NAME = re.compile(r"[A-Za-z0-9][\w.+~-]*", re.ASCII)
TIME_IN_DEB = slice(len(DEB_MAGIC) + 16, len(DEB_MAGIC) + 28)
"""Where a DEB says when it was built: the time of its first member (deb(5))."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was examined. `kind` is a name in `FORMATS`, `built` seconds since 1970.

    `environment` is the only one that it is for, where there is such a one.
    """

    path: Path
    kind: str
    name: str
    file_name: str
    built: int
    environment: str | None = None


def examine(path: Path, now: int) -> Package:
    """What the package at `path` is, if a repository takes it; `now` is in seconds since 1970.

    Raises:
        DigestError: its content is not the one that was signed.
        MalformedError: it is damaged, or nothing that countersign builds.
        StatementError: what it brings is not signed, or the signatures do not fit.
        ToolError: rpm or dpkg-deb is missing.
    """
    with _damage_is_refused(path):
        with path.open("rb") as file:
            start = file.read(TIME_IN_DEB.stop)
        if start.startswith(RPM_MAGIC):
            package = _rpm(path)
        elif start.startswith(DEB_MAGIC):
            package = _deb(path, int(start[TIME_IN_DEB]))
        else:
            raise MalformedError(f"{path}: neither an RPM nor a DEB")
        if not FILE_NAME.fullmatch(package.file_name):
            raise MalformedError(f"{path}: calls itself {package.file_name!r}")
        if package.name == INSTALLER:
            _require_whole(package)
        elif brings_statements(path, package.kind):
            companion = read_companion(path, package.kind, now)
            _require_name(package, companion.file_names[package.kind], companion.summary)
            return replace(package, environment=companion.environment)
        else:
            _require_release(package)
    return package


def _rpm(path: Path) -> Package:
    form = "%{NAME}\n%{NVRA}\n%{BUILDTIME}"
    with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
        rpm = ("rpm", "--define", f"_dbpath {folder}", "--query", "--nosignature")
        words = run([*rpm, "--queryformat", form, "--package", path.absolute()]).decode()
    name, full_name, built = words.split("\n")
    return Package(path, "rpm", name, f"{full_name}.rpm", int(built))


def _deb(path: Path, built: int) -> Package:
    form = "${Package}\n${Package}_${Version}_${Architecture}"
    words = run(["dpkg-deb", "--show", f"--showformat={form}", path.absolute()]).decode()
    name, full_name = words.split("\n")
    return Package(path, "deb", name, f"{full_name}.deb", built)


def _require_whole(package: Package) -> None:
    """Refuse an installer that is damaged; whose it is, the repository's signature says."""
    if package.kind == "deb":
        run(["dpkg-deb", "--contents", package.path.absolute()])
        return
    with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
        rpmkeys = ("rpmkeys", "--define", f"_dbpath {folder}", "--checksig", "--nosignature")
        run([*rpmkeys, package.path.absolute()])


def _require_release(package: Package) -> None:
    _, bundle = read_package(package.path)
    manifest = parse_manifest(bundle.head.manifest)
    bundle.open_content(manifest)
    _require_name(package, FORMATS[package.kind].file_name(manifest), manifest.title)


def _require_name(package: Package, meant: str, content: str) -> None:
    if package.file_name != meant:
        what = f"calls itself {package.file_name}, but holds {content}"
        raise MalformedError(f"{package.path}: {what}")


@contextmanager
def _damage_is_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise MalformedError(f"{path}: {error}") from None
    except ToolError as error:
        if not error.detail:  # the tool itself is missing
            raise
        raise MalformedError(f"{path}: {error.detail}") from None
