"""Valid documents of every kind that a target reads: what mutations begin with.

The corpus is made from them. Keys and signatures are made by the real gpg when this is asked for,
and only their public parts are in what is returned.
"""

import json
import lzma
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from installer import deb
from installer.approval import Approval, Withdrawal, write_approval, write_withdrawal
from installer.bundle import BLOCK, CONTENT, END_OF_ARCHIVE, Head, tar_header
from installer.fingerprint import schema_of
from installer.openpgp import open_envelope
from installer.receipt import (
    Failure,
    Lock,
    MeasuredApplication,
    MeasuredDatabase,
    Receipt,
    Retry,
    ScriptReceipt,
    write_receipt,
)
from installer.rpm_payload import CPIO_MAGIC, HEADER_MAGIC, LEAD, RPM_MAGIC
from installer.tree import Digest
from packager.bundle_writer import armour, write_bundle
from packager.manifest_writer import compress
from tests.corpus import LATER, LONG_AGO, REASONS, revoke, revoke_subkey
from tests.keys import Keyring

A, B = Digest("a" * 64), Digest("b" * 64)
ADA, BOB, CUSTOMER, MACHINE = "A" * 40, "B" * 40, "C" * 40, "D" * 40
MOMENT = 1_767_225_600
CONTENTS = (b"SELECT 1;\n" * 40, bytes(3000))
ARMOUR = b"-----BEGIN PGP SIGNATURE-----\n\naGVsbG8=\n-----END PGP SIGNATURE-----\n"

HEAD = Head(b'{"type": "countersign-manifest"}\n', {ADA: ARMOUR, BOB: ARMOUR})
"""What the bundles here begin with, and what a package is searched for."""

POLICY = f"""serial = 7
chain = ["DEV", "QAT", "PRD"]
[[identity]]
name = "Ada"
role = "developer"
fingerprints = ["{ADA}", "{"A" * 39}1"]
not_before = 2026-01-01T00:00:00Z
[[identity]]
name = "Bob"
role = "reviewer"
fingerprints = ["{BOB}"]
status = "retired"
not_after = 2026-12-31T23:59:59+01:00
[[identity]]
name = "Carol"
role = "customer"
fingerprints = ["{CUSTOMER}"]
status = "active"
[[identity]]
name = "qat1"
role = "host"
environment = "QAT"
fingerprints = ["{MACHINE}"]
[require.QAT]
developer = 1
[require.PRD]
developer = 1
reviewer = 1
customer = 1
receipt = true
schema = ["structure", "owners"]
signed_scripts = true
online = false
max_approval_days = 14
[rotation]
developer = 1
"""
HOST_FILE = r"""environment = "PRD"
[database.crm]
service = "crm"
owner = "crm_owner"
search_path = "crm, public"
lock_timeout = 0.5
statement_timeout = 60
lock_wait = 60
superuser = false
restore_point = true
backup = { tool = "pgbackrest", name = "main", user = "postgres", max_age_hours = 24 }
[database.stock]
conninfo = "host=/run/postgresql dbname='my \\'stock\\'' passfile = /etc/pass"
owner = "stock"
[application.crm]
root = "/opt/crm"
keep = 3
services = ["crm.service", "crm@1.socket"]
local = ["config/local.toml", "uploads/", "config/*.d/?.toml"]
"""
STATUS = (
    "[GNUPG:] NEWSIG ada@example.org\n"
    f"[GNUPG:] KEY_CONSIDERED {ADA} 0\n"
    "[GNUPG:] SIG_ID abc 2026-01-01 1767225600\n"
    f"[GNUPG:] GOODSIG {ADA[:16]} Ada\n"
    f"[GNUPG:] VALIDSIG {ADA} 2026-01-01 {MOMENT} 0 4 0 22 10 00 {BOB}\n"
    "[GNUPG:] VERIFICATION_COMPLIANCE_MODE 23\n"
)


