"""What a release does to a database: the one transaction, tried again while tables are locked.

Knows no host and no application: whoever has a database, a manifest and its content can have the
change made, as a rehearsal does. What is measured on the way becomes the receipt.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from installer.bundle import ContentReader
from installer.database import Database
from installer.errors import LockTimeoutError
from installer.manifest import Manifest, Script
from installer.planning import names_to_run, phases
from installer.promotion import Measure
from installer.receipt import Retry
from installer.receipts import Measurement
from installer.report import Steps
from installer.retrying import pause_before
from installer.transaction import Transaction, milliseconds_since

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """A release that is brought to a database, and what it has to be like there.

    `plan` gives the scripts that are still to run, or refuses; `keep` puts what was measured where
    it outlives the process, before COMMIT.
    """

    manifest: Manifest
    database: Database
    content: ContentReader
    measure: Measure
    measured: Measurement
    plan: Callable[[], tuple[Script, ...]]
    keep: Callable[[], None]
    report: Steps

    def is_committed(self) -> bool:
        """Whether the release stands in the ledger."""
        return self.manifest.digest in self.database.state(self.manifest.product).releases


def run_transaction(change: Change) -> None:
    """Run the release's one transaction, if it is not committed yet.

    Raises:
        LockTimeoutError: after the last try; `detail` names the sessions that held the locks.
        InstallerError: refused or failed: rolled back.
    """
    until_unlocked(change, lambda attempt: _attempt(change, attempt))


def until_unlocked(change: Change, attempt: Callable[[int], T]) -> T:
    """Do it again while tables are locked and the host file's time lasts; attempts count up."""
    started, number = time.monotonic(), 1
    while True:
        try:
            return attempt(number)
        except LockTimeoutError as error:
            told = "; ".join([str(error), *error.held])
            change.measured.retries += (Retry(told, milliseconds_since(started)),)
            number += 1
            pause = pause_before(number, random.random())  # noqa: S311 - nothing secret
            if time.monotonic() + pause >= started + change.database.patience:
                error.name_holders()
                raise
            change.report.step(f"{told}; trying again in {pause:.1f} s")
            time.sleep(pause)


def _attempt(change: Change, number: int) -> None:
    """The ledger is read again under its lock, and written before COMMIT.

    From the second attempt on somebody looks who holds the locks that it waits for.
    """
    started, measured = time.monotonic(), change.measured
    measured.runs.clear()  # of an attempt before
    with change.database.transaction(watched=number > 1) as transaction:
        pending = change.plan()
        if change.is_committed():
            change.keep()
            return
        done = (run.script for run in measured.earlier)
        change.measure.require_scripts(names_to_run(done, pending))
        measured.server = transaction.identity()
        measured.retries += transaction.retries
        measured.before = before = transaction.schema()
        change.measure.require_before(before)
        relations = transaction.relations()
        _run_scripts(change, pending, transaction)
        measured.after = after = transaction.schema()
        change.measure.require_after(after)
        measured.locks, measured.created = transaction.locks(relations)
        measured.milliseconds = milliseconds_since(started)
        measured.ledger = transaction.record(
            "applied", measured.origin, measured.runs, milliseconds=measured.milliseconds
        )
        change.keep()
    change.report.step(
        f"{change.manifest.title}: {len(measured.runs)} scripts committed "
        f"in {measured.milliseconds} ms"
    )


def _run_scripts(change: Change, pending: tuple[Script, ...], transaction: Transaction) -> None:
    _, inside, _ = phases(pending)
    change.report.step(f"{change.manifest.title}: {len(inside)} scripts to run")
    for number, script in enumerate(inside, 1):
        change.report.script(number, len(inside), script.name)
        change.measured.runs.append(transaction.run(script, change.content))
    for script in change.manifest.database.verify if change.manifest.database else ():
        change.report.step(f"  verifying with {script.name}")
        transaction.run(script, change.content)
    transaction.settle_constraints()
