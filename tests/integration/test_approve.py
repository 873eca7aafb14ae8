"""The customer's desk: a package and a receipt come in, an approval goes out."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from installer.approval import (
    parse_approval,
    parse_withdrawal,
    require_approved,
    write_approval,
)
from installer.bundle import Head
from installer.dossier import read_dossiers
from installer.errors import ApprovalError
from installer.fingerprint import Schema, schema_of
from installer.manifest import Manifest, parse_manifest
from installer.openpgp import open_envelope
from installer.policy import parse_policy
from installer.receipt import (
    FAILED,
    Failure,
    Lock,
    MeasuredApplication,
    MeasuredDatabase,
    Receipt,
    Retry,
    ScriptReceipt,
    write_receipt,
)
from installer.strict_json import moment
from installer.tree import Digest, digest_of
from packager.bundle_writer import write_bundle
from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from packager.package_reader import read_package
from tests.frontends import FRONT_ENDS, FrontEnd
from tests.hosts import Host
from tests.keys import Keyring
from tests.product import Product

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2]
LINT = SOURCE / "spec_templates/approval-rpmlint.toml"
ADA = "Ada Developer <ada@example.org>"
CUSTOMER = "The Customer <customer@example.org>"
OTHER = "Another Customer <other@example.org>"
FOLDER = "dist/crm-1.1.0-PRD"
RPM = "dist/crm-approval-prd-1.1.0-*.noarch.rpm"
DEB = "dist/crm-approval-prd_1.1.0-*_all.deb"
PLACE = "/etc/countersign/approvals/crm-1.1.0-PRD"
DAY = 24 * 60 * 60
BEGINS = "2026-01-31T08:00:00Z"

POLICY = """\
serial = 1
[[identity]]
name = "Ada"
role = "developer"
fingerprints = ["{ada}"]
[[identity]]
name = "The Customer"
role = "customer"
fingerprints = ["{customer}"]
[[identity]]
name = "Another Customer"
role = "customer"
fingerprints = ["{other}"]
[[identity]]
name = "qat1"
role = "host"
environment = "QAT"
fingerprints = ["{host}"]
[require.QAT]
developer = 1
[require.PRD]
developer = 1
customer = {customers}
receipt = true
max_approval_days = 30
[rotation]
developer = 1
"""


@dataclass(frozen=True)
class World:
    """Everybody's keys in one keyring, a package, and its manifest."""

    keys: Keyring
    ada: str
    customer: str
    other: str
    host: str
    packages: Path
    manifest: Manifest

    @property
    def rpm(self) -> Path:
        return self.packages / "crm-1.1.0-1.noarch.rpm"

    @property
    def deb(self) -> Path:
        return self.packages / "crm_1.1.0-1_all.deb"

    def schema(self, *, after: bool = False) -> Schema:
        rows = [
            ("structure", "table", "public.customers", "id bigint NOT NULL"),
            ("structure", "view", "public.recent", "SELECT 1"),
        ]
        if after:
            rows[0] = (*rows[0][:3], "id bigint NOT NULL, name text")
            rows[1:] = [("structure", "table", "public.orders", "id bigint")]
            rows.append(("privileges", "table", "public.orders", "reader=r"))
        return schema_of(15, rows)

    def database(self, **changes: Any) -> MeasuredDatabase:
        """What QAT tells of the database; `changes` as given."""
        assert self.manifest.database is not None
        new = self.manifest.database.scripts[-1]
        return replace(
            MeasuredDatabase(
                name="crm",
                system="7000000000000000000",
                version="15.8",
                ledger=digest_of(b"ledger"),
                milliseconds=1234,
                before=self.schema(),
                after=self.schema(after=True),
                scripts=(ScriptReceipt(new.name, new.digest, 1200, 42),),
                locks=(
                    Lock("public.recent", "AccessShareLock"),
                    Lock("public.customers", "AccessExclusiveLock"),
                ),
                created=("public.orders",),
                retries=(Retry("public.customers was locked by a report", 700),),
            ),
            **changes,
        )

    def receipt(self, **changes: Any) -> Receipt:
        """What QAT tells of the release; `changes` as given."""
        manifest = self.manifest
        return replace(
            Receipt(
                digest=Digest(""),
                product="crm",
                version="1.1.0",
                sequence=2,
                manifest=manifest.digest,
                package="crm-1.1.0-1.noarch",
                environment="QAT",
                host="qat1.example.org",
                installer="0.1.0",
                started=1769900000,
                finished=1769900007,
                outcome="installed",
                failure=None,
                database=self.database(),
                application=MeasuredApplication("/opt/crm", manifest.tree_digest or Digest("")),
            ),
            **changes,
        )


