"""The whole story, from a repository to production: `make demo`.

A release engineer builds and two developers sign. When PRD is in use, QAT is made anew as a copy of
it, and DEV as a part of it with nobody's data. The next release goes to DEV, and to QAT, which
signs a receipt of what it measured. PRD refuses the very same package until the customer has
approved it, then does exactly what QAT did. PRD drifts by one index made by hand, and the next
release is refused, naming it. Then packages that must not get in. A Debian host in production does
the same with DEBs. All tools are real. The hosts are overlays of this machine, each with a
PostgreSQL cluster of its own, and are gone at the end.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from examples.product import BROKEN, RELEASES, check_out, create_repository
from examples.refreshing import Refreshing
from examples.telling import chapter, refused, say, shown_lines, succeed
from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from tests.developers import Developers
from tests.frontends import DPKG, RPM, FrontEnd
from tests.keys import Keyring
from tests.production import new_mask_key
from tests.promotion import RECEIPTS, make_key
from tests.sites import Site

PACKAGE_KEY = "/etc/pki/rpm-gpg/crm"
HOSTS = (("dev", "DEV", RPM), ("qat", "QAT", RPM), ("prd", "PRD", RPM), ("debian", "PRD", DPKG))
DEVELOPMENT, NEXT = "[require.DEV]\ndeveloper = 1\n\n", "[require.QAT]"
"""What is added to a policy by hand, and before what: the command writes of QAT and PRD."""


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
        create_repository(self.repository, self.package_key, new_mask_key(self.folder))
        say("Ada and Grace sign releases; one more key signs packages, for rpm and dnf.")
        installer = build_installer(self.folder)
        build_installer_deb(self.folder)
        first, second, third = (self.build(version) for version in RELEASES)
        say("What a sysadmin can see of a package before installing it:")
        shown_lines(self.developers.countersign("show", second).stdout)
        with ExitStack() as stack:
            dev, qat, prd, debian = (
                stack.enter_context(self.host(installer, *host)) for host in HOSTS
            )
            self.agree(dev, qat, prd, debian)
            self.first_release(dev, qat, prd, first)
            Refreshing(self.folder, dev, qat, prd).tell()
            self.countersigned(dev, qat, prd, second)
            self.drift(dev, qat, prd, third)
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

    def agree(self, dev: Site, qat: Site, *production: Site) -> None:
        """The hosts' own keys, and the policy that names everybody."""
        chapter("Four hosts, DEV, QAT and two of PRD, and the policy that all of them go by")
        say("countersign-install init: each host makes the key that it signs its receipts with")
        measured = make_key(self.developers, qat)
        for site in (dev, *production):
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
        text = policy.read_text(encoding="utf-8").replace(NEXT, f"{DEVELOPMENT}{NEXT}")
        policy.write_text(text, encoding="utf-8")
        say("countersign policy init writes it, DEV is added by hand; countersign policy show:")
        shown_lines(self.developers.countersign("policy", "show", policy).stdout)
        everybody = self.developers.keyring(self.customer_key, measured)
        self.customer.keys.gpg("--import", data=everybody)
        for site in (dev, qat, *production):
            site.trust(text, everybody)

    def first_release(self, dev: Site, qat: Site, prd: Site, first: Path) -> None:
        """Release 1.0.0 goes the whole way."""
        chapter("1.0.0: DEV and QAT take it with rpm, the customer approves, PRD takes it with dnf")
        succeed(dev, ["rpm", "-i", dev.carry(first)])
        succeed(qat, ["rpm", "-i", qat.carry(first)])
        say("The application reads what the release's scripts made:")
        succeed(qat, ["/opt/crm/current/crm", "-U", "postgres", "-d", "crm"])
        succeed(prd, ["rpm", "-i", prd.carry(self.approve(qat, first, "1.0.0"))])
        self.dnf(prd, first, "install")

    def countersigned(self, dev: Site, qat: Site, prd: Site, second: Path) -> None:
        """Release 1.1.0: PRD wants the customer's approval of what QAT measured."""
        chapter("1.1.0: DEV and QAT upgrade, and PRD refuses: nobody has approved it yet")
        succeed(dev, ["rpm", "-U", dev.carry(second)])
        succeed(qat, ["rpm", "-U", qat.carry(second)])
        refused(prd, ["rpm", "-U", prd.carry(second)])
        chapter("The customer, having tested QAT, signs; the same package goes to PRD")
        succeed(prd, ["rpm", "-U", prd.carry(self.approve(qat, second, "1.1.0"))])
        self.dnf(prd, second, "upgrade")
        say("Ledger, application tree and package database agree:")
        succeed(prd, ["countersign-install", "status"])

    def drift(self, dev: Site, qat: Site, prd: Site, third: Path) -> None:
        """PRD is no longer what QAT is a copy of."""
        chapter("1.2.0: its third script fails on DEV, signed by both developers as it is")
        refused(dev, ["rpm", "-U", dev.carry(self.build(BROKEN))])
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


if __name__ == "__main__":
    sys.exit(main())
