"""Builds the package `countersign-installer`, which hosts need before their first release.

    python -m packager.installer_package --output dist

It holds the folder `installer` and its dependencies, pure Python only, as `requirements.lock` pins
them by hash. The same source and lock file give the same package: everything in it has the time of
SOURCE_DATE_EPOCH or, without it, of the commit that is checked out.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from packager.errors import PackagerError, ToolError
from packager.formats.rpm import rpmbuild
from packager.templates import FOLDER as TEMPLATES
from packager.templates import render
from packager.tools import run

SOURCE = TEMPLATES.parent
LOCK = SOURCE / "installer/requirements.lock"
SAMPLES = TEMPLATES / "installer"
LAUNCHER = "countersign-install"
PLACES = {
    "completion.bash": f"usr/share/bash-completion/completions/{LAUNCHER}",
    "logrotate": "etc/logrotate.d/countersign-installer",
}
"""Where a host's own tools look for what is in SAMPLES."""

MAN_PAGES = ("countersign-install.8", "countersign-host.toml.5", "countersign-policy.toml.5")
"""The host side's; `docs/man` has the build side's too."""

PIP_SETTINGS = re.compile(r"PIP_\w+|https?_proxy|no_proxy|SSL_CERT_\w+", re.IGNORECASE)
"""Variables that say where pip finds packages; the hashes say which ones."""

NOT_SHIPPED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What pip writes about its own work; it differs from machine to machine."""


def build_installer(output: Path) -> Path:
    """Build the RPM into the folder `output`.

    Raises:
        ToolError: pip, git or rpmbuild is missing or failed.
    """
    with TemporaryDirectory(prefix="countersign-installer-") as name:
        folder, epoch = Path(name), source_date()
        stage(folder / "payload")
        date = datetime.fromtimestamp(epoch, UTC).strftime("%a %b %d %Y")
        values = {"version": version(), "vendored": list(pinned()), "date": date}
        (folder / "package.spec").write_text(render("installer.spec.j2", **values))
        package = rpmbuild(folder, epoch)
        output.mkdir(parents=True, exist_ok=True)
        temporary = Path(shutil.copy(package, output / f".{package.name}"))
        return temporary.replace(output / package.name)


def stage(root: Path) -> None:
    """Lay out what the package installs below `root`.

    Raises:
        ToolError: pip or gzip is missing, failed, or installed something that is not pure Python.
    """
    vendor(root / "usr/libexec/countersign")
    copy_installer(root / "usr/libexec/countersign/installer")
    (root / "usr/bin").mkdir()
    shutil.copy(SAMPLES / LAUNCHER, root / "usr/bin" / LAUNCHER)
    copy_to_places(root)
    (root / "usr/share/countersign/releases").mkdir(parents=True)
    for folder in ("etc", "var/lib", "var/log"):
        (root / folder / "countersign").mkdir(parents=True)
    (root / "etc/countersign/approvals").mkdir()
    (root / "var/lib/countersign/receipts").mkdir()
    documents = root / "usr/share/doc/countersign-installer"
    licenses = root / "usr/share/licenses/countersign-installer"
    documents.mkdir(parents=True)
    licenses.mkdir(parents=True)
    for sample in sorted(SAMPLES.glob("*.toml")):
        shutil.copy(sample, documents)
    shutil.copy(SOURCE / "LICENSE", licenses)
    set_modes(root)


def vendor(target: Path) -> None:
    """Install the locked dependencies into the folder `target`.

    Raises:
        ToolError: pip is missing, failed, or installed something that is not pure Python.
    """
    settings = {name: text for name, text in os.environ.items() if PIP_SETTINGS.fullmatch(name)}
    options = ("--require-hashes", "--no-deps", "--no-compile", "--only-binary=:all:")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    run([*pip, *options, "--target", target, "-r", LOCK], environment=settings)
    if compiled := [path.name for path in target.rglob("*") if path.suffix in {".so", ".pyd"}]:
        raise ToolError(f"{LOCK.name} brings compiled code: {', '.join(sorted(compiled))}")
    for note in NOT_SHIPPED:
        for file in target.glob(f"*.dist-info/{note}"):
            file.unlink()
    shutil.rmtree(target / "bin", ignore_errors=True)


def copy_installer(target: Path) -> None:
    """Copy the installer's own modules."""
    shutil.copytree(
        SOURCE / "installer", target, ignore=shutil.ignore_patterns("__pycache__", LOCK.name)
    )


def copy_to_places(root: Path) -> None:
    """Copy man pages, completion and log rotation to where a host's own tools look for them.

    Raises:
        ToolError: gzip is missing or failed.
    """
    for name, place in PLACES.items():
        (root / place).parent.mkdir(parents=True)
        shutil.copy(SAMPLES / name, root / place)
    for page in MAN_PAGES:
        folder = root / f"usr/share/man/man{page[-1]}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / "docs/man" / page, folder)
        # Not with Python's zlib, whose bytes differ from one machine to another.
        run(["gzip", "-9", "--no-name", folder / page])


def set_modes(root: Path) -> None:
    """Give everything the modes that it has on a host, whatever the builder's umask."""
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def version() -> str:
    """The installer's version."""
    source = (SOURCE / "installer/__init__.py").read_text()
    (found,) = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    return str(found)


def pinned() -> Iterator[tuple[str, str]]:
    """Names and versions of the dependencies that the package carries."""
    for match in re.finditer(r"^([\w.-]+)==([\w.]+)", LOCK.read_text(), re.MULTILINE):
        yield match[1], match[2]


def source_date() -> int:
    """The time of everything in the package, in seconds since 1970.

    Raises:
        ToolError: neither SOURCE_DATE_EPOCH nor git says.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(run(["git", "-C", SOURCE, "log", "-1", "--format=%ct"]))


def command(build: Callable[[Path], Path], kind: str) -> None:
    """Build the package that the arguments ask for, and say where it is."""
    parser = argparse.ArgumentParser(description=f"Build the {kind} of countersign-installer.")
    parser.add_argument("--output", type=Path, default=Path("dist"), help=f"folder for the {kind}")
    try:
        package = build(parser.parse_args().output)
    except PackagerError as error:
        sys.stderr.write(f"error: {error}\n{error.detail}\n{error.hint}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"wrote {package}\n")


if __name__ == "__main__":
    command(build_installer, "RPM")