@dataclass(frozen=True)
class Desk:
    """The customer's folder, with a receipt and a keyring."""

    world: World
    folder: Path
    keys: Keyring

    def run(
        self, *arguments: str | Path, code: int = 0, stdin: int | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `countersign` in the folder; it has to end with `code`."""
        known = {"GNUPGHOME": str(self.keys.home), "PYTHONPATH": str(SOURCE), **environment}
        done = subprocess.run(
            [sys.executable, "-m", "packager", *arguments],
            cwd=self.folder,
            env=os.environ | known,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def approve(
        self,
        *more: str | Path,
        package: Path | None = None,
        key: str = "The Customer",
        **known: Any,
    ) -> subprocess.CompletedProcess[str]:
        wanted = ("--receipt", "QAT.json", "--environment", "PRD", "--yes", "--key", key)
        return self.run("approve", package or self.world.rpm, *wanted, *more, **known)

    def refused(self, *more: str | Path, code: int = 56, **known: Any) -> str:
        """What an approval is refused with; nothing may be written."""
        before = self.everything()
        words = self.approve(*more, code=code, **known).stderr
        assert self.everything() == before
        return words

    def everything(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.folder)): file.read_bytes() if file.is_file() else b""
            for file in self.folder.rglob("*")
        }

    def at(self, path: str) -> Path:
        return self.folder / path

    def newest(self, pattern: str) -> Path:
        """The package, or the folder of a withdrawal, whose name is the last of these."""
        *_, found = sorted(self.folder.glob(pattern))
        return found

    def signed_at(self, document: str, key: str) -> int:
        """When a document was signed, in seconds since 1970."""
        return open_envelope(self.at(f"{document}.{key}.asc").read_bytes()).created

    def put_receipt(self, receipt: Receipt) -> None:
        """The receipt and its signature, as they came from the host."""
        raw = write_receipt(receipt)
        self.at("QAT.json").write_bytes(raw)
        self.at("QAT.json.asc").write_bytes(self.world.keys.sign(raw, self.world.host))

    def put_policy(self, customers: int = 1) -> tuple[str, ...]:
        """The hosts' policy and keyring; returns the options that name them."""
        w = self.world
        known = {"ada": w.ada, "customer": w.customer, "other": w.other, "host": w.host}
        self.at("policy.toml").write_text(POLICY.format(customers=customers, **known))
        self.at("keyring.pgp").write_bytes(w.keys.export(list(known.values())))
        return ("--policy", "policy.toml", "--keyring", "keyring.pgp")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Keyring.create() as keys:
        names = (ADA, CUSTOMER, OTHER, "qat1 host <root@qat1.example.org>")
        ada, customer, other, host = (keys.new_key(name) for name in names)
        product = Product.create(tmp_path_factory.mktemp("product") / "crm")
        desk = Desk(None, product.folder, keys)  # type: ignore[arg-type]  # there is none yet
        desk.run("sign", "--key", ada)
        desk.run("build", "--format", "all")
        packages = product.folder / "dist"
        _, bundle = read_package(packages / "crm-1.1.0-1.noarch.rpm")
        manifest = parse_manifest(bundle.head.manifest)
        yield World(keys, ada, customer, other, host, packages, manifest)


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Desk:
    made = Desk(world, tmp_path, world.keys)
    made.put_receipt(world.receipt())
    return made


@pytest.fixture
def own_keys(world: World) -> Iterator[Keyring]:
    """A keyring with the secret key of the customer, and nothing else."""
    with Keyring.create() as keys:
        keys.gpg("--import", data=world.keys.gpg("--export-secret-keys", world.customer))
        yield keys


def said(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_approval_names_the_release_the_receipt_and_the_environment(desk: Desk) -> None:
    before = int(time.time())
    desk.approve()
    raw = desk.at(f"{FOLDER}/approval.json").read_bytes()
    approval = parse_approval(raw)

    assert (approval.product, approval.version, approval.sequence) == ("crm", "1.1.0", 2)
    assert approval.manifest == desk.world.manifest.digest
    assert approval.receipt == digest_of(desk.at("QAT.json").read_bytes())
    assert approval.environment == "PRD"
    assert before <= approval.not_before <= time.time()
    assert approval.expires - approval.not_before == 30 * DAY


def test_the_folder_has_what_a_host_reads_and_nothing_else(desk: Desk) -> None:
    desk.approve()
    folder = desk.at(FOLDER)
    signature = f"approval.json.{desk.world.customer}.asc"

    assert sorted(file.name for file in folder.iterdir()) == [
        "approval.json",
        signature,
        "receipt.json",
        "receipt.json.asc",
    ]
    assert (folder / "receipt.json").read_bytes() == desk.at("QAT.json").read_bytes()
    assert (folder / "receipt.json.asc").read_bytes() == desk.at("QAT.json.asc").read_bytes()
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
    assert folder.stat().st_mode & 0o777 == 0o755
    desk.world.keys.gpg("--verify", str(folder / signature), str(folder / "approval.json"))
    assert sorted(file.name for file in desk.at("dist").iterdir()) == [
        "crm-1.1.0-PRD",
        desk.newest(RPM).name,
    ]


def test_the_customer_is_shown_what_happened_in_words(desk: Desk) -> None:
    words = desk.approve("--not-before", BEGINS, "--days", "3650").stdout

    assert "You approve crm 1.1.0 for PRD" in words
    assert f"manifest  {desk.world.manifest.digest}" in words
    assert f"{ADA} {desk.world.ada}" in words
    assert "It was installed on qat1.example.org in QAT" in words
    assert f"qat1 host <root@qat1.example.org> {desk.world.host}" in words
    assert "1 of the release's 2 scripts ran, in 1.234 s" in words
    assert "sql/0002_orders.sql: 1.200 s, 42 rows" in words
    assert "created table public.orders\n    privileges: reader=r\n" in words
    assert "dropped view public.recent" in words
    assert "changed table public.customers" in words
    counts = "dropped 1 view; changed 1 table; set privileges of 1 table; created 1 table\n"
    assert f"in all: {counts}" in words
    assert "public.customers: ACCESS EXCLUSIVE: nobody else could read or write it" in words
    assert words.index("ACCESS EXCLUSIVE") < words.index("ACCESS SHARE")
    assert "0.700 s: public.customers was locked by a report" in words
    assert "from v1.0.0: 2 added, 1 changed, 1 removed" in words
    assert f"good from {BEGINS}" in words


def test_a_release_that_changed_nothing_in_the_database_is_shown_so(desk: Desk) -> None:
    same = desk.world.schema()
    nothing = desk.world.database(after=same, scripts=(), locks=(), retries=())
    desk.put_receipt(desk.world.receipt(database=nothing))

    words = desk.approve().stdout

    assert "none: they had all been applied before" in words
    assert "what changed in the schema\n  nothing\n" in words
    assert "locks on what was there before, for at most 1.234 s\n  none\n" in words
    assert "it had to wait" not in words


OTHER_DIGEST = digest_of(b"other")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"manifest": OTHER_DIGEST}, "QAT.json is the receipt of another manifest: crm 1.1.0"),
        (
            {"outcome": FAILED, "failure": Failure(33, "sql/0002_orders.sql failed")},
            "QAT.json is the receipt of an install that failed: sql/0002_orders.sql failed",
        ),
        ({"environment": "PRD"}, "QAT.json is from PRD itself"),
        ({"sequence": 3}, "QAT.json tells of this release what its manifest does not say"),
        ({"database": None}, "QAT.json tells of this release what its manifest does not say"),
        (
            {"application": MeasuredApplication("/opt/crm", OTHER_DIGEST)},
            "QAT.json tells of this release what its manifest does not say",
        ),
    ],
)
def test_a_receipt_that_does_not_speak_for_the_package_is_refused(
    desk: Desk, changes: Mapping[str, Any], words: str
) -> None:
    desk.put_receipt(desk.world.receipt(**changes))

    refused = desk.refused()

    assert words in refused
    assert "Nothing was signed or written." in refused


