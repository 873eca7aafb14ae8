import subprocess
import tomllib
from pathlib import Path

import pytest

from packager.errors import OutputError, ProjectError
from packager.init import detect_vcs, first_release, initialise
from packager.project import load_project


@pytest.mark.parametrize(
    "vcs, tag", [("git", "v0.1.0"), ("svn", "tags/0.1.0"), ("tree", "releases/0.1.0")]
)
def test_what_is_written_is_a_release_that_can_be_read(tmp_path: Path, vcs: str, tag: str) -> None:
    release, makefile = initialise(tmp_path, "crm-web", vcs)
    assert (release, makefile) == (tmp_path / "release.toml", tmp_path / "Makefile")
    project = load_project(release)
    assert (project.name, project.vcs, project.to) == ("crm-web", vcs, tag)
    assert tomllib.loads(release.read_text()) == first_release("crm-web", vcs)


def test_the_longest_name_fits_a_database(tmp_path: Path) -> None:
    name = "x" * 64
    database = load_project(initialise(tmp_path, name, "git")[0]).database
    assert database
    assert database.name == name[:63]


def test_what_is_commented_out_can_be_put_in(tmp_path: Path) -> None:
    release, _ = initialise(tmp_path, "crm", "git")
    lines = release.read_text().splitlines(keepends=True)
    examples = (
        "# verify =",
        "# prepare =",
        "# [[",
        "# [signing",
        "# script",
        "# change",
        "# digest",
        "# when",
        "# reason",
        "# package_key",
        "# license",
    )
    release.write_text("".join(line[2:] if line.startswith(examples) else line for line in lines))
    project = load_project(release)
    assert project.database
    assert project.database.verify == ("sql/verify/*.sql",)
    assert project.database.accept[0].script == "sql/0041_late.sql"
    assert project.database.online[0].script == "sql/0043_index.sql"
    assert project.package_key


def make(folder: Path, *arguments: str) -> list[str]:
    command = ["make", "-C", str(folder), "--no-print-directory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_make_alone_lists_the_targets(tmp_path: Path) -> None:
    initialise(tmp_path, "crm", "git")
    assert [line.split()[1] for line in make(tmp_path)] == ["help:", "check:", "rpm:", "deb:"]


def test_make_rpm_checks_rehearses_and_signs_before_it_builds(tmp_path: Path) -> None:
    initialise(tmp_path, "crm", "git")
    options = '--release "release.toml" --output "dist"'
    steps = ("check", "rehearse --if-possible", "manifest", "sign", "build")
    assert [line.rstrip() for line in make(tmp_path, "-n", "rpm")] == [
        f"countersign {step} {options}" for step in steps
    ]
    commands = make(tmp_path, "-n", "rpm", "KEY=Ann <ann@example.org>", "RELEASE=next.toml")
    assert commands[3] == (
        'countersign sign --release "next.toml" --output "dist" --key "Ann <ann@example.org>"'
    )


def test_make_deb_does_the_same_for_a_deb(tmp_path: Path) -> None:
    initialise(tmp_path, "crm", "git")
    rpm, deb = (make(tmp_path, "-n", target) for target in ("rpm", "deb"))
    assert deb == [*rpm[:-1], f"{rpm[-1]} --format deb"]


@pytest.mark.parametrize("there", ["release.toml", "Makefile"])
def test_nothing_is_overwritten_and_nothing_half_done(tmp_path: Path, there: str) -> None:
    (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(OutputError, match=f"{there} is there already") as caught:
        initialise(tmp_path, "crm", "git")
    assert caught.value.exit_code == 55
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"absent/release\.toml: No such file"):
        initialise(tmp_path / "absent", "crm", "git")


def test_what_was_written_is_taken_back_when_the_rest_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def disk_full(path: Path, mode: str, encoding: str) -> object:
        if path.name == "Makefile":
            raise OSError(28, "No space left on device", str(path))
        return opened(path, mode, encoding=encoding)

    monkeypatch.setattr(Path, "open", disk_full)
    with pytest.raises(OutputError, match="No space left on device; nothing was written"):
        initialise(tmp_path, "crm", "git")
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_says_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packager.init.render", lambda *_, **__: "[release]\n")
    with pytest.raises(OutputError, match="does not say what it was given"):
        initialise(tmp_path, "crm", "git")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Crm", "my crm", "", "crm\n", 'a"b'])
def test_a_name_that_no_package_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="choose one with --name"):
        initialise(tmp_path, name, "git")
    assert list(tmp_path.iterdir()) == []


def test_version_control_is_found_above_a_folder(tmp_path: Path) -> None:
    inner = tmp_path / "product" / "deploy"
    inner.mkdir(parents=True)
    assert detect_vcs(inner) == "tree"
    (tmp_path / ".svn").mkdir()
    assert detect_vcs(inner) == "svn"
    (tmp_path / "product" / ".git").write_text("gitdir: elsewhere")  # as in a git worktree
    assert detect_vcs(inner) == "git"
