"""The real squawk reads the new scripts of a release, and the thresholds of [lint] hold."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from packager import lint as lint_module
from packager.advice import advise
from packager.build import build_packages, sign_work, write_work
from packager.cli import commands
from packager.errors import ToolError
from packager.lint import LARGEST, Finding, lint
from packager.lintrules import RULES, SETTLED
from packager.project import LintSpec, load_project
from packager.release import Release, assemble
from tests.keys import Keyring

pytestmark = pytest.mark.integration

RELEASED = "CREATE TABLE orders (id bigint PRIMARY KEY);\nCREATE TABLE old (id int, name text);\n"
NEW = """\
-- What 1.1.0 changes.
ALTER TABLE orders ADD COLUMN total numeric;
CREATE TABLE lines (orders bigint REFERENCES orders);
CREATE INDEX ON lines (orders);
ALTER TABLE old
    DROP COLUMN name;
"""
RELEASE = """\
[release]
name = "crm"
version = "1.1.0"
sequence = 2
summary = "Totals"

[application]
vcs = "tree"
path = "app"
to = "1.1.0"
from = {starts}
root = "/opt/crm"

[database]
name = "crm"
scripts = ["sql/*.sql"]

"""
DROP = "ban-drop-column"


class Desk:
    """A product without version control, with the releases 1.0.0 and 1.1.0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "dist"
        self.put("1.0.0", {"app/a": "1", "sql/0001.sql": RELEASED})
        self.put("1.1.0", {"app/a": "2", "sql/0001.sql": RELEASED, "sql/0002.sql": NEW})
        self.describe()

    def put(self, release: str, files: Mapping[str, str]) -> None:
        for path, content in files.items():
            file = self.folder / release / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")

    def describe(self, rules: str = "", starts: str = '["empty", "1.0.0"]') -> None:
        text = RELEASE.format(starts=starts) + (f"[lint]\n{rules}\n" if rules else "")
        (self.folder / "release.toml").write_text(text, encoding="utf-8")

    def assembled(self) -> Release:
        return assemble(load_project(self.folder / "release.toml"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("countersign"), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def report(self) -> Any:
        return json.loads((self.output / "crm-1.1.0/report.json").read_text(encoding="utf-8"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def keyring() -> Iterator[Keyring]:
    with Keyring.create() as made:
        made.new_key("Ada Developer <ada@example.org>")
        yield made


@pytest.fixture
def signing(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keyring.home))


def found(sql: str, spec: LintSpec | None = None, *, online: bool = False) -> tuple[Finding, ...]:
    names = {"sql/1.sql"} if online else set[str]()
    return lint({"sql/1.sql": sql.encode()}, names, spec or LintSpec()).findings


def rules(sql: str, spec: LintSpec | None = None, *, online: bool = False) -> set[str]:
    return {finding.rule for finding in found(sql, spec, online=online)}


def test_check_tells_advice_and_locks_of_the_new_scripts_after_the_facts(desk: Desk) -> None:
    done = desk.run("check")

    assert done.returncode == 0
    assert done.stderr == ""
    facts, _, told = done.stdout.partition("-- dist/crm-1.1.0/manifest.json has no signature yet\n")
    assert "ok from 1.0.0: 1 scripts to run\n" in facts
    assert "advice" not in facts
    lines = told.splitlines()
    assert {line.split(": ")[1] for line in lines if line.startswith("advice ")} >= {DROP}
    assert [line.partition(": nobody")[0] for line in lines if line.startswith("lock ")] == [
        "lock sql/0002.sql:2: ALTER TABLE ADD COLUMN: ACCESS EXCLUSIVE on orders",
        "lock sql/0002.sql:3: CREATE TABLE … REFERENCES: SHARE ROW EXCLUSIVE on orders",
        "lock sql/0002.sql:5: ALTER TABLE DROP COLUMN: ACCESS EXCLUSIVE on old",
    ]
    assert lines[-2].endswith(": nobody reads or writes it until the release is committed")
    assert not [line for line in lines if "0001" in line]
    assert lines[-1] == "-- findings: 1, locks: 3"


def test_advice_shows_place_words_and_help(desk: Desk) -> None:
    desk.put("1.1.0", {"sql/0002.sql": "\nALTER TABLE orders ADD COLUMN n int;\n"})

    assert (
        "advice sql/0002.sql:2: prefer-bigint-over-int: "
        "Using 32-bit integer fields can result in hitting the max `int` limit.\n"
        "  Use 64-bit integer values instead to prevent hitting this limit.\n"
    ) in desk.run("check").stdout


def test_all_scripts_of_a_first_release_are_new_and_lock_nobody_out(desk: Desk) -> None:
    desk.describe(starts='["empty"]')

    told = desk.run("check").stdout

    assert "advice sql/0001.sql:2: prefer-bigint-over-int" in told
    assert f"advice sql/0002.sql:6: {DROP}" in told
    assert "lock " not in told


def test_locks_are_told_of_all_that_a_host_has_yet_to_run(desk: Desk) -> None:
    desk.put("1.0.1", {"app/a": "3", "sql/0001.sql": RELEASED, "sql/0002.sql": NEW})
    desk.describe(starts='["empty", "1.0.0", "1.0.1"]')

    advice = advise(desk.assembled())

    assert advice.lint.findings == ()  # 0002 is released, and stays as it is
    assert [lock.line for lock in advice.locks] == [2, 3, 5]


def test_a_release_without_a_database_has_nothing_to_tell(desk: Desk) -> None:
    text = (desk.folder / "release.toml").read_text(encoding="utf-8")
    (desk.folder / "release.toml").write_text(text.partition("[database]")[0], encoding="utf-8")

    done = desk.run("check")

    assert done.returncode == 0
    assert done.stdout.endswith("has no signature yet\n")


def test_the_report_beside_the_manifest_has_advice_and_locks(desk: Desk) -> None:
    release = desk.assembled()

    assert desk.run("manifest").returncode == 0

    report = desk.report()
    assert report["manifest"] == release.manifest.digest
    assert {entry["rule"] for entry in report["sections"]["lint"]["findings"]} >= {DROP}
    assert {
        "script": "sql/0002.sql",
        "line": 6,
        "column": 5,
        "rule": DROP,
        "level": "warning",
        "words": "Dropping a column may break existing clients.",
        "help": "",
    } in report["sections"]["lint"]["findings"]
    assert [lock["table"] for lock in report["sections"]["locks"]] == ["orders", "orders", "old"]


def test_advice_changes_no_byte_of_the_manifest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_work(desk.assembled(), desk.output)
    manifest = desk.output / "crm-1.1.0/manifest.json"
    first = manifest.read_bytes()
    assert desk.report()["sections"]["lint"]["findings"]

    monkeypatch.setattr(lint_module, "_program", lambda: "/nonexistent/squawk")
    desk.describe('postgresql = "15"\nignore = ["ban-drop-column"]')
    write_work(desk.assembled(), desk.output)

    assert manifest.read_bytes() == first
    assert desk.report()["sections"]["lint"]["missing"] == "/nonexistent/squawk is not installed"


def test_an_ignored_rule_is_not_told_and_not_counted(desk: Desk) -> None:
    every = {finding.rule for finding in advise(desk.assembled()).lint.findings}
    desk.describe(f"ignore = {json.dumps(sorted(every))}\nmost = 0")

    done = desk.run("check")

    assert done.returncode == 0
    assert "advice" not in done.stdout
    assert done.stdout.endswith("-- findings: 0, locks: 3\n")


@pytest.mark.usefixtures("signing")
@pytest.mark.parametrize("command", ["check", "manifest", "sign", "build"])
@pytest.mark.parametrize(
    "threshold, words",
    [
        (f'refuse = ["{DROP}"]', f"sql/0002.sql:6: {DROP}, which [lint] refuses: Dropping a"),
        ("most = 0", "findings: 1, of at most 0 that [lint] allows"),
    ],
)
def test_beyond_a_threshold_nothing_is_written_signed_or_built(
    desk: Desk, command: str, threshold: str, words: str
) -> None:
    if command == "build":  # signed before the threshold was set
        sign_work(desk.assembled(), desk.output, None)
    desk.describe(threshold)
    before = sorted(desk.folder.rglob("*"))

    done = desk.run(command)

    assert done.returncode == 57
    assert words in done.stderr
    assert "Correct the scripts and tag the release again, or change [lint]" in done.stderr
    assert sorted(desk.folder.rglob("*")) == before


@pytest.mark.usefixtures("signing")
def test_within_the_thresholds_the_release_is_signed_and_built(desk: Desk) -> None:
    desk.describe('refuse = ["ban-drop-table"]\nmost = 1')
    release = desk.assembled()

    sign_work(release, desk.output, None)
    packages, _ = build_packages(release, desk.output, ("deb",))

    assert packages[0].is_file()
    assert desk.report()["manifest"] == release.manifest.digest


def test_what_others_wrote_into_the_report_stays(desk: Desk) -> None:
    release = desk.assembled()
    write_work(release, desk.output)
    file = desk.output / "crm-1.1.0/report.json"
    report = desk.report()
    report["sections"]["rehearsal"] = {"starts": ["empty"]}
    file.write_text(json.dumps(report), encoding="utf-8")

    write_work(release, desk.output)

    assert desk.report()["sections"].keys() == {"lint", "locks", "rehearsal"}


def test_without_squawk_check_warns_and_the_release_is_fine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lint_module, "_program", lambda: "/nonexistent/squawk")
    monkeypatch.chdir(desk.folder)

    done = CliRunner().invoke(commands, ["check"])

    assert done.exit_code == 0
    warning = "warning: there is no advice about the scripts: /nonexistent/squawk is not installed"
    assert warning in done.stderr.splitlines()
    assert "findings:" not in done.stdout
    assert "lock sql/0002.sql:2: " in done.stdout


@pytest.mark.parametrize("threshold", [f'refuse = ["{DROP}"]', "most = 99"])
def test_without_squawk_a_threshold_is_not_met(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, threshold: str
) -> None:
    monkeypatch.setattr(lint_module, "_program", lambda: "/nonexistent/squawk")
    desk.describe(threshold)

    with pytest.raises(ToolError, match="/nonexistent/squawk is not installed"):
        write_work(desk.assembled(), desk.output)

    assert not desk.output.exists()


@pytest.mark.parametrize(
    "said, words",
    [
        ("echo '[{}]'", "squawk printed something else than findings"),
        ("echo nothing", "squawk printed something else than findings"),
        ('echo \'[{"file": "9.sql"}]\'', "squawk printed something else than findings"),
        ("echo no such option >&2; exit 2", "failed with exit code 2: no such option"),
    ],
)
def test_another_program_by_the_name_of_squawk_gives_no_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    program = tmp_path / "squawk"
    program.write_text(f"#!/bin/sh\n{said}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(lint_module, "_program", lambda: str(program))

    told = lint({"sql/1.sql": b"SELECT 1"}, (), LintSpec())

    assert told.findings == ()
    assert words in told.missing
    with pytest.raises(ToolError, match=words.partition(":")[0]):
        lint({"sql/1.sql": b"SELECT 1"}, (), LintSpec(most=9))


def test_squawk_of_the_packages_is_taken_before_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Path(lint_module._program()).parent == Path(sys.executable).parent

    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert lint_module._program() == "squawk"


def test_sql_that_only_postgresql_reads_is_told_and_stops_nothing(desk: Desk) -> None:
    desk.put("1.1.0", {"sql/0002.sql": "SET NAMES 'utf8';\nALTER TABLE old DROP COLUMN name;\n"})
    desk.describe(f'refuse = ["{DROP}"]\nmost = 0')

    done = desk.run("check")

    assert done.returncode == 0
    assert "advice sql/0002.sql: none: squawk could not read line 1: expected EQ\n" in done.stdout
    assert "lock sql/0002.sql:2: " in done.stdout


def test_a_script_that_is_too_large_is_told_and_not_read() -> None:
    large = b"DROP TABLE t;\n" + b"-- \n" * (LARGEST // 4)

    told = lint({"sql/1.sql": large, "sql/2.sql": b"DROP TABLE t;"}, (), LintSpec())

    assert told.unread == {"sql/1.sql": f"larger than {LARGEST} bytes"}
    assert [finding.script for finding in told.findings] == ["sql/2.sql"]


def test_no_new_script_no_advice() -> None:
    assert lint({}, (), LintSpec()) == lint_module.Lint()


def test_configurations_of_squawk_that_lie_about_are_not_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = 'excluded_rules = ["ban-drop-column"]\n'
    desk.put("1.1.0", {".squawk.toml": elsewhere})
    desk.put(".", {".squawk.toml": elsewhere})
    monkeypatch.chdir(desk.folder)

    assert f"advice sql/0002.sql:6: {DROP}" in desk.run("check").stdout


@pytest.mark.parametrize("rule", RULES)
def test_squawk_knows_every_rule_that_release_toml_may_name(tmp_path: Path, rule: str) -> None:
    assert knows(tmp_path, rule)


def test_squawk_refuses_a_rule_that_it_does_not_know(tmp_path: Path) -> None:
    assert not knows(tmp_path, "ban-drop-colum")


def knows(folder: Path, rule: str) -> bool:
    (folder / "1.sql").write_text("SELECT 1;", encoding="utf-8")
    command = [lint_module._program(), f"--exclude={rule}", f"--include={rule}", "1.sql"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_a_rule_that_is_off_by_default_is_asked_for_where_it_is_refused() -> None:
    sql = "ALTER TABLE t ADD COLUMN a bigint;"

    assert "ban-add-column" not in rules(sql)
    assert "ban-add-column" in rules(sql, LintSpec(refuse=("ban-add-column",)))


def test_rules_that_a_release_settles_itself_are_told_only_where_they_are_refused() -> None:
    sql = "BEGIN; ALTER TABLE t ADD COLUMN a int NOT NULL; CREATE INDEX CONCURRENTLY i ON t (a);"

    assert rules(sql).isdisjoint(SETTLED)
    assert rules(sql, LintSpec(refuse=SETTLED)) >= {
        "ban-concurrent-index-creation-in-transaction",
        "require-lock-timeout",
        "transaction-nesting",
    }


def test_a_script_that_runs_online_is_read_as_one_without_a_transaction() -> None:
    sql = "DROP INDEX CONCURRENTLY i;"

    assert "prefer-robust-stmts" not in rules(sql)
    assert "prefer-robust-stmts" in rules(sql, online=True)


def test_advice_is_for_the_server_that_release_toml_names() -> None:
    sql = "ALTER TABLE t ADD COLUMN a bigint DEFAULT 1;"

    assert "adding-field-with-default" in rules(sql, LintSpec(postgresql="10"))
    assert "adding-field-with-default" not in rules(sql, LintSpec(postgresql="15"))


def test_findings_are_in_the_order_of_the_scripts_and_their_columns_count_characters() -> None:
    scripts = {
        "sql/b *.sql": b"DROP TABLE a;",
        "sql/a.sql": "/* é€😀 */ DROP TABLE a;\r\n\tDROP TABLE b;".encode(),
    }

    told = lint(scripts, {"sql/a.sql"}, LintSpec(ignore=("prefer-robust-stmts",))).findings

    assert [(each.script, each.line, each.column, each.rule) for each in told] == [
        ("sql/b *.sql", 1, 1, "ban-drop-table"),
        ("sql/a.sql", 1, 11, "ban-drop-table"),
        ("sql/a.sql", 2, 2, "ban-drop-table"),
    ]


def test_an_online_script_is_advised_and_locks_as_one(desk: Desk) -> None:
    desk.put("1.1.0", {"sql/0003.sql": "DROP INDEX CONCURRENTLY i;\nVACUUM FULL orders;\n"})
    with (desk.folder / "release.toml").open("a", encoding="utf-8") as file:
        file.write('[[database.online]]\nscript = "sql/0003.sql"\nwhen = "after"\n')

    told = desk.run("check").stdout

    assert "advice sql/0003.sql:1: prefer-robust-stmts: " in told
    assert (
        "lock sql/0003.sql:2: VACUUM FULL: ACCESS EXCLUSIVE on orders: "
        "nobody reads or writes it while it runs, and it is rewritten"
    ) in told


def test_rows_of_copy_are_no_sql_and_what_follows_keeps_its_line(desk: Desk) -> None:
    rows = "COPY orders (id) FROM stdin;\n1\nDROP TABLE orders;\n\\.\n"
    desk.put("1.1.0", {"sql/0002.sql": f"{rows}ALTER TABLE old DROP COLUMN name;\n"})

    told = desk.run("check").stdout

    assert f"advice sql/0002.sql:5: {DROP}: " in told
    assert "lock sql/0002.sql:5: ALTER TABLE DROP COLUMN: " in told
    assert told.endswith("-- findings: 1, locks: 1\n")


def test_a_comment_in_the_signed_script_may_let_a_finding_pass(desk: Desk) -> None:
    allowed = f"-- squawk-ignore {DROP}\nALTER TABLE old DROP COLUMN name;\n"
    desk.put("1.1.0", {"sql/0002.sql": allowed})
    desk.describe(f'refuse = ["{DROP}"]')

    write_work(desk.assembled(), desk.output)

    assert desk.report()["sections"]["lint"]["findings"] == []
