"""What the host file demands before a database changes: backup, restore point, plain login."""

from pathlib import Path

import pytest

from tests.backups import Backups, start_barman, start_pgbackrest
from tests.hosts.cluster import AS_POSTGRES, LOG
from tests.sites import Site, unchanged

pytestmark = pytest.mark.acceptance

HOST_FILE = "/etc/countersign/host.toml"
GRANT = "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO countersign"


def amend(site: Site, before: str, after: str) -> None:
    """Change the host file, as its administrator."""
    text = site.host.at(HOST_FILE).read_text()
    assert before in text
    site.host.write(HOST_FILE, text.replace(before, after))


def demand_backup(site: Site, tool: str) -> None:
    amend(
        site,
        "[application.crm]",
        f'[database.crm.backup]\ntool = "{tool}"\nname = "main"\n\n[application.crm]',
    )


def pgbackrest(site: Site) -> Backups:
    """Let pgBackRest archive the WAL of the host's cluster."""
    site.host.stop_cluster()
    return start_pgbackrest(site.host, "main")


def log(site: Site) -> str:
    return site.host.at("/var/log/countersign/crm.log").read_text()


def refused(site: Site, package: Path, code: int) -> str:
    """Assert that a first install is refused, and leaves nothing; returns what was said."""
    with unchanged(site):
        done = site.install(package)
    words = done.stdout + done.stderr
    assert done.returncode != 0, words
    assert f"exit status {code}" in words, words
    assert site.sql("SELECT to_regnamespace('countersign') IS NULL") == "t"
    assert "The database and the application are unchanged." in words
    return words


def test_a_release_goes_in_only_once_there_is_a_fresh_backup(site: Site, first: Path) -> None:
    demand_backup(site, "pgbackrest")

    words = refused(site, first, 36)

    assert "crm 1.0 was not installed: no fresh backup is known: pgbackrest main: missing" in words
    assert "exit code 36: crm 1.0 was not installed" in log(site)
    assert site.installer("check").returncode == 36

    backups = pgbackrest(site)
    assert "pgbackrest main: no valid backups" in refused(site, first, 36)

    backups.make()
    assert "database crm: backup: pgbackrest main: 20" in site.installer("check").stdout
    installed = site.install(first)

    assert installed.returncode == 0, installed.stderr
    assert site.state().objects == "customer orders"
    assert "crm 1.0: backup: pgbackrest main: 20" in log(site)


def test_barman_is_asked_as_pgbackrest_is(rpm_site: Site, first: Path) -> None:
    site = rpm_site
    demand_backup(site, "barman")
    assert "Unknown server 'main'" in refused(site, first, 36)

    site.host.stop_cluster()
    backups = start_barman(site.host, "main")
    assert "barman main has no finished backup" in refused(site, first, 36)

    backups.make()
    installed = site.install(first)

    assert installed.returncode == 0, installed.stderr
    assert site.state().objects == "customer orders"
    assert "crm 1.0: backup: barman main: 20" in log(site)


def test_a_release_that_is_installed_needs_no_backup(rpm_site: Site, first: Path) -> None:
    site = rpm_site
    site.install(first)
    demand_backup(site, "pgbackrest")

    with unchanged(site):
        again = site.install_again(first)

    assert again.returncode == 0, again.stderr


def test_the_cluster_can_be_taken_back_to_the_restore_point_before_a_release(
    rpm_site: Site, first: Path, second: Path
) -> None:
    site = rpm_site
    amend(site, "lock_wait = 5", "lock_wait = 5\nrestore_point = true")
    site.sql(GRANT)
    backups = pgbackrest(site)
    assert "database crm: a restore point can be made" in site.installer("check").stdout
    site.install(first)
    backups.make()
    upgraded = site.upgrade(second)
    assert upgraded.returncode == 0, upgraded.stderr
    assert site.state().objects == "customer note orders"

    made = 'restore point "countersign crm 1.1" created at '
    (lsn,) = [
        line.partition(made)[2]
        for line in site.host.at(LOG).read_text().splitlines()
        if made in line
    ]
    assert f'crm 1.1: restore point "countersign crm 1.1" at {lsn}\n' in log(site)

    site.sql("SELECT pg_switch_wal()")
    site.host.stop_cluster()
    restore = ["--type=name", "--target=countersign crm 1.1", "--target-action=promote", "restore"]
    command = [*AS_POSTGRES, "pgbackrest", "--stanza=main", "--delta", *restore]
    site.host.run(command, check=True)
    site.host.start_cluster()

    assert site.state().objects == "customer orders"
    assert [row["version"] for row in site.ledger()] == ["1.0"] * 3


def test_a_restore_point_that_cannot_be_made_is_refused_with_the_grant(
    rpm_site: Site, first: Path
) -> None:
    amend(rpm_site, "lock_wait = 5", "lock_wait = 5\nrestore_point = true")

    words = refused(rpm_site, first, 10)

    assert f"may not make a restore point; run in crm: {GRANT}" in words
    rpm_site.sql(GRANT)
    assert rpm_site.install(first).returncode == 0


def test_a_superuser_s_login_is_refused_unless_the_host_file_allows_it(
    rpm_site: Site, first: Path
) -> None:
    site = rpm_site
    amend(site, "user=countersign", "user=postgres")

    words = refused(site, first, 10)

    assert "database crm: its login role postgres is a superuser" in words
    assert "[database.crm]\nsuperuser = true" in words
    assert site.installer("check").returncode == 10

    amend(site, "lock_wait = 5", "lock_wait = 5\nsuperuser = true")
    installed = site.install(first)

    assert installed.returncode == 0, installed.stderr
    assert site.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'") == "crm_owner"
