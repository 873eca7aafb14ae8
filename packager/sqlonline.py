"""Judges the statements of online scripts, which run outside of the release's transaction.

Each is a transaction by itself (docs/decisions/0015). A host tells by what it begins with whether
it runs at the top level, or inside the function like those of any other script: there, what cannot
run inside a transaction stays refused.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pglast import ast
from pglast.parser import parse_sql

from installer.manifest import ConcurrentIndex, Online
from installer.quoting import quoted
from installer.runs import AT_TOP_LEVEL, SETTING
from packager.sqlrules import LONGEST, ONE_STATEMENT, ONE_TRANSACTION, ONLINE, Offence, reads_stdin

TOO_LONG = Offence(
    0,
    f"a statement of more than {LONGEST} characters, which cannot be judged, in an online script",
    "Divide it, or put it into a script that is not online.",
)
_ROWS = Offence(
    0,
    "COPY FROM STDIN has rows behind it, which no online script can have",
    "Put it into a script that is not online.",
)
_NO_NAME = Offence(
    0,
    "CREATE INDEX CONCURRENTLY does not name the index",
    "Name the index, so that an interrupted build can be recognised.",
)
_SEVERAL = Offence(
    0,
    "DROP INDEX CONCURRENTLY of several indexes",
    "Drop each in a statement of its own.",
)
_COMMENT = Offence(
    0,
    "a comment among the first words, by which a host tells how to run the statement",
    "Put the comment before the statement.",
)
_BATCHES = (ast.DeleteStmt, ast.InsertStmt, ast.MergeStmt, ast.UpdateStmt)
_SETTINGS = (ast.ConstraintsSetStmt, ast.VariableSetStmt)


def is_made_for_online(statement: str) -> bool:
    """Whether it runs in an online script only, or is a setting that may precede one that does."""
    return bool(AT_TOP_LEVEL.match(statement) or SETTING.match(statement))


def declaration(name: str) -> str:
    """The way out for a script that could be online as it is."""
    return (
        "Declare the script online in release.toml; it is then no part of the transaction:\n"
        f'[[database.online]]\nscript = {json.dumps(name, ensure_ascii=False)}\nwhen = "after"'
    )


def in_online_script(
    found: Iterable[Offence], root: ast.Node, statement: str, online: Online
) -> Iterator[Offence]:
    """What is wrong with a statement, in a script that is `online`.

    `found` is what would be wrong with it in a script that is part of the release's transaction.
    """
    if isinstance(root, ast.CopyStmt) and reads_stdin(root):
        yield _ROWS
        return
    for offence in found:
        if offence.way_out != ONLINE or not _runs_concurrently(root):
            yield _said_of_a_statement(offence)
    if _runs_concurrently(root):
        yield from _of_concurrent(root, statement)
    if online.repeat and not isinstance(root, _BATCHES + _SETTINGS):
        verb = statement.split(maxsplit=1)[0].upper()
        yield Offence(
            0,
            f"{verb} in a script with repeat, which runs a statement until it processes no row",
            "Leave repeat out, or write INSERT, UPDATE, DELETE or MERGE.",
        )


def concurrent_index(statement: str, run: int) -> ConcurrentIndex | None:
    """The index that run number `run` of an online script, a statement, makes or drops."""
    if len(statement) > LONGEST or not AT_TOP_LEVEL.match(statement):
        return None
    root: Any = parse_sql(statement)[0].stmt
    kind = type(root)
    if kind is ast.IndexStmt and root.idxname:
        return ConcurrentIndex(run, "create", quoted(root.relation.schemaname, root.idxname))
    if kind is ast.DropStmt and len(root.objects) == 1:
        return ConcurrentIndex(run, "drop", quoted(*(part.sval for part in root.objects[0])))
    return None


def _runs_concurrently(root: ast.Node) -> bool:
    """Whether it is one of those that a host runs at the top level."""
    if isinstance(root, ast.VacuumStmt):
        return bool(root.is_vacuumcmd)
    return isinstance(root, ast.IndexStmt | ast.DropStmt) and bool(root.concurrent)


def _of_concurrent(root: ast.Node, statement: str) -> Iterator[Offence]:
    if not AT_TOP_LEVEL.match(statement):
        yield _COMMENT
    if isinstance(root, ast.IndexStmt) and not root.idxname:
        yield _NO_NAME
    if isinstance(root, ast.DropStmt) and len(root.objects or ()) > 1:
        yield _SEVERAL


def _said_of_a_statement(offence: Offence) -> Offence:
    """`offence`, which is about the release's one transaction, as it is for a statement's own."""
    ways_out = {ONE_TRANSACTION: ONE_STATEMENT, ONLINE: "Write it as a statement by itself."}
    return replace(
        offence,
        words=offence.words.replace(
            "the release's transaction", "the statement's transaction"
        ).replace("inside the release's", "inside the statement's"),
        way_out=ways_out.get(offence.way_out, offence.way_out),
    )
