"""Takes times in turns, and puts them into words."""

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.hosts.cluster import program

Times = Mapping[str, Sequence[float]]


def in_turns(cases: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each case, `repeat` times in turns, after one turn that fills the caches."""
    turns = [{name: case() for name, case in cases.items()} for _ in range(repeat + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in cases}


def differences(longer: Sequence[float], shorter: Sequence[float]) -> list[float]:
    """What is left of each time without the other one of the same turn."""
    return [a - b for a, b in zip(longer, shorter, strict=True)]


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """How many times as long each took as the other one of the same turn."""
    return [a / b for a, b in zip(these, those, strict=True)]


def table(title: str, times: Times, aims: Mapping[str, str]) -> str:
    """Median, lowest and highest of each case, in seconds, with what is aimed at."""
    head = f"{title:<50} {'median':>8} {'lowest':>8} {'highest':>8}"
    lines = [_line(name, times[name], "s", aims.get(name, "")) for name in times]
    return "\n".join([head, *lines])


def ratio_line(name: str, found: Sequence[float], aim: str = "") -> str:
    """One line of a table, of ratios."""
    return _line(name, found, "x", aim)


def machine() -> str:
    """What the figures depend on, in a few lines."""
    tools = (program("psql"), "rpmbuild", "tar", "/usr/bin/python3")
    versions = "; ".join(_version(tool) for tool in tools)
    return (
        f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}, {load()}\n"
        f"{versions} (host), {platform.python_version()} (build)"
    )


def load() -> str:
    """How busy the machine is; on a quiet one it is below 1 before the benchmarks run."""
    return f"load average {os.getloadavg()[0]:.1f}"


def _line(name: str, values: Sequence[float], unit: str, aim: str) -> str:
    shown = (statistics.median(values), min(values), max(values))
    figures = " ".join(f"{value:8.3f}" for value in shown)
    return f"  {name:<48} {figures} {unit}" + (f"  aim: {aim}" if aim else "")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(tool: str | Path) -> str:
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]
