"""A scratch cluster is private, is no superuser's, and does not outlive whoever asked for it."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from packager import scratch
from packager.errors import ToolError
from packager.scratch import NoServerError, NotStartedError, find_programs, scratch_cluster
from tests.cluster import installed

pytestmark = pytest.mark.integration

AS_NOBODY = """
import os, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.path.insert(0, sys.argv[1])
from packager.scratch import find_programs, scratch_cluster
with scratch_cluster(find_programs(), "crm_owner") as cluster:
    print(cluster.folder.owner(), os.environ["TMPDIR"] in str(cluster.folder))
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that anybody may use; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


def test_its_folder_is_closed_to_others_and_there_is_no_port(temporary: Path) -> None:
    with scratch_cluster(find_programs(), "crm_owner") as cluster:
        folder = cluster.folder
        with psycopg.connect(cluster.connection("template1")) as connection:
            setting = connection.execute("SHOW listen_addresses").fetchone()

        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        assert setting == ("",)
    assert not folder.exists()


def test_neither_of_its_roles_is_a_superuser_and_the_owner_cannot_log_in(temporary: Path) -> None:
    with (
        scratch_cluster(find_programs(), "crm owner", ["crm owner", 'odd"role']) as cluster,
        psycopg.connect(cluster.new_database("crm")) as connection,
    ):
        roles = connection.execute(
            "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles "
            "WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY rolname"
        ).fetchall()
        owner = connection.execute(
            "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'crm'"
        ).fetchone()

    assert roles == [
        ("countersign", False, True),
        ("crm owner", False, False),
        ('odd"role', False, False),
    ]
    assert owner == ('"crm owner"',)
    assert temporary.exists()


def test_a_database_is_new_each_time(temporary: Path) -> None:
    (temporary / "a.sql").write_text("CREATE TABLE a ();\n")
    with scratch_cluster(find_programs(), "crm_owner") as cluster:
        cluster.new_database("crm")
        cluster.run_file(temporary, "a.sql", "crm")

        connection = cluster.new_database("crm")

        cluster.run_file(temporary, "a.sql", "crm")
        with psycopg.connect(connection) as opened:
            found = opened.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'a'")
            assert found.fetchall() == [("crm_owner",)]
    (temporary / "a.sql").unlink()


def test_whoever_is_not_root_runs_it_as_oneself(temporary: Path) -> None:
    root = Path(scratch.__file__).parents[1]
    command = [sys.executable, "-c", AS_NOBODY, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")

    assert (done.stdout, done.stderr) == ("nobody True\n", "")
    assert temporary.exists()


@pytest.mark.parametrize(
    "setting, words",
    [
        ({"shared_buffers": "nonsense"}, 'invalid value for parameter "shared_buffers"'),
        ({"max_connections": "0"}, 'outside the valid range for parameter "max_connections"'),
    ],
)
def test_a_server_that_does_not_start_says_why(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(scratch, "SETTINGS", scratch.SETTINGS | setting)

    with (
        pytest.raises(NotStartedError, match="scratch cluster did not start") as refused,
        scratch_cluster(find_programs(), "crm_owner"),
    ):
        pass

    assert words in refused.value.detail
    assert list(temporary.iterdir()) == []


def test_a_role_that_cannot_be_made_leaves_no_cluster(temporary: Path) -> None:
    with (
        pytest.raises(ToolError) as refused,
        scratch_cluster(find_programs(), "crm_owner", ["pg_reserved"]),
    ):
        pass

    assert 'role name "pg_reserved" is reserved' in refused.value.detail
    assert list(temporary.iterdir()) == []


def test_the_newest_programs_are_found_or_those_asked_for() -> None:
    newest = installed(Path())

    assert find_programs().folder == newest
    assert find_programs(int(newest.parent.name)).folder == newest
    assert find_programs(folder=newest).major == int(newest.parent.name)


def test_programs_that_pg_config_knows_of_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pg_config").write_text(f"#!/bin/sh\necho {installed(Path())}\n")
    (tmp_path / "pg_config").chmod(0o755)
    monkeypatch.setattr(scratch, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_programs().folder == installed(Path())


def test_without_programs_it_says_which_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scratch, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoServerError, match="there is no PostgreSQL 15 server's program"):
        find_programs(15)


def test_what_is_no_server_is_told(tmp_path: Path) -> None:
    for program in scratch.NEEDED:
        (tmp_path / program).symlink_to("/bin/echo")

    with pytest.raises(ToolError, match="does not say its version"):
        find_programs(folder=tmp_path)
