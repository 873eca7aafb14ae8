"""Install a release: verify, plan, stage, one transaction, switch.

Nothing is touched before the signatures, the plan and the content's digest are good. Up to COMMIT a
failure takes back what was staged; from COMMIT on the database is the truth, and the application is
rolled forward to it, by this run or by the next. What is measured on the way becomes the receipt.
"""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer import __version__
from installer.application import ApplicationFolder, require_tree
from installer.approval import Approved
from installer.authors import require_authors
from installer.bundle import Bundle, ContentReader, Head
from installer.clock import remember
from installer.database import Origin, ScriptRun, Transaction
from installer.errors import (
    ApplicationError,
    InstallerError,
    LockTimeoutError,
    NotSwitchedError,
    OutcomeUnknownError,
    PlanDivergedError,
)
from installer.machine import CLOCK, Machine
from installer.manifest import Manifest, Script
from installer.policy import Signer
from installer.promotion import Measure
from installer.receipt import Retry
from installer.receipts import Measurement, publish
from installer.report import Report
from installer.retrying import pause_before
from installer.signatures import VerifiedRelease
from installer.site import Site, open_site, plan
from installer.state import ProductState
from installer.tools import run, words
from installer.tree import scan

SYSTEMCTL = "/usr/bin/systemctl"
RESTART_TIMEOUT = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an install ended well: what it did, and the scripts that it ran."""

    product: str
    version: str
    result: str
    scripts: tuple[ScriptRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What is brought to a site: a verified release, and what it has to be like here."""

    head: Head
    content: ContentReader
    measure: Measure
    measured: Measurement


def install(bundle: Bundle, package: str, machine: Machine, report: Report) -> Outcome:
    """Bring this host to the release in `bundle`, or leave it as it was.

    Raises:
        InstallerError: refused or failed; its `state` says what things are in.
    """
    report.carried_by(package)
    release = machine.verify(bundle)
    manifest = release.manifest
    report.about(manifest)
    report.step(f"{manifest.title}: signed by {', '.join(s.name for s in release.signers)}")
    remember(machine.state / CLOCK, int(time.time()))
    content = bundle.open_content(manifest)
    state = ProductState(machine.state / manifest.product)
    with state.lock():
        _settle_other(state, manifest, machine, report)
        report.about(manifest)
        with open_site(manifest, state, machine) as site:
            pending = plan(site)
            if _stands(site):
                return Outcome(manifest.product, manifest.version, "already installed")
            approved = _admit(site, pending, content, machine, report)
            change = Change(
                bundle.head,
                content,
                Measure(approved.receipt, machine.requirement.layers),
                Measurement(manifest, origin_of(release, machine, package, approved.customers)),
            )
            runs = _change(site, change, machine, report)
            _switch(site, machine, report)
    return Outcome(manifest.product, manifest.version, "installed", runs)


def adopt(
    bundle: Bundle, tree: Path | None, reason: str, machine: Machine, report: Report
) -> Outcome:
    """Take an existing database and application under control, as being at this release.

    No script is run: the ledger says of each that it was adopted, and why.

    Raises:
        PlanDivergedError: the ledger knows the product already.
        ApplicationError: `tree` is not the release's tree.
    """
    release = machine.verify(bundle)
    manifest = release.manifest
    report.about(manifest)
    bundle.open_content(manifest)
    state = ProductState(machine.state / manifest.product)
    with state.lock(), open_site(manifest, state, machine) as site:
        if site.state.installed() or site.ledger().releases:
            raise PlanDivergedError(f"{manifest.product} is under control already")
        if site.folder and manifest.application:
            if tree is None:
                raise ApplicationError("say with --tree where the application is now")
            site.folder.take_over(manifest.application, manifest.version, tree)
        with _undone_on_failure(site):
            site.state.begin(bundle.head)
            _record_adoption(site, origin_of(release, machine, "adopted"), reason)
        _switch(site, machine, report)
    return Outcome(manifest.product, manifest.version, "adopted")


def recover(product: str, machine: Machine, report: Report) -> Outcome | None:
    """Finish or take back an install that was cut short, as the database says.

    Raises:
        NotSwitchedError: the change stands, but the staged tree is not whole.
    """
    state = ProductState(machine.state / product)
    with state.lock():
        pending = state.pending()
        return _settle(pending, state, machine, report) if pending else None


