"""Assembles a release: what the tags of a repository hold, as the manifest that developers sign.

Only tags are read, never the working copy. Everything that can be known to go wrong on a host is
refused here: a script that PostgreSQL would not parse, one that hosts have yet to run with
statements that no release can run, scripts without a single order, and scripts that a starting
point has already released and that were edited, removed or overtaken since. A signature beside a
script has to fit it, and so has the tag's where release.toml demands one.
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from installer.errors import ApplicationError, PlanDivergedError
from installer.manifest import (
    EMPTY,
    Accepted,
    Application,
    Author,
    Database,
    Manifest,
    Online,
    Script,
    Source,
)
from installer.planning import pending_scripts
from installer.tree import Tree, digest_of, scan
from packager.errors import PackagerError, PlanError, ProjectError, SigningError, SqlError
from packager.manifest_writer import UNSIGNED, compress, describe_content, write_manifest
from packager.patches import make_patch
from packager.project import AcceptSpec, DatabaseSpec, Project
from packager.scripts import SIGNATURE, matching, ordered
from packager.signing import Signers
from packager.sqlcheck import check_script
from packager.vcs import Repository, open_repository
from packager.vcs.signed_tag import tagger_of


class AuthorError(SigningError):
    """A signature beside a script is not one of that script by a key that gpg knows."""

    hint = (
        "Have the author sign the script as it is (gpg --armor --detach-sign FILE), commit the "
        "signature and tag again; docs/how-to/sign-scripts-and-tags.md has the steps."
    )


@dataclass(frozen=True, slots=True)
class Release:
    """A release as assembled: the manifest, its bytes, the compressed content it describes.

    `pending` has, for each starting point, the scripts that a host at that point has yet to run.
    `changes` says how the working copy differs from what is under version control.
    """

    project: Project
    manifest: Manifest
    raw: bytes
    compressed: bytes
    pending: Mapping[str, tuple[Script, ...]]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """A starting point: its exported tree, and the scripts that a host there has run, in order.

    `prepare` are files of the release's own tree, `prepared`: they make what databases held before
    the first release.
    """

    name: str
    tree: Path
    scripts: tuple[str, ...]
    prepared: Path
    prepare: tuple[str, ...]


def assemble(project: Project) -> Release:
    """The release that `project` describes.

    Raises:
        PlanError: the scripts have no order, or released ones were changed.
        ProjectError: a tag or path does not exist, or holds what no release can carry.
        SigningError: the signature of a script or of the tag is missing or bad.
        SqlError: a script is not SQL, or holds what no release can run.
        ToolError: a version control tool is missing or failed.
    """
    with _open(project) as assembly:
        return assembly.release()


def examine(project: Project) -> list[str | PackagerError]:
    """What is fine about a release, in words, and everything that is not, as errors.

    Raises:
        ProjectError: there is no repository.
        ToolError: a version control tool is missing.
    """
    findings: list[str | PackagerError] = []
    with _open(project) as assembly:
        for part in assembly.parts():
            try:
                findings.append(assembly.describe(part))
            except PackagerError as error:
                if str(error) not in map(str, findings):  # parts may fail for one cause
                    findings.append(error)
    return findings


def export_starts(project: Project, folder: Path) -> tuple[Start, ...]:
    """The starting points of a release with a database, exported below `folder`.

    Raises:
        PlanError: the scripts of one have no order.
        ProjectError: a tag does not exist.
        ToolError: a version control tool is missing or failed.
    """
    repository = open_repository(project.vcs, project.file.parent)
    return _Assembly(project, repository, folder).starts()


@contextmanager
def _open(project: Project) -> Iterator["_Assembly"]:
    repository = open_repository(project.vcs, project.file.parent)
    with TemporaryDirectory(prefix="countersign-") as folder:
        yield _Assembly(project, repository, Path(folder))


class _Assembly:
    """The parts of a release, each made when it is first asked for."""

    def __init__(self, project: Project, repository: Repository, folder: Path) -> None:
        self._project = project
        self._repository = repository
        self._folder = folder
        self._exports: dict[str, tuple[Path, Source]] = {}
        self._now = int(time.time())

    def release(self) -> Release:
        application, patches = self._application
        database, scripts = self._database
        compressed = compress((*patches, *scripts))
        manifest = Manifest(
            digest=UNSIGNED,
            product=self._project.name,
            version=self._project.version,
            sequence=self._project.sequence,
            summary=self._project.summary,
            source=self._released,
            application=application,
            database=database,
            content=describe_content(compressed),
        )
        raw = write_manifest(manifest)
        return Release(
            project=self._project,
            manifest=replace(manifest, digest=digest_of(raw)),
            raw=raw,
            compressed=compressed,
            pending=self._pending_of(database),
            changes=tuple(self._repository.changes()),
        )

    def _pending_of(self, database: Database | None) -> dict[str, tuple[Script, ...]]:
        scripts = {script.name: script for script in database.scripts} if database else {}
        return {
            start: tuple(scripts[planned.name] for planned in self._pending(start))
            for start in self._starts
        }

    def parts(self) -> Iterator[str]:
        """What `describe` describes, one after the other."""
        tags = [self._project.to, *self._starts]
        yield from (f"tag {tag}" for tag in tags if tag != EMPTY)
        yield "application"
        yield "database"
        yield from (f"from {start}" for start in self._starts)

    def describe(self, part: str) -> str:
        """Make a part, and say what came of it."""
        kind, _, name = part.partition(" ")
        if kind == "tag":
            source = self._released if name == self._project.to else self._source(name)
            signed = f", signed by {source.tagger}" if source.tagger else ""
            return f"{part}: {source.revision}{signed}"
        if kind == "from":
            return f"{part}: {len(self._pending(name))} scripts to run"
        if kind == "application":
            application, _ = self._application
            return _count_files(application) if application else "no application"
        database, _ = self._database
        return _count_scripts(database) if database else "no database"

    def starts(self) -> tuple[Start, ...]:
        """The starting points, with the scripts that hosts there have run."""
        spec = self._project.database
        return tuple(self._start(name, spec) for name in self._starts) if spec else ()

    @property
    def _starts(self) -> tuple[str, ...]:
        spec = self._project.application or self._project.database
        return spec.starts if spec else ()

    @cached_property
    def _released(self) -> Source:
        """Where the release comes from, and who signed its tag where that is demanded."""
        source = self._source(self._project.to)
        if not self._project.signed_tag:
            return source
        folder = self._project.file.parent
        signer = tagger_of(folder, source.tag, source.revision, self._now)
        return replace(source, tagger=signer.fingerprint)

    @cached_property
    def _application(self) -> tuple[Application | None, tuple[bytes, ...]]:
        spec = self._project.application
        if spec is None:
            return None, ()
        after = self._tree(self._project.to) / spec.path
        tree = _scan(after)
        made = [make_patch(name, self._tree(name) / spec.path, after) for name in self._starts]
        patches = tuple(patch for patch, _ in made)
        return Application(spec.root, tree, patches), tuple(content for _, content in made)

    @cached_property
    def _database(self) -> tuple[Database | None, tuple[bytes, ...]]:
        if self._planned is None:
            return None, ()
        planned, contents = self._planned
        names = [script.name for script in planned.scripts]
        online = {script.name: script.online for script in planned.scripts}
        checked = _checked(contents, self._released_everywhere(names), online)
        signers = Signers(self._now)
        scripts = _signed(checked, contents, self._tree(self._project.to), signers)
        database = replace(
            planned,
            scripts=tuple(scripts[name] for name in names),
            verify=tuple(scripts[script.name] for script in planned.verify),
        )
        return database, tuple(contents.values())

    @cached_property
    def _planned(self) -> tuple[Database, Mapping[str, bytes]] | None:
        """The database's scripts before anybody has looked into them, and their contents.

        What is wrong with their order, or with released ones, is told whatever is in them.
        """
        spec = self._project.database
        if spec is None:
            return None
        tree = self._tree(self._project.to)
        names, verify = _script_names(spec, tree)
        contents = {name: _content(tree, name) for name in (*names, *verify)}
        online = {entry.script: Online(entry.when, entry.repeat, ()) for entry in spec.online}
        scripts = {
            name: Script(name, digest_of(content), len(content), (), online=online.get(name))
            for name, content in contents.items()
        }
        database = Database(
            name=spec.name,
            scripts=tuple(scripts[name] for name in names),
            verify=tuple(scripts[name] for name in verify),
            accept=_accepted(spec.accept, scripts),
        )
        return database, contents

    def _released_everywhere(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the scripts `names` that hosts have run, whatever point they start from."""
        trees = [self._tree(start) for start in self._starts]
        return frozenset(n for n in names if all((tree / n).is_file() for tree in trees))

    def _pending(self, start: str) -> tuple[Script, ...]:
        """The scripts that a host has yet to run which has run all those of `start`."""
        spec, planned = self._project.database, self._planned
        if spec is None or planned is None:
            return ()
        tree = self._tree(start)
        names = matching(_files(tree), spec.scripts)
        applied = {name: digest_of(_content(tree, name)) for name in names}
        try:
            return pending_scripts(planned[0], applied, self._start(start, spec).scripts)
        except (PlanDivergedError, PlanError) as error:
            raise PlanError(f"from {start}: {error}", detail=error.detail) from None

    def _start(self, name: str, spec: DatabaseSpec) -> Start:
        """Only what release.toml says of the order holds for a tree that was released before it.

        Without the plan of that time, the scripts have the places that this release gives them.
        """
        tree = self._tree(name)
        files = list(_files(tree))
        known = [pattern for pattern in spec.scripts if matching(files, [pattern])]
        if spec.plan in files or not spec.plan:
            then = replace(spec, scripts=tuple(known), verify=(), accept=(), online=(), prepare=())
            scripts, _ = _script_names(then, tree)
        else:
            now, _ = _script_names(spec, self._tree(self._project.to))
            scripts = tuple(sorted(matching(files, known), key=[*now, *files].index))
        to = self._tree(self._project.to)
        return Start(name, tree, scripts, to, matching(_files(to), spec.prepare))

    def _tree(self, tag: str) -> Path:
        """The folder that holds the tree of `tag`; that of `empty` holds nothing."""
        return self._folder / EMPTY if tag == EMPTY else self._export(tag)[0]

    def _source(self, tag: str) -> Source:
        return self._export(tag)[1]

    def _export(self, tag: str) -> tuple[Path, Source]:
        if tag not in self._exports:
            folder = Path(mkdtemp(dir=self._folder))
            self._exports[tag] = (folder, self._repository.export(tag, folder))
        return self._exports[tag]


