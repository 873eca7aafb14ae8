"""The whole story, from a repository to production: `make demo`.

A release engineer builds and two developers sign. QAT is a copy of PRD, made with pg_dump and
pg_restore; it installs the release and signs a receipt of what it measured. PRD refuses the very
same package until the customer has approved it, then does exactly what QAT did. PRD drifts by one
index made by hand, and the next release is refused, naming it. Then packages that must not get in.
A Debian host in production does the same with DEBs. All tools are real. The hosts are overlays of
this machine, each with a PostgreSQL cluster of its own, and are gone at the end.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from examples.product import BROKEN, RELEASES, check_out, create_repository
from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from tests.developers import Developers
from tests.frontends import DPKG, RPM, FrontEnd
from tests.hosts.cluster import SOCKETS, program
from tests.keys import Keyring
from tests.promotion import make_key
from tests.sites import SET_UP_DATABASE, Site

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
PACKAGE_KEY = "/etc/pki/rpm-gpg/crm"
RECEIPTS = "/var/lib/countersign/receipts"
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
        Keyring.create() as customers,
        tempfile.TemporaryDirectory(prefix="countersign-demo-") as folder,
    ):
        Demo(keys, customers, Path(folder)).run()
    chapter(f"Done in {time.monotonic() - started:.0f} s; the hosts and the keys are gone.")
    return 0


class Demo:
    """The demo's keys, packages and story."""

    def __init__(self, keys: Keyring, customers: Keyring, folder: Path) -> None:
        self.developers = Developers.create(keys, folder)
        self.package_key = keys.new_key("CRM packages <packages@example.org>")
        # The customer has a keyring of her own, with public keys of the others.
        self.customer_key = customers.new_key("The Customer <customer@example.org>")
        self.customer = Developers(customers, folder, "", "", "")
        self.folder = folder
        self.repository = folder / "crm"

    def run(self) -> None:
        """Tell the story."""
        chapter("The developers: a git repository with tagged releases, and two keys")
        create_repository(self.repository, self.package_key)
        say("Ada and Grace sign releases; one more key signs packages, for rpm and dnf.")
        installer = build_installer(self.folder)
        build_installer_deb(self.folder)
        first, second, third = (self.build(version) for version in RELEASES)
        say("What a sysadmin can see of a package before installing it:")
        shown_lines(self.developers.countersign("show", second).stdout)
        with ExitStack() as stack:
            qat, prd, debian = (
                stack.enter_context(self.host(installer, *host))
                for host in (("qat", "QAT", RPM), ("prd", "PRD", RPM), ("debian", "PRD", DPKG))
            )
            self.agree(qat, prd, debian)
            self.first_release(qat, prd, first)
            self.copy_of_production(qat, prd)
            self.countersigned(qat, prd, second)
            self.drift(qat, prd, third)
            self.refuse(qat, third)
            self.on_debian(debian, first, second)
            self.look_back(prd)

    def build(self, version: str, signers: int = 2) -> Path:
        """Build a release, signed by so many developers."""
        release = check_out(self.repository, version)
        by = (self.developers.ada, self.developers.grace)[:signers]
        words = "signed by Ada and Grace" if by else "signed by nobody"
        say(f"countersign sign, countersign build: crm {version}, {words}")
        return self.developers.build(release, self.folder / f"dist-{version}-{signers}", by)

    @contextmanager
    def host(self, installer: Path, name: str, environment: str, front: FrontEnd) -> Iterator[Site]:
        """A host with its own cluster, set up by its administrator."""
        with Site.start(
            self.developers, installer, name=name, environment=environment, front=front
        ) as site:
            key = site.host.at(PACKAGE_KEY)
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_bytes(self.developers.keys.export([self.package_key], armour=True))
            site.host.run(["rpm", "--import", PACKAGE_KEY], check=True)
            yield site

    def agree(self, qat: Site, *production: Site) -> None:
        """The hosts' own keys, and the policy that names everybody."""
        chapter("Three hosts, QAT and two of PRD, and the policy that all of them go by")
        say("countersign-install init: each host makes the key that it signs its receipts with")
        measured = make_key(self.developers, qat)
        for site in production:
            make_key(self.developers, site)
        public = self.customer.keys.export([self.customer_key])
        self.developers.keys.gpg("--import", data=public)
        policy = self.folder / "policy.toml"
        self.developers.countersign(
            *("policy", "init", policy),
            *("--developer", f"Ada={self.developers.ada}"),
            *("--developer", f"Grace={self.developers.grace}"),
            *("--customer", f"The Customer={self.customer_key}"),
            *("--host", f"qat={measured}@QAT"),
        )
        say("countersign policy init writes the policy; countersign policy show reads it:")
        shown_lines(self.developers.countersign("policy", "show", policy).stdout)
        everybody = self.developers.keyring(self.customer_key, measured)
        self.customer.keys.gpg("--import", data=everybody)
        for site in (qat, *production):
            site.trust(policy.read_text(encoding="utf-8"), everybody)

    def first_release(self, qat: Site, prd: Site, first: Path) -> None:
        """Release 1.0.0 goes the whole way."""
        chapter("1.0.0: QAT installs it with rpm, the customer approves, PRD installs it with dnf")
        succeed(qat, ["rpm", "-i", qat.carry(first)])
        say("The application reads what the release's scripts made:")
        succeed(qat, ["/opt/crm/current/crm", "-U", "postgres", "-d", "crm"])
        succeed(prd, ["rpm", "-i", prd.carry(self.approve(qat, first, "1.0.0"))])
        self.dnf(prd, first, "install")

    def copy_of_production(self, qat: Site, prd: Site) -> None:
        """QAT's database is made anew from PRD's."""
        chapter("QAT becomes a copy of PRD: pg_dump there, pg_restore here")
        at = ("-h", SOCKETS, "-U", "postgres", "-d")
        dump = "/srv/crm.dump"
        succeed(prd, [str(program("pg_dump")), *at, "crm", "--format=custom", "--file", dump])
        qat.host.copy_in(prd.host.at(dump), dump)
        create, grant = SET_UP_DATABASE.strip().splitlines()[-2:]
        for statement in ("DROP DATABASE crm", create, grant):
            qat.host.psql(statement)
        succeed(qat, [str(program("pg_restore")), *at, "crm", "--exit-on-error", dump])
        say("It is PRD's, ledger included, and the schema is what PRD's receipt has:")
        receipt = newest_receipt(prd, "1.0.0")
        qat.host.copy_in(receipt, "/srv/prd.json")
        succeed(qat, ["countersign-install", "schema", "--diff", "/srv/prd.json"])

    def countersigned(self, qat: Site, prd: Site, second: Path) -> None:
        """Release 1.1.0: PRD wants the customer's approval of what QAT measured."""
        chapter("1.1.0: QAT upgrades, and PRD refuses: nobody has approved it yet")
        succeed(qat, ["rpm", "-U", qat.carry(second)])
        refused(prd, ["rpm", "-U", prd.carry(second)])
        chapter("The customer, having tested QAT, signs; the same package goes to PRD")
        succeed(prd, ["rpm", "-U", prd.carry(self.approve(qat, second, "1.1.0"))])
        self.dnf(prd, second, "upgrade")
        say("Ledger, application tree and package database agree:")
        succeed(prd, ["countersign-install", "status"])

    def drift(self, qat: Site, prd: Site, third: Path) -> None:
        """PRD is no longer what QAT is a copy of."""
        chapter("1.2.0: its third script fails on QAT, signed by both developers as it is")
        refused(qat, ["rpm", "-U", qat.carry(self.build(BROKEN))])
        chapter("PRD drifts: somebody makes an index by hand. QAT knows nothing of it")
        prd.sql('CREATE INDEX by_hand ON crm."order" (customer_id)')
        say('CREATE INDEX by_hand ON crm."order" (customer_id); then 1.2.1 is tested and approved:')
        succeed(qat, ["rpm", "-U", qat.carry(third)])
        succeed(prd, ["rpm", "-U", prd.carry(self.approve(qat, third, "1.2.1"))])
        refused(prd, ["rpm", "-U", prd.carry(third)])
        say("Without it, PRD is what was tested:")
        prd.sql("DROP INDEX crm.by_hand")
        succeed(prd, ["rpm", "-U", prd.carry(third)])

    def on_debian(self, debian: Site, first: Path, second: Path) -> None:
        """The same releases and the same approvals as DEBs: the same bundle, the same installer."""
        chapter("A Debian host in PRD: the same releases and approvals as DEBs, dpkg and apt")
        succeed(debian, ["dpkg", "-i", debian.carry(self.companion("1.0.0"))])
        succeed(debian, ["dpkg", "-i", debian.carry(first)])
        refused(debian, ["apt-get", "-yq", "install", debian.carry(second)])
        succeed(debian, ["apt-get", "-yq", "install", debian.carry(self.companion("1.1.0"))])
        succeed(debian, ["apt-get", "-yq", "install", debian.carry(second)])
        succeed(debian, ["countersign-install", "status"])
        tampered = self.folder / "tampered.deb"
        raw = DPKG.pick(second).read_bytes()
        place = raw.index(b"\xfd7zXZ") + 50  # in the compressed scripts
        tampered.write_bytes(raw[:place] + b"TAMPERED" + raw[place + 8 :])
        say("A tampered DEB, and an unsigned one:")
        refused(debian, ["dpkg", "-i", debian.carry(tampered)])
        refused(debian, ["dpkg", "-i", debian.carry(self.build(BROKEN, signers=0))])

    def refuse(self, qat: Site, newest: Path) -> None:
        """Packages that must not get in."""
        tampered = self.folder / "tampered.rpm"
        raw = newest.read_bytes()
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
        chapter("An older release, signed by both developers")
        refused(qat, ["rpm", "-U", "--oldpackage", qat.carry(self.build(BROKEN))])

    def look_back(self, prd: Site) -> None:
        """What the ledger kept of all this."""
        chapter("What PRD's ledger says")
        succeed(prd, ["countersign-install", "history", "crm"])

    def approve(self, qat: Site, package: Path, version: str) -> Path:
        """Let the customer see what QAT measured, and sign; returns the companion package."""
        receipt = self.folder / f"receipt-{version}.json"
        found = newest_receipt(qat, version)
        receipt.write_bytes(found.read_bytes())
        signature = found.with_name(f"{found.name}.asc")
        receipt.with_name(f"{receipt.name}.asc").write_bytes(signature.read_bytes())
        say(f"countersign approve {package.name} --receipt QAT.json --environment PRD")
        output = self.folder / f"approved-{version}"
        done = self.customer.countersign(
            *("approve", package, "--receipt", receipt, "--environment", "PRD", "--yes"),
            *("--key", self.customer_key, "--format", "all", "--output", output),
        )
        shown_lines(done.stdout)
        return self.companion(version)

    def companion(self, version: str) -> Path:
        """The companion package that brings an approval to PRD; its DEB lies beside it."""
        (made,) = (self.folder / f"approved-{version}").glob("*.rpm")
        return made

    def dnf(self, prd: Site, package: Path, command: str) -> None:
        """Install or upgrade from a repository of the host's own."""
        prd.host.copy_in(package, f"/srv/repository/{package.name}")
        prd.host.run(["createrepo_c", "--quiet", "/srv/repository"], check=True)
        with prd.host.http_server("/srv/repository") as address:
            prd.host.add_dnf_repository("crm", address, gpgkey=f"file://{PACKAGE_KEY}")
            succeed(prd, ["dnf", "-yq", command, "crm"])


def newest_receipt(site: Site, version: str) -> Path:
    """The newest receipt of a version that a host has written."""
    *_, found = sorted(site.host.at(RECEIPTS).glob(f"crm-{version}-*.json"))
    return found


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
    shown_lines(done.stdout + done.stderr)
    return done


def shown_lines(text: str) -> None:
    """Print what a command said."""
    for line in text.splitlines():
        if line.strip() and not line.startswith(NOISE):
            print(f"    {DIM}{line}{PLAIN}")


if __name__ == "__main__":
    sys.exit(main())
