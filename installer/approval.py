"""What a customer signs: that a release may go to an environment, and that it may not after all.

Opens no files, knows no clock. An approval names the release by the digest of its manifest, and the
install that was tested by the digest of its receipt. `require_approved` decides, from dossiers
whose signatures were verified (`installer.dossier`), whether one of them lets a release in; where
none does, it says of each why not.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from installer.errors import ApprovalError, SignatureError
from installer.manifest import ENVIRONMENT, PRODUCT, VERSION, Manifest
from installer.openpgp import Signature
from installer.policy import CUSTOMER, HOST, Policy, Requirement, Signer, counted, require_signers
from installer.receipt import INSTALLED, Receipt
from installer.strict_json import Fields, load_json, moment
from installer.tree import Digest, digest_of

APPROVAL = "countersign-approval"
WITHDRAWAL = "countersign-withdrawal"
FORMAT = 1
DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Approval:
    """`release` may go to `environment`. Times are in seconds since 1970, the last one excluded.

    `receipt` is the digest of the receipt that was looked at, or None. `digest` is that of the
    approval's own bytes.
    """

    digest: Digest
    product: str
    version: str
    sequence: int
    manifest: Digest
    receipt: Digest | None
    environment: str
    not_before: int
    expires: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The approval of this digest does not hold any more, and why."""

    digest: Digest
    approval: Digest
    product: str
    version: str
    environment: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dossier:
    """A folder of statements, as read; whoever made the signatures was verified, and no more.

    `approval` and `receipt` are None where there is none. A dossier may hold a receipt alone, or a
    withdrawal alone. `problem` is why it could not be read; then nothing in it counts. `unknown`
    are keys that signed the approval, and that this host does not hold.
    """

    name: str
    problem: str = ""
    approval: Approval | None = None
    approvers: tuple[Signature, ...] = ()
    receipt: Receipt | None = None
    receipt_signers: tuple[Signature, ...] = ()
    withdrawal: Withdrawal | None = None
    withdrawers: tuple[Signature, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Approved:
    """What lets a release in: the receipt to be compared with, and the customers who approved."""

    receipt: Receipt | None
    customers: tuple[Signer, ...]


def write_approval(approval: Approval) -> bytes:
    """The bytes of `approval`, whose own digest is ignored."""
    return _written(
        {
            "type": APPROVAL,
            "format": FORMAT,
            "release": {
                "name": approval.product,
                "version": approval.version,
                "sequence": approval.sequence,
                "manifest": approval.manifest,
            },
            "receipt": approval.receipt,
            "environment": approval.environment,
            "not_before": moment(approval.not_before),
            "expires": moment(approval.expires),
        }
    )


def parse_approval(raw: bytes) -> Approval:
    """The approval that `raw` is.

    Raises:
        MalformedError: `raw` is no approval of a format that this version knows.
    """
    top = Fields(load_json(raw, "approval.json"), "approval.json")
    top.require_type(APPROVAL, FORMAT)
    release = top.table("release")
    approval = Approval(
        digest=digest_of(raw),
        product=release.matching("name", PRODUCT),
        version=release.matching("version", VERSION),
        sequence=release.integer("sequence", 1, 2**53),
        manifest=release.digest("manifest"),
        receipt=top.optional_digest("receipt"),
        environment=top.matching("environment", ENVIRONMENT),
        not_before=top.moment("not_before"),
        expires=top.moment("expires"),
    )
    for fields in (release, top):
        fields.require_all_read()
    if approval.not_before >= approval.expires:
        top.refuse("it expires before it begins")
    return approval


def write_withdrawal(withdrawal: Withdrawal) -> bytes:
    """The bytes of `withdrawal`, whose own digest is ignored."""
    return _written(
        {
            "type": WITHDRAWAL,
            "format": FORMAT,
            "approval": withdrawal.approval,
            "release": {"name": withdrawal.product, "version": withdrawal.version},
            "environment": withdrawal.environment,
            "reason": withdrawal.reason,
        }
    )


def parse_withdrawal(raw: bytes) -> Withdrawal:
    """The withdrawal that `raw` is.

    Raises:
        MalformedError: `raw` is no withdrawal of a format that this version knows.
    """
    top = Fields(load_json(raw, "withdrawal.json"), "withdrawal.json")
    top.require_type(WITHDRAWAL, FORMAT)
    release = top.table("release")
    withdrawal = Withdrawal(
        digest=digest_of(raw),
        approval=top.digest("approval"),
        product=release.matching("name", PRODUCT),
        version=release.matching("version", VERSION),
        environment=top.matching("environment", ENVIRONMENT),
        reason=top.line("reason"),
    )
    for fields in (release, top):
        fields.require_all_read()
    return withdrawal


def wanted(requirement: Requirement) -> str:
    """What an environment requires besides a package's own signatures, in words."""
    parts = []
    if requirement.customers:
        parts.append(f"an approval by {requirement.customers} of role {CUSTOMER}")
    if requirement.receipt_from:
        parts.append(f"the receipt of a successful install in {requirement.receipt_from}")
    return " and ".join(parts)


def require_approved(
    manifest: Manifest,
    policy: Policy,
    environment: str,
    dossiers: Iterable[Dossier],
    now: int,
) -> Approved:
    """What lets `manifest` into `environment`, as `policy` requires; `now` since 1970.

    Raises:
        ApprovalError: no dossier does; `detail` says of each of this product why not.
    """
    requirement = policy.requirement(environment)
    if not requirement.needs_dossier:
        return Approved(None, ())
    dossiers = tuple(dossiers)
    withdrawn = _withdrawn(policy, dossiers)
    objections = []
    for dossier in dossiers:
        if not _is_about(dossier, manifest.product):
            continue
        if dossier.problem:
            objections.append(f"{dossier.name}: {dossier.problem}")
            continue
        try:
            customers: tuple[Signer, ...] = ()
            if requirement.customers:
                customers = _customers(dossier, policy, requirement, withdrawn)
                _refuse_if(_objections(dossier, manifest, environment, requirement, now))
            if requirement.receipt_from:
                _refuse_if(_receipt_objections(dossier, manifest, policy, requirement))
        except (ApprovalError, SignatureError) as error:
            objections += [f"{dossier.name}: {error}", error.detail]
        else:
            return Approved(dossier.receipt if requirement.receipt_from else None, customers)
    raise ApprovalError(
        f"{environment} requires {wanted(requirement)}",
        detail="\n".join(filter(None, objections)),
    )


def _approval(dossier: Dossier) -> Approval:
    if dossier.approval is None:
        raise ApprovalError("it holds no approval.json")
    return dossier.approval


def _customers(
    dossier: Dossier, policy: Policy, requirement: Requirement, withdrawn: frozenset[Digest]
) -> tuple[Signer, ...]:
    """Those who approved, if they are enough and did not take it back."""
    if _approval(dossier).digest in withdrawn:
        raise ApprovalError("the approval was withdrawn")
    required = {CUSTOMER: requirement.customers}
    return require_signers(policy, required, "an approval", dossier.approvers, dossier.unknown)


def _objections(
    dossier: Dossier, manifest: Manifest, environment: str, requirement: Requirement, now: int
) -> Iterator[str]:
    """Why the dossier's approval does not let this release in."""
    approval, limit = _approval(dossier), requirement.max_approval_days * DAY
    if approval.manifest != manifest.digest:
        yield (
            f"it approves {approval.product} {approval.version}, manifest "
            f"{approval.manifest[:16]}…, not {manifest.title}, {manifest.digest[:16]}…"
        )
    elif (approval.product, approval.version, approval.sequence) != (
        manifest.product,
        manifest.version,
        manifest.sequence,
    ):
        yield "it names the release otherwise than its manifest does"
    if approval.environment != environment:
        yield f"it is for {approval.environment}, not for {environment}"
    if now < approval.not_before:
        yield f"it is not good before {moment(approval.not_before)}"
    if now >= approval.expires:
        yield f"it expired at {moment(approval.expires)}"
    signed = min((signature.created for signature in dossier.approvers), default=now)
    if approval.expires - approval.not_before > limit or now >= signed + limit:
        yield f"an approval is good for {requirement.max_approval_days} days at most"


def _receipt_objections(
    dossier: Dossier, manifest: Manifest, policy: Policy, requirement: Requirement
) -> Iterator[str]:
    """Why the dossier's receipt does not show that this release was tested."""
    receipt, wanted = dossier.receipt, requirement.receipt_from
    if receipt is None:
        yield "it holds no receipt.json"
        return
    if requirement.customers and (
        dossier.approval is None or dossier.approval.receipt != receipt.digest
    ):
        yield "its receipt is not the one that the approval names"
    if receipt.manifest != manifest.digest:
        yield f"its receipt is of {receipt.product} {receipt.version}, of another manifest"
    if receipt.outcome != INSTALLED:
        yield f"its receipt says that the install {receipt.outcome}"
    if (receipt.database is None) != (manifest.database is None):
        yield "its receipt does not say what the release did to the database"
    if receipt.environment != wanted:
        yield f"its receipt is from {receipt.environment}, not from {wanted}"
    signers = counted(policy, dossier.receipt_signers)
    if not any(signer.role == HOST and signer.environment == wanted for signer in signers):
        yield f"its receipt is signed by no host that the policy names for {wanted}"


def _withdrawn(policy: Policy, dossiers: Iterable[Dossier]) -> frozenset[Digest]:
    """Digests of approvals that a customer took back.

    Raises:
        ApprovalError: a withdrawal is there that no customer signed; it may have been one.
    """
    found = set()
    for dossier in dossiers:
        if dossier.withdrawal is None:
            continue
        signers = counted(policy, dossier.withdrawers)
        if not any(signer.role == CUSTOMER for signer in signers):
            raise ApprovalError(f"{dossier.name}: withdrawal.json is signed by no customer")
        found.add(dossier.withdrawal.approval)
    return frozenset(found)


def _is_about(dossier: Dossier, product: str) -> bool:
    statement = dossier.approval or dossier.receipt
    return bool(dossier.problem) or (statement is not None and statement.product == product)


def _refuse_if(objections: Iterator[str]) -> None:
    if found := list(objections):
        raise ApprovalError("; ".join(found))


def _written(document: dict[str, object]) -> bytes:
    return f"{json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)}\n".encode()
