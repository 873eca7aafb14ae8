"""A real project's history: `litellm-proxy-extras` 0.4.95, 0.4.100 and 0.4.110.

Nothing in their wheels is changed. They have indexes that are made CONCURRENTLY, released scripts
that were edited, and new ones that sort before released ones. The build refuses each release with
every one of those named; what has to be said here is found in the wheels' files. With the entries
of release.toml that its messages print, the releases go through QAT to PRD, and the database is
what plain psql makes of the wheels' own files.

With rpm, for the reason that `test_real_project` has.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from textwrap import dedent
from typing import Any

import pytest

from installer.tree import scan
from tests.acceptance.test_real_project import AS_IT_IS, MIGRATIONS, PRODUCT, PROJECT
from tests.acceptance.test_real_project import NEW as OLD
from tests.developers import Developers
from tests.downloads import Wheel, unpacked
from tests.hosts.cluster import installation
from tests.product import Product
from tests.promotion import REQUIREMENTS, Promotion, receipts
from tests.real_projects import describe, dump, empty_site, ledger, psql_files, repository, state
from tests.sites import Site

pytestmark = pytest.mark.acceptance

MIDDLE = Wheel(
    PROJECT, "0.4.100", "c7786d0e2f9c28a350b192d480a4a76feb9ebca915920b77dda32065fbf4a62b"
)
NEW = Wheel(PROJECT, "0.4.110", "2a488653b7e5eb97e7a2c84fb67818dfbdbd1d799cd61832f1b5d151c229e907")
CHAIN = (OLD, MIDDLE, NEW)
STARTS: Mapping[Wheel, tuple[Wheel | None, ...]] = {
    OLD: (None,),
    MIDDLE: (OLD,),
    NEW: (None, MIDDLE),
}
"""Where each release starts from; None: from nothing."""

CONCURRENT = re.compile(rb'^CREATE INDEX CONCURRENTLY IF NOT EXISTS ("\w+")', re.MULTILINE)
ENTRY = re.compile(r"^ *\[\[database\.\w+\]\]\n(?: *\w+ = .*\n)+", re.MULTILINE)
REASON = "The application makes these indexes, and nothing else touches what the late ones add"
ALLOWED = REQUIREMENTS.replace("]\n", "]\nonline = true\n")


# -------------------------------------------------------------------------- what the wheels have


@dataclass(frozen=True, slots=True)
class Step:
    """From one wheel's migrations to the next one's: the bytes of each, by its name."""

    old: Mapping[str, bytes]
    new: Mapping[str, bytes]

    @property
    def added(self) -> list[str]:
        return sorted(self.new.keys() - self.old.keys())

    @property
    def concurrent(self) -> list[str]:
        return [name for name in self.added if CONCURRENT.search(self.new[name])]

    @property
    def late(self) -> list[str]:
        return [name for name in self.added if name < max(self.old, default="")]

    @property
    def edited(self) -> list[str]:
        both = sorted(self.new.keys() & self.old.keys())
        return [name for name in both if self.new[name] != self.old[name]]

    @property
    def entries(self) -> dict[str, list[dict[str, object]]]:
        """What release.toml has to say of it, by the docs; reasons left open."""
        online: list[dict[str, object]] = [
            {"script": script(name), "when": "after"} for name in self.concurrent
        ]
        edited = [
            self._accept(name, "edited", applied=[digest(self.old[name])]) for name in self.edited
        ]
        late = [self._accept(name, "late") for name in self.late]
        return {"online": online, "accept": [*edited, *late]}

    def _accept(self, name: str, change: str, **more: object) -> dict[str, object]:
        known = {"script": script(name), "change": change, "digest": digest(self.new[name])}
        return {**known, **more, "reason": "…"}


def script(name: str) -> str:
    """A migration's path in the product's repository."""
    return f"{AS_IT_IS}/{name}/migration.sql"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def line_of_index(content: bytes) -> int:
    """The line on which a migration makes its index."""
    found = CONCURRENT.search(content)
    assert found
    return content.count(b"\n", 0, found.start()) + 1


# ------------------------------------------------------------------------------------ the releases


@dataclass(frozen=True, slots=True)
class Litellm:
    """The product's repository, with all releases tagged, and the developers who release it."""

    product: Product
    developers: Developers
    wheels: Mapping[Wheel, Path]

    def migrations(self, wheel: Wheel | None) -> dict[str, bytes]:
        """The bytes of a wheel's migrations, by their names; None has none."""
        if wheel is None:
            return {}
        files = (self.wheels[wheel] / MIGRATIONS).glob("*/migration.sql")
        return {file.parent.name: file.read_bytes() for file in files}

    def steps(self, wheel: Wheel) -> list[Step]:
        new = self.migrations(wheel)
        return [Step(self.migrations(start), new) for start in STARTS[wheel]]

    def upgrades(self) -> list[tuple[Wheel, Step]]:
        """What a host does that has one release after the other."""
        olds = (None, *CHAIN)
        return [
            (new, Step(self.migrations(old), self.migrations(new)))
            for old, new in zip(olds, CHAIN, strict=False)
        ]

    def describe(self, wheel: Wheel, entries: Sequence[str] = ()) -> Path:
        """A release.toml with further entries."""
        starts = starting_points(wheel)
        sequence = int(wheel.version.rpartition(".")[2])
        scripts = f"{AS_IT_IS}/*/migration.sql"
        text = describe(PRODUCT, wheel.version, sequence, starts=starts, scripts=scripts)
        self.product.release.write_text("\n".join([text, *entries]))
        return self.product.release

    def package(self, wheel: Wheel) -> Path:
        """The release's RPM, with what the messages ask for: rehearsed, and signed by both."""
        told = self.developers.countersign("check", "-r", self.describe(wheel), check=False).stderr
        release = self.describe(wheel, [filled(entry) for entry in entries(told)])
        self.developers.countersign("check", "-r", release)
        output = self.developers.folder / f"chain-{wheel.version}"
        self.developers.countersign("rehearse", "-r", release, "-o", output)
        for key in (self.developers.ada, self.developers.grace):
            self.developers.countersign("sign", "-r", release, "-o", output, "--key", key)
        done = self.developers.countersign("build", "-r", release, "-o", output, "--json")
        return Path(json.loads(done.stdout)["package"])


