"""Others at work in the database: hosts that install too, a dump, a reader, a vacuum.

The package manager has no part in it: once is enough.
"""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import releases
from tests.developers import Developers
from tests.hosts import HostProcess
from tests.hosts.cluster import LOG, SOCKETS, program
from tests.sites import HOST_FILE, OBJECTS, Site, refused

pytestmark = pytest.mark.acceptance

HOSTS = 50
TIMEOUT = 120
"""Seconds that anything here waits at most."""

OWN = ("/opt/crm", "/var/lib/countersign", "/var/log/countersign")
"""What a host does not share with others: its application, its memory and its log."""

AS_ANOTHER_HOST = f"""
hostname "$1"
for folder in {" ".join(OWN)}; do mount --bind "/srv/hosts/$1$folder" "$folder"; done
shift
exec countersign-install "$@"
"""
READER = ("BEGIN", "SELECT count(*) FROM orders")
"""Somebody who has read a table, and is idle in a transaction."""

WAITED_FOR = "EXISTS (SELECT FROM pg_locks WHERE NOT granted AND {})"
AT_THE_TABLE = WAITED_FOR.format("relation = 'orders'::regclass")
AT_THE_INSTALL_LOCK = """
count(*) = {} FROM pg_stat_activity WHERE usename = 'countersign' AND query LIKE '%advisory%'
"""
CUSTOMERS = "INSERT INTO customer SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) AS n"
DUMP = (str(program("pg_dump")), "-h", SOCKETS, "-U", "postgres", "crm")
SLOWLY_VACUUMED = (
    "ALTER SYSTEM SET autovacuum = off",
    "SELECT pg_reload_conf()",
    "INSERT INTO orders SELECT generate_series(1, 20000)",
    "ALTER TABLE orders SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
    "ALTER SYSTEM SET autovacuum_naptime = '1s'",
    "{}",
    "ALTER SYSTEM RESET autovacuum",
    "SELECT pg_reload_conf()",
)
ORDINARY = "DELETE FROM orders WHERE id % 2 = 0"
AGAINST_WRAPAROUND = """
ALTER TABLE orders SET (autovacuum_freeze_max_age = 100000);
DO $$ BEGIN
    CREATE TEMPORARY TABLE spent ();
    FOR i IN 1..100100 LOOP
        BEGIN INSERT INTO spent DEFAULT VALUES; EXCEPTION WHEN division_by_zero THEN END;
    END LOOP;
END $$
"""
"""A transaction's number for each turn of the loop."""


