"""`countersign policy` run for real: each command right and wrong, and what is left of the file."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from installer.policy import Policy, parse_policy
from packager.policy_writer import render
from tests.keys import Keyring

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NOBODY = "0123456789ABCDEF0123456789ABCDEF01234567"


@dataclass(frozen=True)
class Keys:
    ring: Keyring
    ada: str
    bob: str
    grace: str
    customer: str
    machine: str


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with Keyring.create() as ring:
        names = ("Ada", "Bob", "Grace", "Customer", "qat-1")
        yield Keys(ring, *(ring.new_key(f"{name} <{name.lower()}@example.org>") for name in names))


class Desk:
    """A folder with a policy, and the shell of whoever keeps it."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.folder = folder
        self.keys = keys
        self.file = folder / "policy.toml"

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run `countersign policy`; it has to end with `code`. Returns all that it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "packager", "policy", *arguments],
            cwd=self.folder,
            env=os.environ | {"GNUPGHOME": str(self.keys.ring.home), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def refused(self, *arguments: str, code: int = 10) -> str:
        """Run a command that is refused, and leaves every file as it was."""
        before = self.files()
        said = self.run(*arguments, code=code)
        assert self.files() == before
        return said

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def init(self) -> None:
        keys = self.keys
        self.run(
            "init",
            *("--developer", f"Ada={keys.ada}", "--developer", f"Bob={keys.bob}"),
            *("--customer", f"Customer={keys.customer}"),
            *("--host", f"qat-1={keys.machine}@QAT"),
        )

    def policy(self) -> Policy:
        return parse_policy(self.file.read_bytes())

    def keep(self, name: str) -> Path:
        """What a host has accepted: the file as it is now."""
        kept = self.folder / name
        kept.write_bytes(self.file.read_bytes())
        return kept


@pytest.fixture
def desk(tmp_path: Path, keys: Keys) -> Desk:
    """A desk without a policy."""
    return Desk(tmp_path, keys)


@pytest.fixture
def begun(desk: Desk) -> Desk:
    """A desk with the first policy of two developers, a customer and a host."""
    desk.init()
    return desk


# init


def test_the_first_policy_has_defaults_that_production_can_live_with(desk: Desk) -> None:
    desk.init()

    keys = desk.keys
    assert desk.file.read_text() == (
        "# Whose signatures count; countersign-policy.toml(5) describes each key. Written by\n"
        "# `countersign policy`, which keeps no comments.\n"
        "\n"
        "serial = 1\n"
        "\n"
        "[[identity]]\n"
        'name = "Ada"\n'
        'role = "developer"\n'
        f'fingerprints = ["{keys.ada}"]\n'
        "\n"
        "[[identity]]\n"
        'name = "Bob"\n'
        'role = "developer"\n'
        f'fingerprints = ["{keys.bob}"]\n'
        "\n"
        "[[identity]]\n"
        'name = "Customer"\n'
        'role = "customer"\n'
        f'fingerprints = ["{keys.customer}"]\n'
        "\n"
        "[[identity]]\n"
        'name = "qat-1"\n'
        'role = "host"\n'
        'environment = "QAT"\n'
        f'fingerprints = ["{keys.machine}"]\n'
        "\n"
        "[require.QAT]\n"
        "developer = 1\n"
        "\n"
        "[require.PRD]\n"
        "developer = 2\n"
        "customer = 1\n"
        "receipt = true\n"
        "max_approval_days = 30\n"
        "\n"
        "[rotation]\n"
        "developer = 2\n"
        "customer = 1\n"
    )
    assert desk.file.stat().st_mode & 0o777 == 0o644


def test_a_first_policy_of_one_developer_asks_for_nothing_that_nobody_can_give(desk: Desk) -> None:
    desk.run("init", "crm.toml", "--developer", f"Ada={desk.keys.ada}")

    document = tomllib.loads((desk.folder / "crm.toml").read_text())
    assert document["require"] == {"QAT": {"developer": 1}, "PRD": {"developer": 1}}
    assert document["rotation"] == {"developer": 1}


def test_without_a_host_a_first_policy_asks_for_no_receipt(desk: Desk) -> None:
    keys = desk.keys
    desk.run("init", "--developer", f"Ada={keys.ada}", "--customer", f"Customer={keys.customer}")

    assert desk.policy().requirement("PRD").receipt_from is None
    assert desk.policy().requirement("PRD").customers == 1


def test_fingerprints_are_taken_as_people_copy_them(desk: Desk) -> None:
    spaced = " ".join(NOBODY[at : at + 4] for at in range(0, 40, 4)).lower()
    desk.run("init", "--developer", f"Müller = Ada={spaced}")

    (ada,) = desk.policy().identities
    assert (ada.name, ada.fingerprints) == ("Müller = Ada", (NOBODY,))
    assert 'name = "Müller = Ada"' in desk.file.read_text()


def test_a_policy_that_is_there_is_never_overwritten(begun: Desk) -> None:
    said = begun.refused("init", "--developer", f"Ada={NOBODY}", code=55)

    assert "policy.toml is there already, and is not overwritten" in said


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("--developer", "Ada"), "'Ada' names nobody; write NAME=FINGERPRINT"),
        (("--developer", f"={NOBODY}"), "names nobody"),
        (("--developer", "Ada=01234567"), "'01234567' is not a fingerprint of 40 hexadecimal"),
        (("--developer", f"Ada=0x{NOBODY}"), "`gpg --list-keys` shows it"),
        (("--developer", f"Ada={NOBODY}", "--host", f"qat-1={NOBODY}"), "NAME=FINGERPRINT@ENV"),
        (("--developer", f"Ada={NOBODY}", "--host", f"qat-1={NOBODY}@"), "is no host"),
        (
            ("--developer", f"Ada={NOBODY}", "--developer", f"Bob={NOBODY}"),
            f"the fingerprint {NOBODY} is given to two identities",
        ),
        (("--developer", f"A\nda={NOBODY}"), "hosts would refuse this"),
    ],
)
def test_a_first_policy_that_hosts_would_refuse_is_not_written(
    desk: Desk, arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in desk.refused("init", *arguments)
    assert desk.files() == {}


def test_a_first_policy_needs_a_developer(desk: Desk) -> None:
    said = desk.refused("init", "--customer", f"Customer={NOBODY}", code=2)

    assert "Missing option '--developer'" in said


def test_a_policy_that_cannot_be_written_leaves_nothing_behind(desk: Desk) -> None:
    said = desk.refused("init", "gone/policy.toml", "--developer", f"Ada={NOBODY}", code=55)

    assert "gone/policy.toml cannot be written: No such file or directory" in said


# add


def test_someone_joins(begun: Desk) -> None:
    said = begun.run(
        "add",
        "policy.toml",
        *("--name", "Grace", "--role", "developer", "--fingerprint", begun.keys.grace),
        *("--not-before", "2026-01-31T00:00:00+01:00"),
    )

    found = begun.policy()
    grace = found.identities[-1]
    assert found.serial == 2
    assert (grace.name, grace.role, grace.fingerprints) == (
        "Grace",
        "developer",
        (begun.keys.grace,),
    )
    assert "not_before = 2026-01-31T00:00:00+01:00\n" in begun.file.read_text()
    assert "wrote policy.toml, serial 2" in said
    assert "A host with serial 1 takes it signed by 2 of role developer and 1 of role" in said
    assert "gpg --armor --detach-sign policy.toml" in said


def test_someone_has_a_second_key(begun: Desk) -> None:
    begun.run("add", "policy.toml", "--name", "Ada", "--role", "developer", "--fingerprint", NOBODY)

    found = begun.policy()
    assert found.serial == 2
    assert found.identities[0].fingerprints == (begun.keys.ada, NOBODY)
    assert len(found.identities) == 4
    assert f'fingerprints = [\n    "{begun.keys.ada}",\n    "{NOBODY}",\n]\n' in (
        begun.file.read_text()
    )


def test_a_host_joins(begun: Desk) -> None:
    new = ("--name", "qat-2", "--role", "host", "--environment", "QAT", "--fingerprint", NOBODY)
    begun.run("add", "policy.toml", *new)

    assert begun.policy().identities[-1].environment == "QAT"


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("Ada", "customer", NOBODY), "Ada is there already, as developer"),
        (("qat-1", "host", NOBODY, "--environment", "PRD"), "there already, as host in QAT"),
        (("Ada", "developer", NOBODY, "--not-before", "2026-01-01T00:00:00Z"), "out"),
        (("Ada", "developer", "0123"), "not a fingerprint of 40"),
        (("Grace", "host", NOBODY), "environment is what an identity of role 'host' has"),
        (("Grace", "developer", NOBODY, "--environment", "QAT"), "and no other"),
        (("Grace", "Developer", NOBODY), "role is 'Developer'"),
        (("Grace", "developer", NOBODY, "--not-before", "soon"), "'soon' is no time; write 2026-"),
        (("Grace", "developer", NOBODY, "--not-before", "2026-01-01"), "has no offset from UTC"),
    ],
)
def test_nobody_joins_whom_hosts_would_not_take(
    begun: Desk, arguments: tuple[str, ...], reason: str
) -> None:
    name, role, key, *more = arguments
    given = ("--name", name, "--role", role, "--fingerprint", key, *more)

    assert reason in begun.refused("add", "policy.toml", *given)


