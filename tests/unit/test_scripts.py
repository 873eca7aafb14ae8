from typing import Any

import pytest

from installer.tree import digest_of
from packager.errors import PlanError
from packager.project import AcceptSpec, DatabaseSpec, OnlineSpec
from packager.scripts import matching, ordered


def spec(*scripts: str, **others: Any) -> DatabaseSpec:
    values = {"order": "name", "plan": None, "verify": (), "accept": ()} | others
    return DatabaseSpec(name="crm", scripts=scripts or ("sql/*.sql",), **values)


def late(script: str) -> AcceptSpec:
    return AcceptSpec(script, "late", digest_of(b""), (), "agreed")


def planned(*scripts: str) -> DatabaseSpec:
    return spec(*scripts, order="plan", plan="sql/plan")


def problems(paths: list[str], database: DatabaseSpec, plan: str | None = None) -> list[str]:
    with pytest.raises(PlanError) as caught:
        ordered(paths, database, plan)
    assert caught.value.exit_code == 51
    return [line.strip() for line in caught.value.detail.splitlines()] or [str(caught.value)]


@pytest.mark.parametrize(
    "pattern, matched, others",
    [
        ("sql/*.sql", ["sql/1.sql", "sql/.sql"], ["sql/a/1.sql", "sql/1.SQL", "sql/1.sql.asc"]),
        ("sql/?.sql", ["sql/1.sql", "sql/é.sql"], ["sql/12.sql", "sql/.sql"]),
        ("[!a-c][xyz].sql", ["dx.sql"], ["ax.sql", "da.sql"]),
        ("m/*/migration.sql", ["m/1/migration.sql"], ["m/migration.sql", "m/1/2/migration.sql"]),
        ("sql/**/*.sql", ["sql/1.sql", "sql/a/b/1.sql"], ["sql.sql", "other/1.sql"]),
        ("**/up.sql", ["up.sql", "a/up.sql", "a/b/up.sql"], ["a/down.sql"]),
        ("sql/**", ["sql/1.sql", "sql/a/README"], ["sql"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c"], ["a/c", "a/x/c"]),
        ("sql/1.sql", ["sql/1.sql"], ["sql/1xsql"]),
        ("sql/a+(b).sql", ["sql/a+(b).sql"], ["sql/aa(b).sql"]),
        ("sql/**", ["sql/1.sql", "sql/asc"], ["sql/1.sql.asc", "sql/a/2.asc"]),
        ("sql/1.sql.asc", [], ["sql/1.sql.asc"]),
    ],
)
def test_a_pattern_matches_within_the_parts_of_a_path(
    pattern: str, matched: list[str], others: list[str]
) -> None:
    assert sorted(matching([*others, *matched], [pattern])) == sorted(matched)


def test_a_file_that_two_patterns_match_counts_once() -> None:
    assert ordered(["sql/1.sql"], spec("sql/*.sql", "sql/1*"), None) == ("sql/1.sql",)


def test_by_name_compares_part_by_part_and_in_no_locale() -> None:
    paths = ["a/é.sql", "a/b.sql", "a/Z.sql", "a-b/1.sql", "a/b/1.sql", "a/10.sql", "a/9.sql"]
    assert ordered(reversed(paths), spec("**/*.sql"), None) == (
        "a/10.sql",
        "a/9.sql",
        "a/Z.sql",
        "a/b/1.sql",
        "a/b.sql",
        "a/é.sql",
        "a-b/1.sql",
    )


@pytest.mark.parametrize(
    "pattern, paths",
    [
        ("sql/*.sql", ["sql/9_b.sql", "sql/010_a.sql", "sql/1000.sql"]),
        ("v2/*.sql", ["v2/0042_x.sql", "v2/0043_1.sql"]),
        ("v2/V*.sql", ["v2/V9__x.sql", "v2/V12__a.sql"]),
        (
            "migrations/*/migration.sql",
            ["migrations/9_z/migration.sql", "migrations/10/migration.sql"],
        ),
        ("**/up.sql", ["b2/up.sql", "a3/up.sql"]),
    ],
)
def test_by_number_takes_the_first_after_the_folders_that_the_pattern_fixes(
    pattern: str, paths: list[str]
) -> None:
    assert ordered(sorted(paths), spec(pattern, order="number"), None) == tuple(paths)


def test_by_number_goes_by_the_first_pattern_that_matches() -> None:
    paths = ["v2/0003.sql", "v9/0001.sql"]
    database = spec("v2/*.sql", "**/*.sql", order="number")
    assert ordered(paths, database, None) == ("v2/0003.sql", "v9/0001.sql")


def test_by_number_refuses_what_has_no_place_of_its_own() -> None:
    paths = ["v2/a.sql", "v2/1_a.sql", "v2/001_b.sql", "v2/b.sql"]
    assert problems(paths, spec("v2/*.sql", order="number")) == [
        "v2/a.sql has no number after 'v2/'",
        "v2/b.sql has no number after 'v2/'",
        "v2/001_b.sql and v2/1_a.sql have the same number, 1",
    ]
    assert problems(["x.sql"], spec("*.sql", order="number")) == ["x.sql has no number"]


def test_a_plan_orders_as_it_lists() -> None:
    plan = "\ufeff# all\r\n\r\nsql/b.sql  # first\r\n  sql/a#1.sql\r\n"
    assert ordered(["sql/a#1.sql", "sql/b.sql"], planned(), plan) == ("sql/b.sql", "sql/a#1.sql")


def test_everything_wrong_with_a_plan_is_told_at_once() -> None:
    paths = ["sql/1.sql", "sql/2.sql", "sql/orders.sql", "doc/notes"]
    plan = "sql/1.sql\n\nsql/1.sql\nsql/order.sql\ndoc/notes\n"
    assert problems(paths, planned(), plan) == [
        "sql/plan:3: sql/1.sql is listed already in line 1",
        "sql/plan:4: sql/order.sql is no file that scripts matches; did you mean sql/orders.sql?",
        "sql/plan:5: doc/notes is no file that scripts matches",
        "sql/plan does not list sql/2.sql, which scripts matches",
        "sql/plan does not list sql/orders.sql, which scripts matches",
    ]


def test_a_plan_that_is_not_in_the_release_is_named() -> None:
    assert problems(["sql/1.sql"], planned()) == [
        "plan is 'sql/plan', which is no file of the release"
    ]


def test_a_pattern_that_matches_nothing_is_named() -> None:
    database = spec("sql/*.sql", "sq/*.sql", verify=("verify/*",))
    assert problems(["sql/1.sql"], database) == [
        "scripts has 'sq/*.sql', which matches no file of the release",
        "verify has 'verify/*', which matches no file of the release",
    ]


def test_a_plan_may_not_list_what_no_script_is() -> None:
    assert problems([], planned(), "sql/1.sql\n") == [
        "scripts has 'sql/*.sql', which matches no file of the release",
        "sql/plan:1: sql/1.sql is no file that scripts matches",
    ]


def test_a_script_cannot_also_verify() -> None:
    database = spec("sql/**", verify=("sql/verify/*",))
    assert problems(["sql/1.sql", "sql/verify/1.sql"], database) == [
        "sql/verify/1.sql is matched by both scripts and verify"
    ]


def test_accepting_a_script_leaves_it_in_its_place() -> None:
    accept = (late("sql/1.sql"),)
    assert ordered(["sql/2.sql", "sql/1.sql"], spec(accept=accept), None) == (
        "sql/1.sql",
        "sql/2.sql",
    )


def test_only_a_script_can_be_accepted() -> None:
    accept = (late("sql/lat.sql"), late("app/x.py"))
    assert problems(["sql/late.sql", "app/x.py"], spec(accept=accept)) == [
        "accept names sql/lat.sql, which is no script of the release; did you mean sql/late.sql?",
        "accept names app/x.py, which is no script of the release",
    ]


def test_only_a_script_that_does_not_verify_can_be_online() -> None:
    names = ("sql/verify/1.sql", "sql/indx.sql", "sql/index.sql")
    online = tuple(OnlineSpec(name, "after", repeat=False) for name in names)
    database = spec(verify=("sql/verify/*",), online=online)
    assert problems(["sql/index.sql", "sql/verify/1.sql"], database) == [
        "online names sql/verify/1.sql, which verifies the release in its transaction",
        "online names sql/indx.sql, which is no script of the release; did you mean sql/index.sql?",
    ]


def test_an_online_script_keeps_its_place() -> None:
    database = spec(online=(OnlineSpec("sql/1.sql", "after", repeat=False),))
    assert ordered(["sql/2.sql", "sql/1.sql"], database, None) == ("sql/1.sql", "sql/2.sql")


def test_a_script_that_is_there_was_not_removed() -> None:
    gone = AcceptSpec("sql/1.sql", "removed", None, (digest_of(b""),), "merged")
    assert problems(["sql/1.sql", "sql/2.sql"], spec(accept=(gone,))) == [
        "accept calls sql/1.sql removed, which is a script of the release"
    ]
    assert ordered(["sql/2.sql"], spec(accept=(gone,)), None) == ("sql/2.sql",)
