"""What a release is, in words for people and in JSON for programs.

Prints nothing and verifies nothing. For people a release is a list of sections, each a title and
its lines; control characters that a name may hold never reach a terminal.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from installer.bundle import Bundle
from installer.manifest import (
    EDITED,
    LATE,
    REMOVED,
    REORDERED,
    Application,
    Blob,
    Database,
    Manifest,
    Online,
    Patch,
    Script,
)
from packager.package_reader import PackageInfo
from packager.patches import summarise
from packager.release import Release
from packager.signing import Signer

MOST_CHANGES = 5
"""Changes of the working copy that a warning lists."""


@dataclass(frozen=True, slots=True)
class Section:
    """A title, and lines that belong below it."""

    title: str
    lines: tuple[str, ...]


def show_package(info: PackageInfo, bundle: Bundle, manifest: Manifest) -> Iterator[Section]:
    """A package, for people."""
    yield Section(f"{info.name} ({info.format})", tuple(_identity(manifest)))
    signatures = tuple(sorted(bundle.head.signatures))
    yield Section("Signatures by (not verified here)", signatures or ("nobody",))
    if manifest.application:
        yield _application(manifest.application)
    if manifest.database:
        yield from _scripts(manifest.database)
        yield from online_scripts(
            "Outside of the transaction, where they have yet to run", manifest.database.scripts
        )


def package_document(info: PackageInfo, bundle: Bundle, manifest: Manifest) -> dict[str, Any]:
    """A package, for programs. `manifest` is the document that was signed."""
    return {
        "package": {"name": info.name, "format": info.format, "files": sorted(info.payload)},
        "digest": manifest.digest,
        "signatures": sorted(bundle.head.signatures),
        "manifest": json.loads(bundle.head.manifest),
    }


def show_plan(release: Release) -> Iterator[Section]:
    """What a release would do to hosts, for people: in which order, and from where."""
    manifest = release.manifest
    yield Section(manifest.title, tuple(_identity(manifest)))
    if manifest.database:
        yield from _scripts(manifest.database)
        yield from (_pending(start, release) for start in release.pending)
        pending = {script.name for scripts in release.pending.values() for script in scripts}
        new = (script for script in manifest.database.scripts if script.name in pending)
        yield from online_scripts("This release is not one transaction", new)
    if manifest.application:
        for patch in manifest.application.patches:
            yield _patch(manifest.application, patch)


def plan_document(release: Release) -> dict[str, Any]:
    """What a release would do to hosts, for programs."""
    application = release.manifest.application
    return {
        "digest": release.manifest.digest,
        "manifest": json.loads(release.raw),
        "pending": {start: [s.name for s in found] for start, found in release.pending.items()},
        "patches": {p.name: changes(application, p) for p in application.patches}
        if application
        else {},
    }


def changes(application: Application, patch: Patch) -> Mapping[str, list[str]]:
    """The paths that `patch` adds, changes and removes."""
    before = [entry.path for entry in patch.before]
    return {
        "added": sorted(patch.added),
        "changed": sorted(path for path in before if path in application.tree),
        "removed": sorted(path for path in before if path not in application.tree),
    }


def named_blob(manifest: Manifest, kind: type[Blob], name: str) -> Blob | None:
    """The script or patch of this name."""
    blobs = (blob for blob in manifest.blobs if isinstance(blob, kind) and blob.name == name)
    return next(blobs, None)


def printable(text: str) -> str:
    """`text` with what steers a terminal, line breaks apart, made visible."""
    return "".join(ascii(c)[1:-1] if _steers(c) else c for c in text)


def rehearsal_words(manifest: Manifest) -> str:
    """Whether and how a release with a database was rehearsed before it was signed."""
    rehearsal = manifest.database and manifest.database.rehearsal
    if not rehearsal:
        return "not rehearsed"
    starts = ", ".join(map(printable, rehearsal.starts))
    return f"rehearsed on PostgreSQL {rehearsal.major} from {starts}"


def shortened(lines: Sequence[str]) -> list[str]:
    """The first of `lines`, and how many more there are."""
    more = len(lines) - MOST_CHANGES
    first = [printable(line) for line in lines[:MOST_CHANGES]]
    return [*first, f"and {more} more"] if more > 0 else first


def signed_by(signers: tuple[Signer, ...]) -> Section:
    """Who signed."""
    return Section("Signed by", tuple(signer.title for signer in signers))


def _steers(char: str) -> bool:
    return unicodedata.category(char).startswith("C") and char != "\n"


def _identity(manifest: Manifest) -> Iterator[str]:
    source = manifest.source
    committed = datetime.fromtimestamp(source.committed, UTC)
    yield printable(manifest.summary)
    yield f"sequence  {manifest.sequence}"
    yield f"source    {source.vcs} {printable(source.tag)}, {printable(source.revision)}"
    if source.tagger:
        yield f"signed tag by {source.tagger}"
    yield f"committed {committed:%Y-%m-%d %H:%M:%S} UTC"
    yield f"manifest  {manifest.digest}"
    yield f"content   {manifest.content.size} bytes compressed"
    if manifest.database:
        yield rehearsal_words(manifest)


def _application(application: Application) -> Section:
    lines = (
        f"{len(application.tree)} files",
        *(_counts(application, p) for p in application.patches),
    )
    return Section(f"Application {application.root}", lines)


def _counts(application: Application, patch: Patch) -> str:
    counts = ", ".join(
        f"{len(paths)} {word}" for word, paths in changes(application, patch).items()
    )
    return f"from {printable(patch.name)}: {counts} ({patch.size} bytes)"


def _scripts(database: Database) -> Iterator[Section]:
    lines = (_script(number, s) for number, s in enumerate(database.scripts, 1))
    yield Section(f"Database {database.name}: scripts in their order", tuple(lines))
    if database.verify:
        lines = (_script(number, s) for number, s in enumerate(database.verify, 1))
        yield Section("Scripts that verify the result", tuple(lines))
    if accepted := tuple(accepted_changes(database)):
        yield Section("Changes of released scripts that are accepted", accepted)


def accepted_changes(database: Database) -> Iterator[str]:
    """Each deliberate change of a released script: what became of it, and why."""
    digests = {script.name: script.digest for script in database.scripts}
    for entry in database.accept:
        was = " or ".join(f"{digest[:16]}…" for digest in entry.applied)
        now = f"{digests.get(entry.script, '')[:16]}…"
        what = {
            EDITED: f"edited after it was released: applied as {was}, now {now}",
            REMOVED: f"removed after it was released: applied as {was}",
            LATE: f"new, and sorts before a released one: {now}",
            REORDERED: f"at another place than it was released with: {now}",
        }[entry.change]
        yield f"{printable(entry.script)}: {what}: {printable(entry.reason)}"


def _script(number: int, script: Script) -> str:
    size = f"{script.size} bytes" if script.runs else "no statement"
    author = f", author {script.author.fingerprint}" if script.author else ""
    return f"{number:4} {printable(script.name)} ({size}) {script.digest[:16]}…{author}"


def _pending(start: str, release: Release) -> Section:
    names = tuple(printable(script.name) for script in release.pending[start])
    return Section(f"Scripts that are new from {printable(start)}", names or ("none",))


def online_scripts(title: str, scripts: Iterable[Script]) -> Iterator[Section]:
    """Those of `scripts` that are online, under `title`; nothing where there are none."""
    lines = tuple(_online_script(s.name, len(s.runs), s.online) for s in scripts if s.online)
    if lines:
        yield Section(title, lines)


def _online_script(name: str, statements: int, online: Online) -> str:
    each = f"each of its {statements} statements" if statements != 1 else "its one statement"
    again = ", again and again until it processes no row" if online.repeat else ""
    return f"{printable(name)} runs {online.when} the transaction, {each} by itself{again}"


def _patch(application: Application, patch: Patch) -> Section:
    lines = tuple(map(printable, summarise(patch, application.tree)))
    return Section(f"Application {_counts(application, patch)}", lines or ("no change",))
