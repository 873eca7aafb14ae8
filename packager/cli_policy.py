"""The commands `countersign policy …`: parse, call, print; `packager.cli` turns errors into codes.

They change the file that hosts get as /etc/countersign/policy.toml, and say what it means in words.
"""

import shlex
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from installer.policy import (
    CUSTOMER,
    HOST,
    RETIRED,
    REVOKED,
    Identity,
    Policy,
    Requirement,
)
from installer.rotation import judge, read_candidate
from installer.signatures import require_binary_keyring
from packager.cli_options import JSON, KEY, example, print_document, print_sections
from packager.policy_writer import (
    DEVELOPER,
    Change,
    Person,
    adding,
    amend,
    create,
    first_policy,
    parse,
    parse_fingerprint,
    parse_moment,
    parse_person,
    place_signature,
    read_file,
    retiring,
    revoking,
    signatures_beside,
)
from packager.show import Section, printable
from packager.signing import choose_key, sign, signature_file

FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
NAME = click.argument("name")


def _example(*lines: str) -> str:
    return example(*(f"countersign policy {line}" for line in lines))


@click.group(
    epilog=_example(
        "init --developer 'Ada=FINGERPRINT' --customer 'Customer=FINGERPRINT'",
        "add policy.toml --name Grace --role developer --fingerprint FINGERPRINT",
        "sign policy.toml",
        "check policy.toml --against policy-1.toml --keyring keyring.pgp",
    )
)
def policy() -> None:
    """Write the policy that says whose signatures count, and change it.

    The commands write the whole file: comments in a policy that was written by hand are lost. Each
    change has the next serial, and hosts take it when those whom the policy before names, as its
    [rotation] says, have signed it.
    """


