"""A host takes packages from its signed repository, and from nobody who pretends to be it.

The hosts have the files that `countersign repo` wrote for them. A refused package has run nothing:
the installer keeps a log from its first step on, and there is none.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.acceptance import releases
from tests.companions import approval_folder, companion
from tests.developers import Developers, Draft, identity
from tests.frontends import APT, DNF, FrontEnd
from tests.sites import Site, State

pytestmark = pytest.mark.acceptance

URL = "http://127.0.0.1:8080"
REPOMD = "rpm/repodata/repomd.xml"
SIGNATURE = f"{REPOMD}.asc"
SUITE = "deb/dists/QAT"
PACKAGES = f"{SUITE}/main/binary-all"
RPM = "rpm/crm-1.0-1.noarch.rpm"
DEB = "deb/pool/crm_1.0-1_all.deb"
NOTHING = State("", "", "", None, hashlib.sha256().hexdigest())
"""What a host has of the product before its first release."""

DROPPED_IN = {
    "countersign.repo": "/etc/yum.repos.d",
    "countersign-repository.asc": "/etc/pki/rpm-gpg",
    "countersign.sources": "/etc/apt/sources.list.d",
    "countersign-repository.gpg": "/etc/apt/keyrings",
}
"""Where sysadmins put what lies beside the repositories."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whoever runs the repository, with a key that also signs packages, and what they publish."""

    developers: Developers
    key: str
    signed: Path
    unsigned: Path
    foreign: Path

    def publish(self, folder: Path, *packages: Path, environment: str = "QAT") -> Path:
        """Put packages into the repository in `folder`."""
        options = ("--environment", environment, "--key", self.key, "--url", URL)
        self.developers.countersign("repo", *packages, "--output", folder, *options)
        return folder

    def sign(self, data: bytes, key: str) -> bytes:
        """A detached signature."""
        return self.developers.keys.sign(data, key, "--digest-algo", "SHA512")

    def clear_sign(self, data: bytes, key: str) -> bytes:
        """A text with its signature."""
        return self.developers.keys.gpg("--local-user", key, "--clearsign", data=data)


@pytest.fixture(scope="module")
def publisher(developers: Developers, first: Path) -> Publisher:
    """Release 1.0 with the publisher's signature, with none, and with Mallory's."""
    key = developers.keys.new_key("Packages <packages@example.org>")
    draft = releases.first(developers)
    signed, foreign = (with_package_key(developers, draft, k) for k in (key, developers.mallory))
    return Publisher(developers, key, signed, first, foreign)


def with_package_key(developers: Developers, draft: Draft, key: str) -> Path:
    """The release's RPM, signed with a key as a package; its DEB lies beside it."""
    release = developers.folder / f"{draft.name}-{key}.toml"
    release.write_text(f'{draft.toml()}\n[signing]\npackage_key = "{key}"\n')
    return developers.build(release, developers.folder / f"dist/{release.stem}", draft.signers)


@pytest.fixture(scope="module")
def dnf_site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A host on which nothing gets installed."""
    with Site.start(developers, installer, name="dnf", front=DNF) as started:
        yield started


@pytest.fixture(scope="module")
def apt_site(developers: Developers, installer: Path) -> Iterator[Site]:
    """A host on which nothing gets installed."""
    with Site.start(developers, installer, name="apt", front=APT) as started:
        yield started


@pytest.fixture
def new_dnf_site(developers: Developers, installer: Path) -> Iterator[Site]:
    with Site.start(developers, installer, front=DNF) as started:
        yield started


@pytest.fixture
def new_apt_site(developers: Developers, installer: Path) -> Iterator[Site]:
    with Site.start(developers, installer, front=APT) as started:
        yield started


@contextmanager
def served(site: Site, folder: Path) -> Iterator[None]:
    """The repository on the host's loopback, and the host told of it; then all is forgotten."""
    for name in [name for name in DROPPED_IN if (folder / name).exists()]:
        site.host.copy_in(folder / name, f"{DROPPED_IN[name]}/{name}")
    site.host.copy_in(folder, "/srv/repository")
    with site.host.http_server("/srv/repository"):
        yield
    for place in ("/srv/repository", *DROPPED_IN.values(), "/var/cache/dnf", "/var/lib/apt/lists"):
        shutil.rmtree(site.host.at(place), ignore_errors=True)


def dnf_install(site: Site, folder: Path) -> CompletedProcess[str]:
    with served(site, folder):
        return site.host.run([*DNF.install, "crm"])


