"""A release with online scripts, on hosts: what stands when it is cut short, and is finished."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.developers import Developers, Draft
from tests.frontends import RPM
from tests.promotion import REQUIREMENTS, Promotion
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance

BEFORE, INDEX, FILL = "sql/0003_mood.sql", "sql/0005_index.sql", "sql/0006_fill.sql"
ONLINE = {
    BEFORE: "CREATE TYPE mood AS ENUM ('sad');\nALTER TYPE mood ADD VALUE 'glad';\n",
    "sql/0004_mood.sql": "ALTER TABLE customer ADD m mood DEFAULT 'glad';\n",
    INDEX: "CREATE INDEX CONCURRENTLY orders_customer ON orders (customer);\n",
    FILL: "UPDATE customer SET name = 'filled' WHERE name IS NULL;\n",
}
WHEN = {BEFORE: "before", INDEX: "after", FILL: "after"}
EVENTS = [
    f"statement applied {BEFORE} 1",
    f"statement applied {BEFORE} 2",
    f"script applied {BEFORE}",
    "script applied sql/0004_mood.sql",
    "release applied",
    f"statement started {INDEX} 1",
    f"statement applied {INDEX} 1",
    f"script applied {INDEX}",
    f"statement applied {FILL} 1",
    f"script applied {FILL}",
]


def draft(developers: Developers, label: str, **files: str) -> Draft:
    """Release 1.1 with online scripts, from 1.0; `files` are other contents of some of them."""
    named = {"before": BEFORE, "index": INDEX, "fill": FILL}
    scripts = ONLINE | {named[name]: content for name, content in files.items()}
    kept = {p: c for p, c in releases.SECOND.items() if not p.startswith(("sql/0003", "sql/0004"))}
    made = replace(releases.second(developers), files={**kept, **scripts}, online=WHEN)
    return replace(made, label=f"-{label}", starts=("1.0",))


@pytest.fixture(scope="module")
def package(developers: Developers, first: Path) -> Path:
    assert first.exists()
    return developers.package(draft(developers, "online"))


def allow(site: Site, developers: Developers) -> None:
    """Let the host's policy take online scripts."""
    policy = developers.policy(QAT=1, PRD=2).replace(
        "[require.QAT]", "[require.QAT]\nonline = true"
    )
    site.trust(policy, developers.keyring())


@pytest.fixture
def ready(rpm_site: Site, developers: Developers, first: Path) -> Site:
    """A host that has 1.0 and a policy that allows online scripts."""
    allow(rpm_site, developers)
    assert rpm_site.install(first).returncode == 0
    return rpm_site


def events(site: Site) -> list[str]:
    """What the ledger says of release 1.1."""
    return [
        " ".join(str(row[key]) for key in ("event", "script", "statement") if row[key])
        for row in site.ledger()
        if row["version"] == "1.1"
    ]


def upgrade(site: Site, package: Path, code: int) -> str:
    done = site.upgrade(package)
    words = done.stdout + done.stderr
    assert (done.returncode != 0) == bool(code), words
    assert not code or f"exit status {code}" in words, words
    return words


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_front_end_installs_a_release_with_online_scripts(
    site: Site, developers: Developers, first: Path, package: Path
) -> None:
    allow(site, developers)
    assert site.install(first).returncode == 0

    upgrade(site, package, 0)

    assert events(site) == EVENTS
    assert site.state().package == "1.1-1"
    assert site.current() == "releases/1.1"
    assert site.installer("status").returncode == 0
    *_, receipt = sorted(site.host.at("/var/lib/countersign/receipts").glob("crm-1.1-*.json"))
    database = json.loads(receipt.read_bytes())["database"]
    assert [script["name"] for script in database["scripts"]] == sorted(ONLINE)
    names = [change["name"] for change in database["schema"]["online"]["end"]["changes"]]
    assert any("orders_customer" in name for name in names)
    assert database["ledger"] == site.ledger()[-1]["hash"]


