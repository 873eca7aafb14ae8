"""The rules by which the build refuses what no release can run: a table of them.

A rule is about one kind of node in PostgreSQL's parse tree, and gives the words and the way out.
What has no rule is for the server to judge.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pglast import ast
from pglast.enums import (
    AlterSubscriptionType,
    AlterTableType,
    DiscardMode,
    ReindexObjectType,
    TransactionStmtKind,
    VariableSetKind,
)

LONGEST = 32 * 1024
"""Characters of a statement that is judged. The tree of `1+1+…` is as deep as that is long, and
pglast, which walks it by recursion, crashes at about twice this depth."""

ONE_TRANSACTION = "Leave it out: a release is one transaction, which the installer ends."
ONE_STATEMENT = "Leave it out: each statement of an online script is a transaction by itself."
ONLINE = (
    "Put it into a script of its own, and declare that online in release.toml: [[database.online]]."
)
"""The way out for what an online script may run (docs/decisions/0015)."""
_WITHOUT_CONCURRENTLY = "Leave CONCURRENTLY out; others wait for the table meanwhile."
_NEW_INDEX = (
    "Leave CONCURRENTLY out; or, in an online script, make a new index CONCURRENTLY and drop the "
    "old one."
)
_BY_HAND = "Leave it out; an administrator can run it outside of the release."
_ONE_ROLE = "Leave it out: a release runs as the owner role that the host file names, throughout."
_IN_THE_SCRIPT = "Put the rows into the script: behind COPY … FROM STDIN, or as INSERT."


@dataclass(frozen=True, slots=True)
class Offence:
    """Something that no release can run, `line` lines below the first of its statement."""

    line: int
    words: str
    way_out: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What is wrong with a node of type `kind` of which `applies` holds.

    In `words`, `{}` is what `applies` returned, or the statement's first word if that is True.
    """

    kind: type[ast.Node]
    applies: Callable[[Any], object]
    words: str
    way_out: str


# ------------------------------------------------------------------------------ when a rule applies


def _always(_: ast.Node) -> bool:
    return True


def _is(attribute: str, *values: object) -> Callable[[Any], bool]:
    return lambda node: getattr(node, attribute) in (values or (True,))


def _option(options: tuple[Any, ...] | None, name: str, *, default: bool) -> bool:
    """A boolean option as PostgreSQL reads it: without a value it is on."""
    for option in options or ():
        if option.defname == name:
            names = getattr(option.arg, "names", None)  # a bare `off` looks like a type
            value = names[-1] if names else option.arg
            word = value and getattr(value, next(iter(value)))
            return str(word).lower() not in {"false", "off", "0"}
    return default


def reads_stdin(copy: ast.CopyStmt) -> bool:
    """Whether its data comes from the client."""
    return bool(copy.is_from) and not (copy.filename or copy.is_program)


def _writes_stdout(copy: ast.CopyStmt) -> bool:
    return not (copy.is_from or copy.filename or copy.is_program)


def _reads_file(copy: ast.CopyStmt) -> bool:
    return bool(copy.is_from and copy.filename) and not copy.is_program


def _writes_file(copy: ast.CopyStmt) -> bool:
    return bool(copy.filename) and not (copy.is_from or copy.is_program)


def _concurrently(reindex: ast.ReindexStmt) -> bool:
    return _option(reindex.params, "concurrently", default=False)


def _of_many_tables(reindex: ast.ReindexStmt) -> str:
    return _MANY_TABLES.get(reindex.kind, "")


_MANY_TABLES: dict[object, str] = {
    ReindexObjectType.REINDEX_OBJECT_SCHEMA: "SCHEMA",
    ReindexObjectType.REINDEX_OBJECT_SYSTEM: "SYSTEM",
    ReindexObjectType.REINDEX_OBJECT_DATABASE: "DATABASE",
}


def _is_into(select: ast.SelectStmt) -> bool:
    return select.intoClause is not None


def _makes_slot(subscription: ast.CreateSubscriptionStmt) -> bool:
    options = ("connect", "create_slot")
    return all(_option(subscription.options, option, default=True) for option in options)


def _refreshes(subscription: ast.AlterSubscriptionStmt) -> bool:
    asked = subscription.kind == AlterSubscriptionType.ALTER_SUBSCRIPTION_REFRESH
    implied = subscription.kind in _REFRESH
    return asked or (implied and _option(subscription.options, "refresh", default=True))