def test_a_script_that_is_not_in_the_release_is_no_receipt_of_it(desk: Desk) -> None:
    ran = (ScriptReceipt("sql/0002_orders.sql", OTHER_DIGEST, 1, 1),)
    desk.put_receipt(desk.world.receipt(database=desk.world.database(scripts=ran)))

    assert "tells of this release what its manifest does not say" in desk.refused()


def test_a_receipt_that_no_host_signed_is_refused(desk: Desk) -> None:
    desk.at("QAT.json.asc").unlink()

    refused = desk.refused()

    assert "QAT.json is not signed: there is no QAT.json.asc beside it" in refused
    assert "countersign-install init" in refused


def test_a_receipt_that_was_changed_after_it_was_signed_is_refused(desk: Desk) -> None:
    raw = desk.at("QAT.json").read_bytes()
    desk.at("QAT.json").write_bytes(raw.replace(b'"rows": 42', b'"rows": 43'))

    words = "error: QAT.json.asc does not fit what it lies beside: the signature does not match"
    assert words in desk.refused()
    assert "error: QAT.json.asc: the signature does not match" in desk.refused(*desk.put_policy())


def test_a_receipt_that_is_none_is_refused(desk: Desk) -> None:
    raw = b'{"type": "countersign-approval"}\n'
    desk.at("QAT.json").write_bytes(raw)
    desk.at("QAT.json.asc").write_bytes(desk.world.keys.sign(raw, desk.world.host))

    assert "not a countersign-receipt of format 1" in desk.refused()


def test_a_receipt_that_is_not_there_is_refused(desk: Desk) -> None:
    desk.at("QAT.json").unlink()

    assert "QAT.json: No such file or directory" in desk.refused()


def test_a_signature_named_after_its_key_is_taken_along(desk: Desk) -> None:
    name = f"QAT.json.{desk.world.host}.asc"
    desk.at("QAT.json.asc").rename(desk.at(name))
    desk.approve()

    copied = desk.at(f"{FOLDER}/receipt.json.{desk.world.host}.asc")
    assert copied.read_bytes() == desk.at(name).read_bytes()


def test_keys_that_are_not_known_here_are_a_warning(desk: Desk, own_keys: Keyring) -> None:
    done = desk.approve(GNUPGHOME=str(own_keys.home))

    for what, key in (("package", desk.world.ada), ("receipt", desk.world.host)):
        assert f"warning: the {what} is signed with {key}, which is not known here" in done.stderr
    assert f"not verified: a key that is not known here {desk.world.host}" in done.stdout
    assert desk.newest(RPM).exists()


def test_a_keyring_knows_what_gpg_does_not(desk: Desk, own_keys: Keyring) -> None:
    _, _, *keyring = desk.put_policy()

    done = desk.approve(*keyring, GNUPGHOME=str(own_keys.home))

    assert "warning" not in done.stderr
    assert f"a key in keyring.pgp {desk.world.host}" in done.stdout


def test_a_package_that_nobody_signed_is_refused(desk: Desk) -> None:
    _, bundle = read_package(desk.world.rpm)
    head = Head(bundle.head.manifest, {})
    content = b"".join(bundle.compressed.pieces())
    desk.at("bundle").write_bytes(write_bundle(head, content))

    assert "bundle is signed by no developer" in desk.refused(package=Path("bundle"))


def test_a_manifest_that_leaves_out_a_statement_is_not_approved(desk: Desk) -> None:
    _, bundle = read_package(desk.world.rpm)
    document = json.loads(bundle.head.manifest)
    del document["database"]["scripts"][1]["runs"][0]
    raw = json.dumps(document).encode()
    head = Head(raw, {desk.world.ada: desk.world.keys.sign(raw, desk.world.ada)})
    desk.at("bundle").write_bytes(write_bundle(head, b"".join(bundle.compressed.pieces())))
    desk.put_receipt(desk.world.receipt(manifest=parse_manifest(raw).digest))

    refused = desk.refused(package=Path("bundle"))

    assert "the manifest runs sql/0002_orders.sql otherwise than the script says" in refused
    assert "Do not sign or install this package" in refused