def test_a_key_is_not_given_twice(begun: Desk) -> None:
    ada = begun.keys.ada
    same = ("--name", "Ada", "--role", "developer", "--fingerprint", ada)
    other = ("--name", "Grace", "--role", "developer", "--fingerprint", ada)

    assert f"{ada} is a key of Ada already" in begun.refused("add", "policy.toml", *same)
    assert "is given to two identities" in begun.refused("add", "policy.toml", *other)


def test_a_key_is_not_given_to_someone_who_has_left(begun: Desk) -> None:
    begun.run("add", "policy.toml", "--name", "G", "--role", "developer", "--fingerprint", NOBODY)
    begun.run("revoke", "policy.toml", "Ada")
    key = begun.keys.grace

    said = begun.refused(
        "add", "policy.toml", "--name", "Ada", "--role", "developer", "--fingerprint", key
    )

    assert "Ada is revoked already" in said


# retire and revoke


def with_grace(desk: Desk) -> None:
    grace = ("--name", "Grace", "--role", "developer", "--fingerprint", desk.keys.grace)
    desk.run("add", "policy.toml", *grace)


def test_someone_leaves_and_what_was_signed_until_then_counts(begun: Desk) -> None:
    with_grace(begun)
    before = datetime.now(UTC).replace(microsecond=0)
    begun.run("retire", "policy.toml", "Ada")

    ada = begun.policy().identities[0]
    assert begun.policy().serial == 3
    assert ada.status == "retired"
    assert ada.not_after is not None
    assert 0 <= ada.not_after - before.timestamp() < 60
    written = tomllib.loads(begun.file.read_text())["identity"][0]["not_after"]
    assert written.utcoffset() == timedelta(0)
    assert f"not_after = {written:%Y-%m-%dT%H:%M:%SZ}\n" in begun.file.read_text()


