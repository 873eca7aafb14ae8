"""Signatures of every kind, good and bad, and what Countersign says to each.

    with Keyring.create() as keys:
        for case in corpus(keys):
            ...

The real gpg makes them all when a test asks; where gpg refuses to, its work is taken apart and put
together again, octet by octet. A case holds all that a verifier may look at, so that any two can be
asked about the same thing.
"""

import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.keys import Keyring

DOCUMENT = b'{"line": 1}\nand another line\n'
CRLF = DOCUMENT.replace(b"\n", b"\r\n")
LONG_AGO, AFTERWARDS, LATER, RECENTLY = (f"20{year}0101T000000" for year in (20, 21, 22, 23))
CLOCK_ERROR = 300
"""Seconds by which a signer's clock may be ahead."""

# Parts of what Countersign says when it refuses.
NO_ARMOUR = "not one armoured detached signature"
SEVERAL = "more than one OpenPGP packet"
WEAK = "none of SHA-256, SHA-384, SHA-512"
TEXT_MODE = "text mode is not accepted"
BINARY_ONLY = "not a signature of a binary document"
CHANGED = "does not match"
UNKNOWN_KEY = "the keyring does not hold the key"
KEY_EXPIRED = "the key that made the signature has expired"
KEY_REVOKED = "the key that made the signature is revoked"
UNVERIFIABLE = "cannot be verified with the key that made it"
EXPIRED = "the signature has expired"
FUTURE = "was made in the future"
UNHASHED = "an unhashed subpacket of type"

_FLIPPED = {
    "version": "not an OpenPGP signature of version 4",
    "type": BINARY_ONLY,
    "key's algorithm": UNVERIFIABLE,
    "digest's algorithm": WEAK,
    "hashed length": "truncated",
    "hashed area": CHANGED,
    "unhashed length": "truncated",
    "unhashed area": "names two different keys",
    "digest's start": "",
    "first number": CHANGED,
    "second number": CHANGED,
}
"""What Countersign says when the lowest bit of the last octet of a signature's part is flipped."""

_COMMANDS = ("--command-fd", "0")
_VALID_FROM = ("--ignore-time-conflict", "--ignore-valid-from")
REASONS = {"none": 0, "compromised": 1, "superseded": 2, "retired": 3}
"""Why a key is revoked, in the numbers that gpg asks for (RFC 4880 5.2.3.23 has others)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A signature as a verifier meets it, at the time `at` (seconds since 1970).

    `refused` is part of what Countersign says; empty where it accepts. `signer` is then the primary
    fingerprint of who signed.
    """

    name: str
    document: bytes
    signature: bytes
    keyring: bytes
    at: int
    refused: str
    signer: str


@dataclass(frozen=True, slots=True)
class Bench:
    """What most cases share: two people in the keyring, one outside, and the present."""

    keys: Keyring
    ada: str
    bob: str
    stranger: str
    keyring: bytes
    now: int

    @classmethod
    def create(cls, keys: Keyring) -> "Bench":
        names = ("Ada Developer <ada@example.org>", "Bob Developer <bob@example.org>", "Stranger")
        ada, bob, stranger = (keys.new_key(name, created=LONG_AGO) for name in names)
        return cls(keys, ada, bob, stranger, keys.export([ada, bob]), int(time.time()))

    def key(self, name: str, *, expires: str = "never", algorithm: str = "ed25519") -> str:
        """A key of long ago, of its own for one case."""
        user = f"{name} <{name.replace(' ', '.')}@example.org>"
        return self.keys.new_key(user, expires=expires, created=LONG_AGO, algorithm=algorithm)

    def good(self, *arguments: str) -> bytes:
        """Ada's signature of the document."""
        return self.keys.sign(DOCUMENT, self.ada, *arguments)

    def case(self, name: str, signature: bytes, refused: str = "", signer: str = "") -> Case:
        """A signature by Ada, or by a key of its own that the keyring then holds alone."""
        keyring = self.keys.export([signer]) if signer else self.keyring
        return Case(name, DOCUMENT, signature, keyring, self.now, refused, signer or self.ada)


