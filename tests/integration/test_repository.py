"""What `countersign repo` leaves in a folder, and what it refuses to put there."""

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from installer import host_file
from installer.errors import InstallerError, MalformedError
from packager import companion as companions
from packager import repository, templates
from packager.companion import BUILDERS, Companion, companion_of, read_papers
from packager.errors import PackagerError
from packager.formats import deb as debs
from packager.installer_deb import build_installer_deb
from packager.installer_package import build_installer
from packager.repositories.packages import _require_release, examine
from packager.repository import Published
from tests.companions import approval_folder, companion
from tests.developers import Developers, Draft
from tests.keys import Keyring

pytestmark = pytest.mark.integration

FILES = {
    "app/VERSION": "1.0\n",
    "sql/0001_customers.sql": "CREATE TABLE customer (id int PRIMARY KEY);\n",
}
SIGNATURES = {"repomd.xml.asc", "InRelease"}
RPM = "rpm/crm-1.0-1.noarch.rpm"
DEB = "deb/pool/crm_1.0-1_all.deb"
REPOMD = "rpm/repodata/repomd.xml"
SUITE = "deb/dists/QAT"


@pytest.fixture(scope="module")
def developers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Developers]:
    with Keyring.create() as keys, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(keys.home))
        yield Developers.create(keys, tmp_path_factory.mktemp("releases"))


def packages_of(developers: Developers, draft: Draft) -> tuple[Path, Path]:
    rpm = developers.package(draft)
    (deb,) = rpm.parent.glob("*.deb")
    return rpm, deb


@pytest.fixture(scope="module")
def first(developers: Developers) -> tuple[Path, Path]:
    """The RPM and the DEB of release 1.0."""
    return packages_of(developers, Draft("1.0", 1, FILES, [developers.ada]))


@pytest.fixture(scope="module")
def second(developers: Developers) -> tuple[Path, Path]:
    """The RPM and the DEB of release 1.1."""
    return packages_of(developers, Draft("1.1", 2, FILES, [developers.ada]))


