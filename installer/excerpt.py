"""Shows a place in a script the way compilers do: line and column, the line itself, a caret."""

MAX_WIDTH = 160


def excerpt(content: bytes, offset: int, *, exact: bool, lines: int = 0) -> tuple[str, str]:
    """Name and show the place `offset` (in bytes) of `content`.

    Returns `:line:column` and the line with a caret below it. Where the place is not exact but the
    beginning of a statement, leading comments and blanks are passed over, and no column is given.
    `lines` is how many lines come before `content`.
    """
    if not exact:
        offset = _first_word(content, offset)
    line = lines + content.count(b"\n", 0, offset) + 1
    start = content.rfind(b"\n", 0, offset) + 1
    text = content[start:].split(b"\n", 1)[0].decode(errors="replace").rstrip("\r")
    column = len(content[start:offset].decode(errors="replace"))
    shown = f"{line:>4} | {_printable(text)}"
    if not exact:
        return f":{line}", shown
    caret = f"\n     | {' ' * column}^" if column < MAX_WIDTH else ""
    return f":{line}:{column + 1}", shown + caret


def _first_word(content: bytes, offset: int) -> int:
    """Where the first line that is neither blank nor a `--` comment begins to say something."""
    for line in content[offset:].splitlines(keepends=True):
        if line.strip() and not line.lstrip().startswith(b"--"):
            return offset + len(line) - len(line.lstrip())
        offset += len(line)
    return offset


def _printable(text: str) -> str:
    """`text` without what could drive the reader's terminal, one character for each."""
    cut = text[:MAX_WIDTH].replace("\t", " ")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in cut)