_REFRESH = (
    AlterSubscriptionType.ALTER_SUBSCRIPTION_SET_PUBLICATION,
    AlterSubscriptionType.ALTER_SUBSCRIPTION_ADD_PUBLICATION,
    AlterSubscriptionType.ALTER_SUBSCRIPTION_DROP_PUBLICATION,
)


def _detaches(command: ast.AlterTableCmd) -> bool:
    detaches = command.subtype == AlterTableType.AT_DetachPartition
    return detaches and bool(getattr(command.def_, "concurrent", False))


def _moves(database: ast.AlterDatabaseStmt) -> bool:
    return any(option.defname == "tablespace" for option in database.options or ())


def _characteristics(setting: ast.VariableSetStmt) -> str:
    return str(setting.name) if setting.kind == VariableSetKind.VAR_SET_MULTI else ""


def _role(setting: ast.VariableSetStmt) -> str:
    name = _ROLE_SETTINGS.get(str(setting.name).lower(), "")
    verb = "RESET" if setting.kind == VariableSetKind.VAR_RESET else "SET"
    return name and f"{verb} {name}"


_ROLE_SETTINGS = {"role": "ROLE", "session_authorization": "SESSION AUTHORIZATION"}


def _other_encoding(setting: ast.VariableSetStmt) -> str:
    if str(setting.name).lower() != "client_encoding" or not setting.args:
        return ""
    value = str(getattr(setting.args[0].val, "sval", ""))
    same = re.sub("[^a-z0-9]", "", value.lower()) in {"utf8", "unicode", "sqlascii"}
    return "" if same else value


def _function(call: ast.FuncCall) -> str:
    """The name of a function that is PostgreSQL's own: in pg_catalog, or in no schema."""
    *schema, name = (part.sval for part in call.funcname or ())
    return str(name) if schema in ([], ["pg_catalog"]) else ""


def _file_function(call: ast.FuncCall) -> str:
    name = _function(call)
    return name if name in _FILE_FUNCTIONS else ""


_FILE_FUNCTIONS = (
    "lo_export",
    "lo_import",
    "pg_file_rename",  # this and the like: adminpack, until PostgreSQL 16
    "pg_file_sync",
    "pg_file_unlink",
    "pg_file_write",
    "pg_ls_dir",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_stat_file",
)


def _role_config(call: ast.FuncCall) -> str:
    if _function(call) != "set_config" or not call.args:
        return ""
    name = str(getattr(getattr(call.args[0], "val", None), "sval", ""))
    return name if name.lower() in _ROLE_SETTINGS else ""


# --------------------------------------------------------------------------------------- the rules

STORED = (
    ast.AlterDatabaseSetStmt,
    ast.AlterFunctionStmt,
    ast.AlterPolicyStmt,
    ast.AlterRoleSetStmt,
    ast.CreateFunctionStmt,
    ast.CreatePolicyStmt,
    ast.CreateStmt,
    ast.CreateTrigStmt,
    ast.RuleStmt,
    ast.ViewStmt,
)
"""Statements whose expressions, queries and settings are kept for later."""


def _transaction(words: str, *kinds: str) -> Rule:
    members = [TransactionStmtKind[f"TRANS_STMT_{kind}"] for kind in kinds]
    return Rule(ast.TransactionStmt, _is("kind", *members), words, ONE_TRANSACTION)


def _alone(
    kind: type[ast.Node], applies: Callable[[Any], object], name: str, way_out: str = _BY_HAND
) -> Rule:
    """Of a statement that has to be a transaction by itself."""
    return Rule(kind, applies, f"{name} cannot run inside a transaction", way_out)


