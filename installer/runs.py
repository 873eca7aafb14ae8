"""Cuts a script into what goes to the server at a time, and finds the place of an error in that.

Pure. The build wrote into the manifest where each *run* of whole statements begins, and the *gaps*,
which are no SQL. A cut is some runs that go in one call, the rows of a COPY, or a line for psql.
`run_script`, on the server, executes runs one by one, each behind a mark with its number, which the
server repeats in the context of an error.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from installer.errors import MalformedError
from installer.excerpt import excerpt
from installer.manifest import Gap, Script

MAX_PART_SIZE = 64 * 1024
"""Bytes of SQL that go to the server in one call; a longer run goes alone."""
ROWS_PIECE = 256 * 1024
"""Bytes of rows that are read and sent at a time."""

RUN_SCRIPT = """
CREATE FUNCTION countersign.run_script(runs text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER AS $run_script$
DECLARE
    total bigint := 0;
    processed bigint;
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(runs) LOOP
        EXECUTE pg_catalog.format('/*run %s*/%s', i, runs[i]);
        GET DIAGNOSTICS processed = ROW_COUNT;
        total := total OPERATOR(pg_catalog.+) processed;
    END LOOP;
    RETURN total;
END $run_script$
"""
# Each value by the input function of its column's type, without a length: assignment to the column
# then refuses what is too long, where a cast would cut it off. A domain is cast to its base type.
INSERT_ROWS = """
CREATE FUNCTION countersign.insert_rows(target text, names text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER AS $insert_rows$
DECLARE
    columns text;
    casts text;
    processed bigint;
BEGIN
    SELECT pg_catalog.string_agg(pg_catalog.format('%I', given.name), ', ' ORDER BY given.place),
        pg_catalog.string_agg(pg_catalog.format('CAST(%I AS %s)', given.name, coalesce((
            WITH RECURSIVE base AS (
                SELECT t.oid, t.typtype, t.typbasetype FROM pg_catalog.pg_type AS t
                WHERE t.oid OPERATOR(pg_catalog.=) a.atttypid
                UNION ALL
                SELECT t.oid, t.typtype, t.typbasetype FROM pg_catalog.pg_type AS t
                JOIN base ON t.oid OPERATOR(pg_catalog.=) base.typbasetype
                WHERE base.typtype OPERATOR(pg_catalog.=) 'd'
            ) SELECT pg_catalog.format_type(base.oid, -1) FROM base
            WHERE base.typtype OPERATOR(pg_catalog.<>) 'd'), 'text')), ', ' ORDER BY given.place)
    INTO columns, casts
    FROM pg_catalog.unnest(names) WITH ORDINALITY AS given(name, place)
    LEFT JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(target)::pg_catalog.oid
        AND a.attname OPERATOR(pg_catalog.=) given.name::pg_catalog.name
        AND a.attnum OPERATOR(pg_catalog.>) 0;
    EXECUTE pg_catalog.format('/*run 1*/INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE '
        'SELECT %s FROM pg_temp.countersign_rows', target, columns, casts);
    GET DIAGNOSTICS processed = ROW_COUNT;
    RETURN processed;
END $insert_rows$
"""
FOR_PSQL = re.compile(rb"\\(un)?restrict [0-9A-Za-z]+\r?\n?")
"""The only gap without rows: pg_dump puts these two lines around what it writes."""
AT_TOP_LEVEL = re.compile(
    r"(create\s+(unique\s+)?index\s+concurrently|drop\s+index\s+concurrently|vacuum)\b",
    re.IGNORECASE,
)
"""What PostgreSQL runs outside of a transaction only, and whose code it lets change no role."""
SETTING = re.compile(r"(set|reset)\b", re.IGNORECASE)
"""What is for the session, and done again when a script goes on in another one."""
# A script's own text can be in an error's context; int() does not take any number of digits.
_MARK = re.compile(r"/\*run (\d{1,18})\*/")
_ROW = re.compile(r"^COPY countersign_rows, line (\d{1,18})\b", re.MULTILINE)
# PL/pgSQL refuses these before it executes them, so that the error's context has no mark.
_REFUSED_BY_PLPGSQL = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:begin|start|commit|end|rollback|abort|savepoint|release|"
    r"prepare\s+transaction|copy)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Cut:
    """What goes to the server at a time, and ends where the next cut begins.

    `offsets` are where its runs begin and where the last ends, in the script, in bytes. With rows,
    the one run is their COPY; with a line for psql there is none.
    """

    offsets: Sequence[int]
    gap: Gap | None = None

    @property
    def ends(self) -> Sequence[int]:
        """Where its pieces end; with rows: the COPY, pieces of rows, and what closes them."""
        if self.gap is None or self.gap.copy is None:
            return [self.offsets[-1]]
        rows_end = self.gap.start + self.gap.copy.size
        rows = range(self.gap.start + ROWS_PIECE, rows_end, ROWS_PIECE)
        return [self.gap.start, *rows, rows_end, self.gap.end]


@dataclass(frozen=True, slots=True)
class Part:
    """The SQL of a cut.

    `offsets` are those of the cut; the part begins where the cut before ended, after `lines` lines.
    """

    content: bytes
    offsets: Sequence[int]
    lines: int

    @property
    def start(self) -> int:
        """Where the part begins in the script."""
        return self.offsets[-1] - len(self.content)

    def texts(self) -> list[str]:
        """The runs as text.

        Raises:
            MalformedError: one is not UTF-8, or ends within a character.
        """
        places = (offset - self.start for offset in self.offsets)
        try:
            return [self.content[start:end].decode() for start, end in pairwise(places)]
        except UnicodeDecodeError:
            raise MalformedError(
                f"what a script has in the bytes {self.start} to {self.offsets[-1]} is not UTF-8, "
                "or one of its statements ends within a character"
            ) from None

    @property
    def next_line(self) -> int:
        """The number of the line on which what follows the part begins."""
        return self.lines + self.content.count(b"\n") + 1


def whole(statement: bytes) -> Part:
    """A part that is one statement."""
    return Part(statement, (0, len(statement)), 0)


def cuts(script: Script) -> Iterator[Cut]:
    """The cuts of a script, the last of which ends with it."""
    taken = 0
    for gap in script.gaps:
        until = bisect_left(script.runs, gap.start, taken)
        runs, taken = script.runs[taken:until], until
        if gap.copy:
            *runs_before, copied = runs
            yield from _grouped(runs_before, copied)
            yield Cut((copied, gap.start), gap)
        else:
            yield from _grouped(runs, gap.start)
            yield Cut((gap.end,), gap)
    rest = script.runs[taken:]
    yield from _grouped(rest, script.size)
    if not rest:
        yield Cut((script.size,))


def _grouped(runs: Sequence[int], end: int) -> Iterator[Cut]:
    """Runs that follow one another up to `end`, as many to a cut as may go in one call."""
    offsets, first = [*runs, end], 0
    for i in range(1, len(offsets)):
        if i + 1 == len(offsets) or offsets[i + 1] - offsets[first] > MAX_PART_SIZE:
            yield Cut(offsets[first : i + 1])
            first = i


def place(part: Part, context: str, query: str, position: int) -> tuple[str, str]:
    """Line and column of an error, and the line itself; both empty where it cannot be known.

    `context`, `query` and `position` are as `installer.session.ServerError` has them.
    """
    texts = part.texts()
    if row := _ROW.search(context):
        return f":{part.next_line + int(row[1]) - 1}", ""
    marks = _MARK.findall(f"{context}\n{query}")
    refused = (i for i, text in enumerate(texts, 1) if _REFUSED_BY_PLPGSQL.match(text))
    index = int(marks[-1]) if marks else next(refused, int(len(texts) == 1))
    if not 1 <= index <= len(texts):
        return "", ""
    text, offset = texts[index - 1], part.offsets[index - 1] - part.start
    mark = f"/*run {index}*/"
    if query == mark + text:
        position -= len(mark)
    elif query:  # of a function that the script called
        position = 0
    exact = position > 0
    if exact:
        offset += len(text[: position - 1].encode())
    return excerpt(part.content, offset, exact=exact, lines=part.lines)
