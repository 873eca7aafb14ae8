"""Every way in which a refresh refuses or fails, with its exit code.

The numbers 60 to 69 belong to it. They are the installer's errors, which the command line knows.
"""

from installer.errors import ConfigurationError, InstallerError


class RefreshError(InstallerError):
    """A refresh was refused or failed: the message says what and where, the hint what next."""

    verdict = "was not refreshed"
    state = "Source and target are unchanged."


class RefreshFileError(ConfigurationError):
    """`refresh.toml` is missing, malformed, or names what the source does not have."""

    state = RefreshError.state
    hint = "Correct refresh.toml; docs/how-to/refresh-qat.md describes every key."


class NoReportError(RefreshFileError):
    """There is no report to show."""

    hint = "`countersign refresh run` writes one, into the folder that --output names."


class NoPlaceError(RefreshFileError):
    """A file cannot be written where it was to be."""

    hint = "Nothing was changed. Name another place, with --configuration or --output."


class WrongWayError(RefreshError):
    """The target may not be written: it is production, the source itself, or newer than it."""

    exit_code = 60
    hint = "Nothing was opened for writing. See whether [source] and [target] are the right ones."


class NotReadyError(RefreshError):
    """Something is missing that has to be there first: roles, extensions, programs, rights."""

    exit_code = 61
    hint = "Nothing was changed. Make what is missing, then run it again."


class SourceError(RefreshError):
    """The source cannot be reached or read."""

    exit_code = 62
    hint = "The source was only read, the target's database is as it was. Mend it, then run again."


class TargetError(RefreshError):
    """The target cannot be reached, or refused what was done to it."""

    exit_code = 63
    hint = "The target's database is as it was. Mend what the message names, then run again."


class CopyError(RefreshError):
    """Rows, or a section of the schema, did not get from the source to the target."""

    exit_code = 64
    hint = "The target's database is as it was; what was built beside it is gone. Then run again."


class DiffersError(RefreshError):
    """What was built is not what the source is: rows or schema differ, as `detail` shows."""

    exit_code = 65
    hint = "The target's database is as it was, and what was built beside it was dropped."


class NotKeptError(RefreshError):
    """The refresh is done, and its report could not be kept; so the old database is."""

    exit_code = 68
    verdict = "is refreshed, without a report"
    state = "The new database has its name, and the old one is kept beside it."
    hint = "Make room for the report. Drop the old database yourself when the new one is good."


class UnclassifiedError(RefreshError):
    """A column has no class of mask, or one that does not fit it."""

    exit_code = 66
    hint = "Give every column a class in refresh.toml; docs/how-to/mask-dev.md describes them."


class RawValueError(RefreshError):
    """A masked copy would tell values that its masks hide; `detail` says where, and not which."""

    exit_code = 69
    hint = (
        "The target's database is as it was. What to change, or to allow in refresh.toml, is in "
        "docs/how-to/mask-dev.md, under What is proved."
    )


class SubsetError(RefreshError):
    """The rows that a subset asks for cannot be found, or are none."""

    exit_code = 67
    hint = "Correct [[subset]] and [[reference]] in refresh.toml, then run it again."
