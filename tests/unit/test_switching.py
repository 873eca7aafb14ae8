"""After the switch a release stands: what fails then is told, and takes nothing back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from installer import switching
from installer.application import ApplicationFolder
from installer.report import Report


@pytest.fixture
def report(tmp_path: Path) -> Iterator[Report]:
    made = Report(tmp_path)
    made.be_quiet()
    yield made
    assert made._open
    made._open.close()


@pytest.mark.parametrize(
    "systemctl, reason",
    [("/usr/bin/false", "exit code 1"), ("/nowhere/systemctl", "No such file or directory")],
)
def test_a_service_that_is_not_restarted_is_told(
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    systemctl: str,
    reason: str,
) -> None:
    monkeypatch.setattr(switching, "SYSTEMCTL", systemctl)

    switching._restart("crm.service", report)

    said = capsys.readouterr().err
    assert "crm.service was not restarted: " in said
    assert reason in said


def test_old_releases_that_cannot_be_removed_are_told(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    switching._prune(ApplicationFolder(tmp_path / "gone"), 2, report)

    said = capsys.readouterr().err
    assert "old releases could not be removed: " in said
    assert str(tmp_path / "gone/releases") in said
