"""What a person sees while a release is installed, and the log that is kept of it.

Progress goes to the terminal, which under rpm and dnf is /dev/tty: dnf holds a scriptlet's output
back until the end. Without a terminal it goes to standard output. A terminal that has gone away, or
a full disk under the log, never fails an install that is otherwise sound.
"""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from installer.errors import InstallerError


class Report:
    """Tells each step to the person and to the product's log."""

    def __init__(self, logs: Path, *, quiet: bool = False) -> None:
        self._logs = logs
        self._product = "countersign"
        self._stream = None if quiet else _progress_stream()

    def about(self, product: str) -> None:
        """From here on, write to the log of `product`."""
        self._product = product

    def step(self, text: str) -> None:
        """Something was done, or is about to be."""
        self._log(text)
        self._tell(text)

    def script(self, number: int, total: int, name: str) -> None:
        """The script `number` of `total` is about to run."""
        self._log(f"running {name}")
        self._tell(f"  [{number}/{total}] {name}")

    def warn(self, text: str) -> None:
        """Something is not as it should be, but does not stop the install."""
        self._log(f"warning: {text}")
        print(f"warning: {text}", file=sys.stderr)

    def failure(self, error: InstallerError) -> None:
        """Keep in the log why the install was refused."""
        self._log(f"refused, exit code {error.exit_code}: {error}")
        if error.detail:
            self._log(error.detail)

    def _tell(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            print(text, file=self._stream, flush=True)
        except OSError:
            self._stream = None

    def _log(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = "".join(f"{stamp} [{os.getpid()}] {line}\n" for line in text.splitlines())
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with (self._logs / f"{self._product}.log").open("a", encoding="utf-8") as log:
                log.write(lines)
        except OSError as error:
            print(f"warning: no log is kept: {error}", file=sys.stderr)


def _progress_stream() -> TextIO:
    if sys.stdout.isatty():
        return sys.stdout
    try:
        return Path("/dev/tty").open("w", encoding="utf-8")
    except OSError:
        return sys.stdout
