"""What a database's schema is, object by object, and how two schemas differ.

Pure. `fingerprint.sql` reads the catalog of one database as one row for each object; a fingerprint
is the SHA-256 over the rows of a layer. The rows are kept, so that a difference is told as objects
with their two definitions. Schemas of different major versions of PostgreSQL are never compared:
the server writes definitions in its own words, and they change.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from installer.errors import SchemaDiffersError
from installer.tree import Digest

LAYERS = ("structure", "privileges", "owners", "comments")
MAX_NAMED = 20
"""Differing objects that a message shows."""

SETTINGS = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "quote_all_identifiers": "off",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "bytea_output": "hex",
}
"""In force while `fingerprint.sql` runs: definitions are deparsed under them."""


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
            line = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
            found[item.layer].update(line.encode() + b"\n")
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
    return Schema(major, tuple(sorted(SchemaObject(*row) for row in rows)))


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
        lines += [
            f"    {label:<9}{_one_line(text)}"
            for label, text in ((before, change.before), (after, change.after))
        ]
    if len(apart) > MAX_NAMED:
        lines.append(f"  … and {len(apart) - MAX_NAMED} more")
    return "\n".join(lines)


def _one_line(definition: str | None) -> str:
    if definition is None:
        return "no such object"
    return " ".join("".join(c if c.isprintable() else " " for c in definition).split()) or "present"
