"""A disk that is full or fails during an install: what is left, and what the next run makes of it.

The disks are small ones of a host's own (`tests.disks`).
"""

import re
from itertools import count
from pathlib import Path

import pytest

from installer.errors import (
    DatabaseUnavailableError,
    NotSwitchedError,
    PlanDivergedError,
    StorageError,
)
from tests.acceptance import releases
from tests.developers import Developers
from tests.disks import Disk
from tests.frontends import DPKG, RPM, only
from tests.hosts.cluster import DATA
from tests.sites import ROOT, Site, refused, unchanged

pytestmark = pytest.mark.acceptance

NO_ROOM = "No space left on device"
STATE = "/var/lib/countersign"
UNPACKED = "/usr/share/countersign/releases"
"""Where the files of a release's package are."""
STAMP = re.compile(r"-\d{8}T\d{6}\.\d{3}Z")
PAGE = 4
"""KiB: what a file takes at least."""


def require_whole(site: Site, package: Path) -> None:
    """Assert that the same package is installed now, and that nothing is left over."""
    is_there = site.state().package == "1.1-1"
    done = site.install_again(package) if is_there else site.upgrade(package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.state().package == "1.1-1"
    assert site.state().objects == "customer note orders"
    assert site.current() == "releases/1.1"
    assert [row["event"] for row in site.ledger()].count("release applied") == 2
    assert site.installer("status").returncode == 0
    assert memory(site) == ["crm/installed", "crm/lock"]
    assert list(site.host.at(f"{ROOT}/releases").glob(".*")) == []


def memory(site: Site, *, drafts: bool = True) -> list[str]:
    """What the host remembers of the product, and receipts that are not published yet."""
    files = (file for file in site.host.at(STATE).glob("crm/*") if drafts or file.suffix != ".json")
    return sorted(f"crm/{file.name}" for file in files)


@pytest.fixture
def grown(developers: Developers, first: Path) -> Path:
    """Release 1.1 with a file that needs four pages, as does its patch."""
    assert first.exists()
    large = {"app/large": "x" * (4 * PAGE * 1024)}
    return developers.package(releases.with_files(releases.second(developers), "grown", large))


@only(RPM, DPKG)
@pytest.mark.parametrize("pages", [0, 3, 3 + 5 + 2], ids=["copy", "patch", "git"])
def test_no_room_for_the_new_tree_leaves_the_old_release(
    site: Site, first: Path, grown: Path, pages: int
) -> None:
    disk = Disk.mount(site.host, ROOT)
    site.install(first)
    disk.fill(pages * PAGE)

    words = refused(site, grown, StorageError.exit_code)

    assert f"{ROOT}/releases/" in words
    assert NO_ROOM in words
    assert "The database and the application are unchanged." in words
    assert "Make room on the disk" in words
    assert site.installer("status").returncode == 0
    disk.free()
    require_whole(site, grown)


@only(RPM)  # which leaves the content of its package there, too
def test_no_room_for_what_the_host_remembers_leaves_the_old_release_up_to_commit(
    site: Site, first: Path, second: Path
) -> None:
    """With a page more each time, until there is room for all that is needed before COMMIT."""
    assert site.installer("init").returncode == 0
    site.install(first)
    disk, before = Disk.mount(site.host, STATE), site.state()
    lacking = set()

    for left in count(0, PAGE):
        disk.fill(left)
        done = site.upgrade(second)
        if done.returncode == 0:
            break
        assert f"exit status {StorageError.exit_code}" in done.stderr
        (error,) = re.findall(r"^error: .* was not installed: .*", done.stderr, re.MULTILINE)
        lacking.add(STAMP.sub("", error.split(": ")[2]))
        assert error.endswith(f": {NO_ROOM}")
        assert site.state() == before
        assert memory(site, drafts=False) == ["crm/installed", "crm/lock"]
        assert site.installer("status").returncode == 0

    assert lacking == {
        *(STATE, f"{STATE}/clock.txt", f"{STATE}/crm/pending", f"{STATE}/crm/crm-1.1.json")
    }
    assert site.installer("status").returncode == 0
    disk.free()
    require_whole(site, second)
    receipts = (disk.host.at(STATE) / "receipts").iterdir()
    published = {STAMP.sub("", file.name) for file in receipts}
    assert published == {
        *("crm-1.0.json", "crm-1.0.json.asc", "crm-1.1.json", "crm-1.1.json.asc"),
    }


@only(RPM, DPKG)
@pytest.mark.parametrize("file", [".pending.new", "pending"])
def test_a_disk_that_fails_leaves_what_the_ledger_says(
    site: Site, first: Path, second: Path, file: str
) -> None:
    site.install(first)
    before = site.state()
    # By the old name: the one is renamed before anything is staged, the other at the very end.
    injection = ("-P", f"{STATE}/crm/{file}", "-e", "inject=rename,renameat,renameat2:error=EIO")
    command = [*site.front.upgrade, site.carry(second)]

    done = site.host.run(["strace", "-f", "-qq", "-o", "/dev/null", *injection, *command])

    words = done.stdout + done.stderr
    assert "Input/output error" in words
    assert f"{STATE}/crm/" in words
    if file == ".pending.new":
        assert f"exit status {StorageError.exit_code}" in words
        assert site.state() == before
        assert memory(site) == ["crm/installed", "crm/lock"]
        assert site.installer("status").returncode == 0
    else:
        assert f"exit status {NotSwitchedError.exit_code}" in words
        assert "The change to 1.1 stands; the install of it has not ended." in words
        assert site.state().objects == "customer note orders"
        assert site.current() == "releases/1.1"
        assert site.installer("status").returncode == NotSwitchedError.exit_code
        assert site.installer("recover").returncode == 0
        assert memory(site) == ["crm/installed", "crm/lock"]
    require_whole(site, second)


def test_no_room_in_the_database_leaves_the_old_release(
    rpm_site: Site, developers: Developers, first: Path
) -> None:
    site = rpm_site
    rows = "CREATE TABLE note AS SELECT repeat('x', 1000) FROM generate_series(1, 20000);\n"
    draft = releases.with_files(releases.second(developers), "rows", {"sql/0004_notes.sql": rows})
    package = developers.package(draft)
    disk = Disk.mount(site.host, "/srv/tablespace", size=64)
    site.host.run(["chown", "postgres:", disk.folder], check=True)
    site.host.psql(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    site.host.psql("ALTER DATABASE crm SET TABLESPACE small")
    site.install(first)
    disk.fill(8 * 1024)

    words = refused(site, package, StorageError.exit_code)

    assert "sql/0004_notes.sql:1: could not extend file" in words
    assert NO_ROOM in words
    assert "Make room on the disk" in words
    assert "release failed" in [row["event"] for row in site.ledger()]
    assert site.installer("status").returncode == 0
    disk.free()
    require_whole(site, package)


def test_no_room_for_the_database_s_log_leaves_the_old_release(
    rpm_site: Site, developers: Developers, first: Path
) -> None:
    """The server ends with a panic, and starts again when it has room."""
    site = rpm_site
    rows = "CREATE TABLE note AS SELECT repeat('x', 1000) FROM generate_series(1, 60000);\n"
    draft = releases.with_files(releases.second(developers), "log", {"sql/0004_notes.sql": rows})
    package = developers.package(draft)
    site.install(first)
    before = site.state()
    site.host.stop_cluster()
    disk = Disk.mount(site.host, str(DATA / "pg_wal"), size=128)
    site.host.start_cluster()
    disk.fill()

    done = site.upgrade(package)

    assert f"exit status {DatabaseUnavailableError.exit_code}" in done.stderr
    disk.free()
    site.host.run(["rm", "-f", str(DATA / "postmaster.pid")], check=True)
    site.host.start_cluster()
    assert site.state() == before
    assert site.installer("status").returncode == 0
    require_whole(site, package)


@only(RPM, DPKG)
def test_no_room_to_unpack_the_package_is_told_by_status_and_put_right_by_the_same_command(
    site: Site, first: Path, second: Path
) -> None:
    """After the release has been installed: rpm looks before that, and can be told not to."""
    site.install(first)
    disk = Disk.mount(site.host, UNPACKED)
    disk.fill()
    regardless: tuple[str, ...] = ()
    if site.front == RPM:
        with unchanged(site):
            done = site.upgrade(second)
            assert done.returncode != 0
            assert f"needs 16KB more space on the {UNPACKED} filesystem" in done.stderr
        regardless = ("--ignoresize",)

    done = site.upgrade(second, *regardless)

    assert done.returncode != 0
    assert site.state().package == "1.0-1"
    assert site.state().objects == "customer note orders"
    assert site.current() == "releases/1.1"
    assert site.installer("status").returncode == PlanDivergedError.exit_code
    disk.free()
    require_whole(site, second)


@only(RPM)  # the installer keeps the log
def test_no_room_for_the_log_fails_no_install(site: Site, first: Path) -> None:
    Disk.mount(site.host, "/var/log/countersign").fill()

    done = site.install(first)

    assert done.returncode == 0, done.stderr
    assert f"warning: no log is kept: [Errno 28] {NO_ROOM}" in done.stderr
    assert site.state().package == "1.0-1"
    assert site.state().objects == "customer orders"
    assert site.current() == "releases/1.0"
    assert site.installer("status").returncode == 0
