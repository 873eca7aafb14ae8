"""Processes of a host, started from outside it.

A process is started by `nsenter` in a session of its own, with the host's fixed environment and
nothing of the test's. Signals go to the program in the host, not to `nsenter`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
}
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd")


class CommandFailedError(Exception):
    """A command on `host` failed although its caller relied on it; shows all that it said."""

    def __init__(self, host: str, result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{host}: {result.args} ended with {result.returncode}\n"
            f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}"
        )
        self.result = result


class HostProcess(subprocess.Popen[str]):
    """A program running in the namespaces of the process `holder`, with `env` added.

    `send_signal`, `terminate` and `kill` reach that program.
    """

    def __init__(
        self,
        holder: int,
        command: Sequence[str | Path],
        *,
        stdin: int,
        env: Mapping[str, str] | None,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.program = [str(argument) for argument in command]
        super().__init__(
            ["/usr/bin/nsenter", "--target", str(holder), *NAMESPACES, "--", *self.program],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**ENVIRONMENT, **(env or {})},
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )

    # typing.override came with Python 3.12.
    def send_signal(self, sig: int) -> None:  # type: ignore[explicit-override]
        """Send `sig` to the program in the host, unless it has ended."""
        sent = False
        # Until nsenter has started the program there is nothing to send to.
        while not sent and self.poll() is None:
            for process in children(self.pid):
                process.send(sig)
                sent = True

    def kill_session(self) -> None:
        """Kill the program and all that it started, save for daemons with their own session."""
        while self.poll() is None or self._started():
            # nsenter has to outlive the program: were it killed, the program would stay a zombie
            # of the machine's, and keep the host from ending, for as long as nobody reaps it.
            for process in self._started():
                process.send(signal.SIGKILL)
            time.sleep(0.001)

    def _started(self) -> list[Process]:
        """What runs in this session apart from nsenter, which leads it."""
        return [found for found in processes() if found.group == self.pid != found.pid]

    def finish(self, data: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
        """Give the program its input and wait for its end.

        Raises:
            subprocess.TimeoutExpired: it ran longer than `timeout` seconds and was killed.
        """
        try:
            stdout, stderr = self.communicate(data, timeout)
        except BaseException:
            self.kill_session()
            raise
        return subprocess.CompletedProcess(self.program, self.returncode, stdout, stderr)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the machine or of a host, as the machine counts."""

    pid: int
    parent: int
    group: int

    def send(self, number: int) -> None:
        """Send the signal `number`, unless the process is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def processes() -> Iterator[Process]:
    """All processes there are."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                status = (entry / "stat").read_text(errors="replace")
                # The second field is the program's name: it may hold anything, and ends at ')'.
                _, parent, group = status.rpartition(")")[2].split()[:3]
                yield Process(int(entry.name), int(parent), int(group))


def children(parent: int) -> list[Process]:
    """The processes that `parent` started and that still run."""
    return [process for process in processes() if process.parent == parent]
