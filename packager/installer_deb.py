"""Builds the DEB `countersign-installer`: what `packager.installer_package` builds as an RPM.

    python -m packager.installer_deb --output dist

The same source and lock file give the same package.
"""

from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from packager.formats.deb import (
    NO_ADDRESS,
    REVISION,
    documents,
    dpkg_deb,
    gzip,
    installed_size,
    md5sums,
    write_control,
    write_files,
)
from packager.installer_package import command, pinned, source_date, stage, version
from packager.templates import FOLDER as TEMPLATES
from packager.templates import render

NAME = "countersign-installer"
MAINTAINER = f"Countersign <{NO_ADDRESS}>"
COMPRESSION = ("-Zxz", "-z6", "--threads-max=1")
"""Several threads would give other bytes."""

MODES = {
    "usr/bin/countersign-install": 0o755,
    "var/lib/countersign": 0o700,
    "var/lib/countersign/receipts": 0o700,
    "var/log/countersign": 0o750,
}
"""What is not as plain files and folders are."""


def build_installer_deb(output: Path) -> Path:
    """Build the DEB into the folder `output`.

    Raises:
        ToolError: pip, git, gzip or dpkg-deb is missing or failed.
    """
    with TemporaryDirectory(prefix="countersign-installer-") as folder:
        root, epoch = Path(folder) / "root", source_date()
        stage(root)
        (root / f"usr/share/licenses/{NAME}/LICENSE").unlink()  # Debian has it in common-licenses
        for part in (f"usr/share/licenses/{NAME}", "usr/share/licenses"):
            (root / part).rmdir()
        write_files(root, _documents(epoch))
        write_control(root, _control_files(root))
        for path, mode in MODES.items():
            (root / path).chmod(mode)
        package = dpkg_deb(root, epoch, *COMPRESSION)
        output.mkdir(parents=True, exist_ok=True)
        return package.replace(output / f"{NAME}_{_version()}_all.deb")


def _version() -> str:
    return f"{version()}-{REVISION}"


def _documents(epoch: int) -> dict[str, bytes]:
    released = datetime.fromtimestamp(epoch, UTC)
    values = {"version": _version(), "maintainer": MAINTAINER, "date": format_datetime(released)}
    change = render("deb/installer-changelog.j2", **values)
    legal = render("deb/installer-copyright.j2", year=released.year, vendored=list(pinned()))
    overrides = (TEMPLATES / "deb/installer-lintian-overrides").read_bytes()
    contents = (legal.encode(), gzip(change.encode()), overrides)
    return dict(zip(documents(NAME), contents, strict=True))


def _control_files(root: Path) -> dict[str, bytes]:
    control = render(
        "deb/installer-control.j2",
        version=_version(),
        maintainer=MAINTAINER,
        installed_size=installed_size(root),
    )
    configuration = sorted(path for path in (root / "etc").rglob("*") if path.is_file())
    return {
        "control": control.encode(),
        "conffiles": "".join(f"/{file.relative_to(root)}\n" for file in configuration).encode(),
        "md5sums": md5sums(root),
        "postinst": (TEMPLATES / "deb/installer-postinst").read_bytes(),
        "prerm": (TEMPLATES / "deb/installer-prerm").read_bytes(),
    }


if __name__ == "__main__":
    command(build_installer_deb, "DEB")
