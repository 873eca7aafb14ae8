"""The command `countersign-install`: parse, call, print. The only place that exits."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from installer import __version__
from installer import machine as host
from installer.errors import InstallerError, LedgerTamperedError
from installer.machine import Machine, load_machine
from installer.packages import open_release
from installer.report import Report, printable

if TYPE_CHECKING:
    from installer.status import Status

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PGSERVICEFILE": f"{host.CONFIGURATION}/pg_service.conf",
    "PGPASSFILE": f"{host.CONFIGURATION}/pgpass",
}
"""All that the installer and the tools it runs see of an environment."""

PASSED_ON = ("TERM", "NO_COLOR", "_COUNTERSIGN_INSTALL_COMPLETE", "COMP_WORDS", "COMP_CWORD")


@dataclass(slots=True)
class Session:
    """One call of the command."""

    json: bool
    machine: Callable[[], Machine]
    report: Report
    colour: bool

    def show(self, lines: list[str], **facts: object) -> None:
        """Print facts as JSON, or lines for people."""
        text = json.dumps(facts, indent=2, default=str) if self.json else "\n".join(lines)
        click.echo(printable(text))


PACKAGE = click.argument("package", type=click.Path(exists=True, dir_okay=False, path_type=Path))
KEEP_LOCAL = click.option(
    "--keep-local/--no-keep-local",
    default=True,
    show_default=True,
    help="Which version of a local file is in use where the release has it too: this host's own, "
    "or the release's, with this host's kept beside it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="countersign-install")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and no progress.")
@click.pass_obj
def cli(session: Session, *, as_json: bool) -> None:
    """Verify and install countersigned releases on this host.

    The host is configured in /etc/countersign: policy.toml and keyring.pgp say whose signatures
    count, host.toml names the databases and applications. The log is in /var/log/countersign.
    """
    session.json = as_json
    if as_json:
        session.report.be_quiet()


@cli.command()
@click.pass_obj
def init(session: Session) -> None:
    """Make the key that this host signs its receipts with. Needs host.toml, and no policy yet.

    Prints what a policy has to say about this host, and writes the public key, which belongs into
    every keyring.pgp, to /var/lib/countersign/host-key.asc. A key that is there is kept.
    """
    from installer.host_key import make_host_key

    _require_root()
    made = make_host_key(host.STATE, host.load_host().environment)
    lines = [
        f"the key that this host signs with is {made.fingerprint}",
        f"its public half, for keyring.pgp, is in {made.public}; in the policy it is:",
        "",
        *made.identity,
    ]
    session.show(lines, fingerprint=made.fingerprint, public_key=made.public)


@cli.command()
@click.option("--database", help="The database, as host.toml names it; default: the only one.")
@click.option(
    "--diff",
    "receipt",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Say how the schema differs from what this receipt has after its release.",
)
@click.option("--before", is_flag=True, help="With --diff: from what it has before its release.")
@click.pass_obj
def schema(session: Session, database: str | None, receipt: Path | None, *, before: bool) -> None:
    """Print the schema's fingerprints, and its objects with --json. Touches nothing.

    With --diff, exits with 35 where the schema differs.
    """
    from installer.schema import compare, read_schema

    if before and receipt is None:
        raise click.UsageError(
            "--before says which side of --diff RECEIPT is meant: give that, too"
        )
    found = read_schema(session.machine(), database)
    if receipt is not None:
        apart = compare(found, receipt, before=before)
        session.show(apart.lines, **apart.facts)
        sys.exit(apart.exit_code)
    lines = [f"PostgreSQL {found.major}, {len(found.objects)} objects"]
    lines += [f"  {layer:<12} {digest}" for layer, digest in found.fingerprints.items()]
    session.show(
        lines,
        major=found.major,
        fingerprints=dict(found.fingerprints),
        objects=[item._asdict() for item in found.objects],
    )


@cli.command()
@PACKAGE
@click.pass_obj
def verify(session: Session, package: Path) -> None:
    """Check who signed a release, and all of its content. Touches nothing."""
    with open_release(package) as bundle:
        release = session.machine().verify(bundle)
        content = bundle.open_content(release.manifest)
        for blob in release.manifest.blobs:
            for _ in content.pieces(blob):
                pass
    signers = [asdict(signer) for signer in release.signers]
    lines = [f"{release.manifest.title}: verified", f"  manifest {release.manifest.digest}"]
    lines += [f"  signed by {s.name} ({s.role}) {s.fingerprint}" for s in release.signers]
    session.show(
        lines,
        product=release.manifest.product,
        version=release.manifest.version,
        manifest=release.manifest.digest,
        signers=signers,
    )


@cli.command()
@click.argument("package", required=False, type=click.Path(exists=True, path_type=Path))
@KEEP_LOCAL
@click.pass_obj
def check(session: Session, package: Path | None, *, keep_local: bool) -> None:
    """Check this host, and what installing PACKAGE would do. Touches nothing."""
    from installer.check import check_host, check_release

    machine = _with_local(session.machine(), keep=keep_local)
    found = check_host(machine)
    if package:
        with open_release(package) as bundle:
            found += check_release(bundle, machine)
    session.show(found, checks=found)


@cli.command()
@PACKAGE
@KEEP_LOCAL
@click.pass_obj
def apply(session: Session, package: Path, *, keep_local: bool) -> None:
    """Install a release without a package manager, which does the same with the package."""
    from installer.install import install

    _require_root()
    with open_release(package) as bundle:
        machine = _with_local(session.machine(), keep=keep_local)
        outcome = install(bundle, str(package), machine, session.report)
    session.show([f"{outcome.product} {outcome.version}: {outcome.result}"], **asdict(outcome))


@cli.command()
@PACKAGE
@click.option(
    "--tree",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the application is now; it is copied, and left as it is.",
)
@click.option("--reason", required=True, help="Why it is known to be at this release.")
@click.pass_obj
def adopt(session: Session, package: Path, tree: Path | None, reason: str) -> None:
    """Take an existing database and application under control, at the release in PACKAGE.

    No script is run. The ledger records each as adopted, with the reason; the application's tree
    must be the release's, file for file.
    """
    from installer.install import adopt as adopt_release

    _require_root()
    with open_release(package) as bundle:
        outcome = adopt_release(bundle, tree, reason, session.machine(), session.report)
    session.show([f"{outcome.product} {outcome.version}: {outcome.result}"], **asdict(outcome))


@cli.command()
@click.argument("product", required=False)
@click.pass_obj
def recover(session: Session, product: str | None) -> None:
    """Finish, or take back, an install that was cut short: as the database says."""
    from installer.recovery import recover as recover_product
    from installer.state import products

    _require_root()
    machine = session.machine()
    names = [product] if product else products(machine.state)
    outcomes = [recover_product(name, machine, session.report) for name in names]
    found = [outcome for outcome in outcomes if outcome]
    lines = [f"{o.product} {o.version}: {o.result}" for o in found] or ["nothing to recover"]
    session.show(lines, recovered=[asdict(outcome) for outcome in found])


@cli.command()
@click.argument("product", required=False)
@click.pass_obj
def status(session: Session, product: str | None) -> None:
    """Compare ledger, schema, application tree and package database.

    Exits 0 only where they agree.
    """
    from installer.status import products_here
    from installer.status import status as status_of

    machine = session.machine()
    names = [product] if product else products_here(machine)
    found = [status_of(name, machine) for name in names]
    lines = [line for item in found for line in _status_lines(item)]
    facts = [
        asdict(item) | {"problems": [_as_facts(problem) for problem in item.problems]}
        for item in found
    ]
    session.show(lines or ["no release was installed on this host"], products=facts)
    sys.exit(next((problem.exit_code for item in found for problem in item.problems), 0))


@cli.command()
@click.argument("product", required=False)
@click.option("--database", help="The database, as host.toml names it; default: all.")
@click.pass_obj
def history(session: Session, product: str | None, database: str | None) -> None:
    """Print the ledger: what was applied, when, from which release, signed by whom."""
    from installer.database import connect

    machine = session.machine()
    names = [database] if database else list(machine.host.databases)
    rows: list[dict[str, object]] = []
    for name in names:
        with connect(machine.host.database(name), "history") as connection:
            rows += [{"database": name} | row for row in connection.history(product)]
    session.show([_as_line(row) for row in rows] or ["the ledger is empty"], ledger=rows)


@cli.command()
@click.argument("product", required=False)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the auditor's bundle of the one database to this file, a tar archive.",
)
@click.pass_obj
def audit(session: Session, product: str | None, output: Path | None) -> None:
    """Compare the ledger with its own chain, and with receipts and memory of this host.

    Of the database of PRODUCT, or of all. Exits with 42 where rows were changed, cut or set back.
    """
    from installer.audit import Scene, audit_lines, database_of
    from installer.audit import audit as audit_database
    from installer.audit_export import write_bundle

    _require_root("this command reads what only root can")
    machine = session.machine()
    scene = Scene(machine, int(time.time()))
    names = [database_of(product, machine)] if product else list(machine.host.databases)
    if output is None:
        found = [audit_database(name, scene) for name in names]
    elif len(names) == 1:
        try:
            found = [write_bundle(output, names[0], product, scene)]
        except OSError as error:
            raise click.UsageError(f"{output} cannot be written: {error}") from None
    else:
        raise click.UsageError("a bundle is of one database: say which PRODUCT is meant")
    session.show(
        [line for item in found for line in audit_lines(item)] or ["this host has no database"],
        databases=[item.facts for item in found],
    )
    sys.exit(LedgerTamperedError.exit_code if any(item.findings for item in found) else 0)


@cli.command("rpm-pre", hidden=True)
@click.argument("nevra")
@click.argument("body", type=click.Path(path_type=Path))
@click.argument("count", required=False)
@click.pass_obj
def rpm_pre(session: Session, nevra: str, body: Path, count: str | None) -> None:
    """Install the release whose package rpm is about to install (%pre)."""
    from installer.scriptlet import rpm_pre as install_body

    del count  # 1 or 2: rpm gives 2 for an upgrade, a downgrade and a reinstall alike
    session.colour = False  # what reads a scriptlet's output is a package manager, or its log
    outcome = install_body(nevra, body, session.machine(), session.report)
    session.report.step(f"{outcome.product} {outcome.version}: {outcome.result}")


@cli.command("deb-preinst", hidden=True)
@click.argument("package")
@click.argument("preinst", type=click.Path(path_type=Path))
@click.argument("action", type=click.Choice(["install", "upgrade", "abort-upgrade"]))
@click.argument("versions", nargs=-1)
@click.pass_obj
def deb_preinst(
    session: Session, package: str, preinst: Path, action: str, versions: tuple[str, ...]
) -> None:
    """Install the release whose package dpkg is about to unpack (preinst; Debian Policy 6.5)."""
    from installer.scriptlet import deb_preinst as install_bundle

    del versions  # the ledger knows which release was there before
    if action == "abort-upgrade":  # the version that stays is told so; there is nothing to do
        return
    session.colour = False  # apt gives dpkg a terminal of its own, whatever it has itself
    outcome = install_bundle(package, preinst, session.machine(), session.report)
    session.report.step(f"{outcome.product} {outcome.version}: {outcome.result}")


@cli.command("rpm-verify", hidden=True)
@click.argument("product")
@click.argument("body", required=False)
@click.argument("count", required=False)
@click.pass_obj
def rpm_verify(session: Session, product: str, body: str | None, count: str | None) -> None:
    """Compare what is installed (%verifyscript)."""
    from installer.status import status as status_of

    del body, count
    item = status_of(product, session.machine())
    click.echo("\n".join(_problem_lines(item)), err=True, nl=bool(item.problems))
    sys.exit(next((problem.exit_code for problem in item.problems), 0))


def main() -> NoReturn:
    """Run the command in a clean environment, and turn errors into messages and exit codes."""
    session = Session(
        json=False,
        machine=load_machine,
        report=Report(host.LOGS),
        colour=not os.environ.get("NO_COLOR"),
    )
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    os.environ.clear()
    os.environ.update(ENVIRONMENT | kept)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a password of a database's may be in memory
    try:
        cli.main(prog_name="countersign-install", standalone_mode=False, obj=session)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except InstallerError as error:
        _explain(error, session)
        sys.exit(error.exit_code)
    sys.exit(0)


def _explain(error: InstallerError, session: Session) -> None:
    """Say what went wrong, where, what state things are in, and what to do next."""
    text = session.report.failure(error)
    if session.json:
        click.echo(json.dumps({"error": _as_facts(error)}, indent=2))
    prefix = click.style("error: ", fg="red", bold=True) if session.colour else "error: "
    click.echo(prefix + text, err=True)


def _as_facts(error: InstallerError) -> dict[str, object]:
    return {
        "exit_code": error.exit_code,
        "message": str(error),
        "detail": error.detail,
        "state": error.state,
        "hint": error.hint,
    }


def _status_lines(item: "Status") -> list[str]:
    lines = [
        f"{item.product} {item.installed or 'is not installed'}",
        f"  package      {item.package or 'none'}",
        f"  ledger       {item.ledger or 'none'}",
        f"  application  {item.application or 'none'}",
    ]
    return lines + _problem_lines(item)


def _problem_lines(item: "Status") -> list[str]:
    return [f"  problem: {problem}\n{problem.detail}".rstrip() for problem in item.problems]


def _as_line(row: dict[str, object]) -> str:
    what = row["script"] or row["detail"] or ""
    if row["statement"]:
        what = f"{what}, statement {row['statement']}"
    return (
        f"{row['at']:%Y-%m-%d %H:%M:%SZ} {row['event']:<17} {row['product']} {row['version']}"
        f" {what} [{row['host']}, {row['package']}]"
    ).rstrip()


def _with_local(machine: Machine, *, keep: bool) -> Machine:
    """The host as this one call of the command sees it."""
    found = machine.host.applications.items()
    applications = {name: replace(target, keep_local=keep) for name, target in found}
    return replace(machine, host=replace(machine.host, applications=applications))


def _require_root(why: str = "this command changes the host") -> None:
    if os.geteuid() != 0:
        raise click.UsageError(f"{why}: run it as root")
