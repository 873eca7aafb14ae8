"""What the host's package manager says, and a release's bundle out of a package file."""

import subprocess
from pathlib import Path

from installer.bundle import MAX_BUNDLE_SIZE, Bundle, dearmour, read_bundle
from installer.errors import MalformedError
from installer.tools import run, words

RPM = Path("/usr/bin/rpm")
RPM_MAGIC = b"\xed\xab\xee\xdb"
TIMEOUT = 60


def read_release(file: Path) -> Bundle:
    """The bundle in an RPM, or in a file that is a bundle.

    Raises:
        MalformedError: it is neither.
    """
    try:
        with file.open("rb") as stream:
            is_rpm = stream.read(4) == RPM_MAGIC
            stream.seek(0)
            raw = b"" if is_rpm else stream.read(MAX_BUNDLE_SIZE + 1)
    except OSError as error:
        raise MalformedError(f"{file}: {error.strerror}") from None
    if not is_rpm:
        return read_bundle(raw)
    done = _rpm("-qp", "--nosignature", "--qf", "%{PREIN}", str(file.absolute()))
    if done.returncode:
        raise MalformedError(f"{file}: {words(done)}")
    return read_bundle(dearmour(done.stdout))


def installed_version(product: str) -> str | None:
    """The version of the product's package that is installed, as its package manager says."""
    if not RPM.exists():
        return None
    done = _rpm("-q", "--qf", "%{VERSION}\n", product)
    return done.stdout.decode().split("\n", 1)[0] if done.returncode == 0 else None


def _rpm(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run([RPM, *arguments], timeout=TIMEOUT)