def test_someone_left_a_while_ago(begun: Desk) -> None:
    with_grace(begun)
    begun.run("retire", "policy.toml", "Ada", "--not-after", "2026-01-31T12:00:00Z")

    assert "not_after = 2026-01-31T12:00:00Z\n" in begun.file.read_text()


def test_whoever_retires_is_not_given_more_time_than_there_was(begun: Desk) -> None:
    text = begun.file.read_text()
    bound = text.replace(
        '"]\n\n[[identity]]\nname = "Bob"',
        '"]\nnot_after = 2026-01-01T00:00:00Z\n\n[[identity]]\nname = "Bob"',
    )
    begun.file.write_text(bound)
    with_grace(begun)
    begun.run("retire", "policy.toml", "Ada")

    assert "not_after = 2026-01-01T00:00:00Z\n" in begun.file.read_text()


def test_nothing_counts_that_a_thief_may_have_signed(begun: Desk) -> None:
    with_grace(begun)
    begun.run("revoke", "policy.toml", "Ada")

    assert begun.policy().serial == 3
    assert begun.policy().identities[0].status == "revoked"


def test_whoever_has_retired_can_still_be_revoked_and_not_the_reverse(begun: Desk) -> None:
    with_grace(begun)
    begun.run("retire", "policy.toml", "Ada")
    assert "Ada is retired already" in begun.refused("retire", "policy.toml", "Ada")

    begun.run("revoke", "policy.toml", "Ada")
    assert begun.policy().identities[0].status == "revoked"
    assert "Ada is revoked already" in begun.refused("retire", "policy.toml", "Ada")
    assert "Ada is revoked already" in begun.refused("revoke", "policy.toml", "Ada")


@pytest.mark.parametrize("command", ["retire", "revoke"])
def test_nobody_leaves_whom_the_next_policy_needs(begun: Desk, command: str) -> None:
    said = begun.refused(command, "policy.toml", "Ada")

    assert "[rotation]: developer = 2, but only 1 of that role are active" in said
    assert "add others first" in said


@pytest.mark.parametrize("command", ["retire", "revoke"])
def test_nobody_leaves_whom_the_policy_does_not_name(begun: Desk, command: str) -> None:
    said = begun.refused(command, "policy.toml", "Mallory")

    assert "the policy names no 'Mallory'; it names Ada, Bob, Customer, qat-1" in said


def test_nobody_leaves_before_they_came(begun: Desk) -> None:
    grace = ("--name", "Grace", "--role", "developer", "--fingerprint", begun.keys.grace)
    begun.run("add", "policy.toml", *grace, "--not-before", "2026-06-01T00:00:00Z")

    said = begun.refused("retire", "policy.toml", "Grace", "--not-after", "2026-01-01T00:00:00Z")

    assert "not_before is later than not_after" in said


