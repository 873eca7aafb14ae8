"""What a host measured of an install, and signed: a statement that others rely on.

Opens no files. `write_receipt` makes the bytes, which are read back before they are kept;
`parse_receipt` is strict, as for everything that is signed (`installer.strict_json`). The schema is
in it before the release as a list of objects, and after it as what changed: the fingerprints of
both are computed anew when it is read, and have to be those that it names.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from installer.errors import MalformedError
from installer.fingerprint import LAYERS, Change, Schema, changes, schema_of
from installer.manifest import DATABASE, ENVIRONMENT, PRODUCT, ROOT, VERSION
from installer.strict_json import Fields, load_json, moment
from installer.tree import Digest, digest_of

TYPE = "countersign-receipt"
FORMAT = 1
INSTALLED, FAILED = "installed", "failed"

_OUTCOME = re.compile(f"{INSTALLED}|{FAILED}")
_LAYER = re.compile("|".join(LAYERS))
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class ScriptReceipt:
    """How one script went: the digest of the bytes that ran, and what the server said of them."""

    name: str
    digest: Digest
    milliseconds: int
    rows: int


@dataclass(frozen=True, slots=True, order=True)
class Lock:
    """The strongest lock that the release held on a relation that was there before it."""

    relation: str
    mode: str


@dataclass(frozen=True, slots=True)
class Retry:
    """What the install had to wait for, and how long."""

    reason: str
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an install failed, as it was told then."""

    exit_code: int
    message: str


@dataclass(frozen=True, slots=True)
class MeasuredDatabase:
    """One database and what the release did to it.

    `system` is the cluster's identifier, `ledger` the hash of the ledger's last row. `created` has
    the relations that the release made; `milliseconds` is the transaction's time up to COMMIT.
    `online` has the schema before the online scripts that come before the transaction, and after
    those that come after it; None where there are none.
    """

    name: str
    system: str
    version: str
    ledger: Digest
    milliseconds: int
    before: Schema
    after: Schema
    scripts: tuple[ScriptReceipt, ...]
    locks: tuple[Lock, ...]
    created: tuple[str, ...]
    retries: tuple[Retry, ...]
    online: tuple[Schema, Schema] | None = None

    @property
    def start(self) -> Schema:
        """The schema before anything of the release."""
        return self.online[0] if self.online else self.before

    @property
    def end(self) -> Schema:
        """The schema after all of the release."""
        return self.online[1] if self.online else self.after


@dataclass(frozen=True, slots=True)
class MeasuredApplication:
    """The application after the release: where it is, and the digest of its tree."""

    root: str
    tree: Digest


@dataclass(frozen=True, slots=True)
class Receipt:
    """One install. Times are in seconds since 1970; `digest` is that of the receipt's own bytes."""

    digest: Digest
    product: str
    version: str
    sequence: int
    manifest: Digest
    package: str
    environment: str
    host: str
    installer: str
    started: int
    finished: int
    outcome: str
    failure: Failure | None
    database: MeasuredDatabase | None
    application: MeasuredApplication | None

    @property
    def title(self) -> str:
        """Where and how it went, as messages name the receipt."""
        return f"{self.product} {self.version} {self.outcome} on {self.host} ({self.environment})"


def write_receipt(receipt: Receipt) -> bytes:
    """The bytes of `receipt`, whose own digest is ignored.

    Raises:
        MalformedError: it would not be read back as it was meant.
    """
    text = json.dumps(_document(receipt), ensure_ascii=False, indent=1, sort_keys=True)
    raw = f"{text}\n".encode()
    if replace(parse_receipt(raw), digest=receipt.digest) != receipt:
        raise MalformedError("receipt.json would be read otherwise than it is meant")
    return raw


def parse_receipt(raw: bytes) -> Receipt:
    """The receipt that `raw` is.

    Raises:
        MalformedError: `raw` is no receipt of a format that this version knows, or its
            fingerprints are not those of its objects.
    """
    top = Fields(load_json(raw, "receipt.json"), "receipt.json")
    top.require_type(TYPE, FORMAT)
    release, failure = top.table("release"), top.optional("failure")
    database, application = top.optional("database"), top.optional("application")
    receipt = Receipt(
        digest=digest_of(raw),
        product=release.matching("name", PRODUCT),
        version=release.matching("version", VERSION),
        sequence=release.integer("sequence", 1, _MOST),
        manifest=release.digest("manifest"),
        package=top.line("package"),
        environment=top.matching("environment", ENVIRONMENT),
        host=top.line("host"),
        installer=top.matching("installer", VERSION),
        started=top.moment("started"),
        finished=top.moment("finished"),
        outcome=top.matching("outcome", _OUTCOME),
        failure=_failure(failure) if failure else None,
        database=_database(database) if database else None,
        application=_application(application) if application else None,
    )
    for fields in (release, top):
        fields.require_all_read()
    if (receipt.failure is None) != (receipt.outcome == INSTALLED):
        top.refuse(f"the outcome is {receipt.outcome}, which a failure does not go with")
    return receipt


