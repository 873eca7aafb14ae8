"""The real dpkg and apt on test hosts: what a DEB leaves when it is installed or refused."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.installer_deb import build_installer_deb
from tests.acceptance import releases
from tests.developers import Developers, Draft
from tests.frontends import DPKG
from tests.hosts import Host, HostProcess
from tests.keys import Keyring
from tests.measured import measured
from tests.sites import HOST_FILE, SET_UP_DATABASE, Site

pytestmark = pytest.mark.acceptance

SLOW = "SELECT pg_sleep(2);\nCREATE TABLE slow ();\n"


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DEB of countersign-installer."""
    return build_installer_deb(tmp_path_factory.mktemp("installer"))


@pytest.fixture(scope="module")
def developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developers]:
    with Keyring.create() as keys:
        yield Developers.create(keys, tmp_path_factory.mktemp("releases"))


def packaged(developers: Developers, draft: Draft) -> Path:
    """The draft's DEB."""
    (package,) = developers.package(draft).parent.glob("*.deb")
    return package


@pytest.fixture(scope="module")
def first(developers: Developers) -> Path:
    return packaged(developers, releases.first(developers))


@pytest.fixture(scope="module")
def second(developers: Developers, first: Path) -> Path:
    assert first.exists()
    return packaged(developers, releases.second(developers))


@pytest.fixture(scope="module")
def failing(developers: Developers, second: Path) -> Path:
    """Release 1.1 with a script that fails after the others."""
    assert second.exists()
    draft = releases.second(developers)
    files = {"sql/0009_fails.sql": "CREATE TABLE fails ();\nSELECT 1 / 0;\n"}
    return packaged(developers, releases.with_files(draft, "failing", files))


@pytest.fixture
def configured(developers: Developers) -> Iterator[Site]:
    """A host with database and configuration, and without the installer."""
    with Host.start("qat") as host:
        host.start_cluster()
        host.psql(SET_UP_DATABASE)
        host.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "crm")
        host.record_systemctl()
        host.write("/etc/countersign/host.toml", HOST_FILE.format(environment="QAT"))
        host.write("/etc/countersign/policy.toml", developers.policy(QAT=1))
        keyring = host.at("/etc/countersign/keyring.pgp")
        keyring.write_bytes(developers.keyring())
        keyring.chmod(0o644)
        yield Site(host, DPKG)


@pytest.fixture
def site(configured: Site, installer: Path) -> Iterator[Site]:
    """A host that is ready for releases."""
    installed = dpkg(configured, "--install", installer)
    assert installed == (0, ""), installed
    with measured(configured.host):
        assert configured.installer("init").returncode == 0
        yield configured


def dpkg(site: Site, *arguments: str | Path) -> tuple[int, str]:
    """Run dpkg; its exit code, and what it said of errors."""
    brought = [site.carry(a) if isinstance(a, Path) else a for a in arguments]
    done = site.host.run(["dpkg", *brought])
    return done.returncode, done.stderr


def apt(site: Site, *arguments: str | Path) -> tuple[int, str]:
    """Run apt-get; its exit code and all it said."""
    brought = [site.carry(a) if isinstance(a, Path) else a for a in arguments]
    done = site.host.run(["apt-get", "--yes", *brought], env={"DEBIAN_FRONTEND": "noninteractive"})
    return done.returncode, done.stdout + done.stderr


def package_of(site: Site, name: str = "crm") -> str:
    """State and version, as dpkg's database has them; empty where it knows nothing."""
    form = "${Status} ${Version}"
    return site.host.run(["dpkg-query", "--show", f"--showformat={form}", name]).stdout


def test_dpkg_installs_and_upgrades_database_and_application_together(
    site: Site, first: Path, second: Path
) -> None:
    assert dpkg(site, "--install", first) == (0, "")
    assert package_of(site) == "install ok installed 1.0-1"
    assert site.state().objects == "customer orders"
    assert site.current() == "releases/1.0"

    assert dpkg(site, "--install", second) == (0, "")
    assert package_of(site) == "install ok installed 1.1-1"
    assert site.state().objects == "customer note orders"
    assert site.read("VERSION") == "1.1\n"
    assert site.ledger()[-1]["package"] == "crm_1.1-1_all"


