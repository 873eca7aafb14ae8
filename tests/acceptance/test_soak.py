"""Installs of a real release that are killed at random: `make soak` for an hour, `make test` a few.

The release is `litellm-proxy-extras` 0.4.95 over 0.4.80, as `test_real_project` has it, under the
product's name that the hosts are set up for. Variables: SOAK_KILLS, how many in all; SOAK_SEED, for
the same ones again.
"""

import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance.test_real_project import ACCEPT_LATE, IN_ONE_TRANSACTION, NEW, OLD, commit
from tests.developers import PRODUCT, Developers
from tests.downloads import unpacked
from tests.failpoints.bench import Bench
from tests.frontends import DPKG, RPM, FrontEnd, only
from tests.product import Product
from tests.real_projects import describe
from tests.sites import Site
from tests.soak import Soak

pytestmark = pytest.mark.acceptance

SHARE = 6
"""Kills with each package manager in `make test`."""
KILLS = int(os.environ.get("SOAK_KILLS") or 500)
SEED = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(2**32))
FRONTS = (RPM, DPKG)


@pytest.fixture(scope="module")
def packages(
    developers: Developers, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """The packages of both releases, by their versions."""
    folder = tmp_path_factory.mktemp("soak")
    product = Product(folder / "repository")
    product.folder.mkdir()
    product.git("init", "--quiet", "--initial-branch=main")
    scripts, built = f"{IN_ONE_TRANSACTION}/*/migration.sql", {}
    for number, (wheel, start) in enumerate(((OLD, "empty"), (NEW, f"v{OLD.version}")), 1):
        commit(product, unpacked(wheel, folder / wheel.version), f"v{wheel.version}")
        text = describe(PRODUCT, wheel.version, number, starts=[start], scripts=scripts)
        accepts = ACCEPT_LATE.format(folder=IN_ONE_TRANSACTION) if wheel == NEW else ""
        product.release.write_text(text + accepts)
        output = folder / "dist" / wheel.version
        built[wheel.version] = developers.build(product.release, output, [developers.ada])
    return built


@pytest.fixture
def soak(
    developers: Developers, installer: Path, packages: Mapping[str, Path], front: FrontEnd
) -> Iterator[Soak]:
    """A host with the old release, which was upgraded once."""
    with Site.start(developers, installer, front=front) as site:
        assert site.installer("init").returncode == 0
        done = site.upgrade(packages[OLD.version])
        assert done.returncode == 0, done.stdout + done.stderr
        yield Soak.measured(Bench(site), packages[NEW.version])


def kill(soak: Soak, front: FrontEnd, number: int) -> None:
    """Kill so many installs; those that were over first do not count."""
    tell(f"{front.name}: SOAK_SEED={SEED}, an install takes {soak.seconds:.2f} s")
    chance = random.Random(f"{SEED} {front.name}")  # noqa: S311 - nothing secret
    for each in soak.kills(chance):
        if soak.turn(each) and soak.met.total() % 10 == 0:
            tell(f"{front.name}: {soak.met.total()} of {number} killed")
        if soak.met.total() == number:
            break
    for (victim, state), times in sorted(soak.met.items()):
        tell(f"{front.name}: {victim} killed, {state}: {times}")


def tell(line: str) -> None:
    """Where a process of many, whose output nobody shows, can say something, too."""
    print(line, file=sys.stderr, flush=True)


@only(*FRONTS)
def test_an_install_that_is_killed_at_random_is_put_right(soak: Soak, front: FrontEnd) -> None:
    kill(soak, front, SHARE)


@pytest.mark.soak
@only(*FRONTS)
def test_installs_that_are_killed_at_random_are_put_right(
    soak: Soak, front: FrontEnd, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        kill(soak, front, -(-KILLS // len(FRONTS)))
