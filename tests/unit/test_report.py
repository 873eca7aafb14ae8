"""What a person and the log are told, also where somebody else had a hand in the words."""

from pathlib import Path

import pytest

from installer.errors import ScriptFailedError
from installer.report import Report, printable

HOSTILE = "no such row: \x1b]0;owned\x07\x1b[2J\r\u2028\x85"


def test_lines_and_letters_are_told_as_they_are() -> None:
    assert printable("größe: 日本\n  next line") == "größe: 日本\n  next line"


def test_words_of_others_do_not_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path)
    report._stream = None
    report.step(HOSTILE)
    report.warn(HOSTILE)
    said = report.failure(ScriptFailedError(HOSTILE, detail=HOSTILE))
    assert report._open
    report._open.close()
    log = (tmp_path / "countersign.log").read_text(encoding="utf-8")

    for text in (said, log, capsys.readouterr().err):
        assert "no such row: " in text
        assert all(c.isprintable() or c == "\n" for c in text)
    assert len(log.splitlines()) == 6


def test_output_that_nobody_takes_is_given_up(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        report = Report(tmp_path)
        report._stream = full

        report.step("one")
        report.step("two")
        full.flush()  # as at the end of the program, where a failure is its exit code

    assert report._open
    report._open.close()
    assert len((tmp_path / "countersign.log").read_text().splitlines()) == 2


def test_a_log_that_cannot_be_kept_is_told_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("")
    report = Report(tmp_path / "log")
    report.be_quiet()

    report.step("one")

    assert "warning: no log is kept: " in capsys.readouterr().err
    assert (tmp_path / "log").read_text() == ""
