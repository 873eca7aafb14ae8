"""How far a refresh is. Pure: who is told, and what time it is, is the caller's."""

from collections.abc import Callable
from dataclasses import dataclass, field

from refresher.model import TableName
from refresher.pieces import Stream
from refresher.report import mib


@dataclass(slots=True)
class Progress:
    """Streams that are done, of `total` bytes; `tell` gets a line whenever there is news."""

    total: int
    tell: Callable[[str], None]
    tables: set[TableName] = field(default_factory=set)
    rows: int = 0
    bytes: int = 0
    started: float = field(default=0.0)

    def done(self, stream: Stream, rows: int, now: float) -> None:
        """A stream is through; `now` is in seconds, as `started` is."""
        self.tables.update(piece.table for piece in stream.pieces)
        self.rows += rows
        self.bytes += stream.bytes
        spent = now - self.started
        left = spent * (self.total - self.bytes) / self.bytes if self.bytes else 0
        sizes = f"{mib(self.bytes)} of {mib(self.total)}"
        self.tell(f"rows: {len(self.tables)} tables, {self.rows} rows, {sizes}, {left:.0f} s left")
