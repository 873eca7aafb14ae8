from pathlib import Path

import pytest

from installer import scriptlet
from installer.errors import MalformedError


def test_a_bundle_that_is_not_beside_preinst_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=f"{tmp_path}/bundle: No such file or directory"):
        scriptlet._open(tmp_path / "bundle")
