"""A host's backups: pgBackRest or Barman, set up for its cluster as their packages leave them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.hosts import Host
from tests.hosts.cluster import AS_POSTGRES, DATA, SOCKETS, installation, program

AS_BARMAN = ("setpriv", "--reuid=barman", "--regid=barman", "--init-groups")
PGBACKREST = """\
[global]
repo1-path=/var/lib/pgbackrest
repo1-retention-full=2
start-fast=y
"""
STANZA = """
[{name}]
pg1-path={data}
pg1-socket-path={sockets}
"""
BARMAN = """\
[{name}]
description = "{name}"
conninfo = host={sockets} user=postgres dbname=postgres
streaming_conninfo = host={sockets} user=postgres
backup_method = postgres
archiver = on
path_prefix = {programs}
"""
HBA = """\
local all all peer map=countersign
local replication all peer map=countersign
"""
IDENT = """\
countersign root countersign
countersign root postgres
countersign postgres postgres
countersign barman postgres
"""


@dataclass(frozen=True, slots=True)
class Backups:
    """The backups of a host's cluster, and the command that makes one."""

    host: Host
    command: Sequence[str]

    def make(self) -> None:
        """Make a full backup."""
        self.host.run(self.command, check=True)


def start_pgbackrest(host: Host, *stanzas: str, checksums: bool = False) -> Backups:
    """Start the host's cluster with pgBackRest's archiving into the first of the stanzas."""
    sections = [STANZA.format(name=name, data=DATA, sockets=SOCKETS) for name in stanzas]
    host.write("/etc/pgbackrest.conf", PGBACKREST + "".join(sections))
    push = f"pgbackrest --stanza={stanzas[0]} archive-push %p"
    archiving = {"archive_mode": "on", "archive_command": push}
    host.start_cluster(archiving)
    if checksums:
        host.stop_cluster()
        enable = [str(program("pg_checksums")), "--enable", "--no-sync", "--pgdata", str(DATA)]
        host.run([*AS_POSTGRES, *enable], check=True)
        host.start_cluster(archiving)
    for name in stanzas:
        host.run([*AS_POSTGRES, "pgbackrest", f"--stanza={name}", "stanza-create"], check=True)
    return Backups(host, [*AS_POSTGRES, "pgbackrest", f"--stanza={stanzas[0]}", "backup"])


def start_barman(host: Host, *servers: str) -> Backups:
    """Start the host's cluster with archiving into the first of Barman's servers."""
    for name in servers:
        section = BARMAN.format(name=name, sockets=SOCKETS, programs=installation() / "bin")
        host.write(f"/etc/barman.d/{name}.conf", section)
    incoming = f"/var/lib/barman/{servers[0]}/incoming"
    # What postgres puts there, barman has to be able to read.
    host.run(["chmod", "a+x", "/var/lib/barman"], check=True)
    host.run([*AS_BARMAN, "mkdir", "-p", incoming], check=True)
    host.run(["chmod", "a+w", incoming], check=True)
    # Renamed when it is whole and readable: barman looks whenever it likes.
    archive = f"install -m 644 %p {incoming}/.%f && mv {incoming}/.%f {incoming}/%f"
    host.start_cluster({"archive_mode": "on", "archive_command": archive})
    host.write(DATA / "pg_hba.conf", HBA)
    host.write(DATA / "pg_ident.conf", IDENT)
    host.psql("SELECT pg_reload_conf()")
    host.run([*AS_BARMAN, "barman", "switch-wal", "--force", "--archive", servers[0]], check=True)
    return Backups(host, [*AS_BARMAN, "barman", "backup", "--wait", servers[0]])
