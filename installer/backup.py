"""Before a release changes a database: is there a fresh backup, and a point to go back to?

The host file may demand both. The backup tool is asked by the account that owns the backups, not
by root, for what it lists as finished; nothing is written. Whatever is not understood is no backup:
a tool that is missing, fails, takes too long, or lists its backups in another form.
"""

import json
import os
import pwd
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from subprocess import CompletedProcess

from installer.database import Database
from installer.errors import BackupError, MalformedError
from installer.host_file import BackupCheck
from installer.report import Steps
from installer.strict_json import Fields
from installer.tools import run
from installer.tree import digest_of

SETPRIV = "/usr/bin/setpriv"  # becomes the tool, and starts no session as runuser does
AHEAD = 300
"""Seconds that the clock of another host, which dates a backup, may be ahead of this one's."""

MAX_RESTORE_POINT = 63
"""Bytes in the name of a restore point (PostgreSQL, xlog_internal.h: MAXFNAMELEN with its NUL)."""

_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup; it ended at `ended`, in seconds since 1970."""

    label: str
    ended: int
    sound: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """How a backup tool lists its backups, and how one is made."""

    program: str
    lists: tuple[str, ...]
    makes: tuple[str, ...]
    read: Callable[[object, str], Sequence[Backup]]


def protect(database: Database, title: str, report: Steps, now: int) -> None:
    """Before the release `title` changes a database: what the host file demands, told as steps.

    Args:
        database: open, and not in a transaction.
        title: product and version.
        report: who is told.
        now: seconds since 1970.

    Raises:
        BackupError: there is no fresh backup.
        ConfigurationError: there is no restore point to be had.
    """
    if backup := database.target.backup:
        report.step(f"{title}: {require_fresh_backup(backup, now)}")
    if database.target.restore_point:
        name = restore_point_name(title)
        report.step(f'{title}: restore point "{name}" at {database.restore_point(name)}')


def require_fresh_backup(backup: BackupCheck, now: int) -> str:
    """Ask the tool for its backups; returns the newest, as a line for the report.

    Args:
        backup: what the host file demands.
        now: seconds since 1970.

    Raises:
        BackupError: none is finished, sound and fresh, or it cannot be known.
    """
    try:
        listed = read_backups(backup, _ask(backup))
        return describe(backup, newest_backup(backup, listed, now), now)
    except BackupError as error:
        tool = TOOLS[backup.tool]
        lists, makes = (_shown(backup, which) for which in (tool.lists, tool.makes))
        detail = f"what there is: {lists}\nto make one:   {makes}"
        raise BackupError(f"no fresh backup is known: {error}", detail=detail) from None


def read_backups(backup: BackupCheck, listed: bytes) -> Sequence[Backup]:
    """The finished backups in what the tool printed.

    Raises:
        BackupError: it is not the tool's JSON, or the tool does not know the name.
    """
    try:
        return TOOLS[backup.tool].read(json.loads(listed), backup.name)
    except (MalformedError, ValueError, RecursionError) as error:
        raise BackupError(f"the list of {_title(backup)} cannot be read: {error}") from None


def newest_backup(backup: BackupCheck, listed: Sequence[Backup], now: int) -> Backup:
    """The newest backup of those in the list.

    Raises:
        BackupError: there is none, or it is too old, dated in the future, or has errors.
    """
    if not listed:
        raise BackupError(f"{_title(backup)} has no finished backup")
    newest = max(listed, key=lambda found: found.ended)
    words = f"the newest backup of {_title(backup)}, {newest.label}"
    if not newest.sound:
        raise BackupError(f"{words}, has errors, such as pages with a wrong checksum")
    if newest.ended > now + AHEAD:
        raise BackupError(
            f"{words}, is dated {_moment(newest.ended)}, and it is {_moment(now)} here: "
            "one of the two clocks is wrong"
        )
    if newest.ended < now - backup.max_age_hours * 3600:
        raise BackupError(
            f"{words}, ended at {_moment(newest.ended)}, longer ago than "
            f"max_age_hours = {backup.max_age_hours}"
        )
    return newest


def describe(backup: BackupCheck, found: Backup, now: int) -> str:
    """A backup in a line for people."""
    hours = max(now - found.ended, 0) // 3600
    return f"backup: {_title(backup)}: {found.label} of {_moment(found.ended)}, {hours} h old"


def restore_point_name(title: str) -> str:
    """The name of the restore point before the release `title`: no two releases share one."""
    name = f"countersign {title}"
    if len(name) > MAX_RESTORE_POINT:
        mark = digest_of(name.encode())[:8]
        name = f"{name[: MAX_RESTORE_POINT - len(mark) - 1]}-{mark}"
    return name


def _ask(backup: BackupCheck) -> bytes:
    """What the tool prints, run by the backups' owner: its configuration is not root's to trust."""
    tool = TOOLS[backup.tool]
    if not os.access(tool.program, os.X_OK):
        raise BackupError(f"{tool.program} is missing; install the package {backup.tool}")
    try:
        account = pwd.getpwnam(backup.user)
    except KeyError:
        raise BackupError(f"there is no account {backup.user}, which owns the backups") from None
    as_account = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--")
    command = [SETPRIV, *as_account, *_command(backup, tool.lists)]
    done = run(command, environment={"HOME": account.pw_dir})
    if done.returncode:
        raise BackupError(f"{_title(backup)} cannot be asked: {_first_words(done)}")
    return done.stdout


def _command(backup: BackupCheck, arguments: Sequence[str]) -> list[str]:
    filled = (argument.format(name=backup.name) for argument in arguments)
    return [TOOLS[backup.tool].program, *filled]


def _shown(backup: BackupCheck, arguments: Sequence[str]) -> str:
    """A command as root may type it."""
    return shlex.join(["runuser", "-u", backup.user, "--", *_command(backup, arguments)])


def _first_words(done: CompletedProcess[bytes]) -> str:
    """What a tool says first of why it failed; Barman goes on with the lines of its program."""
    said = (done.stderr or done.stdout).decode(errors="replace").strip()
    return f"exit code {done.returncode}: {said.partition(chr(10))[0]}"


def _read_pgbackrest(value: object, name: str) -> Sequence[Backup]:
    """Read `pgbackrest info` (pgBackRest, "Info Command": one object for each stanza)."""
    stanzas = Fields({"info": value}, "pgbackrest").sequence("info", dict)
    if len(stanzas) != 1:
        raise MalformedError(f"it is about {len(stanzas)} stanzas")
    stanza = Fields(stanzas[0], f"stanza {name}")
    status = stanza.table("status")
    if stanza.line("name") != name:
        raise MalformedError("it is about another stanza")
    if status.integer("code", 0, 999):
        raise BackupError(f"pgbackrest {name}: {status.line('message')}")
    return [_of_pgbackrest(found, name) for found in stanza.sequence("backup", dict)]


def _of_pgbackrest(found: dict[str, object], name: str) -> Backup:
    fields = Fields(found, name)
    ended = fields.table("timestamp").integer("stop", 0, 10**12)
    # One that an old version made does not say: that matters only where it is the newest.
    return Backup(fields.line("label"), ended, sound=found.get("error") is False)


def _read_barman(value: object, name: str) -> Sequence[Backup]:
    """Read `barman list-backups`, which dates only the backups that were copied."""
    listed = [Fields(found, name) for found in Fields(value, "barman").sequence(name, dict)]
    return [_of_barman(found) for found in listed if found.line("status") == "DONE"]


def _of_barman(found: Fields) -> Backup:
    ended = int(found.matching("end_time_timestamp", _SECONDS))
    return Backup(found.line("backup_id"), ended, sound=True)


def _title(backup: BackupCheck) -> str:
    return f"{backup.tool} {backup.name}"


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


TOOLS = {
    "pgbackrest": Tool(
        program="/usr/bin/pgbackrest",
        lists=("--stanza={name}", "--output=json", "--log-level-console=off", "info"),
        makes=("--stanza={name}", "backup"),
        read=_read_pgbackrest,
    ),
    "barman": Tool(
        program="/usr/bin/barman",
        lists=("--format=json", "list-backups", "{name}"),
        makes=("backup", "{name}"),
        read=_read_barman,
    ),
}
