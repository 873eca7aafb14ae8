"""Whether a revocation is soft: those of the real gpg, and others made octet by octet."""

import calendar
import hashlib
import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.revocation import soft_revocation
from tests.corpus import LATER, LONG_AGO, REASONS, RECENTLY, revoke, revoke_subkey, split
from tests.keys import Keyring

SOFT, HARD = ("superseded", "retired"), ("none", "compromised")


def moment(at: str) -> int:
    return calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%S"))


# What gpg makes


@pytest.fixture(scope="module")
def keys() -> Iterator[Keyring]:
    with Keyring.create() as made:
        yield made


@pytest.fixture
def key(keys: Keyring) -> str:
    return keys.new_key("Ada Developer <ada@example.org>", created=LONG_AGO)


@pytest.mark.parametrize("reason", SOFT)
def test_a_key_that_is_superseded_or_retired_is_softly_revoked(
    keys: Keyring, key: str, reason: str
) -> None:
    revoke(keys, key, REASONS[reason], created=LATER)

    assert soft_revocation(keys.export([key]), key) == moment(LATER)


@pytest.mark.parametrize("reason", HARD)
def test_a_key_that_is_compromised_or_revoked_without_a_reason_is_not(
    keys: Keyring, key: str, reason: str
) -> None:
    revoke(keys, key, REASONS[reason], created=LATER)

    assert soft_revocation(keys.export([key]), key) is None


def test_the_revocation_that_gpg_makes_along_with_a_key_is_hard(keys: Keyring, key: str) -> None:
    keys.revoke(key)

    assert soft_revocation(keys.export([key]), key) is None


def test_a_key_that_is_not_revoked_is_not_softly_revoked(keys: Keyring, key: str) -> None:
    assert soft_revocation(keys.export([key]), key) is None


def test_a_key_that_the_keyring_does_not_hold_is_not_softly_revoked(
    keys: Keyring, key: str
) -> None:
    revoke(keys, key, REASONS["retired"], created=LATER)

    assert soft_revocation(keys.export([key]), "A" * 40) is None
    assert soft_revocation(b"", key) is None


def test_a_hard_revocation_outweighs_a_soft_one(keys: Keyring, key: str) -> None:
    revoke(keys, key, REASONS["superseded"], created=LATER)
    keys.revoke(key)

    assert soft_revocation(keys.export([key]), key) is None


def test_of_two_soft_revocations_the_earlier_counts(keys: Keyring, key: str) -> None:
    revoke(keys, key, REASONS["superseded"], created=RECENTLY)
    assert soft_revocation(keys.export([key]), key) == moment(RECENTLY)

    revoke(keys, key, REASONS["retired"], created=LATER)
    primary, one, another, *rest = split(keys.export([key]))
    for revocations in ((one, another), (another, one)):
        assert soft_revocation(b"".join([primary, *revocations, *rest]), key) == moment(LATER)


@pytest.mark.parametrize("reason", REASONS)
def test_a_revoked_subkey_is_a_doubt(keys: Keyring, key: str, reason: str) -> None:
    keys.add_subkey(key, created=LONG_AGO)
    revoke_subkey(keys, key, REASONS[reason], created=LATER)
    assert soft_revocation(keys.export([key]), key) is None

    revoke(keys, key, REASONS["retired"], created=LATER)
    assert soft_revocation(keys.export([key]), key) is None


def test_a_subkey_does_not_keep_its_primary_key_from_being_softly_revoked(
    keys: Keyring, key: str
) -> None:
    subkey = keys.add_subkey(key, created=LONG_AGO)
    revoke(keys, key, REASONS["retired"], created=LATER)

    assert soft_revocation(keys.export([key]), key) == moment(LATER)
    assert soft_revocation(keys.export([key]), subkey) is None


