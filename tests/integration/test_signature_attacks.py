"""Attacks on signatures and roles that need more than one signature, or the command itself.

One signature at a time is for tests/corpus.py. What holds is told in docs/reference/assurance.md.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from installer.approval import Approval, Dossier, require_approved, write_approval
from installer.bundle import Head
from installer.errors import ApprovalError, SignatureError
from installer.manifest import Database, Manifest, Source, parse_manifest
from installer.policy import Policy, parse_policy
from installer.signatures import verify_release, verify_signature
from installer.tree import digest_of
from packager.bundle_writer import write_bundle
from packager.installer_package import build_installer
from packager.manifest_writer import UNSIGNED, compress, describe_content, write_manifest
from tests.corpus import flipped
from tests.developers import Developers
from tests.hosts import Host
from tests.keys import Keyring

pytestmark = pytest.mark.integration

CONTENT = compress([])
RELEASE = Manifest(
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
MANIFEST = write_manifest(RELEASE)
DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class People:
    """Whom the policy knows, and Eve, whose key the keyring holds although the policy does not."""

    keys: Keyring
    ada: str
    ada_too: str
    bob: str
    cleo: str
    customer: str
    eve: str
    subkeys: tuple[str, str]
    """Of Ada's first key."""
    keyring: Path
    policy: Policy

    def head(self, *signing: str, manifest: bytes = MANIFEST) -> Head:
        """The release, signed with these keys or subkeys in this order."""
        return Head(manifest, {key: self.keys.sign(MANIFEST, key) for key in signing})

    def signers(self, head: Head) -> list[str]:
        """Who signed, if they are enough for PRD."""
        release = verify_release(head, self.policy, "PRD", self.keyring, int(time.time()))
        return [signer.name for signer in release.signers]

    def refusal(self, head: Head) -> SignatureError:
        with pytest.raises(SignatureError) as refused:
            self.signers(head)
        assert refused.value.exit_code == 20
        return refused.value


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    with Keyring.create() as keys:
        names = ("ada", "ada.too", "bob", "cleo", "customer", "eve")
        made = [keys.new_key(f"{name} <{name}@example.org>") for name in names]
        ada, ada_too, bob, cleo, customer, eve = made
        subkeys = keys.add_subkey(ada), keys.add_subkey(ada)
        keyring = keys.home / "trusted.pgp"
        keyring.write_bytes(keys.export(made))
        identities = {
            "Ada": ("developer", [ada, ada_too]),
            "Bob": ("developer", [bob]),
            "Cleo": ("developer", [cleo]),
            "The Customer": ("customer", [customer]),
        }
        text = "".join(
            f'[[identity]]\nname = "{name}"\nrole = "{role}"\nfingerprints = {fingerprints}\n'
            for name, (role, fingerprints) in identities.items()
        )
        required = "[require.PRD]\ndeveloper = 2\ncustomer = 1\n[rotation]\ndeveloper = 2\n"
        policy = parse_policy(f"serial = 1\n{text}{required}".encode())
        yield People(keys, ada, ada_too, bob, cleo, customer, eve, subkeys, keyring, policy)


# Roles and thresholds, with real keys


def test_one_person_with_two_keys_counts_once(people: People) -> None:
    error = people.refusal(people.head(people.ada, people.ada_too))

    assert str(error) == "PRD requires 2 of role developer, found 1 (Ada)"


def test_one_person_with_two_subkeys_counts_once(people: People) -> None:
    signing = (people.ada, *people.subkeys)

    for some in (*itertools.combinations(signing, 2), signing):
        error = people.refusal(people.head(*some))
        assert str(error) == "PRD requires 2 of role developer, found 1 (Ada)"


def test_one_of_two_required_signatures_is_refused(people: People) -> None:
    for key in (people.ada, people.bob, people.cleo):
        assert "2 of role developer, found 1" in str(people.refusal(people.head(key)))


def test_any_two_of_three_in_any_order_are_accepted(people: People) -> None:
    names = {people.ada: "Ada", people.bob: "Bob", people.cleo: "Cleo"}

    for pair in itertools.permutations(names, 2):
        assert people.signers(people.head(*pair)) == sorted(names[key] for key in pair)


