"""Verifies an auditor's bundle, with no database: what the host that wrote it would have found.

The chain is computed anew and compared with the receipts by the very code that hosts run
(`installer.ledger_chain`, `installer.anchors`). Signatures are verified by gpgv with one keyring;
what role a signer has is said by the policy in the bundle, which is the host's own. The rules:

- audit.json is signed by the host's key, where the host has one; a bundle that is judged with the
  auditor's own keyring has to be.
- A signature that does not verify is a finding, and what it is of does not count. One by a key that
  the keyring does not hold does not count. A manifest and an approval need one that does; a receipt
  that is not signed is compared like the others, and told.
- A manifest is that of a release in the ledger, and the rows of its scripts have its digests.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple, Self

from installer.anchors import Anchor, Comparison, Ledger, Verdict, anchor_of
from installer.approval import parse_approval, parse_withdrawal
from installer.audit_bundle import KEYRING, POLICY, SIGNATURE, STATEMENT
from installer.errors import (
    InstallerError,
    LedgerTamperedError,
    MalformedError,
    SignatureError,
)
from installer.ledger_chain import Chain, Finding, Row
from installer.manifest import Manifest, parse_manifest
from installer.policy import CUSTOMER, HOST, Policy, counted, parse_policy
from installer.receipt import Receipt, parse_receipt
from installer.signatures import UnknownKeyError, require_binary_keyring, verify_for
from packager.audit_reader import AuditBundle

MOST_FINDINGS = 100
NOBODY = ""
"""The role of a key that is nobody's."""
UNSIGNED = frozenset({"signature", "unsigned"})
"""Kinds of findings that are about signatures alone."""


@dataclass(frozen=True, slots=True)
class Paper:
    """A document in the bundle: what it is, and who signed it, each by name, role and key.

    `counts`: one of them has the role that such a document needs.
    """

    name: str
    title: str
    signers: tuple[str, ...]
    counts: bool


