"""The preflight: everything that an install would refuse for, found without changing anything."""

import os
from pathlib import Path

from installer.application import GIT, choose_patch
from installer.approval import Approved
from installer.bundle import Bundle
from installer.database import connect
from installer.errors import ConfigurationError
from installer.machine import Machine
from installer.manifest import Script
from installer.promotion import Measure
from installer.site import Site, open_site, plan
from installer.state import ProductState


def check_host(machine: Machine) -> list[str]:
    """What is in order on this host, a line each.

    Raises:
        InstallerError: the first thing that is not.
    """
    found = [f"environment {machine.host.environment}, policy {machine.policy.serial}"]
    for tool in (GIT, "/usr/bin/gpgv"):
        if not os.access(tool, os.X_OK):
            raise ConfigurationError(f"{tool} is missing; install the package that has it")
    for name, target in machine.host.databases.items():
        with connect(target, "check") as database:
            broken = database.first_broken_row()
        if broken is not None:
            raise ConfigurationError(f"database {name}: the ledger's row {broken} breaks its chain")
        found.append(f"database {name}: reachable, scripts run as {target.owner}")
    for product, application in machine.host.applications.items():
        found.append(f"application {product}: {application.root}")
    return found


def check_release(bundle: Bundle, machine: Machine) -> list[str]:
    """What installing this release here would do, a line each.

    Raises:
        InstallerError: what it would be refused for.
    """
    release = machine.verify(bundle)
    manifest = release.manifest
    bundle.open_content(manifest)
    state = ProductState(machine.state / manifest.product)
    signers = ", ".join(f"{signer.name} ({signer.role})" for signer in release.signers)
    found = [f"{manifest.title}: signed by {signers}"]
    with open_site(manifest, state, machine) as site:
        pending = plan(site)
        if not site.is_committed():
            approved = machine.approve(manifest)
            found += [f"approved by {customer.name}" for customer in approved.customers]
            found += _measured(approved, machine, site, pending)
        found += [f"would run {script.name}" for script in pending]
        if site.folder and manifest.application:
            before = site.folder.tree()
            if before != manifest.application.tree:
                patch = choose_patch(manifest.application, before)
                found.append(f"would patch {_shown(site.folder.root)} from {patch.name}")
    return found


def _measured(
    approved: Approved, machine: Machine, site: Site, pending: tuple[Script, ...]
) -> list[str]:
    """Whether what was tested elsewhere was tested on a database like this one."""
    if approved.receipt is None:
        return []
    measure = Measure(approved.receipt, machine.requirement.layers)
    measure.require_scripts(pending)
    if site.database:
        measure.require_before(site.database.schema())
    return [f"as tested: {approved.receipt.title}"]


def _shown(root: Path) -> str:
    return f"{root}/current"
