"""Sees every change that the installer makes, and cuts the install short before one of them.

Runs on a test host, in a test build of the installer; the released package has nothing of it.
Python's audit events (PEP 578) tell of files and of programs; all statements go through
`installer.session.Session`. So a step that the installer gets tomorrow shows here, named after the
function that takes it, though nobody has listed it: *module.function verb*.

/run/failpoint.json says at which step what happens; /run/failpoints.log gets the steps in order.
"""

import json
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg.generators import execute

from installer.session import Session

ARMED = Path("/run/failpoint.json")
LOG = Path("/run/failpoints.log")
POSTMASTER = Path("/var/lib/pgsql/data/postmaster.pid")
PATIENCE = 60
"""Seconds, for what takes milliseconds."""

NO_STATE = ("/dev/", "/proc/", "/run/", "/tmp/", "/usr/", "/var/log/")
READERS = frozenset({"dpkg-query", "gpgv", "ldconfig", "rpm"})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
BETWEEN = frozenset({"installer.durable", "installer.session", "installer.tools"})
"""Modules through which many steps go; so do two functions."""
BETWEEN_FUNCTIONS = frozenset({"transaction._call", "transaction._execute"})
READ = re.compile(
    r"\s*(SELECT\s+(?!countersign\.|pg_catalog\.pg_(try_)?advisory|pg_catalog\.pg_create)"
    r"|RESET|SET LOCAL|SAVEPOINT|ROLLBACK|DECLARE|FETCH)"
)


def path_of(path: Any, folder: int = -1) -> str:
    """The path that an audit event means, absolute where it is known from which folder."""
    if isinstance(path, int):
        return str(Path(f"/proc/self/fd/{path}").readlink())
    start = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path()
    return str(start / os.fsdecode(path))


def opened(path: Any, _mode: Any, flags: int) -> str | None:
    """A file that is opened for writing; one without a name (O_TMPFILE) changes nothing."""
    if isinstance(path, int) or not flags & WRITES or Path(os.fsdecode(path)).is_dir():
        return None
    return path_of(path)


def made(path: Any, _mode: int, folder: int) -> str | None:
    there = path_of(path, folder)
    return None if os.path.lexists(there) else there


def removed(path: Any, folder: int) -> str | None:
    there = path_of(path, folder)
    return there if os.path.lexists(there) else None


def changed_mode(path: Any, mode: int, folder: int) -> str | None:
    there = path_of(path, folder)
    return None if Path(there).lstat().st_mode & 0o7777 == mode else there


def ran(program: Any, *_: Any) -> str | None:
    return None if Path(program).name in READERS else Path(program).name


EVENTS: Mapping[str, tuple[str, Callable[..., str | None]]] = {
    "open": ("write", opened),
    "os.mkdir": ("write", made),
    "os.chmod": ("write", changed_mode),
    "os.chown": ("write", lambda path, _user, _group, folder: path_of(path, folder)),
    "os.truncate": ("write", lambda path, _: path_of(path)),
    "os.setxattr": ("write", lambda path, *_: path_of(path)),
    "os.link": ("link", lambda _, new, _old, folder: path_of(new, folder)),
    "os.symlink": ("link", lambda _, new, folder: path_of(new, folder)),
    "os.rename": ("rename", lambda _, new, _old, folder: path_of(new, folder)),
    "os.remove": ("remove", removed),
    "os.rmdir": ("remove", removed),
    "subprocess.Popen": ("run", ran),
}
"""What a verb is called, and which path or program an event is about; None: nothing changes."""


