"""The ledger's audit on a host, and its bundle in the hands of an auditor.

The package manager has no part in any of this.
"""

import json
from pathlib import Path

import pytest

from tests.developers import Developers
from tests.promotion import make_key
from tests.sites import HOST_FILE, Site

pytestmark = pytest.mark.acceptance

TWO = """
[database.other]
conninfo = "host=/run/postgresql dbname=crm user=countersign"
owner = "crm_owner"
"""
CUT = (
    "SET session_replication_role = replica; "
    "DELETE FROM countersign.ledger WHERE event = 'release applied'"
)


def test_a_host_is_audited_and_what_a_superuser_cuts_off_is_found_there_and_by_the_auditor(
    rpm_site: Site, developers: Developers, first: Path, tmp_path: Path
) -> None:
    site = rpm_site
    key = make_key(developers, site)
    assert site.install(first).returncode == 0
    keyring = tmp_path / "auditor.pgp"
    keyring.write_bytes(developers.keyring(key))

    sound = site.installer("audit", "crm", "--output", "/srv/sound.tar")
    verified = developers.countersign(
        "audit", site.host.at("/srv/sound.tar"), "--keyring", keyring, check=False
    )
    site.sql(CUT)
    cut = site.installer("audit", "--output", "/srv/cut.tar")
    told = site.installer("--json", "audit")
    found = developers.countersign(
        "audit", site.host.at("/srv/cut.tar"), "--keyring", keyring, check=False
    )

    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert "receipts  1 compared, 1 of them signed" in sound.stdout
    assert "nothing disagrees" in sound.stdout
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "manifests/crm-1.0.json" in verified.stdout
    assert "Not on the host" not in verified.stdout
    assert cut.returncode == told.returncode == 42
    assert "the ledger ends before it, with row 2 of" in cut.stdout
    assert "docs/how-to/audit.md" in cut.stdout
    (database,) = json.loads(told.stdout)["databases"]
    assert [finding["kind"] for finding in database["findings"]] == ["cut", "absent"]
    assert found.returncode == 42
    assert "ends before it, with row 2 of" in found.stderr


def test_an_audit_that_cannot_be_made_says_why_and_leaves_no_file(
    rpm_site: Site, first: Path
) -> None:
    site = rpm_site
    absent = site.installer("audit", "crm", "--output", "/srv/crm.tar")
    assert site.install(first).returncode == 0

    nowhere = site.installer("audit", "crm", "--output", "/nowhere/crm.tar")
    site.host.write("/etc/countersign/host.toml", HOST_FILE.format(environment="QAT") + TWO)
    two = site.installer("audit", "--output", "/srv/crm.tar")
    other = site.host.run(
        ["setpriv", "--reuid=nobody", "--clear-groups", "countersign-install", "audit"]
    )

    assert absent.returncode == 10
    assert "no release of crm with a database is installed here" in absent.stderr
    assert nowhere.returncode == 2
    assert "/nowhere/crm.tar cannot be written" in nowhere.stderr
    assert two.returncode == 2
    assert "a bundle is of one database: say which PRODUCT is meant" in two.stderr
    assert other.returncode == 2
    assert "this command reads what only root can: run it as root" in other.stderr
    assert not list(site.host.at("/srv").glob("*.tar"))