def test_a_package_that_is_damaged_is_refused(desk: Desk) -> None:
    raw = bytearray(desk.world.rpm.read_bytes())
    raw[len(raw) // 2] ^= 1
    desk.at("damaged.rpm").write_bytes(raw)

    desk.refused(package=Path("damaged.rpm"), code=21)


def test_a_deb_is_approved_like_an_rpm(desk: Desk) -> None:
    desk.approve("--not-before", BEGINS, "--days", "3650")
    approval = desk.at(f"{FOLDER}/approval.json").read_bytes()
    shutil.rmtree(desk.at("dist"))
    desk.approve("--not-before", BEGINS, "--days", "3650", package=desk.world.deb)

    assert desk.at(f"{FOLDER}/approval.json").read_bytes() == approval


def test_without_a_terminal_nothing_is_signed_unasked(desk: Desk) -> None:
    before = desk.everything()
    wanted = ("--receipt", "QAT.json", "--environment", "PRD", "--key", "The Customer")
    done = desk.run("approve", desk.world.rpm, *wanted, code=2)

    assert "there is no terminal to ask on; --yes signs without asking" in done.stderr
    assert desk.everything() == before


@pytest.mark.parametrize("answer, code", [("n", 130), ("y", 0)])
def test_on_a_terminal_the_customer_is_asked(desk: Desk, answer: str, code: int) -> None:
    wanted = ("--receipt", "QAT.json", "--environment", "PRD", "--key", "The Customer")
    terminal, stdin = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        done = desk.run("approve", desk.world.rpm, *wanted, code=code, stdin=stdin)
    finally:
        os.close(terminal)
        os.close(stdin)

    assert "You approve crm 1.1.0 for PRD" in done.stdout
    assert "Sign this? [y/N]" in done.stdout
    assert desk.at("dist").exists() == (answer == "y")


def test_a_customer_signs_with_nothing_but_gpg(desk: Desk, own_keys: Keyring) -> None:
    """Who prepares the folder has no key of the customer's; the customer has no countersign."""
    with Keyring.create() as desks:
        desks.gpg("--import", data=desk.world.keys.export([desk.world.customer]))
        home = str(desks.home)
        done = desk.approve("--unsigned", GNUPGHOME=home)
        assert "gpg --armor --detach-sign approval.json" in done.stdout
        assert f"install -d -o root -g root -m 0755 {PLACE}" in done.stdout
        assert sorted(file.name for file in desk.at("dist").iterdir()) == ["crm-1.1.0-PRD"]
        assert (
            "approval.json has no signature yet"
            in desk.run("companion", FOLDER, code=56, GNUPGHOME=home).stderr
        )

        folder = desk.at(FOLDER)
        text = (folder / "approval.json").read_text()
        assert f'"manifest": "{desk.world.manifest.digest}"' in text
        assert '"environment": "PRD"' in text
        gpg = ("gpg", "--batch", "--armor", "--detach-sign", folder / "approval.json")
        said(*gpg, GNUPGHOME=str(own_keys.home))
        built = desk.run("companion", FOLDER, "--format", "all", GNUPGHOME=home).stdout

    assert (folder / "approval.json.asc").exists()
    assert f"signed by {CUSTOMER} {desk.world.customer}" in built
    assert f"{PLACE}/approval.json.asc\n" in said("rpm", "-qpl", desk.newest(RPM))
    assert desk.newest(DEB).exists()
    assert accepted(desk, folder) == ["The Customer"]


def accepted(desk: Desk, *folders: Path, customers: int = 1) -> list[str]:
    """The customers in whose name a PRD host lets the release in, with these dossiers."""
    desk.put_policy(customers)
    approvals = desk.at("approvals")
    shutil.rmtree(approvals, ignore_errors=True)
    for folder in folders:
        shutil.copytree(folder, approvals / folder.name)
    manifest, now = desk.world.manifest, int(time.time())
    policy = parse_policy(desk.at("policy.toml").read_bytes())
    keyring = desk.at("keyring.pgp")
    dossiers = read_dossiers(approvals, manifest, policy, keyring, now, top=desk.folder)
    found = require_approved(manifest, policy, "PRD", dossiers, now)
    return [signer.name for signer in found.customers]


def test_several_customers_sign_the_same_approval(desk: Desk) -> None:
    desk.approve("--days", "20")
    first = desk.everything()
    with pytest.raises(ApprovalError):
        accepted(desk, desk.at(FOLDER), customers=2)

    done = desk.approve("--format", "all", key="Another Customer")

    second = f"{FOLDER}/approval.json.{desk.world.other}.asc"
    assert "Signed before by\n  The Customer" in done.stdout
    for name in (name for name in first if name.startswith(f"{FOLDER}/")):
        assert desk.at(name).read_bytes() == first[name]
    assert desk.at(second).exists()
    info = said("rpm", "-qpi", desk.newest(RPM))
    assert CUSTOMER in info
    assert OTHER in info
    assert accepted(desk, desk.at(FOLDER), customers=2) == ["The Customer", "Another Customer"]


def test_who_does_not_know_the_other_customer_signs_all_the_same(
    desk: Desk, own_keys: Keyring
) -> None:
    desk.approve(key="Another Customer")

    done = desk.approve(GNUPGHOME=str(own_keys.home))

    assert (
        f"approval.json is also signed with {desk.world.other}, which is not known" in done.stderr
    )
    assert accepted(desk, desk.at(FOLDER), customers=2) == ["The Customer", "Another Customer"]


def test_who_builds_the_package_does_not_matter(desk: Desk, own_keys: Keyring) -> None:
    """A signature that nobody here knows makes the same release number as one that is known."""
    desk.approve()
    time.sleep(1.1)  # a signature has the time in seconds
    desk.approve(key="Another Customer")
    known = desk.newest(RPM).name

    desk.run("companion", FOLDER, "-o", "elsewhere", GNUPGHOME=str(own_keys.home))

    assert desk.newest("elsewhere/*.rpm").name == known
    made = desk.signed_at(f"{FOLDER}/approval.json", desk.world.other)
    assert datetime.fromtimestamp(made, UTC).strftime("-%Y%m%d%H%M%S.3.noarch") in known


def test_a_signature_of_the_future_is_refused_even_if_nobody_knows_it(
    desk: Desk, own_keys: Keyring
) -> None:
    """Its package would be the newest for ever."""
    desk.approve()
    raw = desk.at(f"{FOLDER}/approval.json").read_bytes()
    signature = desk.world.keys.sign(raw, desk.world.other, created="20990101T000000")
    desk.at(f"{FOLDER}/approval.json.{desk.world.other}.asc").write_bytes(signature)

    home = str(own_keys.home)
    refused = desk.run("companion", FOLDER, "-o", "made", code=56, GNUPGHOME=home).stderr

    assert f"{desk.world.other}.asc was made in the future, at 2099-01-01T00:00:00Z" in refused
    assert not desk.at("made").exists()


def test_to_approve_again_changes_nothing(desk: Desk) -> None:
    desk.approve()
    before = desk.everything()
    time.sleep(1.1)  # a signature has the time in seconds
    desk.approve()

    assert desk.everything() == before


def test_an_approval_that_is_there_is_not_signed_for_other_times(desk: Desk) -> None:
    desk.approve("--days", "20")

    for times in (("--days", "21"), ("--not-before", BEGINS, "--days", "3650")):
        refused = desk.refused(*times, key="Another Customer")
        assert "dist/crm-1.1.0-PRD is good from 20" in refused
        assert "without --not-before and --days" in refused
    desk.approve("--days", "20", key="Another Customer")


def test_an_approval_by_another_receipt_is_not_signed_again(desk: Desk) -> None:
    desk.approve()
    desk.put_receipt(desk.world.receipt(host="qat2.example.org"))

    refused = desk.refused(key="Another Customer")

    assert "dist/crm-1.1.0-PRD approves another release, or by another receipt" in refused
    assert "move that folder away" in refused


def test_an_approval_that_has_expired_is_not_signed_again(desk: Desk) -> None:
    w = desk.world
    desk.approve()
    approval = parse_approval(desk.at(f"{FOLDER}/approval.json").read_bytes())
    old = write_approval(replace(approval, not_before=1769900000, expires=1769900001))
    desk.at(f"{FOLDER}/approval.json").write_bytes(old)
    signature = w.keys.sign(old, w.customer)
    desk.at(f"{FOLDER}/approval.json.{w.customer}.asc").write_bytes(signature)

    assert "dist/crm-1.1.0-PRD expired at 2026-01-31T22:53:21Z" in desk.refused()


def test_an_approval_whose_time_is_over_is_not_made(desk: Desk) -> None:
    assert "would have expired at 2026-01-05" in desk.refused(
        "--not-before", "2026-01-01", "--days", "4"
    )


@pytest.mark.parametrize("environment", ["P RD", "../PRD", ""])
def test_an_environment_has_a_name_that_policies_know(desk: Desk, environment: str) -> None:
    assert "environment is" in desk.refused("--environment", environment)


def test_without_a_key_nothing_is_signed(desk: Desk) -> None:
    assert "no secret key" in desk.refused(key="Nobody", code=53)


def test_what_the_policy_would_refuse_is_refused_before_it_is_signed(desk: Desk) -> None:
    policy = desk.put_policy()

    assert "PRD takes approvals for 30 days at most" in desk.refused(*policy, "--days", "31")
    text = desk.at("policy.toml").read_text()
    desk.at("policy.toml").write_text(f"{text}[require.DEV]\ndeveloper = 1\n")
    refused = desk.refused(*policy, "--environment", "LAB", code=10)
    assert "has no [require.LAB]" in refused
    other = text.replace(desk.world.host, "0" * 40)
    desk.at("policy.toml").write_text(other)
    refused = desk.refused(*policy, code=23)
    assert "its receipt is signed by no host that the policy names for QAT" in refused
    desk.at("policy.toml").write_text(text.replace(desk.world.ada, "0" * 40))
    assert "PRD requires 1 of role developer, found none" in desk.refused(*policy, code=20)


def test_the_policy_names_who_signed_and_who_is_missing(desk: Desk, own_keys: Keyring) -> None:
    home = str(own_keys.home)
    done = desk.approve(*desk.put_policy(customers=2), GNUPGHOME=home)

    assert f"Ada (developer) {desk.world.ada}" in done.stdout
    assert f"qat1 (host) QAT {desk.world.host}" in done.stdout
    assert "not enough yet: PRD requires an approval by 2 of role customer" in done.stderr
    assert "found 1 (The Customer)" in done.stderr
    done = desk.approve(*desk.put_policy(customers=1), GNUPGHOME=home)
    assert "not enough yet" not in done.stderr


def test_a_policy_needs_a_keyring_that_gpgv_reads(desk: Desk) -> None:
    policy = desk.put_policy()
    assert "--policy needs --keyring" in desk.refused(*policy[:2], code=2)
    desk.at("keyring.pgp").write_bytes(desk.world.keys.export([desk.world.ada], armour=True))
    assert "keyring.pgp is armoured" in desk.refused(*policy, code=10)
    desk.at("keyring.pgp").unlink()
    assert "keyring.pgp: No such file" in desk.refused(*policy, code=10)


@pytest.fixture
def signed(desk: Desk) -> Desk:
    """A desk with a signed folder and both companion packages."""
    desk.approve("--not-before", BEGINS, "--days", "3650", "--format", "all")
    return desk


def test_a_companion_rpm_tells_what_is_approved_by_whom_and_until_when(signed: Desk) -> None:
    package = signed.newest(RPM)
    info = said("rpm", "-qpi", package)

    assert "Summary     : Approval of crm 1.1.0 for PRD\n" in info
    assert f"Packager    : {CUSTOMER}\n" in info
    assert "Good from 2026-01-31T08:00:00Z until 2036-01-29T08:00:00Z\n" in info
    assert f"  {signed.world.manifest.digest}\n" in info
    assert f"  {CUSTOMER}\n    {signed.world.customer}\n" in info
    assert "countersign-installer >= 0.1.0\n" in said("rpm", "-qpR", package)
    assert said("rpm", "-qp", "--scripts", "--triggers", "--filetriggers", package) == ""
    times = said("rpm", "-qp", "--qf", "%{BUILDTIME}\n[%{FILEMTIMES}\n]", package).split()
    made = signed.signed_at(f"{FOLDER}/approval.json", signed.world.customer)
    assert {int(found) for found in times} == {made}
    number = datetime.fromtimestamp(made, UTC).strftime("%Y%m%d%H%M%S.2")
    assert package.name == f"crm-approval-prd-1.1.0-{number}.noarch.rpm"
    assert signed.newest(DEB).name == f"crm-approval-prd_1.1.0-{number}_all.deb"


def test_a_companion_deb_tells_the_same(signed: Desk, tmp_path: Path) -> None:
    package = signed.newest(DEB)
    info = said("dpkg-deb", "--info", package)

    version = package.name.split("_")[1]
    assert f" Package: crm-approval-prd\n Version: {version}\n Architecture: all\n" in info
    assert f" Maintainer: {CUSTOMER}\n" in info
    assert " Depends: countersign-installer (>= 0.1.0)\n" in info
    assert " Description: Approval of crm 1.1.0 for PRD\n" in info
    assert "Good from 2026-01-31T08:00:00Z until 2036-01-29T08:00:00Z\n" in info
    assert f"\n    {CUSTOMER}\n      {signed.world.customer}\n" in info
    said("dpkg-deb", "--control", package, tmp_path / "control")
    assert sorted(file.name for file in (tmp_path / "control").iterdir()) == ["control", "md5sums"]


def test_both_bring_the_folder_owned_by_root_and_not_writable_by_others(
    signed: Desk, tmp_path: Path
) -> None:
    folder = signed.at(FOLDER)
    listing = said("rpm", "-qplv", signed.newest(RPM)).splitlines()
    files = {line.split()[-1]: line.split()[0] for line in listing}
    assert files == {
        "/etc/countersign": "drwxr-xr-x",
        "/etc/countersign/approvals": "drwxr-xr-x",
        PLACE: "drwxr-xr-x",
        **{f"{PLACE}/{file.name}": "-rw-r--r--" for file in folder.iterdir()},
    }
    assert all(line.split()[2:4] == ["root", "root"] for line in listing)
    listing = said("dpkg-deb", "--contents", signed.newest(DEB)).splitlines()
    assert {line.split()[0] for line in listing} == {"drwxr-xr-x", "-rw-r--r--"}
    assert {line.split()[1] for line in listing} == {"root/root"}
    said("dpkg-deb", "--extract", signed.newest(DEB), tmp_path / "root")
    for file in folder.iterdir():
        assert (tmp_path / f"root{PLACE}/{file.name}").read_bytes() == file.read_bytes()


def test_no_file_is_one_that_a_package_manager_keeps(signed: Desk) -> None:
    flags = said("rpm", "-qp", "--qf", "[%{FILEFLAGS}\n]", signed.newest(RPM))

    assert set(flags.split()) == {"0"}


def test_the_same_folder_gives_the_same_packages(
    signed: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = [signed.newest(RPM), signed.newest(DEB)]
    first = [package.read_bytes() for package in packages]
    for package in packages:
        package.unlink()
    signed.at(FOLDER).rename(signed.at("elsewhere"))
    time.sleep(1.1)  # the times in it have a resolution of one second
    monkeypatch.setenv("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
    old = os.umask(0o077)
    try:
        signed.run("companion", "elsewhere", "--format", "all", TAR_OPTIONS="--format=pax")
    finally:
        os.umask(old)

    assert [package.read_bytes() for package in packages] == first


def test_a_package_of_an_approval_that_has_not_begun_is_the_same_every_time(desk: Desk) -> None:
    begins = moment(int(time.time()) + 5 * DAY)
    desk.approve("--not-before", begins, "--format", "all")
    packages = [desk.newest(RPM), desk.newest(DEB)]
    first = [package.read_bytes() for package in packages]
    time.sleep(1.1)
    desk.run("companion", FOLDER, "--format", "all")

    assert [package.read_bytes() for package in packages] == first


def test_rpmlint_and_lintian_find_nothing(signed: Desk, tmp_path: Path) -> None:
    desk, key = signed, signed.world.ada
    desk.run(
        "withdraw", FOLDER, "--reason", "totals are wrong", "--key", CUSTOMER, "--format", "all"
    )
    desk.run("companion", FOLDER, "--format", "all", "-o", "signed", "--package-key", key)
    for package in (*desk.folder.glob("*/*.rpm"), *desk.folder.glob("*/*.deb")):
        if package.suffix == ".rpm":
            assert "0 errors" in said("rpmlint", "--config", LINT, package)
        else:
            assert said("lintian", package, TMPDIR=str(tmp_path)) == ""


def test_a_package_key_signs_the_packages_as_files(signed: Desk, tmp_path: Path) -> None:
    key = signed.world.ada
    signed.run("companion", FOLDER, "--format", "all", "--package-key", key, "-o", "signed")
    database = ("--define", f"_dbpath {tmp_path / 'rpmdb'}")
    (tmp_path / "key.asc").write_bytes(signed.world.keys.export([key], armour=True))
    said("rpmkeys", *database, "--import", tmp_path / "key.asc")

    checked = said("rpmkeys", *database, "--checksig", signed.newest("signed/*.rpm"))
    members = said("ar", "t", signed.newest("signed/*.deb")).split()

    assert "signatures OK" in checked
    assert members[-1] == "_gpgorigin"


@pytest.mark.acceptance
@pytest.mark.parametrize("front", FRONT_ENDS, ids=lambda front: front.name)
def test_removing_the_package_removes_the_approval(
    signed: Desk, installers: Path, front: FrontEnd
) -> None:
    """A file that stayed in the folder would go on approving."""
    with Host.start("prd") as host:
        for package in (front.pick(installers), front.pick(signed.newest(RPM))):
            host.copy_in(package, f"/srv/{package.name}")
            done = host.run([*front.install, f"/srv/{package.name}"])
            assert done.returncode == 0, done.stdout + done.stderr
        place = host.at(PLACE)
        assert (place / "approval.json").read_bytes() == signed.at(
            f"{FOLDER}/approval.json"
        ).read_bytes()
        # Even what was changed there by hand: an editor is no reason to go on approving.
        (place / "approval.json").write_bytes(b"{}\n")
        done = host.run([*front.remove, "crm-approval-prd"])

        assert done.returncode == 0, done.stdout + done.stderr
        assert not place.exists()
        assert host.at("/etc/countersign").is_dir()


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installer's RPM; its DEB lies beside it."""
    folder = tmp_path_factory.mktemp("installer")
    build_installer_deb(folder)
    return build_installer(folder)


def countersigned(desk: Desk, version: str) -> Path:
    """The RPM of an approval of another version; its DEB lies beside it."""
    w, folder = desk.world, desk.at(f"crm-{version}-PRD")
    folder.mkdir()
    approval = parse_approval(desk.at(f"{FOLDER}/approval.json").read_bytes())
    raw = write_approval(replace(approval, version=version, receipt=None))
    (folder / "approval.json").write_bytes(raw)
    (folder / "approval.json.asc").write_bytes(w.keys.sign(raw, w.customer))
    desk.run("companion", folder.name, "--format", "all", "--output", version)
    return desk.newest(f"{version}/crm-approval-prd-{version}-*.noarch.rpm")


@pytest.mark.acceptance
@pytest.mark.parametrize("front", FRONT_ENDS, ids=lambda front: front.name)
def test_the_next_releases_approval_takes_the_place_of_the_last(
    signed: Desk, installers: Path, front: FrontEnd
) -> None:
    newer = countersigned(signed, "1.2.0")
    with Host.start("prd") as host:
        for package in (installers, signed.newest(RPM), newer):
            file = front.pick(package)
            host.copy_in(file, f"/srv/{file.name}")
            command = front.upgrade if package == newer else front.install
            done = host.run([*command, f"/srv/{file.name}"])
            assert done.returncode == 0, done.stdout + done.stderr
        approvals = [folder.name for folder in host.at(PLACE).parent.iterdir()]

        assert approvals == ["crm-1.2.0-PRD"]
        assert front.installed(host, "crm-approval-prd") == version_of(newer)


def cleared(desk: Desk) -> Desk:
    """The desk without the packages that it has."""
    for package in (*desk.folder.glob(RPM), *desk.folder.glob(DEB)):
        package.unlink()
    return desk


def version_of(package: Path) -> str:
    """Version and release of a companion's RPM, out of its name."""
    return package.name.removesuffix(".noarch.rpm").removeprefix("crm-approval-prd-")


@pytest.mark.acceptance
@pytest.mark.parametrize("front", FRONT_ENDS, ids=lambda front: front.name)
def test_what_is_signed_once_more_or_anew_is_an_ordinary_upgrade(
    signed: Desk, installers: Path, front: FrontEnd
) -> None:
    place = f"{PLACE}/approval.json"
    with Host.start("prd") as host:

        def bring(package: Path, command: Sequence[str]) -> None:
            file = front.pick(package)
            host.copy_in(file, f"/srv/{file.name}")
            done = host.run([*command, f"/srv/{file.name}"])
            assert done.returncode == 0, done.stdout + done.stderr

        bring(installers, front.install)
        bring(signed.newest(RPM), front.install)
        time.sleep(1.1)  # a signature has the time in seconds
        cleared(signed).approve("--format", "all", key="Another Customer")
        second = signed.newest(RPM)
        bring(second, front.upgrade)
        assert host.at(f"{place}.{signed.world.other}.asc").exists()
        assert front.installed(host, "crm-approval-prd") == version_of(second)

        signed.at(FOLDER).rename(signed.at("expired"))
        time.sleep(1.1)
        cleared(signed).approve("--format", "all")
        anew = signed.newest(RPM)
        bring(anew, front.upgrade)
        assert host.at(place).read_bytes() == signed.at(f"{FOLDER}/approval.json").read_bytes()
        assert not host.at(f"{place}.{signed.world.other}.asc").exists()
        assert front.installed(host, "crm-approval-prd") == version_of(anew)


def without_signature(_: Desk, folder: Path) -> str:
    for signature in folder.glob("approval.json.*"):
        signature.unlink()
    return "approval.json has no signature yet"


def changed(_: Desk, folder: Path) -> str:
    file = folder / "approval.json"
    file.write_bytes(file.read_bytes().replace(b'"PRD"', b'"DEV"'))
    return "the signature does not match"


def with_a_signature_of_something_else(desk: Desk, folder: Path) -> str:
    signature = desk.world.keys.sign(b"something else", desk.world.other)
    (folder / "approval.json.asc").write_bytes(signature)
    return "the signature does not match"


def with_a_binary_signature(_: Desk, folder: Path) -> str:
    (folder / "approval.json.sig").write_bytes(b"\x88")
    return "has approval.json.sig, which is neither a statement nor a signature of one"


def with_another_receipt(desk: Desk, folder: Path) -> str:
    desk.put_receipt(desk.world.receipt(host="qat2"))
    shutil.copy(desk.at("QAT.json"), folder / "receipt.json")
    return "receipt.json is not the one that approval.json names"


def without_receipt(_: Desk, folder: Path) -> str:
    (folder / "receipt.json").unlink()
    return "receipt.json.asc is there, but no receipt.json"


def with_an_unsigned_receipt(_: Desk, folder: Path) -> str:
    (folder / "receipt.json.asc").unlink()
    return "receipt.json has no signature of the host beside it"


def with_a_withdrawal(_: Desk, folder: Path) -> str:
    shutil.copy(folder / "approval.json", folder / "withdrawal.json")
    return "has both of approval.json and withdrawal.json"


def emptied(_: Desk, folder: Path) -> str:
    for file in folder.iterdir():
        file.unlink()
    return "has neither of approval.json and withdrawal.json"


def with_no_json(_: Desk, folder: Path) -> str:
    (folder / "approval.json").write_bytes(b"approved\n")
    return "approval.json: not strict JSON"


def removed(_: Desk, folder: Path) -> str:
    shutil.rmtree(folder)
    return "No such file or directory"


@pytest.mark.parametrize(
    "spoil",
    [
        without_signature,
        changed,
        with_a_signature_of_something_else,
        with_a_binary_signature,
        with_another_receipt,
        without_receipt,
        with_an_unsigned_receipt,
        with_a_withdrawal,
        emptied,
        with_no_json,
        removed,
    ],
    ids=lambda spoil: str(spoil.__name__),
)
def test_a_folder_that_hosts_would_not_accept_gets_no_package(
    signed: Desk, spoil: Callable[[Desk, Path], str]
) -> None:
    words = spoil(signed, signed.at(FOLDER))
    before = signed.everything()

    assert words in signed.run("companion", FOLDER, "-o", "made", code=56).stderr
    assert signed.everything() == before


def test_a_folder_that_only_a_stranger_signed_gets_no_package(signed: Desk) -> None:
    with Keyring.create() as nobody:
        home = str(nobody.home)
        done = signed.run("companion", FOLDER, "-o", "made", code=56, GNUPGHOME=home)

    assert f"was signed with {signed.world.customer}, which is not in gpg's keyring" in done.stderr
    assert "gpg --import" in done.stderr
    assert not signed.at("made").exists()


def test_what_fails_leaves_nothing_behind(desk: Desk) -> None:
    desk.refused("--package-key", "0" * 40, code=54)
    desk.refused("--package-key", "0" * 40, "--format", "deb", code=53)
    desk.approve()
    package = desk.newest(RPM)  # signed already, it keeps its name
    package.unlink()
    (package / "in the way").mkdir(parents=True)
    assert f"{package.name} cannot be written: Is a directory" in desk.refused(code=55)


WITHDRAWN = "dist/crm-1.1.0-PRD-withdrawal-????????????"
WITHDRAWAL_RPM = "dist/crm-withdrawal-prd-????????????-1.1.0-*.noarch.rpm"
WITHDRAWAL_DEB = "dist/crm-withdrawal-prd-????????????_1.1.0-*_all.deb"
WHY = ("--reason", "totals are wrong")


def test_a_withdrawal_takes_an_approval_back(signed: Desk) -> None:
    done = signed.run("withdraw", FOLDER, *WHY, "--key", "Another Customer", "--format", "all")
    raw = signed.newest(f"{WITHDRAWN}/withdrawal.json").read_bytes()
    withdrawal = parse_withdrawal(raw)

    assert f"signed by {OTHER} {signed.world.other}" in done.stdout
    assert withdrawal.approval == digest_of(signed.at(f"{FOLDER}/approval.json").read_bytes())
    assert (withdrawal.product, withdrawal.version) == ("crm", "1.1.0")
    assert (withdrawal.environment, withdrawal.reason) == ("PRD", "totals are wrong")
    with pytest.raises(ApprovalError) as refused:
        accepted(signed, signed.at(FOLDER), signed.newest(WITHDRAWN))
    assert "the approval was withdrawn" in refused.value.detail


def test_a_withdrawal_has_a_package_of_its_own(signed: Desk) -> None:
    signed.run("withdraw", FOLDER, *WHY, "--key", "The Customer", "--format", "all")
    package = signed.newest(WITHDRAWAL_RPM)
    info = said("rpm", "-qpi", package)
    approval = digest_of(signed.at(f"{FOLDER}/approval.json").read_bytes())[:12]

    assert f"Name        : crm-withdrawal-prd-{approval}\n" in info
    assert "Summary     : Withdrawal of the approval of crm 1.1.0 for PRD\n" in info
    assert "  totals are wrong\n" in info
    files = said("rpm", "-qpl", package)
    assert f"{PLACE}-withdrawal-{approval}/withdrawal.json\n" in files
    first = package.read_bytes()
    time.sleep(1.1)
    signed.run("companion", signed.newest(WITHDRAWN))
    assert package.read_bytes() == first
    info = said("dpkg-deb", "--info", signed.newest(WITHDRAWAL_DEB))
    assert f" Package: crm-withdrawal-prd-{approval}\n" in info
    assert "Withdrawal of the approval of crm" in info


@pytest.mark.acceptance
@pytest.mark.parametrize("front", FRONT_ENDS, ids=lambda front: front.name)
def test_a_later_withdrawal_leaves_an_earlier_one_on_the_host(
    signed: Desk, installers: Path, front: FrontEnd
) -> None:
    """An old approval that is brought back must find its withdrawal there."""
    withdraw = ("withdraw", FOLDER, *WHY, "--key", "The Customer", "--format", "all")
    signed.run(*withdraw, "-o", "first")
    signed.at(FOLDER).rename(signed.at("old"))
    signed.approve()
    signed.run(*withdraw, "-o", "second")
    packages = [signed.newest(f"{folder}/*.rpm") for folder in ("first", "second")]
    with Host.start("prd") as host:
        for package in (installers, *packages):
            file = front.pick(package)
            host.copy_in(file, f"/srv/{file.name}")
            done = host.run([*front.install, f"/srv/{file.name}"])
            assert done.returncode == 0, done.stdout + done.stderr
        brought = [file.read_bytes() for file in host.at(PLACE).parent.glob("*/withdrawal.json")]

        assert {parse_withdrawal(raw).approval for raw in brought} == {
            digest_of(signed.at(f"{folder}/approval.json").read_bytes())
            for folder in ("old", FOLDER)
        }


def test_a_withdrawal_is_signed_with_nothing_but_gpg(signed: Desk, own_keys: Keyring) -> None:
    done = signed.run("withdraw", FOLDER, *WHY, "--unsigned")
    assert "gpg --armor --detach-sign withdrawal.json" in done.stdout
    document = signed.newest(f"{WITHDRAWN}/withdrawal.json")
    gpg = ("gpg", "--batch", "--armor", "--detach-sign", document)
    said(*gpg, GNUPGHOME=str(own_keys.home))

    signed.run("companion", signed.newest(WITHDRAWN))

    assert signed.newest(WITHDRAWAL_RPM).exists()


def test_a_withdrawal_is_signed_by_one_more_customer(signed: Desk) -> None:
    signed.run("withdraw", FOLDER, *WHY, "--key", "The Customer")
    signed.run("withdraw", FOLDER, *WHY, "--key", "The Customer")
    signed.run("withdraw", FOLDER, *WHY, "--key", "Another Customer")

    assert len(list(signed.newest(WITHDRAWN).glob("*.asc"))) == 2
    before = signed.everything()
    other = ("--reason", "something else", "--key", "The Customer")
    refused = signed.run("withdraw", FOLDER, *other, code=56).stderr
    there = signed.newest(WITHDRAWN).relative_to(signed.folder)
    assert f"{there} has another withdrawal" in refused
    assert signed.everything() == before


@pytest.mark.parametrize(
    "folder, reason, words",
    [
        (FOLDER, "two\nlines", "reason is not one line of text"),
        (FOLDER, " ", "reason is not one line of text"),
        ("dist", "no approval", "dist/approval.json: No such file or directory"),
    ],
)
def test_what_is_no_withdrawal_is_not_written(
    signed: Desk, folder: str, reason: str, words: str
) -> None:
    before = signed.everything()
    given = ("withdraw", folder, "--reason", reason, "--key", "The Customer")

    assert words in signed.run(*given, code=56).stderr
    assert signed.everything() == before


def test_programs_get_json(desk: Desk) -> None:
    done = desk.approve("--json", "--format", "all", "--days", "20")
    approved = json.loads(done.stdout)
    built = json.loads(desk.run("companion", FOLDER, "--json").stdout)
    withdrawn = json.loads(
        desk.run("withdraw", FOLDER, *WHY, "--key", "The Customer", "--json").stdout
    )

    assert "You approve crm 1.1.0 for PRD" in done.stderr
    assert approved["folder"] == built["folder"] == FOLDER
    packages = [str(desk.newest(each).relative_to(desk.folder)) for each in (RPM, DEB)]
    assert approved["packages"] == packages
    assert built["packages"] == packages[:1]
    assert approved["signers"] == [{"fingerprint": desk.world.customer, "user_id": CUSTOMER}]
    assert approved["statement"]["environment"] == "PRD"
    assert approved["digest"] == digest_of(desk.at(f"{FOLDER}/approval.json").read_bytes())
    assert withdrawn["statement"]["approval"] == approved["digest"]
    assert withdrawn["document"] == "withdrawal.json"


def test_what_was_withdrawn_is_not_approved_again_but_anew(signed: Desk) -> None:
    times = ("--not-before", BEGINS, "--days", "3650")
    signed.run("withdraw", FOLDER, *WHY, "--key", "The Customer")
    assert f"{FOLDER} was withdrawn: totals are wrong" in signed.refused(key="Another Customer")
    signed.at(FOLDER).rename(signed.at("withdrawn"))
    refused = signed.refused(*times)
    assert "with other times it is another one" in refused
    signed.approve()

    assert accepted(signed, signed.at(FOLDER), signed.newest(WITHDRAWN)) == ["The Customer"]
    signed.run("withdraw", FOLDER, *WHY, "--key", "The Customer")
    withdrawn = list(signed.folder.glob(WITHDRAWN))
    assert len(withdrawn) == 2
    with pytest.raises(ApprovalError):
        accepted(signed, signed.at(FOLDER), *withdrawn)
