"""Signatures made by the real gpg, verified by the real gpgv; nothing stands in for either."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer import signatures
from installer.bundle import Head
from installer.errors import ConfigurationError, MalformedError, SignatureError
from installer.openpgp import MAX_SIGNATURE_SIZE, Envelope, open_envelope
from installer.policy import Policy, parse_policy
from installer.signatures import (
    Signature,
    UnknownKeyError,
    require_binary_keyring,
    verify_release,
    verify_signature,
)
from tests.keys import GpgError, Keyring

DATA = b'{"line": 1}\nand another line\n'
DATABASE_RELEASE = {
    "type": "countersign-manifest",
    "format": 1,
    "release": {"name": "crm", "version": "1.0.0", "sequence": 1, "summary": "First"},
    "source": {
        "vcs": "git",
        "tag": "v1.0.0",
        "revision": "0" * 40,
        "committed": 1,
        "tagger": None,
    },
    "application": None,
    "database": {"name": "crm", "scripts": [], "verify": [], "accept": [], "rehearsal": None},
    "content": {"compression": "xz", "digest": "0" * 64, "size": 0},
}
MANIFEST = json.dumps(DATABASE_RELEASE).encode()
FORGERY = "\n[GNUPG:] VALIDSIG " + "A" * 40


def now() -> int:
    return int(time.time())


@dataclass(frozen=True)
class People:
    """The keys that most tests share; `keyring` is the file that the host trusts."""

    keys: Keyring
    ada: str
    bob: str
    customer: str
    stranger: str
    keyring: Path


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with Keyring.create() as keys:
        ada = keys.new_key("Ada Developer <ada@example.org>", created="20200101T000000")
        bob = keys.new_key("Bob Developer <bob@example.org>")
        customer = keys.new_key("The Customer <customer@example.org>")
        stranger = keys.new_key("Stranger <stranger@example.org>")
        keyring = keys.home / "trusted.pgp"
        keyring.write_bytes(keys.export([ada, bob, customer]))
        yield People(keys, ada, bob, customer, stranger, keyring)


@pytest.fixture
def keyring_of(people: People, tmp_path: Path) -> Callable[..., Path]:
    def write(*fingerprints: str) -> Path:
        path = tmp_path / "keyring.pgp"
        path.write_bytes(people.keys.export(fingerprints))
        return path

    return write


def accepted(people: People, signature: bytes, data: bytes = DATA) -> Signature:
    return verify_signature(signature, data, people.keyring, now())


def refusal(people: People, signature: bytes, data: bytes = DATA) -> str:
    with pytest.raises(SignatureError) as refused:
        verify_signature(signature, data, people.keyring, now())
    assert not isinstance(refused.value, UnknownKeyError)
    assert refused.value.exit_code == 20
    return str(refused.value)


def armour(packets: bytes) -> bytes:
    text = b64encode(packets)
    lines = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
    return b"-----BEGIN PGP SIGNATURE-----\n\n" + lines + b"-----END PGP SIGNATURE-----\n"


def packet_of(signature: bytes) -> bytes:
    return open_envelope(signature).packet


# Good signatures


def test_a_developers_signature_names_the_key_and_the_time(people: People) -> None:
    before = now()
    found = accepted(people, people.keys.sign(DATA, people.ada))
    assert (found.primary, found.signing) == (people.ada, people.ada)
    assert before <= found.created <= now()


def test_an_empty_document_can_be_signed(people: People) -> None:
    assert accepted(people, people.keys.sign(b"", people.ada), b"").primary == people.ada


def test_a_document_larger_than_a_pipe_can_be_signed(people: People) -> None:
    data = bytes(300_000)
    assert accepted(people, people.keys.sign(data, people.ada), data).primary == people.ada


@pytest.mark.parametrize("digest", ["SHA256", "SHA384", "SHA512"])
def test_the_three_strong_digests_are_accepted(people: People, digest: str) -> None:
    signature = people.keys.sign(DATA, people.ada, "--digest-algo", digest)
    assert accepted(people, signature).primary == people.ada


@pytest.mark.parametrize("algorithm", ["rsa3072", "nistp256"])
def test_other_algorithms_verify_as_well(
    people: People, algorithm: str, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key(f"{algorithm} <{algorithm}@example.org>", algorithm=algorithm)
    found = verify_signature(people.keys.sign(DATA, key), DATA, keyring_of(key), now())
    assert found.primary == key


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sig-notation", "place@example.org=an office"),
        ("--comment", "made by hand", "--emit-version"),
        ("--sender", "ada@example.org"),
        ("--default-sig-expire", "1d"),
    ],
)
def test_what_gpg_may_add_to_a_signature_is_accepted(
    people: People, arguments: tuple[str, ...]
) -> None:
    signature = people.keys.sign(DATA, people.ada, *arguments)
    assert accepted(people, signature).primary == people.ada


def test_a_signature_that_was_mailed_with_crlf_is_accepted(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada).replace(b"\n", b"\r\n")
    assert accepted(people, signature).primary == people.ada


def test_a_subkeys_signature_counts_for_the_primary_key(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Sue <sue@example.org>")
    first, second = people.keys.add_subkey(key), people.keys.add_subkey(key)
    keyring = keyring_of(key)
    for subkey in (first, second):
        found = verify_signature(people.keys.sign(DATA, subkey), DATA, keyring, now())
        assert (found.primary, found.signing) == (key, subkey)


def test_an_expired_subkey_does_not_spoil_the_signature_of_a_good_one(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Rota <rota@example.org>", created="20200101T000000")
    people.keys.add_subkey(key, created="20200101T000000", expires="1y")
    current = people.keys.add_subkey(key)
    keyring = keyring_of(key)
    for signing in (key, current):
        found = verify_signature(people.keys.sign(DATA, signing), DATA, keyring, now())
        assert (found.primary, found.signing) == (key, signing)


def test_a_signature_made_within_the_clocks_error_is_accepted(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada)
    created = open_envelope(signature).created
    assert verify_signature(signature, DATA, people.keyring, created - 300).created == created
    with pytest.raises(SignatureError, match="made in the future"):
        verify_signature(signature, DATA, people.keyring, created - 301)


# Changed content


def test_every_flipped_bit_of_the_document_is_refused(people: People) -> None:
    data = DATA[:16]
    signature = people.keys.sign(data, people.ada)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert "does not match" in refusal(people, signature, bytes(changed))


@pytest.mark.parametrize("data", [DATA + b"\n", DATA[:-1], DATA.replace(b"\n", b"\r\n"), b""])
def test_a_changed_document_is_refused(people: People, data: bytes) -> None:
    assert "does not match" in refusal(people, people.keys.sign(DATA, people.ada), data)


def test_every_flipped_bit_of_a_signature_is_refused_or_changes_nothing(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada)
    original = accepted(people, signature)
    packet = packet_of(signature)
    survived = 0
    for bit in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert accepted(people, armour(bytes(changed))) == original
            survived += 1
        except SignatureError:
            pass
    # Outside the signed area: 16 bits of the digest that gpgv need not look at, and a few of how
    # two numbers' lengths are written. The unhashed area is not free to change.
    assert survived <= 16 + 2 * 5


# Other kinds of signature


@pytest.mark.parametrize("digest", ["SHA1", "RIPEMD160", "SHA224"])
def test_a_weak_digest_is_refused(people: People, digest: str) -> None:
    signature = people.keys.sign(DATA, people.ada, "--digest-algo", digest)
    assert "none of SHA-256, SHA-384, SHA-512" in refusal(people, signature)


@pytest.mark.parametrize("data", [DATA, DATA.replace(b"\n", b"\r\n")])
def test_a_text_mode_signature_is_refused_whatever_the_line_ends(
    people: People, data: bytes
) -> None:
    signature = people.keys.sign(data, people.ada, "--textmode")
    for read in (DATA, DATA.replace(b"\n", b"\r\n")):
        assert "text mode is not accepted" in refusal(people, signature, read)


@pytest.mark.parametrize("command", ["--clearsign", "--sign"])
def test_an_inline_signature_is_refused(people: People, command: str) -> None:
    signature = people.keys.gpg("--armor", "-u", people.ada, command, data=DATA)
    assert "not one armoured detached signature" in refusal(people, signature)


def test_an_inline_signature_dressed_up_as_a_detached_one_is_refused(people: People) -> None:
    message = people.keys.gpg("-u", people.ada, "--compress-algo", "none", "--sign", data=DATA)
    assert "OpenPGP packet of type 4" in refusal(people, armour(message))


def test_a_compressed_signature_is_refused(people: People) -> None:
    message = people.keys.gpg("-u", people.ada, "--compress-algo", "zlib", "--sign", data=DATA)
    assert "no OpenPGP packet of a definite length" in refusal(people, armour(message))


def test_a_binary_signature_is_refused_with_the_command_that_makes_an_armoured_one(
    people: People,
) -> None:
    packet = packet_of(people.keys.sign(DATA, people.ada))
    assert "`gpg --armor --detach-sign FILE` makes one" in refusal(people, packet)


def test_two_signatures_in_one_file_are_refused_in_any_order(people: People) -> None:
    a, b = (packet_of(people.keys.sign(DATA, key)) for key in (people.ada, people.bob))
    for packets in (a + b, b + a, a + a):
        assert "more than one OpenPGP packet" in refusal(people, armour(packets))


def test_two_armoured_blocks_are_refused(people: People) -> None:
    a, b = (people.keys.sign(DATA, key) for key in (people.ada, people.bob))
    for blocks in (a + b, b + a, a + a):
        assert "not one armoured detached signature" in refusal(people, blocks)


def test_a_key_beside_the_signature_is_refused(people: People) -> None:
    packet, key = packet_of(people.keys.sign(DATA, people.ada)), people.keys.export([people.ada])
    assert "more than one OpenPGP packet" in refusal(people, armour(packet + key))
    assert "OpenPGP packet of type 6" in refusal(people, armour(key + packet))


def test_a_key_inside_the_signature_is_refused(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada, "--include-key-block")
    assert "subpacket of type 38, not known here" in refusal(people, signature)


def test_a_critical_notation_is_refused(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada, "--sig-notation", "!terms@example.org=QAT only")
    assert "critical subpacket of type 20" in refusal(people, signature)


def test_a_policy_of_the_signers_is_refused(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada, "--sig-policy-url", "!https://example.org/")
    assert "critical subpacket of type 26" in refusal(people, signature)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: b"\n" + s,
        lambda s: b"Signed by me:\n" + s,
        lambda s: s + b"\n",
        lambda s: s + b"thanks",
        lambda s: s + s[:20],
        lambda s: s[:-30],
        lambda s: s.replace(b"SIGNATURE", b"MESSAGE"),
        lambda s: s.replace(b"-----\n\n", b"-----\n", 1),
        lambda s: s.replace(b"-----\n\n", b"-----\nHash: SHA1\n\n", 1),
        lambda s: s.replace(b"-----\n\n", b"-----\nComment: \xff\n\n", 1),
        lambda s: s.replace(b"-----\n\n", b"-----\n\n \n", 1),
        lambda s: s.replace(b"-----\n\n", b"-----\n\n\n", 1),
        lambda s: s.replace(b"\n", b"\r"),
        lambda s: s.replace(b"\n", b" \n"),
        lambda s: s[:0],
        lambda s: s[:1],
    ],
)
def test_junk_around_or_within_the_armour_is_refused(
    people: People, change: Callable[[bytes], bytes]
) -> None:
    changed = change(people.keys.sign(DATA, people.ada))
    assert "not one armoured detached signature" in refusal(people, changed)


def test_base64_that_ends_early_is_refused(people: People) -> None:
    packet = b64encode(packet_of(people.keys.sign(DATA, people.ada)))
    text = b"-----BEGIN PGP SIGNATURE-----\n\nAA==\n%s\n-----END PGP SIGNATURE-----\n" % packet[:64]
    assert "armour is damaged" in refusal(people, text)


def test_a_signature_of_unreasonable_size_is_refused_unread(people: People) -> None:
    assert "larger than" in refusal(people, bytes(MAX_SIGNATURE_SIZE + 1))


# Keys and times


def test_a_signature_by_a_key_outside_the_keyring_is_told_apart(people: People) -> None:
    with pytest.raises(UnknownKeyError) as refused:
        accepted(people, people.keys.sign(DATA, people.stranger))
    assert refused.value.fingerprint == people.stranger
    assert people.stranger in str(refused.value)


def test_an_expired_signature_is_refused(people: People) -> None:
    arguments = ("--default-sig-expire", "1d")
    signature = people.keys.sign(DATA, people.ada, *arguments, created="20210101T000000")
    assert refusal(people, signature) == "the signature has expired"


def test_a_signature_expires_by_the_time_that_the_caller_gives(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada, "--default-sig-expire", "1d")
    end = open_envelope(signature).created + 24 * 60 * 60
    assert verify_signature(signature, DATA, people.keyring, end - 1).primary == people.ada
    with pytest.raises(SignatureError, match="the signature has expired"):
        verify_signature(signature, DATA, people.keyring, end)


def test_a_signature_from_the_future_is_refused(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada, created="20600101T000000")
    assert "made in the future" in refusal(people, signature)


def test_a_signature_older_than_its_key_is_refused(people: People) -> None:
    early = ("--ignore-time-conflict", "--ignore-valid-from")
    signature = people.keys.sign(DATA, people.ada, *early, created="20190101T000000")
    assert "cannot be verified with the key" in refusal(people, signature)


def test_the_signature_of_an_expired_key_is_refused(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Past <past@example.org>", created="20200101T000000", expires="1y")
    signature = people.keys.sign(DATA, key, created="20200601T000000")
    with pytest.raises(SignatureError, match="the key that made the signature has expired"):
        verify_signature(signature, DATA, keyring_of(key), now())


def test_the_signature_of_an_expired_subkey_is_refused(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Sub <sub@example.org>", created="20200101T000000")
    subkey = people.keys.add_subkey(key, created="20200101T000000", expires="1y")
    signature = people.keys.sign(DATA, subkey, created="20200601T000000")
    with pytest.raises(SignatureError, match="the key that made the signature has expired"):
        verify_signature(signature, DATA, keyring_of(key), now())


def test_a_subkey_does_not_outlive_its_primary_key(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Top <top@example.org>", created="20200101T000000", expires="1y")
    subkey = people.keys.add_subkey(key, created="20200101T000000")
    signature = people.keys.sign(DATA, subkey, created="20200601T000000")
    with pytest.raises(SignatureError, match="the key that made the signature has expired"):
        verify_signature(signature, DATA, keyring_of(key), now())


def test_the_signature_of_a_revoked_key_is_refused_although_it_was_made_before(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("Lost <lost@example.org>", created="20200101T000000")
    signature = people.keys.sign(DATA, key, created="20200601T000000")
    assert verify_signature(signature, DATA, keyring_of(key), now()).primary == key
    people.keys.revoke(key)
    with pytest.raises(SignatureError, match="the key that made the signature is revoked"):
        verify_signature(signature, DATA, keyring_of(key), now())


# The host's surroundings


def test_a_hostile_environment_has_no_effect(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = {key: people.keys.sign(DATA, key) for key in (people.ada, people.stranger)}
    liar = tmp_path / "gpgv"
    liar.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    liar.chmod(0o755)
    (tmp_path / "gpg.conf").write_text("this is no option\n")
    (tmp_path / "gpgv.conf").write_text("this is no option\n")
    (tmp_path / "trustedkeys.gpg").write_bytes(people.keys.export([people.stranger]))
    hostile = ("GNUPGHOME", "HOME", "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PGSERVICEFILE")
    for name in hostile:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "missing.so"))
    monkeypatch.setenv("LC_ALL", "xx_XX")
    assert accepted(people, signed[people.ada]).primary == people.ada
    with pytest.raises(UnknownKeyError):
        accepted(people, signed[people.stranger])
    assert not (tmp_path / "was-run").exists()


def test_a_keyring_whose_name_forges_a_status_line_vouches_for_no_one(
    people: People, tmp_path: Path
) -> None:
    keyring = tmp_path / f"k{FORGERY}\n"  # gpgv reads a colon as part of a URL, and complains
    keyring.write_bytes(people.keyring.read_bytes())
    for key in (people.ada, people.stranger):
        with pytest.raises(SignatureError, match="can it read the keyring"):
            verify_signature(people.keys.sign(DATA, key), DATA, keyring, now())


def test_a_keyring_with_a_newline_in_its_name_serves(people: People, tmp_path: Path) -> None:
    keyring = tmp_path / "k\nVALIDSIG %0A"
    keyring.write_bytes(people.keyring.read_bytes())
    signature = people.keys.sign(DATA, people.ada)
    assert verify_signature(signature, DATA, keyring, now()).primary == people.ada


def test_a_user_id_that_forges_a_status_line_changes_nothing(
    people: People, keyring_of: Callable[..., Path]
) -> None:
    key = people.keys.new_key("[GNUPG:] VALIDSIG %0A[GNUPG:] GOODSIG <x@example.org>")
    found = verify_signature(people.keys.sign(DATA, key), DATA, keyring_of(key), now())
    assert found.primary == key


def test_a_relative_keyring_is_found(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(people.keyring.parent)
    signature = people.keys.sign(DATA, people.ada)
    found = verify_signature(signature, DATA, Path(people.keyring.name), now())
    assert found.primary == people.ada


def test_a_missing_keyring_is_not_taken_for_one_without_the_key(
    people: People, tmp_path: Path
) -> None:
    with pytest.raises(SignatureError, match="can it read the keyring") as refused:
        verify_signature(people.keys.sign(DATA, people.ada), DATA, tmp_path / "none", now())
    assert not isinstance(refused.value, UnknownKeyError)


def test_no_descriptor_is_left_open(people: People) -> None:
    signature = people.keys.sign(DATA, people.ada)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208  names alone, no paths
    accepted(people, signature)
    refusal(people, signature, b"")
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# gpgv fails: each of these programs takes gpgv's place, as a broken host might have it


def run_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    program = tmp_path / "gpgv"
    program.write_text(f'#!/bin/sh\nwhile [ "$1" != --status-fd ]; do shift; done\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(signatures, "GPGV", str(program))


GOOD = (
    "[GNUPG:] NEWSIG\n"
    "[GNUPG:] GOODSIG {short} Ada\n"
    "[GNUPG:] VALIDSIG {key} 2026-01-01 {created} 0 4 0 22 10 00 {key}\n"
)


def answer(status: str, code: int = 0) -> str:
    return f"cat > /dev/fd/$2 <<'END'\n{status}END\nexit {code}"


@pytest.fixture
def signature(people: People) -> bytes:
    return people.keys.sign(DATA, people.ada)


def good_answer(people: People, signature: bytes) -> str:
    envelope = open_envelope(signature)
    return GOOD.format(short=people.ada[-16:], key=people.ada, created=envelope.created)


def test_without_gpgv_nothing_is_trusted(
    people: People, signature: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "GPGV", "/nonexistent/gpgv")
    message = refusal(people, signature)
    assert message == (
        "the signature cannot be verified: /nonexistent/gpgv: No such file or directory"
    )


def test_a_gpgv_that_hangs_is_killed(
    people: People, signature: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    monkeypatch.setattr(signatures, "TIMEOUT", 0.5)
    assert "did not end within 0.5 s" in refusal(people, signature)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_gpgv_that_never_stops_talking_is_killed(
    people: People, signature: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, tmp_path, "exec yes '[GNUPG:] KEY_CONSIDERED x 0' > /dev/fd/$2")
    monkeypatch.setattr(signatures, "TIMEOUT", 0.5)
    assert "did not end within 0.5 s" in refusal(people, signature)


def test_the_stand_in_is_believed_when_it_says_what_gpgv_says(
    people: People, signature: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, tmp_path, answer(good_answer(people, signature)))
    assert accepted(people, signature).primary == people.ada


def test_a_gpgv_that_is_killed_after_its_answer_is_refused(
    people: People, signature: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = answer(good_answer(people, signature)).replace("exit 0", "kill -9 $$")
    run_instead(monkeypatch, tmp_path, script)
    assert "exit code -9" in refusal(people, signature)


def test_an_answer_that_is_cut_off_anywhere_is_refused(people: People, signature: bytes) -> None:
    # Decided by the function itself: a process for each of 200 cuts would prove no more.
    envelope = open_envelope(signature)
    status = good_answer(people, signature).encode()
    assert signatures._conclude(0, status, envelope).primary == people.ada
    for end in range(len(status)):
        with pytest.raises(SignatureError):
            signatures._conclude(0, status[:end], envelope)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda s: s * 2, "does not vouch"),
        (lambda s: s.replace("GOODSIG", "EXPSIG"), "has expired"),
        (lambda s: s + "[GNUPG:] EXPSIG x y\n", "has expired"),
        (lambda s: s + "[GNUPG:] EXPKEYSIG x y\n", "the key that made the signature has expired"),
        (lambda s: s + "[GNUPG:] REVKEYSIG x y\n", "is revoked"),
        (lambda s: s + "[GNUPG:] BADSIG x y\n", "does not match"),
        (lambda s: s + "[GNUPG:] ERRSIG x y\n", "cannot be verified"),
        (lambda s: s + "[GNUPG:] NO_PUBKEY x\n", "does not vouch"),
        (lambda s: s + "[GNUPG:] KEYREVOKED\n", "does not vouch"),
        (lambda s: s + "[GNUPG:] SOMETHING_NEW\n", "does not vouch"),
        (lambda s: s + "[GNUPG:] FAILURE gpgv 1\n", "does not vouch"),
        (lambda s: s + "gpgv: a line of another kind\n", "not its own"),
        (lambda s: s + "\n", "not its own"),
        (lambda s: s.replace(" 22 10 00 ", " 22 2 00 "), "disagree"),
        (lambda s: s.replace(" 22 10 00 ", " 22 10 01 "), "disagree"),
        (lambda s: s.replace("VALIDSIG ", "VALIDSIG 0"), "disagree"),
        (lambda s: s.replace(" 0 4 0 ", "1 0 4 0 "), "disagree"),
        (lambda s: s.replace(" 0 4 0 ", " 0 4 0 0 "), "not its own"),
        (lambda s: s[:-2] + "\n", "disagree"),
        (lambda s: s[:-41] + "A" * 16 + "\n", "disagree"),
    ],
)
def test_an_answer_with_anything_out_of_place_is_refused(
    people: People, signature: bytes, change: Callable[[str], str], reason: str
) -> None:
    status = change(good_answer(people, signature)).encode()
    with pytest.raises(SignatureError, match=reason):
        signatures._conclude(0, status, open_envelope(signature))


@pytest.mark.parametrize("code", [1, 2, -11])
def test_a_good_answer_with_a_bad_exit_code_is_refused(
    people: People, signature: bytes, code: int
) -> None:
    status = good_answer(people, signature).encode()
    with pytest.raises(SignatureError, match=f"exit code {code}"):
        signatures._conclude(code, status, open_envelope(signature))


def test_no_answer_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureError, match="does not vouch"):
        signatures._conclude(0, b"", open_envelope(signature))


# The envelope, octet by octet

FINGERPRINT = bytes.fromhex("AB" * 20)
CREATED = b"\x05\x02\x65\x00\x00\x00"
ISSUER = b"\x16\x21\x04" + FINGERPRINT
KEY_ID = b"\x09\x10" + FINGERPRINT[-8:]
NUMBERS = b"\x12\x34\x00\x01\x01"


def body(
    hashed: bytes = ISSUER + CREATED, unhashed: bytes = KEY_ID, start: str = "0400160a"
) -> bytes:
    areas = [len(area).to_bytes(2) + area for area in (hashed, unhashed)]
    return bytes.fromhex(start) + b"".join(areas) + NUMBERS


def packet(content: bytes, header: str = "") -> bytes:
    return (bytes.fromhex(header) or b"\x88" + len(content).to_bytes(1)) + content


def envelope(content: bytes, header: str = "") -> Envelope:
    return open_envelope(armour(packet(content, header)))


def test_the_least_envelope_says_who_and_when() -> None:
    found = envelope(body(unhashed=b""))
    assert found.issuer == FINGERPRINT.hex().upper()
    assert (found.created, found.expires) == (0x65000000, None)


@pytest.mark.parametrize("lifetime, expires", [(b"\0\0\0\0", None), (b"\0\0\0\x05", 0x65000005)])
def test_a_lifetime_counts_from_the_creation(lifetime: bytes, expires: int | None) -> None:
    assert envelope(body(ISSUER + CREATED + b"\x05\x03" + lifetime)).expires == expires


@pytest.mark.parametrize("header", ["88{:02x}", "89{:04x}", "8a{:08x}", "c2{:02x}", "c2ff{:08x}"])
def test_every_definite_length_of_a_packet_is_read(header: str) -> None:
    content = body()
    assert envelope(content, header.format(len(content))).created == 0x65000000


@pytest.mark.parametrize("size", [190, 200, 8382])
def test_long_subpackets_and_packets_are_read(size: int) -> None:
    notation = b"\x14" + bytes(size)
    length = len(notation)
    two = length - 192
    prefix = bytes([length]) if two < 0 else bytes([(two >> 8) + 192, two & 255])
    five = b"\xff" + length.to_bytes(4)
    for head in (prefix, five):
        content = body(ISSUER + CREATED + head + notation)
        size = len(content) - 192
        if 0 <= size < 32 * 256:
            new_format = "c2" + bytes([(size >> 8) + 192, size & 255]).hex()
            assert envelope(content, new_format).created == 0x65000000
        assert envelope(content, f"89{len(content):04x}").created == 0x65000000


@pytest.mark.parametrize(
    "content, header, reason",
    [
        (body(), "08{:02x}", "no OpenPGP packet"),
        (body(), "8b", "no OpenPGP packet of a definite length"),
        (body(), "c2e7", "no definite length"),
        (body(), "99{:04x}", "packet of type 6"),
        (body(), "c6{:02x}", "packet of type 6"),
        (body(), "88ff", "truncated"),
        (body(), "8801", "more than one OpenPGP packet"),
        (b"", "8800", "truncated"),
        (body(start="0300160a"), "", "not an OpenPGP signature of version 4"),
        (body(start="0500160a"), "", "not an OpenPGP signature of version 4"),
        (body(start="0401160a"), "", "text mode"),
        (body(start="0410160a"), "", "not a signature of a binary document"),
        (body(start="04001602"), "", "digest is algorithm 2"),
        (body(b""), "", "no hashed version 4 fingerprint"),
        (body(CREATED, ISSUER), "", "no hashed version 4 fingerprint"),
        (body(CREATED + b"\x16\x21\x05" + FINGERPRINT), "", "no hashed version 4 fingerprint"),
        (body(CREATED + b"\x15\x21\x04" + FINGERPRINT[1:]), "", "no hashed version 4"),
        (body(CREATED + b"\x01\x21"), "", "no hashed version 4 fingerprint"),
        (body(ISSUER), "", "no hashed creation time"),
        (body(ISSUER, CREATED), "", "an unhashed subpacket of type 2"),
        (body(ISSUER + b"\x05\x02\0\0\0\0"), "", "no hashed creation time"),
        (body(ISSUER + b"\x04\x02\0\0\0"), "", "malformed subpacket of type 2"),
        (body(ISSUER + CREATED + b"\x02\x03\x01"), "", "malformed subpacket of type 3"),
        (body(ISSUER + CREATED + CREATED), "", "two subpackets of type 2"),
        (body(ISSUER + CREATED + ISSUER), "", "two subpackets of type 33"),
        (body(ISSUER + CREATED + b"\0"), "", "truncated"),
        (body(ISSUER + CREATED + b"\x09\x10"), "", "truncated"),
        (body(ISSUER + CREATED + b"\x02\x20\0"), "", "a subpacket of type 32, not known here"),
        (body(ISSUER + CREATED + b"\x02\xe5\0"), "", "a critical subpacket of type 101"),
        (body(ISSUER + CREATED + b"\x09\x10" + bytes(8)), "", "names two different keys"),
        (body(unhashed=b"\x09\x10" + bytes(8)), "", "names two different keys"),
        (body(unhashed=b"\x16\x21\x04" + bytes(20)), "", "names two different keys"),
        (body(unhashed=b"\x02\x26\0"), "", "an unhashed subpacket of type 38"),
        (body(unhashed=b"\x09\x90" + FINGERPRINT[-8:]), "", "an unhashed subpacket of type 16"),
    ],
)
def test_an_envelope_out_of_the_ordinary_is_refused(
    content: bytes, header: str, reason: str
) -> None:
    with pytest.raises(SignatureError, match=reason):
        envelope(content, header.format(len(content)))


def test_the_unhashed_area_may_name_the_key_again() -> None:
    assert envelope(body(unhashed=KEY_ID + ISSUER)).issuer == FINGERPRINT.hex().upper()


@given(st.binary(max_size=200))
def test_no_packet_makes_the_gate_fail_in_another_way(octets: bytes) -> None:
    with suppress(SignatureError):
        open_envelope(armour(octets or b"\0"))


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_no_area_makes_the_gate_fail_in_another_way(hashed: bytes, unhashed: bytes) -> None:
    for content in (body(hashed, unhashed), body(ISSUER + CREATED + hashed, KEY_ID + unhashed)):
        with suppress(SignatureError):
            assert envelope(content).issuer == FINGERPRINT.hex().upper()


# Keyrings


def test_an_exported_keyring_is_binary(people: People) -> None:
    require_binary_keyring(people.keyring.read_bytes(), people.keyring)


def test_an_armoured_keyring_is_refused_with_the_command_that_makes_it_right(
    people: People,
) -> None:
    path = Path("/etc/countersign/keyring.pgp")
    with pytest.raises(ConfigurationError) as refused:
        require_binary_keyring(people.keys.export([people.ada], armour=True), path)
    assert str(refused.value) == (
        "/etc/countersign/keyring.pgp is armoured; gpgv reads binary public keys: "
        "run `gpg --export FINGERPRINT… > /etc/countersign/keyring.pgp`"
    )


def test_what_is_no_keyring_of_public_keys_is_refused(people: People) -> None:
    secret = people.keys.gpg("--export-secret-keys", people.ada)
    for content in (b"", b"serial = 1", secret, (people.keys.home / "pubring.kbx").read_bytes()):
        with pytest.raises(ConfigurationError, match="no keyring of public keys"):
            require_binary_keyring(content, Path("keyring.pgp"))


def test_a_keyring_that_is_gone_meanwhile_makes_no_revocation_soft(tmp_path: Path) -> None:
    made = Signature("A" * 40, "A" * 40, 0)
    with pytest.raises(SignatureError, match="the key that made the signature is revoked"):
        signatures._require_soft(made, tmp_path / "keyring.pgp")


# A release


@pytest.fixture(scope="module")
def policy(people: People) -> Policy:
    roles = {"Ada": "developer", "Bob": "developer", "Customer": "customer"}
    keys = (people.ada, people.bob, people.customer)
    identities = "".join(
        f'[[identity]]\nname = "{name}"\nrole = "{role}"\nfingerprints = ["{key}"]\n'
        for (name, role), key in zip(roles.items(), keys, strict=True)
    )
    requirements = "[require.QAT]\ndeveloper = 1\n[require.PRD]\ndeveloper = 2\ncustomer = 1\n"
    rotation = "[rotation]\ndeveloper = 2\ncustomer = 1\n"
    return parse_policy(f"serial = 1\n{identities}{requirements}{rotation}".encode())


def head(people: People, *keys: str, manifest: bytes = MANIFEST, signed: bytes = b"") -> Head:
    return Head(manifest, {key: people.keys.sign(signed or manifest, key) for key in keys})


def release_refusal(people: People, policy: Policy, environment: str, head: Head) -> SignatureError:
    with pytest.raises(SignatureError) as refused:
        verify_release(head, policy, environment, people.keyring, now())
    return refused.value


def test_a_release_that_a_developer_signed_may_go_to_qat(people: People, policy: Policy) -> None:
    release = verify_release(head(people, people.ada), policy, "QAT", people.keyring, now())
    assert release.manifest.title == "crm 1.0.0"
    assert [(s.name, s.role, s.fingerprint) for s in release.signers] == [
        ("Ada", "developer", people.ada)
    ]


def test_a_release_that_both_developers_signed_has_the_signatures_for_production(
    people: People, policy: Policy
) -> None:
    signed = head(people, people.bob, people.ada, people.stranger)
    release = verify_release(signed, policy, "PRD", people.keyring, now())
    assert [signer.name for signer in release.signers] == ["Ada", "Bob"]


def test_a_customer_who_signed_a_release_is_named_but_has_not_approved_it(
    people: People, policy: Policy
) -> None:
    signed = head(people, people.customer, people.bob, people.ada)
    release = verify_release(signed, policy, "PRD", people.keyring, now())
    assert [signer.name for signer in release.signers] == ["Ada", "Bob", "Customer"]
    assert policy.requirement("PRD").customers == 1  # an approval is still asked for


def test_a_customers_signature_lets_no_release_into_qat(people: People, policy: Policy) -> None:
    error = release_refusal(people, policy, "QAT", head(people, people.customer))
    assert "QAT requires 1 of role developer, found none" in str(error)


def test_an_unsigned_release_is_refused(people: People, policy: Policy) -> None:
    error = release_refusal(people, policy, "QAT", head(people))
    assert "QAT requires 1 of role developer, found none" in str(error)


def test_a_release_signed_by_a_stranger_is_refused_and_the_key_named(
    people: People, policy: Policy
) -> None:
    error = release_refusal(people, policy, "QAT", head(people, people.stranger))
    assert f"{people.stranger}: a key that this host's keyring does not hold" in error.detail


def test_one_developer_and_the_customer_do_not_reach_production(
    people: People, policy: Policy
) -> None:
    error = release_refusal(people, policy, "PRD", head(people, people.ada, people.customer))
    assert "PRD requires 2 of role developer, found 1 (Ada)" in str(error)


def test_one_signature_under_many_labels_counts_once(people: People, policy: Policy) -> None:
    signature = people.keys.sign(MANIFEST, people.ada)
    copies = {label * 40: signature for label in "123"} | {people.bob: signature}
    error = release_refusal(people, policy, "PRD", Head(MANIFEST, copies))
    assert "found 1 (Ada)" in str(error)


def test_a_broken_signature_refuses_a_release_that_enough_others_signed(
    people: People, policy: Policy
) -> None:
    good = head(people, people.ada)
    foreign = head(people, people.bob, signed=MANIFEST + b" ")
    mixed = Head(MANIFEST, {**good.signatures, **foreign.signatures})
    error = release_refusal(people, policy, "QAT", mixed)
    assert str(error).startswith(f"signatures/{people.bob}.asc: the signature does not match")


def test_a_changed_manifest_is_refused_before_it_is_parsed(people: People, policy: Policy) -> None:
    changed = head(people, people.ada, manifest=b"not even JSON", signed=MANIFEST)
    assert "does not match" in str(release_refusal(people, policy, "QAT", changed))


def test_what_was_signed_but_is_no_manifest_is_refused(people: People, policy: Policy) -> None:
    signed = head(people, people.ada, manifest=b"{}")
    with pytest.raises(MalformedError):
        verify_release(signed, policy, "QAT", people.keyring, now())


def test_an_environment_without_a_requirement_is_refused(people: People, policy: Policy) -> None:
    with pytest.raises(ConfigurationError, match=r"has no \[require.DEV\]"):
        verify_release(head(people, people.ada), policy, "DEV", people.keyring, now())


# The helper that makes the keys


def test_keys_are_gone_when_the_keyring_is_closed() -> None:
    with Keyring.create() as keys:
        keys.new_key("Brief <brief@example.org>")
        home = keys.home
    assert not home.exists()


def test_a_folder_whose_path_is_too_long_for_the_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"use Keyring.create\(\)"):
        Keyring.create(tmp_path / ("x" * 80))


def test_a_short_folder_of_the_callers_is_used(people: People) -> None:
    folder = people.keys.home / "k"
    with Keyring.create(folder) as keys:
        assert keys.home == folder
        assert keys.export([]) == b""
        with pytest.raises(GpgError, match="No secret key"):
            keys.sign(DATA, "A" * 40)
