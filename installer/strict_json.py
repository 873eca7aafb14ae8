"""JSON that somebody signed, read strictly: what is not known exactly is refused.

Opens no files. A document is one UTF-8 object without a byte order mark, duplicate keys, NaN,
floats or deep nesting. Every key is known and present. The signed bytes are what is parsed; nothing
is ever serialised again in order to verify it.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from installer.errors import MalformedError
from installer.tree import Digest

MAX_DOCUMENT_SIZE = 64 * 1024 * 1024
MAX_DEPTH = 16
MAX_DIGITS = 20
DIGEST = re.compile(r"[0-9a-f]{64}")
MOMENT = "%Y-%m-%dT%H:%M:%SZ"
"""How a time is written: ISO 8601, in UTC, to the second."""

T = TypeVar("T")


def load_json(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON object, refusing what `json.loads` lets pass: duplicate keys, NaN, surrogates, depth.

    Raises:
        MalformedError: `raw` is too large, not such an object, or not strict JSON.
    """
    if len(raw) > MAX_DOCUMENT_SIZE:
        raise MalformedError(f"{name}: larger than {MAX_DOCUMENT_SIZE} bytes")
    if _depth(raw) > MAX_DEPTH:
        raise MalformedError(f"{name}: nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_number,
            parse_float=_refuse_number,
            parse_int=_integer,
        )
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8 form
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{name}: not strict JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"{name}: not a JSON object")
    return value


def require_relative_path(path: str, where: str) -> str:
    """`path`, if it is a plain relative path that stays below the folder it is relative to.

    Raises:
        MalformedError: it is absolute, leads out, or holds a control character or empty part.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or any(map(is_control, path)):
        raise MalformedError(f"{where}: {path!r} is not a plain relative path")
    return path


def is_control(char: str) -> bool:
    """Whether `char` ends a line, steers a terminal, or is half a character."""
    return unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}


def moment(seconds: int) -> str:
    """A time as statements write it; `seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime(MOMENT)


class Fields:
    """The keys of one JSON object, each read once, by type; what was not read is refused."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            self.refuse("not an object")
        self._unread = dict(value)

    def refuse(self, reason: str) -> NoReturn:
        """Refuse this object."""
        raise MalformedError(f"{self.where}: {reason}")

    def _take(self, key: str, kind: type[T]) -> T:
        if key not in self._unread:
            self.refuse(f"{key} is missing")
        value = self._unread.pop(key)
        if type(value) is not kind:  # not isinstance: True is an int
            self.refuse(f"{key} is not of type {kind.__name__}")
        return value

    def _took_null(self, key: str) -> bool:
        if self._unread.get(key, 0) is not None:
            return False
        del self._unread[key]
        return True

    def text(self, key: str) -> str:
        """Any text."""
        return self._take(key, str)

    def line(self, key: str) -> str:
        """One line of text, not blank."""
        value = self.text(key)
        if not value.strip() or any(map(is_control, value)):
            self.refuse(f"{key} is not one line of text")
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        """Text that `pattern` describes in full."""
        value = self.text(key)
        if not pattern.fullmatch(value):
            self.refuse(f"{key} is {value!r}, which does not match {pattern.pattern}")
        return value

    def digest(self, key: str) -> Digest:
        """A SHA-256 digest in hexadecimal."""
        return Digest(self.matching(key, DIGEST))

    def moment(self, key: str) -> int:
        """A time, in seconds since 1970."""
        text = self.text(key)
        try:
            found = datetime.strptime(text, MOMENT).replace(tzinfo=UTC)
        except ValueError:
            found = None
        if found is None or found.strftime(MOMENT) != text:  # strptime takes fewer digits, too
            self.refuse(f"{key} is {text!r}, no time such as 2026-01-31T00:00:00Z")
        return int(found.timestamp())

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._take(key, bool)

    def texts(self, key: str, known: Collection[str]) -> dict[str, str]:
        """An object that has texts, under some of the `known` keys."""
        values = self._take(key, dict)
        if not values.keys() <= set(known) or any(type(v) is not str for v in values.values()):
            self.refuse(f"{key} holds something else than texts for {', '.join(known)}")
        return values

    def integer(self, key: str, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(key, int)
        if not least <= value <= most:
            self.refuse(f"{key} is {value}, outside {least}..{most}")
        return value

    def table(self, key: str) -> "Fields":
        """An object."""
        return Fields(self._take(key, dict), f"{self.where}: {key}")

    def optional(self, key: str) -> "Fields | None":
        """An object, or null."""
        return None if self._took_null(key) else self.table(key)

    def optional_text(self, key: str) -> str | None:
        """Any text, or null."""
        return None if self._took_null(key) else self.text(key)

    def optional_digest(self, key: str) -> Digest | None:
        """A digest, or null."""
        return None if self._took_null(key) else self.digest(key)

    def each(self, key: str, read: "Callable[[Fields], T]") -> tuple[T, ...]:
        """A list of objects, each read by `read`, and read whole."""
        found = []
        for number, item in enumerate(self._take(key, list)):
            fields = Fields(item, f"{self.where}: {key}[{number}]")
            found.append(read(fields))
            fields.require_all_read()
        return tuple(found)

    def sequence(self, key: str, kind: type[T]) -> tuple[T, ...]:
        """A list of values of one type."""
        values = self._take(key, list)
        if any(type(value) is not kind for value in values):
            self.refuse(f"{key} holds something that is not of type {kind.__name__}")
        return tuple(values)

    def path(self, key: str) -> str:
        """A plain relative path."""
        return require_relative_path(self.text(key), f"{self.where}: {key}")

    def require_type(self, kind: str, form: int) -> None:
        """Refuse a document of another type, or of a format that this version does not know."""
        if self.text("type") != kind or self.integer("format", 1, 1_000_000) != form:
            self.refuse(f"not a {kind} of format {form}; a newer countersign-installer may know it")

    def require_all_read(self) -> None:
        """Refuse a key that nobody asked for."""
        if self._unread:
            self.refuse(f"unknown key {min(self._unread)!r}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets outside strings; cheap, and before any recursion."""
    depth = deepest = 0
    # Possessive: a long string costs no memory for ways back that are never taken.
    for bracket in re.sub(rb'(?s)"(?:[^"\\]++|\\.)*+"|[^][{}"]++', b"", raw):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
