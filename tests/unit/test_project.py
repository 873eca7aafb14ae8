import re
from pathlib import Path

import pytest

from installer.tree import digest_of
from packager.errors import ProjectError
from packager.project import (
    KEYS,
    AcceptSpec,
    ApplicationSpec,
    DatabaseSpec,
    LintSpec,
    OnlineSpec,
    Project,
    load_project,
)

REFERENCE = Path(__file__).parents[2] / "docs/reference/release-toml.md"

RELEASE = """\
[release]
name = "crm"
version = "1.4.0"
sequence = 14
summary = "Order history"
"""
APPLICATION = """\
[application]
vcs = "git"
to = "v1.4.0"
from = ["empty", "v1.3.0"]
root = "/opt/crm"
"""
DATABASE = """\
[database]
name = "crm"
scripts = ["sql/*.sql"]
"""
SIGNING = f"""\
[signing]
package_key = "{"ab" * 20}"
"""
A = digest_of(b"")
WHOLE = RELEASE + APPLICATION + DATABASE
DATABASE_ONLY = RELEASE + DATABASE + 'vcs = "svn"\nto = "tags/1.4.0"\n'


def load(folder: Path, text: str) -> Project:
    (folder / "release.toml").write_text(text, encoding="utf-8")
    return load_project(folder / "release.toml")


def problems(folder: Path, text: str) -> list[str]:
    """What is told about `text`, without the file's own path."""
    with pytest.raises(ProjectError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 50
    lines = caught.value.detail.splitlines() or [str(caught.value)]
    return [line.strip().removeprefix(f"{folder}/") for line in lines]


def test_a_short_file_is_completed_by_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE) == Project(
        file=tmp_path / "release.toml",
        name="crm",
        version="1.4.0",
        sequence=14,
        summary="Order history",
        description="",
        license="Proprietary",
        vcs="git",
        to="v1.4.0",
        signed_tag=False,
        application=ApplicationSpec(path=".", starts=("empty", "v1.3.0"), root="/opt/crm"),
        database=DatabaseSpec("crm", ("sql/*.sql",), "name", None, (), ()),
        package_key=None,
    )


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    project = load(
        tmp_path,
        RELEASE
        + 'description = """\nTwo lines,\n\tone indented.\n"""\nlicense = "GPL-3.0-or-later"\n'
        + APPLICATION.replace("to =", 'path = "src/app"\nto =')
        + DATABASE
        + 'order = "plan"\nplan = "sql/release.plan"\nverify = ["sql/verify/**"]\n'
        + late("sql/1.sql")
        + f'[[database.accept]]\nscript = "sql/0.sql"\nchange = "removed"\napplied = ["{A}"]\n'
        + 'reason = "Never needed"\n'
        + '[[database.online]]\nscript = "sql/2.sql"\nwhen = "after"\nrepeat = true\n'
        + SIGNING,
    )
    assert project.description == "Two lines,\n\tone indented."
    assert project.license == "GPL-3.0-or-later"
    assert project.application
    assert project.application.path == "src/app"
    assert project.database == DatabaseSpec(
        name="crm",
        scripts=("sql/*.sql",),
        order="plan",
        plan="sql/release.plan",
        verify=("sql/verify/**",),
        accept=(
            AcceptSpec("sql/1.sql", "late", A, (), "Merged late"),
            AcceptSpec("sql/0.sql", "removed", None, (A,), "Never needed"),
        ),
        online=(OnlineSpec("sql/2.sql", "after", repeat=True),),
    )
    assert project.package_key == "AB" * 20


def test_a_release_of_scripts_alone_says_where_they_come_from(tmp_path: Path) -> None:
    project = load(tmp_path, DATABASE_ONLY)
    assert (project.vcs, project.to, project.application) == ("svn", "tags/1.4.0", None)


def test_a_release_of_files_alone_needs_no_database(tmp_path: Path) -> None:
    assert load(tmp_path, RELEASE + APPLICATION).database is None


def test_crlf_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert load_project(tmp_path / "release.toml").name == "crm"


