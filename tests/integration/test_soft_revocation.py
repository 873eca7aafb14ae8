"""What a revoked key signed, and which policy forgives it; gpg revokes, gpgv says so.

Ada's key signs a release, an approval, the next policy and a script, each before and after the time
at which it is revoked. Hosts then hold the key in several states.
"""

import calendar
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from installer import signatures
from installer.approval import Approval, require_approved, write_approval
from installer.authors import require_authors
from installer.bundle import ContentReader, Head, Section
from installer.dossier import read_dossiers
from installer.errors import ApprovalError, InstallerError, SignatureError
from installer.manifest import Author, Database, Manifest, Script, Source, parse_manifest
from installer.openpgp import Signature, open_envelope
from installer.policy import Policy, parse_policy
from installer.rotation import Candidate, judge
from installer.signatures import RevokedKeyError, verify_for, verify_release, verify_signature
from installer.tree import digest_of
from packager.errors import SigningError
from packager.manifest_writer import UNSIGNED, compress, describe_content, write_manifest
from packager.signing import recognise
from tests.corpus import (
    AFTERWARDS,
    KEY_REVOKED,
    LATER,
    LONG_AGO,
    REASONS,
    RECENTLY,
    revoke,
    revoke_subkey,
)
from tests.developers import identity
from tests.keys import Keyring

pytestmark = pytest.mark.integration

BEFORE, REVOKED, AFTER = AFTERWARDS, LATER, RECENTLY
"""When Ada signed, when the key was revoked, and when it signed all the same."""


def moment(at: str) -> int:
    return calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%S"))


NOW = moment("20240101T000000")
DAY = 24 * 60 * 60
CONTENT = compress([])
MANIFEST = write_manifest(
    Manifest(
        digest=UNSIGNED,
        product="crm",
        version="1.0",
        sequence=1,
        summary="First",
        source=Source("git", "v1.0", "0" * 40, 1),
        application=None,
        database=Database("crm", (), (), ()),
        content=describe_content(CONTENT),
    )
)
APPROVAL = write_approval(
    Approval(
        digest=UNSIGNED,
        product="crm",
        version="1.0",
        sequence=1,
        manifest=digest_of(MANIFEST),
        receipt=None,
        environment="PRD",
        not_before=NOW - DAY,
        expires=NOW + DAY,
    )
)
SCRIPT = b"CREATE TABLE one ();\n"

ACTIVE = ""
RETIRED = 'status = "retired"\nnot_after = 2021-06-01T00:00:00Z'
RETIRED_TOO_EARLY = 'status = "retired"\nnot_after = 2020-06-01T00:00:00Z'
RETIRED_AFTERWARDS = 'status = "retired"\nnot_after = 2023-06-01T00:00:00Z'
RETIRED_AND_JOINED_LATE = f"{RETIRED}\nnot_before = 2021-05-01T00:00:00Z"
GONE = 'status = "revoked"'


STATES: dict[str, tuple[str, ...]] = {
    **{reason: (reason,) for reason in REASONS},
    "soft and hard": ("retired", "compromised"),
    "soft, and its subkey": ("retired",),
    "subkey": (),
    "not revoked": (),
}
"""Why Ada's key is revoked. Where a subkey is named, that is revoked as well: compromised."""


@dataclass(frozen=True, slots=True)
class World:
    """Ada's key and Bob's; `keyrings` are what hosts hold, by the state that Ada's key is in."""

    keys: Keyring
    ada: str
    subkey: str
    bob: str
    keyrings: dict[str, Path]

    def policy(self, ada_is: str, role: str = "developer", serial: int = 1) -> bytes:
        customer = "customer = 1\nmax_approval_days = 3650\n" if role == "customer" else ""
        return "\n".join(
            [
                f"serial = {serial}",
                identity("Ada", role, self.ada, more=ada_is),
                identity("Bob", "developer", self.bob),
                f"[require.PRD]\ndeveloper = 1\n{customer}signed_scripts = true",
                "[rotation]\ndeveloper = 1\n",
            ]
        ).encode()

    def parsed(self, ada_is: str, role: str = "developer") -> Policy:
        return parse_policy(self.policy(ada_is, role))

    def signed(self, data: bytes, when: str, key: str = "") -> bytes:
        return self.keys.sign(data, key or self.ada, created=when)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Keyring.create() as keys:
        ada = keys.new_key("Ada Developer <ada@example.org>", created=LONG_AGO)
        subkey = keys.add_subkey(ada, created=LONG_AGO)
        bob = keys.new_key("Bob Developer <bob@example.org>", created=LONG_AGO)
        made = World(keys, ada, subkey, bob, {})
        for state in STATES:
            path = keys.home / f"{state}.pgp"
            path.write_bytes(in_state(keys, ada, state) + keys.export([bob]))
            made.keyrings[state] = path
        yield made