def starting_points(wheel: Wheel) -> list[str]:
    """The tags, or `empty`, that a release starts from."""
    return [f"v{start.version}" if start else "empty" for start in STARTS[wheel]]


def entries(told: str) -> list[str]:
    """The entries of release.toml that are in an error's message, to be copied."""
    return [dedent(entry) for entry in ENTRY.findall(told)]


def filled(entry: str) -> str:
    return entry.replace('"…"', json.dumps(REASON))


@pytest.fixture(scope="module")
def litellm(developers: Developers, tmp_path_factory: pytest.TempPathFactory) -> Litellm:
    """The product's repository: a commit for each wheel."""
    folder = tmp_path_factory.mktemp("chain")
    wheels = {wheel: unpacked(wheel, folder / wheel.version) for wheel in CHAIN}
    tags = {f"v{wheel.version}": contents for wheel, contents in wheels.items()}
    product = repository(folder / "repository", tags)
    return Litellm(product, developers, wheels)


@pytest.fixture(scope="module")
def packages(litellm: Litellm) -> Mapping[Wheel, Path]:
    return {wheel: litellm.package(wheel) for wheel in CHAIN}


# --------------------------------------------------------------------------- what the build refuses


@pytest.mark.parametrize("wheel", CHAIN, ids=lambda wheel: wheel.version)
def test_check_names_every_offender_at_once_with_the_entry_for_it(
    litellm: Litellm, tmp_path: Path, wheel: Wheel
) -> None:
    # From nothing, the step has all indexes; from a release, what was edited and what is late.
    whole, last = litellm.steps(wheel)[0], litellm.steps(wheel)[-1]
    found = (len(whole.concurrent), len(last.edited), len(last.late))
    assert found == {OLD: (1, 0, 0), MIDDLE: (1, 0, 4), NEW: (5, 2, 2)}[wheel]

    release = litellm.describe(wheel)
    done = litellm.developers.countersign("check", "-r", release, "-o", tmp_path, check=False)

    assert done.returncode == 52
    told = done.stderr
    for name in whole.concurrent:
        line = line_of_index(whole.new[name])
        assert f"{script(name)}:{line}: CREATE INDEX CONCURRENTLY cannot run inside" in told
    for name in last.edited:
        assert f"\n{script(name)} was edited after it was released: applied as " in told
    for name in last.late:
        released = f"{script(max(last.old))}, which was applied"
        assert f"\n{script(name)} is new and sorts before {released}" in told
    words = (": CREATE INDEX CONCURRENTLY", " was edited after", " is new and sorts before ")
    assert tuple(map(told.count, words)) == found
    expected = {"online": whole.entries["online"], "accept": last.entries["accept"]}
    assert parsed(entries(told)) == {key: value for key, value in expected.items() if value}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wheel", CHAIN, ids=lambda wheel: wheel.version)
