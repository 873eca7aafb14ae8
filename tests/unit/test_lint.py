"""Thresholds, and what a terminal and the report get to know; the real squawk is in integration."""

from dataclasses import replace

import pytest

from installer.manifest import Copy, Gap, Online, Script
from installer.tree import digest_of
from packager.advice import (
    IN_RELEASE,
    MOST_LOCKS,
    Advice,
    ScriptLock,
    _by_table,
    _locks,
    _without_rows,
    by_line,
    lines,
    sections,
)
from packager.errors import LintError
from packager.lint import Finding, Lint, require_within
from packager.lintrules import RULES, SETTLED
from packager.locks import Effect, Lock, Mode
from packager.project import LintSpec
from packager.sqllocks import effects

DROP = Finding("sql/2.sql", 7, 3, "ban-drop-column", "warning", "Dropping may break.", "")
RENAME = replace(DROP, line=9, rule="renaming-column", words="Renaming too.", help="Do not.")
LOCK = ScriptLock("sql/2.sql", 7, Lock("TRUNCATE", ("", "t"), Mode.ACCESS_EXCLUSIVE), IN_RELEASE)
FOUND = Lint((DROP, RENAME))


def refused(spec: LintSpec, found: Lint = FOUND) -> str:
    with pytest.raises(LintError) as caught:
        require_within(found, spec)
    assert caught.value.exit_code == 57
    return f"{caught.value}\n{caught.value.detail}"


@pytest.mark.parametrize(
    "spec", [LintSpec(), LintSpec(refuse=("ban-drop-table",)), LintSpec(most=2), LintSpec(most=3)]
)
def test_advice_within_the_thresholds_stops_nothing(spec: LintSpec) -> None:
    require_within(FOUND, spec)


def test_where_there_is_no_advice_no_threshold_is_crossed() -> None:
    require_within(Lint(), LintSpec(refuse=RULES, most=0))


def test_a_finding_of_a_refused_rule_is_named_with_its_place() -> None:
    assert refused(LintSpec(refuse=("ban-drop-column",))).splitlines() == [
        "sql/2.sql:7: ban-drop-column, which [lint] refuses: Dropping may break."
    ]


def test_more_findings_than_allowed_are_counted() -> None:
    words = refused(LintSpec(most=1))

    assert words.splitlines() == ["findings: 2, of at most 1 that [lint] allows"]


def test_every_crossed_threshold_is_told_at_once() -> None:
    words = refused(LintSpec(refuse=("ban-drop-column", "renaming-column"), most=0))

    assert words.startswith("the scripts are not within [lint]: 3 problems\n")
    assert [line.split(":")[0] for line in words.splitlines()[1:3]] == ["  sql/2.sql"] * 2


def test_rules_that_a_release_settles_are_rules() -> None:
    assert set(SETTLED) < set(RULES)


def test_a_terminal_shows_place_rule_words_and_help() -> None:
    told = list(lines(Advice(Lint((DROP, RENAME), {"sql/3.sql": "larger than 5 bytes"}), (LOCK,))))

    assert told == [
        ("advice", "sql/2.sql:7: ban-drop-column: Dropping may break."),
        ("advice", "sql/2.sql:9: renaming-column: Renaming too.\n  Do not."),
        ("advice", "sql/3.sql: none: larger than 5 bytes"),
        (
            "lock",
            (
                "sql/2.sql:7: TRUNCATE: ACCESS EXCLUSIVE on t: "
                "nobody reads or writes it until the release is committed"
            ),
        ),
    ]


@pytest.mark.parametrize("more", [0, 3])
def test_a_terminal_shows_so_many_locks_and_says_where_the_others_are(more: int) -> None:
    locks = tuple(replace(LOCK, line=line) for line in range(MOST_LOCKS + more))

    told = [text for _, text in lines(Advice(Lint(), locks))]

    assert len(told) == MOST_LOCKS + (more > 0)
    assert told[-1].startswith("and 3 more, which") == (more > 0)


