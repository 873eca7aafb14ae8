"""A real project's releases: `litellm-proxy-extras` 0.4.80 and 0.4.95, with all their migrations.

Their wheels are the application, whose tree has to be the wheel's bit for bit; the migrations in
them are the scripts, and the database has to be what plain psql makes of the wheels' own files.

One migration of 0.4.80 is CREATE INDEX CONCURRENTLY, which no transaction can hold. The build
refuses a release of the project as it is, by the migration's name. One that was built without that
check can be adopted and upgraded, and not installed from nothing. The other releases have the
migrations in a folder `sql` of the product's repository, where that one has lost the word
CONCURRENTLY and nothing else is changed.

With rpm and dnf: it is about a real project's scripts and tree, which a DEB carries in the same
bundle; that dpkg and apt do the same with a bundle is what the other acceptance tests are for.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from installer.tree import Entry, scan
from tests.developers import Developers
from tests.downloads import Wheel, unpacked
from tests.product import Product
from tests.real_projects import describe, dump, empty_site, psql_files, state
from tests.sites import Site

pytestmark = pytest.mark.acceptance

PROJECT = "litellm-proxy-extras"
PRODUCT = "litellm"
OLD = Wheel(PROJECT, "0.4.80", "2cadd90dba905e9046b09cc239bbe728f8e7994786264c04da036fa699d2114e")
NEW = Wheel(PROJECT, "0.4.95", "8549623d79e15c1056bf8b3053e0146bba92cae913b14d7299d3dfea82a9f538")

MIGRATIONS = "litellm_proxy_extras/migrations"
AS_IT_IS = f"app/{MIGRATIONS}"
"""Where the product's repository has the migrations of the wheel."""
IN_ONE_TRANSACTION = "sql"
"""Where it has them with the one change."""
CONCURRENT = "20260415120000_health_check_latest_per_model_index"
LATE = "20260713010000_add_ptu_columns_to_daily_team_spend"
LATE_DIGEST = "b8b667c881330111a4f034e20d489b962b2c7599ca8ebbd54cadfcb9e7446076"
LAST_OF_OLD = "20260721000000_add_sso_identity_assertion"
WITH_SPACES = "20251122125322_Add organization_id to spend logs"
REASON = "It adds one column, which no script of 0.4.80 touches"
FROM_OLD = (f"v{OLD.version}",)
FROM_BOTH = ("empty", *FROM_OLD)
ACCEPT_LATE = f"""
[[database.accept]]
script = "{{folder}}/{LATE}/migration.sql"
change = "late"
digest = "{LATE_DIGEST}"
reason = "{REASON}"
"""


# -------------------------------------------------------------------------------- the two releases


@dataclass(frozen=True, slots=True)
class Litellm:
    """The product's repository, with both releases tagged, and the developers who release it."""

    product: Product
    developers: Developers
    wheels: Mapping[str, Path]

    def describe(
        self,
        wheel: Wheel,
        *,
        folder: str = IN_ONE_TRANSACTION,
        pattern: str = "*",
        order: str = "name",
        starts: Sequence[str] = ("empty",),
        accepts: bool = False,
    ) -> Path:
        """A release.toml, perhaps with the late script accepted."""
        text = describe(
            PRODUCT,
            wheel.version,
            int(wheel.version.rpartition(".")[2]),
            starts=starts,
            scripts=f"{folder}/{pattern}/migration.sql",
            order=order,
        )
        self.product.release.write_text(
            text + (ACCEPT_LATE.format(folder=folder) if accepts else "")
        )
        return self.product.release

    def package(self, release: Path, name: str) -> Path:
        """The release's RPM, signed by Ada, in a folder `name` of its own."""
        output = self.developers.folder / "litellm" / name
        key = self.developers.ada
        self.developers.countersign("sign", "-r", release, "-o", output, "--key", key)
        done = self.developers.countersign("build", "-r", release, "-o", output, "--json")
        return Path(json.loads(done.stdout)["package"])

    def package_past_the_check(self, release: Path, name: str) -> Path:
        """As `package`, by a build that does not refuse what no release can run."""
        output = self.developers.folder / "litellm" / name
        return self.developers.build_past_the_check(release, output, [self.developers.ada])

    def scripts(self, release: Path) -> list[str]:
        """The scripts in the order in which the release has them, by their folders' names."""
        plan = json.loads(self.developers.countersign("plan", "-r", release, "--json").stdout)
        return [Path(s["name"]).parent.name for s in plan["manifest"]["database"]["scripts"]]

    def migrations(self, wheel: Wheel) -> list[str]:
        """The wheel's own migrations, in the order in which its project applies them."""
        folder = self.wheels[wheel.version] / MIGRATIONS
        return sorted(file.parent.name for file in folder.glob("*/migration.sql"))

    def tree(self, wheel: Wheel) -> dict[str, Entry]:
        """What is in the wheel."""
        return scan(self.wheels[wheel.version])


