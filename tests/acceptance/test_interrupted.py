"""An install whose terminal is lost, or at which somebody presses Ctrl-C.

The terminal is a real one: the kernel sends the signals to all that runs on it.
"""

import re
import time
from itertools import count
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers
from tests.frontends import DPKG, RPM, only
from tests.sites import Site

pytestmark = pytest.mark.acceptance

TERMINAL = """
import os, pty, sys
key, *command = sys.argv[1:]
child, terminal = pty.fork()
if not child:
    os.execvp(command[0], command)
said = b""
try:
    while piece := os.read(terminal, 1000):
        said += piece
        if b"scripts to run" in said and key:
            if key == "hang up":
                sys.exit("it hung up")
            os.write(terminal, key.encode())
            key = ""
except OSError:  # the other end was closed
    pass
print(said.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
HANG_UP, CTRL_C = "hang up", "\x03"


@pytest.fixture
def slow(developers: Developers, first: Path) -> Path:
    """Release 1.1 with a script that takes its time."""
    assert first.exists()
    sleeps = {"sql/0003_totals.sql": "CREATE TABLE totals ();\nSELECT pg_sleep(2);\n"}
    return developers.package(releases.with_files(releases.second(developers), "slowly", sleeps))


def on_terminal(site: Site, key: str, *command: str) -> int:
    """The exit code of a command on a terminal, on which something happens while scripts run."""
    done = site.host.run(["python3", "-c", TERMINAL, key, *command])
    assert "it hung up" in done.stderr if key == HANG_UP else "^C" in done.stdout
    return done.returncode


def require_ended(site: Site) -> None:
    """Wait until the installer has ended by itself."""
    deadline = time.monotonic() + 30
    while site.host.run(["pgrep", "-f", "countersign-install"]).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def require_installed(site: Site) -> None:
    """Assert that the release is there, once, and that no step of it was missed."""
    assert site.state().objects == "customer note orders totals"
    assert site.current() == "releases/1.1"
    assert [row["event"] for row in site.ledger()].count("release applied") == 2
    assert not site.host.at("/var/lib/countersign/crm/pending").exists()


@only(RPM, DPKG)
@pytest.mark.parametrize("key", [HANG_UP, CTRL_C], ids=["hang up", "Ctrl-C"])
def test_a_package_s_install_goes_on_to_its_end(
    site: Site, first: Path, slow: Path, key: str
) -> None:
    site.install(first)

    on_terminal(site, key, *site.front.upgrade, site.carry(slow))

    require_ended(site)
    require_installed(site)
    log = site.host.at("/var/log/countersign/crm.log").read_text()
    assert log.splitlines()[-1].endswith("crm 1.1: installed")
    again = site.upgrade(slow)
    assert again.returncode == 0 or "already installed" in again.stderr
    assert site.state().package == "1.1-1"
    require_installed(site)
    assert site.installer("status").returncode == 0


@only(RPM)  # the others print themselves, and end where nobody reads that
def test_an_install_whose_output_nobody_reads_goes_well(site: Site, first: Path) -> None:
    command = " ".join([*site.front.install, site.carry(first)])

    done = site.host.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"])

    assert done.returncode == 0, done.stderr
    assert site.state().package == "1.0-1"
    assert site.current() == "releases/1.0"
    assert site.installer("status").returncode == 0


def test_ctrl_c_takes_an_apply_back(rpm_site: Site, first: Path, slow: Path) -> None:
    site = rpm_site
    assert site.installer("apply", first).returncode == 0
    before = site.state()

    code = on_terminal(site, CTRL_C, "countersign-install", "apply", site.carry(slow))

    assert code == 130
    assert site.state() == before
    assert site.installer("status").returncode == 0
    assert site.installer("apply", slow).returncode == 0
    assert site.current() == "releases/1.1"


def test_an_installer_without_memory_leaves_the_old_release(
    rpm_site: Site, developers: Developers, first: Path
) -> None:
    """With some more of it each time, until a statement of 8 MiB has enough."""
    site, large = rpm_site, "x" * (8 << 20)
    notes = {"sql/0004_notes.sql": f"CREATE TABLE note ();\nSELECT length('{large}');\n"}
    draft = releases.with_files(releases.second(developers), "large", notes)
    package = site.carry(developers.package(draft))
    assert site.installer("apply", first).returncode == 0
    before, reached = site.state(), list[str]()

    for mebibytes in count(64, 8):
        limit = f"--as={mebibytes << 20}"
        done = site.host.run(["prlimit", limit, "countersign-install", "apply", package])
        if done.returncode == 0:
            break
        reached += re.findall("scripts to run", done.stdout)
        assert site.state() == before
        assert site.installer("status").returncode == 0

    assert reached
    assert site.current() == "releases/1.1"
    assert site.installer("status").returncode == 0
