# ruff: noqa: S608 - what goes into SQL here are quoted names, literals and expressions
"""How a column is masked: a rule becomes SQL for the source. Pure.

Rules:
- An expression yields exactly the column's type, and NULL where the value is NULL (what the class
  `sql` yields is its author's), and is evaluated on the source: what leaves it is masked already.
- Keyed classes work by domain: equal values of a domain have equal masks in every table.
- What has to be unique has at least 64 bits of a digest, or is a permutation.
- A class that does not fit a column is refused, and never bent to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from installer.quoting import literal, quoted
from refresher import documents, keyed
from refresher.errors import UnclassifiedError
from refresher.model import Column, Table, TableName
from refresher.rules import OPTIONS, Rule

BITS = {"smallint": 15, "integer": 31, "bigint": 63}
"""The bits of a whole number's type beside its sign."""

LARGE = 1024 * 1024
"""Bytes from which on a table is large: ten thousand rows, about."""

_TEXTS = frozenset({"text", "character varying", "character", "bpchar"})
_DATES = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})
_UNIQUE_DIGITS = 16  # hexadecimal ones, of 64 bits
_MAIL = "@example.com"  # reserved, so that nothing is ever delivered (RFC 2606, section 3)
_PHONE = "+999"  # no country's code (ITU-T E.164)
_PHONE_DIGITS = 12


def expression(column: Column, rule: Rule, table: Table | None = None) -> str:
    """SQL that yields the mask of `column`, of exactly its type, from a row of its table.

    Where `table` is said and is large, the SQL computes before its first row what pays off over
    many. The masks are the same.

    Raises:
        UnclassifiedError: the rule does not fit the column.
    """
    if reason := objection(column, rule):
        raise UnclassifiedError(reason)
    chosen = CLASSES[rule.kind]
    if table and table.bytes >= LARGE and chosen.prepared:
        mask = chosen.prepared(column, rule, table.name)
    else:
        mask = chosen.mask(column, rule)
    return f"CAST({mask} AS {column.type})"


def objection(column: Column, rule: Rule) -> str:
    """Why `rule` does not fit `column`, and what would; empty where it fits."""
    reason = _reason(column, rule)
    if not reason:
        return ""
    fitting = [kind for kind in OPTIONS if not _reason(column, Rule(kind, length=_fitting(column)))]
    return (
        f"column {column.name} ({column.type}) cannot have the class {rule.kind}: {reason}; "
        f"what fits is {', '.join(fitting)}"
    )


def agree(column: Column, rule: Rule, other: Column, its_rule: Rule) -> bool:
    """Whether equal values of two columns have equal masks, as a foreign key needs it.

    A NULL on the side that references, which is `column`, satisfies every key.

    What an expression of the class `sql` does only its author knows, who is believed.
    """
    if rule.kind == "null" or "sql" in {rule.kind, its_rule.kind}:
        return True
    if rule.kind == "integer" == its_rule.kind:
        return (rule.domain, _bits(column, rule)) == (its_rule.domain, _bits(other, its_rule))
    return rule == its_rule


def _reason(column: Column, rule: Rule) -> str:
    chosen = CLASSES[rule.kind]
    if not chosen.fits(column):
        return f"it is for {chosen.types}"
    if rule.kind == "null" and column.not_null:
        return "the column is NOT NULL"
    if rule.kind == "integer" and _bits(column, rule) > BITS[column.base]:
        return f"{rule.bits} bits are more than the type has"
    if column.unique and not (chosen.is_injective or rule.unique):
        return "the column is unique, and the masks are not"
    needed = chosen.characters(rule)
    if column.length is not None and needed > column.length:
        return f"it needs {needed} characters"
    return ""


def _fitting(column: Column) -> int:
    """The length of a hash that the column holds, where it is long enough to be one."""
    return max(_UNIQUE_DIGITS, min(32, column.length or 32))


def _is_text(column: Column) -> bool:
    return column.base in _TEXTS or _is_citext(column)


def _is_citext(column: Column) -> bool:
    return column.base.rpartition(".")[2] == "citext"


def _text(column: Column) -> str:
    """The value as text; equal ones are equal in it, so that citext is told in small letters."""
    text = f"{quoted(column.name)}::text"
    return f"lower({text})" if _is_citext(column) else text


def _bits(column: Column, rule: Rule) -> int:
    return rule.bits or BITS[column.base]


# Masks of text: SQL of a text to SQL of a text.


def _chosen(purpose: str, text: str, rule: Rule) -> str:
    """What words and digits are chosen by: a bytea, of which 16 bytes may be used."""
    return keyed.cascade(rule.domain, purpose, keyed.encoded(text))


def _hash(text: str, rule: Rule) -> str:
    return keyed.hexadecimal(keyed.digest(rule.domain, "hash", keyed.encoded(text)), rule.length)


