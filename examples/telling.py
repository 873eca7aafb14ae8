"""How the demo tells its story: chapters, sentences, and commands with what they said."""

import shlex
import sys
from collections.abc import Sequence
from subprocess import CompletedProcess

from tests.sites import Site

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
NOISE = (
    "rpm: RPM should not be used",  # Debian's rpm says this of itself at every call
    "rpm: However assuming",
    "debconf: ",  # there is no terminal to ask on, and nothing to ask
    "dpkg-preconfigure: ",
    "(Reading database",
)


def chapter(text: str) -> None:
    """Begin a part of the story."""
    print(f"\n{BOLD}== {text}{PLAIN}", flush=True)


def say(text: str) -> None:
    """Tell one thing."""
    print(f"-- {text}", flush=True)


def succeed(site: Site, command: Sequence[str]) -> None:
    """Run a command that must succeed, and show it."""
    done = shown(site, command)
    if done.returncode:
        raise SystemExit(f"this should have succeeded, and ended with {done.returncode}")


def refused(site: Site, command: Sequence[str]) -> None:
    """Run a command that must be refused, and show that nothing changed."""
    before = site.state()
    done = shown(site, command)
    after = site.state()
    if done.returncode == 0 or after != before:
        raise SystemExit(f"this should have been refused and have changed nothing: {after}")
    say(f"refused, and unchanged: package crm {after.package}, application {after.application},")
    print(
        f"   tables and views {after.objects}, {len(after.applied.split())} scripts in the ledger"
    )


def shown(site: Site, command: Sequence[str]) -> CompletedProcess[str]:
    """Run a command on a host and print it with what it said."""
    typed(site.host.name, command)
    done = site.host.run(command)
    shown_lines(done.stdout + done.stderr)
    return done


def typed(where: str, command: Sequence[str]) -> None:
    """Print a command as it is typed on a machine."""
    print(f"{BOLD}{where}# {shlex.join(command)}{PLAIN}", flush=True)


def shown_lines(text: str) -> None:
    """Print what a command said."""
    for line in text.splitlines():
        if line.strip() and not line.startswith(NOISE):
            print(f"    {DIM}{line}{PLAIN}")
