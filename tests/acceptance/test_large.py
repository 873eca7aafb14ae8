"""A release whose content is too large for an RPM's header is read out of the payload."""

from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers, Draft
from tests.sites import Site

pytestmark = pytest.mark.acceptance


@pytest.fixture
def draft(developers: Developers) -> Draft:
    """Release 1.0, under another label."""
    return releases.with_files(releases.first(developers), "large", {})


@pytest.fixture
def package(developers: Developers, draft: Draft) -> Path:
    """Its package, with the content in the payload."""
    return developers.large_package(draft)


def assert_installed(site: Site) -> None:
    assert site.state().objects == "customer orders"
    assert site.state().package == "1.0-1"
    assert site.read("VERSION") == "1.0\n"


def test_it_is_installed_from_a_file(site: Site, package: Path) -> None:
    done = site.install(package)

    assert done.returncode == 0, done.stdout + done.stderr
    assert_installed(site)


def test_dnf_installs_it_from_a_repository(rpm_site: Site, package: Path) -> None:
    with rpm_site.repository(package):
        done = rpm_site.host.run(["dnf", "-y", "install", "crm"])

    assert done.returncode == 0, done.stdout + done.stderr
    assert_installed(rpm_site)


def test_people_verify_and_apply_it_from_the_package(site: Site, package: Path) -> None:
    assert site.installer("verify", package).returncode == 0

    done = site.installer("apply", package)

    assert done.returncode == 0, done.stderr
    assert site.state().objects == "customer orders"


def test_content_that_was_changed_in_the_payload_is_refused(
    rpm_site: Site, package: Path, tmp_path: Path
) -> None:
    raw, changed = package.read_bytes(), tmp_path / package.name
    place = raw.index(b"\xfd7zXZ") + 100  # in the compressed content
    changed.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    before = rpm_site.state()

    done = rpm_site.rpm("-i", "--nodigest", "--nosignature", changed)

    assert "scriptlet failed, exit status 22" in done.stderr
    assert rpm_site.state() == before


def test_the_payload_of_another_release_is_not_taken_for_it(
    rpm_site: Site, developers: Developers, draft: Draft, package: Path
) -> None:
    site = rpm_site
    # The body of %pre alone, run while the parent has another package open.
    other = developers.large_package(releases.with_files(draft, "other", {"app/VERSION": "2\n"}))
    body = site.host.run(["rpm", "-qp", "--qf", "%{PREIN}", site.carry(package)]).stdout
    site.host.write("/srv/body", body)
    site.host.write(
        "/srv/run.py",
        f"import subprocess\nfile = open('/srv/{other.name}.other')\n"
        "raise SystemExit(subprocess.run(['countersign-install', 'rpm-pre', 'x', '/srv/body'])"
        ".returncode)\n",
    )
    site.host.copy_in(other, f"/srv/{other.name}.other")
    before = site.state()

    done = site.host.run(["python3", "/srv/run.py"])

    assert done.returncode == 21
    assert "rpm has no package open that has the release which its %pre names" in done.stderr
    assert site.state() == before
