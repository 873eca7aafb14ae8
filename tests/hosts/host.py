"""One test host: how it is made, and what a test does with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tests.hosts import base_system, cluster
from tests.hosts.cache import REPOSITORY
from tests.hosts.process import ENVIRONMENT, CommandFailedError, HostProcess, children

HOLDER = Path(__file__).with_name("holder.py")
# Propagation is the holder's business: unshare cannot change it in a chroot.
UNSHARE = (
    *("unshare", "--fork", "--kill-child", "--propagation=unchanged"),
    *("--mount", "--net", "--pid", "--ipc", "--uts"),
)

# What a machine accumulates and a host must not see: its own packages, keys and repositories.
EMPTY = (
    Path("/etc/apt/sources.list.d"),
    Path("/etc/countersign"),
    Path("/etc/dnf/vars"),
    Path("/etc/yum.repos.d"),
    Path("/root"),
    Path("/var/cache/dnf"),
    Path("/var/lib/dnf"),
)
ABSENT = (Path("var/lib/countersign"), Path("var/log/countersign"), Path("opt/crm"))
"""What a machine on which the installer was run has, and a new host has not; below `/`."""

DNF_CONFIGURATION = """\
[main]
gpgcheck=1
best=1
skip_if_unavailable=0
module_platform_id=platform:host
"""
# dnf counts the age of its cache in whole seconds, and a test publishes a package sooner than that.
DNF_ALIASES = """\
[aliases]
install = \\--refresh install
upgrade = \\--refresh upgrade
"""
RECORDING_SYSTEMCTL = """\
#!/bin/sh
printf '%s\\n' "$*" >>/var/log/systemctl.log
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A running host. Made by `Host.start`, gone when its block ends."""

    name: str
    pid: int
    """The host's process 1, as the machine counts."""

    @classmethod
    @contextmanager
    def start(cls, name: str = "qat", hide: Sequence[Path] = (REPOSITORY,)) -> Iterator[Self]:
        """A host called `name` on which the directories `hide` have no content.

        A production host has no checkout on it, hence the default.

        Raises:
            RuntimeError: the host cannot be made; the message holds what the kernel said.
        """
        database = base_system.rpm_database()
        empty = [str(directory) for directory in (*EMPTY, *(path.resolve() for path in hide))]
        with subprocess.Popen(
            [*UNSHARE, "--", sys.executable, "-I", "-S", str(HOLDER), name, *empty],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        ) as holder:
            try:
                host = cls(name, ready(holder))
                host._configure(database)
                yield host
            finally:
                end(holder)

    @property
    def root(self) -> Path:
        """The host's `/` as seen from the machine.

        An absolute symbolic link below it leads out of the host; `at` follows links as the host
        does.
        """
        return Path(f"/proc/{self.pid}/root")

    def at(self, path: str | Path) -> Path:
        """Where the host's absolute `path` lies for the machine, with the host's links followed."""
        resolved = self.run(["realpath", "--canonicalize-missing", "--", path], check=True).stdout
        return self.root / resolved.removesuffix("\n").removeprefix("/")

    def run(
        self,
        command: Sequence[str | Path],
        *,
        check: bool = False,
        input: str | None = None,  # noqa: A002 -- the name that subprocess.run gave it
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as the host's root, in `/`, with a fixed environment and `env` added.

        Raises:
            CommandFailedError: `check` was asked for and the command failed.
            subprocess.TimeoutExpired: it ran longer than `timeout` seconds and was killed.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with HostProcess(self.pid, command, stdin=stdin, env=env) as process:
            result = process.finish(input, timeout)
        if check and result.returncode:
            raise CommandFailedError(self.name, result)
        return result

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> HostProcess:
        """Start `command` as `run` does and return at once; signals reach it in the host."""
        return HostProcess(self.pid, command, stdin=stdin, env=env)

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file of the host's root, with the folders above it."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def copy_in(self, source: Path, path: str | Path) -> None:
        """Copy a file or a folder of the machine to the host's `path`."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)

    def start_cluster(self, settings: Mapping[str, str] | None = None) -> None:
        """Start the host's PostgreSQL cluster (see `cluster`), again after `stop_cluster`."""
        cluster.start(self, settings or {})

    def stop_cluster(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the cluster; its data stays."""
        cluster.stop(self, mode)

    def psql(self, sql: str, database: str = "postgres", user: str = "postgres") -> str:
        """What `sql` returns as the role `user`: unaligned rows without a header.

        Raises:
            CommandFailedError: no connection, or a statement failed and the rest was not run.
        """
        options = ["-XqAt", "-v", "ON_ERROR_STOP=1", "-h", cluster.SOCKETS, "-U", user]
        command = [str(cluster.program("psql")), *options, "-d", database]
        return self.run(command, check=True, input=sql).stdout.removesuffix("\n")

    @contextmanager
    def http_server(self, directory: str | Path, port: int = 8080) -> Iterator[str]:
        """Serve the host's `directory` on the host's own loopback; yields the address.

        Raises:
            RuntimeError: the server did not start.
        """
        options = ["--bind", "127.0.0.1", "--directory", directory]
        command = ["python3", "-u", "-m", "http.server", str(port), *options]
        with HostProcess(
            self.pid, command, stdin=subprocess.DEVNULL, env=None, stderr=subprocess.DEVNULL
        ) as server:
            try:
                # It says so once it listens.
                if not server.stdout or not server.stdout.readline():
                    raise RuntimeError(f"{self.name}: nothing serves {directory} on port {port}")
                yield f"http://127.0.0.1:{port}"
            finally:
                server.kill_session()

    def add_dnf_repository(
        self, name: str, baseurl: str, *, gpgcheck: bool = True, gpgkey: str | None = None
    ) -> None:
        """Let dnf know the repository `name`, whose metadata it reads anew every time."""
        lines = [
            f"[{name}]",
            f"name={name}",
            f"baseurl={baseurl}",
            f"gpgcheck={int(gpgcheck)}",
            "metadata_expire=0",
        ]
        if gpgkey:
            lines.append(f"gpgkey={gpgkey}")
        self.write(f"/etc/yum.repos.d/{name}.repo", "\n".join(lines) + "\n")

    def record_systemctl(self) -> None:
        """Put a `systemctl` into the host that appends its arguments to /var/log/systemctl.log.

        No init runs in a host, so the real one could only fail; what the product asks of it can
        be asserted all the same.
        """
        self.write("/usr/bin/systemctl", RECORDING_SYSTEMCTL, mode=0o755)

    def _configure(self, database: Path) -> None:
        """Give the host its name, its rpm database and configurations without repositories."""
        for path in ABSENT:
            shutil.rmtree(self.root / path, ignore_errors=True)
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost {self.name}\n::1 localhost\n")
        (etc / "apt/sources.list").write_text("")
        (etc / "dnf/aliases.d").mkdir(parents=True, exist_ok=True)
        (etc / "dnf/dnf.conf").write_text(DNF_CONFIGURATION)
        (etc / "dnf/aliases.d/host.conf").write_text(DNF_ALIASES)
        (etc / "dnf/vars/releasever").write_text("1\n")
        shutil.copytree(database, self.root / "root/.rpmdb")


def ready(holder: subprocess.Popen[str]) -> int:
    """Wait until the host stands; returns its process 1.

    Raises:
        RuntimeError: the holder ended instead.
    """
    line = holder.stdout.readline() if holder.stdout else ""
    if not line:
        _, stderr = holder.communicate()
        raise RuntimeError(f"the test host was not made (it needs root):\n{stderr}")
    return int(line)


def end(holder: subprocess.Popen[str]) -> None:
    """End the host: returns once the kernel has killed every process in it."""
    for process_1 in children(holder.pid):
        process_1.send(signal.SIGKILL)
    holder.wait()
