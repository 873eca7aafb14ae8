"""Fuzzes what reads bytes that a host did not write; `make fuzz` runs it.

    python -m tests.fuzz [TARGET…]                 ten minutes, shared by all targets
    python -m tests.fuzz --seconds 3600            or another time
    python -m tests.fuzz --runs 1000               or so many executions of each target
    python -m tests.fuzz --minimise [TARGET…]      writes the corpus anew, from what was found
    python -m tests.fuzz --replay [TARGET…]        reads the corpus, without atheris

What is found goes to build/fuzz. Where an input makes a target fail, its name and the trace are
printed, and the exit code is 1.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.inputs import CORPUS, LARGEST, corpus_of, minimised, rewrite
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 600
SLOW = 60
"""Seconds after which one input counts as a hang, where time bounds the run."""

_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What fuzzing a target came to; `failure` is empty where nothing was found."""

    failure: str
    executions: int = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the command line says; 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for all targets together")
    parser.add_argument("--runs", type=int, help="executions of each target, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0: another one each time")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--minimise", action="store_true", help="write the corpus anew")
    parser.add_argument("--replay", action="store_true", help="only read the corpus")
    options = parser.parse_args(arguments)
    names = options.targets or list(TARGETS)
    if unknown := sorted(set(names) - TARGETS.keys()):
        parser.error(f"no target is called {unknown[0]}; there are {', '.join(TARGETS)}")
    if options.minimise:
        return _minimise(names, options.work)
    if options.replay:
        return _replay(names)
    if not importlib.util.find_spec("atheris"):
        parser.error(
            "atheris is not installed: there is a wheel for CPython 3.11 to 3.13 on x86_64, which "
            "`make setup` then installs; --replay does without"
        )
    if options.runs:
        bound = [f"-runs={options.runs}"]
    else:
        share = max(1, options.seconds // len(names))
        bound = [f"-max_total_time={share}", f"-timeout={SLOW}"]
    print("target       executions  edges  features  inputs", flush=True)
    outcomes = [_fuzz(name, [*bound, f"-seed={options.seed}"], options.work) for name in names]
    return int(any(outcome.failure for outcome in outcomes))


def _fuzz(name: str, bound: list[str], work: Path) -> Outcome:
    """Fuzz one target in a process of its own, and print what it came to."""
    found = work / name
    found.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.engine", name, *bound),
        *(f"-max_len={LARGEST}", f"-artifact_prefix={work / name}-"),
        *(str(found), str(CORPUS / name)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    outcome = _outcome(done)
    numbers = f"{outcome.executions:10} {outcome.edges:6} {outcome.features:9} {outcome.inputs:7}"
    print(f"{name:12} {numbers}  {outcome.failure or 'nothing found'}", flush=True)
    return outcome


def _outcome(done: subprocess.CompletedProcess[str]) -> Outcome:
    last = _DONE.search(done.stderr)
    if done.returncode or not last:
        return Outcome(f"exit code {done.returncode}:\n{done.stdout}{done.stderr[-2000:]}")
    return Outcome("", *(int(last[i]) for i in range(1, 5)))


def _minimise(names: Sequence[str], work: Path) -> int:
    made = seeds()
    for name in names:
        found = [path.read_bytes() for path in sorted((work / name).glob("*")) if path.is_file()]
        found += corpus_of(name) if (CORPUS / name).exists() else []
        rewrite(name, minimised(TARGETS[name], made[name], found))
        print(f"{name:12} {len(corpus_of(name)):6} of {len(set(found)):6} inputs kept", flush=True)
    return 0


def _replay(names: Sequence[str]) -> int:
    for name in names:
        taken = [TARGETS[name].read(content) for content in corpus_of(name)]
        print(f"{name:12} {len(taken):6} inputs, {sum(taken):6} taken", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
