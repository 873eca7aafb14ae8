"""What a host is told of itself, where it has no database or lacks a tool."""

from pathlib import Path

import pytest

from installer import check
from installer.check import check_host
from installer.errors import ConfigurationError, MalformedError
from installer.fingerprint import schema_of
from installer.host_file import parse_host_file
from installer.machine import Machine
from installer.policy import parse_policy
from installer.schema import compare, read_schema

POLICY = f"""
serial = 3
[[identity]]
name = "Ada"
role = "developer"
fingerprints = ["{"A" * 40}"]
[require.QAT]
developer = 1
[rotation]
developer = 1
"""
HOST_FILE = b'environment = "QAT"\n[application.crm]\nroot = "/opt/crm"\n'
MACHINE = Machine(
    parse_policy(POLICY.encode()), Path("keyring.pgp"), parse_host_file(HOST_FILE), Path("state")
)


def test_a_host_without_a_database_is_in_order() -> None:
    assert check_host(MACHINE) == ["environment QAT, policy 3", "application crm: /opt/crm"]


def test_a_tool_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "GIT", "/nowhere/git")
    with pytest.raises(ConfigurationError, match="/nowhere/git is missing; install the package"):
        check_host(MACHINE)


def test_a_host_without_a_database_has_no_schema() -> None:
    with pytest.raises(ConfigurationError, match="the host file names 0 databases"):
        read_schema(MACHINE, None)


def test_a_receipt_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=f"{tmp_path}: Is a directory"):
        compare(schema_of(15, []), tmp_path, before=False)
