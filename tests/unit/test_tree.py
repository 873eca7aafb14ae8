import os
from pathlib import Path

import pytest

from installer.errors import ApplicationError
from installer.tree import scan


def test_a_file_whose_name_no_manifest_can_have_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("")

    with pytest.raises(ApplicationError, match=r"'\\udcff': its name is not UTF-8"):
        scan(tmp_path)
