"""The corpus: inputs in `corpus/TARGET/`, each in a file that is named by its content's digest.

It has the smallest inputs that between them reach what all known inputs reach in the installer.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import installer
from installer.tree import digest_of
from tests.fuzz.targets import Target

CORPUS = Path(__file__).with_name("corpus")
MOST_FILES = 32
"""Inputs of one target."""
MOST_BYTES = 64 * 1024
"""Of all inputs of one target together."""
LARGEST = 16 * 1024

_CODE = str(Path(installer.__file__).parent)

Step = tuple[str, int, int]
"""A file, a line, and the line before it in the same call."""


def name_of(content: bytes) -> str:
    """How an input is called in the corpus: the start of its SHA-256."""
    return digest_of(content)[:16]


def corpus_of(target: str) -> list[bytes]:
    """The target's inputs, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def rewrite(target: str, kept: Iterable[bytes]) -> None:
    """Let the target's corpus be these inputs."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name_of(content): content for content in kept}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (folder / name).write_bytes(content)


def minimised(target: Target, seeds: Iterable[bytes], found: Iterable[bytes]) -> list[bytes]:
    """The seeds, and such of what was found as takes most steps that none before it takes."""
    kept = list(dict.fromkeys(seeds))
    reached = set[Step]().union(*(steps(target.read, seed) for seed in kept))
    waiting = {one: steps(target.read, one) for one in sorted(found, key=_by_size)}
    size = sum(map(len, kept))
    while waiting and len(kept) < MOST_FILES:
        fits = [one for one in waiting if size + len(one) <= MOST_BYTES]
        best = max(fits, key=lambda one: len(waiting[one] - reached), default=b"")
        if not fits or not (new := waiting.pop(best) - reached):
            break
        kept.append(best)
        reached |= new
        size += len(best)
    return kept


def steps(read: Callable[[bytes], bool], content: bytes) -> set[Step]:
    """The steps through the installer's code that `read` takes with this input."""
    taken: set[Step] = set()

    def called(frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_CODE):
            return None
        before = 0

        def line(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
            nonlocal before
            if event == "line":
                taken.add((frame.f_code.co_filename, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    outer = sys.gettrace()
    sys.settrace(called)
    try:
        read(content)
    finally:
        sys.settrace(outer)
    return taken


def _by_size(content: bytes) -> tuple[int, bytes]:
    return len(content), content
