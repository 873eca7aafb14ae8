"""Signs manifests, and says whose signatures there are: one file for each developer.

python-gnupg lists keys and makes signatures. It never says whether one is good: every signature,
our own included, is verified by the code that hosts run (`installer.signatures`) against a keyring
that holds that one key. Passphrases and tokens are the business of gpg's agent.
"""

import os
import re
import unicodedata
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


def signature_file(signer: Signer) -> str:
    """The file that holds this signer's signature."""
    return f"{MANIFEST}.{signer.fingerprint}.asc"


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
    """Who made the signature in `file` over `data`; the builder's keyring has to know.

    Raises:
        SigningError: it does not fit `data`, its key is unknown here, or hosts would refuse it.
        ToolError: gpg is missing.
    """
    signature = _read(file)
    key = _key_of(signature, data, now, file)
    known = [found for found in _gpg().list_keys(keys=key) if key in _fingerprints(found)]
    if not known:
        raise SigningError(
            f"{file} was made with {key}, which is not in gpg's keyring",
            detail="Import the public key of whoever signed: gpg --import FILE",
        )
    signer = _signer(known[0])
    require_good(signature, data, signer, now, f"{file} does not fit the manifest as built now")
    return signer


def require_good(signature: bytes, data: bytes, signer: Signer, now: int, what: str) -> None:
    """Refuse a `signature` that hosts would not accept as that of `signer`.

    Raises:
        SigningError: it does not verify, or another key made it.
        ToolError: gpg is missing.
    """
    try:
        primary = _verify(signature, data, export_keys((signer,)), now).primary
    except SignatureError as error:
        detail = "If the tags have moved, or other bytes were signed: remove it, and sign again."
        raise SigningError(f"{what}: {error}", detail=detail) from None
    if primary != signer.fingerprint:
        raise SigningError(f"{what}: made by {primary}, not by {signer.title}")


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


def _key_of(signature: bytes, data: bytes, now: int, file: Path) -> str:
    """The fingerprint that the signature claims: it says where to look, and proves nothing."""
    try:
        return _verify(signature, data, b"", now).signing
    except UnknownKeyError as error:
        return error.fingerprint
    except SignatureError as error:
        raise SigningError(f"{file}: hosts would refuse it: {error}") from None


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
