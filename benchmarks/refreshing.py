"""What a refresh takes, beside pg_dump and pg_restore: whole, masked, and a tenth of the rows.

    python -m benchmarks.refreshing --repeat 3

Source and target are databases of one cluster on this machine, as for the tools beside it.
"""

import argparse
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from benchmarks.measure import in_turns, load, machine, ratio_line, ratios, table
from refresher.configuration import parse_configuration
from refresher.copying import Watch, refresh
from tests.cluster import Cluster, private_cluster
from tests.production import ROLES

SCALE = 50
TABLES = 500
TIMEOUT = 600
MASKED = ("aid", "abalance", "filler")
CUSTOM, FOLDER, COPY = "pg_dump -Fc | pg_restore", "pg_dump -Fd -j2, pg_restore -j2", "copy"
MANY = """
CREATE TABLE t{n} (id int PRIMARY KEY, a text, b numeric, up int {references});
CREATE INDEX ON t{n} (a);
INSERT INTO t{n} SELECT i, md5(i::text), i, i FROM generate_series(1, 200) AS i;
"""
RULES = """
[columns."public.pgbench_accounts"]
aid = { class = "integer", domain = "account" }
bid = { class = "keep" }
abalance = { class = "integer", domain = "balance" }
filler = { class = "hash", domain = "filler", length = 64 }
[columns."public.pgbench_branches"]
bid = { class = "keep" }
bbalance = { class = "keep" }
filler = { class = "null" }
[columns."public.pgbench_tellers"]
tid = { class = "keep" }
bid = { class = "keep" }
tbalance = { class = "keep" }
filler = { class = "null" }
[columns."public.pgbench_history"]
tid = { class = "keep" }
bid = { class = "keep" }
aid = { class = "integer", domain = "account" }
delta = { class = "keep" }
mtime = { class = "keep" }
filler = { class = "null" }
"""
KEPT = RULES.replace('"integer", domain = "account"', '"keep"')
KEPT = KEPT.replace('"integer", domain = "balance"', '"keep"')
KEPT = KEPT.replace('"hash", domain = "filler", length = 64', '"keep"')
TENTH = '[[subset]]\ntable = "public.pgbench_accounts"\nwhere = "aid % 10 = 0"\n'


@dataclass(frozen=True, slots=True)
class Bench:
    """One source on a cluster, and what is made of it."""

    cluster: Cluster
    source: str

    def tool(self, command: str) -> float:
        """Seconds of a command of PostgreSQL's programs, into an empty database."""
        self.cluster.psql("DROP DATABASE IF EXISTS other WITH (FORCE)")
        self.cluster.psql("CREATE DATABASE other TEMPLATE template0")
        self.cluster.psql("CHECKPOINT")
        names = {
            "programs": self.cluster.programs,
            "source": self.cluster.conninfo(self.source, "postgres"),
            "target": self.cluster.conninfo("other", "postgres"),
            "folder": self.cluster.folder / "dump",
        }
        started = time.monotonic()
        shell = ["/bin/bash", "-o", "pipefail", "-c", command.format(**names)]
        subprocess.run(shell, check=True, timeout=TIMEOUT)
        return time.monotonic() - started

    def refresh(self, rest: str = "") -> float:
        """Seconds of a refresh, masked where there are rules."""
        key = self.cluster.folder / "mask.key"
        mode = f'mode = "masked"\nkey = "{key}"' if rest else 'mode = "copy"'
        text = (
            f'[refresh]\n{mode}\nenvironment = "QAT"\n'
            f'[source]\nconninfo = "{self.cluster.conninfo(self.source, "reader")}"\n'
            f'[target]\nconninfo = "{self.cluster.conninfo("postgres", "refresher")}"\n'
            f'database = "{"masked" if rest else "copied"}"\nowner = "crm_owner"\n{rest}'
        )
        self.cluster.psql("CHECKPOINT")
        started = time.monotonic()
        refresh(parse_configuration(text.encode()), self.cluster.folder / "reports", _silent())
        return time.monotonic() - started

    def cases(self) -> dict[str, Callable[[], float]]:
        dump = '{programs}/pg_dump -d "{source}"'
        restore = '{programs}/pg_restore -d "{target}"'
        return {
            CUSTOM: lambda: self.tool(f"{dump} -Fc | {restore}"),
            FOLDER: lambda: self.tool(
                f"rm -rf {{folder}}; {dump} -Fd -j2 -f {{folder}} && {restore} -j2 {{folder}}"
            ),
            COPY: self.refresh,
        }


def refreshing(repeat: int) -> str:
    """The figures, as tables."""
    with _cluster() as cluster:
        accounts = Bench(cluster, "accounts")
        cases = accounts.cases() | {
            f"masked: {', '.join(MASKED)}": lambda: accounts.refresh(RULES),
            "a tenth of the accounts": lambda: accounts.refresh(TENTH + KEPT),
        }
        times = [in_turns(cases, repeat), in_turns(Bench(cluster, "many").cases(), repeat)]
    titles = (f"pgbench, scale {SCALE}", f"{TABLES} tables of 200 rows")
    lines = [
        line for title, found in zip(titles, times, strict=True) for line in _told(title, found)
    ]
    return "\n".join(
        [*lines, f"memory of our process: {getrusage(RUSAGE_SELF).ru_maxrss >> 10} MiB"]
    )


def _told(title: str, times: dict[str, list[float]]) -> Iterator[str]:
    aims = {"masked": "1.5", "a tenth": "0.4", "copy": "0.9"}
    yield table(title, times, {})
    best = [min(pair) for pair in zip(times[CUSTOM], times[FOLDER], strict=True)]
    for name, found in times.items():
        if name not in {CUSTOM, FOLDER}:
            aim = next(aim for begin, aim in aims.items() if name.startswith(begin))
            yield ratio_line(f"{name} / the best of the tools", ratios(found, best), aim)


@contextmanager
def _cluster() -> Iterator[Cluster]:
    with private_cluster() as cluster:
        cluster.psql(ROLES)
        key = cluster.folder / "mask.key"
        key.touch(0o600)
        key.write_text(secrets.token_hex(32), encoding="ascii")
        for name in ("accounts", "many"):
            cluster.psql(f"CREATE DATABASE {name} OWNER crm_owner")
        command: list[str | Path] = [cluster.program("pgbench"), "-iq", "-s", str(SCALE)]
        where = ("-h", cluster.folder, "-U", "postgres", "accounts")
        subprocess.run([*command, *where], check=True, timeout=TIMEOUT, capture_output=True)
        references = ("" if not n else f"REFERENCES t{n - 1}" for n in range(TABLES))
        parts = (MANY.format(n=n, references=up) for n, up in enumerate(references))
        cluster.psql("".join(parts), "many")
        yield cluster


def _silent() -> Watch:
    return Watch(lambda _: None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.refreshing")
    parser.add_argument("--repeat", type=int, default=3, help="turns that count (default: 3)")
    parser.add_argument("--scale", type=int, default=SCALE, help=f"of pgbench (default: {SCALE})")
    given = parser.parse_args()
    SCALE = given.scale
    print(machine())
    print(refreshing(given.repeat))
    print(f"afterwards: {load()}")
