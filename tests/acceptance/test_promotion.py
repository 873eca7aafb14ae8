"""From QAT to PRD: only what was tested there, approved by the customer, and with the same effect.

Both hosts have release 1.0, and QAT has 1.1. Each test tries to bring 1.1 to PRD, and but for the
last ones asserts that it left PRD as it was.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers, Draft
from tests.frontends import RPM, FrontEnd, only
from tests.hosts import Host
from tests.promotion import APPROVALS, DAY, RECEIPTS, Evidence, Promotion
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance

COUNTS_CUSTOMERS = """\
ALTER TABLE orders ADD COLUMN total numeric;
DO $$ BEGIN
    IF EXISTS (SELECT FROM customer) THEN CREATE INDEX customer_name ON customer (name); END IF;
END $$;
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Release 1.1 after QAT: the package, the receipt, and that of an attempt that failed."""

    promotion: Promotion
    package: Path
    evidence: Evidence
    failed: Evidence


def both(developers: Developers, draft: Draft) -> Draft:
    """The release signed by both developers, as PRD requires."""
    return replace(draft, label=f"{draft.label}-both", signers=[developers.ada, developers.grace])


def draft_of_second(developers: Developers) -> Draft:
    """Release 1.1; build 1.0 before it."""
    second = both(developers, releases.second(developers))
    return replace(second, starts=("empty", "1.0-both"))


@pytest.fixture(scope="module")
def tested(developers: Developers, installer: Path, front: FrontEnd) -> Iterator[Candidate]:
    first = developers.package(both(developers, releases.first(developers)))
    second = developers.package(draft_of_second(developers))
    with Promotion.start(developers, installer, front) as promotion:
        promotion.promote(first, "1.0")
        promotion.qat.sql("CREATE TABLE note ()")
        assert promotion.qat.upgrade(second).returncode != 0
        failed = promotion.evidence(promotion.qat, "1.1")
        promotion.qat.sql("DROP TABLE note")
        done = promotion.qat.upgrade(second)
        assert done.returncode == 0, done.stdout + done.stderr
        evidence = promotion.evidence(promotion.qat, "1.1")
        yield Candidate(promotion, second, evidence, failed)


@pytest.fixture
def case(tested: Candidate) -> Iterator[Candidate]:
    yield tested
    tested.promotion.clear()


def refuse(case: Candidate, code: int, package: Path | None = None) -> str:
    """Assert that PRD does not install 1.1, for this exit code; returns what was said."""
    return refused(case.promotion.prd, package or case.package, code)


# Approvals


def test_without_an_approval(case: Candidate) -> None:
    words = refuse(case, 23)

    assert "PRD requires an approval by 1 of role customer" in words
    assert "/etc/countersign/approvals" in words


def test_an_approval_for_qat(case: Candidate) -> None:
    approval = case.promotion.approval(case.package, case.evidence, environment="QAT")
    case.promotion.place(approval, case.evidence)

    assert "crm: it is for QAT, not for PRD" in refuse(case, 23)


def test_an_approval_of_another_release(case: Candidate, developers: Developers) -> None:
    third = developers.package(
        both(developers, replace(releases.third(developers), starts=("1.1-both",)))
    )
    case.promotion.place(case.promotion.approval(third, case.evidence), case.evidence)

    words = refuse(case, 23)

    assert "it approves crm 1.2, manifest" in words
    assert "not crm 1.1" in words


def test_the_same_version_with_other_bytes(case: Candidate, developers: Developers) -> None:
    draft = draft_of_second(developers)
    other = releases.with_files(draft, "other", {"sql/0004_notes.sql": "CREATE TABLE note ();\n"})
    case.promotion.place(case.promotion.approval(case.package, case.evidence), case.evidence)

    assert "it approves crm 1.1, manifest" in refuse(case, 23, developers.package(other))


@pytest.mark.parametrize(
    "other, words",
    [
        ({"expires": -1, "not_before": -DAY}, "it expired at"),
        ({"not_before": DAY}, "it is not good before"),
        ({"expires": 31 * DAY}, "an approval is good for 30 days at most"),
    ],
)
def test_an_approval_out_of_its_time(case: Candidate, other: dict[str, int], words: str) -> None:
    now = int(time.time())
    moved = {name: now + seconds for name, seconds in other.items()}
    approval = case.promotion.approval(case.package, case.evidence, **moved)
    case.promotion.place(approval, case.evidence)

    assert words in refuse(case, 23)


def test_a_clock_that_was_set_back_revives_no_approval(case: Candidate) -> None:
    case.promotion.place(case.promotion.approval(case.package, case.evidence), case.evidence)
    clock = case.promotion.prd.host.at("/var/lib/countersign") / "clock.txt"
    kept = clock.read_bytes()
    clock.write_text(f"{int(time.time()) + DAY}\n")
    try:
        assert "this host's clock says" in refuse(case, 23)
    finally:
        clock.write_bytes(kept)


def test_an_approval_of_another_product(case: Candidate) -> None:
    approval = case.promotion.approval(case.package, case.evidence, product="erp")
    case.promotion.place(approval, case.evidence)

    assert "PRD requires an approval" in refuse(case, 23)


@pytest.mark.parametrize("signer", ["ada", "mallory"])
def test_an_approval_that_no_customer_signed(case: Candidate, signer: str) -> None:
    key = getattr(case.promotion.developers, signer)
    approval = case.promotion.approval(case.package, case.evidence)
    case.promotion.place(approval, case.evidence, signers=[key])

    words = refuse(case, 23)

    assert "an approval requires 1 of role customer, found none" in words
    assert (key in words) == (signer == "mallory")


def test_an_unsigned_approval(case: Candidate) -> None:
    approval = case.promotion.approval(case.package, case.evidence)
    case.promotion.place(approval, case.evidence, signers=())

    assert "an approval requires 1 of role customer, found none" in refuse(case, 23)


def test_an_approval_that_was_edited_after_it_was_signed(case: Candidate) -> None:
    promotion = case.promotion
    promotion.place(promotion.approval(case.package, case.evidence), case.evidence)
    file = promotion.prd.host.at(f"{APPROVALS}/crm/approval.json")
    file.write_bytes(file.read_bytes().replace(b'"format": 1', b'"format":  1'))

    assert "the signature does not match" in refuse(case, 23)


def test_an_approval_that_others_may_write(case: Candidate) -> None:
    case.promotion.place(case.promotion.approval(case.package, case.evidence), case.evidence)
    case.promotion.prd.host.at(f"{APPROVALS}/crm/approval.json").chmod(0o666)

    assert "approval.json is writable by others" in refuse(case, 10)


def test_an_approval_that_the_customer_withdrew(case: Candidate) -> None:
    approval = case.promotion.approval(case.package, case.evidence)
    case.promotion.place(approval, case.evidence)
    case.promotion.withdraw(approval, case.promotion.customer)

    assert "crm: the approval was withdrawn" in refuse(case, 23)


def test_a_withdrawal_that_no_customer_signed_stops_everything(case: Candidate) -> None:
    approval = case.promotion.approval(case.package, case.evidence)
    case.promotion.place(approval, case.evidence)
    case.promotion.withdraw(approval, case.promotion.developers.ada)

    assert "withdrawn: withdrawal.json is signed by no customer" in refuse(case, 23)


# Receipts


def test_an_approval_without_the_receipt(case: Candidate) -> None:
    case.promotion.place(case.promotion.approval(case.package, case.evidence), None)

    assert "crm: it holds no receipt.json" in refuse(case, 23)


def test_the_receipt_of_a_failed_install(case: Candidate) -> None:
    case.promotion.place(case.promotion.approval(case.package, case.failed), case.failed)

    assert case.failed.facts["failure"]["exit_code"] == 33
    assert "its receipt says that the install failed" in refuse(case, 23)


def test_another_receipt_than_the_approval_names(case: Candidate) -> None:
    case.promotion.place(case.promotion.approval(case.package, case.failed), case.evidence)

    assert "its receipt is not the one that the approval names" in refuse(case, 23)


def test_an_unsigned_receipt(case: Candidate) -> None:
    promotion = case.promotion
    promotion.place(promotion.approval(case.package, case.evidence), case.evidence)
    promotion.prd.host.at(f"{APPROVALS}/crm/receipt.json.asc").unlink()

    assert "its receipt is signed by no host that the policy names for QAT" in refuse(case, 23)


def test_a_receipt_that_another_host_signed(case: Candidate) -> None:
    promotion = case.promotion
    forged = replace(case.evidence, signature=signed_by(promotion.prd.host, case.evidence.raw))
    promotion.place(promotion.approval(case.package, forged), forged)

    assert "its receipt is signed by no host that the policy names for QAT" in refuse(case, 23)


def test_a_receipt_of_production_itself(case: Candidate) -> None:
    promotion = case.promotion
    raw = case.evidence.raw.replace(b'"environment": "QAT"', b'"environment": "PRD"')
    forged = Evidence(raw, signed_by(promotion.qat.host, raw))
    promotion.place(promotion.approval(case.package, forged), forged)

    assert "its receipt is from PRD, not from QAT" in refuse(case, 23)


def test_a_receipt_whose_objects_are_not_those_of_its_fingerprints(case: Candidate) -> None:
    promotion = case.promotion
    raw = case.evidence.raw.replace(
        b'"name": "public.customer.name"', b'"name": "public.customer.nick"', 1
    )
    assert raw != case.evidence.raw
    forged = Evidence(raw, signed_by(promotion.qat.host, raw))
    promotion.place(promotion.approval(case.package, forged), forged)

    assert "is not that of the objects" in refuse(case, 23)


def signed_by(host: Host, document: bytes) -> bytes:
    """The signature of a host's own key, as its root could make it."""
    (host.root / "srv/document").write_bytes(document)
    home = ("--homedir", "/var/lib/countersign/host-key")
    command = ["gpg", *home, "--batch", "--yes", "--armor", "--detach-sign", "/srv/document"]
    host.run(command, check=True)
    host.run(["gpgconf", *home, "--kill", "all"], check=True)
    return (host.root / "srv/document.asc").read_bytes()


