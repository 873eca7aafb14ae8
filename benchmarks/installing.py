"""`countersign-install apply` beside psql, on one test host and one cluster.

Both get the same scripts and an empty database. The installer is the one of its own RPM and does
all that it does elsewhere: signatures, digests, ledger, log. psql runs one transaction and keeps no
record. A clock inside the host times both, so that entering the host costs neither anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import (
    Times,
    differences,
    in_turns,
    ratio_line,
    ratios,
    table,
)
from benchmarks.scripts import MANY, concatenated, scripts
from packager.bundle_writer import write_bundle
from packager.installer_package import build_installer
from packager.package_reader import read_package
from tests.developers import PRODUCT, Developers, Draft
from tests.hosts import Host
from tests.hosts.cluster import SOCKETS, program
from tests.sites import Site

INSTALLER = "countersign-install apply"
PSQL = "psql -X -q -1 -f"
ONE, ALL = "1 script", f"{MANY:,} scripts"
COUNTS = {ONE: 1, ALL: MANY}
AGAIN = f"{INSTALLER}, the same release again"
AIMS = {f"{INSTALLER}, {ONE}": "below 0.4 s", AGAIN: "below 0.5 s"}
"""Installing one script is the fixed start-up."""

CLOCK = """
import subprocess, sys, time
begun = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(time.perf_counter() - begun)
sys.exit(done.returncode)
"""
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


@dataclass(frozen=True, slots=True)
class Bench:
    """A host with the bundles and the concatenated scripts on it."""

    site: Site

    @property
    def host(self) -> Host:
        return self.site.host

    def installs(self, scripts: str) -> float:
        """Seconds to install on an empty database."""
        self._empty()
        return self._timed(scripts, ["countersign-install", "apply", f"/srv/{scripts}.bundle"])

    def installs_again(self, scripts: str) -> float:
        """Seconds to find that nothing is to be done."""
        return self._timed(scripts, ["countersign-install", "apply", f"/srv/{scripts}.bundle"])

    def psql(self, scripts: str) -> float:
        """Seconds for psql on an empty database."""
        self._empty()
        login = ["-h", SOCKETS, "-U", "countersign", "-d", PRODUCT]
        options = ["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", f"/srv/{scripts}.sql"]
        return self._timed(scripts, [program("psql"), *login, *options])

    def _timed(self, scripts: str, command: Sequence[str | Path]) -> float:
        clock = ["/usr/bin/python3", "-I", "-S", "-c", CLOCK, *command]
        seconds = float(self.host.run(clock, check=True).stdout)
        tables = int(self.site.sql(TABLES))
        assert tables == -(-COUNTS[scripts] // 4), f"{command}: {tables} tables"
        return seconds

    def _empty(self) -> None:
        """An empty database, its files written, and a host that knows of no release."""
        self.host.psql(f"DROP DATABASE {PRODUCT}")
        self.host.psql(f"CREATE DATABASE {PRODUCT} OWNER crm_owner")
        self.host.psql(f"GRANT CREATE ON DATABASE {PRODUCT} TO countersign")
        self.host.psql("GRANT CREATE ON SCHEMA public TO crm_owner", PRODUCT)
        self.host.psql("CHECKPOINT")
        self.host.run(["rm", "-rf", f"/var/lib/countersign/{PRODUCT}"], check=True)


def installing(developers: Developers, folder: Path, repeat: int) -> str:
    """The figures, as a table."""
    with Site.start(developers, build_installer(folder), name="bench") as site:
        bench = Bench(site)
        for label, count in COUNTS.items():
            _bring(site.host, developers, label, scripts(count))
        cases = {
            f"{INSTALLER}, {ONE}": lambda: bench.installs(ONE),
            f"{PSQL}, {ONE}": lambda: bench.psql(ONE),
            f"{INSTALLER}, {ALL}": lambda: bench.installs(ALL),
            AGAIN: lambda: bench.installs_again(ALL),
            f"{PSQL}, {ALL}": lambda: bench.psql(ALL),
        }
        times = in_turns(cases, repeat)
    return "\n".join([table("Installing on an empty database", times, AIMS), _conclusion(times)])


def _bring(host: Host, developers: Developers, label: str, texts: dict[str, str]) -> None:
    """Sign and build a release of these scripts, and put it onto the host beside one for psql."""
    files = {f"sql/{name}": text for name, text in texts.items()}
    release = Draft("1.0", 1, files, [developers.ada], label=f"-{len(files)}")
    _, bundle = read_package(developers.package(release))
    compressed = b"".join(bundle.compressed.pieces())
    host.at(f"/srv/{label}.bundle").write_bytes(write_bundle(bundle.head, compressed))
    host.write(f"/srv/{label}.sql", concatenated(texts))


def _conclusion(times: Times) -> str:
    ours, theirs = (
        differences(times[f"{tool}, {ALL}"], times[f"{tool}, {ONE}"]) for tool in (INSTALLER, PSQL)
    )
    return ratio_line("apply to psql, beyond 1 script", ratios(ours, theirs), "at most 1.3 x")
