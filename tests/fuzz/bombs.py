"""Inputs that ask for more memory than they have bytes.

    python -m tests.fuzz.bombs

Reads them all with the memory that `tests.fuzz.limit` allows, and prints one line for each: refused
or taken. One that makes a reader fail in any other way than by its own errors ends it.
"""

import zlib
from collections.abc import Iterator

from installer.bundle import BLOCK
from installer.strict_json import MAX_DOCUMENT_SIZE
from packager.bundle_writer import armour, write_bundle
from packager.manifest_writer import compress
from tests.fuzz.limit import limit_memory
from tests.fuzz.mutations import with_checksums
from tests.fuzz.seeds import (
    CONTENTS,
    HEAD,
    HOST_FILE,
    POLICY,
    a_deb,
    an_rpm,
    with_content,
    xz_of_zeros,
)
from tests.fuzz.targets import TARGETS

DEEP = 100_000
MANY = 1_000_000
GREATEST = 0o77777777777
"""Bytes that a tar header can say: 8 GiB."""


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """The target that has to refuse it, what it is, and the bytes."""
    yield from _archives()
    for target in ("manifest", "receipt", "approval", "withdrawal"):
        yield from ((target, what, content) for what, content in _documents())
    for target, (number, texts) in _TABLES.items():
        yield from ((target, what, number + value) for what, value in _numbers())
        yield from ((target, what, texts + value) for what, value in _values())
    yield "envelope", "an armour of one line", b"-----BEGIN PGP SIGNATURE-----\n" + b"A" * MANY
    yield "revocation", "a packet of 4 GiB", bytes(20) + b"\x9a\xff\xff\xff\xff" + bytes(MANY)
    yield "revocation", "many packets", bytes(20) + b"\x98\0" * (MANY // 5)
    yield "status", "many lines", b"\0" + b"[GNUPG:] NEWSIG\n" * (MANY // 5)
    yield "status", "one long line", b"\0[GNUPG:] VALIDSIG " + b" " * MANY + b"\n"
    yield "place", "a statement that is not UTF-8", b"\x1e\x1e" + b"\xff" * MANY


def _archives() -> Iterator[tuple[str, str, bytes]]:
    bundle = write_bundle(HEAD, compress(CONTENTS))
    lying = with_content(GREATEST)
    yield "bundle", "content of 8 GiB that is not there", lying
    yield "deb", "content of 8 GiB in its bundle", a_deb(lying)
    yield "rpm", "content of 8 GiB in its bundle", an_rpm(lying)
    for size in (b"%011o" % (64 << 20), b"%011o" % GREATEST):
        yield "bundle", "a manifest of a size that lies", _said(bundle, size)
    yield "scriptlet", "a manifest of a size that lies", armour(_said(bundle, b"%011o" % GREATEST))
    yield "scriptlet", "no end of line", b"A" * MANY
    debian = a_deb(bundle)
    at = debian.index(b"control.tar") + 48
    yield "deb", "a control.tar of 9 GB", debian[:at] + b"9999999999" + debian[at + 10 :]
    for number in (b"ffffffff", b"-fffffff", b"-0000001"):
        for field in (54, 94):  # the file's size, its name's (cpio, newc)
            rpm = an_rpm(bundle)
            at = rpm.index(b"070701", BLOCK // 4) + field
            yield "rpm", f"{number.decode()} bytes", rpm[:at] + number + rpm[at + 8 :]
    yield "rpm", "a header of 4 GiB", an_rpm(bundle)[:104] + b"\xff" * 8 + bytes(MANY)
    yield "content", "1 GiB of zeros for 3400 bytes", b"\2\1\x90\x0b\xb8" + xz_of_zeros(1024)
    yield "content", "a dictionary of 4 GiB", b"\1\1\x90" + _with_dictionary(compress(CONTENTS[:1]))


def _said(bundle: bytes, size: bytes) -> bytes:
    return with_checksums(bundle[:124] + size + bundle[135:])


def _with_dictionary(stream: bytes) -> bytes:
    """An xz stream that says to need the largest dictionary there is (xz format, 3.1, 5.3.1)."""
    size = (stream[12] + 1) * 4
    header = bytearray(stream[12 : 12 + size])
    header[header.index(b"\x21\x01") + 2] = 40
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    return stream[:12] + bytes(header) + stream[12 + size :]


def _documents() -> Iterator[tuple[str, bytes]]:
    yield "nested lists", b'{"type": ' + b"[" * DEEP + b"]" * DEEP + b"}"
    yield "nested objects", b'{"type": ' * DEEP + b"1" + b"}" * DEEP
    yield "lists that do not end", b"[" * MANY
    yield "a number without end", b'{"format": ' + b"9" * MANY + b"}"
    yield "a number with a large exponent", b'{"format": 1e999999999}'
    yield "a long text", b'{"type": "' + b"\\u0041" * (MANY // 6) + b'"}'
    yield "many keys", b"{" + b'"a":1,' * (MANY // 10) + b'"a": 1}'
    yield "many lists", b'{"type": [' + b"[]," * (MANY // 10) + b"0]}"
    yield "more than a document may have", b" " * (MAX_DOCUMENT_SIZE + 1)


_TABLES = {
    "policy": (
        POLICY.encode() + b"reviewer = ",
        POLICY.encode() + b'[[identity]]\nname = "x"\nrole = "x"\nfingerprints = ',
    ),
    "host_file": (
        HOST_FILE.encode() + b'[database.x]\nservice = "x"\nowner = "x"\nlock_timeout = ',
        HOST_FILE.encode() + b'[application.x]\nroot = "/opt/x"\nservices = ',
    ),
}
"""Where a file goes on to say a number, and texts."""


def _numbers() -> Iterator[tuple[str, bytes]]:
    yield "a number without end", b"9" * (MANY // 5)
    yield "a hexadecimal number without end", b"0x" + b"f" * (MANY // 5)
    yield "a number with a large exponent", b"1e999999999"


def _values() -> Iterator[tuple[str, bytes]]:
    yield "nested lists", b"[" * DEEP
    yield "nested tables", b"[" + b"{a = " * DEEP
    yield "dotted keys", b"[{" + b"a." * 2000 + b"a = 1}]"
    yield "many lists", b"[" + b"[]," * (MANY // 10) + b"]"


def main() -> None:
    made = list(bombs())
    limit_memory()
    for target, what, content in made:
        taken = TARGETS[target].read(content)
        print(f"{target}: {what}: {'taken' if taken else 'refused'}", flush=True)


if __name__ == "__main__":
    main()
