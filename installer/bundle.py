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

import lzma
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from installer.errors import DigestError, MalformedError
from installer.manifest import MAX_MANIFEST_SIZE, Blob, Manifest
from installer.tree import digest_of

BLOCK = 512
MANIFEST = "manifest.json"
CONTENT = "content.xz"
MAX_SIGNATURES = 64
MAX_SIGNATURE_SIZE = 16 * 1024
MAX_BUNDLE_SIZE = 256 * 1024 * 1024
DECODER_MEMORY = 128 * 1024 * 1024
"""What the decompressor may use, in bytes; the writer's dictionary is far smaller."""

XZ_FILTERS = ({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 * 1024 * 1024},)
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
class Bundle:
    """A bundle as read: its head, and its content still compressed."""

    head: Head
    compressed: bytes

    def open_content(self, manifest: Manifest) -> "ContentReader":
        """Read the content that `manifest` describes.

        Raises:
            DigestError: the compressed stream is not the one that was signed.
        """
        if len(self.compressed) != manifest.content.size:
            raise DigestError(f"{CONTENT}: {len(self.compressed)} bytes, not as signed")
        if digest_of(self.compressed) != manifest.content.digest:
            raise DigestError(f"{CONTENT}: its digest is not the one that was signed")
        return ContentReader(self.compressed, manifest.blobs)


class ContentReader:
    """Gives blobs out of the compressed stream, each checked against its digest.

    Reading in manifest order decompresses the stream once; reading backwards starts it again.
    """

    def __init__(self, compressed: bytes, blobs: tuple[Blob, ...]) -> None:
        self._compressed = compressed
        self._offsets = dict(zip(blobs, _offsets(blobs), strict=True))
        self._restart()

    def read(self, blob: Blob) -> bytes:
        """The content of `blob`: the very bytes whose digest was checked.

        Raises:
            DigestError: they are not what was signed.
        """
        if self._offsets[blob] < self._position:
            self._restart()
        for _ in self._forward(self._offsets[blob] - self._position):
            pass
        content = b"".join(self._forward(blob.size))
        if digest_of(content) != blob.digest:
            raise DigestError(f"{blob.name}: its digest is not the one that was signed")
        return content

    def _restart(self) -> None:
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DECODER_MEMORY)
        self._position = 0
        self._fed = False

    def _forward(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes of the stream, in pieces of at most 1 MiB."""
        while size:
            piece = self._decompress(min(size, 1024 * 1024))
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def _decompress(self, most: int) -> bytes:
        source = b"" if self._fed else self._compressed
        self._fed = True
        try:
            piece = self._decoder.decompress(source, most)
        except (lzma.LZMAError, EOFError) as error:
            raise DigestError(f"{CONTENT}: {error}") from None
        if not piece:
            raise DigestError(f"{CONTENT}: ends before the content that was signed")
        return piece


def read_bundle(raw: bytes) -> Bundle:
    """Take a bundle apart.

    Raises:
        MalformedError: it is not in the one canonical form.
    """
    head, rest = _read_head(raw)
    name, compressed, rest = _member(rest)
    if name != CONTENT or rest != END_OF_ARCHIVE:
        raise MalformedError(f"the bundle does not end with {CONTENT}")
    return Bundle(head, bytes(compressed))


def read_head(raw: bytes) -> Head:
    """Take apart what `Head.serialise` wrote: a bundle without its content.

    Raises:
        MalformedError: it is not in the one canonical form.
    """
    head, rest = _read_head(raw)
    if rest:
        raise MalformedError("something follows the signatures")
    return head


def dearmour(text: bytes) -> bytes:
    """A bundle from the base64 text that a scriptlet carries.

    Raises:
        MalformedError: it is not base64, or too large.
    """
    if len(text) > MAX_BUNDLE_SIZE * 4 // 3:
        raise MalformedError(f"the bundle is larger than {MAX_BUNDLE_SIZE} bytes")
    try:
        return a2b_base64(text.replace(b"\n", b""), strict_mode=True)
    except Base64Error as error:
        raise MalformedError(f"the bundle is not base64: {error}") from None


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
    return tar_header(name, len(data)) + data + bytes(-len(data) % BLOCK)


END_OF_ARCHIVE = bytes(2 * BLOCK)


def _read_head(raw: bytes) -> tuple[Head, memoryview]:
    if len(raw) > MAX_BUNDLE_SIZE:
        raise MalformedError(f"the bundle is larger than {MAX_BUNDLE_SIZE} bytes")
    name, manifest, rest = _member(memoryview(raw))
    if name != MANIFEST or len(manifest) > MAX_MANIFEST_SIZE:
        raise MalformedError(f"the bundle does not begin with a {MANIFEST} of bounded size")
    signatures: dict[str, bytes] = {}
    while rest and (match := SIGNATURE_NAME.fullmatch(_peek_name(rest))):
        name, signature, rest = _member(rest)
        if len(signature) > MAX_SIGNATURE_SIZE or len(signatures) == MAX_SIGNATURES:
            raise MalformedError(f"{name}: too large, or one signature too many")
        if signatures and match[1] <= max(signatures):
            raise MalformedError(f"{name}: signatures are not in the order of their names")
        signatures[match[1]] = bytes(signature)
    return Head(bytes(manifest), signatures), rest


def _peek_name(archive: memoryview) -> str:
    return bytes(archive[:100]).rstrip(b"\0").decode("ascii", "replace")


def _member(archive: memoryview) -> tuple[str, memoryview, memoryview]:
    """The first member's name and data, and the rest of the archive."""
    header, name = bytes(archive[:BLOCK]), _peek_name(archive)
    if not re.fullmatch(rb"[0-7]{11}\0", header[124:136]) or not name.isascii():
        raise MalformedError("the bundle is truncated, or not a canonical tar archive")
    size = int(header[124:135], 8)
    end = BLOCK + size + (-size % BLOCK)
    if header != tar_header(name, size) or len(archive) < end or any(archive[BLOCK + size : end]):
        raise MalformedError(f"{name!r}: the bundle is truncated, or not a canonical tar archive")
    return name, archive[BLOCK : BLOCK + size], archive[end:]


def _offsets(blobs: tuple[Blob, ...]) -> Iterator[int]:
    position = 0
    for blob in blobs:
        yield position
        position += blob.size
