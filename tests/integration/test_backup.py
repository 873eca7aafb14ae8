"""The real pgBackRest and Barman, on hosts: each says what it has, and nothing else counts.

A host's configuration is its own, so the tools read the files that they read everywhere.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from shutil import chown
from subprocess import CompletedProcess

import psycopg
import pytest
import typing_extensions

from tests.backups import start_barman, start_pgbackrest
from tests.hosts import Host

pytestmark = pytest.mark.integration

DAY = 24 * 3600
REPOSITORY = Path(__file__).parents[2]
MODULES = "/srv/python"
PROGRAM = """
import sys
from installer.backup import require_fresh_backup
from installer.errors import BackupError
from installer.host_file import BackupCheck
tool, name, user, now = sys.argv[1:]
try:
    print(require_fresh_backup(BackupCheck(tool, name, user, 24), int(now)))
except BackupError as error:
    sys.exit(f"{error}\\n{error.detail}")
"""


def ask(
    host: Host, tool: str, user: str, name: str = "main", later: int = 0
) -> CompletedProcess[str]:
    """Look for a fresh backup on the host, `later` than now by so many seconds."""
    now = str(int(time.time()) + later)
    if not host.at(MODULES).exists():  # a host need not see where the checkout is
        for module in (REPOSITORY / "installer", Path(psycopg.__file__).parent):
            host.copy_in(module, f"{MODULES}/{module.name}")
        typing = Path(typing_extensions.__file__)
        host.copy_in(typing, f"{MODULES}/{typing.name}")
    command = ["/usr/bin/python3", "-c", PROGRAM, tool, name, user, now]
    return host.run(command, env={"PYTHONPATH": MODULES})


def refusal(host: Host, tool: str, user: str, name: str = "main", later: int = 0) -> str:
    """What is said when there is none."""
    done = ask(host, tool, user, name, later)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("no fresh backup is known: "), done.stderr
    return done.stderr.removeprefix("no fresh backup is known: ")


@pytest.fixture(scope="module")
def pgbackrest() -> Iterator[Host]:
    """A host whose stanza main has a backup; there is another, empty one."""
    with Host.start("pgbackrest", hide=()) as host:
        start_pgbackrest(host, "main", "empty").make()
        yield host


@pytest.fixture(scope="module")
def barman() -> Iterator[Host]:
    """A host whose server main has a backup; another is configured, and has none."""
    with Host.start("barman", hide=()) as host:
        start_barman(host, "main", "empty").make()
        yield host


def test_a_backup_of_pgbackrest_is_fresh_for_a_day(pgbackrest: Host) -> None:
    found = ask(pgbackrest, "pgbackrest", "postgres")
    label = pgbackrest.run(
        ["sh", "-c", "basename /var/lib/pgbackrest/backup/main/*F"], check=True
    ).stdout.strip()

    assert found.stdout.startswith(f"backup: pgbackrest main: {label} of 20"), found.stderr
    assert found.stdout.endswith(" UTC, 0 h old\n")
    assert f", {label}, ended at 20" in refusal(
        pgbackrest, "pgbackrest", "postgres", later=DAY + 60
    )
    assert "one of the two clocks is wrong" in refusal(
        pgbackrest, "pgbackrest", "postgres", later=-3600
    )


def test_a_stanza_without_a_backup_is_told_from_one_that_there_is_not(pgbackrest: Host) -> None:
    empty = refusal(pgbackrest, "pgbackrest", "postgres", "empty")
    absent = refusal(pgbackrest, "pgbackrest", "postgres", "absent")

    assert empty.startswith("pgbackrest empty: no valid backups\n")
    assert absent.startswith("pgbackrest absent: missing stanza path\n")
    assert "runuser -u postgres -- /usr/bin/pgbackrest --stanza=empty backup\n" in empty


def test_a_configuration_of_pgbackrest_that_cannot_be_read_is_no_backup(pgbackrest: Host) -> None:
    file = pgbackrest.at("/etc/pgbackrest.conf")
    sound = file.read_text()
    try:
        chown(file, "root")
        file.chmod(0o600)
        unreadable = refusal(pgbackrest, "pgbackrest", "postgres")
        file.chmod(0o644)
        file.write_text("[global")
        broken = refusal(pgbackrest, "pgbackrest", "postgres")
    finally:
        file.chmod(0o644)
        file.write_text(sound)

    assert (
        "pgbackrest main cannot be asked: exit code 41: ERROR: [041]: unable to open" in unreadable
    )
    assert "exit code 29: ERROR: [029]: ini section should end with ]" in broken


def test_a_repository_that_is_gone_is_no_backup(pgbackrest: Host) -> None:
    pgbackrest.run(["mv", "/var/lib/pgbackrest", "/var/lib/elsewhere"], check=True)
    try:
        words = refusal(pgbackrest, "pgbackrest", "postgres")
    finally:
        pgbackrest.run(["mv", "/var/lib/elsewhere", "/var/lib/pgbackrest"], check=True)

    assert words.startswith("pgbackrest main: missing stanza path\n")


def test_a_backup_of_pages_with_a_wrong_checksum_is_refused_though_an_older_one_is_sound() -> None:
    with Host.start("damaged", hide=()) as host:
        backups = start_pgbackrest(host, "main", checksums=True)
        host.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CHECKPOINT")
        backups.make()
        assert ask(host, "pgbackrest", "postgres").returncode == 0

        file = host.psql("SELECT pg_relation_filepath('t')")
        with host.at(f"/var/lib/pgsql/data/{file}").open("r+b") as pages:
            pages.seek(8000)
            pages.write(b"damaged")
        backups.make()

        assert "has errors, such as pages with a wrong checksum" in refusal(
            host, "pgbackrest", "postgres"
        )


def test_a_backup_of_barman_is_fresh_for_a_day(barman: Host) -> None:
    found = ask(barman, "barman", "barman")
    label = barman.run(["sh", "-c", "ls /var/lib/barman/main/base"], check=True).stdout.strip()

    assert found.stdout.startswith(f"backup: barman main: {label} of 20"), found.stderr
    assert found.stdout.endswith(" UTC, 0 h old\n")
    assert f", {label}, ended at 20" in refusal(barman, "barman", "barman", later=DAY + 60)
    assert "one of the two clocks is wrong" in refusal(barman, "barman", "barman", later=-3600)


def test_a_server_without_a_backup_is_told_from_one_that_there_is_not(barman: Host) -> None:
    empty = refusal(barman, "barman", "barman", "empty")
    absent = refusal(barman, "barman", "barman", "absent")

    assert empty.startswith("barman empty has no finished backup\n")
    assert "Unknown server 'absent'" in absent
    assert absent.startswith("barman absent cannot be asked: exit code 1: ")
    assert "runuser -u barman -- /usr/bin/barman backup empty\n" in empty


def test_barman_run_by_an_account_that_it_does_not_know_is_told_in_its_words(barman: Host) -> None:
    words = refusal(barman, "barman", "postgres")

    assert "exit code 1: ERROR: please run barman as 'barman' user\n" in words


def test_a_backup_that_failed_is_no_backup(barman: Host) -> None:
    (info,) = barman.at("/var/lib/barman/main/base").glob("*/backup.info")
    sound = info.read_text()
    try:
        info.write_text(sound.replace("status=DONE", "status=FAILED"))
        words = refusal(barman, "barman", "barman")
    finally:
        info.write_text(sound)

    assert words.startswith("barman main has no finished backup\n")


@pytest.mark.parametrize("tool, user", [("pgbackrest", "postgres"), ("barman", "barman")])
def test_a_tool_that_is_not_installed_is_named(
    request: pytest.FixtureRequest, tool: str, user: str
) -> None:
    host: Host = request.getfixturevalue(tool)
    host.run(["mv", f"/usr/bin/{tool}", "/usr/bin/elsewhere"], check=True)
    try:
        words = refusal(host, tool, user)
    finally:
        host.run(["mv", "/usr/bin/elsewhere", f"/usr/bin/{tool}"], check=True)

    assert words.startswith(f"/usr/bin/{tool} is missing; install the package {tool}\n")
