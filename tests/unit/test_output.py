"""What was made is in its place whole, or not at all."""

from pathlib import Path

import pytest

from packager.errors import OutputError
from packager.output import place, temporary_folder, write


def test_what_fails_leaves_no_folder_behind(tmp_path: Path) -> None:
    def fail(parent: Path) -> None:
        with temporary_folder(parent) as folder:
            write(folder / "package", b"half")
            raise OutputError("the other half")

    with pytest.raises(OutputError, match="the other half"):
        fail(tmp_path / "dist")
    assert not list(tmp_path.iterdir())

    (tmp_path / "dist").mkdir()
    with pytest.raises(OutputError, match="the other half"):
        fail(tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())


def test_what_was_put_into_place_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "dist") as folder:
        write(folder / "package", b"whole")
        assert place(folder / "package", tmp_path / "dist/package") == tmp_path / "dist/package"

    assert [file.name for file in (tmp_path / "dist").iterdir()] == ["package"]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(OutputError, match="dist cannot be written: Not a directory"),
        temporary_folder(tmp_path / "file/dist"),
    ):
        pass
    with pytest.raises(OutputError, match="file/package cannot be written: Not a directory"):
        write(tmp_path / "file/package", b"")
    with pytest.raises(OutputError, match="file/package cannot be written: Not a directory"):
        place(tmp_path / "file", tmp_path / "file/package")
