import gzip
import os
import subprocess
from pathlib import Path

import pytest

from installer import __version__
from installer.host_file import parse_host_file
from installer.policy import parse_policy
from packager.installer_package import MAN_PAGES, SAMPLES, build_installer, pinned

pytestmark = pytest.mark.integration

LINT = Path(__file__).parents[2] / "spec_templates/rpmlint.toml"
LIBRARY = "usr/libexec/countersign"
MAN = Path(__file__).parents[2] / "docs/man"
ROTATION = "etc/logrotate.d/countersign-installer"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_installer(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, as they are on a host."""
    folder = tmp_path_factory.mktemp("root")
    archive = subprocess.run(["rpm2cpio", package], capture_output=True, check=True).stdout
    unpack = ["cpio", "--extract", "--make-directories", "--quiet"]
    subprocess.run(unpack, input=archive, cwd=folder, check=True)
    return folder


def said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_host_gets_the_installer_and_what_it_needs(package: Path) -> None:
    files = said("rpm", "-qplv", package)
    required = said("rpm", "-qpR", package).splitlines()

    assert package.name == f"countersign-installer-{__version__}-1.noarch.rpm"
    assert {
        "/usr/bin/gpg",
        "/usr/bin/gpg-agent",
        "/usr/bin/gpgv",
        "/usr/bin/git",
        "python3 >= 3.11",
        "(libpq.so.5()(64bit) or libpq.so.5)",
    } <= set(required)
    assert "-rwxr-xr-x    1 root     root" in files
    for path in ("/etc/countersign", "/var/lib/countersign", "/var/log/countersign"):
        assert f" {path}\n" in files
    assert "__pycache__" not in files
    assert ".so" not in files


def test_a_host_gets_man_pages_completion_and_log_rotation(package: Path, root: Path) -> None:
    files = set(said("rpm", "-qpl", package).splitlines())
    pages = [root / f"usr/share/man/man{page[-1]}/{page}.gz" for page in MAN_PAGES]
    completion = root / "usr/share/bash-completion/completions/countersign-install"

    assert {f"/{path.relative_to(root)}" for path in [*pages, completion]} <= files
    for page, name in zip(pages, MAN_PAGES, strict=True):
        assert gzip.decompress(page.read_bytes()) == (MAN / name).read_bytes()
    assert completion.read_bytes() == (SAMPLES / "completion.bash").read_bytes()
    assert (root / ROTATION).read_bytes() == (SAMPLES / "logrotate").read_bytes()


def test_an_upgrade_keeps_what_the_administrator_made_of_the_log_rotation(package: Path) -> None:
    flags = said("rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", package)

    assert f"/{ROTATION} cn\n" in flags  # config, noreplace


def test_the_launcher_runs_with_nothing_but_what_is_packaged(root: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import psycopg, click; "
        "print(psycopg.pq.__impl__, psycopg.__file__, click.__file__)"
    )
    hostile = tmp_path / "psycopg.py"
    hostile.write_text("raise SystemExit('hostile')\n")
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", program, root / LIBRARY],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    implementation, *origins = done.stdout.split()

    assert implementation == "python"
    assert all(origin.startswith(f"{root / LIBRARY}/") for origin in origins)


def test_the_command_starts_from_what_is_packaged(root: Path) -> None:
    launcher = (root / "usr/bin/countersign-install").read_text()
    assert launcher.startswith("#!/usr/bin/env -iS TERM=")
    assert launcher.partition("\n")[0].endswith(" /usr/bin/python3 -IS")
    here = root / "launcher"
    here.write_text(launcher.replace("/usr/libexec", str(root / "usr/libexec")))

    version = said("/usr/bin/python3", "-IS", here, "--version")

    assert __version__ in version


def test_the_same_source_gives_the_same_package(package: Path, tmp_path: Path) -> None:
    assert build_installer(tmp_path).read_bytes() == package.read_bytes()


def test_rpmlint_finds_no_error(package: Path) -> None:
    assert "0 errors" in said("rpmlint", "--config", LINT, package)


def test_what_is_bundled_is_declared(package: Path) -> None:
    provided = said("rpm", "-qp", "--provides", package)

    assert {name for name, _ in pinned()} == {"click", "psycopg", "typing-extensions"}
    for name, version in pinned():
        assert f"bundled(python3dist({name})) = {version}\n" in provided


def test_the_samples_are_files_that_a_host_accepts() -> None:
    host = parse_host_file((SAMPLES / "host.toml").read_bytes())
    policy = parse_policy((SAMPLES / "policy.toml").read_bytes())

    assert host.environment in policy.requirements


def test_erasing_leaves_no_bytecode_behind(package: Path, root: Path) -> None:
    scripts = said("rpm", "-qp", "--qf", "%{POSTIN}\n", package)
    compiled = scripts.replace("/usr/libexec", str(root / "usr/libexec"))
    erase = said("rpm", "-qp", "--qf", "%{PREUN}\n", package)
    erased = erase.replace("/usr/libexec", str(root / "usr/libexec"))

    said("/bin/sh", "-c", compiled, "post", "1")
    assert list((root / LIBRARY).rglob("*.pyc"))
    said("/bin/sh", "-c", erased, "preun", "1")  # an upgrade
    assert list((root / LIBRARY).rglob("*.pyc"))
    said("/bin/sh", "-c", erased, "preun", "0")
    assert not list((root / LIBRARY).rglob("*.pyc"))
