"""The `base-system` RPM: tells rpm and dnf what dpkg has installed on this machine.

rpm's database on a Debian machine is empty, so nothing would provide /bin/sh or python3 and every
package would need `--nodeps`. This package holds no files; it provides what is really there, under
the names that RPM packages ask for.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from tests.hosts.cache import cached
from tests.hosts.process import ENVIRONMENT

PATHS = (
    "/bin/bash",
    "/bin/sh",
    "/usr/bin/env",
    "/usr/bin/git",
    "/usr/bin/gpg",
    "/usr/bin/gpg-agent",
    "/usr/bin/gpgv",
    "/usr/bin/psql",
    "/usr/bin/python3",
    "/usr/bin/sh",
)
# RPM packages name the shared library, which Debian ships in this package.
LIBRARIES = {"libpq5": ("libpq.so.5", "libpq.so.5()(64bit)")}

SPEC = """\
Name: base-system
Version: 1
Release: 1
Summary: What dpkg has installed on this machine
License: None
BuildArch: noarch
AutoReqProv: no
{provides}
%description
Tells rpm what the machine under a test host provides.
%files
"""


def rpm_database() -> Path:
    """A folder with an rpm database in which nothing but `base-system` is installed."""
    spec = SPEC.format(provides="".join(f"Provides: {item}\n" for item in provides(installed())))
    digest = hashlib.sha256(spec.encode()).hexdigest()[:16]

    def install(folder: Path) -> None:
        package = build(spec, folder)
        run("rpm", "--define", f"_dbpath {folder / 'rpmdb'}", "-i", str(package))

    return cached(f"base-system-{digest}", install) / "rpmdb"


def installed() -> dict[str, str]:
    """The version of each package that dpkg has installed."""
    listing = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n")
    lines = (line.split() for line in listing.splitlines())
    return {name: version for status, name, version in lines if status == "installed"}


def provides(packages: dict[str, str]) -> list[str]:
    """What a machine with `packages` provides, in the words of RPM packages."""
    libraries = [name for package in LIBRARIES.keys() & packages for name in LIBRARIES[package]]
    paths = [path for path in PATHS if Path(path).exists()]
    versions = [f"{name} = {rpm_version(version)}" for name, version in packages.items()]
    return sorted((*libraries, *paths, *versions))


def rpm_version(version: str) -> str:
    """The Debian `version` as `[epoch:]version[-release]` of rpm, which has one hyphen at most."""
    epoch, colon, rest = version.rpartition(":") if version[:1].isdigit() else ("", "", version)
    upstream, hyphen, revision = rest.rpartition("-")
    return f"{epoch}{colon}{re.sub('-', '_', upstream)}{hyphen}{revision}"


def build(spec: str, folder: Path) -> Path:
    """Build the package of `spec` in `folder`."""
    source = folder / "base-system.spec"
    source.write_text(spec)
    run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}", str(source))
    return folder / "RPMS/noarch/base-system-1-1.noarch.rpm"


def run(*command: str) -> str:
    """Run `command` on the machine itself and return its output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    result = subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        timeout=120,
    )
    return result.stdout