def seeds() -> dict[str, list[bytes]]:
    """Valid inputs by the name of the target that reads them."""
    bundle = write_bundle(HEAD, compress(CONTENTS))
    least = write_bundle(Head(b"", {}), b"")
    signatures, keyrings = _made_by_gpg()
    return {
        "bundle": [bundle, least],
        "scriptlet": [armour(bundle), armour(HEAD.serialise())],
        "content": [
            b"\2" + b"".join(len(c).to_bytes(2) for c in CONTENTS) + compress(CONTENTS),
            b"\0" + compress([b""]),
        ],
        "deb": [a_deb(least), a_deb(least, signed=True), a_deb(least, long=b"./bundle\0")],
        "rpm": [an_rpm(bundle)],
        "json": [json.dumps({"a": [1, "\u00e9\n", None, True, {"b": {}}]}).encode()],
        "manifest": [json.dumps(document).encode() for document in _manifests()],
        "receipt": [write_receipt(receipt) for receipt in _receipts()],
        "approval": [write_approval(APPROVAL), write_approval(replace(APPROVAL, receipt=None))],
        "withdrawal": [write_withdrawal(WITHDRAWAL)],
        "envelope": signatures,
        "revocation": keyrings,
        "status": [b"\0" + said.encode() for said in _answers()],
        "policy": [POLICY.encode()],
        "host_file": [HOST_FILE.encode()],
        "place": [
            b"COPY countersign_rows, line 2\x1eSELECT 1\x1eCOPY t FROM STDIN;",
            b"SQL statement /*run 2*/\x1e/*run 2*/SELECT 2;\x1eSELECT 1;SELECT 2;",
            b"\x1e\x1ebegin;\n\xc3\xa9",
        ],
    }


def a_deb(bundle: bytes, *, signed: bool = False, long: bytes = b"") -> bytes:
    """A package in the form that `installer.deb` reads, with as few zeros as may be.

    `long` is the bundle's name in a member of its own.
    """
    files = {b"./control": b"Package: crm\n", b"./md5sums": b"", b"./preinst": b"#!"}
    files |= {deb.LONG_NAME: long} if long else {}
    files |= {b"./bundle": bundle}
    control = deb._gnu_header(b"./", 0o755, 0, 0, b"5")
    for name, data in files.items():
        kind = b"L" if name == deb.LONG_NAME else b"0"
        control += deb._gnu_header(name, 0o644, len(data), 0, kind) + _padded(data, BLOCK)
    members = {"debian-binary": deb.VERSION, "control.tar": control + bytes(BLOCK)}
    members |= {"data.tar": bytes(BLOCK)} | ({"_gpgorigin": b"sig"} if signed else {})
    return deb.MAGIC + b"".join(
        deb.ar_header(name, len(data), 0) + _padded(data, 2) for name, data in members.items()
    )


def an_rpm(bundle: bytes) -> bytes:
    """A lead, two empty headers, and a cpio archive: what `installer.rpm_payload` looks at."""
    intro = HEADER_MAGIC + bytes(12)
    names = {"./var/lib/manifest.json": b"{}", "./var/lib/bundle": bundle, "TRAILER!!!": b""}
    payload = b""
    for name, data in names.items():
        numbers = [0] * 6 + [len(data)] + [0] * 4 + [len(name) + 1, 0]
        header = CPIO_MAGIC + b"".join(b"%08x" % number for number in numbers)
        payload += _padded(header + name.encode() + b"\0", 4) + _padded(data, 4)
    return RPM_MAGIC.ljust(LEAD, b"\0") + intro * 2 + payload


def with_content(size: int, compressed: bytes = b"") -> bytes:
    """A bundle whose last header says that `size` bytes follow."""
    return HEAD.serialise() + tar_header(CONTENT, size) + compressed + END_OF_ARCHIVE


