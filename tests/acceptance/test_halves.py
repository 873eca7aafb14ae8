"""Releases of a database alone, and of an application alone, under no package manager but rpm."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers
from tests.sites import Site

pytestmark = pytest.mark.acceptance

RECEIPTS = "/var/lib/countersign/receipts"


@pytest.fixture(scope="module")
def half(developers: Developers) -> Callable[[str], Path]:
    """The package of what release 1.0 has below a folder."""

    def make(folder: str) -> Path:
        draft = releases.first(developers)
        files = {path: text for path, text in draft.files.items() if path.startswith(folder)}
        return developers.package(replace(draft, label=f"-half-{folder}", files=files))

    return make


def again(site: Site, package: Path) -> str:
    done = site.installer("apply", package)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_database_alone_is_installed_and_known_to_be_there(
    rpm_site: Site, half: Callable[[str], Path]
) -> None:
    package = half("sql")
    would = rpm_site.installer("check", package).stdout
    assert "would run sql/0001_customers.sql" in would
    assert "would patch" not in would

    done = rpm_site.install(package)

    assert done.returncode == 0, done.stderr
    assert rpm_site.state().objects == "customer orders"
    assert rpm_site.current() is None
    assert rpm_site.installer("status").returncode == 0
    assert "already installed" in again(rpm_site, package)
    assert "would" not in rpm_site.installer("check", package).stdout


def test_an_application_alone_is_installed_and_known_to_be_there(
    rpm_site: Site, half: Callable[[str], Path]
) -> None:
    package = half("app")

    done = rpm_site.install(package)

    assert done.returncode == 0, done.stderr
    assert rpm_site.current() == "releases/1.0"
    assert rpm_site.sql("SELECT to_regnamespace('countersign') IS NULL") == "t"
    assert rpm_site.installer("status").returncode == 0
    assert "already installed" in again(rpm_site, package)
    assert "would" not in rpm_site.installer("check", package).stdout
    (receipt,) = rpm_site.host.at(RECEIPTS).glob("*.json")
    compared = rpm_site.installer("--json", "schema", "--diff", f"{RECEIPTS}/{receipt.name}")
    assert compared.returncode == 21
    error = json.loads(compared.stdout)["error"]
    assert "does not say anything about a database" in error["message"]
    assert error["exit_code"] == 21


def test_an_application_alone_that_is_refused_leaves_nothing(
    rpm_site: Site, half: Callable[[str], Path]
) -> None:
    rpm_site.host.run(["mkdir", "--mode=0777", "/opt/crm"], check=True)

    done = rpm_site.installer("apply", half("app"))

    assert done.returncode == 10
    assert "/opt/crm: must be a folder that only root can write to" in done.stderr
    assert rpm_site.current() is None
    assert rpm_site.sql("SELECT to_regnamespace('countersign') IS NULL") == "t"


def test_a_database_alone_is_adopted_without_a_tree(
    rpm_site: Site, half: Callable[[str], Path]
) -> None:
    done = rpm_site.installer("adopt", half("sql"), "--reason", "by hand")

    assert done.returncode == 0, done.stderr
    assert [row["event"] for row in rpm_site.ledger()][-1] == "release adopted"
    assert rpm_site.current() is None
    assert rpm_site.state().objects == ""


def test_an_application_alone_is_adopted_without_a_ledger(
    rpm_site: Site, half: Callable[[str], Path]
) -> None:
    for path, content in releases.FIRST.items():
        if path.startswith("app/"):
            mode = 0o755 if "/bin/" in path else 0o644
            rpm_site.host.write(f"/srv/old/{path.removeprefix('app/')}", str(content), mode=mode)

    done = rpm_site.installer("adopt", half("app"), "--tree", "/srv/old", "--reason", "by hand")

    assert done.returncode == 0, done.stderr
    assert rpm_site.current() == "releases/1.0"
    assert rpm_site.sql("SELECT to_regnamespace('countersign') IS NULL") == "t"
