"""Packages and hosts for the acceptance tests: everything in them is real."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from tests.acceptance import releases
from tests.developers import Developers
from tests.frontends import APT, DNF, FRONT_ENDS, FrontEnd
from tests.keys import Keyring
from tests.sites import Site

IN_SOAK = {"test_faults", "test_refusals"}
"""Files whose tests with dnf and apt are left to `make soak`: the scriptlet decides there,
which rpm and dpkg run for them; that a front end hears of it, other files test with all four."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in IN_SOAK and isinstance(item, pytest.Function):
            front = item.callspec.params.get("front") if hasattr(item, "callspec") else None
            if front in {DNF, APT}:
                item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RPM of countersign-installer; its DEB lies beside it."""
    folder = tmp_path_factory.mktemp("installer")
    build_installer_deb(folder)
    return build_installer(folder)


@pytest.fixture(scope="session")
def developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developers]:
    """The developers, and a folder for their releases."""
    with Keyring.create() as keys:
        yield Developers.create(keys, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def first(developers: Developers) -> Path:
    """The package of release 1.0."""
    return developers.package(releases.first(developers))


@pytest.fixture(scope="session")
def second(developers: Developers, first: Path) -> Path:
    """The package of release 1.1, which starts from nothing or from 1.0."""
    assert first.exists()
    return developers.package(releases.second(developers))


@pytest.fixture(scope="module", params=FRONT_ENDS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> FrontEnd:
    """Each of the programs that install packages."""
    chosen: FrontEnd = request.param
    return chosen


@pytest.fixture
def site(developers: Developers, installer: Path, front: FrontEnd) -> Iterator[Site]:
    """A QAT host, set up and empty; once for each front end."""
    with Site.start(developers, installer, front=front) as started:
        yield started


@pytest.fixture
def rpm_site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A QAT host for what only RPMs have, or what has nothing to do with a package manager."""
    with Site.start(developers, installer) as started:
        yield started


@pytest.fixture(scope="module")
def kept_site(
    developers: Developers, installer: Path, first: Path, front: FrontEnd
) -> Iterator[Site]:
    """A QAT host with release 1.0, which every test of a module leaves as it was."""
    with Site.start(developers, installer, name="kept", front=front) as started:
        done = started.install(first)
        assert done.returncode == 0, done.stdout + done.stderr
        yield started
