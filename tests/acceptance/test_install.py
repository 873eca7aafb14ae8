"""What a sysadmin does: install and upgrade with the real rpm, dnf, dpkg and apt."""

import json
from pathlib import Path

import pytest

from tests.sites import Site

pytestmark = pytest.mark.acceptance


def test_database_and_application_are_installed_and_upgraded_together(
    site: Site, first: Path, second: Path
) -> None:
    installed = site.install(first)

    assert installed.returncode == 0, installed.stderr
    assert site.state().package == "1.0-1"
    assert site.state().objects == "customer orders"
    assert site.current() == "releases/1.0"
    assert site.read("VERSION") == "1.0\n"

    upgraded = site.upgrade(second)

    assert upgraded.returncode == 0, upgraded.stderr
    assert site.state().package == "1.1-1"
    assert site.state().objects == "customer note orders"
    assert site.current() == "releases/1.1"
    assert site.host.run(["/opt/crm/current/bin/crm"]).stdout == "1.1\n"
    assert site.read("new/naïve name.txt") == "é\r\n"
    assert not site.host.at("/opt/crm/current/obsolete").exists()
    assert "[2/2] sql/0004_notes.sql" in upgraded.stdout


def test_dnf_installs_and_upgrades_from_a_repository(
    rpm_site: Site, first: Path, second: Path
) -> None:
    site = rpm_site
    with site.repository(first):
        installed = site.host.run(["dnf", "-y", "install", "crm"])
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert site.current() == "releases/1.0"
    with site.repository(first, second):
        upgraded = site.host.run(["dnf", "-y", "upgrade", "crm"])
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr

    assert site.state().package == "1.1-1"
    assert site.state().objects == "customer note orders"
    assert site.read("VERSION") == "1.1\n"
    assert site.installer("status").returncode == 0


def test_a_new_host_goes_to_the_newest_release_at_once(site: Site, second: Path) -> None:
    done = site.install(second)

    assert done.returncode == 0, done.stderr
    assert site.state().applied.count(".sql") == 4
    assert site.read("VERSION") == "1.1\n"


def test_the_ledger_says_what_ran_from_which_release_signed_by_whom(
    site: Site, first: Path, second: Path
) -> None:
    site.install(first)
    site.upgrade(second)

    rows = site.ledger()

    assert [(row["event"], row["version"], row["script"]) for row in rows] == [
        ("script applied", "1.0", "sql/0001_customers.sql"),
        ("script applied", "1.0", "sql/0002_orders.sql"),
        ("release applied", "1.0", None),
        ("script applied", "1.1", "sql/0003_totals.sql"),
        ("script applied", "1.1", "sql/0004_notes.sql"),
        ("release applied", "1.1", None),
    ]
    last = rows[-1]
    assert (last["host"], last["package"]) == ("qat", site.nevra("1.1"))
    assert "developer Ada " in str(last["signers"])
    assert rows[4]["rows"] == 2
    assert site.sql("SELECT countersign.first_broken()") == ""
    assert site.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'note'") == "crm_owner"


def test_the_same_release_again_does_nothing_and_succeeds(site: Site, first: Path) -> None:
    site.install(first)
    before = site.state()
    rows = len(site.ledger())

    again = site.install_again(first)
    applied = site.installer("apply", first)

    assert again.returncode == 0, again.stderr
    assert applied.stdout.splitlines()[-1] == "crm 1.0: already installed"
    assert applied.returncode == 0
    assert site.state() == before
    assert len(site.ledger()) == rows


def test_services_that_the_host_file_names_are_restarted_after_the_switch(
    site: Site, first: Path
) -> None:
    site.install(first)

    assert site.host.at("/var/log/systemctl.log").read_text() == "restart crm.service\n"


def test_a_service_that_does_not_restart_is_told_and_fails_nothing(site: Site, first: Path) -> None:
    site.host.write("/usr/bin/systemctl", "#!/bin/sh\necho no such unit >&2; exit 5\n", mode=0o755)

    done = site.install(first)

    assert done.returncode == 0
    assert "warning: crm.service was not restarted: no such unit" in done.stdout + done.stderr
    assert site.current() == "releases/1.0"


