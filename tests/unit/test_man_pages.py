"""The man pages and the completion say what the programs do."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from installer import cli as host_side
from installer.errors import ConfigurationError, InstallerError
from installer.host_file import parse_host_file
from installer.policy import _CONDITIONS, CUSTOMER, parse_policy
from packager import cli as build_side
from packager.errors import PackagerError
from packager.installer_package import MAN_PAGES, SAMPLES
from packager.project import KEYS, load_project
from refresher.cli import refresh
from refresher.configuration import parse_configuration
from refresher.errors import RefreshError, RefreshFileError
from refresher.rules import OPTIONS

SOURCE = Path(__file__).parents[2]
PAGES = {file.name: file.read_text() for file in sorted(SOURCE.glob("docs/man/*"))}
PROGRAMS = [
    ("countersign.1", build_side.commands),
    ("countersign-install.8", host_side.cli),
    ("countersign-refresh.1", refresh),
]
IN_EVERY_PROGRAM = {0, 1, 2, 130}
OURS = "countersign|refresh|release"
MACRO = re.compile(r"\.(TH|SH|SS|TP|IP|PP|B|I|BR|RB|IR|RI|BI|RS|RE|EX|EE|nh)( .*)?")
ESCAPES = re.compile(r"\\(-|e|f[BIR]|\(bu|\(lq|\(rq)")
IN_AN_IDENTITY = "serial = 1\n[[identity]]\n"
IN_A_DATABASE = 'environment = "QAT"\n[database.crm]\n'
IN_A_BACKUP = f'{IN_A_DATABASE}service = "crm"\nowner = "crm_owner"\n[database.crm.backup]\n'
IN_AN_APPLICATION = 'environment = "QAT"\n[application.crm]\n'
A_REFRESH = """
[refresh]
mode = "masked"
environment = "DEV"
key = "/key"
[source]
service = "prd"
[target]
service = "dev"
database = "crm"
owner = "crm_owner"
"""
IN_A_SOURCE, IN_A_TARGET = (A_REFRESH.partition(key)[0] for key in ('service = "prd"', "database"))
Parser = Callable[[bytes], object]


def part(page: str, macro: str, heading: str) -> str:
    """What a page says below a heading."""
    ends = r"^\.SH " if macro == ".SH" else r"^\.S[HS] "
    found = re.split(rf"^{re.escape(f'{macro} {heading}')}\n", PAGES[page], flags=re.MULTILINE)
    assert len(found) == 2, f"{page} has no {heading}, or two"
    return re.split(ends, found[1], maxsplit=1, flags=re.MULTILINE)[0]


def tags(text: str) -> set[str]:
    """What the entries of a list are about."""
    lines = re.findall(r"^\.TP\n\.[A-Z]+ (.*)$", text, re.MULTILINE)
    return {word for line in lines for word in re.findall(r"[\w.\[\]-]+", line.replace("\\", ""))}


def example(page: str) -> str:
    """The first example of a page, as it is shown."""
    shown = part(page, ".SH", "EXAMPLES").split(".EX\n")[1].split(".EE\n")[0]
    return shown.replace("\\-", "-").replace("\\e", "\\")


def visible(group: click.Group) -> dict[str, click.Command]:
    """The commands that people call, those of a group below it under both names."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {below}": made for below, made in visible(command).items()}
        elif not command.hidden:
            found[name] = command
    return found


def options(command: click.Command) -> set[str]:
    found = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("page, group", PROGRAMS)
def test_a_page_names_the_commands_that_there_are(page: str, group: click.Group) -> None:
    commands = re.findall(r"^\.SS (.*)$", part(page, ".SH", "COMMANDS"), re.MULTILINE)

    assert sorted(commands) == sorted(visible(group))


@pytest.mark.parametrize(
    "page, name, command",
    [(page, name, found) for page, group in PROGRAMS for name, found in visible(group).items()],
)
def test_a_command_is_shown_with_its_options(page: str, name: str, command: click.Command) -> None:
    text = part(page, ".SS", name).replace("\\-", "-")
    long = {option for option in options(command) if option.startswith("--")}

    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) - {"--json"} == long - {"--json"}
    if page == "countersign.1":
        assert ("--json" in text) == ("--json" in long)


