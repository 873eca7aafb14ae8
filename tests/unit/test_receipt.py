import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from installer.errors import MalformedError
from installer.fingerprint import Change, Schema, schema_of
from installer.receipt import (
    Failure,
    Lock,
    MeasuredApplication,
    MeasuredDatabase,
    Receipt,
    Retry,
    ScriptReceipt,
    parse_receipt,
    write_receipt,
)
from installer.tree import Digest, digest_of

A, B = Digest("a" * 64), Digest("b" * 64)
JSON = dict[str, Any]


def schema(*rows: tuple[str, str, str, str]) -> Schema:
    return schema_of(15, rows)


BEFORE = schema(
    ("structure", "table", "public.customer", "(id)"),
    ("structure", "index", "public.old", "CREATE INDEX"),
    ("owners", "table", "public.customer", "crm_owner"),
)
AFTER = schema(
    ("structure", "table", "public.customer", "(id, naïve\nname)"),
    ("owners", "table", "public.customer", "crm_owner"),
    ("comments", "table", "public.customer", ""),
)
RECEIPT = Receipt(
    digest=Digest(""),
    product="crm",
    version="1.4.0",
    sequence=14,
    manifest=A,
    package="crm-1.4.0-1.noarch",
    environment="QAT",
    host="qat1.example.org",
    installer="0.1.0",
    started=1_767_225_600,
    finished=1_767_225_660,
    outcome="installed",
    failure=None,
    database=MeasuredDatabase(
        name="crm",
        system="7712055347597209612",
        version="15.18 (Debian)",
        ledger=B,
        milliseconds=1200,
        before=BEFORE,
        after=AFTER,
        scripts=(ScriptReceipt("sql/0001.sql", A, 12, 3),),
        locks=(Lock('public."odd\nname"', "AccessExclusiveLock"),),
        created=("public.note",),
        retries=(Retry("another install held the lock", 50),),
    ),
    application=MeasuredApplication("/opt/crm", B),
)


def test_a_receipt_is_read_as_it_was_written() -> None:
    raw = write_receipt(RECEIPT)

    assert parse_receipt(raw) == replace(RECEIPT, digest=digest_of(raw))


def test_online_scripts_add_the_schema_before_and_after_the_transaction() -> None:
    """Four schemas: the first and the last are told by what differs from the transaction's."""
    start = schema(("owners", "table", "public.customer", "crm_owner"))
    end = AFTER.changed((Change("structure", "index", "public.new", None, "CREATE INDEX"),))
    assert RECEIPT.database is not None
    online = replace(RECEIPT.database, online=(start, end))

    raw = write_receipt(replace(RECEIPT, database=online))

    database = parse_receipt(raw).database
    assert database is not None
    assert (database.start, database.before) == (start, BEFORE)
    assert (database.after, database.end) == (AFTER, end)
    told = json.loads(raw)["database"]["schema"]["online"]
    assert [change["name"] for change in told["end"]["changes"]] == ["public.new"]
    assert told["start"]["fingerprints"] == dict(start.fingerprints)


def test_without_online_scripts_the_transaction_is_all_there_is() -> None:
    assert RECEIPT.database is not None
    assert (RECEIPT.database.start, RECEIPT.database.end) == (BEFORE, AFTER)


def test_a_failed_install_has_its_cause_and_no_application() -> None:
    failed = replace(
        RECEIPT, outcome="failed", failure=Failure(33, "nope"), database=None, application=None
    )

    found = parse_receipt(write_receipt(failed))

    assert found.failure == Failure(33, "nope")
    assert (found.database, found.application) == (None, None)


def test_what_changed_is_told_object_by_object_and_the_rest_once() -> None:
    document = json.loads(write_receipt(RECEIPT))["database"]["schema"]

    assert len(document["objects"]) == len(BEFORE.objects)
    assert [(c["kind"], c["before"], c["after"]) for c in document["changes"]] == [
        ("table", None, ""),
        ("index", "CREATE INDEX", None),
        ("table", "(id)", "(id, naïve\nname)"),
    ]
    assert document["after"] == dict(AFTER.fingerprints)


def test_times_are_for_people() -> None:
    assert json.loads(write_receipt(RECEIPT))["started"] == "2026-01-01T00:00:00Z"


def edited(change: Callable[[JSON], object]) -> bytes:
    document = json.loads(write_receipt(RECEIPT))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d.update(type="countersign-manifest"), "not a countersign-receipt"),
        (lambda d: d.update(format=2), "a newer countersign-installer may know it"),
        (lambda d: d.update(more=1), "unknown key 'more'"),
        (lambda d: d["release"].update(more=1), "unknown key 'more'"),
        (lambda d: d["database"].update(more=1), "unknown key 'more'"),
        (lambda d: d["database"]["schema"].update(more=1), "unknown key 'more'"),
        (lambda d: d["database"]["schema"]["before"].update(more=1), "unknown key 'more'"),
        (lambda d: d["database"]["schema"]["objects"][0].update(more=1), "unknown key 'more'"),
        (lambda d: d["database"]["scripts"][0].update(name="../x"), "not a plain relative path"),
        (lambda d: d.pop("host"), "host is missing"),
        (lambda d: d.update(started="2026-01-01"), "no time such as"),
        (lambda d: d.update(started="2026-1-1T0:0:0Z"), "no time such as"),
        (lambda d: d.update(started="2026-02-30T00:00:00Z"), "no time such as"),
        (lambda d: d.update(outcome="fine"), "does not match"),
        (lambda d: d.update(outcome="failed"), "which a failure does not go with"),
        (
            lambda d: d.update(failure={"exit_code": 33, "message": "x"}),
            "which a failure does not go with",
        ),
        (lambda d: d["release"].update(manifest="A" * 64), "does not match"),
        (
            lambda d: d["database"]["schema"]["objects"].pop(0),
            "the fingerprint of owners is not that of the objects",
        ),
        (
            lambda d: d["database"]["schema"]["changes"].pop(),
            "the fingerprint of structure is not that of the objects",
        ),
        (
            lambda d: d["database"]["schema"]["before"].update(owners="0" * 64),
            "the fingerprint of owners is not that of the objects",
        ),
        (
            lambda d: d["database"]["schema"]["objects"][0].update(layer="looks"),
            "does not match",
        ),
    ],
)
def test_what_is_no_receipt_is_refused(change: Callable[[JSON], object], words: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_receipt(edited(change))

    assert words in str(refused.value)
    assert refused.value.exit_code == 21


def test_a_receipt_that_would_be_read_otherwise_is_not_written() -> None:
    with pytest.raises(MalformedError):
        write_receipt(replace(RECEIPT, host="two\nlines"))
    with pytest.raises(MalformedError, match="read otherwise than it is meant"):
        write_receipt(replace(RECEIPT, started=cast("int", RECEIPT.started + 0.5)))
