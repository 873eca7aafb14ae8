"""What a database's schema is, object by object, and how two schemas differ.

Pure. `fingerprint.sql` reads the catalog of one database as one row for each object; a fingerprint
is the SHA-256 over the rows of a layer. The rows are kept, so that a difference is told as objects
with their two definitions. Schemas of different major versions of PostgreSQL are never compared:
the server writes definitions in its own words, and they change.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from installer.errors import SchemaDiffersError
from installer.tree import Digest

LAYERS = ("structure", "privileges", "owners", "comments")
MAX_NAMED = 20
"""Differing objects that a message shows."""
MAX_SHOWN = 160
"""Characters of a definition that a message shows, from shortly before the first difference."""

# What is in quotes ends in one that no other follows: so there is one way only to match it, and no
# input for which a match takes long. (Possessive quantifiers are wrong in Python 3.11.2.)
_QUOTED = r"'[^']*(?:''[^']*)*'(?!')" + r'|"[^"]*(?:""[^"]*)*"(?!")'
_IMPLICIT_ARRAY = re.compile(
    rf"""{_QUOTED}|\(ARRAY\[((?:{_QUOTED}|[^\[\]'"])*)\]\)::([^\[\]()',]+)\[\]"""
)
_PIECE = re.compile(rf"""{_QUOTED}|[(),]| AND | OR |(?:(?! AND | OR )[^'"(),])+|.""", re.DOTALL)
_ABSENT = {"privileges": "the default", "comments": "no comment"}

SETTINGS = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "quote_all_identifiers": "off",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "bytea_output": "hex",
    "enable_nestloop": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
"""In force while `fingerprint.sql` runs: definitions are deparsed under the first of them.

The last three are for speed: the planner knows little of tables that a release has just made, and
what it would have to guess is the sizes of loops.
"""


_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class SchemaObject(NamedTuple):
    """One row: what `name` of this `kind` is, in one layer. A tuple, as there are thousands."""

    layer: str
    kind: str
    name: str
    definition: str


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """An object that differs; a definition is None where there is no such object."""

    layer: str
    kind: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Schema:
    """All objects of one database, sorted, as a server of this major version describes them."""

    major: int
    objects: tuple[SchemaObject, ...]

    @cached_property
    def fingerprints(self) -> Mapping[str, Digest]:
        """SHA-256 by layer: over its rows, as JSON arrays, a line each, in their order."""
        found = {layer: hashlib.sha256() for layer in LAYERS}
        for item in self.objects:
            found[item.layer].update(_as_json(item).encode() + b"\n")
        return {layer: Digest(digest.hexdigest()) for layer, digest in found.items()}

    def changed(self, changes: Iterable[Change]) -> "Schema":
        """This schema after `changes`."""
        definitions = {item[:3]: item.definition for item in self.objects}
        for change in changes:
            key = (change.layer, change.kind, change.name)
            if change.after is None:
                definitions.pop(key, None)
            else:
                definitions[key] = change.after
        return schema_of(self.major, ((*key, text) for key, text in definitions.items()))


def schema_of(major: int, rows: Iterable[Sequence[str]]) -> Schema:
    """The schema that the rows of `fingerprint.sql` describe."""
    return Schema(major, tuple(sorted(_settled(SchemaObject(*row)) for row in rows)))


def changes(before: Schema, after: Schema, layers: Sequence[str] = LAYERS) -> tuple[Change, ...]:
    """What differs between two schemas of the same major version, in their order.

    Raises:
        SchemaDiffersError: the major versions differ.
    """
    if before.major != after.major:
        raise SchemaDiffersError(
            f"a schema of PostgreSQL {before.major} cannot be compared with one of {after.major}"
        )
    old = {item[:3]: item.definition for item in before.objects if item.layer in layers}
    new = {item[:3]: item.definition for item in after.objects if item.layer in layers}
    return tuple(
        Change(*key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def require_same(expected: Schema, found: Schema, layers: Sequence[str], what: str) -> None:
    """Refuse a schema that is not the one expected; `what` says in which words.

    Raises:
        SchemaDiffersError: `detail` shows the first differing objects with both definitions.
    """
    apart = changes(expected, found, layers)
    if apart:
        objects = "object differs" if len(apart) == 1 else "objects differ"
        raise SchemaDiffersError(f"{what}: {len(apart)} {objects}", detail=describe(apart))


def describe(apart: Sequence[Change], before: str = "expected", after: str = "found") -> str:
    """Changes in lines for people: the object, then each of its definitions that there is."""
    lines = []
    for change in apart[:MAX_NAMED]:
        lines.append(f"  {change.kind} {change.name} ({change.layer})")
        for label, text in zip((before, after), _shown(change), strict=True):
            lines.append(f"    {label:<9}{text}")
    if len(apart) > MAX_NAMED:
        lines.append(f"  … and {len(apart) - MAX_NAMED} more")
    return "\n".join(lines)


def _settled(item: SchemaObject) -> SchemaObject:
    """The object in the words that the server has for it once it was dumped and restored.

    `code IN ('a', 'b')` is written as `(code)::text = ANY ((ARRAY['a'::character varying,
    'b'::character varying])::text[])` where code is a varchar. Read again, the cast belongs to the
    elements, and it is written `ANY (ARRAY[('a'::character varying)::text, …])` from then on.
    `a BETWEEN 1 AND 2 AND b` is written as `(((a >= 1) AND (a <= 2)) AND b)`, and once it was read
    again as `((a >= 1) AND (a <= 2) AND b)`.
    """
    text = item.definition
    if item.layer != "structure" or not ("(ARRAY[" in text or _nested(text)):
        return item
    if "\nAS $function" in text or "\nAS $procedure" in text:
        return item  # Its source is its author's own words, and stays.
    text = _IMPLICIT_ARRAY.sub(_cast_elements, text)
    return item._replace(definition=_flattened(text) if _nested(text) else text)


def _cast_elements(found: re.Match[str]) -> str:
    listed, element_type = found.groups()
    if element_type is None:
        return found[0]
    elements = (f"({element.strip()})::{element_type}" for element in _elements(listed))
    return f"ARRAY[{', '.join(elements)}]"


def _elements(listed: str) -> list[str]:
    """Cut at the commas that are in no quotes and in no parentheses."""
    elements, depth = [""], 0
    for piece in _PIECE.findall(listed):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += piece
    return elements


def _nested(text: str) -> bool:
    """Whether there may be one AND in another, or one OR."""
    return "((" in text and (text.count(" AND ") > 1 or text.count(" OR ") > 1)


def _flattened(text: str) -> str:
    """Take away the parentheses that the parser does not keep."""
    groups = [_Group()]
    for piece in _PIECE.findall(text):
        if piece == "(":
            groups.append(_Group())
        elif piece == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1].add_group(closed)
        else:
            groups[-1].add(piece)
    return groups[0].text() if len(groups) == 1 else text


class _Group:
    """What is in one pair of parentheses; operands of AND and OR have a pair of their own."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.connective = ""
        self.first = ("", "")

    def add(self, piece: str) -> None:
        if piece in {" AND ", " OR "}:
            self.connective = piece
        self.pieces.append(piece)

    def add_group(self, group: "_Group") -> None:
        text = group.text()
        if not self.pieces:
            self.first = (group.connective, text)
        self.pieces.append(f"({text})")

    def text(self) -> str:
        """Its text; a first operand that has the same connective loses its parentheses."""
        connective, text = self.first
        if connective and [connective] == self.pieces[1:2]:
            return text + "".join(self.pieces[1:])
        return "".join(self.pieces)


def _shown(change: Change) -> tuple[str, str]:
    """Both definitions as one line each; of long ones the part where they differ."""
    before, after = (
        _ABSENT.get(change.layer, "no such object") if text is None else _one_line(text)
        for text in (change.before, change.after)
    )
    if max(len(before), len(after)) <= MAX_SHOWN:
        return before, after
    pairs = enumerate(zip(before, after, strict=False))
    apart = next((i for i, (old, new) in pairs if old != new), min(len(before), len(after)))
    start = max(0, apart - MAX_SHOWN // 4)
    return _excerpt(before, start), _excerpt(after, start)


def _excerpt(line: str, start: int) -> str:
    end = start + MAX_SHOWN
    return ("… " if start else "") + line[start:end] + (" …" if len(line) > end else "")


def _one_line(definition: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in definition).split()) or "present"
