import os
import struct
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from installer.bundle import Bundle, Head
from installer.errors import MalformedError
from packager.build import build, sign_work
from packager.formats import FORMATS
from packager.formats.interface import Format
from packager.formats.rpm import Rpm
from packager.package_reader import read_package
from packager.project import load_project
from packager.release import Release, assemble
from packager.signing import choose_key
from tests.keys import Keyring
from tests.product import COMMITTED, RELEASE, Product

pytestmark = pytest.mark.integration

LINT = Path(__file__).parents[2] / "spec_templates/rpmlint.toml"
FOLDER = "/usr/share/countersign/releases/crm-1.1.0"


def contents(bundle: Bundle) -> tuple[Head, bytes]:
    return bundle.head, b"".join(bundle.compressed.pieces())


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


def signed(product: Product, output: Path, release: str = RELEASE) -> Release:
    product.describe(release)
    made = assemble(load_project(product.release))
    sign_work(made, output, "ada")
    return made


def built(product: Product, output: Path, release: str = RELEASE) -> Path:
    return build(signed(product, output, release), output)[0]


def said(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def query(package: Path, form: str) -> list[str]:
    return said("rpm", "-qp", "--nosignature", "--qf", form, package).splitlines()


def lint(package: Path) -> str:
    """What rpmlint has to say, in an exit code as well."""
    return said("rpmlint", "--config", LINT, package)


def test_rpm_tells_a_sysadmin_what_is_inside(product: Product, output: Path) -> None:
    release = signed(product, output)
    package, _ = build(release, output)
    info = said("rpm", "-qip", package)

    assert "Summary     : Orders get a history" in info
    assert "License     : GPL-3.0-or-later" in info
    assert "Architecture: noarch" in info
    assert release.manifest.source.revision in info
    assert release.manifest.digest in info
    assert "Ada Développeuse <ada@example.org>" in info
    assert choose_key("ada").fingerprint in info
    assert info.index("sql/0001_customers.sql") < info.index("sql/0002_orders.sql")
    assert "  empty\n  v1.0.0\n" in info


def test_the_changelog_tells_the_same(product: Product, output: Path) -> None:
    release = signed(product, output)
    package, _ = build(release, output)
    log = said("rpm", "-qp", "--changelog", package)

    assert log.startswith("* Sat Jan 31 2026 Ada Développeuse <ada@example.org> - 1.1.0-1\n")
    assert "- Orders get a history\n" in log
    assert log.index("1: sql/0001_customers.sql") < log.index("2: sql/0002_orders.sql")
    assert release.manifest.source.revision in log
    assert f"signed by Ada Développeuse <ada@example.org>, {choose_key('ada').fingerprint}" in log
    assert log.count("* ") == 1


def test_the_payload_is_the_release_for_review(
    product: Product, output: Path, tmp_path: Path
) -> None:
    release = signed(product, output)
    package, _ = build(release, output)
    archive = subprocess.run(["rpm2cpio", package], capture_output=True, check=True).stdout
    unpack = ["cpio", "--extract", "--make-directories", "--quiet"]
    subprocess.run(unpack, input=archive, cwd=tmp_path, check=True)
    folder = tmp_path / FOLDER.lstrip("/")
    name = f"manifest.json.{choose_key('ada').fingerprint}.asc"

    assert said("rpm", "-qlp", package).splitlines() == [
        FOLDER,
        f"{FOLDER}/bundle",
        f"{FOLDER}/manifest.json",
        f"{FOLDER}/{name}",
    ]
    assert (folder / "manifest.json").read_bytes() == release.raw
    said("gpg", "--verify", folder / name, folder / "manifest.json")
    info, bundle = read_package(folder / "bundle")
    assert info.format == "bundle"
    assert contents(bundle) == contents(read_package(package)[1])


def test_rpm_hands_the_bundle_to_the_installer(product: Product, output: Path) -> None:
    package = built(product, output)

    assert query(package, r"[%{PREINPROG}\n]") == [
        "/usr/bin/countersign-install",
        "rpm-pre",
        "crm-1.1.0-1.noarch",
    ]
    assert query(package, r"[%{VERIFYSCRIPTPROG}\n]") == [
        "/usr/bin/countersign-install",
        "rpm-verify",
        "crm",
    ]
    required = said("rpm", "-qpR", package).splitlines()
    assert {"/usr/bin/countersign-install", "countersign-installer >= 0.1.0"} <= set(required)


def test_the_same_release_gives_the_same_package(product: Product, output: Path) -> None:
    release = signed(product, output)
    first, _ = build(release, output)
    content = first.read_bytes()
    time.sleep(1.1)  # rpm's times have a resolution of one second
    second, _ = build(release, output)

    assert second.read_bytes() == content
    assert query(second, r"[%{FILEMTIMES}\n]%{BUILDTIME}\n") == [str(COMMITTED)] * 5
    assert query(second, r"%{BUILDHOST}") == ["countersign"]


def test_a_builders_own_rpm_settings_have_no_effect(
    product: Product, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = signed(product, output)
    before = build(release, output)[0].read_bytes()
    macros = "%_topdir /nonexistent\n%vendor Mallory\n%packager Mallory\n%_buildhost mallory\n"
    (tmp_path / ".rpmmacros").write_text(macros)
    monkeypatch.setenv("HOME", str(tmp_path))
    old = os.umask(0o077)
    try:
        after = build(release, output)[0].read_bytes()
    finally:
        os.umask(old)

    assert after == before


def test_rpmlint_finds_no_error(product: Product, output: Path) -> None:
    key = choose_key("packages").fingerprint
    package = built(product, output, f'{RELEASE}\n[signing]\npackage_key = "{key}"\n')

    assert "0 errors" in lint(package)


def test_rpmlint_finds_no_error_in_a_release_with_long_names(
    product: Product, output: Path
) -> None:
    name = f"sql/0003_{'very_' * 20}long.sql"
    product.git("tag", "--force", "before")
    product.tag("long", {name: "SELECT 1;\n"})
    package = built(product, output, RELEASE.replace('to = "v1.1.0"', 'to = "long"'))

    assert "0 errors" in lint(package)
    assert name in said("rpm", "-qip", package)


def test_a_package_key_signs_the_package(
    product: Product, output: Path, tmp_path: Path, keys: Keyring
) -> None:
    info, unsigned = read_package(built(product, output))
    key = choose_key("packages").fingerprint
    product.describe(f'{RELEASE}\n[signing]\npackage_key = "{key.lower()}"\n')
    package, _ = build(assemble(load_project(product.release)), output)
    public = tmp_path / "key.asc"
    public.write_bytes(keys.export([key], armour=True))
    database = ("--define", f"_dbpath {tmp_path / 'rpmdb'}")
    said("rpmkeys", *database, "--import", public)

    assert "digests signatures OK" in said("rpmkeys", *database, "--checksig", package)
    found = read_package(package)
    assert (found[0], contents(found[1])) == (info, contents(unsigned))


@pytest.mark.parametrize(
    "summary",
    [
        "100% of orders, %(touch /tmp/countersign-was-here), %{name}",
        "ends with a backslash \\\\",
        "größer — 日本",
        "%description",
    ],
)
def test_a_summary_is_text_and_nothing_else(product: Product, output: Path, summary: str) -> None:
    release = RELEASE.replace("Orders get a history", summary)
    package = built(product, output, f"{release}\n")

    assert query(package, "%{SUMMARY}")[0].rstrip() == summary.replace("\\\\", "\\")
    assert not Path("/tmp/countersign-was-here").exists()


def test_a_description_is_text_and_nothing_else(product: Product, output: Path) -> None:
    text = '"""\nFirst line, 5 %\n%pre\nrm -rf /\n# a comment\n%if 0\nlast line"""'
    lines = RELEASE.replace("license =", f"description = {text}\nlicense =")
    package = built(product, output, lines)

    description = query(package, "%{DESCRIPTION}")
    stripped = [line.strip("\N{NO-BREAK SPACE}") for line in description[:6]]
    assert stripped == [
        "First line, 5 %",
        "%pre",
        "rm -rf /",
        "# a comment",
        "%if 0",
        "last line",
    ]
    assert query(package, r"[%{PREINPROG}\n]")[0] == "/usr/bin/countersign-install"


def test_a_large_release_has_its_head_in_pre_and_its_content_in_the_payload(
    product: Product, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = signed(product, output)
    monkeypatch.setitem(
        cast("dict[str, Format]", FORMATS),
        "rpm",
        Rpm(max_in_header=release.manifest.content.size - 1),
    )

    package, signers = build(release, output)
    again, _ = build(release, output)

    head = Head(release.raw, read_package(package)[1].head.signatures)
    body = "".join(query(package, "%{PREIN}"))
    assert b64decode(body) == head.serialise()
    assert list(head.signatures) == [signer.fingerprint for signer in signers]
    assert again.read_bytes() == package.read_bytes()


def test_a_flipped_byte_is_found_or_changes_nothing(product: Product, output: Path) -> None:
    package = built(product, output)
    whole, (info, meant) = package.read_bytes(), read_package(package)
    entries, size = struct.unpack(">II", whole[104:112])
    end = 112 + 16 * entries + size  # of the signature header, most of which is reserved space
    for position in (0, 96, 107, 111, 200, 4000, *range(end + 8, len(whole), 997), len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        package.write_bytes(flipped)
        try:
            found = read_package(package)
            assert (found[0], contents(found[1])) == (info, contents(meant))
            assert position < end
        except MalformedError:
            pass


@pytest.mark.parametrize("size", [0, 3, 96, 3000])
def test_a_truncated_package_is_refused(product: Product, output: Path, size: int) -> None:
    package = built(product, output)
    package.write_bytes(package.read_bytes()[:size])

    with pytest.raises(MalformedError):
        read_package(package)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("%files\n", "%post\nrm -rf /\n%files\n", "scriptlet of its own: POSTIN"),
        ("%files\n", "%post -p /bin/true\n%files\n", "scriptlet of its own: POSTINPROG"),
        ("AutoReqProv: no\n", "AutoReqProv: no\nEpoch: 1\n", "its EPOCH is 1"),
        ("AutoReqProv: no\n", "AutoReqProv: no\nObsoletes: bash\n", "its OBSOLETENAME is bash"),
        ("%files\n", "%triggerin -- bash\nrm -rf /\n%files\n", "TRIGGERSCRIPTS"),
        ("%pre -p /usr/bin/countersign-install", "%pre -p /bin/sh", "PREINPROG"),
        ("%dir /usr/share", "/etc/passwd\n%dir /usr/share", "installs /etc/passwd"),
        ("%dir /usr/share", f"{FOLDER}/bundle\n%dir /usr/share", "another bundle"),
    ],
)
def test_a_package_that_does_more_than_carry_a_bundle_is_refused(
    product: Product, tmp_path: Path, old: str, new: str, words: str
) -> None:
    package = forged(built(product, tmp_path / "dist"), tmp_path, old, new)

    with pytest.raises(MalformedError, match=words):
        read_package(package)


def forged(original: Path, folder: Path, old: str, new: str) -> Path:
    """A package with the same %pre and payload, and something else besides."""
    body = subprocess.run(
        ["rpm", "-qp", "--qf", "%{PREIN}", original], capture_output=True, check=True
    )
    (folder / "body").write_bytes(body.stdout)
    spec = (
        "Name: crm\nVersion: 1.1.0\nRelease: 1\nSummary: S\nLicense: L\nBuildArch: noarch\n"
        "AutoReqProv: no\n%description\nD\n%install\n"
        f"mkdir -p %{{buildroot}}{FOLDER} %{{buildroot}}/etc\n"
        f"touch %{{buildroot}}/etc/passwd %{{buildroot}}{FOLDER}/bundle\n"
        f"%pre -p /usr/bin/countersign-install -f {folder}/body\n"
        "%verifyscript -p /usr/bin/countersign-install\nnothing\n"
        f"%files\n%dir {FOLDER}\n"
    )
    assert old in spec
    (folder / "forged.spec").write_text(spec.replace(old, new))
    macros = [("_topdir", folder), ("_unpackaged_files_terminate_build", 0)]
    defines = [part for name, value in macros for part in ("--define", f"{name} {value}")]
    said("rpmbuild", "-bb", "--quiet", *defines, folder / "forged.spec")
    return folder / "RPMS/noarch/crm-1.1.0-1.noarch.rpm"
