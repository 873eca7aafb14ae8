"""What `countersign-install schema` says: the schema of a database here, and how it has drifted."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from installer.database import connect
from installer.errors import ConfigurationError, MalformedError, SchemaDiffersError
from installer.fingerprint import Schema, changes, describe
from installer.machine import Machine
from installer.receipt import parse_receipt


@dataclass(frozen=True, slots=True)
class Comparison:
    """A schema beside a receipt's: lines for people, facts for programs, and the exit code."""

    lines: list[str]
    facts: dict[str, Any]
    exit_code: int


def read_schema(machine: Machine, database: str | None) -> Schema:
    """The schema of `database`, or of the only one that the host file names.

    Raises:
        ConfigurationError: the host file names none, or several.
        DatabaseUnavailableError: it cannot be read.
    """
    names = [database] if database else list(machine.host.databases)
    if len(names) != 1:
        raise ConfigurationError(
            f"the host file names {len(names)} databases; say which with --database"
        )
    with connect(machine.host.database(names[0]), "schema") as connection:
        return connection.schema()


def compare(found: Schema, receipt: Path, *, before: bool) -> Comparison:
    """How `found` differs from what `receipt` has after its release, or before it.

    Whose receipt it is, is not verified: it is a file of the caller's.

    Raises:
        MalformedError: it is no receipt, or of a release without a database.
        SchemaDiffersError: it is of another major version of PostgreSQL.
    """
    try:
        measured = parse_receipt(receipt.read_bytes())
    except OSError as error:
        raise MalformedError(f"{receipt}: {error.strerror}") from None
    if measured.database is None:
        raise MalformedError(f"{receipt} does not say anything about a database")
    expected = measured.database.start if before else measured.database.end
    apart = changes(expected, found)
    what = f"{'before' if before else 'after'} {measured.title}"
    if not apart:
        return Comparison([f"the schema is as {what}"], {"differences": []}, 0)
    objects = "object differs" if len(apart) == 1 else "objects differ"
    lines = [f"{len(apart)} {objects} from what there is {what}:", describe(apart)]
    facts = {"differences": [asdict(change) for change in apart]}
    return Comparison(lines, facts, SchemaDiffersError.exit_code)
