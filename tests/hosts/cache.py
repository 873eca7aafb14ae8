"""What hosts need and what costs seconds to make is made once and kept below `build/`.

A folder appears whole or not at all, so that test processes may run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "build" / "hosts"


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, which `make` fills when it does not exist yet."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        make(made)
        try:
            made.rename(folder)
        except OSError:
            # Another process was first, and what it made is as good.
            if not folder.is_dir():
                raise
    return folder
