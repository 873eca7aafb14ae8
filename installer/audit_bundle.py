"""The auditor's bundle: the form of the archive, and what is signed in it (docs/decisions/0021).

A tar archive in a single canonical form: each header equals, byte for byte, the one that `header`
makes of name and size. Members are in the order of their names, but for `audit.json` and its
signature, which come last: it has the digest of each of the others.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterable
from typing import IO

from installer.bundle import BLOCK, END_OF_ARCHIVE, MAX_SIGNATURE_SIZE
from installer.strict_json import MAX_DOCUMENT_SIZE
from installer.tree import Digest

TYPE = "countersign-audit"
FORMAT = 1
STATEMENT, SIGNATURE = "audit.json", "audit.json.asc"
KEYRING, LEDGER, POLICY = "keyring.pgp", "ledger.jsonl", "policy.toml"
MAX_MEMBERS = 65_536
MAX_LEDGER = 8**11 - 1
"""Bytes: the largest size that a header can have."""

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+~-]*"
_SIGNED = r"\.json((\.[0-9A-F]{40})?\.asc)?"
_NAMES = re.compile(
    rf"approvals/{_PART}/(approval|receipt|withdrawal){_SIGNED}|(manifests|receipts)/{_PART}{_SIGNED}"
    rf"|{KEYRING}|{LEDGER}|{POLICY}|{STATEMENT}|{SIGNATURE}"
)


def limit_of(name: str) -> int | None:
    """Bytes that a member may have; None for a name that has no place in the archive."""
    folder, _, own = name.rpartition("/")
    if len(folder) > tarfile.LENGTH_PREFIX or len(own) > tarfile.LENGTH_NAME:
        return None  # it does not fit into a header (POSIX.1-1988, ustar)
    if not _NAMES.fullmatch(name):
        return None
    if name.endswith(".asc"):
        return MAX_SIGNATURE_SIZE
    return MAX_LEDGER if name == LEDGER else MAX_DOCUMENT_SIZE


def header(name: str, size: int) -> bytes:
    """The only header that a member can have: mode 0644, owner 0, time 0, a regular file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


class Writer:
    """Writes the members, in the order in which they are given; `files` has their digests."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.files: dict[str, Digest] = {}

    def add(self, name: str, size: int, pieces: Iterable[bytes]) -> bool:
        """Write a member of `size` bytes, which come in `pieces`; false where it has no place."""
        digest, limit = hashlib.sha256(), limit_of(name)
        if limit is None or size > limit or len(self.files) >= MAX_MEMBERS:
            return False
        self._file.write(header(name, size))
        for piece in pieces:
            digest.update(piece)
            self._file.write(piece)
        self._file.write(bytes(-size % BLOCK))
        self.files[name] = Digest(digest.hexdigest())
        return True

    def end(self) -> None:
        """Write the end of the archive."""
        self._file.write(END_OF_ARCHIVE)
