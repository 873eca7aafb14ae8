"""Counts the branches that the installer takes on test hosts, where the tests run under coverage.

A host's installer is isolated from all that is the tests' (`env -i`, `python3 -IS`), so coverage.py
is put into the host's /run, and a line into the launcher that starts it there. What each process
has counted is beside it until the host ends, and then beside what the tests' own process counts,
which adds it to that (`[tool.coverage.paths]`). A process that is killed has counted nothing.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import coverage

from tests.hosts import Host

LAUNCHER = "/usr/bin/countersign-install"
MEASURED = "/usr/libexec/countersign/installer/*"
FOLDER, COUNTS = "/run/measured", "/run/measured/counts"
START = f"""
import atexit

sys.path.append("{FOLDER}")

from coverage import Coverage

counts = Coverage(
    "{COUNTS}/installer", data_suffix=True, branch=True, config_file=False, include=["{MEASURED}"]
)
counts.start()
atexit.register(counts.save)
atexit.register(counts.stop)
"""


@contextmanager
def measured(host: Host) -> Iterator[None]:
    """Count what the installer on `host` does from now on, if the tests are run under coverage."""
    running = coverage.Coverage.current()
    if running is None:
        yield
        return
    host.copy_in(Path(coverage.__file__).parent, f"{FOLDER}/coverage")
    host.run(["mkdir", "--mode=1777", COUNTS], check=True)
    launcher = host.at(LAUNCHER)
    before = "\nfrom installer.cli"
    launcher.write_text(launcher.read_text().replace(before, f"{START}{before}"))
    try:
        yield
    finally:
        beside = Path(running.get_data().base_filename())
        for counted in host.at(COUNTS).iterdir():
            shutil.copy(counted, f"{beside}.{counted.name}")