_IN_ORDER = (
    _transaction("BEGIN begins a transaction inside the release's", "BEGIN"),
    _transaction("START TRANSACTION begins a transaction inside the release's", "START"),
    _transaction("{} ends the release's transaction", "COMMIT", "ROLLBACK"),
    _transaction("SAVEPOINT divides the release's transaction", "SAVEPOINT"),
    _transaction("RELEASE divides the release's transaction", "RELEASE"),
    _transaction("ROLLBACK TO divides the release's transaction", "ROLLBACK_TO"),
    _transaction("PREPARE TRANSACTION ends the release's transaction", "PREPARE"),
    _transaction(
        "{} PREPARED cannot run inside a transaction", "COMMIT_PREPARED", "ROLLBACK_PREPARED"
    ),
    Rule(
        ast.VariableSetStmt,
        _characteristics,
        "SET {} changes the release's transaction",
        ONE_TRANSACTION,
    ),
    _alone(ast.IndexStmt, _is("concurrent"), "CREATE INDEX CONCURRENTLY", ONLINE),
    _alone(ast.DropStmt, _is("concurrent"), "DROP INDEX CONCURRENTLY", ONLINE),
    _alone(ast.ReindexStmt, _concurrently, "REINDEX CONCURRENTLY", _NEW_INDEX),
    _alone(ast.AlterTableCmd, _detaches, "DETACH PARTITION CONCURRENTLY", _WITHOUT_CONCURRENTLY),
    _alone(ast.ReindexStmt, _of_many_tables, "REINDEX {}"),
    _alone(ast.VacuumStmt, _is("is_vacuumcmd"), "VACUUM", ONLINE),
    _alone(ast.ClusterStmt, _is("relation", None), "CLUSTER without a table"),
    _alone(ast.CreatedbStmt, _always, "CREATE DATABASE"),
    _alone(ast.DropdbStmt, _always, "DROP DATABASE"),
    _alone(ast.AlterDatabaseStmt, _moves, "ALTER DATABASE … SET TABLESPACE"),
    _alone(ast.CreateTableSpaceStmt, _always, "CREATE TABLESPACE"),
    _alone(ast.DropTableSpaceStmt, _always, "DROP TABLESPACE"),
    _alone(ast.AlterSystemStmt, _always, "ALTER SYSTEM"),
    _alone(
        ast.DiscardStmt,
        _is("target", DiscardMode.DISCARD_ALL),
        "DISCARD ALL",
        "Leave it out: every script begins with the session as it was at the start.",
    ),
    _alone(
        ast.CreateSubscriptionStmt,
        _makes_slot,
        "CREATE SUBSCRIPTION that makes a slot",
        "Add WITH (create_slot = false), and have an administrator make the slot.",
    ),
    _alone(
        ast.AlterSubscriptionStmt,
        _refreshes,
        "ALTER SUBSCRIPTION that refreshes it",
        "Add WITH (refresh = false), and have an administrator refresh it after the release.",
    ),
    _alone(
        ast.DropSubscriptionStmt,
        _always,
        "DROP SUBSCRIPTION of one that has a slot",
        "Put DISABLE and SET (slot_name = NONE) before it, by ALTER SUBSCRIPTION in the same "
        "script; an administrator drops the slot.",
    ),
    Rule(
        ast.SelectStmt,
        _is_into,
        "SELECT INTO cannot run in a function, as scripts do",
        "Write CREATE TABLE … AS SELECT …, which does the same.",
    ),
    Rule(
        ast.CopyStmt,
        _is("is_program"),
        "COPY … PROGRAM runs a program on the database server",
        _IN_THE_SCRIPT,
    ),
    Rule(
        ast.CopyStmt,
        _reads_file,
        "COPY FROM a file reads the database server's files, which no release carries",
        _IN_THE_SCRIPT,
    ),
    Rule(
        ast.CopyStmt,
        _writes_file,
        "COPY TO a file writes to the database server's files, which no release carries",
        _BY_HAND,
    ),
    Rule(
        ast.CopyStmt,
        _writes_stdout,
        "COPY TO STDOUT has no one to read it while a release is installed",
        _BY_HAND,
    ),
    Rule(
        ast.FuncCall,
        _file_function,
        "{}() uses the database server's files, which no release carries",
        _BY_HAND,
    ),
    Rule(ast.VariableSetStmt, _role, "{} changes the role that the release runs as", _ONE_ROLE),
    Rule(
        ast.FuncCall,
        _role_config,
        "set_config('{}', …) changes the role that the release runs as",
        _ONE_ROLE,
    ),
    Rule(
        ast.VariableSetStmt,
        _other_encoding,
        "client_encoding {} is not that of the scripts, which is UTF-8",
        "Leave it out; the installer sets it.",
    ),
)
RULES = {
    kind: tuple(rule for rule in _IN_ORDER if rule.kind is kind)
    for kind in {rule.kind for rule in _IN_ORDER}
}