@pytest.fixture(scope="module")
def other(developers: Developers) -> tuple[Path, Path]:
    """The RPM and the DEB of another release 1.0."""
    files = {**FILES, "app/VERSION": "other\n"}
    return packages_of(developers, Draft("1.0", 1, files, [developers.ada], label="-other"))


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The RPM and the DEB of countersign-installer."""
    folder = tmp_path_factory.mktemp("installer")
    return build_installer(folder), build_installer_deb(folder)


def publish(
    developers: Developers,
    folder: Path,
    *packages: Path,
    environment: str = "QAT",
    key: str = "",
    url: str | None = None,
) -> Published:
    return repository.publish(packages, folder, environment, key or developers.grace, url)


def refusal(
    developers: Developers, folder: Path, *packages: Path, **options: str
) -> PackagerError | InstallerError:
    """Why the packages were refused."""
    with pytest.raises((PackagerError, InstallerError)) as refused:
        publish(developers, folder, *packages, **options)
    assert isinstance(refused.value, PackagerError | InstallerError)
    return refused.value


def command(
    developers: Developers, folder: Path, *packages: Path, environment: str = "QAT"
) -> subprocess.CompletedProcess[str]:
    options = ("--environment", environment, "--key", developers.grace)
    return developers.countersign("repo", *packages, "--output", folder, *options)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file, by path."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): digest(file) for file in files}


def unsigned(folder: Path) -> dict[str, str]:
    """The digest of every file that is not a signature."""
    return {p: found for p, found in contents(folder).items() if Path(p).name not in SIGNATURES}


def named_by_repomd(folder: Path) -> set[str]:
    return set(re.findall(r'href="(repodata/[^"]+)"', (folder / REPOMD).read_text()))


def in_apt(folder: Path) -> dict[str, str]:
    """Name and digest of what the apt repository offers."""
    text = (folder / SUITE / "main/binary-all/Packages").read_text()
    return dict(re.findall(r"^Filename: pool/(.*)\n.*\nSHA256: (.*)$", text, re.MULTILINE))


def test_promotion_copies_the_very_same_package(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    qat, prd = tmp_path / "qat", tmp_path / "prd"
    published = command(developers, qat, *first)

    promoted = command(developers, prd, qat / RPM, qat / DEB, environment="PRD")

    for package, file in zip(first, (RPM, DEB), strict=True):
        assert digest(qat / file) == digest(prd / file) == digest(package)
        assert f"{digest(package)}  {qat / file}" in published.stdout.splitlines()
        assert f"{digest(package)}  {prd / file}" in promoted.stdout.splitlines()
    assert (prd / "deb/dists/PRD/InRelease").exists()
    assert "<repo>Countersign PRD</repo>" in (prd / REPOMD).read_text()


def test_the_same_packages_again_change_nothing_but_signatures(
    developers: Developers, first: tuple[Path, Path], second: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path / "one", *first, *second)
    before = unsigned(tmp_path / "one")
    publish(developers, tmp_path / "one", *first)
    publish(developers, tmp_path / "two", *second, *first)

    assert unsigned(tmp_path / "one") == before
    changed = {"countersign.repo", "countersign.sources"}  # they name the folder
    elsewhere = unsigned(tmp_path / "two")
    assert {p for p in before if before[p] != elsewhere[p]} == changed
    assert elsewhere.keys() == before.keys()


def test_packages_that_are_there_stay_and_so_does_the_index_before(
    developers: Developers, first: tuple[Path, Path], second: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path, *first)
    old, by_hash = named_by_repomd(tmp_path), tmp_path / SUITE / "main/binary-all/by-hash/SHA256"
    old_lists = {file.name for file in by_hash.iterdir()}

    publish(developers, tmp_path, *second)

    assert in_apt(tmp_path) == {
        "crm_1.0-1_all.deb": digest(first[1]),
        "crm_1.1-1_all.deb": digest(second[1]),
    }
    for name in old | named_by_repomd(tmp_path):  # whoever has just read the old one goes on
        assert (tmp_path / "rpm" / name).exists()
    assert old_lists < {file.name for file in by_hash.iterdir()}

    publish(developers, tmp_path, *second)

    left = {f"repodata/{file.name}" for file in (tmp_path / "rpm/repodata").iterdir()}
    assert left - named_by_repomd(tmp_path) == {"repodata/repomd.xml", "repodata/repomd.xml.asc"}
    assert not old_lists & {file.name for file in by_hash.iterdir()}


def test_the_index_is_signed_and_what_it_names_is_there_under_its_digest(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path, *first)
    keyring = tmp_path / "countersign-repository.gpg"
    gpgv = ["gpgv", "--keyring", str(keyring)]
    release = subprocess.run(
        [*gpgv, "--output", "-", tmp_path / SUITE / "InRelease"], check=True, capture_output=True
    ).stdout
    detached = [tmp_path / f"{REPOMD}.asc", tmp_path / REPOMD]
    subprocess.run([*gpgv, *detached], check=True, capture_output=True)

    assert release == (tmp_path / SUITE / "Release").read_bytes()
    lines = release.decode().splitlines()
    assert {"Origin: Countersign", "Suite: QAT", "Codename: QAT"} <= set(lines)
    assert "Acquire-By-Hash: yes" in lines
    for found, name in re.findall(r"^ (\w+) \d+ (.*)$", release.decode(), re.MULTILINE):
        file = tmp_path / SUITE / name
        assert digest(file) == digest(file.parent / "by-hash/SHA256" / found) == found
    exported = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", tmp_path / "countersign-repository.asc"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert developers.grace in exported


def test_only_the_kinds_that_were_given_are_made(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path / "rpm", first[0])
    publish(developers, tmp_path / "deb", first[1])

    assert not (tmp_path / "rpm/deb").exists()
    assert not (tmp_path / "rpm/countersign.sources").exists()
    assert not (tmp_path / "deb/rpm").exists()
    assert not (tmp_path / "deb/countersign.repo").exists()


def test_a_package_lies_under_its_own_name(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copy(first[0], tmp_path / "latest")

    publish(developers, tmp_path / "qat", tmp_path / "latest")

    assert digest(tmp_path / "qat" / RPM) == digest(first[0])


def test_the_installers_own_packages_are_taken(
    developers: Developers, installers: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path, *installers)

    assert (tmp_path / "rpm" / installers[0].name).exists()
    assert in_apt(tmp_path) == {installers[1].name: digest(installers[1])}


@pytest.fixture(scope="module")
def folder(developers: Developers, first: tuple[Path, Path]) -> Path:
    """The folder with Mallory's approval of release 1.0 for PRD."""
    return approval_folder(developers, first[0], developers.mallory)