def corpus(keys: Keyring) -> tuple[Case, ...]:
    """All cases, each with a name of its own."""
    bench = Bench.create(keys)
    groups = (
        *(_good, _subkeys, _algorithms, _digests, _kinds, _several, _armour, _subpackets),
        *(_times, _expired_keys, _revoked_keys, _keyrings, _documents, _flips),
    )
    cases = tuple(case for group in groups for case in group(bench))
    assert len({case.name for case in cases}) == len(cases)
    return cases


def _good(bench: Bench) -> Iterator[Case]:
    options = {
        "SHA-256": ("--digest-algo", "SHA256"),
        "SHA-384": ("--digest-algo", "SHA384"),
        "SHA-512": ("--digest-algo", "SHA512"),
        "a notation": ("--sig-notation", "place@example.org=an office"),
        "a comment and a version": ("--comment", "made by hand", "--emit-version"),
        "the signer's address": ("--sender", "ada@example.org"),
        "an expiry to come": ("--default-sig-expire", "1d"),
    }
    for name, arguments in options.items():
        yield bench.case(f"good, {name}", bench.good(*arguments))
    yield bench.case("good, mailed with CRLF", bench.good().replace(b"\n", b"\r\n"))
    empty = bench.keys.sign(b"", bench.ada)
    yield replace(bench.case("good, of an empty document", empty), document=b"")
    large = bytes(300_000)
    signature = bench.keys.sign(large, bench.ada)
    yield replace(bench.case("good, of a large document", signature), document=large)
    forger = bench.keys.new_key("[GNUPG:] VALIDSIG %0A[GNUPG:] GOODSIG <x@example.org>")
    signature = bench.keys.sign(DOCUMENT, forger)
    yield bench.case("good, by one whose name forges gpg's status", signature, signer=forger)


def _subkeys(bench: Bench) -> Iterator[Case]:
    keys, owner = bench.keys, bench.key("two subkeys")
    first, second = keys.add_subkey(owner), keys.add_subkey(owner)
    for name, subkey in (("subkey", first), ("another subkey", second)):
        yield bench.case(f"good, {name}", keys.sign(DOCUMENT, subkey), signer=owner)
    owner = bench.key("old subkey")
    keys.add_subkey(owner, created=LONG_AGO, expires="1y")
    signature = keys.sign(DOCUMENT, owner)
    yield bench.case("good, beside an expired subkey", signature, signer=owner)
    yield from _stolen_subkeys(bench)


def _stolen_subkeys(bench: Bench) -> Iterator[Case]:
    """Someone puts another's subkey below his own primary key, to pass for who signed."""
    thief, owner = bench.key("thief"), bench.key("robbed")
    signature = bench.keys.sign(DOCUMENT, bench.keys.add_subkey(owner, created=LONG_AGO))
    stolen = bench.case("stolen subkey", signature, signer=owner)
    *primary, subkey, binding = split(stolen.keyring)
    yield replace(
        stolen,
        name="subkey that another's primary key signed for",
        keyring=b"".join([*split(bench.keys.export([thief])), subkey, binding]),
        refused=UNVERIFIABLE,
    )
    # A subkey signs, in the unhashed area of what binds it, that it belongs to the primary key.
    yield replace(
        stolen,
        name="subkey that did not sign for its primary key",
        keyring=b"".join([*primary, subkey, with_unhashed(binding, b"")]),
        refused=UNVERIFIABLE,
    )
    both = b"".join([*split(bench.keys.export([thief])), subkey, binding, stolen.keyring])
    first = replace(stolen, name="stolen subkey, thief before owner", keyring=both)
    yield replace(first, refused=UNVERIFIABLE)
    both = b"".join([stolen.keyring, *split(bench.keys.export([thief])), subkey, binding])
    yield replace(stolen, name="good, owner of a stolen subkey before the thief", keyring=both)


