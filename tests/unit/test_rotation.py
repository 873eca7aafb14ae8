"""Which policy a host goes by; signed by the real gpg, verified by the real gpgv."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from installer import machine, rotation
from installer.durable import write_file
from installer.errors import ConfigurationError
from installer.policy import Policy
from installer.rotation import NotAcceptedError, load_policy
from installer.trusted_files import read_trusted
from tests.developers import identity
from tests.keys import Keyring

STARTED = int(time.time())
"""When the tests were collected: they may run much later."""
ROTATION = "[rotation]\ndeveloper = 2\ncustomer = 1\n"
REQUIRE = "[require.QAT]\ndeveloper = 1\n"
YESTERDAY = time.strftime("%Y%m%dT%H%M%S", time.gmtime(STARTED - 86400))


@dataclass(frozen=True)
class People:
    keys: Keyring
    ada: str
    bob: str
    grace: str
    customer: str
    mallory: str

    def policy(self, serial: int, *more: str, rotation: str = ROTATION) -> bytes:
        """Ada, Bob and the customer; `more` are further tables, or stand for Bob's."""
        known = {
            "Ada": identity("Ada", "developer", self.ada),
            "Bob": identity("Bob", "developer", self.bob),
            "Customer": identity("Customer", "customer", self.customer),
        }
        known |= {table.split('"')[1]: table for table in more}
        return "\n".join([f"serial = {serial}\n", *known.values(), REQUIRE, rotation]).encode()


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with Keyring.create() as keys:
        names = ("ada", "bob", "grace", "customer", "mallory")
        made = [
            keys.new_key(f"{name} <{name}@example.org>", created="20260101T000000")
            for name in names
        ]
        yield People(keys, *made)


@dataclass(frozen=True)
class Host:
    """The two folders of a host that decide which policy it goes by."""

    people: People
    top: Path

    @property
    def file(self) -> Path:
        return self.top / "etc" / "policy.toml"

    @property
    def state(self) -> Path:
        return self.top / "lib" / "countersign"

    @property
    def memory(self) -> Path:
        return self.state / "policy.toml"

    def read(self, path: Path) -> bytes:
        return read_trusted(path, os.getuid(), top=self.top)

    def place(self, content: bytes, *signers: str, signed: bytes = b"") -> None:
        """Put a policy where the administrator does, with these signatures and no others."""
        for stale in self.file.parent.glob("*.asc"):
            stale.unlink()
        self.file.write_bytes(content)
        for signer in signers:
            self.sign(signer, signed or content)

    def sign(self, signer: str, content: bytes, name: str = "", created: str = "") -> None:
        beside = self.file.with_name(name or f"policy.toml.{signer}.asc")
        beside.write_bytes(self.people.keys.sign(content, signer, created=created))

    def load(self, *, remember: bool = True) -> Policy:
        now = int(time.time())
        return load_policy(self.file.parent, self.state, now, remember=remember, read=self.read)

    def refusal(self, *, remember: bool = True) -> ConfigurationError:
        """Why the policy is refused; what the host remembers stays as it is."""
        before = self.memory.read_bytes() if self.memory.exists() else None
        with pytest.raises(ConfigurationError) as refused:
            self.load(remember=remember)
        assert refused.value.exit_code == 10
        assert (self.memory.read_bytes() if self.memory.exists() else None) == before
        return refused.value


@pytest.fixture
def host(tmp_path: Path, people: People) -> Host:
    """A host that has seen no policy yet."""
    made = Host(people, tmp_path)
    for folder in (made.file.parent, made.state.parent):
        folder.mkdir(mode=0o755)
    known = [people.ada, people.bob, people.grace, people.customer]
    (made.file.parent / "keyring.pgp").write_bytes(people.keys.export(known))
    return made


@pytest.fixture
def settled(host: Host) -> Host:
    """A host that has accepted serial 1."""
    host.place(host.people.policy(1))
    host.load()
    return host


# The first policy, and the same one again


def test_the_first_policy_is_accepted_as_it_is_and_remembered(host: Host) -> None:
    first = host.people.policy(7)
    host.place(first)

    assert host.load().serial == 7
    assert host.memory.read_bytes() == first
    assert host.state.stat().st_mode & 0o777 == 0o700


def test_the_same_policy_goes_on_whatever_lies_beside_it(settled: Host) -> None:
    settled.place(settled.people.policy(1), settled.people.ada, signed=b"something else")
    settled.file.with_name("policy.toml.asc").write_bytes(b"no signature")

    assert settled.load().serial == 1


def test_a_first_policy_that_is_none_is_not_remembered(host: Host) -> None:
    host.place(b"serial = 1\n")

    assert "identity is missing" in str(host.refusal())


# The next policy