# The file


def test_a_hand_written_policy_means_the_same_afterwards(desk: Desk) -> None:
    keys = desk.keys
    before = f"""
rotation.developer = 1  # as short as can be
serial = 41
chain = ["LAB", "QAT", "PRD"]
require.QAT = {{ developer = 1, receipt = true, schema = ["structure"], signed_scripts = true }}
[[identity]]
fingerprints = ["{keys.ada}"]
role = "developer"
name = "Ada \\"the \\\\ first\\" Ä"
not_after = 2030-01-31T00:00:00.5+01:00
[[identity]]
name = "lab"
role = "host"
environment = "LAB"
fingerprints = ["{keys.machine}"]
"""
    desk.file.write_text(before)
    with_grace(desk)

    document, was = tomllib.loads(desk.file.read_text()), tomllib.loads(before)
    added = document["identity"].pop()
    assert added == {"name": "Grace", "role": "developer", "fingerprints": [keys.grace]}
    assert document == was | {"serial": 42}
    assert desk.file.read_text().split("\n\n")[1] == 'serial = 42\nchain = ["LAB", "QAT", "PRD"]'


def test_a_policy_is_written_as_it_was_written_before(begun: Desk) -> None:
    content = begun.file.read_bytes()

    assert render(tomllib.loads(content.decode())) == content


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"serial", "policy.toml is no policy that hosts take: policy.toml: not TOML"),
        (b"serial = 1\n", "policy.toml is no policy that hosts take: policy.toml: identity"),
    ],
)
@pytest.mark.parametrize("command", ["add", "retire", "revoke", "show", "sign"])
def test_what_is_no_policy_is_neither_changed_nor_shown_nor_signed(
    desk: Desk, command: str, content: bytes, reason: str
) -> None:
    desk.file.write_bytes(content)
    more = {
        "add": ("--name", "Grace", "--role", "developer", "--fingerprint", NOBODY),
        "retire": ("Ada",),
        "revoke": ("Ada",),
    }

    assert reason in desk.refused(command, "policy.toml", *more.get(command, ()))


def test_a_policy_that_is_not_there_is_not_changed(desk: Desk) -> None:
    assert "policy.toml: No such file" in desk.refused("revoke", "policy.toml", "Ada")


def test_a_change_keeps_the_files_mode_and_follows_a_link(begun: Desk) -> None:
    real = begun.folder / "real.toml"
    begun.file.rename(real)
    real.chmod(0o600)
    begun.file.symlink_to(real)
    with_grace(begun)

    assert begun.file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert begun.policy().serial == 2


# show


def test_a_policy_is_told_in_words(begun: Desk) -> None:
    with_grace(begun)
    begun.run("retire", "policy.toml", "Bob", "--not-after", "2026-01-31T12:00:00Z")

    keys = begun.keys
    assert begun.run("show", "policy.toml") == (
        "policy.toml: serial 3\n"
        "Who signs\n"
        "  Ada, developer: active\n"
        f"    {keys.ada}\n"
        "  Bob, developer: retired, what was signed until 2026-01-31 12:00:00 UTC counts\n"
        f"    {keys.bob}\n"
        "  Customer, customer: active\n"
        f"    {keys.customer}\n"
        "  qat-1, host in QAT: active\n"
        f"    {keys.machine}\n"
        "  Grace, developer: active\n"
        f"    {keys.grace}\n"
        "QAT requires\n"
        "  the release signed by 1 of role developer\n"
        "PRD requires\n"
        "  the release signed by 2 of role developer\n"
        "  an approval by 1 of role customer, good for 30 days at most\n"
        "  the receipt of a successful install in QAT\n"
        "  the same schema as there, before and after: structure, privileges, owners, comments\n"
        "The next policy requires\n"
        "  the signatures of 2 of role developer and 1 of role customer\n"
    )


def test_a_policy_is_told_to_programs(begun: Desk) -> None:
    with_grace(begun)
    begun.run("revoke", "policy.toml", "Bob")
    begun.file.write_text(
        begun.file.read_text() + "\n[require.DEV]\ndeveloper = 1\nsigned_scripts = true\n"
    )

    found = json.loads(begun.run("show", "policy.toml", "--json"))

    assert (found["serial"], found["chain"]) == (3, ["DEV", "QAT", "PRD"])
    assert found["identities"][1] == {
        "name": "Bob",
        "role": "developer",
        "environment": None,
        "fingerprints": [begun.keys.bob],
        "status": "revoked",
        "not_before": None,
        "not_after": None,
    }
    assert found["require"]["PRD"] == {
        "signers": {"developer": 2},
        "customers": 1,
        "receipt_from": "QAT",
        "max_approval_days": 30,
        "signed_scripts": False,
        "schema": ["structure", "privileges", "owners", "comments"],
        "online": False,
    }
    assert found["rotation"] == {"developer": 2, "customer": 1}
    said = begun.run("show", "policy.toml")
    assert "Bob, developer: revoked, nothing ever signed counts" in said
    assert "each script signed by its author" in said


