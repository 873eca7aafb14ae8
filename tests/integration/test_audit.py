"""A ledger that somebody with every right has changed: what the host finds, and an auditor."""

import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from installer.approval import Approval, Withdrawal, write_approval, write_withdrawal
from installer.audit import Audit, Scene, audit, audit_lines, database_of
from installer.audit_bundle import header
from installer.audit_export import write_bundle
from installer.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    DigestError,
    InstallerError,
    LedgerTamperedError,
    MalformedError,
    ScriptFailedError,
    SignatureError,
)
from installer.host_file import HostFile
from installer.host_key import HostKey
from installer.install import install
from installer.machine import Machine
from installer.policy import parse_policy
from installer.receipt import parse_receipt, write_receipt
from installer.report import Report
from installer.signatures import verify_signature
from installer.tree import Digest, digest_of
from packager.audit import verify
from packager.audit_reader import read_audit
from packager.package_reader import read_package
from tests.cluster import TIMEOUT, Cluster
from tests.developers import Developers, Draft, identity
from tests.integration.test_database import target
from tests.keys import Keyring

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TABLES = ["CREATE TABLE a (i int);\n", "CREATE TABLE b (i int);\n", "CREATE TABLE c (i int);\n"]
VERSIONS = ("1.0", "1.1", "1.2")
HASH_ANEW = """
DO $$
DECLARE
    entry countersign.ledger;
    old bigint;
    head text := '';
    number bigint := 0;
BEGIN
    FOR entry IN SELECT * FROM countersign.ledger ORDER BY id LOOP
        number := number + 1;
        old := entry.id;
        entry.id := number;
        entry.previous := head;
        entry.hash := countersign.hash_of(entry);
        UPDATE countersign.ledger SET id = entry.id, previous = entry.previous, hash = entry.hash
            WHERE id = old;
        head := entry.hash;
    END LOOP;
END $$;
"""
INSERT = """
INSERT INTO countersign.ledger SELECT (entry).* FROM (SELECT jsonb_populate_record(
    l, '{"id": 0, "hash": "", "event": "release failed"}') AS entry
FROM countersign.ledger AS l WHERE id = 2) AS made
"""
EXCHANGE = """
UPDATE countersign.ledger SET id = 9 WHERE id = 2;
UPDATE countersign.ledger SET id = 2 WHERE id = 3;
UPDATE countersign.ledger SET id = 3 WHERE id = 9;
"""
EDIT_AND_HASH = """
UPDATE countersign.ledger SET detail = 'x' WHERE id = 2;
UPDATE countersign.ledger AS l SET hash = countersign.hash_of(l) WHERE id = 2;
"""


@pytest.fixture(scope="module")
def developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developers]:
    with Keyring.create() as keys:
        yield Developers.create(keys, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def packages(developers: Developers) -> Mapping[str, Path]:
    """Releases of one table each, the one after the other; `broken` fails."""
    scripts = {f"sql/{number}.sql": sql for number, sql in enumerate(TABLES, 1)}
    found = {}
    for sequence, version in enumerate(VERSIONS, 1):
        files = dict(list(scripts.items())[:sequence])
        found[version] = developers.package(Draft(version, sequence, files, [developers.ada]))
    broken = {**scripts, "sql/4.sql": "SELECT 1 / 0;\n"}
    found["broken"] = developers.package(Draft("1.3", 4, broken, [developers.ada]))
    return found


@dataclass(frozen=True)
class Audited:
    """A host's side of a database, without the host."""

    folder: Path
    cluster: Cluster
    database: str
    scene: Scene
    packages: Mapping[str, Path]

    def install(self, version: str) -> None:
        time.sleep(1 - time.time() % 1)  # receipts have their times to the second
        _, bundle = read_package(self.packages[version])
        report = Report(self.scene.machine.state / "log")
        report.be_quiet()
        try:
            install(bundle, version, self.scene.machine, report)
        finally:
            if report._open:
                report._open.close()

    def tamper(self, sql: str) -> None:
        """Change the ledger as a superuser can, whom no trigger stops."""
        self.cluster.psql(f"SET session_replication_role = replica; {sql}", self.database)

    def audit(self) -> Audit:
        return audit("crm", self.scene)

    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.audit().findings}

    def pg(self, program: str, *arguments: str, data: bytes = b"") -> bytes:
        connection = f"--dbname={self.cluster.conninfo(self.database, 'postgres')}"
        command = [str(self.cluster.program(program)), *arguments, connection]
        return subprocess.run(
            command, input=data, capture_output=True, timeout=TIMEOUT, check=True
        ).stdout

    def restore(self, backup: bytes) -> None:
        self.pg("pg_restore", "--clean", "--if-exists", "--exit-on-error", data=backup)


