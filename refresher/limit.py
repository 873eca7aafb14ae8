"""What `refresh.toml` says of the rows that a refresh takes. Opens no files, knows no catalog.

    [limit]
    rest = "all"                  # or "none": whether tables that no rule reaches are copied

    [[subset]]                    # several are united
    table = "public.customer"
    where = "region = 'EU'"       # "false": on purpose no row

    [[reference]]                 # a foreign key that the database does not know
    table = "public.visit"
    columns = ["customer"]
    references = "public.customer"
    referenced = ["id"]
    follow = true                 # optional

    [[foreign_key]]
    table = "public.orders"       # the one that references
    name = "orders_customer_fkey" # optional: without it, all keys of the table
    follow = false

What follows from it is told in `refresher.subset`.
"""

import re
from dataclasses import dataclass, replace

from installer.settings import Table

_TEXT = re.compile(r".*\S.*", re.DOTALL)
_REST = re.compile(r"all|none")
_NOTHING = "false"


@dataclass(frozen=True, slots=True)
class Subset:
    """`[[subset]]`: the rows of a table for which `where`, a condition in SQL, is true."""

    table: str
    where: str

    @property
    def is_nothing(self) -> bool:
        """Whether it says, on purpose, that no row is a member for its own sake."""
        return self.where.strip().lower() == _NOTHING


@dataclass(frozen=True, slots=True)
class Reference:
    """`[[reference]]`: a foreign key that the database does not know."""

    table: str
    columns: tuple[str, ...]
    references: str
    referenced: tuple[str, ...]
    follow: bool | None = None


@dataclass(frozen=True, slots=True)
class Follow:
    """`[[foreign_key]]`: whether a table's key leads downwards; all of its keys without a name."""

    table: str
    name: str | None
    follow: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """What `refresh.toml` says of rows."""

    subsets: tuple[Subset, ...]
    references: tuple[Reference, ...] = ()
    follows: tuple[Follow, ...] = ()
    rest_is_copied: bool = True


def parse_limit(top: Table) -> Limit:
    """What a file says in `[limit]`, `[[subset]]`, `[[reference]]` and `[[foreign_key]]`.

    Raises:
        ConfigurationError: a key is unknown, missing, or has a value that it cannot have.
    """
    rest = "all"
    if top.has("limit"):
        rest = top.table("limit").only("rest").text("rest", _REST, rest)
    limit = Limit(
        subsets=tuple(map(_subset, _each(top, "subset"))),
        references=tuple(map(_reference, _each(top, "reference"))),
        follows=tuple(map(_follow, _each(top, "foreign_key"))),
        rest_is_copied=rest == "all",
    )
    if len({replace(rule, follow=None) for rule in limit.references}) < len(limit.references):
        top.refuse("[[reference]] speaks of one key twice")
    if len({(rule.table, rule.name) for rule in limit.follows}) < len(limit.follows):
        top.refuse("[[foreign_key]] speaks of one key twice")
    return limit


def _each(top: Table, key: str) -> list[Table]:
    return top.each(key) if top.has(key) else []


def _subset(table: Table) -> Subset:
    table.only("table", "where")
    return Subset(table.text("table", _TEXT), table.text("where", _TEXT))


def _reference(table: Table) -> Reference:
    table.only("table", "columns", "references", "referenced", "follow")
    columns, referenced = table.texts("columns", _TEXT), table.texts("referenced", _TEXT)
    if not columns or len(columns) != len(referenced):
        table.refuse("columns and referenced must name as many columns each, and at least one")
    follow = table.flag("follow") if table.has("follow") else None
    return Reference(
        table.text("table", _TEXT), columns, table.text("references", _TEXT), referenced, follow
    )


def _follow(table: Table) -> Follow:
    table.only("table", "name", "follow")
    if not table.has("follow"):
        table.refuse("follow is missing")
    name = table.text("name", _TEXT) if table.has("name") else None
    return Follow(table.text("table", _TEXT), name, table.flag("follow"))
