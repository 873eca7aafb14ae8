"""What is selected of each column in masked mode, and the key that the masks are made with.

psql passes it on, for which a backslash outside of quotes begins a command of its own. So an
expression that has one is refused, and so is one whose quotes are not closed.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from installer.quoting import quoted
from refresher.classification import masked_columns, require_classified, rules_of
from refresher.errors import RefreshFileError, UnclassifiedError
from refresher.masks import expression
from refresher.model import Catalog, Column, Table, TableName
from refresher.rules import Rule, Rules

Selected = Mapping[TableName, Mapping[str, str]]
"""SQL by table and column; a table that is not there is copied as it is."""

# PostgreSQL, "Lexical Structure": E'…', '…', "…", $tag$…$tag$ and comments.
_QUOTED = re.compile(
    r"""\b[eE]'(?:[^'\\]|\\.|'')*'|(?<!\b[eE])'(?:[^']|'')*'|"(?:[^"]|"")*"|(\$\w*\$).*?\1|--[^\n]*""",
    re.DOTALL,
)
_KEY = re.compile(r"[0-9a-f]{64}\n?")
_OTHERS = 0o077


def selected(catalog: Catalog, rules: Rules) -> Selected:
    """What is selected for each column, once every one has a mask that holds.

    Raises:
        UnclassifiedError: `detail` names every column for which that is not so.
    """
    require_classified(catalog, rules)
    found: dict[TableName, dict[str, str]] = {}
    for table in catalog.tables:
        if not table.is_partitioned and (columns := masked_columns(table)):
            own = rules_of(catalog, table, rules)
            found[table.name] = {c.name: _selected(c, own[c.name], table) for c in columns}
    return found


def read_key(file: Path) -> str:
    """The key in a file, as 64 hexadecimal digits. No message repeats what is in it.

    Raises:
        RefreshFileError: it cannot be read, others can read it, or it is no key.
    """
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise RefreshFileError(f"{file}: {error.strerror}") from None
    if mode & _OTHERS:
        raise RefreshFileError(f"{file}: others can read the key; run: chmod 600 {file}")
    if not _KEY.fullmatch(text):
        raise RefreshFileError(
            f"{file} does not hold 64 hexadecimal digits; run: openssl rand -hex 32 > {file}"
        )
    return text.strip()


def _selected(column: Column, rule: Rule, table: Table) -> str:
    name = quoted(column.name)
    if rule.kind == "keep":
        return name
    text = expression(column, rule, table)
    if re.search(r"""[\\'"]""", _QUOTED.sub(" ", text)):
        raise UnclassifiedError(
            f"column {column.name}: its expression has a backslash outside of quotes, which is a "
            "command of psql's, or quotes that are not closed"
        )
    return f"{text} AS {name}"
