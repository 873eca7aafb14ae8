"""Whether every column has a rule that holds: default-deny. Pure.

All that is wrong is told at once. What a run finds out only over the loaded rows, an hour later,
is not left to it where the catalog knows it: a mask that is not unique in a key, a foreign key
whose two sides are masked apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from installer.settings import nearest
from refresher.errors import UnclassifiedError
from refresher.masks import agree, objection
from refresher.model import Catalog, Column, Table, TableName
from refresher.rules import Rule, Rules

LEDGER = "countersign"
"""The schema of the ledger, which is copied as it is: it says who signed, no more of people."""


def require_classified(catalog: Catalog, rules: Rules) -> None:
    """Refuse rules that leave a column out, or do not fit one.

    Generated columns are computed anew on the target and have no rule. A partition has the rules
    of its partitioned table. The ledger has none.

    Raises:
        UnclassifiedError: `detail` has a line for each, and for each rule that may be misspelt.
    """
    problems = [*_misfits(catalog, rules), *_torn(catalog, rules)]
    if problems:
        number = "1 column has" if len(problems) == 1 else f"{len(problems)} columns have"
        detail = "\n".join([*problems, *unused(catalog, rules)])
        raise UnclassifiedError(f"{number} no mask that holds", detail=detail)


def rules_of(catalog: Catalog, table: Table, rules: Rules) -> Mapping[str, Rule]:
    """The rules of a table by column; a partition has those of the table that it is a part of."""
    tables = _by_name(catalog)
    while table.partition_of is not None and table.partition_of in tables:
        table = tables[table.partition_of]
    return rules.get(str(table.name), {})


def masked_columns(table: Table) -> tuple[Column, ...]:
    """The columns that have a rule; one that is in the primary key counts as unique.

    Of a key of several columns that asks more than is needed, and is never wrong.
    """
    if table.name.schema == LEDGER:
        return ()
    return tuple(
        replace(column, unique=column.unique or column.name in table.primary_key)
        for column in table.columns
        if not column.generated
    )


def _by_name(catalog: Catalog) -> dict[TableName, Table]:
    return {table.name: table for table in catalog.tables}


def unused(catalog: Catalog, rules: Rules) -> Iterator[str]:
    """Rules for what the source does not have, or not yet: a release may be on its way with it."""
    known = {str(t.name): t for t in catalog.tables if t.partition_of is None}
    for name, columns in rules.items():
        if name not in known:
            yield f"{name}: there is no such table; {nearest(name, known)}"
            continue
        masked = [column.name for column in masked_columns(known[name])]
        for column in columns:
            if column not in masked:
                yield f"{name}: there is no column {column} to mask; {nearest(column, masked)}"


def _misfits(catalog: Catalog, rules: Rules) -> Iterator[str]:
    for table in catalog.tables:
        if table.partition_of is not None:
            continue
        own = rules.get(str(table.name), {})
        for column in masked_columns(table):
            if column.name not in own:
                yield f"{table.name}: column {column.name} ({column.type}) has no class"
            elif reason := _reason(table, column, own[column.name]):
                yield f"{table.name}: {reason}"


def _reason(table: Table, column: Column, rule: Rule) -> str:
    names = [other.name for other in table.columns]
    if rule.by and rule.by not in names:
        return f"column {column.name}: by is {rule.by!r}; {nearest(rule.by, names)}"
    return objection(column, rule)


def _torn(catalog: Catalog, rules: Rules) -> Iterator[str]:
    """Foreign keys that would not be satisfied, as their two sides are masked in different ways."""
    tables = _by_name(catalog)
    for key in catalog.foreign_keys:
        table, references = tables[key.table], tables[key.references]
        own, others = (rules_of(catalog, side, rules) for side in (table, references))
        for name, referenced in zip(key.columns, key.referenced, strict=True):
            if name not in own or referenced not in others:
                continue  # told as a column without a class
            column, other = _column(table, name), _column(references, referenced)
            if not agree(column, own[name], other, others[referenced]):
                yield (
                    f"{table.name}: column {name} references {references.name}.{referenced} "
                    f"({key.name}), and both have to be masked alike: one class, one domain, the "
                    "same options (bits too, where one is a bigint and the other is not)"
                )


def _column(table: Table, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)
