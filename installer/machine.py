"""This host as its administrator set it up: policy, keys, host file, and where state is kept."""

from dataclasses import dataclass
from pathlib import Path

from installer.host_file import HostFile, parse_host_file
from installer.policy import Policy, parse_policy
from installer.trusted_files import read_trusted

CONFIGURATION = Path("/etc/countersign")
STATE = Path("/var/lib/countersign")
LOGS = Path("/var/log/countersign")


@dataclass(frozen=True, slots=True)
class Machine:
    """What an install needs to know of the host; nothing in a package can change it."""

    policy: Policy
    keyring: Path
    host: HostFile
    state: Path


def load_machine() -> Machine:
    """Read the host's configuration.

    Raises:
        ConfigurationError: a file is missing, malformed, or writable by others than root.
    """
    keyring = CONFIGURATION / "keyring.pgp"
    read_trusted(keyring)
    return Machine(
        policy=parse_policy(read_trusted(CONFIGURATION / "policy.toml")),
        keyring=keyring,
        host=parse_host_file(read_trusted(CONFIGURATION / "host.toml")),
        state=STATE,
    )