def test_the_report_has_every_lock_and_finding() -> None:
    advice = Advice(Lint((RENAME,), {"sql/3.sql": "no"}), (LOCK,) * (MOST_LOCKS + 1))

    report = sections(advice)

    assert report["lint"] == {
        "findings": [
            {
                "script": "sql/2.sql",
                "line": 9,
                "column": 3,
                "rule": "renaming-column",
                "level": "warning",
                "words": "Renaming too.",
                "help": "Do not.",
            }
        ],
        "unread": {"sql/3.sql": "no"},
        "missing": None,
    }
    assert report["locks"] == [
        {
            "script": "sql/2.sql",
            "line": 7,
            "table": "t",
            "mode": "ACCESS EXCLUSIVE",
            "words": LOCK.words,
        }
    ] * (MOST_LOCKS + 1)


def test_the_rows_of_copy_are_no_sql_and_move_no_line() -> None:
    rows = b"1\nDROP TABLE t;\n\\.\n"
    sql = b"-- \xc3\xa9\nCOPY t (a) FROM stdin;\n" + rows + b"\nTRUNCATE t; DROP\nTABLE u;\n"
    start = sql.index(rows)
    runs = (sql.index(b"COPY"), sql.index(b"TRUNCATE"), sql.index(b"DROP\n"))
    gap = Gap(start, start + len(rows), Copy('"t"', ("a",), {}, 16))
    script = Script("sql/1.sql", digest_of(sql), len(sql), runs, (gap,))

    assert _without_rows(script, sql) == sql.replace(rows, b"\n\n\n")
    assert [(line, effect.locks[0].table) for line, effect in by_line(script, sql, effects)] == [
        (7, "t"),
        (7, "u"),
    ]


def test_lines_are_counted_in_runs_of_several_statements() -> None:
    sql = b"TRUNCATE a;\n\nTRUNCATE b;\nSELECT 1;\n/* \xc3\xa9\n*/ TRUNCATE c"
    script = Script("sql/1.sql", digest_of(sql), len(sql), (0, sql.index(b"SELECT")))

    found = [(line, effect.locks[0].table) for line, effect in by_line(script, sql, effects)]

    assert found == [(1, "a"), (3, "b"), (6, "c")]


def test_a_statement_that_is_a_run_of_its_own_for_its_length_is_left_out() -> None:
    sql = b"TRUNCATE a; INSERT INTO t VALUES ('" + b"drop " * 20_000 + b"'); TRUNCATE b;"
    runs = (0, sql.index(b"INSERT"), sql.index(b"TRUNCATE b"))
    script = Script("sql/1.sql", digest_of(sql), len(sql), runs)

    assert [effect.locks[0].table for _, effect in by_line(script, sql, effects)] == ["a", "b"]


def test_the_lock_of_an_online_script_ends_with_its_statement() -> None:
    digest = digest_of(b"")
    scripts = [
        Script("sql/1.sql", digest, 0, (0,)),
        Script("sql/2.sql", digest, 0, (0,), online=Online("after", repeat=False, indexes=())),
    ]
    found = {script.name: [(3, Effect((LOCK.lock,)))] for script in scripts}

    assert [told.words.partition("writes it ")[2] for told in _locks(scripts, found)] == [
        "until the release is committed",
        "while it runs",
    ]


def test_locks_are_told_once_and_table_by_table() -> None:
    other = replace(LOCK, lock=replace(LOCK.lock, name=("s", "u")))
    later = replace(LOCK, line=9)

    assert _by_table([LOCK, other, later, LOCK]) == (LOCK, later, other)


def test_a_script_without_statements_locks_nothing() -> None:
    script = Script("sql/1.sql", digest_of(b"-- drop"), 7, ())

    assert list(by_line(script, b"-- drop", effects)) == []
