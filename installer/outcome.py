"""How an install ended well."""

from dataclasses import dataclass

from installer.transaction import ScriptRun


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, in a word, and the scripts that ran."""

    product: str
    version: str
    result: str
    scripts: tuple[ScriptRun, ...] = ()
