from pathlib import Path

import pytest

from installer.clock import remember, require_forward
from installer.errors import ClockError

NOW = 1_767_225_600


def test_a_host_that_has_seen_no_time_takes_any(tmp_path: Path) -> None:
    require_forward(tmp_path / "clock.txt", NOW)


def test_the_latest_time_is_kept_and_an_earlier_one_is_not(tmp_path: Path) -> None:
    clock = tmp_path / "state/clock.txt"
    remember(clock, NOW)
    remember(clock, NOW - 1000)

    assert clock.read_text() == f"{NOW}\n"


def test_a_clock_that_is_behind_by_more_than_its_error_is_refused(tmp_path: Path) -> None:
    clock = tmp_path / "clock.txt"
    remember(clock, NOW)

    require_forward(clock, NOW - 300)
    with pytest.raises(ClockError, match="2025-12-31T23:54:59Z, and has said 2026-01-01"):
        require_forward(clock, NOW - 301)


def test_what_is_no_time_is_refused_and_not_taken_for_none(tmp_path: Path) -> None:
    clock = tmp_path / "clock.txt"
    clock.write_text("soon\n")

    with pytest.raises(ClockError, match="does not hold the latest time seen"):
        require_forward(clock, NOW)
