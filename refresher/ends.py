"""The two ends of a refresh: how each is connected to, and what is set on each server for it.

On the source every session is read only by start-up option, and sees all rows or fails: a policy
that would hide some is an error. On the target nothing is set that would let a wrong row in.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from installer.session import ServerError, Session
from refresher.clients import Endpoint, start_options
from refresher.errors import RefreshError, SourceError, TargetError

# As pg_dump has them: text that one server writes is read by another.
_FORMATS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
}
_UNHURRIED = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "client_connection_check_interval": "1s",  # what a killed run had asked for ends soon
}
SOURCE = {
    **_FORMATS,
    **_UNHURRIED,
    "default_transaction_read_only": "on",
    "row_security": "off",
    "search_path": "pg_catalog",  # nobody on the source may put a function in the way of a mask
    "jit": "off",
    "lock_timeout": "30s",
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",  # `jobs` says how much of the server it may take
}
TARGET = {
    **_FORMATS,
    **_UNHURRIED,
    "default_transaction_read_only": "off",
    "lock_timeout": "0",
    "synchronous_commit": "off",  # the rename at the end waits for the disk, and so for all before
    "maintenance_work_mem": "256MB",
}
_TRANSACTION_TIMEOUT = 17
"""The first major version that has this setting."""
LABEL = "countersign refresh"


@dataclass(frozen=True, slots=True)
class End:
    """One side: its name in messages, its conninfo, its settings, and the error that it has."""

    side: str
    conninfo: str
    options: Mapping[str, str]
    refusal: type[RefreshError]

    @contextmanager
    def session(self, database: str | None = None, **more: str) -> Iterator[Session]:
        """A session of this process, on another `database` of the cluster where one is named.

        What the server refuses while it is open is this side's error, unless it is caught before.

        Raises:
            SourceError, TargetError: the server's words.
        """
        options = start_options({**self.options, **more})
        where = {} if database is None else {"dbname": database}
        try:
            with Session.open(
                self.conninfo, application_name=LABEL, options=options, **where
            ) as opened:
                for name, value in _newer(opened).items():
                    opened.execute(f"SET {name} = {value}".encode())
                yield opened
        except ServerError as error:
            raise self.refusal(f"the {self.side}: {error}") from None

    def endpoint(self, session: Session, encoding: str) -> Endpoint:
        """Where programs connect: where `session` is. Text has `encoding` on its way."""
        options = {**self.options, **_newer(session), "client_encoding": encoding}
        return Endpoint(session.settings, options)


def _newer(session: Session) -> Mapping[str, str]:
    """Settings that not every server knows, and so would refuse a connection for."""
    return {"transaction_timeout": "0"} if session.major >= _TRANSACTION_TIMEOUT else {}


def source_end(conninfo: str) -> End:
    """The side that is read."""
    return End("source", conninfo, SOURCE, SourceError)


def target_end(conninfo: str) -> End:
    """The side that is written."""
    return End("target", conninfo, TARGET, TargetError)