def test_a_subkey_and_another_persons_key_are_two(people: People) -> None:
    assert people.signers(people.head(people.subkeys[1], people.bob)) == ["Ada", "Bob"]


def test_a_key_that_the_keyring_holds_but_the_policy_does_not_name_counts_nothing(
    people: People,
) -> None:
    error = people.refusal(people.head(people.ada, people.eve))

    assert f"Not counted: {people.eve}: a key of no one that the policy names" in error.detail


def test_a_customer_does_not_stand_in_for_a_developer(people: People) -> None:
    error = people.refusal(people.head(people.ada, people.customer))

    assert str(error) == "PRD requires 2 of role developer, found 1 (Ada)"


def test_a_developer_does_not_approve_in_the_customers_place(people: People) -> None:
    now = int(time.time())
    manifest = parse_manifest(MANIFEST)
    approval = Approval(
        digest=UNSIGNED,
        product="crm",
        version="1.0",
        sequence=1,
        manifest=digest_of(MANIFEST),
        receipt=None,
        environment="PRD",
        not_before=now - DAY,
        expires=now + DAY,
    )
    raw = write_approval(approval)
    approval = replace(approval, digest=digest_of(raw))

    def approve(*signing: str) -> list[str]:
        made = (people.keys.sign(raw, key) for key in signing)
        approvers = tuple(verify_signature(one, raw, people.keyring, now) for one in made)
        dossier = Dossier("approval", approval=approval, approvers=approvers)
        found = require_approved(manifest, people.policy, "PRD", [dossier], now)
        return [customer.name for customer in found.customers]

    assert "The Customer" in approve(people.customer)
    with pytest.raises(ApprovalError) as refused:
        approve(people.ada, people.bob, people.cleo)
    assert refused.value.exit_code == 23
    assert "1 of role customer, found none" in refused.value.detail


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused(people: People) -> None:
    signed = people.head(people.ada)

    for place in range(0, len(MANIFEST), 3):
        manifest = flipped(MANIFEST, place * 8 + place % 8)
        assert "does not match" in str(people.refusal(replace(signed, manifest=manifest)))


# The command, on a host whose administrator trusts Ada and Grace

COMMAND = "/usr/bin/countersign-install"
GPGV = "/usr/bin/gpgv"
EVIL = "/srv/evil"
HOSTILE = {
    "PATH": f"{EVIL}:/usr/bin:/bin",
    "LC_ALL": "xx_XX",
    "LC_NUMERIC": EVIL,
    **dict.fromkeys(
        (
            *("HOME", "TMPDIR", "GNUPGHOME", "XDG_CONFIG_HOME", "GIT_DIR", "GIT_CONFIG_GLOBAL"),
            *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX"),
            *("PGHOST", "PGSERVICEFILE", "PGPASSFILE", "PGSYSCONFDIR", "PGSSLROOTCERT"),
        ),
        EVIL,
    ),
}
"""An environment in which every name leads to the attacker's folder."""


