"""Scripts of real projects that go well one by one, and not as a release.

`procrastinate`, from its wheels: what 2.15.1 adds to an enum type, it uses in a later script. The
project applies scripts one after the other, and so never sees it; the build cannot see it either.
The rehearsal does, and a host that gets such a release takes it back. Its 3.0.0 needs a newer
server than Debian 12 has. Its scripts are the migrations, from the first one on; `schema.sql`, with
which the project makes new databases, is none of them.

`davical`, from Debian's package: each of its patches is a transaction by its own statements.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from installer.manifest import Rehearsal
from installer.tree import scan
from tests.developers import Developers
from tests.downloads import DebianPackage, Wheel, unpacked
from tests.hosts.cluster import installation
from tests.product import Product
from tests.promotion import manifest_of
from tests.real_projects import (
    describe,
    dump,
    empty_site,
    ledger,
    psql_files,
    repository,
    state,
)
from tests.sites import Site

pytestmark = pytest.mark.acceptance

PRODUCT = "procrastinate"
FIRST = Wheel(PRODUCT, "2.5.0", "3a3642145c6c2b9443d1873c5b50136d0bf6a7dbb5e0419aa37f1de6d3efeba8")
ENUM = Wheel(PRODUCT, "2.15.1", "20e70b38bda0ab0a1fb24f627107b1f49a35a1d6f40c4ebd93a424d4f7bfe0fe")
NEWER = Wheel(PRODUCT, "3.0.0", "4ba9bfb8076f0380c9af43e0ccf768e27811dd8bee3e55cc5b86214362ddc361")
LAST = Wheel(PRODUCT, "3.10.0", "949ad25b4377c30e03a9d0e053d15dfa47ef02b3f12ae8a7f3254686183c152c")
WHEELS = (FIRST, ENUM, NEWER, LAST)
MIGRATIONS = "procrastinate/sql/migrations"
USES = "02.14.01_01_add_indexes_for_fetch_job.sql"
"""The script of 2.15.1 that uses a value which an earlier one adds."""
UNSAFE = 'unsafe use of new value "aborting" of enum type procrastinate_job_status'
EARLY = '[[database.online]]\nscript = "{script}"\nwhen = "before"\n'

DAVICAL = DebianPackage(
    "davical", "1.1.12-2", "1dfaf4d822cfb300c596fe430b4c6f0d8c83a79782d0053c119474ab64c292d0"
)
PATCHES = "usr/share/davical/dba/patches"
TRANSACTION = re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK)\s*;", re.IGNORECASE)
DATABASE_ONLY = """\
[release]
name = "davical"
version = "1.1.12"
sequence = 1
summary = "Upgrades of DAViCal's database"

[database]
vcs = "tree"
to = "package"
name = "davical"
scripts = ["{patches}/*.sql"]
"""


# ------------------------------------------------------------------------------------ the releases


@dataclass(frozen=True, slots=True)
class Procrastinate:
    """The product's repository, with all releases tagged, and the developers who release it."""

    product: Product
    developers: Developers
    wheels: Mapping[Wheel, Path]

    def migrations(self, wheel: Wheel) -> list[str]:
        """The names of a wheel's migrations, in the order in which its project applies them."""
        return sorted(file.name for file in (self.wheels[wheel] / MIGRATIONS).glob("*.sql"))

    def added(self, wheel: Wheel, earlier: Wheel) -> list[str]:
        return [name for name in self.migrations(wheel) if name not in self.migrations(earlier)]

    def text(self, wheel: Wheel, name: str) -> str:
        return (self.wheels[wheel] / MIGRATIONS / name).read_text()

    def adds_values(self) -> str:
        """The script of 2.15.1 that adds values to an enum type."""
        (name,) = (n for n in self.added(ENUM, FIRST) if " ADD VALUE " in self.text(ENUM, n))
        return name

    def describe(self, wheel: Wheel, *starts: Wheel | None, more: str = "") -> Path:
        """A release.toml of a wheel; None among the starts is nothing."""
        tags = [f"v{start.version}" if start else "empty" for start in starts]
        sequence, scripts = WHEELS.index(wheel) + 1, script("*.sql")
        text = describe(PRODUCT, wheel.version, sequence, starts=tags, scripts=scripts)
        self.product.release.write_text(f"{text}\n{more}")
        return self.product.release

    def rehearse(self, release: Path, output: Path, *options: str) -> CompletedProcess[str]:
        rehearse = ("rehearse", "-r", release, "-o", output)
        return self.developers.countersign(*rehearse, *options, check=False)

    def package(self, release: Path, output: Path) -> Path:
        """The release's RPM, signed by Ada; rehearsed if there is the record of that."""
        return self.developers.build(release, output, [self.developers.ada])