def test_a_revocation_by_somebody_else_is_a_doubt(keys: Keyring, key: str) -> None:
    revoker = keys.new_key("Bob Developer <bob@example.org>", created=LONG_AGO)
    commands = ("--no-batch", "--command-fd", "0")
    keys.gpg(*commands, "--edit-key", key, data=f"addrevoker\n{revoker}\ny\nsave\n".encode())
    certificate = keys.gpg(*commands, "--armor", "--desig-revoke", key, data=b"y\n3\n\ny\n")
    keys.gpg("--import", data=certificate)
    assert b"\nrvk:" in keys.gpg("--with-colons", "--list-keys", key)
    assert soft_revocation(keys.export([key]), key) is None

    revoke(keys, key, REASONS["retired"], created=LATER)
    assert soft_revocation(keys.export([key]), key) is None


def test_other_keys_in_the_keyring_do_not_matter(keys: Keyring, key: str) -> None:
    other = keys.new_key("Bob Developer <bob@example.org>", created=LONG_AGO)
    revoke(keys, other, REASONS["compromised"], created=LATER)
    revoke(keys, key, REASONS["retired"], created=LATER)
    one, another = keys.export([key]), keys.export([other])

    for keyring in (one + another, another + one, another + one + another):
        assert soft_revocation(keyring, key) == moment(LATER)
        assert soft_revocation(keyring, other) is None


def test_two_copies_of_a_key_have_to_agree(keys: Keyring, key: str) -> None:
    before = keys.export([key])
    revoke(keys, key, REASONS["retired"], created=LATER)
    after = keys.export([key])

    assert soft_revocation(after + after, key) == moment(LATER)
    for copies in (before + after, after + before, after + before + after):
        assert soft_revocation(copies, key) is None


def test_a_keyring_that_is_cut_off_within_a_packet_shows_nothing(keys: Keyring, key: str) -> None:
    revoke(keys, key, REASONS["retired"], created=LATER)
    keyring = keys.export([key])
    whole = set(itertools.accumulate(len(packet) for packet in split(keyring)))

    for end in set(range(len(keyring))) - whole:
        assert soft_revocation(keyring[:end], key) is None


# What gpg never makes, octet by octet

KEY = b"\x04" + bytes(4) + b"\x16" + bytes(40)
PRIMARY = hashlib.sha1(b"\x99" + len(KEY).to_bytes(2) + KEY, usedforsecurity=False)
FINGERPRINT = PRIMARY.digest()
NAME = PRIMARY.hexdigest().upper()
CREATED, AT = b"\x05\x02\x65\x00\x00\x00", 0x65000000
ISSUER = b"\x16\x21\x04" + FINGERPRINT
KEY_ID = b"\x09\x10" + FINGERPRINT[-8:]
RETIRED = b"\x02\x1d\x03"
GOOD = ISSUER + CREATED + RETIRED


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4) + body


def revocation(hashed: bytes = GOOD, unhashed: bytes = KEY_ID, start: str = "0420160a") -> bytes:
    areas = [len(area).to_bytes(2) + area for area in (hashed, unhashed)]
    return packet(2, bytes.fromhex(start) + b"".join(areas) + b"\x12\x34\x00\x01\x01")


def since(*packets: bytes) -> int | None:
    return soft_revocation(packet(6, KEY) + b"".join(packets), NAME)


def test_the_least_soft_revocation_has_a_time() -> None:
    assert since(revocation()) == AT
    assert since(revocation(unhashed=b"")) == AT


@pytest.mark.parametrize(
    "reason, is_soft",
    [(code, code in {1, 3}) for code in (0, 1, 2, 3, 4, 32, 100, 110, 255)],
)
def test_only_two_reasons_are_soft(reason: int, is_soft: bool) -> None:  # noqa: FBT001  a case
    for words in (b"", b"new key: ABCD"):
        content = bytes([29, reason]) + words
        hashed = ISSUER + CREATED + bytes([len(content)]) + content
        assert since(revocation(hashed)) == (AT if is_soft else None)


@pytest.mark.parametrize("also", [b"\x02\x1c@", b"\x05\x14note", b"\x05\x03\0\0\0\0"])
def test_what_a_documents_signature_may_say_a_revocation_may_too(also: bytes) -> None:
    assert since(revocation(GOOD + also)) == AT


def test_a_critical_reason_is_one() -> None:
    assert since(revocation(ISSUER + CREATED + b"\x02\x9d\x03")) == AT