def test_only_as_many_earlier_trees_are_kept_as_the_host_file_says(
    site: Site, first: Path, second: Path
) -> None:
    site.host.write(
        "/etc/countersign/host.toml",
        site.host.at("/etc/countersign/host.toml").read_text().replace("keep = 2", "keep = 1"),
    )
    site.install(first)
    site.upgrade(second)

    assert [path.name for path in site.host.at("/opt/crm/releases").iterdir()] == ["1.1"]


def test_rpm_verify_compares_ledger_application_and_package(rpm_site: Site, first: Path) -> None:
    site = rpm_site
    site.install(first)
    assert site.rpm("-V", "crm").returncode == 0

    site.host.write("/opt/crm/current/VERSION", "edited\n")
    verified = site.rpm("-V", "crm")

    assert verified.returncode != 0
    assert "VERSION: expected" in verified.stdout + verified.stderr


@pytest.mark.parametrize(
    "command",
    [("rpm", "-i", "--noscripts"), ("dnf", "-y", "--setopt=tsflags=noscripts", "install")],
)
def test_a_package_put_in_without_its_scriptlet_shows_in_the_status(
    rpm_site: Site, first: Path, command: tuple[str, ...]
) -> None:
    # dpkg and apt have no way to leave out a maintainer script.
    site = rpm_site
    site.host.run([*command, site.carry(first)], check=True)

    for arguments in (("status", "crm"), ("status",)):
        status = site.installer(*arguments)
        assert status.returncode == 32
        assert "the package crm 1.0 is installed, but its release never was" in status.stdout
    assert site.state().objects == ""
    assert site.current() is None


def test_removing_the_package_leaves_database_and_application(site: Site, first: Path) -> None:
    site.install(first)

    removed = site.host.run([*site.front.remove, "crm"])

    assert removed.returncode == 0, removed.stderr
    assert site.state().objects == "customer orders"
    assert site.read("VERSION") == "1.0\n"


def test_verify_and_check_touch_nothing(site: Site, first: Path, second: Path) -> None:
    site.install(first)
    before = site.state()

    verified = site.installer("--json", "verify", second)
    checked = site.installer("check", second)

    assert json.loads(verified.stdout)["signers"][0]["name"] == "Ada"
    assert checked.returncode == 0, checked.stderr
    assert "would run sql/0003_totals.sql" in checked.stdout
    assert "would patch /opt/crm/current from 1.0" in checked.stdout
    assert site.state() == before


def test_json_is_one_document_and_nothing_else(site: Site, first: Path) -> None:
    applied = json.loads(site.installer("--json", "apply", first).stdout)
    status = json.loads(site.installer("--json", "status").stdout)
    nothing = json.loads(site.installer("--json", "recover").stdout)

    assert (applied["product"], applied["result"]) == ("crm", "installed")
    assert [script["script"] for script in applied["scripts"]] == [
        "sql/0001_customers.sql",
        "sql/0002_orders.sql",
    ]
    assert status["products"][0]["problems"] == []
    assert nothing == {"recovered": []}


def test_progress_goes_to_the_terminal(site: Site, first: Path) -> None:
    # script(1) gives a terminal; dnf holds back what scriptlets print, /dev/tty does not.
    command = " ".join([*site.front.install, site.carry(first)])
    done = site.host.run(["script", "-qec", command, "/dev/null"])

    assert done.returncode == 0, done.stdout
    assert "[1/2] sql/0001_customers.sql" in done.stdout


def test_the_log_tells_each_step(site: Site, first: Path) -> None:
    site.install(first)

    log = site.host.at("/var/log/countersign/crm.log").read_text()

    for words in (
        "signed by Ada",
        "running sql/0002_orders.sql",
        "2 scripts committed",
        "switched",
    ):
        assert words in log


def test_a_switch_that_was_undone_by_hand_is_made_again(
    rpm_site: Site, first: Path, second: Path
) -> None:
    assert rpm_site.install(first).returncode == 0
    assert rpm_site.upgrade(second).returncode == 0
    rpm_site.host.run(["ln", "-sfn", "releases/1.0", "/opt/crm/current"], check=True)
    assert rpm_site.installer("status").returncode == 41

    done = rpm_site.installer("apply", second)

    assert done.returncode == 0, done.stderr
    assert rpm_site.current() == "releases/1.1"
    assert rpm_site.installer("status").returncode == 0
