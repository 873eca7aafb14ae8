"""Signs documents, and says whose signatures there are: one file for each signer.

python-gnupg lists keys and makes signatures. It never says whether one is good: every signature,
our own included, is verified by the code that hosts run (`installer.signatures`) against a keyring
that holds that one key. Passphrases and tokens are the business of gpg's agent.
"""

import os
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gnupg

from installer.bundle import MANIFEST
from installer.errors import SignatureError
from installer.signatures import Signature, UnknownKeyError, verify_signature
from packager.errors import SigningError, ToolError

SIGNATURES = f"{MANIFEST}*.asc"
"""What counts as a signature of the manifest beside it; plain gpg writes manifest.json.asc."""

PLAIN = ("--digest-algo", "SHA512", "--no-textmode", "--no-comments", "--no-emit-version")
"""What a detached signature must be, whatever the signer's gpg.conf says."""


@dataclass(frozen=True, slots=True, order=True)
class Signer:
    """Someone who signs: the primary fingerprint, and the first user id of that key."""

    fingerprint: str
    user_id: str

    @property
    def title(self) -> str:
        """User id and fingerprint, as messages name the signer."""
        return f"{self.user_id} {self.fingerprint}"


class UnknownSignerError(SigningError):
    """The builder's keyring does not hold the key that signed: `fingerprint`, as is claimed."""

    def __init__(self, name: str, fingerprint: str) -> None:
        super().__init__(
            f"{name} was made with {fingerprint}, which is not in gpg's keyring",
            detail="Import the public key of whoever signed: gpg --import FILE",
        )
        self.fingerprint = fingerprint


def signature_file(signer: Signer, document: str = MANIFEST) -> str:
    """The file that holds this signer's signature of a `document`, beside it."""
    return f"{document}.{signer.fingerprint}.asc"


def signing_keys() -> tuple[Signer, ...]:
    """The secret keys in the keyring that can sign now.

    Raises:
        ToolError: gpg is missing.
    """
    # An upper-case S: the key as a whole, a subkey perhaps, can sign and has not expired.
    keys = (key for key in _gpg().list_keys(secret=True) if "S" in key["cap"])
    return tuple(sorted(_signer(key) for key in keys))


def choose_key(wanted: str | None) -> Signer:
    """The key to sign with: the only one that `wanted` names, or the only one there is.

    `wanted` is a fingerprint or part of a user id.

    Raises:
        SigningError: no key, or more than one, comes into question; the detail lists them.
        ToolError: gpg is missing.
    """
    keys = signing_keys()
    chosen = [key for key in keys if wanted is None or _names(wanted, key)]
    if len(chosen) == 1:
        return chosen[0]
    meant = "can sign" if wanted is None else f"can sign and is {wanted!r}"
    count = f"{len(chosen)} secret keys" if chosen else "no secret key"
    raise SigningError(f"{count} in gpg's keyring {meant}", detail=_lines(chosen or keys))


def sign(data: bytes, signer: Signer, now: int) -> bytes:
    """An armoured detached signature over `data`; `now` is in seconds since 1970.

    Raises:
        SigningError: gpg made none, or one that hosts would not accept.
        ToolError: gpg is missing.
    """
    made = _gpg().sign(data, keyid=signer.fingerprint, detach=True, extra_args=list(PLAIN))
    if not made.data:
        words = _words(made)
        raise SigningError(f"gpg made no signature with the key of {signer.title}", detail=words)
    signature = bytes(made.data)
    require_good(signature, data, signer, now, "the signature just made")
    return signature


def identify(file: Path, data: bytes, now: int) -> Signer:
    """Who made the signature in `file` over the manifest `data`; gpg's keyring has to know.

    Raises:
        SigningError: it does not fit `data`, its key is unknown here, or hosts would refuse it.
        ToolError: gpg is missing.
    """
    signer, _ = recognise(_read(file), data, now, str(file), "the manifest as built now")
    return signer


def recognise(
    signature: bytes, data: bytes, now: int, name: str, document: str
) -> tuple[Signer, Signature]:
    """Who made `signature` over `data`, and the signature as verified.

    Messages call the signature `name`, and what was signed `document`.

    Raises:
        UnknownSignerError: gpg's keyring does not hold the key.
        SigningError: it does not fit `data`, or hosts would refuse it.
        ToolError: gpg is missing.
    """
    key = _key_of(signature, data, now, name)
    known = [found for found in _gpg().list_keys(keys=key) if key in _fingerprints(found)]
    if not known:
        raise UnknownSignerError(name, key)
    signer = _signer(known[0])
    return signer, require_good(signature, data, signer, now, f"{name} does not fit {document}")


