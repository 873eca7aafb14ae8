"""The four programs that install a package, and how each is told the same thing."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts import Host


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """One of them. The commands take the path of a package; `remove` and `query` take its name."""

    name: str
    format: str
    install: tuple[str, ...]
    upgrade: tuple[str, ...]
    again: tuple[str, ...]
    remove: tuple[str, ...]
    scriptlet: str
    """The installer's command that the package runs."""

    def pick(self, package: Path) -> Path:
        """The package of this front end's format, which lies beside the one given."""
        if package.suffix == f".{self.format}":
            return package
        (found,) = package.parent.glob(f"*.{self.format}")
        return found

    def installed(self, host: Host, name: str) -> str:
        """The version and revision that the package database has as installed, or nothing."""
        done = host.run([*QUERIES[self.format], name])
        status, _, version = done.stdout.strip().partition(" ")
        return version if done.returncode == 0 and status == "ii" else ""


QUERIES = {
    "rpm": ("rpm", "-q", "--qf", "ii %{VERSION}-%{RELEASE}"),
    "deb": ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}"),
}
"""What each prints begins with `ii` where the package is installed, as dpkg abbreviates it."""
RPM = FrontEnd(
    name="rpm",
    format="rpm",
    install=("rpm", "-i"),
    upgrade=("rpm", "-U"),
    again=("rpm", "-U", "--replacepkgs"),
    remove=("rpm", "-e"),
    scriptlet="rpm-pre",
)
DNF = FrontEnd(
    name="dnf",
    format="rpm",
    install=("dnf", "-y", "install"),
    upgrade=("dnf", "-y", "upgrade"),
    again=("dnf", "-y", "reinstall"),
    remove=("dnf", "-y", "remove"),
    scriptlet="rpm-pre",
)
DPKG = FrontEnd(
    name="dpkg",
    format="deb",
    install=("dpkg", "-i"),
    upgrade=("dpkg", "-i"),
    again=("dpkg", "-i"),
    remove=("dpkg", "-r"),
    scriptlet="deb-preinst",
)
APT = FrontEnd(
    name="apt",
    format="deb",
    install=("apt-get", "-y", "install"),
    upgrade=("apt-get", "-y", "install"),
    again=("apt-get", "-y", "--reinstall", "install"),
    remove=("apt-get", "-y", "remove"),
    scriptlet="deb-preinst",
)
FRONT_ENDS = (RPM, DNF, DPKG, APT)


def only(*fronts: FrontEnd) -> pytest.MarkDecorator:
    """A test of what the other front ends cannot be told to do; the test says why."""
    return pytest.mark.parametrize("front", fronts, ids=lambda front: front.name, indirect=True)
