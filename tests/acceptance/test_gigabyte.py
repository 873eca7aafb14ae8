"""A release with 1 GiB of data, through every front end; `make test-large` runs it.

The data are single-row INSERTs in 16 scripts. What is asserted besides the data is the memory of
the installer: it does not grow with the release.
"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.formats.rpm import MAX_IN_HEADER
from tests.developers import Developers, Draft
from tests.sites import Site

pytestmark = [pytest.mark.acceptance, pytest.mark.large]

SCRIPTS = 16
ROWS = 64 * 1024
ROW = 1024
"""Bytes of each row's statement, so that a script has 64 MiB."""
MOST_MEMORY = 256 * 1024
"""KiB that the installer may have at most."""


def script(number: int) -> bytes:
    """A table and 64 MiB of INSERTs of text that compresses to about a tenth."""
    lines = [f"CREATE TABLE data_{number:02} (id int, key text, body text);"]
    for row in range(ROWS):
        key = hashlib.sha256(f"{number} {row}".encode()).hexdigest()
        start = f"INSERT INTO data_{number:02} VALUES ({row}, '{key}', '"
        lines.append(f"{start}{(key[:16] + ' lorem ipsum ') * 40}"[: ROW - 4] + "');")
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def package(developers: Developers) -> Path:
    """The package of a release that is beyond what an RPM's header carries."""
    files = {f"sql/{number:02}_data.sql": script(number) for number in range(SCRIPTS)}
    made = developers.package(Draft("1.0", 1, files, [developers.ada], label="-gigabyte"))
    assert made.stat().st_size > MAX_IN_HEADER
    return made


def memory_of_the_installer(site: Site, command: list[str]) -> Iterator[int]:
    """Run a command; the most memory, in KiB, that the installer had, at each look at it."""
    with site.host.popen(command) as running:
        while running.poll() is None:
            yield from site.memory_of(site.front.scriptlet)
            time.sleep(0.05)
        words = "".join(running.communicate(timeout=60))
    assert running.returncode == 0, words


def test_it_is_installed_with_bounded_memory(site: Site, package: Path) -> None:
    started = time.monotonic()
    peak = max(memory_of_the_installer(site, [*site.front.install, site.carry(package)]))

    rows = " + ".join(f"(SELECT count(*) FROM data_{n:02})" for n in range(SCRIPTS))
    assert site.sql(f"SELECT {rows}") == str(SCRIPTS * ROWS)
    assert site.state().package == "1.0-1"
    assert site.installer("status").returncode == 0
    assert peak < MOST_MEMORY
    took = time.monotonic() - started
    print(f"{site.front.name}: the installer had at most {peak // 1024} MiB; {took:.0f} s")
