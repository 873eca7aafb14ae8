"""Repositories for apt: packages in `pool`, and one suite, named after the environment.

InRelease carries its signature in itself and names the other files by their digests, under which
they are there as well (by-hash): a reader has one state of the index or another, never a mixture.
"""

import hashlib
import lzma
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from installer.tree import digest_of
from packager.errors import ToolError
from packager.repositories.interface import LABEL
from packager.signing import Signer, export_keys
from packager.tools import run

DISTS = Path("dists")
COMPONENT = "main"
ARCHITECTURE = "all"
PACKAGES = Path(COMPONENT, f"binary-{ARCHITECTURE}", "Packages")

_LISTED = re.compile(rf"^ ([0-9a-f]{{64}}) +[0-9]+ {re.escape(str(PACKAGES))}$", re.MULTILINE)
_PACKAGE = re.compile(r"^Filename: pool/(.*)\nSize: [0-9]+\nSHA256: ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Apt:
    """An apt repository."""

    kind: ClassVar[str] = "deb"
    source: ClassVar[str] = "countersign.sources"
    pool: ClassVar[Path] = Path("pool")
    index: ClassVar[Path] = DISTS

    root: Path
    environment: str
    signer: Signer

    @property
    def entries(self) -> tuple[Path, ...]:
        """Release is what InRelease has, unsigned, for tools that mirror repositories."""
        return self._suite / "Release", self._suite / "InRelease"

    @property
    def _suite(self) -> Path:
        return DISTS / self.environment

    def indexed_environments(self) -> set[str]:
        """Those whose index is there."""
        return {folder.name for folder in (self.root / DISTS).glob("*")}

    def indexed_packages(self, now: int) -> dict[str, str]:
        """Name and digest of what the index has, if it is there and by the signer.

        Raises:
            ToolError: gpg is missing.
        """
        del now  # gpgv has a clock of its own
        suite = self.root / self._suite
        if not (suite / "InRelease").exists() or not (suite / PACKAGES).exists():
            return {}
        try:
            listed = _LISTED.findall(self._verified(suite / "InRelease"))
        except ToolError as error:
            if not error.detail:  # gpgv itself is missing
                raise
            return {}
        packages = (suite / PACKAGES).read_bytes()
        if listed != [digest_of(packages)]:
            return {}
        return dict(_PACKAGE.findall(packages.decode()))

    def write_index(self, stage: Path, epoch: int, now: int) -> None:
        """Write the suite.

        Raises:
            ToolError: dpkg-deb or gpg is missing or failed.
        """
        del now
        suite = stage / self._suite
        by_hash = suite / PACKAGES.parent / "by-hash/SHA256"
        by_hash.mkdir(parents=True)
        packages = "\n".join(map(_described, sorted((stage / self.pool).iterdir()))).encode()
        files = {PACKAGES: packages, PACKAGES.with_suffix(".xz"): lzma.compress(packages)}
        for name, content in files.items():
            (suite / name).write_bytes(content)
            (by_hash / digest_of(content)).write_bytes(content)
        release = self._release(files, epoch).encode()
        (suite / "Release").write_bytes(release)
        (suite / "InRelease").write_bytes(self._clear_signed(release))
        self._verified(suite / "InRelease")

    def accepts(self, package: Path, key: Path) -> bool:
        """The digest in the index, and the index's signature, are all that apt asks for."""
        del package, key
        return True

    def _release(self, files: Mapping[Path, bytes], epoch: int) -> str:
        fields = {
            "Origin": LABEL,
            "Label": LABEL,
            "Suite": self.environment,
            "Codename": self.environment,
            "Date": format_datetime(datetime.fromtimestamp(epoch, UTC)),
            "Architectures": ARCHITECTURE,
            "Components": COMPONENT,
            "Acquire-By-Hash": "yes",
            "SHA256": "",
        }
        lines = [f"{name}: {value}".rstrip() for name, value in fields.items()]
        lines += [f" {digest_of(data)} {len(data)} {name}" for name, data in files.items()]
        return "".join(f"{line}\n" for line in lines)

    def _clear_signed(self, release: bytes) -> bytes:
        options = ("--batch", "--no-comments", "--no-emit-version", "--digest-algo", "SHA512")
        key = ("--local-user", self.signer.fingerprint)
        return run(["gpg", *options, *key, "--clearsign"], stdin=release)

    def _verified(self, file: Path) -> str:
        """What the signer, and nobody else, has clear-signed in `file`."""
        with TemporaryDirectory(prefix="countersign-keys-") as folder:
            keyring = Path(folder) / "keys.pgp"
            keyring.write_bytes(export_keys((self.signer,)))
            return run(["gpgv", "--keyring", keyring, "--output", "-", file]).decode()


def _described(package: Path) -> str:
    """The paragraph of Packages about `package`: its control file, and what apt fetches."""
    with package.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fetched = f"Filename: pool/{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
    return run(["dpkg-deb", "--field", package]).decode().strip("\n") + f"\n{fetched}"
