"""An install that is cut short before each of its steps: what stands, and what is made of it.

The steps are in `tests.failpoints.points`. Those of an upgrade are tried once each, on a host of
rpm or of dpkg; `make soak` tries all steps on both, whoever is killed.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from installer.errors import (
    ConfigurationError,
    NotSwitchedError,
    OnlineUnfinishedError,
    OutcomeUnknownError,
    PlanDivergedError,
)
from packager.installer_package import LAUNCHER, SAMPLES, stage
from tests.acceptance import releases
from tests.acceptance.test_online import allow
from tests.acceptance.test_online import draft as online_draft
from tests.developers import Developers
from tests.failpoints.bench import Bench, Standing
from tests.failpoints.points import (
    COMMIT,
    FINISH,
    POINTS,
    PRUNE,
    SCENARIOS,
    WITHIN,
    Step,
    folders_at,
    memory_at,
    steps,
)
from tests.frontends import DPKG, RPM, FrontEnd

pytestmark = pytest.mark.acceptance

KILLED = ("kill installer", "kill manager", "kill both", "kill server")
HOSTS_OWN = frozenset(
    {".clock.txt.new", ".policy.toml.new", "clock.txt", "crm", "crm/lock", "policy.lock"}
    | {"policy.toml"}
)
"""What a host remembers before it looks at a release."""


@dataclass(frozen=True, slots=True)
class Case:
    """What happens at a step on a host of `front`, and whether `recover` runs then."""

    step: Step
    action: str
    front: FrontEnd
    recover: bool

    @property
    def title(self) -> str:
        """As the test's id."""
        return f"{self.step.title}-{self.action}-{self.front.name}{'-recover' * self.recover}"


WAYS = ((RPM, False), (DPKG, True), (DPKG, False), (RPM, True))
LEFT_ONCE = {"application._copy write", PRUNE, FINISH}
"""Where something was left behind once, which only one way to put it right has shown."""

ONCE = [
    Case(step, KILLED[0], *way)
    for i, step in enumerate(steps("upgrade"))
    for way in (WAYS[:2] if step.name in LEFT_ONCE else WAYS[i % 4 : i % 4 + 1])
]
"""Each step once: half of them on each host, half of them put right in each way."""
EVERY = [
    Case(step, action, front, recovers and scenario != "online")  # which nothing takes back
    for scenario in SCENARIOS
    for i, step in enumerate(steps(scenario))
    for action in (KILLED if scenario == "upgrade" else KILLED[:1])
    for front, recovers in (WAYS[i % 2], WAYS[i % 2 + 2])
]
"""Each step on both hosts, and of an upgrade whoever is killed."""
AROUND_COMMIT = {
    "cut": False,
    "kill server": False,
    "kill backend before it reads COMMIT": False,
    "cut after COMMIT is sent": True,
    "kill server after COMMIT is written": True,
}
"""What happens, and whether the release stands then."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts with a test build, each as some scenario finds it, and the scenarios' packages."""

    developers: Developers
    installer: Path
    packages: dict[str, Path]
    running: ExitStack
    benches: dict[tuple[str, str], Bench] = field(default_factory=dict)
    ends: dict[tuple[str, str], Standing] = field(default_factory=dict)

    def ready(self, front: FrontEnd, scenario: str) -> Bench:
        """A host that is empty, has 1.0, or has 1.0 and a 1.1 that was cut short."""
        kind = scenario if scenario in {"first", "again"} else "upgrade"
        bench = self.benches.get((front.name, kind)) or self._start(front, kind)
        bench.put_back()
        return bench

    def end(self, front: FrontEnd, scenario: str) -> Standing:
        """What a scenario leaves that nothing cuts short."""
        key = (front.name, scenario)
        if key not in self.ends:
            bench = self.ready(front, scenario)
            done = bench.site.upgrade(self.packages[scenario])
            assert bool(done.returncode) == (scenario == "failing"), done.stderr
            self.ends[key] = bench.standing()
        return self.ends[key]

    def _start(self, front: FrontEnd, kind: str) -> Bench:
        bench = self.running.enter_context(Bench.start(self.developers, self.installer, front))
        allow(bench.site, self.developers)
        if kind != "first":
            done = bench.site.upgrade(self.packages["first"])
            assert done.returncode == 0, done.stderr
        if kind == "again":
            bench.upgrade(self.packages[kind], commit_of("upgrade"), "kill installer")
        bench.save()
        self.benches[front.name, kind] = bench
        return bench


