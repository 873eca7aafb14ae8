from pathlib import Path

import pytest

from installer import state
from installer.errors import LockedError
from installer.state import ProductState


def test_a_product_that_another_install_holds_is_refused_and_free_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LOCK_WAIT", 0)
    first, second = ProductState(tmp_path / "crm"), ProductState(tmp_path / "crm")

    with first.lock(), pytest.raises(LockedError, match=r"crm/lock$"), second.lock():
        pass

    with second.lock():
        assert [path.name for path in (tmp_path / "crm").iterdir()] == ["lock"]
