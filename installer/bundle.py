"""The reader of bundles: the one archive that carries a release.

A bundle is a tar archive in a single canonical form, so that nothing in it is open to reading in
two ways: each header must equal, byte for byte, the one that `tar_header` makes of its name and
size. Its members are, in this order:

    manifest.json               what the developers signed
    signatures/<FINGERPRINT>.asc  one for each signer, in the order of their names
    content.xz                  all blobs, in manifest order, in one compressed stream

Content has no names of its own: where each blob begins and ends is in the manifest. The manifest
also has the digest of the compressed stream, which is checked before anything is decompressed. A
host verifies the signatures (`installer.signatures`) before that.
"""

import hashlib
import lzma
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import SEEK_CUR
from typing import BinaryIO

from installer.errors import DigestError, MalformedError
from installer.manifest import MAX_MANIFEST_SIZE, Blob, Manifest
from installer.tree import Digest

BLOCK = 512
MANIFEST = "manifest.json"
CONTENT = "content.xz"
MAX_SIGNATURES = 64
MAX_SIGNATURE_SIZE = 16 * 1024
MAX_ARMOURED_SIZE = 256 * 1024 * 1024
"""Bytes that a scriptlet's body may stand for."""
MAX_LINE = 4096
PIECE = 1024 * 1024
"""Bytes that are read, decompressed and held at a time."""
DECODER_MEMORY = 128 * 1024 * 1024
"""What the decompressor may use, in bytes; the writer's dictionary is far smaller."""

SIGNATURE_NAME = re.compile(r"signatures/([0-9A-F]{40})\.asc")


@dataclass(frozen=True, slots=True)
class Head:
    """The part of a bundle that is read before anything is trusted."""

    manifest: bytes
    signatures: Mapping[str, bytes]
    """Armoured detached signatures, by the fingerprint of the key that is said to have made them.
    The name is a label: what counts is what the verification finds."""

    def serialise(self) -> bytes:
        """The bytes of a bundle up to its content."""
        members = {MANIFEST: self.manifest}
        members |= {
            f"signatures/{fpr}.asc": self.signatures[fpr] for fpr in sorted(self.signatures)
        }
        return b"".join(tar_member(name, data) for name, data in members.items())


@dataclass(frozen=True, slots=True)
class Section:
    """A part of an open file, in bytes: where the compressed content lies."""

    file: BinaryIO
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, in pieces of at most 1 MiB.

        Raises:
            MalformedError: the file ends before the section does.
        """
        position, end = self.offset, self.offset + self.size
        while position < end:
            self.file.seek(position)
            piece = self.file.read(min(end - position, PIECE))
            if not piece:
                raise MalformedError(f"{CONTENT}: the bundle is truncated")
            position += len(piece)
            yield piece

    def digest(self) -> Digest:
        """SHA-256 of the section."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
        return Digest(found.hexdigest())


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as read: its head, and its content still compressed, where it lies."""

    head: Head
    compressed: Section

    def open_content(self, manifest: Manifest) -> "ContentReader":
        """Read the content that `manifest` describes.

        Raises:
            DigestError: the compressed stream is not the one that was signed.
        """
        if self.compressed.size != manifest.content.size:
            raise DigestError(f"{CONTENT}: {self.compressed.size} bytes, not as signed")
        if self.compressed.digest() != manifest.content.digest:
            raise DigestError(f"{CONTENT}: its digest is not the one that was signed")
        return ContentReader(self.compressed, manifest.blobs)


class ContentReader:
    """Gives blobs out of the compressed stream, each checked against its digest.

    Reading in manifest order decompresses the stream once; reading backwards starts it again. What
    is given in parts is checked when the last part is taken: whoever acts on the parts before must
    be able to take that back.
    """

    def __init__(self, compressed: Section, blobs: tuple[Blob, ...]) -> None:
        self._compressed = compressed
        self._offsets = dict(zip(blobs, _offsets(blobs), strict=True))
        self._restart()

    def read(self, blob: Blob) -> bytes:
        """The content of `blob`: the very bytes whose digest was checked.

        Raises:
            DigestError: they are not what was signed.
        """
        return b"".join(self.pieces(blob))

    def parts(self, blob: Blob, ends: Iterable[int]) -> Iterator[bytes]:
        """The content of `blob`, in parts that end at the offsets `ends`, the last at its size.

        Raises:
            DigestError: after the last part: the content is not what was signed.
        """
        pieces, held, position = self.pieces(blob), bytearray(), 0
        for end in ends:
            while len(held) < end - position:
                held += next(pieces)
            yield bytes(held[: end - position])
            del held[: end - position]
            position = end
        if position != blob.size or any(pieces):  # asking for more has the digest checked
            raise DigestError(f"{blob.name}: longer than its parts")

    def pieces(self, blob: Blob) -> Iterator[bytes]:
        """The content of `blob`, in pieces of at most 1 MiB.

        Raises:
            DigestError: after the last piece: the content is not what was signed.
        """
        if self._offsets[blob] < self._position:
            self._restart()
        for _ in self._forward(self._offsets[blob] - self._position):
            pass
        found = hashlib.sha256()
        for piece in self._forward(blob.size):
            found.update(piece)
            yield piece
        if found.hexdigest() != blob.digest:
            raise DigestError(f"{blob.name}: its digest is not the one that was signed")

    def _restart(self) -> None:
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECODER_MEMORY)
        self._source = self._compressed.pieces()
        self._position = 0

    def _forward(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes of the stream, in pieces of at most 1 MiB."""
        while size:
            piece = self._decompress(min(size, PIECE))
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def _decompress(self, most: int) -> bytes:
        piece = b""
        while not piece:
            if self._decoder.eof:
                raise DigestError(f"{CONTENT}: ends before the content that was signed")
            source = next(self._source, b"") if self._decoder.needs_input else b""
            if self._decoder.needs_input and not source:
                raise DigestError(f"{CONTENT}: ends before the content that was signed")
            try:
                piece = self._decoder.decompress(source, most)
            except lzma.LZMAError as error:
                raise DigestError(f"{CONTENT}: {error}") from None
        return piece


