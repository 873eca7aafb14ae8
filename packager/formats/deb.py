"""Releases as DEBs.

The bundle is a member of control.tar, so that dpkg puts it beside preinst before that is run; and
preinst, which hands it to the installer, is the only maintainer script there is. The payload holds
the same bundle, its manifest and the signatures, for review. Neither archive is compressed: the
bundle is. Nothing of the builder's own configuration takes part, and times are those of the
released revision: the same bundle gives the same package. Only the package signature, which is not
part of the release, is made with the builder's keyring.
"""

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.deb import ORIGIN, ar_header, ar_parts, read_part
from installer.manifest import Manifest
from packager.errors import OutputError
from packager.formats.interface import BUNDLE, Order
from packager.signing import Signer, choose_key, sign
from packager.templates import render
from packager.tools import run

REVISION = "1"
"""Of the package; the same release is never packaged anew under another one."""

MAX_BUNDLE_SIZE = 8 * 1024**3 - 1
"""Bytes: the largest size that the header of a tar member can have (POSIX.1-1988, ustar)."""

MIN_INSTALLER = "0.1.0"
"""The first countersign-installer that knows this manifest format and the command of preinst."""

MAINTAINER = re.compile(r'[^<>()\[\],;:\\"@]*[^<>()\[\],;:\\"@\s] <[^<>\s@]+@[^<>\s@]+>')
"""Name and address (Debian Policy 5.6.2), with nothing in the name that mail would have quoted."""

NO_ADDRESS = "nobody@countersign.invalid"
"""For a signer whose user id has none; no such domain can exist (RFC 2606, 2)."""


@dataclass(frozen=True, slots=True)
class Deb:
    """One DEB for each release, for all architectures."""

    def file_name(self, manifest: Manifest) -> str:
        """What the package of this release is called."""
        return f"{full_name(manifest)}.deb"

    def write(self, order: Order, into: Path) -> Path:
        """Build the DEB in the folder `into`, with a `_gpgorigin` where the order has a key.

        Raises:
            OutputError: the bundle is larger than an archive can say.
            SigningError: there is no such key, or gpg made no good signature.
            ToolError: dpkg-deb, gzip or gpg is missing or failed.
        """
        if len(order.bundle) > MAX_BUNDLE_SIZE:
            raise OutputError(f"the release has {len(order.bundle)} bytes: too many for a DEB")
        committed = order.manifest.source.committed
        with TemporaryDirectory(prefix="countersign-deb-") as folder:
            root = Path(folder) / "root"
            write_files(root, contents(order))
            write_control(root, {**control_files(order, root), BUNDLE: order.bundle})
            package = dpkg_deb(root, committed, "-Znone")
            if order.package_key:
                sign_package(package, order.package_key, committed)
            return Path(shutil.copy(package, into / self.file_name(order.manifest)))


def version(manifest: Manifest) -> str:
    """The package's version, as dpkg compares it."""
    return f"{manifest.version}-{REVISION}"


def full_name(manifest: Manifest) -> str:
    """Name, version and architecture, as dpkg names the package's file."""
    return f"{manifest.product}_{version(manifest)}_all"


def preinst(full_name: str) -> str:
    """The maintainer script of the package of this name."""
    return render("deb/preinst.j2", package=full_name)


def documents(product: str) -> tuple[str, str, str]:
    """Paths of what every DEB has besides a release: copyright, changelog, lintian's overrides."""
    folder = f"/usr/share/doc/{product}"
    overrides = f"/usr/share/lintian/overrides/{product}"
    return f"{folder}/copyright", f"{folder}/changelog.Debian.gz", overrides


def contents(order: Order) -> dict[str, bytes]:
    """What the package installs, by path."""
    manifest = order.manifest
    committed = datetime.fromtimestamp(manifest.source.committed, UTC)
    copyright_, changelog, overrides = documents(manifest.product)
    change = render(
        "deb/changelog.j2",
        manifest=manifest,
        version=version(manifest),
        signers=order.signers,
        maintainer=maintainer(order.signers),
        date=format_datetime(committed),
    )
    legal = render(
        "deb/copyright.j2", manifest=manifest, license=order.license, year=committed.year
    )
    return {
        copyright_: legal.encode(),
        changelog: gzip(change.encode()),
        overrides: render("deb/lintian-overrides.j2", product=manifest.product).encode(),
        **{f"{order.folder}/{name}": content for name, content in order.payload.items()},
    }


