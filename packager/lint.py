"""Has squawk read scripts, and says what it found. The only module that runs squawk.

What it finds is advice, unless `[lint]` in release.toml makes a threshold of it. It never changes a
release: other developers may have another version, and have to sign the same bytes. squawk's own
configuration files and those of the project are not read.
"""

import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.errors import MalformedError
from installer.strict_json import Fields, load_json
from packager.errors import LintError, ToolError
from packager.lintrules import SETTLED
from packager.output import write
from packager.project import LintSpec
from packager.tools import run

LARGEST = 1024 * 1024
"""Bytes of a script that squawk gets to read: it takes 20 times that in memory."""

_NOT_READ = "syntax-error"
_CONFIGURATION = "squawk.toml"


@dataclass(frozen=True, slots=True)
class Finding:
    """What squawk says about a place in a script; `line` and `column` count from 1.

    `help` is "" where squawk has none.
    """

    script: str
    line: int
    column: int
    rule: str
    level: str
    words: str
    help: str


@dataclass(frozen=True, slots=True)
class Lint:
    """What squawk found, the scripts that it could not read, and why there is no advice at all.

    `unread` has the reason for each script; `missing` is "" where squawk ran.
    """

    findings: tuple[Finding, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


def lint(scripts: Mapping[str, bytes], online: Collection[str], spec: LintSpec) -> Lint:
    """What squawk says about `scripts`; those that are `online` run outside of a transaction.

    Where squawk does not run, there is no advice, unless `spec` has a threshold: one that cannot be
    checked is not met.

    Raises:
        ToolError: squawk is missing or failed, and `spec` has a threshold.
    """
    try:
        return _lint(scripts, online, spec)
    except ToolError as error:
        if spec.refuse or spec.most is not None:
            raise
        reason = error.detail.partition("\n")[0]
        return Lint(missing=": ".join(filter(None, (str(error), reason))))


def require_within(told: Lint, spec: LintSpec) -> None:
    """Hold what was found against the thresholds of `[lint]`.

    Raises:
        LintError: a rule that it refuses has a finding, or there are more than it allows.
    """
    problems = [
        f"{place(found)}: {found.rule}, which [lint] refuses: {found.words}"
        for found in told.findings
        if found.rule in spec.refuse
    ]
    count = len(told.findings)
    if spec.most is not None and count > spec.most:
        problems.append(f"findings: {count}, of at most {spec.most} that [lint] allows")
    if problems:
        raise LintError.of(problems, "the scripts are not within [lint]")


def place(found: Finding) -> str:
    """Where it was found."""
    return f"{found.script}:{found.line}"


def _lint(scripts: Mapping[str, bytes], online: Collection[str], spec: LintSpec) -> Lint:
    readable = {name: sql for name, sql in scripts.items() if len(sql) <= LARGEST}
    unread = dict.fromkeys(scripts.keys() - readable.keys(), f"larger than {LARGEST} bytes")
    alone = {name: readable.pop(name) for name in readable.keys() & set(online)}
    said = [*_run(readable, spec, in_transaction=True), *_run(alone, spec, in_transaction=False)]
    for found in said:
        if found.rule == _NOT_READ:
            words = f"squawk could not read line {found.line}: {found.words}"
            unread.setdefault(found.script, words)
    order = {name: number for number, name in enumerate(scripts)}
    told = sorted(
        (found for found in said if _is_told(found, spec)),
        key=lambda found: (order[found.script], found.line, found.column, found.rule),
    )
    return Lint(tuple(told), {name: unread[name] for name in scripts if name in unread})


def _is_told(found: Finding, spec: LintSpec) -> bool:
    settled = found.rule in SETTLED and found.rule not in spec.refuse
    return not settled and found.rule not in (*spec.ignore, _NOT_READ)


def _run(
    scripts: Mapping[str, bytes], spec: LintSpec, *, in_transaction: bool
) -> tuple[Finding, ...]:
    """What squawk says, of files that have numbers for names: it takes names for patterns."""
    if not scripts:
        return ()
    files = {f"{number}.sql": name for number, name in enumerate(scripts)}
    with TemporaryDirectory(prefix="countersign-") as folder:
        write(Path(folder, _CONFIGURATION), b"")
        for file, name in files.items():
            write(Path(folder, file), scripts[name])
        command = [_program(), *_options(spec, in_transaction=in_transaction), *files]
        raw = run(command, cwd=Path(folder), accept=(0, 1))

    @lru_cache(maxsize=1)  # findings come file by file
    def lines_of(script: str) -> list[bytes]:
        return scripts[script].split(b"\n")

    try:
        document = Fields(load_json(b'{"found": %b}' % raw, "squawk"), "squawk")
        return document.each("found", lambda fields: _finding(fields, files, lines_of))
    except MalformedError as error:
        words = "squawk printed something else than findings"
        raise ToolError(words, detail=str(error)) from None


def _program() -> str:
    """The squawk that came with this Python's packages, or else the one on PATH."""
    beside = Path(sysconfig.get_path("scripts"), "squawk")
    return str(beside) if beside.exists() else "squawk"


def _options(spec: LintSpec, *, in_transaction: bool) -> Iterator[str]:
    yield f"--config={_CONFIGURATION}"
    yield "--reporter=json"
    if in_transaction:
        yield "--assume-in-transaction"
    if spec.postgresql:
        yield f"--pg-version={spec.postgresql}"
    yield from (f"--include={rule}" for rule in spec.refuse)  # some are off by default


def _finding(
    fields: Fields, files: Mapping[str, str], lines_of: Callable[[str], list[bytes]]
) -> Finding:
    """One finding; squawk counts lines, and bytes in a line, from 0."""
    script = files.get(fields.text("file"))
    if script is None:
        fields.refuse("a finding in a file that was not given")
    line, column = fields.integer("line", 0, LARGEST), fields.integer("column", 0, LARGEST)
    fields.integer("line_end", 0, LARGEST), fields.integer("column_end", 0, LARGEST)
    before = b"".join(lines_of(script)[line : line + 1])[:column]
    return Finding(
        script=script,
        line=line + 1,
        column=len(before.decode(errors="replace")) + 1,
        rule=fields.text("rule_name"),
        level=fields.text("level").lower(),
        words=fields.text("message"),
        help=fields.optional_text("help") or "",
    )
