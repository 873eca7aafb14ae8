"""Writes manifests: the counterpart of `installer.manifest`, which reads them.

The bytes depend on what the release contains and on nothing else, so that developers who build
the same tags sign the same bytes. What was written is parsed back by the code that hosts run, and
compared, before anybody gets to sign it.
"""

import json
import lzma
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from installer.errors import InstallerError
from installer.manifest import (
    FORMAT,
    TYPE,
    Application,
    Content,
    Database,
    Manifest,
    Patch,
    parse_manifest,
)
from installer.tree import Digest, digest_of
from packager.errors import ProjectError

UNSIGNED = Digest("")
"""The digest of a manifest whose bytes are not written yet."""


SMALL = 32 * 1024 * 1024
"""Up to so many bytes, content is compressed well; beyond, fast: measured on single-row INSERTs,
7.8 MB/s and a ratio of 25 against 51 MB/s and a ratio of 19."""
WELL = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 * 1024 * 1024}
FAST = {"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1024 * 1024}


def compress(contents: Sequence[bytes]) -> bytes:
    """All contents in one xz stream.

    The stream has no integrity check of its own: its digest is in the manifest.
    """
    filters = [WELL if sum(map(len, contents)) <= SMALL else FAST]
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=filters)
    return b"".join(map(compressor.compress, contents)) + compressor.flush()


def describe_content(compressed: bytes) -> Content:
    """What the manifest says about the compressed content."""
    return Content("xz", digest_of(compressed), len(compressed))


def write_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest`, whose own digest is ignored.

    Raises:
        ProjectError: a host would refuse this manifest, or read something else in it.
    """
    document = _document(manifest)
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
    try:
        raw = f"{text}\n".encode()
        parsed = parse_manifest(raw)
    except (InstallerError, UnicodeEncodeError) as error:
        raise ProjectError(f"hosts would refuse this release: {error}") from None
    if _document(parsed) != document:
        raise ProjectError("hosts would read this release's manifest otherwise than it is meant")
    return raw


def _document(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": TYPE,
        "format": FORMAT,
        "release": {
            "name": manifest.product,
            "version": manifest.version,
            "sequence": manifest.sequence,
            "summary": manifest.summary,
        },
        "source": asdict(manifest.source),
        "application": manifest.application and _application(manifest.application),
        "database": manifest.database and _database(manifest.database),
        "content": asdict(manifest.content),
    }


def _application(application: Application) -> dict[str, Any]:
    return {
        "root": application.root,
        "tree": [asdict(entry) for entry in sorted(application.tree.values())],
        "patches": [_patch(patch) for patch in application.patches],
    }


def _patch(patch: Patch) -> dict[str, Any]:
    return {
        "from": patch.name,
        "digest": patch.digest,
        "size": patch.size,
        "before": [asdict(entry) for entry in patch.before],
        "added": list(patch.added),
    }


def _database(database: Database) -> dict[str, Any]:
    return {
        "name": database.name,
        "scripts": [asdict(script) for script in database.scripts],
        "verify": [asdict(script) for script in database.verify],
        "accept": [asdict(accepted) for accepted in database.accept],
        "rehearsal": database.rehearsal and asdict(database.rehearsal),
    }
