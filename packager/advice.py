"""What is told about the new scripts of a release before it is signed: advice, and locks in words.

Advice is about scripts that no starting point has: all others are released, and stay as they are.
Locks are about those that a host with an earlier release has yet to run.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TypeVar

from installer.bundle import ContentReader, Section
from installer.manifest import EMPTY, Script
from packager.lint import LARGEST, Lint, lint, place
from packager.locks import Effect, Lock, outside
from packager.release import Release
from packager.sqlcheck import RUN_SIZE
from packager.sqllocks import effects

T = TypeVar("T")

MOST_LOCKS = 20
"""Locks that a terminal shows."""

IN_RELEASE = "until the release is committed"
ONLINE = "while it runs"


@dataclass(frozen=True, slots=True)
class ScriptLock:
    """A lock that the statement on a line of a script takes on a table that was there before."""

    script: str
    line: int
    lock: Lock
    until: str

    @property
    def words(self) -> str:
        """The lock in words."""
        return self.lock.words(self.until)


@dataclass(frozen=True, slots=True)
class Advice:
    """What squawk says, and the locks, table by table."""

    lint: Lint
    locks: tuple[ScriptLock, ...]


def advise(release: Release) -> Advice:
    """What is to be told about a release.

    Raises:
        ToolError: squawk is missing or failed, and release.toml has a threshold for it.
    """
    new, waiting = new_scripts(release), _waiting(release)
    sql: dict[str, bytes] = {}
    found: dict[str, list[tuple[int, Effect]]] = {}
    for script, content in contents(release, new.union(*waiting)):
        if script in new:
            sql[script.name] = _without_rows(script, content)[: LARGEST + 1]  # more is not read
        found[script.name] = list(by_line(script, content, effects))
    online = {script.name for script in new if script.online}
    told = (told for scripts in waiting for told in _locks(scripts, found))
    return Advice(lint(sql, online, release.project.lint), _by_table(told))


def sections(advice: Advice) -> dict[str, object]:
    """The sections of the report."""
    return {
        "lint": {
            "findings": [asdict(found) for found in advice.lint.findings],
            "unread": dict(advice.lint.unread),
            "missing": advice.lint.missing or None,
        },
        "locks": [
            {
                "script": told.script,
                "line": told.line,
                "table": told.lock.table,
                "mode": told.lock.mode.title,
                "words": told.words,
            }
            for told in advice.locks
        ],
    }


def lines(advice: Advice) -> Iterator[tuple[str, str]]:
    """What a terminal shows: of each line the kind, and the words."""
    for found in advice.lint.findings:
        hint = f"\n  {found.help}" if found.help else ""
        yield "advice", f"{place(found)}: {found.rule}: {found.words}{hint}"
    for script, reason in advice.lint.unread.items():
        yield "advice", f"{script}: none: {reason}"
    for told in advice.locks[:MOST_LOCKS]:
        yield "lock", f"{told.script}:{told.line}: {told.words}"
    more = len(advice.locks) - MOST_LOCKS
    if more > 0:
        yield "lock", f"and {more} more, which `countersign manifest` writes to report.json"


def new_scripts(release: Release) -> set[Script]:
    """The scripts that no starting point has."""
    return set.intersection(*(set(scripts) for scripts in release.pending.values()))


def _waiting(release: Release) -> list[tuple[Script, ...]]:
    """What hosts have yet to run, from each starting point at which they have something to lock."""
    pending = dict(release.pending)
    if len(pending) > 1:
        pending.pop(EMPTY, None)
    return list(pending.values())


def contents(release: Release, wanted: Collection[Script]) -> Iterator[tuple[Script, bytes]]:
    """The wanted scripts with their content, in the order of the release."""
    compressed = Section(BytesIO(release.compressed), 0, len(release.compressed))
    reader = ContentReader(compressed, release.manifest.blobs)
    database = release.manifest.database
    for script in database.scripts if database else ():
        if script in wanted:
            yield script, reader.read(script)


def _without_rows(script: Script, content: bytes) -> bytes:
    """A script with empty lines for what in it is not SQL."""
    parts, end = [], 0
    for gap in script.gaps:
        parts += [content[end : gap.start], b"\n" * content.count(b"\n", gap.start, gap.end)]
        end = gap.end
    return b"".join([*parts, content[end:]])


def by_line(
    script: Script, content: bytes, read: Callable[[str], Iterator[tuple[int, T]]]
) -> Iterator[tuple[int, T]]:
    """What `read` finds in the runs of a script, each with its line in place of its character."""
    ends = sorted({*script.runs, *(gap.start for gap in script.gaps), len(content)})
    line, counted = 1, 0
    for start in script.runs:
        line += content.count(b"\n", counted, start)
        counted, end = start, ends[bisect_right(ends, start)]
        if end - start <= RUN_SIZE:  # or else it is one statement, and too long for a tree
            text = content[start:end].decode()
            for at, found in read(text):
                yield line + text.count("\n", 0, at), found


def _locks(
    scripts: Iterable[Script], found: Mapping[str, list[tuple[int, Effect]]]
) -> Iterator[ScriptLock]:
    """The locks of scripts that run one after the other, on what they have not made themselves."""
    placed = (((script, line), effect) for script in scripts for line, effect in found[script.name])
    for (script, line), lock in outside(placed):
        yield ScriptLock(script.name, line, lock, ONLINE if script.online else IN_RELEASE)


def _by_table(told: Iterable[ScriptLock]) -> tuple[ScriptLock, ...]:
    """Each lock once, those on a table together."""
    tables: dict[str, dict[ScriptLock, None]] = {}
    for each in told:
        tables.setdefault(each.lock.table, {})[each] = None
    return tuple(each for locks in tables.values() for each in locks)
