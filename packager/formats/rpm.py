"""Releases as RPMs.

The body of %pre is the bundle itself, so that rpm hands the installer a file that is the release;
a large one has only its head there (`installer.rpm_payload`). The payload holds the same bundle,
its manifest and the signatures, for review. Nothing of the builder's own rpm configuration takes
part, and times are those of the released revision: the same bundle gives the same package. Only the
package signature, which is not part of the release, is made with the builder's keyring.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.manifest import Manifest
from packager.bundle_writer import armour
from packager.errors import ToolError
from packager.formats.interface import Order
from packager.templates import render
from packager.tools import PATH, run

MAX_IN_HEADER = 48 * 1024 * 1024
"""Compressed content that %pre carries, in bytes; a larger release has only its head there, and is
read out of the payload. rpmbuild refuses headers of about 256 MB, rpm holds one in memory several
times over, and it stays in rpm's database."""

MIN_INSTALLER = "0.1.0"
"""The first countersign-installer that knows this manifest format and these arguments."""

OLDEST_CHANGELOG = datetime(1998, 1, 1, tzinfo=UTC)
"""rpmbuild takes no changelog entry from before 1997 (rpm, build/parseChangelog.c)."""


@dataclass(frozen=True, slots=True)
class Rpm:
    """One noarch RPM for each release; `max_in_header` is the limit for content in %pre."""

    max_in_header: int = MAX_IN_HEADER

    def file_name(self, manifest: Manifest) -> str:
        """What the package of this release is called."""
        return f"{nevra(manifest)}.rpm"

    def write(self, order: Order, into: Path) -> Path:
        """Build the RPM in the folder `into`, signed by rpmsign where the order has a key.

        Raises:
            ToolError: rpmbuild, rpmsign or rpmkeys is missing or failed.
        """
        large = order.manifest.content.size > self.max_in_header
        with TemporaryDirectory(prefix="countersign-rpm-") as folder:
            stage(order, Path(folder), large=large)
            package = rpmbuild(Path(folder), order.manifest.source.committed)
            if order.package_key:
                sign_package(package, order.package_key, Path(folder))
            return Path(shutil.copy(package, into / self.file_name(order.manifest)))


def nevra(manifest: Manifest) -> str:
    """Name, version, release and architecture, as rpm names the package."""
    return f"{manifest.product}-{manifest.version}-1.noarch"


def stage(order: Order, folder: Path, *, large: bool) -> None:
    """Lay out what rpmbuild packs: the spec, the body of %pre, the payload.

    The payload of a `large` release is what an installer reads while %pre runs: it is not
    compressed, so that nothing is decompressed before it is verified.
    """
    payload = folder / "payload" / order.folder.lstrip("/")
    payload.mkdir(parents=True)
    for name, content in order.payload.items():
        (payload / name).write_bytes(content)
        (payload / name).chmod(0o644)
    (folder / "bundle.base64").write_bytes(armour(order.head if large else order.bundle))
    (folder / "package.spec").write_text(spec(order, large=large), encoding="utf-8")


def spec(order: Order, *, large: bool) -> str:
    """The spec file of a release."""
    committed = datetime.fromtimestamp(order.manifest.source.committed, UTC)
    return render(
        "release.spec.j2",
        payload_compression="w.ufdio" if large else "w0.xzdio",
        manifest=order.manifest,
        nevra=nevra(order.manifest),
        folder=order.folder,
        files=sorted(order.payload),
        signers=order.signers,
        author=order.signers[0].user_id if order.signers else "nobody",
        description=order.description,
        license=order.license,
        installer_version=MIN_INSTALLER,
        date=max(committed, OLDEST_CHANGELOG).strftime("%a %b %d %Y"),
    )


def rpmbuild(folder: Path, epoch: int) -> Path:
    """Build `folder`/package.spec; `epoch` is the time of everything in the package.

    Raises:
        ToolError: rpmbuild is missing or failed.
    """
    macros = {"_topdir": folder / "top", "_sourcedir": folder, "_tmppath": folder}
    defines = [part for name in macros for part in ("--define", f"{name} {macros[name]}")]
    run(
        ["rpmbuild", "-bb", "--quiet", *defines, folder / "package.spec"],
        environment={"HOME": str(folder), "SOURCE_DATE_EPOCH": str(epoch)},
    )
    (package,) = (folder / "top/RPMS").rglob("*.rpm")
    return package


def sign_package(package: Path, key: str, folder: Path) -> None:
    """Sign `package` with the builder's `key`, and verify it against that key alone.

    Raises:
        ToolError: gpg, rpmsign or rpmkeys is missing, failed, or finds no good signature.
    """
    gpg = shutil.which("gpg", path=PATH) or "gpg"
    macros = (f"__gpg {gpg}", f"_gpg_name {key}", "_gpg_digest_algo sha256")
    defines = [part for macro in macros for part in ("--define", macro)]
    run(["rpmsign", *defines, "--addsign", package])
    (folder / "key.asc").write_bytes(run(["gpg", "--batch", "--armor", "--export", key]))
    database = ["rpmkeys", "--define", f"_dbpath {folder / 'rpmdb'}"]
    run([*database, "--import", folder / "key.asc"])
    words = run([*database, "--checksig", package]).decode()
    if "signatures OK" not in words:
        raise ToolError(f"rpmsign left no good signature of {key}", detail=words)
