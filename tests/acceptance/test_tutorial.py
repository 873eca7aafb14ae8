"""The tutorial does what it says: its commands are run as typed, and print what it shows.

A block of `sh` is preceded by a line that says where it runs ("On QAT:"). A block of `text` after
it is what that prints; `…` stands for what is left out there, and digests, fingerprints and times
are others each time. Where an error is shown, the last command fails; otherwise none does.

The hosts are test hosts, with a cluster and nothing else; scp copies into them. What the tutorial
does in a clone of this repository is not done again: a fixture has built the installer's packages.
With DEBs it is run once more, with what its last table replaces; it shows only what RPMs print.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.hosts import Host
from tests.hosts.cluster import program

pytestmark = pytest.mark.acceptance

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = REPOSITORY / "docs/tutorial/first-release.md"
CLONE = "In a clone of this repository"
BUILD = "On the build machine"
CUSTOMER = "As the customer"
HOSTS = {"On QAT": ("qat",), "On PRD": ("prd",), "On QAT and on PRD": ("qat", "prd")}
ANSWER = re.compile(r"(\[y/N\]: )(\w+)\n")
"""A question, and what the reader types."""

BLOCK = re.compile(
    r"^(?P<place>[^\n]+):\n\n```sh\n(?P<commands>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
REPLACEMENT = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
"""What a reader types for DEBs."""

VARIABLE = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9A-F]{40}\b"), "<fingerprint>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r"\b20\d{6}T\d{6}\.\d{3}Z"), "<stamp>"),
    (re.compile(r"\b\d+ ms\b"), "<duration>"),
    (re.compile(r"\b\d+\.\d{3} s\b"), "<duration>"),
    (re.compile(r"\b\d+ s in all"), "<duration>"),
)
NOISE = re.compile(r"^rpm: (RPM should not be used|However assuming).*\n", re.MULTILINE)
"""What Debian's rpm says of itself at every call."""

SCP = """\
#!/bin/sh
paths=
for argument; do
    case $argument in
        root@qat:*) argument={qat}${{argument#*:}} ;;
        root@prd:*) argument={prd}${{argument#*:}} ;;
    esac
    paths="$paths $argument"
done
exec cp $paths
"""
SESSION = """\
set -ea
if [ -e {state}.sh ]; then . {state}.sh; cd "$(cat {state}.cwd)"; else cd; fi
trap 'export -p >{state}.sh; pwd >{state}.cwd' EXIT
{commands}"""
"""A terminal that stays open: variables and the folder are as the block before left them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands, where to run them, and what they print; None where the tutorial does not say."""

    line: int
    place: str
    commands: str
    output: str | None
    is_shown: bool = True

    @property
    def fails(self) -> bool:
        """Whether the last command does."""
        return "error: " in (self.output or "")

    def require_as_shown(self, found: str, code: int) -> None:
        """Refuse another output, or an end that does not go with it."""
        where = f"{TUTORIAL.name}:{self.line}"
        assert (code != 0) == self.fails, f"{where} ended with {code}:\n{found}"
        if self.output is None or not self.is_shown:
            return
        shown = [re.escape(part) for part in settled(ANSWER.sub(r"\1", self.output)).split("…")]
        is_as_shown = re.fullmatch(".*".join(shown), settled(found), re.DOTALL) is not None
        assert is_as_shown, f"{where} shows:\n{self.output}but it printed:\n{found}"


@dataclass(frozen=True, slots=True)
class Machines:
    """Everybody's: the two hosts, and a home on the build machine."""

    home: Path
    hosts: dict[str, Host]

    def run(self, block: Block) -> None:
        """Run a block where it belongs, and compare."""
        # Debian's own psql knows only clusters that Debian's tools have made.
        path = f"{program('psql').parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        for name in HOSTS.get(block.place, ()):
            command = ["bash", "-ec", f"exec 2>&1\n{block.commands}"]
            done = self.hosts[name].run(command, env={"PATH": path})
            block.require_as_shown(done.stdout, done.returncode)
        if block.place in {BUILD, CUSTOMER}:
            done = self._run_here(block)
            block.require_as_shown(done.stdout, done.returncode)

    def _run_here(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Run commands at a terminal, on which the tutorial's answer is typed."""
        state = self.home / ".state" / block.place.rsplit(" ", 1)[-1]
        answer = ANSWER.search(block.output or "")
        typing, terminal = pty.openpty()
        try:
            if answer:
                os.write(typing, f"{answer[2]}\n".encode())
            return subprocess.run(
                ["bash", "-c", SESSION.format(state=state, commands=block.commands)],
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={"HOME": str(self.home), "PATH": self._path(), "LANG": "C.UTF-8"},
                timeout=120,
                check=False,
            )
        finally:
            os.close(typing)
            os.close(terminal)

    def _path(self) -> str:
        return f"{self.home}/.scp:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def settled(text: str) -> str:
    """A text without what differs each time."""
    text = NOISE.sub("", text)
    for pattern, name in VARIABLE:
        text = pattern.sub(name, text)
    return text


def blocks() -> list[Block]:
    """The tutorial's blocks of commands, in their order."""
    text = TUTORIAL.read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start()) + 1,
            found["place"],
            found["commands"],
            found["output"],
        )
        for found in BLOCK.finditer(text)
    ]


def blocks_for_debs() -> list[Block]:
    """The same, as a reader types them for DEBs."""
    _, table = TUTORIAL.read_text(encoding="utf-8").split("\n## With DEBs\n")
    replacements = REPLACEMENT.findall(table)
    assert len(replacements) > 1
    made = []
    for block in blocks():
        commands = block.commands
        for rpm, deb in replacements:
            commands = commands.replace(rpm, deb)
        made.append(replace(block, commands=commands, is_shown=False))
    return made


@pytest.fixture
def machines(installer: Path) -> Iterator[Machines]:
    """Two hosts, each with a cluster, and a home with the installer's packages in it."""
    home = Path(tempfile.mkdtemp(prefix="tutorial-", dir="/tmp"))  # gpg's sockets want short paths
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        hosts = {name: stack.enter_context(Host.start(name)) for name in ("qat", "prd")}
        for host in hosts.values():
            host.start_cluster()
        for folder in (".scp", ".state", "countersign/dist"):
            (home / folder).mkdir(parents=True)
        scp = home / ".scp/scp"
        scp.write_text(SCP.format(**{name: host.root for name, host in hosts.items()}))
        scp.chmod(0o755)
        for package in installer.parent.glob("countersign-installer*"):
            shutil.copy(package, home / "countersign/dist")
        yield Machines(home, hosts)
        for keys in (home / ".gnupg", home / "customer/gnupg"):
            subprocess.run(["gpgconf", "--homedir", keys, "--kill", "all"], check=False)


def test_every_block_of_the_tutorial_says_where_it_runs() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")

    assert len(blocks()) == text.count("```sh\n")
    assert sum(block.output is not None for block in blocks()) == text.count("```text\n")
    assert {block.place for block in blocks()} == {CLONE, BUILD, CUSTOMER, *HOSTS}


def test_the_clones_targets_are_there() -> None:
    typed = "".join(block.commands for block in blocks() if block.place == CLONE)
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)

    assert set(re.findall(r"^make ([a-z-]+)", typed, re.MULTILINE)) <= set(targets)


def test_a_reader_of_the_tutorial_gets_what_it_shows(machines: Machines) -> None:
    for block in blocks():
        machines.run(block)


def test_a_reader_with_debs_gets_there_too(machines: Machines) -> None:
    for block in blocks_for_debs():
        assert "rpm" not in block.commands
        machines.run(block)
