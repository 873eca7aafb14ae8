"""The command `countersign`: parse, call, print. The only place that exits.

What a command found goes to stdout, warnings and errors to stderr. An error ends the command with
the exit code that its class owns.
"""

import sys
import time
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

import click

from installer.approval import wanted
from installer.errors import InstallerError
from installer.manifest import Patch, Script, parse_manifest
from installer.policy import parse_policy
from installer.signatures import require_binary_keyring, verify_release
from packager import __version__, show
from packager.advice import advise, lines
from packager.build import (
    NotSignedError,
    build_packages,
    collect_signatures,
    sign_work,
    work_folder,
    write_work,
)
from packager.checks import run_checks
from packager.cli_approval import COMMANDS as APPROVAL_COMMANDS
from packager.cli_audit import audit
from packager.cli_options import (
    JSON,
    KEY,
    PROJECT,
    example,
    format_option,
    kinds_of,
    output_option,
    print_document,
    print_sections,
    read_file,
    warn,
)
from packager.cli_policy import policy as policy_commands
from packager.cli_rehearse import rehearse
from packager.errors import PackagerError
from packager.init import detect_vcs, initialise
from packager.lint import require_within
from packager.package_reader import read_package
from packager.project import load_project
from packager.rehearsed import manifest_changed, rehearsed
from packager.release import Release, assemble, examine
from packager.repository import publish
from packager.sqlcheck import require_cuts

GROUP = "countersign.commands"
"""Entry points of other programs' commands, by the name that they have under this one."""
EPILOG = """\b
From a repository with a release.toml to a package:
  countersign check
  countersign sign --key ann@example.org
  countersign build

\b
Completion in bash (in zsh and fish: zsh_source, fish_source):
  eval "$(_COUNTERSIGN_COMPLETE=bash_source countersign)"
"""


OUTPUT = output_option("manifests, signatures and packages")
PACKAGE = click.argument("package", type=click.Path(dir_okay=False, path_type=Path))


class _Commands(click.Group):
    """The commands of this program, and those that others add to it by an entry point.

    Nothing of theirs is imported before one of them is asked for, or all are listed.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # type: ignore[explicit-override]
        """All names, sorted."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(  # type: ignore[explicit-override]
        self, ctx: click.Context, cmd_name: str
    ) -> click.Command | None:
        """The command of that name, this program's own before another's."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        for added in entry_points(group=GROUP, name=cmd_name):
            command: click.Command = added.load()
            return command
        return None


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="countersign")
def commands() -> None:
    """Build signed packages that install an application and its database changes together."""


@commands.command(epilog=example("countersign init --name crm ~/src/crm"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--name", help="The product's name.  [default: the folder's name]")
@click.option(
    "--vcs",
    type=click.Choice(["git", "svn", "tree"]),
    help="tree: folders without version control.  [default: what the folder is under]",
)
def init(folder: Path, name: str | None, vcs: str | None) -> None:
    """Write a release.toml and a Makefile into a product's FOLDER."""
    for file in initialise(folder, name or folder.resolve().name, vcs or detect_vcs(folder)):
        click.echo(f"wrote {file}")


@commands.command(epilog=example("countersign check -r releases/1.4.0.toml"))
@PROJECT
@OUTPUT
def check(file: Path, output: Path) -> None:
    """Say whether a release can be built: its tags, scripts, patches and signatures."""
    project = load_project(file)
    _good(f"{file}: {project.name} {project.version}, sequence {project.sequence}")
    findings = examine(project)
    for finding in findings:
        _good(finding) if isinstance(finding, str) else _tell(finding)
    if errors := [finding for finding in findings if isinstance(finding, PackagerError)]:
        raise click.exceptions.Exit(errors[0].exit_code)
    release = _assemble(file, output)
    if database := release.manifest.database:
        for line in show.accepted_changes(database):
            _good(f"accepted: {line}")
        words = show.rehearsal_words(release.manifest)
        _good(words) if database.rehearsal else click.echo(f"-- {words}: run countersign rehearse")
    try:
        signatures = collect_signatures(work_folder(output, release.manifest), release.raw)
    except NotSignedError as error:
        click.echo(f"-- {error}")
    else:
        for signer in signatures:
            _good(f"signed by {signer.title}")
    _advise(release)
    for words in run_checks(release):
        _good(words)


