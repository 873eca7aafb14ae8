"""Whether a host's lock table has room for a release."""

import pytest

from packager.locktable import LockTable


@pytest.mark.parametrize("entries", [0, 3200])
def test_a_release_that_takes_up_to_half_of_the_room_is_no_reason_to_warn(entries: int) -> None:
    assert LockTable(entries).warning is None


@pytest.mark.parametrize("entries, enough", [(3201, 128), (6400, 128), (6401, 256), (99_999, 2048)])
def test_the_warning_says_with_what_setting_half_is_enough(entries: int, enough: int) -> None:
    warning = LockTable(entries).warning

    assert warning
    assert f"{entries} of 6400 locks" in warning
    assert f"set max_locks_per_transaction = {enough} in postgresql.conf" in warning
    assert LockTable(entries, enough).warning is None


def test_the_room_is_for_all_connections_together() -> None:
    assert LockTable(1000, per_transaction=64, connections=30).warning
    assert LockTable(1000, per_transaction=64, connections=300).warning is None
