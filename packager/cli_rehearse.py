"""The command `countersign rehearse`: parse, call, print.

`packager.cli` adds it to its own, turns errors into exit codes and exits.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from installer.errors import ConfigurationError
from installer.host_file import DatabaseTarget, parse_host_file
from installer.manifest import Database, Manifest
from packager.cli_options import (
    JSON,
    PROJECT,
    example,
    output_option,
    print_document,
    print_sections,
    warn,
)
from packager.errors import RehearsalError
from packager.locktable import LockTable
from packager.project import load_project
from packager.rehearsal_words import Rehearsed, document, sections
from packager.rehearsed import (
    Record,
    merged,
    read_record,
    rehearsed,
    void_record,
    write_record,
)
from packager.release import Release, assemble
from packager.scratch import NoServerError, Programs, find_programs
from packager.show import printable, rehearsal_words

LONGEST_NAME = 57
"""Of a database's name, what leaves room for `_owner` in a role's."""


@click.command(
    epilog=example(
        "countersign rehearse --postgresql 15",
        'countersign rehearse --dsn "service=crm_copy" --owner crm_owner',
    )
)
@PROJECT
@output_option("the record of it, beside the manifest")
@click.option("--postgresql", "major", type=int, help="The server's major version.  [newest]")
@click.option(
    "--programs",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder with the server's programs.",
)
@click.option("--owner", help="The owner role.  [default: the database's name and _owner]")
@click.option("--role", "roles", multiple=True, help="A role that scripts name; it is made.")
@click.option("--search-path", default="public", show_default=True, help="As on the hosts.")
@click.option(
    "--max-locks",
    type=click.IntRange(10, 2**31 - 1),
    help="max_locks_per_transaction of the hosts.  [default: 64; that of the copy]",
)
@click.option("--dsn", metavar="CONNINFO", help="Rehearse on a restored copy, which is changed.")
@click.option("--yes", is_flag=True, help="Do not ask before the copy is changed.")
@click.option("--if-possible", is_flag=True, help="Where no server can be had, warn and go on.")
@JSON
def rehearse(
    file: Path,
    *,
    output: Path,
    major: int | None,
    programs: Path | None,
    owner: str | None,
    roles: tuple[str, ...],
    search_path: str,
    max_locks: int | None,
    dsn: str | None,
    yes: bool,
    if_possible: bool,
    as_json: bool,
) -> None:
    """Install a release on a scratch server from each starting point, or on a restored copy.

    The manifest then says that this release was rehearsed, until anything of it changes.
    """
    if dsn is not None and (major or programs or roles):
        raise click.UsageError("--dsn is a server that runs; nothing else says which")
    release = assemble(load_project(file))
    if (database := release.manifest.database) is None:
        click.echo(f"{release.manifest.title} has no database: there is nothing to rehearse")
        return
    target = _target(database, owner, search_path, dsn)
    if dsn is not None:
        _require_consent(target, yes=yes)
    before = read_record(release, output)
    try:
        server = find_programs(major, programs) if dsn is None else None
        done = _rehearse(release, server, target, roles, max_locks)
    except RehearsalError:
        void_record(release, output)  # it may say of this very release that it went well
        raise
    except NoServerError as error:
        if not if_possible:
            raise
        warn("\n".join(filter(None, [f"not rehearsed: {error}", error.detail])))
        return
    runs = tuple(map(document, done))
    record = merged(Record(release.manifest.digest, done[0].major, runs), before)
    written = write_record(release, output, record)
    _report(rehearsed(release, output).manifest, done, written, as_json=as_json)


class _Progress:
    """Tells a terminal how it goes on; stdout is for what was found."""

    def step(self, text: str) -> None:
        """Something was done, or is about to be."""
        if sys.stderr.isatty():
            click.echo(printable(text), err=True)

    def script(self, number: int, total: int, name: str) -> None:
        """The script `number` of `total` is about to run."""
        self.step(f"  [{number}/{total}] {name}")


def _target(
    database: Database, owner: str | None, search_path: str, dsn: str | None
) -> DatabaseTarget:
    """The database as a host file has it, by the rules for host files."""
    settings = {
        "conninfo": "dbname=scratch" if dsn is None else dsn,
        "owner": owner or f"{database.name[:LONGEST_NAME]}_owner",
        "search_path": search_path,
    }
    lines = (f"{key} = {json.dumps(text)}\n" for key, text in settings.items())
    text = f'environment = "rehearsal"\n[database.{database.name}]\n{"".join(lines)}'
    try:
        return parse_host_file(text.encode()).database(database.name)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


def _require_consent(target: DatabaseTarget, *, yes: bool) -> None:
    """Let nobody change a database that is no copy."""
    click.echo(f"this changes the database {target.connection!r}; use a copy", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; --yes changes it without asking")
    click.confirm("Is it a copy, which may be changed?", abort=True, err=True)


def _rehearse(
    release: Release,
    server: Programs | None,
    target: DatabaseTarget,
    roles: tuple[str, ...],
    max_locks: int | None,
) -> list[Rehearsed]:
    """On a scratch server, or where there is none, on the copy that `target` is."""
    # psycopg alone takes 150 ms, which no other command is to wait for.
    from packager.rehearsal import rehearse_copy, rehearse_starts  # noqa: PLC0415

    if server is None:
        done = [rehearse_copy(release, target, _Progress())]
    else:
        # The scratch cluster has more room for locks than a host: what counts is what that has.
        found = rehearse_starts(release, server, target, roles, _Progress())
        done = [replace(one, locks=LockTable(one.locks.entries)) for one in found]
    if max_locks is None:
        return done
    return [replace(one, locks=replace(one.locks, per_transaction=max_locks)) for one in done]


def _report(manifest: Manifest, done: Sequence[Rehearsed], written: Path, *, as_json: bool) -> None:
    if as_json:
        starts = [document(one) for one in done]
        print_document({"digest": manifest.digest, "major": done[0].major, "starts": starts})
    else:
        for one in done:
            print_sections(sections(one, manifest))
        click.echo(f"{manifest.title} is {rehearsal_words(manifest)}")
        click.echo(f"wrote {written}")
    for one in done:
        if one.locks.warning:
            warn(f"from {one.start}: {one.locks.warning}")
