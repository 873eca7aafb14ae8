# ruff: noqa: S608 - what goes into SQL here are quoted names, literals and expressions
"""Digests of values, and whether two tables have equal ones, as SQL. Pure.

Both sides make them with the seed that their sessions have as a setting, and which is in no text.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from installer.quoting import quoted
from refresher.hidden import Hidden
from refresher.model import TableName

SEED_SETTING = "countersign.seed"
SEED_BITS = 63
KNOWN = "SELECT hashtextextended('countersign' COLLATE \"C\", 4711)"
"""Asks a server for a digest by which two are seen to hash alike."""

_SEED = f"(SELECT current_setting('{SEED_SETTING}')::bigint)"  # asked for once for a statement
_FORMS = {"email": "right({}, 8)", "phone": "left({}, 4)", "hash": "length({})::text"}
_FORM_OF_UUID = "substr({}, 15, 1)"  # the version, which is 8 in a mask

Digest = Callable[[str], str]
"""SQL for a text to SQL for its digest, a bigint; NULL for NULL."""


def quick(value: str) -> str:
    """The server's own hash, which is the same on both sides where `KNOWN` says so."""
    return f'hashtextextended(({value}) COLLATE "C", {_SEED})'


def portable(value: str) -> str:
    """The first 8 bytes of SHA-256, which are the same everywhere."""
    seeded = f"convert_to({_SEED} || ' ' || ({value}), 'UTF8')"
    return f"('x' || encode(substr(sha256({seeded}), 1, 8), 'hex'))::bit(64)::bigint"


def form(place: Hidden) -> str:
    """SQL for what a mask's form shows in a small part of it; empty for a class that has no form.

    Equal values have equal forms, whatever the rule made of them. So where no form is met, no
    value is, and a few forms are compared instead of every value.
    """
    is_uuid = place.column.base == "uuid" and place.rule.kind == "hash"
    return (_FORM_OF_UUID if is_uuid else _FORMS.get(place.rule.kind, "")).format(place.value)


@dataclass(frozen=True, slots=True)
class Digested:
    """What is compared of a place: `sql` is for the digest of a value, of a row of its `rows`.

    Those that are `few` are sent without what is there twice.
    """

    place: Hidden
    sql: str
    few: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Digests of one table, in a temporary table that has a column for each, by its number."""

    name: TableName
    columns: Mapping[int, Digested]

    @property
    def made(self) -> str:
        """SQL that makes the temporary table."""
        columns = ", ".join(f"d{number} bigint" for number in self.columns)
        return f"CREATE TEMPORARY TABLE {quoted(self.name.name)} ({columns}) ON COMMIT DROP;\n"

    @property
    def query(self) -> str:
        """What the source sends: digests, with NULL in all columns but those of a row's own."""
        return " UNION ALL ".join(map(self._sent, self._scans()))

    @property
    def counted(self) -> str:
        """SQL that prints for each column its number, and how many rows have a digest in it."""
        counts = "".join(map(self._count, self._scans()))
        return f"ANALYZE {self.name.sql};\n{counts}"  # or it would be taken for small

    def _scans(self) -> list[list[int]]:
        """Columns that are read together: those of the table that are few, and all others."""
        paths = [number for number, column in self.columns.items() if column.place.path]
        others = [number for number in self.columns if number not in paths]
        few = [number for number in others if self.columns[number].few]
        many = [number for number in others if number not in few]
        return list(filter(None, [*([path] for path in paths), few, many]))

    def _sent(self, own: Collection[int]) -> str:
        """Rows of some columns; what a row is not grouped by is NULL in it."""
        cells = ", ".join(f"d{n}" if n in own else "NULL::bigint" for n in self.columns)
        sets = ", ".join(f"(d{number})" for number in own)
        few = self.columns[next(iter(own))].few
        once = f" GROUP BY GROUPING SETS ({sets})" if few else ""
        return f"SELECT {cells} FROM {self._rows(own)}{once}"

    def _count(self, own: Sequence[int]) -> str:
        """One scan for those that are few, whose digests are each there once."""
        if not self.columns[own[0]].few:
            each = (f"SELECT '{n}=' || count(*) FROM {self._rows([n])}"
                f" WHERE d{n} IN (SELECT d{n} FROM {self.name.sql});\n" for n in own)  # fmt: skip
            return "".join(each)
        counts = " || E'\\n' || ".join(f"'{n}=' || count(s{n}.d{n})" for n in own)
        joined = " ".join(
            f"LEFT JOIN (SELECT d{n} FROM {self.name.sql} WHERE d{n} IS NOT NULL) AS s{n}"
            f" ON s{n}.d{n} = digests.d{n}"
            for n in own
        )
        return f"SELECT {counts} FROM {self._rows(own)} {joined};\n"

    def _rows(self, own: Collection[int]) -> str:
        """The digests of some columns, of one scan."""
        selected = ", ".join(f"{self.columns[number].sql} AS d{number}" for number in own)
        rows = self.columns[next(iter(own))].place.rows
        return f"(SELECT {selected} FROM {rows} OFFSET 0) AS digests"
