"""Whether ledger, schema, application tree and package database agree about what is installed.

Reads only. Package managers can be told to skip scriptlets (`rpm --noscripts`, `--justdb`): then
the package is there and the release is not, and this is where it shows.
"""

import sys
from dataclasses import dataclass

from installer.application import ApplicationFolder
from installer.database import APPLIED, STARTED, Database, LedgerState, connect
from installer.errors import (
    ApplicationError,
    ConfigurationError,
    InstallerError,
    MalformedError,
    NotSwitchedError,
    OnlineUnfinishedError,
    PlanDivergedError,
    SchemaDiffersError,
)
from installer.fingerprint import LAYERS, require_same
from installer.machine import Machine
from installer.manifest import Manifest
from installer.packages import installed_versions
from installer.receipts import newest
from installer.site import Site, open_site
from installer.state import ProductState, products


@dataclass(frozen=True, slots=True)
class Status:
    """One product: what is installed, and every disagreement found."""

    product: str
    installed: str | None
    package: str | None
    ledger: str | None
    application: str | None
    problems: tuple[InstallerError, ...]


def status(product: str, machine: Machine) -> Status:
    """Compare what the ledger, the application tree and the package database say of a product.

    Raises:
        DatabaseUnavailableError, ConfigurationError: it cannot be found out.
    """
    state = ProductState(machine.state / product)
    installed, packages = state.installed(), installed_versions(product)
    package = ", ".join(packages) or None
    if installed is None:
        begun = _begun(product, machine)
        problems = begun or (_never_installed(product, package, state),)
        return Status(product, None, package, None, None, problems)
    with open_site(installed, state, machine) as site:
        ledger = site.ledger()
        problems = (
            *_interrupted(state, ledger),
            *_online_problems(site.database, product),
            *_package_problems(installed, packages),
            *_ledger_problems(installed, site, ledger),
            *_schema_problems(installed, site, machine),
            *_tree_problems(installed, site.folder),
        )
        current = site.folder.current_version() if site.folder else None
    return Status(product, installed.version, package, ledger.version, current, problems)


def products_here(machine: Machine) -> list[str]:
    """Names of the products that this host knows of: also of those whose install was skipped."""
    packaged = {name for name in machine.host.applications if installed_versions(name)}
    return sorted(packaged.union(products(machine.state)))


def _begun(product: str, machine: Machine) -> tuple[InstallerError, ...]:
    """Online scripts of a first release that failed: only the ledger of its database knows."""
    problems: list[InstallerError] = []
    for target in machine.host.databases.values():
        with connect(target, "status") as database:
            problems += _online_problems(database, product)
    return tuple(problems)


def _never_installed(product: str, package: str | None, state: ProductState) -> InstallerError:
    if pending := state.pending():
        return NotSwitchedError(f"the install of {pending.title} was cut short")
    if package:
        return PlanDivergedError(
            f"the package {product} {package} is installed, but its release never was: "
            "the package manager was told to skip its scriptlet (--noscripts, --justdb)"
        )
    return ConfigurationError(f"no release of {product} was ever installed on this host")


def _interrupted(state: ProductState, ledger: LedgerState) -> list[InstallerError]:
    pending = state.pending()
    if pending is None:
        return []
    scripts = pending.database.scripts if pending.database else ()
    left = [script.name for script in scripts if script.name not in ledger.applied]
    if left and pending.digest in ledger.releases:
        names = ", ".join(left)
        return [OnlineUnfinishedError(f"online scripts of {pending.title} are left: {names}")]
    return [NotSwitchedError(f"the install of {pending.title} was cut short")]


def _online_problems(database: Database | None, product: str) -> list[InstallerError]:
    """Online scripts that were begun: the package that has them finishes them."""
    if database is None:
        return []
    problems: list[InstallerError] = [
        OnlineUnfinishedError(f"the online script {name} of {version} is applied, its release not")
        for version, name in database.ahead(product)
    ]
    for name, progress in database.state(product).unfinished.items():
        events = progress.statements
        done = sum(event == APPLIED for event in events.values())
        begun = [str(number) for number, event in events.items() if event == STARTED]
        words = f"{name}: {done} of its statements are applied"
        if begun:
            words += f", and number {', '.join(begun)} was begun"
        problems.append(OnlineUnfinishedError(f"the online script {words}; it is not finished"))
    return problems


def _package_problems(installed: Manifest, packages: tuple[str, ...]) -> list[InstallerError]:
    others = [version for version in packages if version != installed.version]
    if not others:  # nor is one needed: a release can be applied or adopted without a package
        return []
    product, names = installed.product, " and ".join(others)
    if installed.version in packages:
        words = (
            f"the package {product} {names} is installed beside that of the release, "
            f"{installed.version} (rpm -i): remove it"
        )
    else:
        words = (
            f"the package is {product} {names}, the release installed is {installed.version}: one "
            "came without the other (--noscripts, --justdb, apply): install the package of the "
            "release that is to be here"
        )
    return [PlanDivergedError(words)]


def _ledger_problems(installed: Manifest, site: Site, ledger: LedgerState) -> list[InstallerError]:
    if site.database is None:
        return []
    problems: list[InstallerError] = []
    if (row := site.database.first_broken_row()) is not None:
        problems.append(PlanDivergedError(f"the ledger was changed: row {row} breaks its chain"))
    if ledger.manifest != installed.digest:
        newest = f"'s newest release is {ledger.version}" if ledger.version else " has no release"
        problems.append(PlanDivergedError(f"the ledger{newest}, this host has {installed.version}"))
    return problems


def _schema_problems(installed: Manifest, site: Site, machine: Machine) -> list[InstallerError]:
    """Whether the schema is still what the release made of it, where it was the last to change it.

    Another product's release may have changed it since, and a host that did not run the scripts
    itself has not measured it: then there is nothing to compare with.
    """
    if site.database is None or site.database.newest_release() != installed.digest:
        return []
    try:
        receipt = newest(machine.state, installed)
        if receipt and receipt.database:
            what = f"the schema is not what {installed.title} made of it"
            require_same(receipt.database.end, site.database.schema(), LAYERS, what)
    except (MalformedError, SchemaDiffersError) as error:
        return [error]
    return []


def _tree_problems(installed: Manifest, folder: ApplicationFolder | None) -> list[InstallerError]:
    if folder is None or installed.application is None:
        return []
    current = folder.current_version()
    if current != installed.version:
        return [NotSwitchedError(f"{folder.root}/current leads to {current}")]
    try:
        folder.require_whole(installed.application, most=sys.maxsize)
    except ApplicationError as error:
        return [error]
    return []
