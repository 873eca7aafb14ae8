"""Names and texts as SQL has them, whatever is in them. PostgreSQL, "Lexical Structure"."""


def quoted(*names: str) -> str:
    """An identifier, or one that is qualified: each part in quotes; empty parts are left out."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name)


def literal(text: str) -> str:
    """A string constant, whatever standard_conforming_strings is."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"
