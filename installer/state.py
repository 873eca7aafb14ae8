"""What this host remembers of a product, in `/var/lib/countersign/<product>/`.

    installed   the head (manifest and signatures) of the release that was installed last
    pending     the head of a release whose install has begun and not ended
    start       the schema before its online scripts, until it is installed (`installer.receipts`)
    *.json      its receipt, from just before COMMIT until it is signed (`installer.receipts`)
    lock        held while an install runs: one at a time on a host

`pending` is on the disk before anything is staged. Found at the start of the next run, it
says that an install was cut short; the database then says on which side of COMMIT.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installer.bundle import Head, read_head
from installer.durable import make_folder, remove_unfinished, sync_folder, write_file
from installer.errors import LockedError
from installer.manifest import Manifest, parse_manifest

LOCK_WAIT = 60
"""Seconds to wait for another install on this host."""
POLL_INTERVAL = 0.05


class ProductState:
    """One product's memory on this host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._installed = folder / "installed"
        self._pending = folder / "pending"
        self._start = folder / "start"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the product's lock; the kernel frees it however the process ends.

        Raises:
            LockedError: another install on this host does not end.
        """
        make_folder(self._folder)
        self._folder.chmod(0o755)
        with (self._folder / "lock").open("ab") as file:
            deadline = time.monotonic() + LOCK_WAIT
            while not _try_lock(file.fileno()):
                if time.monotonic() >= deadline:
                    raise LockedError(f"another install on this host holds {file.name}")
                time.sleep(POLL_INTERVAL)
            remove_unfinished(self._folder)
            yield

    def installed(self) -> Manifest | None:
        """The release that was installed last."""
        return _read(self._installed)

    def pending(self) -> Manifest | None:
        """The release whose install was cut short."""
        return _read(self._pending)

    def begin(self, head: Head) -> None:
        """Remember, through a loss of power too, that the install of a release has begun."""
        write_file(self._pending, head.serialise())

    def keep_draft(self, name: str, receipt: bytes) -> None:
        """Keep the receipt of the install that has begun, through a loss of power too."""
        write_file(self._folder / name, receipt)

    def keep_start(self, schema: bytes) -> None:
        """Keep what the schema was before the release that is begun."""
        write_file(self._start, schema)

    def start(self) -> bytes:
        """What was kept of the schema; empty where nothing was."""
        return self._start.read_bytes() if self._start.exists() else b""

    def drafts(self) -> list[Path]:
        """Receipts that are not signed yet: one, or none."""
        return sorted(self._folder.glob("*.json"))

    def drop_drafts(self) -> None:
        """Remove receipts of what did not come to be."""
        for draft in self.drafts():
            draft.unlink()

    def abandon(self) -> None:
        """Forget the install that had begun; the release before it stands."""
        self.drop_drafts()
        self._pending.unlink(missing_ok=True)
        sync_folder(self._folder)

    def finish(self) -> None:
        """The release that was pending is now the installed one."""
        self._start.unlink(missing_ok=True)
        self._pending.rename(self._installed)
        sync_folder(self._folder)


def products(state: Path) -> list[str]:
    """Names of the products that were installed here, or whose install was cut short."""
    found = (
        file.parent.name for name in ("installed", "pending") for file in state.glob(f"*/{name}")
    )
    return sorted(set(found))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: Path) -> Manifest | None:
    if not file.exists():
        return None
    with file.open("rb") as stream:
        return parse_manifest(read_head(stream).manifest)
