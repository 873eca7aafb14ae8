"""What package managers can be told to skip, to force and to undo: nothing unverified is applied.

Afterwards `status`, and `rpm -V` where there is one, say how things stand.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import PRODUCT, Developers, Draft
from tests.frontends import DPKG, RPM, only
from tests.sites import Site, unchanged

pytestmark = pytest.mark.acceptance

OTHER = "/srv/other"
"""The root of another host, in which there is nothing."""
OTHER_DPKG = f"{OTHER}/var/lib/dpkg"

STATUS = """\
crm {0}
  package      {1}
  ledger       {0}
  application  {0}
"""

FORCE_RPM = (
    *("--force", "--nodeps", "--nosignature", "--nodigest", "--noverify", "--oldpackage"),
    *("--ignorearch", "--ignoreos", "--ignoresize", "--excludedocs"),
)
FORCE_APT = (
    *("--allow-unauthenticated", "--allow-downgrades", "--allow-change-held-packages"),
    *("-o", "Dpkg::Options::=--force-all"),
)
FORCED = {
    "rpm": (
        ("rpm", "-U", *FORCE_RPM),
        ("rpm", "-i", *FORCE_RPM),
        ("rpm", "-i", "--nodeps", "--dbpath", "/srv/rpmdb"),
        ("rpm", "-U", "--force", "--badreloc", "--relocate", "/usr/share=/srv/share"),
        ("dnf", "-y", "--nogpgcheck", "--allowerasing", "--nobest", "{dnf}"),
    ),
    "deb": (
        ("dpkg", "--no-debsig", "--force-all", "-i"),
        ("dpkg", "--force-all", "--unpack"),
        ("dpkg", "--force-all", f"--root={OTHER}", "-i"),  # its scripts run in this host's root
        ("dpkg", "--force-all", f"--admindir={OTHER_DPKG}", "-i"),
        ("apt-get", "-y", *FORCE_APT, "install"),
        ("apt-get", "-y", *FORCE_APT, "--reinstall", "install"),
    ),
}
"""Commands that take the path of a package, and leave out all else that they can.