def test_apt_installs_the_installer_before_the_release_that_needs_it(
    configured: Site, installer: Path, first: Path, second: Path
) -> None:
    code, words = apt(configured, "install", first, installer)

    assert code == 0, words
    assert package_of(configured) == "install ok installed 1.0-1"
    assert configured.read("VERSION") == "1.0\n"

    code, words = apt(configured, "install", second)
    assert code == 0, words
    assert package_of(configured) == "install ok installed 1.1-1"
    assert configured.read("VERSION") == "1.1\n"


def test_without_the_installer_nothing_is_installed(configured: Site, first: Path) -> None:
    code, words = dpkg(configured, "--install", first)

    assert code == 1
    assert "pre-depends on countersign-installer (>= 0.1.0)" in words
    assert "installed" not in package_of(configured).split()
    assert configured.state().objects == ""


def test_a_failing_script_leaves_the_package_not_installed(site: Site, failing: Path) -> None:
    code, words = dpkg(site, "--install", failing)

    assert code == 1
    assert "crm 1.1 was not installed: sql/0009_fails.sql:2: division by zero" in words
    assert "installed" not in package_of(site).split()
    assert (site.state().objects, site.current()) == ("", None)
    assert not (site.host.root / "usr/share/countersign/releases/crm-1.1").exists()


def test_a_failing_script_leaves_the_old_release_installed(
    site: Site, first: Path, failing: Path
) -> None:
    dpkg(site, "--install", first)
    before = site.state()

    code, _ = dpkg(site, "--install", failing)

    assert code == 1
    assert package_of(site) == "install ok installed 1.0-1"
    assert site.state() == before
    assert dpkg(site, "--audit") == (0, "")
    assert dpkg(site, "--verify", "crm") == (0, "")
    assert site.installer("status", "crm").returncode == 0

    code, words = apt(site, "install", failing)
    assert code == 100, words
    assert package_of(site) == "install ok installed 1.0-1"
    assert site.state() == before


def test_an_upgrade_that_dpkg_takes_back_is_never_stopped_by_preinst(
    site: Site, first: Path
) -> None:
    dpkg(site, "--install", first)
    before = site.state()
    site.host.write("/etc/countersign/host.toml", "not = [toml")
    preinst = "/var/lib/dpkg/info/crm.preinst"

    for versions in (["2.0-1"], ["2.0-1", "3.0-1"], []):
        done = site.host.run([preinst, "abort-upgrade", *versions])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    refused = site.host.run([preinst, "install"])
    assert refused.returncode == 10
    assert site.host.run([preinst, "something-new"]).returncode == 2
    assert site.state() == before


def test_every_command_reads_the_package(site: Site, first: Path) -> None:
    assert "signed by Ada (developer)" in site.installer("verify", first).stdout
    assert site.installer("check", first).returncode == 0
    assert site.installer("apply", first).returncode == 0
    assert site.read("VERSION") == "1.0\n"
    assert dpkg(site, "--install", first) == (0, "")
    assert site.ledger()[-1]["package"] == "/srv/crm_1.0-1_all.deb"


def test_status_covers_what_dpkg_has_installed(site: Site, first: Path) -> None:
    dpkg(site, "--install", first)
    status = site.installer("status", "crm")

    assert status.returncode == 0, status.stdout
    assert "  package      1.0\n" in status.stdout
    assert dpkg(site, "--verify", "crm") == (0, "")

    site.host.write("/usr/share/countersign/releases/crm-1.0/manifest.json", "{}")
    changed = site.host.run(["dpkg", "--verify", "crm"]).stdout
    assert "/usr/share/countersign/releases/crm-1.0/manifest.json" in changed