class Signers:
    """Says who signed many documents, asking gpg about each key once; see `recognise`."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._known: dict[str, Signer] = {}
        self._keys = b""

    def of(self, signature: bytes, data: bytes, name: str, document: str) -> Signer:
        """Who made `signature` over `data`; messages call them `name` and `document`.

        Raises:
            SigningError: gpg's keyring does not hold the key, it does not fit `data`, or hosts
                would refuse it.
            ToolError: gpg is missing.
        """
        with suppress(SignatureError):
            return self._known[_verify(signature, data, self._keys, self._now).primary]
        # By a key not seen yet, or bad: then this says why.
        signer, _ = recognise(signature, data, self._now, name, document)
        self._known[signer.fingerprint] = signer
        self._keys += export_keys((signer,))
        return signer


def require_good(signature: bytes, data: bytes, signer: Signer, now: int, what: str) -> Signature:
    """The `signature` as verified, if hosts would accept it as that of `signer`.

    Raises:
        SigningError: it does not verify, or another key made it.
        ToolError: gpg is missing.
    """
    try:
        verified = _verify(signature, data, export_keys((signer,)), now)
    except SignatureError as error:
        detail = "If the tags have moved, or other bytes were signed: remove it, and sign again."
        raise SigningError(f"{what}: {error}", detail=detail) from None
    if verified.primary != signer.fingerprint:
        raise SigningError(f"{what}: made by {verified.primary}, not by {signer.title}")
    return verified


def export_keys(signers: tuple[Signer, ...]) -> bytes:
    """The public keys of `signers`, in the binary form that gpgv reads.

    Raises:
        SigningError: gpg has none of them.
        ToolError: gpg is missing.
    """
    names = [signer.fingerprint for signer in signers]
    exported: bytes = _gpg().export_keys(names, armor=False, minimal=True)
    if not exported:
        raise SigningError(f"gpg exports no public key of {', '.join(names)}")
    return exported


def _gpg() -> gnupg.GPG:
    try:
        # gpg's words are shown to people and its listings are parsed: both in one known charset.
        gpg = gnupg.GPG(env={**os.environ, "LC_ALL": "C.UTF-8"})
    except OSError as error:
        raise ToolError(f"gpg: {error}") from None
    gpg.encoding = "utf-8"
    return gpg


def _signer(key: dict[str, Any]) -> Signer:
    text = key["uids"][0] if key["uids"] else "no user id"
    # A user id is whatever the key's owner wrote; it goes into terminals and package headers.
    line = "".join(c if unicodedata.category(c)[0] != "C" else "?" for c in text)
    return Signer(key["fingerprint"], line)


def _names(wanted: str, key: Signer) -> bool:
    fingerprint = re.sub(r"\s|^0x", "", wanted).upper()
    return fingerprint == key.fingerprint or wanted.casefold() in key.user_id.casefold()


def _key_of(signature: bytes, data: bytes, now: int, name: str) -> str:
    """The fingerprint that the signature claims: it says where to look, and proves nothing."""
    try:
        return _verify(signature, data, b"", now).signing
    except UnknownKeyError as error:
        return error.fingerprint
    except SignatureError as error:
        raise SigningError(f"{name}: hosts would refuse it: {error}") from None


def _verify(signature: bytes, data: bytes, keys: bytes, now: int) -> Signature:
    with TemporaryDirectory(prefix="countersign-keys-") as folder:
        keyring = Path(folder) / "keys.pgp"
        keyring.write_bytes(keys)
        return verify_signature(signature, data, keyring, now)


def _fingerprints(key: dict[str, Any]) -> list[str]:
    return [key["fingerprint"], *(subkey[2] for subkey in key["subkeys"])]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SigningError(f"{file}: {error.strerror}") from None


def _words(made: Any) -> str:  # noqa: ANN401 - python-gnupg has no types
    lines = str(made.stderr).splitlines()
    return "\n".join(line for line in lines if not line.startswith("[GNUPG:]"))


def _lines(keys: "tuple[Signer, ...] | list[Signer]") -> str:
    return "\n".join(f"  {key.title}" for key in keys)