def _document(receipt: Receipt) -> dict[str, Any]:
    return {
        "type": TYPE,
        "format": FORMAT,
        "release": {
            "name": receipt.product,
            "version": receipt.version,
            "sequence": receipt.sequence,
            "manifest": receipt.manifest,
        },
        "package": receipt.package,
        "environment": receipt.environment,
        "host": receipt.host,
        "installer": receipt.installer,
        "started": moment(receipt.started),
        "finished": moment(receipt.finished),
        "outcome": receipt.outcome,
        "failure": receipt.failure and asdict(receipt.failure),
        "database": receipt.database and _database_document(receipt.database),
        "application": receipt.application and asdict(receipt.application),
    }


def _database_document(database: MeasuredDatabase) -> dict[str, Any]:
    return {
        "name": database.name,
        "system": database.system,
        "version": database.version,
        "ledger": database.ledger,
        "milliseconds": database.milliseconds,
        "schema": {
            "major": database.before.major,
            "before": dict(database.before.fingerprints),
            "after": dict(database.after.fingerprints),
            "objects": [item._asdict() for item in database.before.objects],
            "changes": _changes(database.before, database.after),
            "online": database.online
            and {
                "start": _apart(database.before, database.online[0]),
                "end": _apart(database.after, database.online[1]),
            },
        },
        "scripts": [asdict(script) for script in database.scripts],
        "locks": [asdict(lock) for lock in database.locks],
        "created": list(database.created),
        "retries": [asdict(retry) for retry in database.retries],
    }


def _apart(schema: Schema, other: Schema) -> dict[str, Any]:
    return {"fingerprints": dict(other.fingerprints), "changes": _changes(schema, other)}


def _changes(before: Schema, after: Schema) -> list[dict[str, str | None]]:
    return [
        {name: getattr(change, name) for name in Change.__slots__}  # asdict is slow
        for change in changes(before, after)
    ]


def _failure(fields: Fields) -> Failure:
    failure = Failure(fields.integer("exit_code", 1, 255), fields.text("message"))
    fields.require_all_read()
    return failure


def _application(fields: Fields) -> MeasuredApplication:
    application = MeasuredApplication(fields.matching("root", ROOT), fields.digest("tree"))
    fields.require_all_read()
    return application


def _database(fields: Fields) -> MeasuredDatabase:
    before, after, online = _schemas(fields.table("schema"))
    database = MeasuredDatabase(
        name=fields.matching("name", DATABASE),
        system=fields.matching("system", re.compile(r"[0-9]{1,20}")),
        version=fields.line("version"),
        ledger=fields.digest("ledger"),
        milliseconds=fields.integer("milliseconds", 0, _MOST),
        before=before,
        after=after,
        scripts=fields.each("scripts", _script),
        locks=fields.each("locks", lambda f: Lock(f.text("relation"), f.line("mode"))),
        created=fields.sequence("created", str),
        retries=fields.each("retries", _retry),
        online=online,
    )
    fields.require_all_read()
    return database


def _script(fields: Fields) -> ScriptReceipt:
    return ScriptReceipt(
        name=fields.path("name"),
        digest=fields.digest("digest"),
        milliseconds=fields.integer("milliseconds", 0, _MOST),
        rows=fields.integer("rows", 0, _MOST),
    )


def _retry(fields: Fields) -> Retry:
    return Retry(fields.text("reason"), fields.integer("milliseconds", 0, _MOST))


def _schemas(fields: Fields) -> tuple[Schema, Schema, tuple[Schema, Schema] | None]:
    major = fields.integer("major", 1, 999)
    before = schema_of(major, fields.each("objects", _object))
    after = before.changed(fields.each("changes", _change))
    for schema, key in ((before, "before"), (after, "after")):
        _require_fingerprints(schema.fingerprints, fields.table(key))
    online = fields.optional("online")
    fields.require_all_read()
    return before, after, _online(before, after, online) if online else None


def _online(before: Schema, after: Schema, fields: Fields) -> tuple[Schema, Schema]:
    start, end = _other(before, fields.table("start")), _other(after, fields.table("end"))
    fields.require_all_read()
    return start, end


def _other(schema: Schema, fields: Fields) -> Schema:
    """What differs from `schema` as its changes say."""
    other = schema.changed(fields.each("changes", _change))
    _require_fingerprints(other.fingerprints, fields.table("fingerprints"))
    fields.require_all_read()
    return other


def _object(fields: Fields) -> Sequence[str]:
    layer = fields.matching("layer", _LAYER)
    return (layer, fields.text("kind"), fields.text("name"), fields.text("definition"))


def _change(fields: Fields) -> Change:
    return Change(
        layer=fields.matching("layer", _LAYER),
        kind=fields.text("kind"),
        name=fields.text("name"),
        before=fields.optional_text("before"),
        after=fields.optional_text("after"),
    )


def _require_fingerprints(computed: Mapping[str, Digest], fields: Fields) -> None:
    for layer, digest in computed.items():
        if fields.digest(layer) != digest:
            fields.refuse(f"the fingerprint of {layer} is not that of the objects")
    fields.require_all_read()
