"""Parses a script with PostgreSQL's own parser, a part at a time.

A part ends at a `;` before a line break; if that is no end of a statement (it may be inside a
string, a function or a comment), the parser refuses the part or finds its last statement
unfinished, and the part grows until it is one. A part that the parser takes to its last `;` leaves
it in the state in which it began, so that the parts parse as the whole does. What only psql reads
ends a part too, the rows of a COPY and psql's own commands: the next begins on the line after it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pglast.parser import ParseError, split

from installer.manifest import Gap
from installer.runs import FOR_PSQL
from packager.sqlcopy import not_utf8, reads_from_client, rows_behind
from packager.sqlproblem import BOM, EXCERPT_WIDTH, Problem, next_line

PART_SIZE = 256 * 1024
"""Bytes that are parsed at a time, unless one statement is longer."""

_LAST_END_OF_LINE = re.compile(rb".*;[ \t]*\r?\n", re.DOTALL)
_END_OF_LINE = re.compile(rb";[ \t]*\r?\n")
# Between statements: white space as PostgreSQL's scanner defines it, line comments, semicolons.
_BLANK = re.compile(rb"(?:[ \t\n\r\f\v;]+|--[^\n\r]*)*")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_PSQL_COMMAND = re.compile(r"\\[^\s\\]*")

_WAYS_OUT = {
    "\\!": "No program runs for a script; do what it does by hand, or in the application.",
    "\\.": "It ends the rows of a COPY … FROM STDIN, and there is none before it.",
    "\\copy": "Write COPY … FROM STDIN with the rows behind it, or INSERT.",
    **dict.fromkeys(
        ("\\i", "\\include", "\\ir", "\\include_relative"),
        "Put the file's statements here, or make the file a script of the release.",
    ),
    **dict.fromkeys(
        ("\\c", "\\connect"), "Leave it out; the host file says which database a release is for."
    ),
    **dict.fromkeys(
        ("\\g", "\\gx", "\\gexec", "\\gset"),
        "End the statement with `;`; to run what it returns, write a DO block with EXECUTE.",
    ),
}
_LEAVE_OUT = "Leave the line out, and write the statements without it."


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and the byte of the script at which it begins."""

    start: int
    text: str


@dataclass(frozen=True, slots=True)
class ScriptPart:
    """A part of a script: its statements, the gap that it ends with, and what is wrong in it.

    `wrong` is what is no SQL, `unfit` what a host could not do with the rows in the gap.
    """

    end: int
    statements: Sequence[Statement] = ()
    gap: Gap | None = None
    wrong: Sequence[Problem] = ()
    unfit: Sequence[Problem] = ()

    @property
    def has_rows(self) -> bool:
        """Whether it ends with a COPY and the rows behind it."""
        return bool(self.statements) and reads_from_client(self.statements[-1].text)


def parts_of(content: bytes) -> Iterator[ScriptPart]:
    """The parts of a script, up to the first in which there is an error of syntax."""
    begun, size, refused = len(BOM) if content.startswith(BOM) else 0, PART_SIZE, 0
    while begun < len(content):
        end = _end_of_part(content, begun, size, refused)
        part = _part(content, begun, end)
        if part is None:
            size, refused = size * 2, end
        else:
            yield part
            begun, size, refused = part.end, PART_SIZE, 0


def _end_of_part(content: bytes, begun: int, size: int, refused: int) -> int:
    """The last end of a line within `size` and behind `refused`, or else the first beyond."""
    last = _LAST_END_OF_LINE.match(content, begun, begun + size)
    if last and last.end() > refused:
        return last.end()
    found = _END_OF_LINE.search(content, max(begun + size, refused))
    return found.end() if found else len(content)


def _part(content: bytes, begun: int, end: int) -> ScriptPart | None:
    """What is in `content[begun:end]`; None: it must grow."""
    part = content[begun:end]
    try:
        text = part.decode()
    except UnicodeDecodeError as error:
        return ScriptPart(len(content), wrong=[not_utf8(content, begun + error.start)])
    try:
        texts = split(text)
    except ParseError as error:
        return _broken(content, begun, text, error)
    return _parsed(content, begun, end, texts)


def _parsed(content: bytes, begun: int, end: int, texts: Sequence[str]) -> ScriptPart | None:
    """A part that the parser takes, up to the first COPY with rows behind it; None: as `_part`."""
    places = _places(content, begun, end, texts)
    is_cut_short = bool(places) and places[-1].stop < 0 and end < len(content)
    whole = len(texts) - is_cut_short
    if part := _with_rows(content, places[:whole], texts[:whole]):
        return part
    return None if is_cut_short else ScriptPart(end, _statements(places, texts))