# The same effect


@pytest.mark.parametrize(
    "drift, undo, words",
    [
        (
            "CREATE INDEX drift ON customer (name)",
            "DROP INDEX drift",
            ("index public.drift (structure)", "expected no such object"),
        ),
        (
            "GRANT SELECT ON orders TO PUBLIC",
            "REVOKE SELECT ON orders FROM PUBLIC",
            ("public.orders (privileges)",),
        ),
    ],
)
def test_a_schema_that_has_drifted(
    case: Candidate, drift: str, undo: str, words: Sequence[str]
) -> None:
    promotion = case.promotion
    promotion.place(promotion.approval(case.package, case.evidence), case.evidence)
    checked = promotion.prd.installer("check", case.package)
    assert checked.returncode == 0, checked.stderr
    assert "as tested: crm 1.1" in checked.stdout
    promotion.prd.sql(drift)
    try:
        said = refuse(case, 35)
        assert promotion.prd.installer("check", case.package).returncode == 35
    finally:
        promotion.prd.sql(undo)

    assert "the schema is not what QAT had before this release: 1 object differs" in said
    assert all(part in said for part in words)


# What goes through, and what comes of it


@pytest.fixture
def promotion(developers: Developers, installer: Path, front: FrontEnd) -> Iterator[Promotion]:
    """Two empty hosts."""
    with Promotion.start(developers, installer, front) as started:
        yield started


