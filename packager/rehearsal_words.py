"""What a rehearsal measured, in words for people and in JSON for programs.

Pure. For people it is told as the customer will be told what a host measured.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from installer.manifest import Manifest
from installer.receipt import MeasuredDatabase
from packager.briefing import database_sections
from packager.locktable import LockTable
from packager.schema_words import locks, schema_changes
from packager.show import Section, printable


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """How a release went from one starting point, on a server of a major version.

    `locks` is what its transaction held at its end.
    """

    start: str
    major: int
    database: MeasuredDatabase
    locks: LockTable


def sections(rehearsed: Rehearsed, manifest: Manifest) -> Iterator[Section]:
    """A rehearsal from one starting point, for people."""
    lines = (
        f"PostgreSQL {printable(rehearsed.database.version)}",
        "installed a second time, it changed nothing",
        f"lock table: {rehearsed.locks.words}",
    )
    yield Section(f"{manifest.title} from {printable(rehearsed.start)}", lines)
    yield from database_sections(rehearsed.database, manifest, "rehearsal.json")


def document(rehearsed: Rehearsed) -> dict[str, Any]:
    """A rehearsal from one starting point, for programs; times are in milliseconds."""
    database = rehearsed.database
    return {
        "start": rehearsed.start,
        "server": database.version,
        "milliseconds": database.milliseconds,
        "scripts": [
            {"script": run.name, "milliseconds": run.milliseconds, "rows": run.rows}
            for run in database.scripts
        ],
        "locks": [asdict(lock) for lock in database.locks],
        "locks_in_words": list(locks(database)),
        "lock_entries": rehearsed.locks.entries,
        "lock_room": rehearsed.locks.room,
        "created": list(database.created),
        "changes": list(schema_changes(database.start, database.end, None)),
    }
