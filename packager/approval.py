"""The customer's side: approves a release for an environment, and takes an approval back.

What is approved is a manifest, by its digest, as the receipt of an environment before says that it
was installed. A release that was never installed, another one than was, or a receipt that nobody
signed is refused. Whose signatures count is the policy's decision on the host: a key that is not
known here is told, and no more, unless that host's policy is given.

Nothing is written before everything was checked, shown and signed. A folder of statements that is
there already is signed as it is, by one more customer; no byte of it changes.
"""

import glob
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from installer.approval import (
    DAY,
    Approval,
    Dossier,
    Withdrawal,
    parse_approval,
    parse_withdrawal,
    require_approved,
    write_approval,
    write_withdrawal,
)
from installer.bundle import MANIFEST, Head
from installer.errors import ApprovalError, MalformedError, SignatureError
from installer.manifest import Manifest, parse_manifest
from installer.policy import APPROVAL_DAYS, Policy, counted
from installer.receipt import INSTALLED, Receipt, parse_receipt
from installer.signatures import Signature, UnknownKeyError, verify_release, verify_signature
from installer.strict_json import moment
from installer.tree import Digest
from packager.companion import (
    APPROVAL,
    FILE,
    RECEIPT,
    WITHDRAWAL,
    Papers,
    Statement,
    build_packages,
    folder_of,
    papers_of,
    read_files,
    read_papers,
    require_signed,
    short,
    signatures,
)
from packager.errors import SigningError, StatementError
from packager.formats.deb import write_files
from packager.output import place, temporary_folder
from packager.package_reader import read_package
from packager.signing import Signer, UnknownSignerError, recognise, sign, signature_file
from packager.sqlcheck import require_cuts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be approved: a package, as a receipt tells of it, for an environment.

    `not_before`, in seconds since 1970, and `days` are None where nobody said.
    """

    package: Path
    receipt: Path
    environment: str
    not_before: int | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What is made: the folder for everything, the kinds of packages, the key to sign those."""

    output: Path
    kinds: Sequence[str]
    package_key: str | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """A keyring of public keys and, perhaps, the policy of the hosts that are to be convinced."""

    keyring: Path
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """Someone whose signature is there; `name` is None where the key is not known here."""

    fingerprint: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """What a customer is asked to sign, and what speaks for it.

    `files` are those of the folder of statements, as far as they are there. `signed` says who has
    signed this approval before.
    """

    manifest: Manifest
    developers: tuple[Witness, ...]
    receipt: Receipt
    hosts: tuple[Witness, ...]
    approval: Approval
    files: Mapping[str, bytes]
    signed: tuple[Signer, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What was written: the folder of statements, what is in it, and its packages."""

    folder: Path
    papers: Papers
    packages: tuple[Path, ...]


def examine(wish: Wish, output: Path, trust: Trust | None, now: int) -> Case:
    """What it means to sign what is wished for.

    `output` has the folders of statements, perhaps one for this release already. `now` is in
    seconds since 1970.

    Raises:
        StatementError: the receipt does not speak for the package, or is not signed; or another
            approval of it is there; or the manifest runs a script otherwise than it is written.
        ApprovalError, SignatureError: the policy in `trust` would refuse receipt or package.
        DigestError, MalformedError: the package is not what was signed, or damaged.
        ToolError: a tool is missing or failed.
    """
    _, bundle = read_package(wish.package)
    manifest = parse_manifest(bundle.head.manifest)
    content = bundle.open_content(manifest)
    developers = _developers(wish.package, bundle.head, trust, now)
    files = _receipt_files(wish.receipt)
    receipt = _parsed(parse_receipt, files[RECEIPT], wish.receipt)
    _require_tested(receipt, manifest, wish)
    require_cuts(manifest, content.read)
    hosts = _witnesses(files, RECEIPT, str(wish.receipt), trust, now)
    wished = _approval(manifest, receipt, wish, now)
    there = output / folder_of(wished)
    signed: tuple[Signer, ...] = ()
    if there.exists():
        papers = papers_of(read_files(there), str(there), now)
        _require_same(papers.statement, wished, wish, there, now)
        files, signed = dict(papers.files), papers.signers
    else:
        files[APPROVAL] = write_approval(wished)
    approval = parse_approval(files[APPROVAL])
    _require_not_withdrawn(approval, there)
    if trust and trust.policy:
        _require_acceptable(bundle.head, files, trust.policy, trust.keyring, now)
    return Case(manifest, developers, receipt, hosts, approval, files, signed)


def approve(case: Case, signer: Signer | None, target: Target, now: int) -> Done:
    """Sign the approval, where a signer is given, and write its folder and its packages.

    There are all of them, or none. Without a signer there are no packages.

    Raises:
        OutputError: they cannot be written.
        SigningError: gpg made no signature that hosts accept.
        ToolError: a tool is missing or failed.
    """
    files = dict(case.files)
    if signer and signer not in case.signed:
        files[signature_file(signer, APPROVAL)] = sign(files[APPROVAL], signer, now)
    return _written(files, target, now)


def withdraw(folder: Path, reason: str, signer: Signer | None, target: Target, now: int) -> Done:
    """Take back the approval in `folder`: what `approve` is to approvals.

    Raises:
        StatementError: there is no approval, or it is withdrawn for another reason already.
        OutputError, SigningError, ToolError: as of `approve`.
    """
    try:
        approval = _parsed(parse_approval, (folder / APPROVAL).read_bytes(), folder)
    except OSError as error:
        raise StatementError(f"{folder / APPROVAL}: {error.strerror}") from None
    raw = write_withdrawal(
        Withdrawal(
            digest=Digest(""),
            approval=approval.digest,
            product=approval.product,
            version=approval.version,
            environment=approval.environment,
            reason=reason,
        )
    )
    there = target.output / folder_of(_parsed(parse_withdrawal, raw, folder))
    files = read_files(there) if there.exists() else {WITHDRAWAL: raw}
    if files.get(WITHDRAWAL) != raw:
        raise StatementError(
            f"{there} has another withdrawal",
            detail="One is enough. To write another one, move that folder away.",
        )
    if signer and signature_file(signer, WITHDRAWAL) not in files:
        files[signature_file(signer, WITHDRAWAL)] = sign(raw, signer, now)
    return _written(files, target, now)


def build_companion(folder: Path, target: Target, now: int) -> Done:
    """Build the packages of a folder of statements, which stays as it is.

    Raises:
        StatementError: it is not signed by anyone who is known here, or not one that hosts read.
        OutputError: they cannot be written.
        ToolError: a tool is missing or failed.
    """
    papers = read_papers(folder, now)
    require_signed(papers, str(folder))
    with temporary_folder(target.output) as temporary:
        made = build_packages(papers, target.kinds, temporary, target.package_key)
        packages = tuple(place(package, target.output / package.name) for package in made)
    return Done(folder, papers, packages)


def missing(case: Case, done: Done, policy: Policy, keyring: Path, now: int) -> str:
    """What `policy` still wants, now that the approval is signed; empty if nothing."""
    dossier = _dossier(done.papers.files, done.papers.folder, keyring, now)
    try:
        require_approved(case.manifest, policy, case.approval.environment, (dossier,), now)
    except ApprovalError as error:
        return f"{error}\n{error.detail}".strip()
    return ""


def _developers(package: Path, head: Head, trust: Trust | None, now: int) -> tuple[Witness, ...]:
    """Who signed the package."""
    if not head.signatures:
        raise StatementError(
            f"{package} is signed by no developer", detail="Obtain the package that was tested."
        )
    files = {f"{MANIFEST}.{key}.asc": head.signatures[key] for key in sorted(head.signatures)}
    files[MANIFEST] = head.manifest
    return _witnesses(files, MANIFEST, f"{package}: {MANIFEST}", trust, now)


def _witnesses(
    files: Mapping[str, bytes], document: str, where: str, trust: Trust | None, now: int
) -> tuple[Witness, ...]:
    """Who signed `document`, which is called `where` in messages.

    Raises:
        StatementError: a signature does not fit.
    """
    found = (
        _witness(files[name], files[document], where + name.removeprefix(document), trust, now)
        for name in signatures(files, document)
    )
    return tuple(dict.fromkeys(found))


def _witness(signature: bytes, data: bytes, name: str, trust: Trust | None, now: int) -> Witness:
    detail = "Obtain the file and its signatures again from whoever signed."
    try:
        if trust:
            with suppress(UnknownKeyError):  # gpg may know it
                return _named(verify_signature(signature, data, trust.keyring, now), trust)
        signer, _ = recognise(signature, data, now, name, "what it lies beside")
    except UnknownSignerError as error:
        return Witness(error.fingerprint, None)
    except SigningError as error:
        raise StatementError(str(error), detail=detail) from None
    except SignatureError as error:
        raise StatementError(f"{name}: {error}", detail=detail) from None
    return Witness(signer.fingerprint, signer.user_id)


def _named(signature: Signature, trust: Trust) -> Witness:
    """Who the policy says that this is."""
    names = [
        " ".join(filter(None, (identity.name, f"({identity.role})", identity.environment)))
        for identity in (counted(trust.policy, (signature,)) if trust.policy else ())
    ]
    nobody = "no one that the policy names" if trust.policy else f"a key in {trust.keyring}"
    return Witness(signature.primary, names[0] if names else nobody)


def _receipt_files(receipt: Path) -> dict[str, bytes]:
    """The receipt and its signatures, under the names that they have in a folder of statements."""
    try:
        beside = sorted(receipt.parent.glob(f"{glob.escape(receipt.name)}*.asc"))
        files = {RECEIPT + file.name.removeprefix(receipt.name): file for file in beside}
        found = {name: file.read_bytes() for name, file in files.items() if FILE.fullmatch(name)}
        found[RECEIPT] = receipt.read_bytes()
    except OSError as error:
        raise StatementError(f"{error.filename}: {error.strerror}") from None
    if len(found) == 1:
        raise StatementError(
            f"{receipt} is not signed: there is no {receipt.name}.asc beside it",
            detail="The host keeps both in /var/lib/countersign/receipts. Where it has no "
            "signature there, `countersign-install init` makes the host's key.",
        )
    return found


def _require_tested(receipt: Receipt, manifest: Manifest, wish: Wish) -> None:
    """Refuse a receipt that does not say that this very release was installed before."""
    if receipt.manifest != manifest.digest:
        raise StatementError(
            f"{wish.receipt} is the receipt of another manifest: {receipt.title}",
            detail=f"  tested:  {receipt.product} {receipt.version}, {receipt.manifest}\n"
            f"  package: {manifest.title}, {manifest.digest}\n"
            "Approve the package that was tested, or test this one.",
        )
    if receipt.outcome != INSTALLED:
        why = f": {receipt.failure.message}" if receipt.failure else ""
        raise StatementError(
            f"{wish.receipt} is the receipt of an install that failed{why}",
            detail="Test the release again, and take the receipt of the install that went well.",
        )
    if receipt.environment == wish.environment:
        raise StatementError(
            f"{wish.receipt} is from {wish.environment} itself: {receipt.title}",
            detail=f"Take the receipt of the environment that comes before {wish.environment}.",
        )
    if not _is_told_alike(receipt, manifest):
        raise StatementError(
            f"{wish.receipt} tells of this release what its manifest does not say",
            detail="Obtain it again from the host that wrote it.",
        )


def _is_told_alike(receipt: Receipt, manifest: Manifest) -> bool:
    """Whether a receipt of `manifest` has its name, its scripts and its application."""
    named = (receipt.product, receipt.version, receipt.sequence)
    scripts = manifest.database.scripts if manifest.database else ()
    ran = receipt.database.scripts if receipt.database else ()
    return (
        named == (manifest.product, manifest.version, manifest.sequence)
        and (receipt.application and receipt.application.tree) == manifest.tree_digest
        and (receipt.database is None) == (manifest.database is None)
        and {(s.name, s.digest) for s in ran} <= {(s.name, s.digest) for s in scripts}
    )


def _approval(manifest: Manifest, receipt: Receipt, wish: Wish, now: int) -> Approval:
    """The approval as it is wished for, with the digest that it has when it is written."""
    begins = now if wish.not_before is None else wish.not_before
    days = APPROVAL_DAYS if wish.days is None else wish.days
    approval = Approval(
        digest=Digest(""),
        product=manifest.product,
        version=manifest.version,
        sequence=manifest.sequence,
        manifest=manifest.digest,
        receipt=receipt.digest,
        environment=wish.environment,
        not_before=begins,
        expires=begins + days * DAY,
    )
    if approval.expires <= now:
        raise StatementError(f"the approval would have expired at {moment(approval.expires)}")
    return _parsed(parse_approval, write_approval(approval), Path(wish.environment))


def _require_same(there: Statement, wished: Approval, wish: Wish, folder: Path, now: int) -> None:
    """Refuse to sign the approval that is `there`, if it is not the one that is wished for."""
    anew = "To approve anew, move that folder away."
    if not isinstance(there, Approval) or there != replace(
        wished, digest=there.digest, not_before=there.not_before, expires=there.expires
    ):
        raise StatementError(
            f"{folder} approves another release, or by another receipt", detail=anew
        )
    if there.expires <= now:
        raise StatementError(f"{folder} expired at {moment(there.expires)}", detail=anew)
    days = (there.expires - there.not_before) / DAY
    if wish.not_before not in {None, there.not_before} or wish.days not in {None, days}:
        raise StatementError(
            f"{folder} is good from {moment(there.not_before)} until {moment(there.expires)}",
            detail=f"Sign it as it is, without --not-before and --days. {anew}",
        )


def _require_not_withdrawn(approval: Approval, folder: Path) -> None:
    """Refuse an approval whose withdrawal is beside its `folder`: hosts would refuse it."""
    beside = folder.with_name(f"{folder.name}-withdrawal-{short(approval.digest)}")
    if not (beside / WITHDRAWAL).exists():
        return
    withdrawal = _parsed(parse_withdrawal, read_files(beside)[WITHDRAWAL], beside)
    if withdrawal.approval == approval.digest:
        raise StatementError(
            f"{folder} was withdrawn: {withdrawal.reason}",
            detail="To approve anew, move that folder away; with other times it is another one.",
        )


def _require_acceptable(
    head: Head, files: Mapping[str, bytes], policy: Policy, keyring: Path, now: int
) -> None:
    """Refuse what the policy would refuse, whichever customers sign."""
    approval = parse_approval(files[APPROVAL])
    environment = approval.environment
    manifest = verify_release(head, policy, environment, keyring, now).manifest
    required = policy.requirement(environment)
    longest = required.max_approval_days
    if approval.expires - approval.not_before > longest * DAY:
        raise StatementError(f"{environment} takes approvals for {longest} days at most")
    without = replace(policy, requirements={environment: replace(required, customers=0)})
    dossier = _dossier(files, folder_of(approval), keyring, now)
    require_approved(manifest, without, environment, (dossier,), now)


def _dossier(files: Mapping[str, bytes], name: str, keyring: Path, now: int) -> Dossier:
    """The files as a host with this keyring reads them."""
    approvers, unknown = _verified(files, APPROVAL, keyring, now)
    return Dossier(
        name=name,
        approval=parse_approval(files[APPROVAL]),
        approvers=approvers,
        receipt=parse_receipt(files[RECEIPT]),
        receipt_signers=_verified(files, RECEIPT, keyring, now)[0],
        unknown=unknown,
    )


def _verified(
    files: Mapping[str, bytes], document: str, keyring: Path, now: int
) -> tuple[tuple[Signature, ...], tuple[str, ...]]:
    """Signatures by keys in the keyring, and the other keys that signed."""
    found, unknown = [], []
    for name in signatures(files, document):
        try:
            found.append(verify_signature(files[name], files[document], keyring, now))
        except UnknownKeyError as error:
            unknown.append(error.fingerprint)
    return tuple(found), tuple(unknown)


def _parsed(parse: Callable[[bytes], T], raw: bytes, where: Path) -> T:
    try:
        return parse(raw)
    except MalformedError as error:
        raise StatementError(f"{where}: {error}") from None


def _written(files: Mapping[str, bytes], target: Target, now: int) -> Done:
    """Put `files` into their folder, and the packages of what is signed beside it; all, or none."""
    papers = papers_of(files, str(target.output), now)
    folder = target.output / papers.folder
    with temporary_folder(target.output) as temporary:
        kinds = target.kinds if papers.signers else ()
        made = build_packages(papers, kinds, temporary, target.package_key)
        staged = temporary / papers.folder
        write_files(temporary, {f"{papers.folder}/{name}": raw for name, raw in files.items()})
        packages = tuple(place(package, target.output / package.name) for package in made)
        if folder.exists():
            for name in sorted(set(files) - set(read_files(folder))):
                place(staged / name, folder / name)
        else:
            place(staged, folder)
    return Done(folder, papers, packages)