@pytest.fixture(scope="module")
def prepared(
    cluster: Cluster, developers: Developers, packages: Mapping[str, Path]
) -> Iterator[Audited]:
    """A PRD host that has a key, with release 1.0 and 1.1."""
    with TemporaryDirectory(prefix="host-", dir="/tmp") as folder:  # an agent's socket lies below
        cluster.new_database("audited")
        cluster.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "audited")
        HostKey(Path(folder, "state/host-key")).create("prd1")
        configuration = Path(folder, "etc")
        configuration.mkdir()
        chain = 'chain = ["QAT", "PRD"]'
        customer = identity("The Customer", "customer", developers.mallory)
        text = f"{chain}\n{developers.policy(customer, QAT=1, PRD=1)}"
        (configuration / "policy.toml").write_text(text)
        (configuration / "keyring.pgp").write_bytes(developers.keyring(developers.mallory))
        made = at(Path(folder), cluster, "audited", packages)
        made.install("1.0")
        made.install("1.1")
        yield made


@pytest.fixture
def host(prepared: Audited) -> Iterator[Audited]:
    """A copy of that host, and of its database."""
    cluster = prepared.cluster
    number = cluster.psql("SELECT count(*) FROM pg_database")
    cluster.psql(f"CREATE DATABASE audited_{number} TEMPLATE audited OWNER crm_owner")
    cluster.psql(f"GRANT CREATE ON DATABASE audited_{number} TO countersign")
    with TemporaryDirectory(prefix="host-", dir="/tmp") as folder:
        shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
        yield at(Path(folder), cluster, f"audited_{number}", prepared.packages)


def at(folder: Path, cluster: Cluster, database: str, packages: Mapping[str, Path]) -> Audited:
    """The host whose files are in `folder`."""
    configuration, state = folder / "etc", folder / "state"
    policy = parse_policy((configuration / "policy.toml").read_bytes())
    here = HostFile("PRD", {"crm": target(cluster.conninfo(database))}, {})
    machine = Machine(policy, configuration / "keyring.pgp", here, state)
    scene = Scene(machine, int(time.time()), configuration, folder / "releases")
    return Audited(folder, cluster, database, scene, packages)


def test_a_ledger_that_nobody_touched_is_found_to_be_what_the_receipts_say(host: Audited) -> None:
    with pytest.raises(ScriptFailedError):
        host.install("broken")

    found = host.audit()

    assert found.findings == ()
    head = host.cluster.psql(
        "SELECT hash FROM countersign.ledger ORDER BY id DESC LIMIT 1", host.database
    )
    assert (found.chain.rows, found.chain.head) == (5, head)
    assert sorted(found.releases.values()) == ["crm-1.0", "crm-1.1"]
    assert (found.verdict.compared, found.facts["signed"]) == (3, 3)


@pytest.mark.parametrize(
    "change, kinds, words",
    [  # rows 1 and 2 are of release 1.0, rows 3 and 4 of 1.1
        ("UPDATE countersign.ledger SET host = 'elsewhere' WHERE id = 2", {"edited"}, "row 2 "),
        ("UPDATE countersign.ledger SET at = at + '1 h' WHERE id = 4", {"edited"}, "row 4 "),
        ("DELETE FROM countersign.ledger WHERE id = 1", {"missing"}, "row 1 is missing"),
        ("DELETE FROM countersign.ledger WHERE id IN (2, 3)", {"missing", "gone"}, "rows 2 to 3"),
        (
            INSERT,
            {"edited", "misplaced"},
            "row 0 is out of place",
        ),
        (
            EXCHANGE,
            {"edited", "unlinked"},
            "row 2 ",
        ),
        (
            EDIT_AND_HASH,
            {"unlinked", "rewritten"},
            "row 3 names another row before it: row 2 was edited and hashed anew",
        ),
        ("DELETE FROM countersign.ledger WHERE id > 2", {"cut", "absent"}, "with row 2 of"),
        ("DELETE FROM countersign.ledger WHERE id > 3", {"cut", "absent"}, "with row 3 of"),
        ("DROP SCHEMA countersign CASCADE", {"cut", "absent"}, "the ledger is empty"),
        (
            f"UPDATE countersign.ledger SET detail = 'x' WHERE id = 1; {HASH_ANEW}",
            {"rewritten"},
            "row 4, of that install, has another",
        ),
        (
            f"DELETE FROM countersign.ledger WHERE id = 3; {HASH_ANEW}",
            {"rewritten"},
            "row 3, of that install, has another",
        ),
        (
            f"DELETE FROM countersign.ledger WHERE version = '1.0'; {HASH_ANEW}",
            {"rewritten", "gone"},
            "it was taken out",
        ),
    ],
)
def test_what_a_superuser_changes_is_found_and_named(
    host: Audited, change: str, kinds: set[str], words: str
) -> None:
    host.tamper(change)

    findings = host.audit().findings

    assert {finding.kind for finding in findings} == kinds
    assert any(words in finding.text for finding in findings), findings


