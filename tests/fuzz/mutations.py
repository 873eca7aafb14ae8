"""Changes of valid inputs that know the form of what they change.

A change of a random byte is mostly found at the first look. These put a value of another kind, or a
size that lies, where the reader has come to trust the rest.
"""

import json
import re
from base64 import decodebytes, encodebytes
from binascii import Error as BinasciiError
from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Any

from tests.corpus import armour, packet_of

BLOCK = 512
_TYPICAL = (0, 1, 2, 0x7F, 0x80, 0xFF)
_JSON: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**53, 2**64, 10**19, 10**25, 1.5, float("nan")),
    *("", " ", "\n", "..", "/", "a/../b", "a" * 40, "\u00e9", "e\u0301", "\ud800", "\0", "\u2028"),
    *("installed", "failed", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "a" * 64),
    *([], {}, [[]], {"": {}}, [None]),
)
_TOML = (
    *("true", "0", "-1", "nan", "inf", "1e999", "9223372036854775808", f"0x{'f' * 4400}"),
    *('""', '"\\u0000"', '"/"', '"/opt/../x"', '"*"', '"a/*"', "[]", "[[]]", '["", ""]', "{}"),
    *("{" + "a." * 1200 + "a = 1}", "[{" + "a." * 1200 + "a = 1}]"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "00:00:00"),
    *('"password=x"', "\"a = 'b\\\\' options=c\"", '"host"', '"retired"', '"revoked"'),
)
_NUMBERS = (b"-0000001", b" 7", b"0_1", b"ffffffff", b"77777777777", b"00000000", b"9999999999")


class Form(Enum):
    """What an input looks like."""

    BYTES = "bytes"
    JSON = "json"
    TOML = "toml"
    ARCHIVE = "archive"
    ARMOUR = "armoured signature"
    BASE64 = "archive in base64"


def mutated(data: bytes, form: Form, random: Random) -> bytes:
    """`data` with up to four changes, about half of them such as fit its form."""
    for _ in range(random.randint(1, 4)):
        change = _CHANGES[form] if random.randint(0, 1) else _of_bytes
        data = change(data, random)
    return data


def with_checksums(archive: bytes) -> bytes:
    """A tar archive with the checksum that each block would have, were it a header."""
    found = bytearray(archive)
    for magic in re.finditer(b"ustar", archive):
        start = magic.start() - 257
        header = found[start : start + BLOCK]
        if start >= 0 and len(header) == BLOCK:
            header[148:156] = b" " * 8
            found[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(found)


def _of_bytes(data: bytes, random: Random) -> bytes:
    """One place, or one range, changed."""
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((1, 1, 2, 4, 16, 64, 512)))
    middle = data[start:end]
    match random.randint(0, 4):
        case 0:
            middle = bytes(byte ^ (1 << random.randint(0, 7)) for byte in middle[:1]) + middle[1:]
        case 1:
            middle = b""
        case 2:
            middle = middle * 2
        case 3:
            middle = bytes([random.choice(_TYPICAL)]) + middle[1:]
        case _:
            middle = random.choice(_NUMBERS) + middle
    return data[:start] + middle + data[end:]


def _of_json(data: bytes, random: Random) -> bytes:
    """A value, key or item of the document changed, removed, or put at another place."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _of_bytes(data, random)
    places = list(_places(document))
    if not places:
        return _of_bytes(data, random)
    holder, key = random.choice(places)
    match random.randint(0, 4):
        case 0:
            del holder[key]
        case 1:
            other, place = random.choice(places)
            holder[key] = json.loads(json.dumps(other[place]))
        case 2 if isinstance(holder, list):
            holder.insert(random.randint(0, len(holder)), holder[key])
        case 2:
            holder[f"{key}{random.choice(('', '_', '2'))}"] = holder[key]
        case 3 if type(holder[key]) is int:
            holder[key] += random.choice((-1, 1, 2**31, -(2**31)))
        case _:
            holder[key] = random.choice(_JSON)
    return json.dumps(document).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    return found


def _of_toml(data: bytes, random: Random) -> bytes:
    """A line with another value, or removed, repeated, or put at another place."""
    lines = data.split(b"\n")
    number = random.randrange(len(lines))
    key, equals, _ = lines[number].partition(b" = ")
    match random.randint(0, 4):
        case 0:
            del lines[number]
        case 1:
            lines.insert(random.randint(0, len(lines)), lines[number])
        case 2:
            lines.insert(random.randint(0, len(lines)), lines.pop(number))
        case _ if equals:
            lines[number] = key + equals + random.choice(_TOML).encode()
        case _:
            return _of_bytes(data, random)
    return b"\n".join(lines)


def _of_armour(data: bytes, random: Random) -> bytes:
    """The packet in the armour changed."""
    try:
        return armour(_of_bytes(packet_of(data), random))
    except (IndexError, BinasciiError):
        return _of_bytes(data, random)


def _of_base64(data: bytes, random: Random) -> bytes:
    """The archive that the lines stand for changed."""
    try:
        return encodebytes(_of_archive(decodebytes(data), random))
    except BinasciiError:
        return _of_bytes(data, random)


def _of_archive(data: bytes, random: Random) -> bytes:
    """A number in a header that lies, or a block removed, repeated or put at another place."""
    numbers = [found.span() for found in re.finditer(rb"[0-7]{11}|[0-9a-f]{8}|[0-9]+ +", data)]
    if numbers and random.randint(0, 1):
        start, end = random.choice(numbers)
        number = random.choice(_NUMBERS)[: end - start]
        fill = b" " if data[end - 1 : end] == b" " else b"0"
        number = number.ljust(end - start) if fill == b" " else number.rjust(end - start, fill)
        return with_checksums(data[:start] + number + data[end:])
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)] or [b""]
    block = random.choice(blocks)
    if random.randint(0, 1):
        blocks.remove(block)
    if random.randint(0, 1):
        blocks.insert(random.randint(0, len(blocks)), block)
    return with_checksums(b"".join(blocks))


_CHANGES: dict[Form, Callable[[bytes, Random], bytes]] = {
    Form.BYTES: _of_bytes,
    Form.JSON: _of_json,
    Form.TOML: _of_toml,
    Form.ARCHIVE: _of_archive,
    Form.ARMOUR: _of_armour,
    Form.BASE64: _of_base64,
}
