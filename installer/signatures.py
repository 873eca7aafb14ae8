"""Verifies who signed, before anything of a release is parsed.

gpg's exit code proves nothing: it is 0 for expired and revoked keys. A signature verifies if

- its envelope passes `installer.openpgp`;
- gpgv, run with this host's keyring and nothing else, ends with 0, and what it says on a status
  pipe of its own is exactly one NEWSIG, GOODSIG and VALIDSIG, beside lines that do not matter;
- envelope and gpgv name the same key and the same time;
- it has not expired, and was not made in the future (beyond a clock's error).

Everything else, a gpgv that is missing, hangs, dies or stops in mid-sentence included, is refused.

A release may carry signatures by keys that this host does not hold: they are for other hosts, and
do not count. One that is broken in any other way refuses the release: someone changed something.

A revoked key verifies nothing. Where its owner revoked it for a soft reason only, and after it made
the signature (`installer.revocation`), the refusal says so: it gives way to a policy that calls the
owner retired, for what was signed in the owner's time (`verify_for`).
"""

import os
import select
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from installer.bundle import Head
from installer.errors import ConfigurationError, SignatureError
from installer.manifest import Manifest, parse_manifest
from installer.openpgp import DIGESTS, FINGERPRINT, Envelope, Signature, open_envelope
from installer.policy import Policy, Signer, authorise
from installer.revocation import soft_revocation

__all__ = [
    "RevokedKeyError",
    "Signature",
    "UnknownKeyError",
    "VerifiedRelease",
    "require_binary_keyring",
    "verify_for",
    "verify_release",
    "verify_signature",
]

GPGV = "/usr/bin/gpgv"
TIMEOUT = 60
"""Seconds that gpgv may take to read what the pipe holds, and in the end to answer."""

CLOCK_ERROR = 300
"""Seconds by which the signer's clock may be ahead of this host's."""

_PREFIX = "[GNUPG:] "
_ONCE = {"NEWSIG": 1, "GOODSIG": 1, "VALIDSIG": 1}
_REVOKED = {"NEWSIG": 1, "REVKEYSIG": 1, "VALIDSIG": 1}
# KEYEXPIRED is said of any subkey of the signer's that has expired, even one that only encrypts.
# For a key that signed after it expired, EXPKEYSIG takes the place of GOODSIG.
_NO_MATTER = {
    "KEYEXPIRED",
    "KEY_CONSIDERED",
    "NOTATION_DATA",
    "NOTATION_FLAGS",
    "NOTATION_NAME",
    "SIG_ID",
    "VERIFICATION_COMPLIANCE_MODE",
}
_UNKNOWN_KEY = {"NEWSIG": 1, "ERRSIG": 1, "NO_PUBKEY": 1}
_CAUSES = {
    "ERROR": "gpgv failed; can it read the keyring?",
    "BADSIG": "the signature does not match: what was signed, or the signature, was changed",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key that made the signature has expired",
    "REVKEYSIG": "the key that made the signature is revoked",
    "ERRSIG": "the signature cannot be verified with the key that made it",
}
_VALIDSIG_FIELDS = 10
_PUBLIC_KEY = {b"\x98", b"\x99", b"\x9a", b"\xc6"}
"""First octet of a public key's packet, in the old format and the new (RFC 4880 4.2)."""


class UnknownKeyError(SignatureError):
    """The keyring does not hold the key that signed; `fingerprint` is what the signature names."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(
            f"the keyring does not hold the key that made the signature, {fingerprint}"
        )
        self.fingerprint = fingerprint


class RevokedKeyError(SignatureError):
    """The key is softly revoked, after it made a signature that is good in all other ways.

    `signature` is what it would be; whether it counts is for the policy to say.
    """

    def __init__(self, signature: Signature) -> None:
        super().__init__(
            f"{_CAUSES['REVKEYSIG']} (softly: superseded or retired). What it signed before counts "
            'only if the policy says status = "retired" of whom it belongs to, up to not_after'
        )
        self.signature = signature


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that enough of the right people signed. Only `verify_release` makes one."""

    manifest: Manifest
    signers: tuple[Signer, ...]