@pytest.mark.parametrize("page, group", PROGRAMS)
def test_every_option_is_explained(page: str, group: click.Group) -> None:
    explained = tags(PAGES[page])

    for command in [group, *visible(group).values()]:
        assert options(command) | {"-h", "--help"} <= explained


@pytest.mark.parametrize(
    "page, errors",
    [
        ("countersign.1", PackagerError.__subclasses__()),
        ("countersign-install.8", InstallerError.__subclasses__()),
        ("countersign-refresh.1", [RefreshFileError, *RefreshError.__subclasses__()]),
    ],
)
def test_a_page_lists_the_exit_codes_of_its_program(
    page: str, errors: list[type[InstallerError | PackagerError]]
) -> None:
    codes = {error.exit_code for error in errors}

    listed = tags(part(page, ".SH", "EXIT STATUS"))

    assert {int(code) for code in listed} == codes | IN_EVERY_PROGRAM


def test_the_page_names_what_is_kept_of_the_environment_and_no_more() -> None:
    text = part("countersign-install.8", ".SH", "ENVIRONMENT")
    named = set(re.findall(r"\b_?[A-Z]+(?:_[A-Z]+)+\b|\bTERM\b", text))

    assert named == set(host_side.PASSED_ON)
    assert set(re.findall(r"\bPG[A-Z]+FILE\b", text)) <= host_side.ENVIRONMENT.keys()


@pytest.mark.parametrize("table", KEYS)
def test_release_toml_names_every_key(table: str) -> None:
    heading = f"[[{table}]]" if "." in table else f"[{table}]"

    assert tags(part("release.toml.5", ".SS", heading)) == set(KEYS[table])


@pytest.mark.parametrize(
    "page, heading, text, tables, parse",
    [
        (
            "countersign-policy.toml.5",
            "Top level",
            "",
            {"identity", "require", "rotation"},
            parse_policy,
        ),
        ("countersign-policy.toml.5", "[[identity]]", IN_AN_IDENTITY, set(), parse_policy),
        ("countersign-host.toml.5", "Top level", "", {"database", "application"}, parse_host_file),
        ("countersign-host.toml.5", "[database.NAME]", IN_A_DATABASE, {"backup"}, parse_host_file),
        ("countersign-host.toml.5", "[database.NAME.backup]", IN_A_BACKUP, set(), parse_host_file),
        (
            "countersign-host.toml.5",
            "[application.PRODUCT]",
            IN_AN_APPLICATION,
            set(),
            parse_host_file,
        ),
        ("refresh.toml.5", "[refresh]", "[refresh]\n", set(), parse_configuration),
        ("refresh.toml.5", "[source]", IN_A_SOURCE, set(), parse_configuration),
        ("refresh.toml.5", "[target]", IN_A_TARGET, set(), parse_configuration),
        *(
            ("refresh.toml.5", heading, f"{A_REFRESH}{heading}\n", set(), parse_configuration)
            for heading in ("[search]", "[limit]", "[[subset]]", "[[reference]]", "[[foreign_key]]")
        ),
    ],
)
def test_a_file_is_described_with_the_keys_that_it_may_have(
    page: str, heading: str, text: str, tables: set[str], parse: Parser
) -> None:
    # A key like no other: the refusal lists those that are known.
    with pytest.raises(ConfigurationError, match="known are") as refusal:
        parse(f"{text}0 = 1\n".encode())
    known = str(refusal.value).split("known are ")[1].split(", ")

    assert tags(part(page, ".SS", heading)) | tables == set(known)


def test_the_classes_of_masks_are_described_with_their_options() -> None:
    assert tags(part("refresh.toml.5", ".SS", "[columns.TABLE]")) == OPTIONS.keys()
    options = {option for taken in OPTIONS.values() for option in taken}
    assert tags(part("refresh.toml.5", ".SS", "Options of a class")) == options


def test_a_policys_conditions_are_described() -> None:
    described = tags(part("countersign-policy.toml.5", ".SS", "[require.ENVIRONMENT]"))

    assert described == {"role", CUSTOMER, *_CONDITIONS}
    assert tags(part("countersign-policy.toml.5", ".SS", "[rotation]")) == {"role"}


