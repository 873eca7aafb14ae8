"""Fixtures that several test files share, and what was tested, at the top of the report."""

import signal
from collections.abc import Iterator
from subprocess import run

import pytest

from tests.cluster import Cluster, private_cluster

TOOLS = (("rpm", "--version"), ("dnf", "--version"), ("git", "--version"), ("gpg", "--version"))

# A shell starts what runs in its background with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    """The versions of the real tools that the tests run."""
    found = [run(tool, capture_output=True, text=True, check=False).stdout for tool in TOOLS]
    return [f"{tool[0]}: {said.splitlines()[0]}" for tool, said in zip(TOOLS, found, strict=True)]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A private PostgreSQL cluster for the whole run."""
    with private_cluster() as running:
        yield running


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The conninfo of a new, empty database."""
    number = cluster.psql("SELECT count(*) FROM pg_database")
    return cluster.new_database(f"crm_{number}")
