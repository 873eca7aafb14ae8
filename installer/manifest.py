"""What a release contains, as its developers signed it.

Opens no files. Parsing is strict: the bytes are UTF-8 JSON without a byte order mark, without
duplicate keys, NaN or deep nesting; every key is known and present. Unknown keys are refused: one
may carry a condition that this version cannot honour. The signed bytes are what is parsed; nothing
is ever serialised again in order to verify it.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from installer.openpgp import FINGERPRINT, MAX_SIGNATURE_SIZE
from installer.strict_json import DIGEST, MAX_DOCUMENT_SIZE, Fields, load_json
from installer.tree import MODES, Digest, Entry, Tree, by_path, digest_of, tree_digest

FORMAT = 1
TYPE = "countersign-manifest"
MAX_MANIFEST_SIZE = MAX_DOCUMENT_SIZE
MAX_CONTENT_SIZE = 16 * 1024**3
EMPTY = "empty"
"""The starting point of a host that has no application yet."""
BEFORE, AFTER = "before", "after"
"""When an online script runs: before or after the release's transaction."""
EDITED, REMOVED, LATE, REORDERED = CHANGES = ("edited", "removed", "late", "reordered")
"""What may have become of a script that was released: other bytes; gone; new, with a place before
one that was applied; at another place."""
COPY_OPTIONS = ("format", "delimiter", "null", "header", "quote", "escape")
"""Options that a COPY with inline rows may have."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A piece of content: what it is called, its digest, its size in bytes."""

    name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Author:
    """Who is said to have written a script: a primary fingerprint, and an armoured signature.

    The signature is a detached one of the script's bytes. Nothing here is verified:
    `installer.authors` does that.
    """

    fingerprint: str
    signature: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY … FROM STDIN whose rows are in the script, right behind it.

    `table` is as SQL has it, quoted; `columns` are bare names. `options` has COPY's own, such as
    `format` and `delimiter`. The rows are the first `size` bytes of their gap.
    """

    table: str
    columns: tuple[str, ...]
    options: Mapping[str, str] = field(hash=False)
    size: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes `[start, end)` of a script that are not SQL and in no run.

    They are the rows of the COPY that is the run before, or a line that pg_dump writes for psql.
    """

    start: int
    end: int
    copy: Copy | None


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """The index that the run number `run` of an online script makes or drops CONCURRENTLY.

    `name` is as SQL has it: quoted, and with the schema where the script names that.
    """

    run: int
    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class Online:
    """A script that is no part of the release's transaction: each run is a transaction by itself.

    It runs BEFORE the release's transaction or AFTER it. Each run is one statement; with `repeat`
    it runs again and again until it processes no row.
    """

    when: str
    repeat: bool
    indexes: tuple[ConcurrentIndex, ...]


@dataclass(frozen=True, slots=True)
class Script(Blob):
    """An SQL script. Each run is one or more whole statements.

    Run i begins at byte `runs[i]`, and ends where the next run or a gap begins. No runs: the script
    holds no statement. `author` is None where nobody has signed the script, `online` where it is
    part of the release's one transaction.
    """

    runs: tuple[int, ...]
    gaps: tuple[Gap, ...] = ()
    author: Author | None = None
    online: Online | None = None


@dataclass(frozen=True, slots=True)
class Patch(Blob):
    """The application's diff from one released tree, called `name`, to this release's.

    `before` has the entries of that tree which this release changes or removes, `added` the paths
    which it has and that tree has not.
    """

    before: tuple[Entry, ...]
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the release was exported from. `revision` is a git commit, or an svn URL and revision.

    `committed` is that revision's time, in seconds since 1970: the time of the packages built.
    `tagger` is the primary fingerprint of the key that signed the tag, as the build verified it;
    None where release.toml demands no signed tag.
    """

    vcs: str
    tag: str
    revision: str
    committed: int
    tagger: str | None = None


@dataclass(frozen=True, slots=True)
class Application:
    """The application's tree after the release, and the patches that lead to it."""

    root: str
    tree: Tree
    patches: tuple[Patch, ...]

    def tree_before(self, patch: Patch) -> Tree:
        """The tree to which `patch` applies."""
        touched = set(patch.added)
        kept = {path: entry for path, entry in self.tree.items() if path not in touched}
        return kept | by_path(patch.before)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change of a released script that is deliberate, and why.

    `change` is one of CHANGES. `applied` has the digests under which an edited or a removed script
    may have been applied; it is empty for the other changes.
    """

    script: str
    change: str
    applied: tuple[Digest, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How the release was tried before it was signed.

    `major` is the server's version, `starts` the starting points.
    """

    major: int
    starts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Database:
    """The database's scripts in the order of the release, and those that verify the result.

    `rehearsal` is None where the release was signed without one.
    """

    name: str
    scripts: tuple[Script, ...]
    verify: tuple[Script, ...]
    accept: tuple[Accepted, ...] = ()
    rehearsal: Rehearsal | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The compressed stream of all blobs: its digest and size as compressed."""

    compression: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One release. `digest` is that of the manifest's own bytes: the release's identity."""

    digest: Digest
    product: str
    version: str
    sequence: int
    summary: str
    source: Source
    application: Application | None
    database: Database | None
    content: Content

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All content, in the order in which the bundle carries it."""
        patches = self.application.patches if self.application else ()
        scripts = (*self.database.scripts, *self.database.verify) if self.database else ()
        return (*patches, *scripts)

    @property
    def tree_digest(self) -> Digest | None:
        """Digest of the application's tree after the release."""
        return tree_digest(self.application.tree) if self.application else None

    @property
    def title(self) -> str:
        """Product and version, as messages name the release."""
        return f"{self.product} {self.version}"