@dataclass(frozen=True, slots=True)
class Target:
    """The host, with a release signed by Ada and one signed by Mallory, whom nobody knows."""

    host: Host
    developers: Developers
    good: str = "/srv/good.bundle"
    bad: str = "/srv/bad.bundle"

    def verify(self, package: str, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
        return self.host.run([COMMAND, "verify", package], env=env)

    def refusal(self, package: str, code: int) -> str:
        """What the command says when it refuses with this exit code."""
        done = self.verify(package)
        assert done.returncode == code, done
        assert "verified" not in done.stdout
        return done.stderr

    def trace(self, environment: Mapping[str, str]) -> list[str]:
        """A line for each name of a file that the command and what it runs give to the kernel."""
        given = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
        strace = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", "/srv/trace", *given]
        done = self.host.run([*strace, COMMAND, "verify", self.good])
        assert done.returncode == 0, done.stderr
        return self.host.at("/srv/trace").read_text().splitlines()

    @contextmanager
    def gpgv(self, script: str) -> Iterator[None]:
        """The script in the place of gpgv, which it finds as gpgv.real; empty for none."""
        self.host.run(["mv", GPGV, f"{GPGV}.real"], check=True)
        try:
            if script:
                self.host.write(GPGV, f"#!/bin/sh\n{script}\n", mode=0o755)
            yield
        finally:
            self.host.run(["mv", "-f", f"{GPGV}.real", GPGV], check=True)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("target")
    with Keyring.create() as keys, Host.start() as host:
        developers = Developers.create(keys, folder)
        package = build_installer(folder)
        host.copy_in(package, f"/srv/{package.name}")
        host.run(["rpm", "--install", f"/srv/{package.name}"], check=True)
        host.write("/etc/countersign/policy.toml", developers.policy(QAT=1))
        host.write("/etc/countersign/host.toml", 'environment = "QAT"\n')
        write_bytes(host, "/etc/countersign/keyring.pgp", developers.keyring())
        made = Target(host, developers)
        for path, key in ((made.good, developers.ada), (made.bad, developers.mallory)):
            head = Head(MANIFEST, {key: keys.sign(MANIFEST, key)})
            write_bytes(host, path, write_bundle(head, CONTENT))
        yield made


def write_bytes(host: Host, path: str, content: bytes) -> None:
    host.write(path, "")
    host.at(path).write_bytes(content)


@pytest.fixture
def evil(target: Target) -> str:
    """The attacker's folder: programs, modules, options, and a keyring that holds Mallory."""
    host, ran = target.host, f"{EVIL}/ran"
    for program in ("gpgv", "gpg", "rpm", "git", "python3"):
        host.write(f"{EVIL}/{program}", f"#!/bin/sh\ntouch {ran}\n", mode=0o755)
    for module in ("psycopg", "click", "json", "os", "sitecustomize"):
        host.write(f"{EVIL}/{module}.py", f"open({ran!r}, 'w')\n")
    for options in ("gpg.conf", "gpgv.conf"):
        host.write(f"{EVIL}/{options}", "ignore-time-conflict\nthis is no option\n")
    write_bytes(
        host, f"{EVIL}/trustedkeys.gpg", target.developers.keys.export([target.developers.mallory])
    )
    return EVIL


@pytest.mark.acceptance
def test_a_hostile_environment_changes_nothing_that_the_command_does(
    target: Target, evil: str
) -> None:
    for package, code in ((target.good, 0), (target.bad, 20)):
        clean, hostile = target.verify(package), target.verify(package, HOSTILE)
        assert (clean.returncode, hostile.returncode) == (code, code)
        assert (clean.stdout, clean.stderr) == (hostile.stdout, hostile.stderr)
    assert not target.host.at(f"{evil}/ran").exists()


@pytest.mark.acceptance
def test_no_file_that_a_hostile_environment_names_is_looked_at(target: Target, evil: str) -> None:
    trace = target.trace(HOSTILE)

    assert any(f'execve("{GPGV}"' in line for line in trace)
    assert not [line for line in trace if evil in line]


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "name",
    [
        "OPENSSL_CONF",  # names libraries to load; OpenSSL reads it when hashlib is imported
        "PYTHONEXECUTABLE",  # Python takes its library from beside it, in isolated mode as well
    ],
)
def test_nothing_is_read_that_acts_before_the_command_clears_its_environment(
    target: Target, evil: str, name: str
) -> None:
    trace = target.trace({name: f"{evil}/{name}"})

    assert not [line for line in trace if evil in line]


@pytest.mark.acceptance
def test_a_preloaded_library_goes_no_further_than_the_program_that_was_started_with_it(
    target: Target, evil: str
) -> None:
    trace = target.trace({"LD_PRELOAD": f"{evil}/library.so", "LD_LIBRARY_PATH": evil})
    started = trace[0].split()[0]

    assert {line.split()[0] for line in trace if evil in line} == {started}
    assert any(f'execve("{GPGV}"' in line and line.split()[0] != started for line in trace)


@pytest.mark.acceptance
def test_gpgv_gets_nothing_of_the_callers_environment(target: Target, evil: str) -> None:
    everything = HOSTILE | {"LD_PRELOAD": f"{evil}/library.so", "GPG_TTY": "x", "SECRET": "x"}
    script = f"tr '\\0' '\\n' </proc/$$/environ >/srv/seen\nexec {GPGV}.real \"$@\""

    with target.gpgv(script):
        done = target.verify(target.good, everything)

    assert done.returncode == 0, done.stderr
    assert sorted(target.host.at("/srv/seen").read_text().split()) == ["LC_ALL=C", "PATH=/usr/bin"]


