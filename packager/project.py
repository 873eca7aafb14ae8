"""What `release.toml` says, checked.

Opens that one file and no other. Unknown, missing and wrongly typed keys are refused, all at once,
each with the line it is on: whoever misspells a condition must not get a release without it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from installer.errors import MalformedError
from installer.manifest import (
    AFTER,
    BEFORE,
    CHANGES,
    DATABASE,
    EDITED,
    EMPTY,
    PRODUCT,
    REMOVED,
    ROOT,
    VERSION,
)
from installer.openpgp import FINGERPRINT
from installer.strict_json import DIGEST, is_control, require_relative_path
from installer.tree import Digest
from packager.lintrules import RULES
from packager.toml_reader import Key, Reader, Schema, is_tables, kind_of, meant

T = TypeVar("T")

SUMMARY_LENGTH = 79
"""Characters of a summary; rpmlint calls a longer one an error."""

MAX_SEQUENCE = 2**53


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """The application's folder in the repository, and the released trees that hosts may have.

    `starts` are tags (folders, without version control) or `installer.manifest.EMPTY`.
    """

    path: str
    starts: tuple[str, ...]
    root: str


@dataclass(frozen=True, slots=True)
class OnlineSpec:
    """That a script is no part of the release's transaction; as `installer.manifest.Online`."""

    script: str
    when: str
    repeat: bool


