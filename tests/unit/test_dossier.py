"""What lies where approvals are looked for, before any signature is there to verify."""

import time
from pathlib import Path

import pytest

from installer.approval import Dossier, write_approval
from installer.dossier import APPROVAL_FILE, WITHDRAWAL_FILE, read_dossiers
from installer.errors import ApprovalError
from tests.keys import Keyring
from tests.manifests import a_manifest
from tests.unit.test_approval import APPROVAL
from tests.unit.test_check import MACHINE


def read(folder: Path) -> tuple[Dossier, ...]:
    return read_dossiers(folder, a_manifest(), MACHINE.policy, MACHINE.keyring, 0, top=folder)


def test_a_host_without_a_folder_of_approvals_has_none(tmp_path: Path) -> None:
    assert read(tmp_path / "approvals") == ()


def test_an_empty_dossier_holds_nothing_and_files_beside_it_are_none(tmp_path: Path) -> None:
    (tmp_path / "crm").mkdir()
    (tmp_path / "README").write_text("")

    assert read(tmp_path) == (Dossier("crm"),)


def test_an_approval_that_is_none_is_a_problem_of_its_dossier(tmp_path: Path) -> None:
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / APPROVAL_FILE).write_text("{}")

    (found,) = read(tmp_path)

    assert found.approval is None
    assert "type is missing" in found.problem


def test_a_withdrawal_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / WITHDRAWAL_FILE).write_text("{}")

    with pytest.raises(ApprovalError, match=f"{WITHDRAWAL_FILE}: .*type is missing"):
        read(tmp_path)


def test_a_key_that_the_keyring_does_not_hold_is_named(tmp_path: Path) -> None:
    folder, keyring = tmp_path / "approvals", tmp_path / "keyring.pgp"
    (folder / "crm").mkdir(parents=True)
    (folder / "crm" / APPROVAL_FILE).write_bytes(write_approval(APPROVAL))
    with Keyring.create() as keys:
        ada, eve = keys.new_key("Ada"), keys.new_key("Eve")
        keyring.write_bytes(keys.export([ada]))
        signature = keys.sign(write_approval(APPROVAL), eve)
    (folder / "crm" / f"{APPROVAL_FILE}.asc").write_bytes(signature)

    now = int(time.time())
    (found,) = read_dossiers(folder, a_manifest(), MACHINE.policy, keyring, now, top=tmp_path)

    assert (found.approvers, found.unknown, found.problem) == ((), (eve,), "")
