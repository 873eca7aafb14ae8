"""Reads .deb files in the one form that `packager.formats.deb` writes them.

A .deb is an ar archive (deb(5)) of `debian-binary`, `control.tar`, `data.tar` and, where whoever
publishes it has signed it, `_gpgorigin`. The two tar archives are not compressed: nothing is
decompressed before its signatures are verified. Each of their headers must equal, byte for byte,
the one that GNU tar makes of the same name, mode, size and time, with root as the owner; files and
folders are all there is, no links and no devices. Nothing is unpacked. Packages in any other form,
Debian's own among them, are refused.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from installer.bundle import BLOCK, Bundle, read_bundle
from installer.errors import MalformedError

MAGIC = b"!<arch>\n"
VERSION = b"2.0\n"
"""The content of debian-binary: the only version of the format that there is."""

CONTROL = "control.tar"
DATA = "data.tar"
ORIGIN = "_gpgorigin"
MEMBERS = ("debian-binary", CONTROL, DATA)
CONTROL_FILES = frozenset({"bundle", "control", "md5sums", "preinst"})
"""What control.tar holds: no maintainer script but preinst, no trigger, no configuration file."""

MAX_NAME = 1024
LONG_NAME = b"././@LongLink"
"""GNU tar's name for a member that holds the name of the next one."""

_AR_HEADER = 60
_NUMBERS = rb"([0-7]{7})\x000{7}\x000{7}\0([0-7]{11})\0([0-7]{11})\0"
"""Mode, owner and group 0, size, time (POSIX.1-1988, ustar)."""

_TAR_RECORD = 20 * BLOCK
"""Zeros up to a multiple of this end a tar archive."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where a member of the ar archive, or of a tar archive in it, has its content, in bytes."""

    name: str
    offset: int
    size: int
    mode: int = 0o644
    is_folder: bool = False


def bundle_in(deb: BinaryIO) -> Bundle:
    """The bundle that a .deb carries beside its preinst; the file has to stay open.

    Raises:
        MalformedError: this is no package that countersign built.
    """
    part = control_parts(deb)["bundle"]
    deb.seek(part.offset)
    return read_bundle(deb, part.size)


def control_parts(deb: BinaryIO) -> dict[str, Part]:
    """The files that dpkg puts beside preinst, and preinst itself, by name.

    Raises:
        MalformedError: this is no package that countersign built.
    """
    parts: dict[str, Part] = {}
    for part in tar_parts(deb, ar_parts(deb)[CONTROL]):
        if (part.name, part.is_folder) == ("./", True):
            continue
        name = part.name.removeprefix("./")
        if part.is_folder or name not in CONTROL_FILES or name in parts:
            raise MalformedError(f"{CONTROL} holds {part.name!r}, or holds it twice")
        parts[name] = part
    if missing := sorted(CONTROL_FILES - parts.keys()):
        raise MalformedError(f"{CONTROL} has no {missing[0]}")
    return parts


def ar_parts(deb: BinaryIO) -> dict[str, Part]:
    """The members of the .deb, by name and in their order.

    Raises:
        MalformedError: this is no .deb, or has other members than ours have.
    """
    end = deb.seek(0, os.SEEK_END)
    if _read(deb, 0, len(MAGIC)) != MAGIC:
        raise MalformedError("this is not a Debian package")
    offset, found = len(MAGIC), list[Part]()
    while offset < end and len(found) <= len(MEMBERS):
        found.append(_ar_part(deb, offset))
        offset = found[-1].offset + found[-1].size + found[-1].size % 2
    names = tuple(part.name for part in found)
    if names not in {MEMBERS, (*MEMBERS, ORIGIN)}:
        raise MalformedError(f"a package of a release does not consist of {', '.join(names)}")
    if offset != end:
        raise MalformedError("the Debian package is truncated, or longer than its members")
    if found[0].size != len(VERSION) or read_part(deb, found[0]) != VERSION:
        raise MalformedError("debian-binary names another version of the format")
    return {part.name: part for part in found}