def test_status_finds_a_package_whose_release_was_never_installed(site: Site, first: Path) -> None:
    launcher = site.host.at("/usr/bin/countersign-install")
    program = launcher.read_text()
    launcher.write_text("#!/bin/sh\nexit 0\n")
    assert dpkg(site, "--install", first) == (0, "")
    launcher.write_text(program)

    status = site.installer("status", "crm")

    assert status.returncode == 32
    assert "the package crm 1.0 is installed, but its release never was" in status.stdout


def test_removing_the_package_leaves_database_and_application(site: Site, first: Path) -> None:
    dpkg(site, "--install", first)
    objects, application = site.state().objects, site.current()

    code, words = dpkg(site, "--remove", "countersign-installer")
    assert code == 1
    assert "crm depends on countersign-installer" in words

    assert dpkg(site, "--purge", "crm") == (0, "")
    assert package_of(site) in {"", "unknown ok not-installed "}
    assert (site.state().objects, site.current()) == (objects, application)
    assert "  package      none\n" in site.installer("status", "crm").stdout
    assert not (site.host.root / "usr/share/countersign/releases/crm-1.0").exists()


def test_ctrl_c_does_not_end_an_install_half_way(
    site: Site, developers: Developers, first: Path
) -> None:
    draft = releases.with_files(releases.first(developers), "slow", {"sql/0009_slow.sql": SLOW})
    assert first.exists()
    package = site.carry(packaged(developers, draft))

    with site.host.popen(["dpkg", "--install", package]) as process:
        wait_for_sleep(site, process)
        for number in ("INT", "QUIT", "HUP"):
            signal_installer(site, number)
        done = process.finish(None, 60)

    assert done.returncode == 0, done.stderr
    assert package_of(site) == "install ok installed 1.0-1"
    assert site.state().objects == "customer orders slow"


def wait_for_sleep(site: Site, process: HostProcess) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    deadline = time.monotonic() + 30
    while site.host.psql(sleeping) == "0":
        assert process.poll() is None
        assert time.monotonic() < deadline


def signal_installer(site: Site, number: str) -> None:
    """Send a signal to the installer that preinst became."""
    for file in (site.host.root / "proc").glob("[0-9]*/cmdline"):
        if b"\0deb-preinst\0" in file.read_bytes():
            site.host.run(["sh", "-c", f"kill -{number} {file.parent.name}"], check=True)


def test_the_installer_compiles_itself_and_leaves_nothing_behind(site: Site) -> None:
    library = site.host.root / "usr/libexec/countersign"
    assert list(library.rglob("*.pyc"))
    assert site.host.at("/var/lib/countersign").stat().st_mode & 0o777 == 0o700
    assert site.host.at("/var/log/countersign").stat().st_mode & 0o777 == 0o750

    assert dpkg(site, "--purge", "countersign-installer")[0] == 0

    assert not library.exists()
    assert site.host.at("/etc/countersign/policy.toml").exists()


@pytest.mark.parametrize(
    "script, call",
    [
        ("postinst", ["configure", "0.0.9-1"]),
        ("postinst", ["abort-upgrade", "0.2.0-1"]),
        ("postinst", ["abort-remove"]),
        ("postinst", ["abort-remove", "in-favour", "other", "1"]),
        ("postinst", ["abort-deconfigure", "in-favour", "other", "1", "removing", "x", "1"]),
        ("prerm", ["remove"]),
        ("prerm", ["upgrade", "0.2.0-1"]),
        ("prerm", ["failed-upgrade", "0.0.9-1"]),
        ("prerm", ["deconfigure", "in-favour", "other", "1"]),
    ],
)
def test_no_call_of_the_installers_scripts_fails(kept: Site, script: str, call: list[str]) -> None:
    path = f"/var/lib/dpkg/info/countersign-installer.{script}"

    done = kept.host.run([path, *call])

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def kept(installer: Path) -> Iterator[Site]:
    """A host with the installer and no Python: maintainer scripts do not depend on it."""
    with Host.start("kept") as host:
        site = Site(host, DPKG)
        assert dpkg(site, "--install", installer) == (0, "")
        host.run(["mv", "/usr/bin/python3", "/usr/bin/python3.gone"], check=True)
        yield site
