"""Since when a revoked key is only out of use, and not in doubt (RFC 4880 5.2.3.23).

gpgv says that a key is revoked, and not why. Its owner says so in the revocation. The rules:

- Soft are the reasons 1 (superseded) and 3 (retired): nobody else has the key. All others are hard:
  none, compromised, a user id that is not valid any more, and each that is not known here.
- A key is softly revoked if it revokes itself, and if each revocation in its keyring's block is
  soft, made by the key itself, and as strictly formed as a signature of a document has to be
  (`installer.openpgp`), its reason under its own hash. The earliest counts.
- One hard revocation outweighs all soft ones. So does any doubt: a subkey that is revoked, a
  revocation by somebody else, one that ends, one of another version, two copies of the key that
  differ about it, a packet that no exported key has, or a keyring that cannot be read to its end.

Verifies nothing and opens no files: gpgv has verified that the key is revoked, and the keyring is
the host's own. Whoever could add a soft revocation to it would only make the time end earlier.
"""

import hashlib

from installer.errors import SignatureError
from installer.openpgp import (
    SIGNATURE_PACKET,
    VERSION,
    Parts,
    packets,
    read_claims,
    signature_parts,
)

_PUBLIC_KEY = 6
_EXPORTED = {SIGNATURE_PACKET, _PUBLIC_KEY, 12, 13, 14, 17}
"""Packets of a keyring; the others: trust, user id, subkey, user attribute (RFC 4880 4.3)."""
_LONGEST_KEY = 0xFFFF
"""Bytes; a fingerprint is made with a length of two."""

_KEY_REVOCATION = 0x20
_SUBKEY_REVOCATION = 0x28
_REASON = 29
_SUPERSEDED, _RETIRED = b"\x01", b"\x03"
_SOFT = {_SUPERSEDED, _RETIRED}


def soft_revocation(keyring: bytes, primary: str) -> int | None:
    """Since when the key with the fingerprint `primary` is softly revoked, in seconds since 1970.

    None if it is not: it is not revoked, or hard, or there is any doubt. `keyring` holds binary
    public keys.
    """
    try:
        found = {_since(block, primary) for block in _blocks(keyring, primary)}
    except SignatureError:
        return None
    return found.pop() if len(found) == 1 else None


def _blocks(keyring: bytes, primary: str) -> list[list[bytes]]:
    """The bodies of the signatures in each of the key's blocks, of which there should be one."""
    blocks: list[list[bytes]] = []
    is_wanted = False
    for tag, body in packets(keyring):
        if tag not in _EXPORTED:
            raise SignatureError(f"an OpenPGP packet of type {tag} is in the keyring")
        if tag == _PUBLIC_KEY:
            is_wanted = _fingerprint(body) == primary
            if is_wanted:
                blocks.append([])
        elif tag == SIGNATURE_PACKET and is_wanted:
            blocks[-1].append(body)
    return blocks


def _fingerprint(key: bytes) -> str:
    """The fingerprint of a version 4 key (RFC 4880 12.2); empty for any other."""
    if key[:1] != bytes([VERSION]) or len(key) > _LONGEST_KEY:
        return ""
    hashed = b"\x99" + len(key).to_bytes(2) + key
    return hashlib.sha1(hashed, usedforsecurity=False).hexdigest().upper()


def _since(block: list[bytes], primary: str) -> int | None:
    """The time of the earliest revocation in a key's block, if there is one and all are soft."""
    signatures = [signature_parts(body) for body in block]
    if any(signature.kind == _SUBKEY_REVOCATION for signature in signatures):
        return None
    revocations = [signature for signature in signatures if signature.kind == _KEY_REVOCATION]
    soft = [at for revocation in revocations if (at := _soft(revocation, primary)) is not None]
    return min(soft) if soft and len(soft) == len(revocations) else None


def _soft(revocation: Parts, primary: str) -> int | None:
    """When a revocation was made, if the key itself made it for a soft reason, for good."""
    claims = read_claims(revocation, frozenset({_REASON}))
    reason = claims.hashed.get(_REASON, b"")[:1]  # words may follow
    if reason not in _SOFT or claims.issuer != primary or claims.lifetime:
        return None
    return claims.created