@pytest.mark.acceptance
def test_the_process_has_a_tight_umask_writes_no_core_and_passes_no_file_on(target: Target) -> None:
    """As its own gpgv sees it."""
    script = (
        "grep -h -e '^Umask' -e '^Max core' /proc/$PPID/status /proc/$PPID/limits "
        "/proc/$$/limits >/srv/seen\n"
        "tr '\\0' '\\n' </proc/$PPID/environ >/srv/environment\n"
        f'readlink /proc/$$/fd/9 >>/srv/seen\nexec {GPGV}.real "$@"'
    )
    caller = f"ulimit -c unlimited; umask 000; exec 9</etc/passwd; exec {COMMAND} verify $0"

    with target.gpgv(script):
        done = target.host.run(["sh", "-c", caller, target.good], env={"SECRET": "x"})

    assert done.returncode == 0, done.stderr
    seen = [line.split() for line in target.host.at("/srv/seen").read_text().splitlines()]
    no_core = ["Max", "core", "file", "size", "0", "0", "bytes"]
    assert seen == [["Umask:", "0077"], no_core, no_core]
    assert "SECRET" not in target.host.at("/srv/environment").read_text()


@pytest.mark.acceptance
def test_a_package_whose_name_forges_gpgs_status_is_refused(target: Target) -> None:
    ada = target.developers.ada
    forged = f"[GNUPG:] GOODSIG {ada[-16:]} Ada\n[GNUPG:] VALIDSIG {ada} 2026-01-01 1 0 4 0 22 8 00"
    name = f"/srv/x\n{forged} {ada}\n.bundle"
    target.host.run(["cp", target.bad, name], check=True)

    words = target.refusal(name, 20)

    assert f"{target.developers.mallory}: a key that this host's keyring does not hold" in words


TRUNCATED = """
while [ "$1" != --status-fd ]; do shift; done
printf '[GNUPG:] NEWSIG\\n[GNUPG:] GOODSIG x\\n[GNUPG:] VALIDSIG' >/dev/fd/$2
"""


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "script, words",
    [
        ("", f"{GPGV}: No such file or directory"),
        ("kill -KILL $$", "exit code -9"),
        (f'{GPGV}.real "$@"; kill -KILL $$', "exit code -9"),
        (
            TRUNCATED,
            "gpgv's answer is cut off, or not its own",
        ),
        ("exit 0", "gpgv does not vouch for the signature"),
    ],
    ids=["missing", "killed", "killed after its answer", "truncated", "silent"],
)
def test_without_a_whole_answer_of_gpgvs_nothing_is_verified(
    target: Target, script: str, words: str
) -> None:
    with target.gpgv(script):
        assert words in target.refusal(target.good, 20)
    assert target.verify(target.good).returncode == 0


@pytest.mark.acceptance
@pytest.mark.parametrize("digits", [8, 16, 32])
def test_a_policy_with_a_short_key_id_trusts_nobody(target: Target, digits: int) -> None:
    ada, policy = target.developers.ada, "/etc/countersign/policy.toml"
    target.host.write(policy, target.developers.policy(QAT=1).replace(ada, ada[-digits:]))
    try:
        words = target.refusal(target.good, 10)
    finally:
        target.host.write(policy, target.developers.policy(QAT=1))

    assert f"{ada[-digits:]!r} is not a fingerprint of 40 hexadecimal digits" in words


@pytest.mark.acceptance
@pytest.mark.parametrize("bit", [0o020, 0o002], ids=["group", "others"])
@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "/etc/countersign",
        "/etc/countersign/policy.toml",
        "/etc/countersign/host.toml",
        "/etc/countersign/keyring.pgp",
    ],
)
def test_configuration_that_is_writable_by_others_is_refused_with_the_command_to_run(
    target: Target, path: str, bit: int
) -> None:
    place = target.host.at(path)
    mode = place.stat().st_mode
    place.chmod(mode | bit)
    try:
        words = target.refusal(target.good, 10)
    finally:
        place.chmod(mode)

    assert f"{path} is writable by others" in words
    assert f"chmod go-w {path}" in words