def test_an_environment_that_does_not_allow_it_takes_no_online_script(
    rpm_site: Site, first: Path, package: Path
) -> None:
    assert rpm_site.install(first).returncode == 0

    words = refused(rpm_site, package, 10)

    assert "QAT allows no scripts outside of the release's transaction" in words
    assert f"{BEFORE}, {INDEX}, {FILL}" in words
    assert "online = true in [require.QAT]" in words
    assert rpm_site.installer("check", package).returncode == 10
    assert rpm_site.sql("SELECT count(*) FROM pg_type WHERE typname = 'mood'") == "0"


def test_check_says_which_scripts_are_online(ready: Site, package: Path) -> None:
    done = ready.installer("check", package)

    assert done.returncode == 0, done.stderr
    assert f"would run {INDEX} (online, after the transaction)" in done.stdout


def test_a_failure_before_the_transaction_leaves_the_old_release_and_is_told(
    ready: Site, developers: Developers
) -> None:
    broken = ONLINE[BEFORE] + "ALTER TYPE mod ADD VALUE 'x';\n"
    package = developers.package(draft(developers, "broken-before", before=broken))
    before = ready.state()

    words = upgrade(ready, package, 37)

    after = ready.state()
    assert (after.package, after.application, after.files) == (
        before.package,
        before.application,
        before.files,
    )
    assert events(ready) == [*EVENTS[:2], "release failed"]
    assert f'{BEFORE}:3: type "mod" does not exist' in words.replace(":3:1:", ":3:")
    assert "The application is unchanged, and so is the database but for the online" in words
    status = ready.installer("status")
    assert status.returncode == 37
    assert f"the online script {BEFORE}: 2 of its statements are applied" in status.stdout

    ready.sql("SET ROLE crm_owner; CREATE TYPE mod AS ENUM ()")
    upgrade(ready, package, 0)

    assert events(ready)[-len(EVENTS) + 2 :][1:] == EVENTS[3:]
    assert ready.installer("status").returncode == 0


def test_a_first_release_that_fails_in_an_online_script_is_named_by_status(
    rpm_site: Site, developers: Developers
) -> None:
    allow(rpm_site, developers)
    broken = ONLINE[BEFORE] + "ALTER TYPE mod ADD VALUE 'x';\n"
    made = replace(draft(developers, "first-broken", before=broken), starts=("empty",))
    package = developers.package(made)

    upgrade(rpm_site, package, 37)

    status = rpm_site.installer("status", "crm")
    assert status.returncode == 37
    assert f"the online script {BEFORE}: 2 of its statements are applied" in status.stdout
    assert rpm_site.current() is None

    rpm_site.sql("SET ROLE crm_owner; CREATE TYPE mod AS ENUM ()")
    upgrade(rpm_site, package, 0)
    assert rpm_site.installer("status").returncode == 0


def test_a_failure_in_the_transaction_says_what_online_scripts_have_left(
    ready: Site, developers: Developers
) -> None:
    made = draft(developers, "broken-inside")
    broken = {"sql/0004_mood.sql": "ALTER TABLE customr ADD m mood DEFAULT 'glad';\n"}
    package = developers.package(replace(made, files={**made.files, **broken}))

    words = upgrade(ready, package, 33)

    assert "so is the database but for the online statements" in words
    assert ready.current() == "releases/1.0"
    assert events(ready) == [*EVENTS[:3], "release failed"]
    status = ready.installer("status")
    assert status.returncode == 37
    assert f"the online script {BEFORE} of 1.1 is applied, its release not" in status.stdout

    mended = replace(made, version="1.2", sequence=4, label="-mended")
    upgrade(ready, developers.package(mended), 0)

    assert ready.installer("status").returncode == 0
    assert ready.sql("SELECT count(*) FROM pg_attribute WHERE attname = 'm'") == "1"


