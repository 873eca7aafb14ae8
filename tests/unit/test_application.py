"""The application's root as the installer makes it, which runs with a umask that lets nobody in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer.application import ApplicationFolder


@pytest.fixture(autouse=True)
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_application_s_user_can_enter_the_folders_above_the_root(tmp_path: Path) -> None:
    root = tmp_path / "products" / "sales" / "crm"

    ApplicationFolder(root).require_private()

    made = (root.parents[1], root.parent, root, root / "releases")
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o755] * 4


def test_an_install_that_is_taken_back_leaves_none_of_the_folders_that_it_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "products").mkdir()
    folder = ApplicationFolder(tmp_path / "products" / "sales" / "crm")
    folder.require_private()

    folder.discard("1.0")

    assert list((tmp_path / "products").iterdir()) == []
