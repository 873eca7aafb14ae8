"""The documents say what the code does."""

import re
from pathlib import Path

import click
import pytest

from installer import cli as host_side
from installer.errors import InstallerError
from packager import cli as build_side
from packager.errors import PackagerError

DOCS = Path(__file__).parents[2]
EXIT_CODES = (DOCS / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
README = (DOCS / "README.md").read_text(encoding="utf-8")
CLASSES: list[type[InstallerError | PackagerError]] = [
    *InstallerError.__subclasses__(),
    *PackagerError.__subclasses__(),
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))
def test_every_exit_code_is_documented_and_says_what_to_do(
    error: type[InstallerError | PackagerError],
) -> None:
    assert re.search(rf"^\| {error.exit_code} \|", EXIT_CODES, re.MULTILINE)
    assert error.hint.endswith(".")


def test_no_two_errors_share_an_exit_code() -> None:
    codes = [error.exit_code for error in CLASSES]

    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    "program,group", [("countersign", build_side.commands), ("countersign-install", host_side.cli)]
)
def test_every_command_in_the_readme_exists(program: str, group: click.Group) -> None:
    named = set(re.findall(rf"^(?:\| `)?{program} ([a-z]+)", README, re.MULTILINE))

    assert named
    assert named <= set(group.list_commands(click.Context(group)))


def test_the_readme_names_every_command_of_the_host_side() -> None:
    commands = {name for name, command in host_side.cli.commands.items() if not command.hidden}

    assert commands == set(re.findall(r"^\| `countersign-install ([a-z]+)", README, re.MULTILINE))


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in [DOCS / "README.md", *DOCS.glob("*.md"), *DOCS.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"
