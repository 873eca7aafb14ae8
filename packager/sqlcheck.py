"""Checks scripts with PostgreSQL's own parser, and says where a host cuts them.

A host runs whole statements, and carries out COPY with the rows behind it. What no release can run
is refused: what is not SQL in UTF-8, psql's own commands among it, and statements that
packager.sqljudge finds wrong. All that is wrong with a script is told at once, up to the first
syntax error.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from installer.manifest import Blob, ConcurrentIndex, Gap, Manifest, Online, Script
from packager.errors import SqlError, StatementError
from packager.sqlcopy import AS_UTF8
from packager.sqljudge import Judge
from packager.sqlonline import concurrent_index, declaration
from packager.sqlparts import ScriptPart, parts_of
from packager.sqlproblem import Problem, sql_error
from packager.sqlrules import ONLINE

RUN_SIZE = 64 * 1024
"""Bytes. A script up to this size runs a statement at a time; in a larger one, statements are
grouped into runs of up to this size. A longer statement is a run of its own, and so is a COPY with
rows behind it, and each statement of an online script. With another size, `require_cuts` would
refuse packages that were built with this one."""

_OTHER_BOMS = {  # UTF-32 first: its mark begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class CutsError(StatementError):
    """A manifest does not run a script as the script is written."""

    hint = (
        "Do not sign or install this package: no build of Countersign made its manifest as it is. "
        "Ask its developers where it is from."
    )


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a host cuts a script, as `installer.manifest.Script` has it."""

    runs: tuple[int, ...]
    gaps: tuple[Gap, ...] = ()
    online: Online | None = None


def check_script(
    name: str, content: bytes, *, runs: bool = True, online: Online | None = None
) -> Cuts:
    """How a host cuts the script `name`; `online` is how it is declared, without its indexes.

    A run begins with its statement. A byte order mark, and blanks and comments before the first
    statement or behind a gap, are in no run. A script that `runs` nowhere any more has to be SQL,
    whatever its statements do; its cuts are the same either way.

    Raises:
        SqlError: it is not SQL in UTF-8, or holds what no release can run.
    """
    if encoding := _other_encoding(content):
        raise sql_error(name, content, [encoding])
    judge, cutter = Judge(online) if runs else None, _Cutter(online)
    wrong: list[Problem] = []
    for part in parts_of(content):
        cutter.take(part)
        wrong += [*_judged(part, judge), *part.wrong]
    if judge and judge.could_be_online:
        wrong = [replace(p, way_out=declaration(name)) if p.way_out == ONLINE else p for p in wrong]
    if wrong:
        raise sql_error(name, content, wrong)
    return cutter.cuts(len(content))


def require_cuts(manifest: Manifest, read: Callable[[Blob], bytes]) -> None:
    """Read all content, and refuse a manifest that runs a script otherwise than the script says.

    A reviewer reads scripts. A manifest that was not made by a build could have a host begin in the
    middle of one, leave out statements, or take rows for statements.

    Raises:
        CutsError: the manifest cuts a script otherwise than a build does.
    """
    for blob in manifest.blobs:
        content = read(blob)
        if isinstance(blob, Script):
            _require_cuts(blob, content)


def _require_cuts(script: Script, content: bytes) -> None:
    online = script.online and replace(script.online, indexes=())
    try:
        cuts = check_script(script.name, content, runs=False, online=online)
    except SqlError as error:
        raise CutsError(
            f"how {script.name} runs is not clear: {error}", detail=error.detail
        ) from None
    if cuts != Cuts(script.runs, script.gaps, script.online):
        raise CutsError(f"the manifest runs {script.name} otherwise than the script says")


def _other_encoding(content: bytes) -> Problem | None:
    for mark, encoding in _OTHER_BOMS.items():
        if content.startswith(mark):
            return Problem(0, f"it is {encoding}, not UTF-8", AS_UTF8)
    if (nul := content.find(b"\0")) >= 0:
        return Problem(nul, "a NUL byte, which PostgreSQL does not accept", AS_UTF8)
    return None


def _judged(part: ScriptPart, judge: Judge | None) -> Iterator[Problem]:
    """What is wrong with the statements of a part, and with what is behind them."""
    if judge is None:
        return
    for statement in part.statements:
        for offence in judge.judge(statement.text):
            yield Problem(statement.start, offence.words, offence.way_out, offence.line)
    if part.gap and not part.has_rows and judge.online:
        words = "a line for psql, which an online script cannot have"
        yield Problem(part.gap.start, words, "Leave the line out.")
    yield from part.unfit


class _Cutter:
    """Takes the parts of a script, one after the other, and says where a host cuts it."""

    def __init__(self, online: Online | None) -> None:
        self._online = online
        self._starts: list[int] = []
        self._stretches: list[tuple[list[int], int]] = []
        self._gaps: list[Gap] = []
        self._indexes: list[ConcurrentIndex] = []

    def take(self, part: ScriptPart) -> None:
        """Note what is in a part."""
        if self._online:
            self._indexes += _indexes(part, len(self._starts))
        self._starts += (statement.start for statement in part.statements)
        if part.gap and not self._online:
            self._gaps.append(part.gap)
            if part.has_rows:
                self._end_stretch(self._starts[-1], of=len(self._starts) - 1)
            self._end_stretch(part.gap.start, of=len(self._starts))

    def cuts(self, size: int) -> Cuts:
        """The cuts of the script, of `size` bytes in all."""
        if self._online:
            online = replace(self._online, indexes=tuple(self._indexes))
            return Cuts(tuple(self._starts), (), online)
        self._end_stretch(size, of=len(self._starts))
        if size > RUN_SIZE:
            grouped = (_grouped(starts, end) for starts, end in self._stretches)
        else:
            grouped = (iter(starts) for starts, _ in self._stretches)
        return Cuts(tuple(chain.from_iterable(grouped)), tuple(self._gaps))

    def _end_stretch(self, end: int, of: int) -> None:
        """Have the first `of` statements noted be runs of their own, which end at `end`."""
        if of:
            self._stretches.append((self._starts[:of], end))
        self._starts = self._starts[of:]


def _indexes(part: ScriptPart, first: int) -> Iterator[ConcurrentIndex]:
    for number, statement in enumerate(part.statements, first):
        if index := concurrent_index(statement.text, number):
            yield index


def _grouped(starts: Sequence[int], end: int) -> Iterator[int]:
    """Those of `starts` that begin a run of at most RUN_SIZE, the next statement included."""
    begun = -RUN_SIZE
    for start, following in zip(starts, [*starts[1:], end], strict=True):
        if following - begun > RUN_SIZE:
            begun = start
            yield start