def test_a_policy_that_enough_have_signed_is_accepted_and_remembered(settled: Host) -> None:
    people = settled.people
    following = people.policy(2, identity("Grace", "developer", people.grace))
    settled.place(following, people.ada, people.bob, people.customer)

    assert settled.load().serial == 2
    assert settled.memory.read_bytes() == following


def test_serials_may_leave_numbers_out(settled: Host) -> None:
    people = settled.people
    settled.place(people.policy(9), people.ada, people.bob, people.customer)

    assert settled.load().serial == 9


def test_a_signature_may_be_called_as_gpg_calls_it(settled: Host) -> None:
    people = settled.people
    following = people.policy(2)
    settled.place(following, people.ada, people.bob)
    settled.sign(people.customer, following, "policy.toml.asc")

    assert settled.load().serial == 2


@pytest.mark.parametrize(
    "signers, reason",
    [
        ((), "requires 2 of role developer, found none, and 1 of role customer, found none"),
        (("ada",), "2 of role developer, found 1 (Ada), and 1 of role customer, found none"),
        (("ada", "bob"), "requires 1 of role customer, found none"),
        (("ada", "customer"), "requires 2 of role developer, found 1 (Ada)"),
        (("ada", "grace", "customer"), "requires 2 of role developer, found 1 (Ada)"),
    ],
)
def test_a_policy_that_too_few_have_signed_is_refused(
    settled: Host, signers: tuple[str, ...], reason: str
) -> None:
    people = settled.people
    # It names Grace; that does not make her someone whom the accepted policy names.
    following = people.policy(2, identity("Grace", "developer", people.grace))
    settled.place(following, *(getattr(people, name) for name in signers))

    error = settled.refusal()

    assert isinstance(error, NotAcceptedError)
    assert str(error).startswith(
        f"{settled.file} is not accepted: a policy that follows serial 1 requires "
    )
    assert reason in str(error)
    assert "gpg --armor --detach-sign policy.toml" in error.hint
    if "grace" in signers:
        assert f"{people.grace}: a key of no one that the policy names" in error.detail


def test_a_new_policy_cannot_lower_what_it_takes_to_accept_it(settled: Host) -> None:
    people = settled.people
    settled.place(people.policy(2, rotation="[rotation]\ndeveloper = 1\n"), people.ada)

    assert "requires 2 of role developer, found 1 (Ada)" in str(settled.refusal())


def test_two_keys_of_one_identity_count_once(host: Host) -> None:
    people = host.people
    both = identity("Bob", "developer", people.bob, people.grace)
    host.place(people.policy(1, both))
    host.load()
    host.place(people.policy(2, both), people.bob, people.grace, people.customer)

    assert "requires 2 of role developer, found 1 (Bob)" in str(host.refusal())


def test_the_same_signature_under_two_names_counts_once(settled: Host) -> None:
    people = settled.people
    following = people.policy(2)
    settled.place(following, people.ada, people.customer)
    settled.sign(people.ada, following, "policy.toml.again.asc")

    assert "requires 2 of role developer, found 1 (Ada)" in str(settled.refusal())


def test_signatures_by_keys_that_the_host_does_not_hold_do_not_count(settled: Host) -> None:
    people = settled.people
    following = people.policy(2)
    settled.place(following, people.ada, people.mallory, people.customer)
    assert f"{people.mallory}: a key that this host's keyring" in settled.refusal().detail

    settled.sign(people.bob, following)
    assert settled.load().serial == 2


def test_a_broken_signature_refuses_a_policy_that_enough_others_have_signed(settled: Host) -> None:
    people = settled.people
    following = people.policy(2)
    settled.place(following, people.ada, people.bob, people.customer)
    settled.sign(people.grace, settled.memory.read_bytes())  # one that was left lying

    error = settled.refusal()

    assert str(error).startswith(f"{settled.file}.{people.grace}.asc: the signature does not match")
    assert "If it belongs to an earlier policy.toml, remove it" in error.detail


def test_what_is_no_signature_refuses_the_policy(settled: Host) -> None:
    people = settled.people
    settled.place(people.policy(2), people.ada, people.bob, people.customer)
    settled.file.with_name("policy.toml.old.asc").write_bytes(b"")

    assert f"{settled.file}.old.asc: " in str(settled.refusal())


def test_a_signature_from_the_future_refuses_the_policy(settled: Host) -> None:
    people = settled.people
    following = people.policy(2)
    settled.place(following, people.bob, people.customer)
    tomorrow = time.strftime("%Y%m%dT%H%M%S", time.gmtime(STARTED + 86400))
    settled.sign(people.ada, following, created=tomorrow)

    assert "made in the future" in str(settled.refusal())


