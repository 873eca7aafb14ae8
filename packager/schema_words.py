"""What a release did to the schema of a database, in lines for people.

Pure. What is lost comes first, then what is changed, then what was added to objects that were
there, and in the end what is new. A new object is one line, with its columns and the like as
numbers. Nothing is left out: what has no place in the line of another object has one of its own,
and the last line counts all. Of what was there before, it tells who waited for the release's locks.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from installer.fingerprint import LAYERS, Change, Schema, SchemaObject, changes
from installer.receipt import Lock, MeasuredDatabase
from packager.show import printable

MOST_LINES = 200
"""Of what changed in the schema, for people. New objects are the first to be cut."""

STRUCTURE, PRIVILEGES, OWNERS, COMMENTS = LAYERS
LAYER_WORDS = {
    STRUCTURE: "",
    PRIVILEGES: "privileges of ",
    OWNERS: "owner of ",
    COMMENTS: "comment on ",
}
VERBS = ("dropped", "removed", "changed", "set", "added", "created")
"""What happened to an object, in the order in which it is told."""

DEFAULT_PRIVILEGES = "default privileges"
UNCOUNTABLE = {DEFAULT_PRIVILEGES, "statistics"}
"""Kinds of objects that have no plural."""

WHOLE = {"table", "view", "materialized view", "foreign table", "type", "domain"}
"""Kinds of objects that have parts."""

NAMED_AFTER_WHOLE = ("column", "constraint", "trigger", "rule", "policy")
PARTS = (*NAMED_AFTER_WHOLE, "index", "sequence")
"""Kinds of parts, in the order in which they are counted."""

LOCKS = {
    "ACCESS EXCLUSIVE": "nobody else could read or write it; everybody waited",
    "EXCLUSIVE": "others could read it; whoever wrote waited",
    "SHARE ROW EXCLUSIVE": "others could read it; whoever wrote waited",
    "SHARE": "others could read it; whoever wrote waited",
    "SHARE UPDATE EXCLUSIVE": "others could read and write it; its maintenance waited",
    "ROW EXCLUSIVE": "others could read and write it; rows that the release changed waited",
    "ROW SHARE": "others could read and write it; rows that the release locked waited",
    "ACCESS SHARE": "others could read and write it; only to change its structure waited",
}
"""What a lock means to others (PostgreSQL, Table-Level Locks), the strongest first."""

_WORD = r'(?:"(?:[^"]|"")*"|[^\s".,()]+)'
_PART = re.compile(rf"(.+)\.{_WORD}", re.DOTALL)
_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX {_WORD} ON (?:ONLY )?({_WORD}\.{_WORD}) USING .*", re.DOTALL
)
_SEQUENCE = re.compile(rf".* (?:OWNED BY|IDENTITY OF) (.+)\.{_WORD}", re.DOTALL)
_COLUMNS = re.compile(rf"(UNLOGGED )?(?:\(({_WORD}(?:, {_WORD})*)\) ?)?(.*)", re.DOTALL)
"""Of the definition of a table: the names of its columns, and what is before and behind them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in the list of changes, with what came or went together with it.

    `is_told` is whether the entries of its columns say it all.
    """

    change: Change
    verb: str
    companions: tuple[Change, ...] = ()
    loses_data: bool = False
    is_told: bool = False

    @property
    def all(self) -> Iterator[tuple[str, Change]]:
        """Each of its changes, with what happened."""
        yield self.verb, self.change
        for change in self.companions:
            yield self.verb if change.layer == STRUCTURE else _verb(change), change


def schema_changes(
    before: Schema, after: Schema, whole: str | None = "the receipt"
) -> Iterator[str]:
    """How two schemas of the same major version differ, in lines.

    `whole` is what has the lines that are cut; None: nothing is cut.

    Raises:
        SchemaDiffersError: the major versions differ.
    """
    entries = sorted(_entries(before, after), key=_place)
    lines = [line for entry in entries if not entry.is_told for line in _entry(entry)]
    most = MOST_LINES if whole else len(lines)
    yield from lines[:most]
    if len(lines) > most:
        yield f"and {number(len(lines) - most, 'more line')}; {whole} has all"
    yield f"in all: {_counts(entries)}" if entries else "nothing"


def locks(database: MeasuredDatabase) -> Iterator[str]:
    """Relations with the strongest lock on each, and what that meant for others.

    An index has a line of its own where its table has none, or one with a weaker lock.
    """
    strength = {mode: -place for place, mode in enumerate(LOCKS)}
    modes = {lock.relation: _mode(lock) for lock in database.locks}
    tables = _tables_of_indexes((*database.before.objects, *database.after.objects))
    unknown = 1  # it may be stronger than all that are known
    for relation in sorted(modes, key=lambda r: (-strength.get(modes[r], unknown), r)):
        mode, of_table = modes[relation], modes.get(tables.get(relation, ""))
        if of_table not in strength or strength.get(mode, unknown) > strength[of_table]:
            means = LOCKS.get(mode, "see the manual of PostgreSQL")
            yield f"{printable(relation)}: {printable(mode)}: {means}"


def number(count: int, noun: str) -> str:
    """`1 column`, `2 columns`, `2 indexes`, `2 policies`."""
    noun = printable(noun)
    if count == 1 or noun in UNCOUNTABLE:
        return f"{count} {noun}"
    if noun.endswith("y"):
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def _entries(before: Schema, after: Schema) -> Iterator[Entry]:
    """All that changed, by the object in whose line it is told."""
    found = changes(before, after)
    moved = {(c.layer, _came(c), c.kind, c.name): c for c in found if not _stayed(c)}
    wholes = {(_came(c), c.name): c for c in moved.values() if _is_whole(c)}
    heads: dict[Change, list[Change]] = {}
    for change in found:
        heads.setdefault(_head(change, moved, wholes), []).append(change)
    kinds = {item.name: item.kind for item in before.objects if _is_whole(item)}
    for head, group in heads.items():
        verb, whole = _verb(head), _whole_of(head)
        gone = verb == "dropped" and head.kind in {"table", "column"}
        yield Entry(
            head,
            "added" if verb == "created" and whole in kinds else verb,
            tuple(change for change in group if change != head),
            loses_data=gone and kinds.get(whole or "", "table") == "table",
            is_told=_is_told_by_columns(head, moved),
        )


def _head(
    change: Change,
    moved: Mapping[tuple[str, bool, str, str], Change],
    wholes: Mapping[tuple[bool, str], Change],
) -> Change:
    """The object that `change` came or went with; the change itself, if there is none."""
    came = _came(change)
    subject = moved.get((STRUCTURE, came, change.kind, change.name))
    if _stayed(change) or subject is None:
        return change
    whole = wholes.get((came, _whole_of(subject) or ""))
    if whole is None:
        return subject
    owner = moved.get((OWNERS, came, whole.kind, whole.name))
    if change.layer == OWNERS and (owner is None or _definition(owner) != _definition(change)):
        return change
    return whole


def _is_told_by_columns(change: Change, moved: Mapping[tuple[str, bool, str, str], Change]) -> bool:
    """Whether a table differs only in columns that were dropped, or added behind the others."""
    if change.kind not in {"table", "foreign table"} or change.layer != STRUCTURE:
        return False
    if change.before is None or change.after is None:
        return False
    old, *rest_before = _columns(change.before)
    new, *rest_after = _columns(change.after)

    def has(column: str, *, came: bool) -> bool:
        return (STRUCTURE, came, "column", f"{change.name}.{column}") in moved

    stayed = [column for column in old if not has(column, came=False)]
    added = [column for column in new if has(column, came=True)]
    return rest_before == rest_after and new == stayed + added


def _columns(definition: str) -> tuple[list[str], str, str]:
    found = _COLUMNS.fullmatch(definition)
    before, names, behind = found.groups(default="") if found else ("", "", definition)
    return re.findall(_WORD, names), before, behind


def _whole_of(item: Change | SchemaObject) -> str | None:
    """The name of what an object of the structure is a part of, if it is."""
    if item.layer != STRUCTURE:
        return None
    definition = _definition(item)
    found = None
    if item.kind in NAMED_AFTER_WHOLE:
        found = _PART.fullmatch(item.name)
    elif item.kind == "index":
        found = _INDEX.fullmatch(definition)
    elif item.kind == "sequence":
        found = _SEQUENCE.fullmatch(definition)
    return found[1] if found else None


def _definition(item: Change | SchemaObject) -> str:
    if isinstance(item, SchemaObject):
        return item.definition
    return (item.before if item.after is None else item.after) or ""


def _is_whole(item: Change | SchemaObject) -> bool:
    return item.layer == STRUCTURE and item.kind in WHOLE


def _came(change: Change) -> bool:
    return change.before is None


def _stayed(change: Change) -> bool:
    return change.before is not None and change.after is not None


def _verb(change: Change) -> str:
    if _stayed(change):
        return "changed"
    went, came = ("dropped", "created") if change.layer == STRUCTURE else ("removed", "set")
    return came if _came(change) else went


def _place(entry: Entry) -> tuple[int, bool, int, Change]:
    """Where an entry is told: what is lost first."""
    layer = LAYERS.index(entry.change.layer)
    return VERBS.index(entry.verb), not entry.loses_data, layer, entry.change


def _entry(entry: Entry) -> Iterator[str]:
    """An object, and its definitions where no script of the release says them."""
    change, is_part = entry.change, _whole_of(entry.change) is not None
    line = f"{entry.verb} {_what(change)}{_with_it(entry)}"
    if entry.loses_data:
        line += ": its data may be lost"
    elif entry.verb == "added":
        line += f": {_one_line(change.after or '')}"
    yield line
    if change.before is not None and (is_part or entry.verb != "dropped"):
        yield f"  was    {_one_line(change.before)}"
    if change.after is not None and entry.verb in {"changed", "set"}:
        yield f"  is now {_one_line(change.after)}"
    for other in entry.companions:
        if other.layer == PRIVILEGES and other.after is not None:
            own = (other.kind, other.name) == (change.kind, change.name)
            yield f"  {'privileges' if own else _what(other)}: {_one_line(other.after)}"


def _what(change: Change) -> str:
    kind, name = printable(change.kind), printable(change.name)
    return f"{_layer_words(change)}{kind} {name}"


def _layer_words(change: Change) -> str:
    return "" if change.kind == DEFAULT_PRIVILEGES else LAYER_WORDS[change.layer]


def _with_it(entry: Entry) -> str:
    """What came or went with an object: ` (3 columns, 1 index; owner crm_owner)`."""
    kinds = Counter(c.kind for c in entry.companions if c.layer == STRUCTURE)
    counts = [number(kinds[kind], kind) for kind in PARTS if kinds[kind]]
    owners = ""
    if _came(entry.change):
        comments = sum(c.layer == COMMENTS for c in entry.companions)
        counts += [number(comments, "comment")] if comments else []
        names = {c.after for c in entry.companions if c.layer == OWNERS}
        owners = "".join(f"owner {printable(name)}" for name in names if name is not None)
    words = "; ".join(filter(None, (", ".join(counts), owners)))
    return f" ({words})" if words else ""


def _counts(entries: Iterable[Entry]) -> str:
    """How many of each kind: `dropped 1 view; set owner of 2 tables; created 2 tables`."""
    found: dict[str, Counter[tuple[str, str]]] = {verb: Counter() for verb in VERBS}
    for verb, change in (each for entry in entries for each in entry.all):
        found[verb][_layer_words(change), change.kind] += 1
    return "; ".join(
        f"{verb} "
        + ", ".join(
            f"{words}{number(count, kind)}" for (words, kind), count in sorted(kinds.items())
        )
        for verb, kinds in found.items()
        if kinds
    )


def _tables_of_indexes(objects: Iterable[SchemaObject]) -> dict[str, str]:
    """Which table an index is of; an index that keeps a constraint has the constraint's name."""
    found = {}
    for item in objects:
        if (table := _whole_of(item)) is None:
            continue
        if item.kind == "index":
            found[item.name] = table
        elif item.kind == "constraint" and (schema := _PART.fullmatch(table)):
            found[schema[1] + item.name.removeprefix(table)] = table
    return found


def _mode(lock: Lock) -> str:
    """The words of SQL for what pg_locks calls AccessExclusiveLock."""
    name = " ".join(re.findall(r"[A-Z][a-z]+", lock.mode.removesuffix("Lock"))).upper()
    return name if name in LOCKS else lock.mode


def _one_line(definition: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in definition).split())