def _email(text: str, rule: Rule) -> str:
    local = f"lower({keyed.word('given', 'get_byte(h, 8)')}) || '.'"
    result = f"{local} || {keyed.hexadecimal('h', _UNIQUE_DIGITS)} || '{_MAIL}'"
    return keyed.bound("h", _chosen("email", text, rule), result)


def _name(text: str, rule: Rule) -> str:
    value = _chosen("name", text, rule)
    given, family = keyed.word("given", "get_byte(h, 0)"), keyed.word("family", "get_byte(h, 1)")
    whole = f"{given} || ' ' || {family}"
    return keyed.bound("h", value, {"given": given, "family": family, "full": whole}[rule.part])


def _address(text: str, rule: Rule) -> str:
    street = keyed.word("street", "get_byte(h, 0)")
    result = f"{street} || ' Street ' || (1 + get_byte(h, 1) % 199)"
    return keyed.bound("h", _chosen("address", text, rule), result)


def _city(text: str, rule: Rule) -> str:
    return keyed.word("city", f"get_byte({_chosen('city', text, rule)}, 0)")


def _phone(text: str, rule: Rule) -> str:
    digits = keyed.hexadecimal(_chosen("phone", text, rule), _PHONE_DIGITS)
    return f"'{_PHONE}' || translate({digits}, 'abcdef', '012345')"


def _shape(text: str, rule: Rule) -> str:
    """Digits for digits, letters for letters; a letter that is not ASCII becomes a small one.

    What stands there is taken from the digest alone, whose bytes come again after 32 characters.
    """
    byte = "get_byte(h, (i::integer - 1) % 32)"
    changed = (
        f"CASE WHEN c BETWEEN '0' AND '9' THEN chr(48 + {byte} % 10)"
        f" WHEN c BETWEEN 'A' AND 'Z' THEN chr(65 + {byte} % 26)"
        f" WHEN c BETWEEN 'a' AND 'z' OR c > '~' THEN chr(97 + {byte} % 26) ELSE c END"
    )
    each = (  # in the order of the characters, which a scan of a function keeps; a sort costs 4 µs
        'SELECT u.c COLLATE "C" AS c, i'
        " FROM unnest(string_to_array(t, NULL)) WITH ORDINALITY AS u (c, i)"
    )
    letters = f"array_to_string(ARRAY(SELECT {changed} FROM ({each}) AS letters), '')"
    digested = keyed.bound("h", keyed.digest(rule.domain, "text", keyed.encoded("t")), letters)
    return keyed.bound("t", text, f"CASE WHEN t <> '' THEN {digested} ELSE t END")


TEXT_MASKS: Mapping[str, Callable[[str, Rule], str]] = {
    "hash": _hash,
    "email": _email,
    "name": _name,
    "address": _address,
    "city": _city,
    "phone": _phone,
    "text": _shape,
}


# Masks of columns.


def _keep(column: Column, _: Rule) -> str:
    return quoted(column.name)


def _null(_: Column, __: Rule) -> str:
    return "NULL"


def _constant(column: Column, rule: Rule) -> str:
    value = f"CAST({literal(rule.value)} AS {column.type})"
    return f"CASE WHEN {quoted(column.name)} IS NOT NULL THEN {value} END"


def _masked_text(column: Column, rule: Rule) -> str:
    return TEXT_MASKS[rule.kind](_text(column), rule)


def _common(column: Column, rule: Rule, table: TableName) -> str:
    """The mask, looked up for the commonest values, which the server's statistics know.

    These are masked before the first row. Another value, or one of no statistics, is masked in its
    row: what they say has no effect on a mask.
    """
    mask = CLASSES[rule.kind].mask(column, rule)
    if not _is_text(column):
        return mask
    type_, key = "text", _text(column)
    if column.base in {"character", "bpchar"}:  # a cast to text takes blanks away, in 0.5 µs
        type_, key = "bpchar", f"textin(bpcharout({quoted(column.name)}))"
    where = ", ".join(map(literal, (table.schema, table.name, column.name)))
    values = (
        f"SELECT unnest(most_common_vals::text::{type_}[]) AS {quoted(column.name)} FROM pg_stats"
        f" WHERE (schemaname, tablename, attname, inherited) = ({where}, false)"
    )
    masks = f"(SELECT jsonb_object_agg({key}, {mask}) FROM ({values} OFFSET 0) AS common)"
    return f"coalesce({masks} ->> {key}, {mask})"


def _masked_hash(column: Column, rule: Rule) -> str:
    if column.base == "bytea":
        return keyed.digest(rule.domain, "hash", quoted(column.name))
    if column.base == "uuid":  # of version 8, the variant of RFC 9562, sections 4 and 5.8
        digits = _hash(_text(column), replace(rule, length=32))
        return f"overlay(overlay({digits} PLACING '8' FROM 13) PLACING '8' FROM 17)"
    return _hash(_text(column), rule)


