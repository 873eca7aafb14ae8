"""An install that is cut short: what is left, and what the next run makes of it."""

import json
import time
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers
from tests.sites import Site

pytestmark = pytest.mark.acceptance

CUT_AT = "/opt/crm/.current.new"
"""The link that becomes `current`: it is made after COMMIT, and renamed to switch."""


@pytest.fixture
def slow(developers: Developers, first: Path) -> Path:
    """Release 1.1 with a script that takes its time."""
    assert first.exists()
    sleeps = {"sql/0003_totals.sql": "CREATE TABLE totals ();\nSELECT pg_sleep(2);\n"}
    draft = releases.with_files(releases.second(developers), "slow", sleeps)
    return developers.package(draft)


def wait_for_the_slow_script(site: Site) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    deadline = time.monotonic() + 30
    while site.sql(running) == "0":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_during_the_slow_script(site: Site, package: Path, process: str) -> None:
    """Upgrade, and kill a process by the words in its command line while a script runs."""
    with site.host.popen([*site.front.upgrade, site.carry(package)]) as upgrade:
        wait_for_the_slow_script(site)
        site.kill(process)
        upgrade.communicate(timeout=60)
    assert upgrade.returncode != 0


def cut_between_commit_and_switch(site: Site, package: Path) -> None:
    """Upgrade; the installer is killed at the system call that would switch."""
    injection = "rename,renameat,renameat2:signal=SIGKILL"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", CUT_AT, "-e", f"inject={injection}"]
    done = site.host.run([*command, *site.front.upgrade, site.carry(package)])
    assert done.returncode != 0, done.stdout + done.stderr


def test_the_installer_killed_before_commit_leaves_the_old_release(
    site: Site, first: Path, slow: Path
) -> None:
    site.install(first)
    before = site.state()

    kill_during_the_slow_script(site, slow, site.front.scriptlet)

    after = site.state()
    assert (after.package, after.objects) == (before.package, before.objects)
    assert (after.applied, after.application) == (before.applied, before.application)
    assert site.installer("status").returncode == 41

    assert site.upgrade(slow).returncode == 0
    assert site.state().objects == "customer note orders totals"
    assert site.current() == "releases/1.1"
    assert site.installer("status").returncode == 0


def test_recover_takes_back_what_was_not_committed(site: Site, first: Path, slow: Path) -> None:
    site.install(first)
    before = site.state()
    kill_during_the_slow_script(site, slow, site.front.scriptlet)

    recovered = site.installer("--json", "recover")

    assert json.loads(recovered.stdout)["recovered"][0]["result"] == "taken back"
    assert site.state() == before
    assert site.installer("status").returncode == 0


def test_the_package_manager_killed_is_put_right_by_the_same_command(
    site: Site, first: Path, slow: Path
) -> None:
    site.install(first)
    kill_during_the_slow_script(site, slow, "\0".join(site.front.upgrade))
    deadline = time.monotonic() + 30
    while site.current() != "releases/1.1":  # the scriptlet runs on to its end
        assert time.monotonic() < deadline
        time.sleep(0.05)

    while (again := site.upgrade(slow)).returncode and time.monotonic() < deadline:
        # A dpkg that still runs holds its lock; after one that lost its terminal with apt, apt asks
        # for this.
        if "dpkg --configure -a" in again.stderr:
            site.host.run(["dpkg", "--configure", "-a"])
        time.sleep(0.2)

    assert again.returncode == 0, again.stderr
    assert site.state().package == "1.1-1"
    assert [row["event"] for row in site.ledger()].count("release applied") == 2


def test_killed_between_commit_and_switch_the_same_package_rolls_forward(
    site: Site, first: Path, second: Path
) -> None:
    site.install(first)

    cut_between_commit_and_switch(site, second)

    assert site.state().package == "1.0-1"
    assert site.state().objects == "customer note orders"
    assert site.current() == "releases/1.0"
    assert site.installer("status").returncode == 41

    assert site.upgrade(second).returncode == 0
    assert site.current() == "releases/1.1"
    assert [row["event"] for row in site.ledger()].count("release applied") == 2
    assert site.installer("status").returncode == 0


