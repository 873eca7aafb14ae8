"""The tables of docs/reference/assurance.md lose no row; their tests and codes are there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from installer.errors import InstallerError
from packager.errors import PackagerError

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/reference/assurance.md"
HEADING = ("what is tried, or happens", "what becomes of it", "state left", "tests")
TEST = re.compile(r"`((?:unit|integration|acceptance)/test_\w+\.py)::(test_\w+)`")
INTERRUPTED = 130
LINES = {
    "Signatures and roles": r"""
unsigned
a key that the keyring does
a key that the keyring holds,
a developer's key on the customer's
a customer's key on the manifest
the same identity twice, with two keys
the same identity twice, with two subkeys
one signature under several names
1 of 2 required signatures
2 of 3 developers, where 2
one broken signature among enough good
several signatures in one file, in
SHA-1, RIPEMD160, MD5, SHA-224
text mode, with LF and with
inline, clear-signed, compressed
a certification of a key in
an expired signature
an expired key or subkey
a key revoked in a hard
a key revoked in a soft
a soft revocation added beside a
another's subkey below one's own primary
dated more than 300 s ahead
a critical notation, a policy of
junk around or in the armour
two armoured blocks
any bit of the manifest flipped
any bit of a signature flipped
GNUPGHOME, gpg.conf, PATH, HOME, PYTHONPATH, PG*
LD_PRELOAD, LD_LIBRARY_PATH
OPENSSL_CONF, PYTHONEXECUTABLE
a key embedded in, or beside,
a file name, or a user's
gpgv missing, killed, silent
gpgv hung
gpgv's status truncated, or with anything
a short key id in the
policy, host file, keyring or a
""",
    "Promotion": r"""
a QAT approval on PRD
the approval of release A with
the same version with other bytes
an approval that has expired, is
a clock that was set back
an approval for another product
an approval by another customer, or
no approval, or an unsigned one
an approval edited after it was
an approval that others than root
an approval that the customer withdrew
a withdrawal that no customer signed
two keys of one customer where
no receipt
the receipt of a failed run
another receipt than the approval names
a receipt by another host, or
an unsigned receipt
a receipt whose objects are not
a schema that has drifted before
a schema that the release makes
other scripts to run than in
a lower sequence
an equal sequence with another manifest
the same release again
""",
    "Bundle": r"""
a file added, removed, or changed
two contents swapped, the order edited
a symbolic link, hard link, FIFO,
`..`, absolute, NUL, newline, twins by
JSON with duplicate keys, NaN, BOM,
a bomb by size, count or
truncated at every 4 KiB
content exchanged between digest and execution
any bytes in the place of
any byte of a package flipped
""",
    "SQL": r"""
COMMIT, ROLLBACK, SAVEPOINT, a CALL or
`\!`, `\i`, `\copy`
COPY … PROGRAM, the server's files,
a script that resets its role,
a script that resets timeouts, or
a script that edits the ledger:
a script that changes the function
a function that shadows one of
an operator that fits the installer's
functions or a schema that wait
ALTER DATABASE … SET by the
ALTER DATABASE … SET synchronous_commit =
a trigger that is deferred again,
a cursor WITH HOLD, whose query
an index's expression, run at the
a default, check, domain or trigger
an online script that lets go
an owner role that is a
an event trigger whose function the
edited, removed, reordered and late-sorting scripts
an empty script, one without a
a script that is not UTF-8
a script of 200 MB
a locked table
""",
    "Application": r"""
an application file that was edited,
a patch that leads out of
a patch that writes through a
a patch that makes a device,
a link in `local`, or among
a release with a link in
a kept version of a local
""",
    "Faults": r"""
the installer is killed at any
rpm or dpkg is killed at
PostgreSQL is killed before, during and
the connection is lost during COMMIT
the disk is full while staging
the disk is full in PostgreSQL
the disk is full in rpm's
a disk that fails, or cannot
out of memory
power loss
two, and fifty, hosts install at
two different releases at once
`--noscripts`, `--justdb`
`--nosignature`, `--force` and the like
`dnf downgrade`, `dnf history undo`
`rpm -e`, and dpkg's steps
an install interrupted by Ctrl-C or
kills at random, many times
""",
    "Ledger": r"""
UPDATE, DELETE, TRUNCATE by a script
UPDATE, DELETE, TRUNCATE by the role
a superuser edits, deletes, inserts or
a superuser computes the whole chain
the tail is cut
an old backup is restored
an old backup is restored, and
PRD is passed off as a
a receipt is changed
8 writers at once
an auditor's bundle with a member
a bit of an auditor's bundle
""",
    "The process": r"""
a password or key in a
""",
}
"""How each row that has to be there begins, by section: one may be added, none taken away."""


def codes(error: type[Exception]) -> Iterator[int]:
    """The exit codes of all errors that are of a kind."""
    for kind in error.__subclasses__():
        yield kind.exit_code  # type: ignore[attr-defined]
        yield from codes(kind)


EXIT_CODES = {0, INTERRUPTED, *codes(InstallerError), *codes(PackagerError)}


@dataclass(frozen=True, slots=True)
class Row:
    attack: str
    outcome: str
    state: str
    tests: str


def rows(section: str) -> list[Row]:
    """The table of a section. No cell holds a bar."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(f"\n## {section}\n") == 1, section
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    table = [line for line in body.splitlines() if line.startswith("|")]
    heading, rule, *found = ([cell.strip() for cell in line[1:-1].split("|")] for line in table)
    assert (tuple(heading), set(rule)) == (HEADING, {"---"}), section
    return [Row(*cells) for cells in found]


ROWS = [row for section in LINES for row in rows(section)]


@pytest.mark.parametrize("section", LINES)
def test_everything_that_has_to_be_told_is_told_once(section: str) -> None:
    told = [row.attack for row in rows(section)]

    for line in LINES[section].strip().splitlines():
        beginning = [attack for attack in told if attack.startswith(line)]
        assert line in beginning or len(beginning) == 1, line
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.attack))
def test_every_test_that_a_row_names_exists(row: Row) -> None:
    named = TEST.findall(row.tests)

    assert named
    assert not TEST.sub("", row.tests).strip(), "something else than tests"
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.attack))
def test_every_row_says_the_state_that_is_left_and_a_code_that_there_is(row: Row) -> None:
    told = {int(code) for code in re.findall(r"\bexit (\d+)", row.outcome)}

    assert row.state
    assert told or "the shell's" in row.outcome or "known gap" in row.outcome
    assert told <= EXIT_CODES
