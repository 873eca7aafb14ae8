"""A `refresh.toml` to begin with: for a copy all that it needs, for masks every column there is.

What could not be suggested is there as a comment, and stops the run by name until it has a class.
"""

import json
from dataclasses import dataclass

from refresher.catalog import read_source
from refresher.configuration import parse_configuration
from refresher.ends import source_end
from refresher.preparing import BEGIN
from refresher.suggestions import section

KEY = "/etc/countersign/mask.key"


@dataclass(frozen=True, slots=True)
class Answers:
    """What is asked of whoever begins; `source` and `target` are conninfos."""

    mode: str
    environment: str
    source: str
    target: str
    database: str
    owner: str


def beginning(answers: Answers) -> str:
    """The text of the file. In masked mode the source's catalog is read.

    Raises:
        RefreshFileError: an answer cannot be in the file.
        SourceError: the source cannot be read.
    """
    text = _head(answers)
    parse_configuration(text.encode())
    if answers.mode == "copy":
        return text
    with source_end(answers.source).session() as session:
        session.execute(BEGIN)
        catalog = read_source(session).catalog
    return f"{text}\n{section(catalog)}"


def _head(answers: Answers) -> str:
    refresh = {"mode": answers.mode, "environment": answers.environment}
    if answers.mode == "masked":
        refresh["key"] = KEY
    tables = {
        "refresh": refresh,
        "source": {"conninfo": answers.source},
        "target": {
            "conninfo": answers.target,
            "database": answers.database,
            "owner": answers.owner,
        },
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(text)}\n" for key, text in table.items())
        for name, table in tables.items()
    )
