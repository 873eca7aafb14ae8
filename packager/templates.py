"""Renders the templates in `spec_templates/`; the only module that imports jinja2.

A value that a template names and the caller did not pass is an error. Nothing is escaped unless a
template says so, with the filter for the language it writes: `shell`, `spec`, `spec_text`,
`control`, `control_text`, `toml`.
"""

import json
import re
import shlex
import textwrap
from pathlib import Path

import jinja2

from packager.errors import OutputError

FOLDER = Path(__file__).parent.parent / "spec_templates"
SPEC_WIDTH = 79
"""Characters in a line of a package's description; rpmlint calls a longer one an error."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def render(template: str, **values: object) -> str:
    """The text of `template`, a file in `spec_templates/`, with `values`.

    Raises:
        OutputError: a value cannot be written in the template's language.
        jinja2.UndefinedError: the template names a value that was not passed.
    """
    return _environment().get_template(template).render(values)


def spec(value: str) -> str:
    """`value` for a field of a spec file: one line, in which rpm expands nothing.

    Raises:
        OutputError: `value` holds a line break or another control character.
    """
    # A backslash at the end would join the next line of the spec file to this one.
    return _one_line(value).replace("%", "%%") + (" " if value.endswith("\\") else "")


def spec_text(value: str) -> str:
    """`value` for a part of a spec file that is lines of text, such as %description.

    Long lines are wrapped. rpm reads a line that begins with `%` as a section or a condition even
    where the `%` is doubled, leaves out one that begins with `#`, and begins a new entry of
    %changelog at `*`; a no-break space keeps such a line as text.

    Raises:
        OutputError: `value` holds a control character other than a line break or a tab.
    """
    return "\n".join(spec(_as_text(line)) for line in _wrapped(value))


def control(value: str) -> str:
    """`value` for a field of a Debian control file: one line (Debian Policy 5.1).

    Raises:
        OutputError: `value` holds a line break or another control character.
    """
    return _one_line(value).strip()


def control_text(value: str) -> str:
    """`value` for an extended description (Debian Policy 5.6.13): each line begins with a space.

    Long lines are wrapped, an empty one becomes a dot, and one that begins with a dot is shown as
    it is.

    Raises:
        OutputError: `value` holds a control character other than a line break or a tab.
    """
    lines = (f" {line}" if line.startswith(".") else line or "." for line in _wrapped(value))
    return "\n".join(f" {_one_line(line)}" for line in lines)


def toml(value: str | int | list[str]) -> str:
    """`value` in TOML, of which this much of JSON is a part (toml.io, v1.0.0)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise OutputError(f"{value!r} is not one line of text, as a field of a package must be")
    return value


def _wrapped(value: str) -> list[str]:
    lines = (line.expandtabs(4).rstrip() for line in value.strip("\n").split("\n"))
    return [wrapped for line in lines for wrapped in _wrap(line)]


def _wrap(line: str) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line,
        SPEC_WIDTH - 1,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _as_text(line: str) -> str:
    return f"\N{NO-BREAK SPACE}{line}" if line.lstrip()[:1] in {"%", "#", "*"} else line


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - nothing that is rendered is HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shell=shlex.quote,
        spec=spec,
        spec_text=spec_text,
        control=control,
        control_text=control_text,
        toml=toml,
    )
    return environment
