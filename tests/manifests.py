"""A manifest for tests that are about something else than most of it."""

from typing import Any

from installer.manifest import Content, Manifest, Source
from installer.tree import Digest

NOTHING = Digest("0" * 64)


def a_manifest(**changes: Any) -> Manifest:
    """A release of the product crm, from git, with neither application nor database."""
    values: dict[str, Any] = {
        "digest": NOTHING,
        "product": "crm",
        "version": "1.0",
        "sequence": 1,
        "summary": "CRM",
        "source": Source("git", "v1", "0" * 40, 0),
        "application": None,
        "database": None,
        "content": Content("xz", NOTHING, 1),
    }
    return Manifest(**(values | changes))
