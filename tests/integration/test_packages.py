"""What is no package of a release is refused by the name of its file."""

from pathlib import Path

import pytest

from installer.errors import MalformedError
from installer.packages import open_release
from installer.rpm_payload import RPM_MAGIC

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "No such file or directory"),
        (b"", "does not begin with a manifest.json"),
        (RPM_MAGIC + bytes(1024), "not an rpm package"),
        (b"!<arch>\n", ""),
    ],
    ids=["no file", "empty", "rpm", "deb"],
)
def test_what_is_no_package_of_a_release_is_refused_by_name(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "crm"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(MalformedError) as refused, open_release(file):
        pass

    assert str(refused.value).startswith(f"{file}: ")
    assert reason in str(refused.value)