def in_state(keys: Keyring, key: str, state: str) -> bytes:
    """The public key as its owner distributes it after the revocations; `keys` goes on signing."""
    with Keyring.create() as owner:
        owner.gpg("--import", data=keys.gpg("--export-secret-keys", key))
        if "subkey" in state:  # first: gpg lets nobody edit a revoked key
            revoke_subkey(owner, key, REASONS["compromised"], created=REVOKED)
        for reason in STATES[state]:
            revoke(owner, key, REASONS[reason], created=REVOKED)
        return owner.export([key])


# Where signatures count


Use = Callable[[World, Path, str, str, Path], list[str]]
"""Who counts, by a host's keyring, what the policy says of Ada, and when Ada signed."""


def release(world: World, keyring: Path, ada_is: str, when: str, _: Path) -> list[str]:
    head = Head(MANIFEST, {world.ada: world.signed(MANIFEST, when)})
    found = verify_release(head, world.parsed(ada_is), "PRD", keyring, NOW)
    return [signer.name for signer in found.signers]


def approval(world: World, keyring: Path, ada_is: str, when: str, folder: Path) -> list[str]:
    dossier = folder / "approvals" / "crm"
    dossier.mkdir(parents=True)
    (dossier / "approval.json").write_bytes(APPROVAL)
    (dossier / "approval.json.asc").write_bytes(world.signed(APPROVAL, when))
    manifest, policy = parse_manifest(MANIFEST), world.parsed(ada_is, "customer")
    dossiers = read_dossiers(dossier.parent, manifest, policy, keyring, NOW, top=folder)
    found = require_approved(manifest, policy, "PRD", dossiers, NOW)
    return [signer.name for signer in found.customers]


def rotation(world: World, keyring: Path, ada_is: str, when: str, folder: Path) -> list[str]:
    accepted, following = world.policy(ada_is), world.policy(ACTIVE, serial=2)
    beside = {"policy.toml.asc": world.signed(following, when)}
    candidate = Candidate(folder / "policy.toml", following, beside)
    return [signer.name for signer in judge(accepted, candidate, keyring, NOW).signers]


def script(world: World, keyring: Path, ada_is: str, when: str, _: Path) -> list[str]:
    author = Author(world.ada, world.signed(SCRIPT, when).decode())
    scripts = (Script("sql/1.sql", digest_of(SCRIPT), len(SCRIPT), (0,), author=author),)
    compressed = compress([SCRIPT])
    content = ContentReader(Section(io.BytesIO(compressed), 0, len(compressed)), scripts)
    require_authors(world.parsed(ada_is), scripts, content, keyring, NOW)
    return ["Ada"]


@pytest.fixture(params=[release, approval, rotation, script], ids=lambda use: str(use.__name__))
def use(request: pytest.FixtureRequest) -> Use:
    found: Use = request.param
    return found


def refusal(use: Use, *arguments: object) -> str:
    with pytest.raises(InstallerError) as refused:
        use(*arguments)  # type: ignore[arg-type]  # as the caller gives them
    return f"{refused.value}\n{refused.value.detail}"


@pytest.mark.parametrize("state", ["superseded", "retired"])
def test_what_a_softly_revoked_key_signed_before_counts_where_the_policy_retires(
    world: World, tmp_path: Path, use: Use, state: str
) -> None:
    assert use(world, world.keyrings[state], RETIRED, BEFORE, tmp_path) == ["Ada"]


def test_a_key_that_is_not_revoked_counts_as_before(world: World, tmp_path: Path, use: Use) -> None:
    assert use(world, world.keyrings["not revoked"], ACTIVE, BEFORE, tmp_path) == ["Ada"]


