"""What `refresh init` writes for each column: a class of masks, or none. Pure.

A column is judged by its name and its type, and in doubt not at all: a column without a class stops
a run by name, and someone who knows what is in it decides. What is suggested always fits. Numbers,
truth values and times at which something was done are suggested to be kept; what numbers mean,
salaries for one, is for the reader of the file to see.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from refresher.classification import masked_columns
from refresher.masks import objection
from refresher.model import Catalog, Column, ForeignKey, Table, TableName
from refresher.rules import Rule

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_TEXTS = {"text", "character varying", "character", "bpchar"}
_NUMBERS = {"smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean"}
_TIMES = {"date", "timestamp without time zone", "timestamp with time zone"}
_PEOPLE = {"customer", "person", "people", "user", "employee", "contact", "member", "patient"}
_PEOPLE |= {f"{word}s" for word in _PEOPLE} | {"staff", "client", "clients", "account", "accounts"}
_TELLING = {"phone", "mobile", "fax", "tel", "ssn", "iban", "card", "passport", "tax", "pin"}
_TELLING |= {"salary", "income", "latitude", "longitude", "lat", "lon", "lng", "birth", "born"}
_SECRET = {"password", "passwd", "token", "secret", "hash", "salt", "otp", "apikey", "signature"}
_TELLING |= {"age", "accountnumber", "cardnumber"}
_BIRTH = {"birth", "born", "dob", "birthday", "birthdate", "dateofbirth"}
_CODES = {("status",), ("currency",), ("language",), ("locale",), ("unit",), ("country",)}
_FREE = {"note", "notes", "comment", "comments", "remark", "remarks", "message", "memo"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A column with the words of its name, and its table with those of its own."""

    table: Table
    column: Column
    words: tuple[str, ...]
    people: bool

    @property
    def joined(self) -> str:
        return "".join(self.words)

    @property
    def domain(self) -> str:
        name = f"{self.table.name.name}.{self.column.name}"
        return re.sub(r"[^A-Za-z0-9_.-]|^(?![A-Za-z_])", "_", name)

    def has(self, *words: str) -> bool:
        """Whether one of `words` is in the column's name: as a word, or as all of it."""
        return not set(words).isdisjoint([*self.words, self.joined])


def suggestions(catalog: Catalog) -> dict[TableName, dict[str, Rule | None]]:
    """A rule or None for every column that needs one; foreign keys follow what they reference."""
    tables = {t.name: t for t in catalog.tables if t.partition_of is None}
    found = {
        table.name: {c.name: suggested(table, c) for c in masked_columns(table)}
        for table in tables.values()
    }
    for _ in range(len(catalog.foreign_keys)):  # a chain of keys is no longer than that
        followed = [_followed(key, tables, found) for key in catalog.foreign_keys]
        if not any(followed):
            break
    return {name: columns for name, columns in found.items() if columns}


def suggested(table: Table, column: Column) -> Rule | None:
    """The rule for a column by itself; None in doubt."""
    place = _place(table, column)
    for applies, rule in _CHOICES:
        if applies(place):
            chosen = rule(place)
            if chosen is None or not objection(column, chosen):
                return chosen
            return _hashed(place)
    return None


def section(catalog: Catalog) -> str:
    """The part of `refresh.toml` that has the rules, in TOML.

    A column without a suggestion is there as a comment: it has no class until someone gives it one.
    """
    types = {(t.name, c.name): c.type for t in catalog.tables for c in t.columns}
    lines = []
    for table, columns in suggestions(catalog).items():
        lines += ["", heading(str(table))]
        for name, rule in columns.items():
            kind = " ".join(types[table, name].split())
            lines.append(
                f"{key(name)} = {_inline(rule)}"
                if rule
                else f'# {key(name)} = {{ class = "…" }}  # {kind}'
            )
    return "\n".join(lines[1:]) + "\n"


def heading(table: str) -> str:
    """The line below which a table's rules are; `table` is "schema.table"."""
    return f"[columns.{_text(table)}]"


def key(column: str) -> str:
    """A column's name as TOML has it."""
    return column if _BARE_KEY.fullmatch(column) else _text(column)


