"""Cuts a script into the parts that go to the server, and finds the place of an error in one.

Pure. The build wrote into the manifest where each *run* of whole statements begins; a part is some
runs that go in one call. `run_script`, on the server, executes them one by one, each behind a mark
with its number, which the server repeats in the context of an error.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from installer.excerpt import excerpt

MAX_PART_SIZE = 64 * 1024
"""Bytes of SQL that go to the server in one call; a longer run goes alone."""

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
_MARK = re.compile(r"/\*run (\d+)\*/")
# PL/pgSQL refuses these before it executes them, so that the error's context has no mark.
_REFUSED_BY_PLPGSQL = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:begin|start|commit|end|rollback|abort|savepoint|release|"
    r"prepare\s+transaction|copy)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a script that goes to the server in one call.

    `offsets` are where its runs begin and where the last ends, in the script, in bytes; the part
    begins where the one before ended, after `lines` lines.
    """

    content: bytes
    offsets: Sequence[int]
    lines: int

    @property
    def start(self) -> int:
        """Where the part begins in the script."""
        return self.offsets[-1] - len(self.content)

    def texts(self) -> list[str]:
        """The runs as text."""
        places = (offset - self.start for offset in self.offsets)
        return [self.content[start:end].decode() for start, end in pairwise(places)]


def parts(runs: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The runs of a script of `size` bytes in parts: the `Part.offsets` of each.

    The last part ends at the script's end; a script without runs is one part without any.
    """
    offsets = [*runs, size]
    first = 0
    for i in range(1, len(offsets)):
        if i + 1 == len(offsets) or offsets[i + 1] - offsets[first] > MAX_PART_SIZE:
            yield offsets[first : i + 1]
            first = i
    if not runs:
        yield offsets


def place(part: Part, context: str, query: str, position: int) -> tuple[str, str]:
    """Line and column of an error, and the line itself; both empty where it cannot be known.

    `context`, `query` and `position` are the error's context, internal query and internal position
    (PostgreSQL, "Error and Notice Message Fields": W, q and p), empty or 0 where it has none.
    """
    texts = part.texts()
    marks = _MARK.findall(f"{context}\n{query}")
    refused = (i for i, text in enumerate(texts, 1) if _REFUSED_BY_PLPGSQL.match(text))
    index = int(marks[-1]) if marks else next(refused, 0)
    if not 1 <= index <= len(texts):
        return "", ""
    text, offset = texts[index - 1], part.offsets[index - 1] - part.start
    mark = f"/*run {index}*/"
    exact = position > len(mark) and query == mark + text
    if exact:
        offset += len(text[: position - 1 - len(mark)].encode())
    return excerpt(part.content, offset, exact=exact, lines=part.lines)