@dataclass(frozen=True, slots=True)
class AcceptSpec:
    """A change of a released script that is deliberate, as `installer.manifest.Accepted`.

    `digest` is the script's own in this release; None where it was removed.
    """

    script: str
    change: str
    digest: Digest | None
    applied: tuple[Digest, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """Which files are the database's scripts, and what their order is.

    `scripts` and `verify` are patterns; `plan` is there when, and only when, `order` is `plan`.
    `prepare` are patterns, too: of files that a rehearsal runs before everything else.
    `starts` are released states of the scripts that hosts may be at, as those of an application.
    """

    name: str
    scripts: tuple[str, ...]
    order: str
    plan: str | None
    verify: tuple[str, ...]
    accept: tuple[AcceptSpec, ...] = ()
    starts: tuple[str, ...] = (EMPTY,)
    prepare: tuple[str, ...] = ()
    online: tuple[OnlineSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class LintSpec:
    """Which advice about new scripts is told, and which stops the build.

    `postgresql` is the server's major version. A finding of a rule in `refuse` stops the build, and
    so do more findings than `most`, if that is not None. Those of a rule in `ignore` do not count.
    """

    postgresql: str | None = None
    ignore: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """One release, as `file` describes it. `to` is the tag that it is exported from.

    With `signed_tag`, which only git has, that tag has to be signed.
    """

    file: Path
    name: str
    version: str
    sequence: int
    summary: str
    description: str
    license: str
    vcs: str
    to: str
    signed_tag: bool
    application: ApplicationSpec | None
    database: DatabaseSpec | None
    package_key: str | None
    lint: LintSpec = LintSpec()


def load_project(path: Path) -> Project:
    """The release that the file at `path` describes.

    Raises:
        ProjectError: it cannot be read, is not TOML, or says something that no release can be.
    """
    reader = Reader(path, KEYS)
    release, signing = reader.table("release"), reader.table("signing")
    application, database = reader.table("application"), reader.table("database")
    if release is None:
        reader.refuse((), "a release needs [release]")
    if application is None and database is None:
        reader.refuse((), "a release needs [application], [database] or both")
    if application is not None:
        _require_other_starts(reader, "application", application)
    if database is not None:
        _require_other_starts(reader, "database", database)
        database["accept"] = _accepted(reader)
        database["online"] = _online(reader)
        _require_plan(reader, database)
        _require_source(reader, inherited=application is not None)
    _require_git(reader, application=application, database=database)
    lint = _lint(reader)
    reader.require_no_problems()
    values = (release or {}) | (signing or {}) | {"lint": lint}
    return _project(path, values, application, database)


def _project(
    path: Path,
    release: dict[str, Any],
    application: dict[str, Any] | None,
    database: dict[str, Any] | None,
) -> Project:
    source = application or database or {}
    return Project(
        file=path,
        **{key: release[key] for key in KEYS["release"]},
        vcs=source["vcs"],
        to=source["to"],
        signed_tag=source["signed_tag"],
        application=_application(application) if application else None,
        database=_database(database) if database else None,
        package_key=release.get("package_key"),
        lint=release["lint"],
    )


def _application(values: dict[str, Any]) -> ApplicationSpec:
    return ApplicationSpec(path=values["path"], starts=values["from"], root=values["root"])


def _database(values: dict[str, Any]) -> DatabaseSpec:
    return DatabaseSpec(
        name=values["name"],
        scripts=values["scripts"],
        order=values["order"],
        plan=values["plan"],
        verify=values["verify"],
        accept=values["accept"],
        starts=values["from"],
        prepare=values["prepare"],
        online=values["online"],
    )


# What each key allows and both together do not.


def _require_other_starts(reader: Reader, table: str, values: dict[str, Any]) -> None:
    if values.get("to") in values.get("from", ()):
        reader.refuse((table, "from"), f"from has {values['to']!r}, which is also to")


def _require_source(reader: Reader, *, inherited: bool) -> None:
    for key in ("vcs", "to", "signed_tag", "from"):
        given = reader.has("database", key)
        if given and inherited:
            reader.refuse(("database", key), f"{key} is [application]'s to say, where there is one")
        if not (given or inherited or key in {"signed_tag", "from"}):
            reader.refuse(("database",), f"[database] lacks {key}, as there is no [application]")


def _require_git(reader: Reader, **tables: dict[str, Any] | None) -> None:
    for name, values in tables.items():
        if values and values.get("signed_tag") and values.get("vcs") in {"svn", "tree"}:
            words = f'signed_tag needs vcs = "git", not {values["vcs"]!r}: only git has signed tags'
            reader.refuse((name, "signed_tag"), words)


def _require_plan(reader: Reader, database: dict[str, Any]) -> None:
    planned, given = database.get("order") == "plan", reader.has("database", "plan")
    if planned and not given:
        reader.refuse(("database", "order"), 'order = "plan" needs plan, the file with the order')
    if given and not planned and "order" in database:
        reader.refuse(("database", "plan"), 'plan is read with order = "plan" only')


def _accepted(reader: Reader) -> tuple[AcceptSpec, ...]:
    accepted: dict[tuple[str, str], AcceptSpec] = {}
    for number, table in reader.each("database", "accept").items():
        entry = AcceptSpec(**table)
        what = (entry.script, entry.change)
        for words in _misfits(entry, twice=what in accepted):
            reader.refuse(("database", "accept", number), words)
        accepted[what] = entry
    return tuple(accepted.values())


def _misfits(entry: AcceptSpec, *, twice: bool) -> Iterator[str]:
    """What an entry lacks for its change, or has too much."""
    if twice:
        yield f"{entry.script} is accepted as {entry.change} twice"
    needs_applied, needs_digest = entry.change in {EDITED, REMOVED}, entry.change != REMOVED
    if needs_applied != bool(entry.applied):
        does = "needs" if needs_applied else "has no"
        yield f'change = "{entry.change}" {does} applied, the digests of scripts that were applied'
    if needs_digest != bool(entry.digest):
        does = "needs" if needs_digest else "has no"
        yield f'change = "{entry.change}" {does} digest, that of the script in this release'


def _online(reader: Reader) -> tuple[OnlineSpec, ...]:
    online: dict[str, OnlineSpec] = {}
    for number, table in reader.each("database", "online").items():
        entry = OnlineSpec(**table)
        if entry.script in online:
            reader.refuse(("database", "online", number), f"{entry.script} is online twice")
        online[entry.script] = entry
    return tuple(online.values())


def _lint(reader: Reader) -> LintSpec:
    spec = LintSpec(**(reader.table("lint") or {}))
    for rule in spec.ignore:
        if rule in spec.refuse:
            reader.refuse(("lint", "ignore"), f"ignore has {rule!r}, which refuse has too")
    return spec


# What a value must be: each function returns it or raises ValueError with the words that follow
# the key's name.


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError(f"is {kind_of(value)}, not text")
    return value


def _line(value: object) -> str:
    text = _text(value)
    if not text.strip() or any(map(is_control, text)):
        raise ValueError("is not one line of text")
    return text


def _summary(value: object) -> str:
    line = _line(value)
    if len(line) > SUMMARY_LENGTH:
        raise ValueError(f"has {len(line)} characters, of at most {SUMMARY_LENGTH}")
    return line


def _description(value: object) -> str:
    text = _text(value)
    if any(is_control(char) for char in text if char not in "\n\t"):
        raise ValueError("holds a control character")
    return text.strip("\n")


def _sequence(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"is {kind_of(value)}, not a whole number")
    if not 1 <= value <= MAX_SEQUENCE:
        raise ValueError(f"is {value}, outside 1 to {MAX_SEQUENCE}")
    return value


def _count(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"is {kind_of(value)}, not a whole number")
    if value < 0:
        raise ValueError(f"is {value}, less than 0")
    return value


def _rule(value: object) -> str:
    text = _text(value)
    if text not in RULES:
        raise ValueError(f"is {text!r}, no rule of squawk{meant(text, RULES)}")
    return text


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError(f"is {kind_of(value)}, not true or false")
    return value


def _tag(value: object) -> str:
    line = _line(value)
    if line.startswith("-"):
        raise ValueError(f"is {line!r}, which a tool would take for an option")
    return line


def _target(value: object) -> str:
    tag = _tag(value)
    if tag == EMPTY:
        raise ValueError(f"is {EMPTY!r}, which only from may have")
    return tag


def _matching(pattern: re.Pattern[str], form: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value)
        if not pattern.fullmatch(text):
            raise ValueError(f"is {text!r}, not {form}")
        return text

    return read


def _fingerprint(value: object) -> str:
    text = _text(value).upper()
    if not FINGERPRINT.fullmatch(text):
        raise ValueError(f"is {value!r}, not a fingerprint of 40 hexadecimal digits")
    return text


def _digest(value: object) -> Digest:
    text = _text(value)
    if not DIGEST.fullmatch(text):
        raise ValueError(f"is {text!r}, not the 64 digits that sha256sum prints")
    return Digest(text)


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = _text(value)
        if text not in choices:
            raise ValueError(f"is {text!r}, none of {', '.join(choices)}{meant(text, choices)}")
        return text

    return read


def _path(value: object) -> str:
    path = _line(value)
    try:
        return require_relative_path(path, "")
    except MalformedError:
        raise ValueError(f"is {path!r}, not a path inside the repository") from None


def _folder(value: object) -> str:
    return "." if value == "." else _path(value)


def _pattern(value: object) -> str:
    pattern = _path(value)
    if any("**" in part and part != "**" for part in pattern.split("/")):
        raise ValueError(f"is {pattern!r}, where ** is not a whole part of the path")
    return pattern


def _list(read: Callable[[object], T], *, least: int) -> Callable[[object], tuple[T, ...]]:
    def read_all(value: object) -> tuple[T, ...]:
        if type(value) is not list:
            raise ValueError(f"is {kind_of(value)}, not a list")
        found = tuple(_entry(read, number, item) for number, item in enumerate(value, 1))
        if len(found) < least:
            raise ValueError("is an empty list")
        if twice := [item for number, item in enumerate(found) if item in found[:number]]:
            raise ValueError(f"has {twice[0]!r} twice")
        return found

    return read_all


def _entry(read: Callable[[object], T], number: int, item: object) -> T:
    try:
        return read(item)
    except ValueError as error:
        raise ValueError(f"entry {number} {error}") from None


def _tables(name: str) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not is_tables(value):
            raise ValueError(f"is {kind_of(value)}, not tables that begin with [[{name}]]")
        return value

    return read


_VCS = _one_of("git", "svn", "tree")

KEYS: Schema = {
    "release": {
        "name": Key(_matching(PRODUCT, "small letters, digits and -, such as crm")),
        "version": Key(
            _matching(VERSION, "a digit, then letters, digits, ., + and ~, such as 1.4.0")
        ),
        "sequence": Key(_sequence),
        "summary": Key(_summary),
        "description": Key(_description, ""),
        "license": Key(_line, "Proprietary"),
    },
    "application": {
        "vcs": Key(_VCS),
        "path": Key(_folder, "."),
        "to": Key(_target),
        "signed_tag": Key(_flag, default=False),
        "from": Key(_list(_tag, least=1)),
        "root": Key(_matching(ROOT, "an absolute path such as /opt/crm")),
    },
    "database": {
        "vcs": Key(_VCS, None),
        "to": Key(_target, None),
        "signed_tag": Key(_flag, default=False),
        "from": Key(_list(_tag, least=1), (EMPTY,)),
        "name": Key(_matching(DATABASE, "small letters, digits, _ and -, such as crm")),
        "scripts": Key(_list(_pattern, least=1)),
        "order": Key(_one_of("name", "number", "plan"), "name"),
        "plan": Key(_path, None),
        "verify": Key(_list(_pattern, least=0), ()),
        "prepare": Key(_list(_pattern, least=0), ()),
        "accept": Key(_tables("database.accept"), ()),
        "online": Key(_tables("database.online"), ()),
    },
    "database.accept": {
        "script": Key(_path),
        "change": Key(_one_of(*CHANGES)),
        "digest": Key(_digest, None),
        "applied": Key(_list(_digest, least=1), ()),
        "reason": Key(_line),
    },
    "database.online": {
        "script": Key(_path),
        "when": Key(_one_of(BEFORE, AFTER)),
        "repeat": Key(_flag, default=False),
    },
    "lint": {
        "postgresql": Key(
            _matching(re.compile("[1-9][0-9]"), 'a major version such as "15"'), None
        ),
        "ignore": Key(_list(_rule, least=0), ()),
        "refuse": Key(_list(_rule, least=0), ()),
        "most": Key(_count, None),
    },
    "signing": {
        "package_key": Key(_fingerprint),
    },
}
"""Every key that `release.toml` may have, by table."""
