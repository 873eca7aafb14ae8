"""The customer's side of a test: the signed approval of a package, and its own packages."""

import time
from pathlib import Path

from installer.approval import Approval, write_approval
from installer.tree import Digest
from tests.developers import Developers
from tests.promotion import DAY, manifest_of


def approval_folder(
    developers: Developers, package: Path, customer: str, environment: str = "PRD"
) -> Path:
    """A folder in which a key has approved a package, by no receipt, from now for a week."""
    manifest, now = manifest_of(package), int(time.time())
    approval = Approval(
        digest=Digest(""),
        product=manifest.product,
        version=manifest.version,
        sequence=manifest.sequence,
        manifest=manifest.digest,
        receipt=None,
        environment=environment,
        not_before=now - 60,
        expires=now + 7 * DAY,
    )
    raw = write_approval(approval)
    folder = developers.folder / f"{package.parent.name}-{environment}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "approval.json").write_bytes(raw)
    (folder / "approval.json.asc").write_bytes(developers.keys.sign(raw, customer))
    return folder


def companion(developers: Developers, folder: Path, *options: str) -> Path:
    """The RPM that brings a folder of statements to hosts; its DEB lies beside it."""
    output = folder.with_name(f"{folder.name}-packages")
    developers.countersign("companion", folder, "--format", "all", "-o", output, *options)
    (rpm,) = output.glob("*.rpm")
    return rpm