def test_what_qat_tested_and_the_customer_approved_is_installed(
    promotion: Promotion, developers: Developers
) -> None:
    first = developers.package(both(developers, releases.first(developers)))
    second = developers.package(draft_of_second(developers))
    prd = promotion.prd

    promotion.promote(first, "1.0")
    promotion.promote(second, "1.1")

    assert prd.state().package == "1.1-1"
    assert prd.state().objects == "customer note orders"
    assert prd.read("VERSION") == "1.1\n"
    row = prd.ledger()[-1]
    assert "customer The Customer " + promotion.customer in str(row["signers"])
    receipts = [promotion.evidence(site, "1.1").facts for site in (promotion.qat, prd)]
    schemas = [receipt["database"]["schema"] for receipt in receipts]
    assert schemas[0] == schemas[1]
    assert receipts[1]["database"]["ledger"] == row["hash"]
    assert {"relation": "public.orders", "mode": "AccessExclusiveLock"} in (
        receipts[1]["database"]["locks"]
    )
    before = prd.state()
    again = prd.install_again(second)  # the approval is gone; what stands needs none
    assert again.returncode == 0, again.stdout + again.stderr
    assert prd.state() == before


@only(RPM)  # the package manager has no part in it
def test_a_release_that_does_something_else_than_on_qat_is_rolled_back(
    promotion: Promotion, developers: Developers
) -> None:
    draft = draft_of_second(developers)
    first = developers.package(both(developers, releases.first(developers)))
    varied = {"sql/0003_totals.sql": COUNTS_CUSTOMERS}
    package = developers.package(releases.with_files(draft, "varied", varied))
    promotion.promote(first, "1.0")
    assert promotion.qat.upgrade(package).returncode == 0
    evidence = promotion.evidence(promotion.qat, "1.1")
    promotion.place(promotion.approval(package, evidence), evidence)
    promotion.prd.sql("INSERT INTO customer VALUES (1, 'one')")

    words = refused(promotion.prd, package, 35)

    assert "the release makes of the schema something else than in QAT: 1 object differs" in words
    assert "index public.customer_name (structure)" in words
    assert promotion.prd.ledger()[-1]["event"] == "release failed"
    failed = promotion.evidence(promotion.prd, "1.1").facts
    assert (failed["outcome"], failed["failure"]["exit_code"]) == ("failed", 35)


