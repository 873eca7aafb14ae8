"""A database and an application that are there already are taken under control."""

from pathlib import Path

import pytest

from tests.acceptance.releases import FIRST
from tests.sites import Site

pytestmark = pytest.mark.acceptance

REASON = "installed by hand in 2024"


@pytest.fixture
def grown(site: Site) -> Site:
    """A host on which release 1.0 was put by hand, before there was this tool."""
    for path, content in FIRST.items():
        assert isinstance(content, str)
        if path.startswith("app/"):
            mode = 0o755 if "/bin/" in path else 0o644
            site.host.write(f"/srv/old/{path.removeprefix('app/')}", content, mode=mode)
        elif "verify" not in path:
            site.host.psql(f"SET ROLE crm_owner; {content}", "crm")
    return site


def test_adopting_runs_no_script_and_records_why(grown: Site, first: Path) -> None:
    done = grown.installer("adopt", first, "--tree", "/srv/old", "--reason", REASON)

    assert done.returncode == 0, done.stderr
    assert [(row["event"], row["detail"]) for row in grown.ledger()] == [
        ("script adopted", None),
        ("script adopted", None),
        ("release adopted", REASON),
    ]
    assert grown.current() == "releases/1.0"
    assert grown.host.at("/srv/old/VERSION").exists()
    assert grown.installer("status").returncode == 0


def test_an_adopted_host_is_upgraded_like_any_other(grown: Site, first: Path, second: Path) -> None:
    grown.installer("adopt", first, "--tree", "/srv/old", "--reason", REASON)

    done = grown.install(second)

    assert done.returncode == 0, done.stderr
    assert grown.state().objects == "customer note orders"
    assert grown.read("VERSION") == "1.1\n"


def test_a_tree_that_is_not_the_release_s_is_not_adopted(grown: Site, first: Path) -> None:
    grown.host.write("/srv/old/VERSION", "1.0 with a local change\n")
    before = grown.state()

    done = grown.installer("adopt", first, "--tree", "/srv/old", "--reason", REASON)

    assert done.returncode == 40
    assert "VERSION: expected" in done.stderr
    assert grown.state() == before
    assert grown.ledger() == []


def test_without_a_tree_an_application_is_not_adopted(grown: Site, first: Path) -> None:
    before = grown.state()

    done = grown.installer("adopt", first, "--reason", REASON)

    assert done.returncode == 40
    assert "--tree" in done.stderr
    assert grown.state() == before


def test_a_product_that_is_under_control_is_not_adopted_again(site: Site, first: Path) -> None:
    site.install(first)
    before = site.state()

    done = site.installer("adopt", first, "--tree", "/opt/crm/current", "--reason", REASON)

    assert done.returncode == 32
    assert "crm is under control already" in done.stderr
    assert site.state() == before


def test_adopting_needs_a_reason(site: Site, first: Path) -> None:
    done = site.installer("adopt", first)

    assert done.returncode == 2
    assert "--reason" in done.stderr