def test_killed_between_commit_and_switch_recover_rolls_forward(
    site: Site, first: Path, second: Path
) -> None:
    site.install(first)
    cut_between_commit_and_switch(site, second)

    recovered = site.installer("recover", "crm")

    assert recovered.returncode == 0, recovered.stderr
    assert recovered.stdout.splitlines()[-1] == "crm 1.1: rolled forward"
    assert site.current() == "releases/1.1"
    assert site.read("VERSION") == "1.1\n"
    assert site.installer("recover").stdout == "nothing to recover\n"


def test_a_rerun_that_is_refused_does_not_take_back_what_was_committed(
    site: Site, first: Path, second: Path
) -> None:
    site.install(first)
    cut_between_commit_and_switch(site, second)
    site.host.at("/opt/crm/releases/1.1/VERSION").unlink()
    site.host.write("/opt/crm/current/VERSION", "edited\n")

    refused = site.upgrade(second)
    assert "exit status 40" in refused.stdout + refused.stderr
    assert site.installer("status").returncode == 41
    assert site.installer("recover").returncode == 41

    site.host.write("/opt/crm/current/VERSION", "1.0\n")
    assert site.upgrade(second).returncode == 0
    assert site.read("VERSION") == "1.1\n"
    assert site.installer("status").returncode == 0


def test_a_switch_that_fails_is_exit_code_41_and_recover_finishes_it(
    site: Site, first: Path, second: Path
) -> None:
    site.install(first)
    obstacle = site.host.at("/opt/crm") / ".current.new"
    obstacle.mkdir()

    done = site.upgrade(second)

    words = done.stdout + done.stderr
    assert "exit status 41" in words
    assert "crm 1.1 is not wholly installed" in words
    assert "The database change stands; the application is still the old one." in words
    assert "countersign-install recover" in words
    assert site.current() == "releases/1.0"

    obstacle.rmdir()
    assert site.installer("recover").returncode == 0
    assert site.current() == "releases/1.1"


def test_the_server_killed_during_a_script_leaves_the_old_release(
    site: Site, first: Path, slow: Path
) -> None:
    site.install(first)
    before = site.state()
    with site.host.popen([*site.front.upgrade, site.carry(slow)]) as upgrade:
        wait_for_the_slow_script(site)
        site.host.stop_cluster("immediate")
        words = "".join(upgrade.communicate(timeout=60))
    site.host.start_cluster()

    assert "exit status 30" in words
    assert "the connection was lost" in words
    assert site.state() == before
    assert site.upgrade(slow).returncode == 0


def test_two_installs_at_once_apply_the_release_once(site: Site, first: Path) -> None:
    package = site.carry(first)
    with (
        site.host.popen(["countersign-install", "apply", package]) as one,
        site.host.popen(["countersign-install", "apply", package]) as other,
    ):
        results = sorted(process.communicate(timeout=60)[0].split()[-1] for process in (one, other))

    assert (one.returncode, other.returncode) == (0, 0)
    assert results == ["installed", "installed"]
    assert [row["event"] for row in site.ledger()].count("release applied") == 1


def test_another_release_after_one_that_was_cut_short_settles_that_one_first(
    site: Site, first: Path, second: Path, developers: Developers
) -> None:
    third = releases.third(developers)
    site.install(first)
    cut_between_commit_and_switch(site, second)

    done = site.upgrade(developers.package(third))

    assert done.returncode == 0, done.stderr
    assert site.current() == "releases/1.2"
    assert site.read("VERSION") == "1.2\n"
    assert [row["version"] for row in site.ledger() if row["event"] == "release applied"] == [
        "1.0",
        "1.1",
        "1.2",
    ]
