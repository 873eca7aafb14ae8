"""The application follows the database: from here on nothing takes a release back."""

from collections.abc import Iterator
from contextlib import contextmanager

from installer.application import ApplicationFolder
from installer.durable import told
from installer.errors import NotSwitchedError
from installer.machine import Machine
from installer.manifest import Manifest
from installer.receipts import publish
from installer.report import Report
from installer.site import Site
from installer.tools import run, words

SYSTEMCTL = "/usr/bin/systemctl"
RESTART_TIMEOUT = 120
"""Seconds."""


def switch(site: Site, machine: Machine, report: Report) -> None:
    """Let `current` lead to the release, and restart the services that the host file names.

    Raises:
        NotSwitchedError: the link could not be renamed.
    """
    manifest = site.manifest
    if site.folder and manifest.application:
        site.folder.switch(manifest.version)
        report.step(f"{manifest.title}: {site.folder.root}/current switched")
        target = machine.host.application(manifest.product, manifest.application.root)
        for service in target.services:
            _restart(service, report)


@contextmanager
def after_commit(manifest: Manifest) -> Iterator[None]:
    """Let an error of the system's be an install that is committed and has not come to its end.

    Raises:
        NotSwitchedError: with the file, and the system's words.
    """
    try:
        yield
    except OSError as error:
        unended = NotSwitchedError(told(error))
        unended.state = f"The change to {manifest.version} stands; the install of it has not ended."
        raise unended from None


def conclude(site: Site, machine: Machine, report: Report) -> None:
    """Sign the receipt, and remember the release as the one that is installed."""
    manifest = site.manifest
    publish(site.state, machine.state, report)
    if site.folder and manifest.application:
        target = machine.host.application(manifest.product, manifest.application.root)
        _prune(site.folder, target.keep, report)
    site.state.finish()  # last: until then the next run does what is left of this


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
