"""What masks hide: the values of columns, and those that paths into documents end at, as SQL. Pure.

A partition's values are its partitioned table's. Columns of the class `keep` hide nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from installer.quoting import literal, quoted
from refresher.classification import masked_columns, rules_of
from refresher.documents import steps
from refresher.model import Catalog, Column, Table
from refresher.rules import Rule, Rules


@dataclass(frozen=True, slots=True)
class Hidden:
    """A column that has a mask, or a path into one that is a document; `rule` is its own."""

    table: Table
    column: Column
    rule: Rule
    path: str = ""

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """The name in messages and reports, such as `crm.customer.settings contact.mail`."""
        return f"{self.table.name}.{self.column.name} {self.path}".rstrip()

    @property
    def value(self) -> str:
        """SQL for a value as a text, of a row of `rows`.

        A type that somebody made may have a cast that somebody wrote: it is written out without.
        """
        if self.path:
            return "leaf.value #>> '{}'"
        name = f"t.{quoted(self.column.name)}"
        return f"nullif(format('%s', {name}), '')" if "." in self.column.base else f"{name}::text"

    @property
    def rows(self) -> str:
        """SQL for what follows FROM: the table as `t`; for a path a row for each of its values."""
        only = "" if self.table.is_partitioned else "ONLY "
        rows = f"{only}{self.table.name.sql} AS t"
        if not self.path:
            return rows
        document = f"t.{quoted(self.column.name)}::jsonb"
        path = f"{literal(json_path(self.path))}::jsonpath"
        return f"{rows}, jsonb_path_query({document}, {path}) AS leaf (value)"


def hidden(catalog: Catalog, rules: Rules) -> tuple[Hidden, ...]:
    """Everything that has a mask, in the order of the catalog; `rules` hold for it."""
    tables = (table for table in catalog.tables if table.partition_of is None)
    return tuple(place for table in tables for place in _of_table(catalog, table, rules))


def _of_table(catalog: Catalog, table: Table, rules: Rules) -> Iterator[Hidden]:
    own = rules_of(catalog, table, rules)
    for column in masked_columns(table):
        rule = own[column.name]
        if rule.kind != "json":
            places = [Hidden(table, column, rule)]
        else:
            places = [Hidden(table, column, below, path) for path, below in rule.paths]
        yield from (place for place in places if place.rule.kind != "keep")


def json_path(path: str) -> str:
    """A path of a rule as one of SQL's (PostgreSQL, "The SQL/JSON Path Language").

    It is a lax one: it finds more where a document has another shape than the path says.
    """
    keys = ("[*]" if key is None else f".{json.dumps(key)}" for key in steps(path))
    return f"lax ${''.join(keys)}"
