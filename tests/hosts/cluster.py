"""The PostgreSQL cluster of a host.

It is reached over its Unix socket by peer authentication: the host's root may act as `countersign`
and as `postgres`, and nobody may act as any other role. With the setting
`listen_addresses = localhost` it also answers passwords on the host's own loopback.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.hosts.cache import cached

if TYPE_CHECKING:
    from tests.hosts.host import Host

DATA = Path("/var/lib/pgsql/data")
LOG = "/var/log/postgresql/host.log"
SOCKETS = "/run/postgresql"

HBA = """\
local all all peer map=countersign
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""
IDENT = """\
countersign root countersign
countersign root postgres
countersign postgres postgres
"""
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": SOCKETS,
    "timezone": "Etc/UTC",
    "log_timezone": "Etc/UTC",
    "lc_messages": "C",
}

AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")


def installation() -> Path:
    """The folder of the newest PostgreSQL server that is installed."""
    servers = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((server.parents[1] for server in servers), key=lambda folder: int(folder.name))


def program(name: str) -> Path:
    """PostgreSQL's own program `name`, past Debian's wrapper scripts."""
    return installation() / "bin" / name


def start(host: Host, settings: Mapping[str, str]) -> None:
    """Start the cluster of `host`, made when it has none, with `settings` over the defaults."""
    host.run(["install", "-d", "-o", "postgres", "-g", "postgres", SOCKETS], check=True)
    if not host.at(DATA).exists():
        template = cached(f"cluster-{installation().name}", lambda made: initialise(host, made))
        copy(template / "data", host.at(DATA))
    values = {**SETTINGS, **settings}
    host.write(DATA / "postgresql.conf", "".join(map(setting, values.items())))
    host.write(DATA / "pg_hba.conf", HBA)
    host.write(DATA / "pg_ident.conf", IDENT)
    control(host, "start", "--log", LOG)


def stop(host: Host, mode: Literal["fast", "immediate"]) -> None:
    """Stop the cluster of `host`: in order, or `immediate` as a crash of the server would."""
    control(host, "stop", "--mode", mode)


def control(host: Host, *arguments: str) -> None:
    """Run `pg_ctl` as postgres."""
    command = [str(program("pg_ctl")), "--silent", "--pgdata", str(DATA), *arguments]
    host.run([*AS_POSTGRES, *command], check=True)


def initialise(host: Host, folder: Path) -> None:
    """Make an empty cluster in `host` and keep a copy of it in `folder`."""
    made = "/var/tmp/cluster"
    options = ["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
    host.run([*AS_POSTGRES, program("initdb"), *options, "--pgdata", made], check=True)
    copy(host.at(made), folder / "data")


def setting(item: tuple[str, str]) -> str:
    """A line of postgresql.conf."""
    name, value = item
    quoted = value.replace("'", "''")
    return f"{name} = '{quoted}'\n"


def copy(source: Path, target: Path) -> None:
    """Copy a tree with owners and permissions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True, timeout=120)
