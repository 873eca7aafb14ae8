"""Files below one folder, reached part by part, without ever following a symbolic link.

An application may own folders below its root, such as the one for uploads, and could put a link
into the place of one while root works in it. So each folder on the way is opened from the one above
it; a link on the way is refused. Where a path ends at a link, the link itself is meant.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from installer.errors import ApplicationError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO does not block
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Below:
    """The files below `root`. Paths are relative to it, with `/` between their parts.

    Raises:
        ApplicationError: from each method, where a part on the way is a link, or no folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def status(self, path: str) -> os.stat_result | None:
        """What is at `path`; None where nothing is."""
        try:
            with self._parent(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_same(self, path: str, other: str) -> bool:
        """Whether both are names of one file."""
        one, two = self.status(path), self.status(other)
        return one is not None and two is not None and os.path.samestat(one, two)

    def target(self, path: str) -> str | None:
        """Where the link at `path` leads; None where no link is."""
        try:
            with self._parent(path) as (folder, name):
                return os.readlink(name, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # something else than a link
                return None
            raise

    def open(self, path: str) -> BufferedReader | None:
        """The file at `path` for reading; None where no plain file is."""
        try:
            with self._parent(path) as (folder, name):
                descriptor = os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, or a socket
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb")

    def digest(self, path: str) -> str | None:
        """SHA-256 in hexadecimal; None where no plain file is."""
        file = self.open(path)
        if file is None:
            return None
        with file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, that all can read, where there is none."""
        with self._parent(f"{path}/.", make=True):
            pass

    def write(self, path: str, content: BinaryIO, mode: int, owner: tuple[int, int]) -> None:
        """Write a new file through to the disk.

        `owner` has the numbers of a user and a group; -1 is whoever writes it.
        """
        with self._parent(path, make=True) as (folder, name):
            file = os.fdopen(os.open(name, _WRITE, 0o600, dir_fd=folder), "wb")
        with file:
            shutil.copyfileobj(content, file)
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())

    def link(self, path: str, other: str) -> None:
        """Give what is at `path` a second name."""
        with self._parent(path) as (old, name), self._parent(other, make=True) as (new, second):
            os.link(name, second, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
            os.fsync(new)

    def link_to(self, target: str, path: str) -> None:
        """Make a symbolic link."""
        with self._parent(path, make=True) as (folder, name):
            os.symlink(target, name, dir_fd=folder)

    def rename(self, path: str, other: str) -> None:
        """Give what is at `path` another name, on the disk too."""
        with self._parent(path) as (old, name), self._parent(other, make=True) as (new, to):
            os.rename(name, to, src_dir_fd=old, dst_dir_fd=new)
            os.fsync(new)

    def remove(self, path: str) -> None:
        """Remove a file, a link, or a folder that is empty; nothing need be there."""
        status = self.status(path)
        if status is None:
            return
        with self._parent(path) as (folder, name):
            (os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink)(name, dir_fd=folder)

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder that `path` is in, opened; and the name in it."""
        *folders, name = path.split("/")
        with ExitStack() as opened:
            here, descriptor = self.root, _open_folder(opened, self.root, str(self.root), None)
            for part in folders:
                here /= part
                made = make and _make(part, descriptor)
                above, descriptor = descriptor, _open_folder(opened, here, part, descriptor)
                if made:
                    os.fchmod(descriptor, 0o755)  # the application runs as another user
                    os.fsync(above)
            yield descriptor, name


def _open_folder(opened: ExitStack, here: Path, name: str, folder: int | None) -> int:
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise ApplicationError(f"{here}: is a symbolic link, or no folder") from None
        raise
    opened.callback(os.close, descriptor)
    return descriptor


def _make(name: str, folder: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    return True
