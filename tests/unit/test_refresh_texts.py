"""What in the texts of a schema may be somebody's value, and what refresh.toml lets pass."""

import pytest

from refresher.configuration import parse_configuration
from refresher.disclosure import candidates_of
from refresher.errors import RefreshFileError
from refresher.hidden import json_path
from refresher.texts import candidates


@pytest.mark.parametrize(
    "sql, value",
    [
        ("'it''s here'::text", "it's here"),
        (r"E'back\\slash \'n\' \x41\u00e9\101'", "back\\slash 'n' AéA"),
        (r"U&'\0041nna\+01F600 \\'", "Anna\U0001f600 \\"),
        ("$$plain text$$", "plain text"),
        ("$_a1$ has $$ in it $_a1$", " has $$ in it "),
        ("$f$ BEGIN RAISE 'not %', $x$Clara$x$; END $f$", "Clara"),
        ("EXECUTE 'SELECT ''Clara'''", "Clara"),
        ("'{Clara Meyer,Berta}'::text[]", "Clara Meyer"),
        ('\'{"mail": "c@real.example", "of": ["Berta"]}\'::jsonb', "Berta"),
        ("RAISE NOTICE 'ask clara@real.example, or nobody'", "clara@real.example"),
        ("SELECT 1 -- ask Clara Meyer, Berlin\n", "Clara Meyer"),
        ("/* once\nClara Meyer */", "Clara Meyer"),
        ("x-'Clara'", "Clara"),
        ('"a""b\'" || \'Clara\'', "Clara"),
        ("price$a$ = 'Clara' OR price$a$", "Clara"),
    ],
)
def test_a_constant_is_found_whatever_it_is_nested_in(sql: str, value: str) -> None:
    assert value in candidates(sql, is_sql=True)


def test_names_numbers_and_short_constants_are_no_candidates() -> None:
    sql = "SELECT \"Clara\", berta, 12345, 'abc' FROM crm.customer WHERE 'abc' < $1"

    assert candidates(sql, is_sql=True) == set()


@pytest.mark.parametrize("sql", [r"E'\uD800'", r"E'\U00110000'", r"U&'\D800'", r"E'\0'", "'open"])
def test_what_no_server_takes_is_no_candidate(sql: str) -> None:
    assert candidates(sql, is_sql=True) == set()


def test_a_comment_has_words_and_up_to_four_in_a_row() -> None:
    found = candidates("Ask (Clara Meyer), 12 High Street.", is_sql=False)

    assert {
        "Clara",
        "Clara Meyer",
        "12 High Street",
        "High Street",
        "Meyer), 12 High Street",
    } <= found
    assert not any(len(value.split()) > 4 or len(value) < 4 for value in found)
    assert "c.meyer@real.example" in candidates("by <c.meyer@real.example>;", is_sql=False)


@pytest.mark.parametrize("part", ["x", " ", "''", "a.", "{ ", "\\\\", '""', "a@", "e'", "/* "])
@pytest.mark.parametrize("before", ["", "'", "E'", '"', "$$", "{"])
def test_a_long_text_is_read_to_its_end(before: str, part: str) -> None:
    text = f"{before}{part * 100_000} c@real.example"

    assert "c@real.example" in candidates(text, is_sql=True)


def test_a_value_has_all_the_places_that_have_it() -> None:
    texts = [("view v", "'Clara' || 'Berta'", True), ("comment on table t", "Clara", False)]

    assert candidates_of(texts) == {"Clara": {"view v", "comment on table t"}, "Berta": {"view v"}}


@pytest.mark.parametrize(
    "path, expected",
    [
        ("contact.mail", 'lax $."contact"."mail"'),
        ("tags[*]", 'lax $."tags"[*]'),
        ('[*]."a.\'b\\"', r"""lax $[*]."a.'b\\" """.strip()),
        ("größe", r'lax $."gr\u00f6\u00dfe"'),
    ],
)
def test_a_path_of_a_rule_is_one_of_sql(path: str, expected: str) -> None:
    assert json_path(path) == expected


MASKED = """
[refresh]
mode = "masked"
environment = "DEV"
key = "/k"
[source]
service = "crm-prd"
[target]
service = "dev"
database = "crm"
owner = "crm_owner"
"""


def test_a_file_names_the_texts_that_may_pass() -> None:
    found = parse_configuration(f'{MASKED}[search]\nallow = ["view crm.v"]\n'.encode())

    assert found.allowed == ("view crm.v",)
    assert parse_configuration(MASKED.encode()).allowed == ()


@pytest.mark.parametrize(
    "search, told",
    [
        ("alow = []", "unknown key 'alow'"),
        ('allow = ["a", "a"]', "something twice"),
        ('allow = [""]', "does not match"),
        ("", "allow"),
    ],
)
def test_a_search_that_is_not_as_described_is_refused(search: str, told: str) -> None:
    with pytest.raises(RefreshFileError, match=told):
        parse_configuration(f"{MASKED}[search]\n{search}\n".encode())


def test_a_copy_has_nothing_to_search_for() -> None:
    text = MASKED.replace('"masked"', '"copy"').replace('key = "/k"\n', "")

    with pytest.raises(RefreshFileError, match="search"):
        parse_configuration(f"{text}[search]\nallow = []\n".encode())
