import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from installer import deb as reader
from installer.errors import MalformedError
from installer.packages import open_release
from packager.build import build, build_packages, sign_work
from packager.errors import OutputError, SigningError, ToolError
from packager.formats import FORMATS, deb
from packager.installer_deb import build_installer_deb
from packager.package_reader import PackageInfo, read_package
from packager.project import load_project
from packager.release import Release, assemble
from packager.signing import Signer, choose_key
from tests.keys import Keyring
from tests.product import COMMITTED, RELEASE, Product

pytestmark = pytest.mark.integration

UNSIGNED, UNKNOWN_ORIGIN, BAD_SIGNATURE = 10, 11, 13
"""Exit codes of debsig-verify(1)."""

FOLDER = "/usr/share/countersign/releases/crm-1.1.0"
DOCUMENTATION = Path(__file__).parents[2] / "docs/how-to/verify-a-deb.md"


@pytest.fixture(scope="module")
def keyring() -> Iterator[Keyring]:
    with Keyring.create() as made:
        made.new_key("Ada Développeuse <ada@example.org>")
        made.new_key("Packages of Crm <packages@example.org>", algorithm="rsa3072")
        yield made


@pytest.fixture(autouse=True)
def keys(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    monkeypatch.setenv("GNUPGHOME", str(keyring.home))
    return keyring


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product.create(tmp_path_factory.mktemp("product") / "crm")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "dist"


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_installer_deb(tmp_path_factory.mktemp("installer"))


def signed(product: Product, output: Path, release: str = RELEASE) -> Release:
    product.describe(release)
    made = assemble(load_project(product.release))
    sign_work(made, output, "ada")
    return made


def built(product: Product, output: Path, release: str = RELEASE) -> Path:
    return build(signed(product, output, release), output, "deb")[0]


def with_package_key(release: str = RELEASE) -> str:
    return f'{release}\n[signing]\npackage_key = "{choose_key("packages").fingerprint}"\n'


def said(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lintian(package: Path, folder: Path) -> str:
    """What lintian finds; it leaves temporary files behind, in `folder`."""
    with patch.dict(os.environ, {"TMPDIR": str(folder)}):
        return said("lintian", package)


def control(package: Path) -> dict[str, bytes]:
    archive = subprocess.run(
        ["dpkg-deb", "--ctrl-tarfile", package], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as members:
        files = (member for member in members if member.isfile())
        return {m.name: found.read() for m in files if (found := members.extractfile(m))}


def comparable(package: Path) -> tuple[PackageInfo, object, list[bytes]]:
    info, bundle = read_package(package)
    return info, bundle.head, list(bundle.compressed.pieces())


def test_a_deb_tells_a_sysadmin_what_is_inside(product: Product, output: Path) -> None:
    release = signed(product, output)
    package, _ = build(release, output, "deb")
    info = said("dpkg-deb", "--info", package)

    assert package.name == "crm_1.1.0-1_all.deb"
    assert "Description: Orders get a history\n" in info
    assert "Maintainer: Ada Développeuse <ada@example.org>\n" in info
    assert "Pre-Depends: countersign-installer (>= 0.1.0)\n" in info
    assert release.manifest.source.revision in info
    assert release.manifest.digest in info
    assert choose_key("ada").fingerprint in info
    assert info.index("sql/0001_customers.sql") < info.index("sql/0002_orders.sql")
    assert "    empty\n    v1.0.0\n" in info


def test_the_changelog_tells_the_same(product: Product, output: Path, tmp_path: Path) -> None:
    package = built(product, output)
    said("dpkg-deb", "--extract", package, tmp_path / "root")
    folder = tmp_path / "root/usr/share/doc/crm"
    log = said("dpkg-parsechangelog", "-l", folder / "changelog.Debian.gz")

    assert "Version: 1.1.0-1\n" in log
    assert "Date: Sat, 31 Jan 2026 12:00:00 +0000\n" in log
    assert log.index("1: sql/0001_customers.sql") < log.index("2: sql/0002_orders.sql")
    assert (
        f"signed by Ada Développeuse <ada@example.org>,\n     {choose_key('ada').fingerprint}"
        in log
    )
    assert "License: GPL-3.0-or-later\n" in (folder / "copyright").read_text()


def test_a_deb_and_an_rpm_of_a_release_carry_the_same_bundle(
    product: Product, output: Path
) -> None:
    packages, _ = build_packages(signed(product, output), output, tuple(FORMATS))
    (_, *one), (_, *other) = map(comparable, packages)

    assert {package.suffix for package in packages} == {".deb", ".rpm"}
    assert one == other
    assert read_package(packages[0])[0].payload == read_package(packages[1])[0].payload


def test_preinst_runs_the_installer_and_is_the_only_script(product: Product, output: Path) -> None:
    package = built(product, output)
    files = control(package)

    assert sorted(files) == ["./bundle", "./control", "./md5sums", "./preinst"]
    assert files["./preinst"].decode() == (
        "#!/bin/sh\nset -e\n"
        'exec /usr/bin/countersign-install deb-preinst crm_1.1.0-1_all "$0" "$@"\n'
    )


def test_the_payload_is_the_release_for_review(
    product: Product, output: Path, tmp_path: Path
) -> None:
    release = signed(product, output)
    package, _ = build(release, output, "deb")
    said("dpkg-deb", "--extract", package, tmp_path / "root")
    folder = tmp_path / "root" / FOLDER.lstrip("/")
    name = f"manifest.json.{choose_key('ada').fingerprint}.asc"

    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "manifest.json", name]
    assert (folder / "manifest.json").read_bytes() == release.raw
    said("gpg", "--verify", folder / name, folder / "manifest.json")
    assert (folder / "bundle").read_bytes() == control(package)["./bundle"]


def test_everything_belongs_to_root_whatever_the_builders_umask(
    product: Product, output: Path
) -> None:
    old = os.umask(0o077)
    try:
        listing = said("dpkg-deb", "--contents", built(product, output)).splitlines()
    finally:
        os.umask(old)

    assert {line.split()[0] for line in listing} == {"drwxr-xr-x", "-rw-r--r--"}
    assert {line.split()[1] for line in listing} == {"root/root"}


def test_the_same_release_gives_the_same_package(
    product: Product, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = signed(product, output)
    first = build(release, output, "deb")[0].read_bytes()
    time.sleep(1.1)  # the times in it have a resolution of one second
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TAR_OPTIONS", "--format=pax")
    monkeypatch.setenv("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
    old = os.umask(0o077)
    try:
        second = build(release, output, "deb")[0].read_bytes()
    finally:
        os.umask(old)

    assert second == first
    assert f"{COMMITTED:<12}".encode() in first


@pytest.mark.parametrize("release", [with_package_key, lambda: RELEASE], ids=["signed", "unsigned"])
def test_lintian_finds_nothing(
    product: Product, output: Path, tmp_path: Path, release: Callable[[], str]
) -> None:
    assert lintian(built(product, output, release()), tmp_path) == ""


def test_lintian_finds_no_error_in_a_release_with_long_names(
    product: Product, output: Path, tmp_path: Path
) -> None:
    name = f"sql/0003_{'very_' * 20}long.sql"
    product.git("tag", "--force", "before")
    product.tag("long", {name: "SELECT 1;\n"})
    package = built(product, output, RELEASE.replace('to = "v1.1.0"', 'to = "long"'))

    assert "E:" not in lintian(package, tmp_path)
    assert name in said("dpkg-deb", "--info", package)


@pytest.mark.parametrize(
    "user_id, expected",
    [
        ("Ada Développeuse <ada@example.org>", "Ada Développeuse <ada@example.org>"),
        ("Ada (releases) <ada@example.org>", "Ada releases <ada@example.org>"),
        ('Ada "the D", of Example <ada@example.org>', "Ada the D of Example <ada@example.org>"),
        ("ada@example.org", "ada example.org <ada@example.org>"),
        ("<ada@example.org>", "nobody <ada@example.org>"),
        ("Release key", "Release key <nobody@countersign.invalid>"),
        ("", "nobody <nobody@countersign.invalid>"),
    ],
)
def test_the_maintainer_is_the_signer_in_a_form_that_debian_reads(
    user_id: str, expected: str
) -> None:
    assert deb.maintainer((Signer("0" * 40, user_id),)) == expected
    assert deb.MAINTAINER.fullmatch(expected)


@pytest.mark.parametrize(
    "summary",
    ["$(touch /tmp/countersign-was-here) ${Version}", ". a dot", "größer — 日本", "Section: games"],
)
def test_a_summary_is_text_and_nothing_else(product: Product, output: Path, summary: str) -> None:
    package = built(product, output, RELEASE.replace("Orders get a history", summary))

    description = said("dpkg-deb", "--field", package, "Description")
    assert description.splitlines()[0] == summary
    assert said("dpkg-deb", "--field", package, "Section") == "database\n"
    assert not Path("/tmp/countersign-was-here").exists()


def test_a_description_is_text_and_nothing_else(product: Product, output: Path) -> None:
    text = '"""\nFirst line\n\n.hidden\n.\nDepends: evil\n  indented\nlast line"""'
    lines = RELEASE.replace("license =", f"description = {text}\nlicense =")
    package = built(product, output, lines)

    description = said("dpkg-deb", "--field", package, "Description").splitlines()
    assert description[1:8] == [
        " First line",
        " .",
        "  .hidden",
        "  .",
        " Depends: evil",
        "   indented",
        " last line",
    ]
    assert said("dpkg-deb", "--field", package, "Depends").strip() == ""


def test_a_release_that_is_too_large_for_a_deb_says_so(
    product: Product, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deb, "MAX_BUNDLE_SIZE", 1000)

    with pytest.raises(OutputError, match="too many for a DEB"):
        built(product, output)

    assert list(output.glob("*.deb")) == []


def test_where_one_format_fails_there_is_no_package_of_another(
    product: Product, output: Path
) -> None:
    product.describe(RELEASE, version='"1..0"')  # which dpkg-deb takes, and rpmbuild does not
    release = signed(product, output, product.release.read_text())

    with pytest.raises(ToolError, match="rpmbuild"):
        build_packages(release, output, ("deb", "rpm"))

    assert [path.name for path in output.iterdir()] == ["crm-1..0"]


def test_a_package_that_cannot_be_signed_is_not_left_behind(product: Product, output: Path) -> None:
    with pytest.raises(SigningError, match="no secret key"):
        built(product, output, f'{RELEASE}\n[signing]\npackage_key = "{"0" * 40}"\n')

    assert list(output.glob("*.deb")) == []


class Debsig:
    """A host's debsig-verify, set up as docs/how-to/verify-a-deb.md says."""

    def __init__(self, folder: Path, key: str, public: bytes) -> None:
        self._policies, self._keyrings = folder / "policies", folder / "keyrings"
        text = DOCUMENTATION.read_text(encoding="utf-8")
        policy = text.partition("```xml\n")[2].partition("```")[0]
        assert "FINGERPRINT" in policy
        for parent, name, content in (
            (self._policies, "crm.pol", policy.replace("FINGERPRINT", key).encode()),
            (self._keyrings, "crm.pgp", public),
        ):
            (parent / key).mkdir(parents=True)
            (parent / key / name).write_bytes(content)

    def verify(self, package: Path) -> int:
        folders = ["--policies-dir", self._policies, "--keyrings-dir", self._keyrings]
        command = [str(part) for part in ("debsig-verify", "--quiet", *folders, package)]
        return subprocess.run(command, capture_output=True, check=False).returncode


def test_a_package_key_signs_the_package_as_debsig_verify_wants_it(
    product: Product, output: Path, tmp_path: Path, keys: Keyring
) -> None:
    unsigned = built(product, output)
    before, meant = unsigned.read_bytes(), comparable(unsigned)
    key = choose_key("packages").fingerprint
    debsig = Debsig(tmp_path / "debsig", key, keys.export([key]))
    assert debsig.verify(unsigned) == UNSIGNED
    product.describe(with_package_key())
    # Not signed() again: a signature made one second later is another one.
    package, _ = build(assemble(load_project(product.release)), output, "deb")

    assert debsig.verify(package) == 0
    assert comparable(package) == meant
    assert package.read_bytes().startswith(before)

    flipped = bytearray(package.read_bytes())
    flipped[before.index(b"Orders get a history")] ^= 1
    package.write_bytes(flipped)
    assert debsig.verify(package) == BAD_SIGNATURE


def test_debsig_verify_refuses_the_signature_of_another_key(
    product: Product, output: Path, tmp_path: Path, keys: Keyring
) -> None:
    package = built(product, output, with_package_key())
    ada = choose_key("ada").fingerprint

    debsig = Debsig(tmp_path / "debsig", ada, keys.export([ada]))
    assert debsig.verify(package) == UNKNOWN_ORIGIN


def test_a_host_reads_the_bundle_out_of_the_package(product: Product, output: Path) -> None:
    package = built(product, output, with_package_key())

    with open_release(package) as bundle:
        assert bundle.head == read_package(package)[1].head
        found = b"".join(bundle.compressed.pieces())
    assert found == comparable(package)[2][0]


def test_a_flipped_byte_is_found_or_changes_nothing(product: Product, output: Path) -> None:
    package = built(product, output, with_package_key())
    whole, meant = package.read_bytes(), comparable(package)
    for position in (*range(300), *range(300, len(whole), 131), len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        package.write_bytes(flipped)
        with suppress(MalformedError):
            assert comparable(package) == meant, position


@pytest.mark.parametrize("size", [0, 3, 8, 71, 132, 200, 3000, 20000, -1, -512])
def test_a_truncated_package_is_refused(product: Product, output: Path, size: int) -> None:
    package = built(product, output)
    package.write_bytes(package.read_bytes()[:size])

    with pytest.raises(MalformedError):
        read_package(package)


def test_a_package_in_debians_own_form_is_refused(installer: Path) -> None:
    with pytest.raises(MalformedError, match=r"control\.tar\.xz"):
        read_package(installer)


class Forgery:
    """A release's package taken apart, to be changed and packed again by the real dpkg-deb."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.root = folder / "forged"
        self.package = folder / "forged.deb"
        said("dpkg-deb", "--raw-extract", package, self.root)

    def pack(self, *options: str) -> Path:
        command = ("dpkg-deb", *(options or ("--root-owner-group", "-Znone")), "--nocheck")
        said(*command, "--build", self.root, self.package)
        return self.package

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def script(self, name: str) -> None:
        (self.root / "DEBIAN" / name).write_text("#!/bin/sh\nrm -rf /\n")
        (self.root / "DEBIAN" / name).chmod(0o755)


@pytest.fixture
def forgery(product: Product, output: Path, tmp_path: Path) -> Forgery:
    return Forgery(built(product, output), tmp_path)


def refused(package: Path) -> str:
    with pytest.raises(MalformedError) as refusal:
        read_package(package)
    return str(refusal.value)


def test_what_was_taken_apart_and_not_changed_is_read(forgery: Forgery) -> None:
    assert read_package(forgery.pack())[0].name == "crm_1.1.0-1_all"


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm", "config"])
def test_a_package_with_another_maintainer_script_is_refused(forgery: Forgery, name: str) -> None:
    forgery.script(name)

    assert f"'./{name}'" in refused(forgery.pack())


@pytest.mark.parametrize("name, line", [("triggers", "activate ldconfig"), ("conffiles", "/etc/a")])
def test_a_package_with_another_control_file_is_refused(
    forgery: Forgery, name: str, line: str
) -> None:
    (forgery.root / "etc").mkdir()
    (forgery.root / "etc/a").touch()
    (forgery.root / f"DEBIAN/{name}").write_text(f"{line}\n")

    assert f"'./{name}'" in refused(forgery.pack())


@pytest.mark.parametrize(
    "path, old, new, words",
    [
        ("DEBIAN/preinst", "exec", "rm -rf /; exec", "its preinst"),
        ("DEBIAN/preinst", "crm_1.1.0-1_all", "crm_1.1.1-1_all", "its preinst"),
        ("DEBIAN/control", "Section:", "Depends: evil\nSection:", "fields .*Depends"),
        ("DEBIAN/control", "Section:", "Essential: yes\nSection:", "fields .*Essential"),
        ("DEBIAN/control", "(>= 0.1.0)", "(>= 0.1.0) | evil", "Pre-Depends: .*evil"),
        ("DEBIAN/control", "Version: 1.1.0-1", "Version: 1:1.1.0-1", "Version: 1:"),
        ("DEBIAN/control", "Package: crm", "Package: bash", "its preinst"),
        (f"{FOLDER[1:]}/manifest.json", "Orders", "Nothing", "manifest.json is not what"),
    ],
)
def test_a_package_that_was_edited_is_refused(
    forgery: Forgery, path: str, old: str, new: str, words: str
) -> None:
    forgery.edit(path, old, new)

    with pytest.raises(MalformedError, match=words):
        read_package(forgery.pack())


@pytest.mark.parametrize(
    "forge, words",
    [
        (lambda root: (root / "etc").mkdir(), "installs /etc/"),
        (
            lambda root: (root / "usr/share/doc/crm/more").touch(),
            "installs /usr/share/doc/crm/more",
        ),
        (lambda root: (root / FOLDER[1:] / "more").touch(), "more is not what"),
        (lambda root: (root / FOLDER[1:] / "bundle").unlink(), "bundle is not what"),
        (lambda root: (root / FOLDER[1:] / "bundle").write_bytes(b"?"), "bundle is not what"),
        (lambda root: (root / FOLDER[1:] / "link").symlink_to("/etc"), "no file and no folder"),
        (lambda root: os.mkfifo(root / FOLDER[1:] / "fifo"), "no file and no folder"),
        (lambda root: (root / FOLDER[1:] / "bundle").chmod(0o4755), "mode 4755"),
        (lambda root: (root / "usr/share").chmod(0o777), "mode 0777"),
        (lambda root: (root / "DEBIAN/bundle").unlink(), "control.tar has no bundle"),
    ],
)
def test_a_package_that_does_more_than_carry_a_bundle_is_refused(
    forgery: Forgery, forge: Callable[[Path], object], words: str
) -> None:
    forge(forgery.root)

    assert words in refused(forgery.pack())


@pytest.mark.parametrize(
    "options, words",
    [
        (["--root-owner-group", "-Zxz"], "control.tar.xz"),
        (["--root-owner-group", "-Znone", "--no-uniform-compression"], "control.tar.gz"),
        (["-Znone"], "no folder of root's"),
    ],
)
def test_a_package_in_another_form_is_refused(
    forgery: Forgery, options: Sequence[str], words: str
) -> None:
    for path in (forgery.root, *forgery.root.rglob("*")):
        shutil.chown(path, "daemon", "daemon")

    assert words in refused(forgery.pack(*options))


@pytest.mark.parametrize(
    "member, words",
    [("_gpgevil", "_gpgevil"), ("control.tar", "control.tar, data.tar, control.tar")],
)
def test_a_package_with_another_member_is_refused(
    product: Product, output: Path, member: str, words: str
) -> None:
    package = built(product, output)
    with package.open("ab") as file:
        file.write(reader.ar_header(member, 2, 0) + b"ab")

    assert words in refused(package)


def test_a_signature_that_ar_added_is_read_as_well(
    product: Product, output: Path, tmp_path: Path
) -> None:
    package = built(product, output)
    (tmp_path / "_gpgorigin").write_bytes(b"odd")
    said("ar", "qD", package, tmp_path / "_gpgorigin")

    assert read_package(package)[0].name == "crm_1.1.0-1_all"


def test_the_command_builds_what_it_is_asked_for(product: Product, output: Path) -> None:
    signed(product, output)
    command = Path(sys.executable).with_name("countersign")
    base = (command, "build", "-r", product.release, "-o", output, "--json", "--format")

    one = json.loads(said(*base, "deb"))
    both = json.loads(said(*base, "all"))

    assert one["packages"] == [one["package"]] == [str(output / "crm_1.1.0-1_all.deb")]
    assert sorted(both["packages"]) == [
        str(output / "crm-1.1.0-1.noarch.rpm"),
        str(output / "crm_1.1.0-1_all.deb"),
    ]
    assert all(Path(package).is_file() for package in both["packages"])
    assert "crm_1.1.0-1_all (deb)" in said(command, "show", one["package"])


def test_a_host_gets_the_installer_and_what_it_needs(installer: Path) -> None:
    info = said("dpkg-deb", "--info", installer)
    listing = {line.split()[5]: line.split()[:2] for line in contents(installer)}

    assert "Depends: git, gpg, gpg-agent, gpgv, libpq5, python3 (>= 3.11)\n" in info
    assert {owner for _, owner in listing.values()} == {"root/root"}
    assert listing["./usr/bin/countersign-install"][0] == "-rwxr-xr-x"
    assert listing["./etc/countersign/"][0] == "drwxr-xr-x"
    assert listing["./var/lib/countersign/"][0] == "drwx------"
    assert listing["./var/log/countersign/"][0] == "drwxr-x---"
    assert not any("__pycache__" in name or name.endswith(".so") for name in listing)


def contents(package: Path) -> list[str]:
    return said("dpkg-deb", "--contents", package).splitlines()


def test_the_installers_configuration_is_left_to_the_administrator(installer: Path) -> None:
    configuration = control(installer).get("./conffiles", b"").decode().splitlines()
    listed = (line.split()[5] for line in contents(installer))

    assert {f".{name}" for name in configuration} == {
        name for name in listed if name.startswith("./etc/") and not name.endswith("/")
    }
    assert not any(name.startswith("/etc/countersign/") for name in configuration)


def test_the_same_source_gives_the_same_installer(installer: Path, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        again = build_installer_deb(tmp_path)
    finally:
        os.umask(old)

    assert again.read_bytes() == installer.read_bytes()


def test_lintian_finds_nothing_in_the_installer(installer: Path, tmp_path: Path) -> None:
    assert lintian(installer, tmp_path) == ""
