"""Tells what is wrong with a script: where, in words, and the way out of it or the line itself."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import indent

from packager.errors import SqlError

EXCERPT_WIDTH = 120
"""Characters of a source line that a message shows."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong `lines` lines below the byte `offset` of a script.

    Without a way out, the message shows the character itself.
    """

    offset: int
    words: str
    way_out: str = ""
    lines: int = 0


def sql_error(name: str, content: bytes, wrong: Sequence[Problem]) -> SqlError:
    """One error for all that is wrong with the script `name`."""
    told = [_told(name, content, problem) for problem in wrong]
    if len(told) == 1:
        ((message, detail),) = told
        return SqlError(message, detail=detail)
    lines: list[str] = []
    for detail, problems in groupby(told, key=lambda each: each[1]):
        lines += (f"  {message}" for message, _ in problems)
        lines.append(indent(detail, "  "))
    return SqlError(f"{name}: {len(told)} problems", detail="\n".join(lines))


def _told(name: str, content: bytes, problem: Problem) -> tuple[str, str]:
    """A problem in words, and below them the way out of it or the line with its place."""
    number = content.count(b"\n", 0, problem.offset) + 1 + problem.lines
    if problem.way_out:
        return f"{name}:{number}: {problem.words}", indent(problem.way_out, "  ")
    begun = content.rfind(b"\n", 0, problem.offset) + 1
    line = content[begun : next_line(content, problem.offset)].removeprefix(BOM)
    before = content[begun : problem.offset].removeprefix(BOM).decode(errors="replace")
    source = line.rstrip(b"\r\n").decode(errors="replace")
    column = len(before)
    return f"{name}:{number}:{column + 1}: {problem.words}", excerpt(source, number, column)


def next_line(content: bytes, start: int) -> int:
    """Where the line that follows that of `start` begins, or else the end."""
    return content.find(b"\n", start) + 1 or len(content)


def excerpt(source: str, number: int, column: int) -> str:
    """Line `number` of a file with a caret below its character `column`, counted from 0."""
    begun = max(0, column - EXCERPT_WIDTH * 2 // 3)
    shown = source[begun : begun + EXCERPT_WIDTH]
    before = sum(map(_width, shown[: column - begun]))
    margin = f"{number:>4} | "
    line = "".join(char if char.isprintable() else " " for char in shown)
    return f"{margin}{line.rstrip()}\n{'| ':>{len(margin)}}{' ' * before}^"


def _width(char: str) -> int:
    """Columns of a terminal that `char` takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
