"""The preflight: everything that an install would refuse for, found without changing anything."""

import os
import time
from pathlib import Path

from installer.application import GIT
from installer.approval import Approved
from installer.backup import require_fresh_backup
from installer.bundle import Bundle
from installer.database import connect
from installer.errors import ConfigurationError
from installer.host_file import DatabaseTarget
from installer.machine import Machine
from installer.manifest import Script
from installer.planning import require_none_online
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
    for target in machine.host.databases.values():
        found += _check_database(target)
    for product, application in machine.host.applications.items():
        found.append(f"application {product}: {application.root}")
    return found


def _check_database(target: DatabaseTarget) -> list[str]:
    with connect(target, "check") as database:
        broken = database.first_broken_row()
    name = f"database {target.name}"
    if broken is not None:
        raise ConfigurationError(f"{name}: the ledger's row {broken} breaks its chain")
    found = [f"{name}: reachable, scripts run as {target.owner}"]
    if target.restore_point:
        found.append(f"{name}: a restore point can be made")
    if target.backup:
        found.append(f"{name}: {require_fresh_backup(target.backup, int(time.time()))}")
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
            if not machine.requirement.online:
                require_none_online(pending, machine.host.environment)
        found += [f"would run {_when(script)}" for script in pending]
        if site.folder and manifest.application:
            start, verbs = site.folder.start(manifest.application), ("would keep", "would replace")
            if start.patch:
                found.append(f"would patch {_shown(site.folder.root)} from {start.patch.name}")
            found += site.folder.apart(manifest.application, start, verbs)
    return found


def _measured(
    approved: Approved, machine: Machine, site: Site, pending: tuple[Script, ...]
) -> list[str]:
    """Whether what was tested elsewhere was tested on a database like this one."""
    if approved.receipt is None:
        return []
    measure = Measure(approved.receipt, machine.requirement.layers)
    scripts = site.scripts_here(pending)
    measure.require_scripts(scripts)
    if site.database and len(scripts) == len(pending):
        measure.require_start(site.database.schema())
    return [f"as tested: {approved.receipt.title}"]


def _when(script: Script) -> str:
    online = script.online
    return f"{script.name} (online, {online.when} the transaction)" if online else script.name


def _shown(root: Path) -> str:
    return f"{root}/current"