def verify_release(
    head: Head, policy: Policy, environment: str, keyring: Path, now: int
) -> VerifiedRelease:
    """The release of `head`, whose signatures reach what `policy` requires in `environment`.

    `now` is in seconds since 1970. The manifest is parsed last.

    Raises:
        ConfigurationError: the policy says nothing about `environment`.
        SignatureError: a signature is broken, or too few count.
        MalformedError: what was signed is not a manifest.
    """
    verified: list[Signature] = []
    unknown: list[str] = []
    for label, signature in head.signatures.items():
        try:
            verified.append(verify_for(policy, signature, head.manifest, keyring, now))
        except UnknownKeyError as error:
            unknown.append(error.fingerprint)
        except SignatureError as error:
            raise SignatureError(f"signatures/{label}.asc: {error}") from error
    signers = authorise(policy, environment, verified, unknown)
    return VerifiedRelease(parse_manifest(head.manifest), signers)


def verify_for(
    policy: Policy, signature: bytes, data: bytes | Iterable[bytes], keyring: Path, now: int
) -> Signature:
    """Verify a signature, and let `policy` forgive that its key was softly revoked afterwards.

    Raises:
        UnknownKeyError, SignatureError: as `verify_signature` does.
    """
    try:
        return verify_signature(signature, data, keyring, now)
    except RevokedKeyError as error:
        if policy.forgives(error.signature):
            return error.signature
        raise


def verify_signature(
    signature: bytes, data: bytes | Iterable[bytes], keyring: Path, now: int
) -> Signature:
    """Who made `signature`, an armoured detached one, of `data`, and when.

    `data` may come in pieces; no more than one is held. What they raise while they are made is
    raised here. `keyring` holds binary public keys (`require_binary_keyring`); `now` is in seconds
    since 1970.

    Raises:
        UnknownKeyError: `keyring` does not hold the key.
        RevokedKeyError: but for a soft revocation of its key, the signature verifies.
        SignatureError: the signature does not verify, or could not be verified.
    """
    envelope = open_envelope(signature)
    pieces = (data,) if isinstance(data, bytes) else data
    code, status = _gpgv(envelope.packet, pieces, keyring)
    try:
        verified = _conclude(code, status, envelope)
    except RevokedKeyError as error:
        _require_soft(error.signature, keyring)
        _require_in_time(envelope, now)
        raise
    _require_in_time(envelope, now)
    return verified


def require_binary_keyring(content: bytes, path: Path) -> None:
    """Refuse a keyring that gpgv would find no key in; `content` is what the file `path` holds.

    Raises:
        ConfigurationError: it is armoured, empty, or does not begin with a public key.
    """
    if content[:1] not in _PUBLIC_KEY:
        kind = "armoured" if content.startswith(b"-----BEGIN PGP") else "no keyring of public keys"
        raise ConfigurationError(
            f"{path} is {kind}; gpgv reads binary public keys: "
            f"run `gpg --export FINGERPRINT… > {path}`"
        )


def _gpgv(packet: bytes, document: Iterable[bytes], keyring: Path) -> tuple[int, bytes]:
    """Run gpgv: its exit code, and what it said on the status pipe.

    The document goes through a pipe, too: a script of 1 GiB takes no memory. The status pipe is
    read when gpgv has ended. It holds 64 KiB, a hundred times what one signature makes: a gpgv
    that says more blocks, and is killed when its time is over.
    """
    with (
        _in_memory(packet) as signature,
        _pipe() as (status, says),
        _pipe() as (takes, gives),
    ):
        command = [
            GPGV,
            *("--homedir", "/nonexistent"),
            "--enable-special-filenames",
            *("--weak-digest", "SHA1"),
            *("--status-fd", str(says.fileno())),
            *("--keyring", str(keyring.absolute())),
            *("--", f"-&{signature}", f"-&{takes.fileno()}"),
        ]
        with _started(command, (signature, takes.fileno(), says.fileno())) as gpgv:
            takes.close()  # or nobody would learn that gpgv reads no more
            says.close()
            _feed(gives, document)
            code = _code(gpgv)
        return code, status.read()


