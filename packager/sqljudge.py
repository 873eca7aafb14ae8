"""Judges the statements of a script: what in them no release can run.

No guard: that is the server, which refuses these inside the function that runs a script, or for
want of the right (docs/decisions/0002). It is for the developer, who hears of it before the release
is signed. So what cannot be told from the text is left to the server: what a procedure does that is
CALLed, SQL put together in EXECUTE, a DO block in another language than PL/pgSQL or with one that
the parser cannot follow, and a statement longer than LONGEST. In an online script such a statement
is refused: what it begins with says how a host runs it.

What is stored and not executed is not judged: the bodies of functions, views, rules and triggers.
But nothing may be made that names the ledger's schema.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pglast import ast, parse_plpgsql
from pglast.enums import GrantTargetType, ObjectType
from pglast.parser import ParseError, parse_sql

from installer.manifest import Online
from packager.sqlcopy import copy_offences, reads_from_client
from packager.sqlonline import TOO_LONG, in_online_script, is_made_for_online
from packager.sqlrules import LONGEST, ONE_TRANSACTION, RULES, STORED, Offence, reads_stdin

LEDGER = "countersign"
"""The schema of the ledger."""

# A tree takes 150 times as long to make as the parser takes to read a statement, and a script may
# hold gigabytes of INSERT: only statements that begin with, or hold, one of these words get one.
_BEGINS = re.compile(
    r"(?:abort|begin|cluster|commit|copy|discard|do|end|prepare|reindex|release|reset|rollback|"
    r"savepoint|set|start|vacuum)\b|[(\s]*(?:select|with)\b.*\binto\b",
    re.DOTALL,
)
_HOLDS = re.compile(
    r"concurrently|countersign|database|tablespace|subscription|system|set_config|"
    r"lo_import|lo_export|pg_(?:file_|ls_dir|read_|stat_file)"
)

_LEDGER_WORDS = f"the schema {LEDGER} is the ledger's, which no release touches"
_ROWS_OUTSIDE = "Write COPY and its rows outside of the block, or the rows as INSERT."
_OFF_THE_LEDGER = "Leave it out; `countersign-install history` shows the ledger."


class Judge:
    """Judges the statements of one script, one after the other; `online` is how it is declared.

    `could_be_online` as long as it has met only statements that online scripts are for.
    """

    def __init__(self, online: Online | None = None) -> None:
        self.online = online
        self.could_be_online = True
        self._detached: set[str] = set()

    def judge(self, statement: str) -> list[Offence]:
        """What is wrong with a statement that the parser accepts, from top to bottom."""
        self.could_be_online &= is_made_for_online(statement)
        if len(statement) > LONGEST:
            return [TOO_LONG] if self.online else []
        if not (self.online or _is_worth_a_tree(statement.lower())):
            return []
        root: Any = parse_sql(statement)[0].stmt
        if isinstance(root, ast.AlterSubscriptionStmt) and _gives_up_slot(root):
            self._detached.add(str(root.subname))
        if isinstance(root, ast.DropSubscriptionStmt) and root.subname in self._detached:
            return []
        found = [*_of_copy(root), *self._found(root, statement)]
        if self.online:
            found = list(in_online_script(found, root, statement, self.online))
        return sorted(dict.fromkeys(found), key=lambda offence: offence.line)

    def _found(self, root: ast.Node, statement: str) -> Iterator[Offence]:
        return _in_do(root, statement) if isinstance(root, ast.DoStmt) else _in(root, statement)


def _of_copy(root: ast.Node) -> Iterator[Offence]:
    if isinstance(root, ast.CopyStmt) and reads_stdin(root):
        yield from copy_offences(root)


def _is_worth_a_tree(lowered: str) -> bool:
    return bool(_BEGINS.match(lowered) or _HOLDS.search(lowered))


def _first_word(statement: str) -> str:
    return re.match("[A-Za-z]*", statement)[0]  # type: ignore[index]  # always a match


def _gives_up_slot(subscription: ast.AlterSubscriptionStmt) -> bool:
    """SET (slot_name = NONE), after which DROP SUBSCRIPTION may run in a transaction."""
    options = subscription.options or ()
    return any(o.defname == "slot_name" and getattr(o.arg, "sval", "") == "none" for o in options)


def _in(root: ast.Node, statement: str) -> Iterator[Offence]:
    holds_ledger = LEDGER in statement.lower()
    for node in _nodes(root):
        line = 0 if node is root else _line(node, statement)
        for rule in () if isinstance(root, STORED) else RULES.get(type(node), ()):
            if found := rule.applies(node):
                name = _first_word(statement).upper() if found is True else found
                yield Offence(line, rule.words.format(name), rule.way_out)
        if holds_ledger and LEDGER in _schemas(node):
            yield Offence(line, _LEDGER_WORDS, _OFF_THE_LEDGER)


def _line(node: ast.Node, statement: str) -> int:
    """Lines above a node; 0 for one that does not know where it is."""
    return statement.count("\n", 0, max(getattr(node, "location", None) or 0, 0))


def _nodes(root: ast.Node) -> Iterator[ast.Node]:
    """All nodes of a tree. By a stack: a tree may be deeper than Python recurses."""
    left: list[object] = [root]
    while left:
        item = left.pop()
        if isinstance(item, ast.Node):
            yield item
            left += reversed([getattr(item, name) for name in item])
        elif isinstance(item, tuple):
            left += reversed(item)


def _in_do(root: ast.DoStmt, statement: str) -> Iterator[Offence]:
    """What is wrong with a DO block: its COMMIT and ROLLBACK, and the SQL that it spells out."""
    try:
        functions = parse_plpgsql(statement)
    except (ParseError, RecursionError):
        return
    body = next(option for option in root.args or () if option.defname == "as")
    first = statement.count("\n", 0, body.location)
    for kind, node, number in _plpgsql(functions):
        line = first + max(number - 1, 0)
        if kind in _PLPGSQL:
            yield Offence(line, f"{_PLPGSQL[kind]} ends the release's transaction", ONE_TRANSACTION)
        elif kind == "PLpgSQL_expr" and node.get("parseMode") == 0:
            query = node["query"]  # whose syntax parse_plpgsql has checked
            if reads_from_client(query):
                yield Offence(line, "COPY FROM STDIN in a DO block has no rows", _ROWS_OUTSIDE)
                continue
            for offence in Judge().judge(query):
                yield replace(offence, line=line + offence.line)


_PLPGSQL = {"PLpgSQL_stmt_commit": "COMMIT", "PLpgSQL_stmt_rollback": "ROLLBACK"}


def _plpgsql(functions: list[Any]) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """The nodes of a PL/pgSQL tree: type, content, and the line of the statement they are in."""
    left: list[tuple[object, int]] = [(functions, 1)]
    while left:
        item, line = left.pop()
        if isinstance(item, list):
            left += ((below, line) for below in reversed(item))
        elif isinstance(item, dict):
            for kind, below in item.items():
                if isinstance(below, dict):
                    number = below.get("lineno", line)
                    yield kind, below, number
                    left.append((below, number))
                else:
                    left.append((below, line))


def _schemas(node: ast.Node) -> Iterator[str]:
    """The schemas that a node names, by what it is or as part of a qualified name."""
    yield from (getattr(node, name, None) or "" for name in _SCHEMA_ATTRIBUTES)
    of_schema = any(getattr(node, name, None) in kinds for name, kinds in _SCHEMA_KINDS.items())
    if of_schema:
        yield from (getattr(node, name, None) or "" for name in ("subname", "newname"))
    if isinstance(node, ast.VariableSetStmt) and node.name == "search_path":
        yield from (getattr(item.val, "sval", "") for item in node.args or ())
    if isinstance(node, ast.ColumnRef):  # begins with a table, or an alias of one
        return
    below = any(getattr(node, name, None) in _PARTS_OF_TABLES for name in _KINDS)
    for name in node:
        for names in _lists_of_names(getattr(node, name)):
            if of_schema or getattr(node, "defname", "") in {"schema", "schemas"}:
                yield from names
            elif below or getattr(node, "defname", "") == "owned_by":
                yield from names[-3:-2]
            else:
                yield from names[-2:-1]


def _lists_of_names(value: object) -> Iterator[list[str]]:
    """The lists of names that an attribute is or holds; a name alone is a list of one."""
    if isinstance(value, ast.String):
        yield [str(value.sval)]
    elif isinstance(value, tuple) and value and all(isinstance(v, ast.String) for v in value):
        yield [str(v.sval) for v in value]
    elif isinstance(value, tuple):
        yield from (names for below in value for names in _lists_of_names(below))


_KINDS = ("objtype", "objectType", "removeType", "renameType")
_SCHEMA_ATTRIBUTES = ("schemaname", "newschema", "local_schema")
_SCHEMA_KINDS = {
    **dict.fromkeys(_KINDS, (ObjectType.OBJECT_SCHEMA,)),
    "targtype": (GrantTargetType.ACL_TARGET_ALL_IN_SCHEMA,),
}
_PARTS_OF_TABLES = (
    ObjectType.OBJECT_COLUMN,
    ObjectType.OBJECT_POLICY,
    ObjectType.OBJECT_RULE,
    ObjectType.OBJECT_TABCONSTRAINT,
    ObjectType.OBJECT_TRIGGER,
)
"""Their names have that of the table before them."""
