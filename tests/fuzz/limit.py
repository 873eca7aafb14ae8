"""The memory that a reader may take, whatever it is given."""

import resource
from pathlib import Path

MEMORY = 512 * 1024 * 1024
"""Bytes of address space beyond what the process has when it begins to read."""


def limit_memory() -> None:
    """Let this process have `MEMORY` more than now, and no more: what needs it gets MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
