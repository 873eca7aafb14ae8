import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from installer.manifest import ConcurrentIndex, Copy, Gap, Manifest, Online, parse_manifest
from installer.tree import digest_of
from packager.build import NotSignedError, build, sign_work, write_work
from packager.errors import (
    OutputError,
    PackagerError,
    PlanError,
    ProjectError,
    SigningError,
    SqlError,
    ToolError,
)
from packager.package_reader import read_package
from packager.project import load_project
from packager.release import Release, assemble, examine
from packager.signing import choose_key
from tests.keys import Keyring
from tests.product import COMMITTED, RELEASE, Product

pytestmark = pytest.mark.integration


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product.create(tmp_path / "crm")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "dist"


@pytest.fixture(scope="module")
def keyring() -> Iterator[Keyring]:
    with Keyring.create() as made:
        made.new_key("Ada Developer <ada@example.org>")
        made.new_key("Bob Developer <bob@example.org>")
        yield made


@pytest.fixture(autouse=True)
def keys(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    monkeypatch.setenv("GNUPGHOME", str(keyring.home))
    return keyring


def assembled(product: Product) -> Release:
    return assemble(load_project(product.release))


def signed(product: Product, output: Path, *names: str) -> Release:
    release = assembled(product)
    for name in names or ("ada",):
        sign_work(release, output, name)
    return release


def countersign(
    product: Product, output: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command itself."""
    program = Path(sys.executable).with_name("countersign")
    place = ("--release", product.release, "--output", output)
    return subprocess.run(
        [program, *arguments, *place], capture_output=True, text=True, timeout=60, check=False
    )


def manifest_of(package: Path) -> Manifest:
    return parse_manifest(read_package(package)[1].head.manifest)


def packages(output: Path) -> list[str]:
    """What a failed build must not leave, under whatever name."""
    return sorted(p.name for p in output.rglob("*") if "rpm" in p.name or p.name.startswith("."))


def retag(product: Product, path: str, content: str | None) -> None:
    """Move the tag of the release to a commit in which `path` is otherwise, or gone."""
    product.git("tag", "--delete", "v1.1.0")
    if content is None:
        product.git("rm", "--quiet", path)
    product.tag("v1.1.0", {path: content} if content is not None else {})


def test_two_developers_get_the_same_manifest_of_the_same_tags(
    product: Product, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    product.git("clone", "--quiet", str(product.folder), str(clone))
    shutil.copy(product.release, clone)

    assert assembled(Product(clone)).raw == assembled(product).raw


def test_the_package_has_what_the_tag_has(product: Product, output: Path) -> None:
    package, signers = build(signed(product, output), output)
    manifest = manifest_of(package)
    _, bundle = read_package(package)

    assert manifest.application
    assert manifest.database
    assert sorted(manifest.application.tree) == ["README", "bin/crm", "current", "größe.txt"]
    assert [script.name for script in manifest.database.scripts] == [
        "sql/0001_customers.sql",
        "sql/0002_orders.sql",
    ]
    assert bundle.open_content(manifest).read(manifest.database.scripts[1]) == (
        b"CREATE TABLE orders (id bigint);\nCREATE INDEX ON orders (id);\n"
    )
    assert manifest.source.committed == COMMITTED
    assert [signer.user_id for signer in signers] == ["Ada Developer <ada@example.org>"]


def test_every_developer_who_signed_is_in_the_package(product: Product, output: Path) -> None:
    release = signed(product, output, "ada", "bob")

    package, signers = build(release, output)

    assert {signer.fingerprint for signer in signers} == {
        choose_key("ada").fingerprint,
        choose_key("bob").fingerprint,
    }
    assert read_package(package)[1].head.signatures.keys() == {s.fingerprint for s in signers}


def test_a_signature_made_with_plain_gpg_is_picked_up(
    product: Product, output: Path, keys: Keyring
) -> None:
    release = assembled(product)
    manifest = write_work(release, output)
    ada = choose_key("ada").fingerprint
    keys.gpg("--local-user", ada, "--armor", "--detach-sign", str(manifest))

    package, signers = build(release, output)

    assert (manifest.parent / "manifest.json.asc").exists()
    assert [signer.fingerprint for signer in signers] == [ada]
    assert list(read_package(package)[1].head.signatures) == [ada]


def test_one_developer_who_signs_twice_counts_once(
    product: Product, output: Path, keys: Keyring
) -> None:
    release = signed(product, output, "ada")
    manifest = output / "crm-1.1.0/manifest.json"
    ada = choose_key("ada").fingerprint
    keys.gpg("--local-user", ada, "--armor", "--detach-sign", str(manifest))

    assert len(build(release, output)[1]) == 1


def test_the_working_copy_is_told_and_not_packaged(product: Product) -> None:
    before = assembled(product)
    (product.folder / "app/bin/crm").write_text("#!/bin/sh\necho changed by hand\n")
    (product.folder / "sql/0003_draft.sql").write_text("CREATE TABLE draft ();\n")

    after = assembled(product)

    assert after.raw == before.raw
    assert any("app/bin/crm" in line for line in after.changes)
    assert any("sql/0003_draft.sql" in line for line in after.changes)


def test_what_a_host_has_yet_to_run_is_known_for_each_start(product: Product) -> None:
    pending = assembled(product).pending

    assert [script.name for script in pending["empty"]] == [
        "sql/0001_customers.sql",
        "sql/0002_orders.sql",
    ]
    assert [script.name for script in pending["v1.0.0"]] == ["sql/0002_orders.sql"]


@pytest.mark.parametrize(
    "path, content, words",
    [
        ("sql/0001_customers.sql", "CREATE TABLE customers ();\n", "edited"),
        ("sql/0001_customers.sql", None, "not in this release"),
        ("sql/0000_early.sql", "CREATE TABLE early ();\n", "sorts before"),
    ],
)
def test_a_change_to_what_is_released_is_found_at_the_build(
    product: Product, path: str, content: str | None, words: str
) -> None:
    retag(product, path, content)

    with pytest.raises(PlanError, match=words) as refused:
        assembled(product)

    assert path in str(refused.value)
    assert "from v1.0.0" in str(refused.value)
    assert refused.value.detail


@pytest.mark.parametrize(
    "path, content, change",
    [
        ("sql/0000_early.sql", "CREATE TABLE early ();\n", "late"),
        ("sql/0001_customers.sql", "CREATE TABLE customer (id bigint);\n", "edited"),
        ("sql/0001_customers.sql", None, "removed"),
    ],
)
def test_the_entry_that_the_message_prints_accepts_the_change(
    product: Product, output: Path, path: str, content: str | None, change: str
) -> None:
    retag(product, path, content)
    with pytest.raises(PlanError) as refused:
        assembled(product)
    entry = refused.value.detail[refused.value.detail.index("  [[database.accept]]") :]
    product.describe(f"{RELEASE}\n{dedent(entry)}\n".replace("…", "agreed"))

    release = assembled(product)

    assert release.manifest.database
    (accepted,) = release.manifest.database.accept
    assert (accepted.script, accepted.change, accepted.reason) == (path, change, "agreed")
    late = [script.name for script in release.pending["v1.0.0"] if script.name == path]
    assert late == ([path] if change == "late" else [])
    checked = countersign(product, output, "check")
    assert checked.returncode == 0, checked.stderr
    assert f"ok accepted: {path}: " in checked.stdout
    assert checked.stdout.count(": agreed\n") == 1


def test_a_script_that_was_edited_after_it_was_accepted_needs_another_look(
    product: Product,
) -> None:
    retag(product, "sql/0000_early.sql", "CREATE TABLE early ();\n")
    digest = digest_of(b"CREATE TABLE early ();\n")
    entry = 'script = "sql/0000_early.sql"\nchange = "late"\nreason = "agreed"\n'
    product.describe(f'{RELEASE}\n[[database.accept]]\n{entry}digest = "{digest}"\n')
    assert assembled(product).manifest.database
    retag(product, "sql/0000_early.sql", "DROP TABLE customer;\n")

    with pytest.raises(PlanError, match="look at the change again") as refused:
        assembled(product)

    assert digest in str(refused.value)
    assert digest_of(b"DROP TABLE customer;\n") in str(refused.value)


def test_a_plan_that_runs_released_scripts_in_another_order_is_refused(product: Product) -> None:
    names = ["sql/0001_customers.sql", "sql/0002_orders.sql"]
    product.tag("v1.2.0", {"sql/plan": "\n".join(names) + "\n"})
    product.tag("v1.3.0", {"sql/plan": "\n".join(names[::-1]) + "\n"})
    tags = RELEASE.replace("v1.1.0", "v1.3.0").replace("v1.0.0", "v1.2.0")
    product.describe(f'{tags}order = "plan"\nplan = "sql/plan"\n')

    with pytest.raises(PlanError) as refused:
        assembled(product)

    moved = "sql/0001_customers.sql ran before sql/0002_orders.sql when it was released"
    assert f"from v1.2.0: {moved}, and comes after it now" in str(refused.value)
    assert 'change = "reordered"' in refused.value.detail


def test_another_order_is_found_where_a_pattern_is_newer_than_the_starting_point(
    product: Product,
) -> None:
    names = ["sql/0001_customers.sql", "sql/0002_orders.sql"]
    product.tag("v1.2.0", {"sql/plan": "\n".join(names) + "\n"})
    after = ["more/1.sql", *names[::-1]]
    files = {"sql/plan": "\n".join(after) + "\n", "more/1.sql": "CREATE TABLE more ();\n"}
    product.tag("v1.3.0", files)
    tags = RELEASE.replace("v1.1.0", "v1.3.0").replace("v1.0.0", "v1.2.0")
    patterns = tags.replace('scripts = ["sql/*.sql"', 'scripts = ["more/*.sql", "sql/*.sql"')
    assert patterns != tags
    product.describe(f'{patterns}order = "plan"\nplan = "sql/plan"\n')

    with pytest.raises(PlanError) as refused:
        assembled(product)

    assert "sql/0001_customers.sql ran before sql/0002_orders.sql" in refused.value.detail


def test_scripts_that_are_no_sql_are_all_told_at_once(product: Product) -> None:
    retag(product, "sql/0003_bad.sql", "CREATE TALBE a ();\n")
    retag(product, "sql/0004_bad.sql", "\\i elsewhere.sql\n")

    with pytest.raises(SqlError, match="2 scripts") as refused:
        assembled(product)

    assert "sql/0003_bad.sql" in refused.value.detail
    assert "sql/0004_bad.sql" in refused.value.detail


def test_what_no_release_can_run_is_neither_signed_nor_built(
    product: Product, output: Path
) -> None:
    retag(product, "sql/0003_bad.sql", "CREATE TABLE a ();\nCOMMIT;\nVACUUM a;\n")
    retag(product, "sql/0004_bad.sql", "-- loads\nCOPY customers FROM stdin;\n1\n\\.\n")

    for arguments in (("sign", "--key", "ada"), ("build",)):
        done = countersign(product, output, *arguments)

        assert done.returncode == 52
        assert done.stderr.startswith("error: 2 scripts are wrong\n")
        assert "  sql/0003_bad.sql:2: COMMIT ends the release's transaction\n" in done.stderr
        assert "  sql/0003_bad.sql:3: VACUUM cannot run inside a transaction\n" in done.stderr
        assert "sql/0004_bad.sql:2: COPY names no columns" in done.stderr
        assert "docs/how-to/write-scripts.md" in done.stderr
        assert not output.exists()


def test_a_release_says_which_scripts_are_online_and_where_rows_are(
    product: Product, output: Path
) -> None:
    retag(product, "sql/0003_rows.sql", "COPY customers (id) FROM stdin;\n1\n\\.\n")
    retag(product, "sql/0004_index.sql", "CREATE INDEX CONCURRENTLY i ON orders (id);\nVACUUM;\n")
    entry = '[[database.online]]\nscript = "sql/0004_index.sql"\nwhen = "after"\n'
    product.describe(RELEASE + entry)

    package, _ = build(signed(product, output), output)
    manifest = manifest_of(package)

    assert manifest.database
    rows, index = manifest.database.scripts[2:]
    assert (rows.runs, rows.online) == ((0,), None)
    assert rows.gaps == (Gap(32, 37, Copy('"customers"', ("id",), {}, 2)),)
    assert (index.runs, index.gaps) == ((0, 44), ())
    made = ConcurrentIndex(0, "create", '"i"')
    assert index.online == Online("after", repeat=False, indexes=(made,))
    said = countersign(product, output, "plan").stdout
    assert "This release is not one transaction" in said
    assert "sql/0004_index.sql runs after the transaction, each of its 2 statements" in said


def test_a_script_that_cannot_be_online_stops_the_build(product: Product, output: Path) -> None:
    retag(product, "sql/0003_bad.sql", "BEGIN;\nCREATE INDEX CONCURRENTLY ON orders (id);\n")
    entry = '[[database.online]]\nscript = "sql/0003_bad.sql"\nwhen = "after"\n'
    product.describe(RELEASE + entry)

    done = countersign(product, output, "sign", "--key", "ada")

    assert done.returncode == 52
    assert "sql/0003_bad.sql:1: BEGIN begins a transaction inside the statement's" in done.stderr
    assert "sql/0003_bad.sql:2: CREATE INDEX CONCURRENTLY does not name" in done.stderr
    assert not output.exists()


def test_what_is_online_has_to_be_a_script(product: Product, output: Path) -> None:
    entry = '[[database.online]]\nscript = "sql/0002_order.sql"\nwhen = "after"\n'
    product.describe(RELEASE + entry)

    done = countersign(product, output, "sign", "--key", "ada")

    assert done.returncode == 51
    words = "which is no script of the release; did you mean sql/0002_orders.sql?"
    assert f"error: online names sql/0002_order.sql, {words}" in done.stderr
    assert not output.exists()


def test_a_link_is_no_script(product: Product) -> None:
    (product.folder / "sql/0003_passwd.sql").symlink_to("/etc/passwd")
    retag(product, "app/README", "again\n")

    with pytest.raises(ProjectError, match=r"sql/0003_passwd\.sql"):
        assembled(product)


def test_a_release_may_be_database_only(product: Product, output: Path) -> None:
    head, _, database = RELEASE.partition("[application]")
    _, mark, database = database.partition("[database]")
    product.describe(f'{head}{mark}\nvcs = "git"\nto = "v1.1.0"{database}')

    package, _ = build(signed(product, output), output)

    assert manifest_of(package).application is None


def test_a_release_may_be_application_only(product: Product, output: Path) -> None:
    product.describe(RELEASE.partition("[database]")[0])

    package, _ = build(signed(product, output), output)

    assert manifest_of(package).database is None


def test_everything_wrong_with_a_release_is_told_at_once(product: Product) -> None:
    retag(product, "sql/0001_customers.sql", "SELEC 1;\n")
    product.describe(RELEASE, path='"elsewhere"')

    findings = examine(load_project(product.release))

    errors = [finding for finding in findings if isinstance(finding, PackagerError)]
    assert [type(error) for error in errors] == [ProjectError, SqlError, PlanError]
    assert any("tag v1.0.0" in finding for finding in findings if isinstance(finding, str))


def test_without_a_signature_there_is_no_package(product: Product, output: Path) -> None:
    with pytest.raises(NotSignedError):
        build(assembled(product), output)

    assert packages(output) == []


def test_a_moved_tag_makes_the_signatures_useless(product: Product, output: Path) -> None:
    signed(product, output, "ada")
    retag(product, "app/README", "changed after it was signed\n")

    with pytest.raises(SigningError, match=r"manifest\.json\.[0-9A-F]{40}\.asc") as refused:
        build(assembled(product), output)

    assert "tags have moved" in refused.value.detail
    assert packages(output) == []


def test_a_package_that_rpmbuild_refuses_is_not_left_behind(product: Product, output: Path) -> None:
    product.describe(RELEASE, version='"1..0"')  # allowed in a manifest, not in an RPM

    with pytest.raises(ToolError, match="rpmbuild") as refused:
        build(signed(product, output), output)

    assert "1..0" in refused.value.detail
    assert packages(output) == []


def test_a_package_that_cannot_be_signed_is_not_left_behind(product: Product, output: Path) -> None:
    product.describe(f'{RELEASE}\n[signing]\npackage_key = "{"0" * 40}"\n')

    with pytest.raises(ToolError, match="rpmsign"):
        build(signed(product, output), output)

    assert packages(output) == []


def test_a_failed_build_keeps_the_package_that_was_there(product: Product, output: Path) -> None:
    package, _ = build(signed(product, output), output)
    before = package.read_bytes()
    (output / "crm-1.1.0/manifest.json.0.asc").write_text("nothing\n")

    with pytest.raises(SigningError):
        build(assembled(product), output)

    assert package.read_bytes() == before


def test_an_output_folder_that_cannot_be_written_is_an_error(
    product: Product, tmp_path: Path
) -> None:
    readonly = tmp_path / "readonly"
    readonly.mkdir()
    release = signed(product, tmp_path)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(readonly)]
    subprocess.run(mount, check=True)
    try:
        with pytest.raises(OutputError, match="Read-only"):
            write_work(release, readonly)
    finally:
        subprocess.run(["umount", str(readonly)], check=True)


def test_a_destination_that_is_a_folder_is_an_error(product: Product, output: Path) -> None:
    (output / "crm-1.1.0-1.noarch.rpm").mkdir(parents=True)

    with pytest.raises(OutputError, match="cannot be written"):
        build(signed(product, output), output)

    assert packages(output) == ["crm-1.1.0-1.noarch.rpm"]
    assert list((output / "crm-1.1.0-1.noarch.rpm").iterdir()) == []


def test_content_that_is_not_what_the_manifest_says_is_found_when_read_back(
    product: Product, output: Path
) -> None:
    release = signed(product, output)

    with pytest.raises(OutputError, match="does not read back"):
        build(replace(release, compressed=release.compressed[:-1] + b"?"), output)

    assert packages(output) == []


def test_a_script_that_every_starting_point_has_already_is_not_judged(tmp_path: Path) -> None:
    index = "CREATE TABLE a (i int);\nCREATE INDEX CONCURRENTLY ON a (i);\n"
    other = Product(tmp_path / "other")
    other.folder.mkdir()
    other.git("init", "--quiet")
    files = {"app/VERSION": "1\n", "sql/0001_a.sql": index, "sql/verify/a.sql": "SELECT 1;\n"}
    other.tag("v1.0.0", files)
    other.tag("v1.1.0", {**files, "app/VERSION": "2\n", "sql/0002_b.sql": "CREATE TABLE b ();\n"})

    other.describe(RELEASE.replace('from = ["empty", "v1.0.0"]', 'from = ["v1.0.0"]'))
    made = assemble(load_project(other.release))
    assert [script.name for script in made.pending["v1.0.0"]] == ["sql/0002_b.sql"]

    other.describe(RELEASE)
    with pytest.raises(SqlError, match=r"sql/0001_a\.sql:2: CREATE INDEX CONCURRENTLY"):
        assemble(load_project(other.release))
