"""The receipts that this host has written: `/var/lib/countersign/receipts`.

A receipt is kept as a draft in the product's state before COMMIT, and signed when the install has
ended, by this run or by the next. Nothing here fails an install: what cannot be signed is told.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from installer.durable import make_folder, write_file
from installer.errors import InstallerError
from installer.fingerprint import Schema, schema_of
from installer.host_key import FOLDER as KEY_FOLDER
from installer.host_key import HostKey
from installer.manifest import Manifest
from installer.receipt import (
    FAILED,
    INSTALLED,
    Failure,
    Lock,
    MeasuredApplication,
    MeasuredDatabase,
    Receipt,
    Retry,
    ScriptReceipt,
    parse_receipt,
    write_receipt,
)
from installer.report import Report
from installer.state import ProductState
from installer.transaction import Origin, ScriptRun, ServerIdentity
from installer.tree import Digest

FOLDER = "receipts"


@dataclass(slots=True)
class Measurement:
    """What is known of an install so far; filled in while it goes on.

    `start` is the schema before online scripts, where there are any, and `earlier` are those that
    ran before the transaction, in this install or in one that was cut short; `runs` are its own,
    `later` those that ran after it.
    """

    manifest: Manifest
    origin: Origin
    started: int = field(default_factory=lambda: int(time.time()))
    server: ServerIdentity | None = None
    start: Schema | None = None
    before: Schema | None = None
    after: Schema | None = None
    ledger: Digest | None = None
    milliseconds: int = 0
    earlier: tuple[ScriptRun, ...] = ()
    runs: list[ScriptRun] = field(default_factory=list)
    later: tuple[ScriptRun, ...] = ()
    locks: tuple[Lock, ...] = ()
    created: tuple[str, ...] = ()
    retries: tuple[Retry, ...] = ()

    def keep(self, state: ProductState, error: InstallerError | None = None) -> None:
        """Keep the receipt as a draft: of an install that goes well, or that failed by `error`."""
        now, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{milliseconds:03}Z"
        name = f"{self.manifest.product}-{self.manifest.version}-{stamp}.json"
        state.keep_draft(name, write_receipt(self._receipt(now, error)))

    def _receipt(self, now: int, error: InstallerError | None) -> Receipt:
        manifest, origin = self.manifest, self.origin
        application = manifest.application
        return Receipt(
            digest=Digest(""),
            product=manifest.product,
            version=manifest.version,
            sequence=manifest.sequence,
            manifest=manifest.digest,
            package=origin.package,
            environment=origin.environment,
            host=origin.host,
            installer=origin.installer,
            started=self.started,
            finished=max(now, self.started),
            outcome=FAILED if error else INSTALLED,
            failure=Failure(error.exit_code, str(error)) if error else None,
            database=self._database(),
            application=MeasuredApplication(application.root, manifest.tree_digest)
            if application and manifest.tree_digest and not error
            else None,
        )

    def _database(self) -> MeasuredDatabase | None:
        """The database, where it was reached and its schema read."""
        if not (self.server and self.before and self.ledger):
            return None
        return MeasuredDatabase(
            name=self.server.name,
            system=self.server.system,
            version=self.server.version,
            ledger=self.ledger,
            milliseconds=self.milliseconds,
            before=self.before,
            after=self.after or self.before,  # what failed was rolled back
            scripts=tuple(map(_script, (*self.earlier, *self.runs))),
            locks=self.locks,
            created=self.created,
            retries=self.retries,
            online=(self.start, self.after or self.before) if self.start else None,
        )


def finish(
    state: ProductState, end: Schema, runs: Sequence[ScriptRun], ledger: Digest | None
) -> None:
    """Put into the receipt that was kept before COMMIT what online scripts have done after it.

    `runs` are all scripts of the release, `ledger` is the hash of its last row now. Where another
    host made the change, the receipt here knows no database, and stays as it is.
    """
    for draft in state.drafts():
        receipt = parse_receipt(draft.read_bytes())
        if receipt.database:
            database = replace(
                receipt.database,
                scripts=tuple(map(_script, runs)),
                ledger=ledger or receipt.database.ledger,
                online=(receipt.database.start, end),
            )
            finished = max(int(time.time()), receipt.started)
            whole = replace(receipt, database=database, finished=finished)
            state.keep_draft(draft.name, write_receipt(replace(whole, digest=Digest(""))))


def _script(run: ScriptRun) -> ScriptReceipt:
    return ScriptReceipt(run.script, run.script_digest, run.milliseconds, run.rows)


def keep_start(state: ProductState, manifest: Manifest, schema: Schema) -> None:
    """Keep what the schema was before anything of a release, until the release is installed."""
    document = {"manifest": manifest.digest, "major": schema.major, "objects": schema.objects}
    state.keep_start(json.dumps(document).encode())


def start_of(state: ProductState, manifest: Manifest) -> Schema | None:
    """What was kept as the schema before this release; None where it was not begun here."""
    document = json.loads(state.start() or b"{}")
    if document.get("manifest") != manifest.digest:
        return None
    return schema_of(document["major"], document["objects"])


def newest(folder: Path, manifest: Manifest) -> Receipt | None:
    """The receipt of the last successful install of `manifest` that is in `receipts` here.

    It is this host's own file: nobody's signature is asked for.

    Raises:
        MalformedError: a receipt was changed.
    """
    names = (folder / FOLDER).glob(f"{manifest.product}-{manifest.version}-*.json")
    for file in sorted(names, reverse=True):
        receipt = parse_receipt(file.read_bytes())
        if receipt.manifest == manifest.digest and receipt.outcome == INSTALLED:
            return receipt
    return None


def publish(state: ProductState, folder: Path, report: Report) -> None:
    """Sign the drafts of a product, and put them into `receipts` below `folder`."""
    for draft in state.drafts():
        try:
            _publish(draft, folder, report)
        except (InstallerError, OSError) as error:
            report.warn(f"the receipt is not written, and stays in {draft}: {error}")


def _publish(draft: Path, folder: Path, report: Report) -> None:
    receipt = folder / FOLDER / draft.name
    make_folder(receipt.parent)
    raw, key = draft.read_bytes(), HostKey(folder / KEY_FOLDER)
    if key.fingerprint():
        write_file(receipt.with_name(f"{receipt.name}.asc"), key.sign(raw))
        report.step(f"receipt: {receipt}")
    else:
        report.warn(f"{receipt} is not signed: run `countersign-install init`, which makes a key")
    write_file(receipt, raw)
    draft.unlink()
