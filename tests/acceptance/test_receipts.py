"""What a host keeps of an install: the receipt, and the schema to compare with it.

The package manager has no part in any of this: each test runs with one.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from packager.package_reader import read_package
from tests.acceptance import releases
from tests.developers import Developers
from tests.promotion import RECEIPTS, make_key, receipts
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance


@pytest.fixture
def qat(rpm_site: Site, developers: Developers) -> Site:
    """A host that has a key."""
    make_key(developers, rpm_site)
    return rpm_site


def test_a_receipt_says_what_was_installed_where_and_what_it_did(
    qat: Site, first: Path, second: Path
) -> None:
    assert qat.install(first).returncode == 0
    assert qat.upgrade(second).returncode == 0

    _, receipt = receipts(qat)
    ledger = qat.ledger()
    assert receipt["release"]["version"] == "1.1"
    assert receipt["release"]["manifest"] == ledger[-1]["manifest"]
    assert (receipt["package"], receipt["host"]) == ("crm-1.1-1.noarch", "qat")
    assert (receipt["environment"], receipt["outcome"]) == ("QAT", "installed")
    database = receipt["database"]
    assert [(script["name"], script["rows"]) for script in database["scripts"]] == [
        ("sql/0003_totals.sql", 0),
        ("sql/0004_notes.sql", 2),
    ]
    assert database["ledger"] == ledger[-1]["hash"]
    assert database["system"] == qat.sql("SELECT system_identifier FROM pg_control_system()")
    assert {"relation": "public.orders", "mode": "AccessExclusiveLock"} in database["locks"]
    assert "public.note" in database["created"]
    changed = {(c["kind"], c["name"]) for c in database["schema"]["changes"]}
    assert ("table", "public.note") in changed
    assert ("column", "public.orders.total") in changed


def test_nothing_to_do_leaves_no_receipt(qat: Site, first: Path) -> None:
    qat.install(first)

    assert qat.install_again(first).returncode == 0

    assert len(receipts(qat)) == 1


def test_a_failed_install_has_a_receipt_of_what_ran_before_and_why_it_failed(
    qat: Site, developers: Developers, first: Path
) -> None:
    qat.install(first)
    broken = {"sql/0004_notes.sql": "SELECT nope;\n"}
    draft = releases.with_files(releases.second(developers), "broken", broken)

    refused(qat, developers.package(draft), 33)

    _, receipt = receipts(qat)
    assert receipt["outcome"] == "failed"
    assert receipt["failure"]["exit_code"] == 33
    assert "sql/0004_notes.sql:1" in receipt["failure"]["message"]
    database = receipt["database"]
    assert [script["name"] for script in database["scripts"]] == ["sql/0003_totals.sql"]
    assert database["schema"]["changes"] == []
    assert database["ledger"] == qat.ledger()[-1]["hash"]
    assert receipt["application"] is None


def test_an_install_that_recover_finishes_has_its_receipt(
    qat: Site, first: Path, second: Path
) -> None:
    qat.install(first)
    obstacle = qat.host.at("/opt/crm") / ".current.new"
    obstacle.mkdir()
    assert qat.upgrade(second).returncode != 0
    assert len(receipts(qat)) == 1  # it is not over yet
    obstacle.rmdir()

    assert qat.installer("recover").returncode == 0

    _, receipt = receipts(qat)
    assert receipt["outcome"] == "installed"
    assert receipt["application"]["tree"]
    assert len(receipt["database"]["scripts"]) == 2


def test_a_receipt_that_could_not_be_written_fails_nothing_and_is_written_next_time(
    qat: Site, first: Path, second: Path
) -> None:
    folder = qat.host.at(RECEIPTS)
    folder.rmdir()
    folder.symlink_to("/nowhere/to/be/found")
    done = qat.install(first)
    assert done.returncode == 0
    assert "the receipt is not written, and stays in" in done.stdout + done.stderr
    folder.unlink()

    assert qat.upgrade(second).returncode == 0

    assert [receipt["release"]["version"] for receipt in receipts(qat)] == ["1.0", "1.1"]


def test_the_receipt_of_an_install_that_was_cut_short_before_commit_is_never_signed(
    qat: Site, first: Path, second: Path
) -> None:
    qat.install(first)
    (receipt,) = qat.host.at(RECEIPTS).glob("*.json")
    state = qat.host.at("/var/lib/countersign/crm")
    _, bundle = read_package(second)
    # What is on the disk when the installer dies after it has kept the receipt, and before COMMIT.
    (state / "pending").write_bytes(bundle.head.serialise())
    (state / "crm-1.1-20260101T000000.000Z.json").write_bytes(receipt.read_bytes())

    assert qat.upgrade(second).returncode == 0

    names = sorted(path.name for path in qat.host.at(RECEIPTS).glob("*.json"))
    assert len(names) == 2
    assert "crm-1.1-20260101T000000.000Z.json" not in names
    assert [item["release"]["version"] for item in receipts(qat)] == ["1.0", "1.1"]


def test_an_application_alone_has_a_receipt_without_a_database(
    qat: Site, developers: Developers
) -> None:
    draft = releases.first(developers)
    files = {path: text for path, text in draft.files.items() if path.startswith("app/")}
    package = developers.package(replace(draft, label="-alone", files=files))

    assert qat.install(package).returncode == 0

    (receipt,) = receipts(qat)
    assert receipt["database"] is None
    assert receipt["application"]["root"] == "/opt/crm"


def test_init_again_keeps_the_key(qat: Site) -> None:
    again = [json.loads(qat.installer("--json", "init").stdout) for _ in range(2)]

    assert again[0] == again[1]
    assert "BEGIN PGP PUBLIC KEY BLOCK" in qat.host.at(again[0]["public_key"]).read_text()


def test_the_schema_is_compared_with_a_receipt(qat: Site, first: Path) -> None:
    qat.install(first)
    (file,) = qat.host.at(RECEIPTS).glob("*.json")
    receipt = f"{RECEIPTS}/{file.name}"

    assert qat.installer("schema", "--diff", receipt).returncode == 0
    printed = json.loads(qat.installer("--json", "schema").stdout)
    assert printed["fingerprints"] == receipts(qat)[0]["database"]["schema"]["after"]
    assert any(item["name"] == "public.orders" for item in printed["objects"])

    qat.sql("CREATE INDEX by_hand ON orders (customer)")
    drifted = qat.installer("schema", "--diff", receipt)
    before = qat.installer("--json", "schema", "--diff", receipt, "--before")

    assert drifted.returncode == 35
    assert (
        "1 object differs from what there is after crm 1.0 installed on qat (QAT)" in drifted.stdout
    )
    assert "index public.by_hand (structure)" in drifted.stdout
    assert before.returncode == 35
    assert len(json.loads(before.stdout)["differences"]) > 1
    alone = qat.installer("schema", "--before")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "--diff RECEIPT" in alone.stderr


def test_status_and_rpm_verify_name_what_was_changed_by_hand_in_the_schema(
    qat: Site, first: Path
) -> None:
    qat.install(first)
    assert qat.installer("status").returncode == 0

    qat.sql("ALTER TABLE orders ADD COLUMN by_hand text")
    status, verified = qat.installer("status", "crm"), qat.rpm("-V", "crm")

    assert status.returncode == 35
    assert "the schema is not what crm 1.0 made of it" in status.stdout
    assert "column public.orders.by_hand" in status.stdout
    assert verified.returncode != 0
    assert "public.orders.by_hand" in verified.stdout + verified.stderr

    qat.sql("ALTER TABLE orders DROP COLUMN by_hand")
    assert qat.installer("status").returncode == 0


def test_status_says_when_a_receipt_was_edited(qat: Site, first: Path) -> None:
    qat.install(first)
    (file,) = qat.host.at(RECEIPTS).glob("*.json")
    file.write_bytes(file.read_bytes().replace(b'"public.customer"', b'"public.customers"'))

    status = qat.installer("status")

    assert status.returncode == 21
    assert "the fingerprint of" in status.stdout


def test_a_file_that_is_no_receipt_is_named(qat: Site) -> None:
    qat.host.write("/srv/other.json", "{}")

    done = qat.installer("schema", "--diff", "/srv/other.json")

    assert done.returncode == 21
    assert "receipt.json: type is missing" in done.stderr
