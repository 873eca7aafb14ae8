"""A busy database: what an install does about tables that others have locked.

The package manager has no part in it: once is enough.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.developers import Developers
from tests.hosts.cluster import SOCKETS, program
from tests.promotion import make_key, receipts
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance

HOST_FILE = "/etc/countersign/host.toml"
READING = "BEGIN; SELECT count(*) FROM orders; SELECT pg_sleep({seconds}); COMMIT;"


@pytest.fixture
def busy(rpm_site: Site, developers: Developers, first: Path) -> Site:
    """A host with release 1.0, whose statements wait for a lock for 0.2 s, and 3 s in all."""
    text = rpm_site.host.at(HOST_FILE).read_text()
    patient = text.replace("lock_timeout = 2", "lock_timeout = 0.2")
    rpm_site.host.write(HOST_FILE, patient.replace("lock_wait = 5", "lock_wait = 3"))
    rpm_site.host.psql("GRANT pg_read_all_stats TO countersign")  # to see what others run
    make_key(developers, rpm_site)
    assert rpm_site.install(first).returncode == 0
    return rpm_site


@contextmanager
def reader(site: Site, seconds: float) -> Iterator[None]:
    """A transaction of somebody else's that has read a table, and takes its time."""
    sql = READING.format(seconds=seconds)
    command = [str(program("psql")), "-XqAt", "-h", SOCKETS, "-U", "postgres", "-d", "crm"]
    with site.host.popen([*command, "-c", sql], env={"PGAPPNAME": "report"}) as reading:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        deadline = time.monotonic() + 30
        while site.sql(waiting) == "0":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        reading.kill_session()


def test_a_lock_that_is_given_back_in_time_is_waited_for_by_trying_again(
    busy: Site, second: Path
) -> None:
    with reader(busy, 1.5):
        done = busy.upgrade(second)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "trying again in" in done.stdout
    assert busy.state().objects == "customer note orders"
    *_, receipt = receipts(busy)
    retries = receipt["database"]["retries"]
    assert len(retries) >= 2
    assert "canceling statement due to lock timeout" in retries[0]["reason"]
    assert "held by pid" in retries[1]["reason"]
    assert "user postgres, report" in retries[1]["reason"]
    assert [run["name"] for run in receipt["database"]["scripts"]] == [
        "sql/0003_totals.sql",
        "sql/0004_notes.sql",
    ]


def test_a_lock_that_is_not_given_back_is_refused_and_its_holder_named(
    busy: Site, second: Path
) -> None:
    with reader(busy, 30):
        words = refused(busy, second, 31)

    assert "sql/0003_totals.sql:1: canceling statement due to lock timeout" in words
    assert "held by pid" in words
    assert "(user postgres, report, since" in words
    assert "SELECT count(*) FROM orders" in words
    assert "lock_wait in /etc/countersign/host.toml" in words
    assert busy.ledger()[-1]["event"] == "release failed"
    *_, receipt = receipts(busy)
    assert receipt["failure"]["exit_code"] == 31
    assert len(receipt["database"]["retries"]) >= 3
