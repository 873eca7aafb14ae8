"""TOML that a sysadmin writes, read by key and type.

Nothing is guessed: an unknown key is refused, with the nearest one that is known, and so is a value
of another type. A key that a newer version knows may carry a condition that this one cannot honour.
"""

import re
import tomllib
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import NoReturn, Self, TypeVar, cast

from installer.errors import ConfigurationError

MAX_DEPTH = 16
MAX_INTEGER = 2**63 - 1
"""What TOML has to hold (TOML 1.0.0, "Integer"); Python's reader takes any number of digits."""

T = TypeVar("T")

_KINDS: dict[type, str] = {
    str: "text in quotes",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    datetime: "a date and time such as 2026-01-31T00:00:00Z",
}


def load_toml(text: bytes, name: str) -> "Table":
    """The file called `name`, whose content is `text`.

    Raises:
        ConfigurationError: it is not TOML, or nested deeply, or has an integer of over 64 bits.
    """
    try:
        values = tomllib.loads(text.decode("utf-8"))
        _require_bounded(values)
        return Table(values, name)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not TOML: {error}") from None


def _require_bounded(values: object) -> None:
    """Refuse, as a ValueError, what no message could repeat."""
    level = [values]
    for _ in range(MAX_DEPTH):
        if any(type(value) is int and abs(value) > MAX_INTEGER for value in level):
            raise ValueError("an integer has more than 64 bits")
        level = [item for value in level for item in _inside(value)]
    if level:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class Table:
    """One table of a file. Its methods raise ConfigurationError, with the place and the reason."""

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            self.refuse("must be a table")
        self._values = cast("dict[str, object]", values)

    @property
    def keys(self) -> Collection[str]:
        """Keys as written, in the file's order."""
        return self._values.keys()

    def refuse(self, reason: str) -> NoReturn:
        """Refuse this table."""
        raise ConfigurationError(f"{self.where}: {reason}")

    def only(self, *known: str) -> Self:
        """Refuse any other key."""
        for key in self._values:
            if key not in known:
                self.refuse(f"unknown key {key!r}; {nearest(key, known)}")
        return self

    def has(self, key: str) -> bool:
        """Whether `key` is given."""
        return key in self._values

    def text(self, key: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        """Text that `pattern` describes in full."""
        value = self._take(key, str, default)
        if not pattern.fullmatch(value):
            self.refuse(f"{key} is {value!r}, which does not match {pattern.pattern}")
        return value

    def texts(
        self, key: str, pattern: re.Pattern[str], default: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """A list of texts, each given once."""
        values = self._take(key, list, None if default is None else list(default))
        for value in values:
            if type(value) is not str or not pattern.fullmatch(value):
                self.refuse(f"{key} holds {value!r}, which does not match {pattern.pattern}")
        if len(set(values)) != len(values):
            self.refuse(f"{key} holds something twice")
        return tuple(values)

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(key, int, default)
        if not least <= value <= most:
            self.refuse(f"{key} is {value}, outside {least}..{most}")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where `key` is not given."""
        return self.has(key) and self._take(key, bool)

    def seconds(self, key: str, least: float, most: float, default: float) -> float:
        """A time in seconds, which may have decimals."""
        value = self._values.get(key, default)
        if type(value) not in {int, float}:  # not isinstance: true is no number
            self.refuse(f"{key} must be a number of seconds")
        seconds = float(cast("float", value))
        if not least <= seconds <= most:
            self.refuse(f"{key} is {value}, outside {least}..{most}")
        return seconds

    def moment(self, key: str) -> int | None:
        """A date and time with its offset, in seconds since 1970; None where it is not given."""
        if not self.has(key):
            return None
        value = self._take(key, datetime)
        if value.tzinfo is None:
            self.refuse(f"{key} has no offset from UTC; write {value.isoformat()}Z")
        try:
            return int(value.astimezone(UTC).timestamp())
        except OverflowError:
            self.refuse(f"{key} is {value.isoformat()}, which is in no year from 1 to 9999 in UTC")

    def tables(self, key: str) -> "dict[str, Table]":
        """The tables `[key.NAME]` by name; none where `key` is not given."""
        group = self._take(key, dict, {})
        return {
            name: Table(values, f"{self.where}: [{key}.{name}]") for name, values in group.items()
        }

    def table(self, key: str) -> "Table":
        """The table `[key]`."""
        return Table(self._take(key, dict), f"{self.where}: [{key}]")

    def each(self, key: str) -> "list[Table]":
        """The tables that are each headed `[[key]]`."""
        return [
            Table(values, f"{self.where}: [[{key}]] number {number}")
            for number, values in enumerate(self._take(key, list), 1)
        ]

    def _take(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self._values.get(key, default)
        if value is None:
            self.refuse(f"{key} is missing")
        if type(value) is not kind:  # not isinstance: true is no number
            self.refuse(f"{key} must be {_KINDS[kind]}")
        return value


def nearest(word: str, known: Collection[str]) -> str:
    """A half-sentence that leads from `word` to what may have been meant."""
    if close := get_close_matches(word, known, 1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(sorted(known))}"
