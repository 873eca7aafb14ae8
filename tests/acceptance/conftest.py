"""Packages and hosts for the acceptance tests: everything in them is real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.installer_package import build_installer
from tests.developers import Developers
from tests.keys import Keyring
from tests.sites import Site


@pytest.fixture(scope="session")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RPM of countersign-installer."""
    return build_installer(tmp_path_factory.mktemp("installer"))


@pytest.fixture(scope="session")
def developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developers]:
    """The developers, and a folder for their releases."""
    with Keyring.create() as keys:
        yield Developers.create(keys, tmp_path_factory.mktemp("releases"))


@pytest.fixture
def site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A QAT host, set up and empty."""
    with Site.start(developers, installer) as started:
        yield started