def _scan(folder: Path) -> Tree:
    try:
        tree = scan(folder)
    except ApplicationError as error:
        raise ProjectError(f"the application: {error}") from None
    if not tree:
        raise ProjectError(f"the application's folder, {folder.name!r}, is empty or missing")
    return tree


def _script_names(spec: DatabaseSpec, tree: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The scripts of an exported tree in their order, and those that verify the result."""
    files = list(_files(tree))
    plan = spec.plan if spec.plan in files else None
    text = _content(tree, plan).decode(errors="replace") if plan else None
    return ordered(files, spec, text), matching(files, spec.verify)


def _accepted(entries: Iterable[AcceptSpec], scripts: Mapping[str, Script]) -> tuple[Accepted, ...]:
    """The changes that release.toml accepts, of the scripts as they are."""
    problems = [
        f"{entry.script} was accepted as {entry.change} with digest {entry.digest}, and has "
        f"{scripts[entry.script].digest} now: look at the change again, and put that"
        for entry in entries
        if entry.digest and entry.digest != scripts[entry.script].digest
    ]
    if problems:
        raise PlanError.of(problems, "[[database.accept]]")
    return tuple(Accepted(e.script, e.change, e.applied, e.reason) for e in entries)


def _checked(
    contents: Mapping[str, bytes], ran: Collection[str], online: Mapping[str, Online | None]
) -> dict[str, Script]:
    """All scripts, or one error that says what is wrong with any of them.

    Of those that `ran` everywhere nobody asks any more how.
    """
    checked: dict[str, Script] = {}
    wrong: list[SqlError] = []
    for name, content in contents.items():
        try:
            cuts = check_script(name, content, runs=name not in ran, online=online.get(name))
        except SqlError as error:
            wrong.append(error)
        else:
            checked[name] = Script(
                name, digest_of(content), len(content), cuts.runs, cuts.gaps, online=cuts.online
            )
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        detail = "\n".join(filter(None, (part for e in wrong for part in (str(e), e.detail))))
        raise SqlError(f"{len(wrong)} scripts are wrong", detail=detail)
    return checked


def _signed(
    scripts: Mapping[str, Script], contents: Mapping[str, bytes], tree: Path, signers: Signers
) -> dict[str, Script]:
    """`scripts` with their authors, or one error that says which signatures do not fit."""
    signed: dict[str, Script] = {}
    wrong: list[SigningError] = []
    for name, script in scripts.items():
        try:
            signed[name] = replace(script, author=_author(name, contents[name], tree, signers))
        except SigningError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise AuthorError(str(wrong[0]), detail=wrong[0].detail)
    if wrong:
        raise AuthorError(
            f"{len(wrong)} signatures of scripts are wrong", detail="\n".join(map(str, wrong))
        )
    return signed


def _author(name: str, content: bytes, tree: Path, signers: Signers) -> Author | None:
    """Who signed a script of an exported tree; None where no signature lies beside it."""
    beside = f"{name}{SIGNATURE}"
    if not os.path.lexists(tree / beside):
        return None
    signature = _content(tree, beside)
    signer = signers.of(signature, content, beside, name)
    return Author(signer.fingerprint, signature.decode("ascii"))  # as every signature that fits is


def _files(tree: Path) -> Iterator[str]:
    for folder, _, names in os.walk(tree):
        yield from (Path(folder, name).relative_to(tree).as_posix() for name in names)


def _content(tree: Path, name: str) -> bytes:
    if (tree / name).is_symlink() or not (tree / name).is_file():
        # What a link leads to may lie outside the release, and differ from machine to machine.
        raise ProjectError(f"{name} is not a plain file, as scripts and signatures have to be")
    return (tree / name).read_bytes()


def _count_files(application: Application) -> str:
    return f"application: {len(application.tree)} files, {len(application.patches)} patches"


def _count_scripts(database: Database) -> str:
    return f"database: {len(database.scripts)} scripts, {len(database.verify)} that verify"
