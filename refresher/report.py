"""What a refresh did, as a document and as lines for people. Pure, apart from reading and writing.

A report is one JSON file in a folder, called after the database and the run; names sort by time.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from installer.durable import write_file
from installer.errors import ConfigurationError
from installer.host_key import FOLDER as KEY_FOLDER
from installer.host_key import HostKey
from installer.machine import STATE
from installer.report import printable
from refresher.errors import NoPlaceError, NoReportError, NotKeptError
from refresher.safeguards import Identity

FOLDER = Path("refresh-reports")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. Times are in seconds, by phase; `constraints` counts the valid ones by kind.

    `fingerprints` are by layer, and None where the servers' major versions differ. `environment`
    is None where the new database has no ledger to say it in. `raw_values` are counted by masked
    column, and `by_chance` are sentences about those that have some; `unused` are rules for what
    the source does not have; `allowed` are findings in the schema that refresh.toml lets pass,
    `allowed_unknown` what it allows and there is not.
    """

    run: str
    mode: str
    environment: str | None
    source: Identity
    target: Identity
    rows: Mapping[str, int]
    bytes: int
    sequences: int
    large_objects: int
    materialized_views: tuple[str, ...]
    left_out: tuple[str, ...]
    constraints: Mapping[str, int]
    not_valid: tuple[str, ...]
    fingerprints: Mapping[str, str] | None
    dropped: tuple[str, ...]
    kept: str | None
    seconds: Mapping[str, float]
    raw_values: Mapping[str, int] = field(default_factory=dict)
    by_chance: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    allowed_unknown: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {"type": "refresh", **asdict(self)}


def write_report(folder: Path, report: Report, key: HostKey | None = None) -> Path:
    """Keep a report, signed where there is a key, as a receipt is; returns the file.

    Raises:
        NotKeptError: it cannot be written or signed.
    """
    file = folder / f"{report.target.database}-{report.run}.json"
    content = f"{json.dumps(report.document, indent=2, ensure_ascii=False)}\n".encode()
    try:
        write_file(file, content)
        if key is not None:
            write_file(file.with_name(f"{file.name}.asc"), key.sign(content))
    except (OSError, ConfigurationError) as error:
        raise NotKeptError(f"{file}: {error}") from None
    return file


def require_folder(folder: Path) -> None:
    """See to the folder for reports before anything else.

    Raises:
        NoPlaceError: it cannot be made, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NoPlaceError(f"{folder}, the folder for reports: {error.strerror}") from None


def host_key() -> HostKey | None:
    """This host's key, by which its receipts are signed; None where it has none, or is not ours."""
    home = STATE / KEY_FOLDER
    if not os.access(home, os.R_OK | os.X_OK):
        return None
    key = HostKey(home)
    return key if key.fingerprint() else None


def last_report(folder: Path, database: str, environment: str) -> dict[str, Any]:
    """The newest report about a database; those of other environments may lie beside it.

    Raises:
        NoReportError: the folder has none.
    """
    for file in sorted(folder.glob(f"{database}-{'[0-9]' * 14}.json"), reverse=True):
        document: dict[str, Any] = json.loads(file.read_bytes())
        if document["environment"] in {environment, None}:
            return document
    raise NoReportError(f"{folder} has no report about {database!r} ({environment}) yet")


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A report for people."""
    source, target, rows = document["source"], document["target"], document["rows"]
    made = called(target["database"], document["environment"])
    origin = called(source["database"], source["environment"])
    yield f"{document['mode']}: {made} is made from {origin}"
    yield f"run           {document['run']}"
    if document["environment"] is None:
        yield "environment   not said: it has no ledger"
    releases = (f"{name}, sequence {number}" for name, number in source["releases"].items())
    yield f"releases      {'; '.join(releases) or 'none'}"
    yield f"rows          {sum(rows.values())} in {len(rows)} tables, {mib(document['bytes'])}"
    yield f"sequences     {document['sequences']}"
    yield f"large objects {document['large_objects']}"
    yield f"views filled  {len(document['materialized_views'])}"
    valid = (f"{kind} {count}" for kind, count in document["constraints"].items())
    yield f"constraints   {', '.join(valid) or 'none'}"
    for name in document["not_valid"]:
        yield f"not valid     {printable(name)}, as in the source"
    yield from not_done(document)
    if document["fingerprints"] is None:
        yield "schema        not compared: the servers' major versions differ"
    else:
        yield "schema        as the source's:"
        for layer, digest in document["fingerprints"].items():
            yield f"  {layer:<11} {digest}"
    yield from _raw_values(document)
    for name in document["dropped"]:
        yield f"dropped       {name}, left by a run before"
    if document["kept"]:
        yield f"kept          {document['kept']}"
    phases = document["seconds"]
    shares = (f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
    yield f"time          {sum(phases.values()):.1f} s: {', '.join(shares)}"


def _raw_values(document: Mapping[str, Any]) -> Iterator[str]:
    """What was searched and counted, in masked mode."""
    if counts := document["raw_values"]:
        yield f"raw values    {sum(counts.values())} in {len(counts)} masked columns"
    for sentence in document["by_chance"]:
        yield f"              {printable(sentence)}"
    for finding in document["allowed"]:
        yield f"allowed       {printable(finding)}"
    for place in document["allowed_unknown"]:
        yield f"allowed       {printable(place)}, which was not found"


def not_done(document: Mapping[str, Any]) -> Iterator[str]:
    """What is not copied, and rules that have nothing to mask; of a plan, too."""
    for what in document["left_out"]:
        yield f"not copied    {printable(what)}"
    for rule in document["unused"]:
        yield f"rule unused   {printable(rule)}"


def called(database: str, environment: str | None) -> str:
    """A database, and which environment it says that it is."""
    return f"{database} ({environment})" if environment else database


def mib(size: float) -> str:
    """Bytes for people."""
    return f"{size / _MIB:.1f} MiB"