def origin_of(
    release: VerifiedRelease, machine: Machine, package: str, customers: tuple[Signer, ...] = ()
) -> Origin:
    """What the ledger's rows say about where the change comes from."""
    manifest = release.manifest
    return Origin(
        product=manifest.product,
        version=manifest.version,
        sequence=manifest.sequence,
        manifest=manifest.digest,
        signers=tuple(f"{s.role} {s.name} {s.fingerprint}" for s in (*release.signers, *customers)),
        environment=machine.host.environment,
        host=socket.gethostname(),
        package=package,
        installer=__version__,
    )


def _admit(
    site: Site,
    pending: tuple[Script, ...],
    content: ContentReader,
    machine: Machine,
    report: Report,
) -> Approved:
    """What the environment requires besides the developers' signatures; else refuse.

    A change that is committed already was let in then: it only has to be finished.
    """
    manifest = site.manifest
    if site.is_committed():
        return Approved(None, ())
    approved = machine.approve(manifest)
    for customer in approved.customers:
        report.step(f"{manifest.title}: approved by {customer.name}")
    if machine.requirement.signed_scripts and manifest.database:
        scripts = (*pending, *manifest.database.verify)
        require_authors(machine.policy, scripts, content, machine.keyring, int(time.time()))
    Measure(approved.receipt).require_scripts(pending)
    return approved


def _change(site: Site, change: Change, machine: Machine, report: Report) -> tuple[ScriptRun, ...]:
    """Stage the application and commit the database change; or take everything back.

    Where the change is committed already, by a run that was cut short or by another host, there is
    nothing to take back: the application only has to follow.
    """
    if site.is_committed():
        _stage(site, change, report)
        if not site.state.drafts():  # another host ran the scripts: here there is less to tell
            change.measured.keep(site.state)
        return ()
    if site.state.pending():
        site.state.abandon()  # cut short before COMMIT: the receipt that was kept tells of nothing
    try:
        with _undone_on_failure(site):
            _stage(site, change, report)
            return _run_until_unlocked(site, change, report)
    except OutcomeUnknownError:
        raise
    except InstallerError as error:
        _record_failure(site, change.measured, error, report)
        publish(site.state, machine.state, report)
        raise


def _stage(site: Site, change: Change, report: Report) -> None:
    manifest = site.manifest
    if site.folder and manifest.application:
        report.step(f"{manifest.title}: staging {site.folder.folder(manifest.version)}")
        try:
            site.folder.stage(manifest.application, manifest.version, change.content)
        except OSError as error:  # a full disk, for one
            raise ApplicationError(f"it cannot be staged: {error}") from None
    site.state.begin(change.head)


@contextmanager
def _undone_on_failure(site: Site) -> Iterator[None]:
    """Remove what was staged, unless it cannot be known whether the change stands."""
    try:
        yield
    except OutcomeUnknownError:
        raise
    except BaseException:
        if site.folder:
            site.folder.discard(site.manifest.version)
        site.state.abandon()
        raise


def _run_until_unlocked(site: Site, change: Change, report: Report) -> tuple[ScriptRun, ...]:
    """Try the whole transaction again, while tables are locked and the host file's time lasts.

    Raises:
        LockTimeoutError: the last try; `detail` names the sessions that held the locks.
    """
    started, attempt = time.monotonic(), 1
    while True:
        try:
            return _run_scripts(site, change, attempt, report)
        except LockTimeoutError as error:
            held = [f"held by {holder}" for holder in error.holders]
            error.detail = "\n".join(filter(None, [error.detail, *held]))
            waited = round((time.monotonic() - started) * 1000)
            change.measured.retries += (Retry("; ".join([str(error), *held]), waited),)
            attempt += 1
            pause = pause_before(attempt, random.random())  # noqa: S311 - nothing secret
            if time.monotonic() + pause >= started + site.patience:
                raise
            report.step("; ".join([str(error), *held, f"trying again in {pause:.1f} s"]))
            time.sleep(pause)


def _run_scripts(site: Site, change: Change, attempt: int, report: Report) -> tuple[ScriptRun, ...]:
    """The one transaction: the ledger is read again under its lock, and written before COMMIT.

    From the second attempt on somebody looks who holds the locks that it waits for.
    """
    manifest, measured = site.manifest, change.measured
    if not (site.database and manifest.database):
        measured.keep(site.state)
        return ()
    started = time.monotonic()
    measured.runs.clear()  # of a try before
    with site.database.transaction(watched=attempt > 1) as transaction:
        pending = plan(site)
        if site.is_committed():
            measured.keep(site.state)
            return ()
        change.measure.require_scripts(pending)
        measured.server = transaction.identity()
        measured.retries += transaction.retries
        measured.before = before = transaction.schema()
        change.measure.require_before(before)
        relations = transaction.relations()
        _run_each(pending, manifest.database.verify, transaction, change, report)
        measured.after = after = transaction.schema()
        change.measure.require_after(after)
        measured.locks, measured.created = transaction.locks(relations)
        measured.milliseconds = round((time.monotonic() - started) * 1000)
        measured.ledger = transaction.record(
            "applied", measured.origin, measured.runs, milliseconds=measured.milliseconds
        )
        measured.keep(site.state)
    report.step(
        f"{manifest.title}: {len(measured.runs)} scripts committed in {measured.milliseconds} ms"
    )
    return tuple(measured.runs)


