"""Sets of rows, each row by its position in its table: no key, and no other value of a row.

A position is a block and an offset in it: the system column `ctid`, which stays what it is for as
long as a snapshot can see the row and its table is locked against being rewritten. One bit each,
in slots of a temporary file, so that a set takes 37 bytes for each block of 8 KiB that holds some
of its rows, twice, and memory only for where the slots are: about 200 bytes for 2 MiB of a table.

The source packs positions into segments of 256 blocks. A segment's number is three bytes, and each
of its rows three more: the block within the segment, then the offset. Together these are the six
bytes that PostgreSQL's tidsend() writes.
"""

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Self

from refresher.subset import Level, Rows

SEGMENT = 256
"""Blocks whose rows share the first three of the six bytes."""
CHUNK = 100_000
"""Rows after which a chunk ends, with the segment that it is in."""
SMALLEST_ROW = 28
"""Bytes of a block that each row takes at least: its header and its line pointer."""

_FALSE = bytes.maketrans(b"0", b"\0")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the rows of a table: those in these segments, and how many it are."""

    segments: tuple[int, ...]
    count: int

    @property
    def blocks(self) -> tuple[int, int]:
        """The first block that its rows may be in, and the last."""
        return self.segments[0] * SEGMENT, self.segments[-1] * SEGMENT + SEGMENT - 1


class RowSet:
    """Rows at levels; those that were not taken yet are *new*. A context, which ends its file."""

    def __init__(self, folder: Path, block_size: int = 8192) -> None:
        self._offsets = (block_size // SMALLEST_ROW // 8 + 1) * 8
        self._size = SEGMENT * self._offsets // 8
        self._ends = tuple(f'{offset})"' for offset in range(self._offsets))
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._slots: dict[Rows, dict[int, int]] = defaultdict(dict)
        self._new: dict[Rows, set[int]] = defaultdict(set)
        self._counts: Counter[Rows] = Counter()
        self._waiting: Counter[Rows] = Counter()
        self._used = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, rows: Rows, segment: int, packed: bytes) -> None:
        """Let the rows of a segment be at a level; members are chosen as well.

        Raises:
            ValueError: an offset is beyond what a block of this size can hold.
        """
        found = self._bits(packed)
        self._add(rows, segment, found)
        if rows.level is Level.MEMBER:
            self._add(Rows(rows.table, Level.CHOSEN), segment, found)

    def count(self, rows: Rows) -> int:
        """How many there are."""
        return self._counts[rows]

    def fullest(self) -> Rows | None:
        """Where most rows are new; None where none is."""
        for first, waiting in self._waiting.most_common(1):
            return first if waiting else None
        return None

    def take(self, rows: Rows) -> str:
        """An array of the positions of new rows, which then are new no more: a chunk of them."""
        positions: list[str] = []
        count = 0
        while self._new[rows] and count < CHUNK:
            segment = self._new[rows].pop()
            slot = self._slots[rows][segment]
            new = self._read(slot + 1)
            positions += self._positions(segment, new)
            count += new.bit_count()
            self._write(slot + 1, 0)
        self._waiting[rows] -= count
        return _array(positions)

    def leave(self, rows: Rows) -> None:
        """Let new rows be new no more, as nobody asks for them."""
        self._new[rows].clear()
        self._waiting[rows] = 0

    def chunks(self, rows: Rows) -> Iterator[Chunk]:
        """All rows in the order in which they are stored, in chunks to ask `array` for."""
        segments: list[int] = []
        count = 0
        for segment, slot in sorted(self._slots[rows].items()):
            segments.append(segment)
            count += self._read(slot).bit_count()
            if count >= CHUNK:
                yield Chunk(tuple(segments), count)
                segments, count = [], 0
        if count:
            yield Chunk(tuple(segments), count)

    def array(self, rows: Rows, chunk: Chunk) -> str:
        """An array of the positions of a chunk's rows; threads may ask when all rows are in."""
        return _array(
            position
            for segment in chunk.segments
            for position in self._positions(segment, self._read(self._slots[rows][segment]))
        )

    def _add(self, rows: Rows, segment: int, found: int) -> None:
        slot = self._slot(rows, segment)
        known = self._read(slot)
        new = found & ~known
        if new:
            self._write(slot, known | new)
            self._write(slot + 1, self._read(slot + 1) | new)
            self._new[rows].add(segment)
            self._counts[rows] += new.bit_count()
            self._waiting[rows] += new.bit_count()

    def _bits(self, packed: bytes) -> int:
        bits = bytearray(self._size)
        for block, high, low in zip(packed[::3], packed[1::3], packed[2::3], strict=True):
            offset = high << 8 | low
            if offset >= self._offsets:
                raise ValueError(f"offset {offset} in a block of at most {self._offsets} rows")
            bit = block * self._offsets + offset
            bits[bit >> 3] |= 1 << (bit & 7)
        return int.from_bytes(bits, "little")

    def _positions(self, segment: int, bits: int) -> Iterator[str]:
        """The positions in each block: joined in few steps, as it takes time for each row."""
        flags = f"{bits:b}".encode()[::-1].translate(_FALSE)
        for block, start in enumerate(range(0, len(flags), self._offsets)):
            own = flags[start : start + self._offsets].rstrip(b"\0")
            offsets = list(compress(self._ends, own))
            if offsets:
                begin = f'"({segment * SEGMENT + block},'
                yield begin + f",{begin}".join(offsets)

    def _slot(self, rows: Rows, segment: int) -> int:
        """Where a segment's rows are; those that are new are in the slot behind it."""
        slots = self._slots[rows]
        if segment not in slots:
            slots[segment] = self._used
            self._used += 2
        return slots[segment]

    def _read(self, slot: int) -> int:
        return int.from_bytes(
            os.pread(self._file.fileno(), self._size, slot * self._size), "little"
        )

    def _write(self, slot: int, bits: int) -> None:
        content = bits.to_bytes(self._size, "little")
        os.pwrite(self._file.fileno(), content, slot * self._size)


def _array(positions: Iterable[str]) -> str:
    """PostgreSQL, "Array Input and Output Syntax"; it holds digits and punctuation only."""
    return "{" + ",".join(positions) + "}"
