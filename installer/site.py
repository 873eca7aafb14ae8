"""One product on this host: its database, its application folder, and what the host remembers."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from installer.application import ApplicationFolder
from installer.database import Database, LedgerState, connect
from installer.machine import Machine
from installer.manifest import Manifest, Script
from installer.planning import names_to_run, pending_scripts, require_not_older
from installer.state import ProductState


@dataclass(frozen=True, slots=True)
class Site:
    """One product on this host: its database, its folder, its memory."""

    manifest: Manifest
    database: Database | None
    folder: ApplicationFolder | None
    state: ProductState

    def ledger(self) -> LedgerState:
        """What the ledger says of the product; nothing stands without a database."""
        return self.database.state(self.manifest.product) if self.database else LedgerState({})

    def scripts_here(self, pending: Iterable[Script]) -> list[str]:
        """Names of the release's scripts for this database: done already, and `pending`."""
        done = self.database.scripts_of(self.manifest.digest) if self.database else ()
        return names_to_run((run.script for run in done), pending)

    def is_committed(self) -> bool:
        """Whether the release stands: in the ledger, or where there is none, in the folder."""
        if self.database:
            return self.manifest.digest in self.ledger().releases
        return self.folder is not None and self.folder.current_version() == self.manifest.version


@contextmanager
def open_site(manifest: Manifest, state: ProductState, machine: Machine) -> Iterator[Site]:
    """Connect to what the release is about, as the host file names it.

    Raises:
        ConfigurationError: the host file does not have the database or the application.
        DatabaseUnavailableError: the database cannot be reached, or must not be used.
    """
    with ExitStack() as stack:
        folder = database = None
        if manifest.application:
            target = machine.host.application(manifest.product, manifest.application.root)
            folder = ApplicationFolder(target.root, target.local, keep_local=target.keep_local)
        if manifest.database:
            named = machine.host.database(manifest.database.name)
            database = stack.enter_context(connect(named, manifest.title))
        yield Site(manifest, database, folder, state)


def plan(site: Site) -> tuple[Script, ...]:
    """The scripts that are still to run here.

    Raises:
        DowngradeError: the release is older than what the host or its database has.
        PlanDivergedError: the ledger and the release disagree.
    """
    manifest, ledger = site.manifest, site.ledger()
    require_not_older(manifest, site.state.installed(), ledger.sequence, ledger.manifest)
    return pending_scripts(manifest.database, ledger.applied) if manifest.database else ()
