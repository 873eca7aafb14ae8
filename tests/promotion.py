"""A QAT host and a PRD host, and the customer between them who signs what goes across."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from installer.approval import Approval, Withdrawal, write_approval, write_withdrawal
from installer.manifest import Manifest, parse_manifest
from installer.receipt import parse_receipt
from installer.tree import Digest, digest_of
from packager.package_reader import read_package
from tests.developers import Developers, identity
from tests.frontends import RPM, FrontEnd
from tests.sites import Site

APPROVALS = "/etc/countersign/approvals"
RECEIPTS = "/var/lib/countersign/receipts"
DAY = 24 * 60 * 60
REQUIREMENTS = """\
[require.QAT]
developer = 1

[require.PRD]
developer = 2
customer = 1
receipt = true
max_approval_days = 30
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A receipt and its signature, as they were taken from a host."""

    raw: bytes
    signature: bytes

    @property
    def facts(self) -> dict[str, Any]:
        """The receipt, as any program reads it."""
        found: dict[str, Any] = json.loads(self.raw)
        return found


@dataclass(frozen=True, slots=True)
class Promotion:
    """The two hosts, and the customer's key."""

    developers: Developers
    qat: Site
    prd: Site
    customer: str

    @classmethod
    @contextmanager
    def start(
        cls, developers: Developers, installer: Path, front: FrontEnd = RPM
    ) -> Iterator["Promotion"]:
        """Both hosts, empty, each with a key of its own, under one policy."""
        customer = developers.keys.new_key("The Customer <customer@example.org>")
        with ExitStack() as stack:
            qat, prd = (
                stack.enter_context(
                    Site.start(
                        developers, installer, name=name.lower(), environment=name, front=front
                    )
                )
                for name in ("QAT", "PRD")
            )
            started = cls(developers, qat, prd, customer)
            started.agree_on_policy()
            yield started

    def agree_on_policy(self, chain: Sequence[str] = ("QAT", "PRD")) -> None:
        """Make the hosts' keys, and give both hosts the policy that names all keys.

        A `chain` of three has hosts in the one between, whose key is the QAT host's.
        """
        keys = {site: make_key(self.developers, site) for site in (self.qat, self.prd)}
        tested_on = chain[-2]
        policy = f"chain = {json.dumps(chain)}\n" + self.developers.policy(
            identity("The Customer", "customer", self.customer),
            identity("qat", "host", keys[self.qat], more=f'environment = "{tested_on}"'),
            identity("prd", "host", keys[self.prd], more='environment = "PRD"'),
            REQUIREMENTS,
        )
        keyring = self.developers.keyring(self.customer, *keys.values())
        for site in keys:
            site.trust(policy, keyring)

    def evidence(self, site: Site, version: str) -> Evidence:
        """The newest receipt of a version on a host."""
        *_, receipt = sorted(site.host.at(RECEIPTS).glob(f"*-{version}-*.json"))
        return Evidence(receipt.read_bytes(), receipt.with_name(f"{receipt.name}.asc").read_bytes())

    def approval(self, package: Path, evidence: Evidence, **other: object) -> Approval:
        """The approval of a package for PRD, from now for a week; `other` fields as given."""
        manifest = manifest_of(package)
        now = int(time.time())
        made = Approval(
            digest=Digest(""),
            product=manifest.product,
            version=manifest.version,
            sequence=manifest.sequence,
            manifest=manifest.digest,
            receipt=digest_of(evidence.raw),
            environment="PRD",
            not_before=now - 60,
            expires=now + 7 * DAY,
        )
        return replace(made, **other)  # type: ignore[arg-type]  # tests name the fields

    def place(
        self,
        approval: Approval | None,
        evidence: Evidence | None,
        *,
        signers: Sequence[str] | None = None,
        name: str = "crm",
    ) -> None:
        """Put a dossier onto the PRD host, the approval signed by the customer or by `signers`."""
        files: dict[str, bytes] = {}
        if approval:
            raw = write_approval(approval)
            files["approval.json"] = raw
            for key in [self.customer] if signers is None else signers:
                files[f"approval.json.{key}.asc"] = self.developers.keys.sign(raw, key)
        if evidence:
            files |= {"receipt.json": evidence.raw, "receipt.json.asc": evidence.signature}
        self.put(name, files)

    def withdraw(self, approval: Approval, signer: str, name: str = "withdrawn") -> None:
        """Put the withdrawal of an approval onto the PRD host."""
        withdrawal = Withdrawal(
            digest=Digest(""),
            approval=digest_of(write_approval(approval)),
            product=approval.product,
            version=approval.version,
            environment=approval.environment,
            reason="totals are wrong",
        )
        raw = write_withdrawal(withdrawal)
        signature = self.developers.keys.sign(raw, signer)
        self.put(name, {"withdrawal.json": raw, "withdrawal.json.asc": signature})

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """Write a folder below the PRD host's approvals."""
        folder = self.prd.host.at(f"{APPROVALS}/{name}")
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o644)

    def clear(self) -> None:
        """Take all dossiers off the PRD host."""
        for folder in self.prd.host.at(APPROVALS).iterdir():
            shutil.rmtree(folder)

    def promote(self, package: Path, version: str) -> None:
        """Install a package on QAT, approve it, and install it on PRD."""
        done = self.qat.upgrade(package) if version != "1.0" else self.qat.install(package)
        assert done.returncode == 0, done.stdout + done.stderr
        evidence = self.evidence(self.qat, version)
        self.place(self.approval(package, evidence), evidence)
        done = self.prd.upgrade(package) if version != "1.0" else self.prd.install(package)
        assert done.returncode == 0, done.stdout + done.stderr
        self.clear()


def make_key(developers: Developers, site: Site) -> str:
    """Let a host make its key; the keyring of the tests learns its public half."""
    done = site.installer("--json", "init")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    developers.keys.gpg("--import", data=site.host.at(said["public_key"]).read_bytes())
    fingerprint: str = said["fingerprint"]
    return fingerprint


def receipts(site: Site) -> list[dict[str, Any]]:
    """All receipts of a host, the oldest first; each is well-formed and has its signature."""
    found = sorted(site.host.at(RECEIPTS).glob("*.json"))
    for file in found:
        parse_receipt(file.read_bytes())
        assert file.with_name(f"{file.name}.asc").exists()
    return [json.loads(file.read_bytes()) for file in found]


def manifest_of(package: Path) -> Manifest:
    """The manifest in a package."""
    _, bundle = read_package(package)
    return parse_manifest(bundle.head.manifest)
