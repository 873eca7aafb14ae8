"""Every way in which the host side refuses or fails, with the exit code that tells them apart.

A class owns its exit code and its hint; a number is never reused for another meaning. Only
`installer.cli` catches these and exits.
"""

from typing import ClassVar


class InstallerError(Exception):
    """Something was refused or failed; the message says what and where.

    `verdict` is what became of the release, `state` what things are in, `hint` what to do next.
    `detail` is further lines, such as the source line of a script.
    """

    exit_code: ClassVar[int] = 1
    verdict: str = "was not installed"
    state: str = "The database and the application are unchanged."
    hint: ClassVar[str] = "This is a bug. Please report it with the log in /var/log/countersign/."

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ConfigurationError(InstallerError):
    """Policy or host file: missing, malformed, or writable by others."""

    exit_code = 10
    hint = "Correct the configuration in /etc/countersign, then install again."


class SignatureError(InstallerError):
    """A signature is bad, or the trusted ones do not reach what the policy requires."""

    exit_code = 20
    hint = "Obtain a package that carries the signatures which this host's policy requires."


class MalformedError(InstallerError):
    """The manifest or the bundle is not what a build writes."""

    exit_code = 21
    hint = "The package is damaged or was not built by countersign. Obtain it again."


class DigestError(InstallerError):
    """Content does not match the digest that was signed."""

    exit_code = 22
    hint = "The package was changed after it was signed. Obtain it again from its origin."


class ApprovalError(InstallerError):
    """The approval or the receipt that this environment requires is missing, or is not good."""

    exit_code = 23
    hint = (
        "Put the customer's signed approval, with the receipt it names, into a folder below "
        "/etc/countersign/approvals, then install again."
    )


class ClockError(ApprovalError):
    """The host's clock is behind a time that it has shown before."""

    hint = (
        "Set the clock right. If it was ahead by mistake, correct what is kept of it, in "
        "/var/lib/countersign/clock.txt."
    )


class DowngradeError(InstallerError):
    """The release is older than what this host or its database already has."""

    exit_code = 24
    hint = "Releases only go forward. To undo a change, build a new release that reverts it."


class DatabaseUnavailableError(InstallerError):
    """The database cannot be reached, or is not one that a release may be applied to."""

    exit_code = 30
    hint = "Make the database reachable as the host file names it, then install again."


class LockedError(InstallerError):
    """Another install, or another session, holds what this one needs."""

    exit_code = 31
    hint = "Nothing was changed. Install again when the other work is done."


class LockTimeoutError(LockedError):
    """A statement waited for a lock for as long as it may; the transaction can be tried again.

    `holders` are the sessions that hold the lock, as far as they are known.
    """

    holders: tuple[str, ...] = ()

    @property
    def held(self) -> list[str]:
        """The holders, each as a line for people."""
        return [f"held by {holder}" for holder in self.holders]

    def name_holders(self) -> None:
        """Let the detail end with the holders."""
        self.detail = "\n".join(filter(None, [self.detail, *self.held]))

    hint = (
        "Nothing was changed. Install again when the sessions named have ended, or give it more "
        "time: lock_wait in /etc/countersign/host.toml."
    )


class PlanDivergedError(InstallerError):
    """The ledger and the release disagree about what was applied."""

    exit_code = 32
    hint = (
        "Released scripts are fixed. Build a release that agrees with the ledger; "
        "`countersign-install history` shows what was applied."
    )


class ScriptFailedError(InstallerError):
    """A script failed and the whole release was rolled back."""

    exit_code = 33
    hint = "Correct the script, build a new release and sign it."


class OutcomeUnknownError(InstallerError):
    """The connection was lost during COMMIT."""

    exit_code = 34
    verdict = "may or may not be installed"
    state = "It is not known whether the database change stands; the application is unchanged."
    hint = "Run `countersign-install recover`: it asks the database which side of COMMIT it is on."


class OnlineUnfinishedError(InstallerError):
    """An online script failed: outside of the release's transaction, so that `state` says more."""

    exit_code = 37
    hint = (
        "Mend what the message names, and install the same package again: it goes on behind the "
        "last statement that was applied. The ledger has each: `countersign-install history`."
    )


class SchemaDiffersError(InstallerError):
    """The database's schema is not what the environment before measured; see `detail`."""

    exit_code = 35
    hint = (
        "Bring the named objects into the state that was tested, or test the release again on a "
        "copy of this database and have that receipt approved."
    )


class BackupError(InstallerError):
    """The host file demands a fresh backup of the database, and there is none, or none is known."""

    exit_code = 36
    hint = (
        "Make a backup, or mend what hides it. When `countersign-install check` finds it, install "
        "again."
    )


class StorageError(InstallerError):
    """A file could not be read or written, here or on the database server: a full disk, for one."""

    exit_code = 38
    hint = "Make room on the disk that the message is about, or mend it, then install again."


class ApplicationError(InstallerError):
    """The application's tree differs from what was signed, or a patch does not apply."""

    exit_code = 40
    hint = (
        "Restore the named files (the previous release's tree is kept beside it), "
        "then install again."
    )


class NotSwitchedError(InstallerError):
    """The database change is committed, the application was not switched."""

    exit_code = 41
    verdict = "is not wholly installed"
    state = "The database change stands; the application is still the old one."
    hint = "Run `countersign-install recover`: it finishes the switch."


class LedgerTamperedError(InstallerError):
    """The ledger is not what was written, or not what was outside of the database says it was."""

    exit_code = 42
    hint = (
        "Keep the database, the receipts and this report as they are, and find out who restored or "
        "changed what: docs/how-to/audit.md. Nothing was changed."
    )