def test_the_examples_of_files_are_ones_that_are_accepted(tmp_path: Path) -> None:
    release = tmp_path / "release.toml"
    release.write_text(example("release.toml.5"))

    host = parse_host_file(example("countersign-host.toml.5").encode())
    policy = parse_policy(example("countersign-policy.toml.5").encode())
    parse_configuration(example("refresh.toml.5").encode())

    assert host.environment in policy.requirements
    assert load_project(release).name in host.applications


@pytest.mark.parametrize("page", PAGES)
def test_every_formatter_reads_a_page_alike(page: str) -> None:
    """Text is never taken for a request, and what a reader copies is what was meant."""
    title, *lines = PAGES[page].splitlines()
    name, section = page.rsplit(".", 1)

    assert title.replace("\\", "").startswith(f".TH {name.upper()} {section} ")
    assert PAGES[page].isascii()
    assert PAGES[page].endswith("\n")
    for line in lines:
        assert not line.startswith("'"), line
        assert not line.startswith(".") or MACRO.fullmatch(line), line
        assert line == line.rstrip(), line
        assert line.count('"') % 2 == 0, line
        rest = ESCAPES.sub("", line)
        assert not set(rest) & set("\\-`^~"), line  # shown as other characters, or as none


@pytest.mark.parametrize("page", PAGES)
def test_an_example_ends_where_it_ends(page: str) -> None:
    nesting = re.findall(r"^\.(EX|EE|RS|RE)$", PAGES[page], re.MULTILINE)

    assert re.fullmatch(r"(RS EX EE RE |EX EE )+", " ".join([*nesting, ""]))
    for shown in re.findall(r"^\.EX\n(.*?)^\.EE$", PAGES[page], re.MULTILINE | re.DOTALL):
        assert not re.search(r"^\.|'", shown, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_refers_to_pages_that_there_are(page: str) -> None:
    named = re.findall(r"^\.BR (\S+) \((\d)\)", PAGES[page].replace("\\", ""), re.MULTILINE)
    ours = {f"{name}.{section}" for name, section in named if re.match(OURS, name)}

    assert ours <= PAGES.keys()
    if page in MAN_PAGES:
        assert ours <= set(MAN_PAGES)  # a host has no others


def completed(**variables: str) -> str:
    """What the command prints for a shell that completes; the environment reaches it whole."""
    done = subprocess.run(
        [sys.executable, "-c", "from installer.cli import main; main()"],
        cwd=SOURCE,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_completion_is_the_one_that_the_command_understands() -> None:
    source = completed(_COUNTERSIGN_INSTALL_COMPLETE="bash_source")

    assert (SAMPLES / "completion.bash").read_text() == source


@pytest.mark.parametrize(
    "words, answer",
    [
        ("st", ["plain,status"]),
        ("--js", ["plain,--json"]),
        ("adopt --r", ["plain,--reason"]),
        ("apply crm", ["file,crm"]),
        ("rpm", []),  # what packages call is not for people
    ],
)
def test_the_command_completes_commands_options_and_files(words: str, answer: list[str]) -> None:
    typed = {"COMP_WORDS": f"countersign-install {words}", "COMP_CWORD": str(len(words.split()))}

    assert completed(_COUNTERSIGN_INSTALL_COMPLETE="bash_complete", **typed).split() == answer


def test_bash_completes_a_command_with_the_file_that_hosts_get(tmp_path: Path) -> None:
    launcher = tmp_path / "countersign-install"
    program = "from installer.cli import main; main()"
    launcher.write_text(
        f"#!/bin/sh\nPYTHONPATH='{SOURCE}' exec '{sys.executable}' -c '{program}'\n"
    )
    launcher.chmod(0o755)
    typed = (
        f"source '{SAMPLES / 'completion.bash'}'; COMP_WORDS=(countersign-install re) COMP_CWORD=1;"
        f'_countersign_install_completion "{launcher}"; echo "${{COMPREPLY[@]}}"; complete -p'
    )

    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "recover",
        "complete -o nosort -F _countersign_install_completion countersign-install",
    ]
