"""Repositories for dnf: packages beside `repodata`, with a signature of repomd.xml."""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from installer.tree import digest_of
from packager.errors import SigningError
from packager.repositories.interface import LABEL
from packager.signing import Signer, require_good, sign
from packager.tools import run

REPODATA = Path("repodata")
REPOMD = REPODATA / "repomd.xml"
SIGNATURE = REPODATA / "repomd.xml.asc"

# In what createrepo_c writes; where packages are looked for, only once its signature is verified.
_ENVIRONMENT = re.compile(rf"<repo>{LABEL} ([^<]*)</repo>")
_PRIMARY = re.compile(r'href="repodata/(([0-9a-f]{64})-primary\.xml\.gz)"')
_PACKAGE = re.compile(r'pkgid="YES">([0-9a-f]{64})<.*?<location href="([^"]*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Dnf:
    """A dnf repository."""

    kind: ClassVar[str] = "rpm"
    source: ClassVar[str] = "countersign.repo"
    pool: ClassVar[Path] = Path()
    index: ClassVar[Path] = REPODATA

    root: Path
    environment: str
    signer: Signer

    @property
    def entries(self) -> tuple[Path, ...]:
        """The signature is replaced first: it is what readers ask for last."""
        return SIGNATURE, REPOMD

    def indexed_environments(self) -> set[str]:
        """Those whose index is there, as it says itself."""
        file = self.root / REPOMD
        return set(_ENVIRONMENT.findall(file.read_text("utf-8"))) if file.exists() else set()

    def indexed_packages(self, now: int) -> dict[str, str]:
        """Name and digest of what the index has, if it is there and by the signer.

        Raises:
            ToolError: gpg is missing.
        """
        try:
            raw, signature = ((self.root / file).read_bytes() for file in (REPOMD, SIGNATURE))
            require_good(signature, raw, self.signer, now, str(REPOMD))
            ((name, meant),) = _PRIMARY.findall(raw.decode())
            primary = (self.root / REPODATA / name).read_bytes()
        except (FileNotFoundError, SigningError, ValueError):
            return {}
        if digest_of(primary) != meant:
            return {}
        found = _PACKAGE.findall(gzip.decompress(primary).decode())
        return {package: digest for digest, package in found}

    def write_index(self, stage: Path, epoch: int, now: int) -> None:
        """Write `repodata`.

        Raises:
            SigningError: gpg made no good signature.
            ToolError: createrepo_c or gpg is missing or failed.
        """
        options = (
            *("--quiet", "--error-exit-val", "--no-database", "--checksum", "sha256"),
            *("--revision", str(epoch), "--set-timestamp-to-revision"),
            *("--repo", f"{LABEL} {self.environment}"),
        )
        run(["createrepo_c", *options, stage])
        signature = sign((stage / REPOMD).read_bytes(), self.signer, now)
        (stage / SIGNATURE).write_bytes(signature)

    def accepts(self, package: Path, key: Path) -> bool:
        """Whether the package's own signature is of `key`: that is what gpgcheck=1 asks.

        Raises:
            ToolError: rpmkeys is missing.
        """
        with TemporaryDirectory(prefix="countersign-rpmdb-") as folder:
            rpmkeys = ("rpmkeys", "--define", f"_dbpath {folder}")
            run([*rpmkeys, "--import", key])
            # A package without a signature has good digests; with an unknown one, the exit code 1.
            return b"signatures OK" in run([*rpmkeys, "--checksig", package], accept=(0, 1))
