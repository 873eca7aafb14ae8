"""Reads a TOML file against the keys it may have, and tells every problem with the line it is on.

The standard library's tomllib parses; what a value must be is the caller's to say.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from packager.errors import ProjectError

Keys = tuple[str | int, ...]
"""A way through a document: names of tables and keys, and numbers in a list of tables."""


@dataclass(frozen=True, slots=True)
class Key:
    """How a key is read, and its default; a key without one (`...`) has to be there.

    `read` returns the value or raises ValueError with the words that follow the key's name.
    """

    read: Callable[[object], object]
    default: object = ...


Schema = Mapping[str, Mapping[str, Key]]
"""Every key that a document may have, by table. `a.b` is the list of tables b inside table a."""

_KINDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Reader:
    """A document, where its keys are, and every problem found in it so far."""

    def __init__(self, path: Path, schema: Schema) -> None:
        text = _text_of(path)
        self._path, self._schema = path, schema
        self._document = _parse(path, text)
        self._lines = _with_implied(dict(_lines(text)))
        self._problems: list[tuple[int, str]] = []
        self._require_known_tables()

    def refuse(self, keys: Keys, words: str) -> None:
        """Note a problem on the line of `keys`, or of the nearest table around them."""
        around = (keys[:length] for length in range(len(keys), 0, -1))
        line = next((self._lines[part] for part in around if part in self._lines), 1)
        self._problems.append((line, f"{self._path}:{line}: {words}"))

    def require_no_problems(self) -> None:
        """End the reading.

        Raises:
            ProjectError: there were problems.
        """
        if self._problems:
            raise ProjectError.of([words for _, words in sorted(self._problems)], str(self._path))

    def has(self, *keys: str) -> bool:
        """Whether the document has these keys."""
        return keys in self._lines

    def table(self, name: str) -> dict[str, Any] | None:
        """The good values of a table, defaults included; None where there is no such table."""
        if name not in self._document:
            return None
        return self._read((name,), name, self._document[name])

    def each(self, table: str, key: str) -> dict[int, dict[str, Any]]:
        """The good values of each of a list of tables, by number; bad ones are left out."""
        values = self._document[table]
        items = values.get(key) if type(values) is dict else None
        if not is_tables(items):
            return {}
        name = f"{table}.{key}"
        found = {n: self._read((table, key, n), name, item) for n, item in enumerate(items)}
        whole = self._schema[name].keys()
        return {number: item for number, item in found.items() if item.keys() == whole}

    def _require_known_tables(self) -> None:
        known = [name for name in self._schema if "." not in name]
        for name in self._document.keys() - set(known):
            kind = "table" if type(self._document[name]) is dict else "key"
            self.refuse((name,), f"unknown {kind} {name!r}{meant(name, known)}")

    def _read(self, keys: Keys, name: str, values: object) -> dict[str, Any]:
        if type(values) is not dict:
            self.refuse(keys, f"{name} is {kind_of(values)}, not a table [{name}]")
            return {}
        misspelled = self._refuse_unknown(keys, name, values)
        found: dict[str, Any] = {}
        for key, known in self._schema[name].items():
            if key in values:
                found |= self._value((*keys, key), known, values[key])
            elif known.default is not ...:
                found[key] = known.default
            elif key not in misspelled:
                self.refuse(keys, f"[{name}] lacks {key}")
        return found

    def _refuse_unknown(self, keys: Keys, name: str, values: dict[str, Any]) -> set[str]:
        """Refuse unknown keys, and return the known ones that they are likely meant to be."""
        known, misspelled = list(self._schema[name]), set()
        for key in values.keys() - set(known):
            absent = [other for other in known if other not in values]
            misspelled.update(difflib.get_close_matches(key, absent, 1))
            self.refuse((*keys, key), f"unknown key {key!r} in [{name}]{meant(key, known)}")
        return misspelled

    def _value(self, keys: Keys, known: Key, value: object) -> dict[str, Any]:
        key = str(keys[-1])
        try:
            return {key: known.read(value)}
        except ValueError as error:
            self.refuse(keys, f"{key} {error}")
            return {}


def kind_of(value: object) -> str:
    """What a value of TOML is, in words."""
    return _KINDS.get(type(value), "a date or time")


def is_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether `value` is a list of tables."""
    return type(value) is list and all(type(item) is dict for item in value)


def meant(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses `word`: the nearest of `known`, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _text_of(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror}; `countersign init` writes one") from None
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"{path}:{line}: not UTF-8 text") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # tomllib has the place in its words only, up to Python 3.13.
        words, _, place = str(error).removesuffix(")").partition(" (at ")
        found = re.fullmatch(r"line (\d+), column (\d+)", place)
        where = f"{found[1]}:{found[2]}" if found else _end(text)
        raise ProjectError(f"{path}:{where}: not TOML: {words}") from None


def _end(text: str) -> str:
    lines = text.split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Each table and key of a valid document, with the line on which it begins.

    tomllib itself says where each ends: a header, or a key with its value, is the shortest run of
    lines that is a document of its own.
    """
    table: Keys = ()
    counts: dict[Keys, int] = {}
    begun, lines = 1, text.split("\n")
    for number in range(1, len(lines) + 1):
        part = "\n".join(lines[begun - 1 : number])
        try:
            value = tomllib.loads(part)
        except tomllib.TOMLDecodeError:
            continue
        if part.lstrip().startswith("["):
            table = _header(value, counts)
            yield table, begun
        else:
            yield from (((*table, *keys), begun) for keys in _ways(value))
        begun = number + 1


def _with_implied(lines: dict[Keys, int]) -> dict[Keys, int]:
    """`lines`, and the first line of each table that only what is in it makes known."""
    implied: dict[Keys, int] = {}
    for keys, line in lines.items():
        for length in range(1, len(keys)):
            implied.setdefault(keys[:length], line)
    return implied | lines


def _header(value: Any, counts: dict[Keys, int]) -> Keys:  # noqa: ANN401 - whatever TOML holds
    """The keys that a header leads to; `counts` numbers the tables of each list."""
    keys: Keys = ()
    while value:
        ((key, value),) = value.items()
        keys = (*keys, key)
        if type(value) is list:
            number = counts.get(keys, 0)
            counts[keys], keys, value = number + 1, (*keys, number), value[0]
        elif keys in counts:  # a table inside the last of a list
            keys = (*keys, counts[keys] - 1)
    return keys


def _ways(value: object) -> Iterator[Keys]:
    items: Iterable[tuple[str | int, object]] = ()
    if type(value) is dict:
        items = value.items()
    elif type(value) is list:
        items = enumerate(value)
    for key, inner in items:
        yield (key,)
        yield from ((key, *keys) for keys in _ways(inner))
