"""What is refused: with its own exit code, a message that names the cause, and nothing changed.

All tests share one host that has release 1.0: each asserts that it left the host as it was.
"""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from installer.manifest import Accepted
from installer.tree import digest_of
from tests.acceptance import releases
from tests.developers import Developers, Draft, as_bytes
from tests.frontends import APT, DNF, DPKG, RPM, only
from tests.sites import Site, refused, unchanged

pytestmark = pytest.mark.acceptance

LEAD = 96
"""Bytes of an RPM's lead, which rpm ignores (rpm, docs/manual/format_lead.md)."""

PLACES = {"rpm": 60, "dnf": 20, "dpkg": 60, "apt": 20}
"""How many places are changed, one a time: dnf and apt take a second for each."""


@pytest.fixture
def next_release(developers: Developers, first: Path) -> Draft:
    """Release 1.1, to be varied."""
    assert first.exists()
    return releases.second(developers)


def test_an_unsigned_release(kept_site: Site, developers: Developers, next_release: Draft) -> None:
    package = developers.package(replace(next_release, label="-unsigned", signers=()))

    words = refused(kept_site, package, 20)

    assert "QAT requires 1 of role developer, found none" in words


def test_a_release_signed_by_an_unknown_key(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    signed = replace(next_release, label="-mallory", signers=[developers.mallory])

    words = refused(kept_site, developers.package(signed), 20)

    assert developers.mallory in words


def test_one_of_two_required_signatures(
    kept_site: Site, developers: Developers, second: Path
) -> None:
    kept_site.trust(developers.policy(QAT=2), developers.keyring())
    try:
        words = refused(kept_site, second, 20)
    finally:
        kept_site.trust(developers.policy(QAT=1), developers.keyring())

    assert "QAT requires 2 of role developer, found 1 (Ada)" in words


def test_a_failing_script_in_the_middle_leaves_the_old_release(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    broken = {"sql/0003_totals.sql": "-- adds totals\nALTER TABLE orders\n  ADD COLUMN id int;\n"}
    package = developers.package(releases.with_files(next_release, "failing", broken))

    words = refused(kept_site, package, 33)

    assert "error: crm 1.1 was not installed: sql/0003_totals.sql:2: column" in words
    assert 'column "id" of relation "orders" already exists' in words
    assert "   2 | ALTER TABLE orders" in words
    assert "The database and the application are unchanged." in words
    assert kept_site.ledger()[-1]["event"] == "release failed"


def test_a_first_install_that_fails_leaves_nothing(
    site: Site, developers: Developers, next_release: Draft
) -> None:
    broken = {"sql/0004_notes.sql": "SELECT nope;\n"}
    package = developers.package(releases.with_files(next_release, "nothing", broken))
    folders = sorted(site.host.at("/opt").iterdir())

    with unchanged(site):
        assert site.install(package).returncode != 0

    assert sorted(site.host.at("/opt").iterdir()) == folders
    assert site.installer("status").stdout == "no release was installed on this host\n"


@pytest.mark.parametrize(
    "statement, words",
    [
        ("COMMIT;\nBEGIN;", "2: EXECUTE of transaction commands is not implemented"),
        ("DO $$ BEGIN COMMIT; END $$;", "2: invalid transaction termination"),
        ("RESET ROLE;", '2: cannot set parameter "role" within security-definer function'),
        ("DELETE FROM countersign.ledger;", "2:13: permission denied for schema countersign"),
        ("VACUUM;", "2: VACUUM cannot run inside a transaction block"),
    ],
)
def test_a_script_that_the_build_should_have_refused(
    kept_site: Site, developers: Developers, next_release: Draft, statement: str, words: str
) -> None:
    script = {"sql/0003_totals.sql": f"CREATE TABLE stays ();\n{statement}\n"}
    label = statement.partition(" ")[0].partition(";")[0].lower()
    draft = releases.with_files(next_release, label, script)

    said = refused(kept_site, developers.package_past_the_check(draft), 33)

    assert f"sql/0003_totals.sql:{words}" in said


def test_a_verify_script_that_raises_rolls_the_release_back(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    verify = {"sql/verify/never.sql": "DO $$ BEGIN RAISE EXCEPTION 'totals are wrong'; END $$;\n"}
    package = developers.package(releases.with_files(next_release, "verify", verify))

    assert "sql/verify/never.sql:1: totals are wrong" in refused(kept_site, package, 33)


def test_an_edited_released_script(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    edited = {"sql/0001_customers.sql": "CREATE TABLE customer (id bigint PRIMARY KEY);\n"}
    draft = releases.with_files(next_release, "edited", edited)
    package = developers.package(replace(draft, starts=("empty",)))

    words = refused(kept_site, package, 32)

    was, now = (digest_of(as_bytes(f["sql/0001_customers.sql"])) for f in (releases.FIRST, edited))
    assert (
        f"sql/0001_customers.sql was edited after it was released: applied as {was[:16]}" in words
    )
    for line in ('change = "edited"', f'applied = ["{was}"]', f'digest = "{now}"', 'reason = "…"'):
        assert line in words


def test_an_edited_script_that_was_applied_as_no_digest_that_the_release_accepts(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    edited = {"sql/0001_customers.sql": "CREATE TABLE customer (id bigint PRIMARY KEY);\n"}
    draft = releases.with_files(next_release, "other-digest", edited)
    other = Accepted("sql/0001_customers.sql", "edited", (digest_of(b"another"),), "agreed")
    package = developers.package(replace(draft, starts=("empty",), accept=[other]))

    words = refused(kept_site, package, 32)

    was = digest_of(as_bytes(releases.FIRST["sql/0001_customers.sql"]))
    assert f'applied = ["{was}"]' in words


def test_a_script_that_was_applied_and_is_gone(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    files = {p: c for p, c in next_release.files.items() if p != "sql/0002_orders.sql"}
    draft = replace(next_release, label="-gone", starts=("empty",), files=files)

    words = refused(kept_site, developers.package(draft), 32)

    was = digest_of(as_bytes(releases.FIRST["sql/0002_orders.sql"]))
    assert "sql/0002_orders.sql was applied as" in words
    assert 'change = "removed"' in words
    assert f'applied = ["{was}"]' in words


def test_a_script_that_sorts_before_an_applied_one(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    late = {"sql/0001_a_late_one.sql": "CREATE TABLE late ();\n"}
    draft = releases.with_files(next_release, "late", late)
    package = developers.package(replace(draft, starts=("empty",)))

    words = refused(kept_site, package, 32)

    assert "sql/0001_a_late_one.sql" in words
    assert "[[database.accept]]" in words


def test_a_lower_sequence(kept_site: Site, developers: Developers, next_release: Draft) -> None:
    package = developers.package(replace(next_release, label="-lower", sequence=1))

    words = refused(kept_site, package, 24)

    assert "it has sequence 1, and this host (crm 1.0) is at 2 already" in words


def test_the_same_sequence_with_other_content_is_not_the_same_release(
    kept_site: Site, developers: Developers, first: Path
) -> None:
    assert first.exists()
    package = developers.package(replace(releases.second(developers), label="-same", sequence=2))

    words = refused(kept_site, package, 24)

    assert "another release with its sequence, 2, is on this host (crm 1.0)" in words


def test_a_hand_edited_application_file(kept_site: Site, second: Path) -> None:
    host = kept_site.host
    host.write("/opt/crm/current/VERSION", "edited by hand\n")
    try:
        words = refused(kept_site, second, 40)
    finally:
        host.write("/opt/crm/current/VERSION", "1.0\n")

    assert "VERSION: expected " in words
    assert "1 of its files differ from 1.0" in words


def test_a_file_that_is_too_much_in_the_application(kept_site: Site, second: Path) -> None:
    host = kept_site.host
    host.write("/opt/crm/current/bin/extra", "not ours\n")
    try:
        words = refused(kept_site, second, 40)
    finally:
        host.at("/opt/crm/current/bin/extra").unlink()

    assert "bin/extra: not part of the release" in words


def test_a_changed_mode_in_the_application(kept_site: Site, second: Path) -> None:
    file = kept_site.host.at("/opt/crm/current/VERSION")
    file.chmod(0o666)
    try:
        words = refused(kept_site, second, 40)
    finally:
        file.chmod(0o644)

    assert "VERSION: expected mode 100644, found 100666" in words


def test_a_database_that_is_down(kept_site: Site, second: Path) -> None:
    before = kept_site.state()
    kept_site.host.stop_cluster()
    try:
        done = kept_site.upgrade(second)
    finally:
        kept_site.host.start_cluster()

    words = done.stdout + done.stderr
    assert "exit status 30" in words
    assert "cannot connect to database crm" in words
    assert kept_site.state() == before


@pytest.mark.parametrize("file", ["policy.toml", "host.toml", "keyring.pgp", ""])
def test_configuration_that_others_can_write_to(kept_site: Site, second: Path, file: str) -> None:
    path = kept_site.host.at(f"/etc/countersign/{file}".rstrip("/"))
    mode = path.stat().st_mode
    path.chmod(mode | 0o002)
    try:
        words = refused(kept_site, second, 10)
    finally:
        path.chmod(mode)

    assert f"/etc/countersign/{file}".rstrip("/") in words
    assert "chmod" in words


def test_a_release_for_a_database_that_the_host_file_does_not_name(
    kept_site: Site, second: Path
) -> None:
    host_file = kept_site.host.at("/etc/countersign/host.toml")
    text = host_file.read_text()
    host_file.write_text(text.replace("[database.crm]", "[database.other]"))
    try:
        words = refused(kept_site, second, 10)
    finally:
        host_file.write_text(text)

    assert "[database.crm]" in words


def test_a_hostile_environment_has_no_effect(kept_site: Site, second: Path) -> None:
    hostile = {
        "PATH": "/srv/evil:/usr/bin:/bin",
        "GNUPGHOME": "/srv/evil",
        "PYTHONPATH": "/srv/evil",
        "PGHOST": "/srv/evil",
        "PGOPTIONS": "-c search_path=evil",
        "GIT_DIR": "/srv/evil",
        "GIT_CONFIG_GLOBAL": "/srv/evil/gitconfig",
    }
    for name in ("gpgv", "git", "python3"):
        kept_site.host.write(f"/srv/evil/{name}", "#!/bin/sh\ntouch /srv/evil/ran\n", mode=0o755)
    kept_site.host.write("/srv/evil/psycopg.py", "open('/srv/evil/ran', 'w')\n")
    package = kept_site.carry(second)

    with unchanged(kept_site):
        done = kept_site.host.run(["countersign-install", "check", package], env=hostile)

    assert done.returncode == 0, done.stderr
    assert not kept_site.host.at("/srv/evil/ran").exists()


def header_offset(raw: bytes) -> int:
    """Where an RPM's header begins: after the lead and the signature header, padded to 8 bytes."""
    entries, size = struct.unpack(">II", raw[LEAD + 8 : LEAD + 16])
    return int(LEAD + 16 + 16 * entries + size + 7) // 8 * 8


def flipped(raw: bytes, start: int, end: int, count: int) -> Iterator[bytes]:
    """Copies with one bit of one byte changed, at `count` places spread over `[start, end)`."""
    for number in range(count):
        place = start + (end - start) * number // count
        yield raw[:place] + bytes([raw[place] ^ 1 << number % 8]) + raw[place + 1 :]


@only(RPM, DNF)  # a DEB has no digests of its own: a repository's index and _gpgorigin have them
def test_one_flipped_byte_anywhere_in_an_rpm(kept_site: Site, second: Path, tmp_path: Path) -> None:
    raw, package = second.read_bytes(), tmp_path / second.name
    with unchanged(kept_site):
        for changed in flipped(raw, header_offset(raw), len(raw), PLACES[kept_site.front.name]):
            package.write_bytes(changed)
            assert kept_site.upgrade(package).returncode != 0


def test_one_flipped_byte_before_an_rpm_s_header_is_refused_or_carries_nothing(
    rpm_site: Site, second: Path, tmp_path: Path
) -> None:
    # rpm ignores most of the lead, and the space that it reserves for signatures.
    raw, package = second.read_bytes(), tmp_path / second.name
    signed = json.loads(rpm_site.installer("--json", "verify", second).stdout)
    for changed in flipped(raw, 0, header_offset(raw), 60):
        package.write_bytes(changed)
        done = rpm_site.installer("--json", "verify", package)
        assert done.returncode == 21 or json.loads(done.stdout) == signed


@only(RPM, DPKG, APT)  # dnf cannot be told to overlook rpm's digests; dpkg and apt have none
def test_one_flipped_byte_of_the_release_that_the_package_manager_overlooks(
    kept_site: Site, second: Path, tmp_path: Path
) -> None:
    options = OVERLOOK[kept_site.front.format]
    original = kept_site.front.pick(second)
    raw, package = original.read_bytes(), tmp_path / original.name
    codes = set()
    with unchanged(kept_site):
        for changed in flipped(raw, *carried(raw), PLACES[kept_site.front.name]):
            package.write_bytes(changed)
            done = kept_site.upgrade(package, *options)
            assert done.returncode != 0
            codes |= set(re.findall(r"exit status (\d+)", done.stdout + done.stderr))

    assert codes
    assert codes <= {"20", "21", "22"}


OVERLOOK = {"rpm": ("--nodigest", "--nosignature"), "deb": ()}


def carried(raw: bytes) -> tuple[int, int]:
    """Where a package has the release that its scriptlet reads: in base64 in %pre, or as it is."""
    body = raw.find(b"bWFuaWZlc3QuanNvb")  # manifest.json, the bundle's first word, in base64
    if body >= 0:
        return body, raw.index(b"\0", body)
    start = raw.index(b"manifest.json\0")
    return start, raw.index(bytes(1024), raw.index(b"\xfd7zXZ", start)) + 1024


@only(RPM, DPKG, APT)  # under dnf, rpm's digests speak first
def test_tampered_content_of_the_release_that_is_installed_is_refused_too(
    kept_site: Site, first: Path, tmp_path: Path
) -> None:
    original = kept_site.front.pick(first)
    raw, package = original.read_bytes(), tmp_path / original.name
    _, end = carried(raw)
    place = end - 77 * 20  # lines of base64 before the end: in the compressed content
    if original.suffix == ".deb":
        place = raw.index(b"\xfd7zXZ") + 50
    package.write_bytes(raw[:place] + b"TAMPERED" + raw[place + 8 :])
    options = OVERLOOK[kept_site.front.format]
    with unchanged(kept_site):
        again = kept_site.host.run([*kept_site.front.again, *options, kept_site.carry(package)])

    assert again.returncode != 0
    assert "exit status 22" in again.stdout + again.stderr
    assert "its digest is not the one that was signed" in again.stdout + again.stderr


def test_the_installer_says_what_where_and_what_next(
    kept_site: Site, developers: Developers, next_release: Draft
) -> None:
    broken = {"sql/0004_notes.sql": "SELECT nope;\n"}
    draft = releases.with_files(next_release, "words", broken)

    words = refused(kept_site, developers.package(draft), 33)

    assert (
        'error: crm 1.1 was not installed: sql/0004_notes.sql:1:8: column "nope" does not exist\n'
        "   1 | SELECT nope;\n"
        "     |        ^\n"
        "The database and the application are unchanged.\n"
        "Correct the script, build a new release and sign it.\n"
    ) in words
