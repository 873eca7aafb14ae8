"""A scratch cluster: a PostgreSQL server of this machine's programs, for one command only.

It is in a temporary folder of its own, answers on a Unix socket in there and nowhere else, and runs
as somebody who is not root. `packager.keeper` ends it with the process that asked for it, whatever
that died of. Its roles are those of a host: LOGIN connects and owns the ledger, the owner role owns
what scripts make and cannot log in; neither is a superuser.
"""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from installer.quoting import quoted
from packager import keeper
from packager.errors import ToolError
from packager.tools import PATH, run

LOGIN = "countersign"
SUPERUSER = "postgres"
PORT = 5432
"""A part of the socket's name; it is in a folder of its own."""
ACCOUNTS = ("postgres", "nobody")
"""Who runs the server for root; the first that there is."""
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/bin")
"""Where Debian, the PostgreSQL project's own RPMs, and Fedora have the server's programs."""
NEEDED = ("initdb", "postgres", "psql")
SETTINGS = {
    "port": str(PORT),
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "lc_messages": "C",
    # What a release needs is to be measured, not to be hit here: a host's limit is another.
    "max_locks_per_transaction": "1024",
}


class NoServerError(ToolError):
    """There are no programs of a PostgreSQL server to start one with."""

    hint = (
        "Install PostgreSQL's server (Debian: postgresql; Fedora: postgresql-server), or say with "
        "--programs where its programs are. `rehearse --if-possible` goes on without."
    )


class NotStartedError(NoServerError):
    """The server's programs are there, and did not start."""

    hint = "What they said is above. `rehearse --if-possible` goes on without."


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder with the programs of one PostgreSQL server, and its major version."""

    folder: Path
    major: int


@dataclass(frozen=True, slots=True)
class Scratch:
    """A running scratch cluster. `owner` is its owner role."""

    folder: Path
    programs: Programs
    owner: str

    def connection(self, database: str, user: str = LOGIN) -> str:
        """The libpq conninfo for `database`, whose name has no quotes."""
        return f"host={self.folder} port={PORT} dbname={database} user={user}"

    def new_database(self, name: str) -> str:
        """An empty database, as an administrator makes it for the owner role; its conninfo.

        One that there is of this name is dropped.
        """
        self._administer(
            f"DROP DATABASE IF EXISTS {quoted(name)}",
            f"CREATE DATABASE {quoted(name)} OWNER {quoted(self.owner)}",
            f"GRANT CREATE ON DATABASE {quoted(name)} TO {LOGIN}",
        )
        return self.connection(name)

    def make_roles(self, roles: Iterable[str]) -> None:
        """Make the login role, the owner role, and `roles`, which nobody logs in as."""
        others = (f"CREATE ROLE {quoted(role)}" for role in roles if role != self.owner)
        owner = quoted(self.owner)
        self._administer(
            f"CREATE ROLE {owner}", f"CREATE ROLE {LOGIN} LOGIN IN ROLE {owner}", *others
        )

    def run_file(self, tree: Path, file: str, database: str) -> None:
        """Run a file of `tree` with psql, as the owner role.

        Raises:
            ToolError: psql failed; `detail` is what it said.
        """
        role = self.owner.replace("\\", "\\\\").replace(" ", "\\ ")
        self._psql(["-f", file], self.connection(database), tree, {"PGOPTIONS": f"-c role={role}"})

    def _administer(self, *statements: str) -> None:
        commands = [part for statement in statements for part in ("-c", statement)]
        self._psql(commands, self.connection("template1", SUPERUSER), self.folder, {})

    def _psql(
        self, arguments: Sequence[str], connection: str, cwd: Path, environment: dict[str, str]
    ) -> None:
        options = ("-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection)
        command: list[str | Path] = [self.programs.folder / "psql", *options, *arguments]
        run(command, cwd=cwd, environment=environment)


def find_programs(major: int | None = None, folder: Path | None = None) -> Programs:
    """The newest server's programs that this machine has, or those asked for.

    Raises:
        NoServerError: there are none.
        ToolError: `folder` has programs that do not run.
    """
    folders = [folder] if folder else list(_folders())
    whole = (f for f in folders if all((f / program).is_file() for program in NEEDED))
    found = [Programs(each, _major(each)) for each in whole]
    fitting = [programs for programs in found if major in {None, programs.major}]
    if not fitting:
        version = f" {major}" if major else ""
        where = f" in {folder}" if folder else ""
        raise NoServerError(f"there is no PostgreSQL{version} server's program{where}")
    return max(fitting, key=lambda programs: programs.major)


@contextmanager
def scratch_cluster(programs: Programs, owner: str, roles: Sequence[str] = ()) -> Iterator[Scratch]:
    """Start a server with the roles of a host and `roles`; it is gone afterwards.

    Raises:
        NotStartedError: `detail` is its log.
        ToolError: a role cannot be made.
    """
    account = _account()
    kept = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
        [
            *(sys.executable, "-I", keeper.__file__, programs.folder),
            f"{account.pw_uid}:{account.pw_gid}" if account else "",
            *(f"{name}={value}" for name, value in SETTINGS.items()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C on the terminal is for the command
    )
    try:
        scratch = Scratch(_started(kept), programs, owner)
        scratch.make_roles(roles)
        yield scratch
    finally:
        kept.communicate(timeout=keeper.START_TIMEOUT)  # which closes the pipe


def _started(kept: subprocess.Popen[bytes]) -> Path:
    """Wait until the server takes connections; returns its folder."""
    if kept.stdout is None or kept.stderr is None:  # it has pipes
        raise TypeError
    if folder := kept.stdout.readline():  # the keeper knows how long that may take
        return Path(os.fsdecode(folder.removesuffix(b"\n")))
    log = kept.stderr.read().decode(errors="replace").strip()
    raise NotStartedError("the scratch cluster did not start", detail=log)


def _folders() -> Iterator[Path]:
    root = Path("/")
    for place in PLACES:
        yield from sorted(root.glob(place.removeprefix("/")))
    if configured := which("pg_config", path=os.environ.get("PATH", PATH)):
        yield Path(run([configured, "--bindir"]).decode().strip())


def _major(folder: Path) -> int:
    """The major version of a server: `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`."""
    said = run([folder / "postgres", "--version"]).decode(errors="replace")
    found = re.search(r"\(PostgreSQL\) ([0-9]+)", said)
    if not found:
        raise ToolError(f"{folder / 'postgres'} does not say its version", detail=said)
    return int(found[1])


def _account() -> pwd.struct_passwd | None:
    """Who runs the server; None for whoever runs this. PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in ACCOUNTS if name in known)
