"""What a loss of power can take from an install: nothing that a later step relies on.

Nobody cuts the power: `tests.durability` judges the system calls of real installs.
"""

import re
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.acceptance.test_local_files import DECLARED, declare, drafted, in_use, use
from tests.developers import Developers
from tests.durability import (
    MAKE,
    REMOVE,
    RENAME,
    SEND,
    STRACE,
    Event,
    Rule,
    is_below,
    parse,
    unsafe,
)
from tests.failpoints.bench import STAMP, STATE
from tests.frontends import DPKG, RPM, only
from tests.sites import ROOT, Site

pytestmark = pytest.mark.acceptance

TRACE = "/srv/trace"
CURRENT, INSTALLED, PENDING = f"{ROOT}/current", f"{STATE}/crm/installed", f"{STATE}/crm/pending"
RECEIPTS = f"{STATE}/receipts"
ONCE = [f"{STATE}/policy.toml", f"{STATE}/clock.txt"]
"""What the host remembers of a release before any other; the time once in a second."""
PASSING = re.compile(rf"{STATE}/(host-key/.*|policy\.lock|crm/lock)")
"""What gpg keeps for itself, and files that are there to be locked."""
END = Event("end", "")


def remembered(path: str) -> bool:
    """Whether it is what the host remembers."""
    return is_below(path, STATE) and not PASSING.fullmatch(path)


def of_install(path: str) -> bool:
    """Whether it is that, or of the release."""
    return remembered(path) or is_below(path, ROOT)


def rules(version: str) -> list[Rule]:
    """What has to be on the disk before what, when a release is installed."""
    staging = f"{ROOT}/releases/.{version}.staging"
    draft = re.compile(rf"{STATE}/crm/crm-{version}-.*\.json")
    return [
        Rule("anything is staged", lambda event: event == Event(MAKE, staging), remembered),
        Rule("COMMIT", lambda event: event.what == SEND and "COMMIT" in event.path, of_install),
        Rule(
            "the draft is removed",
            lambda event: event.what == REMOVE and bool(draft.fullmatch(event.path)),
            of_install,
        ),
        Rule("installed", lambda event: event == Event(RENAME, INSTALLED, PENDING), of_install),
        Rule("the end", lambda event: event == END, of_install),
    ]


def traced(site: Site, package: Path) -> list[Event]:
    """What is done when a package is installed."""
    command = [*site.front.upgrade, site.carry(package)]
    done = site.host.run([*STRACE, "-o", TRACE, *command])
    assert done.returncode == 0, done.stdout + done.stderr
    return [*parse(site.host.at(TRACE).read_text()), END]


def require_safe(events: list[Event], version: str) -> None:
    """Assert that all was on the disk in time, and that it was all that there is."""
    watched = (STATE, CURRENT, f"{ROOT}/releases", f"{ROOT}/local")
    assert unsafe(events, rules(version), watched) == []

    named = [STAMP.sub("", event.path) for event in events if event.what == RENAME]
    own = [path for path in named if is_below(path, STATE) or path == CURRENT]
    receipt = f"crm-{version}.json"
    assert [path for path in own if path not in ONCE] == [
        PENDING,
        f"{STATE}/crm/{receipt}",
        CURRENT,
        f"{RECEIPTS}/{receipt}.asc",
        f"{RECEIPTS}/{receipt}",
        INSTALLED,
    ]
    assert f"{ROOT}/releases/{version}" in named
    if version == "1.0":
        assert own[:2] == ONCE


@pytest.fixture
def site(site: Site) -> Site:
    """A host with a key, which keeps no old tree."""
    host_file = site.host.at("/etc/countersign/host.toml")
    host_file.write_text(host_file.read_text().replace("keep = 2", "keep = 1"))
    assert site.installer("init").returncode == 0
    return site


@only(RPM, DPKG)
def test_each_step_is_on_the_disk_before_the_next_one_relies_on_it(
    site: Site, first: Path, second: Path
) -> None:
    require_safe(traced(site, first), "1.0")

    events = traced(site, second)

    require_safe(events, "1.1")
    old = [e.path for e in events if e.what == REMOVE and is_below(e.path, f"{ROOT}/releases/1.0")]
    assert f"{ROOT}/releases/1.0/VERSION" in old


@only(RPM)  # it is about files that no package manager knows
def test_local_files_are_on_the_disk_before_a_release_counts_on_them(
    site: Site, developers: Developers
) -> None:
    first = developers.package(drafted(releases.first(developers), 1, ["empty"]))
    second = developers.package(drafted(releases.second(developers), 2, ["1.0-local"]))
    assert site.upgrade(first).returncode == 0
    use(site)
    declare(site, DECLARED)

    require_safe(traced(site, second), "1.1")

    in_use(site)
