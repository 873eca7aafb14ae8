"""Small disks of a host's own, which can be full. They are gone when the host is."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.hosts import Host

FILLER = "filler"
MOUNT = r"""
set -e
mkdir -p {folder} /run/moved
cp -a {folder}/. /run/moved
mount -t tmpfs -o size={size}m,mode=755 tmpfs {folder}
cp -a /run/moved/. {folder}
rm -r /run/moved
"""


@dataclass(frozen=True, slots=True)
class Disk:
    """A tmpfs of a host, at one of its folders."""

    host: Host
    folder: str

    @classmethod
    def mount(cls, host: Host, folder: str, size: int = 4) -> Self:
        """A disk of `size` MiB in the place of a folder, with what is in that."""
        host.run(["sh", "-c", MOUNT.format(folder=folder, size=size)], check=True)
        return cls(host, folder)

    @property
    def _filler(self) -> Path:
        return self.host.root / self.folder.lstrip("/") / FILLER

    def fill(self, left: int = 0) -> None:
        """Leave no more than `left` KiB of room."""
        self.free()
        with self._filler.open("wb") as file:
            room = os.fstatvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_bsize - left * 1024)

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)
