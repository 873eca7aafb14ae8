"""Install a release: verify, plan, stage, change the database, switch.

Nothing is touched before the signatures, the plan and the content's digest are good. Up to COMMIT a
failure takes back what was staged; from COMMIT on the database is the truth, and the application is
rolled forward to it, by this run or by the next. What is measured on the way becomes the receipt.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installer import __version__
from installer.approval import Approved
from installer.authors import require_authors
from installer.backup import protect
from installer.bundle import Bundle, ContentReader, Head
from installer.change import Change, run_transaction
from installer.clock import remember
from installer.durable import about, storage_refusals, told
from installer.errors import (
    ApplicationError,
    InstallerError,
    OutcomeUnknownError,
    PlanDivergedError,
)
from installer.machine import CLOCK, Machine
from installer.manifest import Script
from installer.online import run_after, run_before, told_of_before
from installer.outcome import Outcome
from installer.planning import require_none_online
from installer.policy import Signer
from installer.promotion import Measure
from installer.receipts import Measurement, finish, keep_start, newest, publish, start_of
from installer.recovery import settle_other
from installer.report import Report
from installer.signatures import VerifiedRelease
from installer.site import Site, open_site, plan
from installer.state import ProductState
from installer.switching import after_commit, conclude, switch
from installer.transaction import Origin, ScriptRun


@dataclass(frozen=True, slots=True)
class Install:
    """One install: a verified release, the site that it is brought to, what is measured of it.

    `names` are the scripts that the release brings to this database, or has brought already.
    """

    head: Head
    content: ContentReader
    site: Site
    machine: Machine
    measure: Measure
    measured: Measurement
    report: Report
    names: frozenset[str]

    @property
    def is_online(self) -> bool:
        """Whether any of its scripts here runs outside of the transaction."""
        database = self.site.manifest.database
        scripts = database.scripts if database else ()
        return any(script.online for script in scripts if script.name in self.names)

    @property
    def title(self) -> str:
        """The release, as messages name it."""
        return self.site.manifest.title

    @property
    def change(self) -> Change | None:
        """What is done to the database; None where the release has none."""
        if not (self.site.database and self.site.manifest.database):
            return None
        return Change(
            manifest=self.site.manifest,
            database=self.site.database,
            content=self.content,
            measure=self.measure,
            measured=self.measured,
            plan=lambda: plan(self.site),
            # A refusal, so that it is told which online scripts have run before.
            keep=storage_refusals()(lambda: self.measured.keep(self.site.state)),
            report=self.report,
        )


@storage_refusals()
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
        settle_other(state, manifest, machine, report)
        report.about(manifest)
        with open_site(manifest, state, machine) as site:
            pending = plan(site)
            if _stands(site, pending):
                return Outcome(manifest.product, manifest.version, "already installed")
            approved = _admit(site, pending, content, machine, report)
            measure = Measure(approved.receipt, machine.requirement.layers)
            origin = origin_of(release, machine, package, approved.customers)
            measured = Measurement(manifest, origin)
            names = frozenset(site.scripts_here(pending))
            this = Install(bundle.head, content, site, machine, measure, measured, report, names)
            _change(this)
            with after_commit(manifest):
                switch(site, machine, report)
                _finish_online(this)
                conclude(site, machine, report)
    runs = (*measured.earlier, *measured.runs, *measured.later)
    return Outcome(manifest.product, manifest.version, "installed", runs)


@storage_refusals()
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
        if site.folder and manifest.application and tree is None:
            raise ApplicationError("say with --tree where the application is now")
        with _undone_on_failure(site):
            site.state.begin(bundle.head)
            if site.folder and manifest.application and tree:
                site.folder.take_over(manifest.application, manifest.version, tree)
            _record_adoption(site, origin_of(release, machine, "adopted"), reason)
        with after_commit(manifest):
            switch(site, machine, report)
            conclude(site, machine, report)
    return Outcome(manifest.product, manifest.version, "adopted")


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
    """What environment and host file require besides the developers' signatures; else refuse.

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
    Measure(approved.receipt).require_scripts(site.scripts_here(pending))
    if not machine.requirement.online:
        require_none_online(pending, machine.host.environment)
    if pending and site.database:  # last: what makes a restore point is let in
        protect(site.database, manifest.title, report, int(time.time()))
    return approved