@pytest.fixture(scope="module")
def hosts(developers: Developers, installer: Path, first: Path, second: Path) -> Iterator[Hosts]:
    files = {"sql/0004_notes.sql": "SELECT nope;\n"}
    broken = releases.with_files(releases.second(developers), "broken", files)
    packages = {
        "first": first,
        "upgrade": second,
        "online": developers.package(online_draft(developers, "online")),
        "failing": developers.package(broken),
        "again": second,
    }
    with ExitStack() as running:
        yield Hosts(developers, installer, packages, running)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_points_are_all_steps_of_an_install_in_their_order(scenario: str, hosts: Hosts) -> None:
    bench = hosts.ready(RPM, scenario)

    bench.site.upgrade(hosts.packages[scenario])

    taken, files = bench.steps()
    assert taken == list(SCENARIOS[scenario])
    assert {name for name, number in files.items() if number > 1} == WITHIN[scenario]


def test_every_point_is_a_step_of_some_install_and_says_what_stands() -> None:
    assert POINTS.keys() == {step for names in SCENARIOS.values() for step in names}


@pytest.mark.parametrize("case", ONCE, ids=lambda case: case.title)
def test_an_upgrade_that_is_killed_at_a_point_is_put_right(case: Case, hosts: Hosts) -> None:
    cut_short_and_put_right(case, hosts)


@pytest.mark.soak
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.title)
def test_whoever_is_killed_at_a_point_the_install_is_put_right(case: Case, hosts: Hosts) -> None:
    cut_short_and_put_right(case, hosts)


@pytest.mark.parametrize("action", AROUND_COMMIT)
def test_a_server_killed_or_a_connection_cut_around_commit_is_put_right(
    action: str, hosts: Hosts
) -> None:
    step, stands = commit_of("upgrade"), AROUND_COMMIT[action]
    end, bench = hosts.end(RPM, "upgrade"), hosts.ready(RPM, "upgrade")
    before = bench.saved[0]
    if "written" in action:  # no standby is there to confirm it
        bench.site.host.stop_cluster()
        bench.site.host.start_cluster({"synchronous_standby_names": "nobody"})

    done = bench.upgrade(hosts.packages["upgrade"], step, action)

    bench.start_server()
    now, wanted = bench.standing(), end if stands else before
    assert f"exit status {OutcomeUnknownError.exit_code}" in done.stderr, done.stderr
    assert (now.package, now.application) == (before.package, before.application)
    assert (now.objects, now.ledger) == (wanted.objects, wanted.ledger)
    require_kept(step, before, now)
    assert bench.status() == NotSwitchedError.exit_code
    recover(bench, replace(end, package=before.package) if stands else before)
    finish(bench, hosts.packages["upgrade"], end, has_failed=False)


def test_the_released_package_has_no_failpoints(tmp_path: Path) -> None:
    stage(tmp_path)

    assert (tmp_path / "usr/bin" / LAUNCHER).read_bytes() == (SAMPLES / LAUNCHER).read_bytes()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 100
    for file in files:
        assert "failpoint" not in file.name
        assert b"failpoint" not in file.read_bytes(), file


def commit_of(scenario: str) -> Step:
    """The first COMMIT of a scenario."""
    return next(step for step in steps(scenario) if step.name == COMMIT)