def _statements(places: Sequence[slice], texts: Sequence[str]) -> list[Statement]:
    return [Statement(place.start, text) for place, text in zip(places, texts, strict=True)]


def _places(content: bytes, begun: int, end: int, texts: Sequence[str]) -> list[slice]:
    """From where to which semicolon each statement of a part reaches; -1 is for want of one.

    pglast could say where they are, but counts through all characters for each of them.
    """
    places, behind = [], begun
    for text in texts:
        start = _skip_blank(content, behind)
        behind = content.find(b";", start + len(text.encode()), end)
        places.append(slice(start, behind))
    return places


def _skip_blank(content: bytes, start: int) -> int:
    """The first byte from `start` on that is neither white space, comment nor semicolon."""
    while True:
        start += len(_BLANK.match(content, start)[0])  # type: ignore[index]  # always a match
        if not content.startswith(b"/*", start):
            return start
        start = _end_of_comment(content, start)


def _end_of_comment(content: bytes, start: int) -> int:
    """The end of a comment that begins at `start` and that the parser saw the end of; they nest."""
    depth = 0
    edges = _COMMENT_EDGE.finditer(content, start)
    while True:
        edge = next(edges)
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()


def _broken(content: bytes, begun: int, text: str, error: ParseError) -> ScriptPart | None:
    """A part in which the parser met an error: it has the statements before it, and says why.

    None: the part may just be cut short.
    """
    words, index = error.args
    if index is None:  # at the end of input
        index = len(text.rstrip())
    before = text[:index]
    offset = begun + len(before.encode())
    texts = _accepted(before)
    places = _places(content, begun, offset, texts)
    whole = sum(place.stop >= 0 for place in places)
    if part := _with_rows(content, places[:whole], texts[:whole]):
        return part
    statements = _statements(places, texts)
    if command := _PSQL_COMMAND.match(text, index):
        rest = before.encode()[places[whole - 1].stop - begun :] if whole else before.encode()
        return _with_command(content, offset, statements, command[0], rest)
    if begun + len(text.encode()) < len(content):
        return None
    return ScriptPart(len(content), statements, wrong=[_syntax_error(text[index:], words, offset)])


def _accepted(text: str) -> Sequence[str]:
    """The statements of `text`, apart from what the parser does not accept at its end."""
    end = len(text)
    while True:
        try:
            return tuple(split(text[:end]))
        except ParseError as error:
            # What begins at an error's place may hold semicolons, such as a string without an end.
            index = error.args[1]
            end = text.rfind(";", 0, end - 1 if index is None else min(index, end - 1)) + 1


def _with_rows(content: bytes, places: Sequence[slice], texts: Sequence[str]) -> ScriptPart | None:
    """A part that ends with the rows of the first COPY among some statements; None without one."""
    for number, text in enumerate(texts):
        if reads_from_client(text):
            statements = _statements(places[: number + 1], texts[: number + 1])
            gap, stop, unfit = rows_behind(content, places[number])
            return ScriptPart(stop, statements, gap, unfit=unfit)
    return None


def _with_command(
    content: bytes, offset: int, statements: Sequence[Statement], command: str, rest: bytes
) -> ScriptPart:
    """A part that ends with a command of psql; `rest` is what is between a semicolon and that.

    A line that pg_dump writes for psql is a gap, if no statement before it is unfinished.
    """
    end = next_line(content, offset)
    is_line = not rest or rest.endswith(b"\n")
    is_finished = _skip_blank(rest, 0) == len(rest)
    if is_finished and is_line and FOR_PSQL.fullmatch(content, offset, end):
        return ScriptPart(end, statements, Gap(offset, end, None))
    words = f"{command} is a command of psql, not SQL for the server"
    problem = Problem(offset, words, _WAYS_OUT.get(command, _LEAVE_OUT))
    return ScriptPart(end, statements, wrong=[problem])


def _syntax_error(text: str, words: str, offset: int) -> Problem:
    if text.startswith("\ufeff"):  # which no message would show
        way_out = "Take it out; it may only be the first character of a file."
        return Problem(offset, "a byte order mark inside the script", way_out)
    return Problem(offset, _short(words))


def _short(words: str) -> str:
    """The parser's words without the rest of the script, which they may quote."""
    line = words.partition("\n")[0]
    return line if len(line) <= EXCERPT_WIDTH else f"{line[:EXCERPT_WIDTH]}…"