@only(RPM)
def test_other_scripts_to_run_than_on_qat(promotion: Promotion, developers: Developers) -> None:
    first = developers.package(both(developers, releases.first(developers)))
    second = developers.package(draft_of_second(developers))
    promotion.promote(first, "1.0")
    assert promotion.qat.upgrade(second).returncode == 0
    evidence = promotion.evidence(promotion.qat, "1.1")
    promotion.place(promotion.approval(second, evidence), evidence)
    promotion.prd.host.run(["rpm", "-e", "crm"], check=True)
    promotion.prd.sql("DROP SCHEMA countersign CASCADE; DROP TABLE customer, orders")

    words = refused(promotion.prd, second, 35)

    assert "QAT ran 2 scripts, and 4 would run here" in words
    assert "QAT ran: sql/0003_totals.sql, sql/0004_notes.sql" in words


@only(RPM)
def test_cut_short_after_commit_it_is_rolled_forward_without_a_new_approval(
    promotion: Promotion, developers: Developers
) -> None:
    first = developers.package(both(developers, releases.first(developers)))
    second = developers.package(draft_of_second(developers))
    promotion.promote(first, "1.0")
    assert promotion.qat.upgrade(second).returncode == 0
    evidence = promotion.evidence(promotion.qat, "1.1")
    promotion.place(promotion.approval(second, evidence), evidence)
    obstacle = promotion.prd.host.at("/opt/crm") / ".current.new"
    obstacle.mkdir()
    assert promotion.prd.upgrade(second).returncode != 0
    obstacle.rmdir()
    promotion.clear()

    done = promotion.prd.upgrade(second)

    assert done.returncode == 0, done.stderr
    assert promotion.prd.current() == "releases/1.1"
    receipt = promotion.evidence(promotion.prd, "1.1").facts
    assert receipt["outcome"] == "installed"
    assert [script["name"] for script in receipt["database"]["scripts"]] == [
        "sql/0003_totals.sql",
        "sql/0004_notes.sql",
    ]


@only(RPM)
def test_a_host_without_a_key_says_that_its_receipt_is_not_signed(
    developers: Developers, installer: Path, first: Path, front: FrontEnd
) -> None:
    with Site.start(developers, installer, front=front) as site:
        done = site.install(first)

        assert done.returncode == 0
        assert "is not signed: run `countersign-install init`" in done.stdout + done.stderr
        receipts = sorted(path.name for path in site.host.at(RECEIPTS).iterdir())
        assert [name.endswith(".json") for name in receipts] == [True]


@only(RPM)
def test_an_environment_between_qat_and_production_is_configuration(
    promotion: Promotion, developers: Developers
) -> None:
    first = developers.package(both(developers, releases.first(developers)))
    promotion.agree_on_policy(("QAT", "STG", "PRD"))
    assert promotion.qat.install(first).returncode == 0
    evidence = promotion.evidence(promotion.qat, "1.0")
    promotion.place(promotion.approval(first, evidence), evidence)

    assert "its receipt is from QAT, not from STG" in refused(promotion.prd, first, 23)
