"""The main job, from a repository to two hosts: `make demo`.

A release engineer builds and two developers sign; a QAT host installs with rpm, a PRD host with
dnf; then three packages are refused, and what they might have changed is shown unchanged. A third
host does the same with DEBs, dpkg and apt. All tools are real. The hosts are overlays of this
machine, each with a PostgreSQL cluster of its own, and are gone at the end.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from examples.product import BROKEN, RELEASES, check_out, create_repository
from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from tests.developers import Developers
from tests.frontends import DPKG, RPM, FrontEnd
from tests.keys import Keyring
from tests.sites import Site

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
PACKAGE_KEY = "/etc/pki/rpm-gpg/crm"
NOISE = (
    "rpm: RPM should not be used",  # Debian's rpm says this of itself at every call
    "rpm: However assuming",
    "debconf: ",  # there is no terminal to ask on, and nothing to ask
    "dpkg-preconfigure: ",
    "(Reading database",
)


def main() -> int:
    """Run the demo; returns the exit code."""
    started = time.monotonic()
    with (
        Keyring.create() as keys,
        tempfile.TemporaryDirectory(prefix="countersign-demo-") as folder,
    ):
        Demo(keys, Path(folder)).run()
    chapter(f"Done in {time.monotonic() - started:.0f} s; the hosts and the keys are gone.")
    return 0


class Demo:
    """The demo's keys, packages and story."""

    def __init__(self, keys: Keyring, folder: Path) -> None:
        self.developers = Developers.create(keys, folder)
        self.package_key = keys.new_key("CRM packages <packages@example.org>")
        self.folder = folder
        self.repository = folder / "crm"

    def run(self) -> None:
        """Tell the story."""
        chapter("The developers: a git repository with tagged releases, and two keys")
        create_repository(self.repository, self.package_key)
        say("Ada and Grace sign releases; one more key signs packages, for rpm and dnf.")
        installer = build_installer(self.folder)
        build_installer_deb(self.folder)
        first, second = (self.build(version) for version in RELEASES)
        say("What a sysadmin can see of a package before installing it:")
        self.show_package(second)
        with (
            self.host(installer, "qat", "QAT") as qat,
            self.host(installer, "prd", "PRD") as prd,
        ):
            self.install_with_rpm(qat, first, second)
            self.install_with_dnf(prd, first, second)
            self.refuse(qat, second)
            self.look_back(qat)
        with self.host(installer, "debian", "QAT", DPKG) as debian:
            self.install_with_dpkg_and_apt(debian, first, second)

    def build(self, version: str, signers: int = 2) -> Path:
        """Build a release, signed by so many developers."""
        release = check_out(self.repository, version)
        by = (self.developers.ada, self.developers.grace)[:signers]
        words = "signed by Ada and Grace" if by else "signed by nobody"
        say(f"countersign sign, countersign build: crm {version}, {words}")
        return self.developers.build(release, self.folder / f"dist-{version}-{signers}", by)

    def show_package(self, package: Path) -> None:
        """The script list out of the package's changelog, and the build's own view."""
        done = self.developers.countersign("show", package)
        for line in done.stdout.splitlines():
            print(f"    {DIM}{line}{PLAIN}")

    @contextmanager
    def host(
        self, installer: Path, name: str, environment: str, front: FrontEnd = RPM
    ) -> Iterator[Site]:
        """A host with its own cluster, set up by its administrator."""
        with Site.start(
            self.developers, installer, name=name, environment=environment, front=front
        ) as site:
            key = site.host.at(PACKAGE_KEY)
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_bytes(self.developers.keys.export([self.package_key], armour=True))
            site.host.run(["rpm", "--import", PACKAGE_KEY], check=True)
            yield site

    def install_with_rpm(self, qat: Site, first: Path, second: Path) -> None:
        """QAT: one developer's signature is enough."""
        chapter("QAT: install 1.0.0 and upgrade to 1.1.0 with rpm")
        succeed(qat, ["rpm", "-i", qat.carry(first)])
        succeed(qat, ["rpm", "-U", qat.carry(second)])
        say("The application reads what the release's scripts made:")
        succeed(qat, ["/opt/crm/current/crm", "-U", "postgres", "-d", "crm"])

    def install_with_dnf(self, prd: Site, first: Path, second: Path) -> None:
        """PRD: two developers must have signed; the packages are the same files."""
        chapter("PRD: the same two packages, with dnf from a repository")
        for package, command in ((first, "install"), (second, "upgrade")):
            prd.host.copy_in(package, f"/srv/repository/{package.name}")
            prd.host.run(["createrepo_c", "--quiet", "/srv/repository"], check=True)
            with prd.host.http_server("/srv/repository") as address:
                prd.host.add_dnf_repository("crm", address, gpgkey=f"file://{PACKAGE_KEY}")
                succeed(prd, ["dnf", "-yq", command, "crm"])
        say("Ledger, application tree and package database agree:")
        succeed(prd, ["countersign-install", "status"])

    def install_with_dpkg_and_apt(self, debian: Site, first: Path, second: Path) -> None:
        """The same releases as DEBs: the same bundle, the same installer."""
        chapter("A Debian host: the same releases as DEBs, with dpkg and apt")
        succeed(debian, ["dpkg", "-i", debian.carry(first)])
        succeed(debian, ["apt-get", "-yq", "install", debian.carry(second)])
        succeed(debian, ["countersign-install", "status"])
        tampered = self.folder / "tampered.deb"
        raw = DPKG.pick(second).read_bytes()
        place = raw.index(b"\xfd7zXZ") + 50  # in the compressed scripts
        tampered.write_bytes(raw[:place] + b"TAMPERED" + raw[place + 8 :])
        say("A tampered DEB, an unsigned one, and the one with the failing script:")
        refused(debian, ["dpkg", "-i", debian.carry(tampered)])
        refused(debian, ["dpkg", "-i", debian.carry(self.build(BROKEN, signers=0))])
        refused(debian, ["apt-get", "-yq", "install", debian.carry(self.build(BROKEN))])

    def refuse(self, qat: Site, second: Path) -> None:
        """Three packages that must not get in."""
        tampered = self.folder / "tampered.rpm"
        raw = second.read_bytes()
        end_of_bundle = raw.index(b"\n\0", raw.index(b"bWFuaWZlc3QuanNvb"))
        place = end_of_bundle - 77 * 30  # in the compressed scripts, whole lines of base64
        tampered.write_bytes(raw[:place] + b"TAMPERED" + raw[place + 8 :])
        chapter("A tampered package: rpm's digests say so")
        refused(qat, ["rpm", "-U", "--replacepkgs", qat.carry(tampered)])
        say("Told to overlook that, rpm asks the installer, which finds it as well:")
        options = ["--replacepkgs", "--nodigest", "--nosignature"]
        refused(qat, ["rpm", "-U", *options, qat.carry(tampered)])
        chapter("A release that nobody signed")
        refused(qat, ["rpm", "-U", qat.carry(self.build(BROKEN, signers=0))])
        chapter("A release whose third script fails, signed by both developers")
        refused(qat, ["rpm", "-U", qat.carry(self.build(BROKEN))])

    def look_back(self, qat: Site) -> None:
        """What the ledger kept of all this."""
        chapter("What QAT's ledger says")
        succeed(qat, ["countersign-install", "history", "crm"])


