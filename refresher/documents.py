# ruff: noqa: S608 - what goes into SQL here are quoted names, literals and expressions
"""JSON documents: paths into them, and SQL that masks what is there. Pure.

A path is keys with dots between them, such as `contact.mail`; `[*]` is every element of a list, as
in `contacts[*].mail`, and a key that has a dot or a bracket is in double quotes. Where a document
has something else than its paths say, a text instead of an object, that becomes null: a mask that
does not reach its value does not let it through.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from installer.quoting import literal
from refresher.keyed import bound

Leaf = TypeVar("Leaf")

_STEP = re.compile(r'(?:^|(?!^)\.)(?:"([^"\0]+)"|([^."\[\]\0]+))|\[\*\]')


@dataclass(frozen=True, slots=True)
class Branch(Generic[Leaf]):
    """What is below a place in a document: by key, or below None for every element of a list."""

    below: "Mapping[str | None, Branch[Leaf] | Leaf]"


def steps(path: str) -> tuple[str | None, ...]:
    """The keys of `path` from outside in; None is every element of a list.

    Raises:
        ValueError: it is no path.
    """
    found = list(_STEP.finditer(path))
    if not path or "".join(step[0] for step in found) != path:
        raise ValueError(f"{path!r} is no path such as contact.mail or contacts[*].mail")
    return tuple(step[1] or step[2] for step in found)


def tree(paths: Iterable[tuple[str, Leaf]]) -> Branch[Leaf]:
    """All paths as one.

    Raises:
        ValueError: one is no path, is given twice, ends on the way of another, or would have a
            place be an object and a list.
    """
    return _branch([(steps(path), path, leaf) for path, leaf in paths])


def masked(
    branch: Branch[Leaf],
    value: str,
    leaf: Callable[[str, Leaf], str],
    *,
    keep: bool,
    depth: int = 0,
) -> str:
    """The document `value`, which is SQL for a jsonb, with its leaves masked, in SQL for a jsonb.

    `leaf` masks a value that a path ends at. What no path names is dropped, unless `keep`.
    """
    place = f"j{depth}"

    def inner(below: Branch[Leaf] | Leaf, at: str) -> str:
        if isinstance(below, Branch):
            return masked(below, at, leaf, keep=keep, depth=depth + 1)
        return bound("j", at, leaf("j", below))

    if None in branch.below:
        elements = inner(branch.below[None], "e")
        result = (
            f"CASE jsonb_typeof({place}) WHEN 'array' THEN coalesce((SELECT jsonb_agg({elements}"
            f" ORDER BY i) FROM jsonb_array_elements({place}) WITH ORDINALITY AS element (e, i)),"
            " '[]') ELSE 'null' END"
        )
    else:
        parts = [place if keep else "'{}'::jsonb"]
        for key, below in branch.below.items():
            name = f"{literal(key or '')}::text"
            member = inner(below, f"({place} -> {name})")
            parts.append(
                f"CASE WHEN {place} ? {name} THEN jsonb_build_object({name}, {member})"
                " ELSE '{}' END"
            )
        result = (
            f"CASE jsonb_typeof({place}) WHEN 'object' THEN {' || '.join(parts)} ELSE 'null' END"
        )
    return bound(place, value, result)


def _branch(paths: list[tuple[tuple[str | None, ...], str, Leaf]]) -> Branch[Leaf]:
    groups: dict[str | None, list[tuple[tuple[str | None, ...], str, Leaf]]] = {}
    for (first, *rest), path, leaf in paths:
        groups.setdefault(first, []).append((tuple(rest), path, leaf))
    if None in groups and len(groups) > 1:
        raise ValueError(f"{groups[None][0][1]!r} needs a list where others need an object")
    below: dict[str | None, Branch[Leaf] | Leaf] = {}
    for key, group in groups.items():
        ends = [(path, leaf) for rest, path, leaf in group if not rest]
        if ends and len(group) > 1:
            raise ValueError(f"{ends[0][0]!r} ends on the way of another path")
        below[key] = ends[0][1] if ends else _branch(group)
    return Branch(below)
