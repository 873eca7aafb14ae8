"""Whether the ledger of a database is what was written: its chain, and what this host knows of it.

Reads only. The chain is computed anew, row by row (`installer.ledger_chain`), and compared with the
receipts of this host, with those in approvals that speak of this database, and with the releases
that the host remembers as installed. What the host knows is read before the ledger: it was
committed by then. `installer.audit_export` gives all of it to an auditor.
"""

import glob
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, NamedTuple

from installer.anchors import Anchor, Comparison, Ledger, Verdict, anchor_of
from installer.database import connect
from installer.errors import (
    ConfigurationError,
    LedgerTamperedError,
    MalformedError,
    SignatureError,
)
from installer.host_key import FOLDER as KEY_FOLDER
from installer.host_key import HostKey
from installer.ledger_chain import Chain, Finding, write_row
from installer.machine import CONFIGURATION, Machine
from installer.policy import HOST, counted
from installer.receipt import parse_receipt
from installer.receipts import FOLDER as RECEIPTS
from installer.signatures import UnknownKeyError, verify_for
from installer.state import ProductState, products
from installer.transaction import ServerIdentity
from installer.tree import Digest

RELEASES = Path("/usr/share/countersign/releases")
"""Where packages put manifest and signatures, for review."""
MOST_FINDINGS = 20
"""Findings in the chain itself that are told; the first is where to look."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where everything is, apart from the database; `now` is in seconds since 1970."""

    machine: Machine
    now: int
    configuration: Path = CONFIGURATION
    releases: Path = RELEASES

    @property
    def key(self) -> HostKey:
        """This host's key."""
        return HostKey(self.machine.state / KEY_FOLDER)

    @property
    def keys(self) -> bytes:
        """The keyring's public keys, and this host's own behind them."""
        return self.machine.keyring.read_bytes() + self.key.keyring()


class Kept(NamedTuple):
    """An anchor, the file that it is in, whether that is signed, and the cluster it speaks of."""

    anchor: Anchor
    file: Path
    is_signed: bool
    system: str | None
    """None in this host's own receipts: its database may have moved to another cluster."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. `releases` has the title of each release in the ledger, by its manifest."""

    server: ServerIdentity
    copied: str
    chain: Chain
    releases: Mapping[str, str]
    kept: tuple[Kept, ...]
    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def facts(self) -> dict[str, object]:
        """What was found, for programs."""
        return {
            "database": self.server.name,
            "rows": self.chain.rows,
            "head": self.chain.head,
            "releases": len(self.releases),
            "anchors": self.verdict.compared,
            "signed": sum(one.is_signed for one in self.kept),
            "before_copy": self.verdict.before_copy,
            "without_receipt": self.verdict.without,
            "findings": [finding._asdict() for finding in self.findings],
        }


def database_of(product: str, machine: Machine) -> str:
    """The database of a product that is installed here.

    Raises:
        ConfigurationError: it is not, or has none.
    """
    installed = ProductState(machine.state / product).installed()
    if installed is None or installed.database is None:
        raise ConfigurationError(f"no release of {product} with a database is installed here")
    return installed.database.name


def audit(name: str, scene: Scene, export: BinaryIO | None = None) -> Audit:
    """Audit the database that the host file calls `name`; its rows are written to `export`.

    Raises:
        ConfigurationError, DatabaseUnavailableError: it cannot be read.
    """
    host, last = scene.machine.host, scene.machine.policy.chain[-1]
    gathered, findings = _gather(name, scene)
    installed, chain = list(_installed(name, scene.machine)), Chain()
    with (
        connect(host.database(name), "audit") as database,
        database.ledger(host.environment) as reading,
    ):
        # The last environment in the policy's chain is nobody's copy.
        copied = reading.since if host.environment != last else ""
        kept = [one for one in gathered if one.system in {None, reading.server.system}]
        ledger = Ledger(socket.gethostname(), host.environment, copied)
        comparison = Comparison(ledger, (one.anchor for one in kept))
        for row in reading.rows:
            findings += chain.follow(row)[: max(0, MOST_FINDINGS - len(findings))]
            comparison.see(row)
            if export:
                export.write(write_row(row))
    verdict = comparison.verdict(chain, installed)
    found = (*findings, *verdict.findings)
    releases = comparison.manifests
    return Audit(reading.server, copied, chain, releases, tuple(kept), verdict, found)


def audit_lines(found: Audit) -> list[str]:
    """What was found, for people."""
    facts, verdict = found.facts, found.verdict
    lines = [
        f"database {found.server.name}",
        f"  ledger    {found.chain.rows} rows, {len(found.releases)} releases",
        f"  head      {found.chain.head or 'none'}",
        f"  receipts  {verdict.compared} compared, {facts['signed']} of them signed",
    ]
    if verdict.before_copy:
        words = f"from before this database became a copy, at {found.copied}: not compared"
        lines.append(f"  receipts  {verdict.before_copy} {words}")
    if verdict.without:
        lines.append(f"  receipts  none of {verdict.without} releases that this host applied")
    lines += [f"  {finding.kind}: {finding.text}" for finding in found.findings]
    if found.findings:
        return [*lines, "The ledger was tampered with, or set back.", LedgerTamperedError.hint]
    return [*lines, "  nothing disagrees"]


def _gather(name: str, scene: Scene) -> tuple[list[Kept], list[Finding]]:
    """The anchors in receipts, and receipts that were changed."""
    own = [(file, True) for file in sorted((scene.machine.state / RECEIPTS).glob("*.json"))]
    approvals = sorted((scene.configuration / "approvals").glob("*/receipt.json"))
    environment, key = scene.machine.host.environment, scene.key.fingerprint()
    kept: list[Kept] = []
    findings: list[Finding] = []
    with NamedTemporaryFile(prefix="countersign-keys-") as keyring:
        keyring.write(scene.keys)
        keyring.flush()
        for file, is_own in (*own, *((file, False) for file in approvals)):
            try:
                receipt = parse_receipt(raw := file.read_bytes())
                anchor, database = anchor_of(str(file), receipt), receipt.database
                ours = is_own or receipt.environment == environment
                if anchor and database and database.name == name and ours:
                    signed = _is_signed(file, raw, Path(keyring.name), key, scene)
                    kept.append(Kept(anchor, file, signed, None if is_own else database.system))
            except (MalformedError, SignatureError) as error:
                findings.append(Finding("receipt", f"{file}: {error}"))
    return kept, findings


def _is_signed(file: Path, raw: bytes, keyring: Path, own: str | None, scene: Scene) -> bool:
    """Whether a receipt is signed by this host, or by another that the policy names.

    Raises:
        SignatureError: a signature does not fit.
    """
    policy = scene.machine.policy
    for signature in beside(file):
        try:
            found = verify_for(policy, signature.read_bytes(), raw, keyring, scene.now)
        except UnknownKeyError:
            continue
        if found.primary == own or any(one.role == HOST for one in counted(policy, [found])):
            return True
    return False


def beside(file: Path) -> list[Path]:
    """The signatures of a statement."""
    return sorted(file.parent.glob(f"{glob.escape(file.name)}*.asc"))


def _installed(name: str, machine: Machine) -> Iterator[tuple[str, Digest]]:
    """The releases that this host remembers as installed into a database."""
    for product in products(machine.state):
        installed = ProductState(machine.state / product).installed()
        if installed and installed.database and installed.database.name == name:
            yield installed.title, installed.digest
