"""What a package format is given, and what it does with it.

A format turns a finished bundle into a package and says what the package is called. It decides
nothing about the release: two formats of one release carry the same bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from installer.manifest import Manifest
from packager.signing import Signer

RELEASES = "/usr/share/countersign/releases"
"""Where the payload of every release has its folder on a host."""

BUNDLE = "bundle"
"""The payload's copy of the bundle."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a package is made of.

    `head` is the beginning of `bundle`, up to its content; `payload` has the files for review, by
    name, among them the bundle.
    """

    manifest: Manifest
    head: bytes
    bundle: bytes
    payload: Mapping[str, bytes]
    signers: tuple[Signer, ...]
    description: str
    license: str
    package_key: str | None

    @property
    def folder(self) -> str:
        """The folder of the payload on a host."""
        return f"{RELEASES}/{self.manifest.product}-{self.manifest.version}"


class Format(Protocol):
    """One kind of package."""

    def file_name(self, manifest: Manifest) -> str:
        """What the package of this release is called."""

    def write(self, order: Order, into: Path) -> Path:
        """Write the package into the folder `into`, signed where the order has a package key.

        Raises:
            OutputError: this kind of package cannot carry a bundle of this size.
            SigningError: a package key is not there, or makes no good signature.
            ToolError: a tool is missing or failed.
        """