@pytest.mark.parametrize("role, words", [("countersign", "append-only"), ("crm_owner", "denied")])
@pytest.mark.parametrize(
    "change", ["UPDATE countersign.ledger SET host = ''", "DELETE FROM {}", "TRUNCATE {}"]
)
def test_the_roles_of_a_host_cannot_change_the_ledger(
    host: Audited, role: str, words: str, change: str
) -> None:
    sql = f"SET ROLE {role}; {change.format('countersign.ledger')}"

    with (
        psycopg.connect(host.cluster.conninfo(host.database)) as connection,
        pytest.raises(psycopg.Error, match=words),
    ):
        connection.execute(sql)

    assert (host.audit().chain.rows, host.audit().findings) == (4, ())


def test_an_old_backup_that_was_restored_ends_before_a_receipt(host: Audited) -> None:
    backup = host.pg("pg_dump", "--format=custom")
    host.install("1.2")

    host.restore(backup)

    (cut, absent) = host.audit().findings
    assert cut.kind == "cut"
    assert "crm 1.2 installed on" in cut.text
    assert "ends before it, with row 4 of" in cut.text
    assert "an old backup was restored" in cut.text
    assert absent.text == "crm 1.2 is installed here, and no row says that it was applied"


def test_an_old_backup_that_was_used_since_lacks_what_came_between(host: Audited) -> None:
    backup = host.pg("pg_dump", "--format=custom")
    with pytest.raises(ScriptFailedError):
        host.install("broken")
    host.restore(backup)
    host.install("1.2")

    (lost,) = host.audit().findings

    assert lost.kind == "restored"
    assert "crm 1.3 failed on" in lost.text


def test_a_receipt_that_was_changed_is_no_anchor_and_is_named(host: Audited) -> None:
    first, second = sorted((host.scene.machine.state / "receipts").glob("*.json"))
    first.write_bytes(first.read_bytes().replace(b'"rows": 0', b'"rows": 7'))
    second.with_name(f"{second.name}.asc").unlink()

    found = host.audit()

    (changed,) = found.findings
    assert changed.kind == "receipt"
    assert str(first) in changed.text
    assert "the signature does not match" in changed.text
    assert (found.verdict.compared, found.facts["signed"], found.verdict.without) == (1, 0, 1)


def test_the_receipt_in_an_approval_counts_where_it_speaks_of_this_database(host: Audited) -> None:
    receipts = host.scene.machine.state / "receipts"
    for file in receipts.glob("crm-1.1-*"):
        folder = host.scene.configuration / "approvals/brought"
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / ("receipt.json" + ".asc" * (file.suffix == ".asc")))
    assert host.audit().facts["signed"] == 2

    host.tamper("DELETE FROM countersign.ledger WHERE id > 2")

    cut, _ = host.audit().findings
    assert "approvals/brought/receipt.json" in cut.text


def test_a_receipt_that_somebody_else_signed_is_compared_and_does_not_count_as_signed(
    host: Audited, developers: Developers
) -> None:
    for file in (host.scene.machine.state / "receipts").glob("*.json"):
        signature = developers.keys.sign(file.read_bytes(), developers.ada)
        file.with_name(f"{file.name}.asc").write_bytes(signature)

    found = host.audit()

    assert (found.verdict.compared, found.facts["signed"]) == (2, 0)


def test_a_receipt_of_another_database_or_of_none_is_no_anchor(host: Audited) -> None:
    receipts = host.scene.machine.state / "receipts"
    one, other = sorted(receipts.glob("*.json"))
    receipt = parse_receipt(one.read_bytes())
    one.write_bytes(write_receipt(replace(receipt, digest=Digest(""), database=None)))
    receipt = parse_receipt(other.read_bytes())
    assert receipt.database
    elsewhere = replace(receipt.database, name="elsewhere")
    other.write_bytes(write_receipt(replace(receipt, digest=Digest(""), database=elsewhere)))

    found = host.audit()

    assert (found.verdict.compared, found.findings) == (0, ())
    assert found.verdict.without == 2


