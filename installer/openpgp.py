"""The envelope of an OpenPGP signature (RFC 4880), opened before any C code sees it.

What is let through is what `gpg --armor --detach-sign` makes of a document, and nothing else:

- one armoured block, with nothing before and nothing behind it;
- in it one packet of a known length: a version 4 signature of a binary document (5.2.1);
- its digest is SHA-256, SHA-384 or SHA-512;
- the hashed area has subpackets of known types only, each at most once (notations excepted), and
  among them the creation time and the fingerprint of the key that signed. Critical ones are those
  that are honoured here; an embedded key or signature is of no known type;
- the unhashed area, which anyone may change, names that same key again or is empty.

A signature that passes is not verified: `installer.signatures` does that. What takes apart packets,
signatures and their areas serves `installer.revocation`, too; it lets in nothing by itself.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from installer.errors import SignatureError

MAX_SIGNATURE_SIZE = 16 * 1024
"""Bytes in an armoured signature; that of a 4096-bit RSA key has about 800."""

FINGERPRINT = re.compile(r"[0-9A-F]{40}")
"""A version 4 key's, whole and in capitals: a shorter key id can be forged."""

DIGESTS = {8: "SHA-256", 9: "SHA-384", 10: "SHA-512"}

SIGNATURE_PACKET = 2
VERSION = 4
"""Of the signatures that are read, and of the keys that made them."""

_ARMOUR = re.compile(
    rb"-----BEGIN PGP SIGNATURE-----\r?\n"
    rb"(?:(?:Version|Comment): [ -~]*\r?\n)*"
    rb"\r?\n"
    rb"((?:[A-Za-z0-9+/=]{1,76}\r?\n)+?)"
    rb"(?:=[A-Za-z0-9+/]{4}\r?\n)?"
    rb"-----END PGP SIGNATURE-----(?:\r?\n)?"
)

_TWO_OCTETS = 192
_FIVE_OCTETS = 255
_INDETERMINATE = 3
_BINARY_DOCUMENT = 0x00

# Subpacket types (RFC 4880 5.2.3.1; issuer fingerprint: RFC 9580 5.2.3.35).
_CREATED = 2
_EXPIRES = 3
_ISSUER = 16
_NOTATION = 20
_SIGNER = 28
_ISSUER_FINGERPRINT = 33
_FINGERPRINT_SIZE = 1 + 20  # the key's version, and SHA-1
_TIME_SIZE = 4
_KNOWN = {_CREATED, _EXPIRES, _ISSUER, _NOTATION, _SIGNER, _ISSUER_FINGERPRINT}
_HONOURED = _KNOWN - {_NOTATION}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed signature: what it claims, under its own hash, and its only packet.

    `issuer` is the fingerprint of the signing key or subkey. Times are in seconds since 1970;
    `expires` is None for a signature that does not expire.
    """

    packet: bytes
    issuer: str
    created: int
    expires: int | None


@dataclass(frozen=True, slots=True)
class Parts:
    """A version 4 signature's type, digest and two areas, of which only the first is signed."""

    kind: int
    digest: int
    hashed: bytes
    unhashed: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """What a signature says under its own hash: of which key it is, since when and for how long.

    `hashed` has the content of each subpacket by its type. A `lifetime` of 0 is none.
    """

    issuer: str
    created: int
    lifetime: int
    hashed: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that verified. Only `installer.signatures.verify_signature` makes one.

    `primary` is the fingerprint of the key that the policy names, `signing` that of the key or
    subkey that made the signature, `created` the time at which it says it did (since 1970).
    """

    primary: str
    signing: str
    created: int


def open_envelope(signature: bytes) -> Envelope:
    """The envelope of an armoured detached signature.

    Raises:
        SignatureError: it is anything other than this module's docstring allows.
    """
    packet = _dearmour(signature)
    parts = signature_parts(_body(packet))
    if parts.kind != _BINARY_DOCUMENT:
        raise SignatureError(
            "this is not a signature of a binary document (text mode is not accepted)"
        )
    if parts.digest not in DIGESTS:
        accepted = ", ".join(DIGESTS.values())
        raise SignatureError(
            f"the signature's digest is algorithm {parts.digest}, none of {accepted}"
        )
    claims = read_claims(parts)
    # A lifetime of 0 is none (RFC 4880 5.2.3.10).
    expires = claims.created + claims.lifetime if claims.lifetime else None
    return Envelope(packet, claims.issuer, claims.created, expires)


def packets(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each packet (RFC 4880 4.2).

    Raises:
        SignatureError: what follows is no packet of a definite length, or is cut off.
    """
    rest = _Octets(octets)
    while rest:
        yield _packet(rest)


def signature_parts(body: bytes) -> Parts:
    """The parts of the signature whose packet has this body.

    Raises:
        SignatureError: it is cut off, or of another version than 4.
    """
    octets = _Octets(body)
    if octets.number(1) != VERSION:
        raise SignatureError("this is not an OpenPGP signature of version 4")
    kind = octets.number(1)
    octets.number(1)  # the key's algorithm: gpgv knows the key
    digest = octets.number(1)
    return Parts(kind, digest, octets.take(octets.number(2)), octets.take(octets.number(2)))