@pytest.mark.parametrize(
    "doubtful",
    [
        revocation(b""),
        revocation(ISSUER + CREATED),
        revocation(ISSUER + CREATED + b"\x01\x1d"),
        revocation(ISSUER + CREATED, KEY_ID + RETIRED),
        revocation(GOOD, KEY_ID + RETIRED),
        revocation(GOOD + RETIRED),
        revocation(GOOD + b"\x02\x1d\x02"),
        revocation(ISSUER + RETIRED),
        revocation(ISSUER + RETIRED, KEY_ID + CREATED),
        revocation(ISSUER + RETIRED + b"\x05\x02\0\0\0\0"),
        revocation(GOOD + CREATED),
        revocation(CREATED + RETIRED),
        revocation(CREATED + RETIRED, ISSUER),
        revocation(b"\x16\x21\x04" + bytes(20) + CREATED + RETIRED, b""),
        revocation(GOOD, b"\x09\x10" + bytes(8)),
        revocation(GOOD + b"\x05\x03\0\0\0\1"),
        revocation(GOOD + b"\x02\x0c\0"),
        revocation(GOOD + b"\x02\x20\0"),
        revocation(GOOD + b"\0"),
        revocation(GOOD + b"\x09\x1d"),
        revocation(start="0320160a"),
        revocation(start="0520160a"),
        revocation(start="0428160a"),
        revocation(start="0410160a"),
        packet(2, b""),
        packet(2, b"\x04"),
        revocation() + revocation(ISSUER + CREATED),
        revocation() + revocation(start="0428160a"),
        revocation() + revocation(start="0310160a"),
        revocation() + packet(14, KEY) + revocation(start="0428160a"),
        packet(13, b"Ada") + revocation(ISSUER + CREATED) + revocation(),
    ],
)
def test_whatever_is_in_doubt_is_hard(doubtful: bytes) -> None:
    assert since(doubtful) is None


@pytest.mark.parametrize(
    "beside",
    [
        b"\xc2\xe5" + bytes(40),  # a partial length
        b"\x8b" + bytes(40),  # a length until the end
        b"\x02\x01\x01",  # no packet
        b"\x89\xff\xff\x04",  # longer than the keyring
        packet(5, KEY),  # a secret key, which begins a block of its own
        packet(8, b"\0" + revocation()),  # compressed
        packet(11, b"words"),
    ],
)
def test_one_packet_that_no_exported_key_has_spoils_the_keyring(beside: bytes) -> None:
    assert since(revocation(), beside) is None
    assert soft_revocation(beside + packet(6, KEY) + revocation(), NAME) is None


def test_what_a_keyring_may_hold_besides_is_passed_over() -> None:
    beside = packet(12, b"\0\0") + packet(13, b"Ada") + packet(17, b"\x02\x01\0")

    assert since(revocation(), beside) == AT
    assert soft_revocation(revocation() + beside + packet(6, KEY) + revocation(), NAME) == AT


@pytest.mark.parametrize("key", [b"", b"\x03" + KEY[1:], b"\x05" + KEY[1:], b"\x04" * 0x10000])
def test_a_key_that_has_no_version_4_fingerprint_is_nobodys(key: bytes) -> None:
    for name in (NAME, ""):
        assert soft_revocation(packet(6, key) + revocation(), name) is None
    assert soft_revocation(packet(6, KEY) + revocation() + packet(6, key), NAME) == AT


def test_a_large_keyring_is_walked_once() -> None:
    others = (packet(6, KEY[:-1] + b"\x01") + packet(13, b"Somebody") * 3) * 20_000

    assert soft_revocation(others + packet(6, KEY) + revocation(), NAME) == AT


@given(st.binary(max_size=200))
def test_no_keyring_makes_it_fail(octets: bytes) -> None:
    assert soft_revocation(octets, NAME) is None
    assert since(octets) is None
    assert since(revocation(), octets) in {None, AT}


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_no_signature_makes_it_fail(hashed: bytes, unhashed: bytes) -> None:
    for signature in (
        revocation(hashed, unhashed),
        revocation(GOOD + hashed, KEY_ID + unhashed),
        packet(2, b"\x04\x20" + hashed),
    ):
        assert since(signature) in {None, AT}
        assert since(signature, revocation(ISSUER + CREATED)) is None
