"""What an export may hold, and how it is written, whichever version control it comes from.

Names are UTF-8 without control characters. Files have mode 0644 or 0755, folders 0755, whatever
the umask of the person who builds; symbolic links stay links and are never followed.
"""

import difflib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from installer.errors import MalformedError
from installer.strict_json import is_control, require_relative_path
from packager.errors import ProjectError


def require_name(path: str) -> str:
    """`path` as it was decoded with `os.fsdecode`, if a release may have a file of that name.

    Raises:
        ProjectError: it is not UTF-8, not relative, or holds a control character.
    """
    try:
        path.encode()
        return require_relative_path(path, "the repository")
    except UnicodeEncodeError:
        raise ProjectError(f"{path!a}: its name is not UTF-8") from None
    except MalformedError as error:
        raise ProjectError(str(error)) from None


def shown(path: str) -> str:
    """`path` as a message may show it, without what would steer a terminal."""
    return "".join(f"\\x{ord(char):02x}" if is_control(char) else char for char in path)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that do not exist."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def write_file(file: Path, content: bytes, *, executable: bool) -> None:
    """Write a new file.

    Raises:
        ProjectError: something of that name, or of a folder's above it, has been written before.
    """
    try:
        make_folder(file.parent)
        with file.open("xb") as output:
            output.write(content)
    except FileExistsError as error:
        raise ProjectError(f"{file.name}: the tree has {error.filename} twice") from None
    set_mode(file, executable=executable)


def write_link(link: Path, target: bytes) -> None:
    """Make a new symbolic link.

    Raises:
        ProjectError: no link can have that target.
    """
    make_folder(link.parent)
    try:
        link.symlink_to(os.fsdecode(target))
    except (OSError, ValueError) as error:
        raise ProjectError(f"{link.name}: not a symbolic link that can be made: {error}") from None


def set_mode(file: Path, *, executable: bool) -> None:
    """Give `file` one of the two modes that a release knows."""
    file.chmod(0o755 if executable else 0o644)


def is_executable(status: os.stat_result) -> bool:
    """Whether a release carries this file as executable: its owner may run it."""
    return bool(status.st_mode & stat.S_IXUSR)


def normalise(folder: Path) -> None:
    """Give everything below `folder`, and itself, the modes of a release.

    Raises:
        ProjectError: something has a name or a kind that a release cannot carry.
    """
    folder.chmod(0o755)
    for path, status in walk(folder):
        if stat.S_ISDIR(status.st_mode):
            (folder / path).chmod(0o755)
        elif not stat.S_ISLNK(status.st_mode):
            set_mode(folder / path, executable=is_executable(status))


def walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """All that is below `folder`, in the order of names; a folder before what it holds.

    Raises:
        ProjectError: something is neither a file, a folder nor a link, or has a refused name.
    """
    with os.scandir(folder / below) as found:
        for item in sorted(found, key=lambda item: item.name):
            path = require_name(f"{below}{item.name}")
            status = item.stat(follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                raise ProjectError(f"{path}: neither a file, a folder nor a symbolic link")
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                yield from walk(folder, f"{path}/")


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message that `name` does not exist: which of `names` is most like it."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0)
    return f"; the nearest is {found[0]!r}" if found else "; there is none"
