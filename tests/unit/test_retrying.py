from installer.retrying import LONGEST_PAUSE, pause_before


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [pause_before(attempt, 1) for attempt in range(2, 40)]

    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_chance_shortens_a_pause_by_up_to_a_half() -> None:
    assert pause_before(2, 0) == 0.05
    assert pause_before(50, 0) == LONGEST_PAUSE / 2
