"""Reads packages: gets the bundle out, and refuses a package that is more than its bundle.

Nothing is installed or unpacked. What is returned is read, not verified: the signatures and the
content are still to be checked by whoever asked.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.bundle import Bundle, Head, dearmour, read_bundle, read_carried
from installer.deb import MAGIC as DEB_MAGIC
from installer.errors import MalformedError
from installer.rpm_payload import bundle_in
from installer.tree import Digest, digest_of
from packager.deb_reader import read_deb
from packager.errors import ToolError
from packager.formats.interface import BUNDLE, RELEASES
from packager.tools import run

RPM_MAGIC = bytes.fromhex("edabeedb")
"""The first bytes of an RPM (Linux Standard Base Core 5.0, 22.2.1)."""

INSTALLER = "/usr/bin/countersign-install"
SCRIPTLETS = frozenset(
    {
        "FILETRIGGERSCRIPTS",
        "POSTIN",
        "POSTTRANS",
        "POSTUN",
        "POSTUNTRANS",
        "PRETRANS",
        "PREUN",
        "PREUNTRANS",
        "TRANSFILETRIGGERSCRIPTS",
        "TRIGGERSCRIPTS",
    }
)
"""What a release's RPM has none of. Later versions of rpm know more of these than earlier ones.

`%post -p PROGRAM` has no body at all, and is known by its program only.
"""

OWN_SCRIPTLETS = frozenset({"PREIN", "VERIFYSCRIPT"})
"""What a release's RPM has, and no other package that countersign builds."""


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """What a package says of itself. `payload` has the digest of each file, by its path."""

    format: str
    name: str
    payload: Mapping[str, Digest]


def read_package(path: Path) -> tuple[PackageInfo, Bundle]:
    """The bundle in the package, or the bare bundle, at `path`.

    Raises:
        MalformedError: it is no such file, damaged, or carries more than a bundle.
        ToolError: rpm is missing.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(RPM_MAGIC))
            if start == RPM_MAGIC:
                return _read_rpm(path)
            raw = start + file.read()
    except OSError as error:
        raise MalformedError(f"{path}: {error.strerror}") from None
    if raw.startswith(DEB_MAGIC):
        return _read_deb(path, raw)
    return PackageInfo("bundle", path.name, {}), read_bundle(BytesIO(raw))


def _read_deb(path: Path, raw: bytes) -> tuple[PackageInfo, Bundle]:
    try:
        name, payload, bundle = read_deb(BytesIO(raw))
    except MalformedError as error:
        raise MalformedError(f"{path}: {error}") from None
    return PackageInfo("deb", name, payload), bundle


def _read_rpm(path: Path) -> tuple[PackageInfo, Bundle]:
    with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
        rpm = RpmFile(path.absolute(), Path(folder))
        rpm.require_whole()
        rpm.require_no_scriptlets(SCRIPTLETS)
        rpm.require_no_precedence()
        _require_own_scriptlets(rpm)
        body = BytesIO()
        dearmour(BytesIO(rpm.query("%{PREIN}")), body)
        lines = rpm.query("[%{FILENAMES}\t%{FILEDIGESTS}\n]").decode().splitlines()
        name = rpm.query("%{NEVRA}").decode()
    digests = (line.split("\t") for line in lines)
    payload = {name: Digest(digest) for name, digest in digests if digest}
    info = PackageInfo("rpm", name, payload)
    _require_own_files(path, payload)
    carried = read_carried(body)
    if isinstance(carried, Head):
        return info, bundle_in(BytesIO(path.read_bytes()), carried)
    _require_same_bundle(path, payload, digest_of(body.getvalue()))
    return info, carried


@dataclass(frozen=True, slots=True)
class RpmFile:
    """One RPM file, asked by rpm with an empty database: no key and no package of this machine.

    Its methods raise MalformedError where it is not what they ask for, and ToolError where rpm is
    missing.
    """

    path: Path
    database: Path

    def query(self, form: str) -> bytes:
        """What rpm says of it in this form (rpm(8), --queryformat)."""
        return self._run("rpm", "--query", "--nosignature", "--queryformat", form, "--package")

    def require_whole(self) -> None:
        """Refuse a header or payload that rpm's own digests do not fit."""
        self._run("rpmkeys", "--checksig", "--nosignature")

    def require_no_scriptlets(self, tags: Collection[str]) -> None:
        """Refuse these scriptlets: they would run as root, unsigned."""
        programs = [f"{tag.removesuffix('S')}PROG" for tag in sorted(tags)]
        there_are = run(["rpm", "--querytags"]).decode().split()
        known = [tag for tag in (*sorted(tags), *programs) if tag in there_are]
        found = self.query("\n".join(f"%{{{tag}}}" for tag in known)).decode().splitlines()
        if foreign := [t for t, value in zip(known, found, strict=False) if value != "(none)"]:
            raise MalformedError(f"{self.path}: has a scriptlet of its own: {foreign[0]}")

    def require_no_precedence(self) -> None:
        """Refuse what takes the place of other packages, or outranks all later versions."""
        for tag in ("OBSOLETENAME", "CONFLICTNAME", "EPOCH"):
            if found := self.query(f"[%{{{tag}}}\n]").decode().split():
                raise MalformedError(f"{self.path}: its {tag} is {' '.join(sorted(found))}")

    def _run(self, program: str, *arguments: str) -> bytes:
        options = ("--define", f"_dbpath {self.database}")
        try:
            return run([program, *options, *arguments, self.path])
        except ToolError as error:
            if not error.detail:  # rpm itself is missing
                raise
            raise MalformedError(f"{self.path}: {error.detail}") from None


def _require_own_scriptlets(rpm: RpmFile) -> None:
    for tag in sorted(OWN_SCRIPTLETS):
        program = rpm.query(f"[%{{{tag}PROG}}\n]").decode().splitlines()
        if program[:1] != [INSTALLER]:
            raise MalformedError(f"{rpm.path}: its {tag}PROG is not {INSTALLER}")


def _require_own_files(path: Path, payload: Mapping[str, Digest]) -> None:
    for name in payload:
        if not name.startswith(f"{RELEASES}/"):
            raise MalformedError(f"{path}: installs {name}, which is no part of a release")


def _require_same_bundle(path: Path, payload: Mapping[str, Digest], bundle: Digest) -> None:
    for name, digest in payload.items():
        if name.endswith(f"/{BUNDLE}") and digest != bundle:
            raise MalformedError(f"{path}: {name} is another bundle than the one %pre carries")