def test_every_problem_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
[release]
name = "CRM"
version = "1.4.0"
sequnce = 14
summary = \"""
[database]
order = "x"\"""

[applicaton]
vcs = "git"

[application]
vcs = "gti"
from = [
  "empty",  # a host without the application
  7,
]
root = "/opt"
"""
    assert problems(tmp_path, text) == [
        "release.toml:2: name is 'CRM', not small letters, digits and -, such as crm",
        "release.toml:4: unknown key 'sequnce' in [release]; did you mean 'sequence'?",
        "release.toml:5: summary is not one line of text",
        "release.toml:9: unknown table 'applicaton'; did you mean 'application'?",
        "release.toml:12: [application] lacks to",
        "release.toml:13: vcs is 'gti', none of git, svn, tree; did you mean 'git'?",
        "release.toml:14: from entry 2 is a whole number, not text",
        "release.toml:18: root is '/opt', not an absolute path such as /opt/crm",
    ]


def test_a_key_unlike_any_other_is_refused_with_the_keys_there_are(tmp_path: Path) -> None:
    assert problems(tmp_path, WHOLE + SIGNING + "qqqq = 1\n") == [
        "release.toml:16: unknown key 'qqqq' in [signing]; known: package_key"
    ]


def test_each_missing_key_is_told_at_the_header_of_its_table(tmp_path: Path) -> None:
    assert problems(tmp_path, "\n[release]\n[application]\n[[database.accept]]\n") == [
        "release.toml:2: [release] lacks name",
        "release.toml:2: [release] lacks sequence",
        "release.toml:2: [release] lacks summary",
        "release.toml:2: [release] lacks version",
        "release.toml:3: [application] lacks from",
        "release.toml:3: [application] lacks root",
        "release.toml:3: [application] lacks to",
        "release.toml:3: [application] lacks vcs",
        "release.toml:4: [database.accept] lacks change",
        "release.toml:4: [database.accept] lacks reason",
        "release.toml:4: [database.accept] lacks script",
        "release.toml:4: [database] lacks name",
        "release.toml:4: [database] lacks scripts",
    ]