def test_a_failure_after_the_transaction_is_finished_by_the_same_package(
    ready: Site, developers: Developers
) -> None:
    late = ONLINE[FILL] + "UPDATE late SET a = 1;\n"
    package = developers.package(draft(developers, "broken-after", fill=late))

    words = upgrade(ready, package, 37)

    assert "crm 1.1 is not wholly installed" in words
    assert "Database and application are at 1.1" in words
    assert ready.state().package == "1.0-1"
    assert ready.current() == "releases/1.1"
    assert events(ready) == [*EVENTS[:-1], "release failed"]
    status = ready.installer("status")
    assert status.returncode == 37
    assert f"online scripts of crm 1.1 are left: {FILL}" in status.stdout
    recover = ready.installer("recover")
    assert recover.returncode == 37
    assert "install the same package again" in recover.stderr
    assert ready.current() == "releases/1.1"

    ready.sql("SET ROLE crm_owner; CREATE TABLE late (a int)")
    upgrade(ready, package, 0)

    assert events(ready)[-2:] == [f"statement applied {FILL} 2", f"script applied {FILL}"]
    assert ready.state().package == "1.1-1"
    assert ready.installer("status").returncode == 0
    *_, receipt = sorted(ready.host.at("/var/lib/countersign/receipts").glob("crm-1.1-*.json"))
    facts = json.loads(receipt.read_bytes())
    assert facts["outcome"] == "installed"
    assert [script["name"] for script in facts["database"]["scripts"]] == sorted(ONLINE)


def test_the_next_release_finishes_what_the_one_before_left(
    ready: Site, developers: Developers
) -> None:
    late = ONLINE[FILL] + "UPDATE late SET a = 1;\n"
    left = draft(developers, "left", fill=late)
    package = developers.package(left)
    upgrade(ready, package, 37)
    third = replace(
        left,
        version="1.2",
        sequence=4,
        label="-after-left",
        starts=("1.1-left",),
        files={**left.files, "app/VERSION": "1.2\n"},
    )
    ready.sql("SET ROLE crm_owner; CREATE TABLE late (a int)")

    upgrade(ready, developers.package(third), 0)

    assert ready.current() == "releases/1.2"
    assert ready.state().package == "1.2-1"
    assert ready.installer("status").returncode == 0
    rows = [(row["version"], row["script"], row["event"]) for row in ready.ledger()]
    assert ("1.2", FILL, "script applied") in rows


@pytest.fixture
def reader(ready: Site) -> Iterator[Callable[[], str]]:
    """A session with an old snapshot, for which the index waits; the fixture's value ends it."""
    hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders; SELECT pg_sleep(60)"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    command = ["psql", "-X", "-q", "-d", "crm", "-c", hold]
    with ready.host.popen(["runuser", "-u", "postgres", "--", *command]) as session:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until(lambda: ready.sql(sleeping) == "1")
        yield lambda: ready.sql(end)
        ready.sql(end)
        session.communicate(timeout=30)


