"""Whose signatures count on this host, and how many of which role an environment requires.

Opens no files, knows no clock. The rules:

- Identities count, never keys: someone who signs with two keys counts once. An identity has one
  role, a key belongs to one identity, and a key is named by its full primary fingerprint.
- Roles `customer` and `host` sign no manifests: a customer's signature counts on approvals, a
  host's on receipts. All other roles sign manifests. A host has the environment that it is in.
- A signature counts if its identity is not revoked and if it was made in the identity's time, from
  `not_before` to `not_after`. What a retired identity signed in its time goes on counting, and
  that the key was softly revoked afterwards is forgiven to a retired identity alone.
- An environment that requires nothing is refused, and so is a condition that is not known here.
- `[rotation]` says who has to sign the next policy, each role included (`installer.rotation`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from installer.errors import ConfigurationError, SignatureError
from installer.fingerprint import LAYERS
from installer.manifest import ENVIRONMENT
from installer.openpgp import FINGERPRINT, Signature
from installer.settings import Table, load_toml, nearest

POLICY_FILE = Path("/etc/countersign/policy.toml")
REVOKED = "revoked"
RETIRED = "retired"

CUSTOMER = "customer"
HOST = "host"
CHAIN = ("DEV", "QAT", "PRD")
"""The order of environments, where the policy does not say another."""
APPROVAL_DAYS = 30
"""How long an approval is good at most, where the policy does not say."""

_CONDITIONS = ("receipt", "max_approval_days", "signed_scripts", "schema", "online")
_LAYER = re.compile("|".join(LAYERS))
_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,99}")
_ROLE = re.compile(r"[a-z][a-z-]{0,31}")
_STATUS = re.compile(rf"active|{RETIRED}|{REVOKED}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Someone who signs. Times are in seconds since 1970; None where there is no bound.

    `environment` is where a host is; None for people.
    """

    name: str
    role: str
    fingerprints: tuple[str, ...]
    status: str
    not_before: int | None
    not_after: int | None
    environment: str | None = None

    def objection(self, signature: Signature) -> str:
        """Why `signature`, made with a key of this identity, does not count; empty if it does."""
        if self.status == REVOKED:
            return f"{self.name} ({self.role}) is revoked"
        if self.not_before is not None and signature.created < self.not_before:
            return self._outside(signature, f"before {_date(self.not_before)}")
        if self.not_after is not None and signature.created > self.not_after:
            return self._outside(signature, f"after {_date(self.not_after)}")
        return ""

    def _outside(self, signature: Signature, bound: str) -> str:
        return f"{self.name} ({self.role}) signed on {_date(signature.created)}, {bound}"


@dataclass(frozen=True, slots=True)
class Signer:
    """An identity whose signature counts, and the primary fingerprint of the key it signed with."""

    name: str
    role: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an environment requires of a release.

    `signers` says how many of which role have to sign the manifest, `customers` how many customers
    the approval. `receipt_from` is the environment whose receipt it takes, or None; `layers` are
    the layers of the schema that then have to be the same. `signed_scripts`: each script has to be
    signed by its author. `online`: scripts may run outside of the release's transaction.
    """

    signers: Mapping[str, int]
    customers: int
    receipt_from: str | None
    max_approval_days: int
    signed_scripts: bool
    layers: tuple[str, ...]
    online: bool = False

    @property
    def needs_dossier(self) -> bool:
        """Whether a release needs more than its own signatures: an approval, or a receipt."""
        return bool(self.customers or self.receipt_from)


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy as parsed. `rotation` says how many of which role have to sign the next one."""

    serial: int
    identities: tuple[Identity, ...]
    chain: tuple[str, ...]
    requirements: Mapping[str, Requirement]
    rotation: Mapping[str, int]

    def requirement(self, environment: str) -> Requirement:
        """What `environment` requires.

        Raises:
            ConfigurationError: the policy does not say.
        """
        if environment not in self.requirements:
            raise ConfigurationError(
                f"{POLICY_FILE} has no [require.{environment}], so nothing may be installed here"
            )
        return self.requirements[environment]

    def forgives(self, signature: Signature) -> bool:
        """Whether `signature` counts although its key was softly revoked after it was made.

        It does if it belongs to a retired identity, and was made in the identity's time.
        """
        return any(
            identity.status == RETIRED and not identity.objection(signature)
            for identity in self.identities
            if signature.primary in identity.fingerprints
        )