def control_files(order: Order, root: Path) -> dict[str, bytes]:
    """What dpkg reads of a package that installs what is below `root`."""
    control = render(
        "deb/control.j2",
        manifest=order.manifest,
        version=version(order.manifest),
        maintainer=maintainer(order.signers),
        installed_size=installed_size(root),
        installer_version=MIN_INSTALLER,
        description=order.description,
        signers=order.signers,
    )
    return {
        "control": control.encode(),
        "md5sums": md5sums(root),
        "preinst": preinst(full_name(order.manifest)).encode(),
    }


def maintainer(signers: tuple[Signer, ...]) -> str:
    """The first signer, in the form that a Debian package names people in."""
    user_id = signers[0].user_id if signers else "nobody"
    if MAINTAINER.fullmatch(user_id):
        return user_id
    found = re.search(r"[^<>\s@]+@[^<>\s@]+", user_id)
    address = found[0] if found else NO_ADDRESS
    name = re.sub(r'[<>()\[\],;:\\"@\s]+', " ", user_id.replace(f"<{address}>", "")).strip()
    return f"{name or 'nobody'} <{address}>"


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` below `root`, by their paths; the builder's umask has no effect."""
    for path, content in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o644)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def write_control(root: Path, files: Mapping[str, bytes]) -> None:
    """Write the package's control files; those that dpkg runs are executable."""
    write_files(root, {f"DEBIAN/{name}": content for name, content in files.items()})
    for script in ("preinst", "postinst", "prerm", "postrm"):
        if script in files:
            (root / "DEBIAN" / script).chmod(0o755)


def dpkg_deb(root: Path, epoch: int, *compression: str) -> Path:
    """Pack what is below `root`, owned by root; `epoch` is the time of everything in the package.

    Raises:
        ToolError: dpkg-deb is missing or failed.
    """
    for path in (root, *root.rglob("*")):
        os.utime(path, (epoch, epoch))
    package = root.with_suffix(".deb")
    options = ("--root-owner-group", *compression, "--build")
    run(["dpkg-deb", *options, root, package], environment={"SOURCE_DATE_EPOCH": str(epoch)})
    return package


def installed_size(root: Path) -> int:
    """What the files below `root` take, in KiB (Debian Policy 5.6.20)."""
    paths = root.rglob("*")
    return sum(-(-path.stat().st_size // 1024) if path.is_file() else 1 for path in paths)


def md5sums(root: Path, configuration: str = "etc") -> bytes:
    """The digests that `dpkg -V` compares; against damage, not against an attacker.

    Those of configuration files, which are below the folder of this name, are dpkg's own business.
    """
    files = {file.relative_to(root): file for file in sorted(root.rglob("*")) if file.is_file()}
    digests = (
        f"{md5(file.read_bytes(), usedforsecurity=False).hexdigest()}  {path}\n"
        for path, file in files.items()
        if path.parts[0] != configuration
    )
    return "".join(digests).encode()


def gzip(content: bytes) -> bytes:
    """`content` compressed by gzip: Python's zlib gives other bytes on other machines.

    Raises:
        ToolError: gzip is missing or failed.
    """
    return run(["gzip", "-9", "--no-name"], stdin=content)


def sign_package(package: Path, key: str, epoch: int) -> None:
    """Add the signature that debsig-verify looks for: of all members, in their order.

    Raises:
        SigningError: there is no such key, or gpg made no signature that hosts would accept.
        ToolError: gpg is missing or failed.
    """
    with package.open("rb") as file:
        signed = b"".join(read_part(file, part) for part in ar_parts(file).values())
    armoured = sign(signed, choose_key(key), int(time.time()))
    signature = run(["gpg", "--batch", "--dearmor"], stdin=armoured)
    padding = b"\n" * (len(signature) % 2)
    with package.open("ab") as file:
        file.write(ar_header(ORIGIN, len(signature), epoch) + signature + padding)
