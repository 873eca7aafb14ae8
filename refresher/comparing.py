"""Whether what was built is what the source is: its schema, object by object, in all layers. Pure.

Rows are counted where they are copied: by both servers, for each COPY (`refresher.stream`).
"""

from collections.abc import Mapping

from installer.fingerprint import LAYERS, Schema, changes, describe, schema_of
from installer.tree import Digest
from refresher.errors import DiffersError

NOT_COPIED = frozenset({
    "publication", "publication table", "publication schema", "subscription"
})  # fmt: skip
"""Kinds of objects that are the source's alone: they say who hears of its changes."""


def require_same_schema(source: Schema, target: Schema) -> Mapping[str, Digest] | None:
    """Hold the target's schema against the source's, without what is not copied.

    Returns the fingerprints, or None where the servers' major versions differ.

    Raises:
        DiffersError: `detail` shows the objects.
    """
    if source.major != target.major:
        return None
    expected, found = _copied(source), _copied(target)
    if apart := changes(expected, found, LAYERS):
        words = "object differs" if len(apart) == 1 else "objects differ"
        shown = describe(apart, "source", "target")
        raise DiffersError(f"schema: {len(apart)} {words} from the source", detail=shown)
    return found.fingerprints


def _copied(schema: Schema) -> Schema:
    rows = (item for item in schema.objects if item.kind not in NOT_COPIED)
    return schema_of(schema.major, rows)
