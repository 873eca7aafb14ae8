"""Reads the statements that let a release in: the folders below `/etc/countersign/approvals`.

Each folder is a dossier: `approval.json`, `receipt.json` and `withdrawal.json`, as far as they are
there, with detached signatures beside them (`NAME.json.asc`, `NAME.json.<FINGERPRINT>.asc`). Files
and folders belong to root and can be written by nobody else. Who made the signatures is verified
here, by the policy where a key was softly revoked since; whether they count is
`installer.approval`'s business. A dossier that cannot be read lets nothing in; a withdrawal that
cannot be read stops everything: nobody knows what it takes back.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from installer.approval import Dossier, Withdrawal, parse_approval, parse_withdrawal
from installer.errors import ApprovalError, MalformedError, SignatureError
from installer.manifest import Manifest
from installer.policy import Policy
from installer.receipt import parse_receipt
from installer.signatures import Signature, UnknownKeyError, verify_for
from installer.strict_json import MAX_DOCUMENT_SIZE
from installer.trusted_files import read_trusted

APPROVAL_FILE = "approval.json"
RECEIPT_FILE = "receipt.json"
WITHDRAWAL_FILE = "withdrawal.json"


class _Signed(NamedTuple):
    """A document's bytes, who signed them, and keys that signed and are not known here."""

    raw: bytes
    signers: tuple[Signature, ...]
    unknown: tuple[str, ...]


def read_dossiers(  # noqa: PLR0913 - hosts give five; `top` is for tests
    folder: Path,
    manifest: Manifest,
    policy: Policy,
    keyring: Path,
    now: int,
    *,
    top: Path = Path("/"),
) -> tuple[Dossier, ...]:
    """The dossiers below `folder` that may be about `manifest`, in the order of their names.

    A receipt is read only where its approval is of this manifest, or where there is no approval:
    it has megabytes. `now` is since 1970; only tests say where the check of folders begins (`top`).

    Raises:
        ApprovalError: a withdrawal cannot be read.
        ConfigurationError: someone other than root may write to a file or a folder.
    """
    if not folder.is_dir():
        return ()
    read = _Reader(policy, keyring, now, top)
    return tuple(read.dossier(item, manifest) for item in sorted(folder.iterdir()) if item.is_dir())


class _Reader:
    def __init__(self, policy: Policy, keyring: Path, now: int, top: Path) -> None:
        self._policy = policy
        self._keyring = keyring
        self._now = now
        self._top = top

    def dossier(self, folder: Path, manifest: Manifest) -> Dossier:
        withdrawal, withdrawers = self._withdrawal(folder)
        found = Dossier(folder.name, withdrawal=withdrawal, withdrawers=withdrawers)
        try:
            return self._filled(found, folder, manifest)
        except (MalformedError, SignatureError) as error:
            return replace(found, problem=str(error))

    def _filled(self, found: Dossier, folder: Path, manifest: Manifest) -> Dossier:
        if signed := self._signed(folder / APPROVAL_FILE):
            found = replace(
                found,
                approval=parse_approval(signed.raw),
                approvers=signed.signers,
                unknown=signed.unknown,
            )
        if found.approval and found.approval.manifest != manifest.digest:
            return found
        if signed := self._signed(folder / RECEIPT_FILE):
            receipt = parse_receipt(signed.raw)
            found = replace(found, receipt=receipt, receipt_signers=signed.signers)
        return found

    def _withdrawal(self, folder: Path) -> tuple[Withdrawal | None, tuple[Signature, ...]]:
        try:
            signed = self._signed(folder / WITHDRAWAL_FILE)
            return (parse_withdrawal(signed.raw), signed.signers) if signed else (None, ())
        except (MalformedError, SignatureError) as error:
            raise ApprovalError(f"{folder / WITHDRAWAL_FILE}: {error}") from None

    def _signed(self, file: Path) -> _Signed | None:
        if not file.exists():
            return None
        raw = read_trusted(file, limit=MAX_DOCUMENT_SIZE, top=self._top)
        signers: list[Signature] = []
        unknown: list[str] = []
        for beside in sorted(file.parent.glob(f"{file.name}*.asc")):
            signature = read_trusted(beside, top=self._top)
            try:
                found = verify_for(self._policy, signature, raw, self._keyring, self._now)
            except UnknownKeyError as error:
                unknown.append(error.fingerprint)
            except SignatureError as error:
                raise SignatureError(f"{beside.name}: {error}") from None
            else:
                signers.append(found)
        return _Signed(raw, tuple(signers), tuple(unknown))
