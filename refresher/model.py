"""What a database's catalog says of its tables, as far as a refresh asks. Pure.

Names are bare here, and quoted where they become SQL: `TableName.sql`, `quoted`.
"""

from dataclasses import dataclass

from installer.quoting import quoted


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    `type` is written as format_type() writes it, `base` is the type below domains, in the same
    way and without a modifier, and `length` is the n of varchar(n) and char(n), in characters.
    `unique` says that the column is alone in a primary key or in a unique constraint or index.
    """

    name: str
    type: str
    base: str
    length: int | None
    not_null: bool
    generated: bool
    identity: bool
    unique: bool


@dataclass(frozen=True, slots=True)
class TableName:
    """Schema and name of a table, or of what else is a relation."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        """The name in SQL, both parts quoted."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """Schema and name, for messages."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: ordinary, partitioned (which holds no rows itself), or a partition.

    `rows` is the planner's estimate, `bytes` what the table takes on disk without its indexes;
    `parents` are those that it inherits from, as INHERITS says, its partitioned table left out.
    """

    name: TableName
    columns: tuple[Column, ...]
    rows: int
    bytes: int
    primary_key: tuple[str, ...]
    partition_of: TableName | None
    is_partitioned: bool
    parents: tuple[TableName, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of `table` are found as `referenced` in `references`.

    `nullable`: any of the referencing columns may be null. A key that is not `declared` is
    virtual: the configuration says so, and the database does not know.
    """

    name: str
    table: TableName
    columns: tuple[str, ...]
    references: TableName
    referenced: tuple[str, ...]
    nullable: bool
    declared: bool = True


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence, and the table and the column that own it, where there are."""

    name: TableName
    owned_by: tuple[TableName, str] | None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that a refresh knows of the source's tables before it reads a row."""

    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...]
    sequences: tuple[Sequence, ...]
