import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.errors import SigningError, ToolError
from packager.signing import Signer, choose_key, identify, sign, signature_file, signing_keys
from tests.keys import Keyring

pytestmark = pytest.mark.integration

MANIFEST = b'{"type": "countersign-manifest"}\n'
OTHER = b'{"type": "countersign-manifest" }\n'
ADA = "Ada Developer <ada@example.org>"
BOB = "Bob Ünicode <bob@example.org>"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    with Keyring.create() as keyring:
        monkeypatch.setenv("GNUPGHOME", str(keyring.home))
        yield keyring


def now() -> int:
    return int(time.time())


def identified(signature: bytes, folder: Path, data: bytes = MANIFEST) -> Signer:
    file = folder / "manifest.json.asc"
    file.write_bytes(signature)
    return identify(file, data, now())


def refusal(signature: bytes, folder: Path, data: bytes = MANIFEST) -> str:
    with pytest.raises(SigningError) as refused:
        identified(signature, folder, data)
    return f"{refused.value}\n{refused.value.detail}"


def test_a_signature_is_of_the_key_that_was_chosen(keys: Keyring, tmp_path: Path) -> None:
    keys.new_key(ADA)
    bob = Signer(keys.new_key(BOB), BOB)

    signature = sign(MANIFEST, bob, now())

    assert identified(signature, tmp_path) == bob
    assert signature_file(bob) == f"manifest.json.{bob.fingerprint}.asc"


@pytest.mark.parametrize("algorithm", ["rsa2048", "nistp384"])
def test_any_key_that_gpg_makes_signs_what_hosts_accept(
    keys: Keyring, tmp_path: Path, algorithm: str
) -> None:
    ada = Signer(keys.new_key(ADA, algorithm=algorithm), ADA)

    assert identified(sign(MANIFEST, ada, now()), tmp_path) == ada


def test_what_plain_gpg_signs_counts_as_well(keys: Keyring, tmp_path: Path) -> None:
    ada = keys.new_key(ADA)

    assert identified(keys.sign(MANIFEST, ada), tmp_path) == Signer(ada, ADA)


def test_a_subkey_signs_in_the_name_of_its_primary_key(keys: Keyring, tmp_path: Path) -> None:
    ada = keys.new_key(ADA)
    subkey = keys.add_subkey(ada)

    assert identified(keys.sign(MANIFEST, subkey), tmp_path).fingerprint == ada
    assert identified(sign(MANIFEST, Signer(ada, ADA), now()), tmp_path).fingerprint == ada


def test_a_strange_gpg_conf_does_not_spoil_the_signature(keys: Keyring, tmp_path: Path) -> None:
    ada = Signer(keys.new_key(ADA), ADA)
    conf = "textmode\ndigest-algo SHA1\ncomment nothing\nemit-version\nno-greeting\n"
    (keys.home / "gpg.conf").write_text(conf)

    assert identified(sign(MANIFEST, ada, now()), tmp_path) == ada


def test_the_only_key_needs_no_choice(keys: Keyring) -> None:
    ada = keys.new_key(ADA)

    assert choose_key(None) == Signer(ada, ADA)


def test_a_key_is_chosen_by_fingerprint_or_user_id(keys: Keyring) -> None:
    ada, bob = Signer(keys.new_key(ADA), ADA), Signer(keys.new_key(BOB), BOB)
    spaced = " ".join(bob.fingerprint[i : i + 4] for i in range(0, 40, 4)).lower()

    assert choose_key("ada@example.org") == ada
    assert choose_key("ünicode") == bob
    assert choose_key(f"0x{bob.fingerprint}") == choose_key(spaced) == bob
    assert signing_keys() == tuple(sorted([ada, bob]))


@pytest.mark.parametrize("wanted", [None, "example.org"])
def test_of_several_keys_none_is_guessed(keys: Keyring, wanted: str | None) -> None:
    ada, bob = keys.new_key(ADA), keys.new_key(BOB)

    with pytest.raises(SigningError, match="2 secret keys") as refused:
        choose_key(wanted)

    assert ada in refused.value.detail
    assert bob in refused.value.detail


@pytest.mark.parametrize("wanted", [None, "nobody"])
def test_without_a_key_that_can_sign_there_is_an_error(keys: Keyring, wanted: str | None) -> None:
    revoked = keys.new_key(ADA)
    keys.revoke(revoked)
    keys.new_key("Old <old@example.org>", created="20200101T000000", expires="1y")

    with pytest.raises(SigningError, match="no secret key"):
        choose_key(wanted)


def test_a_short_key_id_chooses_nothing(keys: Keyring) -> None:
    ada = keys.new_key(ADA)

    with pytest.raises(SigningError):
        choose_key(ada[-16:])


def test_a_signature_of_other_bytes_is_refused(keys: Keyring, tmp_path: Path) -> None:
    ada = keys.new_key(ADA)

    words = refusal(keys.sign(OTHER, ada), tmp_path)

    assert "manifest.json.asc does not fit the manifest" in words
    assert "tags have moved" in words


@pytest.mark.usefixtures("keys")
def test_a_signature_by_an_unknown_key_says_which(tmp_path: Path) -> None:
    with Keyring.create() as elsewhere:
        eve = elsewhere.new_key("Eve <eve@example.org>")
        words = refusal(elsewhere.sign(MANIFEST, eve), tmp_path)

    assert eve in words
    assert "gpg --import" in words


def test_what_hosts_would_refuse_is_refused_now(keys: Keyring, tmp_path: Path) -> None:
    ada = keys.new_key(ADA, created="20200101T000000", expires="1y")
    old = keys.sign(MANIFEST, ada, created="20200301T000000")

    assert "expired" in refusal(old, tmp_path)
    assert "hosts would refuse" in refusal(b"no signature at all\n", tmp_path)


@pytest.mark.parametrize("option", ["--textmode", "--digest-algo=SHA1", "--clear-sign"])
def test_a_signature_of_another_kind_is_refused(keys: Keyring, tmp_path: Path, option: str) -> None:
    ada = keys.new_key(ADA)
    signature = (
        keys.gpg("--armor", "--clear-sign", "--local-user", ada, data=MANIFEST)
        if option == "--clear-sign"
        else keys.sign(MANIFEST, ada, option)
    )

    assert "hosts would refuse it" in refusal(signature, tmp_path)


@pytest.mark.usefixtures("keys")
def test_without_the_secret_key_gpg_says_why_it_does_not_sign() -> None:
    with pytest.raises(SigningError, match="gpg made no signature") as refused:
        sign(MANIFEST, Signer("0" * 40, "Nobody"), now())

    assert "gpg:" in refused.value.detail
    assert "[GNUPG:]" not in refused.value.detail


def test_a_missing_gpg_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolError, match="gpg"):
        choose_key(None)


def test_a_user_id_cannot_steer_the_terminal(keys: Keyring) -> None:
    ada = keys.new_key("Ada \x1b[31m <ada@example.org>")

    assert choose_key(ada).user_id.isprintable()
