"""What counts as a fresh backup, as pgBackRest 2.45 and Barman 3.4 list them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from installer.backup import (
    TOOLS,
    Backup,
    describe,
    newest_backup,
    read_backups,
    require_fresh_backup,
    restore_point_name,
)
from installer.errors import BackupError
from installer.host_file import BackupCheck

HOUR = 3600
ENDED = 1795612870
"""2026-11-25 13:21:10 UTC, when the backups below ended."""

PGBACKREST = BackupCheck("pgbackrest", "main", "postgres", 24)
BARMAN = BackupCheck("barman", "main", "barman", 24)

OF_PGBACKREST: dict[str, Any] = {
    "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000002"},
    "backrest": {"format": 5, "version": "2.45"},
    "error": False,
    "label": "20261125-132107F",
    "prior": None,
    "timestamp": {"start": ENDED - 3, "stop": ENDED},
    "type": "full",
}
STANZA: dict[str, Any] = {
    "backup": [OF_PGBACKREST],
    "cipher": "none",
    "name": "main",
    "status": {"code": 0, "lock": {"backup": {"held": False}}, "message": "ok"},
}
OF_BARMAN: dict[str, Any] = {
    "backup_id": "20261125T132106",
    "end_time": "Wed Nov 25 13:21:10 2026",
    "end_time_timestamp": str(ENDED),
    "retention_status": "-",
    "size_bytes": 40128696,
    "status": "DONE",
}


def read(check: BackupCheck, listed: object) -> list[Backup]:
    return list(read_backups(check, json.dumps(listed).encode()))


def refusal(check: BackupCheck, listed: object, now: int = ENDED) -> str:
    with pytest.raises(BackupError) as refused:
        newest_backup(check, read(check, listed), now)
    return str(refused.value)


def without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    "check, listed, line",
    [
        (PGBACKREST, [STANZA], "backup: pgbackrest main: 20261125-132107F"),
        (BARMAN, {"main": [OF_BARMAN]}, "backup: barman main: 20261125T132106"),
    ],
)
def test_a_fresh_backup_is_told_with_its_age(check: BackupCheck, listed: object, line: str) -> None:
    now = ENDED + 7 * HOUR + 59

    found = newest_backup(check, read(check, listed), now)

    assert describe(check, found, now) == f"{line} of 2026-11-25 13:21:10 UTC, 7 h old"


def test_the_newest_counts_wherever_it_stands_in_the_list() -> None:
    older = OF_BARMAN | {"backup_id": "older", "end_time_timestamp": str(ENDED - 90 * HOUR)}

    for listed in ([older, OF_BARMAN], [OF_BARMAN, older]):
        assert newest_backup(BARMAN, read(BARMAN, {"main": listed}), ENDED).ended == ENDED


def test_a_backup_is_fresh_up_to_the_hours_that_the_host_file_says() -> None:
    at_most = ENDED + 24 * HOUR

    assert newest_backup(PGBACKREST, read(PGBACKREST, [STANZA]), at_most).ended == ENDED
    assert refusal(PGBACKREST, [STANZA], at_most + 1) == (
        "the newest backup of pgbackrest main, 20261125-132107F, ended at "
        "2026-11-25 13:21:10 UTC, longer ago than max_age_hours = 24"
    )


def test_the_clock_that_dates_a_backup_may_be_five_minutes_ahead_and_no_more() -> None:
    listed = {"main": [OF_BARMAN]}
    ahead = newest_backup(BARMAN, read(BARMAN, listed), ENDED - 300)

    assert describe(BARMAN, ahead, ENDED - 300).endswith(", 0 h old")
    assert "and it is 2026-11-25 13:16:09 UTC here: one of the two clocks is wrong" in refusal(
        BARMAN, listed, ENDED - 301
    )


@pytest.mark.parametrize("error", [{"error": True}, {"error": None}])
def test_a_newest_backup_with_errors_is_refused_though_an_older_one_is_sound(
    error: dict[str, Any],
) -> None:
    older = OF_PGBACKREST | {"timestamp": {"start": 1, "stop": ENDED - HOUR}}
    broken = OF_PGBACKREST | error | {"label": "20261125-132107D"}

    assert "20261125-132107D, has errors" in refusal(
        PGBACKREST, [STANZA | {"backup": [broken, older]}]
    )


def test_what_an_old_version_did_not_say_of_an_older_backup_does_not_matter() -> None:
    older = without(OF_PGBACKREST, "error") | {"timestamp": {"start": 1, "stop": 2}}
    listed = read(PGBACKREST, [STANZA | {"backup": [older, OF_PGBACKREST]}])

    assert newest_backup(PGBACKREST, listed, ENDED).ended == ENDED
    assert "has errors" in refusal(PGBACKREST, [STANZA | {"backup": [older]}], 10)


@pytest.mark.parametrize(
    "check, listed",
    [
        (PGBACKREST, [STANZA | {"backup": []}]),
        (BARMAN, {"main": []}),
        (BARMAN, {"main": [{"backup_id": "x", "status": "FAILED"}]}),
        (BARMAN, {"main": [{"backup_id": "x", "status": "STARTED"}]}),
        (BARMAN, {"main": [OF_BARMAN | {"status": "WAITING_FOR_WALS"}]}),
    ],
)
def test_what_is_not_finished_is_no_backup(check: BackupCheck, listed: object) -> None:
    assert refusal(check, listed) == f"{check.tool} main has no finished backup"


@pytest.mark.parametrize(
    "status, words",
    [
        ({"code": 1, "message": "missing stanza path"}, "pgbackrest main: missing stanza path"),
        ({"code": 4, "message": "different across repos"}, "main: different across repos"),
        ({"message": "ok"}, "status: code is missing"),
        ({"code": True, "message": "ok"}, "status: code is not of type int"),
    ],
)
def test_a_stanza_that_is_not_in_order_is_refused_though_it_lists_a_backup(
    status: dict[str, Any], words: str
) -> None:
    assert words in refusal(PGBACKREST, [STANZA | {"status": status}])


@pytest.mark.parametrize(
    "check, listed, words",
    [
        (PGBACKREST, {}, "info is not of type list"),
        (PGBACKREST, [], "it is about 0 stanzas"),
        (PGBACKREST, [STANZA, STANZA], "it is about 2 stanzas"),
        (PGBACKREST, ["main"], "info holds something that is not of type dict"),
        (PGBACKREST, [STANZA | {"name": "other"}], "it is about another stanza"),
        (PGBACKREST, [without(STANZA, "status")], "status is missing"),
        (PGBACKREST, [without(STANZA, "backup")], "backup is missing"),
        (PGBACKREST, [STANZA | {"backup": [without(OF_PGBACKREST, "label")]}], "label is missing"),
        (
            PGBACKREST,
            [STANZA | {"backup": [OF_PGBACKREST | {"timestamp": {"start": 1, "stop": None}}]}],
            "stop is not of type int",
        ),
        (BARMAN, [], "barman: not an object"),
        (BARMAN, {"other": [OF_BARMAN]}, "main is missing"),
        (BARMAN, {"_ERROR": ["Unknown server 'main'"]}, "main is missing"),
        (BARMAN, {"main": ["20261125T132106"]}, "main holds something that is not of type dict"),
        (BARMAN, {"main": [without(OF_BARMAN, "status")]}, "status is missing"),
        (
            BARMAN,
            {"main": [without(OF_BARMAN, "end_time_timestamp")]},
            "end_time_timestamp is missing",
        ),
        (BARMAN, {"main": [OF_BARMAN | {"end_time_timestamp": ENDED}]}, "is not of type str"),
        (BARMAN, {"main": [OF_BARMAN | {"end_time_timestamp": "-1"}]}, "does not match"),
    ],
)
def test_a_list_of_another_form_is_refused(check: BackupCheck, listed: object, words: str) -> None:
    said = refusal(check, listed)

    assert said.startswith(f"the list of {check.tool} main cannot be read: ")
    assert words in said


@pytest.mark.parametrize("listed", [b"", b"ok", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(listed: bytes) -> None:
    for check in (PGBACKREST, BARMAN):
        with pytest.raises(BackupError, match="cannot be read"):
            read_backups(check, listed)


def test_an_account_that_does_not_exist_is_named() -> None:
    with pytest.raises(BackupError, match="there is no account nobody-of-this-name, which owns"):
        require_fresh_backup(BackupCheck("barman", "main", "nobody-of-this-name", 24), ENDED)


def test_a_restore_point_has_a_name_that_the_server_takes() -> None:
    assert restore_point_name("crm 1.4.0") == "countersign crm 1.4.0"
    assert restore_point_name("p" * 45 + " 1.4.0") == "countersign " + "p" * 45 + " 1.4.0"
    assert len(restore_point_name("p" * 64 + " 1.4.0")) == 63


def test_no_two_releases_share_the_name_of_a_restore_point() -> None:
    names = {restore_point_name("p" * 64 + f" 1.4.{patch}") for patch in range(20)}

    assert len(names) == 20
    assert names == {restore_point_name("p" * 64 + f" 1.4.{patch}") for patch in range(20)}


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(TOOLS["pgbackrest"], program="/nowhere/pgbackrest")
    monkeypatch.setattr("installer.backup.TOOLS", {"pgbackrest": missing})

    with pytest.raises(BackupError) as refused:
        require_fresh_backup(PGBACKREST, ENDED)

    assert "/nowhere/pgbackrest is missing; install the package pgbackrest" in str(refused.value)
