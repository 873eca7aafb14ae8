"""Whose signatures count on this host, and how many of which role an environment requires.

Opens no files, knows no clock. The rules:

- Identities count, never keys: someone who signs with two keys counts once. An identity has one
  role, a key belongs to one identity, and a key is named by its full primary fingerprint.
- A signature counts if its identity is not revoked and if it was made in the identity's time, from
  `not_before` to `not_after`. What a retired identity signed in its time goes on counting.
- An environment that requires nothing is refused, and so is a condition that is not known here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from installer.errors import ConfigurationError, SignatureError
from installer.host_file import ENVIRONMENT
from installer.openpgp import Signature
from installer.settings import Table, load_toml, nearest

POLICY_FILE = Path("/etc/countersign/policy.toml")
REVOKED = "revoked"
RETIRED = "retired"

_LATER = ("receipt", "max_approval_days")
_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,99}")
_ROLE = re.compile(r"[a-z][a-z-]{0,31}")
_STATUS = re.compile(rf"active|{RETIRED}|{REVOKED}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Someone who signs. Times are in seconds since 1970; None where there is no bound."""

    name: str
    role: str
    fingerprints: tuple[str, ...]
    status: str
    not_before: int | None
    not_after: int | None

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
class Policy:
    """The policy as parsed. `requirements` has, by environment, how many of which role it takes."""

    serial: int
    identities: tuple[Identity, ...]
    requirements: Mapping[str, Mapping[str, int]]


def parse_policy(text: bytes) -> Policy:
    """The policy whose content is `text`.

    Raises:
        ConfigurationError: a key is unknown, missing or has a value that it cannot have, two
            identities share a name or a key, or a requirement can never be met.
    """
    top = load_toml(text, POLICY_FILE.name).only("serial", "identity", "require")
    serial = top.integer("serial", 1, 2**53)
    identities = tuple(_identity(table) for table in top.each("identity"))
    _require_distinct(top, "name", [identity.name for identity in identities])
    _require_distinct(top, "fingerprint", [f for i in identities for f in i.fingerprints])
    requirements = {
        environment: _requirement(environment, table, identities)
        for environment, table in top.tables("require").items()
    }
    if not requirements:
        top.refuse("no [require.ENVIRONMENT], so nothing can ever be installed")
    return Policy(serial, identities, requirements)


def authorise(
    policy: Policy,
    environment: str,
    signatures: Iterable[Signature],
    unknown_keys: Iterable[str] = (),
) -> tuple[Signer, ...]:
    """Those whose signatures count, in the policy's order, if they are enough for `environment`.

    `unknown_keys` are the fingerprints of keys that signed too, but that the keyring does not
    hold: they are named where signatures are wanting.

    Raises:
        ConfigurationError: the policy has no requirement for `environment`.
        SignatureError: too few signatures count; `detail` says why each of the others does not.
    """
    required = policy.requirements.get(environment)
    if required is None:
        raise ConfigurationError(
            f"{POLICY_FILE} has no [require.{environment}], so nothing may be installed here"
        )
    keys, objections = _count(policy, signatures)
    objections += [f"{key}: a key that this host's keyring does not hold" for key in unknown_keys]
    signers = tuple(
        Signer(identity.name, identity.role, keys[identity])
        for identity in policy.identities
        if identity in keys
    )
    if wanting := list(_wanting(required, signers)):
        raise SignatureError(
            f"{environment} requires {', and '.join(wanting)}",
            detail="\n".join(f"Not counted: {objection}" for objection in objections),
        )
    return signers


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
    table.only("name", "role", "fingerprints", "status", "not_before", "not_after")
    identity = Identity(
        name=table.text("name", _NAME),
        role=table.text("role", _ROLE),
        fingerprints=_fingerprints(table),
        status=table.text("status", _STATUS, "active"),
        not_before=table.moment("not_before"),
        not_after=table.moment("not_after"),
    )
    if identity.status == RETIRED and identity.not_after is None:
        table.refuse("not_after is missing: until when do a retired identity's signatures count?")
    bounds = [moment for moment in (identity.not_before, identity.not_after) if moment is not None]
    if bounds != sorted(bounds):
        table.refuse("not_before is later than not_after")
    return identity


def _fingerprints(table: Table) -> tuple[str, ...]:
    fingerprints = table.texts("fingerprints", re.compile(r".*", re.DOTALL))
    for fingerprint in fingerprints:
        if not _FINGERPRINT.fullmatch(fingerprint):
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
    environment: str, table: Table, identities: tuple[Identity, ...]
) -> dict[str, int]:
    if not ENVIRONMENT.fullmatch(environment):
        table.refuse(f"an environment's name matches {ENVIRONMENT.pattern}")
    if later := [key for key in _LATER if table.has(key)]:
        table.refuse(f"{later[0]} is a condition that this version cannot honour yet; remove it")
    if not table.keys:
        table.refuse("requires no one")
    return {role: _threshold(role, table, identities) for role in table.keys}


def _threshold(role: str, table: Table, identities: tuple[Identity, ...]) -> int:
    roles = [identity.role for identity in identities]
    if role not in roles:
        table.refuse(f"no identity has the role {role!r}; {nearest(role, set(roles))}")
    threshold = table.integer(role, 1, 1000)
    if roles.count(role) < threshold:
        table.refuse(f"{role} = {threshold}, but only {roles.count(role)} have that role")
    return threshold


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