dnf takes an older package only where it is told to downgrade.
"""

SKIPPED = (
    ("rpm", "-U", "--noscripts"),
    ("rpm", "-U", "--nopre"),
    ("rpm", "-U", "--justdb"),
    ("dnf", "-y", "--setopt=tsflags=justdb", "upgrade"),
)
ELSEWHERE = {
    "rpm": (
        (1, "exit status 127", ("rpm", "-i", "--nodeps", "--root", OTHER)),
        (0, "", ("rpm", "-i", "--nodeps", "--noscripts", "--root", OTHER)),
        (2, "is not relocatable", ("rpm", "-U", "--relocate", f"/usr/share={OTHER}")),
        (1, "is not relocatable", ("rpm", "-U", "--prefix", OTHER)),
        (0, "", ("rpm", "-U", "--test")),
    ),
    "deb": (
        (1, "exit status", ("dpkg", "--force-depends", f"--root={OTHER}", "-i")),
        (0, "", ("dpkg", "--no-act", "-i")),
    ),
}
"""Commands that take a package and do nothing to this host: exit code, words, command."""

WITHOUT_THE_INSTALLER = {
    "rpm": (("rpm", "-e", "--nodeps"), ("rpm", "-U", "--nodeps"), "exit status 127"),
    "deb": (("dpkg", "--force-depends", "-P"), ("dpkg", "--force-all", "-i"), "exit status 127"),
}


@pytest.fixture(scope="module")
def unsigned(developers: Developers, second: Path) -> Path:
    """Release 1.1, signed by nobody."""
    assert second.exists()
    return developers.package(replace(releases.second(developers), signers=[], label="-unsigned"))


@pytest.fixture(scope="module")
def older(developers: Developers) -> Path:
    """Release 0.9, signed, which came before 1.0."""
    return developers.package(Draft("0.9", 1, releases.FIRST, [developers.ada]))


@pytest.fixture(scope="module")
def third(developers: Developers, second: Path) -> Path:
    """Release 1.2."""
    assert second.exists()
    return developers.package(releases.third(developers))


def run(site: Site, *command: str | Path) -> tuple[int, str]:
    """Run a command on the host, to which packages are brought; its exit code and its words."""
    done = site.host.run([site.carry(a) if isinstance(a, Path) else a for a in command])
    return done.returncode, done.stdout + done.stderr


def succeed(site: Site, *command: str | Path) -> str:
    """Run a command that succeeds; its words."""
    code, words = run(site, *command)
    assert code == 0, words
    return words


def status(site: Site) -> tuple[int, str]:
    """What `status` ends with, and says."""
    return run(site, "countersign-install", "status")


def verify(site: Site) -> tuple[int, str]:
    """What `rpm -V` or `dpkg -V` ends with, and says."""
    return run(site, {"rpm": "rpm", "deb": "dpkg"}[site.front.format], "-V", PRODUCT)


def assert_installed(site: Site, version: str) -> None:
    """Package, database and application are at the version, and everybody says so."""
    assert (site.state().package, site.current()) == (f"{version}-1", f"releases/{version}")
    assert status(site) == (0, STATUS.format(version, version))
    assert verify(site) == (0, "")


def assert_told(site: Site, problem: str) -> None:
    """Both `status` and `rpm -V` fail, and name the problem."""
    code, words = status(site)
    assert code == 32
    assert f"  problem: {problem}" in words
    code, words = verify(site)
    assert code == 1
    assert f"  problem: {problem}" in words


@only(RPM, DPKG)  # dnf and apt are told to on the same hosts
@pytest.mark.parametrize(
    "package, code, dnf", [("unsigned", 20, "upgrade"), ("older", 24, "downgrade")]
)
def test_no_option_brings_in_what_is_refused(
    kept_site: Site, package: str, code: int, dnf: str, request: pytest.FixtureRequest
) -> None:
    site, file = kept_site, request.getfixturevalue(package)
    site.host.run(["mkdir", "-p", f"{OTHER_DPKG}/info", f"{OTHER_DPKG}/updates"], check=True)
    site.host.write(f"{OTHER_DPKG}/status", "")
    with unchanged(site):
        for command in FORCED[site.front.format]:
            returned, words = run(site, *(word.format(dnf=dnf) for word in command), file)
            assert returned != 0, command
            assert f"exit status {code}" in words, (command, words)
    assert_installed(site, "1.0")


@only(RPM)  # dpkg and apt have no way to leave out a maintainer script
@pytest.mark.parametrize("command", SKIPPED, ids=" ".join)
def test_a_package_without_its_release_is_told_by_status_and_rpm_verify(
    kept_site: Site, first: Path, second: Path, command: tuple[str, ...]
) -> None:
    site, before = kept_site, kept_site.state()

    succeed(site, *command, second)

    assert site.state() == replace(before, package="1.1-1")
    assert_told(site, "the package is crm 1.1, the release installed is 1.0: one came without")
    succeed(site, "rpm", "-U", "--oldpackage", "--noscripts", first)
    assert_installed(site, "1.0")


@only(RPM)  # dpkg has one version of a package
def test_a_package_beside_that_of_the_release_is_told_by_status_and_rpm_verify(
    kept_site: Site, second: Path
) -> None:
    site, before = kept_site, kept_site.state()

    succeed(site, "rpm", "-i", "--noscripts", second)

    assert site.state() == replace(before, package="1.0-1ii 1.1-1")
    assert_told(site, "the package crm 1.1 is installed beside that of the release, 1.0 (rpm -i)")
    succeed(site, "rpm", "-e", "crm-1.1")
    assert_installed(site, "1.0")


@only(RPM, DPKG)  # neither dnf nor apt has a way to
def test_what_goes_to_another_root_is_nothing_of_this_host(kept_site: Site, second: Path) -> None:
    site = kept_site
    site.host.run(["mkdir", "-p", f"{OTHER_DPKG}/info", f"{OTHER_DPKG}/updates"], check=True)
    site.host.write(f"{OTHER_DPKG}/status", "")
    with unchanged(site):
        for code, told, command in ELSEWHERE[site.front.format]:
            returned, words = run(site, *command, second)
            assert returned == code, (command, words)
            assert told in words
    assert_installed(site, "1.0")


@only(RPM, DPKG)
def test_unpacking_a_package_by_hand_installs_nothing(kept_site: Site, second: Path) -> None:
    site = kept_site
    package = site.carry(second)
    extract = {
        "rpm": "rpm2cpio {} | cpio -idm --quiet -D /srv/hand",
        "deb": "dpkg-deb -x {} /srv/hand",
    }
    with unchanged(site):
        site.host.run(["mkdir", "-p", "/srv/hand"], check=True)
        site.host.run(["sh", "-c", extract[site.front.format].format(package)], check=True)
        assert site.host.at("/srv/hand/usr/share/countersign/releases/crm-1.1").is_dir()
    assert_installed(site, "1.0")


@only(RPM, DPKG)  # dnf and apt remove what needs the installer with it
def test_without_the_installer_no_option_installs_and_with_it_all_is_as_before(
    kept_site: Site, installer: Path, second: Path
) -> None:
    site = kept_site
    remove, force, told = WITHOUT_THE_INSTALLER[site.front.format]
    succeed(site, *remove, "countersign-installer")
    with unchanged(site):
        code, words = run(site, *force, second)
    assert code == 1
    assert told in words
    assert verify(site)[0] == (1 if site.front is RPM else 0)  # dpkg verifies files alone

    succeed(site, *site.front.install, installer)
    assert_installed(site, "1.0")


def test_a_skipped_release_is_made_up_for_by_the_same_package(
    rpm_site: Site, first: Path, second: Path, third: Path
) -> None:
    site = rpm_site
    succeed(site, "rpm", "-i", first)
    succeed(site, "rpm", "-i", second)  # where rpm -U was meant
    assert site.current() == "releases/1.1"
    assert_told(site, "the package crm 1.0 is installed beside that of the release, 1.1 (rpm -i)")
    succeed(site, "rpm", "-e", "crm-1.0")
    assert_installed(site, "1.1")

    succeed(site, "rpm", "-U", "--noscripts", third)
    assert_told(site, "the package is crm 1.2, the release installed is 1.1")
    succeed(site, "rpm", "-U", "--replacepkgs", third)
    assert_installed(site, "1.2")


def test_a_release_without_its_package_is_told_and_made_up_for(
    rpm_site: Site, first: Path, second: Path
) -> None:
    site = rpm_site
    succeed(site, "rpm", "-i", first)
    succeed(site, "rpm", "-i", "--nodeps", "--dbpath", "/srv/rpmdb", second)
    assert site.state().objects == "customer note orders"
    assert_told(site, "the package is crm 1.0, the release installed is 1.1: one came without")

    assert "crm 1.1: already installed" in succeed(site, "rpm", "-U", second)
    assert_installed(site, "1.1")


def test_dnf_undoes_no_release(rpm_site: Site, first: Path, second: Path) -> None:
    site = rpm_site
    dnf = ("dnf", "-y")
    with site.repository(first):
        succeed(site, *dnf, "install", PRODUCT)
    with site.repository(second):
        succeed(site, *dnf, "upgrade", PRODUCT)
        with unchanged(site):
            for command in (("history", "rollback", "1"), ("history", "undo", "2")):
                code, words = run(site, *dnf, *command)
                assert code == 1, words
                assert "exit status 24" in words
        succeed(site, *dnf, "reinstall", PRODUCT)
        assert_installed(site, "1.1")

        succeed(site, *dnf, "remove", PRODUCT)
        assert site.state().objects == "customer note orders"
        assert status(site) == (0, STATUS.format("1.1", "none"))
        assert "crm 1.1: already installed" in succeed(site, *dnf, "history", "undo", "last")
    assert_installed(site, "1.1")


@only(DPKG)
def test_dpkg_step_by_step_and_back(site: Site, first: Path, second: Path) -> None:
    succeed(site, "dpkg", "-i", first)
    assert "crm 1.1: installed" in succeed(site, "dpkg", "--unpack", second)
    assert status(site) == (0, STATUS.format("1.1", "1.1"))  # preinst has installed the release
    succeed(site, "dpkg", "--configure", PRODUCT)
    assert_installed(site, "1.1")

    for remove in ("-r", "-P"):
        succeed(site, "dpkg", remove, PRODUCT)
        assert site.state().objects == "customer note orders"
        assert status(site) == (0, STATUS.format("1.1", "none"))
        code, words = run(site, "dpkg", "-i", first)
        assert code == 1
        assert "exit status 24" in words
        assert "crm 1.1: already installed" in succeed(site, "dpkg", "-i", second)
        assert_installed(site, "1.1")
