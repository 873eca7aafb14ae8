"""A host with a test build of the installer, on which one install after the other is cut short.

Between two of them the host is put back: package database, state, application and database are
copies of what they were.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

from tests.developers import PRODUCT, Developers
from tests.failpoints.points import Step
from tests.frontends import FrontEnd
from tests.sites import OBJECTS, ROOT, Site

HOOKS = Path(__file__).with_name("hooks.py")
LIBRARY = "/usr/libexec/countersign"
LAUNCHER = "/usr/bin/countersign-install"
STATE = "/var/lib/countersign"
ARMED, LOG = "run/failpoint.json", "run/failpoints.log"
POSTMASTER = "var/lib/pgsql/data/postmaster.pid"
STAMP = re.compile(r"-\d{8}T\d{6}\.\d{3}Z")
PACKAGES = {
    "rpm": ("/root/.rpmdb", ()),
    "deb": ("/var/lib/dpkg", ("--exclude=./info/[!c]*", "--exclude=./info/c[!r]*")),
}
"""Where package databases are, and what of them the product's package does not change."""

SAVE = r"""
set -e
mkdir -p /srv/saved
cp -a {state} /srv/saved/state
if [ -e {root} ]; then cp -a {root} /srv/saved/root; fi
tar -C {packages} {options} -cf /srv/saved/packages.tar .
"""
PUT_BACK = r"""
set -e
rm -rf {state} {root} /run/failpoint*
cp -a /srv/saved/state {state}
if [ -e /srv/saved/root ]; then cp -a /srv/saved/root {root}; fi
case {packages} in
    */.rpmdb) rm -rf {packages}; mkdir {packages} ;;
    *) rm -rf {packages}/updates {packages}/tmp.ci {packages}/info/crm.* ;;
esac
tar -C {packages} -xf /srv/saved/packages.tar
"""
PUT_BACK_DATABASE = """
DROP DATABASE IF EXISTS crm WITH (FORCE);
CREATE DATABASE crm TEMPLATE crm_saved OWNER crm_owner;
GRANT CREATE ON DATABASE crm TO countersign;
"""
LEDGER = """
SELECT pg_catalog.concat_ws(' ', event, version, script, statement)
FROM countersign.ledger ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is on a host: of its package, its database, its application and its memory."""

    package: str
    objects: str
    ledger: tuple[str, ...]
    application: str | None
    memory: tuple[str, ...]
    """The files of the state folder, without the time in the names of receipts."""
    tree: tuple[str, ...]
    """The files below the application's root."""

    @property
    def folders(self) -> set[str]:
        """What of them is directly in the root, and in `releases`."""
        return {name for name in self.tree if name.count("/") == name.startswith("releases/")}


@dataclass(frozen=True, slots=True)
class Bench:
    """The host. `saved` has what was on it when it was saved."""

    site: Site
    saved: list[Standing] = field(default_factory=list)

    @classmethod
    @contextmanager
    def start(cls, developers: Developers, installer: Path, front: FrontEnd) -> Iterator["Bench"]:
        """A host of `front` with the test build; `save` says to what it is put back."""
        with Site.start(developers, installer, front=front) as site:
            host_file = site.host.at("/etc/countersign/host.toml")
            host_file.write_text(host_file.read_text().replace("keep = 2", "keep = 1"))
            assert site.installer("init").returncode == 0
            build(site)
            yield cls(site)

    def save(self) -> None:
        """What the host is put back to."""
        self.site.host.run(["sh", "-c", self._script(SAVE)], check=True)
        self.site.host.psql("CREATE DATABASE crm_saved TEMPLATE crm")
        self.saved[:] = [self.standing()]
        time.sleep(1)  # an install in the same second would not have to remember its time

    def put_back(self) -> None:
        """Make the host what it was when it was saved."""
        self.site.host.run(["sh", "-c", self._script(PUT_BACK)], check=True)
        self.site.host.psql(PUT_BACK_DATABASE)

    def start_server(self) -> None:
        """Start PostgreSQL with its usual settings, and crash it before if it still runs."""
        host = self.site.host
        if (host.root / POSTMASTER).exists():
            host.stop_cluster("immediate")
        host.start_cluster()

    def arm(self, step: Step, action: str) -> None:
        """Let the next run of the installer be cut short."""
        armed = {"at": [step.name, step.number, step.file], "action": action}
        (self.site.host.root / ARMED).write_text(json.dumps(armed))

    def steps(self) -> tuple[list[str], dict[str, int]]:
        """The steps since the host was put back, and how many files each of them changed."""
        taken: dict[tuple[str, str], int] = {}
        for line in self._log():
            name, number, file, _ = line.split("\t")
            taken[name, number] = int(file)
        return [name for name, _ in taken], {name: file for (name, _), file in taken.items()}

    def upgrade(self, package: Path, step: Step, action: str) -> CompletedProcess[str]:
        """Install a package, and cut that short."""
        self.arm(step, action)
        done = self.site.upgrade(package)
        assert f"failpoint {action}" in self._log(), done.stdout + done.stderr
        return done

    def rerun(self, package: Path) -> CompletedProcess[str]:
        """The same command again, after what dpkg asks for."""
        done = self.site.upgrade(package)
        if "dpkg --configure -a" in done.stderr:
            self.site.host.run(["dpkg", "--configure", "-a"], check=True)
            done = self.site.upgrade(package)
        return done

    def standing(self) -> Standing:
        """What is on the host now."""
        has_ledger = self.site.sql("SELECT to_regclass('countersign.ledger') IS NOT NULL") == "t"
        return Standing(
            package=self.site.front.installed(self.site.host, PRODUCT),
            objects=self.site.sql(OBJECTS),
            ledger=tuple(self.site.sql(LEDGER).splitlines()) if has_ledger else (),
            application=self.site.current(),
            memory=self._files(STATE),
            tree=self._files(ROOT),
        )

    def status(self) -> int:
        """The exit code of `countersign-install status`."""
        return self.site.installer("status", PRODUCT).returncode

    def _log(self) -> list[str]:
        return (self.site.host.root / LOG).read_text().splitlines()

    def _files(self, folder: str) -> tuple[str, ...]:
        root = self.site.host.root / folder.lstrip("/")
        found = (str(path.relative_to(root)) for path in root.rglob("*"))
        return tuple(sorted(STAMP.sub("", name) for name in found if "host-key/" not in name))

    def _script(self, text: str) -> str:
        packages, options = PACKAGES[self.site.front.format]
        return text.format(state=STATE, root=ROOT, packages=packages, options=" ".join(options))


def build(site: Site) -> None:
    """Make the installed package a test build: a module more, and a line in the launcher."""
    site.host.copy_in(HOOKS, f"{LIBRARY}/failpoints.py")
    launcher = site.host.at(LAUNCHER)
    text = launcher.read_text()
    built = text.replace("\nfrom installer.cli", "\nimport failpoints\nfrom installer.cli")
    assert built != text
    launcher.write_text(built)
