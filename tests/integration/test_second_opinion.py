"""Sequoia's sqv, a verifier that shares no code with gpgv, asked about the same signatures.

sqv is no oracle: it reads more forms than Countersign lets in, and judges keys by other rules. So
each difference is listed here with its reason, and the lists are exact: a difference that is not
listed fails, and so does a listed one that is gone.

What sqv says holds for now, and it cannot be told another time: it asks whether the key was good
when the signature says it was made, and whether the signature has expired by the machine's clock.
`--not-after` bounds the time at which the signature was made; it stands for the clock's error here.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from installer.errors import SignatureError
from installer.signatures import CLOCK_ERROR, Signature, verify_signature
from tests.corpus import Bench, Case, armour, corpus, flipped, packet_of, places
from tests.keys import Keyring

pytestmark = pytest.mark.integration

ACCEPTED, REFUSED, PANICKED = 0, 1, 101
"""sqv's exit codes. Version 1.1 panics at a digest that it does not know, which refuses as well."""

Reasons = Mapping[str, tuple[str, ...]]

ONLY_COUNTERSIGN: Reasons = {
    "sqv's library has no such curve; gpgv's has": (
        "good, brainpoolP256r1",
        "good, secp256k1",
    ),
    "gpgv demands no size of a key: whoever lets one into the keyring and the policy does": (
        "good, rsa1024",
    ),
    (
        "sqv asks what the key said of itself at the time of the signature, and gpg exports only "
        "what it says since it was prolonged; gpgv goes by that, as it is the owner's last word"
    ): (
        "good, before its key was prolonged",
        "good, dated between its key's two lives",
    ),
    "gpgv overlooks a misstated length in bits; number, signer and time are the same": (
        "good, first number of another length in bits",
        "good, second number of another length in bits",
    ),
}
"""What Countersign accepts and sqv refuses, and why that is no hole."""

ONLY_SQV: Reasons = {
    "sqv counts the good ones among several signatures": (
        "two packets, good before good",
        "two packets, good before other",
        "two packets, other before good",
        "two packets, good before unknown",
        "two packets, unknown before good",
        "two packets, good before bad",
        "two packets, bad before good",
    ),
    "sqv reads the first of several blocks, and nothing behind it": (
        "two blocks, good before good",
        "two blocks, good before other",
        "two blocks, other before good",
        "two blocks, good before unknown",
        "two blocks, good before bad",
        "words behind the armour",
        "empty line behind the armour",
    ),
    "sqv takes armour as people mail it, or none": (
        "binary",
        "words before the armour",
        "a header that is not known",
        "a comment that is not ASCII",
        "blanks in the empty line",
        "another kind of armour",
        "20 KB of comment",
    ),
    "sqv takes a text-mode signature, which lets line ends be changed": (
        "text mode, LF read as LF",
        "text mode, LF read as CRLF",
        "text mode, CRLF read as LF",
        "text mode, CRLF read as CRLF",
    ),
    "sqv takes SHA-224": ("digest SHA224",),
    "sqv passes over what a signature says beside who and when, if it is not critical": (
        "policy",
        "key server",
        "embedded key block",
    ),
    "sqv knows what a critical policy is, and leaves it to people": ("critical policy",),
    "sqv passes over the unhashed area, which anyone may change": (
        "unhashed note of anyone's",
        "unhashed expiry of anyone's",
        "unhashed name of another key",
        "signature with a bit flipped in its unhashed area",
    ),
    "sqv asks whether the key was good then; Countersign, whether it is now": (
        "expired key, signed before",
        "expired subkey, signed before",
        "subkey of an expired key, signed before",
        "key revoked (superseded) afterwards",
        "key revoked (retired) afterwards",
        "subkey revoked (superseded) afterwards",
        "subkey revoked (retired) afterwards",
    ),
    "gpgv looks at the first key that has the subkey; sqv finds the one that it belongs to": (
        "stolen subkey, thief before owner",
    ),
    "sqv reads armoured keyrings": ("armoured keyring",),
}
"""What sqv accepts and Countersign refuses."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """What both say: Countersign the signer or why not, sqv the keys whose signatures it counts."""

    case: Case
    countersign: Signature | str
    sqv: frozenset[str]

    @property
    def accepted(self) -> tuple[bool, bool]:
        """Whether Countersign, and whether sqv, accepts."""
        return isinstance(self.countersign, Signature), bool(self.sqv)


def opinions(case: Case, folder: Path) -> Opinions:
    """Ask both."""
    keyring = folder / "keyring.pgp"
    keyring.write_bytes(case.keyring)
    try:
        says: Signature | str = verify_signature(case.signature, case.document, keyring, case.at)
    except SignatureError as error:
        says = str(error)
    return Opinions(case, says, ask_sqv(case, folder, keyring))


def ask_sqv(case: Case, folder: Path, keyring: Path) -> frozenset[str]:
    signature, document = folder / "signature", folder / "document"
    signature.write_bytes(case.signature)
    document.write_bytes(case.document)
    latest = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(case.at + CLOCK_ERROR))
    command: list[str | Path] = [
        "sqv",
        "--keyring",
        keyring,
        "--not-after",
        latest,
        signature,
        document,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = frozenset(done.stdout.split())
    assert done.returncode in ({ACCEPTED} if found else {REFUSED, PANICKED}), (case.name, done)
    return found


@pytest.fixture(scope="module")
def keys() -> Iterator[Keyring]:
    with Keyring.create() as made:
        yield made


@pytest.fixture(scope="module")
def asked(keys: Keyring, tmp_path_factory: pytest.TempPathFactory) -> tuple[Opinions, ...]:
    folder = tmp_path_factory.mktemp("corpus")
    return tuple(opinions(case, folder) for case in corpus(keys))


def differing(asked: tuple[Opinions, ...], accepted: tuple[bool, bool]) -> list[str]:
    return sorted(both.case.name for both in asked if both.accepted == accepted)


def listed(reasons: Reasons) -> list[str]:
    return sorted(name for names in reasons.values() for name in names)


def test_countersign_says_to_every_signature_what_is_expected(
    asked: tuple[Opinions, ...],
) -> None:
    for both in asked:
        case, says = both.case, both.countersign
        if isinstance(says, Signature):
            assert (case.refused, case.signer) == ("", says.primary), case.name
        else:
            assert case.refused, (case.name, says)
            assert case.refused in says, case.name


def test_nothing_but_what_is_listed_is_accepted_by_countersign_alone(
    asked: tuple[Opinions, ...],
) -> None:
    assert differing(asked, (True, False)) == listed(ONLY_COUNTERSIGN)


def test_nothing_but_what_is_listed_is_refused_by_countersign_alone(
    asked: tuple[Opinions, ...],
) -> None:
    assert differing(asked, (False, True)) == listed(ONLY_SQV)


def test_what_both_accept_has_the_same_signer(asked: tuple[Opinions, ...]) -> None:
    agreed = [both for both in asked if both.accepted == (True, True)]

    assert agreed
    for both in agreed:
        assert both.sqv == {both.case.signer}, both.case.name


# Every bit of a signature flipped


@dataclass(frozen=True, slots=True)
class Flips:
    """How often which part's flipped bits were accepted by Countersign, and by sqv."""

    original: Opinions
    accepted: tuple[Opinions, ...]
    counts: Counter[tuple[str, tuple[bool, bool]]]