@pytest.fixture(scope="module")
def litellm(developers: Developers, tmp_path_factory: pytest.TempPathFactory) -> Litellm:
    """The product's repository: a commit for each wheel."""
    folder = tmp_path_factory.mktemp("litellm")
    wheels = {wheel.version: unpacked(wheel, folder / wheel.version) for wheel in (OLD, NEW)}
    product = Product(folder / "repository")
    product.folder.mkdir()
    product.git("init", "--quiet", "--initial-branch=main")
    for version, wheel in wheels.items():
        commit(product, wheel, f"v{version}")
    return Litellm(product, developers, wheels)


def commit(product: Product, wheel: Path, tag: str) -> None:
    """Make the wheel's contents the product's next release."""
    for copy, source in (
        (product.folder / "app", wheel),
        (product.folder / "sql", wheel / MIGRATIONS),
    ):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
    script = product.folder / "sql" / CONCURRENT / "migration.sql"
    edited, replaced = re.subn(
        "^CREATE INDEX CONCURRENTLY", "CREATE INDEX", script.read_text(), flags=re.MULTILINE
    )
    assert replaced == 1
    script.write_text(edited)
    product.git("add", "--all", "--force", "app", "sql")
    product.git("commit", "--quiet", "--message", tag)
    product.git("tag", tag)


@pytest.fixture(scope="module")
def old(litellm: Litellm) -> Path:
    """The package of 0.4.80."""
    return litellm.package(litellm.describe(OLD), "old")


@pytest.fixture(scope="module")
def new(litellm: Litellm) -> Path:
    """The package of 0.4.95, from nothing or from 0.4.80, which accepts the late script."""
    return litellm.package(litellm.describe(NEW, starts=FROM_BOTH, accepts=True), "new")


# -------------------------------------------------------------------------------------- the hosts


@pytest.fixture
def site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A QAT host whose policy needs one developer."""
    with empty_site(installer, PRODUCT) as started:
        started.trust(developers.policy(QAT=1), developers.keyring())
        yield started


def require_what_psql_and_the_wheel_make(site: Site, litellm: Litellm) -> None:
    """Assert that the host has what psql makes of the wheels' files, and the new wheel's tree.

    What 0.4.95 adds ran after all of 0.4.80, the late script among it: columns lie in that order.
    """
    first = litellm.migrations(OLD)
    then = [name for name in litellm.migrations(NEW) if name not in first]
    assert applied(site) == [*first, *then]

    for wheel, names in ((OLD, first), (NEW, then)):
        folder = f"/srv/wheels/{wheel.version}"
        site.host.copy_in(litellm.wheels[wheel.version] / MIGRATIONS, folder)
        psql_files(site, PRODUCT, [f"{folder}/{name}/migration.sql" for name in names])
    assert dump(site.host, PRODUCT) == dump(site.host, "plain")
    assert dump(site.host, "plain").count("CREATE TABLE") > 60

    assert scan(site.host.at("/opt/litellm/current")) == litellm.tree(NEW)
    assert site.installer("status").returncode == 0


def applied(site: Site) -> list[str]:
    """The scripts that the ledger has, in the order in which they ran, by their folders' names."""
    sql = "SELECT script FROM countersign.ledger WHERE script IS NOT NULL ORDER BY id"
    return [Path(script).parent.name for script in site.host.psql(sql, "litellm").splitlines()]


# ---------------------------------------------------------------------------- installs and upgrades


def test_rpm_makes_what_psql_and_the_wheel_make(
    site: Site, litellm: Litellm, old: Path, new: Path
) -> None:
    installed = site.rpm("-i", old)

    assert installed.returncode == 0, installed.stderr
    assert applied(site) == litellm.migrations(OLD)
    assert WITH_SPACES in applied(site)
    assert scan(site.host.at("/opt/litellm/current")) == litellm.tree(OLD)

    upgraded = site.rpm("-U", new)

    assert upgraded.returncode == 0, upgraded.stderr
    assert state(site, PRODUCT).package == "litellm-0.4.95-1.noarch"
    require_what_psql_and_the_wheel_make(site, litellm)


def test_dnf_makes_what_psql_and_the_wheel_make(
    site: Site, litellm: Litellm, old: Path, new: Path
) -> None:
    with site.repository(old):
        installed = site.host.run(["dnf", "-y", "install", "litellm"])
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert scan(site.host.at("/opt/litellm/current")) == litellm.tree(OLD)
    with site.repository(old, new):
        upgraded = site.host.run(["dnf", "-y", "upgrade", "litellm"])
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr

    assert state(site, PRODUCT).package == "litellm-0.4.95-1.noarch"
    require_what_psql_and_the_wheel_make(site, litellm)


