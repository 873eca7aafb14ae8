"""Reads what statements do to tables and their columns, and plays it on `packager.columns.Tables`.

No more than the text shows: not what functions and DO blocks do, and no statement longer than
LONGEST. Where the text does not name columns, `SELECT *` for one, there are OTHERS.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType, ConstrType, ObjectType, TableLikeOption

from packager.columns import OTHERS, TEMPORARY, Place, Tables
from packager.locks import Name
from packager.sqlalter import Tree, name_of, trees

_WORDS = ("alter", "create", "drop", "select", "with")


def statements(text: str) -> Iterator[tuple[int, Tree]]:
    """The statements in `text` that may be worth playing, each with the character it is at."""
    return trees(text, _WORDS)


def play(root: Tree, tables: Tables, place: Place | None) -> None:
    """Play one statement; `place` as `Tables` has it."""
    if reads := _READERS.get(type(root)):
        reads(root, tables, place)


def _made(table: Tree) -> Name:
    """The name of a table that a statement makes."""
    return (TEMPORARY, table.relname) if table.relpersistence == "t" else name_of(table)


def _create_table(root: Tree, tables: Tables, place: Place | None, *, copied: bool = True) -> None:
    name = _made(root.relation)
    if root.if_not_exists and tables.has(name):
        return
    tables.make(name, copied=copied and name[0] != TEMPORARY)
    for element in root.tableElts or ():
        if type(element) is ast.ColumnDef:
            _add(tables, name, element, place)
        if type(element) is ast.TableLikeClause:
            _add_like(tables, name, element, place)
    for parent in root.inhRelations or ():
        tables.inherit(name, name_of(parent), place, part=bool(root.partbound))
    if root.ofTypename:
        tables.add(name, [OTHERS], place)


def _add(tables: Tables, name: Name, column: Tree, place: Place | None) -> None:
    kinds = {constraint.contype for constraint in column.constraints or ()}
    generated = ConstrType.CONSTR_GENERATED in kinds
    tables.add(name, [column.colname], place, generated=generated)


def _add_like(tables: Tables, name: Name, like: Tree, place: Place | None) -> None:
    generated = like.options & TableLikeOption.CREATE_TABLE_LIKE_GENERATED
    tables.add_like(name, name_of(like.relation), place, generated=bool(generated))


def _create_foreign_table(root: Tree, tables: Tables, place: Place | None) -> None:
    _create_table(root.base, tables, place, copied=False)


def _create_schema(root: Tree, tables: Tables, place: Place | None) -> None:
    for element in root.schemaElts or ():
        if type(element) is ast.CreateStmt:
            made: Tree = element.relation
            made.schemaname = root.schemaname
            play(element, tables, place)


def _create_view(root: Tree, tables: Tables, _: Place | None) -> None:
    tables.make(_made(root.view), copied=False)


def _create_table_as(root: Tree, tables: Tables, place: Place | None) -> None:
    if root.objtype == ObjectType.OBJECT_MATVIEW:
        tables.make(name_of(root.into.rel), copied=False)
    elif not (root.if_not_exists and tables.has(_made(root.into.rel))):
        _make_as(root.into, root.query, tables, place)


def _select(root: Tree, tables: Tables, place: Place | None) -> None:
    first = _first(root)
    if first.intoClause:
        _make_as(first.intoClause, first, tables, place)


def _make_as(into: Tree, query: Tree, tables: Tables, place: Place | None) -> None:
    name = _made(into.rel)
    given = [column.sval for column in into.colNames or ()]
    names = _names(query)
    others = [OTHERS] if None in names else []
    tables.make(name, copied=name[0] != TEMPORARY)
    tables.add(name, [*given, *(each or OTHERS for each in names[len(given) :]), *others], place)


def _first(query: Tree) -> Tree:
    """Of what UNION and the like put together, the first: its columns' names are those of all."""
    while query.larg:
        query = query.larg
    return query


def _names(query: Tree) -> list[str | None]:
    """The names of a query's columns, OTHERS for one that has none here, None for any number."""
    if not isinstance(query, ast.SelectStmt):  # EXECUTE
        return [None]
    first = _first(query)
    if first.valuesLists:
        return [f"column{number}" for number, _ in enumerate(first.valuesLists[0], 1)]
    return [_name(target) for target in first.targetList or ()]


