"""What a sysadmin does: install and upgrade with the real rpm."""

import pytest

from tests.acceptance import releases
from tests.developers import Developers
from tests.sites import Site

pytestmark = pytest.mark.acceptance


def test_rpm_installs_and_upgrades_database_and_application_together(
    site: Site, developers: Developers
) -> None:
    first = developers.package(releases.first(developers))
    second = developers.package(releases.second(developers))

    done = site.rpm("-i", first)
    print(done)
    assert done.returncode == 0, done.stderr
    done = site.rpm("-U", second)
    print(done)
    assert done.returncode == 0, done.stderr
    print(site.state())
    print(site.installer("status"))
    print(site.installer("history"))
    assert 0