def parse_manifest(raw: bytes) -> Manifest:
    """The release that `raw` describes.

    Raises:
        MalformedError: `raw` is not a manifest of a format that this version knows.
    """
    top = Fields(load_json(raw, "manifest.json"), "manifest.json")
    top.require_type(TYPE, FORMAT)
    release, source = top.table("release"), top.table("source")
    application, database = top.optional("application"), top.optional("database")
    manifest = Manifest(
        digest=digest_of(raw),
        product=release.matching("name", PRODUCT),
        version=release.matching("version", VERSION),
        sequence=release.integer("sequence", 1, 2**53),
        summary=release.line("summary"),
        source=_source(source),
        application=_application(application) if application else None,
        database=_database(database) if database else None,
        content=_content(top.table("content")),
    )
    for fields in (release, top):
        fields.require_all_read()
    if not (application or database):
        top.refuse("neither an application nor a database")
    return manifest


PRODUCT = re.compile(r"[a-z][a-z0-9-]{0,63}")
VERSION = re.compile(r"[0-9][A-Za-z0-9.+~]{0,63}")
DATABASE = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
ROOT = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._+-]*){2,16}")
ENVIRONMENT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
ARMOUR = re.compile(r"[ -~\r\n]+")


def _source(fields: Fields) -> Source:
    source = Source(
        vcs=fields.matching("vcs", re.compile(r"git|svn|tree")),
        tag=fields.line("tag"),
        revision=fields.line("revision"),
        committed=fields.integer("committed", 0, 2**40),
        tagger=fields.optional_text("tagger"),
    )
    fields.require_all_read()
    if source.tagger is not None:
        if not FINGERPRINT.fullmatch(source.tagger):
            fields.refuse(f"tagger is {source.tagger!r}, no fingerprint of 40 digits")
        if source.vcs != "git":
            fields.refuse("tagger is there, but only git has signed tags")
    return source


def _application(fields: Fields) -> Application:
    tree = fields.each("tree", _entry)
    application = Application(
        root=fields.matching("root", ROOT),
        tree=by_path(tree),
        patches=fields.each("patches", _patch),
    )
    fields.require_all_read()
    _require_tree([entry.path for entry in tree], fields)
    _require_distinct([patch.name for patch in application.patches], fields)
    for patch in application.patches:
        if not set(patch.added) <= application.tree.keys():
            fields.refuse(f"the patch from {patch.name} adds what the tree does not have")
        if {entry.path for entry in patch.before}.intersection(patch.added):
            fields.refuse(f"the patch from {patch.name} adds what is there before")
        _require_tree([entry.path for entry in patch.before], fields)
        _require_tree(list(application.tree_before(patch)), fields)
    return application


def _entry(fields: Fields) -> Entry:
    mode = fields.text("mode")
    if mode not in MODES:
        fields.refuse(f"mode {mode!r} is none of {', '.join(sorted(MODES))}")
    size = fields.integer("size", 0, MAX_CONTENT_SIZE)
    return Entry(fields.path("path"), mode, size, fields.digest("digest"))


def _patch(fields: Fields) -> Patch:
    return Patch(
        name=fields.line("from"),
        digest=fields.digest("digest"),
        size=fields.integer("size", 0, MAX_CONTENT_SIZE),
        before=fields.each("before", _entry),
        added=fields.sequence("added", str),
    )


def _database(fields: Fields) -> Database:
    rehearsal = fields.optional("rehearsal")
    database = Database(
        name=fields.matching("name", DATABASE),
        scripts=fields.each("scripts", _script),
        verify=fields.each("verify", _script),
        accept=fields.each("accept", _accepted),
        rehearsal=_rehearsal(rehearsal) if rehearsal else None,
    )
    fields.require_all_read()
    _require_tree([s.name for s in (*database.scripts, *database.verify)], fields)
    _require_accept(database, fields)
    if any(script.online for script in database.verify):
        fields.refuse("a script that verifies is online, and could not be rolled back")
    return database


def _accepted(fields: Fields) -> Accepted:
    return Accepted(
        script=fields.path("script"),
        change=fields.matching("change", re.compile("|".join(CHANGES))),
        applied=tuple(map(Digest, fields.sequence("applied", str))),
        reason=fields.line("reason"),
    )