def cut_short_and_put_right(case: Case, hosts: Hosts) -> None:
    """Assert what stands after a case, and that recover and the same command make of it."""
    step, package = case.step, hosts.packages[case.step.scenario]
    end, bench = hosts.end(case.front, step.scenario), hosts.ready(case.front, step.scenario)
    before = bench.saved[0]

    done = bench.upgrade(package, step, case.action)

    is_to_the_end = case.action == "kill manager"
    if case.action == "kill server":
        bench.start_server()
        is_to_the_end = step.is_committed
        assert bool(done.returncode) != is_to_the_end
    else:
        assert done.returncode != 0
    now = bench.standing()
    if is_to_the_end:
        assert of_release(now) == replace(of_release(end), package=now.package)
    elif case.action == "kill server" and step.name != COMMIT:
        require_refused(before, now)
    else:
        require_cut_short(step, end, before, now)
    assert now.package == package_at(case, before, end, done.returncode)
    assert bench.status() == status_at(step, now, end)
    if case.recover:
        old = hosts.ready(case.front, "upgrade").saved[0] if step.scenario == "again" else before
        wanted = end if step.is_committed else old
        is_pending = "crm/pending" in now.memory
        recover(bench, replace(wanted, package=now.package) if is_pending else now)
    has_failed = step.scenario == "failing" or case.action == "kill server"
    finish(bench, package, end, has_failed=has_failed)


def require_cut_short(step: Step, end: Standing, before: Standing, now: Standing) -> None:
    """Assert that exactly the steps before `step` were taken."""
    has_switched = step.is_after("application.switch rename")
    assert now.objects == (end if step.is_committed else before).objects
    assert now.ledger == end.ledger[: len(before.ledger) + step.rows]
    assert now.application == (end if has_switched else before).application
    require_kept(step, before, now)


def require_kept(step: Step, before: Standing, now: Standing) -> None:
    """Assert what the host remembers, and what is staged, when it was cut short at `step`."""
    assert set(now.memory) == memory_at(step, before.memory)
    assert now.folders == folders_at(step, before.folders)


def require_refused(before: Standing, now: Standing) -> None:
    """Assert that all was taken back, but for a receipt that says so."""
    failed = {"receipts/crm-1.1.json", "receipts/crm-1.1.json.asc"}
    assert set(now.memory) - failed == set(before.memory)
    assert replace(now, memory=()) == replace(before, memory=())


def package_at(case: Case, before: Standing, end: Standing, code: int) -> str:
    """What is installed as far as the package manager knows."""
    if case.action in {"kill manager", "kill both"} and case.front == DPKG:
        return ""  # neither version is: dpkg has written that it is at work on the package
    return before.package if code else end.package


def status_at(step: Step, now: Standing, end: Standing) -> int:
    """What `status` has to say."""
    if "crm/pending" in now.memory:
        is_left = step.is_committed and now.ledger != end.ledger
        return (OnlineUnfinishedError if is_left else NotSwitchedError).exit_code
    if "crm/installed" not in now.memory:
        return ConfigurationError.exit_code
    # Of a first release the package manager has not heard: it might have come without it.
    is_behind = now.package != end.package and now.application == end.application != "releases/1.0"
    return PlanDivergedError.exit_code if is_behind else 0


def recover(bench: Bench, wanted: Standing) -> None:
    """Assert that `recover` takes the install back, or finishes it, to what is wanted."""
    recovered = bench.site.installer("recover")
    assert recovered.returncode == 0, recovered.stderr
    assert without_temporary(bench.standing()) == without_temporary(wanted)


def finish(bench: Bench, package: Path, end: Standing, *, has_failed: bool) -> None:
    """Assert that the same command leaves what it would have left, and nothing besides.

    Where an install `has_failed`, there may be one more receipt of that.
    """
    again = bench.rerun(package)
    now = of_release(bench.standing())
    if has_failed:
        now = replace(now, memory=tuple(dict.fromkeys(now.memory)))
    assert now == of_release(end), again.stderr
    assert bench.status() == 0
    assert bench.site.host.run(["pgrep", "gpg-agent"]).stdout == ""


def without_temporary(standing: Standing) -> Standing:
    """The release's, but for half-written files: only an install knows that they are there."""
    memory = (name for name in standing.memory if not name.startswith("crm/."))
    return of_release(replace(standing, memory=tuple(memory)))


def of_release(standing: Standing) -> Standing:
    """What of a standing is the release's; it may have failed, or begun an index, twice."""
    memory = tuple(name for name in standing.memory if name not in HOSTS_OWN)
    tree = tuple(name for name in standing.tree if name != "releases")  # made, and empty
    ledger = tuple(dict.fromkeys(standing.ledger))
    return replace(standing, memory=memory, tree=tree, ledger=ledger)
