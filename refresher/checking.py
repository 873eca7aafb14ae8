"""Whether a release adds a column that has no rule: what `countersign check` asks of a refresh.

It is an entry point of the group `countersign.checks`. It compares names, and nothing else: whether
a class fits its column, the source's catalog says when a refresh runs.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from refresher.configuration import FILE, parse_configuration
from refresher.errors import RefreshFileError, UnclassifiedError
from refresher.rules import Rules
from refresher.suggestions import heading, key

Added: TypeAlias = tuple[str, int, str, str, str]
"""Script, line, schema, table and column. No schema: that which the search path says, which is not
known here. No column: the table has some whose names the script does not say."""


def check(folders: Sequence[Path], columns: Iterable[Added]) -> str:
    """Refuse columns without a class, if the first of `folders` with a refresh.toml masks.

    A table whose schema is not known has the rules of the tables of that name in any schema. One
    whose columns are not known has to have some rule.

    Raises:
        RefreshFileError: refresh.toml cannot be read, or is malformed.
        UnclassifiedError: `detail` has a line for each column, and what to write.
    """
    rules = _rules(folders)
    if rules is None:
        return ""
    added = list(columns)
    missing = [column for column in added if not _has_class(column, rules)]
    if missing:
        raise _refusal(missing, rules)
    return f"new columns with a class in {FILE}: {len(added)}" if added else ""


def _rules(folders: Sequence[Path]) -> Rules | None:
    """The rules of the nearest refresh.toml; None where there is none, or it copies."""
    for folder in folders:
        try:
            text = (folder / FILE).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RefreshFileError(f"{folder / FILE}: {error.strerror}") from None
        configuration = parse_configuration(text)
        return configuration.rules if configuration.mode == "masked" else None
    return None


def _has_class(added: Added, rules: Rules) -> bool:
    *_, column = added
    named = [rules[table] for table in _tables(added, rules)]
    return any(column in columns if column else columns for columns in named)


def _tables(added: Added, rules: Rules) -> list[str]:
    """The tables with rules that may be the one that a column was added to."""
    _, _, schema, table, _ = added
    if schema:
        return [name for name in rules if name == f"{schema}.{table}"]
    return [name for name in rules if name.endswith(f".{table}")]


def _refusal(missing: Sequence[Added], rules: Rules) -> UnclassifiedError:
    problems = [_problem(added) for added in missing]
    entries: dict[str, dict[str, None]] = {}
    for added in missing:
        *_, schema, table, column = added
        name = next(iter(_tables(added, rules)), f"{schema or '…'}.{table}")
        entry = f'{key(column)} = {{ class = "…" }}' if column else "# each of its columns"
        entries.setdefault(heading(name), {})[entry] = None
    lines = [line for name, below in entries.items() for line in (name, *below)]
    if len(problems) == 1:
        return UnclassifiedError(problems[0], detail="\n".join(lines))
    message = f"{FILE} lacks what the release adds: {len(problems)} problems"
    return UnclassifiedError(message, detail="\n".join([*problems, *lines]))


def _problem(added: Added) -> str:
    script, line, schema, table, column = added
    name = ".".join(filter(None, (schema, table, column)))
    if column:
        return f"{script}:{line}: {name} has no class in {FILE}"
    return f"{script}:{line}: {name} has no rules in {FILE}, and columns that are not named here"