@dataclass(frozen=True, slots=True)
class OtherHost:
    """A host with the same database as the site, which it is in all but its name and OWN."""

    site: Site
    name: str

    @classmethod
    def like(cls, site: Site, name: str) -> "OtherHost":
        """A host on which the same release is installed."""
        made = cls(site, name)
        for folder in OWN:
            site.host.copy_in(site.host.at(folder), f"/srv/hosts/{name}{folder}")
        return made

    def start(self, *arguments: str) -> HostProcess:
        """Start countersign-install on it."""
        names = ("unshare", "--mount", "--uts")
        return self.site.host.popen(
            [*names, "sh", "-ec", AS_ANOTHER_HOST, "sh", self.name, *arguments]
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run countersign-install on it; the exit code, and all that it said."""
        return ended(self.start(*arguments))

    def current(self) -> str:
        """Where the application's `current` leads."""
        return str((self.at("/opt/crm") / "current").readlink())

    def receipts(self, version: str) -> list[dict[str, Any]]:
        """Its receipts of a release."""
        files = self.at("/var/lib/countersign/receipts").glob(f"crm-{version}-*.json")
        return [json.loads(file.read_bytes()) for file in files]

    def at(self, path: str) -> Path:
        """Where a path below one of OWN is for the machine."""
        return self.site.host.root / f"srv/hosts/{self.name}{path}"


@pytest.fixture
def site(rpm_site: Site, first: Path) -> Site:
    """A host with release 1.0."""
    rpm_site.host.psql("GRANT pg_read_all_stats TO countersign")  # to see what others run
    assert rpm_site.installer("apply", first).returncode == 0
    return rpm_site


@pytest.fixture
def third(developers: Developers, second: Path) -> Path:
    """The package of release 1.2, which starts from 1.0 or from 1.1."""
    assert second.exists()
    draft = replace(releases.third(developers), starts=("1.0", "1.1"), label="-of-both")
    return developers.package(draft)


@pytest.fixture
def rewriting(developers: Developers, first: Path) -> Path:
    """Release 1.1 with a script that writes a table anew, and then waits for somebody."""
    assert first.exists()
    sql = (
        "ALTER TABLE customer ALTER name TYPE bytea USING name::bytea;\n"
        "SELECT pg_advisory_xact_lock(1);\n"
    )
    draft = releases.with_files(
        releases.second(developers), "rewriting", {"sql/0003_totals.sql": sql}
    )
    return developers.package(draft)


def configure(site: Site, *, lock_timeout: float, lock_wait: int) -> None:
    """Give the host file other times, in seconds."""
    text = HOST_FILE.format(environment="QAT")
    text = text.replace("lock_timeout = 2", f"lock_timeout = {lock_timeout}")
    text = text.replace("lock_wait = 5", f"lock_wait = {lock_wait}")
    site.host.write("/etc/countersign/host.toml", text)


@contextmanager
def session(site: Site, *statements: str) -> Iterator[None]:
    """Somebody's session that has run these statements, and is idle until it ends."""
    command = [str(program("psql")), "-XqAt", "-h", SOCKETS, "-U", "postgres", "-d", "crm"]
    with site.host.popen(command, stdin=subprocess.PIPE, env={"PGAPPNAME": "report"}) as psql:
        assert psql.stdin
        assert psql.stdout
        psql.stdin.write(";\n".join([*statements, "SELECT 'done'"]) + ";\n")
        psql.stdin.flush()
        assert "done\n" in iter(psql.stdout.readline, "")
        yield
        psql.communicate(timeout=TIMEOUT)


def until(site: Site, condition: str) -> None:
    """Wait until it holds in the database."""
    deadline = time.monotonic() + TIMEOUT
    while site.sql(f"SELECT {condition}") != "t":
        assert time.monotonic() < deadline, condition
        time.sleep(0.1)


def ended(process: HostProcess) -> tuple[int, str]:
    """Wait for its end; the exit code, and all that it said."""
    words = "".join(process.communicate(timeout=TIMEOUT))
    return process.returncode, words


def events(site: Site) -> Counter[tuple[object, object]]:
    """How often what happened to which version, as the ledger says."""
    return Counter((row["event"], row["version"]) for row in site.ledger())


def assert_sound(site: Site) -> None:
    """Nothing waited for itself, and the ledger is one chain."""
    assert "deadlock detected" not in site.host.at(LOG).read_text()
    assert site.sql("SELECT countersign.first_broken()") == ""


def test_fifty_hosts_that_install_one_release_at_once_apply_it_once(
    site: Site, second: Path
) -> None:
    configure(site, lock_timeout=TIMEOUT, lock_wait=TIMEOUT)
    hosts = [OtherHost.like(site, f"host{number}") for number in range(HOSTS)]
    package = site.carry(second)

    with session(site, *READER):  # one holds the install lock until all others want it
        installs = [host.start("apply", package) for host in hosts]
        until(site, AT_THE_INSTALL_LOCK.format(HOSTS - 1))
    said = [process.communicate(timeout=TIMEOUT) for process in installs]

    assert [process.returncode for process in installs] == [0] * HOSTS, said
    assert all(stdout.endswith("crm 1.1: installed\n") for stdout, _ in said)
    assert events(site) == {
        ("script applied", "1.0"): 2,
        ("release applied", "1.0"): 1,
        ("script applied", "1.1"): 2,
        ("release applied", "1.1"): 1,
    }
    assert_sound(site)
    assert {host.current() for host in hosts} == {"releases/1.1"}
    receipts = [receipt for host in hosts for receipt in host.receipts("1.1")]
    assert len(receipts) == HOSTS
    measured = [receipt["host"] for receipt in receipts if receipt["database"]]
    assert measured == [site.ledger()[-1]["host"]]
    assert hosts[0].run("status")[0] == hosts[-1].run("status")[0] == 0


def test_a_host_whose_turn_does_not_come_in_time_is_refused_and_installs_later(
    site: Site, second: Path
) -> None:
    configure(site, lock_timeout=TIMEOUT, lock_wait=1)
    other = OtherHost.like(site, "other")
    with session(site, *READER):
        install = other.start("apply", site.carry(second))
        until(site, AT_THE_TABLE)

        words = refused(site, second, 31)

    assert "another install holds the lock of database crm for more than 1 s: pid" in words
    assert "(countersign crm 1.1, user countersign, since" in words
    assert ended(install)[0] == 0
    assert site.upgrade(second).returncode == 0
    assert (site.current(), other.current()) == ("releases/1.1", "releases/1.1")
    assert events(site)["release applied", "1.1"] == 1
    assert_sound(site)


@pytest.mark.parametrize("order", [("1.1", "1.2"), ("1.2", "1.1")], ids=" before ".join)
def test_two_releases_at_once_have_one_order(
    site: Site, second: Path, third: Path, order: tuple[str, str]
) -> None:
    configure(site, lock_timeout=TIMEOUT, lock_wait=TIMEOUT)
    packages = {"1.1": site.carry(second), "1.2": site.carry(third)}
    hosts = [OtherHost.like(site, f"host{version}") for version in order]

    with session(site, *READER):  # the first of them waits for it, the second for the first
        installs = [hosts[0].start("apply", packages[order[0]])]
        until(site, AT_THE_TABLE)
        installs.append(hosts[1].start("apply", packages[order[1]]))
        until(site, AT_THE_INSTALL_LOCK.format(1))
    (code, words), (later_code, later_words) = map(ended, installs)

    assert (code, hosts[0].current()) == (0, f"releases/{order[0]}"), words
    applied = [row["version"] for row in site.ledger() if row["event"] == "release applied"]
    if order == ("1.1", "1.2"):
        assert (later_code, hosts[1].current()) == (0, "releases/1.2"), later_words
        assert applied == ["1.0", "1.1", "1.2"]
    else:
        assert (later_code, hosts[1].current()) == (24, "releases/1.0"), later_words
        assert "it has sequence 3, and the ledger of the database is at 4 already" in later_words
        assert applied == ["1.0", "1.2"]
        assert events(site)["release failed", "1.1"] == 1
    assert_sound(site)
    behind = next(host for host in hosts if host.current() != "releases/1.2")
    code, words = behind.run("status")
    assert code == 32
    assert "the ledger's newest release is 1.2, this host has 1." in words
    assert behind.run("apply", packages["1.2"])[0] == 0
    assert behind.run("status")[0] == 0


@contextmanager
def dumping(site: Site) -> Iterator[HostProcess]:
    """A dump that has locked every table, and goes on once somebody reads it."""
    site.sql(CUSTOMERS)
    with site.host.popen(DUMP) as dump:
        until(site, "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY public.cust%')")
        yield dump


def test_a_dump_is_waited_for_and_named_and_is_of_the_old_release(site: Site, second: Path) -> None:
    configure(site, lock_timeout=0.5, lock_wait=2)
    with dumping(site) as dump:
        words = refused(site, second, 31)

        configure(site, lock_timeout=0.5, lock_wait=TIMEOUT)
        install = OtherHost.like(site, "other").start("apply", site.carry(second))
        assert install.stdout
        assert any("trying again in" in line for line in install.stdout)
        code, dumped = ended(dump)

    assert "sql/0003_totals.sql:1: canceling statement due to lock timeout" in words
    assert "(user postgres, pg_dump, since" in words
    assert "COPY public.customer" in words
    assert ended(install)[0] == 0
    assert site.state().objects == "customer note orders"
    assert code == 0
    site.host.psql("CREATE DATABASE restored")
    site.host.psql(dumped, "restored")
    assert site.host.psql(OBJECTS, "restored") == "customer orders"
    assert site.host.psql("SELECT count(*) FROM customer", "restored") == "5000"
    newest = "SELECT max(version) FROM countersign.ledger WHERE event = 'release applied'"
    assert site.host.psql(newest, "restored") == "1.0"
    assert site.host.psql("SELECT countersign.first_broken()", "restored") == ""


def test_a_dump_that_begins_while_a_release_rewrites_a_table_lacks_its_rows(
    site: Site, rewriting: Path
) -> None:
    configure(site, lock_timeout=TIMEOUT, lock_wait=TIMEOUT)
    site.sql(CUSTOMERS)
    with session(site, "SELECT pg_advisory_lock(1)"):
        install = OtherHost.like(site, "other").start("apply", site.carry(rewriting))
        until(site, WAITED_FOR.format("locktype = 'advisory'"))
        impatient = site.host.run([*DUMP, "--lock-wait-timeout=1"])
        dump = site.host.popen(DUMP)
        until(site, WAITED_FOR.format("relation = 'customer'::regclass"))

    assert ended(install)[0] == 0
    assert site.sql("SELECT count(*) FROM customer") == "5000"
    code, dumped = ended(dump)
    # PostgreSQL, "Caveats" of concurrency control: to a snapshot from before, the table is empty.
    assert code == 0
    assert "COPY public.customer (id, name) FROM stdin;\n\\.\n" in dumped
    assert impatient.returncode == 1
    assert "LOCK TABLE public.customer IN ACCESS SHARE MODE" in impatient.stderr


def vacuum_slowly(site: Site, why: str) -> None:
    """Let the server begin a vacuum of a table by itself, which takes minutes."""
    for statement in SLOWLY_VACUUMED:
        site.sql(statement.format(why))
    until(site, "EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'orders'::regclass)")


def test_an_autovacuum_makes_way_where_lock_timeout_is_longer_than_deadlock_timeout(
    site: Site, second: Path
) -> None:
    vacuum_slowly(site, ORDINARY)
    configure(site, lock_timeout=0.5, lock_wait=2)
    words = refused(site, second, 31)
    assert re.search(r"held by pid .*: autovacuum: VACUUM .*public\.orders\n", words), words

    configure(site, lock_timeout=30, lock_wait=TIMEOUT)
    done = site.upgrade(second)

    assert done.returncode == 0, done.stdout + done.stderr
    assert site.state().objects == "customer note orders"
    assert "ERROR:  canceling autovacuum task" in site.host.at(LOG).read_text()


def test_a_vacuum_against_wraparound_makes_no_way_and_is_named(site: Site, second: Path) -> None:
    vacuum_slowly(site, AGAINST_WRAPAROUND)
    configure(site, lock_timeout=1.5, lock_wait=2)

    words = refused(site, second, 31)

    assert re.search(r"held by pid .*: autovacuum: VACUUM .*\(to prevent wraparound\)\n", words)
    assert "canceling autovacuum task" not in site.host.at(LOG).read_text()