def parse_policy(text: bytes) -> Policy:
    """The policy whose content is `text`.

    Raises:
        ConfigurationError: a key is unknown, missing or has a value that it cannot have, two
            identities share a name or a key, or a requirement can never be met.
    """
    top = load_toml(text, POLICY_FILE.name)
    top.only("serial", "chain", "identity", "require", "rotation")
    serial = top.integer("serial", 1, 2**53)
    chain = top.texts("chain", ENVIRONMENT, CHAIN)
    identities = tuple(_identity(table) for table in top.each("identity"))
    _require_distinct(top, "name", [identity.name for identity in identities])
    _require_distinct(top, "fingerprint", [f for i in identities for f in i.fingerprints])
    requirements = {
        environment: _requirement(environment, table, identities, chain)
        for environment, table in top.tables("require").items()
    }
    if not requirements:
        top.refuse("no [require.ENVIRONMENT], so nothing can ever be installed")
    return Policy(serial, identities, chain, requirements, _rotation(top, identities))


def authorise(
    policy: Policy,
    environment: str,
    signatures: Iterable[Signature],
    unknown_keys: Iterable[str] = (),
) -> tuple[Signer, ...]:
    """Those whose signatures of a manifest count, if they are enough for `environment`.

    They are in the policy's order. `unknown_keys` are the fingerprints of keys that signed too, but
    that the keyring does not hold: they are named where signatures are wanting.

    Raises:
        ConfigurationError: the policy has no requirement for `environment`.
        SignatureError: too few signatures count; `detail` says why each of the others does not.
    """
    required = policy.requirement(environment).signers
    return require_signers(policy, required, environment, signatures, unknown_keys)


def require_signers(
    policy: Policy,
    required: Mapping[str, int],
    what: str,
    signatures: Iterable[Signature],
    unknown_keys: Iterable[str] = (),
) -> tuple[Signer, ...]:
    """Those whose signatures count, in the policy's order, if they are as many as `required`.

    `required` has how many of which role; `what` requires them, in the words of the message.

    Raises:
        SignatureError: too few signatures count; `detail` says why each of the others does not.
    """
    keys, objections = _count(policy, signatures)
    objections += [f"{key}: a key that this host's keyring does not hold" for key in unknown_keys]
    signers = tuple(
        Signer(identity.name, identity.role, keys[identity])
        for identity in policy.identities
        if identity in keys
    )
    if wanting := list(_wanting(required, signers)):
        raise SignatureError(
            f"{what} requires {', and '.join(wanting)}",
            detail="\n".join(f"Not counted: {objection}" for objection in objections),
        )
    return signers


def counted(policy: Policy, signatures: Iterable[Signature]) -> tuple[Identity, ...]:
    """The identities whose signatures count, whatever their roles; each once."""
    keys, _ = _count(policy, signatures)
    return tuple(keys)


def _count(
    policy: Policy, signatures: Iterable[Signature]
) -> tuple[dict[Identity, str], list[str]]:
    """The key with which each identity signed, and why the other signatures do not count."""
    owners = {key: identity for identity in policy.identities for key in identity.fingerprints}
    keys: dict[Identity, str] = {}
    objections = []
    for signature in sorted(signatures, key=lambda signature: signature.primary):
        identity = owners.get(signature.primary)
        if identity is None:
            objections.append(f"{signature.primary}: a key of no one that the policy names")
        elif objection := identity.objection(signature):
            objections.append(f"{signature.primary}: {objection}")
        else:
            keys.setdefault(identity, signature.primary)
    return keys, objections


def _wanting(required: Mapping[str, int], signers: Iterable[Signer]) -> Iterator[str]:
    for role, threshold in required.items():
        names = [signer.name for signer in signers if signer.role == role]
        if len(names) < threshold:
            found = f"{len(names)} ({', '.join(names)})" if names else "none"
            yield f"{threshold} of role {role}, found {found}"


