"""A product in Subversion, from its repository to a host.

With rpm alone: what differs from git ends with the manifest, which every package carries alike.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.developers import Developers
from tests.sites import Site

pytestmark = pytest.mark.acceptance

RELEASE = """\
[release]
name = "crm"
version = "{version}"
sequence = {sequence}
summary = "From Subversion"

[application]
vcs = "svn"
path = "app"
to = "tags/{version}"
from = [{starts}]
root = "/opt/crm"

[database]
name = "crm"
scripts = ["sql/*.sql"]
"""


@pytest.fixture
def working_copy(tmp_path: Path) -> Path:
    """A working copy of trunk, whose tags 1.0 and 1.1 are in the repository."""
    url, copy = f"file://{tmp_path}/repository", tmp_path / "trunk"
    svn(tmp_path, "svnadmin", "create", "repository")
    svn(tmp_path, "svn", "mkdir", "-q", "-m", "layout", f"{url}/trunk", f"{url}/tags")
    svn(tmp_path, "svn", "checkout", "-q", f"{url}/trunk", str(copy))
    for version in ("1.0", "1.1"):
        table = f"sql/{version}.sql"
        for name, text in {
            "app/VERSION": version,
            table: f"CREATE TABLE t{version[-1]} ();",
        }.items():
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_text(f"{text}\n")
        svn(copy, "svn", "add", "-q", "--force", "app", "sql")
        svn(copy, "svn", "commit", "-q", "-m", f"work for {version}")
        svn(copy, "svn", "copy", "-q", "-m", version, f"{url}/trunk", f"{url}/tags/{version}")
    return copy


def svn(folder: Path, *command: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)


def test_a_product_in_subversion_is_built_installed_and_upgraded(
    rpm_site: Site, developers: Developers, working_copy: Path, tmp_path: Path
) -> None:
    site = rpm_site
    packages = []
    for sequence, (version, starts) in enumerate([("1.0", '"empty"'), ("1.1", '"tags/1.0"')], 1):
        release = working_copy / "release.toml"
        release.write_text(RELEASE.format(version=version, sequence=sequence, starts=starts))
        packages.append(developers.build(release, tmp_path / "dist", [developers.ada]))

    installed = site.rpm("-i", packages[0])
    upgraded = site.rpm("-U", packages[1])

    assert installed.returncode == 0, installed.stderr
    assert upgraded.returncode == 0, upgraded.stderr
    assert site.state().objects == "t0 t1"
    assert site.read("VERSION") == "1.1\n"
    described = site.host.run(["rpm", "-qi", "crm"]).stdout
    assert "/tags/1.1@" in described
