"""The search for a bundle in an RPM's payload, where a number in it is none."""

from io import BytesIO

import pytest

from installer import rpm_payload
from installer.errors import MalformedError
from installer.rpm_payload import CPIO_MAGIC, bundle_in
from packager.bundle_writer import write_bundle
from tests.fuzz.seeds import HEAD, an_rpm

RPM = an_rpm(write_bundle(HEAD, b"content"))
FIRST = RPM.index(CPIO_MAGIC)
FILE_SIZE, NAME_SIZE = FIRST + 54, FIRST + 94  # cpio, newc


def test_the_bundle_with_the_head_that_was_looked_for_is_found() -> None:
    assert b"".join(bundle_in(BytesIO(RPM), HEAD).compressed.pieces()) == b"content"


@pytest.mark.parametrize("place", [FILE_SIZE, NAME_SIZE])
@pytest.mark.parametrize(
    "number", [b"-0000001", b"-fffffff", b"+0000001", b" 0000001", b"0x000_01"]
)
def test_a_number_that_is_not_of_eight_digits_is_refused(place: int, number: bytes) -> None:
    rpm = BytesIO(RPM[:place] + number + RPM[place + 8 :])

    with pytest.raises(MalformedError, match="payload is not a cpio archive"):
        bundle_in(rpm, HEAD)

    assert rpm.tell() < len(RPM) // 2  # the rest was not read


def test_no_more_files_are_looked_at_than_a_package_of_a_release_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpm_payload, "MAX_FILES", 0)

    with pytest.raises(MalformedError, match="does not have the release"):
        bundle_in(BytesIO(RPM), HEAD)
