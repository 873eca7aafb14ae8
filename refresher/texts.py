"""The texts of a schema: what in them may be somebody's value. Pure.

Of SQL these are the constants (PostgreSQL, "Lexical Structure"), whatever they are nested in: a
body in dollar quotes, a statement in a string, a list. Of everything else, which comments in SQL
are too, these are the words, up to four in a row. Of both it is what looks like an address.
"""

import re
import sys
from collections.abc import Iterator

SHORTEST = 4
"""Characters of a candidate, at least: less is found everywhere."""
_ROW = 4
"""Words in a row: a name, a street, a place."""

_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<escaped> \b[eE]'(?:[^'\\]++|\\.|'')*+' )
    | (?P<unicode> \b[uU]&'(?:[^']++|'')*+' )
    | (?P<plain> '(?:[^']++|'')*+' )
    | "(?:[^"]++|"")*+"
    | \b\w[\w$]*
    | (?P<tag> \$(?:[^\W\d]\w*)?\$ ) (?P<dollars> .*? ) (?P=tag)
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL
)
_UNICODE = re.compile(r"\\(?:\+([0-9a-fA-F]{6})|([0-9a-fA-F]{4})|(\\))")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ADDRESS = re.compile(r"(?<![\w.%+-])[\w.%+-]++@[\w-]++(?:\.[\w-]++)+")
_LIST = re.compile(r"""[\[\]{},:"]+""")
_AROUND = """.,;:!?()[]{}<>"'`*/-"""


def candidates(text: str, *, is_sql: bool) -> frozenset[str]:
    """Everything in a text of the schema that may be a value."""
    found = {*(_constants(text) if is_sql else _words(text)), *_ADDRESS.findall(text)}
    return frozenset(value for value in found if len(value) >= SHORTEST)


def _constants(sql: str) -> Iterator[str]:
    for token in _TOKEN.finditer(sql):
        kind, text = token.lastgroup, token[0]
        if kind == "comment":
            yield from _words(text)
        elif kind == "escaped":
            yield from _within(_ESCAPE.sub(_escaped, text[2:-1].replace("''", "'")))
        elif kind == "unicode":
            yield from _within(_UNICODE.sub(_coded, text[3:-1].replace("''", "'")))
        elif kind == "plain":
            yield from _within(text[1:-1].replace("''", "'"))
        elif kind == "dollars":
            yield from _within(token[kind])


def _within(value: str) -> Iterator[str]:
    """A constant, the elements of a list or document that it is, the constants of its SQL."""
    yield value
    if value[:1] in {"{", "["}:
        yield from map(str.strip, _LIST.split(value))
    if "'" in value or "$" in value:
        yield from _constants(value)


def _escaped(found: re.Match[str]) -> str:
    short, long, hexadecimal, octal, other = found.groups()
    if other:
        return _CONTROLS.get(other, other)
    number = int(octal, 8) if octal else int(short or long or hexadecimal, 16)
    return _character(number)


def _coded(found: re.Match[str]) -> str:
    long, short, backslash = found.groups()
    return backslash or _character(int(long or short, 16))


def _character(number: int) -> str:
    """A character, or nothing where there is none that a server would have let in."""
    found = chr(number) if 0 < number <= sys.maxunicode else ""
    return found.encode(errors="ignore").decode()  # no half of a pair


def _words(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(len(words)):
        for end in range(start + 1, min(start + _ROW, len(words)) + 1):
            yield " ".join(words[start:end]).strip(_AROUND)