@commands.command(epilog=example("countersign plan | less"))
@PROJECT
@OUTPUT
@JSON
def plan(file: Path, output: Path, *, as_json: bool) -> None:
    """Show the scripts in their order, and what changes from each starting point."""
    release = _assemble(file, output)
    if as_json:
        print_document(show.plan_document(release))
    else:
        print_sections(show.show_plan(release))


@commands.command(
    epilog=example("countersign manifest", "gpg --armor --detach-sign dist/crm-1.4.0/manifest.json")
)
@PROJECT
@OUTPUT
def manifest(file: Path, output: Path) -> None:
    """Write the manifest, for developers who sign it with gpg itself."""
    release = _assemble(file, output)
    _tell_change(release, output)
    written = write_work(release, output)
    click.echo(f"wrote {written}")
    click.echo(f"SHA-256 {release.manifest.digest}")


@commands.command(epilog=example("countersign sign --key ann@example.org"))
@PROJECT
@OUTPUT
@KEY
def sign(file: Path, output: Path, key: str | None) -> None:
    """Write the manifest and sign it, for release to QAT."""
    release = _assemble(file, output)
    _tell_change(release, output)
    signature, signer = sign_work(release, output, key)
    click.echo(f"signed {release.manifest.title} as {signer.title}")
    click.echo(f"wrote {signature}")


@commands.command(epilog=example("countersign build --format all --output /srv/packages"))
@PROJECT
@OUTPUT
@format_option("What kind of package; all of them carry the same bundle.")
@JSON
def build(file: Path, output: Path, kind: str, *, as_json: bool) -> None:
    """Build the package, with every signature that is beside the manifest, and read it back."""
    release = _assemble(file, output)
    packages, signers = build_packages(release, output, kinds_of(kind))
    if as_json:
        paths = [str(package) for package in packages]
        signed = [asdict(signer) for signer in signers]
        digest = release.manifest.digest
        print_document(
            {"package": paths[0], "packages": paths, "digest": digest, "signers": signed}
        )
        return
    print_sections([show.signed_by(signers)])
    for package in packages:
        click.echo(f"wrote {package}")


@commands.command(
    "show", epilog=example("countersign show crm-1.4.0-1.noarch.rpm --script sql/0042_orders.sql")
)
@PACKAGE
@JSON
@click.option("--script", help="Print the content of this script.")
@click.option("--patch", metavar="FROM", help="Print the application's patch from this start.")
def show_command(package: Path, script: str | None, patch: str | None, *, as_json: bool) -> None:
    """Show what is in a PACKAGE: manifest, scripts, patches, signatures. Verifies no signature."""
    info, bundle = read_package(package)
    signed = parse_manifest(bundle.head.manifest)
    if script is not None or patch is not None:
        kind, name = (Script, script) if script is not None else (Patch, patch or "")
        blob = show.named_blob(signed, kind, name)
        if blob is None:
            raise click.UsageError(f"{signed.title} has no {kind.__name__.lower()} {name!r}")
        click.echo(bundle.open_content(signed).read(blob), nl=False)
    elif as_json:
        print_document(show.package_document(info, bundle, signed))
    else:
        print_sections(show.show_package(info, bundle, signed))


