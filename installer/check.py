"""The preflight: everything that an install would refuse for, found without changing anything."""

import os
from pathlib import Path

from installer.application import GIT, choose_patch
from installer.bundle import Bundle
from installer.database import connect
from installer.errors import ConfigurationError
from installer.install import open_site, plan
from installer.machine import Machine
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
        found += [f"would run {script.name}" for script in pending]
        if site.folder and manifest.application:
            before = site.folder.tree()
            if before != manifest.application.tree:
                patch = choose_patch(manifest.application, before)
                found.append(f"would patch {_shown(site.folder.root)} from {patch.name}")
    return found


def _shown(root: Path) -> str:
    return f"{root}/current"
