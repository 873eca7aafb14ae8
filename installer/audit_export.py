"""Writes the auditor's bundle of a database: all that an audit goes by, in one archive.

The form is `installer.audit_bundle`'s. No secret is in it. What the host does not have, or has
under a name that has no place in the archive, audit.json calls missing.
"""

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, BinaryIO

from installer import __version__, audit_bundle
from installer.audit import Audit, Kept, Scene, audit, beside
from installer.audit_bundle import Writer
from installer.bundle import MANIFEST, Head, Section, read_head
from installer.durable import sync_folder
from installer.strict_json import moment
from installer.tree import digest_of


def write_bundle(output: Path, name: str, product: str | None, scene: Scene) -> Audit:
    """Audit a database, and write the auditor's bundle to `output`, whatever was found.

    Raises:
        OSError: it cannot be written.
        ConfigurationError, DatabaseUnavailableError: as `audit` does.
    """
    with _replaced(output) as file, TemporaryFile(dir=output.parent) as export:
        found, key, writer = audit(name, scene, export), scene.key.fingerprint(), Writer(file)
        members: dict[str, bytes | Path | BinaryIO] = {
            **_manifests(found.releases, scene),
            **_statements(found.kept, scene),
            audit_bundle.KEYRING: scene.keys,
            audit_bundle.LEDGER: export,
            audit_bundle.POLICY: scene.configuration / "policy.toml",
        }
        missing = {f"manifests/{title}.json" for title in found.releases.values()} - members.keys()
        missing |= {one for one in sorted(members) if not _add(writer, one, members[one])}
        statement = {
            "type": audit_bundle.TYPE,
            "format": audit_bundle.FORMAT,
            "created": moment(scene.now),
            "host": socket.gethostname(),
            "environment": scene.machine.host.environment,
            "installer": __version__,
            "product": product,
            "database": asdict(found.server) | {"copied": found.copied},
            "ledger": {"rows": found.chain.rows, "head": found.chain.head},
            "host_key": key,
            "missing": sorted(missing),
            "files": [{"name": one, "digest": digest} for one, digest in writer.files.items()],
        }
        raw = f"{json.dumps(statement, ensure_ascii=False, indent=1, sort_keys=True)}\n".encode()
        _add(writer, audit_bundle.STATEMENT, raw)
        if key:
            _add(writer, audit_bundle.SIGNATURE, scene.key.sign(raw))
        writer.end()
    return found


def _manifests(releases: Mapping[str, str], scene: Scene) -> dict[str, bytes]:
    """Manifests and signatures of releases in the ledger, as far as this host has them."""
    found: dict[str, bytes] = {}
    for head in _heads(scene):
        if title := releases.get(digest_of(head.manifest)):
            found[f"manifests/{title}.json"] = head.manifest
            for label, signature in head.signatures.items():
                found[f"manifests/{title}.json.{label}.asc"] = signature
    return found


def _heads(scene: Scene) -> Iterator[Head]:
    """Of the releases that were installed last, and of those whose packages are installed."""
    for file in sorted(scene.machine.state.glob("*/installed")):
        with file.open("rb") as stream:
            yield read_head(stream)
    for file in sorted(scene.releases.glob(f"*/{MANIFEST}")):
        names = {one: one.name.removeprefix(f"{MANIFEST}.") for one in beside(file)}
        labels = {name.removesuffix(".asc"): one.read_bytes() for one, name in names.items()}
        yield Head(file.read_bytes(), labels)


def _statements(kept: Iterable[Kept], scene: Scene) -> dict[str, bytes | Path]:
    """The receipts, and everything below the approvals."""
    approvals = scene.configuration / "approvals"
    receipts = [one.file for one in kept if one.system is None]
    files = [file for receipt in receipts for file in (receipt, *beside(receipt))]
    found: dict[str, bytes | Path] = {f"receipts/{file.name}": file for file in files}
    brought = (file for file in approvals.glob("*/*") if file.is_file())
    return found | {f"approvals/{file.parent.name}/{file.name}": file for file in brought}


def _add(writer: Writer, name: str, content: bytes | Path | BinaryIO) -> bool:
    """Add a member; false where it has no place in the archive."""
    if isinstance(content, Path):
        content = content.read_bytes()
    if isinstance(content, bytes):
        size, pieces = len(content), iter((content,))
    else:
        size = content.tell()
        pieces = Section(content, 0, size).pieces()
    return writer.add(name, size, pieces)


@contextmanager
def _replaced(output: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `output` when it is whole, and is gone otherwise."""
    # Nobody can have put a link there before: the folder may be one that others write to.
    with NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
        new = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            new.rename(output)
        finally:
            new.unlink(missing_ok=True)
    sync_folder(output.absolute().parent)
