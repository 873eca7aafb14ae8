"""This host as its administrator set it up: policy, keys, host file, and where state is kept.

Every command starts here, so none goes by a policy that was exchanged without authority
(`installer.rotation`). Only root may be the first to use a policy, or remember a new one.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from installer.approval import Approved, require_approved
from installer.bundle import Bundle
from installer.clock import require_forward
from installer.dossier import read_dossiers
from installer.host_file import HostFile, parse_host_file
from installer.manifest import Manifest
from installer.policy import Policy, Requirement
from installer.rotation import load_policy
from installer.signatures import VerifiedRelease, require_binary_keyring, verify_release
from installer.trusted_files import read_trusted

CONFIGURATION = Path("/etc/countersign")
STATE = Path("/var/lib/countersign")
LOGS = Path("/var/log/countersign")
CLOCK = "clock.txt"
KEYRING_LIMIT = 16 * 1024 * 1024
"""Bytes; a key with many certifications has a megabyte of its own."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an install needs to know of the host; nothing in a package can change it."""

    policy: Policy
    keyring: Path
    host: HostFile
    state: Path

    @property
    def requirement(self) -> Requirement:
        """What the policy requires in this host's environment."""
        return self.policy.requirement(self.host.environment)

    def verify(self, bundle: Bundle) -> VerifiedRelease:
        """Check who signed a release, against this host's policy for its environment.

        Raises:
            SignatureError, MalformedError: it is not to be trusted here.
        """
        now = int(time.time())
        environment = self.host.environment
        return verify_release(bundle.head, self.policy, environment, self.keyring, now)

    def approve(self, manifest: Manifest) -> Approved:
        """Find what lets a release in, among the approvals and receipts on this host.

        Raises:
            ApprovalError: nothing does, or the host's clock was set back.
        """
        if not self.requirement.needs_dossier:
            return Approved(None, ())
        now, environment = int(time.time()), self.host.environment
        require_forward(self.state / CLOCK, now)
        folder = CONFIGURATION / "approvals"
        dossiers = read_dossiers(folder, manifest, self.policy, self.keyring, now)
        return require_approved(manifest, self.policy, environment, dossiers, now)


def load_host() -> HostFile:
    """Read what this host is; there may be no policy yet.

    Raises:
        ConfigurationError: the host file is missing, malformed, or writable by others than root.
    """
    return parse_host_file(read_trusted(CONFIGURATION / "host.toml"))


def load_machine() -> Machine:
    """Read the host's configuration.

    Raises:
        ConfigurationError: a file is missing, malformed, or writable by others than root, or the
            policy was exchanged without authority.
    """
    keyring = CONFIGURATION / "keyring.pgp"
    require_binary_keyring(read_trusted(keyring, limit=KEYRING_LIMIT), keyring)
    host = load_host()
    # Last: a host remembers a policy only when all else is in order.
    policy = load_policy(CONFIGURATION, STATE, int(time.time()), remember=os.geteuid() == 0)
    return Machine(policy=policy, keyring=keyring, host=host, state=STATE)
