"""What a refresh did, as a document and as lines for people. Pure, apart from reading and writing.

A report is one JSON file in a folder, called after the database and the run; names sort by time.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from installer.durable import write_file
from installer.errors import ConfigurationError
from installer.host_key import FOLDER as KEY_FOLDER
from installer.host_key import HostKey
from installer.machine import STATE
from installer.report import printable
from refresher.errors import NoReportError, NotKeptError, RefreshFileError
from refresher.safeguards import Identity

FOLDER = Path("refresh-reports")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. Times are in seconds, by phase; `constraints` counts the valid ones by kind.

    `fingerprints` are by layer, and None where the servers' major versions differ. `environment`
    is None where the new database has no ledger to say it in.
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
        RefreshFileError: it cannot be made, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RefreshFileError(f"{folder}, the folder for reports: {error.strerror}") from None


def host_key() -> HostKey | None:
    """This host's key, by which its receipts are signed; None where it has none, or is not ours."""
    home = STATE / KEY_FOLDER
    if not os.access(home, os.R_OK | os.X_OK):
        return None
    key = HostKey(home)
    return key if key.fingerprint() else None


def last_report(folder: Path, database: str) -> dict[str, Any]:
    """The newest report about a database.

    Raises:
        NoReportError: the folder has none.
    """
    found = sorted(folder.glob(f"{database}-{'[0-9]' * 14}.json"))
    if not found:
        raise NoReportError(f"{folder} has no report about {database!r} yet")
    document: dict[str, Any] = json.loads(found[-1].read_bytes())
    return document


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A report for people."""
    source, target, rows = document["source"], document["target"], document["rows"]
    yield f"{target['database']} is made from {source['database']} ({document['mode']} mode)"
    yield f"run           {document['run']}"
    says = document["environment"] or "not said: it has no ledger"
    yield f"environment   {says}"
    releases = (f"{product} {sequence}" for product, sequence in source["releases"].items())
    yield f"releases      {', '.join(releases) or 'none'}"
    yield f"rows          {sum(rows.values())} in {len(rows)} tables, {mib(document['bytes'])}"
    yield f"sequences     {document['sequences']}"
    yield f"large objects {document['large_objects']}"
    yield f"views filled  {len(document['materialized_views'])}"
    valid = (f"{kind} {count}" for kind, count in document["constraints"].items())
    yield f"constraints   {', '.join(valid) or 'none'}"
    for name in document["not_valid"]:
        yield f"not valid     {printable(name)}, as in the source"
    for what in document["left_out"]:
        yield f"not copied    {printable(what)}"
    for layer, digest in (document["fingerprints"] or {}).items():
        yield f"{layer:<13} {digest}"
    if document["fingerprints"] is None:
        yield "schema        not compared: the servers' major versions differ"
    for name in document["dropped"]:
        yield f"dropped       {name}, left by a run before"
    if document["kept"]:
        yield f"kept          {document['kept']}"
    for phase, seconds in document["seconds"].items():
        yield f"{phase:<13} {seconds:.1f} s"


def mib(size: float) -> str:
    """Bytes for people."""
    return f"{size / _MIB:.1f} MiB"
