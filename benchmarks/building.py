"""`countersign build` beside rpmbuild and tar, of the same files.

The build exports the release, parses each script, checks signatures, packs, reads its package back
and verifies it. rpmbuild only packs the same files as payload, with no dependency generator and
no build-root policy; tar writes them one after the other.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import in_turns, ratio_line, ratios, table
from benchmarks.scripts import MANY, scripts
from tests.developers import Developers, Draft, Files

APPLICATION: Files = {
    "app/bin/crm": "#!/bin/sh\nexec /usr/bin/python3 -m crm\n",
    "app/VERSION": "1.0\n",
    "app/crm.py": "print('orders')\n" * 200,
    "app/logo.bin": bytes(range(256)) * 64,
}
BUILD, RPMBUILD, TAR = "countersign build", "rpmbuild -bb", "tar -c"
SPEC = """\
%global __os_install_post %{{nil}}
Name: bare
Version: 1.0
Release: 1
Summary: The same files, and nothing else
License: None
BuildArch: noarch
AutoReqProv: no
%description
The same files, and nothing else.
%install
mkdir -p %{{buildroot}}/opt
cp -a {tree} %{{buildroot}}/opt/bare
%files
/opt/bare
"""


def building(developers: Developers, folder: Path, repeat: int) -> str:
    """The figures, as a table."""
    sql = {f"sql/{name}": text for name, text in scripts(MANY).items()}
    release = Draft("2.0", 2, {**APPLICATION, **sql}, [developers.ada])
    package, tree = developers.package(release), developers.folder / release.name
    toml = developers.folder / f"{release.name}.toml"
    spec = folder / "bare.spec"
    spec.write_text(SPEC.format(tree=tree), encoding="utf-8")
    cases = {
        BUILD: lambda: _seconds(
            lambda: developers.countersign("build", "--release", toml, "--output", package.parent)
        ),
        RPMBUILD: _timed("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/top", spec),
        TAR: _timed("tar", "-C", tree, "-cf", folder / "bare.tar", "."),
    }
    times = in_turns(cases, repeat)
    title = f"Building: {MANY:,} scripts, {len(APPLICATION)} files of an application"
    lines = [
        table(title, times, {BUILD: "below 2 s"}),
        ratio_line("build to rpmbuild", ratios(times[BUILD], times[RPMBUILD])),
        ratio_line("build to tar", ratios(times[BUILD], times[TAR])),
    ]
    return "\n".join(lines)


def _timed(*command: str | Path) -> Callable[[], float]:
    return lambda: _seconds(lambda: _run(command))


def _run(command: Sequence[str | Path]) -> None:
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
