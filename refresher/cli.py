"""The command `countersign refresh`: parse, call, print.

`countersign` finds it as an entry point, turns its errors into exit codes, and exits.
"""

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from refresher.configuration import Configuration, parse_configuration
from refresher.errors import NoPlaceError, RefreshError, RefreshFileError
from refresher.report import FOLDER, Report, host_key, last_report, lines

FILE = click.option(
    "--configuration",
    "-c",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("refresh.toml"),
    show_default=True,
    help="The file that says where from and where to.",
)
REPORTS = click.option(
    "--output",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="The folder for reports.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


EPILOG = """\b
QAT as a copy of PRD:
  countersign refresh init --mode copy --environment QAT --source service=crm-prd \\
      --target service=qat --database crm --owner crm_owner
  countersign refresh plan
  countersign refresh run
"""


@click.group(epilog=EPILOG)
def refresh() -> None:
    """Make QAT a true copy of PRD, or DEV a limited and masked one."""


@refresh.command("init")
@FILE
@click.option(
    "--mode",
    type=click.Choice(["copy", "masked"]),
    required=True,
    help="copy: all as it is, for QAT. masked: by rules for each column, for DEV.",
)
@click.option("--environment", required=True, help="What the target is, such as QAT.")
@click.option("--source", required=True, help="A conninfo, such as service=crm-prd.")
@click.option("--target", required=True, help="A conninfo of a maintenance database.")
@click.option("--database", required=True, help="The database that is refreshed.")
@click.option("--owner", required=True, help="The role that owns it.")
def init_command(  # noqa: PLR0917 - click passes them by name
    file: Path, mode: str, environment: str, source: str, target: str, database: str, owner: str
) -> None:
    """Write a refresh.toml.

    In masked mode the source's catalog is read, and the file has every column: with a class of
    masks where its name and type say which, and as a comment where you have to decide.
    """
    from refresher.beginning import Answers, beginning

    text = beginning(Answers(mode, environment, source, target, database, owner))
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise NoPlaceError(f"{file} is there already, and is not overwritten") from None
    except OSError as error:
        raise NoPlaceError(f"{file}: {error.strerror}") from None
    click.echo(f"wrote {file}")


@refresh.command("plan")
@FILE
@JSON
def plan_command(file: Path, *, as_json: bool) -> None:
    """Say what a run would do. Reads both sides, and changes nothing."""
    from refresher.plan import plan, plan_lines

    document = plan(_configuration(file))
    _print(document, plan_lines(document), as_json=as_json)


@refresh.command("run")
@FILE
@REPORTS
@JSON
@click.option("--keep-old", is_flag=True, help="Keep the database before, under another name.")
def run_command(file: Path, folder: Path, *, as_json: bool, keep_old: bool) -> None:
    """Make the target's database anew.

    It is built beside the old one, and gets its name at the end. Whatever fails or is interrupted,
    the old one stays as it was, and a second run begins anew. A terminal shows progress.
    """
    from refresher.copying import Watch
    from refresher.copying import refresh as run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, cleaning up
    configuration, watch = _configuration(file), Watch(_tell)
    database = configuration.target.database
    try:
        report: Report = run(configuration, folder, watch, keep_old=keep_old, key=host_key())
    except RefreshError as error:
        error.args = (f"{database} {error.verdict}: {error}",)
        raise
    except KeyboardInterrupt:
        state = "is as it was" if "compare" not in watch.seconds else "was about to be replaced"
        click.echo(f"\ninterrupted: {database} {state}; the source is unchanged", err=True)
        raise click.Abort from None
    _print(report.document, lines(json.loads(json.dumps(report.document))), as_json=as_json)


@refresh.command("report")
@FILE
@REPORTS
@JSON
def report_command(file: Path, folder: Path, *, as_json: bool) -> None:
    """Show the last run's report."""
    configuration = _configuration(file)
    document = last_report(folder, configuration.target.database, configuration.environment)
    _print(document, lines(document), as_json=as_json)


def _configuration(file: Path) -> Configuration:
    try:
        return parse_configuration(file.read_bytes(), file.name)
    except OSError as error:
        way = "; `countersign refresh init` writes one"
        raise RefreshFileError(f"{file}: {error.strerror}{way}") from None


def _tell(text: str) -> None:
    """Progress is for a terminal; stdout is for what was found."""
    if sys.stderr.isatty():
        click.echo(text, err=True)


def _print(document: object, shown: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in shown:
            click.echo(line)
