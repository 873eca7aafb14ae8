"""What `refresh.toml` says of columns. Opens no files, knows no catalog and no SQL.

    [columns."crm.customer"]
    id = { class = "integer", domain = "customer.id" }
    email = { class = "email", domain = "customer.email" }
    born = { class = "date", domain = "customer.id", by = "id", days = 90 }
    settings = { class = "json", rest = "keep", paths = { "contact.mail" = { class = "null" } } }

An option that a class does not have is refused, so that none is believed to do something.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from installer.settings import Table, nearest
from refresher import documents

OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "keep": (),
        "null": (),
        "constant": ("value",),
        "hash": ("domain", "length"),
        "integer": ("domain", "bits"),
        "email": ("domain",),
        "name": ("domain", "part"),
        "address": ("domain",),
        "city": ("domain",),
        "phone": ("domain",),
        "date": ("domain", "by", "days"),
        "text": ("domain",),
        "json": ("paths", "rest"),
        "sql": ("sql", "unique"),
    }
)
"""The classes of masks, and the options that each of them takes."""

IN_DOCUMENTS = frozenset(
    {"keep", "null", "constant", "hash", "email", "name", "address", "city", "phone", "text"}
)
"""Classes for a path into a JSON document, whose masks are JSON strings."""

_ANYTHING = re.compile(r"[^\0]*", re.DOTALL)
_SOMETHING = re.compile(r"[^\0]*[^\0\s][^\0]*", re.DOTALL)
_DOMAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,126}")
_PART = re.compile(r"given|family|full")
_REST = re.compile(r"keep|drop")


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a column: a class of masks, and the options that it takes.

    `domain` goes into every digest. `value` is a constant's text, `length` a hash's in hexadecimal
    digits, `bits` an integer's beside its sign (0: those of the column's type), `part` that of a
    name. `by` is the column that says whose date it is, which is shifted by 1 to `days` days.
    `paths` are those into a JSON document, `rest` what becomes of all others. `sql` is an
    expression; `unique` says that its author knows its values to be.
    """

    kind: str
    domain: str = ""
    value: str = ""
    length: int = 32
    bits: int = 0
    part: str = "full"
    by: str = ""
    days: int = 180
    paths: "tuple[tuple[str, Rule], ...]" = ()
    rest: str = "drop"
    sql: str = ""
    unique: bool = False

    @property
    def options(self) -> dict[str, object]:
        """Options that are not what they are by default, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        return {name: given[name] for name in OPTIONS[self.kind] if given[name] != defaults[name]}


Rules = Mapping[str, Mapping[str, Rule]]
"""Rules by `str(TableName)` and by the column's name."""


def parse_rules(tables: Mapping[str, Table]) -> Rules:
    """The rules that are in tables `[columns."schema.table"]`, by "schema.table" and column.

    Raises:
        ConfigurationError: an option is unknown, missing, or has a value that it cannot have.
    """
    return {
        name: {column: parse_rule(table.table(column)) for column in table.keys}
        for name, table in tables.items()
    }


def parse_rule(table: Table) -> Rule:
    """The rule of one column, or of one path.

    Raises:
        ConfigurationError: an option is unknown, missing, or has a value that it cannot have.
    """
    kind = table.text("class", _ANYTHING)
    if kind not in OPTIONS:
        table.refuse(f"class is {kind!r}; {nearest(kind, OPTIONS)}")
    options = OPTIONS[kind]
    table.only("class", *options)
    return Rule(kind, **{option: _READERS[option](table) for option in options})  # type: ignore[arg-type]  # each reader returns what its field is


def _paths(table: Table) -> tuple[tuple[str, Rule], ...]:
    below = table.table("paths")
    paths = tuple((path, parse_rule(below.table(path))) for path in below.keys)
    for path, rule in paths:
        if rule.kind not in IN_DOCUMENTS:
            known = ", ".join(sorted(IN_DOCUMENTS))
            below.refuse(f"{path}: no value in a document has the class {rule.kind}; {known} have")
    try:
        documents.tree(paths)
    except ValueError as error:
        below.refuse(str(error))
    return paths


_READERS: Mapping[str, Callable[[Table], object]] = {
    "domain": lambda table: table.text("domain", _DOMAIN),
    "value": lambda table: table.text("value", _ANYTHING),
    "length": lambda table: table.integer("length", 16, 64, 32),  # 16 digits are 64 bits
    "bits": lambda table: table.integer("bits", 8, 63) if table.has("bits") else 0,
    "part": lambda table: table.text("part", _PART, "full"),
    "by": lambda table: table.text("by", _SOMETHING),
    "days": lambda table: table.integer("days", 1, 3650, 180),
    "paths": _paths,
    "rest": lambda table: table.text("rest", _REST, "drop"),
    "sql": lambda table: table.text("sql", _SOMETHING),
    "unique": lambda table: table.flag("unique"),
}