# sign and check


def keyring(desk: Desk, *more: str) -> None:
    keys = desk.keys
    public = keys.ring.export([keys.ada, keys.bob, keys.customer, *more])
    (desk.folder / "keyring.pgp").write_bytes(public)


CHECK = ("check", "policy.toml", "--against", "old.toml", "--keyring", "keyring.pgp")


def test_a_policy_is_changed_signed_and_accepted(begun: Desk) -> None:
    keyring(begun)
    begun.keep("old.toml")
    with_grace(begun)
    keys = begun.keys
    assert "policy.toml is not accepted: a policy that follows serial 1" in begun.refused(*CHECK)

    said = begun.run("sign", "policy.toml", "--key", keys.ada)
    assert f"signed policy.toml, serial 2, as Ada <ada@example.org> {keys.ada}" in said
    assert f"wrote policy.toml.{keys.ada}.asc" in said
    assert "gpg --armor --detach-sign policy.toml" in said
    begun.run("sign", "policy.toml", "--key", "bob@example.org")
    assert "requires 1 of role customer, found none" in begun.refused(*CHECK)

    keys.ring.gpg("--armor", "--local-user", keys.customer, "--detach-sign", str(begun.file))
    assert (begun.folder / "policy.toml.asc").exists()
    assert begun.run(*CHECK) == (
        "a host with serial 1 takes serial 2, signed by\n"
        f"  Ada (developer) {keys.ada}\n"
        f"  Bob (developer) {keys.bob}\n"
        f"  Customer (customer) {keys.customer}\n"
    )


def test_the_policy_that_a_host_has_needs_no_signature(begun: Desk) -> None:
    keyring(begun)
    begun.keep("old.toml")

    assert begun.run(*CHECK) == "policy.toml is what the host has already, serial 1\n"


def test_a_signature_of_what_a_policy_said_before_is_in_the_way(begun: Desk) -> None:
    keyring(begun)
    begun.keep("old.toml")
    begun.run("sign", "policy.toml", "--key", begun.keys.ada)
    grace = ("--name", "Grace", "--role", "developer", "--fingerprint", begun.keys.grace)

    said = begun.run("add", "policy.toml", *grace)

    stale = f"policy.toml.{begun.keys.ada}.asc"
    assert f"Remove {stale}: it is a signature of what the file said before." in said
    refused = begun.refused(*CHECK)
    assert f"{stale}: the signature does not match" in refused
    assert "If it belongs to an earlier policy.toml, remove it" in refused

    begun.run("sign", "policy.toml", "--key", begun.keys.ada)  # or made anew
    assert "requires 2 of role developer, found 1 (Ada)" in begun.refused(*CHECK)


def test_a_policy_does_not_go_back(begun: Desk) -> None:
    keyring(begun)
    first = begun.keep("first.toml")
    with_grace(begun)
    begun.keep("old.toml")
    begun.file.write_bytes(first.read_bytes())

    said = begun.refused(*CHECK)

    assert "policy.toml has serial 1, and serial 2 was accepted already" in said


def test_an_armoured_keyring_is_refused(begun: Desk) -> None:
    begun.keep("old.toml")
    public = begun.keys.ring.export([begun.keys.ada], armour=True)
    (begun.folder / "keyring.pgp").write_bytes(public)

    assert "keyring.pgp is armoured" in begun.refused(*CHECK)


def test_nothing_is_signed_with_a_key_that_is_not_there(begun: Desk) -> None:
    said = begun.refused("sign", "policy.toml", "--key", "mallory@example.org", code=53)

    assert "no secret key in gpg's keyring can sign and is 'mallory@example.org'" in said


@pytest.mark.parametrize("command", ["init", "add", "retire", "revoke", "show", "sign", "check"])
def test_each_command_has_help_with_an_example(desk: Desk, command: str) -> None:
    assert f"Example:\n    countersign policy {command} " in desk.run(command, "--help")


def test_the_help_says_that_comments_are_lost(desk: Desk) -> None:
    assert "comments in a policy that was written by hand are lost" in " ".join(
        desk.run("--help").split()
    )
