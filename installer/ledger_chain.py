"""The ledger's hash chain, computed anew from its rows (docs/decisions/0021).

Opens nothing, and holds one row at a time. The hash of a row is SHA-256 over the JSON array of its
columns in the order of `COLUMNS`, as `countersign.hash_of` in ledger.sql computes it: PostgreSQL
writes jsonb as text with the very spaces and escapes of `json.dumps` without ASCII. Exported, a row
is a line of JSON: an object with the columns in that order, and its hash behind them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from installer.errors import MalformedError
from installer.strict_json import load_json
from installer.tree import Digest, digest_of

COLUMNS = (
    *("id", "previous", "at", "event", "product", "version", "sequence", "manifest", "script"),
    *("script_digest", "statement", "milliseconds", "rows", "signers", "environment", "host"),
    *("package", "installer", "detail"),
)
"""What is hashed, in this order; `at` is in UTC, such as 2026-01-31T08:00:00.123456Z."""

MAX_LINE = 1024 * 1024
"""Bytes that an exported row may have."""

_TEXTS = (
    "previous",
    "at",
    "event",
    "product",
    "version",
    "manifest",
    "environment",
    "host",
    "hash",
)

Row = Mapping[str, Any]
"""A row by its columns, `hash` among them."""


class Finding(NamedTuple):
    """Something that is not as it was written: its kind, in a word, and what it is."""

    kind: str
    text: str


def hash_of(row: Row) -> Digest:
    """The hash that a row with these columns has."""
    return digest_of(json.dumps([row[name] for name in COLUMNS], ensure_ascii=False).encode())


def write_row(row: Row) -> bytes:
    """The row as a line of the export."""
    ordered = {name: row[name] for name in (*COLUMNS, "hash")}
    return f"{json.dumps(ordered, ensure_ascii=False)}\n".encode()


def read_row(line: bytes) -> Row:
    """The row that a line of the export is.

    Raises:
        MalformedError: it is not, byte for byte, what `write_row` makes of a row.
    """
    row = load_json(line, "ledger.jsonl")
    if list(row) != [*COLUMNS, "hash"] or write_row(row) != line:
        raise MalformedError("ledger.jsonl: a line is not a row as hosts export it")
    if type(row["id"]) is not int or any(type(row[name]) is not str for name in _TEXTS):
        raise MalformedError("ledger.jsonl: a row has a column of another type than the ledger's")
    return row


class Chain:
    """The chain as far as it was followed: how many rows, the last one's id, time and hash."""

    def __init__(self) -> None:
        self.is_sound = True
        self.rows = 0
        self.last = 0
        self.at = ""
        self.head = ""

    def follow(self, row: Row) -> list[Finding]:
        """Take the next row; returns what is wrong with it, or before it."""
        found = list(self._findings(row))
        self.is_sound &= not found
        self.rows += 1
        if row["id"] > self.last:  # from a row that is out of place the chain does not go on
            self.last, self.at, self.head = row["id"], row["at"], row["hash"]
        return found

    def _findings(self, row: Row) -> Iterator[Finding]:
        number, following = row["id"], self.last + 1
        if hash_of(row) != row["hash"]:
            yield Finding("edited", f"row {number} was edited: its hash is not that of its columns")
        if number > following:
            gone = (
                f"row {following} is"
                if number - following == 1
                else (f"rows {following} to {number - 1} are")
            )
            yield Finding("missing", f"{gone} missing before row {number}: deleted")
        elif number < following:
            yield Finding(
                "misplaced",
                f"row {number} is out of place: it was inserted, or rows were exchanged",
            )
        elif row["previous"] != self.head:
            before = f"row {self.last} was edited and hashed anew" if self.last else "it was edited"
            yield Finding(
                "unlinked",
                f"row {number} names another row before it: {before}, or row {number} was inserted",
            )