@pytest.fixture(scope="module")
def approval(developers: Developers, folder: Path) -> tuple[Path, Path]:
    """The RPM and the DEB of the approval."""
    rpm = companion(developers, folder, "--package-key", developers.grace)
    (deb,) = rpm.parent.glob("*.deb")
    return rpm, deb


def test_an_approval_lies_beside_its_release(
    developers: Developers, first: tuple[Path, Path], approval: tuple[Path, Path], tmp_path: Path
) -> None:
    published = publish(developers, tmp_path, *first, *approval, environment="PRD")

    assert digest(tmp_path / "rpm" / approval[0].name) == digest(approval[0])
    packages = (tmp_path / "deb/dists/PRD/main/binary-all/Packages").read_text()
    assert f"Filename: pool/{approval[1].name}\n" in packages
    accepted = {package.path.name: package.accepted for package in published.packages}
    assert accepted[approval[0].name]
    before = unsigned(tmp_path)
    publish(developers, tmp_path, *first, environment="PRD")
    assert unsigned(tmp_path) == before


def test_a_withdrawal_is_taken_too(
    developers: Developers, folder: Path, tmp_path: Path, approval: tuple[Path, Path]
) -> None:
    reason = ("--reason", "totals are wrong", "--key", developers.mallory)
    developers.countersign("withdraw", folder, *reason, "--format", "all", "-o", tmp_path / "dist")
    packages = [*tmp_path.glob("dist/*.rpm"), *tmp_path.glob("dist/*.deb")]

    publish(developers, tmp_path / "prd", *packages, *approval, environment="PRD")

    names = {file.name for file in (*packages, *approval)}
    assert len(names) == 4
    assert names <= {file.name for file in (tmp_path / "prd").rglob("*")}


