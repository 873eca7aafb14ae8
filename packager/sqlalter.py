"""What the commands of ALTER TABLE lock, and what they do with a table's rows.

Source: PostgreSQL's page of ALTER TABLE, which names the lock of each command, or else it is ACCESS
EXCLUSIVE, and says when the table is read or rewritten.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pglast import ast
from pglast.enums import AlterTableType, ConstrType, ObjectType
from pglast.parser import parse_sql, split

from packager.locks import Lock, Mode, Name, Work
from packager.sqlrules import LONGEST

Tree: TypeAlias = Any
"""A node of pglast's, which says of each attribute that it may be missing."""


@dataclass(frozen=True, slots=True)
class _Command:
    """What a command of ALTER TABLE is called, and does to the table."""

    words: str
    mode: Mode = Mode.ACCESS_EXCLUSIVE
    work: Work = Work.NONE


def _add_column(command: Tree) -> _Command:
    column = command.def_
    constraints = column.constraints or ()
    kinds = {constraint.contype for constraint in constraints}
    work = [_ADDED.get(kind, Work.NONE) for kind in kinds]
    if column.typeName.names[-1].sval in _SERIALS:
        work.append(Work.REWRITE)
    for constraint in constraints:
        if constraint.contype == ConstrType.CONSTR_DEFAULT:
            work.append(_work_of_default(constraint.raw_expr))
        if constraint.contype == ConstrType.CONSTR_GENERATED and constraint.generated_kind != "v":
            work.append(Work.REWRITE)
    # NULL in every row: nothing to look up for a foreign key, but all there is to refuse.
    has_default = ConstrType.CONSTR_DEFAULT in kinds
    if (ConstrType.CONSTR_FOREIGN if has_default else ConstrType.CONSTR_NOTNULL) in kinds:
        work.append(Work.SCAN)
    return _Command("ADD COLUMN", work=max(work, default=Work.NONE))


_SERIALS = ("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8")
_ADDED = {
    ConstrType.CONSTR_CHECK: Work.SCAN,
    ConstrType.CONSTR_IDENTITY: Work.REWRITE,
    ConstrType.CONSTR_PRIMARY: Work.INDEX,
    ConstrType.CONSTR_UNIQUE: Work.INDEX,
}


def _work_of_default(expression: Tree) -> Work:
    names = {call.funcname[-1].sval for call in all_of(expression, ast.FuncCall)}
    if names & _VOLATILE:
        return Work.REWRITE
    return Work.REWRITE_IF_VOLATILE if names - _NOT_VOLATILE else Work.NONE


_VOLATILE = {"clock_timestamp", "gen_random_uuid", "nextval", "random", "timeofday"}
_NOT_VOLATILE = {"now", "statement_timestamp", "transaction_timestamp"}


def _add_constraint(command: Tree) -> _Command:
    constraint = command.def_
    words, mode, work = _CONSTRAINTS.get(constraint.contype, ("", Mode.ACCESS_EXCLUSIVE, Work.NONE))
    if constraint.skip_validation:
        return _Command(f"ADD {words} NOT VALID", mode)
    if constraint.indexname:
        primary = constraint.contype == ConstrType.CONSTR_PRIMARY  # makes its columns NOT NULL
        work = Work.VERIFY if primary else Work.NONE
        return _Command(f"ADD {words} USING INDEX", mode, work)
    return _Command(f"ADD {words}".rstrip(), mode, work)


_CONSTRAINTS = {
    ConstrType.CONSTR_CHECK: ("CHECK", Mode.ACCESS_EXCLUSIVE, Work.SCAN),
    ConstrType.CONSTR_NOTNULL: ("NOT NULL", Mode.ACCESS_EXCLUSIVE, Work.VERIFY),
    ConstrType.CONSTR_PRIMARY: ("PRIMARY KEY", Mode.ACCESS_EXCLUSIVE, Work.INDEX),
    ConstrType.CONSTR_UNIQUE: ("UNIQUE", Mode.ACCESS_EXCLUSIVE, Work.INDEX),
    ConstrType.CONSTR_EXCLUSION: ("EXCLUDE", Mode.ACCESS_EXCLUSIVE, Work.INDEX),
    ConstrType.CONSTR_FOREIGN: ("FOREIGN KEY", Mode.SHARE_ROW_EXCLUSIVE, Work.SCAN),
}


def _set_options(command: Tree) -> _Command:
    strong = any(option.defname in _STRONG_OPTIONS for option in command.def_ or ())
    return _Command("SET", Mode.ACCESS_EXCLUSIVE if strong else Mode.SHARE_UPDATE_EXCLUSIVE)


_STRONG_OPTIONS = ("check_option", "security_barrier", "security_invoker", "user_catalog_table")


def _commands(names: Iterable[str], command: _Command) -> dict[AlterTableType, _Command]:
    """The same for several; a name that this parser's version lacks cannot be met."""
    members = AlterTableType.__members__
    return {members[f"AT_{n}"]: command for n in names if f"AT_{n}" in members}