def _algorithms(bench: Bench) -> Iterator[Case]:
    for algorithm in (
        *("rsa3072", "nistp256", "nistp384", "nistp521"),
        *("brainpoolP256r1", "secp256k1", "dsa2048", "rsa1024"),
    ):
        key = bench.key(algorithm, algorithm=algorithm)
        signature = bench.keys.sign(DOCUMENT, key, "--digest-algo", "SHA512")
        yield bench.case(f"good, {algorithm}", signature, signer=key)


def _digests(bench: Bench) -> Iterator[Case]:
    key = bench.key("weak digests", algorithm="rsa3072")
    for digest in ("MD5", "RIPEMD160", "SHA1", "SHA224"):
        weak = ("--allow-weak-digest-algos", "--digest-algo", digest)
        yield bench.case(f"digest {digest}", bench.keys.sign(DOCUMENT, key, *weak), WEAK, key)


def _kinds(bench: Bench) -> Iterator[Case]:
    for made, signed in (("LF", DOCUMENT), ("CRLF", CRLF)):
        signature = bench.keys.sign(signed, bench.ada, "--textmode")
        for read, document in (("LF", DOCUMENT), ("CRLF", CRLF)):
            case = bench.case(f"text mode, {made} read as {read}", signature, TEXT_MODE)
            yield replace(case, document=document)
    sign = ("--local-user", bench.ada, "--compress-algo")
    for name, command, refused in (
        ("inline", ("--armor", *sign, "none", "--sign"), NO_ARMOUR),
        ("clear-signed", ("--local-user", bench.ada, "--clearsign"), NO_ARMOUR),
    ):
        yield bench.case(name, bench.keys.gpg(*command, data=DOCUMENT), refused)
    for name, compression, refused in (
        ("inline, dressed up as detached", "none", "OpenPGP packet of type 4"),
        ("compressed", "zlib", "no OpenPGP packet of a definite length"),
    ):
        message = bench.keys.gpg(*sign, compression, "--sign", data=DOCUMENT)
        yield bench.case(name, armour(message), refused)
    # The self-signature of Ada's key: she made it, and it is no signature of a document.
    certification = split(bench.keys.export([bench.ada]))[2]
    yield bench.case("certification of a key", armour(certification), BINARY_ONLY)


def _several(bench: Bench) -> Iterator[Case]:
    blocks = {
        "good": bench.good(),
        "other": bench.keys.sign(DOCUMENT, bench.bob),
        "unknown": bench.keys.sign(DOCUMENT, bench.stranger),
        "bad": bench.keys.sign(DOCUMENT + b"!", bench.bob),
    }
    orders = [("good", name) for name in blocks] + [(name, "good") for name in blocks]
    for first, second in dict.fromkeys(orders):
        both = (blocks[first], blocks[second])
        name = f"{first} before {second}"
        yield bench.case(f"two packets, {name}", armour(b"".join(map(packet_of, both))), SEVERAL)
        yield bench.case(f"two blocks, {name}", b"".join(both), NO_ARMOUR)
    packet, key = packet_of(blocks["good"]), bench.keys.export([bench.ada])
    yield bench.case("key behind the signature", armour(packet + key), SEVERAL)
    yield bench.case("key before the signature", armour(key + packet), "OpenPGP packet of type 6")


