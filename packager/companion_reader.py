"""Reads companion packages back, and refuses one that is more than a folder of statements.

A companion brings the files of one folder below /etc/countersign/approvals, owned by root and
writable by nobody else, and a DEB its own documents besides. It runs nothing, and takes the place
of no other package. The statements are read as `packager.companion` reads them before it builds: a
signature that does not fit is refused. One by a key that gpg's keyring does not hold is not:
whether it counts is decided by the hosts' policy. Nothing is installed or unpacked.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.deb import CONTROL, DATA, ar_parts, read_part, tar_parts
from installer.errors import MalformedError
from installer.manifest import VERSION
from installer.tree import digest_of
from packager.companion import APPROVALS, FILE, Companion, companion_of, papers_of
from packager.deb_reader import FIELDS, FILE_MODE, FOLDER_MODE, control_fields
from packager.errors import StatementError
from packager.formats.deb import documents
from packager.package_reader import OWN_SCRIPTLETS, SCRIPTLETS, RpmFile
from packager.tools import run

INSTALLER = "countersign-installer"
CONTROL_FIELDS = {
    "Depends" if name == "Pre-Depends" else name: pattern for name, pattern in FIELDS.items()
} | {"Version": re.compile(f"{VERSION.pattern}-[0-9]{{14}}[.][0-9]+")}
"""What the control file of a companion says, in this order, and nothing besides."""

_CPIO_MAGIC = b"070701"
_CPIO_HEADER = 110
_CPIO_END = "TRAILER!!!"


def brings_statements(path: Path, kind: str) -> bool:
    """Whether the package at `path`, of a kind in `FORMATS`, has something to say to hosts.

    Raises:
        MalformedError, ToolError: as of `read_companion`.
    """
    if kind == "rpm":
        with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
            listed = RpmFile(path.absolute(), Path(folder)).query("[%{FILENAMES}\n]")
        return any(name.startswith(f"{APPROVALS}/") for name in listed.decode().splitlines())
    with path.open("rb") as deb, suppress(MalformedError):
        parts = tar_parts(deb, ar_parts(deb)[DATA])
        return any(part.name.startswith(f".{APPROVALS}/") for part in parts)
    return False  # of another form: not built by countersign


def read_companion(path: Path, kind: str, now: int) -> Companion:
    """The companion package at `path`, of a kind in `FORMATS`; `now` is in seconds since 1970.

    Raises:
        MalformedError: it is damaged, or carries more than a folder of statements.
        StatementError: nobody signed, or a signature does not fit.
        ToolError: a tool is missing.
    """
    try:
        files = _READERS[kind](path)
        folder = _folder_of(files)
    except MalformedError as error:
        raise MalformedError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    named = {name.removeprefix(f"{folder}/"): content for name, content in files.items()}
    papers = papers_of(named, str(path), now)
    if not papers.signers and not papers.unknown:
        raise StatementError(f"{path}: {papers.document} is signed by nobody")
    companion = companion_of(papers)
    if companion.folder != folder:
        raise MalformedError(f"{path}: brings {folder} instead of {companion.folder}")
    return companion


def _folder_of(paths: Iterable[str]) -> str:
    """The one folder of statements that all `paths` are in."""
    folders = set()
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.add(folder)
        if folder.rpartition("/")[0] != APPROVALS or not FILE.fullmatch(name) or len(folders) > 1:
            raise MalformedError(f"installs {path}, which has no place in a folder of statements")
    return folders.pop()


def _rpm(path: Path) -> dict[str, bytes]:
    """The files that an RPM installs, by path."""
    with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
        rpm = RpmFile(path.absolute(), Path(folder))
        rpm.require_whole()
        rpm.require_no_scriptlets(SCRIPTLETS | OWN_SCRIPTLETS)
        rpm.require_no_precedence()
        _require_alone(rpm)
        form = "%{FILENAMES}\t%{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEFLAGS}"
        listed = rpm.query(f"[{form}\t%{{FILEDIGESTS}}\n]").decode().splitlines()
    packed = _unpacked(run(["rpm2cpio", path.absolute()]))
    files: dict[str, bytes] = {}
    folders = set()
    for line in listed:
        name, attributes, digest = line.split("\t")
        if attributes == "drwxr-xr-x root root 0":
            folders.add(name)
        elif attributes != "-rw-r--r-- root root 0" or name not in packed:
            raise MalformedError(f"installs {name} as {attributes}")
        elif digest_of(packed[name]) != digest:
            raise MalformedError(f"installs another {name} than it says")
        else:
            files[name] = packed[name]
    _require_own_folders(folders, files)
    return files


def _require_alone(rpm: RpmFile) -> None:
    """Refuse an RPM that stands for another package, or wants more than the installer."""
    name = rpm.query("%{NAME}").decode()
    for tag, meant in (("PROVIDENAME", {name}), ("REQUIRENAME", {INSTALLER})):
        found = set(rpm.query(f"[%{{{tag}}}\n]").decode().split())
        if {n for n in found if not n.startswith("rpmlib(")} != meant:
            raise MalformedError(f"its {tag} is {' '.join(sorted(found))}")


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """The files of a cpio archive ("newc", as rpm writes it), by their paths on a host."""
    files: dict[str, bytes] = {}
    offset = 0
    while True:
        header = archive[offset : offset + _CPIO_HEADER]
        if len(header) != _CPIO_HEADER or not header.startswith(_CPIO_MAGIC):
            raise MalformedError("its payload is not a cpio archive")
        size, length = int(header[54:62], 16), int(header[94:102], 16)
        start = offset + _CPIO_HEADER + length
        name = archive[offset + _CPIO_HEADER : start].rstrip(b"\0").decode()
        if name == _CPIO_END:
            return files
        start += -start % 4
        files[name.removeprefix(".")] = archive[start : start + size]
        offset = start + size + -size % 4


def _deb(path: Path) -> dict[str, bytes]:
    """The files that a DEB installs, by path, apart from the package's own documents."""
    with path.open("rb") as deb:
        archives = ar_parts(deb)
        control = {
            part.name: read_part(deb, part)
            for part in tar_parts(deb, archives[CONTROL])
            if not part.is_folder
        }
        if control.keys() != {"./control", "./md5sums"}:
            raise MalformedError(f"{CONTROL} holds {', '.join(sorted(control))}")
        fields = control_fields(control["./control"], CONTROL_FIELDS)
        files: dict[str, bytes] = {}
        folders = set()
        for part in tar_parts(deb, archives[DATA]):
            name = part.name.removeprefix(".").removesuffix("/")
            if part.mode != (FOLDER_MODE if part.is_folder else FILE_MODE) or name in files:
                raise MalformedError(f"installs {name} with the mode {part.mode:04o}, or twice")
            if part.is_folder:
                folders.add(name)
            else:
                files[name] = read_part(deb, part)
    own = documents(fields["Package"])
    _require_own_folders(folders - {""}, [*files, *own])
    return {name: content for name, content in files.items() if name not in own}


def _require_own_folders(folders: Iterable[str], files: Collection[str]) -> None:
    """Refuse a folder that none of the `files` is in."""
    for folder in sorted(folders):
        if not any(file.startswith(f"{folder}/") for file in files):
            raise MalformedError(f"installs {folder}, which has no place in a companion package")


_READERS: Mapping[str, Callable[[Path], dict[str, bytes]]] = {"rpm": _rpm, "deb": _deb}