def _name(target: Tree) -> str | None:
    value = target.val
    while isinstance(value, ast.TypeCast):
        value = value.arg
    is_column = isinstance(value, ast.ColumnRef)
    last = value.fields[-1] if is_column else None
    if isinstance(last, ast.A_Star):
        return None
    return str(target.name or (last.sval if last else OTHERS))


def _alter_table(root: Tree, tables: Tables, place: Place | None) -> None:
    name = name_of(root.relation)
    for command in root.cmds if root.objtype == ObjectType.OBJECT_TABLE else ():
        if alters := _ALTERS.get(command.subtype):
            alters(name, command, tables, place)


def _add_column(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    if not (command.missing_ok and tables.has(name, command.def_.colname)):
        _add(tables, name, command.def_, place)


def _drop_column(name: Name, command: Tree, tables: Tables, _: Place | None) -> None:
    tables.drop_column(name, command.name)


def _drop_expression(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    tables.add(name, [command.name], place)


def _attach(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    tables.inherit(name_of(command.def_.name), name, place, part=True)


def _detach(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    tables.detach(name_of(command.def_.name), name, place)


def _inherit(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    tables.inherit(name, name_of(command.def_), place, part=False)


def _inherit_no_more(name: Name, command: Tree, tables: Tables, place: Place | None) -> None:
    tables.detach(name, name_of(command.def_), place)


_ALTERS: Mapping[AlterTableType, Callable[[Name, Any, Tables, Place | None], None]] = {
    AlterTableType.AT_AddColumn: _add_column,
    AlterTableType.AT_AddInherit: _inherit,
    AlterTableType.AT_AttachPartition: _attach,
    AlterTableType.AT_DetachPartition: _detach,
    AlterTableType.AT_DropColumn: _drop_column,
    AlterTableType.AT_DropExpression: _drop_expression,
    AlterTableType.AT_DropInherit: _inherit_no_more,
}


def _rename(root: Tree, tables: Tables, place: Place | None) -> None:
    if root.renameType == ObjectType.OBJECT_SCHEMA:
        for schema, table in tables.in_schema(root.subname):
            tables.move((schema, table), (root.newname, table), place)
    elif root.renameType == ObjectType.OBJECT_TABLE:
        tables.move(name_of(root.relation), ("", root.newname), place)
    elif (root.renameType, root.relationType) == _COLUMN_OF_A_TABLE:
        tables.rename_column(name_of(root.relation), root.subname, root.newname, place)


_COLUMN_OF_A_TABLE = (ObjectType.OBJECT_COLUMN, ObjectType.OBJECT_TABLE)


def _set_schema(root: Tree, tables: Tables, place: Place | None) -> None:
    if root.objectType == ObjectType.OBJECT_TABLE:
        name = name_of(root.relation)
        tables.move(name, (root.newschema, name[1]), place)


def _drop(root: Tree, tables: Tables, _: Place | None) -> None:
    for name in _dropped(root, tables):
        tables.drop(name)


def _dropped(root: Tree, tables: Tables) -> Iterable[Name]:
    if root.removeType == ObjectType.OBJECT_SCHEMA:
        return [name for schema in root.objects for name in tables.in_schema(schema.sval)]
    if root.removeType in _DROPPED:
        names = [[part.sval for part in parts] for parts in root.objects]
        return [(".".join(parts[-2:-1]), parts[-1]) for parts in names]
    return ()


_DROPPED = (
    ObjectType.OBJECT_TABLE,
    ObjectType.OBJECT_FOREIGN_TABLE,
    ObjectType.OBJECT_MATVIEW,
    ObjectType.OBJECT_VIEW,
)

_READERS: Mapping[type[ast.Node], Callable[[Any, Tables, Place | None], None]] = {
    ast.AlterObjectSchemaStmt: _set_schema,
    ast.AlterTableStmt: _alter_table,
    ast.CreateForeignTableStmt: _create_foreign_table,
    ast.CreateSchemaStmt: _create_schema,
    ast.CreateStmt: _create_table,
    ast.CreateTableAsStmt: _create_table_as,
    ast.DropStmt: _drop,
    ast.RenameStmt: _rename,
    ast.SelectStmt: _select,
    ast.ViewStmt: _create_view,
}
