"""A release is tried on a real server before it is signed, and nothing of that server stays."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from installer.manifest import Manifest, Rehearsal, parse_manifest
from tests.cluster import Cluster, installed
from tests.developers import Draft
from tests.keys import Keyring
from tests.product import Product

pytestmark = pytest.mark.integration

COUNTERSIGN = Path(sys.executable).with_name("countersign")
MAJOR = int(installed(Path()).parent.name)
TIMEOUT = 300
PATIENCE = 30
"""Seconds for what happens soon."""

MOODS = {"sql/01.sql": "CREATE TYPE mood AS ENUM ('sad');\nCREATE TABLE people (now mood);\n"}
HAPPY = {"sql/02.sql": "ALTER TYPE mood ADD VALUE 'happy';\n"}
USED = {"sql/03.sql": "\nINSERT INTO people VALUES ('happy');\n"}


@dataclass
class Desk:
    """A developer's folders: releases as trees, the temporary files of the commands, the output."""

    folder: Path
    temporary: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "dist"

    def draft(self, version: str, files: Mapping[str, str], *starts: str, **more: Any) -> Path:
        """The release.toml of a database's release, whose tree has these files."""
        sequence = int(version.rpartition(".")[2]) + 1
        draft = Draft(version, sequence, {"app/README": version} | dict(files), (), starts, **more)
        for path, content in draft.files.items():
            file = self.folder / draft.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(content))
        toml = self.folder / f"{version}.toml"
        toml.write_text(draft.toml())
        return toml

    def command(self, command: str, release: Path, *options: str) -> list[str]:
        return [str(COUNTERSIGN), command, "-r", str(release), "-o", str(self.output), *options]

    def all_environment(self) -> dict[str, str]:
        return os.environ | {"TMPDIR": str(self.temporary)} | self.environment

    def run(
        self, command: str, release: Path, *options: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(command, release, *options),
            env=self.all_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def rehearse(self, release: Path, *options: str) -> dict[str, Any]:
        """What a rehearsal that went well says."""
        document: dict[str, Any] = json.loads(
            self.run("rehearse", release, "--json", *options).stdout
        )
        return document

    def manifest(self, release: Path) -> Manifest:
        """The manifest that developers would sign."""
        written = self.run("manifest", release).stdout.splitlines()[0].removeprefix("wrote ")
        return parse_manifest(Path(written).read_bytes())

    def rehearsal(self, release: Path) -> Rehearsal | None:
        database = self.manifest(release).database
        assert database
        return database.rehearsal

    def records(self) -> list[Path]:
        return list(self.output.glob("*/rehearsal.json"))

    def run_show(self, package: Path) -> str:
        return subprocess.run(
            [COUNTERSIGN, "show", package], capture_output=True, text=True, check=True
        ).stdout

    def left(self) -> list[str]:
        """Temporary files, and processes that know of them."""
        found = [str(path) for path in self.temporary.iterdir()]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(self.temporary) in command:
                found.append(command)
        return found

    def cluster(self, has: str) -> Path | None:
        """The folder of the scratch cluster, once it has this in it."""
        folders = self.temporary.iterdir()
        found = (each for each in folders if each.name.startswith("countersign-rehearsal-"))
        return next((folder for folder in found if (folder / has).exists()), None)

    @contextmanager
    def started(self, release: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A rehearsal that goes on for as long as the test wants, and no longer."""
        with subprocess.Popen(
            self.command("rehearse", release),
            env=self.all_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as command:
            try:
                yield command
            finally:
                command.kill()


def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    temporary = Path(tempfile.mkdtemp(prefix="rehearse-", dir="/tmp"))
    temporary.chmod(0o755)  # the server's user gets to what is below
    yield Desk(tmp_path, temporary)
    shutil.rmtree(temporary)


def test_a_release_is_rehearsed_from_each_start_and_its_manifest_says_so(
    desk: Desk, tmp_path: Path
) -> None:
    product = Product.create(tmp_path / "product")
    before = desk.manifest(product.release)

    said = desk.rehearse(product.release)

    assert [run["start"] for run in said["starts"]] == ["empty", "v1.0.0"]
    from_empty, upgrade = ([s["script"] for s in run["scripts"]] for run in said["starts"])
    assert from_empty == ["sql/0001_customers.sql", "sql/0002_orders.sql"]
    assert upgrade == ["sql/0002_orders.sql"]
    assert said["starts"][1]["created"] == ["public.orders", "public.orders_id_idx"]
    assert "created table public.orders" in said["starts"][1]["changes"][0]
    after = desk.manifest(product.release)
    assert after.database
    assert after.database.rehearsal == Rehearsal(MAJOR, ("empty", "v1.0.0"))
    assert said["digest"] == after.digest != before.digest
    words = f"rehearsed on PostgreSQL {MAJOR} from empty, v1.0.0"
    assert f"ok {words}\n" in desk.run("check", product.release).stdout
    assert f"  {words}\n" in desk.run("plan", product.release).stdout
    assert desk.left() == []


def test_who_rehearses_on_the_same_major_gets_the_same_manifest(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    digests = {desk.rehearse(release)["digest"] for _ in range(2)}

    assert digests == {desk.manifest(release).digest}


def test_a_person_reads_what_the_release_did_to_rows_locks_and_schema(desk: Desk) -> None:
    desk.draft("1.0", MOODS, "empty")
    more = {"sql/02.sql": "INSERT INTO people VALUES ('sad'), ('sad');\nDROP TABLE people;\n"}
    release = desk.draft("1.1", MOODS | more, "1.0")

    said = desk.run("rehearse", release).stdout

    assert re.search(r"  sql/02.sql: \d+\.\d{3} s, 2 rows\n", said)
    assert "dropped table public.people (1 column): its data may be lost\n" in said
    assert "public.people: ACCESS EXCLUSIVE: nobody else could read or write it" in said
    assert re.search(r"lock table: \d+ of 6400 locks at its end", said)
    assert said.splitlines()[-2] == f"crm 1.1 is rehearsed on PostgreSQL {MAJOR} from 1.0"


def test_an_enum_value_that_is_used_before_it_is_committed_is_caught(desk: Desk) -> None:
    """Each script by itself goes well, as on a developer's machine; on a host they are one."""
    desk.draft("1.0", MOODS, "empty")
    release = desk.draft("1.1", MOODS | HAPPY | USED, "1.0")

    failed = desk.run("rehearse", release, code=58).stderr

    assert 'from 1.0: sql/03.sql:2:28: unsafe use of new value "happy" of enum type mood' in failed
    assert "INSERT INTO people VALUES ('happy');" in failed
    assert 'when = "before"' in failed
    assert desk.records() == []
    assert desk.rehearsal(release) is None
    assert desk.left() == []


def test_an_enum_value_that_an_online_script_adds_before_is_fine(desk: Desk) -> None:
    desk.draft("1.0", MOODS, "empty")
    online = {"sql/02.sql": "before"}
    release = desk.draft("1.1", MOODS | HAPPY | USED, "1.0", online=online)

    (run,) = desk.rehearse(release)["starts"]

    assert [script["script"] for script in run["scripts"]] == ["sql/02.sql", "sql/03.sql"]


def test_an_online_script_that_comes_before_what_it_needs_is_caught_from_empty(desk: Desk) -> None:
    desk.draft("1.0", MOODS, "empty")
    online = {"sql/02.sql": "before"}
    release = desk.draft("1.1", MOODS | HAPPY | USED, "empty", "1.0", online=online)

    failed = desk.run("rehearse", release, code=58).stderr

    assert 'from empty: sql/02.sql:1: type "mood" does not exist' in failed


def test_an_index_that_is_made_concurrently_is_rehearsed_outside_of_the_transaction(
    desk: Desk,
) -> None:
    desk.draft("1.0", MOODS, "empty")
    index = {"sql/02.sql": "CREATE INDEX CONCURRENTLY people_now ON people (now);\n"}
    release = desk.draft("1.1", MOODS | index, "1.0", online={"sql/02.sql": "after"})

    (run,) = desk.rehearse(release)["starts"]

    assert "index public.people_now" in run["changes"][0]


def test_a_script_that_verifies_and_fails_is_caught(desk: Desk) -> None:
    verify = {"sql/verify/people.sql": "SELECT 1 / count(*) FROM people;\n"}
    release = desk.draft("1.0", MOODS | verify, "empty")

    failed = desk.run("rehearse", release, code=58).stderr

    assert "from empty: sql/verify/people.sql:1: division by zero" in failed
    assert desk.rehearsal(release) is None


def test_a_failure_voids_what_was_rehearsed_before(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    desk.rehearse(release)

    desk.run("rehearse", release, "--search-path", "nowhere", code=58)

    assert desk.records() == []
    assert desk.rehearsal(release) is None


def test_a_start_may_hold_what_no_release_may(desk: Desk) -> None:
    old = {"sql/02.sql": "BEGIN;\nCREATE INDEX ON people (now);\nCOMMIT;\nVACUUM people;\n"}
    new = {"sql/03.sql": "CREATE TABLE more ();\n"}
    desk.draft("1.0", MOODS | old, "empty")
    release = desk.draft("1.1", MOODS | old | new, "1.0")

    (run,) = desk.rehearse(release)["starts"]

    assert [script["script"] for script in run["scripts"]] == ["sql/03.sql"]


def test_a_start_that_cannot_be_rebuilt_is_named_with_script_and_words(desk: Desk) -> None:
    old = {"sql/01.sql": "CREATE TABLE a ();\nSELECT 1 / 0;\n"}
    desk.draft("1.0", old, "empty")
    release = desk.draft("1.1", old | {"sql/02.sql": "CREATE TABLE b ();\n"}, "1.0")

    failed = desk.run("rehearse", release, code=58).stderr

    assert "error: 1.0 cannot be rebuilt: its sql/01.sql failed\n" in failed
    assert "psql:sql/01.sql:2: ERROR:  division by zero" in failed
    assert desk.left() == []


def test_a_start_without_the_plan_of_this_release_has_its_order(desk: Desk) -> None:
    old = {"sql/b.sql": "CREATE TABLE b ();\n", "sql/a.sql": "ALTER TABLE b ADD c int;\n"}
    desk.draft("1.0", old, "empty")
    new = {"sql/c.sql": "CREATE TABLE c ();\n", "sql/plan": "sql/b.sql\nsql/a.sql\nsql/c.sql\n"}
    release = desk.draft("1.1", old | new, "1.0")
    plan = '[database]\norder = "plan"\nplan = "sql/plan"'
    release.write_text(release.read_text().replace("[database]", plan))

    (run,) = desk.rehearse(release)["starts"]

    assert [script["script"] for script in run["scripts"]] == ["sql/c.sql"]


def test_a_role_that_scripts_name_is_made_when_it_is_asked_for(desk: Desk) -> None:
    grant = {"sql/02.sql": "GRANT SELECT ON people TO reporting;\n"}
    desk.draft("1.0", MOODS | grant, "empty")
    more = {"sql/03.sql": "GRANT INSERT ON people TO reporting;\n"}
    release = desk.draft("1.1", MOODS | grant | more, "empty", "1.0")

    failed = desk.run("rehearse", release, code=58).stderr

    assert 'role "reporting" does not exist' in failed
    assert "name: --role reporting\n" in failed
    assert len(desk.rehearse(release, "--role", "reporting")["starts"]) == 2


def test_an_extension_that_is_trusted_needs_no_superuser(desk: Desk) -> None:
    extension = {"sql/01.sql": "CREATE EXTENSION citext;\nCREATE TABLE a (i citext);\n"}

    assert desk.rehearse(desk.draft("1.0", extension, "empty"))["starts"]


def test_another_extension_is_refused_in_the_server_s_words(desk: Desk) -> None:
    release = desk.draft("1.0", {"sql/01.sql": "CREATE EXTENSION pageinspect;\n"}, "empty")

    failed = desk.run("rehearse", release, code=58).stderr

    assert 'sql/01.sql:1: permission denied to create extension "pageinspect"' in failed


def test_a_change_of_the_release_voids_its_rehearsal(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    desk.rehearse(release)
    assert desk.rehearsal(release)

    desk.draft("1.0", MOODS | {"app/README": "one byte"}, "empty")

    assert desk.rehearsal(release) is None
    assert "-- not rehearsed: run countersign rehearse\n" in desk.run("check", release).stdout


def test_a_record_that_is_none_is_not_believed(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    desk.rehearse(release)
    (record,) = desk.records()
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))

    failed = desk.run("manifest", release, code=58).stderr

    assert f"{record} is no record of a rehearsal" in failed


def test_an_application_alone_has_nothing_to_rehearse(desk: Desk) -> None:
    release = desk.draft("1.0", {}, "empty")

    assert "has no database" in desk.run("rehearse", release).stdout
    assert desk.records() == []
    assert "rehearsed" not in desk.run("check", release).stdout


def test_without_a_server_s_programs_nothing_is_rehearsed(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    none = ("--programs", str(desk.folder))

    failed = desk.run("rehearse", release, *none, code=54).stderr
    warned = desk.run("rehearse", release, *none, "--if-possible")

    assert f"there is no PostgreSQL server's program in {desk.folder}" in failed
    assert warned.stderr.startswith("warning: not rehearsed: ")
    assert desk.rehearsal(release) is None
    assert "PostgreSQL 9 " in desk.run("rehearse", release, "--postgresql", "9", code=54).stderr


def test_where_the_server_does_not_start_what_was_rehearsed_before_still_holds(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    desk.rehearse(release)
    (programs := desk.folder / "programs").mkdir()
    for program in ("postgres", "psql"):
        (programs / program).symlink_to(installed(Path()) / program)
    (programs / "initdb").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    broken = ("--programs", str(programs))
    open_to_all(programs)

    failed = desk.run("rehearse", release, *broken, code=54).stderr
    warned = desk.run("rehearse", release, *broken, "--if-possible").stderr

    assert "error: the scratch cluster did not start\nno room\n" in failed
    assert warned == "warning: not rehearsed: the scratch cluster did not start\nno room\n"
    assert desk.rehearsal(release)
    assert desk.left() == []


def open_to_all(folder: Path) -> None:
    """Let the server's user in, which root's folders for tests do not."""
    for each in (folder, *folder.parents):
        if each.is_relative_to("/tmp") and each != Path("/tmp"):
            each.chmod(0o755)


def test_a_release_that_fills_the_lock_table_says_what_to_raise(desk: Desk) -> None:
    tables = "".join(f"CREATE TABLE t{number} ();\n" for number in range(3300))
    release = desk.draft("1.0", {"sql/01.sql": tables}, "empty")

    done = desk.run("rehearse", release, "--json")
    (run,) = json.loads(done.stdout)["starts"]

    assert 6600 < run["lock_entries"] < 6700  # each table and its row type
    assert f"warning: from empty: the release holds {run['lock_entries']} of 6400 locks" in (
        done.stderr
    )
    assert "set max_locks_per_transaction = 256 in postgresql.conf" in done.stderr
    assert "warning" not in desk.run("rehearse", release, "--json", "--max-locks", "256").stderr


@pytest.mark.parametrize("moment", ["initdb", "script"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_however_the_command_ends_nothing_of_the_cluster_stays(
    desk: Desk, end: signal.Signals, moment: str
) -> None:
    release = desk.draft("1.0", {"sql/01.sql": "SELECT pg_sleep(600);\n"}, "empty")
    with desk.started(release) as command:
        until(lambda: desk.cluster("data") if moment == "initdb" else sleeps(desk))

        os.killpg(command.pid, end)  # as a terminal does: to all that it has in the foreground

        command.wait(PATIENCE)
    until(lambda: desk.left() == [])
    assert desk.records() == []


def sleeps(desk: Desk) -> bool:
    """Whether the release's script is running."""
    folder = desk.cluster(".s.PGSQL.5432")
    if folder is None:
        return False
    psql = str(installed(Path()) / "psql")
    command = [psql, "-XAt", "-d", f"host={folder} user=postgres dbname=crm"]
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    done = subprocess.run([*command, "-c", asked], capture_output=True, text=True, check=False)
    return bool(done.stdout == "1\n")


def test_ctrl_c_ends_with_its_own_exit_code(desk: Desk) -> None:
    release = desk.draft("1.0", {"sql/01.sql": "SELECT pg_sleep(600);\n"}, "empty")
    with desk.started(release) as command:
        until(lambda: sleeps(desk))

        command.send_signal(signal.SIGINT)

        assert command.wait(PATIENCE) == 130
    assert desk.left() == []


def test_a_copy_goes_on_from_where_it_is_and_is_changed(
    desk: Desk, cluster: Cluster, database: str
) -> None:
    release = desk.draft("1.0", MOODS, "empty")

    done = desk.run("rehearse", release, "--json", "--dsn", database, "--yes")

    assert done.stderr == f"this changes the database '{database}'; use a copy\n"
    assert [run["start"] for run in json.loads(done.stdout)["starts"]] == ["a copy"]
    assert desk.rehearsal(release) == Rehearsal(MAJOR, ("a copy",))
    rows = "SELECT string_agg(event, ', ' ORDER BY id) FROM countersign.ledger"
    assert cluster.psql(rows, name_of(database)) == "script applied, release applied"

    again = desk.run("rehearse", release, "--dsn", database, "--yes", code=58).stderr

    assert "from a copy: this very release has been installed there already" in again


def test_a_copy_and_the_starts_are_told_together(desk: Desk, database: str) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    desk.rehearse(release, "--dsn", database, "--yes")

    desk.rehearse(release)

    assert desk.rehearsal(release) == Rehearsal(MAJOR, ("empty", "a copy"))


def test_a_copy_with_a_newer_release_is_left_alone(
    desk: Desk, cluster: Cluster, database: str
) -> None:
    old = desk.draft("1.0", MOODS, "empty")
    desk.draft("1.1", MOODS | HAPPY, "empty")
    desk.rehearse(desk.folder / "1.1.toml", "--dsn", database, "--yes")

    failed = desk.run("rehearse", old, "--dsn", database, "--yes", code=58).stderr

    assert "from a copy: it has sequence 1, and the ledger of the database is at 2" in failed
    assert cluster.psql("SELECT max(sequence) FROM countersign.ledger", name_of(database)) == "2"


def test_a_copy_is_not_changed_without_consent(desk: Desk, cluster: Cluster, database: str) -> None:
    release = desk.draft("1.0", MOODS, "empty")

    unasked = desk.run("rehearse", release, "--dsn", database, code=2).stderr
    code, asked = answer(desk, desk.command("rehearse", release, "--dsn", database), "n")

    assert "--yes changes it without asking" in unasked
    assert (code, "Is it a copy, which may be changed? [y/N]" in asked) == (130, True)
    assert cluster.psql("SELECT to_regnamespace('countersign')", name_of(database)) == ""


def test_a_password_has_no_place_in_the_process_list(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    dsn = "host=/run dbname=crm password=geheim"

    refused = desk.run("rehearse", release, "--yes", "--dsn", dsn, code=2).stderr

    assert "conninfo holds a password" in refused
    assert "geheim" not in refused


def test_a_copy_needs_no_programs_and_no_roles(desk: Desk) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    options = ("--dsn", "dbname=crm", "--postgresql", "15", "--yes")

    assert "--dsn is a server" in desk.run("rehearse", release, *options, code=2).stderr


def test_a_login_role_that_no_host_may_have_is_refused_on_a_copy(
    desk: Desk, cluster: Cluster, database: str
) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    root = database.replace("user=countersign", "user=postgres")

    failed = desk.run("rehearse", release, "--dsn", root, "--yes", code=58).stderr

    assert "its login role postgres is a superuser" in failed
    assert cluster.psql("SELECT to_regnamespace('countersign')", name_of(database)) == ""


def test_whoever_signed_before_the_rehearsal_learns_that_it_does_not_fit_any_more(
    desk: Desk,
) -> None:
    release = desk.draft("1.0", MOODS, "empty")
    with Keyring.create() as keys:
        desk.environment = {"GNUPGHOME": str(keys.home)}
        ada, grace = (keys.new_key(f"{name} <{name}@example.org>") for name in ("ada", "grace"))
        desk.run("sign", release, "--key", ada)
        desk.rehearse(release)

        warned = desk.run("sign", release, "--key", grace).stderr
        refused = desk.run("build", release, code=53).stderr
        desk.run("sign", release, "--key", ada)
        built = json.loads(desk.run("build", release, "--json").stdout)

    assert "it said 'not rehearsed', and says 'rehearsed on PostgreSQL" in warned
    assert "let everybody sign it again" in warned
    assert ada in refused
    assert len(built["signers"]) == 2
    shown = desk.run_show(Path(built["package"]))
    assert f"  rehearsed on PostgreSQL {MAJOR} from empty\n" in shown


def name_of(conninfo: str) -> str:
    return str(re.findall(r"dbname=(\w+)", conninfo)[0])


def answer(desk: Desk, command: Sequence[str], text: str) -> tuple[int, str]:
    """Run a command on a terminal, and answer its question; its exit code, and what it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=desk.all_environment()
    ) as asking:
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{text}\n".encode())
        code = asking.wait(PATIENCE)
    os.close(ours)
    return code, shown.decode()