def test_what_a_softly_revoked_key_signed_afterwards_is_refused(
    world: World, tmp_path: Path, use: Use
) -> None:
    keyring = world.keyrings["retired"]

    assert KEY_REVOKED in refusal(use, world, keyring, RETIRED_AFTERWARDS, AFTER, tmp_path)


def test_a_softly_revoked_key_of_somebody_active_is_refused_with_what_the_policy_could_say(
    world: World, tmp_path: Path, use: Use
) -> None:
    told = refusal(use, world, world.keyrings["retired"], ACTIVE, BEFORE, tmp_path)

    assert f"{KEY_REVOKED} (softly: superseded or retired)" in told
    assert 'only if the policy says status = "retired" of whom it belongs to' in told


@pytest.mark.parametrize("state", ["none", "compromised", "soft and hard", "soft, and its subkey"])
def test_a_key_that_is_revoked_in_a_hard_way_is_refused_whatever_the_policy_says(
    world: World, tmp_path: Path, use: Use, state: str
) -> None:
    told = refusal(use, world, world.keyrings[state], RETIRED, BEFORE, tmp_path)

    assert KEY_REVOKED in told
    assert "softly" not in told


@pytest.mark.parametrize(
    "ada_is", [RETIRED_TOO_EARLY, RETIRED_AND_JOINED_LATE, GONE], ids=["late", "early", "revoked"]
)
def test_a_softly_revoked_key_is_not_forgiven_outside_of_its_owners_time(
    world: World, tmp_path: Path, use: Use, ada_is: str
) -> None:
    told = refusal(use, world, world.keyrings["retired"], ada_is, BEFORE, tmp_path)

    assert KEY_REVOKED in told


def test_an_approval_by_a_revoked_key_is_read_as_a_problem(world: World, tmp_path: Path) -> None:
    keyring, policy = world.keyrings["retired"], world.parsed(ACTIVE, "customer")
    with pytest.raises(ApprovalError):
        approval(world, keyring, ACTIVE, BEFORE, tmp_path)
    folder, manifest = tmp_path / "approvals", parse_manifest(MANIFEST)

    (found,) = read_dossiers(folder, manifest, policy, keyring, NOW, top=tmp_path)

    assert KEY_REVOKED in found.problem
    assert not found.approvers


def test_one_softly_revoked_key_refuses_a_release_that_enough_others_signed(world: World) -> None:
    signed = {
        world.ada: world.signed(MANIFEST, BEFORE),
        world.bob: world.signed(MANIFEST, BEFORE, world.bob),
    }
    head, keyring = Head(MANIFEST, signed), world.keyrings["retired"]

    with pytest.raises(SignatureError, match=f"signatures/{world.ada}.asc: {KEY_REVOKED}"):
        verify_release(head, world.parsed(ACTIVE), "PRD", keyring, NOW)
    found = verify_release(head, world.parsed(RETIRED), "PRD", keyring, NOW)
    assert [signer.name for signer in found.signers] == ["Ada", "Bob"]


# One signature


def verdict(world: World, state: str, signature: bytes, now: int = NOW) -> SignatureError:
    """What a host says that holds the key in this state."""
    with pytest.raises(SignatureError) as refused:
        verify_signature(signature, SCRIPT, world.keyrings[state], now)
    assert KEY_REVOKED in str(refused.value) or not isinstance(refused.value, RevokedKeyError)
    return refused.value


def test_a_soft_refusal_has_the_signature_that_it_would_be(world: World) -> None:
    for key in (world.ada, world.subkey):
        error = verdict(world, "retired", world.signed(SCRIPT, BEFORE, key))
        assert isinstance(error, RevokedKeyError)
        assert error.signature == Signature(world.ada, key, moment(BEFORE))


def test_a_subkey_of_a_softly_revoked_key_counts_where_the_policy_retires(world: World) -> None:
    signature, keyring = world.signed(SCRIPT, BEFORE, world.subkey), world.keyrings["superseded"]

    found = verify_for(world.parsed(RETIRED), signature, SCRIPT, keyring, NOW)

    assert (found.primary, found.signing) == (world.ada, world.subkey)


@pytest.mark.parametrize("state", ["subkey", "soft, and its subkey"])
def test_a_revoked_subkey_is_refused_always(world: World, state: str) -> None:
    error = verdict(world, state, world.signed(SCRIPT, BEFORE, world.subkey))

    assert str(error) == KEY_REVOKED