_TRIGGERS = ("Trig", "AlwaysTrig", "ReplicaTrig", "TrigAll", "TrigUser")
_COMMANDS: Mapping[AlterTableType, _Command] = {
    **_commands(["DropColumn"], _Command("DROP COLUMN")),
    **_commands(["ColumnDefault"], _Command("ALTER COLUMN … DEFAULT")),
    **_commands(["DropNotNull"], _Command("DROP NOT NULL")),
    **_commands(["SetNotNull"], _Command("SET NOT NULL", work=Work.VERIFY)),
    **_commands(["SetExpression"], _Command("SET EXPRESSION", work=Work.REWRITE)),
    **_commands(
        ["AlterColumnType"], _Command("ALTER COLUMN … TYPE", work=Work.REWRITE_UNLESS_SAME)
    ),
    **_commands(
        ["SetStatistics", "SetOptions", "ResetOptions", "ClusterOn", "DropCluster"],
        _Command("SET", Mode.SHARE_UPDATE_EXCLUSIVE),
    ),
    **_commands(["DropConstraint"], _Command("DROP CONSTRAINT")),
    **_commands(["AlterConstraint"], _Command("ALTER CONSTRAINT")),
    **_commands(
        ["ValidateConstraint"],
        _Command("VALIDATE CONSTRAINT", Mode.SHARE_UPDATE_EXCLUSIVE, Work.SCAN),
    ),
    **_commands(["ChangeOwner"], _Command("OWNER TO")),
    **_commands(["SetLogged"], _Command("SET LOGGED", work=Work.REWRITE)),
    **_commands(["SetUnLogged"], _Command("SET UNLOGGED", work=Work.REWRITE)),
    **_commands(["SetAccessMethod"], _Command("SET ACCESS METHOD", work=Work.REWRITE)),
    **_commands(["SetTableSpace"], _Command("SET TABLESPACE", work=Work.REWRITE)),
    **_commands(
        [f"{verb}{kind}" for verb in ("Enable", "Disable") for kind in _TRIGGERS],
        _Command("ENABLE or DISABLE TRIGGER", Mode.SHARE_ROW_EXCLUSIVE),
    ),
    **_commands(["AttachPartition"], _Command("ATTACH PARTITION", Mode.SHARE_UPDATE_EXCLUSIVE)),
    **_commands(["DetachPartition"], _Command("DETACH PARTITION")),
}
_SPECIAL: Mapping[AlterTableType, Callable[[Any], _Command]] = {
    AlterTableType.AT_AddColumn: _add_column,
    AlterTableType.AT_AddConstraint: _add_constraint,
    AlterTableType.AT_SetRelOptions: _set_options,
    AlterTableType.AT_ResetRelOptions: _set_options,
}
_OTHER = _Command("…")
"""Any other command; the documentation: ACCESS EXCLUSIVE, unless it says otherwise."""


def _command(command: Tree) -> _Command:
    special = _SPECIAL.get(command.subtype)
    return special(command) if special else _COMMANDS.get(command.subtype, _OTHER)


def alter_table(root: Tree) -> Iterator[Lock]:
    """The locks of an ALTER TABLE: the strongest of its commands', and those on other tables."""
    if root.objtype not in TABLES:
        return
    found = [_command(command) for command in root.cmds]
    words = ", ".join(dict.fromkeys(command.words for command in found))
    statement = f"ALTER {TABLES[root.objtype]} {words}"
    mode, work = max(c.mode for c in found), max(c.work for c in found)
    yield Lock(statement, name_of(root.relation), mode, work)
    yield from referenced(root, statement)
    for command in root.cmds:
        if isinstance(command.def_, ast.PartitionCmd) and not command.def_.concurrent:
            attaches = command.subtype == AlterTableType.AT_AttachPartition
            work = Work.VERIFY if attaches else Work.NONE
            yield Lock(statement, name_of(command.def_.name), Mode.ACCESS_EXCLUSIVE, work)


TABLES = {
    ObjectType.OBJECT_TABLE: "TABLE",
    ObjectType.OBJECT_VIEW: "VIEW",
    ObjectType.OBJECT_MATVIEW: "MATERIALIZED VIEW",
    ObjectType.OBJECT_FOREIGN_TABLE: "FOREIGN TABLE",
}


def referenced(root: Tree, statement: str) -> Iterator[Lock]:
    """The locks on the tables that the foreign keys in a statement lead to."""
    for constraint in all_of(root, ast.Constraint):
        if constraint.contype == ConstrType.CONSTR_FOREIGN:
            yield Lock(statement, name_of(constraint.pktable), Mode.SHARE_ROW_EXCLUSIVE)


def trees(text: str, words: tuple[str, ...]) -> Iterator[tuple[int, Tree]]:
    """The statements in `text` that begin with one of `words`, each with the character it is at.

    `text` is whole statements that the parser accepts; one longer than LONGEST is left out.
    """
    lowered = text.lower()
    if not any(word in lowered for word in words):
        return
    for place in split(text, only_slices=True):
        statement = text[place]
        if len(statement) <= LONGEST and statement.lower().startswith(words):
            yield place.start, parse_sql(statement)[0].stmt


def name_of(table: Tree) -> Name:
    """The name that a statement has for a table."""
    return table.schemaname or "", table.relname


def all_of(root: Tree, kind: type[ast.Node]) -> Iterator[Any]:
    """The nodes of a kind in a tree; by a stack, as in packager.sqljudge."""
    left: list[object] = [root]
    while left:
        item = left.pop()
        if isinstance(item, kind):
            yield item
        if isinstance(item, ast.Node):
            left += reversed([getattr(item, name) for name in item])
        elif isinstance(item, tuple):
            left += reversed(item)
