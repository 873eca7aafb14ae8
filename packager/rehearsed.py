"""The record of a rehearsal, beside the manifest: what a release may say of itself, and why.

The record names the release by the digest of its manifest as it is without a rehearsal. A release
that is another in one byte is not the one that was rehearsed, and says nothing. Of the record only
the server's major version and the starting points go into the manifest: whoever rehearses the same
release on the same major gets the same bytes. Nobody signs the record itself; those who sign the
manifest say that it is true.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from installer.bundle import MANIFEST
from installer.errors import MalformedError
from installer.manifest import Manifest, Rehearsal, parse_manifest
from installer.strict_json import Fields, load_json
from installer.tree import Digest, digest_of
from packager.build import work_folder
from packager.errors import OutputError, RehearsalError
from packager.manifest_writer import write_manifest
from packager.output import place, temporary_folder, write
from packager.release import Release
from packager.show import rehearsal_words

RECORD = "rehearsal.json"
TYPE = "countersign-rehearsal"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What was rehearsed: the release, the server's major version, and each starting point.

    `runs` are JSON objects with what was measured; `start` in each is the starting point.
    """

    release: Digest
    major: int
    runs: tuple[dict[str, Any], ...]

    @property
    def starts(self) -> tuple[str, ...]:
        """The starting points."""
        return tuple(run["start"] for run in self.runs)


def rehearsed(release: Release, output: Path) -> Release:
    """`release`, with the rehearsal that the record in its work folder tells of, if it is of it.

    Raises:
        RehearsalError: there is a record that cannot be read.
    """
    database, record = release.manifest.database, read_record(release, output)
    if database is None or record is None:
        return release
    starts = sorted(record.starts, key=[*release.pending, *record.starts].index)
    said = replace(database, rehearsal=Rehearsal(record.major, tuple(starts)))
    raw = write_manifest(replace(release.manifest, database=said))
    manifest = replace(release.manifest, database=said, digest=digest_of(raw))
    return replace(release, manifest=manifest, raw=raw)


def read_record(release: Release, output: Path) -> Record | None:
    """The record of the rehearsal of exactly `release`, which says of itself that there was none.

    Raises:
        RehearsalError: there is a record that cannot be read.
    """
    file = work_folder(output, release.manifest) / RECORD
    try:
        record = _parse(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, MalformedError) as error:
        raise RehearsalError(
            f"{file} is no record of a rehearsal: {error}; remove it and rehearse again"
        ) from None
    return record if record.release == release.manifest.digest else None


def void_record(release: Release, output: Path) -> None:
    """Remove the record, as the release has failed.

    Raises:
        OutputError: it cannot be removed.
    """
    file = work_folder(output, release.manifest) / RECORD
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{file} cannot be removed: {error.strerror}") from None


def merged(new: Record, before: Record | None) -> Record:
    """`new`, with what was rehearsed `before` of the same release on the same major version."""
    if before is None or (before.release, before.major) != (new.release, new.major):
        return new
    runs = {run["start"]: run for record in (before, new) for run in record.runs}
    return replace(new, runs=tuple(runs.values()))


def write_record(release: Release, output: Path, record: Record) -> Path:
    """Write the record of the rehearsal of `release`; returns its file.

    Raises:
        OutputError: it cannot be written.
    """
    document = {
        "type": TYPE,
        "format": FORMAT,
        "release": record.release,
        "major": record.major,
        "starts": record.runs,
    }
    folder = work_folder(output, release.manifest)
    raw = f"{json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)}\n".encode()
    with temporary_folder(folder) as temporary:
        write(temporary / RECORD, raw)
        return place(temporary / RECORD, folder / RECORD)


def manifest_changed(release: Release, output: Path) -> str | None:
    """How the manifest in the work folder differs from the release's, if in its rehearsal alone.

    Signatures of that manifest do not fit the release's.
    """
    file = work_folder(output, release.manifest) / MANIFEST
    try:
        written = parse_manifest(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, MalformedError):
        return None
    if written.digest == release.manifest.digest:
        return None
    if _without_rehearsal(written) != _without_rehearsal(release.manifest):
        return None
    was, is_now = (rehearsal_words(m) for m in (written, release.manifest))
    return (
        f"{file} is another than before: it said {was!r}, and says {is_now!r} now. Signatures that "
        "were made before do not fit it: let everybody sign it again"
    )


def _parse(raw: bytes) -> Record:
    document = load_json(raw, RECORD)
    fields = Fields(document, RECORD)
    fields.require_type(TYPE, FORMAT)
    record = Record(
        release=fields.digest("release"),
        major=fields.integer("major", 1, 999),
        runs=fields.sequence("starts", dict),
    )
    fields.require_all_read()
    for run in record.runs:
        Fields(run, f"{RECORD}: starts").line("start")
    if not record.runs:
        fields.refuse("nothing was rehearsed")
    return record


def _without_rehearsal(manifest: Manifest) -> Manifest:
    database = manifest.database and replace(manifest.database, rehearsal=None)
    return replace(manifest, database=database, digest=Digest(""))