def test_a_signature_of_the_second_of_the_revocation_is_not_from_before(world: World) -> None:
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment(REVOKED) - 1))

    assert isinstance(verdict(world, "retired", world.signed(SCRIPT, second)), RevokedKeyError)
    assert str(verdict(world, "retired", world.signed(SCRIPT, REVOKED))) == KEY_REVOKED


def test_what_was_changed_is_not_forgiven(world: World) -> None:
    signature = world.signed(SCRIPT + b" ", BEFORE)

    assert "does not match" in str(verdict(world, "retired", signature))


def test_a_signature_out_of_its_own_time_is_not_forgiven(world: World) -> None:
    signature = world.keys.sign(SCRIPT, world.ada, "--default-sig-expire", "50y", created=BEFORE)
    created, expires = moment(BEFORE), open_envelope(signature).expires
    assert expires is not None

    assert isinstance(verdict(world, "retired", signature, created - 300), RevokedKeyError)
    assert "in the future" in str(verdict(world, "retired", signature, created - 301))
    assert "has expired" in str(verdict(world, "retired", signature, expires))


def test_a_policy_that_does_not_name_the_key_forgives_nothing(world: World) -> None:
    signature, keyring = world.signed(SCRIPT, BEFORE), world.keyrings["retired"]
    policy = world.parsed(RETIRED)
    stranger = replace(policy, identities=policy.identities[1:])

    with pytest.raises(RevokedKeyError):
        verify_for(stranger, signature, SCRIPT, keyring, NOW)


def test_a_keyring_that_is_gone_shows_no_soft_revocation(world: World, tmp_path: Path) -> None:
    signature = Signature(world.ada, world.ada, moment(BEFORE))

    with pytest.raises(SignatureError) as refused:
        signatures._require_soft(signature, tmp_path / "none.pgp")
    assert str(refused.value) == KEY_REVOKED


def test_the_build_goes_on_refusing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = world.signed(SCRIPT, BEFORE)
    with Keyring.create() as builder:
        builder.gpg("--import", data=world.keyrings["retired"].read_bytes())
        monkeypatch.setenv("GNUPGHOME", str(builder.home))

        with pytest.raises(SigningError, match=KEY_REVOKED):
            recognise(signature, SCRIPT, NOW, "1.sql.asc", "1.sql")


ANSWER = (
    "[GNUPG:] NEWSIG\n"
    "[GNUPG:] KEY_CONSIDERED {key} 0\n"
    "[GNUPG:] REVKEYSIG {short} Ada\n"
    "[GNUPG:] VALIDSIG {key} 2021-01-01 {created} 0 4 0 22 10 00 {key}\n"
)


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda s: s, 1),
        (lambda s: s, -9),
        (lambda s: s * 2, 0),
        (lambda s: s + "[GNUPG:] GOODSIG x y\n", 0),
        (lambda s: s + "[GNUPG:] EXPKEYSIG x y\n", 0),
        (lambda s: s + "[GNUPG:] EXPSIG x y\n", 0),
        (lambda s: s + "[GNUPG:] BADSIG x y\n", 0),
        (lambda s: s + "[GNUPG:] SOMETHING_NEW\n", 0),
        (lambda s: s.replace("[GNUPG:] NEWSIG\n", ""), 0),
        (lambda s: s.replace("VALIDSIG", "VALID"), 0),
        (lambda s: s.replace(" 22 10 00 ", " 22 2 00 "), 0),
        (lambda s: s.replace(" 22 10 00 ", " 22 10 01 "), 0),
        (lambda s: s.replace("VALIDSIG ", "VALIDSIG 0"), 0),
        (lambda s: s[:-2] + "\n", 0),
        (lambda s: s[:-1], 0),
    ],
)
def test_an_answer_with_anything_out_of_place_is_no_soft_refusal(
    world: World, change: Callable[[str], str], code: int
) -> None:
    envelope = open_envelope(world.signed(SCRIPT, BEFORE))
    status = ANSWER.format(key=world.ada, short=world.ada[-16:], created=envelope.created)
    with pytest.raises(RevokedKeyError):
        signatures._conclude(0, status.encode(), envelope)

    with pytest.raises(SignatureError) as refused:
        signatures._conclude(code, change(status).encode(), envelope)
    assert not isinstance(refused.value, RevokedKeyError)