def test_nothing_is_made_of_a_release_as_it_is(
    litellm: Litellm, tmp_path: Path, wheel: Wheel
) -> None:
    release = litellm.describe(wheel)

    done = litellm.developers.countersign("build", "-r", release, "-o", tmp_path, check=False)

    assert done.returncode == 52
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wheel", [MIDDLE, NEW], ids=lambda wheel: wheel.version)
def test_nothing_is_made_of_a_release_whose_changes_nobody_accepts(
    litellm: Litellm, tmp_path: Path, wheel: Wheel
) -> None:
    told = litellm.developers.countersign("check", "-r", litellm.describe(wheel), check=False)
    online = [entry for entry in entries(told.stderr) if "[[database.online]]" in entry]
    release = litellm.describe(wheel, online)

    done = litellm.developers.countersign("build", "-r", release, "-o", tmp_path, check=False)

    assert done.returncode == 51
    # What is online has an order of its own: it is not late.
    step = litellm.steps(wheel)[-1]
    accept = [
        entry for entry in step.entries["accept"] if not is_online(step, str(entry["script"]))
    ]
    assert parsed(entries(done.stderr)) == {"accept": accept}
    assert not list(tmp_path.rglob("*.rpm"))


def is_online(step: Step, path: str) -> bool:
    return Path(path).parent.name in step.concurrent


def parsed(found: Sequence[str]) -> dict[str, Any]:
    """Entries as TOML has them."""
    read: dict[str, Any] = tomllib.loads("\n".join(found)).get("database", {})
    return read


# ------------------------------------------------------------------------------ through QAT to PRD


@dataclass(frozen=True, slots=True)
class Promoted:
    """A QAT host and a PRD host, and what the customer read before signing each release."""

    qat: Site
    prd: Site
    briefings: Mapping[Wheel, str]


@pytest.fixture(scope="module")
def promoted(
    developers: Developers, installer: Path, packages: Mapping[Wheel, Path]
) -> Iterator[Promoted]:
    """Both hosts with the three releases, which they had one after the other."""
    customer = developers.keys.new_key("The Customer of litellm <customer@example.org>")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        qat, prd = (
            stack.enter_context(empty_site(installer, PRODUCT, environment))
            for environment in ("QAT", "PRD")
        )
        patched.setattr("tests.promotion.REQUIREMENTS", ALLOWED)
        promotion = Promotion(developers, qat, prd, customer)
        promotion.agree_on_policy()
        briefings = {wheel: promote(promotion, packages[wheel], wheel) for wheel in CHAIN}
        yield Promoted(qat, prd, briefings)