def _change(this: Install) -> None:
    """Stage the application and commit the database change; or take everything back.

    Where the change is committed already, by a run that was cut short or by another host, there is
    nothing to take back: the application only has to follow.
    """
    site = this.site
    if site.is_committed():
        is_published = site.state.pending() and newest(this.machine.state, site.manifest)
        with after_commit(site.manifest):
            _stage(this)
            site.state.begin(this.head)
            # Without a receipt of it, another host ran the scripts: here there is less to tell.
            if not (is_published or site.state.drafts()):
                this.measured.keep(site.state)
        return
    if site.state.pending():
        site.state.drop_drafts()  # cut short before COMMIT: they tell of nothing
    try:
        with _undone_on_failure(site), storage_refusals():
            site.state.begin(this.head)  # first: `recover` removes what else would be left staged
            _stage(this)
            _change_database(this)
    except OutcomeUnknownError:
        raise
    except InstallerError as error:
        _record_failure(this, error)
        _keep_failure(this, error)
        raise


def _stage(this: Install) -> None:
    site, manifest = this.site, this.site.manifest
    if site.folder and manifest.application:
        this.report.step(f"{this.title}: staging {site.folder.folder(manifest.version)}")
        with about(site.folder.folder(manifest.version)):
            for line in site.folder.stage(manifest.application, manifest.version, this.content):
                this.report.step(f"{this.title}: {line}")


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


def _change_database(this: Install) -> None:
    """The online scripts that come before, and the one transaction."""
    change = this.change
    if change is None:
        this.measured.keep(this.site.state)
    elif not this.is_online:
        run_transaction(change)
    else:
        with change.database.held():
            _begin_online(this, change)
            run_before(change)
            this.measured.earlier = change.database.scripts_of(this.site.manifest.digest)
            with told_of_before(change):
                run_transaction(change)


def _begin_online(this: Install, change: Change) -> None:
    """Measure the schema before anything of the release; or remember it, where it was begun."""
    manifest, ledger = this.site.manifest, this.site.ledger()
    done = change.database.scripts_of(manifest.digest)
    begun = done or any(script.name in ledger.unfinished for script in change.plan())
    this.measured.start = start_of(this.site.state, manifest) if begun else None
    if not begun:
        this.measured.start = change.database.schema()
        change.measure.require_start(this.measured.start)
        keep_start(this.site.state, manifest, this.measured.start)


def _finish_online(this: Install) -> None:
    """The online scripts that come after, on a database and an application that are switched."""
    change, measured = this.change, this.measured
    if change is None or not this.is_online:
        return
    try:
        with change.database.held():
            end = run_after(change)
            runs = change.database.scripts_of(this.site.manifest.digest)
    except InstallerError as error:
        _record_failure(this, error)
        raise
    measured.later = runs[len(measured.earlier) + len(measured.runs) :]
    finish(this.site.state, end, runs, measured.ledger)


def _record_adoption(site: Site, origin: Origin, reason: str) -> None:
    if not (site.database and site.manifest.database):
        return
    with site.database.transaction() as transaction:
        runs = [ScriptRun(s.name, s.digest, 0, 0) for s in site.manifest.database.scripts]
        transaction.record("adopted", origin, runs, detail=reason)


def _record_failure(this: Install, error: InstallerError) -> None:
    """Say in the ledger that it failed, and why."""
    this.measured.ledger = None
    if this.site.database:
        words = f"exit code {error.exit_code}: {error}"
        try:
            with this.site.database.transaction() as transaction:
                this.measured.ledger = transaction.record(
                    "failed", this.measured.origin, detail=words
                )
        except InstallerError as unrecorded:
            this.report.warn(f"the ledger has no row for this failure: {unrecorded}")


def _keep_failure(this: Install, error: InstallerError) -> None:
    """Leave a receipt that says that it failed, and why."""
    state, this.measured.after = this.site.state, None
    try:
        this.measured.keep(state, error)
    except OSError as unkept:
        this.report.warn(f"no receipt tells of this failure: {told(unkept)}")
    publish(state, this.machine.state, this.report)


def _stands(site: Site, pending: tuple[Script, ...]) -> bool:
    """Whether the release is installed here, whole: then there is nothing to do."""
    manifest, installed = site.manifest, site.state.installed()
    if installed is None or installed.digest != manifest.digest or not site.is_committed():
        return False
    if pending:
        return False
    if site.folder and manifest.application:
        if site.folder.current_version() != manifest.version:
            return False
        site.folder.require_whole(manifest.application)
    return site.state.pending() is None
