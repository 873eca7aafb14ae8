import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer.bundle import Head
from packager.bundle_writer import write_bundle
from packager.cli import commands
from packager.package_reader import read_package
from tests.keys import Keyring
from tests.product import FIRST, RELEASE, SECOND, Product

pytestmark = pytest.mark.integration

ADA = "Ada Developer <ada@example.org>"
PACKAGE = "dist/crm-1.1.0-1.noarch.rpm"
POLICY = """\
serial = 1
[[identity]]
name = "Ada"
role = "developer"
fingerprints = ["{ada}"]
[[identity]]
name = "Customer"
role = "customer"
fingerprints = ["{customer}"]
[require.QAT]
developer = 1
[require.PRD]
developer = 1
customer = 1
[require.STG]
developer = 1
author = 1
[[identity]]
name = "The Author"
role = "author"
fingerprints = ["{stranger}"]
[rotation]
customer = 1
"""


class Desk:
    """A developer's desk: the product's working copy, the keys, a shell."""

    def __init__(self, product: Product, keys: Keyring, ada: str, customer: str) -> None:
        self.product = product
        self.keys = keys
        self.ada = ada
        (product.folder / "policy.toml").write_text(
            POLICY.format(ada=ada, customer=customer, stranger="0" * 40)
        )
        (product.folder / "keyring.pgp").write_bytes(keys.export([ada, customer]))

    def run(
        self, *arguments: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `countersign` in the working copy; it has to end with `code`."""
        root = str(Path(__file__).parents[2])
        known = {"GNUPGHOME": str(self.keys.home), "PYTHONPATH": root, **environment}
        done = subprocess.run(
            [sys.executable, "-m", "packager", *arguments],
            cwd=self.product.folder,
            env=os.environ | known,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def said(self, *arguments: str) -> str:
        return self.run(*arguments).stdout

    def build(self) -> None:
        self.run("sign", "--key", self.ada)
        self.run("build")

    def verify(self, environment: str, *more: str, code: int = 0) -> tuple[str, str]:
        options = ("--policy", "policy.toml", "--keyring", "keyring.pgp", "--environment")
        done = self.run("verify", PACKAGE, *options, environment, *more, code=code)
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Keyring, str, str]]:
    with Keyring.create() as made:
        yield made, made.new_key(ADA), made.new_key("Customer <customer@example.org>")


@pytest.fixture
def desk(tmp_path: Path, keys: tuple[Keyring, str, str]) -> Desk:
    return Desk(Product.create(tmp_path / "crm"), *keys)


def test_a_release_goes_from_the_repository_to_a_verified_package(desk: Desk) -> None:
    assert "has no signature yet" in desk.said("check")
    assert "dist/crm-1.1.0/manifest.json" in desk.said("manifest")
    assert f"as {ADA} {desk.ada}" in desk.run("sign", COUNTERSIGN_KEY="ada@example.org").stdout
    assert f"ok signed by {ADA} {desk.ada}" in desk.said("check")
    assert f"wrote {PACKAGE}" in desk.said("build")
    out, _ = desk.verify("QAT")
    assert "crm 1.1.0 is signed as QAT requires, by" in out
    assert f"Ada (developer) {desk.ada}" in out
    assert "besides" not in out
    assert "PRD requires besides: an approval by 1 of role customer" in desk.verify("PRD")[0]


def test_programs_get_json(desk: Desk) -> None:
    desk.run("sign", "--key", desk.ada)
    built = json.loads(desk.said("build", "--json"))
    plan = json.loads(desk.said("plan", "--json"))
    shown = json.loads(desk.said("show", PACKAGE, "--json"))
    verified = json.loads(desk.verify("QAT", "--json")[0])

    assert built["package"] == PACKAGE
    assert built["signers"] == [{"fingerprint": desk.ada, "user_id": ADA}]
    assert plan["pending"]["v1.0.0"] == ["sql/0002_orders.sql"]
    assert plan["patches"]["v1.0.0"]["removed"] == ["old.txt"]
    assert shown["manifest"] == plan["manifest"]
    assert shown["signatures"] == [desk.ada]
    assert verified["signers"][0]["name"] == "Ada"
    assert len({document["digest"] for document in (built, plan, shown, verified)}) == 1


def test_plan_shows_what_is_new_from_each_start(desk: Desk) -> None:
    plan = desk.said("plan")

    first, new = plan.split("Scripts that are new from v1.0.0")
    assert first.index("sql/0001_customers.sql") < first.index("sql/0002_orders.sql")
    assert "sql/0001" not in new
    assert "modified bin/crm" in new
    assert "removed old.txt" in new


def test_show_prints_scripts_and_patches_as_they_are(desk: Desk) -> None:
    desk.build()

    shown = desk.said("show", PACKAGE)
    assert desk.ada in shown
    assert "Application /opt/crm" in shown
    assert (
        desk.said("show", PACKAGE, "--script", "sql/0002_orders.sql")
        == (SECOND["sql/0002_orders.sql"])
    )
    assert "+echo 1.1.0" in desk.said("show", PACKAGE, "--patch", "v1.0.0")
    error = desk.run("show", PACKAGE, "--script", "sql/9.sql", code=2).stderr
    assert "crm 1.1.0 has no script 'sql/9.sql'" in error


def test_colours_are_for_terminals_only(desk: Desk) -> None:
    done = desk.run("check")

    assert "\x1b" not in done.stdout + done.stderr


def test_changes_that_are_not_released_are_a_warning_on_stderr(desk: Desk) -> None:
    (desk.product.folder / "app/bin/crm").write_text("changed by hand\n")

    done = desk.run("manifest")

    assert "warning: v1.1.0 is released without these changes" in done.stderr
    assert "app/bin/crm" in done.stderr
    assert "app/bin/crm" not in done.stdout


@pytest.mark.parametrize(
    "files, release, code, words",
    [
        ({}, RELEASE.replace("summary", "sumary"), 50, "sumary"),
        ({}, RELEASE.replace("v1.1.0", "v1.1.9"), 50, "v1.1.9"),
        ({"sql/0001_customers.sql": "SELECT 1;\n"}, RELEASE, 51, "edited after it was released"),
        ({"sql/0003.sql": "SELEC 1;\n"}, RELEASE, 52, "sql/0003.sql"),
    ],
)
def test_check_says_what_is_wrong_with_its_own_exit_code(
    desk: Desk, files: dict[str, str], release: str, code: int, words: str
) -> None:
    if files:
        desk.product.git("tag", "--delete", "v1.1.0")
        desk.product.tag("v1.1.0", files)
    desk.product.describe(release)

    done = desk.run("check", code=code)

    assert "error:" in done.stderr
    assert words in done.stderr


def test_a_missing_release_file_says_what_to_do(desk: Desk) -> None:
    error = desk.run("build", "-r", "elsewhere.toml", code=50).stderr

    assert "elsewhere.toml" in error
    assert "countersign init" in error


def test_building_what_nobody_signed_is_refused(desk: Desk) -> None:
    error = desk.run("build", code=53).stderr

    assert "has no signature yet" in error
    assert "countersign sign" in error
    assert not (desk.product.folder / PACKAGE).exists()


def test_an_ambiguous_key_lists_the_candidates(desk: Desk) -> None:
    error = desk.run("sign", code=53).stderr

    assert f"{ADA} {desk.ada}" in error
    assert "Customer" in error


def test_an_output_folder_that_is_a_file_is_told(desk: Desk) -> None:
    (desk.product.folder / "file").touch()

    assert "cannot be written" in desk.run("manifest", "-o", "file/below", code=55).stderr


def test_a_package_without_the_signatures_that_an_environment_requires_is_refused(
    desk: Desk,
) -> None:
    desk.build()

    assert "1 of role author, found none" in desk.verify("STG", code=20)[1]


def test_a_package_that_was_changed_is_refused(desk: Desk) -> None:
    desk.build()
    package = desk.product.folder / PACKAGE
    bundle = package.with_name("bundle")
    flipped = bytearray(package.read_bytes())
    flipped[-100] ^= 1
    package.write_bytes(flipped)

    desk.verify("QAT", code=21)
    desk.run("show", PACKAGE, code=21)

    bundle.write_bytes(b"neither")
    desk.run("show", "dist/bundle", code=21)
    desk.run("show", "dist/none", code=21)


def test_verify_refuses_a_manifest_that_begins_within_a_script(desk: Desk) -> None:
    desk.build()
    package = desk.product.folder / PACKAGE
    _, bundle = read_package(package)
    document = json.loads(bundle.head.manifest)
    document["database"]["scripts"][1]["runs"] = [len("CREATE TABLE orders (id bigint);")]
    raw = json.dumps(document).encode()
    head = Head(raw, {desk.ada: desk.keys.sign(raw, desk.ada)})
    package.write_bytes(write_bundle(head, b"".join(bundle.compressed.pieces())))

    said, told = desk.verify("QAT", code=56)

    assert said == ""
    assert "the manifest runs sql/0002_orders.sql otherwise than the script says" in told


def test_verify_names_a_configuration_that_is_missing(desk: Desk) -> None:
    desk.build()
    (desk.product.folder / "keyring.pgp").unlink()

    assert "keyring.pgp: No such file" in desk.verify("QAT", code=10)[1]


def test_init_prepares_a_repository_of_ones_own(desk: Desk, tmp_path: Path) -> None:
    shop = Product(tmp_path / "shop")
    shop.folder.mkdir()
    shop.git("init", "--quiet")
    shop.tag("v0.1.0", FIRST)

    said = desk.said("init", str(shop.folder))

    assert f"wrote {shop.release}" in said
    assert 'vcs = "git"' in shop.release.read_text()
    assert "ok database: 1 scripts" in desk.said("check", "-r", str(shop.release))
    desk.run("init", str(shop.folder), code=55)


def test_every_command_has_help_with_an_example(desk: Desk) -> None:
    overview = desk.said("--help")
    assert "_COUNTERSIGN_COMPLETE=bash_source" in overview
    for name in commands.commands:
        assert f"  {name} " in overview
        assert f"Example:\n    countersign {name}" in desk.said(name, "--help")


def test_the_version_is_told(desk: Desk) -> None:
    assert desk.said("--version").startswith("countersign, version ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["build", "--nonsense"], ["show"]])
def test_wrong_usage_has_exit_code_2(desk: Desk, arguments: list[str]) -> None:
    assert "Usage:" in desk.run(*arguments, code=2).stderr
