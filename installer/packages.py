"""What the host's package manager says, and a release's bundle out of a package file."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from installer.bundle import Bundle, dearmour, read_bundle
from installer.errors import MalformedError
from installer.tools import run, words

RPM = Path("/usr/bin/rpm")
RPM_MAGIC = b"\xed\xab\xee\xdb"
TIMEOUT = 60


@contextmanager
def open_release(file: Path) -> Iterator[Bundle]:
    """The bundle in an RPM, or in a file that is a bundle; it is open within the `with` block.

    Raises:
        MalformedError: it is neither.
    """
    try:
        with file.open("rb") as stream:
            is_rpm = stream.read(len(RPM_MAGIC)) == RPM_MAGIC
            stream.seek(0)
            yield read_bundle(BytesIO(_body_of_pre(file)) if is_rpm else stream)
    except OSError as error:
        raise MalformedError(f"{file}: {error.strerror}") from None


def installed_version(product: str) -> str | None:
    """The version of the product's package that is installed, as its package manager says."""
    if not RPM.exists():
        return None
    done = _rpm("-q", "--qf", "%{VERSION}\n", product)
    return done.stdout.decode().split("\n", 1)[0] if done.returncode == 0 else None


def _body_of_pre(file: Path) -> bytes:
    """The release that %pre carries."""
    done = _rpm("-qp", "--nosignature", "--qf", "%{PREIN}", str(file.absolute()))
    if done.returncode:
        raise MalformedError(f"{file}: {words(done)}")
    body = BytesIO()
    dearmour(BytesIO(done.stdout), body)
    return body.getvalue()


def _rpm(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run([RPM, *arguments], timeout=TIMEOUT)