def _run_each(
    pending: tuple[Script, ...],
    verify: tuple[Script, ...],
    transaction: Transaction,
    change: Change,
    report: Report,
) -> None:
    report.step(f"{change.measured.manifest.title}: {len(pending)} scripts to run")
    for number, script in enumerate(pending, 1):
        report.script(number, len(pending), script.name)
        change.measured.runs.append(transaction.run(script, change.content))
    for script in verify:
        report.step(f"  verifying with {script.name}")
        transaction.run(script, change.content)
    transaction.settle_constraints()


def _record_adoption(site: Site, origin: Origin, reason: str) -> None:
    if not (site.database and site.manifest.database):
        return
    with site.database.transaction() as transaction:
        runs = [ScriptRun(s.name, s.digest, 0, 0) for s in site.manifest.database.scripts]
        transaction.record("adopted", origin, runs, detail=reason)


def _record_failure(
    site: Site, measured: Measurement, error: InstallerError, report: Report
) -> None:
    """Say in the ledger and in a receipt that it failed, and why; nothing of it stands."""
    measured.after, measured.ledger = None, None
    if site.database:
        words = f"exit code {error.exit_code}: {error}"
        try:
            with site.database.transaction() as transaction:
                measured.ledger = transaction.record("failed", measured.origin, detail=words)
        except InstallerError as unrecorded:
            report.warn(f"the ledger has no row for this failure: {unrecorded}")
    measured.keep(site.state, error)


def _stands(site: Site) -> bool:
    """Whether the release is installed here, whole: then there is nothing to do."""
    manifest, installed = site.manifest, site.state.installed()
    if installed is None or installed.digest != manifest.digest or not site.is_committed():
        return False
    if site.folder and manifest.application:
        if site.folder.current_version() != manifest.version:
            return False
        require_tree(manifest.application.tree, site.folder.tree(), str(site.folder.root))
    return site.state.pending() is None


def _settle_other(
    state: ProductState, manifest: Manifest, machine: Machine, report: Report
) -> None:
    """Settle an install of another release that was cut short; the same one simply runs again."""
    pending = state.pending()
    if pending is None:
        publish(state, machine.state, report)  # what could not be signed at the time
    elif pending.digest != manifest.digest:
        _settle(pending, state, machine, report)


def _settle(pending: Manifest, state: ProductState, machine: Machine, report: Report) -> Outcome:
    report.about(pending)
    with open_site(pending, state, machine) as site:
        if site.is_committed():
            _require_staged(site)
            _switch(site, machine, report)
            return Outcome(pending.product, pending.version, "rolled forward")
        if site.folder:
            site.folder.discard(pending.version)
        state.abandon()
        report.step(f"{pending.title}: not committed; what was staged is removed")
        return Outcome(pending.product, pending.version, "taken back")


def _require_staged(site: Site) -> None:
    application = site.manifest.application
    if not (site.folder and application):
        return
    staged = site.folder.folder(site.manifest.version)
    if scan(staged) != application.tree:
        raise NotSwitchedError(f"{staged} is not whole; install the package again to stage it anew")


def _switch(site: Site, machine: Machine, report: Report) -> None:
    """Let the application follow the database; from here on nothing may fail the install."""
    manifest = site.manifest
    if site.folder and manifest.application:
        site.folder.switch(manifest.version)
        report.step(f"{manifest.title}: {site.folder.root}/current switched")
    publish(site.state, machine.state, report)
    site.state.finish()
    if site.folder and manifest.application:
        target = machine.host.application(manifest.product, manifest.application.root)
        _prune(site.folder, target.keep, report)
        for service in target.services:
            _restart(service, report)


def _prune(folder: ApplicationFolder, keep: int, report: Report) -> None:
    try:
        folder.prune(keep)
    except OSError as error:
        report.warn(f"old releases could not be removed: {error}")


def _restart(service: str, report: Report) -> None:
    report.step(f"restarting {service}")
    done = run([SYSTEMCTL, "restart", service], timeout=RESTART_TIMEOUT)
    if done.returncode:
        report.warn(f"{service} was not restarted: {words(done)}")