@pytest.fixture(scope="module")
def flips(keys: Keyring, tmp_path_factory: pytest.TempPathFactory) -> Flips:
    folder = tmp_path_factory.mktemp("flips")
    case = case_of_known_lengths(Bench.create(keys))
    packet = packet_of(case.signature)
    counts: Counter[tuple[str, tuple[bool, bool]]] = Counter()
    accepted = []
    for bit in range(len(packet) * 8):
        both = opinions(replace(case, signature=armour(flipped(packet, bit))), folder)
        counts[places(packet)[bit // 8], both.accepted] += 1
        if both.accepted[0]:
            accepted.append(both)
    return Flips(opinions(case, folder), tuple(accepted), counts)


def case_of_known_lengths(bench: Bench) -> Case:
    """A signature whose numbers have 256 and 255 bits, so that its flips can be counted.

    The numbers are as good as random. Of those of 255 bits three flips of the length remain within
    32 octets; of those of 256 bits none does.
    """
    for attempt in range(1000):
        document = b"attempt %d\n" % attempt
        signature = bench.keys.sign(document, bench.ada, "--digest-algo", "SHA512")
        packet, parts = packet_of(signature), places(packet_of(signature))
        starts = (parts.index(f"{number} number's length") for number in ("first", "second"))
        if [packet[start : start + 2] for start in starts] == [b"\1\0", b"\0\xff"]:
            return replace(bench.case("flips", signature), document=document)
    raise AssertionError("no signature has numbers of 256 and 255 bits")


def test_a_flipped_bit_that_countersign_accepts_changes_neither_signer_nor_time(
    flips: Flips,
) -> None:
    assert flips.original.accepted == (True, True)
    assert {both.countersign for both in flips.accepted} == {flips.original.countersign}


def test_countersign_accepts_flipped_bits_only_outside_of_what_is_signed(flips: Flips) -> None:
    found = {place: n for (place, (accepts, _)), n in flips.counts.items() if accepts}

    assert found == {"digest's start": 16, "second number's length": 3}


def test_sqv_differs_about_flipped_bits_only_as_listed(flips: Flips) -> None:
    found = {(place, sqv): n for (place, (ours, sqv)), n in flips.counts.items() if ours != sqv}

    assert found == {
        # As in the corpus: a number's length in bits is misstated.
        ("second number's length", False): 3,
        # Anyone may change it, as long as it can be read. Countersign lets in one content only.
        ("unhashed area", True): 71,
        # The version of the fingerprint: sqv makes the digest over what it read, where it is 4.
        ("hashed area", True): 7,
    }
