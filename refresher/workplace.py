"""The private folder of a run. One that was killed leaves it behind; the next run removes it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_LEFT = re.compile(r"countersign-refresh-(\d+)-.*")


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that only this user may enter; gone at the end."""
    remove_left(Path(gettempdir()))
    with TemporaryDirectory(prefix=f"countersign-refresh-{os.getpid()}-") as name:
        yield Path(name)


def remove_left(parent: Path) -> None:
    """Remove this user's folders whose process has ended."""
    for folder in parent.glob("countersign-refresh-*"):
        found = _LEFT.fullmatch(folder.name)
        if not found or Path(f"/proc/{found[1]}").exists() or folder.is_symlink():
            continue
        if folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder)