def _armour(bench: Bench) -> Iterator[Case]:
    good = bench.good()
    packet, start = packet_of(good), b"-----BEGIN PGP SIGNATURE-----\n"
    checksum = good[good.rindex(b"\n=") + 1 :].split(b"\n")[0]
    yield bench.case("good, no checksum", armour(packet))
    yield bench.case("good, wrong checksum", good.replace(checksum, b"=AAAA"))
    for name, changed in {
        "binary": packet,
        "nothing": b"",
        "words before the armour": b"Signed by me:\n" + good,
        "words behind the armour": good + b"thanks",
        "empty line behind the armour": good + b"\n",
        "a header that is not known": good.replace(start, start + b"Hash: SHA1\n"),
        "a comment that is not ASCII": good.replace(start, start + b"Comment: \xff\n"),
        "blanks in the empty line": good.replace(start, start + b" "),
        "another kind of armour": good.replace(b"SIGNATURE", b"MESSAGE"),
        "cut off": good[:-30],
    }.items():
        yield bench.case(name, changed, NO_ARMOUR)
    for name, changed, refused in (
        ("cut off within the packet", armour(packet[:-9]), "truncated"),
        ("octets behind the packet", armour(packet + b"\0"), SEVERAL),
        ("20 KB of comment", good.replace(start, start + b"Comment: x\n" * 2000), "larger than"),
    ):
        yield bench.case(name, changed, refused)


def _subpackets(bench: Bench) -> Iterator[Case]:
    for name, arguments, refused in (
        (
            "critical notation",
            ("--sig-notation", "!terms@example.org=QAT only"),
            "critical subpacket of type 20",
        ),
        (
            "critical policy",
            ("--sig-policy-url", "!https://example.org/"),
            "critical subpacket of type 26",
        ),
        ("policy", ("--sig-policy-url", "https://example.org/"), "subpacket of type 26"),
        ("key server", ("--sig-keyserver-url", "https://example.org/"), "subpacket of type 24"),
        ("embedded key block", ("--include-key-block",), "subpacket of type 38"),
    ):
        yield bench.case(name, bench.good(*arguments), refused)
    packet = packet_of(bench.good())
    key_id = bytes.fromhex(bench.ada[-16:])
    for name, area, refused in (
        ("good, empty unhashed area", b"", ""),
        ("good, key named thrice", (b"\x09\x10" + key_id) * 2, ""),
        ("unhashed note of anyone's", b"\x09\x10" + key_id + b"\x05\x64note", UNHASHED),
        ("unhashed expiry of anyone's", b"\x09\x10" + key_id + b"\x05\x03\0\0\0\1", UNHASHED),
        ("unhashed name of another key", b"\x09\x10" + bytes(8), "names two different keys"),
    ):
        yield bench.case(name, armour(with_unhashed(packet, area)), refused)


def _times(bench: Bench) -> Iterator[Case]:
    keys, year = bench.keys, ("--default-sig-expire", "1y")
    signature = keys.sign(DOCUMENT, bench.ada, *year, created=LATER)
    yield bench.case("expired signature", signature, EXPIRED)
    for ahead, refused in ((CLOCK_ERROR, ""), (CLOCK_ERROR + 1, FUTURE), (86400, FUTURE)):
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(bench.now + ahead))
        signature = keys.sign(DOCUMENT, bench.ada, created=moment)
        yield bench.case(f"made {ahead} s ahead", signature, refused)
    early = keys.sign(DOCUMENT, bench.ada, *_VALID_FROM, created="20190101T000000")
    yield bench.case("older than its key", early, UNVERIFIABLE)


def _expired_keys(bench: Bench) -> Iterator[Case]:
    keys = bench.keys
    key = bench.key("expired", expires="1y")
    yield bench.case(
        "expired key, signed before", keys.sign(DOCUMENT, key, created=LONG_AGO), KEY_EXPIRED, key
    )
    key = bench.key("expired before")
    signature = keys.sign(DOCUMENT, key, created=LATER)
    # gpg does not sign with an expired key. This one expires afterwards, in its past.
    keys.gpg(*_at("20200102T000000"), "--quick-set-expire", key, AFTERWARDS)
    yield bench.case("expired key, signed afterwards", signature, KEY_EXPIRED, key)
    key = bench.key("expired subkey")
    subkey = keys.add_subkey(key, created=LONG_AGO, expires="1y")
    signature = keys.sign(DOCUMENT, subkey, created=LONG_AGO)
    yield bench.case("expired subkey, signed before", signature, KEY_EXPIRED, key)
    key = bench.key("expired primary", expires="1y")
    signature = keys.sign(DOCUMENT, keys.add_subkey(key, created=LONG_AGO), created=LONG_AGO)
    yield bench.case("subkey of an expired key, signed before", signature, KEY_EXPIRED, key)
    yield from _prolonged_keys(bench)


