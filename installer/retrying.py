"""When a transaction that could not have its locks is tried again.

Pure. The pauses grow, so that a busy database is asked less and less often, and vary at random, so
that two installs do not meet again and again.
"""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


def pause_before(attempt: int, chance: float) -> float:
    """Seconds to wait before the attempt of this number, from 2 up; `chance` is from 0 to 1."""
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 2, 16)
    return min(doubled, LONGEST_PAUSE) * (0.5 + chance / 2)
