"""The report beside a manifest: whose sections stay, and when it is begun anew."""

import json
from pathlib import Path

import pytest

from installer.errors import MalformedError
from installer.tree import digest_of
from packager.errors import OutputError
from packager.report import read_sections, write_report

MANIFEST = b'{"one": "manifest"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    return tmp_path


def sections(folder: Path) -> object:
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    digest = digest_of((folder / "manifest.json").read_bytes())
    found = read_sections(folder / "report.json", digest)
    assert document.pop("sections") == found
    assert document == {"type": "countersign-report", "format": 1, "manifest": digest}
    return found


def test_a_section_is_replaced_and_those_of_others_stay(folder: Path) -> None:
    write_report(folder, {"lint": {"findings": [1]}, "locks": ["größer"]})
    file = write_report(folder, {"rehearsal": {"starts": ["empty"]}, "lint": {}})

    assert file == folder / "report.json"
    assert sections(folder) == {
        "lint": {},
        "locks": ["größer"],
        "rehearsal": {"starts": ["empty"]},
    }


def test_a_report_about_another_manifest_is_begun_anew(folder: Path) -> None:
    write_report(folder, {"rehearsal": {}})
    (folder / "manifest.json").write_bytes(b"{}\n")

    write_report(folder, {"lint": {}})

    assert sections(folder) == {"lint": {}}


@pytest.mark.parametrize(
    "damage",
    [
        {"type": "countersign-receipt"},
        {"format": 2},
        {"format": True},
        {"sections": []},
        {"more": 1},
        {"sections": {"lint": 0.5}},
    ],
)
def test_a_file_that_is_no_report_is_begun_anew(folder: Path, damage: dict[str, object]) -> None:
    file = write_report(folder, {"rehearsal": {}})
    document = json.loads(file.read_bytes()) | damage
    file.write_text(json.dumps(document), encoding="utf-8")

    write_report(folder, {"lint": {}})

    assert sections(folder) == {"lint": {}}


def test_a_file_that_is_cut_short_is_begun_anew(folder: Path) -> None:
    file = write_report(folder, {"rehearsal": {}})
    file.write_bytes(file.read_bytes()[:-10])

    write_report(folder, {"lint": {}})

    assert sections(folder) == {"lint": {}}


def test_a_section_that_could_not_be_read_again_is_refused_and_the_report_stays(
    folder: Path,
) -> None:
    write_report(folder, {"lint": {}})

    with pytest.raises(MalformedError, match=r"report\.json: not strict JSON"):
        write_report(folder, {"rehearsal": {"seconds": 0.5}})

    assert sections(folder) == {"lint": {}}
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "report.json"]


def test_without_a_manifest_there_is_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"manifest\.json cannot be read: No such file"):
        write_report(tmp_path, {})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_report_is_an_error(folder: Path) -> None:
    (folder / "report.json").mkdir()

    with pytest.raises(OutputError, match=r"report\.json cannot be read: Is a directory"):
        write_report(folder, {})
