"""What a refresh takes, beside pg_dump and pg_restore: whole, masked, and a tenth of the rows.

    python -m benchmarks.refreshing --repeat 3

Source and target are databases of one cluster on this machine, as for the tools beside it. Each
case begins without its database, and ends when that has all rows, constraints and indexes.
"""

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.measure import in_turns, load, machine, ratio_line, ratios, table
from refresher.configuration import parse_configuration
from refresher.copying import Watch, refresh
from tests.cluster import Cluster, private_cluster
from tests.production import ROLES, new_mask_key

SCALE = 50
TABLES = 500
TIMEOUT = 600
MASKED = "masked: aid, abalance, filler"
TENTH = "a tenth of the accounts"
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
SUBSET = '[[subset]]\ntable = "public.pgbench_accounts"\nwhere = "aid % 10 = 0"\n'


@dataclass(frozen=True, slots=True)
class Bench:
    """One source on a cluster, and what is made of it: by phases, and in MiB of our process."""

    cluster: Cluster
    source: str
    phases: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def tool(self, command: str) -> float:
        """Seconds of a command of PostgreSQL's programs, and of making its database."""
        self._begin("other")
        names = {
            "programs": self.cluster.programs,
            "source": self.cluster.conninfo(self.source, "postgres"),
            "target": self.cluster.conninfo("other", "postgres"),
            "folder": self.cluster.folder / "dump",
        }
        started = time.monotonic()
        self.cluster.psql("CREATE DATABASE other TEMPLATE template0")
        shell = ["/bin/bash", "-o", "pipefail", "-c", command.format(**names)]
        subprocess.run(shell, check=True, timeout=TIMEOUT)
        return time.monotonic() - started

    def refresh(self, name: str, rest: str = "") -> float:
        """Seconds of a refresh, masked where there are rules; its phases are kept by its name."""
        key = self.cluster.folder / "mask.key"
        mode = f'mode = "masked"\nkey = "{key}"' if rest else 'mode = "copy"'
        text = (
            f'[refresh]\n{mode}\nenvironment = "QAT"\n'
            f'[source]\nconninfo = "{self.cluster.conninfo(self.source, "reader")}"\n'
            f'[target]\nconninfo = "{self.cluster.conninfo("postgres", "refresher")}"\n'
            f'database = "copied"\nowner = "crm_owner"\n{rest}'
        )
        self._begin("copied")
        watch, configuration = Watch(lambda _: None), parse_configuration(text.encode())
        _forget_peak()
        started = time.monotonic()
        refresh(configuration, self.cluster.folder / "reports", watch)
        taken = time.monotonic() - started
        self.memory[name] = max(_peak(), self.memory.get(name, 0))
        around = {"before, between, after": taken - sum(watch.seconds.values())}
        for phase, seconds in (watch.seconds | around).items():
            self.phases.setdefault(name, {}).setdefault(phase, []).append(seconds)
        return taken

    def _begin(self, database: str) -> None:
        self.cluster.psql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.cluster.psql("CHECKPOINT")

    def cases(self) -> dict[str, Callable[[], float]]:
        dump = '{programs}/pg_dump -d "{source}"'
        restore = '{programs}/pg_restore -d "{target}"'
        return {
            CUSTOM: lambda: self.tool(f"{dump} -Fc | {restore}"),
            FOLDER: lambda: self.tool(
                f"rm -rf {{folder}}; {dump} -Fd -j2 -f {{folder}} && {restore} -j2 {{folder}}"
            ),
            COPY: lambda: self.refresh(COPY),
        }


def refreshing(repeat: int) -> str:
    """The figures, as tables."""
    with _cluster() as cluster:
        accounts, many = Bench(cluster, "accounts"), Bench(cluster, "many")
        rules = {MASKED: RULES, TENTH: SUBSET + KEPT}
        refreshed = {name: partial(accounts.refresh, name, rest) for name, rest in rules.items()}
        lines = [
            *_told(
                f"pgbench, scale {SCALE}", accounts, in_turns(accounts.cases() | refreshed, repeat)
            ),
            *_told(f"{TABLES} tables of 200 rows", many, in_turns(many.cases(), repeat)),
        ]
    return "\n".join(lines)


def _told(title: str, bench: Bench, times: dict[str, list[float]]) -> Iterator[str]:
    aims = {"masked": "at most 1.5", "a tenth": "at most 0.4", "copy": "at most 0.9"}
    yield table(title, times, {})
    best = [min(pair) for pair in zip(times[CUSTOM], times[FOLDER], strict=True)]
    for name, found in times.items():
        if name not in {CUSTOM, FOLDER}:
            aim = next(aim for begin, aim in aims.items() if name.startswith(begin))
            yield ratio_line(f"{name} / the best of the tools", ratios(found, best), aim)
    for name, phases in bench.phases.items():
        yield table(f"Phases of: {name}", {phase: took[1:] for phase, took in phases.items()}, {})
        yield f"  memory of our process, at most {bench.memory[name]:>28} MiB"


def _forget_peak() -> None:
    """Let the most memory that was ever used be what is used now; see proc_pid_clear_refs(5)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The most memory that was used since, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(status[status.index("VmHWM:") + 1]) >> 10


@contextmanager
def _cluster() -> Iterator[Cluster]:
    with private_cluster() as cluster:
        cluster.psql(ROLES)
        new_mask_key(cluster.folder)
        for name in ("accounts", "many"):
            cluster.psql(f"CREATE DATABASE {name} OWNER crm_owner")
        command: list[str | Path] = [cluster.program("pgbench"), "-iq", "-s", str(SCALE)]
        where = ("-h", cluster.folder, "-U", "postgres", "accounts")
        subprocess.run([*command, *where], check=True, timeout=TIMEOUT, capture_output=True)
        references = ("" if not n else f"REFERENCES t{n - 1}" for n in range(TABLES))
        parts = (MANY.format(n=n, references=up) for n, up in enumerate(references))
        cluster.psql("".join(parts), "many")
        yield cluster


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.refreshing")
    parser.add_argument("--repeat", type=int, default=3, help="turns that count (default: 3)")
    parser.add_argument("--scale", type=int, default=SCALE, help=f"of pgbench (default: {SCALE})")
    given = parser.parse_args()
    SCALE = given.scale
    print(machine())
    print(refreshing(given.repeat))
    print(f"afterwards: {load()}")