def _integer(column: Column, rule: Rule) -> str:
    return _permuted(column, rule, tabled=False)


def _integer_by_table(column: Column, rule: Rule, _: TableName) -> str:
    return _permuted(column, rule, tabled=True)


def _permuted(column: Column, rule: Rule, *, tabled: bool) -> str:
    value = f"{quoted(column.name)}::bigint"
    return keyed.permuted(rule.domain, value, _bits(column, rule), tabled=tabled)


def _date(column: Column, rule: Rule) -> str:
    whose = f"coalesce({quoted(rule.by)}::text, '')"
    days = f"(1 + n / 2 % {rule.days}) * CASE WHEN n % 2 = 0 THEN 1 ELSE -1 END"
    number = keyed.number(keyed.cascade(rule.domain, "date", keyed.encoded(whose)))
    shift = f"{keyed.bound('n', number, days)}::integer"
    return f"{quoted(column.name)} + " + (
        shift if column.base == "date" else f"make_interval(days => {shift})"
    )


def _json(column: Column, rule: Rule) -> str:
    value = f"{quoted(column.name)}::jsonb"
    document = documents.masked(documents.tree(rule.paths), value, _leaf, keep=rule.rest == "keep")
    return f"CASE WHEN {quoted(column.name)} IS NOT NULL THEN {document} END"


def _leaf(value: str, rule: Rule) -> str:
    """The mask of `value`, which is SQL for a jsonb, as a jsonb; JSON's null stays null."""
    if rule.kind == "keep":
        return value
    if rule.kind == "null":
        return "'null'::jsonb"
    text = f"({value} #>> '{{}}')"
    if rule.kind == "constant":
        masked = f"CASE WHEN {text} IS NOT NULL THEN {literal(rule.value)}::text END"
    else:
        masked = TEXT_MASKS[rule.kind](text, rule)
    return f"coalesce(to_jsonb({masked}), 'null'::jsonb)"


def _literal(_: Column, rule: Rule) -> str:
    return f"({rule.sql}\n)"  # a line of its own ends a comment


@dataclass(frozen=True, slots=True)
class MaskClass:
    """One class of masks: the columns that it is for, and what it makes of them.

    `characters` is how long a mask can be, where it is text. `prepared` makes the same masks for a
    table that is large, where there is a cheaper way.
    """

    types: str
    fits: Callable[[Column], bool]
    mask: Callable[[Column, Rule], str]
    is_injective: bool = False
    characters: Callable[[Rule], int] = lambda _: 0
    prepared: Callable[[Column, Rule, TableName], str] | None = None


def _any(_: Column) -> bool:
    return True


def _is_whole(column: Column) -> bool:
    return column.base in BITS


def _is_date(column: Column) -> bool:
    return column.base in _DATES


def _is_document(column: Column) -> bool:
    return column.base in {"json", "jsonb"}


def _is_hashable(column: Column) -> bool:
    return _is_text(column) or column.base in {"uuid", "bytea"}


def _longest(*kinds: str) -> int:
    """The characters of the longest words, with one between them."""
    return sum(max(map(len, keyed.words(kind))) + 1 for kind in kinds) - 1


def _name_characters(rule: Rule) -> int:
    return _longest(*(("given", "family") if rule.part == "full" else (rule.part,)))


def _of_text(characters: Callable[[Rule], int], *, is_injective: bool = False) -> MaskClass:
    return MaskClass("text", _is_text, _masked_text, is_injective, characters, _common)


CLASSES: Mapping[str, MaskClass] = {
    "keep": MaskClass("every type", _any, _keep, is_injective=True),
    "null": MaskClass("every type", _any, _null, is_injective=True),  # NULLs are distinct
    "constant": MaskClass("every type", _any, _constant, characters=lambda rule: len(rule.value)),
    "hash": MaskClass(
        "text, uuid and bytea",
        _is_hashable,
        _masked_hash,
        is_injective=True,
        characters=lambda rule: rule.length,
        prepared=_common,
    ),
    "integer": MaskClass(
        "smallint, integer and bigint",
        _is_whole,
        _integer,
        is_injective=True,
        prepared=_integer_by_table,
    ),
    "email": _of_text(
        lambda _: _longest("given") + 1 + _UNIQUE_DIGITS + len(_MAIL), is_injective=True
    ),
    "name": _of_text(_name_characters),
    "address": _of_text(lambda _: _longest("street") + len(" Street 199")),
    "city": _of_text(lambda _: _longest("city")),
    "phone": _of_text(lambda _: len(_PHONE) + _PHONE_DIGITS),
    "date": MaskClass("date and timestamp", _is_date, _date),
    "text": _of_text(lambda _: 0),
    "json": MaskClass("json and jsonb", _is_document, _json),
    "sql": MaskClass("every type", _any, _literal),
}
