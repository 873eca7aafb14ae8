"""The host's own key: what this host measured, it signs.

The only module that runs gpg. The key is in a GNUPGHOME of its own, without a passphrase: whoever
is root on the host can sign in its name. The agent that gpg starts is ended again, so that no
process outlives an install.
"""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryFile

from installer.durable import write_file
from installer.errors import ConfigurationError
from installer.tools import run, words

FOLDER = "host-key"
"""The GNUPGHOME, in the folder where the host keeps its state."""

GPG = "/usr/bin/gpg"
GPGCONF = "/usr/bin/gpgconf"
QUIET = ("--batch", "--no-tty", "--quiet", "--no-options", "--no-permission-warning")
UNATTENDED = ("--pinentry-mode", "loopback", "--passphrase", "")
PLAIN = (
    "--armor",
    "--digest-algo",
    "SHA512",
    "--no-textmode",
    "--no-comments",
    "--no-emit-version",
)


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A host's key: where its public half is, and what a policy has to say of it."""

    fingerprint: str
    public: Path
    identity: tuple[str, ...]


class HostKey:
    """The key in the GNUPGHOME `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def fingerprint(self) -> str | None:
        """The key's fingerprint; None where there is no key."""
        if not self._home.is_dir():
            return None
        listed = self._gpg("--with-colons", "--list-secret-keys").stdout.decode()
        found = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
        return found[1] if found else None

    def create(self, host: str) -> str:
        """Make the key, and return its fingerprint.

        Raises:
            ConfigurationError: gpg is missing or failed.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = f"countersign host {host}"
        self._require(self._gpg("--quick-generate-key", user, "ed25519", "sign", "never"))
        made = self.fingerprint()
        if made is None:
            raise ConfigurationError(f"gpg made no key in {self._home}")
        return made

    def public(self) -> bytes:
        """The public key, armoured, for those who write policies."""
        return self._require(self._gpg("--armor", "--export")).stdout

    def keyring(self) -> bytes:
        """The public key in the form that gpgv reads; empty where there is no key."""
        return self._require(self._gpg("--export")).stdout if self._home.is_dir() else b""

    def sign(self, data: bytes) -> bytes:
        """An armoured detached signature of `data`.

        Raises:
            ConfigurationError: there is no key, or gpg is missing or failed.
        """
        return self._require(self._gpg(*PLAIN, "--detach-sign", data=data)).stdout

    def _require(self, done: CompletedProcess[bytes]) -> CompletedProcess[bytes]:
        if done.returncode:
            raise ConfigurationError(f"the host's key in {self._home}: {words(done)}")
        return done

    def _gpg(self, *arguments: str, data: bytes = b"") -> CompletedProcess[bytes]:
        home = ("--homedir", str(self._home))
        with TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            done = run([GPG, *home, *QUIET, *UNATTENDED, *arguments], stdin=stdin)
        run([GPGCONF, *home, "--kill", "gpg-agent"])
        return done


def make_host_key(state: Path, environment: str) -> MadeKey:
    """Make the host's key, unless there is one, and write its public half beside it.

    Raises:
        ConfigurationError: gpg is missing or failed.
    """
    host, key = socket.gethostname(), HostKey(state / FOLDER)
    fingerprint = key.fingerprint() or key.create(host)
    public = state / f"{FOLDER}.asc"
    write_file(public, key.public())
    identity = (
        "[[identity]]",
        f'name = "{host}"',
        'role = "host"',
        f'environment = "{environment}"',
        f'fingerprints = ["{fingerprint}"]',
    )
    return MadeKey(fingerprint, public, identity)
