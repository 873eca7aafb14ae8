"""Reads auditors' bundles in the one form that hosts write them (`installer.audit_bundle`).

Nothing is unpacked, and no more than one document, or one row of the ledger, is held at a time.
Every member has to be named in audit.json, with its digest, and every name there has to be a
member. Whose signature is on audit.json is not looked at here.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from installer.audit_bundle import (
    FORMAT,
    KEYRING,
    LEDGER,
    MAX_MEMBERS,
    POLICY,
    SIGNATURE,
    STATEMENT,
    TYPE,
    header,
    limit_of,
)
from installer.bundle import BLOCK, END_OF_ARCHIVE, Section
from installer.errors import DigestError, MalformedError
from installer.ledger_chain import MAX_LINE, Row, read_row
from installer.manifest import DATABASE, ENVIRONMENT, PRODUCT, VERSION
from installer.openpgp import FINGERPRINT
from installer.strict_json import Fields, load_json
from installer.tree import Digest

_ALWAYS = (KEYRING, LEDGER, POLICY, STATEMENT)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)?")
_HASH = re.compile(r"([0-9a-f]{64})?")
_LAST = (STATEMENT, SIGNATURE)


@dataclass(frozen=True, slots=True)
class Statement:
    """What audit.json says; `created` is in seconds since 1970.

    `copied` is since when the database may be a copy, as rows have times, or empty; `head` is the
    hash of the last row, empty where there is none. `missing` is what the host did not have.
    """

    created: int
    host: str
    environment: str
    installer: str
    product: str | None
    database: str
    system: str
    version: str
    copied: str
    rows: int
    head: str
    host_key: str | None
    missing: tuple[str, ...]
    files: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class AuditBundle:
    """An archive that is what its audit.json says; it lies in a file that has to stay open."""

    statement: Statement
    members: Mapping[str, Section]

    def read(self, name: str) -> bytes:
        """The content of a member; not for the ledger, which may be large."""
        return b"".join(self.members[name].pieces())

    def rows(self) -> Iterator[Row]:
        """The ledger's rows.

        Raises:
            MalformedError: a line is no row.
        """
        held = b""
        for piece in self.members[LEDGER].pieces():
            *lines, held = (held + piece).split(b"\n")
            yield from (read_row(line + b"\n") for line in lines)
            if len(held) > MAX_LINE:
                raise MalformedError(f"{LEDGER}: a line has more than {MAX_LINE} bytes")
        if held:
            raise MalformedError(f"{LEDGER}: the last line does not end")


def read_audit(file: BinaryIO) -> AuditBundle:
    """The auditor's bundle in `file`.

    Raises:
        MalformedError: it is not in the one form, or has another member than audit.json says.
        DigestError: a member is not the one that audit.json names.
    """
    members = dict(_members(file))
    for name in _ALWAYS:
        if name not in members:
            raise MalformedError(f"the auditor's bundle has no {name}")
    statement = _statement(b"".join(members[STATEMENT].pieces()))
    if others := sorted((members.keys() - set(_LAST)) ^ statement.files.keys()):
        where = "is missing" if others[0] in statement.files else f"is not in {STATEMENT}"
        raise MalformedError(f"{others[0]} {where}: a member was removed, or added")
    for name, digest in statement.files.items():
        if members[name].digest() != digest:
            raise DigestError(f"{name} is not the one that {STATEMENT} names")
    return AuditBundle(statement, members)


def _members(file: BinaryIO) -> Iterator[tuple[str, Section]]:
    """The members, in their order; each once, and the archive ends behind the last."""
    end, offset, before, count = file.seek(0, os.SEEK_END), 0, (False, ""), 0
    while (raw := _block(file, offset)) != bytes(BLOCK):
        name, size = _member(raw)
        place = (name in _LAST, name)
        count += 1
        if place <= before or count > MAX_MEMBERS + len(_LAST):
            raise MalformedError(f"{name} is out of place in the auditor's bundle, or one too many")
        before = place
        section = Section(file, offset + BLOCK, size)
        offset += BLOCK + size + -size % BLOCK
        if offset > end or any(_read(file, offset - -size % BLOCK, -size % BLOCK)):
            raise MalformedError(f"{name}: the auditor's bundle is truncated, or padded otherwise")
        yield name, section
    if file.read() != END_OF_ARCHIVE[BLOCK:] or offset + len(END_OF_ARCHIVE) != end:
        raise MalformedError("the auditor's bundle does not end where its members do")


def _member(raw: bytes) -> tuple[str, int]:
    """The name and size in a header."""
    own, folder = raw[:100].rstrip(b"\0"), raw[345:500].rstrip(b"\0")
    name = (folder + b"/" + own if folder else own).decode("ascii", "replace")
    limit = limit_of(name)
    if limit is None or not re.fullmatch(rb"[0-7]{11}\0", raw[124:136]):
        raise MalformedError(f"{name[:200]!r} has no place in an auditor's bundle")
    size = int(raw[124:135], 8)
    if size > limit:
        raise MalformedError(f"{name} has {size} bytes, more than {limit}")
    if raw != header(name, size):
        raise MalformedError(f"{name}: its header is of another form than hosts write it")
    return name, size


def _block(file: BinaryIO, offset: int) -> bytes:
    raw = _read(file, offset, BLOCK)
    if len(raw) != BLOCK:
        raise MalformedError("the auditor's bundle is truncated, or no tar archive")
    return raw


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _statement(raw: bytes) -> Statement:
    top = Fields(load_json(raw, STATEMENT), STATEMENT)
    top.require_type(TYPE, FORMAT)
    database, ledger = top.table("database"), top.table("ledger")
    product, host_key = top.optional_text("product"), top.optional_text("host_key")
    files = top.each("files", lambda fields: (fields.text("name"), fields.digest("digest")))
    found = Statement(
        created=top.moment("created"),
        host=top.line("host"),
        environment=top.matching("environment", ENVIRONMENT),
        installer=top.matching("installer", VERSION),
        product=product,
        database=database.matching("name", DATABASE),
        system=database.matching("system", re.compile("[0-9]{1,20}")),
        version=database.line("version"),
        copied=database.matching("copied", _TIME),
        rows=ledger.integer("rows", 0, 2**53),
        head=ledger.matching("head", _HASH),
        host_key=host_key,
        missing=top.sequence("missing", str),
        files=dict(files),
    )
    for fields in (database, ledger, top):
        fields.require_all_read()
    if len(found.files) != len(files):
        top.refuse("files has the same name twice")
    if product is not None and not PRODUCT.fullmatch(product):
        top.refuse(f"product is {product!r}, which is no product's name")
    if host_key is not None and not FINGERPRINT.fullmatch(host_key):
        top.refuse("host_key is not a fingerprint of 40 hexadecimal digits in capitals")
    return found
