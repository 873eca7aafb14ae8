"""Checks scripts with PostgreSQL's own parser, and cuts them into runs of whole statements.

It says where a host may cut a script, and refuses what no release can run: what is not SQL in
UTF-8, psql's own commands and the data of COPY among it, and statements that packager.sqljudge
finds wrong. All that is wrong with a script is told at once, up to the first syntax error.

A large script is parsed a part at a time. A part ends at a `;` before a line break; if that is no
end of a statement (it may be inside a string, a function or a comment), the parser refuses the
part or finds its last statement unfinished, and the part grows until it is one. A part that the
parser takes to its last `;` leaves it in the state in which it began, so that the parts parse as
the whole does. What only psql reads ends a part too: the next begins on the line after it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import indent

from pglast.parser import ParseError, split

from packager.errors import SqlError
from packager.sqljudge import Judge, reads_from_client

RUN_SIZE = 64 * 1024
"""Bytes. A script up to this size runs a statement at a time; in a larger one, statements are
grouped into runs of up to this size. A longer statement is a run of its own."""

PART_SIZE = 256 * 1024
"""Bytes that are parsed at a time, unless one statement is longer."""

EXCERPT_WIDTH = 120
"""Characters of a source line that a message shows."""

_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = {  # UTF-32 first: its mark begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_END_OF_LINE = re.compile(rb";[ \t]*\r?\n")
# Between statements: white space as PostgreSQL's scanner defines it, line comments, semicolons.
_BLANK = re.compile(rb"(?:[ \t\n\r\f\v;]+|--[^\n\r]*)*")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_FROM_STDIN = re.compile(r"\bfrom\s+stdin\b[^;]*;", re.IGNORECASE)
_END_OF_DATA = re.compile(rb"^\\\.\r?$", re.MULTILINE)
_PSQL_COMMAND = re.compile(r"\\[^\s\\]*")

_AS_UTF8 = "Save it as UTF-8, with or without a byte order mark."
_WAYS_OUT = {
    "\\!": "No program runs for a script; do what it does by hand, or in the application.",
    "\\copy": "Write the rows as INSERT, or build the table in the script.",
    "\\restrict": "pg_dump writes \\restrict and \\unrestrict for psql; leave out both lines.",
    "\\unrestrict": "pg_dump writes \\restrict and \\unrestrict for psql; leave out both lines.",
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
class _Problem:
    """What is wrong `lines` lines below the byte `offset` of a script.

    Without a way out, the message shows the character itself.
    """

    offset: int
    words: str
    way_out: str = ""
    lines: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a part ends, where its statements begin, and what is wrong in it."""

    end: int
    starts: Sequence[int] = ()
    wrong: Sequence[_Problem] = ()


def check_script(name: str, content: bytes, *, runs: bool = True) -> tuple[int, ...]:
    """The runs of the script `name`, as `installer.manifest.Script.runs` has them.

    Run i is `content[runs[i]:runs[i + 1]]`, the last one reaches to the end. None: the script
    holds no statement. A byte order mark, and what comes before the first statement, is in no run.
    A script that `runs` nowhere any more has to be SQL, whatever its statements do.

    Raises:
        SqlError: it is not SQL in UTF-8, or holds what no release can run.
    """
    encoding = _other_encoding(content)
    judge = Judge() if runs else None
    parts = [_Part(len(content), wrong=[encoding])] if encoding else list(_parts(content, judge))
    if wrong := [problem for part in parts for problem in part.wrong]:
        raise _error(name, content, wrong)
    starts = [start for part in parts for start in part.starts]
    return tuple(starts if len(content) <= RUN_SIZE else _grouped(starts, len(content)))


def _other_encoding(content: bytes) -> _Problem | None:
    for mark, encoding in _OTHER_BOMS.items():
        if content.startswith(mark):
            return _Problem(0, f"it is {encoding}, not UTF-8", _AS_UTF8)
    if (nul := content.find(b"\0")) >= 0:
        return _Problem(nul, "a NUL byte, which PostgreSQL does not accept", _AS_UTF8)
    return None


def _grouped(starts: list[int], end: int) -> Iterator[int]:
    """Those of `starts` that begin a run of at most RUN_SIZE, the next statement included."""
    begun = -RUN_SIZE
    for start, following in zip(starts, [*starts[1:], end], strict=True):
        if following - begun > RUN_SIZE:
            begun = start
            yield start


def _parts(content: bytes, judge: Judge | None) -> Iterator[_Part]:
    begun, size = len(_BOM) if content.startswith(_BOM) else 0, PART_SIZE
    while begun < len(content):
        part = _part(content, begun, _end_of_part(content, begun, size), judge)
        if part is None:
            size *= 2
        else:
            yield part
            begun, size = part.end, PART_SIZE


def _end_of_part(content: bytes, begun: int, size: int) -> int:
    found = _END_OF_LINE.search(content, begun + size)
    return found.end() if found else len(content)


def _part(content: bytes, begun: int, end: int, judge: Judge | None) -> _Part | None:
    """What is in `content[begun:end]`; None: it must grow."""
    part = content[begun:end]
    try:
        text = part.decode()
    except UnicodeDecodeError as error:
        place = begun + error.start
        words = f"not UTF-8: byte {place + 1} of the file is 0x{content[place]:02x}"
        return _Part(len(content), wrong=[_Problem(place, words, _AS_UTF8)])
    try:
        statements = split(text)
    except ParseError as error:
        return _broken(content, begun, text, error, judge)
    places = _places(part, statements)
    if places and places[-1].stop < 0 and end < len(content):
        return None
    return _judged(statements, places, begun, end, judge)


