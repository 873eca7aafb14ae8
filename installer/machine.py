"""This host as its administrator set it up: policy, keys, host file, and where state is kept."""

import time
from dataclasses import dataclass
from pathlib import Path

from installer.bundle import Bundle
from installer.host_file import HostFile, parse_host_file
from installer.policy import Policy, parse_policy
from installer.signatures import VerifiedRelease, require_binary_keyring, verify_release
from installer.trusted_files import read_trusted

CONFIGURATION = Path("/etc/countersign")
STATE = Path("/var/lib/countersign")
LOGS = Path("/var/log/countersign")
KEYRING_LIMIT = 16 * 1024 * 1024
"""Bytes; a key with many certifications has a megabyte of its own."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an install needs to know of the host; nothing in a package can change it."""

    policy: Policy
    keyring: Path
    host: HostFile
    state: Path

    def verify(self, bundle: Bundle) -> VerifiedRelease:
        """Check who signed a release, against this host's policy for its environment.

        Raises:
            SignatureError, MalformedError: it is not to be trusted here.
        """
        now = int(time.time())
        environment = self.host.environment
        return verify_release(bundle.head, self.policy, environment, self.keyring, now)


def load_machine() -> Machine:
    """Read the host's configuration.

    Raises:
        ConfigurationError: a file is missing, malformed, or writable by others than root.
    """
    keyring = CONFIGURATION / "keyring.pgp"
    require_binary_keyring(read_trusted(keyring, limit=KEYRING_LIMIT), keyring)
    return Machine(
        policy=parse_policy(read_trusted(CONFIGURATION / "policy.toml")),
        keyring=keyring,
        host=parse_host_file(read_trusted(CONFIGURATION / "host.toml")),
        state=STATE,
    )
