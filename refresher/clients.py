"""PostgreSQL's client programs, and how they connect.

A connection's settings reach a program as a libpq service in a file that has no name (a memfd):
they are in no argument, in no environment and on no disk; nor is what the program says, which may
hold rows. A program ends when this process does, however it does: setpriv(1) asks the kernel to
kill it then.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import IO, BinaryIO

from refresher.errors import CopyError, NotReadyError

INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/bin")
NEEDED = ("psql", "pg_dump", "pg_restore", "vacuumdb")
LAST_OF_OLD = 16
"""pg_restore of a later version sets transaction_timeout, which servers up to this one refuse."""
TIED = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
SERVICE = "countersign"
PIPE = 1024 * 1024
"""Bytes that a pipe holds; the kernel lets anyone have that (pipe(7), pipe-max-size)."""
_OWN = {"service", "servicefile", "options", "client_encoding", "fallback_application_name",
    "application_name"}  # fmt: skip
_SPACE = re.compile(r"([\\\s])")
_PREFIX = re.compile(r"^(?:psql:[^ ]*:\d+|psql|pg_dump|pg_restore|vacuumdb): (?:error: )?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a program connects: libpq's settings by keyword, and the server's, as options."""

    settings: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)

    def to(self, database: str) -> "Endpoint":
        """The same for another database of the cluster."""
        return replace(self, settings={**self.settings, "dbname": database})

    def service(self) -> bytes:
        """A service file (libpq, "The Connection Service File")."""
        lines = [f"[{SERVICE}]", "application_name=countersign refresh"]
        lines += [f"{key}={value}" for key, value in self.settings.items() if key not in _OWN]
        return "\n".join((*lines, f"options={start_options(self.options)}", "")).encode()


def start_options(settings: Mapping[str, str]) -> str:
    """Server settings as start-up options; what has a space or a backslash in it is escaped."""
    escaped = {name: _SPACE.sub(r"\\\1", value) for name, value in settings.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with PostgreSQL's client programs of one major version."""

    folder: Path
    major: int


def find_programs(major: int, named: Path | None = None) -> Programs:
    """The programs that know a server of this major version: the oldest that do.

    They are in the folder that refresh.toml has `named`, or in a usual one.

    Raises:
        NotReadyError: there are none.
    """
    usual = (path for pattern in INSTALLED for path in Path("/").glob(pattern.lstrip("/")))
    found = [
        Programs(path, version)
        for path in (usual if named is None else [named])
        if all((path / name).is_file() for name in NEEDED)
        if (version := _major(path)) >= major
        if version <= LAST_OF_OLD or major > LAST_OF_OLD
    ]
    if not found:
        most = "" if major > LAST_OF_OLD else f", {LAST_OF_OLD} at most,"
        where = f"in {named}" if named else "on this machine; programs in [refresh] names a folder"
        wanted = f"{', '.join(NEEDED)} of PostgreSQL {major} or newer{most}"
        raise NotReadyError(f"there is no {wanted} {where}")
    return min(found, key=lambda programs: programs.major)


def _major(folder: Path) -> int:
    command = [str(folder / "pg_dump"), "--version"]
    said = subprocess.run(  # noqa: S603 - a list of arguments, the first an absolute path
        command, capture_output=True, text=True, timeout=60, check=False
    ).stdout
    number = re.search(r"\) (\d+)", said)
    return int(number[1]) if number else 0


class Process:
    """One program that runs, and what it says: it is kept in files, so that no pipe fills up."""

    def __init__(self, running: subprocess.Popen[bytes], out: BinaryIO, err: BinaryIO) -> None:
        self.running = running
        self._out = out
        self._err = err

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        return self.running.wait()

    @property
    def aside(self) -> int:
        """The file descriptor, in the program too, of what `output` reads."""
        return self._out.fileno()

    @property
    def output(self) -> str:
        """What it wrote to standard output, or aside where that is somebody else's."""
        return _content(self._out)

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return _content(self._err)

    def kill(self) -> None:
        """End it and all that it started."""
        if self.running.poll() is None:
            os.killpg(self.running.pid, 9)
            self.running.wait()


class Running:
    """The programs that run; `end` ends them all, and then none is started any more."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self._lock = Lock()
        self._processes: set[Process] = set()
        self._ended = False

    @contextmanager
    def start(
        self,
        name: str,
        arguments: Sequence[str | Path],
        endpoint: Endpoint | None,
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        piped: bool = False,
    ) -> Iterator[Process]:
        """Start a program on an endpoint; killed at the end where it has not ended by then.

        Raises:
            CopyError: everything was ended already.
        """
        with _nameless() as out, _nameless() as err, _service(endpoint) as service:
            command = [*TIED, self.programs.folder / name, *arguments]
            with self._lock:
                if self._ended:
                    raise CopyError("it was ended")
                running = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                    command,
                    stdin=stdin,
                    stdout=subprocess.PIPE if piped else out,
                    stderr=err,
                    env=_environment(service),
                    pass_fds=[out.fileno(), *([] if service is None else [service])],
                    start_new_session=True,
                    pipesize=PIPE,
                )
                process = Process(running, out, err)
                self._processes.add(process)
            try:
                yield process
            finally:
                process.kill()
                with self._lock:
                    self._processes.discard(process)

    def run(self, name: str, arguments: Sequence[str | Path], endpoint: Endpoint | None) -> str:
        """Run a program to its end; returns its output.

        Raises:
            CopyError: it failed, in its words.
        """
        with self.start(name, arguments, endpoint) as process:
            if process.wait() != 0:
                raise failed(name, process)
            return process.output

    def end(self) -> None:
        """Kill whatever runs."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                process.kill()


def failed(what: str, process: Process) -> CopyError:
    """What became of it, in the words of the server or the program."""
    first, *rest = server_words(process.said) or [f"it ended with {process.running.returncode}"]
    return CopyError(f"{what}: {first}", detail="\n".join(rest))


def server_words(said: str) -> list[str]:
    """The lines from the first error on, without the name of the program that passed them on."""
    lines = [_PREFIX.sub("", line) for line in said.splitlines() if line.strip()]
    is_error = ("ERROR:" in line or "FATAL:" in line or "failed" in line for line in lines)
    start = next((number for number, found in enumerate(is_error) if found), 0)
    return lines[start:]


def _nameless() -> BinaryIO:
    return os.fdopen(os.memfd_create("countersign"), "w+b")


@contextmanager
def _service(endpoint: Endpoint | None) -> Iterator[int | None]:
    """A service file for the endpoint, as a file descriptor."""
    if endpoint is None:
        yield None
        return
    with _nameless() as file:
        file.write(endpoint.service())
        file.flush()
        yield file.fileno()


def _environment(service: int | None) -> dict[str, str]:
    """Home, where libpq looks for password files and certificates; no setting of libpq's else."""
    found = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
    if service is not None:
        found |= {"PGSERVICEFILE": f"/dev/fd/{service}", "PGSERVICE": SERVICE}
    return found


def _content(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
