"""Packages of real projects, as input: each pinned by its version and its SHA-256.

pip fetches wheels and apt Debian packages, as they are configured on this machine. They are kept in
`build/downloads/` for the next run, and one that no longer has its digest is fetched anew.

Debian's pool has one version of a package for each release: a point release can replace it. Then
`apt-cache show NAME` has the version and the SHA-256 to pin instead.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from tests.hosts.cache import REPOSITORY

FOLDER = REPOSITORY / "build" / "downloads"
TIMEOUT = 300


@dataclass(frozen=True, slots=True)
class Wheel:
    """One version of a project, for every Python 3 on every platform unless `tag` names others.

    `tag` is what the file's name ends in: Python, ABI and platforms, as PEP 425 has them. It is the
    wheel's, and need not be that of the Python that runs.
    """

    project: str
    version: str
    digest: str
    tag: str = "py3-none-any"

    @property
    def file_name(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-{self.tag}.whl"

    @property
    def pip_options(self) -> list[str]:
        """Have pip fetch this wheel wherever it runs."""
        if self.tag.endswith("-none-any"):
            return []
        python, abi, platforms = self.tag.split("-")
        options = [f"--python-version={python[2:]}", f"--abi={abi}", "--implementation=cp"]
        return [*options, *(f"--platform={platform}" for platform in platforms.split("."))]

    def fetch(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """Have pip put the file into `folder`."""
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.project}=={self.version} --hash=sha256:{self.digest}\n")
        pip = (sys.executable, "-m", "pip", "download")
        options = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir")
        return _run([*pip, *options, *self.pip_options, "-r", requirements], folder)

    def unpack(self, file: Path, folder: Path) -> None:
        """Put the contents of `file` into `folder`, executable where the wheel says so."""
        with ZipFile(file) as archive:
            for member in archive.infolist():
                unpacked = Path(archive.extract(member, folder))
                # The upper half has the mode that the file had where the wheel was made.
                executable = member.is_dir() or member.external_attr >> 16 & 0o111
                unpacked.chmod(0o755 if executable else 0o644)


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One version of a Debian package for all architectures, from Debian's pool.

    apt checks what it fetches against its signed index; the digest here is the one in there.
    """

    name: str
    version: str
    digest: str

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_all.deb"

    def fetch(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """Have apt put the file into `folder`."""
        return _run(["apt-get", "download", f"{self.name}={self.version}"], folder)

    def unpack(self, file: Path, folder: Path) -> None:
        """Put the files of the package `file` below `folder`."""
        _run(["dpkg-deb", "--extract", file, folder], folder).check_returncode()


def unpacked(package: Wheel | DebianPackage, folder: Path) -> Path:
    """The package's contents in the new folder `folder`.

    Raises:
        RuntimeError: the package cannot be had.
    """
    folder.mkdir(parents=True)
    package.unpack(downloaded(package), folder)
    return folder


def downloaded(package: Wheel | DebianPackage) -> Path:
    """The package's file, from an earlier run or fetched now.

    Raises:
        RuntimeError: it cannot be fetched, or is another file; the message is what pip or apt said.
    """
    kept = FOLDER / package.file_name
    if not _is_whole(kept, package):
        FOLDER.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=FOLDER) as scratch:
            fetched = Path(scratch) / package.file_name
            done = package.fetch(fetched.parent)
            if done.returncode or not _is_whole(fetched, package):
                said = f"{done.stdout}{done.stderr}"
                wanted = f"{package.file_name} with SHA-256 {package.digest}"
                raise RuntimeError(f"{wanted} was not downloaded:\n{said}")
            fetched.replace(kept)
    return kept


def _is_whole(file: Path, package: Wheel | DebianPackage) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == package.digest


def _run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