def _prolonged_keys(bench: Bench) -> Iterator[Case]:
    keys, key = bench.keys, bench.key("prolonged", expires="1y")
    before = keys.sign(DOCUMENT, key, created=LONG_AGO)
    keys.gpg(*_at(RECENTLY), "--quick-set-expire", key, "never")
    yield bench.case("good, before its key was prolonged", before, signer=key)
    yield bench.case("good, after its key was prolonged", keys.sign(DOCUMENT, key), signer=key)
    between = keys.sign(DOCUMENT, key, created=LATER)
    yield bench.case("good, dated between its key's two lives", between, signer=key)


def _revoked_keys(bench: Bench) -> Iterator[Case]:
    keys = bench.keys
    for name, reason in REASONS.items():
        key = bench.key(f"revoked {name}")
        before, after = (keys.sign(DOCUMENT, key, created=when) for when in (AFTERWARDS, RECENTLY))
        revoke(keys, key, reason, created=LATER)
        yield bench.case(f"key revoked ({name}) afterwards", before, KEY_REVOKED, key)
        yield bench.case(f"key revoked ({name}) before", after, KEY_REVOKED, key)
    for name, reason in REASONS.items():
        key = bench.key(f"subkey revoked {name}")
        subkey = keys.add_subkey(key, created=LONG_AGO)
        signature = keys.sign(DOCUMENT, subkey, created=AFTERWARDS)
        revoke_subkey(keys, key, reason, created=LATER)
        yield bench.case(f"subkey revoked ({name}) afterwards", signature, KEY_REVOKED, key)
    key = bench.key("primary revoked")
    signature = keys.sign(DOCUMENT, keys.add_subkey(key, created=LONG_AGO), created=AFTERWARDS)
    revoke(keys, key, REASONS["none"], created=LATER)
    yield bench.case("subkey of a key revoked afterwards", signature, KEY_REVOKED, key)


def _keyrings(bench: Bench) -> Iterator[Case]:
    keys = bench.keys
    unknown = keys.sign(DOCUMENT, bench.stranger)
    yield bench.case("key outside the keyring", unknown, UNKNOWN_KEY)
    armoured = bench.case("armoured keyring", bench.good(), UNKNOWN_KEY)
    yield replace(armoured, keyring=keys.export([bench.ada], armour=True))
    user = "sha1 self-signature <sha1@example.org>"
    weak = ("--cert-digest-algo", "SHA1")
    keys.gpg(*_at(LONG_AGO), *weak, "--quick-generate-key", user, "rsa3072", "sign", "never")
    key = keys.fingerprints(f"={user}")[0]
    signature = keys.sign(DOCUMENT, key)
    yield bench.case("key whose self-signature is SHA-1", signature, UNVERIFIABLE, key)
    key = bench.key("certifies only")
    signature = keys.sign(DOCUMENT, key)
    keys.gpg("--no-batch", *_COMMANDS, "--edit-key", key, data=b"change-usage\nS\nQ\nsave\n")
    yield bench.case("key that is to certify only", signature, UNVERIFIABLE, key)
    yield replace(bench.case("empty keyring", bench.good(), UNKNOWN_KEY), keyring=b"")


def _documents(bench: Bench) -> Iterator[Case]:
    good = bench.good()
    changes = {
        "a line more": DOCUMENT + b"\n",
        "a byte less": DOCUMENT[:-1],
        "with CRLF": CRLF,
        "emptied": b"",
    }
    for bit in range(0, len(DOCUMENT) * 8, 29):
        changes[f"bit {bit} flipped"] = flipped(DOCUMENT, bit)
    for name, document in changes.items():
        yield replace(bench.case(f"document {name}", good, CHANGED), document=document)


