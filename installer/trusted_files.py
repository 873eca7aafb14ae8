"""Reads files that decide what this host trusts: the policy, the host file, the keyring.

Whoever can write such a file, or a folder above it, decides what gets installed. So each folder
from `/` down to the file is opened from the one above it, without following links, and looked at
through its open descriptor: what was checked is what is read. Each belongs to root (or to the
owner that the caller names) and no one else may write to it. A sticky folder such as `/tmp` is no
exception. The group's bits cover access control lists, whose mask they show.
"""

import errno
import os
import shlex
import stat
from contextlib import ExitStack
from pathlib import Path

from installer.errors import ConfigurationError

LIMIT = 1024 * 1024
"""Bytes that a trusted file may have."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO does not block
_REASONS = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENOTDIR: "it is a symbolic link, or not a folder",
}


def read_trusted(path: Path, owner: int = 0, limit: int = LIMIT, top: Path = Path("/")) -> bytes:
    """The content of `path`, which only root and the user `owner` can have written.

    `limit` is in bytes. The check of folders begins at `top`; only tests say where.

    Raises:
        ConfigurationError: the file is missing or too large, or others may write to it or to a
            folder above it; the message names the path and the command that puts it right.
    """
    path = path.absolute()
    with ExitStack() as opened:
        here, descriptor = top, _open(opened, top, top, os.O_DIRECTORY)
        _require_unwritable(here, descriptor, owner)
        for part in path.relative_to(top).parts:
            here /= part
            kind = 0 if here == path else os.O_DIRECTORY
            descriptor = _open(opened, here, Path(part), kind, descriptor)
            _require_unwritable(here, descriptor, owner)
        return _read(path, descriptor, limit)


def _open(opened: ExitStack, here: Path, name: Path, kind: int, folder: int | None = None) -> int:
    try:
        descriptor = os.open(name, _OPEN | kind, dir_fd=folder)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        raise ConfigurationError(f"{here} cannot be read: {reason}") from None
    opened.callback(os.close, descriptor)
    return descriptor


def _require_unwritable(here: Path, descriptor: int, owner: int) -> None:
    status = os.fstat(descriptor)
    name = shlex.quote(str(here))
    if status.st_uid not in {0, owner}:
        raise ConfigurationError(
            f"{here} belongs to user {status.st_uid}, who could change what this host trusts; "
            f"run `chown root {name}`"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"{here} is writable by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run `chmod go-w {name}`"
        )


def _read(path: Path, descriptor: int, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ConfigurationError(f"{path} is not a regular file")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ConfigurationError(f"{path} is larger than {limit} bytes")
    return content
