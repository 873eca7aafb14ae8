"""What the host's package manager says, and a release's bundle out of a package file."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from installer import deb
from installer.bundle import Bundle, Head, dearmour, read_bundle, read_carried
from installer.errors import MalformedError
from installer.rpm_payload import RPM_MAGIC, bundle_in
from installer.tools import run, words

RPM = Path("/usr/bin/rpm")
DPKG_QUERY = Path("/usr/bin/dpkg-query")
ABSENT = frozenset({"not-installed", "config-files"})
"""The states of dpkg (dpkg-query(1)) in which a package has no files."""

TIMEOUT = 60


@contextmanager
def open_release(file: Path) -> Iterator[Bundle]:
    """The bundle in an RPM, in a .deb, or in a file that is a bundle.

    It is open within the `with` block.

    Raises:
        MalformedError: it is none of these.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise MalformedError(f"{file}: {error.strerror}") from None
    with stream:
        try:
            bundle = _bundle(file, stream)
        except MalformedError as error:
            raise MalformedError(f"{file}: {error}") from None
        yield bundle


def _bundle(file: Path, stream: BinaryIO) -> Bundle:
    start = stream.read(max(len(RPM_MAGIC), len(deb.MAGIC)))
    stream.seek(0)
    if start == deb.MAGIC:
        return deb.bundle_in(stream)
    if not start.startswith(RPM_MAGIC):
        return read_bundle(stream)
    carried = read_carried(BytesIO(_body_of_pre(file)))
    return bundle_in(stream, carried) if isinstance(carried, Head) else carried


def installed_versions(product: str) -> tuple[str, ...]:
    """The versions of the product's package that are installed, as the package managers say.

    rpm has several side by side where it was told to install one and not to upgrade (`rpm -i`).
    """
    return tuple(dict.fromkeys((*_versions_in_rpm(product), *_versions_in_dpkg(product))))


def _versions_in_rpm(product: str) -> list[str]:
    done = _rpm("-q", "--qf", "%{VERSION}\n", product)
    return done.stdout.decode().splitlines() if done.returncode == 0 else []


def _versions_in_dpkg(product: str) -> list[str]:
    form = "${db:Status-Status} ${Version}\n"
    done = run([DPKG_QUERY, "--show", "--showformat", form, product], timeout=TIMEOUT)
    state, _, version = done.stdout.decode().split("\n", 1)[0].partition(" ")
    if done.returncode or state in ABSENT:
        return []
    return [version.rpartition("-")[0] or version]  # without the revision of the package


def _body_of_pre(file: Path) -> bytes:
    """The release that %pre carries."""
    done = _rpm("-qp", "--nosignature", "--qf", "%{PREIN}", str(file.absolute()))
    if done.returncode:
        raise MalformedError(words(done))
    body = BytesIO()
    dearmour(BytesIO(done.stdout), body)
    return body.getvalue()


def _rpm(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run([RPM, *arguments], timeout=TIMEOUT)
