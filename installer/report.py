"""What a person sees while a release is installed, and the log that is kept of it.

Progress goes to the terminal, which under rpm and dnf is /dev/tty: dnf holds a scriptlet's output
back until the end. Without a terminal it goes to standard output. A terminal that has gone away, or
a full disk under the log, never fails an install that is otherwise sound. What is told may hold
what a script, a row or another session said: it reaches no terminal as a control sequence.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

from installer.errors import InstallerError
from installer.manifest import Manifest


class Steps(Protocol):
    """Who is told how a change goes on."""

    def step(self, text: str) -> None:
        """Something was done, or is about to be."""

    def script(self, number: int, total: int, name: str) -> None:
        """The script `number` of `total` is about to run."""


class Report:
    """Tells each step to the person and to the product's log."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._product = "countersign"
        self._release = ""
        self._stream: TextIO | None = _progress_stream()
        self._open: TextIO | None = None

    def be_quiet(self) -> None:
        """Tell the person nothing but warnings; a program reads the output."""
        self._stream = None

    def carried_by(self, package: str) -> None:
        """It is about this package; whether what it carries is to be believed is not known yet."""
        self._release = package

    def about(self, manifest: Manifest) -> None:
        """From here on it is about this release; the log is its product's."""
        self._product, self._release = manifest.product, manifest.title

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
        _warn(text)

    def failure(self, error: InstallerError) -> str:
        """Keep in the log why it was refused; returns it in the words for people, on many lines."""
        headline = f"{self._release} {error.verdict}: {error}" if self._release else str(error)
        lines = [headline, error.detail, error.state, error.hint]
        text = printable("\n".join(line for line in lines if line))
        self._log(f"exit code {error.exit_code}: {text}")
        return text

    def _tell(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            print(printable(text), file=self._stream, flush=True)
        except OSError:
            _silence(self._stream)
            self._stream = None

    def _log(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = printable(text).split("\n")
        lines = "".join(f"{stamp} [{os.getpid()}] {line}\n" for line in told)
        try:
            log = self._open_log()
            log.write(lines)
            log.flush()
        except OSError as error:
            _warn(f"no log is kept: {error}")

    def _open_log(self) -> TextIO:
        name = f"{self._product}.log"
        if self._open is None or Path(self._open.name).name != name:
            self._logs.mkdir(parents=True, exist_ok=True)
            self._open = (self._logs / name).open("a", encoding="utf-8")
        return self._open


def printable(text: str) -> str:
    """`text` with its lines, and without anything else that could drive the reader's terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _silence(stream: TextIO) -> None:
    """Let what is left in a stream go nowhere: Python ends with 120 where it cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _warn(text: str) -> None:
    with suppress(OSError):  # the terminal has gone away
        sys.stderr.write(f"warning: {printable(text)}\n")


def _progress_stream() -> TextIO:
    if sys.stdout.isatty():
        return sys.stdout
    try:
        return Path("/dev/tty").open("w", encoding="utf-8")
    except OSError:
        return sys.stdout
