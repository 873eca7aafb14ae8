# ruff: noqa: S608 - what goes into SQL here are quoted names, literals and expressions
"""Whether a text of the schema repeats a value that a mask hides. Asked of the source alone.

The schema is copied as it is, and so is what stands in it: a default, a comment, a function. What
of its texts may be a value goes to the source as a parameter, and what comes back says which of
that is there, by number: no value leaves the source for it, nor is one in a message.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

from installer.quoting import quoted
from installer.session import ServerError, Session
from refresher.errors import RawValueError, SourceError
from refresher.hidden import Hidden
from refresher.texts import candidates

_TEXTS = frozenset({"text", "character varying", "character", "bpchar"})
_DAY = re.compile(r"\d{4,}-\d\d-\d\d.*")
_OTHERS = {
    "date": _DAY,
    "timestamp without time zone": _DAY,
    "timestamp with time zone": _DAY,
    "uuid": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
"""Types whose values are texts of some form: without one of it there is nothing to look for."""

_PARAMETER = "%(texts)s::text[]"
_NUMBERED = (
    f'(SELECT value COLLATE "C" AS value, number FROM unnest({_PARAMETER})'
    " WITH ORDINALITY AS text (value, number)) AS k WHERE true"
)

Candidates = Mapping[str, Collection[str]]
"""The places in the schema by what is written there."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found and let pass: `allowed` are findings, `unknown` are names of no place."""

    allowed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def require_none_told(
    session: Session, places: Sequence[Hidden], allowed: Collection[str]
) -> Search:
    """Search the schema that `session` sees for values of `places`.

    A place in the schema that is `allowed`, by its name in a message, may have them.

    Raises:
        RawValueError: `detail` has every place in the schema that is not, with the column.
        SourceError: the server refused a query.
    """
    query = files("refresher").joinpath("disclosure.sql").read_text(encoding="utf-8")
    try:
        texts = session.rows(query)
        found = sorted(findings(session, places, candidates_of(texts)))
    except ServerError as error:
        raise SourceError(f"the source: {error}") from None
    known = {place for place, *_ in texts}
    refused = [(place, where) for place, where in found if place not in allowed]
    if refused:
        names = len({place for place, _ in refused})
        raise RawValueError(
            f"{names} {'text' if names == 1 else 'texts'} of the schema would tell what masks hide",
            detail="\n".join(_sentence(*finding) for finding in refused),
        )
    return Search(
        allowed=tuple(_sentence(*finding) for finding in found),
        unknown=tuple(place for place in allowed if place not in known),
    )


def candidates_of(texts: Iterable[tuple[str, str, bool]]) -> Candidates:
    """What may be a value in texts of the schema, each a place, its text, whether that is SQL."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for place, text, is_sql in texts:
        for candidate in candidates(text, is_sql=is_sql):
            found[candidate].add(place)
    return found


def findings(
    session: Session, places: Sequence[Hidden], written: Candidates
) -> set[tuple[str, str]]:
    """Pairs of a place in the schema and what it holds a value of.

    A constant that a mask puts there is no value of anybody's.
    """
    found: set[tuple[str, str]] = set()
    texts = list(written)
    searched = (place for place in places if _may_hold(place, texts))
    for _, of_table in groupby(searched, lambda place: place.table.name):
        some = list(of_table)
        query = _query(some, max(len(text.encode()) for text in texts))
        for number, text in session.rows(query, {"texts": texts}):
            place, candidate = some[number], texts[text - 1]
            if place.rule.kind != "constant" or place.rule.value != candidate:
                found |= {(where, str(place)) for where in written[candidate]}
    return found


def _sentence(place: str, where: str) -> str:
    return f"{place} holds a value of {where}"


def _may_hold(place: Hidden, texts: Collection[str]) -> bool:
    base = place.column.base
    if base in _OTHERS and not place.path:
        return any(map(_OTHERS[base].fullmatch, texts))
    is_text = base in _TEXTS or base.rpartition(".")[2] == "citext"
    return bool(texts) and (bool(place.path) or is_text)


def _query(places: Sequence[Hidden], longest: int) -> str:
    """SQL for the numbers of places and of texts that are values of theirs, all of one table."""
    arms = [_in_path(number, place) for number, place in enumerate(places) if place.path]
    if columns := {number: place for number, place in enumerate(places) if not place.path}:
        arms.append(_in_columns(columns, longest))
    return " UNION ".join(arms)


def _in_columns(columns: Mapping[int, Hidden], longest: int) -> str:
    """One scan of the table: a hashed look-up for each value, and more only for what is there."""
    selected = ", ".join(f"{_value(place)} AS v{number}" for number, place in columns.items())
    tests = " OR ".join(_test(place, longest) for place in columns.values())
    each = ", ".join(f"({number}, v{number})" for number in columns)
    rows = _escaped(next(iter(columns.values())).rows)
    return (
        f"SELECT v.place, k.number FROM (SELECT {selected} FROM {rows} WHERE {tests} OFFSET 0)"
        f" AS found, LATERAL (VALUES {each}) AS v (place, value), {_NUMBERED} AND v.value = k.value"
    )


def _test(place: Hidden, longest: int) -> str:
    """Whether a value is a candidate; one that is longer than each is not even read in full."""
    test = f"{_value(place)} = ANY ({_PARAMETER})"
    if place.column.base not in _TEXTS:
        return test
    return f"(octet_length({_escaped(quoted(place.column.name))}) <= {longest} AND {test})"


def _in_path(number: int, place: Hidden) -> str:
    return (
        f"SELECT {number}, k.number FROM {_escaped(place.rows)}, {_NUMBERED}"
        f" AND {_value(place)} = k.value"
    )


def _value(place: Hidden) -> str:
    return f'({_escaped(place.value)}) COLLATE "C"'


def _escaped(sql: str) -> str:
    """SQL beside a parameter, which begins with a percent sign."""
    return sql.replace("%", "%%")
