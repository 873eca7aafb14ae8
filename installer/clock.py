"""Remembers the latest time that this host has seen, so that a clock set back revives nothing.

An approval is good until a day; a host whose clock goes back would take it again.
"""

from pathlib import Path

from installer.durable import make_folder, write_file
from installer.errors import ClockError
from installer.signatures import CLOCK_ERROR
from installer.strict_json import moment


def remember(file: Path, now: int) -> None:
    """Keep `now`, in seconds since 1970, unless a later time is kept already."""
    if now > _latest(file):
        make_folder(file.parent)
        write_file(file, b"%d\n" % now)


def require_forward(file: Path, now: int) -> None:
    """Refuse a clock that is behind the latest time it has shown.

    Raises:
        ClockError: by more than a clock's error; or what is kept is no time.
    """
    latest = _latest(file)
    if now + CLOCK_ERROR < latest:
        raise ClockError(
            f"this host's clock says {moment(now)}, and has said {moment(latest)} before: "
            "while it is behind, no approval is known to be still good"
        )


def _latest(file: Path) -> int:
    try:
        return int(file.read_bytes())
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise ClockError(f"{file} does not hold the latest time seen: {error}") from None
