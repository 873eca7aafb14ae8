"""Writes policies: the first one, and every change to it with the next serial.

A change is a function from one document to the next; a document is what TOML says, as Python reads
it. What is to be written is first read back by the code that hosts run, and compared: a policy that
hosts would refuse as such is never written, and a file that is refused stays as it was.

Nothing here decides whether a change is allowed: those whom hosts know have to sign it, and
`installer.rotation` counts them. Comments are lost: the `toml` package, which writes and is never
used to read, knows none.
"""

import glob
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import toml

from installer.errors import ConfigurationError
from installer.openpgp import FINGERPRINT
from installer.policy import APPROVAL_DAYS, CUSTOMER, HOST, RETIRED, REVOKED, Policy, parse_policy
from packager.errors import OutputError

Document = dict[str, Any]
Change = Callable[[Document], None]

DEVELOPER = "developer"
TESTED, PRODUCTION = "QAT", "PRD"
"""The environments that a first policy knows."""
PRODUCTION_DEVELOPERS = 2
"""How many developers production takes, where there are as many."""

HEADER = """\
# Whose signatures count; countersign-policy.toml(5) describes each key. Written by
# `countersign policy`, which keeps no comments.

"""

_TOP = ("serial", "chain")
_IDENTITY = ("name", "role", "environment", "fingerprints", "status", "not_before", "not_after")
_LINE = 80
"""Characters of a list that is kept on one line."""


class PolicyFileError(ConfigurationError):
    """A policy is not one that hosts would take as such, or a change to it makes no sense."""

    hint = (
        "Nothing was written. `countersign policy show` says whom a policy names; where too few of "
        "a role would be left, add others first."
    )


@dataclass(frozen=True, slots=True)
class Person:
    """Someone, or a host, to be named by a policy."""

    name: str
    role: str
    fingerprint: str
    environment: str | None = None

    def entry(self) -> Document:
        """The identity, as a policy has it."""
        entry = {"name": self.name, "role": self.role, "fingerprints": [self.fingerprint]}
        return entry | ({"environment": self.environment} if self.environment else {})


def parse_person(text: str, role: str) -> Person:
    """The person that `NAME=FINGERPRINT` names; a host's has `@ENVIRONMENT` after it.

    Raises:
        PolicyFileError: it is written in another way.
    """
    name, equals, key = text.rpartition("=")
    environment = None
    if role == HOST:
        key, at, environment = key.rpartition("@")
        if not at or not environment:
            raise PolicyFileError(f"{text!r} is no host; write NAME=FINGERPRINT@ENVIRONMENT")
    if not equals or not name:
        raise PolicyFileError(f"{text!r} names nobody; write NAME=FINGERPRINT")
    return Person(name, role, parse_fingerprint(key), environment)


def parse_fingerprint(text: str) -> str:
    """A primary fingerprint as policies have it; `text` may have spaces and small letters.

    Raises:
        PolicyFileError: it is something else.
    """
    fingerprint = re.sub(r"\s", "", text).upper()
    if not FINGERPRINT.fullmatch(fingerprint):
        raise PolicyFileError(
            f"{text!r} is not a fingerprint of 40 hexadecimal digits (a short key id can be "
            "forged); `gpg --list-keys` shows it"
        )
    return fingerprint


