"""Every way in which the build side refuses or fails, with its exit code.

The numbers 50 to 59 belong to the build side; `installer.errors` has the others. Only
`packager.cli` catches these and exits.
"""

from collections.abc import Sequence
from typing import ClassVar, Self


class PackagerError(Exception):
    """Something was refused or failed: the message says what and where, the hint what next."""

    exit_code: ClassVar[int] = 1
    hint: ClassVar[str] = "This is a bug. Please report it."

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    @classmethod
    def of(cls, problems: Sequence[str], where: str) -> Self:
        """One error for all `problems`: a single one is its message, several are its detail."""
        if len(problems) == 1:
            return cls(problems[0])
        lines = "\n".join(f"  {problem}" for problem in problems)
        return cls(f"{where}: {len(problems)} problems", detail=lines)


class ProjectError(PackagerError):
    """`release.toml` or the repository is not what a release can be made of."""

    exit_code = 50
    hint = "Correct release.toml; docs/reference/release-toml.md describes every key."


class PlanError(PackagerError):
    """The scripts have no single order, or released ones were changed."""

    exit_code = 51
    hint = "Give every script one place in the order, and leave released scripts as they were."


class SqlError(PackagerError):
    """A script is not SQL that PostgreSQL's own parser accepts, or no release can run it."""

    exit_code = 52
    hint = (
        "Correct the script in the repository and tag the release again; "
        "docs/how-to/write-scripts.md says what a script may hold."
    )


class SigningError(PackagerError):
    """gpg made no signature, or a signature does not verify."""

    exit_code = 53
    hint = "`gpg --list-secret-keys` shows the keys that can sign; choose one with --key."


class ToolError(PackagerError):
    """A tool (git, svn, rpmbuild, rpmsign, gpg) is missing or failed."""

    exit_code = 54
    hint = "The tool's own words are above. `make setup` installs what a build needs."


class OutputError(PackagerError):
    """The package could not be written, or does not read back as it was meant."""

    exit_code = 55
    hint = "Nothing was left behind. Correct the cause and build again."


class StatementError(PackagerError):
    """A receipt, an approval or a withdrawal is not what it has to be, or is not signed."""

    exit_code = 56
    hint = "Nothing was signed or written."


class LintError(PackagerError):
    """squawk found more in the new scripts than [lint] in release.toml allows."""

    exit_code = 57
    hint = (
        "Correct the scripts and tag the release again, or change [lint]; "
        "`countersign check` shows all advice."
    )


class RehearsalError(PackagerError):
    """A release failed in its rehearsal, or a starting point could not be rebuilt for it."""

    exit_code = 58
    hint = (
        "The manifest will not say that this release was rehearsed. Correct the cause, tag the "
        "release again and rehearse it; docs/how-to/rehearse-a-release.md has the common causes."
    )