class Steps:
    """The steps so far; writes to several files that one function makes are one step."""

    def __init__(self) -> None:
        armed = json.loads(ARMED.read_text()) if ARMED.exists() else {}
        ARMED.unlink(missing_ok=True)  # one install is cut short, and not its rerun
        self._at: list[object] = armed.get("at", [])
        self._action: str = armed.get("action", "")
        self._last, self._files, self._seen = "", list[str](), Counter[str]()
        self._busy = False

    def audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event: of the installer's own, and none of this module's."""
        if self._busy or event not in EVENTS:
            return
        with self._unseen():
            verb, about = EVENTS[event]
            what = about(*arguments)
            if what is None or what.startswith(NO_STATE):
                return
            is_program = event == "subprocess.Popen"
            name = f"{function()} {what if is_program else verb}"
            if action := self._take(name, "" if is_program else what):
                ACTIONS[action](None)

    def statement(self, query: str | bytes) -> None:
        """A statement is about to be sent."""
        text = query.decode() if isinstance(query, bytes) else query
        if READ.match(text):
            return
        with self._unseen():
            if action := self._take(f"{function()} SQL"):
                ACTIONS[action](None)

    def commit(self, session: Session) -> None:
        """COMMIT is about to be sent, or is sent here, for an action that is for that."""
        connection = session._connection
        with self._unseen():
            action = self._take(f"{function()} COMMIT")
            if action in ACTIONS:
                ACTIONS[action](connection.pgconn)
            elif action:
                before, after = DURING[action]
                before(connection.pgconn)
                with session._as_server_error():  # as psycopg commits, in two halves
                    connection.pgconn.send_query(b"COMMIT")
                    connection.pgconn.flush()
                    after(connection.pgconn)
                    connection.wait(execute(connection.pgconn))

    def end(self) -> None:
        """The installer is about to end."""
        with self._unseen():
            if action := self._take("cli.main end"):
                ACTIONS[action](None)

    def _take(self, step: str, file: str = "") -> str:
        """Count a step, which goes on where it is about a file; returns the action that is due."""
        if not file or step != self._last:
            self._seen[step] += 1
            self._files.clear()
        self._last = step if file else ""
        if file not in self._files:
            self._files.append(file)
        place = [step, self._seen[step], len(self._files)]
        log("\t".join(map(str, (*place, file))))
        if place != self._at:
            return ""
        self._at = []  # once
        log(f"failpoint {self._action}")
        return self._action

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """Do what is no step of the installer's."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def function() -> str:
    """The function of the installer that takes the step, without its class."""
    frame = sys._getframe(1)
    while frame.f_back:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        title = f"{module.removeprefix('installer.')}.{name}"
        if (
            module.startswith("installer.")
            and module not in BETWEEN
            and title not in BETWEEN_FUNCTIONS
        ):
            return title
        frame = frame.f_back
    return "nobody"


def log(line: str) -> None:
    """Append a line, whatever happens right after."""
    with LOG.open("a") as file:
        file.write(f"{line}\n")


def kill_server(_: object = None) -> None:
    """As `pg_ctl stop --mode immediate`; returns when no server runs."""
    pid = int(POSTMASTER.read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    until(lambda: not Path(f"/proc/{pid}").exists())


def until(found: Callable[[], bool]) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def kill_both(_: object) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def cut(pgconn: Any) -> None:
    """Cut a connection; the server has what was sent before."""
    with socket.socket(fileno=os.dup(pgconn.socket)) as stream:
        stream.shutdown(socket.SHUT_RDWR)


def stop(pgconn: Any) -> None:
    """Let the server's process read nothing."""
    os.kill(pgconn.backend_pid, signal.SIGSTOP)


def kill_stopped(pgconn: Any) -> None:
    os.kill(pgconn.backend_pid, signal.SIGKILL)


def cut_stopped(pgconn: Any) -> None:
    cut(pgconn)
    os.kill(pgconn.backend_pid, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{pgconn.backend_pid}").exists())


def kill_when_written(pgconn: Any) -> None:
    """Kill the server once the commit is on its disk and waits for a standby."""
    title = Path(f"/proc/{pgconn.backend_pid}/cmdline")
    until(lambda: b"waiting for" in title.read_bytes())
    kill_server()


ACTIONS: Mapping[str, Callable[[Any], None]] = {
    "kill installer": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "kill manager": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "kill both": kill_both,
    "kill server": kill_server,
    "cut": cut,
}
DURING: Mapping[str, tuple[Callable[[Any], None], Callable[[Any], None]]] = {
    "kill backend before it reads COMMIT": (stop, kill_stopped),
    "cut after COMMIT is sent": (stop, cut_stopped),
    "kill server after COMMIT is written": (lambda _: None, kill_when_written),
}
"""What is done before COMMIT is sent, and after."""


def wrap(steps: Steps) -> None:
    """Let `steps` see each statement."""
    for name in ("execute", "rows", "copy"):
        setattr(Session, name, seen(getattr(Session, name), steps))
    commit = Session.commit

    def seen_commit(session: Session) -> None:
        steps.commit(session)
        commit(session)

    setattr(Session, "commit", seen_commit)  # noqa: B010 - a method is not assigned to


def seen(method: Callable[..., Any], steps: Steps) -> Callable[..., Any]:
    def with_step(session: Session, query: str | bytes, *arguments: Any) -> Any:
        steps.statement(query)
        return method(session, query, *arguments)

    return with_step


def watch() -> None:
    """Begin to watch; the installer's command imports this module and calls it."""
    import atexit  # noqa: PLC0415

    steps = Steps()
    wrap(steps)
    sys.addaudithook(steps.audited)
    atexit.register(steps.end)


if __name__ == "failpoints":
    watch()