def _identity(table: Table) -> Identity:
    table.only("name", "role", "environment", "fingerprints", "status", "not_before", "not_after")
    identity = Identity(
        name=table.text("name", _NAME),
        role=table.text("role", _ROLE),
        fingerprints=_fingerprints(table),
        status=table.text("status", _STATUS, "active"),
        not_before=table.moment("not_before"),
        not_after=table.moment("not_after"),
        environment=table.text("environment", ENVIRONMENT) if table.has("environment") else None,
    )
    if (identity.role == HOST) != (identity.environment is not None):
        table.refuse(f"environment is what an identity of role {HOST!r} has, and no other")
    if identity.status == RETIRED and identity.not_after is None:
        table.refuse("not_after is missing: until when do a retired identity's signatures count?")
    bounds = [moment for moment in (identity.not_before, identity.not_after) if moment is not None]
    if bounds != sorted(bounds):
        table.refuse("not_before is later than not_after")
    return identity


def _fingerprints(table: Table) -> tuple[str, ...]:
    fingerprints = table.texts("fingerprints", re.compile(r".*", re.DOTALL))
    for fingerprint in fingerprints:
        if not FINGERPRINT.fullmatch(fingerprint):
            table.refuse(
                f"{fingerprint!r} is not a fingerprint of 40 hexadecimal digits in capitals "
                "(a short key id can be forged); `gpg --list-keys` shows it"
            )
    if not fingerprints:
        table.refuse("fingerprints is empty")
    return fingerprints


def _require_distinct(top: Table, what: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            top.refuse(f"the {what} {value} is given to two identities")


def _requirement(
    environment: str, table: Table, identities: tuple[Identity, ...], chain: tuple[str, ...]
) -> Requirement:
    if not ENVIRONMENT.fullmatch(environment):
        table.refuse(f"an environment's name matches {ENVIRONMENT.pattern}")
    roles = _thresholds(table, identities)
    customers = roles.pop(CUSTOMER, 0)
    if not roles:
        table.refuse("requires nobody's signature of the manifest")
    if table.has("max_approval_days") and not customers:
        table.refuse("max_approval_days needs customer, whose approval it is about")
    receipt_from = None
    if table.flag("receipt"):
        receipt_from = _receipt_from(environment, table, identities, chain)
    elif table.has("schema"):
        table.refuse("schema needs receipt = true, which has what to compare with")
    return Requirement(
        signers=roles,
        customers=customers,
        receipt_from=receipt_from,
        max_approval_days=table.integer("max_approval_days", 1, 3650, APPROVAL_DAYS),
        signed_scripts=table.flag("signed_scripts"),
        layers=table.texts("schema", _LAYER, LAYERS),
        online=table.flag("online"),
    )


def _receipt_from(
    environment: str, table: Table, identities: tuple[Identity, ...], chain: tuple[str, ...]
) -> str:
    """The environment before this one, which measures a release first."""
    place = chain.index(environment) if environment in chain else 0
    if place == 0:
        table.refuse(f"receipt: no environment comes before it in chain = {list(chain)}")
    before = chain[place - 1]
    if not any(identity.environment == before for identity in identities):
        table.refuse(f"receipt: no identity of role {HOST!r} has environment = {before!r}")
    return before


def _rotation(top: Table, identities: tuple[Identity, ...]) -> dict[str, int]:
    table = top.table("rotation")
    if conditions := [key for key in table.keys if key in _CONDITIONS]:
        table.refuse(f"{conditions[0]} is about releases; here each key is a role")
    roles = _thresholds(table, identities)
    if not roles:
        table.refuse("requires nobody's signature of the next policy")
    for role, threshold in roles.items():
        able = [i for i in identities if i.role == role and i.status not in {RETIRED, REVOKED}]
        if len(able) < threshold:
            table.refuse(
                f"{role} = {threshold}, but only {len(able)} of that role are active, so that the "
                "policy could never be changed again"
            )
    return roles


def _thresholds(table: Table, identities: tuple[Identity, ...]) -> dict[str, int]:
    roles = [key for key in table.keys if key not in _CONDITIONS]
    if HOST in roles:
        table.refuse(f"a {HOST} signs receipts only; receipt = true requires one")
    return {role: _threshold(role, table, identities) for role in roles}


def _threshold(role: str, table: Table, identities: tuple[Identity, ...]) -> int:
    roles = [identity.role for identity in identities]
    if role not in roles:
        known = {*roles, *_CONDITIONS}
        table.refuse(f"no identity has the role {role!r}; {nearest(role, known)}")
    threshold = table.integer(role, 1, 1000)
    if roles.count(role) < threshold:
        table.refuse(f"{role} = {threshold}, but only {roles.count(role)} have that role")
    return threshold


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
