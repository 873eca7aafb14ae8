"""Puts what was made into place: made under a temporary name beside it, then renamed.

Whoever reads the destination has what was there before or all of what is new, and a run that fails
leaves nothing behind: neither the temporary folder, nor a folder that was made for it alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from packager.errors import OutputError


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder in `parent`, so that what is made in it can be renamed into place.

    A `parent` that was made for it, and in which nothing was put, goes again.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        fresh = not parent.exists()
        parent.mkdir(parents=True, exist_ok=True)
        made = TemporaryDirectory(prefix=".countersign-", dir=parent)
    except OSError as error:
        raise OutputError(f"{parent} cannot be written: {error.strerror}") from None
    try:
        with made as folder:
            yield Path(folder)
    finally:
        if fresh:
            with suppress(OSError):  # it is not empty
                parent.rmdir()


def write(file: Path, content: bytes) -> None:
    """Write `content` to `file`.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        file.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from None


def place(made: Path, destination: Path) -> Path:
    """Rename what was `made` to its `destination`, which it returns.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        return made.replace(destination)
    except OSError as error:
        raise OutputError(f"{destination} cannot be written: {error.strerror}") from None
