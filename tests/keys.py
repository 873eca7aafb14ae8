"""Throw-away OpenPGP keys for tests and the demo, made and used by the real gpg.

    with Keyring.create() as keys:
        ada = keys.new_key("Ada Developer <ada@example.org>")
        signature = keys.sign(manifest, ada)
        keyring = keys.export([ada])

The keys have no passphrase, and live in a GNUPGHOME that is removed, agent and all, by `close`.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

GPG = ("gpg", "--batch", "--no-tty", "--quiet", "--yes", "--no-permission-warning")
UNATTENDED = ("--pinentry-mode", "loopback", "--passphrase", "")
LONGEST_HOME = 80
"""Bytes in GNUPGHOME: the agent's socket lies in it, and Linux allows a socket's path 107."""


class GpgError(Exception):
    """gpg failed; the message is what it said."""


class Keyring:
    """Secret and public keys in a GNUPGHOME of their own (`home`)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            "GNUPGHOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
        }

    @classmethod
    def create(cls, folder: Path | None = None) -> Self:
        """Make an empty keyring in `folder`, or in a new temporary folder.

        Raises:
            ValueError: the path of `folder` is too long for the agent's socket.
        """
        home = folder or Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        if len(os.fsencode(home)) > LONGEST_HOME:
            raise ValueError(f"{home}: longer than {LONGEST_HOME} bytes; use Keyring.create()")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        return cls(home)

    def close(self) -> None:
        """Stop the agent and remove the keys."""
        command = ["gpgconf", "--homedir", str(self.home), "--kill", "all"]
        subprocess.run(command, env=self.environment, check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run gpg on these keys, `data` on its stdin, and return what it printed on stdout.

        Raises:
            GpgError: gpg failed.
        """
        command = [*GPG, *UNATTENDED, *arguments]
        done = subprocess.run(
            command, input=data, env=self.environment, check=False, capture_output=True
        )
        if done.returncode:
            raise GpgError(f"{' '.join(command)}:\n{done.stderr.decode(errors='replace')}")
        return done.stdout

    def new_key(
        self, user: str, *, expires: str = "never", created: str = "", algorithm: str = "ed25519"
    ) -> str:
        """Make a key that signs, and return its primary fingerprint.

        `created` is a time in the past or future, such as "20200131T120000"; `expires` is counted
        from there ("1y"), or a date ("2021-01-31").
        """
        status = self.gpg(
            *_at(created),
            *("--status-fd", "1"),
            *("--quick-generate-key", user, algorithm, "sign", expires),
        )
        found = re.search(rb"KEY_CREATED P ([0-9A-F]{40})", status)
        assert found, status
        return found[1].decode()

    def add_subkey(self, primary: str, *, expires: str = "never", created: str = "") -> str:
        """Add a subkey that signs to the key `primary`, and return the subkey's fingerprint."""
        before = set(self.fingerprints(primary))
        self.gpg(*_at(created), "--quick-add-key", primary, "ed25519", "sign", expires)
        (added,) = set(self.fingerprints(primary)) - before
        return added

    def fingerprints(self, primary: str) -> list[str]:
        """The fingerprints of a key and its subkeys, the primary first."""
        listed = self.gpg("--with-colons", "--list-keys", primary).decode()
        return re.findall(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)

    def revoke(self, primary: str) -> None:
        """Revoke a key with the certificate that gpg made along with it."""
        certificate = (self.home / "openpgp-revocs.d" / f"{primary}.rev").read_bytes()
        # A colon before the armour keeps people from importing the file by accident.
        self.gpg("--import", data=certificate.replace(b":-----BEGIN", b"-----BEGIN"))

    def sign(
        self, data: bytes, fingerprint: str, *extra_arguments: str, created: str = ""
    ) -> bytes:
        """An armoured detached signature of `data` by exactly this key or subkey."""
        return self.gpg(
            *_at(created),
            *("--armor", "--local-user", f"{fingerprint}!"),
            *extra_arguments,
            "--detach-sign",
            data=data,
        )

    def export(self, fingerprints: Sequence[str], *, armour: bool = False) -> bytes:
        """The public keys, in the binary form that gpgv reads, or armoured."""
        if not fingerprints:
            return b""
        return self.gpg(*(("--armor",) if armour else ()), "--export", *fingerprints)


def _at(moment: str) -> tuple[str, ...]:
    return ("--faked-system-time", f"{moment}!") if moment else ()
