import subprocess
import tomllib
from pathlib import Path

import jinja2
import pytest

from packager import templates
from packager.errors import OutputError
from packager.templates import render, spec, spec_text, toml


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    return tmp_path / "template"


def test_a_value_that_was_not_passed_is_an_error(template: Path) -> None:
    template.write_text("{{ there }} {{ absent }}")
    with pytest.raises(jinja2.UndefinedError, match="absent"):
        render("template", there=1)


def test_values_are_quoted_for_the_language_of_the_template(template: Path) -> None:
    template.write_text("{{ v | shell }}\n{{ v | spec }}\n{{ v | toml }}\n{{ v }}\n")
    assert render("template", v="<it's 5%>") == (
        "'<it'\"'\"'s 5%>'\n<it's 5%%>\n\"<it's 5%>\"\n<it's 5%>\n"
    )


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00", "a\u2028b", "\x1b[31m"])
def test_a_field_of_a_package_is_one_line(value: str) -> None:
    with pytest.raises(OutputError, match="is not one line"):
        spec(value)


def test_text_of_a_package_has_no_control_characters() -> None:
    with pytest.raises(OutputError):
        spec_text("fine\n\x1b[31m")


def test_long_lines_are_wrapped_with_their_indentation() -> None:
    lines = spec_text("  " + "word " * 40).splitlines()
    assert len(lines) > 1
    assert all(line.startswith("  word") and len(line) < templates.SPEC_WIDTH for line in lines)


@pytest.mark.parametrize(
    "value", ["a\x7fb", 'quote " back \\ é\t\n', "\x00\x1f", 7, ["empty", "v1"], "\U0001f600"]
)
def test_toml_reads_back_what_was_written(value: str | int | list[str]) -> None:
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}


HOSTILE = r"""# a heading
%description of another
  %files
%if 0
%{name} %(date) %%
%include /etc/passwd
* an entry
	a tab
a word that ends the line \
back\
%changelog
last \
"""


@pytest.mark.integration
def test_rpm_shows_text_as_it_was_written_and_expands_nothing(
    template: Path, tmp_path: Path
) -> None:
    template.write_text(
        "Name: crm\nVersion: 1\nRelease: 1\nSummary: {{ summary | spec }}\nLicense: x\n"
        "BuildArch: noarch\n%description\n{{ text | spec_text }}\n\n%files\n\n%changelog\n"
        "* Thu Jan 01 2015 A <a@example.org> - 1-1\n{{ text | spec_text }}\n- end\n"
    )
    text = render("template", summary="50% of %{name} \\", text=HOSTILE)
    (tmp_path / "crm.spec").write_text(text)
    top = ("--define", f"_topdir {tmp_path}")
    subprocess.run(["rpmbuild", "-bb", "--quiet", *top, tmp_path / "crm.spec"], check=True)
    (package,) = tmp_path.glob("RPMS/noarch/*.rpm")
    query = ["rpm", "-qp", "--qf", "%{SUMMARY}|%{DESCRIPTION}|[%{CHANGELOGTEXT}|]", str(package)]
    said = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    summary, description, changelog, rest = said.replace("\N{NO-BREAK SPACE}", "").split("|")
    expected = [line.expandtabs(4).rstrip() for line in HOSTILE.splitlines()]
    assert summary.rstrip() == "50% of %{name} \\"
    assert [line.rstrip() for line in description.splitlines()] == expected
    assert [line.rstrip() for line in changelog.splitlines()] == [*expected, "- end"]
    assert not rest