def _judged(
    statements: Sequence[str], places: Sequence[slice], begun: int, end: int, judge: Judge | None
) -> _Part:
    starts = [begun + place.start for place in places]
    wrong = [
        _Problem(start, offence.words, offence.way_out, offence.line)
        for start, statement in zip(starts, statements, strict=True)
        for offence in (judge.judge(statement) if judge else ())
    ]
    return _Part(end, starts, wrong)


def _places(part: bytes, statements: Sequence[str]) -> list[slice]:
    """From where to which semicolon each statement of `part` reaches; -1 is for want of one.

    pglast could say where they are, but counts through all characters for each of them.
    """
    places, end = [], 0
    for statement in statements:
        start = _skip_blank(part, end)
        end = part.find(b";", start + len(statement.encode()))
        places.append(slice(start, end))
    return places


def _skip_blank(part: bytes, start: int) -> int:
    """The first byte from `start` on that is neither white space, comment nor semicolon."""
    while True:
        start += len(_BLANK.match(part, start)[0])  # type: ignore[index]  # always a match
        if not part.startswith(b"/*", start):
            return start
        start = _end_of_comment(part, start)


def _end_of_comment(part: bytes, start: int) -> int:
    """The end of a comment that begins at `start` and that the parser saw the end of; they nest."""
    depth = 0
    edges = _COMMENT_EDGE.finditer(part, start)
    while True:
        edge = next(edges)
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()


def _broken(
    content: bytes, begun: int, text: str, error: ParseError, judge: Judge | None
) -> _Part | None:
    """A part in which the parser met an error: it has the statements before it, and says why.

    None: the part may just be cut short.
    """
    words, index = error.args
    if index is None:  # at the end of input
        index = len(text.rstrip())
    before, wrong = text[:index], []
    offset = begun + len(before.encode())
    if copy := _inline_copy(before):
        end = _end_of_data(content, begun + len(copy.encode()))
        before = copy
    elif command := _PSQL_COMMAND.match(text, index):
        end = _next_line(content, offset)
        wrong = [_psql_command(command[0], offset)]
    elif begun + len(text.encode()) < len(content):
        return None
    else:
        end = len(content)
        wrong = [_syntax_error(text[index:], words, offset)]
    statements = _whole(before)
    judged = _judged(statements, _places(before.encode(), statements), begun, end, judge)
    return _Part(end, judged.starts, [*judged.wrong, *wrong])


def _whole(text: str) -> Sequence[str]:
    """The statements of `text` up to its end, or else up to its last semicolon."""
    for whole in (text, text[: text.rfind(";") + 1]):
        try:
            return tuple(split(whole))
        except ParseError:
            continue
    return ()


def _inline_copy(before: str) -> str:
    """`before`, which an error follows, up to the first COPY whose data follows; "" for none."""
    for found in _FROM_STDIN.finditer(before):
        statements = _whole(before[: found.end()])
        if statements and reads_from_client(statements[-1]):
            return before[: found.end()]
    return ""


def _end_of_data(content: bytes, start: int) -> int:
    found = _END_OF_DATA.search(content, start)
    return _next_line(content, found.start()) if found else len(content)


def _next_line(content: bytes, start: int) -> int:
    return content.find(b"\n", start) + 1 or len(content)


def _psql_command(command: str, offset: int) -> _Problem:
    words = f"{command} is a command of psql, not SQL for the server"
    return _Problem(offset, words, _WAYS_OUT.get(command, _LEAVE_OUT))


def _syntax_error(text: str, words: str, offset: int) -> _Problem:
    if text.startswith("\ufeff"):  # which no message would show
        way_out = "Take it out; it may only be the first character of a file."
        return _Problem(offset, "a byte order mark inside the script", way_out)
    return _Problem(offset, _short(words))


def _short(words: str) -> str:
    """The parser's words without the rest of the script, which they may quote."""
    line = words.partition("\n")[0]
    return line if len(line) <= EXCERPT_WIDTH else f"{line[:EXCERPT_WIDTH]}…"


def _error(name: str, content: bytes, wrong: Sequence[_Problem]) -> SqlError:
    told = [_told(name, content, problem) for problem in wrong]
    if len(told) == 1:
        ((message, detail),) = told
        return SqlError(message, detail=detail)
    lines: list[str] = []
    for detail, problems in groupby(told, key=lambda each: each[1]):
        lines += (f"  {message}" for message, _ in problems)
        lines.append(indent(detail, "  "))
    return SqlError(f"{name}: {len(told)} problems", detail="\n".join(lines))


def _told(name: str, content: bytes, problem: _Problem) -> tuple[str, str]:
    """A problem in words, and below them the way out of it or the line with its place."""
    number = content.count(b"\n", 0, problem.offset) + 1 + problem.lines
    if problem.way_out:
        return f"{name}:{number}: {problem.words}", f"  {problem.way_out}"
    begun = content.rfind(b"\n", 0, problem.offset) + 1
    line = content[begun : _next_line(content, problem.offset)].removeprefix(_BOM)
    before = content[begun : problem.offset].removeprefix(_BOM).decode(errors="replace")
    source = line.rstrip(b"\r\n").decode(errors="replace")
    column = len(before)
    return f"{name}:{number}:{column + 1}: {problem.words}", excerpt(source, number, column)


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
