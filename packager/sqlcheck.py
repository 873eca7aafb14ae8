"""Checks scripts with PostgreSQL's own parser, and cuts them into runs of whole statements.

The only module that imports pglast. It says where a host may cut a script, never what is in it:
whether a statement may run is for the server. What is not SQL is refused: psql's own commands and
the data of COPY, which only psql understands.

A large script is parsed a part at a time. A part ends at a `;` before a line break; if that is no
end of a statement (it may be inside a string, a function or a comment), the parser refuses the
part or finds its last statement unfinished, and the part grows until it is one. A part that the
parser takes to its last `;` leaves it in the state in which it began, so that the parts parse as
the whole does.
"""

import re
import unicodedata
from collections.abc import Iterator

from pglast.ast import CopyStmt
from pglast.parser import ParseError, parse_sql, split

from packager.errors import SqlError

RUN_SIZE = 64 * 1024
"""Bytes. A script up to this size runs a statement at a time; in a larger one, statements are
grouped into runs of up to this size. A longer statement is a run of its own."""

PART_SIZE = 256 * 1024
"""Bytes that are parsed at a time, unless one statement is longer."""

EXCERPT_WIDTH = 120
"""Characters of a source line that a message shows."""

_BOM = b"\xef\xbb\xbf"
_END_OF_LINE = re.compile(rb";[ \t]*\r?\n")
# Between statements: white space as PostgreSQL's scanner defines it, line comments, semicolons.
_BLANK = re.compile(rb"(?:[ \t\n\r\f\v;]+|--[^\n\r]*)*")
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_PSQL_COMMAND = re.compile(r"\\\S*")


class _Failure(Exception):  # noqa: N818 - never leaves this module
    """Something refused, in words, and the byte of the script that they are about."""

    def __init__(self, words: str, offset: int) -> None:
        super().__init__(words)
        self.words, self.offset = words, offset


def check_script(name: str, content: bytes) -> tuple[int, ...]:
    """The runs of the script `name`, as `installer.manifest.Script.runs` has them.

    Run i is `content[runs[i]:runs[i + 1]]`, the last one reaches to the end. None: the script
    holds no statement. A byte order mark, and what comes before the first statement, is in no run.

    Raises:
        SqlError: it is not UTF-8 text, or not SQL that PostgreSQL's parser accepts.
    """
    try:
        _require_no_nul(content)
        starts = list(_starts(content))
    except _Failure as failure:
        raise _error(name, content, failure) from None
    return tuple(starts if len(content) <= RUN_SIZE else _grouped(starts, len(content)))


def _require_no_nul(content: bytes) -> None:
    if (nul := content.find(b"\0")) >= 0:
        raise _Failure("a NUL byte, which PostgreSQL does not accept", nul)


def _grouped(starts: list[int], end: int) -> Iterator[int]:
    """Those of `starts` that begin a run of at most RUN_SIZE, the next statement included."""
    begun = -RUN_SIZE
    for start, following in zip(starts, [*starts[1:], end], strict=True):
        if following - begun > RUN_SIZE:
            begun = start
            yield start


def _starts(content: bytes) -> Iterator[int]:
    """Where each statement begins."""
    begun, size = len(_BOM) if content.startswith(_BOM) else 0, PART_SIZE
    while begun < len(content):
        end = _end_of_part(content, begun, size)
        part = content[begun:end]
        starts = _statements(part, begun, final=end == len(content))
        if starts is None:
            size *= 2
        else:
            yield from starts
            begun, size = end, PART_SIZE


def _end_of_part(content: bytes, begun: int, size: int) -> int:
    found = _END_OF_LINE.search(content, begun + size)
    return found.end() if found else len(content)


def _statements(part: bytes, begun: int, *, final: bool) -> list[int] | None:
    """Where the statements of `part` begin, `begun` bytes into the script; None: it must grow."""
    text = _decode(part, begun)
    try:
        statements = split(text)
    except ParseError as error:
        if final:
            raise _failure(text, begun, error) from None
        return None
    places = _places(part, statements)
    if places and places[-1].stop < 0 and not final:
        return None
    for place, statement in zip(places, statements, strict=True):
        if words := _client_copy(statement):
            raise _Failure(words, begun + place.start)
    return [begun + place.start for place in places]


def _decode(part: bytes, begun: int) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        words = f"byte 0x{part[error.start]:02x} is not UTF-8"
        raise _Failure(words, begun + error.start) from None


def _places(part: bytes, statements: tuple[str, ...]) -> list[slice]:
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


def _client_copy(statement: str) -> str:
    """What is wrong with a COPY whose data comes from a client or goes to one; "" if it is not."""
    if statement[:4].lower() != "copy":
        return ""
    parsed = parse_sql(statement)[0].stmt
    if not isinstance(parsed, CopyStmt) or parsed.filename or parsed.is_program:
        return ""
    if parsed.is_from:
        return "inline COPY data is not supported; use INSERT, or COPY from a file of the server"
    return "COPY TO STDOUT has no one to read it while a release is installed"


def _failure(text: str, begun: int, error: ParseError) -> _Failure:
    words, index = error.args
    if index is None:  # at the end of input
        index = len(text.rstrip())
    found = _Failure(_short(words), begun + len(text[:index].encode()))
    return _inline_copy(text[:index], begun) or _psql_command(text, index, found) or found


def _short(words: str) -> str:
    """The parser's words without the rest of the script, which they may quote."""
    line = words.partition("\n")[0]
    return line if len(line) <= EXCERPT_WIDTH else f"{line[:EXCERPT_WIDTH]}…"


def _inline_copy(before: str, begun: int) -> _Failure | None:
    """What is wrong with the last whole statement before an error, if its data is the error."""
    whole = before[: before.rfind(";") + 1]
    try:
        statements = split(whole)
    except ParseError:
        return None
    words = _client_copy(statements[-1]) if statements else ""
    return _Failure(words, begun + _places(whole.encode(), statements)[-1].start) if words else None


def _psql_command(text: str, index: int, found: _Failure) -> _Failure | None:
    command = _PSQL_COMMAND.match(text, index)
    if not command:
        return None
    return _Failure(f"{command[0]} is a command of psql, not SQL for the server", found.offset)


def _error(name: str, content: bytes, failure: _Failure) -> SqlError:
    begun = content.rfind(b"\n", 0, failure.offset) + 1
    end = content.find(b"\n", failure.offset)
    line = content[begun : end if end >= 0 else len(content)].removeprefix(_BOM)
    before = content[begun : failure.offset].removeprefix(_BOM).decode(errors="replace")
    number = content.count(b"\n", 0, failure.offset) + 1
    source = line.rstrip(b"\r\n").decode(errors="replace")
    return SqlError(
        f"{name}:{number}:{len(before) + 1}: {failure.words}",
        detail=excerpt(source, number, len(before)),
    )


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
