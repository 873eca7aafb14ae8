"""Files that are replaced whole, and what is said where the system refuses."""

from pathlib import Path

import pytest

from installer.durable import remove_unfinished, storage_refusals, sync_tree, write_file
from installer.errors import StorageError


def test_a_file_that_cannot_be_replaced_is_as_it_was_and_nothing_is_left_beside_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "policy.toml").mkdir()

    with pytest.raises(StorageError, match=r"policy\.toml.*: Is a directory"), storage_refusals():
        write_file(tmp_path / "policy.toml", b"serial = 2\n")

    assert [path.name for path in tmp_path.iterdir()] == ["policy.toml"]
    assert (tmp_path / "policy.toml").is_dir()


def test_what_was_cut_short_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "clock.txt", b"1\n")
    (tmp_path / ".clock.txt.new").write_bytes(b"2")

    remove_unfinished(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["clock.txt"]
    assert (tmp_path / "clock.txt").read_bytes() == b"1\n"


def test_a_link_that_leads_nowhere_keeps_no_tree_from_the_disk(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a").write_text("a\n")
    (tmp_path / "lib/link").symlink_to("nowhere")

    sync_tree(tmp_path)

    assert (tmp_path / "lib/link").is_symlink()
