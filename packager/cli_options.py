"""What several commands of `countersign` take, and how they print.

What a command found goes to stdout, warnings to stderr.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from installer.errors import ConfigurationError
from packager.formats import FORMATS
from packager.show import Section, printable

Command = TypeVar("Command", bound=Callable[..., Any])

ALL = "all"
"""What `--format` takes for a package of every kind."""

PROJECT = click.option(
    "--release",
    "-r",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("release.toml"),
    show_default=True,
    help="The file that describes the release.",
)
KEY = click.option(
    "--key",
    envvar="COUNTERSIGN_KEY",
    show_envvar=True,
    help="A fingerprint, or part of a user id.  [default: the only secret key that can sign]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def output_option(what: str) -> Callable[[Command], Command]:
    """`--output`: the folder for `what`."""
    return click.option(
        "--output",
        "-o",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("dist"),
        show_default=True,
        help=f"The folder for {what}.",
    )


def format_option(what: str) -> Callable[[Command], Command]:
    """`--format`, whose help is `what`; `kinds_of` reads it."""
    return click.option(
        "--format",
        "kind",
        type=click.Choice([*FORMATS, ALL]),
        default="rpm",
        show_default=True,
        help=what,
    )


def kinds_of(kind: str) -> tuple[str, ...]:
    """The names in `FORMATS` that `--format` means."""
    return tuple(FORMATS) if kind == ALL else (kind,)


def example(*lines: str) -> str:
    r"""The end of a command's help. Click leaves a paragraph that begins with \b as it is."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


def read_file(file: Path) -> bytes:
    """What a file of the administrator's has.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None


def print_sections(sections: Iterable[Section], *, to_stderr: bool = False) -> None:
    """Print titles, and what is below each."""
    for section in sections:
        click.echo(click.style(section.title, bold=True), err=to_stderr)
        for line in section.lines:
            click.echo(f"  {line}", err=to_stderr)


def print_document(document: object) -> None:
    """Print one JSON document, for programs."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    click.echo()


def warn(text: str) -> None:
    """Print what the user has to know, and what is no reason to stop."""
    click.echo(click.style("warning:", fg="yellow"), err=True, nl=False)
    click.echo(f" {printable(text)}", err=True)
