"""Whether a host's server has room for the locks that a release holds until it commits.

Pure. The lock table has room for max_locks_per_transaction times max_connections +
max_prepared_transactions locks, for all sessions together (PostgreSQL, "Lock Management").
"""

from dataclasses import dataclass

DEFAULT_PER_TRANSACTION = 64
DEFAULT_CONNECTIONS = 100
"""What a server has where nobody has set anything else."""


@dataclass(frozen=True, slots=True)
class LockTable:
    """What a release holds in a lock table, and what that one has room for."""

    entries: int
    per_transaction: int = DEFAULT_PER_TRANSACTION
    connections: int = DEFAULT_CONNECTIONS

    @property
    def room(self) -> int:
        """Locks that there is room for."""
        return self.per_transaction * self.connections

    @property
    def words(self) -> str:
        """The need beside the room."""
        return (
            f"{self.entries} of {self.room} locks at its end (max_locks_per_transaction = "
            f"{self.per_transaction}, {self.connections} connections)"
        )

    @property
    def warning(self) -> str | None:
        """What to raise where the release takes more than half of the room; others need some."""
        if 2 * self.entries <= self.room:
            return None
        return (
            f"the release holds {self.words}, and other sessions need locks too: set "
            f"max_locks_per_transaction = {self.enough} in postgresql.conf and restart the server"
        )

    @property
    def enough(self) -> int:
        """The least power of two for max_locks_per_transaction with which half is enough."""
        per_transaction = DEFAULT_PER_TRANSACTION
        while 2 * self.entries > per_transaction * self.connections:
            per_transaction *= 2
        return per_transaction
