"""Reads DEBs: gets the bundle out, and refuses a package that is more than its bundle.

The form of the package is the business of `installer.deb`, which hosts run. Here is what it may do
to a host: run the one preinst that every release has, depend on the installer and on nothing else,
and bring the files of a release, the same as the bundle has.
"""

import re
from collections.abc import Mapping
from typing import BinaryIO

from installer.bundle import MANIFEST, Bundle, Head, Section
from installer.deb import DATA, Part, ar_parts, bundle_in, control_parts, read_part, tar_parts
from installer.errors import MalformedError
from installer.manifest import PRODUCT, VERSION
from installer.tree import Digest, digest_of
from packager.formats.deb import REVISION, documents, preinst
from packager.formats.interface import BUNDLE, RELEASES

FIELDS = {
    "Package": PRODUCT,
    "Version": re.compile(f"{VERSION.pattern}-{REVISION}"),
    "Architecture": re.compile("all"),
    "Maintainer": re.compile(".+"),
    "Installed-Size": re.compile("[0-9]+"),
    "Pre-Depends": re.compile(r"countersign-installer \(>= [0-9][0-9.]*\)"),
    "Section": re.compile("database"),
    "Priority": re.compile("optional"),
    "Description": re.compile(".+"),
}
"""What a release's control file says, in this order, and nothing besides."""

FILE_MODE = 0o644
FOLDER_MODE = 0o755
SCRIPT_MODE = 0o755


def read_deb(deb: BinaryIO) -> tuple[str, Mapping[str, Digest], Bundle]:
    """The full name of a package, the digests of the release's files by path, and the bundle.

    The file has to stay open.

    Raises:
        MalformedError: it is damaged, or carries more than a bundle.
    """
    parts = control_parts(deb)
    fields = control_fields(read_part(deb, parts["control"]), FIELDS)
    product, version = fields["Package"], fields["Version"]
    name, script = f"{product}_{version}_all", parts["preinst"]
    if script.mode != SCRIPT_MODE or read_part(deb, script) != preinst(name).encode():
        raise MalformedError("its preinst is not the one of a release")
    bundle = bundle_in(deb)
    payload = _payload(deb, product)
    folder = f"{RELEASES}/{product}-{version.removesuffix(f'-{REVISION}')}"
    meant = {f"{folder}/{BUNDLE}": _digest(deb, parts[BUNDLE]), **_copies(bundle.head, folder)}
    for path in sorted(payload.keys() | meant.keys()):
        if payload.get(path) != meant.get(path):
            raise MalformedError(f"{path} is not what the bundle beside preinst has")
    return name, payload, bundle


def _copies(head: Head, folder: str) -> dict[str, Digest]:
    """What a payload has for review."""
    signatures = {f"{MANIFEST}.{key}.asc": data for key, data in head.signatures.items()}
    files = {MANIFEST: head.manifest, **signatures}
    return {f"{folder}/{name}": digest_of(data) for name, data in files.items()}


def control_fields(raw: bytes, meant: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    """The fields of a control file; of a description only its first line.

    Raises:
        MalformedError: they are not those that are `meant`, in their order.
    """
    lines = raw.decode("utf-8", "replace").removesuffix("\n").split("\n")
    lines = [line for line in lines if not line.startswith(" ")]
    fields = dict(line.partition(": ")[::2] for line in lines)
    if list(fields) != list(meant) or len(lines) != len(meant):
        raise MalformedError(f"its control file has the fields {', '.join(fields)}")
    for name, pattern in meant.items():
        if not pattern.fullmatch(fields[name]):
            raise MalformedError(f"its control file has {name}: {fields[name]}")
    return fields


def _payload(deb: BinaryIO, product: str) -> dict[str, Digest]:
    """The files of the release; besides them there are only the package's own documents."""
    known = documents(product)
    payload: dict[str, Digest] = {}
    for part in tar_parts(deb, ar_parts(deb)[DATA]):
        path = part.name.removeprefix(".")
        if part.mode != (FOLDER_MODE if part.is_folder else FILE_MODE):
            raise MalformedError(f"{path} has the mode {part.mode:04o}")
        if part.is_folder:
            _require_own_folder(path, known)
        elif path.startswith(f"{RELEASES}/") and path not in payload:
            payload[path] = _digest(deb, part)
        elif path not in known:
            raise MalformedError(f"it installs {path}, which is no part of a release")
    return payload


def _require_own_folder(path: str, known: tuple[str, ...]) -> None:
    if not path.startswith(f"{RELEASES}/") and not any(
        file.startswith(path) for file in (*known, f"{RELEASES}/")
    ):
        raise MalformedError(f"it installs {path}, which is no part of a release")


def _digest(deb: BinaryIO, part: Part) -> Digest:
    return Section(deb, part.offset, part.size).digest()