def tar_parts(deb: BinaryIO, archive: Part) -> Iterator[Part]:
    """The files and folders in one of the two tar archives.

    Raises:
        MalformedError: it is not in the one form.
    """
    offset, end, long_name = archive.offset, archive.offset + archive.size, b""
    while (header := _tar_header(deb, archive, offset)) != bytes(BLOCK):
        part, kind = _tar_part(header, offset, long_name)
        offset = part.offset + part.size + (-part.size % BLOCK)
        if offset > end:
            raise MalformedError(f"{archive.name} is truncated")
        if kind == b"L":
            long_name = _long_name(deb, part)
        else:
            long_name = b""
            yield part
    most = _TAR_RECORD + BLOCK  # two blocks of zeros, and on to the end of a record
    rest = _read(deb, offset, min(end - offset, most))
    if long_name or end - offset > most or any(rest):
        raise MalformedError(f"{archive.name} does not end where its members do")


def read_part(deb: BinaryIO, part: Part) -> bytes:
    """The content of a member.

    Raises:
        MalformedError: the file ends before it does.
    """
    return _read(deb, part.offset, part.size)


def ar_header(name: str, size: int, time: int) -> bytes:
    """The header of a member of a .deb; `time` is in seconds since 1970."""
    return f"{name:<16}{time:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode("ascii")


def _ar_part(deb: BinaryIO, offset: int) -> Part:
    header = _read(deb, offset, _AR_HEADER)
    name, size = header[:16].rstrip(b" "), header[48:58].rstrip(b" ")
    # Whoever adds a signature with ar(1) has all headers written anew: with a slash after each
    # name, and with owners and modes of the day, which mean nothing in a .deb.
    numbers = re.fullmatch(b"[0-9 ]{32}", header[16:48]) and re.fullmatch(b"[0-9]+", size)
    if not re.fullmatch(b"[a-z._-]+/?", name) or not numbers or header[58:] != b"`\n":
        raise MalformedError("the Debian package is truncated, or has a member of another form")
    return Part(name.decode().removesuffix("/"), offset + _AR_HEADER, int(size))


def _tar_header(deb: BinaryIO, archive: Part, offset: int) -> bytes:
    if offset + BLOCK > archive.offset + archive.size:
        raise MalformedError(f"{archive.name} is truncated")
    return _read(deb, offset, BLOCK)


def _tar_part(header: bytes, offset: int, long_name: bytes) -> tuple[Part, bytes]:
    """The member that `header` describes, and which kind of member it is."""
    numbers = re.fullmatch(_NUMBERS, header[100:148])
    kind = header[156:157]
    if not numbers or kind not in {b"0", b"5", b"L"}:
        raise MalformedError("a tar archive has a member that is no file and no folder of root's")
    mode, size, time = (int(number, 8) for number in numbers.groups())
    name = header[:100].rstrip(b"\0")
    if header != _gnu_header(name, mode, size, time, kind):
        raise MalformedError("a tar archive has a header of another form than GNU tar's")
    if long_name and name != long_name[:100]:
        raise MalformedError("a tar archive has two names for one member")
    if (kind == b"L") != (name == LONG_NAME) or (kind == b"5" and size):
        raise MalformedError("a tar archive has a member of two kinds")
    text = (long_name or name).decode("utf-8", "replace")
    return Part(text, offset + BLOCK, size, mode, kind == b"5"), kind


def _gnu_header(name: bytes, mode: int, size: int, time: int, kind: bytes) -> bytes:
    """The header that GNU tar writes for a member of root's."""
    owner = b"root".ljust(32, b"\0")
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        b"%011o\0%011o\0" % (size, time),
        b" " * 8,
        kind.ljust(101, b"\0"),
        b"ustar  \0",
        owner * 2,
        bytes(183),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _long_name(deb: BinaryIO, part: Part) -> bytes:
    if part.size > MAX_NAME:
        raise MalformedError(f"a tar archive has a name of {part.size} bytes")
    name = read_part(deb, part).removesuffix(b"\0")
    if not name or b"\0" in name:  # others would read another name
        raise MalformedError("a tar archive has a name that is empty or has a NUL in it")
    return name


def _read(deb: BinaryIO, offset: int, size: int) -> bytes:
    deb.seek(offset)
    content = deb.read(size)
    if len(content) != size:
        raise MalformedError("the Debian package is truncated")
    return content