@contextmanager
def _started(command: list[str], passed: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """`command`, with nothing of this process but the descriptors `passed`.

    It has ended when the block has, however that ends.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  gpgv by its path; no argument is a package's
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C", "PATH": "/usr/bin"},
            cwd="/",
            pass_fds=passed,
        )
    except OSError as error:
        raise _unable(error.strerror or "") from None
    try:
        yield process
    finally:
        process.kill()  # nothing happens to one that has ended
        process.wait()


def _feed(gives: BinaryIO, document: Iterable[bytes]) -> None:
    """Give gpgv the whole document, unless it stops reading: then what it says decides."""
    os.set_blocking(gives.fileno(), False)
    room = select.poll()
    room.register(gives, select.POLLOUT)
    with gives:
        for piece in document:
            rest = memoryview(piece)
            while rest:
                if not room.poll(TIMEOUT * 1000):
                    raise _unable(f"did not read on within {TIMEOUT} s")
                try:
                    rest = rest[os.write(gives.fileno(), rest) :]
                except BrokenPipeError:
                    return


def _code(gpgv: subprocess.Popen[bytes]) -> int:
    """The exit code of a gpgv that has the whole document."""
    try:
        return gpgv.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _unable(f"did not end within {TIMEOUT} s") from None


def _unable(reason: str) -> SignatureError:
    return SignatureError(f"the signature cannot be verified: {GPGV}: {reason}")


@contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The two ends of a pipe, to read from and to write to; both are closed in the end."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb", 0) as output, os.fdopen(writes, "wb", 0) as entry:
        yield output, entry


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """A descriptor of a file without a name: nobody can exchange what is in it."""
    with os.fdopen(os.memfd_create("countersign"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _conclude(code: int, status: bytes, envelope: Envelope) -> Signature:
    """What gpgv's exit code and status amount to.

    Raises:
        RevokedKeyError: but for a revocation of its key, soft or not, the signature verifies.
    """
    lines = _status_lines(status)
    said = Counter(keyword for keyword, _ in lines)
    if said == _UNKNOWN_KEY:
        raise UnknownKeyError(envelope.issuer)
    matters = {keyword: count for keyword, count in said.items() if keyword not in _NO_MATTER}
    if matters == _REVOKED and not code:
        raise RevokedKeyError(_signature(dict(lines)["VALIDSIG"], envelope))
    for keyword, cause in _CAUSES.items():
        if keyword in said:
            raise SignatureError(cause)
    if code or matters != _ONCE:
        raise SignatureError(
            f"gpgv does not vouch for the signature (exit code {code}, said {' '.join(said)})"
        )
    return _signature(dict(lines)["VALIDSIG"], envelope)


def _status_lines(status: bytes) -> list[tuple[str, str]]:
    """Keyword and arguments of each line."""
    lines = status.decode("utf-8", "replace").split("\n")
    if lines.pop() or not all(line.startswith(_PREFIX) for line in lines):
        raise SignatureError("gpgv's answer is cut off, or not its own")
    parts = (line.removeprefix(_PREFIX).partition(" ") for line in lines)
    return [(keyword, arguments) for keyword, _, arguments in parts]


def _signature(arguments: str, envelope: Envelope) -> Signature:
    """The signature that VALIDSIG's ten arguments describe (GnuPG, doc/DETAILS)."""
    fields = arguments.split(" ")
    if len(fields) != _VALIDSIG_FIELDS:
        raise SignatureError("gpgv's answer is cut off, or not its own")
    signing, created, digest, kind, primary = (fields[i] for i in (0, 2, 7, 8, 9))
    claimed = (envelope.issuer, str(envelope.created), "00")
    accepted = digest in {str(number) for number in DIGESTS}
    if (signing, created, kind) != claimed or not accepted or not FINGERPRINT.fullmatch(primary):
        raise SignatureError("gpgv and the signature's envelope disagree about who signed what")
    return Signature(primary, signing, envelope.created)


def _require_soft(signature: Signature, keyring: Path) -> None:
    """Refuse a revoked key's signature, unless it is older than a revocation that is soft."""
    try:
        since = soft_revocation(keyring.read_bytes(), signature.primary)
    except OSError:
        since = None
    if since is None or signature.created >= since:
        raise SignatureError(_CAUSES["REVKEYSIG"]) from None


def _require_in_time(envelope: Envelope, now: int) -> None:
    if envelope.created > now + CLOCK_ERROR:
        raise SignatureError("the signature was made in the future, by this host's clock")
    if envelope.expires is not None and envelope.expires <= now:
        raise SignatureError(_CAUSES["EXPSIG"])
