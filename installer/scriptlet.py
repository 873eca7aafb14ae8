"""What rpm and dpkg call when they are about to install the package of a release.

rpm runs `countersign-install rpm-pre NEVRA FILE COUNT`, where FILE holds the scriptlet's body: the
bundle itself, in base64, or of a large one its head (see `installer.rpm_payload`). Only %pre can
veto an install, so everything happens there. NEVRA is part of the package: it names the package in
the ledger, and decides nothing.

dpkg runs preinst, which becomes `countersign-install deb-preinst PACKAGE PREINST ACTION VERSION…`.
PREINST is that script's own path, and beside it dpkg has put the bundle. Only preinst can veto an
install, so everything happens there too. PACKAGE is what NEVRA is in an RPM.
"""

import signal
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from installer.bundle import Bundle, dearmour, read_bundle, read_carried
from installer.durable import about, make_folder, storage_refusals
from installer.errors import MalformedError
from installer.install import install
from installer.machine import Machine
from installer.outcome import Outcome
from installer.report import Report
from installer.rpm_payload import bundle_of_parent


@storage_refusals()
def rpm_pre(nevra: str, body: Path, machine: Machine, report: Report) -> Outcome:
    """Install the release that is the body of %pre.

    Raises:
        InstallerError: rpm then does not install the package.
    """
    # A terminal that is lost must not end the install half-way; rpm blocks Ctrl-C by itself.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    report.carried_by(nevra)
    make_folder(machine.state)
    with (
        about(machine.state),  # where the file is that has no name
        body.open("rb") as armoured,
        TemporaryFile(dir=machine.state) as file,
    ):
        dearmour(armoured, file)
        carried = read_carried(file)
        if isinstance(carried, Bundle):
            return install(carried, nevra, machine, report)
        with bundle_of_parent(carried) as bundle:
            return install(bundle, nevra, machine, report)


def deb_preinst(package: str, preinst: Path, machine: Machine, report: Report) -> Outcome:
    """Install the release that lies beside preinst.

    Raises:
        InstallerError: dpkg then does not unpack the package.
    """
    # As for rpm, whose scriptlets are not to be interrupted; dpkg lets Ctrl-C through to them.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    report.carried_by(package)
    with _open(preinst.with_name("bundle")) as file:
        return install(read_bundle(file), package, machine, report)


def _open(bundle: Path) -> BinaryIO:
    try:
        return bundle.open("rb")
    except OSError as error:
        raise MalformedError(f"{bundle}: {error.strerror}") from None
