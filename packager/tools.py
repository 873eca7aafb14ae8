"""Runs other programs: a list of arguments, no stdin, a fixed environment, a time limit.

Nothing of the caller's locale, git or gpg configuration reaches a tool unless it is passed on
purpose: two developers get the same bytes.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from packager.errors import ToolError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT = 600
"""Seconds that one tool may take."""


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
) -> bytes:
    """Run `command` and return what it printed on stdout.

    `environment` is added to PATH, HOME and a C locale. `accept` lists the good exit codes.

    Raises:
        ToolError: the tool is missing, took too long, or ended with another code.
    """
    name = str(command[0])
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, found on a fixed PATH
            command,
            cwd=cwd,
            input=stdin,
            env=_environment() | dict(environment or {}),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(f"{name} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} did not end within {TIMEOUT} s") from None
    if done.returncode not in accept:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ToolError(f"{name} failed with exit code {done.returncode}", detail=words)
    return done.stdout


def _environment() -> dict[str, str]:
    # HOME and the agent's variables let gpg and svn find what belongs to the person who builds.
    kept = ("HOME", "GNUPGHOME", "GPG_TTY", "SSH_AUTH_SOCK", "TERM", "TMPDIR")
    passed = {name: os.environ[name] for name in kept if name in os.environ}
    return passed | {"PATH": PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