@commands.command(
    epilog=example(
        "countersign verify crm-1.4.0-1.noarch.rpm --environment QAT \\",
        "--policy policy.toml --keyring keyring.pgp",
    )
)
@PACKAGE
@click.option("--policy", type=click.Path(path_type=Path), required=True)
@click.option("--keyring", type=click.Path(path_type=Path), required=True)
@click.option("--environment", required=True, help="Whose requirements to apply, such as QAT.")
@JSON
def verify(package: Path, policy: Path, keyring: Path, environment: str, *, as_json: bool) -> None:
    """Verify a PACKAGE as a host with this policy and keyring would, and say who signed.

    What an environment requires besides the package's own signatures is told, not looked for.
    """
    _, bundle = read_package(package)
    rules = parse_policy(read_file(policy))
    require_binary_keyring(read_file(keyring), keyring)
    verified = verify_release(bundle.head, rules, environment, keyring, int(time.time()))
    content = bundle.open_content(verified.manifest)
    require_cuts(verified.manifest, content.read)
    signers = [asdict(signer) for signer in verified.signers]
    if as_json:
        digest = verified.manifest.digest
        print_document(
            {"verified": True, "environment": environment, "digest": digest, "signers": signers}
        )
        return
    _good(f"{verified.manifest.title} is signed as {environment} requires, by")
    for signer in verified.signers:
        click.echo(f"  {signer.name} ({signer.role}) {signer.fingerprint}")
    requirement = rules.requirement(environment)
    if requirement.needs_dossier:
        click.echo(f"{environment} requires besides: {wanted(requirement)}")


@commands.command(
    epilog=example(
        "countersign repo dist/crm-1.4.0-1.noarch.rpm --output /srv/qat --environment QAT",
        "countersign repo /srv/qat/rpm/crm-1.4.0-1.noarch.rpm --output /srv/prd --environment PRD",
    )
)
@click.argument(
    "packages", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder of the repositories; the packages that it has already stay.",
)
@click.option("--environment", required=True, help="Whose repositories these are, such as QAT.")
@click.option("--url", help="Where hosts find the folder.  [default: in the file system]")
@KEY
@JSON
def repo(
    packages: tuple[Path, ...],
    output: Path,
    environment: str,
    url: str | None,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    """Put PACKAGES into signed repositories for dnf and apt. Promotion is a copy of the package."""
    published = publish(packages, output, environment, key, url)
    if as_json:
        sources = [str(source) for source in published.sources]
        placed = [asdict(package) | {"path": str(package.path)} for package in published.packages]
        signer = asdict(published.signer)
        print_document({"packages": placed, "signer": signer, "sources": sources})
        return
    for package in published.packages:
        if not package.accepted:
            warn(f"{package.path.name} is not signed by this key: dnf wants its signer's too")
        click.echo(f"{package.digest}  {package.path}")
    click.echo(f"signed as {published.signer.title}")
    for source in published.sources:
        click.echo(f"wrote {source}")


commands.add_command(policy_commands)
commands.add_command(rehearse)
commands.add_command(audit)
for command in APPROVAL_COMMANDS:
    commands.add_command(command)


def main() -> NoReturn:
    """Run the command, and turn errors into messages and exit codes."""
    try:
        code = commands.main(prog_name="countersign", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (PackagerError, InstallerError) as error:
        _tell(error)
        sys.exit(error.exit_code)
    sys.exit(code)


def _tell(error: PackagerError | InstallerError) -> None:
    click.echo(click.style("error:", fg="red", bold=True), err=True, nl=False)
    for text in (f" {error}", error.detail, error.hint):
        if text:
            click.echo(show.printable(text), err=True)


def _assemble(file: Path, output: Path) -> Release:
    release = rehearsed(assemble(load_project(file)), output)
    if release.changes:
        warn(f"{release.manifest.source.tag} is released without these changes:")
        for line in show.shortened(release.changes):
            click.echo(f"  {line}", err=True)
    return release


def _tell_change(release: Release, output: Path) -> None:
    """Warn where a rehearsal has made the manifest another, which others may have signed."""
    if words := manifest_changed(release, output):
        warn(words)


def _advise(release: Release) -> None:
    """Print what is to be told about the scripts, and hold it against release.toml."""
    advice = advise(release)
    for kind, text in lines(advice):
        click.echo(f"{click.style(kind, fg='yellow')} {show.printable(text)}")
    if advice.lint.missing:
        warn(f"there is no advice about the scripts: {advice.lint.missing}")
    elif release.manifest.database:
        click.echo(f"-- findings: {len(advice.lint.findings)}, locks: {len(advice.locks)}")
    require_within(advice.lint, release.project.lint)


def _good(line: str) -> None:
    click.echo(click.style("ok", fg="green") + f" {line}")
