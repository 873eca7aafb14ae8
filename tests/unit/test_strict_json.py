"""Single values of a signed document; whole documents are read in the tests of what they are."""

import time
from collections.abc import Iterator

import pytest

from installer.errors import MalformedError
from installer.strict_json import Fields, is_control, load_json, moment

A = "a" * 64


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host whose clock shows another time than UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_a_time_is_written_and_read_in_utc_wherever_the_host_is() -> None:
    assert moment(86_399) == "1970-01-01T23:59:59Z"
    assert Fields({"at": "1970-01-01T23:59:59Z"}, "it").moment("at") == 86_399


@pytest.mark.parametrize("text", ["", "now", "1970-1-1T00:00:00Z", "1970-01-01T00:00:00+00:00"])
def test_a_time_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as refused:
        Fields({"at": text}, "it").moment("at")
    assert str(refused.value) == f"it: at is {text!r}, no time such as 2026-01-31T00:00:00Z"


def test_texts_may_have_every_key_that_is_known_and_no_other() -> None:
    known = ("format", "null")
    both = {"format": "csv", "null": ""}
    assert Fields({"options": both}, "it").texts("options", known) == both
    with pytest.raises(MalformedError) as refused:
        Fields({"options": both | {"header": "true"}}, "it").texts("options", known)
    assert str(refused.value) == "it: options holds something else than texts for format, null"


def test_a_refusal_says_where_in_the_document_it_is() -> None:
    document = {"a": [{"b": {"path": "x"}}, {"b": {"path": "../x"}}]}
    with pytest.raises(MalformedError) as refused:
        Fields(document, "it").each("a", lambda item: item.table("b").path("path"))
    assert str(refused.value) == "it: a[1]: b: path: '../x' is not a plain relative path"
    with pytest.raises(MalformedError) as refused:
        Fields([], "it: c")
    assert str(refused.value) == "it: c: not an object"


def test_what_ends_a_line_steers_a_terminal_or_is_half_a_character_is_control() -> None:
    assert all(map(is_control, "\n\x1b\x7f\x85\u2028\u2029\ud800"))
    assert not any(map(is_control, "a é\u3042\N{PARTY POPPER}"))


def test_a_digest_may_be_null_only_where_that_is_allowed() -> None:
    assert Fields({"of": A}, "it").optional_digest("of") == A
    assert Fields({"of": None}, "it").optional_digest("of") is None
    with pytest.raises(MalformedError, match="of is not of type str"):
        Fields({"of": None}, "it").digest("of")


def test_an_integer_has_at_most_20_digits() -> None:
    assert load_json(b'{"size": 12345678901234567890}', "it") == {"size": 12345678901234567890}
    with pytest.raises(MalformedError, match="an integer has more than 20 digits"):
        load_json(b'{"size": 123456789012345678901}', "it")


def test_of_a_number_that_is_none_the_first_40_characters_are_told() -> None:
    with pytest.raises(MalformedError) as refused:
        load_json(b'{"size": 1.' + b"5" * 100 + b"}", "it")
    assert str(refused.value) == f"it: not strict JSON: 1.{'5' * 38} is not an integer"
