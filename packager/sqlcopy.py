r"""Reads COPY … FROM STDIN: what of it a host carries out, and where the rows behind it end.

A host puts the rows into a table of text and moves them on from there (docs/decisions/0014). So
it needs the columns' names, and takes those options only that say how rows are written. The rows
end as psql has it (`handleCopyIn`): at the first line that is `\.`, in whatever format, and within
a quoted value of CSV too.
"""

import re
from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.parser import parse_sql

from installer.manifest import COPY_OPTIONS, Copy, Gap
from installer.quoting import quoted
from packager.sqlproblem import Problem, next_line
from packager.sqlrules import LONGEST, Offence, reads_stdin

PIECE = 1024 * 1024
"""Bytes of rows that are decoded at a time, unless one line is longer."""

_END_OF_ROWS = re.compile(rb"\n\\\.\r?(?:\n|\Z)")

_NO_COLUMNS = Offence(
    0,
    "COPY names no columns, of which its rows have the values",
    "Name the columns: COPY t (a, b) FROM STDIN.",
)
_WHERE = Offence(
    0,
    "COPY … WHERE cannot be carried out in a release",
    "Leave WHERE out, and DELETE those rows behind them.",
)
_PLAIN_OPTIONS = (
    "Write the rows without it; a release takes FORMAT text or csv, DELIMITER, NULL, HEADER, "
    "QUOTE and ESCAPE."
)
_NO_END = "no line \\. ends the rows of this COPY"
_ADD_END = "Put a line that is \\. behind the rows."
_SAME_LINE = "what follows COPY … FROM STDIN; on its line is not among its rows"
_NEXT_LINE = "Put it behind the rows, which begin on the next line."


def reads_from_client(statement: str) -> bool:
    """Whether it is COPY FROM STDIN, whose rows are on the lines that follow it."""
    if statement[:4].lower() != "copy" or len(statement) > LONGEST:
        return False
    root = parse_sql(statement)[0].stmt
    return isinstance(root, ast.CopyStmt) and reads_stdin(root)


def copy_offences(copy: ast.CopyStmt) -> Iterator[Offence]:
    """Why no host can carry out a COPY FROM STDIN."""
    if not copy.attlist:
        yield _NO_COLUMNS
    if copy.whereClause:
        yield _WHERE
    seen: set[str] = set()
    for option in copy.options or ():
        name = str(option.defname)
        if name in seen:
            yield Offence(0, f"COPY has {name.upper()} twice", "Leave one of them out.")
        elif not _is_taken(option):
            said = name.upper() if name not in COPY_OPTIONS else f"{name.upper()} {_text(option)}"
            yield Offence(0, f"COPY … {said} cannot be carried out in a release", _PLAIN_OPTIONS)
        seen.add(name)


def rows_behind(content: bytes, copy: slice) -> tuple[Gap | None, int, list[Problem]]:
    """The rows behind a COPY, where the line after them begins, and what is wrong with them.

    `copy` reaches up to its semicolon; -1 is for want of one.
    """
    end = copy.stop if copy.stop >= 0 else len(content)
    begun = next_line(content, end)
    wrong = []
    if content[end + 1 : begun].strip():
        wrong.append(Problem(copy.start, _SAME_LINE, _NEXT_LINE))
    found = _END_OF_ROWS.search(content, begun - 1)
    stop, behind = (found.start() + 1, found.end()) if found else (len(content), len(content))
    if not found:
        wrong.append(Problem(copy.start, _NO_END, _ADD_END))
    wrong += _not_utf8(content, begun, stop)
    made = _copy(content[copy.start : end], stop - begun)
    return Gap(begun, behind, made) if begun < behind else None, behind, wrong


def _copy(statement: bytes, size: int) -> Copy | None:
    """What a host needs to know to carry it out; None where none can."""
    root: Any = parse_sql(statement.decode())[0].stmt
    if list(copy_offences(root)):
        return None
    table = root.relation
    return Copy(
        table=quoted(table.catalogname, table.schemaname, table.relname),
        columns=tuple(str(column.sval) for column in root.attlist),
        options={
            str(option.defname): _text(option)
            for option in root.options or ()
            if option.defname in COPY_OPTIONS
        },
        size=size,
    )


def _is_taken(option: ast.DefElem) -> bool:
    """Whether a host does with an option what PostgreSQL does, in every version from 11 on."""
    name, value = str(option.defname), _text(option)
    if name == "encoding":  # as which a host reads all that it reads
        return re.sub("[^a-z0-9]", "", value.lower()) in {"utf8", "unicode"}
    if name == "format":
        return value in {"text", "csv"}
    if name == "header":  # since PostgreSQL 15 it may also be "match"
        return value in {"true", "false"}
    return name in COPY_OPTIONS and option.arg is not None


def _text(option: ast.DefElem) -> str:
    """The value of an option; a boolean without one is true (`defGetBoolean`)."""
    if option.arg is None:
        return "true"
    values = (getattr(option.arg, name, None) for name in ("sval", "fval", "ival", "boolval"))
    value = str(next((value for value in values if value is not None), ""))
    return _BOOLEANS.get(value.lower(), value) if option.defname == "header" else value


_BOOLEANS = {
    **dict.fromkeys(("1", "on", "true"), "true"),
    **dict.fromkeys(("0", "off", "false"), "false"),
}


def _not_utf8(content: bytes, begun: int, end: int) -> Iterator[Problem]:
    while begun < end:
        stop = min(next_line(content, min(begun + PIECE, end)), end)
        try:
            content[begun:stop].decode()
        except UnicodeDecodeError as error:
            yield not_utf8(content, begun + error.start)
            return
        begun = stop


def not_utf8(content: bytes, place: int) -> Problem:
    """That the byte at `place` is none of UTF-8."""
    words = f"not UTF-8: byte {place + 1} of the file is 0x{content[place]:02x}"
    return Problem(place, words, AS_UTF8)


AS_UTF8 = "Save it as UTF-8, with or without a byte order mark."