def script(name: str) -> str:
    """A migration's path in the product's repository."""
    return f"app/{MIGRATIONS}/{name}"


@pytest.fixture(scope="module")
def procrastinate(
    developers: Developers, tmp_path_factory: pytest.TempPathFactory
) -> Procrastinate:
    folder = tmp_path_factory.mktemp("procrastinate")
    wheels = {wheel: unpacked(wheel, folder / wheel.version) for wheel in WHEELS}
    tags = {f"v{wheel.version}": contents for wheel, contents in wheels.items()}
    return Procrastinate(repository(folder / "repository", tags), developers, wheels)


@pytest.fixture(scope="module")
def first(procrastinate: Procrastinate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of 2.5.0."""
    release = procrastinate.describe(FIRST, None)
    return procrastinate.package(release, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def trap(procrastinate: Procrastinate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of 2.15.1, from nothing or from 2.5.0, as nobody rehearsed it."""
    release = procrastinate.describe(ENUM, None, FIRST)
    return procrastinate.package(release, tmp_path_factory.mktemp("trap"))


@pytest.fixture
def site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A QAT host without a release, whose policy allows online scripts."""
    policy = developers.policy(QAT=1).replace("[require.QAT]\n", "[require.QAT]\nonline = true\n")
    with empty_site(installer, PRODUCT) as started:
        started.trust(policy, developers.keyring())
        yield started


# ----------------------------------------------------------------------- values of an enum type


@pytest.mark.parametrize("start", [None, FIRST], ids=["from nothing", "from 2.5.0"])
def test_a_value_that_a_release_adds_and_uses_is_caught_by_its_rehearsal(
    procrastinate: Procrastinate, tmp_path: Path, start: Wheel | None
) -> None:
    release = procrastinate.describe(ENUM, start)
    procrastinate.developers.countersign("check", "-r", release)  # a parser cannot see it

    failed = procrastinate.rehearse(release, tmp_path)

    assert failed.returncode == 58
    point = f"v{start.version}" if start else "empty"
    line = line_with("'aborting'::", procrastinate.text(ENUM, USES))
    assert f"error: from {point}: {script(USES)}:{line}:" in failed.stderr
    assert f"{UNSAFE}; New enum values must be committed before they can be used" in failed.stderr
    assert '[[database.online]]\n      script = "…"\n      when = "before"\n' in failed.stderr
    assert list(tmp_path.rglob("rehearsal.json")) == []


def line_with(words: str, text: str) -> int:
    (number,) = (n for n, line in enumerate(text.splitlines(), 1) if words in line)
    return number


def test_a_new_host_that_gets_it_unrehearsed_has_nothing_of_it(site: Site, trap: Path) -> None:
    before = state(site, PRODUCT)

    refused = site.rpm("-i", trap)

    assert "scriptlet failed, exit status 33" in refused.stderr
    assert f"error: procrastinate 2.15.1 was not installed: {script(USES)}:" in refused.stderr
    assert UNSAFE in refused.stderr
    assert state(site, PRODUCT) == before
    assert "CREATE" not in before.database
    assert [row["event"] for row in ledger(site, PRODUCT)] == ["release failed"]


def test_a_host_that_gets_it_unrehearsed_stays_at_the_release_before(
    site: Site, procrastinate: Procrastinate, first: Path, trap: Path
) -> None:
    assert site.rpm("-i", first).returncode == 0
    before, rows = state(site, PRODUCT), ledger(site, PRODUCT)

    refused = site.rpm("-U", trap)

    assert "scriptlet failed, exit status 33" in refused.stderr
    assert UNSAFE in refused.stderr
    assert state(site, PRODUCT) == before
    assert before.package == "procrastinate-2.5.0-1.noarch"
    assert "'aborting'" not in before.database
    assert ledger(site, PRODUCT)[:-1] == rows
    assert ledger(site, PRODUCT)[-1]["event"] == "release failed"
    fill_plain(site, procrastinate, FIRST, procrastinate.migrations(FIRST))
    assert dump(site.host, PRODUCT) == dump(site.host, "plain")


def test_with_the_declaration_that_the_rehearsal_asks_for_it_is_installed(
    site: Site, procrastinate: Procrastinate, first: Path, tmp_path: Path
) -> None:
    early = procrastinate.adds_values()
    release = procrastinate.describe(ENUM, FIRST, more=EARLY.format(script=script(early)))
    rehearsed = procrastinate.rehearse(release, tmp_path)
    assert rehearsed.returncode == 0, rehearsed.stderr
    package = procrastinate.package(release, tmp_path)
    assert site.rpm("-i", first).returncode == 0

    done = site.rpm("-U", package)

    assert done.returncode == 0, done.stderr
    added = procrastinate.added(ENUM, FIRST)
    ran = [row["script"] for row in ledger(site, PRODUCT) if row["event"] == "script applied"]
    within = [name for name in added if name != early]
    assert ran[-len(added) :] == list(map(script, [early, *within]))
    fill_plain(site, procrastinate, FIRST, procrastinate.migrations(FIRST))
    fill_plain(site, procrastinate, ENUM, added)
    assert dump(site.host, PRODUCT) == dump(site.host, "plain")
    assert site.installer("status").returncode == 0


# ------------------------------------------------------------------- from 2.15.1 to a newer one


def test_what_passes_its_rehearsal_is_installed(
    site: Site, procrastinate: Procrastinate, trap: Path, tmp_path: Path
) -> None:
    """The host had 2.15.1 as the project installs it: script by script."""
    release = procrastinate.describe(LAST, ENUM)
    rehearsed = procrastinate.rehearse(release, tmp_path)
    assert rehearsed.returncode == 0, rehearsed.stderr
    package = procrastinate.package(release, tmp_path)
    migrations = procrastinate.migrations(ENUM)
    fill_plain(site, procrastinate, ENUM, migrations, database=PRODUCT)
    site.host.copy_in(procrastinate.wheels[ENUM], "/srv/app")
    reason = ("--tree", "/srv/app", "--reason", "procrastinate's own command made it")
    adopted = site.installer("adopt", *reason, trap)
    assert adopted.returncode == 0, adopted.stderr

    done = site.rpm("-U", package)

    assert done.returncode == 0, done.stderr
    fill_plain(site, procrastinate, ENUM, migrations)
    fill_plain(site, procrastinate, LAST, procrastinate.added(LAST, ENUM))
    assert dump(site.host, PRODUCT) == dump(site.host, "plain")
    assert state(site, PRODUCT).package == "procrastinate-3.10.0-1.noarch"
    assert scan(site.host.at("/opt/procrastinate/current")) == scan(procrastinate.wheels[LAST])
    database = manifest_of(package).database
    assert database
    assert database.rehearsal == Rehearsal(int(installation().name), ("v2.15.1",))
    assert site.installer("status").returncode == 0


def test_what_the_server_is_too_old_for_is_refused_in_its_words(
    procrastinate: Procrastinate, tmp_path: Path
) -> None:
    """json_object('key': value) is of PostgreSQL 16; with a newer server alone, all is well."""
    major = min(int(f.parent.name) for f in Path("/usr/lib/postgresql").glob("*/bin"))
    release = procrastinate.describe(NEWER, ENUM)
    (name,) = (n for n in procrastinate.added(NEWER, ENUM) if "_pre_" in n)

    done = procrastinate.rehearse(release, tmp_path, "--postgresql", str(major))

    refused = f"error: from v2.15.1: {script(name)}:"
    assert (done.returncode, refused in done.stderr) == ((58, True) if major < 16 else (0, False))
    assert ('syntax error at or near ":"' in done.stderr) == (major < 16)
    assert bool(list(tmp_path.rglob("rehearsal.json"))) == (major >= 16)


def fill_plain(
    site: Site,
    procrastinate: Procrastinate,
    wheel: Wheel,
    names: list[str],
    database: str = "plain",
) -> None:
    """Run migrations of a wheel with psql."""
    folder = f"/srv/wheels/{wheel.version}"
    if not site.host.at(folder).exists():
        site.host.copy_in(procrastinate.wheels[wheel] / MIGRATIONS, folder)
    psql_files(site, PRODUCT, [f"{folder}/{name}" for name in names], database)


# ------------------------------------------------------------------------ explicit transactions


@pytest.mark.parametrize("command", ["check", "build"])
def test_every_begin_commit_and_rollback_of_all_files_is_named(
    developers: Developers, tmp_path: Path, command: str
) -> None:
    patches = unpacked(DAVICAL, tmp_path / "package") / PATCHES
    ends = [
        (f"{PATCHES}/{file.name}:{number}: {found[1].upper()} ")
        for file in sorted(patches.glob("*.sql"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if (found := TRANSACTION.match(line))
    ]
    files = {end.split(":")[0] for end in ends}
    assert len(files) == len(list(patches.glob("*.sql"))) == 34
    release = tmp_path / "release.toml"
    release.write_text(DATABASE_ONLY.format(patches=PATCHES))

    done = developers.countersign(command, "-r", release, "-o", tmp_path / "dist", check=False)

    assert done.returncode == 52
    assert "error: 34 scripts are wrong\n" in done.stderr
    told = re.findall(r"^ *(\S+:\d+: (?:BEGIN|COMMIT|ROLLBACK) )", done.stderr, re.MULTILINE)
    assert told == ends
    assert "Leave it out: a release is one transaction, which the installer ends." in done.stderr
    assert not (tmp_path / "dist").exists()
