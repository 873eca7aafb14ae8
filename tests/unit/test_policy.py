import itertools
import time
from collections.abc import Sequence

import pytest

from installer.errors import ConfigurationError, SignatureError
from installer.fingerprint import LAYERS
from installer.openpgp import Signature
from installer.policy import (
    APPROVAL_DAYS,
    Policy,
    Requirement,
    Signer,
    authorise,
    counted,
    parse_policy,
    require_signers,
)

ADA, BOB, EVE, CUSTOMER = "A" * 40, "B" * 40, "E" * 40, "C" * 40
ADA_TOO, OLD, GONE, MACHINE = "A" * 39 + "1", "0" * 40, "9" * 40, "D" * 40
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

[[identity]]
name = "qat-1"
role = "host"
environment = "QAT"
fingerprints = ["{MACHINE}"]

[require.QAT]
developer = 1

[require.PRD]
developer = 2
customer = 1
receipt = true

[rotation]
developer = 2
customer = 1
"""
START_2026, END_2026 = 1_767_225_600, 1_798_761_599
RETIREMENT = 1_751_241_600


def signed(primary: str, created: int = START_2026) -> Signature:
    return Signature(primary=primary, signing=primary, created=created)


@pytest.fixture
def policy() -> Policy:
    return parse_policy(TEXT.encode())


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parse_policy(text.encode())
    return str(refused.value)


def identity(lines: str = "", name: str = "Ada", key: str = ADA, role: str = "developer") -> str:
    fields = f'name = "{name}"\nrole = "{role}"\nfingerprints = ["{key}"]\n'
    return f"[[identity]]\n{fields}{lines}\n"


QAT = "[require.QAT]\ndeveloper = 1"
ROTATION = "[rotation]\ndeveloper = 1"
THE_CUSTOMER = '[[identity]]\nname = "C"\nrole = "customer"\nfingerprints = ["' + CUSTOMER + '"]\n'
A_HOST = (
    '[[identity]]\nname = "qat-1"\nrole = "host"\nenvironment = "QAT"\n'
    f'fingerprints = ["{MACHINE}"]\n'
)


def policy_with(identities: str, require: str = QAT, rotation: str = ROTATION) -> str:
    return f"serial = 1\n{identities}{require}\n{rotation}\n"


def requirement(lines: str, environment: str = "PRD", top: str = "") -> Requirement:
    """What a policy of a developer, a customer and a host in QAT makes of `lines`."""
    table = f"[require.{environment}]\ndeveloper = 1\n{lines}"
    text = policy_with(identity() + THE_CUSTOMER + A_HOST, table)
    return parse_policy((top + text).encode()).requirement(environment)


def of_one_developer(role: str, threshold: int = 1) -> Requirement:
    return Requirement(
        {role: threshold}, 0, None, APPROVAL_DAYS, signed_scripts=False, layers=LAYERS
    )


def names(signers: Sequence[Signer]) -> list[str]:
    return [signer.name for signer in signers]


# Thresholds


def test_one_developer_is_enough_for_qat(policy: Policy) -> None:
    assert authorise(policy, "QAT", [signed(ADA)]) == (Signer("Ada", "developer", ADA),)


def test_production_takes_two_developers_in_any_order(policy: Policy) -> None:
    signatures = [signed(EVE), signed(BOB), signed(ADA)]
    for order in itertools.permutations(signatures):
        assert names(authorise(policy, "PRD", order)) == ["Ada", "Bob"]


@pytest.mark.parametrize(
    "keys, reason",
    [
        ([], "PRD requires 2 of role developer, found none"),
        ([ADA], "PRD requires 2 of role developer, found 1 (Ada)"),
        ([ADA, CUSTOMER], "PRD requires 2 of role developer, found 1 (Ada)"),
        ([ADA, MACHINE], "PRD requires 2 of role developer, found 1 (Ada)"),
        ([CUSTOMER, MACHINE], "PRD requires 2 of role developer, found none"),
        ([ADA, ADA], "found 1 (Ada)"),
        ([ADA, ADA_TOO], "found 1 (Ada)"),
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


def test_all_whose_signatures_count_are_named_where_they_are_too_few(policy: Policy) -> None:
    with pytest.raises(SignatureError, match=r"3 of role developer, found 2 \(Ada, Bob\)$"):
        require_signers(policy, {"developer": 3}, "it", [signed(ADA), signed(BOB)])


def test_two_subkeys_of_one_key_count_once(policy: Policy) -> None:
    signatures = [Signature(ADA, "1" * 40, START_2026), Signature(ADA, "2" * 40, START_2026)]
    with pytest.raises(SignatureError, match=r"2 of role developer, found 1 \(Ada\)"):
        authorise(policy, "PRD", signatures)


def test_two_of_three_developers_are_enough(policy: Policy) -> None:
    signatures = [signed(ADA), signed(OLD, RETIREMENT)]
    assert names(authorise(policy, "PRD", signatures)) == ["Ada", "Olga"]


def test_a_developer_does_not_stand_in_for_the_customer(policy: Policy) -> None:
    signatures = [signed(ADA), signed(BOB), signed(OLD, RETIREMENT)]
    with pytest.raises(
        SignatureError, match=r"^an approval requires 1 of role customer, found none$"
    ):
        require_signers(policy, {"customer": 1}, "an approval", signatures)


def test_a_customer_and_a_host_do_not_stand_in_for_a_developer(policy: Policy) -> None:
    with pytest.raises(SignatureError, match=r"^QAT requires 1 of role developer, found none$"):
        authorise(policy, "QAT", [signed(CUSTOMER), signed(MACHINE)])


def test_signers_of_each_role_that_is_wanting_are_named(policy: Policy) -> None:
    with pytest.raises(SignatureError) as refused:
        require_signers(policy, policy.rotation, "the next policy", [signed(ADA)])
    assert str(refused.value) == (
        "the next policy requires 2 of role developer, found 1 (Ada), "
        "and 1 of role customer, found none"
    )


def test_a_signer_whose_role_is_not_required_is_reported_too(policy: Policy) -> None:
    assert names(authorise(policy, "QAT", [signed(ADA), signed(CUSTOMER)])) == [
        "Ada",
        "The Customer",
    ]


def test_everyone_whose_signature_counts_is_listed_once(policy: Policy) -> None:
    signatures = [signed(CUSTOMER), signed(ADA), signed(ADA_TOO), signed(GONE), signed(EVE)]
    assert {identity.name for identity in counted(policy, signatures)} == {"Ada", "The Customer"}


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


def test_times_are_told_in_utc_wherever_the_host_is(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with pytest.raises(SignatureError) as refused:
            authorise(policy, "QAT", [signed(OLD, RETIREMENT + 1)])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "signed on 2025-06-30 00:00:01 UTC, after 2025-06-30 00:00:00" in refused.value.detail


def test_keys_that_the_keyring_does_not_hold_are_named(policy: Policy) -> None:
    with pytest.raises(SignatureError) as refused:
        authorise(policy, "QAT", [signed(GONE)], [EVE])
    assert refused.value.detail.splitlines() == [
        f"Not counted: {GONE}: Mallory (developer) is revoked",
        f"Not counted: {EVE}: a key that this host's keyring does not hold",
    ]


@pytest.mark.parametrize(
    "signature, forgiven",
    [
        (signed(OLD, RETIREMENT), True),
        (signed(OLD, RETIREMENT + 1), False),
        (signed(ADA), False),
        (signed(GONE), False),
        (signed(EVE), False),
    ],
)
def test_a_softly_revoked_key_is_forgiven_to_a_retired_identity_in_its_time(
    policy: Policy, signature: Signature, *, forgiven: bool
) -> None:
    assert policy.forgives(signature) is forgiven


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
    assert policy.identities[-1].environment == "QAT"
    assert policy.chain == ("DEV", "QAT", "PRD")
    assert policy.requirement("QAT") == of_one_developer("developer")
    assert policy.requirement("PRD") == Requirement(
        {"developer": 2}, 1, "QAT", APPROVAL_DAYS, signed_scripts=False, layers=LAYERS
    )
    assert policy.rotation == {"developer": 2, "customer": 1}


def test_the_greatest_serial_is_the_greatest_that_json_holds_exactly() -> None:
    text = policy_with(identity())
    assert parse_policy(text.replace("= 1", f"= {2**53}", 1).encode()).serial == 2**53
    assert "outside 1.." in refusal(text.replace("= 1", f"= {2**53 + 1}", 1))


def test_a_requirement_is_read_as_written() -> None:
    assert requirement(
        "customer = 1\nreceipt = true\nmax_approval_days = 7\nsigned_scripts = true\n"
        'schema = ["structure", "owners"]'
    ) == Requirement(
        {"developer": 1}, 1, "QAT", 7, signed_scripts=True, layers=("structure", "owners")
    )


def test_a_receipt_comes_from_the_environment_before_in_the_chain() -> None:
    assert requirement("receipt = true").receipt_from == "QAT"
    assert requirement("receipt = false").receipt_from is None
    lab = requirement("receipt = true", "LAB", 'chain = ["QAT", "LAB", "PRD"]\n')
    assert lab.receipt_from == "QAT"


@pytest.mark.parametrize("lines", ["customer = 1", "receipt = true"])
def test_whoever_requires_an_approval_or_a_receipt_requires_a_dossier(lines: str) -> None:
    assert requirement(lines).needs_dossier
    assert not requirement("signed_scripts = true").needs_dossier


def test_online_scripts_are_for_environments_that_allow_them() -> None:
    assert requirement("online = true").online
    assert not requirement("online = false").online
    assert not requirement("").online


def test_a_role_of_ones_own_signs_manifests() -> None:
    text = policy_with(
        identity() + identity(name="Q", key=BOB, role="tester"), "[require.QAT]\ntester = 1"
    )
    found = parse_policy(text.encode())
    assert found.requirement("QAT") == of_one_developer("tester")
    assert names(authorise(found, "QAT", [signed(BOB)])) == ["Q"]


def test_what_a_retired_developer_signed_may_still_be_required() -> None:
    retired = identity("status = 'retired'\nnot_after = 2026-01-01T00:00:00Z", "Olga", OLD)
    text = policy_with(identity() + retired, "[require.QAT]\ndeveloper = 2")
    assert parse_policy(text.encode()).requirement("QAT") == of_one_developer("developer", 2)


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
        (policy_with(identity("not_after = 0001-01-01T00:00:00+01:00")), "in no year from 1 to"),
        (policy_with(identity("not_before = 9999-12-31T23:59:59-01:00")), "in no year from 1 to"),
        (
            policy_with(
                identity("not_before = 2026-01-02T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z")
            ),
            "not_before is later than not_after",
        ),
        (policy_with(identity(key="")), "not a fingerprint of 40"),
        (policy_with(identity(key="A\\nB")), "not a fingerprint of 40"),
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
        (
            policy_with(identity(), "[require.QAT]"),
            "[require.QAT]: requires nobody's signature of the manifest",
        ),
        (policy_with(identity(), "[require.'Q A']\ndeveloper = 1"), "an environment's name"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = 0"), "developer is 0, outside"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = true"), "must be a whole number"),
        (policy_with(identity(), "[require.QAT]\ndeveloper = 2"), "but only 1 have that role"),
        (
            policy_with(identity(), "[require.QAT]\ndevelopers = 1"),
            "no identity has the role 'developers'; did you mean 'developer'?",
        ),
        (policy_with(identity("environment = 'QAT'")), "environment is what an identity of role"),
        (policy_with(identity(role="host")), "environment is what an identity of role 'host' has"),
        (policy_with(identity() + A_HOST.replace('"QAT"', '"Q A"')), "environment is 'Q A'"),
        (
            policy_with(identity() + THE_CUSTOMER, "[require.QAT]\ncustomer = 1"),
            "[require.QAT]: requires nobody's signature of the manifest",
        ),
        (
            policy_with(identity() + A_HOST, f"{QAT}\nhost = 1"),
            "[require.QAT]: a host signs receipts only; receipt = true requires one",
        ),
        (policy_with(identity(), f"{QAT}\nreceipt = 1"), "receipt must be true or false"),
        (policy_with(identity(), f"{QAT}\nreceipt = true"), "no identity of role 'host' has"),
        (
            policy_with(identity() + A_HOST, f"{QAT}\nreceipt = true"),
            "receipt: no identity of role 'host' has environment = 'DEV'",
        ),
        (
            policy_with(identity() + A_HOST, "[require.DEV]\ndeveloper = 1\nreceipt = true"),
            "receipt: no environment comes before it in chain = ['DEV', 'QAT', 'PRD']",
        ),
        (
            policy_with(identity() + A_HOST, "[require.LAB]\ndeveloper = 1\nreceipt = true"),
            "receipt: no environment comes before it in chain",
        ),
        (policy_with(identity(), f"{QAT}\nmax_approval_days = 30"), "needs customer"),
        (
            policy_with(identity() + THE_CUSTOMER, f"{QAT}\ncustomer = 1\nmax_approval_days = 0"),
            "max_approval_days is 0, outside 1..3650",
        ),
        (policy_with(identity(), f"{QAT}\nschema = ['structure']"), "schema needs receipt = true"),
        (
            policy_with(
                identity() + A_HOST,
                "[require.PRD]\ndeveloper = 1\nreceipt = true\nschema = ['structur']",
            ),
            "schema holds 'structur'",
        ),
        (policy_with(identity(), f"{QAT}\nsigned_scripts = 'yes'"), "must be true or false"),
        ("chain = 'QAT'\n" + policy_with(identity()), "chain must be a list"),
        ("chain = ['Q A']\n" + policy_with(identity()), "chain holds 'Q A'"),
        ("chain = ['QAT', 'QAT']\n" + policy_with(identity()), "chain holds something twice"),
        (policy_with(identity(), rotation=""), "rotation is missing"),
        (policy_with(identity(), rotation="[rotation]"), "[rotation]: requires nobody's signature"),
        (policy_with(identity(), rotation="[rotation]\ndeveloper = 0"), "developer is 0, outside"),
        (
            policy_with(identity(), rotation="[rotation]\ndeveloper = 2"),
            "but only 1 have that role",
        ),
        (policy_with(identity(), rotation="[rotation]\ncustomer = 1"), "no identity has the role"),
        (
            policy_with(identity() + A_HOST, rotation=f"{ROTATION}\nhost = 1"),
            "[rotation]: a host signs receipts only",
        ),
        (
            policy_with(identity(), rotation=f"{ROTATION}\nsigned_scripts = true"),
            "[rotation]: signed_scripts is about releases; here each key is a role",
        ),
        (
            policy_with(
                identity() + identity("status = 'revoked'", "Mallory", GONE),
                rotation="[rotation]\ndeveloper = 2",
            ),
            "[rotation]: developer = 2, but only 1 of that role are active",
        ),
        (
            policy_with(identity("status = 'retired'\nnot_after = 2026-01-01T00:00:00Z")),
            "[rotation]: developer = 1, but only 0 of that role are active",
        ),
    ],
)
def test_a_policy_that_is_not_strictly_right_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)
