"""A release that accepts changes of released scripts: on hosts that ran them, and on new ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from installer.manifest import Accepted
from installer.tree import digest_of
from tests.acceptance import releases
from tests.developers import Developers, as_bytes
from tests.sites import Site

pytestmark = pytest.mark.acceptance

EDITED, GONE, LATE = "sql/0001_customers.sql", "sql/0002_a_hint.sql", "sql/0002_b_late.sql"
OLD = {**releases.FIRST, GONE: "INSERT INTO customer VALUES (2, 'of the script that is gone');\n"}
NEW = {
    **{path: content for path, content in releases.SECOND.items() if path != GONE},
    EDITED: f"{releases.FIRST[EDITED]!s}INSERT INTO customer VALUES (1, 'of the new bytes');\n",
    LATE: "INSERT INTO customer VALUES (3, 'of the late script');\n",
}
ROWS = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM customer"


@pytest.fixture(scope="module")
def old(developers: Developers) -> Path:
    """Release 1.0, with the scripts as they were."""
    return developers.package(releases.with_files(releases.first(developers), "old", OLD))


@pytest.fixture(scope="module")
def new(developers: Developers, old: Path) -> Path:
    """Release 1.1, which accepts what became of them."""
    assert old.exists()
    accept = [
        Accepted(EDITED, "edited", (digest_of(as_bytes(OLD[EDITED])),), "a first customer"),
        Accepted(GONE, "removed", (digest_of(as_bytes(OLD[GONE])),), "nobody asked for it"),
        Accepted(LATE, "late", (), "adds a row and nothing else"),
    ]
    draft = replace(releases.second(developers), files=NEW, starts=("empty", "1.0-old"))
    return developers.package(replace(draft, label="-accepted", accept=accept))


def scripts(site: Site) -> list[object]:
    """What the ledger has as applied from release 1.1."""
    return [
        row["script"]
        for row in site.ledger()
        if (row["version"], row["event"]) == ("1.1", "script applied")
    ]


def test_a_host_that_ran_the_old_scripts_runs_the_late_one_and_none_of_them_again(
    site: Site, old: Path, new: Path
) -> None:
    assert site.install(old).returncode == 0
    assert site.sql(ROWS) == "2"

    done = site.upgrade(new)

    assert done.returncode == 0, done.stdout + done.stderr
    assert site.sql(ROWS) == "2 3"
    assert scripts(site) == [LATE, "sql/0003_totals.sql", "sql/0004_notes.sql"]
    assert site.current() == "releases/1.1"
    status = site.installer("status")
    assert status.returncode == 0, status.stdout + status.stderr


def test_a_host_that_has_nothing_runs_the_scripts_as_they_are_now(site: Site, new: Path) -> None:
    done = site.install(new)

    assert done.returncode == 0, done.stdout + done.stderr
    assert site.sql(ROWS) == "1 3"
    assert scripts(site) == [
        EDITED,
        LATE,
        "sql/0002_orders.sql",
        "sql/0003_totals.sql",
        "sql/0004_notes.sql",
    ]
