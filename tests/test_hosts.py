"""The test hosts themselves.

They are isolated, complete enough for rpm, dnf and PostgreSQL, and leave nothing behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import CommandFailedError, Host
from tests.hosts.base_system import rpm_version
from tests.hosts.cache import REPOSITORY

pytestmark = pytest.mark.acceptance

SPEC = """\
Name: greeting
Version: {version}
Release: 1
Summary: A package that asks for what real packages ask for
License: MIT
BuildArch: noarch
Requires: /bin/sh, /usr/bin/gpgv, python3 >= 3.11, libpq.so.5()(64bit)
%description
A greeting.
%pre -p /usr/bin/python3
print("a scriptlet ran")
%install
mkdir -p %{{buildroot}}/usr/share/greeting
echo {version} >%{{buildroot}}/usr/share/greeting/version
%files
/usr/share/greeting
"""
INSTALLED = Path("/usr/share/greeting/version")

HOLD = """
import sys
from tests.hosts import Host
with Host.start("doomed") as host:
    host.start_cluster()
    host.popen(["sleep", "600"])
    print(host.pid, flush=True)
    sys.stdin.read()
"""


def build(spec: Path) -> None:
    """Build a package below the folder of its spec."""
    command = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {spec.parent}", str(spec)]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with greeting 1 and greeting 2."""
    folder = tmp_path_factory.mktemp("greeting")
    for version in ("1", "2"):
        spec = folder / f"{version}.spec"
        spec.write_text(SPEC.format(version=version))
        build(spec)
    return folder / "RPMS" / "noarch"


@pytest.fixture
def host(packages: Path) -> Iterator[Host]:
    """A host with both packages in /srv."""
    with Host.start() as started:
        started.copy_in(packages, "/srv")
        yield started


def greeting(version: int) -> str:
    """The package's path on the host."""
    return f"/srv/greeting-{version}-1.noarch.rpm"


def publish(host: Host, version: int) -> None:
    """Put a package into the repository that the host serves."""
    host.run(["install", "-Dt", "/srv/repository", greeting(version)], check=True)
    host.run(["createrepo_c", "--quiet", "/srv/repository"], check=True)