def _flips(bench: Bench) -> Iterator[Case]:
    """A flipped bit in each part of a signature; all bits of one are for a test of their own."""
    packet = packet_of(bench.good("--digest-algo", "SHA512"))
    parts = places(packet)
    for place, refused in _FLIPPED.items():
        last = len(parts) - 1 - parts[::-1].index(place)
        changed = armour(flipped(packet, last * 8))
        yield bench.case(f"signature with a bit flipped in its {place}", changed, refused)
    for number in ("first", "second"):
        start = parts.index(f"{number} number's length")
        octets = parts.count(f"{number} number")
        said = int.from_bytes(packet[start : start + 2])
        other = octets * 8 if said != octets * 8 else octets * 8 - 1
        changed = packet[:start] + other.to_bytes(2) + packet[start + 2 :]
        yield bench.case(f"good, {number} number of another length in bits", armour(changed))


def revoke(keys: Keyring, primary: str, reason: int, *, created: str) -> None:
    """Revoke a key, for one of `REASONS`."""
    answers = f"y\n{reason}\n\ny\n".encode()
    make = ("--no-batch", *_COMMANDS, "--armor", "--gen-revoke", primary)
    keys.gpg("--import", data=keys.gpg(*_at(created), *make, data=answers))


def revoke_subkey(keys: Keyring, primary: str, reason: int, *, created: str) -> None:
    """Revoke the first subkey of a key, for one of `REASONS`."""
    answers = f"key 1\nrevkey\ny\n{reason}\n\ny\nsave\n".encode()
    keys.gpg(*_at(created), "--no-batch", *_COMMANDS, "--edit-key", primary, data=answers)


def _at(moment: str) -> tuple[str, str]:
    return "--faked-system-time", f"{moment}!"


def armour(packets: bytes) -> bytes:
    """Packets as a detached signature, without a checksum."""
    text = b64encode(packets)
    lines = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
    return b"-----BEGIN PGP SIGNATURE-----\n\n" + lines + b"-----END PGP SIGNATURE-----\n"


def packet_of(signature: bytes) -> bytes:
    """What is in the armour that gpg made."""
    return b64decode(signature.split(b"\n\n")[1].split(b"\n=")[0])


def split(octets: bytes) -> list[bytes]:
    """Each packet of a key or signature that gpg wrote: in the old format (RFC 4880 4.2.1)."""
    packets = []
    while octets:
        size = 1 << (octets[0] & 3)
        end = 1 + size + int.from_bytes(octets[1 : 1 + size])
        packets.append(octets[:end])
        octets = octets[end:]
    return packets


def with_unhashed(packet: bytes, area: bytes) -> bytes:
    """A signature's packet with another unhashed area, which no signature covers."""
    parts = places(packet)
    hashed = packet[parts.index("version") : parts.index("unhashed length")]
    body = hashed + len(area).to_bytes(2) + area + packet[parts.index("digest's start") :]
    return b"\x89" + len(body).to_bytes(2) + body


def places(packet: bytes) -> list[str]:
    """The name of the part that each octet of a signature's packet is in (RFC 4880 5.2.3)."""
    named = ["header"] * (1 + (1 << (packet[0] & 3)))
    named += ["version", "type", "key's algorithm", "digest's algorithm"]
    for area in ("hashed", "unhashed"):
        size = int.from_bytes(packet[len(named) : len(named) + 2])
        named += [f"{area} length"] * 2 + [f"{area} area"] * size
    named += ["digest's start"] * 2
    for number in ("first", "second"):
        bits = int.from_bytes(packet[len(named) : len(named) + 2])
        named += [f"{number} number's length"] * 2 + [f"{number} number"] * ((bits + 7) // 8)
    return named[: len(packet)]


def flipped(octets: bytes, bit: int) -> bytes:
    """`octets` with one bit changed; they are counted from the lowest of the first octet."""
    changed = bytearray(octets)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