def promote(promotion: Promotion, package: Path, wheel: Wheel) -> str:
    """Install a release on QAT, have the customer approve it, and install it on PRD.

    Returns what the customer read.
    """
    must_succeed(promotion.qat.rpm("-U", package))
    evidence = promotion.evidence(promotion.qat, wheel.version)
    folder = package.parent / "customer"
    folder.mkdir()
    (folder / "QAT.json").write_bytes(evidence.raw)
    (folder / "QAT.json.asc").write_bytes(evidence.signature)
    wanted = ("--receipt", folder / "QAT.json", "--environment", "PRD", "--yes", "-o", folder)
    approved = promotion.developers.countersign(
        "approve", package, *wanted, "--key", promotion.customer
    )
    (companion,) = folder.glob("*.rpm")
    must_succeed(promotion.prd.rpm("-U", companion))
    must_succeed(promotion.prd.rpm("-U", package))
    return approved.stdout


def must_succeed(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_customer_reads_what_was_rehearsed_and_accepted_and_what_is_online(
    promoted: Promoted, litellm: Litellm
) -> None:
    for wheel, step in litellm.upgrades():
        read = promoted.briefings[wheel]
        starts = ", ".join(starting_points(wheel))
        assert f"  rehearsed on PostgreSQL {installation().name} from {starts}\n" in read
        assert "This release is not one transaction\n" in read
        for name in step.concurrent:
            assert f"\n  {script(name)} runs after the transaction, " in read
        assert ("Released scripts were changed" in read) == bool(step.edited or step.late)
        for name in step.edited:
            digests = (digest(step.old[name])[:16], digest(step.new[name])[:16])
            applied = "applied as {}…, now {}…".format(*digests)
            assert (
                f"\n  {script(name)}: edited after it was released: {applied}: {REASON}\n" in read
            )
        for name in step.late:
            assert f"\n  {script(name)}: new, and sorts before a released one: " in read


def test_both_hosts_have_what_psql_makes_of_the_wheels(
    promoted: Promoted, litellm: Litellm
) -> None:
    qat = promoted.qat.host
    for wheel, step in litellm.upgrades():
        fill_plain(promoted.qat, litellm, wheel, step.added)

    assert dump(qat, "litellm") == dump(qat, "plain")
    assert dump(promoted.prd.host, "litellm") == dump(qat, "plain")
    assert dump(qat, "plain").count("CREATE TABLE") > 60


def test_both_hosts_have_the_new_wheel_and_are_clean(promoted: Promoted, litellm: Litellm) -> None:
    for site in (promoted.qat, promoted.prd):
        assert state(site, PRODUCT).package == "litellm-0.4.110-1.noarch"
        assert scan(site.host.at("/opt/litellm/current")) == scan(litellm.wheels[NEW])
        status = site.installer("status")
        assert status.returncode == 0, status.stdout + status.stderr


def test_every_index_that_was_made_concurrently_is_there_and_valid(
    promoted: Promoted, litellm: Litellm
) -> None:
    made = {
        found[1].decode().strip('"')
        for _, step in litellm.upgrades()
        for name in step.concurrent
        if (found := CONCURRENT.search(step.new[name]))
    }
    assert len(made) == 6

    for site in (promoted.qat, promoted.prd):
        sql = "SELECT indexrelid::regclass FROM pg_index WHERE {}"
        valid = site.host.psql(sql.format("indisvalid AND indisready"), "litellm").splitlines()
        assert made <= {name.strip('"') for name in valid}
        assert site.host.psql(sql.format("NOT indisvalid"), "litellm") == ""


def test_the_ledger_has_each_script_once_and_each_statement_of_those_that_are_online(
    promoted: Promoted, litellm: Litellm
) -> None:
    for site in (promoted.qat, promoted.prd):
        rows = ledger(site, PRODUCT)
        for wheel, step in litellm.upgrades():
            assert events(rows, wheel) == expected_events(step)


def test_a_host_that_ran_an_edited_script_does_not_run_it_again(
    promoted: Promoted, litellm: Litellm
) -> None:
    (step,) = (step for wheel, step in litellm.upgrades() if wheel is NEW)
    assert len(step.edited) == 2

    for site in (promoted.qat, promoted.prd):
        for name in step.edited:
            rows = [
                row
                for row in ledger(site, PRODUCT)
                if (row["script"], row["event"]) == (script(name), "script applied")
            ]
            assert [row["version"] for row in rows] == [MIDDLE.version]
            assert rows[0]["script_digest"] == digest(step.old[name])


def test_each_release_has_a_receipt_on_both_hosts_of_the_same_schema(
    promoted: Promoted, litellm: Litellm
) -> None:
    made = {site: receipts(site) for site in (promoted.qat, promoted.prd)}

    for wheel, step in litellm.upgrades():
        pair = [
            receipt
            for found in made.values()
            for receipt in found
            if receipt["release"]["version"] == wheel.version
        ]
        assert [receipt["environment"] for receipt in pair] == ["QAT", "PRD"]
        qat, prd = pair
        assert qat["outcome"] == prd["outcome"] == "installed"
        assert qat["database"]["schema"] == prd["database"]["schema"]
        ran = [entry["name"] for entry in qat["database"]["scripts"]]
        assert sorted(ran) == sorted(map(script, step.added))


# --------------------------------------------------------------------------------- from nothing


@pytest.fixture
def empty(installer: Path, developers: Developers) -> Iterator[Site]:
    """A QAT host without a release, whose policy allows no online scripts."""
    with empty_site(installer, PRODUCT) as started:
        started.trust(developers.policy(QAT=1), developers.keyring())
        yield started


def test_a_policy_without_online_takes_none_of_it(
    empty: Site, litellm: Litellm, packages: Mapping[Wheel, Path]
) -> None:
    before = state(empty, PRODUCT)

    refused = empty.rpm("-i", packages[OLD])

    assert "scriptlet failed, exit status 10" in refused.stderr
    (name,) = litellm.steps(OLD)[0].concurrent
    assert "QAT allows no scripts outside of the release's transaction" in refused.stderr
    assert script(name) in refused.stderr
    assert state(empty, PRODUCT) == before
    assert empty.host.psql("SELECT to_regnamespace('countersign')", "litellm") == ""


def test_a_new_host_has_what_psql_makes_of_the_newest_wheel(
    empty: Site, litellm: Litellm, packages: Mapping[Wheel, Path]
) -> None:
    policy = litellm.developers.policy(QAT=1)
    allowed = policy.replace("[require.QAT]\n", "[require.QAT]\nonline = true\n")
    empty.trust(allowed, litellm.developers.keyring())

    done = empty.rpm("-i", packages[NEW])

    assert done.returncode == 0, done.stderr
    whole = litellm.steps(NEW)[0]
    assert events(ledger(empty, PRODUCT), NEW) == expected_events(whole)
    fill_plain(empty, litellm, NEW, whole.added)
    assert dump(empty.host, "litellm") == dump(empty.host, "plain")
    assert empty.installer("status").returncode == 0


def fill_plain(site: Site, litellm: Litellm, wheel: Wheel, names: Sequence[str]) -> None:
    """Run migrations of a wheel with psql in a database of their own."""
    folder = f"/srv/wheels/{wheel.version}"
    site.host.copy_in(litellm.wheels[wheel] / MIGRATIONS, folder)
    psql_files(site, PRODUCT, [f"{folder}/{name}/migration.sql" for name in names])


def events(rows: Sequence[Mapping[str, Any]], wheel: Wheel) -> list[tuple[str, str, int | None]]:
    """What the ledger has of a release: the event, the script and the statement's number."""
    return [
        (row["event"], row["script"] or "", row["statement"])
        for row in rows
        if row["version"] == wheel.version
    ]


def expected_events(step: Step) -> list[tuple[str, str, int | None]]:
    """The transaction with its scripts in order, and then each index by itself."""
    within = [name for name in step.added if name not in step.concurrent]
    made: list[tuple[str, str, int | None]] = [
        *(("script applied", script(name), None) for name in within),
        ("release applied", "", None),
    ]
    for name in step.concurrent:
        made += [
            ("statement started", script(name), 1),
            ("statement applied", script(name), 1),
            ("script applied", script(name), None),
        ]
    return made