def read_bundle(file: BinaryIO, size: int | None = None) -> Bundle:
    """Take a bundle apart; its content stays in `file`, which has to stay open.

    The bundle begins where the file stands. It has `size` bytes, or goes to the end of the file.

    Raises:
        MalformedError: it is not in the one canonical form.
    """
    start = file.tell()
    head, name, content_size = _read_head(file)
    if name != CONTENT:
        raise MalformedError(f"the bundle does not end with {CONTENT}")
    content = Section(file, file.tell(), content_size)
    file.seek(content_size, SEEK_CUR)
    expected = bytes(_padding(content_size)) + END_OF_ARCHIVE
    ended = file.read(len(expected)) == expected
    if not ended or (file.read(1) if size is None else file.tell() != start + size):
        raise MalformedError(f"the bundle is truncated, or something follows {CONTENT}")
    return Bundle(head, content)


def read_head(file: BinaryIO) -> Head:
    """Take apart what `Head.serialise` wrote: a bundle without its content.

    Raises:
        MalformedError: it is not in the one canonical form.
    """
    head, name, _ = _read_head(file)
    if name:
        raise MalformedError("something follows the signatures")
    return head


def read_carried(file: BinaryIO) -> Bundle | Head:
    """A bundle, or only the head of one whose content is carried elsewhere.

    Raises:
        MalformedError: it is not in the one canonical form.
    """
    start = file.tell()
    head, name, _ = _read_head(file)
    if not name:
        return head
    file.seek(start)
    return read_bundle(file)


def dearmour(text: BinaryIO, into: BinaryIO) -> None:
    """Write the bytes that the base64 of a scriptlet stands for, a line at a time.

    Raises:
        MalformedError: it is not base64 in lines, or too large.
    """
    size = 0
    while line := text.readline(MAX_LINE):
        try:
            size += into.write(a2b_base64(line.removesuffix(b"\n"), strict_mode=True))
        except Base64Error as error:
            raise MalformedError(f"the bundle is not base64: {error}") from None
        if size > MAX_ARMOURED_SIZE:
            raise MalformedError(f"the bundle is larger than {MAX_ARMOURED_SIZE} bytes")
    into.seek(0)


def tar_header(name: str, size: int) -> bytes:
    """The only header that a member of this name and size can have (POSIX.1-1988, ustar).

    Mode 0644, owner 0, time 0, a regular file.
    """
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        f"{size:011o}\0".encode(),
        b"00000000000\0",
        b" " * 8,
        b"0".ljust(101, b"\0"),
        b"ustar\x0000".ljust(247, b"\0"),
        bytes(8),
    )
    header = b"".join(fields)
    checksum = f"{sum(header):06o}\0 ".encode()
    return header[:148] + checksum + header[156:]


def tar_member(name: str, data: bytes) -> bytes:
    """A member: header, data, and zeros up to the next block."""
    return tar_header(name, len(data)) + data + bytes(_padding(len(data)))


END_OF_ARCHIVE = bytes(2 * BLOCK)


def _read_head(file: BinaryIO) -> tuple[Head, str, int]:
    """The head, and the name and size of the member behind it; no name where the file ends."""
    name, size = _read_header(file)
    if name != MANIFEST or size > MAX_MANIFEST_SIZE:
        raise MalformedError(f"the bundle does not begin with a {MANIFEST} of bounded size")
    manifest = _read_data(file, name, size)
    signatures: dict[str, bytes] = {}
    name, size = _read_header(file)
    while match := SIGNATURE_NAME.fullmatch(name):
        if size > MAX_SIGNATURE_SIZE or len(signatures) == MAX_SIGNATURES:
            raise MalformedError(f"{name}: too large, or one signature too many")
        if signatures and match[1] <= max(signatures):
            raise MalformedError(f"{name}: signatures are not in the order of their names")
        signatures[match[1]] = _read_data(file, name, size)
        name, size = _read_header(file)
    return Head(manifest, signatures), name, size


def _read_header(file: BinaryIO) -> tuple[str, int]:
    """The next member's name and size; an empty name at the end of the file."""
    header = file.read(BLOCK)
    if not header:
        return "", 0
    name = header[:100].rstrip(b"\0").decode("ascii", "replace")
    if not re.fullmatch(rb"[0-7]{11}\0", header[124:136]) or not name.isascii():
        raise MalformedError("the bundle is truncated, or not a canonical tar archive")
    size = int(header[124:135], 8)
    if header != tar_header(name, size):
        raise MalformedError(f"{name!r}: not a member of a canonical tar archive")
    return name, size


def _read_data(file: BinaryIO, name: str, size: int) -> bytes:
    data = file.read(size + _padding(size))
    if len(data) != size + _padding(size) or any(data[size:]):
        raise MalformedError(f"{name!r}: the bundle is truncated, or not a canonical tar archive")
    return data[:size]


def _padding(size: int) -> int:
    """Zeros between a member of this size and the next block."""
    return -size % BLOCK


def _offsets(blobs: tuple[Blob, ...]) -> Iterator[int]:
    position = 0
    for blob in blobs:
        yield position
        position += blob.size
