import itertools
from collections.abc import Sequence

import pytest

from installer.errors import ConfigurationError, SignatureError
from installer.openpgp import Signature
from installer.policy import Policy, Signer, authorise, parse_policy

ADA, BOB, EVE, CUSTOMER = "A" * 40, "B" * 40, "E" * 40, "C" * 40
ADA_TOO, OLD, GONE = "A" * 39 + "1", "0" * 40, "9" * 40
TEXT = f"""
serial = 7

[[identity]]
name = "Ada"
role = "developer"
fingerprints = ["{ADA}", "{ADA_TOO}"]

[[identity]]
name = "Bob"
role = "developer"
fingerprints = ["{BOB}"]
status = "active"
not_before = 2026-01-01T00:00:00Z
not_after = 2026-12-31T23:59:59+00:00

[[identity]]
name = "Olga"
role = "developer"
fingerprints = ["{OLD}"]
status = "retired"
not_after = 2025-06-30T02:00:00+02:00

[[identity]]
name = "Mallory"
role = "developer"
fingerprints = ["{GONE}"]
status = "revoked"

[[identity]]
name = "The Customer"
role = "customer"
fingerprints = ["{CUSTOMER}"]

[require.QAT]
developer = 1

[require.PRD]
developer = 2
customer = 1
"""
START_2026, END_2026 = 1_767_225_600, 1_798_761_599
RETIREMENT = 1_751_241_600


def signed(primary: str, created: int = START_2026) -> Signature:
    return Signature(primary=primary, signing=primary, created=created)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(TEXT.encode())


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parse_policy(text.encode())
    return str(refused.value)


def identity(lines: str = "", name: str = "Ada", key: str = ADA, role: str = "developer") -> str:
    fields = f'name = "{name}"\nrole = "{role}"\nfingerprints = ["{key}"]\n'
    return f"[[identity]]\n{fields}{lines}\n"


def policy_with(identities: str, require: str = "[require.QAT]\ndeveloper = 1") -> str:
    return f"serial = 1\n{identities}{require}\n"


def names(signers: Sequence[Signer]) -> list[str]:
    return [signer.name for signer in signers]


# Thresholds


def test_one_developer_is_enough_for_qat(policy: Policy) -> None:
    assert authorise(policy, "QAT", [signed(ADA)]) == (Signer("Ada", "developer", ADA),)


def test_production_takes_two_developers_and_the_customer(policy: Policy) -> None:
    signatures = [signed(CUSTOMER), signed(BOB), signed(ADA)]
    for order in itertools.permutations(signatures):
        assert names(authorise(policy, "PRD", order)) == ["Ada", "Bob", "The Customer"]


@pytest.mark.parametrize(
    "keys, reason",
    [
        ([], "PRD requires 2 of role developer, found none, and 1 of role customer, found none"),
        ([ADA, CUSTOMER], "PRD requires 2 of role developer, found 1 (Ada)"),
        ([ADA, BOB], "PRD requires 1 of role customer, found none"),
        ([ADA, ADA, CUSTOMER], "found 1 (Ada)"),
        ([ADA, ADA_TOO, CUSTOMER], "found 1 (Ada)"),
    ],
)
def test_too_few_signatures_are_refused_and_counted(
    policy: Policy, keys: list[str], reason: str
) -> None:
    with pytest.raises(SignatureError) as refused:
        authorise(policy, "PRD", map(signed, keys))
    assert reason in str(refused.value)
    assert refused.value.exit_code == 20
    assert refused.value.detail == ""


def test_two_subkeys_of_one_key_count_once(policy: Policy) -> None:
    signatures = [Signature(ADA, "1" * 40, START_2026), Signature(ADA, "2" * 40, START_2026)]
    with pytest.raises(SignatureError, match=r"2 of role developer, found 1 \(Ada\)"):
        authorise(policy, "PRD", [*signatures, signed(CUSTOMER)])


def test_two_of_three_developers_are_enough(policy: Policy) -> None:
    signatures = [signed(ADA), signed(OLD, RETIREMENT), signed(CUSTOMER)]
    assert names(authorise(policy, "PRD", signatures)) == ["Ada", "Olga", "The Customer"]


def test_a_developer_does_not_stand_in_for_the_customer(policy: Policy) -> None:
    signatures = [signed(ADA), signed(BOB), signed(OLD, RETIREMENT)]
    with pytest.raises(SignatureError, match="1 of role customer, found none"):
        authorise(policy, "PRD", signatures)


def test_a_signer_whose_role_is_not_required_is_reported_too(policy: Policy) -> None:
    assert names(authorise(policy, "QAT", [signed(ADA), signed(CUSTOMER)])) == [
        "Ada",
        "The Customer",
    ]


def test_an_environment_that_requires_nothing_installs_nothing(policy: Policy) -> None:
    with pytest.raises(ConfigurationError, match=r"has no \[require.DEV\]"):
        authorise(policy, "DEV", [signed(ADA)])


# Signatures that do not count


@pytest.mark.parametrize(
    "signature, reason",
    [
        (signed(EVE), f"Not counted: {EVE}: a key of no one that the policy names"),
        (signed(GONE), f"Not counted: {GONE}: Mallory (developer) is revoked"),
        (
            signed(BOB, START_2026 - 1),
            (
                f"Not counted: {BOB}: Bob (developer) signed on 2025-12-31 23:59:59 UTC, "
                "before 2026-01-01 00:00:00 UTC"
            ),
        ),
        (
            signed(BOB, END_2026 + 1),
            (
                f"Not counted: {BOB}: Bob (developer) signed on 2027-01-01 00:00:00 UTC, "
                "after 2026-12-31 23:59:59 UTC"
            ),
        ),
        (
            signed(OLD, RETIREMENT + 1),
            (
                f"Not counted: {OLD}: Olga (developer) signed on 2025-06-30 00:00:01 UTC, "
                "after 2025-06-30 00:00:00 UTC"
            ),
        ),
    ],
)
def test_a_signature_that_does_not_count_is_explained(
    policy: Policy, signature: Signature, reason: str
) -> None:
    with pytest.raises(SignatureError) as refused:
        authorise(policy, "QAT", [signature])
    assert "QAT requires 1 of role developer, found none" in str(refused.value)
    assert refused.value.detail == reason


