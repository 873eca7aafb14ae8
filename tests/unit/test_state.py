"""What a host remembers of a product when it is cut short while it writes that down."""

from pathlib import Path

import pytest

from installer.state import ProductState


def test_the_next_run_removes_what_was_written_and_got_no_name(tmp_path: Path) -> None:
    for name in (".pending.new", ".crm-1.1-20260101T000000.000Z.json.new", "installed"):
        (tmp_path / name).write_bytes(b"half")

    with ProductState(tmp_path).lock():
        assert {file.name for file in tmp_path.iterdir()} == {"installed", "lock"}


def test_a_release_is_installed_only_when_the_schema_from_before_is_forgotten(
    tmp_path: Path,
) -> None:
    state = ProductState(tmp_path)
    state.keep_start(b"schema")
    (tmp_path / "pending").write_bytes(b"head")
    (tmp_path / "installed").mkdir()  # so that the rename fails, as a kill would have it

    with pytest.raises(IsADirectoryError):
        state.finish()

    assert state.start() == b""
    assert (tmp_path / "pending").read_bytes() == b"head"


def test_an_install_that_is_abandoned_leaves_no_receipt_of_it(tmp_path: Path) -> None:
    state = ProductState(tmp_path)
    state.keep_draft("crm-1.1.json", b"{}")
    (tmp_path / "pending").write_bytes(b"head")

    state.abandon()

    assert list(tmp_path.iterdir()) == []