def using(namespaces: set[str]) -> set[int]:
    """The machine's processes that live in one of `namespaces`."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target in namespaces:
            found.add(int(link.parts[2]))
    return found


def own_namespaces(pid: int) -> set[str]:
    """The namespaces that only a host and its processes are in."""
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("mnt", "net", "pid")}


def test_two_hosts_see_neither_each_other_nor_the_machine() -> None:
    with Host.start("qat") as qat, Host.start("prd") as prd:
        qat.write("/etc/countersign/host.toml", "mine")
        with qat.http_server("/etc", 8123) as url:
            fetch = ["python3", "-c", f"import urllib.request as u; u.urlopen('{url}')"]
            assert qat.run(fetch).returncode == 0
            assert "Connection refused" in prd.run(fetch).stderr
        assert (qat.root / "etc/countersign/host.toml").read_text() == "mine"
        assert not (prd.root / "etc/countersign/host.toml").exists()
        assert not Path("/etc/countersign/host.toml").exists()
        assert prd.run(["hostname"], check=True).stdout == "prd\n"
        assert own_namespaces(qat.pid).isdisjoint(own_namespaces(prd.pid))
        assert own_namespaces(qat.pid).isdisjoint(own_namespaces(os.getpid()))


def test_a_package_installed_on_one_host_is_on_no_other(host: Host) -> None:
    host.run(["rpm", "-i", greeting(1)], check=True)
    with Host.start("prd") as prd:
        assert prd.run(["rpm", "-q", "greeting"]).returncode == 1
        assert not prd.at(INSTALLED).exists()
    assert not INSTALLED.exists()
    listing = subprocess.run(["rpm", "-qa"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "greeting" not in listing


def test_rpm_installs_upgrades_verifies_and_erases_a_package(host: Host) -> None:
    assert "a scriptlet ran" in host.run(["rpm", "-i", greeting(1)], check=True).stdout
    assert host.at(INSTALLED).read_text() == "1\n"
    host.run(["rpm", "-U", greeting(2)], check=True)
    assert host.at(INSTALLED).read_text() == "2\n"
    host.run(["rpm", "-V", "greeting"], check=True)
    host.write(INSTALLED, "altered\n")
    assert host.run(["rpm", "-V", "greeting"]).returncode == 1
    host.run(["rpm", "-e", "greeting"], check=True)
    assert not host.at(INSTALLED).exists()


def test_rpm_still_refuses_a_package_whose_dependency_is_missing(
    host: Host, tmp_path: Path
) -> None:
    spec = tmp_path / "needy.spec"
    spec.write_text(SPEC.format(version=1).replace("/usr/bin/gpgv", "/usr/bin/no-such-program"))
    build(spec)
    host.copy_in(tmp_path / "RPMS/noarch/greeting-1-1.noarch.rpm", "/srv/needy.rpm")
    result = host.run(["rpm", "-i", "/srv/needy.rpm"])
    assert result.returncode != 0
    assert "/usr/bin/no-such-program is needed by greeting" in result.stderr


def test_dnf_installs_a_file_with_its_dependencies(host: Host) -> None:
    host.run(["dnf", "-y", "install", greeting(1)], check=True)
    assert host.at(INSTALLED).read_text() == "1\n"


def test_dnf_installs_and_upgrades_from_a_repository_on_the_hosts_loopback(host: Host) -> None:
    publish(host, 1)
    with host.http_server("/srv/repository") as url:
        host.add_dnf_repository("product", url, gpgcheck=False)
        host.run(["dnf", "-y", "install", "greeting"], check=True)
        assert host.at(INSTALLED).read_text() == "1\n"
        publish(host, 2)
        host.run(["dnf", "-y", "upgrade", "greeting"], check=True)
        assert host.at(INSTALLED).read_text() == "2\n"


def test_dnf_refuses_an_unsigned_package_of_a_repository_that_must_be_signed(host: Host) -> None:
    publish(host, 1)
    with host.http_server("/srv/repository") as url:
        host.add_dnf_repository("product", url)
        assert host.run(["dnf", "-y", "install", "greeting"]).returncode == 1
    assert not host.at(INSTALLED).exists()


def test_the_cluster_lets_root_act_as_countersign_and_as_no_owner_role(host: Host) -> None:
    host.start_cluster()
    host.psql("CREATE ROLE countersign LOGIN; CREATE ROLE crm_owner LOGIN")
    assert host.psql("SELECT current_user", user="countersign") == "countersign"
    with pytest.raises(CommandFailedError, match="Peer authentication failed"):
        host.psql("SELECT 1", user="crm_owner")


def test_the_clusters_data_survives_a_crash_of_the_server(host: Host) -> None:
    host.start_cluster({"max_connections": "7"})
    host.psql("CREATE TABLE kept AS SELECT 1 AS number")
    host.stop_cluster("immediate")
    with pytest.raises(CommandFailedError, match="No such file or directory"):
        host.psql("SELECT 1")
    host.start_cluster()
    assert host.psql("SELECT number FROM kept; SHOW fsync; SHOW max_connections") == "1\non\n100"


def test_psql_stops_at_the_first_error_and_says_which(host: Host) -> None:
    host.start_cluster()
    with pytest.raises(CommandFailedError, match='relation "missing" does not exist'):
        host.psql("SELECT * FROM missing; CREATE TABLE unreached ()")
    assert host.psql("SELECT to_regclass('unreached') IS NULL") == "t"


def test_a_hidden_directory_is_empty_on_the_host_and_unharmed_on_the_machine() -> None:
    hidden = Path("/usr/share/doc")
    with Host.start(hide=[hidden]) as host:
        assert host.run(["ls", "-A", hidden], check=True).stdout == ""
        assert host.run(["ls", "-A", hidden.parent], check=True).stdout != ""
    assert any(hidden.iterdir())


def test_the_checkout_is_not_on_a_host() -> None:
    with Host.start() as host:  # a checkout below /tmp is not even there
        assert host.run(["ls", "-A", REPOSITORY]).stdout == ""
    assert any(REPOSITORY.iterdir())


def test_a_path_is_followed_through_the_hosts_own_links(host: Host) -> None:
    host.write("/opt/crm/releases/1/version", "of the host\n")
    host.run(["ln", "-s", "/opt/crm/releases/1", "/opt/crm/current"], check=True)
    assert host.at("/opt/crm/current/version").read_text() == "of the host\n"
    host.write("/opt/crm/current/version", "written\n", mode=0o600)
    assert host.run(["cat", "/opt/crm/releases/1/version"]).stdout == "written\n"
    assert host.at("/opt/crm/current/version").stat().st_mode & 0o777 == 0o600


def test_a_command_sees_a_fixed_environment_and_no_input(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    listing = host.run(["env"], env={"ASKED": "for"}).stdout.splitlines()
    assert {line.partition("=")[0] for line in listing} == {
        "ASKED",
        "HOME",
        "LANG",
        "PATH",
        "TERM",
    }
    assert host.run(["cat"]).stdout == ""
    assert host.run(["cat"], input="given").stdout == "given"


def test_a_failing_command_that_was_relied_on_shows_all_it_said(host: Host) -> None:
    with pytest.raises(CommandFailedError) as failure:
        host.run(["sh", "-c", "echo one; echo two >&2; exit 3"], check=True)
    assert failure.value.result.returncode == 3
    assert "one" in str(failure.value)
    assert "two" in str(failure.value)


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(host: Host) -> None:
    before = using(own_namespaces(host.pid))
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sh", "-c", "sleep 611 & sleep 612"], timeout=0.3)
    assert using(own_namespaces(host.pid)) == before


def test_a_signal_reaches_the_program_in_the_host(host: Host) -> None:
    with host.popen(["sleep", "614"]) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    waiting = "trap 'echo caught; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    with host.popen(["sh", "-c", waiting]) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.readline() == "caught\n"
    assert process.returncode == 5


def test_what_the_product_asks_of_systemctl_is_recorded(host: Host) -> None:
    host.record_systemctl()
    host.run(["systemctl", "restart", "crm.service"], check=True)
    host.run(["systemctl", "daemon-reload"], check=True)
    log = host.at("/var/log/systemctl.log").read_text()
    assert log == "restart crm.service\ndaemon-reload\n"


def test_nothing_is_left_when_a_host_ends() -> None:
    mounts = Path("/proc/self/mounts").read_text()
    with Host.start() as host:
        host.start_cluster()
        host.run(["setsid", "--fork", "sh", "-c", "exec sleep 613 >/dev/null 2>&1"], check=True)
        namespaces = own_namespaces(host.pid)
        assert using(namespaces)
    assert using(namespaces) == set()
    assert Path("/proc/self/mounts").read_text() == mounts


def test_nothing_is_left_when_the_test_process_is_killed() -> None:
    mounts = Path("/proc/self/mounts").read_text()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        namespaces = own_namespaces(int(child.stdout.readline()))
        assert len(using(namespaces)) > 1
        child.kill()
    deadline = time.monotonic() + 30
    while using(namespaces) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert using(namespaces) == set()
    assert Path("/proc/self/mounts").read_text() == mounts


@pytest.mark.parametrize(
    "debian, rpm",
    [
        ("3.11.2-1+b1", "3.11.2-1+b1"),
        ("1:2.39.5-0+deb12u2", "1:2.39.5-0+deb12u2"),
        ("12.4+deb12u11", "12.4+deb12u11"),
        ("2023.03-1-g1f-3~bpo12", "2023.03_1_g1f-3~bpo12"),
    ],
)
def test_a_debian_version_becomes_one_that_rpm_compares(debian: str, rpm: str) -> None:
    assert rpm_version(debian) == rpm
