"""Whether a policy takes the place of the one that this host has accepted (decision 0012).

A host remembers the bytes of the policy that it accepted. The rules:

- The same bytes are the accepted policy. Nothing else is looked at.
- The first policy that a host sees is accepted as it is, by root.
- Other bytes are accepted if their serial is higher and if enough have signed them: those whom the
  *accepted* policy names, in their time, as many as its `[rotation]` requires. What the new policy
  says of its own signers does not matter.
- Signatures by keys that the keyring does not hold do not count. One that is broken in any other
  way refuses the policy, however many others are good: someone changed something. A key that was
  softly revoked afterwards is forgiven to those whom the accepted policy calls retired.

Everything else is refused, and the accepted policy stays remembered. Reading, deciding and
remembering are one step among processes, and the memory is replaced in one: whatever is cut short,
the next run decides anew from the same files.

Only root remembers. Any other user may read releases by a policy that this host has accepted, or
would accept; where the memory is missing or hidden from them, nobody could tell, and it is refused.
"""

import fcntl
import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer.durable import sync_folder, write_file
from installer.errors import ConfigurationError, SignatureError
from installer.policy import Policy, Signer, parse_policy, require_signers
from installer.signatures import Signature, UnknownKeyError, verify_for
from installer.trusted_files import read_trusted

Reader = Callable[[Path], bytes]

NAME = "policy.toml"
_LOCK = "policy.lock"


class NotAcceptedError(ConfigurationError):
    """The policy may not take the place of the one that was accepted before."""

    hint = (
        "Have the policy signed by those whom the accepted one names, and put each signature "
        "beside it: `gpg --armor --detach-sign policy.toml`. Until then put the accepted policy "
        "back; a host keeps it as /var/lib/countersign/policy.toml."
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy as it lies in `file`, and the signatures beside it by the names of their files."""

    file: Path
    content: bytes
    signatures: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Ruling:
    """The policy to go by. `is_new`: it is still to be remembered; `signers` have changed it."""

    policy: Policy
    is_new: bool
    signers: tuple[Signer, ...] = ()


def load_policy(
    configuration: Path, state: Path, now: int, *, remember: bool, read: Reader = read_trusted
) -> Policy:
    """The policy in the folder `configuration`, if it is, or follows, the one kept in `state`.

    One that follows is then kept, where the caller, being root, may `remember` it. `now` is in
    seconds since 1970. `read` is how files are read; only tests say another way.

    Raises:
        ConfigurationError: it is malformed or not accepted, or cannot be read or remembered.
    """
    file, memory, keyring = configuration / NAME, state / NAME, configuration / "keyring.pgp"
    content = read(file)
    accepted = _recall(memory, read)
    if content == accepted:
        return parse_policy(content)
    if not remember:
        _require_accepted(accepted, memory)
        return judge(accepted, read_candidate(file, read), keyring, now).policy
    with _alone(state, read):
        candidate = read_candidate(file, read)
        ruling = judge(_recall(memory, read), candidate, keyring, now)
        if ruling.is_new:
            _remember(candidate.content, memory)
    return ruling.policy


def read_candidate(file: Path, read: Reader) -> Candidate:
    """The policy in `file` with the signatures beside it: `policy.toml*.asc`.

    Raises:
        ConfigurationError: `read` refuses one of the files.
    """
    beside = sorted(file.parent.glob(f"{glob.escape(file.name)}*.asc"))
    return Candidate(file, read(file), {signature.name: read(signature) for signature in beside})


def judge(accepted: bytes | None, candidate: Candidate, keyring: Path, now: int) -> Ruling:
    """Whether `candidate` may take the place of `accepted`; None where there was none before.

    `keyring` holds binary public keys; `now` is in seconds since 1970.

    Raises:
        NotAcceptedError: it may not.
        ConfigurationError: one of the two is no policy.
    """
    policy = parse_policy(candidate.content)
    if accepted is None:
        return Ruling(policy, is_new=True)
    if accepted == candidate.content:
        return Ruling(policy, is_new=False)
    before = _parse_accepted(accepted)
    _require_higher_serial(before, policy, candidate.file)
    verified, unknown = _verify(before, candidate, keyring, now)
    signers = _require_enough(before, candidate.file, verified, unknown)
    return Ruling(policy, is_new=True, signers=signers)


def _parse_accepted(accepted: bytes) -> Policy:
    try:
        return parse_policy(accepted)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the policy that was accepted before cannot be read any more: {error}",
            detail="Compare it with what this version of the installer expects. A host keeps it as "
            "/var/lib/countersign/policy.toml; without it, the host starts over.",
        ) from None


def _require_higher_serial(before: Policy, policy: Policy, file: Path) -> None:
    if policy.serial == before.serial:
        raise NotAcceptedError(
            f"{file} has serial {policy.serial} like the accepted policy, but other content; "
            "each change has a serial of its own: raise it, then have the file signed"
        )
    if policy.serial < before.serial:
        raise NotAcceptedError(
            f"{file} has serial {policy.serial}, and serial {before.serial} was accepted already; "
            "there is no way back: change the newest policy, and have that signed"
        )


def _verify(
    before: Policy, candidate: Candidate, keyring: Path, now: int
) -> tuple[list[Signature], list[str]]:
    """The signatures that verify, and the fingerprints of keys that the keyring does not hold."""
    verified: list[Signature] = []
    unknown: list[str] = []
    for name, signature in candidate.signatures.items():
        try:
            verified.append(verify_for(before, signature, candidate.content, keyring, now))
        except UnknownKeyError as error:
            unknown.append(error.fingerprint)
        except SignatureError as error:
            raise NotAcceptedError(
                f"{candidate.file.with_name(name)}: {error}",
                detail=f"If it belongs to an earlier {candidate.file.name}, remove it; "
                "otherwise have its signer sign the file as it is now.",
            ) from None
    return verified, unknown


def _require_enough(
    before: Policy, file: Path, verified: list[Signature], unknown: list[str]
) -> tuple[Signer, ...]:
    what = f"{file} is not accepted: a policy that follows serial {before.serial}"
    try:
        return require_signers(before, before.rotation, what, verified, unknown)
    except SignatureError as error:
        raise NotAcceptedError(str(error), detail=error.detail) from None


def _recall(memory: Path, read: Reader) -> bytes | None:
    """The content of the policy that was accepted; None if there never was one.

    Only a file that is not there says so: one that cannot be reached may say otherwise.
    """
    try:
        memory.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{memory}, the policy that this host has accepted, cannot be read: {error.strerror}; "
            "run the command as root"
        ) from None
    return read(memory)


def _require_accepted(accepted: bytes | None, memory: Path) -> None:
    if accepted is None:
        raise ConfigurationError(
            f"this host has accepted no policy yet ({memory} is missing); "
            "run `countersign-install check` as root"
        )


@contextmanager
def _alone(folder: Path, read: Reader) -> Iterator[None]:
    """Let one process at a time decide, or an older policy could be remembered after a newer one.

    The lock lies where the memory does: if nobody else can write the one, nobody can the other.
    """
    lock = folder / _LOCK
    with _refusing_failures(lock):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = lock.open("ab")
    with file:
        read(lock)
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)  # the kernel frees it however the process ends
        yield


def _remember(content: bytes, memory: Path) -> None:
    with _refusing_failures(memory):
        write_file(memory, content)
        sync_folder(memory.parent.parent)


@contextmanager
def _refusing_failures(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written, and a policy that cannot be remembered is not used: "
            f"{error.strerror}"
        ) from None
