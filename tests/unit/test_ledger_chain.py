"""The chain of the ledger, computed from rows as they are exported."""

import io
from typing import Any

import pytest

from installer.bundle import Section
from installer.errors import MalformedError
from installer.ledger_chain import COLUMNS, MAX_LINE, Chain, hash_of, read_row, write_row
from packager.audit_reader import AuditBundle, Statement

STATEMENT = Statement(
    created=0,
    host="prd1",
    environment="PRD",
    installer="0.1.0",
    product=None,
    database="crm",
    system="1",
    version="15.18",
    copied="",
    rows=3,
    head="",
    host_key=None,
    missing=(),
    files={},
)


def row(number: int, previous: str, **changes: object) -> dict[str, Any]:
    """A row of a failed release, with its hash."""
    made: dict[str, Any] = dict.fromkeys(COLUMNS)
    made |= {"id": number, "previous": previous, "at": f"2026-01-31T08:00:0{number}.000000Z"}
    made |= {"event": "release failed", "product": "crm", "version": "1.0", "sequence": 1}
    made |= {"manifest": "a" * 64, "signers": ["developer Ada 0123"], "environment": "PRD"}
    made |= {"host": "prd1", "package": "crm-1.0-1.noarch", "installer": "0.1.0", **changes}
    return made | {"hash": hash_of(made)}


def rows(count: int) -> list[dict[str, Any]]:
    """A sound chain."""
    made: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        made.append(row(number, made[-1]["hash"] if made else ""))
    return made


def kinds(given: list[dict[str, Any]]) -> list[str]:
    chain = Chain()
    return [finding.kind for item in given for finding in chain.follow(item)]


def bundle(ledger: bytes) -> AuditBundle:
    return AuditBundle(STATEMENT, {"ledger.jsonl": Section(io.BytesIO(ledger), 0, len(ledger))})


def test_the_hash_of_a_row_is_the_one_that_it_has_always_been() -> None:
    """Ledgers outlive installers: PostgreSQL 15 made this hash of this row."""
    assert hash_of(row(1, "", detail='naïve\n\t\x01"\\\u2028')) == (
        "a3504e08b6f43103e98fe2b9b12a94980d22e57262a2ba1d43ee56d6f97f575d"
    )


def test_rows_that_are_in_another_order_or_there_twice_are_out_of_place() -> None:
    one, two, three = rows(3)

    assert kinds([one, two, three]) == []
    assert kinds([two, one, three]) == ["missing", "misplaced"]
    assert kinds([one, two, two, three]) == ["misplaced"]
    assert kinds([one, three]) == ["missing"]
    assert kinds([row(1, "b" * 64), two]) == ["unlinked", "unlinked"]


def test_an_exported_row_is_read_as_it_was() -> None:
    made = row(1, "", detail="naïve\r\n\u2028", statement=None, rows=2**63 - 1)

    assert read_row(write_row(made)) == made


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"\n",
        b"\xff\n",
        write_row(rows(1)[0]).replace(b", ", b","),
        write_row(rows(1)[0]).replace(b'"id": 1', b'"id": 1.0'),
        write_row(row(1, "") | {"id": True}),
        write_row(row(1, "") | {"at": None}),
        write_row(row(1, "")).replace(b"crm", b"cr\\u006d"),
        write_row(row(1, "")).replace(b'"id": 1', b'"id": 1, "id": 1'),
    ],
)
def test_a_line_that_no_host_exports_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedError, match=r"ledger\.jsonl"):
        read_row(line)


def test_rows_are_read_across_pieces_and_in_bounded_memory() -> None:
    """A piece has 1 MiB."""
    long = [row(n, "", detail="x" * 300_000) for n in range(1, 10)]

    assert list(bundle(b"".join(map(write_row, long))).rows()) == long
    with pytest.raises(MalformedError, match=f"more than {MAX_LINE} bytes"):
        list(bundle(b"x" * 3 * MAX_LINE).rows())
    with pytest.raises(MalformedError, match="does not end"):
        list(bundle(write_row(long[0])[:-1]).rows())
