"""Whether a dossier lets a release in: the rule, without keys and files."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from installer.approval import (
    DAY,
    Approval,
    Dossier,
    Withdrawal,
    parse_approval,
    parse_withdrawal,
    require_approved,
    wanted,
    write_approval,
    write_withdrawal,
)
from installer.errors import ApprovalError, MalformedError
from installer.manifest import Content, Database, Manifest, Source
from installer.openpgp import Signature
from installer.policy import Policy, parse_policy
from installer.receipt import Failure, Receipt
from installer.tree import Digest
from tests.developers import identity
from tests.unit.test_receipt import RECEIPT

NOW = 1_767_225_600
A, B, C = (Digest(letter * 64) for letter in "abc")
ADA, CUSTOMER, SECOND, QAT, OTHER = (letter * 40 for letter in "ABCDE")
POLICY = "\n".join(
    [
        "serial = 1",
        identity("Ada", "developer", ADA),
        identity("The Customer", "customer", CUSTOMER, "C" * 39 + "0"),
        identity("The Customer's Second", "customer", SECOND),
        identity("qat1", "host", QAT, more='environment = "QAT"'),
        identity("dev1", "host", OTHER, more='environment = "DEV"'),
        "[require.DEV]\ndeveloper = 1",
        "[require.QAT]\ndeveloper = 1\nreceipt = true",
        "[require.PRD]\ndeveloper = 1\ncustomer = 1\nreceipt = true",
        "[rotation]\ndeveloper = 1",
    ]
)
MANIFEST = Manifest(
    digest=A,
    product="crm",
    version="1.4.0",
    sequence=14,
    summary="Order history",
    source=Source("git", "v1.4.0", "0" * 40, 1, None),
    application=None,
    database=Database("crm", (), (), ()),
    content=Content("xz", A, 0),
)
TESTED: Receipt = replace(RECEIPT, digest=B, manifest=A, application=None)
APPROVAL = Approval(
    digest=C,
    product="crm",
    version="1.4.0",
    sequence=14,
    manifest=A,
    receipt=B,
    environment="PRD",
    not_before=NOW - DAY,
    expires=NOW + DAY,
)


def signed(*fingerprints: str, created: int = NOW - 60) -> tuple[Signature, ...]:
    return tuple(Signature(key, key, created) for key in fingerprints)


DOSSIER = Dossier(
    "crm",
    approval=APPROVAL,
    approvers=signed(CUSTOMER),
    receipt=TESTED,
    receipt_signers=signed(QAT),
)


def policy(*edits: tuple[str, str]) -> Policy:
    text = POLICY
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text.encode())


def approved(
    *dossiers: Dossier, by: Policy | None = None, environment: str = "PRD", now: int = NOW
) -> Any:
    return require_approved(MANIFEST, by or policy(), environment, dossiers, now)


def refusal(*dossiers: Dossier, by: Policy | None = None, environment: str = "PRD") -> str:
    with pytest.raises(ApprovalError) as refused:
        approved(*dossiers, by=by, environment=environment)
    assert refused.value.exit_code == 23
    return f"{refused.value}\n{refused.value.detail}"


def test_an_approval_with_its_receipt_lets_the_release_in() -> None:
    found = approved(DOSSIER)

    assert found.receipt == TESTED
    assert [customer.name for customer in found.customers] == ["The Customer"]


def test_an_environment_that_wants_neither_asks_for_neither() -> None:
    assert approved(environment="DEV").customers == ()


def test_an_environment_that_wants_a_receipt_alone_takes_one_without_an_approval() -> None:
    tested = replace(TESTED, environment="DEV")
    alone = Dossier("receipts", receipt=tested, receipt_signers=signed(OTHER))

    assert approved(alone, environment="QAT").receipt == tested


def test_one_good_dossier_among_others_is_enough() -> None:
    expired = replace(DOSSIER, name="a", approval=replace(APPROVAL, expires=NOW))
    broken = Dossier("b", problem="approval.json: not strict JSON")

    assert approved(expired, broken, DOSSIER).receipt == TESTED


def test_of_each_dossier_it_is_said_why_it_does_not_count() -> None:
    expired = replace(DOSSIER, name="a", approval=replace(APPROVAL, expires=NOW))
    broken = Dossier("b", problem="approval.json: not strict JSON")
    foreign = replace(DOSSIER, name="erp", approval=replace(APPROVAL, product="erp"))

    words = refusal(expired, broken, foreign)

    assert "a: it expired at 2026-01-01T00:00:00Z" in words
    assert "b: approval.json: not strict JSON" in words
    assert "erp:" not in words


@pytest.mark.parametrize(
    "change, words",
    [
        ({"manifest": B}, "it approves crm 1.4.0, manifest bbbbbbbbbbbbbbbb…, not crm 1.4.0"),
        ({"version": "1.4.1"}, "it names the release otherwise than its manifest does"),
        ({"sequence": 15}, "it names the release otherwise than its manifest does"),
        ({"environment": "QAT"}, "it is for QAT, not for PRD"),
        ({"not_before": NOW + 1}, "it is not good before 2026-01-01T00:00:01Z"),
        ({"expires": NOW}, "it expired at 2026-01-01T00:00:00Z"),
        ({"expires": NOW + 30 * DAY}, "an approval is good for 30 days at most"),
        ({"receipt": A}, "its receipt is not the one that the approval names"),
        ({"receipt": None}, "its receipt is not the one that the approval names"),
    ],
)
def test_an_approval_of_something_else(change: dict[str, Any], words: str) -> None:
    assert words in refusal(replace(DOSSIER, approval=replace(APPROVAL, **change)))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"manifest": B}, "its receipt is of crm 1.4.0, of another manifest"),
        (
            {"outcome": "failed", "failure": Failure(33, "x")},
            "its receipt says that the install failed",
        ),
        ({"environment": "DEV"}, "its receipt is from DEV, not from QAT"),
        ({"database": None}, "its receipt does not say what the release did to the database"),
    ],
)
def test_a_receipt_of_something_else(change: dict[str, Any], words: str) -> None:
    assert words in refusal(replace(DOSSIER, receipt=replace(TESTED, **change)))


@pytest.mark.parametrize("signers", [(), signed(ADA), signed(CUSTOMER), signed(OTHER)])
def test_a_receipt_that_no_host_of_qat_signed(signers: tuple[Signature, ...]) -> None:
    words = refusal(replace(DOSSIER, receipt_signers=signers))

    assert "its receipt is signed by no host that the policy names for QAT" in words


def test_half_a_dossier() -> None:
    assert "it holds no approval.json" in refusal(replace(DOSSIER, approval=None))
    assert "it holds no receipt.json" in refusal(replace(DOSSIER, receipt=None))


@pytest.mark.parametrize("signers", [(), signed(ADA), signed(QAT), signed("F" * 40)])
def test_an_approval_that_no_customer_signed(signers: tuple[Signature, ...]) -> None:
    words = refusal(replace(DOSSIER, approvers=signers))

    assert "an approval requires 1 of role customer, found none" in words


def test_keys_that_the_host_does_not_hold_are_named() -> None:
    words = refusal(replace(DOSSIER, approvers=(), unknown=("F" * 40,)))

    assert f"Not counted: {'F' * 40}: a key that this host's keyring does not hold" in words


def test_two_keys_of_one_customer_count_once_and_two_customers_twice() -> None:
    two = policy(("customer = 1", "customer = 2"))
    same = replace(DOSSIER, approvers=signed(CUSTOMER, "C" * 39 + "0"))

    assert "found 1 (The Customer)" in refusal(same, by=two)
    both = replace(DOSSIER, approvers=signed(CUSTOMER, SECOND))
    assert len(approved(both, by=two).customers) == 2


def test_an_approval_is_good_for_some_days_from_when_it_was_signed() -> None:
    limited = policy(("customer = 1", "customer = 1\nmax_approval_days = 2"))
    old = replace(DOSSIER, approvers=signed(CUSTOMER, created=NOW - 2 * DAY))
    fresh = replace(DOSSIER, approvers=signed(CUSTOMER, created=NOW - 2 * DAY + 1))

    assert "an approval is good for 2 days at most" in refusal(old, by=limited)
    assert approved(fresh, by=limited).receipt == TESTED


def withdrawn(by: Iterable[Signature], of: Digest = C) -> Dossier:
    withdrawal = Withdrawal(A, of, "crm", "1.4.0", "PRD", "totals are wrong")
    return Dossier("w", withdrawal=withdrawal, withdrawers=tuple(by))


def test_one_customer_takes_an_approval_back() -> None:
    two = policy(("customer = 1", "customer = 2"))
    both = replace(DOSSIER, approvers=signed(CUSTOMER, SECOND))

    assert "crm: the approval was withdrawn" in refusal(both, withdrawn(signed(SECOND)), by=two)


def test_a_withdrawal_of_another_approval_does_not_matter() -> None:
    assert approved(DOSSIER, withdrawn(signed(CUSTOMER), of=B)).receipt == TESTED


@pytest.mark.parametrize("signers", [(), signed(ADA), signed("F" * 40)])
def test_a_withdrawal_that_no_customer_signed_stops_everything(
    signers: tuple[Signature, ...],
) -> None:
    assert "w: withdrawal.json is signed by no customer" in refusal(DOSSIER, withdrawn(signers))


def test_a_revoked_customer_approves_nothing_and_a_retired_one_what_was_signed_in_time() -> None:
    line = f'role = "customer"\nfingerprints = ["{CUSTOMER}"'
    revoked = policy((line, f'status = "revoked"\n{line}'))
    retired = policy((line, f'status = "retired"\nnot_after = 2025-12-31T23:59:00Z\n{line}'))

    assert "is revoked" in refusal(DOSSIER, by=revoked)
    assert approved(DOSSIER, by=retired).receipt == TESTED
    late = replace(DOSSIER, approvers=signed(CUSTOMER, created=NOW))
    assert "after 2025-12-31 23:59:00 UTC" in refusal(late, by=retired)


# The documents


def test_statements_are_read_as_they_were_written() -> None:
    approval, withdrawal = write_approval(APPROVAL), withdrawn(()).withdrawal
    assert withdrawal
    raw = write_withdrawal(withdrawal)

    assert replace(parse_approval(approval), digest=C) == APPROVAL
    assert replace(parse_withdrawal(raw), digest=A) == withdrawal
    assert parse_approval(write_approval(replace(APPROVAL, receipt=None))).receipt is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"type": "countersign-withdrawal"}, "not a countersign-approval of format 1"),
        ({"format": 2}, "not a countersign-approval of format 1"),
        ({"more": 1}, "unknown key 'more'"),
        ({"receipt": "x"}, "does not match"),
        ({"environment": "P R D"}, "does not match"),
        ({"expires": "2025-01-01T00:00:00Z"}, "it expires before it begins"),
        ({"expires": 1}, "not of type str"),
    ],
)
def test_what_is_no_approval_is_refused(change: dict[str, Any], words: str) -> None:
    document = json.loads(write_approval(APPROVAL)) | change

    with pytest.raises(MalformedError) as refused:
        parse_approval(json.dumps(document).encode())

    assert words in str(refused.value)


PARSERS: list[Callable[[bytes], object]] = [parse_approval, parse_withdrawal]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xef\xbb\xbf{}", b'{"type": NaN}', b"{}x"])
def test_rubbish_is_refused(parse: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(raw)


def test_what_is_wanted_is_said_in_words() -> None:
    both = policy().requirement("PRD")
    receipt, approval = "the receipt of a successful install in QAT", "an approval by 1 of role"
    assert wanted(both) == f"{approval} customer and {receipt}"
    assert wanted(replace(both, customers=0)) == receipt
    assert wanted(replace(both, receipt_from=None)) == f"{approval} customer"