def test_a_signature_that_others_may_have_exchanged_refuses_the_policy(settled: Host) -> None:
    people = settled.people
    settled.place(people.policy(2), people.ada, people.bob, people.customer)
    (settled.file.parent / f"policy.toml.{people.ada}.asc").chmod(0o666)

    assert "is writable by others" in str(settled.refusal())


# Who has left


def test_nothing_that_a_revoked_identity_signs_counts(host: Host) -> None:
    people = host.people
    grace = identity("Grace", "developer", people.grace)
    bob = identity("Bob", "developer", people.bob, more='status = "revoked"')
    host.place(people.policy(1, grace, bob))
    host.load()
    host.place(people.policy(2), people.ada, people.bob, people.customer)

    assert f"{people.bob}: Bob (developer) is revoked" in host.refusal().detail


def test_the_retired_sign_no_policy_after_their_time(host: Host) -> None:
    people = host.people
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(STARTED - 43200))
    bob = identity("Bob", "developer", people.bob, more=f'status = "retired"\nnot_after = {ended}')
    grace = identity("Grace", "developer", people.grace)
    host.place(people.policy(1, grace, bob))
    host.load()
    following = people.policy(2, grace)
    host.place(following, people.ada, people.bob, people.customer)
    assert "Bob (developer) signed on" in host.refusal().detail

    host.sign(people.bob, following, created=YESTERDAY)
    assert host.load().serial == 2


def test_a_policy_may_revoke_one_of_those_who_sign_it(settled: Host) -> None:
    people = settled.people
    bob = identity("Bob", "developer", people.bob, more='status = "revoked"')
    grace = identity("Grace", "developer", people.grace)
    settled.place(people.policy(2, bob, grace), people.ada, people.bob, people.customer)

    assert settled.load().serial == 2


# Back, and aside


@pytest.mark.parametrize("serial", [1, 2])
def test_a_policy_that_was_replaced_does_not_come_back(settled: Host, serial: int) -> None:
    people = settled.people
    signers = (people.ada, people.bob, people.customer)
    settled.place(people.policy(3), *signers)
    settled.load()
    settled.place(people.policy(serial), *signers)

    error = settled.refusal()

    assert f"has serial {serial}, and serial 3 was accepted already" in str(error)
    assert "/var/lib/countersign/policy.toml" in error.hint


def test_another_policy_of_the_same_serial_is_refused_even_signed(settled: Host) -> None:
    people = settled.people
    settled.place(people.policy(1) + b"# a comment\n", people.ada, people.bob, people.customer)

    error = settled.refusal()

    assert f"{settled.file} has serial 1 like the accepted policy, but other content" in str(error)
    assert "raise it" in str(error)


def test_a_host_that_was_offline_is_led_through_the_policies_between(settled: Host) -> None:
    people = settled.people
    grace = identity("Grace", "developer", people.grace)
    bob = identity("Bob", "developer", people.bob, more='status = "revoked"')
    second = people.policy(2, grace)
    third = people.policy(3, grace, bob)
    settled.place(third, people.ada, people.grace, people.customer)
    assert "requires 2 of role developer, found 1 (Ada)" in str(settled.refusal())

    settled.place(second, people.ada, people.bob, people.customer)
    assert settled.load().serial == 2
    settled.place(third, people.ada, people.grace, people.customer)
    assert settled.load().serial == 3


def test_root_can_start_over(settled: Host) -> None:
    other = settled.people.policy(1, rotation="[rotation]\ndeveloper = 1\n")
    settled.place(other)
    assert "other content" in str(settled.refusal())

    settled.memory.unlink()

    assert settled.load().rotation == {"developer": 1}
    assert settled.memory.read_bytes() == other


# What the host remembers


@pytest.mark.parametrize("content", [b"", b"serial = 1\n", b"\xff"])
def test_a_damaged_memory_is_not_taken_for_none(settled: Host, content: bytes) -> None:
    people = settled.people
    settled.memory.write_bytes(content)
    settled.place(people.policy(2), people.ada, people.bob, people.customer)

    error = settled.refusal()

    assert "the policy that was accepted before cannot be read any more: policy.toml" in str(error)
    assert "/var/lib/countersign/policy.toml" in error.detail


@pytest.mark.parametrize("path", ["lib/countersign/policy.toml", "lib/countersign", "lib"])
def test_a_memory_that_others_can_change_is_not_believed(settled: Host, path: str) -> None:
    (settled.top / path).chmod(0o777)

    assert "is writable by others" in str(settled.refusal())


