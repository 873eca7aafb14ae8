"""A host's own key, made and used by the real gpg; its signatures pass the gate of all others."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from installer import host_key
from installer.errors import ConfigurationError
from installer.host_key import HostKey, make_host_key
from installer.signatures import verify_signature
from tests.keys import Keyring

pytestmark = pytest.mark.integration


@pytest.fixture
def state() -> Iterator[Path]:
    with TemporaryDirectory(prefix="state-", dir="/tmp") as folder:  # an agent's socket lies below
        yield Path(folder)


def test_what_a_host_signs_verifies_with_the_public_key_that_it_wrote(state: Path) -> None:
    made = make_host_key(state, "QAT")
    key = HostKey(state / "host-key")
    with Keyring.create() as keys:
        keys.gpg("--import", data=made.public.read_bytes())
        keyring = state / "keyring.pgp"
        keyring.write_bytes(keys.export([made.fingerprint]))

    found = verify_signature(key.sign(b"{}\n"), b"{}\n", keyring, int(time.time()))

    assert found.primary == made.fingerprint == key.fingerprint()
    assert f'fingerprints = ["{made.fingerprint}"]' in made.identity
    assert 'environment = "QAT"' in made.identity


def test_a_key_that_is_there_is_kept(state: Path) -> None:
    first = make_host_key(state, "QAT")

    assert make_host_key(state, "QAT") == first


def test_nobody_else_reads_the_secret_key_and_no_agent_stays(state: Path) -> None:
    make_host_key(state, "QAT")

    assert (state / "host-key").stat().st_mode & 0o777 == 0o700
    assert not [words for words in command_lines() if str(state) in words]


def command_lines() -> Iterator[str]:
    """What the processes of this machine were called with."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            yield file.read_text(errors="replace")


def test_a_gpg_that_makes_no_key_is_not_believed(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_key, "GPG", "/usr/bin/true")

    with pytest.raises(ConfigurationError, match="gpg made no key in"):
        make_host_key(state, "QAT")

    assert not (state / "host-key.asc").exists()


def test_a_host_without_a_key_signs_nothing(state: Path) -> None:
    key = HostKey(state / "host-key")

    assert key.fingerprint() is None
    with pytest.raises(ConfigurationError, match="the host's key in"):
        key.sign(b"{}")
    assert not (state / "host-key").exists()