def read_claims(parts: Parts, others: frozenset[int] = frozenset()) -> Claims:
    """Who says to have made a signature, and when.

    `others` are types that the hashed area may have, besides those that a document's signature may.

    Raises:
        SignatureError: its areas are anything other than this module's docstring allows.
    """
    hashed = _hashed_area(parts.hashed, others)
    issuer = _fingerprint(hashed)
    _require_issuer_only(parts.unhashed, issuer)
    created, lifetime = _seconds(hashed, _CREATED), _seconds(hashed, _EXPIRES)
    if not created:
        raise SignatureError("the signature has no hashed creation time")
    return Claims(issuer, created, lifetime, hashed)


class _Octets:
    """Octets that are read forward, never beyond their end."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._read = 0  # a place: cutting off what was read would copy a keyring at every step

    def __len__(self) -> int:
        return len(self._octets) - self._read

    def take(self, count: int) -> bytes:
        if count > len(self):
            raise SignatureError("the signature is truncated")
        start, self._read = self._read, self._read + count
        return self._octets[start : self._read]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count))

    def length(self, longest_two: int) -> int:
        """A length in one, two or five octets (RFC 4880 4.2.2, 5.2.3.1).

        `longest_two` is the greatest first octet of a length in two; beyond are partial lengths.
        """
        first = self.number(1)
        if first < _TWO_OCTETS:
            return first
        if first == _FIVE_OCTETS:
            return self.number(4)
        if first > longest_two:
            raise SignatureError("the signature is a packet of no definite length")
        return ((first - _TWO_OCTETS) << 8) + self.number(1) + _TWO_OCTETS


def _dearmour(signature: bytes) -> bytes:
    if len(signature) > MAX_SIGNATURE_SIZE:
        raise SignatureError(f"the signature is larger than {MAX_SIGNATURE_SIZE} bytes")
    # The armour's checksum is not looked at: a change that it would show makes gpgv refuse.
    if not (match := _ARMOUR.fullmatch(signature)):
        raise SignatureError(
            "not one armoured detached signature; `gpg --armor --detach-sign FILE` makes one"
        )
    try:
        return a2b_base64(match[1].replace(b"\r", b"").replace(b"\n", b""), strict_mode=True)
    except Base64Error as error:
        raise SignatureError(f"the signature's armour is damaged: {error}") from None


def _body(packet: bytes) -> bytes:
    """The body of the only packet, which is a signature's."""
    octets = _Octets(packet)
    tag, body = _packet(octets)
    if tag != SIGNATURE_PACKET:
        raise SignatureError(f"this is an OpenPGP packet of type {tag}, not a signature")
    if octets:
        raise SignatureError("more than one OpenPGP packet is in the armour")
    return body


def _packet(octets: _Octets) -> tuple[int, bytes]:
    """Type and body of the next packet (RFC 4880 4.2)."""
    header = octets.number(1)
    if not header & 0x80 or (not header & 0x40 and header & 3 == _INDETERMINATE):
        raise SignatureError("this is no OpenPGP packet of a definite length")
    if header & 0x40:
        tag, length = header & 0x3F, octets.length(longest_two=223)
    else:
        tag, length = header >> 2 & 0x0F, octets.number(1 << (header & 3))
    return tag, octets.take(length)


def _subpackets(area: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Type, whether it is critical, and content of each subpacket (RFC 4880 5.2.3.1)."""
    octets = _Octets(area)
    while octets:
        subpacket = _Octets(octets.take(octets.length(longest_two=254)))
        kind = subpacket.number(1)
        yield kind & 0x7F, bool(kind & 0x80), subpacket.take(len(subpacket))


def _hashed_area(area: bytes, others: frozenset[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for kind, critical, content in _subpackets(area):
        if kind not in (_HONOURED if critical else _KNOWN) | others:
            critically = "critical " if critical else ""
            raise SignatureError(
                f"the signature has a {critically}subpacket of type {kind}, not known here"
            )
        if kind in found and kind != _NOTATION:
            raise SignatureError(f"the signature has two subpackets of type {kind}")
        found[kind] = content
    return found


def _fingerprint(hashed: dict[int, bytes]) -> str:
    content = hashed.get(_ISSUER_FINGERPRINT, b"")
    if len(content) != _FINGERPRINT_SIZE or content[0] != VERSION:
        raise SignatureError("the signature has no hashed version 4 fingerprint of its key")
    issuer = content[1:]
    _require_same_key(_ISSUER, hashed.get(_ISSUER, issuer[-8:]), issuer.hex().upper())
    return issuer.hex().upper()


def _require_issuer_only(area: bytes, issuer: str) -> None:
    for kind, critical, content in _subpackets(area):
        if critical or kind not in {_ISSUER, _ISSUER_FINGERPRINT}:
            raise SignatureError(
                f"the signature has an unhashed subpacket of type {kind}, which anyone may add"
            )
        _require_same_key(kind, content, issuer)


def _require_same_key(kind: int, content: bytes, issuer: str) -> None:
    named = issuer[-16:] if kind == _ISSUER else f"{VERSION:02}{issuer}"
    if content.hex().upper() != named:
        raise SignatureError("the signature names two different keys")


def _seconds(hashed: dict[int, bytes], kind: int) -> int:
    content = hashed.get(kind, bytes(_TIME_SIZE))
    if len(content) != _TIME_SIZE:
        raise SignatureError(f"the signature has a malformed subpacket of type {kind}")
    return int.from_bytes(content)