def test_a_link_is_not_taken_for_the_memory(settled: Host) -> None:
    elsewhere = settled.top / "elsewhere"
    settled.memory.rename(elsewhere)
    settled.memory.symlink_to(elsewhere)
    assert "it is a symbolic link" in str(settled.refusal())

    elsewhere.unlink()
    with pytest.raises(ConfigurationError, match="it is a symbolic link"):
        settled.load()
    assert settled.memory.is_symlink()


def test_nothing_is_remembered_in_a_folder_that_others_can_write_to(host: Host) -> None:
    host.state.mkdir()
    host.state.chmod(0o777)
    victim = host.top / "victim"
    victim.write_bytes(b"as it was")
    (host.state / ".policy.toml.new").symlink_to(victim)
    host.place(host.people.policy(1))

    assert "is writable by others" in str(host.refusal())
    assert victim.read_bytes() == b"as it was"


def test_a_policy_that_cannot_be_remembered_is_not_used(host: Host) -> None:
    host.state.write_bytes(b"in the way")
    host.place(host.people.policy(1))

    assert "Not a directory" in str(host.refusal())


def test_a_policy_is_not_used_when_writing_it_fails(
    settled: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = settled.people
    settled.place(people.policy(2), people.ada, people.bob, people.customer)

    def full(file: Path, content: bytes) -> None:
        file.with_name(f".{file.name}.new").write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rotation, "write_file", full)
    error = settled.refusal()
    assert "a policy that cannot be remembered is not used: No space left on device" in str(error)

    monkeypatch.undo()
    assert settled.load().serial == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_while_remembering_loses_nothing(
    settled: Host, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    people = settled.people
    old, new = settled.memory.read_bytes(), people.policy(2)
    settled.place(new, people.ada, people.bob, people.customer)

    def cut_short(file: Path, content: bytes) -> None:
        if moment == "after":
            write_file(file, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(rotation, "write_file", cut_short)
    with pytest.raises(KeyboardInterrupt):
        settled.load()
    assert settled.memory.read_bytes() == (new if moment == "after" else old)

    monkeypatch.undo()
    assert settled.load().serial == 2
    assert settled.memory.read_bytes() == new


@pytest.mark.parametrize(
    "remembered, outcome", [(2, "2"), (3, "has serial 2, and serial 3 was accepted already")]
)
def test_one_process_at_a_time_decides(settled: Host, remembered: int, outcome: str) -> None:
    """While another one decides, it waits; then it goes by what that one has remembered."""
    people = settled.people
    settled.place(people.policy(2), people.ada, people.bob, people.customer)
    outcomes: list[str] = []

    def decide() -> None:
        try:
            outcomes.append(str(settled.load().serial))
        except ConfigurationError as error:
            outcomes.append(str(error))

    with (settled.state / "policy.lock").open("ab") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        waiting = threading.Thread(target=decide)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        write_file(settled.memory, people.policy(remembered))
    waiting.join(60)

    (found,) = outcomes
    assert outcome in found
    assert settled.memory.read_bytes() == people.policy(remembered)


# Other users than root


def test_others_go_by_what_root_has_accepted(settled: Host) -> None:
    assert settled.load(remember=False).serial == 1


def test_others_are_not_the_first_to_accept_a_policy(host: Host) -> None:
    host.place(host.people.policy(1))

    assert "run `countersign-install check` as root" in str(host.refusal(remember=False))
    assert not host.state.exists()


def test_others_read_by_a_policy_that_root_would_accept_and_remember_nothing(
    settled: Host,
) -> None:
    people = settled.people
    settled.place(people.policy(2))
    assert "is not accepted" in str(settled.refusal(remember=False))

    settled.place(people.policy(2), people.ada, people.bob, people.customer)
    assert settled.load(remember=False).serial == 2
    assert settled.memory.read_bytes() == people.policy(1)


def test_a_memory_that_is_hidden_is_not_taken_for_none(
    settled: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", hidden)

    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied; run the"):
        settled.load(remember=False)


# Every command


def test_every_command_starts_from_the_accepted_policy(
    settled: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settled.file.parent
    (folder / "host.toml").write_text(
        'environment = "QAT"\n[application.crm]\nroot = "/opt/crm"\n', encoding="utf-8"
    )
    trusted = partial(read_trusted, owner=os.getuid(), top=settled.top)
    monkeypatch.setattr(machine, "CONFIGURATION", folder)
    monkeypatch.setattr(machine, "STATE", settled.state)
    monkeypatch.setattr(machine, "read_trusted", trusted)
    monkeypatch.setattr(machine, "load_policy", partial(load_policy, read=trusted))
    assert machine.load_machine().policy.serial == 1

    settled.place(settled.people.policy(2), settled.people.ada)
    with pytest.raises(NotAcceptedError, match="a policy that follows serial 1 requires"):
        machine.load_machine()
    assert settled.memory.read_bytes() == settled.people.policy(1)
