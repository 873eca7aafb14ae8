"""Keeps a scratch cluster for as long as its standard input stays open; then nothing is left of it.

A program of its own, which `packager.scratch` starts: only that holds the other end of the pipe. It
closes with that process, however it ends, and no signal that the terminal sends gets here. The
server is a child of this program, so that nobody else has to find it.

    keeper.py PROGRAMS ACCOUNT SETTING...

PROGRAMS has initdb and postgres; ACCOUNT is UID:GID of who runs them, or empty for whoever runs
this. Makes a temporary folder for all that there is of the cluster, the socket included, and prints
its name once the server takes connections. What a program said is on standard error when it failed.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

INITDB = ("--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8")
POLL_INTERVAL = 0.02
START_TIMEOUT = 120
"""Seconds that each, initdb and the server's start, may take."""
STOP_TIMEOUT = 10
"""Seconds that an immediate shutdown may take."""


class Keeper:
    """A folder, and the program that works in it, if any."""

    def __init__(self, programs: Path, account: str) -> None:
        self._folder = Path(mkdtemp(prefix="countersign-rehearsal-"))
        self._programs = programs
        self._child: subprocess.Popen[bytes] | None = None
        self._how: dict[str, Any] = {}
        if account:
            user, group = map(int, account.split(":"))
            self._how = {"user": user, "group": group, "extra_groups": ()}
            os.chown(self._folder, user, group)

    def keep(self, settings: Sequence[str]) -> bool:
        """Make the cluster, start it, and wait for the end; False: it could not be started."""
        data = self._folder / "data"
        self._start("initdb", *INITDB, f"--pgdata={data}")
        if not self._wait_until(self._has_ended):
            return True
        if self._child is None or self._child.returncode:
            return False
        own = f"unix_socket_directories={self._folder}"
        self._start("postgres", "-D", str(data), *(f"--{each}" for each in (own, *settings)))
        if not self._wait_until(lambda: self._has_ended() or _is_ready(data / "postmaster.pid")):
            return True
        if self._has_ended():
            return False
        print(self._folder, flush=True)  # noqa: T201 - whoever started this reads it
        sys.stdin.buffer.read()
        return True

    def log(self) -> str:
        """What the programs have said."""
        log = self._folder / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def stop(self) -> None:
        """End the program that runs, and all that it started; then remove the folder."""
        child = self._child
        if child and child.poll() is None:
            child.send_signal(signal.SIGQUIT)  # to a server: an immediate shutdown
            try:
                child.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        shutil.rmtree(self._folder)

    def _start(self, program: str, *arguments: str) -> None:
        with (self._folder / "log").open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                process_group=0,
                **self._how,
            )

    def _has_ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def _wait_until(self, reached: Callable[[], bool]) -> bool:
        """Wait for it; False: standard input was closed meanwhile, and nobody wants it any more."""
        deadline = time.monotonic() + START_TIMEOUT
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it takes longer than {START_TIMEOUT} s")
            if select.select([sys.stdin], [], [], POLL_INTERVAL)[0]:  # it can only have ended
                return False
        return True


def _is_ready(pid_file: Path) -> bool:
    """Whether the server takes connections: it says so in the last line of its file."""
    try:
        return pid_file.read_text().split()[-1:] == ["ready"]
    except FileNotFoundError:
        return False


def main(programs: str, account: str, *settings: str) -> int:
    """Keep a cluster; the exit code is 1 where it could not be started."""
    keeper = Keeper(Path(programs), account)
    try:
        started = keeper.keep(settings)
        if not started:
            sys.stderr.write(keeper.log())
    except (OSError, TimeoutError) as error:
        sys.stderr.write(f"{keeper.log()}{error}\n")
        started = False
    finally:
        keeper.stop()
    return 0 if started else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
