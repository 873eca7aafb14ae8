"""`python -m benchmarks`: times installs, builds, fingerprints and refreshes, and prints that."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.building import building
from benchmarks.fingerprint import fingerprinting
from benchmarks.installing import installing
from benchmarks.measure import load, machine
from benchmarks.refreshing import refreshing
from tests.developers import Developers
from tests.keys import Keyring


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Time all commands.")
    parser.add_argument("--repeat", type=int, default=5, help="turns that count (default: 5)")
    parser.add_argument("--refreshes", type=int, default=3, help="turns of a refresh (default: 3)")
    given = parser.parse_args()
    repeat = given.repeat
    print(machine())
    with Keyring.create() as keys, TemporaryDirectory(prefix="countersign-bench-") as name:
        developers = Developers.create(keys, Path(name) / "releases")
        developers.folder.mkdir()
        for case in (installing, building):
            print(f"\n{case(developers, Path(name), repeat)}", flush=True)
        print(f"\n{fingerprinting(Path(name), repeat)}", flush=True)
    print(f"\n{refreshing(given.refreshes)}", flush=True)
    print(f"\nafterwards: {load()}")


if __name__ == "__main__":
    main()
