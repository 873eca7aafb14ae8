"""Installs that are killed at random moments: whom, when, and what may stand then.

The moments are spread evenly over the time that an install takes, which on a busy machine is now
one and now another: one that ends too early tells how long it took.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import TimeoutExpired

from installer.errors import NotSwitchedError, PlanDivergedError
from tests.developers import PRODUCT
from tests.failpoints.bench import Bench, Standing
from tests.hosts import HostProcess

OLD, COMMITTED, NEW = "old", "committed, not switched", "new"
INSTALLER, MANAGER, BOTH, SERVER = "installer", "package manager", "both", "server"
VICTIMS = (INSTALLER, MANAGER, BOTH, SERVER)
QUERY = ("dpkg-query", "-W", "-f", "${Version}", PRODUCT)
PATIENCE = 60
"""Seconds that a process has to end."""
GROWTH = 1.02
"""By what an install is taken to be longer, after each that did not end too early."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed, and when: 0 is when the package manager is started, 1 when it ends."""

    victim: str
    moment: float


@dataclass(slots=True)
class Soak:
    """A host on which one package is installed again and again, each time from the same state."""

    bench: Bench
    package: Path
    end: Standing
    """What an install leaves that nobody disturbs."""
    seconds: float
    """How long it takes, as far as is known."""
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a kill of somebody has left which state."""

    @classmethod
    def measured(cls, bench: Bench, package: Path) -> "Soak":
        """Install it once, and look at what that leaves, and at the time."""
        bench.save()
        started = time.monotonic()
        done = bench.site.upgrade(package)
        seconds = time.monotonic() - started
        assert done.returncode == 0, done.stdout + done.stderr
        return cls(bench, package, bench.standing(), seconds)

    @staticmethod
    def kills(chance: random.Random) -> Iterator[Kill]:
        """Kills without end."""
        while True:
            yield Kill(chance.choice(VICTIMS), chance.random())

    def turn(self, kill: Kill) -> bool:
        """Install, kill, look, install again, and assert that all is as it should be.

        Returns whether the install still ran when it was time to kill.
        """
        self.bench.put_back()
        victim = self._install_and_kill(kill)
        if victim == SERVER:
            self.bench.start_server()
        now = self.bench.standing()
        state = self.state_of(now)
        assert self.bench.status() == self._status_at(now), (kill, now)

        again = self.bench.rerun(self.package)

        words = again.stdout + again.stderr
        is_there = "already installed" in words  # rpm, which was killed at its very end
        assert again.returncode == 0 or is_there, (kill, state, words)
        assert whole(self.bench.standing()) == whole(self.end), (kill, state, words)
        assert self.bench.status() == 0, (kill, state)
        assert self.bench.site.host.run(["pgrep", "gpg-agent"]).stdout == ""
        if victim:
            self.met[victim, state] += 1
        return bool(victim)

    def state_of(self, now: Standing) -> str:
        """Which of the three allowed states it is: database and application say."""
        before, ledger = self.bench.saved[0], without_failures(now.ledger)
        if (now.objects, ledger) == (before.objects, before.ledger):
            assert now.application == before.application, now
            return OLD
        assert (now.objects, ledger) == (self.end.objects, self.end.ledger), now
        assert now.application in {before.application, self.end.application}, now
        return NEW if now.application == self.end.application else COMMITTED

    def _status_at(self, now: Standing) -> int:
        if "crm/pending" in now.memory:
            return NotSwitchedError.exit_code
        # dpkg knows the version of a package that it has not configured, too.
        known = now.package or self.bench.site.host.run(QUERY).stdout
        is_behind = known != self.end.package and now.application == self.end.application
        return PlanDivergedError.exit_code if is_behind else 0

    def _install_and_kill(self, kill: Kill) -> str:
        """Who was killed; nothing where the install was over."""
        site = self.bench.site
        command, started = [*site.front.upgrade, site.carry(self.package)], time.monotonic()
        with site.host.popen(command) as upgrade:
            try:
                upgrade.wait(kill.moment * self.seconds)
            except TimeoutExpired:
                self.seconds *= GROWTH
                victim = self._kill(kill.victim, upgrade)
            else:
                self.seconds = time.monotonic() - started
                victim = ""
            upgrade.communicate(
                timeout=PATIENCE
            )  # its end is the installer's, which has its output
        return victim

    def _kill(self, victim: str, upgrade: HostProcess) -> str:
        """Who was killed: where there is no installer, the package manager, if that still runs."""
        site = self.bench.site
        if victim == SERVER:
            site.host.stop_cluster("immediate")
        elif victim == BOTH:
            upgrade.kill_session()
        elif victim == INSTALLER and self._send_kill(f"\0{site.front.scriptlet}\0"):
            return INSTALLER
        else:
            return MANAGER if self._send_kill("\0".join(site.front.upgrade)) else ""
        return victim

    def _send_kill(self, words: str) -> bool:
        """Whether there was a process with these words in its command line."""
        host, found = self.bench.site.host, list[str]()
        for file in (host.root / "proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if words.encode() in file.read_bytes():
                    found.append(file.parent.name)
        if found:
            host.run(["kill", "-KILL", *found])
        return bool(found)


def without_failures(ledger: tuple[str, ...]) -> tuple[str, ...]:
    """The ledger's rows but for those that tell of an install that failed."""
    return tuple(row for row in ledger if not row.startswith("release failed "))


def whole(standing: Standing) -> Standing:
    """What is to be the same, however often an install failed before."""
    memory = tuple(sorted(set(standing.memory)))
    return replace(standing, ledger=without_failures(standing.ledger), memory=memory)
