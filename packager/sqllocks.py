"""Finds the locks that statements take on tables.

No more than the text shows: not the partitions and children that a statement reaches too, nor the
tables at the other end of a foreign key or of CASCADE that it drops; not what functions and DO
blocks do, and no statement longer than LONGEST. Locks that keep neither readers nor writers out are
told only where the whole table is read.

The rules are those of PostgreSQL's documentation: Explicit Locking (13.3), and the pages of the
statements. tests/integration/test_locks.py runs each of them, and compares it with pg_locks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pglast import ast
from pglast.enums import ObjectType, ReindexObjectType
from pglast.parser import parse_sql

from packager.locks import Effect, Lock, Mode, Name, Work
from packager.sqlalter import TABLES, Tree, alter_table, name_of, referenced, trees

# As in packager.sqljudge: only what may lock a table is worth a tree, or looking for where it is.
_WORDS = (
    "alter",
    "cluster",
    "create",
    "drop",
    "lock",
    "refresh",
    "reindex",
    "truncate",
    "vacuum",
)


def effects(text: str) -> Iterator[tuple[int, Effect]]:
    """The effects of the statements in `text`, each with the character that the statement is at.

    `text` is whole statements that the parser accepts.
    """
    for at, root in trees(text, _WORDS):
        effect = _effect(root)
        if effect != Effect():
            yield at, effect


def effect_of(statement: str) -> Effect:
    """The effect of one statement."""
    return _effect(parse_sql(statement)[0].stmt)


def _effect(root: Tree) -> Effect:
    kind = type(root)
    return Effect(
        locks=_strongest(_LOCKS.get(kind, _none)(root)),
        makes=tuple(_MAKES.get(kind, _none)(root)),
        renames=tuple(_RENAMES.get(kind, _none)(root)),
    )


def _none(_: Tree) -> tuple[()]:
    return ()


def _strongest(locks: Iterable[Lock]) -> tuple[Lock, ...]:
    """Of the locks that matter, one for each table: a foreign key may lead to its own table."""
    found: dict[Name, Lock] = {}
    for lock in locks:
        if lock.mode < Mode.SHARE and not lock.work:
            continue
        other = found.setdefault(lock.name, lock)
        mode, work = max(lock.mode, other.mode), max(lock.work, other.work)
        found[lock.name] = replace(other, mode=mode, work=work)
    return tuple(found.values())


# ------------------------------------------------------------------------------- statements


def _create_table(root: Tree) -> Iterator[Lock]:
    yield from referenced(root, "CREATE TABLE … REFERENCES")
    if root.partbound:
        for parent in root.inhRelations:
            yield Lock("CREATE TABLE … PARTITION OF", name_of(parent), Mode.ACCESS_EXCLUSIVE)


def _create_index(root: Tree) -> Iterator[Lock]:
    if not root.concurrent:
        yield Lock("CREATE INDEX", name_of(root.relation), Mode.SHARE, Work.INDEX)


def _create_trigger(root: Tree) -> Iterator[Lock]:
    yield Lock("CREATE TRIGGER", name_of(root.relation), Mode.SHARE_ROW_EXCLUSIVE)


def _create_view(root: Tree) -> Iterator[Lock]:
    if root.replace:
        yield Lock("CREATE OR REPLACE VIEW", name_of(root.view), Mode.ACCESS_EXCLUSIVE)


def _drop(root: Tree) -> Iterator[Lock]:
    kind = root.removeType
    for names in root.objects if kind in (*TABLES, *_ON_TABLES, ObjectType.OBJECT_INDEX) else ():
        parts = [name.sval for name in (names[:-1] if kind in _ON_TABLES else names)]
        of_index = kind == ObjectType.OBJECT_INDEX
        statement = f"DROP {(TABLES | _ON_TABLES).get(kind, 'INDEX')}"
        if not root.concurrent:
            name = (parts[-2] if len(parts) > 1 else "", parts[-1])
            yield Lock(statement, name, Mode.ACCESS_EXCLUSIVE, of_index=of_index)


_ON_TABLES = {
    ObjectType.OBJECT_POLICY: "POLICY",
    ObjectType.OBJECT_RULE: "RULE",
    ObjectType.OBJECT_TRIGGER: "TRIGGER",
}


def _rename(root: Tree) -> Iterator[Lock]:
    kinds = {*TABLES, *_ON_TABLES, ObjectType.OBJECT_COLUMN, ObjectType.OBJECT_TABCONSTRAINT}
    if root.renameType in kinds and root.relationType != ObjectType.OBJECT_TYPE:
        yield Lock("ALTER … RENAME", name_of(root.relation), Mode.ACCESS_EXCLUSIVE)


def _set_schema(root: Tree) -> Iterator[Lock]:
    if root.objectType in TABLES:
        yield Lock("ALTER … SET SCHEMA", name_of(root.relation), Mode.ACCESS_EXCLUSIVE)


def _lock(root: Tree) -> Iterator[Lock]:
    return (Lock("LOCK TABLE", name_of(table), Mode(root.mode)) for table in root.relations)


def _truncate(root: Tree) -> Iterator[Lock]:
    return (Lock("TRUNCATE", name_of(table), Mode.ACCESS_EXCLUSIVE) for table in root.relations)


def _refresh(root: Tree) -> Iterator[Lock]:
    if not root.concurrent:
        statement = "REFRESH MATERIALIZED VIEW"
        yield Lock(statement, name_of(root.relation), Mode.ACCESS_EXCLUSIVE, Work.REWRITE)


def _reindex(root: Tree) -> Iterator[Lock]:
    concurrently = any(option.defname == "concurrently" for option in root.params or ())
    if root.relation and not concurrently:
        of_index = root.kind == ReindexObjectType.REINDEX_OBJECT_INDEX
        yield Lock("REINDEX", name_of(root.relation), Mode.SHARE, Work.REINDEX, of_index)


def _cluster(root: Tree) -> Iterator[Lock]:
    if root.relation:
        yield Lock("CLUSTER", name_of(root.relation), Mode.ACCESS_EXCLUSIVE, Work.REWRITE)


def _vacuum(root: Tree) -> Iterator[Lock]:
    if any(option.defname == "full" for option in root.options or ()):
        for table in root.rels or ():
            name = name_of(table.relation)
            yield Lock("VACUUM FULL", name, Mode.ACCESS_EXCLUSIVE, Work.REWRITE)


def _on(attribute: str, statement: str) -> Callable[[Any], Iterator[Lock]]:
    """An ACCESS EXCLUSIVE lock on the table that an attribute of a statement names."""

    def locks(root: Tree) -> Iterator[Lock]:
        yield Lock(statement, name_of(getattr(root, attribute)), Mode.ACCESS_EXCLUSIVE)

    return locks


_LOCKS: Mapping[type[ast.Node], Callable[[Any], Iterable[Lock]]] = {
    ast.AlterObjectSchemaStmt: _set_schema,
    ast.AlterPolicyStmt: _on("table", "ALTER POLICY"),
    ast.AlterTableStmt: alter_table,
    ast.ClusterStmt: _cluster,
    ast.CreatePolicyStmt: _on("table", "CREATE POLICY"),
    ast.CreateStmt: _create_table,
    ast.CreateTrigStmt: _create_trigger,
    ast.DropStmt: _drop,
    ast.IndexStmt: _create_index,
    ast.LockStmt: _lock,
    ast.RefreshMatViewStmt: _refresh,
    ast.ReindexStmt: _reindex,
    ast.RenameStmt: _rename,
    ast.RuleStmt: _on("relation", "CREATE RULE"),
    ast.TruncateStmt: _truncate,
    ast.VacuumStmt: _vacuum,
    ast.ViewStmt: _create_view,
}

# ----------------------------------------------------------------------------------- what is made

_MAKES: Mapping[type[ast.Node], Callable[[Any], Iterable[Name]]] = {
    ast.CreateForeignTableStmt: lambda root: [name_of(root.base.relation)],
    ast.CreateStmt: lambda root: [name_of(root.relation)],
    ast.CreateTableAsStmt: lambda root: [name_of(root.into.rel)],
    ast.IndexStmt: lambda root: [(root.relation.schemaname or "", root.idxname or "")],
    ast.ViewStmt: lambda root: [name_of(root.view)],
}


def _new_name(root: Tree) -> Iterator[tuple[Name, Name]]:
    if root.renameType in (*TABLES, ObjectType.OBJECT_INDEX):
        schema, name = name_of(root.relation)
        yield (schema, name), (schema, root.newname)


def _new_schema(root: Tree) -> Iterator[tuple[Name, Name]]:
    if root.objectType in TABLES:
        schema, name = name_of(root.relation)
        yield (schema, name), (root.newschema, name)


_RENAMES: Mapping[type[ast.Node], Callable[[Any], Iterable[tuple[Name, Name]]]] = {
    ast.AlterObjectSchemaStmt: _new_schema,
    ast.RenameStmt: _new_name,
}