def parse_moment(text: str) -> datetime:
    """A date and time with its offset from UTC, in ISO 8601.

    Raises:
        PolicyFileError: it is something else.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PolicyFileError(f"{text!r} is no time; write 2026-01-31T00:00:00Z") from None
    if moment.tzinfo is None:
        raise PolicyFileError(f"{text!r} has no offset from UTC; write 2026-01-31T00:00:00Z")
    return moment.replace(microsecond=0)


def first_policy(people: Sequence[Person]) -> Document:
    """A policy with defaults that a small team can live with; at least one is a developer.

    One developer releases to QAT. Production takes two, where there are two, and the customer,
    who is shown the receipt of a host in QAT, where there is one. So does the next policy: or
    developers could do without their customer.
    """
    roles = [person.role for person in people]
    enough: Document = {DEVELOPER: min(PRODUCTION_DEVELOPERS, roles.count(DEVELOPER))}
    if CUSTOMER in roles:
        enough[CUSTOMER] = 1
    production = dict(enough)
    if CUSTOMER in roles:
        if any(person.environment == TESTED for person in people):
            production["receipt"] = True
        production["max_approval_days"] = APPROVAL_DAYS
    return {
        "serial": 1,
        "identity": [person.entry() for person in people],
        "require": {TESTED: {DEVELOPER: 1}, PRODUCTION: production},
        "rotation": enough,
    }


def adding(person: Person, not_before: datetime | None = None) -> Change:
    """Name one more identity, or one more key of an identity that is there."""

    def change(document: Document) -> None:
        same = [entry for entry in document["identity"] if entry["name"] == person.name]
        if same:
            _add_key(same[0], person, not_before)
            return
        bound = {"not_before": not_before} if not_before else {}
        document["identity"].append(person.entry() | bound)

    return change


def retiring(name: str, moment: datetime) -> Change:
    """Let what `name` signed until `moment`, or an earlier end, go on counting; nothing later."""

    def change(document: Document) -> None:
        entry = _identity(document, name)
        _require_active(entry)
        entry["status"] = RETIRED
        entry["not_after"] = min(moment, entry.get("not_after", moment))

    return change


def revoking(name: str) -> Change:
    """Let nothing that `name` ever signed count any more."""

    def change(document: Document) -> None:
        entry = _identity(document, name)
        if entry.get("status") == REVOKED:
            raise PolicyFileError(f"{name} is revoked already")
        entry["status"] = REVOKED

    return change


def create(file: Path, document: Document) -> None:
    """Write the first policy to `file`.

    Raises:
        PolicyFileError: hosts would refuse it.
        OutputError: `file` is there already, or cannot be written.
    """
    content = render(document)
    if file.exists() or file.is_symlink():
        raise OutputError(f"{file} is there already, and is not overwritten")
    _write(file, content, os.link)


def amend(file: Path, change: Change) -> tuple[Policy, Policy]:
    """Change the policy in `file`; returns it as it was, and as it is now.

    Raises:
        PolicyFileError: it is no policy, or the change makes no sense or none that hosts accept.
        OutputError: `file` cannot be written.
    """
    content = read_file(file)
    before = parse(content, file)
    document = tomllib.loads(content.decode())
    change(document)
    document["serial"] += 1
    written = render(document)
    _write(file.resolve(), written, os.replace)
    return before, parse_policy(written)


def parse(content: bytes, file: Path) -> Policy:
    """The policy that `content` is, which was read from `file`.

    Raises:
        PolicyFileError: it is none.
    """
    try:
        return parse_policy(content)
    except ConfigurationError as error:
        raise PolicyFileError(f"{file} is no policy that hosts take: {error}") from None


def render(document: Document) -> bytes:
    """The file that says what `document` does.

    Raises:
        PolicyFileError: hosts would refuse it.
    """
    parts = [{key: document[key] for key in _TOP if key in document}]
    parts += [{"identity": [_ordered(entry)]} for entry in document["identity"]]
    parts += [{"require": {name: table}} for name, table in document["require"].items()]
    parts.append({"rotation": document["rotation"]})
    text = HEADER + "\n".join(toml.dumps(part, _encoder()).strip() + "\n" for part in parts)
    if tomllib.loads(text) != document:
        raise OutputError("the policy does not read back as it was meant")
    content = text.encode()
    try:
        parse_policy(content)
    except ConfigurationError as error:
        raise PolicyFileError(f"hosts would refuse this: {error}") from None
    return content


def read_file(file: Path) -> bytes:
    """The content of a policy, or of what belongs to one.

    Raises:
        PolicyFileError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise PolicyFileError(f"{file}: {error.strerror}") from None


def place_signature(file: Path, name: str, signature: bytes) -> Path:
    """Put a signature called `name` beside the policy in `file`; returns where.

    Raises:
        OutputError: it cannot be written.
    """
    beside = file.with_name(name)
    _write(beside, signature, os.replace)
    return beside


def signatures_beside(file: Path) -> list[Path]:
    """What hosts take for signatures of the policy in `file`."""
    return sorted(file.parent.glob(f"{glob.escape(file.name)}*.asc"))


def _identity(document: Document, name: str) -> Document:
    for entry in document["identity"]:
        if entry["name"] == name:
            found: Document = entry
            return found
    names = ", ".join(entry["name"] for entry in document["identity"])
    raise PolicyFileError(f"the policy names no {name!r}; it names {names}")


def _require_active(entry: Mapping[str, Any]) -> None:
    status = entry.get("status", "active")
    if status in {RETIRED, REVOKED}:
        raise PolicyFileError(f"{entry['name']} is {status} already")


def _add_key(entry: Document, person: Person, not_before: datetime | None) -> None:
    _require_active(entry)
    if (entry["role"], entry.get("environment")) != (person.role, person.environment):
        here = f" in {entry['environment']}" if "environment" in entry else ""
        raise PolicyFileError(
            f"{person.name} is there already, as {entry['role']}{here}; an identity has one role, "
            "so give somebody else another name"
        )
    if not_before:
        raise PolicyFileError(
            f"{person.name} is there already, and not_before is about all that they sign; "
            "leave --not-before out"
        )
    if person.fingerprint in entry["fingerprints"]:
        raise PolicyFileError(f"{person.fingerprint} is a key of {person.name} already")
    entry["fingerprints"].append(person.fingerprint)


def _ordered(entry: Mapping[str, Any]) -> Document:
    return {key: entry[key] for key in _IDENTITY if key in entry}


def _write(file: Path, content: bytes, place: Callable[[str, Path], None]) -> None:
    """Write `content` beside `file`, and put it there with `place` when it is on the disk."""
    try:
        with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
            try:
                new.write(content)
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).chmod(_mode(file))
                place(new.name, file)
            finally:
                Path(new.name).unlink(missing_ok=True)
    except FileExistsError:
        raise OutputError(f"{file} is there already, and is not overwritten") from None
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from None


def _mode(file: Path) -> int:
    """The mode that `file` has, or one that everybody can read and only its owner can write."""
    return file.stat().st_mode & 0o777 if file.exists() else 0o644


def _encoder() -> "toml.TomlEncoder[Document]":  # generic for type checkers alone
    """Lists as people write them; texts with JSON's escapes, all of which TOML has too."""
    encoder: toml.TomlEncoder[Document] = toml.TomlEncoder()
    encoder.dump_funcs[str] = _text
    encoder.dump_funcs[list] = _texts
    return encoder


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(values: list[str]) -> str:
    line = f"[{', '.join(map(_text, values))}]"
    if len(line) <= _LINE:
        return line
    return "[\n" + "".join(f"    {_text(value)},\n" for value in values) + "]"