@policy.command(
    epilog=_example(
        "init --developer 'Ada=FINGERPRINT' --host 'qat-1=FINGERPRINT@QAT'",
    )
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="policy.toml")
@click.option(
    "--developer",
    "developers",
    multiple=True,
    required=True,
    metavar="NAME=FPR",
    help="Someone who signs releases; may be given several times.",
)
@click.option(
    "--customer",
    "customers",
    multiple=True,
    metavar="NAME=FPR",
    help="Someone who approves releases.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME=FPR@ENV",
    help="A host that signs receipts; `countersign-install init` prints its fingerprint.",
)
def init(
    file: Path, developers: tuple[str, ...], customers: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    """Write the first policy to FILE, which must not be there.

    QAT takes one developer; PRD two, where there are two, and the customer, with the receipt of a
    host in QAT, where there is one. FPR is a primary fingerprint; spaces do not matter.
    """
    given = ((developers, DEVELOPER), (customers, CUSTOMER), (hosts, HOST))
    people = [parse_person(text, role) for texts, role in given for text in texts]
    create(file, first_policy(people))
    click.echo(f"wrote {file}, serial 1")
    print_sections(_explained(parse(read_file(file), file)))
    click.echo("Hosts take their first policy as it is; put it on each as its administrator.")


@policy.command(
    epilog=_example("add policy.toml --name Grace --role developer --fingerprint FINGERPRINT")
)
@FILE
@click.option("--name", required=True, help="Who: one person, team or host.")
@click.option("--role", required=True, help="developer, customer, host or another.")
@click.option("--fingerprint", required=True, help="Of the primary key; spaces do not matter.")
@click.option("--environment", help="Where a host is, such as QAT.")
@click.option("--not-before", metavar="TIME", help="Nothing that was signed earlier counts.")
def add(
    file: Path,
    name: str,
    role: str,
    fingerprint: str,
    *,
    environment: str | None,
    not_before: str | None,
) -> None:
    """Name one more identity in FILE, or one more key of somebody who is named already."""
    person = Person(name, role, parse_fingerprint(fingerprint), environment)
    _amend(file, adding(person, parse_moment(not_before) if not_before else None))


@policy.command(epilog=_example("retire policy.toml Ada --not-after 2026-01-31T00:00:00Z"))
@FILE
@NAME
@click.option("--not-after", metavar="TIME", help="Until when signatures count.  [default: now]")
def retire(file: Path, name: str, not_after: str | None) -> None:
    """Let go of NAME, who leaves: what was signed until now goes on counting."""
    now = datetime.now(UTC).replace(microsecond=0)
    _amend(file, retiring(name, parse_moment(not_after) if not_after else now))


@policy.command(epilog=_example("revoke policy.toml Ada"))
@FILE
@NAME
def revoke(file: Path, name: str) -> None:
    """Let nothing count that NAME ever signed: somebody else may have the key."""
    _amend(file, revoking(name))


@policy.command(epilog=_example("show policy.toml"))
@FILE
@JSON
def show(file: Path, *, as_json: bool) -> None:
    """Say who signs, what each environment requires, and who can change FILE."""
    found = parse(read_file(file), file)
    if as_json:
        print_document(_document(found))
        return
    click.echo(f"{file}: serial {found.serial}")
    print_sections(_explained(found))


@policy.command("sign", epilog=_example("sign policy.toml --key ann@example.org"))
@FILE
@KEY
def sign_command(file: Path, key: str | None) -> None:
    """Sign FILE, and put the signature beside it: FILE.FINGERPRINT.asc.

    gpg alone does it too: gpg --armor --detach-sign FILE
    """
    content = read_file(file)
    serial = parse(content, file).serial
    signer = choose_key(key)
    signature = sign(content, signer, int(time.time()))
    written = place_signature(file, signature_file(signer, file.name), signature)
    click.echo(f"signed {file}, serial {serial}, as {signer.title}")
    click.echo(f"wrote {written}")
    click.echo(f"Without this command: {_by_hand(file)}")


@policy.command(epilog=_example("check policy.toml --against policy-1.toml --keyring keyring.pgp"))
@FILE
@click.option(
    "--against",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The policy that the host has; it keeps it as /var/lib/countersign/policy.toml.",
)
@click.option(
    "--keyring",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The host's keyring.pgp.",
)
def check(file: Path, against: Path, keyring: Path) -> None:
    """Say whether a host would take FILE, with the signatures beside it, for its next policy."""
    require_binary_keyring(read_file(keyring), keyring)
    before = read_file(against)
    serial = parse(before, against).serial
    ruling = judge(before, read_candidate(file, read_file), keyring, int(time.time()))
    if not ruling.is_new:
        click.echo(f"{file} is what the host has already, serial {serial}")
        return
    click.echo(f"a host with serial {serial} takes serial {ruling.policy.serial}, signed by")
    for signer in ruling.signers:
        click.echo(printable(f"  {signer.name} ({signer.role}) {signer.fingerprint}"))


def _amend(file: Path, change: Change) -> None:
    before, after = amend(file, change)
    click.echo(f"wrote {file}, serial {after.serial}")
    click.echo(f"A host with serial {before.serial} takes it signed by {_roles(before.rotation)}:")
    click.echo(f"  countersign policy sign {shlex.quote(str(file))}")
    click.echo(f"  or {_by_hand(file)}")
    for signature in signatures_beside(file):
        click.echo(f"Remove {signature}: it is a signature of what the file said before.")


def _by_hand(file: Path) -> str:
    return f"gpg --armor --detach-sign {shlex.quote(str(file))}"


def _explained(found: Policy) -> Iterator[Section]:
    """What a policy says, for people."""
    people = (line for identity in found.identities for line in _identity(identity))
    yield Section("Who signs", tuple(map(printable, people)))
    for name, requirement in found.requirements.items():
        yield Section(f"{name} requires", tuple(map(printable, _requirement(requirement))))
    signatures = printable(f"the signatures of {_roles(found.rotation)}")
    yield Section("The next policy requires", (signatures,))


def _identity(identity: Identity) -> Iterator[str]:
    role = f"{identity.role} in {identity.environment}" if identity.environment else identity.role
    yield f"{identity.name}, {role}: {_standing(identity)}"
    for fingerprint in identity.fingerprints:
        yield f"  {fingerprint}"


def _standing(identity: Identity) -> str:
    if identity.status == REVOKED:
        return "revoked, nothing ever signed counts"
    since = f" from {_moment(identity.not_before)}" if identity.not_before is not None else ""
    until = f" until {_moment(identity.not_after)}" if identity.not_after is not None else ""
    if identity.status == RETIRED:
        return f"retired, what was signed{since}{until} counts"
    return f"active{since}{until}"


def _requirement(requirement: Requirement) -> Iterator[str]:
    yield f"the release signed by {_roles(requirement.signers)}"
    if requirement.signed_scripts:
        yield "each script signed by its author"
    if requirement.online:
        yield "scripts may run outside of the release's transaction"
    if requirement.customers:
        days = requirement.max_approval_days
        who = _roles({CUSTOMER: requirement.customers})
        yield f"an approval by {who}, good for {days} days at most"
    if requirement.receipt_from:
        layers = ", ".join(requirement.layers)
        yield f"the receipt of a successful install in {requirement.receipt_from}"
        yield f"the same schema as there, before and after: {layers}"


def _roles(thresholds: Mapping[str, int]) -> str:
    return " and ".join(f"{count} of role {role}" for role, count in thresholds.items())


def _document(found: Policy) -> dict[str, Any]:
    """A policy, for programs. Times are in ISO 8601."""
    return {
        "serial": found.serial,
        "chain": found.chain,
        "identities": [_facts(identity) for identity in found.identities],
        "require": {
            name: {
                "signers": dict(requirement.signers),
                "customers": requirement.customers,
                "receipt_from": requirement.receipt_from,
                "max_approval_days": requirement.max_approval_days,
                "signed_scripts": requirement.signed_scripts,
                "schema": requirement.layers,
                "online": requirement.online,
            }
            for name, requirement in found.requirements.items()
        },
        "rotation": dict(found.rotation),
    }


def _facts(identity: Identity) -> dict[str, Any]:
    return {
        "name": identity.name,
        "role": identity.role,
        "environment": identity.environment,
        "fingerprints": identity.fingerprints,
        "status": identity.status,
        "not_before": _iso(identity.not_before),
        "not_after": _iso(identity.not_after),
    }


def _iso(moment: int | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
