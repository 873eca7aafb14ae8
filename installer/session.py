"""One connection to a PostgreSQL server. The only module that imports psycopg.

Knows nothing of releases. What the server refuses is a ServerError, whatever psycopg calls it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import dict_row

Parameters = Sequence[object] | Mapping[str, object] | None
_LOCK_STATES = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_INSUFFICIENT_PRIVILEGE = "42501"
_DISK_FULL = "53100"
_FILLED_IN = (b"sslcertmode", b"allow")
"""What libpq of version 16 and later says, though nobody has set it and it is no default."""


class ServerError(Exception):
    """What the server refused, in its words; or libpq, where the server said nothing.

    `context`, `query` and `position` say where: the error's context (W), and either its internal
    query (q) and the position in that (p), or none and the position in what was sent (P). See
    PostgreSQL, "Error and Notice Message Fields".
    """

    def __init__(self, error: psycopg.Error, *, lost: bool) -> None:
        diagnostic = error.diag
        parts = (
            diagnostic.message_primary,
            diagnostic.message_detail,
            diagnostic.message_hint,
        )
        super().__init__("; ".join(part for part in parts if part) or str(error).strip())
        self.lost = lost
        self.is_lock = diagnostic.sqlstate in _LOCK_STATES
        self.is_privilege = diagnostic.sqlstate == _INSUFFICIENT_PRIVILEGE
        self.is_disk_full = diagnostic.sqlstate == _DISK_FULL
        self.context = diagnostic.context or ""
        self.query = diagnostic.internal_query or ""
        self.position = int(diagnostic.internal_position or diagnostic.statement_position or 0)


class Session:
    """A connection on which nothing is begun or ended but by statements."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, conninfo: str, **parameters: str) -> Iterator[Self]:
        """Connect, and close the connection in the end.

        Raises:
            ServerError: there is no connection to be had.
        """
        try:
            connection = psycopg.connect(
                conninfo,
                autocommit=True,
                prepare_threshold=None,
                client_encoding="UTF8",
                connect_timeout=10,
                **parameters,  # type: ignore[arg-type]  # the settings of libpq are texts
            )
        except psycopg.Error as error:
            raise ServerError(error, lost=True) from None
        with connection:
            yield cls(connection)

    @property
    def pid(self) -> int:
        """The process that serves this connection, as the server's greeting said."""
        return self._connection.info.backend_pid

    @property
    def major(self) -> int:
        """The server's major version."""
        return self._connection.info.server_version // 10000

    @property
    def database(self) -> str:
        """The database's own name."""
        return self._connection.info.dbname

    @property
    def user(self) -> str:
        """The login role."""
        return self._connection.info.user

    @property
    def settings(self) -> dict[str, str]:
        """What libpq connected with, by keyword, wherever that came from; may hold a password.

        Another version of libpq has to come to the same server with it: host and port are always
        there, and what else is libpq's own default is not: it may not know such a setting.
        """
        info, options = self._connection.info, self._connection.pgconn.info
        given = {
            option.keyword.decode(): option.val.decode()
            for option in options
            if option.val and option.val != option.compiled
            if (option.keyword, option.val) != _FILLED_IN
        }
        return {"host": info.host, "port": str(info.port), **given}

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return self._connection.closed

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open that has not failed."""
        return self._connection.info.transaction_status == TransactionStatus.INTRANS

    def rows(self, query: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """All rows of a query, whose parameters are psycopg's.

        Raises:
            ServerError: it was refused.
        """
        with self._as_server_error():
            cursor = self._connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def one(self, query: str, parameters: Parameters = None) -> Any:  # noqa: ANN401 - by the query
        """The first column of a query's first row; None where there is none.

        Raises:
            ServerError: it was refused.
        """
        found = self.rows(query, parameters)
        return found[0][0] if found else None

    def records(self, query: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All rows of a query, each by its columns' names.

        Raises:
            ServerError: it was refused.
        """
        with self._as_server_error():
            cursor = self._connection.cursor(row_factory=dict_row)
            return cursor.execute(query, parameters).fetchall()

    def execute(self, query: bytes, parameters: Sequence[bytes] | None = None) -> tuple[bytes, ...]:
        """The first row of what `query` returns, as text; empty where there is none.

        With `parameters`, be they none, the server takes one statement and no second. Goes past
        psycopg's cursors, which cost about as much as a small script does.

        Raises:
            ServerError: it was refused.
        """
        pgconn = self._connection.pgconn
        with self._as_server_error():
            if parameters is None:
                pgconn.send_query(query)
            else:
                pgconn.send_query_params(query, parameters)
            results = self._connection.wait(execute(pgconn))
            for result in results:
                if result.status == ExecStatus.FATAL_ERROR:
                    raise error_from_result(result)
        last = results[-1]
        return tuple(
            last.get_value(0, i) or b"" for i in range(last.nfields if last.ntuples else 0)
        )

    def copy(self, statement: str, pieces: Iterable[bytes]) -> None:
        """Run a COPY … FROM STDIN that reads `pieces`, which need not end with a row.

        Raises:
            ServerError: it was refused.
        """
        with (
            self._as_server_error(),
            self._connection.cursor() as cursor,
            cursor.copy(statement.encode()) as stream,
        ):
            for piece in pieces:
                stream.write(piece)

    def leave_role(self) -> None:
        """Be the login role again, with the settings of the start; where there is a server."""
        if self._connection.closed:
            return
        try:
            self.execute(b"RESET ROLE; RESET ALL")
        except ServerError as error:
            if not error.lost:  # which the next statement tells; what came before stands
                raise

    def commit(self) -> None:
        """End the transaction.

        Raises:
            ServerError: it was refused, or nobody knows: `lost`.
        """
        with self._as_server_error():
            self._connection.commit()

    def rollback(self) -> None:
        """Take the transaction back, where there is one and a connection."""
        if not self._connection.closed:
            self._connection.rollback()

    @contextmanager
    def _as_server_error(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise ServerError(error, lost=self._connection.closed) from None
