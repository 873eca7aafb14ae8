r"""psql | psql: rows from the source to the target, by way of a pipe of the kernel's.

The source's psql writes what the target's psql reads: for each piece the command COPY … FROM STDIN
and then its rows, as a plain dump has them, or in binary up to the end. No row comes to this
process. Both tell how many rows it were, which have to be the same.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import IO

from installer.quoting import literal
from refresher.clients import Endpoint, Process, Running, server_words
from refresher.errors import CopyError
from refresher.model import TableName
from refresher.pieces import Piece, Stream

PSQL = ("--no-psqlrc", "--no-password", "--set=ON_ERROR_STOP=1", "--dbname=service=countersign")
QUIET = ("--tuples-only", "--no-align")
_TAG = re.compile(r"^COPY (\d+)$", re.MULTILINE)
_OUT = "\\g /dev/stdout\n"
_BY_POSITION = "SET LOCAL random_page_cost = 0.05;\n"
"""Rows are fetched in the order in which they are stored, several of each page: what they cost."""


def copy_stream(  # noqa: PLR0913, PLR0917 - both ends, and what goes between them
    stream: Stream,
    snapshot: str,
    source: Endpoint,
    target: Endpoint,
    running: Running,
    analysed: Sequence[TableName] = (),
) -> tuple[int, ...]:
    """Copy the pieces of a stream, and have tables `analysed`; returns how many rows each had.

    Raises:
        CopyError: either side refused, with the table and the server's words.
    """
    return _counts(pass_on(stream, snapshot, source, target, running, analysed=analysed))


def pass_on(  # noqa: PLR0913 - both ends, what goes between them, and what is run around it
    stream: Stream,
    snapshot: str,
    source: Endpoint,
    target: Endpoint,
    running: Running,
    *,
    before: Path | None = None,
    after: Path | None = None,
    analysed: Sequence[TableName] = (),
) -> str:
    """Copy the pieces of a stream; returns what the target's psql said.

    `before` and `after` are SQL that it runs around them, in the same transaction. In that, too,
    tables are `analysed`, while their pages are in memory.

    Raises:
        CopyError: either side refused, with the table and the server's words.
    """
    files = [f"--file={file}" for file in (before, "-", after) if file is not None]
    with running.start("psql", (*PSQL, *QUIET), source, stdin=-1, piped=True) as reading:
        rows, text = reading.running.stdout, script(stream, snapshot, reading.aside)
        loading = (*PSQL, *QUIET, "--single-transaction", *files, *_analyse(analysed))
        with running.start("psql", loading, target, stdin=_open(rows)) as writing:
            _open(rows).close()  # only the target's psql holds it now, and its end is seen
            writer = Thread(target=_write, args=(reading, text), daemon=True)
            writer.start()
            if writing.wait() != 0:
                reading.kill()  # it would read on to the end, for nobody
            reading.wait()
            writer.join()
            _require_passed(stream, reading, writing)
            return writing.output


def script(stream: Stream, snapshot: str, aside: int) -> Iterable[str]:
    """What the source's psql runs; what it tells of itself goes to the file descriptor `aside`."""
    yield f"\\o /dev/fd/{aside}\nBEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
    yield f"SET TRANSACTION SNAPSHOT {literal(snapshot)};\n"
    form = "FORMAT binary" if stream.binary else "FORMAT text"
    for piece in stream.pieces:
        yield f"SELECT {literal(_load(piece, form, freezes=stream.binary))} {_OUT}"
        if piece.part:
            yield _BY_POSITION
        yield f"COPY {piece.source} TO STDOUT ({form}) {_OUT}"
        if not stream.binary:
            yield f"SELECT '\\.' {_OUT}"


def _load(piece: Piece, form: str, *, freezes: bool) -> str:
    """What the target's psql runs before the rows.

    Rows of a large table are written as VACUUM FREEZE would leave them, and so need not be written
    again. The table has to be emptied for that: a small one costs less without.
    """
    if not (freezes and piece.sole):
        return f"COPY {piece.into} FROM STDIN ({form});"
    return f"TRUNCATE ONLY {piece.table.sql}; COPY {piece.into} FROM STDIN ({form}, FREEZE);"


def _analyse(tables: Sequence[TableName]) -> tuple[str, ...]:
    return (f"--command=ANALYZE {', '.join(table.sql for table in tables)}",) if tables else ()


def _write(process: Process, parts: Iterable[str]) -> None:
    """Write a script; where psql has ended before, it has said why."""
    try:
        with _open(process.running.stdin) as stdin:
            for part in parts:
                stdin.write(part.encode())
    except BrokenPipeError:
        pass


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:  # only where Popen was not asked for a pipe
        raise CopyError("there is no pipe")
    return pipe


def _require_passed(stream: Stream, reading: Process, writing: Process) -> None:
    sent, received = _counts(reading.output), _counts(writing.output)
    if writing.running.returncode != 0:
        raise _failure("target", _at(stream, len(received)), writing)
    if reading.running.returncode != 0:
        raise _failure("source", _at(stream, len(sent)), reading)
    if sent != received or len(sent) != len(stream.pieces):
        raise CopyError(f"the source sent {sent} rows, the target has {received}")


def _counts(said: str) -> tuple[int, ...]:
    return tuple(map(int, _TAG.findall(said)))


def _at(stream: Stream, number: int) -> Piece:
    return stream.pieces[min(number, len(stream.pieces) - 1)]


def _failure(side: str, piece: Piece, process: Process) -> CopyError:
    lines = [line for line in server_words(process.said) if not _TAG.match(line)]
    first, *rest = lines or [f"psql ended with {process.running.returncode}"]
    return CopyError(f"{piece.table}: the {side}: {first}", detail="\n".join(rest))
