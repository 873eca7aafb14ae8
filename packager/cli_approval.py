"""The customer's commands of `countersign`: parse, call, print.

`packager.cli` adds them to its own, turns errors into exit codes and exits.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from installer.policy import APPROVAL_DAYS, parse_policy
from installer.signatures import require_binary_keyring
from installer.strict_json import MOMENT
from packager import approval
from packager.approval import Case, Done, Target, Trust, Wish
from packager.briefing import briefing, doubts
from packager.cli_options import (
    JSON,
    KEY,
    example,
    format_option,
    kinds_of,
    output_option,
    print_document,
    print_sections,
    read_file,
    warn,
)
from packager.companion import APPROVALS
from packager.show import Section
from packager.signing import Signer, choose_key

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
OUTPUT = output_option("what is signed, and for packages")
UNSIGNED = click.option(
    "--unsigned", is_flag=True, help="Write what is to be signed; gpg itself signs it."
)
FORMAT = format_option("What kind of companion package.")
PACKAGE_KEY = click.option(
    "--package-key", metavar="FINGERPRINT", help="Sign the companion package as a file, too."
)


@click.command(
    epilog=example(
        "countersign approve crm-1.4.0-1.noarch.rpm --receipt QAT.json --environment PRD"
    )
)
@click.argument("package", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--receipt",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="What the host wrote where the PACKAGE was tested; its signature lies beside it.",
)
@click.option("--environment", required=True, help="Where the release may go, such as PRD.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    help=f"How long the approval is good.  [default: {APPROVAL_DAYS}]",
)
@click.option(
    "--not-before",
    type=click.DateTime([MOMENT, "%Y-%m-%d"]),
    metavar="TIME",
    help="When it begins, such as 2026-01-31T08:00:00Z, in UTC.  [default: now]",
)
@KEY
@UNSIGNED
@FORMAT
@OUTPUT
@PACKAGE_KEY
@click.option("--yes", is_flag=True, help="Do not ask before signing.")
@click.option(
    "--keyring",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Public keys in binary form, besides those that gpg knows.",
)
@click.option(
    "--policy",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The policy of the hosts: refuse what they would refuse. Needs --keyring.",
)
@JSON
def approve(
    package: Path,
    *,
    receipt: Path,
    environment: str,
    days: int | None,
    not_before: datetime | None,
    key: str | None,
    kind: str,
    output: Path,
    package_key: str | None,
    keyring: Path | None,
    policy: Path | None,
    unsigned: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Approve a PACKAGE for an environment, as its install was measured in the one before.

    Shows what was measured, asks, signs, and builds the companion package that brings the approval
    to the hosts. A second customer runs the same command on the same folder.
    """
    trust = _trust(keyring, policy)
    if not (yes or unsigned or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on; --yes signs without asking")
    begins = int(not_before.replace(tzinfo=UTC).timestamp()) if not_before else None
    wish = Wish(package, receipt, environment, begins, days)
    case = approval.examine(wish, output, trust, _now())
    signer = None if unsigned else choose_key(key)
    _brief(case, signer, to_stderr=as_json)
    if signer and not yes:
        click.confirm("Sign this?", abort=True, err=as_json)
    done = approval.approve(case, signer, _target(output, kind, package_key), _now())
    wanting = ""
    if trust and trust.policy and signer:
        wanting = approval.missing(case, done, trust.policy, trust.keyring, _now())
    _report(done, as_json=as_json, wanting=wanting)


@click.command(epilog=example("countersign companion dist/crm-1.4.0-PRD --format all"))
@FOLDER
@FORMAT
@OUTPUT
@PACKAGE_KEY
@JSON
def companion(
    folder: Path, kind: str, output: Path, package_key: str | None, *, as_json: bool
) -> None:
    """Build the companion package of a FOLDER that was signed with gpg itself."""
    done = approval.build_companion(folder, _target(output, kind, package_key), _now())
    _report(done, as_json=as_json, written=done.packages)


@click.command(
    epilog=example('countersign withdraw dist/crm-1.4.0-PRD --reason "orders lose their history"')
)
@FOLDER
@click.option("--reason", required=True, help="Why, in one line; hosts show it.")
@KEY
@UNSIGNED
@FORMAT
@OUTPUT
@PACKAGE_KEY
@JSON
def withdraw(
    folder: Path,
    *,
    reason: str,
    key: str | None,
    kind: str,
    output: Path,
    package_key: str | None,
    unsigned: bool,
    as_json: bool,
) -> None:
    """Take back the approval in a FOLDER. One customer is enough for that."""
    signer = None if unsigned else choose_key(key)
    target = _target(output, kind, package_key)
    done = approval.withdraw(folder, reason, signer, target, _now())
    _report(done, as_json=as_json)


COMMANDS = (approve, companion, withdraw)


def _target(output: Path, kind: str, package_key: str | None) -> Target:
    return Target(output, kinds_of(kind), package_key)


def _trust(keyring: Path | None, policy: Path | None) -> Trust | None:
    if keyring is None:
        if policy is not None:
            raise click.UsageError("--policy needs --keyring, which has the keys that it names")
        return None
    require_binary_keyring(read_file(keyring), keyring)
    return Trust(keyring, parse_policy(read_file(policy)) if policy else None)


def _brief(case: Case, signer: Signer | None, *, to_stderr: bool) -> None:
    print_sections(briefing(case), to_stderr=to_stderr)
    if signer:
        print_sections([Section("You sign as", (signer.title,))], to_stderr=to_stderr)
    for doubt in doubts(case):
        warn(doubt)


def _report(
    done: Done, *, as_json: bool, written: Sequence[Path] | None = None, wanting: str = ""
) -> None:
    papers = done.papers
    if as_json:
        print_document(_document(done, wanting))
        return
    for signer in papers.signers:
        click.echo(f"signed by {signer.title}")
    for fingerprint in papers.unknown:
        warn(f"{papers.document} is also signed with {fingerprint}, which is not known here")
    for path in (done.folder, *done.packages) if written is None else written:
        click.echo(f"wrote {path}")
    if wanting:
        warn(f"not enough yet: {wanting}")
    if not papers.signers:
        print_sections(_by_hand(done))


def _by_hand(done: Done) -> Iterable[Section]:
    """How to go on with nothing but gpg."""
    document, place = done.papers.document, f"{APPROVALS}/{done.papers.folder}"
    yield Section(
        f"Sign with gpg, which writes {document}.asc",
        (f"cd {done.folder}", f"gpg --armor --detach-sign {document}"),
    )
    yield Section(
        "Then put the folder on each host, owned by root and not writable by others",
        (
            f"install -d -o root -g root -m 0755 {place}",
            f"install -o root -g root -m 0644 {done.papers.folder}/* {place}/",
        ),
    )
    yield Section("Or build the package that does that", (f"countersign companion {done.folder}",))


def _document(done: Done, wanting: str) -> dict[str, Any]:
    papers = done.papers
    statement = asdict(papers.statement)
    return {
        "folder": str(done.folder),
        "document": papers.document,
        "digest": statement["digest"],
        "signed": bool(papers.signers),
        "signers": [asdict(signer) for signer in papers.signers],
        "unknown_keys": list(papers.unknown),
        "statement": json.loads(papers.files[papers.document]),
        "packages": [str(package) for package in done.packages],
        "wanting": wanting or None,
    }


def _now() -> int:
    return int(time.time())
