"""Runs other programs: by absolute path, in a clean environment, with a limit on their time."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
NOT_RUN = 127
"""Exit code of a tool that could not be started or did not end, as a shell has it."""


def run(  # noqa: PLR0913 - what is not given has a default that is safe
    command: Sequence[str | Path],
    *,
    stdin: BinaryIO | None = None,
    cwd: Path = Path("/"),
    environment: Mapping[str, str] | None = None,
    umask: int = -1,
    timeout: int = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` and return how it ended, with all that it printed.

    `environment` is added to a fixed one; `timeout` is in seconds. A tool that cannot be started,
    or does not end in time, has ended with `NOT_RUN` and says so on its standard error.
    """
    try:
        return subprocess.run(  # noqa: S603 - a list of arguments, the first an absolute path
            command,
            stdin=stdin or subprocess.DEVNULL,
            cwd=cwd,
            env=ENVIRONMENT | dict(environment or {}),
            umask=umask,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, NOT_RUN, b"", str(error).encode())


def words(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a tool that failed said about it."""
    said = done.stderr.decode(errors="replace").strip()
    return said or f"exit code {done.returncode}"