class Known(NamedTuple):
    """What is kept of a manifest: its title, and name and digest of each script."""

    title: str
    scripts: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What is kept of `manifest`."""
        scripts = manifest.database.scripts if manifest.database else ()
        return cls(manifest.title, frozenset((s.name, s.digest) for s in scripts))


@dataclass(frozen=True, slots=True)
class Audited:
    """What a bundle amounts to. `releases` has the title of each in the ledger, by its manifest."""

    chain: Chain
    verdict: Verdict
    releases: Mapping[str, str]
    papers: tuple[Paper, ...]
    findings: tuple[Finding, ...]
    policy: int

    def require_sound(self) -> None:
        """Refuse what was found.

        Raises:
            LedgerTamperedError: the ledger, or what goes with it, is not what was written.
            SignatureError: it is, but for signatures.
        """
        if not self.findings:
            return
        lines = "\n".join(f"  {finding.kind}: {finding.text}" for finding in self.findings)
        only_signed = all(finding.kind in UNSIGNED for finding in self.findings)
        refusal: type[InstallerError] = SignatureError if only_signed else LedgerTamperedError
        what = "signatures are missing, or do not fit" if only_signed else "it was tampered with"
        raise refusal(f"the auditor's bundle is not sound: {what}", detail=lines)


def verify(bundle: AuditBundle, keyring: tuple[Path, bytes] | None, now: int) -> Audited:
    """Verify the bundle with the auditor's keyring and its path, or with its own where None.

    `now` is in seconds since 1970.

    Raises:
        ConfigurationError: the keyring is none, or the policy cannot be read.
        SignatureError: audit.json is not signed by the host.
        MalformedError: the ledger has a line that is no row.
    """
    policy = parse_policy(bundle.read(POLICY))
    path, keys = keyring or (Path(KEYRING), bundle.read(KEYRING))
    require_binary_keyring(keys, path)
    with NamedTemporaryFile(prefix="countersign-keys-") as file:
        file.write(keys)
        file.flush()
        reading = _Reading(bundle, policy, Path(file.name), now)
        reading.require_signed(has_to_be=keyring is not None)
        reading.read_papers()
    return reading.compare()


@dataclass(slots=True)
class _Reading:
    """What is known of a bundle so far."""

    bundle: AuditBundle
    policy: Policy
    keyring: Path
    now: int
    papers: list[Paper] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    manifests: dict[str, Known] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def require_signed(self, *, has_to_be: bool) -> None:
        """Refuse an audit.json that the host did not sign."""
        key, signature = self.bundle.statement.host_key, self.bundle.members.get(SIGNATURE)
        if key is None:
            if has_to_be or signature:
                raise SignatureError(f"{STATEMENT} is not signed by a key of its own host's")
            return
        if signature is None:
            raise SignatureError(f"{SIGNATURE} is missing: anyone can have left out something else")
        try:
            raw = self.bundle.read(STATEMENT)
            found = verify_for(
                self.policy, self.bundle.read(SIGNATURE), raw, self.keyring, self.now
            )
        except SignatureError as error:
            raise SignatureError(f"{SIGNATURE}: {error}") from None
        if found.primary != key:
            raise SignatureError(f"{SIGNATURE} is by {found.primary}, not by the host's key {key}")

    def read_papers(self) -> None:
        """Read every document, and who signed it."""
        documents: dict[str, list[str]] = {}
        for name in self.bundle.members:  # a document comes before its signatures
            if "/" not in name:
                continue
            if (document := _document_of(name)) == name:
                documents[name] = []
            elif document in documents:
                documents[document].append(name)
            else:
                raise MalformedError(f"{name} is the signature of nothing in the bundle")
        for name, signatures in documents.items():
            try:
                self._read(name, signatures)
            except (MalformedError, SignatureError) as error:
                kind = "signature" if isinstance(error, SignatureError) else "malformed"
                kind = "receipt" if _is_receipt(name) else kind
                self._note([Finding(kind, f"{name}: {error}")])

    def compare(self) -> Audited:
        """Follow the chain, and compare it with all that was read."""
        statement, chain = self.bundle.statement, Chain()
        last = self.policy.chain[-1]
        copied = statement.copied if statement.environment != last else ""
        ledger = Ledger(statement.host, statement.environment, copied)
        comparison = Comparison(ledger, self.anchors)
        for row in self.bundle.rows():
            self._note(chain.follow(row))
            self._note(self._scripts(row))
            comparison.see(row)
        verdict = comparison.verdict(chain, ())
        if (chain.rows, chain.head) != (statement.rows, statement.head):
            says = f"{statement.rows} rows up to {statement.head[:16]}…"
            self._note([Finding("statement", f"{STATEMENT} says that the ledger has {says}")])
        for digest, known in self.manifests.items():
            if comparison.manifests.get(digest) != known.title.replace(" ", "-"):
                self._note([Finding("manifest", f"no row says that {known.title} was applied")])
        return Audited(
            chain,
            verdict,
            comparison.manifests,
            tuple(self.papers),
            (*self.findings, *verdict.findings),
            self.policy.serial,
        )

    def _note(self, found: Iterable[Finding]) -> None:
        self.findings += list(found)[: max(0, MOST_FINDINGS - len(self.findings))]

    def _read(self, name: str, signatures: Iterable[str]) -> None:
        """Read one document: a manifest, a receipt, an approval or a withdrawal."""
        raw, folder = self.bundle.read(name), name.partition("/")[0]
        signers = [found for beside in signatures if (found := self._signer(beside, raw))]
        roles = {role for _, role in signers}
        if folder == "manifests":
            manifest = parse_manifest(raw)
            self.manifests[manifest.digest] = Known.of(manifest)
            title, counts = manifest.title, bool(roles - {CUSTOMER, HOST, NOBODY})
        elif _is_receipt(name):
            receipt = parse_receipt(raw)
            title, counts = receipt.title, HOST in roles
            if self._is_of_this_database(receipt, brought=folder == "approvals"):
                self.anchors += filter(None, [anchor_of(name, receipt)])
        else:
            parse = parse_approval if name.endswith("/approval.json") else parse_withdrawal
            said = parse(raw)
            title = f"{said.product} {said.version} for {said.environment}"
            counts = CUSTOMER in roles
        self.papers.append(Paper(name, title, tuple(words for words, _ in signers), counts))
        if not counts and not _is_receipt(name):
            self._note([Finding("unsigned", f"{name} ({title}) has no signature that counts")])

    def _is_of_this_database(self, receipt: Receipt, *, brought: bool) -> bool:
        """Whether its hash is one of this ledger; `brought`: it came in an approval."""
        statement, database = self.bundle.statement, receipt.database
        if database is None or database.name != statement.database:
            return False
        where = (receipt.environment, database.system)
        return not brought or where == (statement.environment, statement.system)

    def _signer(self, name: str, raw: bytes) -> tuple[str, str] | None:
        """Who signed, in words, and in which role; None where the keyring lacks the key.

        Raises:
            SignatureError: the signature does not fit.
        """
        try:
            signature = self.bundle.read(name)
            found = verify_for(self.policy, signature, raw, self.keyring, self.now)
        except UnknownKeyError:
            return None
        if found.primary == self.bundle.statement.host_key:
            return f"this host {found.primary}", HOST
        for identity in counted(self.policy, [found]):
            return f"{identity.name} ({identity.role}) {found.primary}", identity.role
        return f"no one that the policy counts {found.primary}", NOBODY

    def _scripts(self, row: Row) -> Iterator[Finding]:
        """Whether a script's row has what the manifest of its release says."""
        known = self.manifests.get(row["manifest"])
        if known and row["script"] and (row["script"], row["script_digest"]) not in known.scripts:
            what = f"row {row['id']}: {known.title} has no script {row['script']}"
            yield Finding("script", f"{what} of this digest")


def _is_receipt(name: str) -> bool:
    return name.startswith("receipts/") or name.endswith("/receipt.json")


def _document_of(name: str) -> str:
    """What a signature is of; of another member, itself."""
    return re.sub(r"(\.[0-9A-F]{40})?\.asc$", "", name)
