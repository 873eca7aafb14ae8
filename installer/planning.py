"""Decides what a release has still to do to a database, from what was applied to it before.

Pure: no file, no connection, no clock. What was applied is a set of scripts, not a position: it
may have come in another order. A script that was applied is fixed: edited, removed or overtaken by
a new one, it is told, never worked around. The one way to run a script before one that is applied
is for the signed release to accept it by name.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from installer.errors import DowngradeError, PlanDivergedError
from installer.manifest import Database, Manifest, Script
from installer.tree import Digest


@dataclass(frozen=True, slots=True)
class _Offence:
    """What is wrong with a script, and what to do about it."""

    words: str
    remedy: str


def pending_scripts(database: Database, applied: Mapping[str, Digest]) -> tuple[Script, ...]:
    """Scripts of the release that `applied` lacks, in release order.

    `applied` has every script that was ever applied for the product, by name.

    Raises:
        PlanDivergedError: an applied script was edited or is not in the release, or a pending one
            sorts before an applied one and the release does not accept it.
    """
    offences = [
        *_edited(database, applied),
        *_unknown(database, applied),
        *_late(database, applied),
    ]
    if len(offences) == 1:
        raise PlanDivergedError(offences[0].words, detail=offences[0].remedy)
    if offences:
        raise PlanDivergedError(
            f"{len(offences)} scripts disagree with what was applied",
            detail="\n".join(f"{offence.words}\n{offence.remedy}" for offence in offences),
        )
    return tuple(script for script in database.scripts if script.name not in applied)


def require_not_older(
    manifest: Manifest,
    installed: Manifest | None,
    ledger_sequence: int | None,
    ledger_digest: Digest | None,
) -> None:
    """Refuse a release that is older than what is here; the same one again is fine.

    What is here is the release that the host has installed, and the one with the highest sequence
    in the ledger: its sequence and the digest of its manifest.

    Raises:
        DowngradeError: either has a higher sequence, or this sequence and another manifest.
    """
    if installed is not None:
        _require_after(
            manifest, installed.sequence, installed.digest, f"this host ({installed.title})"
        )
    if ledger_sequence is not None:
        _require_after(manifest, ledger_sequence, ledger_digest, "the ledger of the database")


def _require_after(manifest: Manifest, sequence: int, digest: Digest | None, where: str) -> None:
    if manifest.sequence < sequence:
        raise DowngradeError(
            f"it has sequence {manifest.sequence}, and {where} is at {sequence} already"
        )
    if manifest.sequence == sequence and manifest.digest != digest:
        raise DowngradeError(
            f"another release with its sequence, {sequence}, is on {where}: "
            f"that one's manifest is {_short(digest)}, this one's {_short(manifest.digest)}"
        )


def _edited(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    for script in database.scripts:
        digest = applied.get(script.name, script.digest)
        if digest != script.digest:
            yield _Offence(
                f"{script.name} was edited after it was released: applied as {_short(digest)}, "
                f"now {_short(script.digest)}",
                "  Restore it as it was applied, and put the change in a new script.",
            )


def _unknown(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    for name in sorted(applied.keys() - {script.name for script in database.scripts}):
        yield _Offence(
            f"{name} was applied as {_short(applied[name])} and is not in this release",
            "  Restore it under this name: a release has all scripts since the first.",
        )


def _late(database: Database, applied: Mapping[str, Digest]) -> Iterator[_Offence]:
    """Pending scripts that come before the last applied one."""
    names = [script.name for script in database.scripts]
    last = max((place for place, name in enumerate(names) if name in applied), default=0)
    accepted = {entry.script for entry in database.accept}
    for name in names[:last]:
        if name not in applied and name not in accepted:
            yield _Offence(
                f"{name} is new and sorts before {names[last]}, which was applied",
                "  Give it a place after that; or, if it may run late, accept it in release.toml:\n"
                f'  [[database.accept]]\n  script = {_quoted(name)}\n  reason = "…"',
            )


def _short(digest: Digest | None) -> str:
    return f"{digest[:16]}…" if digest else "unknown"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