@pytest.mark.parametrize("command", ["check", "sign", "build"])
def test_the_project_as_it_is_is_refused_by_the_build(
    litellm: Litellm, command: str, tmp_path: Path
) -> None:
    release = litellm.describe(OLD, folder=AS_IT_IS)

    done = litellm.developers.countersign(command, "-r", release, "-o", tmp_path, check=False)

    assert done.returncode == 52
    script = f"{AS_IT_IS}/{CONCURRENT}/migration.sql:12"
    words = "CREATE INDEX CONCURRENTLY cannot run inside a transaction"
    assert f"error: {script}: {words}\n  Declare the script online " in done.stderr
    assert done.stderr.count(": CREATE INDEX CONCURRENTLY") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_project_as_it_is_can_be_adopted_and_upgraded_but_not_installed_from_nothing(
    site: Site, litellm: Litellm
) -> None:
    old = litellm.package_past_the_check(litellm.describe(OLD, folder=AS_IT_IS), "old-as-it-is")
    upgrade = litellm.describe(NEW, folder=AS_IT_IS, starts=FROM_OLD, accepts=True)
    new = litellm.package(upgrade, "new-as-it-is")  # which nobody has to run that script for
    before = state(site, PRODUCT)

    refused = site.rpm("-i", old)

    assert "scriptlet failed, exit status 33" in refused.stderr
    script = f"{AS_IT_IS}/{CONCURRENT}/migration.sql:12"
    words = "CREATE INDEX CONCURRENTLY cannot run inside a transaction block"
    assert f"error: litellm 0.4.80 was not installed: {script}: {words}" in refused.stderr
    assert state(site, PRODUCT) == before

    site.host.copy_in(litellm.wheels[OLD.version], "/srv/app")
    files = [f"/srv/app/{MIGRATIONS}/{name}/migration.sql" for name in litellm.migrations(OLD)]
    psql_files(site, PRODUCT, files, database=PRODUCT)
    reason = ("--tree", "/srv/app", "--reason", "psql made it of this release's scripts")
    adopted = site.installer("adopt", *reason, old)
    upgraded = site.rpm("-U", new)

    assert adopted.returncode == 0, adopted.stderr
    assert upgraded.returncode == 0, upgraded.stderr
    require_what_psql_and_the_wheel_make(site, litellm)


# -------------------------------------------------------------- the order, and the late script


@pytest.mark.parametrize("command", ["check", "build"])
def test_a_script_that_sorts_before_released_ones_is_refused_by_name_when_it_is_built(
    litellm: Litellm, command: str, tmp_path: Path
) -> None:
    release = litellm.describe(NEW, starts=FROM_BOTH)

    done = litellm.developers.countersign(command, "-r", release, "-o", tmp_path, check=False)

    assert done.returncode == 51
    late, last = (f"sql/{name}/migration.sql" for name in (LATE, LAST_OF_OLD))
    assert f"from v0.4.80: {late} is new and sorts before {last}" in done.stderr
    assert "[[database.accept]]" in done.stderr
    assert not list(tmp_path.rglob("*.rpm"))


def test_a_script_that_sorts_before_applied_ones_is_refused_by_name_on_a_host(
    site: Site, litellm: Litellm, old: Path
) -> None:
    # Built as if no host were at 0.4.80.
    from_nothing = litellm.package(litellm.describe(NEW), "from-nothing")
    site.rpm("-i", old)
    before = state(site, PRODUCT)

    refused = site.rpm("-U", from_nothing)

    assert refused.returncode != 0
    assert "scriptlet failed, exit status 32" in refused.stderr
    assert f"sql/{LATE}/migration.sql is new and sorts before" in refused.stderr
    assert state(site, PRODUCT) == before
    assert before.package == "litellm-0.4.80-1.noarch"
    assert applied(site) == litellm.migrations(OLD)


def test_an_accepted_script_is_in_the_manifest_with_its_reason(litellm: Litellm, new: Path) -> None:
    shown = json.loads(litellm.developers.countersign("show", "--json", new).stdout)

    accepted = {
        "script": f"sql/{LATE}/migration.sql",
        "change": "late",
        "applied": [],
        "reason": REASON,
    }
    assert shown["manifest"]["database"]["accept"] == [accepted]


def test_the_path_carries_the_order_by_name(litellm: Litellm) -> None:
    release = litellm.describe(NEW)

    assert litellm.scripts(release) == litellm.migrations(NEW)


def test_the_path_carries_the_order_by_number(litellm: Litellm) -> None:
    # Those of the first year: of each of three later days, two scripts have the same number.
    release = litellm.describe(OLD, folder=AS_IT_IS, pattern="2025*", order="number")

    expected = [name for name in litellm.migrations(OLD) if name.startswith("2025")]
    assert litellm.scripts(release) == expected


def test_scripts_with_one_number_have_no_order_by_number(litellm: Litellm) -> None:
    release = litellm.describe(OLD, folder=AS_IT_IS, order="number")

    done = litellm.developers.countersign("plan", "-r", release, check=False)

    assert done.returncode == 51
    assert done.stderr.count("have the same number") == 3
    assert "have the same number, 20260717000000" in done.stderr
