"""The kinds of repositories. What they share is in `packager.repositories.interface`."""

from pathlib import Path

from packager.repositories.apt import Apt
from packager.repositories.dnf import Dnf
from packager.repositories.interface import Repository
from packager.signing import Signer


def repositories(folder: Path, environment: str, signer: Signer) -> tuple[Repository, ...]:
    """One of each kind, in `folder`; they need not be there yet."""
    return (
        Dnf(folder / "rpm", environment, signer),
        Apt(folder / "deb", environment, signer),
    )