def test_the_installer_killed_while_an_index_is_built_is_put_right_by_the_same_package(
    ready: Site, package: Path, reader: Callable[[], str]
) -> None:
    index = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('orders_customer')"
    with ready.host.popen([*ready.front.upgrade, ready.carry(package)]) as install:
        until(lambda: ready.sql(index) == "f")
        ready.kill(ready.front.scriptlet)
        install.communicate(timeout=60)
    assert install.returncode != 0
    reader()
    until(lambda: ready.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0")
    assert events(ready) == EVENTS[:6]
    status = ready.installer("status")
    assert status.returncode == 37
    assert "number 1 was begun" in status.stdout
    was_valid = ready.sql(index)

    words = upgrade(ready, package, 0)

    assert ("its build was cut short" in words) == (was_valid == "f")
    assert ready.sql(index) == "t"
    assert events(ready) == EVENTS
    assert ready.installer("status").returncode == 0


def test_the_installer_killed_between_the_transaction_and_the_switch_finishes_with_online_scripts(
    ready: Site, package: Path
) -> None:
    injection = "rename,renameat,renameat2:signal=SIGKILL"
    cut = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", "/opt/crm/.current.new"]
    command = [*cut, "-e", f"inject={injection}", *ready.front.upgrade, ready.carry(package)]
    assert ready.host.run(command).returncode != 0
    assert events(ready) == EVENTS[:5]
    assert ready.current() == "releases/1.0"

    recover = ready.installer("recover")

    assert recover.returncode == 37
    assert ready.current() == "releases/1.1"
    upgrade(ready, package, 0)
    assert events(ready) == EVENTS
    assert ready.installer("status").returncode == 0


# From QAT to PRD


@pytest.fixture
def promotion(developers: Developers, installer: Path) -> Iterator[Promotion]:
    """Two hosts with 1.0, whose policy allows online scripts."""
    allowed = REQUIREMENTS.replace("]\n", "]\nonline = true\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.promotion.REQUIREMENTS", allowed)
        with Promotion.start(developers, installer, RPM) as started:
            started.promote(
                developers.package(signed(developers, releases.first(developers))), "1.0"
            )
            yield started


def signed(developers: Developers, made: Draft) -> Draft:
    """The release signed by both developers, as PRD requires."""
    starts = tuple(f"{start}-both" if start == "1.0" else start for start in made.starts)
    both = [developers.ada, developers.grace]
    return replace(made, label=f"{made.label}-both", signers=both, starts=starts)


def test_prd_runs_what_qat_ran_outside_of_the_transaction_too(
    promotion: Promotion, developers: Developers
) -> None:
    package = developers.package(signed(developers, draft(developers, "promoted")))

    promotion.promote(package, "1.1")

    prd = promotion.prd
    assert events(prd) == EVENTS
    receipts = [promotion.evidence(site, "1.1").facts for site in (promotion.qat, prd)]
    assert receipts[0]["database"]["schema"] == receipts[1]["database"]["schema"]
    assert prd.installer("status").returncode == 0


def test_a_schema_that_drifted_is_refused_before_any_online_script(
    promotion: Promotion, developers: Developers
) -> None:
    package = developers.package(signed(developers, draft(developers, "drifted")))
    tested(promotion, package)
    promotion.prd.sql("CREATE TABLE drift ()")

    words = refused(promotion.prd, package, 35)

    assert "the schema is not what QAT had before this release: " in words
    assert promotion.prd.sql("SELECT count(*) FROM pg_type WHERE typname = 'mood'") == "0"


def test_what_online_scripts_leave_is_compared_with_qat_at_the_end(
    promotion: Promotion, developers: Developers
) -> None:
    """On PRD there are rows which the last script makes something else of."""
    fill = (
        "DO $$ BEGIN IF EXISTS (SELECT FROM customer) THEN CREATE TABLE drift (); END IF; END $$;\n"
    )
    package = developers.package(signed(developers, draft(developers, "apart", fill=fill)))
    tested(promotion, package)
    prd = promotion.prd
    prd.sql("INSERT INTO customer VALUES (1, 'x')")

    words = upgrade(prd, package, 35)

    assert "the online scripts make of the schema something else than in QAT" in words
    assert "Database and application are at 1.1" in words
    assert prd.current() == "releases/1.1"
    assert prd.installer("status").returncode != 0

    prd.sql("DROP TABLE drift")
    upgrade(prd, package, 0)
    assert prd.installer("status").returncode == 0


def tested(promotion: Promotion, package: Path) -> None:
    """QAT has the release, and the customer approved it for PRD."""
    assert promotion.qat.upgrade(package).returncode == 0
    evidence = promotion.evidence(promotion.qat, "1.1")
    promotion.place(promotion.approval(package, evidence), evidence)