def test_a_person_reads_what_was_compared_and_what_to_do_next(host: Audited) -> None:
    assert database_of("crm", host.scene.machine) == "crm"
    *_, sound = audit_lines(host.audit())
    receipt, *_ = sorted((host.scene.machine.state / "receipts").glob("*"))
    receipt.unlink()
    host.tamper("DELETE FROM countersign.ledger WHERE id = 4")

    lines = audit_lines(host.audit())

    assert sound == "  nothing disagrees"
    assert lines[1:2] == ["  ledger    3 rows, 1 releases"]
    assert lines[3:5] == [
        "  receipts  1 compared, 1 of them signed",
        "  receipts  none of 1 releases that this host applied",
    ]
    assert lines[5].startswith("  cut: ")
    assert lines[-1] == LedgerTamperedError.hint


def test_a_product_that_is_not_installed_has_no_database_to_audit(host: Audited) -> None:
    with pytest.raises(ConfigurationError, match="no release of erp with a database is installed"):
        database_of("erp", host.scene.machine)


def as_copy(host: Audited, environment: str) -> Audited:
    """The same host, as if it were another environment's; its policy's chain ends with PRD."""
    machine = host.scene.machine
    other = replace(machine, host=replace(machine.host, environment=environment))
    return replace(host, scene=replace(host.scene, machine=other))


MADE_A_COPY = """
UPDATE countersign.database SET environment = 'QAT', since = now() + interval '1 minute';
UPDATE countersign.ledger SET detail = 'of another database' WHERE id = 1;
"""


def test_receipts_from_before_a_refresh_are_counted_and_are_no_finding(host: Audited) -> None:
    host.tamper(MADE_A_COPY + HASH_ANEW)

    found = as_copy(host, "QAT").audit()

    assert found.findings == ()
    assert (found.verdict.compared, found.verdict.before_copy) == (0, 2)
    assert "  receipts  2 from before this database became a copy, at 2" in "\n".join(
        audit_lines(found)
    )


