"""Finds a large release's bundle in the payload of the RPM that carries it.

An RPM's header, %pre included, is held in memory several times over and stays in rpm's database. So
the %pre of a large release has only the bundle's head, and the whole bundle is a file of the
payload, which is not compressed. While %pre runs, rpm (or dnf) holds the package open: it is looked
for among the parent's open files, and known by having this very head. The content is checked like
any other, against the digest that the head's manifest has. Where nothing is found, nothing is
installed.

Formats: rpm, docs/manual/format_*.md; cpio, "newc", as rpm writes it.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import SEEK_CUR
from pathlib import Path
from typing import BinaryIO

from installer.bundle import Bundle, Head, read_bundle
from installer.errors import MalformedError

RPM_MAGIC = b"\xed\xab\xee\xdb"
LEAD = 96
HEADER_MAGIC = b"\x8e\xad\xe8\x01"
HEADER_INTRO = 16
INDEX_ENTRY = 16
CPIO_MAGIC = b"070701"
CPIO_HEADER = 110
MAX_NAME = 4096
MAX_FILES = 1000
"""Files in the payload: a bundle, a manifest, and a file for each signature."""


def bundle_in(rpm: BinaryIO, head: Head) -> Bundle:
    """The bundle with this head out of the payload of an RPM; the file has to stay open.

    Raises:
        MalformedError: it is no RPM, or its payload has no such bundle.
    """
    rpm.seek(LEAD)
    _skip_header(rpm)
    rpm.seek(-rpm.tell() % 8, SEEK_CUR)  # the signature header is padded
    _skip_header(rpm)
    payload = rpm.tell()
    for name, size in _files(rpm, payload):
        if name.endswith("/bundle"):
            bundle = read_bundle(rpm, size)
            if bundle.head == head:
                return bundle
    raise MalformedError("the package's payload does not have the release that its %pre names")


@contextmanager
def bundle_of_parent(head: Head) -> Iterator[Bundle]:
    """The bundle with this head out of the package that the parent process has open.

    Raises:
        MalformedError: the parent has no such file open.
    """
    for descriptor in sorted(Path(f"/proc/{os.getppid()}/fd").iterdir()):
        try:
            if not stat.S_ISREG(descriptor.stat().st_mode):  # to open a FIFO waits for a writer
                continue
            file = descriptor.open("rb")
        except OSError:  # pragma: no cover - the parent has closed it since: a matter of moments
            continue
        with file:
            if bundle := _bundle_if_any(file, head):
                yield bundle
                return
    raise MalformedError("rpm has no package open that has the release which its %pre names")


def _bundle_if_any(file: BinaryIO, head: Head) -> Bundle | None:
    if file.read(len(RPM_MAGIC)) != RPM_MAGIC:
        return None
    try:
        return bundle_in(file, head)
    except MalformedError:
        return None  # another package of the same transaction


def _skip_header(rpm: BinaryIO) -> None:
    intro = rpm.read(HEADER_INTRO)
    if len(intro) != HEADER_INTRO or intro[:4] != HEADER_MAGIC:
        raise MalformedError("not an RPM")
    entries, size = int.from_bytes(intro[8:12]), int.from_bytes(intro[12:16])
    rpm.seek(INDEX_ENTRY * entries + size, SEEK_CUR)


def _files(rpm: BinaryIO, payload: int) -> Iterator[tuple[str, int]]:
    """Name and size of each file of a cpio archive; the file stands at the content."""
    for _ in range(MAX_FILES):
        header = rpm.read(CPIO_HEADER)
        if len(header) != CPIO_HEADER or header[:6] != CPIO_MAGIC:
            raise MalformedError("the package's payload is not an uncompressed cpio archive")
        size, length = _hexadecimal(header[54:62]), _hexadecimal(header[94:102])
        if length > MAX_NAME:
            raise MalformedError("the package's payload has a name that is too long")
        name = rpm.read(length).rstrip(b"\0").decode(errors="replace")
        rpm.seek(-(rpm.tell() - payload) % 4, SEEK_CUR)
        start = rpm.tell()
        if name == "TRAILER!!!":
            return
        yield name, size
        rpm.seek(start + size + -size % 4)


def _hexadecimal(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9A-Fa-f]{8}", digits):  # int() would take a sign, too
        raise MalformedError("the package's payload is not a cpio archive")
    return int(digits, 16)