def _followed(
    key: ForeignKey,
    tables: Mapping[TableName, Table],
    found: Mapping[TableName, dict[str, Rule | None]],
) -> bool:
    """Let the columns of `key` have the rules of what they reference; whether that changed one."""
    if key.table not in tables or key.references not in tables:
        return False
    columns = {column.name: column for column in masked_columns(tables[key.table])}
    changed = False
    for name, referenced in zip(key.columns, key.referenced, strict=True):
        rule = found[key.references].get(referenced)
        if rule is not None and name in columns and objection(columns[name], rule):
            rule = None
        if name in columns and found[key.table][name] != rule:
            found[key.table][name] = rule
            changed = True
    return changed


def _place(table: Table, column: Column) -> _Place:
    words = _words(column.name)
    people = not _PEOPLE.isdisjoint(_words(table.name.name))
    return _Place(table, column, tuple(words), people)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def _keyed(kind: str, part: str = "full") -> Callable[[_Place], Rule]:
    return lambda place: Rule(kind, domain=place.domain, part=part)


def _hashed(place: _Place) -> Rule | None:
    """A hash, where one fits: for what is unique, or too short for its own class."""
    rule = Rule("hash", domain=place.domain)
    return None if objection(place.column, rule) else rule


def _secret(place: _Place) -> Rule | None:
    return _hashed(place) if place.column.not_null else Rule("null")


def _free(place: _Place) -> Rule | None:
    return Rule("constant", value="masked") if place.column.not_null else Rule("null")


def _born(place: _Place) -> Rule | None:
    """Shifted by whose it is, where a key of one column says so."""
    key = place.table.primary_key
    if len(key) != 1:
        return None
    return Rule("date", domain=f"{place.domain.partition('.')[0]}.{key[0]}", by=key[0])


def _is_text(place: _Place) -> bool:
    return place.column.base in _TEXTS or place.column.base.rpartition(".")[2] == "citext"


def _text_called(*words: str) -> Callable[[_Place], bool]:
    return lambda place: _is_text(place) and place.has(*words)


def _is_plain_number(place: _Place) -> bool:
    return place.column.base in _NUMBERS and not place.has(*_TELLING)


def _is_when(place: _Place) -> bool:
    """When something was done, as in created_at and updated."""
    done = place.has("created", "updated", "modified", "changed", "deleted", "inserted")
    return place.column.base in _TIMES and done and not place.has(*_TELLING)


def _is_code(place: _Place) -> bool:
    """A word of a few that the application knows, as in status and order_status."""
    return _is_text(place) and place.words[-1:] in _CODES


def _is_identifier(place: _Place) -> bool:
    return place.column.base == "uuid" and place.column.unique


_KEEP = Rule("keep")
_CHOICES: tuple[tuple[Callable[[_Place], bool], Callable[[_Place], Rule | None]], ...] = (
    (_text_called(*_SECRET), _secret),
    (_text_called("email", "mail"), _keyed("email")),
    (_text_called("firstname", "givenname", "forename", "vorname"), _keyed("name", "given")),
    (_text_called("lastname", "familyname", "surname", "nachname"), _keyed("name", "family")),
    (_text_called("fullname", "contactname", "displayname"), _keyed("name")),
    (lambda place: _is_text(place) and place.people and place.joined == "name", _keyed("name")),
    (_text_called("username", "login", "nickname"), _hashed),
    (_text_called("ip", "ipaddress"), lambda _: Rule("constant", value="192.0.2.1")),  # RFC 5737
    (_text_called("phone", "mobile", "fax", "tel", "telephone", "telefon"), _keyed("phone")),
    (_text_called("street", "address", "addr", "strasse"), _keyed("address")),
    (_text_called("city", "town"), _keyed("city")),
    (_text_called("zip", "zipcode", "postcode", "postalcode", "plz"), _keyed("text")),
    (_text_called("iban", "card", "passport", "ssn", "taxid", "vat"), _keyed("text")),
    (_text_called(*_FREE), _free),
    (_is_code, lambda _: _KEEP),
    (
        lambda place: place.column.base in {"inet", "cidr"},
        lambda _: Rule("constant", value="192.0.2.1"),
    ),
    (lambda place: place.column.base == "date" and place.has(*_BIRTH), _born),
    (_is_identifier, _hashed),
    (_is_when, lambda _: _KEEP),
    (_is_plain_number, lambda _: _KEEP),
)
"""What is tried in this order, on the words of a column's name."""


def _inline(rule: Rule) -> str:
    options = {"class": rule.kind, **rule.options}
    return f"{{ {', '.join(f'{key} = {_value(value)}' for key, value in options.items())} }}"


def _value(value: object) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """A basic string of TOML: JSON's, but that DEL is escaped too (TOML 1.0, "String")."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