def test_an_empty_file_is_told_what_a_release_needs(tmp_path: Path) -> None:
    assert problems(tmp_path, "") == [
        "release.toml:1: a release needs [application], [database] or both",
        "release.toml:1: a release needs [release]",
    ]


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("name", '"a b"', "name is 'a b', not small letters"),
        ("name", "7", "name is a whole number, not text"),
        ("version", '"v1.4"', "version is 'v1.4', not a digit, then letters"),
        ("version", "1.4", "version is a number with a fraction, not text"),
        ("version", "2026-01-01", "version is a date or time, not text"),
        ("sequence", "true", "sequence is true or false, not a whole number"),
        ("sequence", '"14"', "sequence is text, not a whole number"),
        ("sequence", "0", "sequence is 0, outside 1 to"),
        ("sequence", "9007199254740993", "sequence is 9007199254740993, outside 1 to"),
        ("summary", '" "', "summary is not one line of text"),
        ("summary", '"' + "x" * 80 + '"', "summary has 80 characters, of at most 79"),
        ("summary", '"a\\u001bb"', "summary is not one line of text"),
        ("description", '"a\\u0007"', "description holds a control character"),
        ("license", "[]", "license is a list, not text"),
        ("vcs", '"hg"', "vcs is 'hg', none of git, svn, tree; known: git, svn, tree"),
        ("to", '"--upload-pack=x"', "to is '--upload-pack=x', which a tool would take for"),
        ("to", '"empty"', "to is 'empty', which only from may have"),
        ("signed_tag", '"yes"', "signed_tag is text, not true or false"),
        ("signed_tag", "1", "signed_tag is a whole number, not true or false"),
        ("from", "[]", "from is an empty list"),
        ("from", '"v1"', "from is text, not a list"),
        ("from", '["v1", "v1"]', "from has 'v1' twice"),
        ("from", '["v1.4.0"]', "from has 'v1.4.0', which is also to"),
        ("root", '"/opt/../etc"', "root is '/opt/../etc', not an absolute path"),
        ("path", '"../app"', "path is '../app', not a path inside the repository"),
        ("scripts", '["/sql/*.sql"]', "scripts entry 1 is '/sql/*.sql', not a path inside"),
        ("scripts", '["sql/**.sql"]', "scripts entry 1 is 'sql/**.sql', where ** is not a whole"),
        ("order", '"date"', "order is 'date', none of name, number, plan"),
        ("order", '"plan"', 'order = "plan" needs plan, the file with the order'),
        ("plan", '"sql/plan"', 'plan is read with order = "plan" only'),
        ("accept", '["sql/1.sql"]', "accept is a list, not tables that begin with"),
        ("accept", '[{script = "a", reason = "b"}]', "[database.accept] lacks change"),
        (
            "online",
            '["sql/1.sql"]',
            "online is a list, not tables that begin with [[database.online]]",
        ),
        ("online", '[{script = "a"}]', "[database.online] lacks when"),
        ("package_key", '"0123456789ABCDEF"', "package_key is '0123456789ABCDEF', not a finger"),
    ],
)
def test_a_value_that_no_release_can_have_is_refused_on_its_line(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    lines = (WHOLE + SIGNING).splitlines()
    table = next(name for name, keys in KEYS.items() if key in keys)
    after = range(lines.index(f"[{table}]") + 1, len(lines))
    place = next((n for n in after if lines[n].startswith(f"{key} =")), after.start)
    replaced = lines[place].startswith(f"{key} =")
    lines[place : place + replaced] = [f"{key} = {value}"]
    (told,) = problems(tmp_path, "\n".join(lines))
    assert told.startswith(f"release.toml:{place + 1}: {words}")


@pytest.mark.parametrize("text", ["database = 7\n" + RELEASE, "release = []\n" + APPLICATION])
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    assert "not a table" in "\n".join(problems(tmp_path, text))


def test_the_source_is_said_once(tmp_path: Path) -> None:
    assert problems(tmp_path, WHOLE + 'vcs = "git"\n') == [
        "release.toml:14: vcs is [application]'s to say, where there is one"
    ]
    assert problems(tmp_path, RELEASE + DATABASE) == [
        "release.toml:6: [database] lacks to, as there is no [application]",
        "release.toml:6: [database] lacks vcs, as there is no [application]",
    ]


def test_a_signed_tag_is_demanded_where_the_tag_is_named(tmp_path: Path) -> None:
    signed = "signed_tag = true\n"
    alone = DATABASE_ONLY.replace("svn", "git")

    assert load(tmp_path, RELEASE + APPLICATION + signed + DATABASE).signed_tag
    assert load(tmp_path, alone + signed).signed_tag
    assert not load(tmp_path, alone + "signed_tag = false\n").signed_tag
    assert problems(tmp_path, WHOLE + signed) == [
        "release.toml:14: signed_tag is [application]'s to say, where there is one"
    ]


@pytest.mark.parametrize("vcs", ["svn", "tree"])
def test_only_git_has_signed_tags(tmp_path: Path, vcs: str) -> None:
    words = f"signed_tag needs vcs = \"git\", not '{vcs}': only git has signed tags"
    application = APPLICATION.replace('"git"', f'"{vcs}"') + "signed_tag = true\n"
    database = DATABASE_ONLY.replace('"svn"', f'"{vcs}"') + "signed_tag = true\n"

    assert problems(tmp_path, RELEASE + application) == [f"release.toml:11: {words}"]
    assert problems(tmp_path, database) == [f"release.toml:11: {words}"]
    assert not load(tmp_path, database.replace("true", "false")).signed_tag


def late(script: str) -> str:
    """The entry that accepts a late script, in five lines."""
    lines = f'script = "{script}"\nchange = "late"\ndigest = "{A}"\nreason = "Merged late"\n'
    return f"[[database.accept]]\n{lines}"


def test_a_script_is_online_once(tmp_path: Path) -> None:
    entry = '[[database.online]]\nscript = "sql/1.sql"\nwhen = "before"\n'
    other = entry.replace("sql/1", "sql/2").replace("before", "after")

    database = load(tmp_path, WHOLE + entry + other).database
    assert database
    assert database.online == (
        OnlineSpec("sql/1.sql", "before", repeat=False),
        OnlineSpec("sql/2.sql", "after", repeat=False),
    )
    assert problems(tmp_path, WHOLE + entry + entry) == [
        "release.toml:17: sql/1.sql is online twice"
    ]


def test_when_an_online_script_runs_is_one_of_two(tmp_path: Path) -> None:
    entry = '[[database.online]]\nscript = "sql/1.sql"\nwhen = "during"\nrepeat = 3\n'
    assert problems(tmp_path, WHOLE + entry) == [
        "release.toml:16: when is 'during', none of before, after; known: before, after",
        "release.toml:17: repeat is a whole number, not true or false",
    ]


def test_a_change_of_a_script_is_accepted_once(tmp_path: Path) -> None:
    entry = late("sql/1.sql")
    (told,) = problems(tmp_path, WHOLE + entry + entry)
    assert told == "release.toml:19: sql/1.sql is accepted as late twice"
    edited = f'[[database.accept]]\nscript = "sql/1.sql"\nchange = "edited"\napplied = ["{A}"]\n'
    both = load(tmp_path, f'{WHOLE}{entry}{edited}digest = "{A}"\nreason = "x"\n').database
    assert both
    assert [accepted.change for accepted in both.accept] == ["late", "edited"]


@pytest.mark.parametrize(
    "change, given, words",
    [
        ("late", "", 'change = "late" needs digest'),
        ("late", f'digest = "{A}"\napplied = ["{A}"]\n', 'change = "late" has no applied'),
        ("reordered", "", 'change = "reordered" needs digest'),
        ("edited", f'digest = "{A}"\n', 'change = "edited" needs applied'),
        ("edited", f'applied = ["{A}"]\n', 'change = "edited" needs digest'),
        ("removed", "", 'change = "removed" needs applied'),
        ("removed", f'applied = ["{A}"]\ndigest = "{A}"\n', 'change = "removed" has no digest'),
        ("moved", f'digest = "{A}"\n', "change is 'moved', none of edited, removed, late, reord"),
        ("late", 'digest = "9f86"\n', "digest is '9f86', not the 64 digits that sha256sum prints"),
        ("edited", f'applied = []\ndigest = "{A}"\n', "applied is an empty list"),
    ],
)
def test_an_accepted_change_has_the_digests_that_it_needs(
    tmp_path: Path, change: str, given: str, words: str
) -> None:
    entry = f'[[database.accept]]\nscript = "a"\nreason = "b"\nchange = "{change}"\n{given}'
    told = problems(tmp_path, WHOLE + entry)
    assert any(words in line for line in told), told


def test_scripts_alone_may_say_where_hosts_start_from(tmp_path: Path) -> None:
    starts = DATABASE_ONLY.replace("to =", 'from = ["empty", "tags/1.3.0"]\nto =')
    database = load(tmp_path, starts).database
    assert database
    assert database.starts == ("empty", "tags/1.3.0")
    (told,) = problems(tmp_path, DATABASE_ONLY.replace("to =", 'from = ["tags/1.4.0"]\nto ='))
    assert told.endswith("from has 'tags/1.4.0', which is also to")
    (told,) = problems(tmp_path, WHOLE.replace("[database]", '[database]\nfrom = ["empty"]'))
    assert told.endswith("from is [application]'s to say, where there is one")


def test_the_line_of_an_entry_of_a_list_of_tables_is_its_own(tmp_path: Path) -> None:
    entry = late("sql/1.sql")
    told = problems(tmp_path, WHOLE + entry + entry.replace("reason", "cause"))
    assert told[0] == "release.toml:19: [database.accept] lacks reason"
    assert told[1].startswith("release.toml:23: unknown key 'cause' in [database.accept]; known: ")
    assert len(told) == 2


def test_a_table_inside_an_entry_is_refused_on_its_line(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, WHOLE + late("sql/1.sql") + "[database.accept.more]\nx = 1\n")
    assert told.startswith("release.toml:19: unknown key 'more' in [database.accept]; known: ")


def test_dotted_keys_and_inline_tables_have_their_lines(tmp_path: Path) -> None:
    text = (
        'release.name = "crm"\nrelease.version = 1\nrelease.sequence = 1\nrelease.summary = "x"\n'
        'database = { vcs = "git", to = "v1", name = "crm", scripts = ["*.sql"], oder = "name" }\n'
    )
    assert problems(tmp_path, text) == [
        "release.toml:2: version is a whole number, not text",
        "release.toml:5: unknown key 'oder' in [database]; did you mean 'order'?",
    ]


@pytest.mark.parametrize(
    "text, words",
    [
        ("[release]\nname = crm\n", "release.toml:2:8: not TOML: Invalid value"),
        ('[release]\nname = """crm\n', "release.toml:3:1: not TOML: Unterminated string"),
        ('[release]\nname = "a"\nname = "b"', "release.toml:3:11: not TOML: Cannot overwrite"),
    ],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    (told,) = problems(tmp_path, text)
    assert told.startswith(words)


def test_a_file_in_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_bytes(b'[release]\nsummary = "Gr\xf6\xdfe"\n')
    with pytest.raises(ProjectError, match=r"release\.toml:2: not UTF-8 text"):
        load_project(tmp_path / "release.toml")


def test_advice_has_no_thresholds_unless_they_are_given(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE).lint == LintSpec(None, (), (), None)

    lint = '[lint]\npostgresql = "15"\nignore = ["prefer-identity"]\nmost = 0\n'
    refuse = 'refuse = ["ban-drop-column", "ban-drop-table"]\n'

    assert load(tmp_path, WHOLE + lint + refuse).lint == LintSpec(
        postgresql="15",
        ignore=("prefer-identity",),
        refuse=("ban-drop-column", "ban-drop-table"),
        most=0,
    )


@pytest.mark.parametrize(
    "value, words",
    [
        ("postgresql = 15", "postgresql is a whole number, not text"),
        ('postgresql = "9.6"', "postgresql is '9.6', not a major version such as \"15\""),
        ('postgresql = "15.2"', "postgresql is '15.2', not a major version"),
        ('ignore = "ban-drop-column"', "ignore is text, not a list"),
        (
            'ignore = ["ban-drop-colum"]',
            (
                "ignore entry 1 is 'ban-drop-colum', no rule of squawk; did you mean "
                "'ban-drop-column'?"
            ),
        ),
        ('refuse = ["x"]', "refuse entry 1 is 'x', no rule of squawk; known: adding-"),
        ("refuse = [7]", "refuse entry 1 is a whole number, not text"),
        ("most = -1", "most is -1, less than 0"),
        ("most = true", "most is true or false, not a whole number"),
        ("least = 1", "unknown key 'least' in [lint]"),
        (
            'ignore = ["ban-drop-table"]\nrefuse = ["ban-drop-table"]',
            "ignore has 'ban-drop-table', which refuse has too",
        ),
    ],
)
def test_a_threshold_that_would_not_hold_is_refused_on_its_line(
    tmp_path: Path, value: str, words: str
) -> None:
    (told,) = problems(tmp_path, f"{WHOLE}[lint]\n{value}\n")

    line = len(WHOLE.splitlines()) + 2
    assert told.startswith(f"release.toml:{line}: {words}")


def test_without_a_file_init_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="No such file or directory; `countersign init` writes"):
        load_project(tmp_path / "release.toml")


def test_the_reference_describes_every_key_in_its_table() -> None:
    sections = dict(
        re.findall(
            r"^## \[+([a-z.]+)\]+$(.*?)(?=^## |\Z)", REFERENCE.read_text(), re.MULTILINE | re.DOTALL
        )
    )
    described = {
        table: re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
        for table, text in sections.items()
    }
    assert {table: sorted(keys) for table, keys in described.items()} == {
        table: sorted(keys) for table, keys in KEYS.items()
    }


def test_the_complete_file_in_the_reference_is_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(\[release\].*?)```", REFERENCE.read_text(), re.DOTALL)
    assert load(tmp_path, text).name == "crm"