def chapter(text: str) -> None:
    """Begin a part of the story."""
    print(f"\n{BOLD}== {text}{PLAIN}", flush=True)


def say(text: str) -> None:
    """Tell one thing."""
    print(f"-- {text}", flush=True)


def succeed(site: Site, command: Sequence[str]) -> None:
    """Run a command that must succeed, and show it."""
    done = shown(site, command)
    if done.returncode:
        raise SystemExit(f"this should have succeeded, and ended with {done.returncode}")


def refused(site: Site, command: Sequence[str]) -> None:
    """Run a command that must be refused, and show that nothing changed."""
    before = site.state()
    done = shown(site, command)
    after = site.state()
    if done.returncode == 0 or after != before:
        raise SystemExit(f"this should have been refused and have changed nothing: {after}")
    say(f"refused, and unchanged: package crm {after.package}, application {after.application},")
    print(
        f"   tables and views {after.objects}, {len(after.applied.split())} scripts in the ledger"
    )


def shown(site: Site, command: Sequence[str]) -> CompletedProcess[str]:
    """Run a command on a host and print it with what it said."""
    print(f"{BOLD}{site.host.name}# {' '.join(command)}{PLAIN}", flush=True)
    done = site.host.run(command)
    for line in (done.stdout + done.stderr).splitlines():
        if line.strip() and not line.startswith(NOISE):
            print(f"    {DIM}{line}{PLAIN}")
    return done


if __name__ == "__main__":
    sys.exit(main())
