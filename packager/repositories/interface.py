"""What a kind of repository does; `packager.repository` decides when.

A repository has a pool, where its packages lie, and an index: files that are named after what is in
them, and a few *entries* that readers ask for by fixed names. What the entries say is signed, and
they name the rest by digest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from packager.signing import Signer

LABEL = "Countersign"
"""What repositories call themselves; the environment follows."""


class Repository(Protocol):
    """A repository of one kind of packages, for the hosts of one environment."""

    @property
    def root(self) -> Path:
        """The repository's folder."""

    @property
    def environment(self) -> str:
        """Whose hosts it is for."""

    @property
    def signer(self) -> Signer:
        """Who signs it."""

    @property
    def kind(self) -> str:
        """What its packages are, as in `FORMATS`, and how their names end."""

    @property
    def source(self) -> str:
        """The name of the file that tells a host of the repository."""

    @property
    def pool(self) -> Path:
        """Where packages lie, below `root`."""

    @property
    def index(self) -> Path:
        """The folder that holds the index and nothing else, below `root`."""

    @property
    def entries(self) -> tuple[Path, ...]:
        """What readers ask for by fixed names, below `root`; in the order of replacement."""

    def indexed_environments(self) -> set[str]:
        """Those whose index is there, as it says itself."""

    def indexed_packages(self, now: int) -> Mapping[str, str]:
        """Name and digest of what the index has, if it is there and by `signer`.

        `now` is in seconds since 1970.

        Raises:
            ToolError: gpg is missing.
        """

    def write_index(self, stage: Path, epoch: int, now: int) -> None:
        """Write the index of the pool in `stage`, a folder that is laid out like `root`.

        `epoch` is the time that the index says, `now` that of the signature, in seconds since 1970.

        Raises:
            SigningError: gpg made no good signature.
            ToolError: a tool is missing or failed.
        """

    def accepts(self, package: Path, key: Path) -> bool:
        """Whether hosts that know only `key`, armoured, take the package from the repository.

        Raises:
            ToolError: a tool is missing.
        """
