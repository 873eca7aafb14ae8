"""Which files of a release are its scripts, and in which order they run.

Pure: works on paths, opens nothing. Every script has exactly one place in the order, the same on
every machine; where the rules of `release.toml` leave a doubt, the release is refused.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from installer.manifest import REMOVED
from packager.errors import PlanError
from packager.project import DatabaseSpec

SIGNATURE = ".asc"
"""What a file's name ends in that is the signature of the file beside it; it is never a script."""


def ordered(paths: Iterable[str], spec: DatabaseSpec, plan_text: str | None) -> tuple[str, ...]:
    """The scripts among `paths`, in the order in which they run.

    `paths` are all files of the release, relative to the repository; `plan_text` is the content
    of the file `spec.plan`, None where the release has no such file.

    Raises:
        PlanError: a pattern matches nothing, or the scripts have no single order.
    """
    paths = sorted(paths)
    scripts = matching(paths, spec.scripts)
    problems = [*_unmatched(paths, spec), *_misplaced(scripts, spec)]
    if spec.plan is not None:
        order, doubts = _by_plan(scripts, spec.plan, plan_text)
    elif spec.order == "number":
        order, doubts = _by_number(scripts, spec.scripts)
    else:
        order, doubts = scripts, []
    if problems := [*problems, *doubts]:
        raise PlanError.of(problems, "[database]")
    return order


def matching(paths: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Those of `paths` that any pattern matches, each once, by name.

    By name is part by part in the order of Unicode's code points, in no locale. `*`, `?` and
    `[...]` match within one part of a path; a part `**` matches any number of folders. Signatures
    match nothing.
    """
    split = [pattern.split("/") for pattern in patterns]
    by_parts = sorted({tuple(path.split("/")) for path in paths if not path.endswith(SIGNATURE)})
    return tuple("/".join(parts) for parts in by_parts if any(_matches(parts, p) for p in split))


def _unmatched(paths: list[str], spec: DatabaseSpec) -> Iterator[str]:
    given = {"scripts": spec.scripts, "verify": spec.verify, "prepare": spec.prepare}
    for key, patterns in given.items():
        for pattern in patterns:
            if not matching(paths, [pattern]):
                yield f"{key} has {pattern!r}, which matches no file of the release"


def _misplaced(scripts: tuple[str, ...], spec: DatabaseSpec) -> Iterator[str]:
    for path in matching(scripts, spec.verify):
        yield f"{path} is matched by both scripts and verify"
    for path in matching(scripts, spec.prepare):
        yield f"{path} is matched by both scripts and prepare"
    for entry in spec.accept:
        if entry.change == REMOVED and entry.script in scripts:
            yield f"accept calls {entry.script} removed, which is a script of the release"
        elif entry.change != REMOVED and entry.script not in scripts:
            near = _nearest(entry.script, scripts)
            yield f"accept names {entry.script}, which is no script of the release{near}"
    for online in spec.online:
        if matching([online.script], spec.verify):
            yield f"online names {online.script}, which verifies the release in its transaction"
        elif online.script not in scripts:
            near = _nearest(online.script, scripts)
            yield f"online names {online.script}, which is no script of the release{near}"


def _by_number(
    scripts: tuple[str, ...], patterns: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    numbers = {path: _number(path, patterns) for path in scripts}
    problems = [
        f"{path} has no number{_after(_folder_of(path, patterns))}"
        for path, number in numbers.items()
        if number is None
    ]
    first: dict[int, str] = {}
    for path, number in numbers.items():
        if number is not None and first.setdefault(number, path) != path:
            problems.append(f"{first[number]} and {path} have the same number, {number}")
    return tuple(first[number] for number in sorted(first)), problems


def _number(path: str, patterns: tuple[str, ...]) -> int | None:
    found = re.search("[0-9]+", path[len(_folder_of(path, patterns)) :])
    return int(found[0]) if found else None


def _after(folder: str) -> str:
    return f" after {folder!r}" if folder else ""


def _folder_of(path: str, patterns: tuple[str, ...]) -> str:
    """The folders that the first pattern to match `path` fixes, such as `v2/` of `v2/*.sql`."""
    pattern = next(p for p in patterns if matching([path], [p]))
    fixed = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    return fixed[: fixed.rfind("/") + 1]


def _by_plan(
    scripts: tuple[str, ...], plan: str, plan_text: str | None
) -> tuple[tuple[str, ...], list[str]]:
    if plan_text is None:
        return (), [f"plan is {plan!r}, which is no file of the release"]
    known = set(scripts)
    first: dict[str, int] = {}
    problems = []
    for number, path in _listed(plan_text):
        if path in first:
            problems.append(f"{plan}:{number}: {path} is listed already in line {first[path]}")
        elif path not in known:
            near = _nearest(path, scripts)
            problems.append(f"{plan}:{number}: {path} is no file that scripts matches{near}")
        first.setdefault(path, number)
    missing = [path for path in scripts if path not in first]
    problems += [f"{plan} does not list {path}, which scripts matches" for path in missing]
    return tuple(first), problems


def _nearest(path: str, scripts: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(path, scripts, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _listed(plan_text: str) -> Iterator[tuple[int, str]]:
    """The paths in a plan, with their lines. A comment begins at a `#` that no word precedes."""
    for number, line in enumerate(plan_text.removeprefix("\ufeff").split("\n"), 1):
        if path := re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip():
            yield number, path


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not (parts and pattern):
        return not parts and not pattern
    if pattern[0] != "**":
        return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
    if len(pattern) == 1:
        return True
    return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts)))