def test_a_publisher_need_not_know_the_customer(
    approval: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Keyring.create() as nobody:
        monkeypatch.setenv("GNUPGHOME", str(nobody.home))
        examined = [examine(file, int(time.time())) for file in approval]

    assert [package.environment for package in examined] == ["PRD", "PRD"]


@pytest.mark.parametrize("kind", [0, 1])
def test_an_approval_for_other_hosts_is_refused(
    developers: Developers, approval: tuple[Path, Path], tmp_path: Path, kind: int
) -> None:
    refused = refusal(developers, tmp_path / "qat", approval[kind])

    assert refused.exit_code == 55
    assert f"{approval[kind]} is for PRD, not for QAT" in str(refused)
    assert not (tmp_path / "qat").exists()


Spoil = Callable[[Companion], Companion]


def without(made: Companion, name: str) -> Companion:
    return replace(made, files={n: raw for n, raw in made.files.items() if n != name})


def with_file(made: Companion, name: str, content: bytes) -> Companion:
    return replace(made, files={**made.files, name: content})


SPOILT: list[tuple[Spoil, int, str]] = [
    (lambda c: with_file(c, "run.sh", b"#!/bin/sh\n"), 21, "run.sh, which has no place"),
    (lambda c: with_file(c, "sub/approval.json", b"{}"), 21, "approval.json, which has no place"),
    (lambda c: replace(c, folder="/etc/countersign/approvals/other"), 21, "other instead of"),
    (lambda c: replace(c, name="crm"), 21, "but holds Approval of crm 1.0 for PRD"),
    (lambda c: replace(c, version="2.0"), 21, "calls itself"),
    (lambda c: replace(c, epoch=c.epoch + 1), 21, "calls itself"),
    (lambda c: without(c, "approval.json.asc"), 56, "approval.json is signed by nobody"),
    (lambda c: without(c, "approval.json"), 56, "has neither of approval.json and"),
    (
        lambda c: with_file(
            c, "approval.json", c.files["approval.json"].replace(b'"PRD"', b'"DEV"')
        ),
        56,
        "the signature does not match",
    ),
]


@pytest.mark.parametrize("kind", ["rpm", "deb"])
@pytest.mark.parametrize("spoil, code, words", SPOILT)
def test_a_companion_that_is_not_what_its_statements_make_it_is_refused(
    developers: Developers,
    folder: Path,
    tmp_path: Path,
    *,
    kind: str,
    spoil: Spoil,
    code: int,
    words: str,
) -> None:
    spoilt = spoil(companion_of(read_papers(folder, int(time.time()))))
    package = BUILDERS[kind](spoilt, tmp_path, None)

    refused = refusal(developers, tmp_path / "prd", package, environment="PRD")

    assert (refused.exit_code, words in str(refused)) == (code, True), refused
    assert not (tmp_path / "prd").exists()


FILES_OF_RPM = "%files\n"
MODES_OF_RPM = "%defattr(0644, root"
FIRST_OF_CONTROL = "Section: database\n"


@pytest.mark.parametrize(
    "kind, old, new, words",
    [
        ("rpm", FILES_OF_RPM, f"%post\nid\n{FILES_OF_RPM}", "scriptlet of its own: POSTIN"),
        ("rpm", FILES_OF_RPM, f"%post -p /bin/true\n{FILES_OF_RPM}", "its own: POSTINPROG"),
        ("rpm", FILES_OF_RPM, f"%pre\nid\n{FILES_OF_RPM}", "scriptlet of its own: PREIN"),
        ("rpm", FILES_OF_RPM, f"{FILES_OF_RPM}%dir /etc/cron.d\n", "installs /etc/cron.d"),
        ("rpm", MODES_OF_RPM, "%defattr(0666, root", "as -rw-rw-rw- root root 0"),
        ("rpm", MODES_OF_RPM, "%defattr(0644, crm", "as drwxr-xr-x crm root 0"),
        ("rpm", "\n/etc/countersign/approvals/", "\n%config /etc/countersign/approvals/", "root 1"),
        ("rpm", "AutoReqProv: no\n", "AutoReqProv: no\nObsoletes: crm\n", "OBSOLETENAME is crm"),
        ("rpm", "AutoReqProv: no\n", "AutoReqProv: no\nProvides: crm\n", "its PROVIDENAME is"),
        ("rpm", "AutoReqProv: no\n", "AutoReqProv: no\nEpoch: 1\n", "its EPOCH is 1"),
        ("deb", FIRST_OF_CONTROL, f"Replaces: crm\n{FIRST_OF_CONTROL}", "has the fields"),
        ("deb", "Depends: countersign-installer", "Depends: erp", "has Depends: erp"),
        ("deb", "Version: 1.0", "Version: 1:1.0", "calls itself 'crm-approval-prd_1:1.0-"),
    ],
)
def test_a_companion_that_does_more_than_bring_statements_is_refused(
    developers: Developers,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: str,
    old: str,
    new: str,
    words: str,
) -> None:
    honest, folders = templates.render, "%install\nmkdir -p %{buildroot}/etc/cron.d\n"

    def render(template: str, **values: object) -> str:
        return honest(template, **values).replace(old, new).replace("%install\n", folders)

    monkeypatch.setattr(companions, "render", render)
    made = companion_of(read_papers(folder, int(time.time())))
    package = BUILDERS[kind](made, tmp_path, None)

    refused = refusal(developers, tmp_path / "prd", package, environment="PRD")

    assert (refused.exit_code, words in str(refused)) == (21, True), refused


def test_a_companion_with_a_maintainer_script_is_refused(
    developers: Developers, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, script = debs.write_control, b"#!/bin/sh\n"
    monkeypatch.setattr(
        debs, "write_control", lambda root, files: write(root, {**files, "postinst": script})
    )
    made = companion_of(read_papers(folder, int(time.time())))
    package = BUILDERS["deb"](made, tmp_path, None)

    refused = refusal(developers, tmp_path / "prd", package, environment="PRD")

    assert (refused.exit_code, "control.tar holds" in str(refused)) == (21, True), refused


@pytest.mark.parametrize("kind", [0, 1])
def test_other_bytes_under_the_same_name_are_refused(
    developers: Developers,
    first: tuple[Path, Path],
    other: tuple[Path, Path],
    tmp_path: Path,
    kind: int,
) -> None:
    publish(developers, tmp_path / "qat", *first)
    before = contents(tmp_path)

    refused = refusal(developers, tmp_path / "qat", other[kind])
    together = refusal(developers, tmp_path / "new", first[kind], other[kind])

    assert (refused.exit_code, together.exit_code) == (55, 55)
    assert f"{other[kind]} is another {first[kind].name} than" in str(refused)
    assert contents(tmp_path) == before


def damaged(package: Path, folder: Path) -> Path:
    """The package with one bit flipped, in what is compressed in it."""
    raw = bytearray(package.read_bytes())
    raw[raw.rindex(b"\xfd7zXZ") + 64] ^= 1
    (folder / package.name).write_bytes(raw)
    return folder / package.name


@pytest.mark.parametrize("kind", [0, 1])
def test_damaged_packages_are_refused(
    developers: Developers,
    first: tuple[Path, Path],
    installers: tuple[Path, Path],
    tmp_path: Path,
    kind: int,
) -> None:
    for package in (first[kind], installers[kind]):
        refused = refusal(developers, tmp_path / "qat", damaged(package, tmp_path))
        assert refused.exit_code in {21, 22}
        assert not (tmp_path / "qat").exists()


def test_what_is_no_package_is_refused(developers: Developers, tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\xed\xab\xee\xdb", b"!<arch>\n", b"!<arch>\n" * 20):
        file = tmp_path / "crm.rpm"
        file.write_bytes(content)
        refused = refusal(developers, tmp_path / "qat", file)
        assert (refused.exit_code, str(file) in str(refused)) == (21, True)
    assert refusal(developers, tmp_path / "qat", tmp_path / "missing.rpm").exit_code == 21
    assert not (tmp_path / "qat").exists()


def test_a_package_that_calls_itself_another_release_is_refused(first: tuple[Path, Path]) -> None:
    package = examine(first[0], int(time.time()))

    with pytest.raises(MalformedError, match=r"calls itself erp\.rpm, but holds crm"):
        _require_release(replace(package, file_name="erp.rpm"))


@pytest.mark.parametrize("kind", [0, 1])
def test_a_file_that_somebody_put_into_the_folder_is_not_signed(
    developers: Developers,
    first: tuple[Path, Path],
    second: tuple[Path, Path],
    tmp_path: Path,
    kind: int,
) -> None:
    publish(developers, tmp_path, *first)
    stray = (tmp_path / (RPM, DEB)[kind]).with_name(second[kind].name)
    shutil.copy(second[kind], stray)
    before = contents(tmp_path)

    refused = refusal(developers, tmp_path, *first)

    assert refused.exit_code == 55
    assert f"{stray} was not put there by this command" in str(refused)
    assert contents(tmp_path) == before
    publish(developers, tmp_path, *first, stray)  # unless it is given


def test_a_package_that_was_exchanged_in_the_folder_is_not_signed(
    developers: Developers, first: tuple[Path, Path], other: tuple[Path, Path], tmp_path: Path
) -> None:
    for kind, place in enumerate((RPM, DEB)):
        publish(developers, tmp_path / place, first[kind])
        shutil.copy(other[kind], tmp_path / place / place)

        refused = refusal(developers, tmp_path / place, first[1 - kind])

        assert refused.exit_code == 55
        assert f"{place} was not put there by this command" in str(refused)


@pytest.mark.parametrize(
    "pattern,change",
    [
        (REPOMD, (b"<revision>", b"<revision>1")),
        ("rpm/repodata/*-primary.xml.gz", (b"\x1f\x8b", b"\x1f\x8b ")),
        (f"{SUITE}/InRelease", (b"Label: ", b"Label: new ")),
        (f"{SUITE}/main/binary-all/Packages", (b"SHA256", b"SHA512")),
    ],
)
def test_an_index_that_was_changed_speaks_for_no_package(
    developers: Developers,
    first: tuple[Path, Path],
    tmp_path: Path,
    pattern: str,
    change: tuple[bytes, bytes],
) -> None:
    kind = 0 if pattern.startswith("rpm") else 1
    publish(developers, tmp_path, *first)
    (file,) = tmp_path.glob(pattern)
    file.write_bytes(file.read_bytes().replace(*change))

    refused = refusal(developers, tmp_path, first[1 - kind])

    assert refused.exit_code == 55
    assert "no index of Grace <grace@example.org>" in str(refused)


@pytest.mark.parametrize("pattern", ["rpm/repodata/*-primary.xml.gz", f"{SUITE}/**/Packages"])
def test_an_index_that_is_incomplete_speaks_for_no_package(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path, pattern: str
) -> None:
    publish(developers, tmp_path, *first)
    (file,) = tmp_path.glob(pattern)
    file.unlink()

    assert refusal(developers, tmp_path, first[pattern.startswith("rpm")]).exit_code == 55
    publish(developers, tmp_path, *first)


def test_with_another_key_the_packages_have_to_be_given_again(
    developers: Developers, first: tuple[Path, Path], second: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path, *first)

    refused = refusal(developers, tmp_path, *second, key=developers.ada)
    publish(developers, tmp_path, *first, *second, key=developers.ada)

    assert refused.exit_code == 55
    gpgv = ("gpgv", "--keyring", tmp_path / "countersign-repository.gpg")
    done = subprocess.run(
        [*gpgv, tmp_path / SUITE / "InRelease"], check=True, capture_output=True, text=True
    )
    assert 'Good signature from "Ada' in done.stderr


def test_one_folder_is_for_one_environment(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    for package in first:
        publish(developers, tmp_path / package.suffix, package)
        before = contents(tmp_path)

        refused = refusal(developers, tmp_path / package.suffix, package, environment="PRD")

        assert refused.exit_code == 55
        assert "is the repository of QAT" in str(refused)
        assert contents(tmp_path) == before


def test_environment_address_and_key_are_checked_first(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "qat"

    assert refusal(developers, folder, *first, environment="../QAT").exit_code == 55
    assert refusal(developers, folder, *first, url="www.example.org").exit_code == 55
    assert refusal(developers, folder, *first, url="https://a b").exit_code == 55
    assert refusal(developers, folder, *first, key="nobody").exit_code == 53
    assert not folder.exists()
    assert vars(repository)["ENVIRONMENT"] is vars(host_file)["ENVIRONMENT"]  # not a copy


def test_hosts_are_told_where_the_repository_is(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    publish(developers, tmp_path / "a b", *first)
    local = (tmp_path / "a b/countersign.repo").read_text()
    publish(developers, tmp_path / "a b", *first, url="https://packages.example.org/qat/")
    dnf = (tmp_path / "a b/countersign.repo").read_text().splitlines()
    apt = (tmp_path / "a b/countersign.sources").read_text().splitlines()

    assert f"baseurl=file://{tmp_path}/a%20b/rpm\n" in local
    assert "[countersign-qat]" in dnf
    assert "baseurl=https://packages.example.org/qat/rpm" in dnf
    assert "URIs: https://packages.example.org/qat/deb" in apt


def test_packages_that_dnf_would_refuse_are_told(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    release = developers.folder / "signed.toml"
    draft = (developers.folder / "1.0.toml").read_text()
    release.write_text(f'{draft}\n[signing]\npackage_key = "{developers.grace}"\n')
    signed = developers.build(release, developers.folder / "signed", [developers.ada])

    told = command(developers, tmp_path / "one", *first)
    quiet = command(developers, tmp_path / "two", signed)
    foreign = publish(developers, tmp_path / "three", signed, key=developers.ada)

    assert f"warning: {first[0].name} is not signed by this key" in told.stderr
    assert not quiet.stderr
    assert [package.accepted for package in foreign.packages] == [False]


def test_a_folder_that_cannot_be_written_is_refused(
    developers: Developers, first: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    refused = refusal(developers, tmp_path / "file/qat", *first)

    assert refused.exit_code == 55
    assert "Not a directory" in str(refused)


def test_two_runs_at_once_lose_nothing(
    developers: Developers, first: tuple[Path, Path], second: tuple[Path, Path], tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(command, developers, tmp_path, *given) for given in (first, second)]
        assert [run.result().returncode for run in runs] == [0, 0]

    assert in_apt(tmp_path).keys() == {"crm_1.0-1_all.deb", "crm_1.1-1_all.deb"}