def apt_install(site: Site, folder: Path) -> CompletedProcess[str]:
    """As a sysadmin does: update, and then install, whatever update said."""
    with served(site, folder):
        updated = site.host.run(["apt-get", "update"])
        done = site.host.run([*APT.install, "crm"])
    return CompletedProcess(
        done.args,
        updated.returncode or done.returncode,
        updated.stdout + done.stdout,
        updated.stderr + done.stderr,
    )


def assert_installed(site: Site, done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.state().package == "1.0-1"
    assert site.state().objects == "customer orders"
    assert site.read("VERSION") == "1.0\n"
    assert site.host.at("/var/log/countersign/crm.log").exists()


def assert_refused(site: Site, done: CompletedProcess[str], *words: str) -> None:
    """Refused for this reason, and before any scriptlet ran."""
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    for word in words:
        assert word in said, said
    assert site.state() == NOTHING
    assert not list(site.host.at("/var/log/countersign").iterdir())


REQUIREMENT = "[require.PRD]\ndeveloper = 1\ncustomer = 1\nmax_approval_days = 30\n"


@contextmanager
def prd_site(
    developers: Developers, installer: Path, front: FrontEnd, customer: str
) -> Iterator[Site]:
    """A PRD host that takes no release without the customer's approval."""
    who = identity("The Customer", "customer", customer)
    with Site.start(developers, installer, name="prd", environment="PRD", front=front) as site:
        site.trust(developers.policy(who, REQUIREMENT), developers.keyring(customer))
        yield site


@pytest.mark.parametrize("front", [DNF, APT], ids=lambda front: front.name)
def test_a_host_takes_the_approval_and_then_the_release_from_the_repository(
    developers: Developers, installer: Path, publisher: Publisher, tmp_path: Path, front: FrontEnd
) -> None:
    customer = developers.keys.new_key("The Customer <customer@example.org>")
    approved = approval_folder(developers, publisher.signed, customer)
    packages = [publisher.signed, companion(developers, approved, "--package-key", publisher.key)]
    for package in packages:
        publisher.publish(tmp_path, package, front.pick(package), environment="PRD")
    with prd_site(developers, installer, front, customer) as site, served(site, tmp_path):
        if front == APT:
            site.host.run(["apt-get", "update"], check=True)
        early = site.host.run([*front.install, "crm"])
        assert early.returncode != 0
        assert "PRD requires an approval by 1 of role customer" in early.stdout + early.stderr
        assert site.state() == NOTHING

        brought = site.host.run([*front.install, "crm-approval-prd"])
        assert brought.returncode == 0, brought.stdout + brought.stderr
        assert_installed(site, site.host.run([*front.install, "crm"]))


def append(file: Path, content: bytes) -> None:
    file.write_bytes(file.read_bytes() + content)


def change_last_byte(file: Path) -> None:
    """The size stays, so that nothing but the digest tells."""
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def test_dnf_installs_from_the_signed_repository(
    new_dnf_site: Site, publisher: Publisher, installer: Path, tmp_path: Path
) -> None:
    folder = publisher.publish(tmp_path, publisher.signed, installer)
    settings = (folder / "countersign.repo").read_text().splitlines()
    assert {"gpgcheck=1", "repo_gpgcheck=1", f"baseurl={URL}/rpm"} <= set(settings)

    assert_installed(new_dnf_site, dnf_install(new_dnf_site, folder))


@pytest.mark.parametrize(
    "kind,words",
    [("unsigned", "is not signed"), ("foreign", "is not installed")],
)
def test_dnf_refuses_a_package_that_the_publisher_did_not_sign(
    dnf_site: Site, publisher: Publisher, tmp_path: Path, kind: str, words: str
) -> None:
    folder = publisher.publish(tmp_path, getattr(publisher, kind))

    assert_refused(dnf_site, dnf_install(dnf_site, folder), words, "GPG check FAILED")


def missing_signature(folder: Path, _: Publisher) -> None:
    (folder / SIGNATURE).unlink()


def foreign_index(folder: Path, publisher: Publisher) -> None:
    signature = publisher.sign((folder / REPOMD).read_bytes(), publisher.developers.mallory)
    (folder / SIGNATURE).write_bytes(signature)


def changed_index(folder: Path, _: Publisher) -> None:
    append(folder / REPOMD, b"\n")


def changed_package_list(folder: Path, _: Publisher) -> None:
    (primary,) = folder.glob("rpm/repodata/*-primary.xml.gz")
    append(primary, b"\n")


def changed_rpm(folder: Path, _: Publisher) -> None:
    change_last_byte(folder / RPM)


@pytest.mark.parametrize(
    "attack,words",
    [
        (missing_signature, "repomd.xml.asc"),
        (foreign_index, "repomd.xml GPG signature verification error"),
        (changed_index, "repomd.xml GPG signature verification error"),
        (changed_package_list, "checksum doesn't match"),
        (changed_rpm, "checksum doesn't match"),
    ],
)
def test_dnf_refuses_a_repository_that_is_not_as_its_publisher_signed_it(
    dnf_site: Site,
    publisher: Publisher,
    tmp_path: Path,
    attack: Callable[[Path, Publisher], None],
    words: str,
) -> None:
    folder = publisher.publish(tmp_path, publisher.signed)
    attack(folder, publisher)

    assert_refused(dnf_site, dnf_install(dnf_site, folder), words)


def test_rpm_itself_takes_signed_packages_only_where_macros_say_so(
    new_dnf_site: Site, publisher: Publisher
) -> None:
    site, keys = new_dnf_site, publisher.developers.keys
    site.host.write("/etc/rpm/macros", "%_pkgverify_level signature\n")
    site.host.write("/srv/key.asc", keys.export([publisher.key], armour=True).decode())
    site.host.run(["rpm", "--import", "/srv/key.asc"], check=True)

    assert_refused(site, site.rpm("-i", publisher.unsigned), "no signature")
    assert_refused(site, site.rpm("-i", publisher.foreign), "NOKEY")
    assert_installed(site, site.rpm("-i", publisher.signed))


@pytest.mark.parametrize(
    "kind,words", [("unsigned", "is not signed"), ("foreign", "is not installed")]
)
def test_dnf_refuses_a_file_that_the_publisher_did_not_sign_where_it_is_told_to(
    dnf_site: Site, publisher: Publisher, kind: str, words: str
) -> None:
    package = dnf_site.carry(getattr(publisher, kind))

    done = dnf_site.host.run([*DNF.install, "--setopt=localpkg_gpgcheck=1", package])

    assert_refused(dnf_site, done, words)


def test_apt_installs_from_the_signed_repository(
    new_apt_site: Site, publisher: Publisher, installer: Path, tmp_path: Path
) -> None:
    folder = publisher.publish(tmp_path, APT.pick(publisher.signed))
    assert "Signed-By: /etc/apt" in (folder / "countersign.sources").read_text()

    done = apt_install(new_apt_site, folder)

    assert_installed(new_apt_site, done)
    assert not re.search("^[NW]:", done.stderr, re.MULTILINE)
    # Built earlier than what is there: the index has the same date, and is taken all the same.
    publisher.publish(folder, APT.pick(installer))
    with served(new_apt_site, folder):
        new_apt_site.host.run(["apt-get", "update"], check=True)
        said = new_apt_site.host.run(["apt-cache", "policy", "countersign-installer"]).stdout
    assert URL in said


def missing_inrelease(folder: Path, _: Publisher) -> None:
    (folder / SUITE / "InRelease").unlink()


def unsigned_inrelease(folder: Path, _: Publisher) -> None:
    shutil.copy(folder / SUITE / "Release", folder / SUITE / "InRelease")


def foreign_inrelease(folder: Path, publisher: Publisher) -> None:
    release = (folder / SUITE / "Release").read_bytes()
    signed = publisher.clear_sign(release, publisher.developers.mallory)
    (folder / SUITE / "InRelease").write_bytes(signed)


def changed_inrelease(folder: Path, _: Publisher) -> None:
    file = folder / SUITE / "InRelease"
    file.write_bytes(file.read_bytes().replace(b"Suite: QAT\n", b"Suite: QAT\nVersion: 2\n"))


def changed_packages(folder: Path, _: Publisher) -> None:
    for file in [file for file in (folder / PACKAGES).rglob("*") if file.is_file()]:
        change_last_byte(file)


def changed_deb(folder: Path, _: Publisher) -> None:
    change_last_byte(folder / DEB)


@pytest.mark.parametrize(
    "attack,words",
    [
        (missing_inrelease, "is not signed"),
        (unsigned_inrelease, "Clearsigned file isn't valid"),
        (foreign_inrelease, "NO_PUBKEY"),
        (changed_inrelease, "BADSIG"),
        (changed_packages, "Hash Sum mismatch"),
        (changed_deb, "Hash Sum mismatch"),
    ],
)
def test_apt_refuses_a_repository_that_is_not_as_its_publisher_signed_it(
    apt_site: Site,
    publisher: Publisher,
    tmp_path: Path,
    attack: Callable[[Path, Publisher], None],
    words: str,
) -> None:
    folder = publisher.publish(tmp_path, APT.pick(publisher.signed))
    attack(folder, publisher)

    assert_refused(apt_site, apt_install(apt_site, folder), words)
