"""The command `countersign audit`: parse, call, print.

`packager.cli` adds it to its own, turns errors into exit codes and exits.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from installer.errors import MalformedError
from installer.strict_json import moment
from packager.audit import Audited, verify
from packager.audit_reader import Statement, read_audit
from packager.cli_options import JSON, example, print_document, print_sections, read_file, warn
from packager.show import Section, printable


@click.command(epilog=example("countersign audit crm-prd.tar --keyring auditor.pgp"))
@click.argument("bundle", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--keyring",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Public keys, in binary form, that you know of yourself.  [default: the bundle's own]",
)
@JSON
def audit(bundle: Path, keyring: Path | None, *, as_json: bool) -> None:
    """Verify an auditor's BUNDLE, as `countersign-install audit --output` writes it.

    Needs no database. Says what is in it and who signed; exits with 42 where the ledger is not what
    was written, with 20 where signatures are missing or do not fit.
    """
    try:
        with bundle.open("rb") as file:
            read = read_audit(file)
            keys = (keyring, read_file(keyring)) if keyring else None
            found, statement = verify(read, keys, int(time.time())), read.statement
    except OSError as error:
        raise MalformedError(f"{bundle}: {error.strerror}") from None
    if as_json:
        print_document(_document(found, statement))
    else:
        print_sections(_sections(found, statement))
    if keyring is None:
        warn("the keys are the bundle's own: this shows that it agrees with itself, no more")
    if statement.host_key is None:
        warn("audit.json is not signed: the host has no key")
    found.require_sound()


def _sections(found: Audited, statement: Statement) -> Iterator[Section]:
    key = statement.host_key or "no key"
    database = f"database {statement.database}, cluster {statement.system}"
    yield Section(
        printable(f"Audit of {statement.host} ({statement.environment})"),
        (
            f"written {moment(statement.created)} by countersign-install {statement.installer}",
            printable(f"{database}, PostgreSQL {statement.version}"),
            f"signed by {key}",
            f"policy {found.policy}, {statement.files['policy.toml']}",
        ),
    )
    verdict, whole = found.verdict, "whole" if found.chain.is_sound else "broken"
    ledger = [f"{found.chain.rows} rows, chain {whole}", f"head {found.chain.head or 'none'}"]
    ledger += [f"{verdict.compared} receipts compared"]
    if verdict.before_copy:
        words = f"from before this database became a copy, at {statement.copied}: not compared"
        ledger.append(f"{verdict.before_copy} receipts {words}")
    if verdict.without:
        ledger.append(f"{verdict.without} releases that this host applied have no receipt here")
    yield Section("Ledger", tuple(ledger))
    for paper in found.papers:
        signers = paper.signers or ("no key of the keyring",)
        lines = (paper.title, *(f"signed by {signer}" for signer in signers))
        yield Section(printable(paper.name), tuple(map(printable, lines)))
    if statement.missing:
        yield Section("Not on the host", tuple(map(printable, statement.missing)))


def _document(found: Audited, statement: Statement) -> dict[str, object]:
    verdict = found.verdict
    return {
        "statement": asdict(statement),
        "rows": found.chain.rows,
        "head": found.chain.head,
        "releases": dict(found.releases),
        "anchors": verdict.compared,
        "before_copy": verdict.before_copy,
        "without_receipt": verdict.without,
        "papers": [asdict(paper) for paper in found.papers],
        "findings": [finding._asdict() for finding in found.findings],
    }
