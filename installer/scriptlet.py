"""What rpm calls: the interpreter of a release package's scriptlets.

rpm runs `countersign-install rpm-pre NEVRA FILE COUNT`, where FILE holds the scriptlet's body: the
bundle itself, in base64. Only %pre can veto an install, so everything happens there. NEVRA is part
of the package: it names the package in the ledger, and decides nothing.
"""

import signal
from pathlib import Path
from tempfile import TemporaryFile

from installer.bundle import dearmour, read_bundle
from installer.install import Outcome, install
from installer.machine import Machine
from installer.report import Report


def rpm_pre(nevra: str, body: Path, machine: Machine, report: Report) -> Outcome:
    """Install the release that is the body of %pre.

    Raises:
        InstallerError: rpm then does not install the package.
    """
    # A terminal that is lost must not end the install half-way; rpm blocks Ctrl-C by itself.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    report.carried_by(nevra)
    with body.open("rb") as armoured, TemporaryFile(dir=machine.state) as file:
        dearmour(armoured, file)
        return install(read_bundle(file), nevra, machine, report)