def test_keys_that_the_keyring_does_not_hold_are_named(policy: Policy) -> None:
    with pytest.raises(SignatureError) as refused:
        authorise(policy, "QAT", [signed(GONE)], [EVE])
    assert refused.value.detail.splitlines() == [
        f"Not counted: {GONE}: Mallory (developer) is revoked",
        f"Not counted: {EVE}: a key that this host's keyring does not hold",
    ]


@pytest.mark.parametrize(
    "signature", [signed(BOB, START_2026), signed(BOB, END_2026), signed(OLD, 1)]
)
def test_a_signature_made_in_its_signers_time_counts(policy: Policy, signature: Signature) -> None:
    assert len(authorise(policy, "QAT", [signature])) == 1


def test_signatures_that_do_not_count_do_no_harm(policy: Policy) -> None:
    signatures = [signed(GONE), signed(EVE), signed(ADA_TOO)]
    assert authorise(policy, "QAT", signatures, [OLD]) == (Signer("Ada", "developer", ADA_TOO),)


# The file


def test_a_policy_is_read_as_written(policy: Policy) -> None:
    assert policy.serial == 7
    assert [i.name for i in policy.identities][:2] == ["Ada", "Bob"]
    bob = policy.identities[1]
    assert (bob.not_before, bob.not_after) == (START_2026, END_2026)
    assert policy.identities[2].not_after == RETIREMENT
    assert policy.requirements == {"QAT": {"developer": 1}, "PRD": {"developer": 2, "customer": 1}}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("serial", "policy.toml: not TOML"),
        (policy_with(identity()).replace("serial = 1", ""), "policy.toml: serial is missing"),
        (policy_with(identity()).replace("serial = 1", "serial = 0"), "serial is 0, outside"),
        (policy_with(identity()).replace("serial = 1", "serial = '1'"), "a whole number"),
        (policy_with(identity()) + "[extra]", "unknown key 'extra'"),
        (policy_with(""), "identity is missing"),
        (policy_with("identity = 1\n"), "identity must be a list"),
        (policy_with("identity = [1]\n"), "[[identity]] number 1: must be a table"),
        (policy_with(identity("rolle = 'x'")), "unknown key 'rolle'; did you mean 'role'?"),
        (policy_with(identity(name="")), "name is ''"),
        (policy_with(identity(name="A\\u001b[2J")), "name is 'A\\x1b[2J'"),
        (policy_with(identity(role="Developer")), "role is 'Developer'"),
        (policy_with(identity("status = 'gone'")), "status is 'gone'"),
        (policy_with(identity("status = 'retired'")), "not_after is missing"),
        (policy_with(identity("not_after = 2026-01-01T00:00:00")), "write 2026-01-01T00:00:00Z"),
        (policy_with(identity("not_after = 2026-01-01")), "not_after must be a date and time"),
        (policy_with(identity("not_before = '2026-01-01T00:00:00Z'")), "must be a date and time"),
        (
            policy_with(
                identity("not_before = 2026-01-02T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z")
            ),
            "not_before is later than not_after",
        ),
        (policy_with(identity(key="")), "not a fingerprint of 40"),
        (policy_with(identity(key="A" * 16)), "a short key id can be forged"),
        (policy_with(identity(key="A" * 8)), "a short key id can be forged"),
        (policy_with(identity(key="a" * 40)), "not a fingerprint of 40"),
        (policy_with(identity(key=f"0x{ADA}")), "not a fingerprint of 40"),
        (policy_with(identity().replace(f'"{ADA}"', "")), "fingerprints is empty"),
        (policy_with(identity().replace(f'"{ADA}"', "1")), "fingerprints holds 1"),
        (policy_with(identity().replace(f'"{ADA}"', f'"{ADA}", "{ADA}"')), "something twice"),
        (policy_with(identity() + identity(key=BOB)), "the name Ada is given to two identities"),
        (
            policy_with(identity() + identity(name="Bob", role="customer")),
            f"the fingerprint {ADA} is given to two identities",
        ),
        (policy_with(identity(), ""), "no [require.ENVIRONMENT]"),
        (policy_with(identity(), "[require]"), "no [require.ENVIRONMENT]"),
        (policy_with(identity(), "[require.QAT]"), "[require.QAT]: requires no one"),
        (policy_with(identity(), "[require.'Q A']\ndeveloper = 1"), "an environment's name"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = 0"), "developer is 0, outside"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = true"), "must be a whole number"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = 2"), "but only 1 have that role"),
        (
            policy_with(identity(), "[require.QAT]\ndevelopers = 1"),
            "no identity has the role 'developers'; did you mean 'developer'?",
        ),
        (
            policy_with(identity(), "[require.QAT]\ndeveloper = 1\nreceipt = true"),
            "receipt is a condition that this version cannot honour yet",
        ),
        (
            policy_with(identity(), "[require.QAT]\nmax_approval_days = 30"),
            "max_approval_days is a condition that this version cannot honour yet",
        ),
    ],
)
def test_a_policy_that_is_not_strictly_right_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)