def xz_of_zeros(mebibytes: int) -> bytes:
    """An xz stream of so many MiB of zeros, an even number, whose end is missing."""
    two = lzma.compress(bytes(2 << 20), check=lzma.CHECK_NONE)
    start = 12 + (two[12] + 1) * 4  # the stream's header, and the block's (xz format, 2.1.1, 3.1)
    raw = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    chunk = lzma.compress(bytes(2 << 20), lzma.FORMAT_RAW, filters=raw)[:-1]
    return two[:start] + chunk * (mebibytes // 2)


APPROVAL = Approval(A, "crm", "1.4.0", 14, A, B, "PRD", MOMENT, MOMENT + 86400)
WITHDRAWAL = Withdrawal(A, B, "crm", "1.4.0", "PRD", "found a fault")


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def _manifests() -> Iterator[dict[str, Any]]:
    entries = [
        {"path": "bin/crm", "mode": "100755", "size": 3, "digest": A},
        {"path": "etc", "mode": "120000", "size": 5, "digest": B},
    ]
    copy = {"table": '"t"', "columns": ["id"], "options": {"format": "csv"}, "size": 1}
    script = {
        "name": "sql/1.sql",
        "digest": A,
        "size": 20,
        "runs": [0, 12],
        "gaps": [{"start": 18, "end": 20, "copy": copy}],
        "author": {"fingerprint": ADA, "signature": ARMOUR.decode()},
        "online": None,
    }
    plain = {**script, "gaps": [], "author": None}
    indexes = [{"run": 0, "verb": "create", "name": '"i"'}]
    online = {"when": "after", "repeat": False, "indexes": indexes}
    accept = {"script": "sql/1.sql", "change": "edited", "applied": [B], "reason": "a comment"}
    full = {
        "type": "countersign-manifest",
        "format": 1,
        "release": {"name": "crm", "version": "1.4.0", "sequence": 14, "summary": "Orders"},
        "source": {
            "vcs": "git",
            "tag": "v1.4.0",
            "revision": "0" * 40,
            "committed": MOMENT,
            "tagger": ADA,
        },
        "application": {
            "root": "/opt/crm",
            "tree": entries,
            "patches": [
                {
                    "from": "v1.3.0",
                    "digest": A,
                    "size": 9,
                    "before": entries[:1],
                    "added": ["etc"],
                }
            ],
        },
        "database": {
            "name": "crm",
            "scripts": [script, {**plain, "name": "sql/2.sql", "online": online}],
            "verify": [{**plain, "name": "sql/3.sql"}],
            "accept": [accept],
            "rehearsal": {"major": 15, "starts": ["empty"]},
        },
        "content": {"compression": "xz", "digest": A, "size": 100},
    }
    yield full
    yield {**full, "application": None}
    yield {**full, "database": None}


def _receipts() -> Iterator[Receipt]:
    varchar = "(((code)::text = ANY ((ARRAY['a'::character varying])::text[])))"
    before = schema_of(
        15, [("structure", "table", "t", "(id)"), ("structure", "check", "c", varchar)]
    )
    after = schema_of(15, [("structure", "table", "t", "(id, n)"), ("owners", "table", "t", "o")])
    database = MeasuredDatabase(
        name="crm",
        system="7712055347597209612",
        version="15.18",
        ledger=B,
        milliseconds=1200,
        before=before,
        after=after,
        scripts=(ScriptReceipt("sql/1.sql", A, 12, 3),),
        locks=(Lock("t", "AccessExclusiveLock"),),
        created=("n",),
        retries=(Retry("another install", 50),),
        online=(before, after),
    )
    application = MeasuredApplication("/opt/crm", B)
    full = Receipt(
        *(A, "crm", "1.4.0", 14, A, "crm-1.4.0-1.noarch", "QAT", "qat1.example.org", "0.1.0"),
        *(MOMENT, MOMENT + 60, "installed", None, database, application),
    )
    yield full
    failed = replace(database, online=None)
    yield replace(full, outcome="failed", failure=Failure(33, "a script"), database=failed)


def _answers() -> Iterator[str]:
    yield STATUS
    yield STATUS.replace("GOODSIG", "REVKEYSIG")
    yield f"[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG {ADA[:16]} 22 10 00 1 9 -\n[GNUPG:] NO_PUBKEY x\n"
    for said in ("BADSIG", "EXPSIG", "EXPKEYSIG"):
        yield STATUS.replace("GOODSIG", said)


def _made_by_gpg() -> tuple[list[bytes], list[bytes]]:
    """Signatures of a document; keyrings, each behind the fingerprint that is looked for in it."""
    with Keyring.create() as keys:
        ada, bob = (keys.new_key(f"{name} <x@example.org>", created=LONG_AGO) for name in "ab")
        options = (
            *((), ("--digest-algo", "SHA256"), ("--default-sig-expire", "1d")),
            *(("--sig-notation", "place@example.org=here"), ("--comment", "by hand")),
        )
        signatures = [keys.sign(b"document", ada, *option) for option in options]
        keyrings = [keys.export([ada])]
        keys.add_subkey(bob, created=LONG_AGO)
        revoke_subkey(keys, bob, REASONS["superseded"], created=LATER)
        revoke(keys, ada, REASONS["superseded"], created=LATER)
        keyrings += [keys.export([ada]), keys.export([bob]), keys.export([ada, bob])]
        fingerprints = [ada, ada, bob, ada]
    for signature in signatures:
        open_envelope(signature)
    pairs = zip(fingerprints, keyrings, strict=True)
    return signatures, [bytes.fromhex(key) + keyring for key, keyring in pairs]