def test_an_auditor_is_told_of_receipts_from_before_a_refresh(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    host.tamper(MADE_A_COPY + HASH_ANEW)

    bundle = bundle_of(as_copy(host, "QAT"))

    done = developers.countersign("audit", bundle, "--keyring", auditor)
    assert "2 receipts from before this database became a copy, at 2" in done.stdout


def test_the_last_environment_of_the_chain_is_nobody_s_copy(host: Audited) -> None:
    environment = "UPDATE countersign.database SET environment = 'PRD';"
    older = "UPDATE countersign.ledger SET environment = 'QAT' WHERE id = 1;"
    host.tamper(MADE_A_COPY + environment + older + HASH_ANEW)

    assert host.kinds() == {"rewritten"}


def test_a_database_without_a_ledger_has_nothing_to_disagree_with(
    host: Audited, cluster: Cluster
) -> None:
    cluster.new_database("empty_for_audit")
    target_of_it = target(cluster.conninfo("empty_for_audit"), name="other")
    machine = host.scene.machine
    both = {**machine.host.databases, "other": target_of_it}
    scene = replace(
        host.scene, machine=replace(machine, host=replace(machine.host, databases=both))
    )

    found = audit("other", scene)

    assert (found.findings, found.chain.rows, found.chain.head) == ((), 0, "")


def test_what_the_server_hashes_is_what_is_computed_here(host: Audited) -> None:
    odd = "".join(map(chr, range(1, 0x300))) + '\u2028\ud7ff\ufffd\U0001f600\\"'
    host.tamper(
        f"UPDATE countersign.ledger SET detail = $odd${odd}$odd$, "
        f"signers = ARRAY[$odd${odd}$odd$, ''], "
        "milliseconds = 9223372036854775807, rows = -1, sequence = 0, at = '0099-01-01 BC' "
        f"WHERE id = 2; {HASH_ANEW}"
    )

    found = host.audit()

    assert found.chain.is_sound
    assert {finding.kind for finding in found.findings} == {"rewritten", "gone"}


# The auditor's bundle


@pytest.fixture
def auditor(host: Audited, developers: Developers, tmp_path: Path) -> Path:
    """A keyring of the auditor's own, who knows the developers and the host."""
    keyring = tmp_path / "auditor.pgp"
    keyring.write_bytes(developers.keyring(developers.mallory) + host.scene.key.keyring())
    return keyring


def bundle_of(host: Audited) -> Path:
    """The auditor's bundle that the host writes."""
    output = host.folder / "crm.tar"
    write_bundle(output, "crm", "crm", host.scene)
    return output


def members_of(bundle: Path) -> dict[str, bytes]:
    """What stock tar sees."""
    with tarfile.open(bundle) as archive:
        assert all(member.isreg() and member.mode == 0o644 for member in archive)
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def packed(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members, in their order."""
    parts = (header(name, len(raw)) + raw + bytes(-len(raw) % 512) for name, raw in members.items())
    return b"".join([*parts, bytes(1024)])


def judged(archive: bytes, keyring: Path) -> None:
    """Verify an archive as `countersign audit` does."""
    bundle = read_audit(io.BytesIO(archive))
    verify(bundle, (keyring, keyring.read_bytes()), int(time.time()) + 1).require_sound()


def test_an_auditor_verifies_a_bundle_with_no_database(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    bundle = bundle_of(host)

    done = developers.countersign("audit", bundle, "--keyring", auditor)

    assert "4 rows, chain whole" in done.stdout
    assert "2 receipts compared" in done.stdout
    assert f"signed by this host {host.scene.key.fingerprint()}" in done.stdout
    assert f"signed by Ada (developer) {developers.ada}" in done.stdout
    assert "manifests/crm-1.0.json" in done.stdout.split("Not on the host")[1]
    assert done.stderr == ""


def test_a_bundle_holds_what_the_audit_goes_by_and_no_secret(host: Audited) -> None:
    found = members_of(bundle_of(host))

    names = [re.sub(r"\d{8}T\d{6}\.\d{3}Z|[0-9A-F]{40}", "*", name) for name in found]
    assert names == [
        "keyring.pgp",
        "ledger.jsonl",
        "manifests/crm-1.1.json",
        "manifests/crm-1.1.json.*.asc",
        "policy.toml",
        *("receipts/crm-1.0-*.json", "receipts/crm-1.0-*.json.asc"),
        *("receipts/crm-1.1-*.json", "receipts/crm-1.1-*.json.asc"),
        *("audit.json", "audit.json.asc"),
    ]
    said = json.loads(found["audit.json"])
    assert said["missing"] == ["manifests/crm-1.0.json"]
    assert said["ledger"]["rows"] == 4
    with Keyring.create() as keys:
        keys.gpg("--import", data=found["keyring.pgp"])
        assert not keys.gpg("--list-secret-keys")


def test_the_same_ledger_gives_the_same_bundle(host: Audited) -> None:
    first, second = (bundle_of(host).read_bytes() for _ in range(2))

    signature = first.index(b"audit.json.asc")  # which has the time at which it was made
    assert first[:signature] == second[:signature]


def test_manifests_of_installed_packages_go_into_the_bundle(host: Audited) -> None:
    for version in ("1.0", "broken"):  # which the ledger does not have
        head = read_package(host.packages[version])[1].head
        folder = host.scene.releases / f"crm-{version}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(head.manifest)
        for label, signature in head.signatures.items():
            (folder / f"manifest.json.{label}.asc").write_bytes(signature)

    found = members_of(bundle_of(host))

    names = [name for name in found if re.fullmatch(r"manifests/[^/]*\.json", name)]
    assert names == ["manifests/crm-1.0.json", "manifests/crm-1.1.json"]
    assert json.loads(found["audit.json"])["missing"] == []


def dossier(host: Audited, folder: str, developers: Developers, signer: str) -> Path:
    """An approval of 1.1 and a withdrawal, signed with a key, and the host's own receipt."""
    _, receipt = sorted((host.scene.machine.state / "receipts").glob("*.json"))
    seen = parse_receipt(receipt.read_bytes())
    release = (seen.product, seen.version, seen.sequence, seen.manifest, seen.digest)
    approval = Approval(Digest(""), *release, "PRD", seen.started, seen.started + 9)
    withdrawal = Withdrawal(Digest(""), Digest("a" * 64), "crm", "1.1", "PRD", "too slow")
    brought = host.scene.configuration / "approvals" / folder
    brought.mkdir(parents=True)
    for name, raw in {
        "approval.json": write_approval(approval),
        "withdrawal.json": write_withdrawal(withdrawal),
    }.items():
        (brought / name).write_bytes(raw)
        (brought / f"{name}.{signer}.asc").write_bytes(developers.keys.sign(raw, signer))
    shutil.copy(receipt, brought / "receipt.json")
    shutil.copy(f"{receipt}.asc", brought / "receipt.json.asc")
    return brought


def test_approvals_go_into_the_bundle_with_who_signed_them(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    brought = dossier(host, "crm-1.1-PRD", developers, developers.mallory)
    (brought / "notes.txt").write_text("not for auditors\n")
    (brought.parent / ("x" * 200)).mkdir()
    (brought.parent / ("x" * 200) / "approval.json").write_text("{}")

    bundle = bundle_of(host)

    found = members_of(bundle)
    for file in brought.glob("*.json"):
        assert found[f"approvals/crm-1.1-PRD/{file.name}"] == file.read_bytes()
    assert json.loads(found["audit.json"])["missing"] == [
        "approvals/crm-1.1-PRD/notes.txt",
        f"approvals/{'x' * 200}/approval.json",
        "manifests/crm-1.0.json",
    ]
    done = developers.countersign("audit", bundle, "--keyring", auditor)
    said = done.stdout.split("approvals/crm-1.1-PRD/")[1:]
    customer = f"signed by The Customer (customer) {developers.mallory}"
    assert [part.split("\n")[0] for part in said[:3]] == [
        "approval.json",
        "receipt.json",
        "withdrawal.json",
    ]
    assert customer in said[0]
    assert customer in said[2]
    assert "3 receipts compared" in done.stdout


def test_an_approval_that_no_customer_signed_is_told(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    dossier(host, "crm-1.1-PRD", developers, developers.ada)

    with pytest.raises(SignatureError) as refused:
        judged(bundle_of(host).read_bytes(), auditor)

    assert refused.value.detail.split("\n") == [
        f"  unsigned: approvals/crm-1.1-PRD/{name}.json (crm 1.1 for PRD) "
        "has no signature that counts"
        for name in ("approval", "withdrawal")
    ]


@pytest.mark.parametrize(
    "file, old, new, refusal, words",
    [
        ("approval.json", b"PRD", b"QAT", SignatureError, "signature: .*does not match"),
        ("approval.json", b'"PRD"', b"7", LedgerTamperedError, "malformed: approvals/.*text|str"),
        ("receipt.json", b'"rows": 0', b'"rows": 7', LedgerTamperedError, "receipt: approvals/"),
    ],
)
def test_a_document_that_was_changed_on_the_host_counts_for_nothing_and_is_named(
    *,
    host: Audited,
    developers: Developers,
    auditor: Path,
    file: str,
    old: bytes,
    new: bytes,
    refusal: type[InstallerError],
    words: str,
) -> None:
    changed = dossier(host, "crm-1.1-PRD", developers, developers.mallory) / file
    changed.write_bytes(changed.read_bytes().replace(old, new))
    for signature in changed.parent.glob(f"{file}.*asc") if words.startswith("malformed") else ():
        signature.unlink()

    with pytest.raises(refusal) as refused:
        judged(bundle_of(host).read_bytes(), auditor)

    assert re.search(words, refused.value.detail)


def test_what_the_host_finds_the_auditor_finds(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    host.tamper(f"UPDATE countersign.ledger SET detail = 'x' WHERE id = 1; {HASH_ANEW}")
    bundle = bundle_of(host)

    done = developers.countersign("audit", bundle, "--keyring", auditor, "--json", check=False)

    assert done.returncode == 42
    assert {f["kind"] for f in json.loads(done.stdout)["findings"]} == {"rewritten"}
    assert "row 4, of that install, has another" in done.stderr


def test_a_script_that_the_signed_manifest_does_not_have_is_found(
    host: Audited, auditor: Path
) -> None:
    host.tamper(f"UPDATE countersign.ledger SET script = 'sql/0.sql' WHERE id = 3; {HASH_ANEW}")

    with pytest.raises(LedgerTamperedError) as refused:
        judged(bundle_of(host).read_bytes(), auditor)

    assert "script: row 3: crm 1.1 has no script sql/0.sql of this digest" in refused.value.detail


def without(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {n: raw for n, raw in members.items() if not re.match(name, n)}


def unlisted(members: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Without a member, and without a word of it."""
    said = json.loads(members["audit.json"])
    said["files"] = [file for file in said["files"] if not re.match(name, file["name"])]
    return without(members, name) | {"audit.json": json.dumps(said).encode()}


def swapped(members: dict[str, bytes]) -> dict[str, bytes]:
    one, other = (n for n in members if re.match(r"receipts/.*\.json$", n))
    return members | {one: members[other], other: members[one]}


def after(members: dict[str, bytes], name: str, raw: bytes) -> dict[str, bytes]:
    """With one more member in its place."""
    added = {**members, name: raw}
    return {n: added[n] for n in sorted(added, key=lambda n: (n.startswith("audit.json"), n))}


@pytest.mark.parametrize(
    "change, refusal, words",
    [
        (lambda m: without(m, "receipts/crm-1.0"), MalformedError, "receipts/crm-1.0.* is missing"),
        (
            lambda m: unlisted(m, "receipts/crm-1.0"),
            SignatureError,
            "audit.json.asc: the signature",
        ),
        (lambda m: without(m, "audit.json.asc"), SignatureError, "audit.json.asc is missing"),
        (lambda m: without(m, "audit.json$"), MalformedError, "has no audit.json"),
        (lambda m: without(m, "ledger"), MalformedError, "has no ledger.jsonl"),
        (swapped, DigestError, "receipts/crm-1.0.* is not the one that audit.json names"),
        (lambda m: m | {"ledger.jsonl": b""}, DigestError, "ledger.jsonl is not the one"),
        (lambda m: after(m, "receipts/x.json", b"{}"), MalformedError, "x.json is not in audit"),
        (lambda m: after(m, "receipts/x.txt", b""), MalformedError, "has no place"),
        (lambda m: after(m, "receipts/../x.json", b""), MalformedError, "has no place"),
        (lambda m: {"/etc/x.json": b"", **m}, MalformedError, "has no place"),
        (lambda m: dict(reversed(m.items())), MalformedError, "is out of place"),
        (lambda m: m | {"audit.json": b"{}"}, MalformedError, "type is missing"),
        (lambda m: m | {"audit.json.asc": bytes(20_000)}, MalformedError, "more than 16384"),
    ],
)
def test_a_bundle_that_was_changed_on_its_way_is_refused(
    host: Audited,
    auditor: Path,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    refusal: type[InstallerError],
    words: str,
) -> None:
    members = members_of(bundle_of(host))

    with pytest.raises(refusal, match=words):
        judged(packed(change(members)), auditor)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda raw: raw[:-512], "does not end"),
        (lambda raw: raw + bytes(512), "does not end"),
        (lambda raw: raw[:700], "truncated"),
        (lambda raw: raw[:512] + raw, "truncated|out of place|no place|form"),
        (lambda _: b"", "no tar archive"),
        (lambda raw: raw.replace(b"0000644", b"0000755", 1), "of another form"),
        (lambda raw: raw[:156] + b"2" + raw[157:], "of another form"),
    ],
)
def test_an_archive_of_another_form_is_refused(
    host: Audited, auditor: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    raw = bundle_of(host).read_bytes()

    with pytest.raises(MalformedError, match=words):
        judged(change(raw), auditor)


def test_every_bit_that_is_flipped_is_noticed(host: Audited, auditor: Path) -> None:
    """In the signature it is refused, or the signature is the same; everywhere else refused."""
    raw = bundle_of(host).read_bytes()
    signature = raw.index(b"audit.json.asc")
    for offset in range(0, signature, 499):
        flipped = bytearray(raw)
        flipped[offset] ^= 1 << offset % 8
        with pytest.raises(InstallerError):
            judged(bytes(flipped), auditor)
    text = raw.index(b"-----BEGIN", signature)
    for offset in range(text + 60, raw.index(b"-----END", text), 17):
        flipped = bytearray(raw)
        flipped[offset] ^= 1 << offset % 8
        with suppress(SignatureError, MalformedError):
            judged(bytes(flipped), auditor)
            assert verified_signer(bytes(flipped), auditor) == host.scene.key.fingerprint()


def verified_signer(archive: bytes, keyring: Path) -> str:
    bundle = read_audit(io.BytesIO(archive))
    signature, signed = bundle.read("audit.json.asc"), bundle.read("audit.json")
    return verify_signature(signature, signed, keyring, int(time.time()) + 1).primary


def resigned(host: Audited, members: dict[str, bytes], **says: object) -> bytes:
    """The archive as only the host, or who has its key, can make it."""
    said = json.loads(members["audit.json"]) | says
    raw = json.dumps(said).encode()
    key = host.scene.key
    return packed(members | {"audit.json": raw, "audit.json.asc": key.sign(raw)})


def test_a_list_that_does_not_fit_what_it_lists_is_refused_whoever_signed(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    members = members_of(bundle_of(host))
    files = json.loads(members["audit.json"])["files"]

    def refused(error: type[InstallerError], words: str, **says: object) -> None:
        with pytest.raises(error) as found:
            judged(resigned(host, members, **says), auditor)
        assert words in f"{found.value}\n{found.value.detail}"

    ledger = {"rows": 3, "head": ""}
    refused(LedgerTamperedError, "statement: audit.json says that the ledger has 3", ledger=ledger)
    refused(MalformedError, "the same name twice", files=[*files, files[0]])
    refused(MalformedError, "which is no product's name", product="CRM")
    refused(MalformedError, "host_key is not a fingerprint", host_key="0")
    refused(SignatureError, "not by the host's key", host_key=developers.ada)
    refused(SignatureError, "audit.json is not signed by a key of its own host", host_key=None)


def test_a_signature_of_nothing_is_refused(host: Audited, auditor: Path) -> None:
    members = members_of(bundle_of(host))
    files = json.loads(members["audit.json"])["files"]
    name = "receipts/x.json.asc"
    files = sorted([*files, {"name": name, "digest": digest_of(b"")}], key=lambda f: f["name"])

    with pytest.raises(MalformedError, match="is the signature of nothing in the bundle"):
        judged(resigned(host, after(members, name, b""), files=files), auditor)


def test_a_manifest_of_no_release_in_the_ledger_is_found(host: Audited, auditor: Path) -> None:
    members = members_of(bundle_of(host))
    head = read_package(host.packages["broken"])[1].head
    (signature,) = head.signatures.values()
    name = "manifests/crm-1.3.json"
    added = after(after(members, name, head.manifest), f"{name}.asc", signature)
    listed = [n for n in added if not n.startswith("audit.json")]
    files = [{"name": n, "digest": digest_of(added[n])} for n in listed]

    with pytest.raises(LedgerTamperedError) as refused:
        judged(resigned(host, added, files=files), auditor)

    assert "manifest: no row says that crm 1.3 was applied" in refused.value.detail


def test_a_bundle_that_is_not_there_is_refused(developers: Developers, tmp_path: Path) -> None:
    done = developers.countersign("audit", tmp_path / "nowhere.tar", check=False)

    assert done.returncode == 21
    assert "nowhere.tar: No such file" in done.stderr


def test_without_a_keyring_of_their_own_auditors_are_told_what_it_shows(
    host: Audited, developers: Developers
) -> None:
    done = developers.countersign("audit", bundle_of(host))

    assert "the keys are the bundle's own: this shows that it agrees with itself" in done.stderr


def test_keys_that_the_auditor_does_not_know_do_not_count(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    bundle = bundle_of(host)
    auditor.write_bytes(host.scene.key.keyring())
    done = developers.countersign("audit", bundle, "--keyring", auditor, check=False)
    assert done.returncode == 20
    assert "unsigned: manifests/crm-1.1.json (crm 1.1) has no signature that counts" in done.stderr

    auditor.write_bytes(developers.keyring())
    done = developers.countersign("audit", bundle, "--keyring", auditor, check=False)

    assert done.returncode == 20
    assert "audit.json.asc: the keyring does not hold the key" in done.stderr


def test_a_host_without_a_key_writes_a_bundle_that_only_agrees_with_itself(
    host: Audited, developers: Developers, auditor: Path
) -> None:
    shutil.rmtree(host.folder / "state/host-key")
    bundle = bundle_of(host)

    own = developers.countersign("audit", bundle)
    done = developers.countersign("audit", bundle, "--keyring", auditor, check=False)

    assert "audit.json is not signed: the host has no key" in own.stderr
    assert done.returncode == 20
    assert "audit.json is not signed" in done.stderr


def test_a_bundle_that_cannot_be_written_leaves_nothing(host: Audited) -> None:
    output = host.folder / "crm.tar"
    host.cluster.psql(f"ALTER DATABASE {host.database} RENAME TO elsewhere_for_a_while")

    with pytest.raises(DatabaseUnavailableError):
        write_bundle(output, "crm", "crm", host.scene)

    assert sorted(file.name for file in host.folder.iterdir()) == ["etc", "state"]


def test_a_bundle_takes_the_place_of_an_older_one_and_only_its_owner_reads_it(
    host: Audited,
) -> None:
    (host.folder / "crm.tar").write_text("older\n")

    bundle = bundle_of(host)

    assert bundle.stat().st_mode & 0o777 == 0o600
    assert "audit.json" in members_of(bundle)
    assert sorted(file.name for file in host.folder.iterdir()) == ["crm.tar", "etc", "state"]


@pytest.mark.usefixtures("auditor")  # whose keyring the commands name
def test_the_documented_commands_verify_a_bundle_with_stock_tools(
    host: Audited, tmp_path: Path
) -> None:
    by_hand = (ROOT / "docs/how-to/audit.md").read_text().split("## By hand")[1]
    commands = "set -e\n" + "".join(re.findall(r"```sh\n(.*?)```", by_hand, re.DOTALL))
    shutil.copy(bundle_of(host), tmp_path / "crm-prd.tar")

    def run() -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", commands]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )

    sound = run()
    members = members_of(tmp_path / "crm-prd.tar")
    edited = members["ledger.jsonl"].replace(b'"rows": 0', b'"rows": 1', 1)
    (tmp_path / "crm-prd.tar").write_bytes(packed(members | {"ledger.jsonl": edited}))
    changed = run()

    assert sound.returncode == 0, sound.stderr
    assert re.fullmatch(r"4 rows, head [0-9a-f]{64}\n", sound.stdout)
    assert sound.stderr.count("Good signature") == 4
    assert changed.returncode != 0
    assert "ledger.jsonl: FAILED" in changed.stdout
