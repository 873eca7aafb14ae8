"""Locks on tables, in words: what nobody else can do meanwhile, and what takes how long.

Pure, and knows no SQL: packager.sqllocks finds the locks in statements.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

Place = TypeVar("Place")

Name = tuple[str, str]
"""A schema, or "" where the statement names none, and what is in it."""


class Mode(IntEnum):
    """PostgreSQL's modes of a table lock, by its own numbers: a stronger one has a higher."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def title(self) -> str:
        """As SQL has it."""
        return self.name.replace("_", " ")


class Work(IntEnum):
    """What is done with all rows of a table while it is locked, the slowest last."""

    NONE = 0
    VERIFY = 1
    SCAN = 2
    INDEX = 3
    REINDEX = 4
    REWRITE_IF_VOLATILE = 5
    REWRITE_UNLESS_SAME = 6
    REWRITE = 7


_WORK = {
    Work.VERIFY: "all of it is read, unless a valid CHECK says the same already",
    Work.SCAN: "all of it is read, which takes time with its size",
    Work.INDEX: "an index is built of all of it, which takes time with its size",
    Work.REINDEX: "its indexes are built anew, for which readers wait too",
    Work.REWRITE_IF_VOLATILE: "it is rewritten if the default's function is volatile",
    Work.REWRITE_UNLESS_SAME: "it is rewritten, unless the old values serve as they are",
    Work.REWRITE: "it is rewritten, which takes time with its size",
}


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that `statement`, in its first words, takes.

    `name` is the table's, or that of an index whose table is locked.
    """

    statement: str
    name: Name
    mode: Mode
    work: Work = Work.NONE
    of_index: bool = False

    @property
    def table(self) -> str:
        """The table, for people."""
        shown = ".".join(filter(None, self.name))
        return f"the table of {shown}" if self.of_index else shown

    def words(self, until: str) -> str:
        """The lock in words; `until` says when it ends."""
        kept_out = "others read and write it"
        if self.mode >= Mode.SHARE:
            kept_out = "nobody writes it"
        if self.mode == Mode.ACCESS_EXCLUSIVE:
            kept_out = "nobody reads or writes it"
        work = f", and {_WORK[self.work]}" if self.work else ""
        return f"{self.statement}: {self.mode.title} on {self.table}: {kept_out} {until}{work}"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a statement locks, what it makes, and old and new name of what it renames."""

    locks: tuple[Lock, ...] = ()
    makes: tuple[Name, ...] = ()
    renames: tuple[tuple[Name, Name], ...] = ()


def outside(found: Iterable[tuple[Place, Effect]]) -> Iterator[tuple[Place, Lock]]:
    """The locks on what none of these effects, in their order, has made itself before.

    What is made only IF NOT EXISTS counts as made.
    """
    made = _Made()
    for place, effect in found:
        yield from ((place, lock) for lock in effect.locks if lock.name not in made)
        made.add(effect.makes)
        made.add(new for old, new in effect.renames if old in made)


class _Made:
    """Names; one without a schema may mean any, and is taken to."""

    def __init__(self) -> None:
        self._schemas: dict[str, set[str]] = {}

    def add(self, names: Iterable[Name]) -> None:
        for schema, name in names:
            self._schemas.setdefault(name, set()).add(schema)

    def __contains__(self, name: Name) -> bool:
        schemas = self._schemas.get(name[1], set())
        return bool(schemas) and (not name[0] or not schemas.isdisjoint({name[0], ""}))
