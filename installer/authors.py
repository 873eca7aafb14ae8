"""Who wrote the scripts that are about to run: each is signed by someone whom the policy names.

An environment with `signed_scripts = true` asks for this. The rules:

- Every script has its author's signature, verified by `installer.signatures` over the bytes that
  run: the digest of what is read here is checked, as it is when they run.
- The key that the manifest names is the key that signed.
- It belongs to an identity of role `author` or `developer`, and the signature counts: the identity
  is not revoked, and signed in its time. What holds for a revoked key holds here, too.

One script without that refuses the release, and all such scripts are named. Writes nothing.
"""

from collections.abc import Iterable
from pathlib import Path

from installer.bundle import ContentReader
from installer.errors import SignatureError
from installer.manifest import Author, Script
from installer.openpgp import Signature
from installer.policy import Policy
from installer.signatures import verify_for

ROLES = ("author", "developer")
"""The roles whose identities may write scripts."""


def require_authors(
    policy: Policy, scripts: Iterable[Script], content: ContentReader, keyring: Path, now: int
) -> None:
    """Refuse `scripts` unless each is signed by one of the policy's authors.

    Give them in the manifest's order, so that `content` is decompressed once; no more than a piece
    of a script is held. `now` is in seconds since 1970.

    Raises:
        SignatureError: a script is not so signed; `detail` lists all of them where it is several.
        DigestError: a script is not what the developers signed.
    """
    refused = [
        f"{script.name}: {reason}"
        for script in scripts
        if (reason := _refusal(policy, script, content, keyring, now))
    ]
    if len(refused) == 1:
        raise SignatureError(refused[0])
    if refused:
        raise SignatureError(
            f"{len(refused)} scripts are not signed as signed_scripts requires",
            detail="\n".join(refused),
        )


def _refusal(
    policy: Policy, script: Script, content: ContentReader, keyring: Path, now: int
) -> str:
    """Why `script` may not run; empty if it may."""
    if script.author is None:
        return "no author has signed it"
    armour = script.author.signature.encode("ascii")
    try:
        signature = verify_for(policy, armour, content.pieces(script), keyring, now)
    except SignatureError as error:
        return f"its author's signature: {error}"
    return objection(policy, script.author, signature)


def objection(policy: Policy, author: Author, signature: Signature) -> str:
    """Why a signature that verified does not make its signer an author; empty if it does.

    `author` is whom the manifest names.
    """
    key = signature.primary
    if key != author.fingerprint:
        return f"signed by {key}, while the manifest names {author.fingerprint}"
    for identity in policy.identities:
        if key in identity.fingerprints:
            if identity.role not in ROLES:
                return f"{identity.name} ({identity.role}) has no role of {', '.join(ROLES)}"
            return identity.objection(signature)
    return f"signed by {key}, a key of no one that the policy names"