def _require_accept(database: Database, fields: Fields) -> None:
    """Each entry is about one change of one script, and says what that needs."""
    names = {script.name for script in database.scripts}
    seen: set[tuple[str, str]] = set()
    for entry in database.accept:
        what = f"accept of {entry.script}, {entry.change},"
        if (entry.script, entry.change) in seen:
            fields.refuse(f"{what} is there twice")
        seen.add((entry.script, entry.change))
        if (entry.script in names) == (entry.change == REMOVED):
            fields.refuse(f"{what} is about a script that this release does not have, or has")
        if bool(entry.applied) != (entry.change in {EDITED, REMOVED}):
            fields.refuse(f"{what} has applied, or lacks it")
        if not all(map(DIGEST.fullmatch, entry.applied)):
            fields.refuse(f"{what} has something else than digests in applied")


def _rehearsal(fields: Fields) -> Rehearsal:
    rehearsal = Rehearsal(fields.integer("major", 1, 999), fields.sequence("starts", str))
    fields.require_all_read()
    return rehearsal


def _script(fields: Fields) -> Script:
    author, online = fields.optional("author"), fields.optional("online")
    script = Script(
        name=fields.path("name"),
        digest=fields.digest("digest"),
        size=fields.integer("size", 0, MAX_CONTENT_SIZE),
        runs=fields.sequence("runs", int),
        gaps=fields.each("gaps", _gap),
        author=_author(author) if author else None,
        online=_online(online) if online else None,
    )
    _require_cuts(script, fields)
    return script


def _require_cuts(script: Script, fields: Fields) -> None:
    """Runs and gaps rise within the script, and rows follow the COPY that reads them."""
    runs = script.runs
    if runs and not (list(runs) == sorted(set(runs)) and runs[0] >= 0 and runs[-1] < script.size):
        fields.refuse("runs are not rising offsets within the script")
    end = 0
    for gap in script.gaps:
        if not end <= gap.start < gap.end <= script.size:
            fields.refuse("gaps are not rising ranges within the script")
        if any(gap.start <= run < gap.end for run in runs):
            fields.refuse("a run begins within a gap")
        if gap.copy and not (runs and end <= max((r for r in runs if r < gap.start), default=-1)):
            fields.refuse("rows follow no COPY")
        end = gap.end
    if script.online and (script.gaps or any(i.run >= len(runs) for i in script.online.indexes)):
        fields.refuse("an online script has gaps, or indexes of runs that it has not")


def _gap(fields: Fields) -> Gap:
    start, end = (fields.integer(key, 0, MAX_CONTENT_SIZE) for key in ("start", "end"))
    copy = fields.optional("copy")
    return Gap(start, end, _copy(copy, end - start) if copy else None)


def _copy(fields: Fields, most: int) -> Copy:
    copy = Copy(
        table=fields.line("table"),
        columns=fields.sequence("columns", str),
        options=fields.texts("options", COPY_OPTIONS),
        size=fields.integer("size", 0, max(most, 0)),
    )
    fields.require_all_read()
    if not copy.columns:
        fields.refuse("COPY without columns")
    return copy


def _online(fields: Fields) -> Online:
    online = Online(
        when=fields.matching("when", re.compile(f"{BEFORE}|{AFTER}")),
        repeat=fields.flag("repeat"),
        indexes=fields.each("indexes", _index),
    )
    fields.require_all_read()
    return online


def _index(fields: Fields) -> ConcurrentIndex:
    return ConcurrentIndex(
        run=fields.integer("run", 0, MAX_CONTENT_SIZE),
        verb=fields.matching("verb", re.compile("create|drop")),
        name=fields.line("name"),
    )


def _author(fields: Fields) -> Author:
    author = Author(fields.matching("fingerprint", FINGERPRINT), fields.text("signature"))
    fields.require_all_read()
    if len(author.signature) > MAX_SIGNATURE_SIZE or not ARMOUR.fullmatch(author.signature):
        fields.refuse(f"signature is no ASCII text of up to {MAX_SIGNATURE_SIZE} bytes")
    return author


def _content(fields: Fields) -> Content:
    content = Content(
        compression=fields.matching("compression", re.compile("xz")),
        digest=fields.digest("digest"),
        size=fields.integer("size", 0, MAX_CONTENT_SIZE),
    )
    fields.require_all_read()
    return content


def _require_tree(paths: list[str], fields: Fields) -> None:
    """Refuse names that some file system holds for the same, and a file that is also a folder."""
    folded: dict[str, str] = {}
    for path in paths:
        form = unicodedata.normalize("NFC", path).casefold()
        if form in folded:
            fields.refuse(f"{folded[form]!r} and {path!r} differ at most in case or Unicode form")
        folded[form] = path
    folders = {path[:i] for path in paths for i, char in enumerate(path) if char == "/"}
    if both := folders.intersection(paths):
        fields.refuse(f"{min(both)!r} is both a file and a folder")


def _require_distinct(names: list[str], fields: Fields) -> None:
    if len(set(names)) != len(names):
        fields.refuse("two patches start from the same release")
