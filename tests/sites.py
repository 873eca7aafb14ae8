"""The administrator's side of a test: a host that is set up for a product, and what is on it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from tests.developers import PRODUCT, Developers
from tests.frontends import RPM, FrontEnd
from tests.hosts import Host
from tests.measured import measured

ROOT = f"/opt/{PRODUCT}"
HOST_FILE = """\
environment = "{environment}"

[database.crm]
conninfo = "host=/run/postgresql dbname=crm user=countersign"
owner = "crm_owner"
lock_timeout = 2
lock_wait = 5

[application.crm]
root = "/opt/crm"
keep = 2
services = ["crm.service"]
"""
SET_UP_DATABASE = """
CREATE ROLE crm_owner;
CREATE ROLE countersign LOGIN IN ROLE crm_owner;
CREATE DATABASE crm OWNER crm_owner;
GRANT CREATE ON DATABASE crm TO countersign;
"""
PACKAGES = {"rpm": "{name}-{version}-1.noarch", "deb": "{name}_{version}-1_all"}
OBJECTS = """
SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid::regclass::text)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'countersign')
AND relkind IN ('r', 'v')
"""


@dataclass(frozen=True, slots=True)
class State:
    """What a refused install must leave alone."""

    package: str
    objects: str
    applied: str
    application: str | None
    files: str


@dataclass(frozen=True, slots=True)
class Site:
    """A host that is set up for the product."""

    host: Host
    front: FrontEnd = RPM

    @classmethod
    @contextmanager
    def start(
        cls,
        developers: Developers,
        installer: Path,
        *,
        name: str = "qat",
        environment: str = "QAT",
        front: FrontEnd = RPM,
    ) -> Iterator["Site"]:
        """A host with its cluster, the product's empty database, the policy and the installer.

        The installer is the package of `front`'s format that lies beside the one given.
        """
        with Host.start(name) as host:
            host.start_cluster()
            host.psql(SET_UP_DATABASE)
            host.psql("GRANT CREATE ON SCHEMA public TO crm_owner", "crm")
            host.record_systemctl()
            site = cls(host, front)
            done = site.install(installer)
            assert done.returncode == 0, done.stdout + done.stderr
            host.write("/etc/countersign/host.toml", HOST_FILE.format(environment=environment))
            site.trust(developers.policy(QAT=1, PRD=2), developers.keyring())
            with measured(host):
                yield site

    def trust(self, policy: str, keyring: bytes) -> None:
        """Give the host a policy and the keys it is about, as its administrator may at any time.

        Root can make a host forget which policy it has accepted, and start over.
        """
        self.host.write("/etc/countersign/policy.toml", policy)
        file = self.host.at("/etc/countersign/keyring.pgp")
        file.write_bytes(keyring)
        file.chmod(0o644)
        (self.host.at("/var/lib/countersign") / "policy.toml").unlink(missing_ok=True)

    def install(self, package: Path) -> CompletedProcess[str]:
        """Install a package that is not installed, with the site's front end."""
        return self.host.run([*self.front.install, self.carry(package)])

    def upgrade(self, package: Path, *options: str) -> CompletedProcess[str]:
        """Upgrade to a package."""
        return self.host.run([*self.front.upgrade, *options, self.carry(package)])

    def install_again(self, package: Path) -> CompletedProcess[str]:
        """Install the version that is installed."""
        return self.host.run([*self.front.again, self.carry(package)])

    def carry(self, package: Path) -> str:
        """Bring a package of the site's format onto the host; returns its path there."""
        package = self.front.pick(package)
        self.host.copy_in(package, f"/srv/{package.name}")
        return f"/srv/{package.name}"

    @contextmanager
    def repository(self, *packages: Path) -> Iterator[None]:
        """A dnf repository of `packages` on the host's own loopback."""
        for package in packages:
            self.host.copy_in(package, f"/srv/repository/{package.name}")
        self.host.run(["createrepo_c", "--quiet", "/srv/repository"], check=True)
        with self.host.http_server("/srv/repository") as address:
            self.host.add_dnf_repository(PRODUCT, address, gpgcheck=False)
            yield

    def rpm(self, *arguments: str | Path) -> CompletedProcess[str]:
        """Run rpm; a package of the machine among the arguments is brought onto the host."""
        brought = [self.carry(a) if isinstance(a, Path) else a for a in arguments]
        return self.host.run(["rpm", *brought])

    def installer(self, *arguments: str | Path) -> CompletedProcess[str]:
        """Run countersign-install."""
        brought = [self.carry(a) if isinstance(a, Path) else a for a in arguments]
        return self.host.run(["countersign-install", *brought])

    def kill(self, words: str) -> None:
        """Kill the host's processes that have `words` in their command line (NUL for a space)."""
        for file in (self.host.root / "proc").glob("[0-9]*/cmdline"):
            if words.encode() in file.read_bytes():
                self.host.run(["sh", "-c", f"kill -KILL {file.parent.name}"], check=True)

    def memory_of(self, words: str) -> Iterator[int]:
        """The most memory, in KiB, that each process with `words` among its arguments had."""
        for folder in (self.host.root / "proc").glob("[0-9]*"):
            try:
                if words.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    status = (folder / "status").read_text()
                    yield int(status.split("VmHWM:")[1].split()[0])
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue  # it has just ended

    def nevra(self, version: str) -> str:
        """What the ledger calls the product's package of a version."""
        return PACKAGES[self.front.format].format(name=PRODUCT, version=version)

    def ledger(self) -> list[dict[str, object]]:
        """The ledger's rows."""
        done = self.installer("--json", "history", PRODUCT)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, object]] = json.loads(done.stdout)["ledger"]
        return rows

    def state(self) -> State:
        """Package database, database and application, to compare before and after."""
        sql = (
            "SELECT string_agg(script, ' ' ORDER BY id) FROM countersign.ledger "
            "WHERE event <> 'release failed'"
        )
        has_ledger = self.sql("SELECT to_regclass('countersign.ledger') IS NOT NULL") == "t"
        return State(
            package=self.front.installed(self.host, PRODUCT),
            objects=self.sql(OBJECTS),
            applied=self.sql(sql) if has_ledger else "",
            application=self.current(),
            files=self._files(),
        )

    def sql(self, statement: str) -> str:
        """What a statement returns in the product's database."""
        return self.host.psql(statement, "crm")

    def current(self) -> str | None:
        """Where the application's `current` leads."""
        link = self.host.root / f"{ROOT.lstrip('/')}/current"
        return str(link.readlink()) if link.is_symlink() else None

    def read(self, path: str) -> str:
        """A file of the current application."""
        return self.host.at(f"{ROOT}/current/{path}").read_bytes().decode()

    def _files(self) -> str:
        """A digest of everything below the application's root: names, modes, contents."""
        root = self.host.root / ROOT.lstrip("/")
        found = hashlib.sha256()
        for path in sorted(root.rglob("*")):
            found.update(f"{path.relative_to(root)} {path.lstat().st_mode:o}\n".encode())
            if path.is_symlink():
                found.update(str(path.readlink()).encode())
            elif path.is_file():
                found.update(path.read_bytes())
        return found.hexdigest()


@contextmanager
def unchanged(site: Site) -> Iterator[None]:
    """Assert that package database, database and application are as they were."""
    before = site.state()
    yield
    assert site.state() == before


def refused(site: Site, package: Path, code: int, *options: str) -> str:
    """Assert that the package is not installed, for this exit code; returns what was said."""
    with unchanged(site):
        done = site.upgrade(package, *options)
    words = (done.stdout + done.stderr).replace("\r", "")  # of the terminal that apt gives dpkg
    assert done.returncode != 0, words
    assert f"exit status {code}" in words, words
    return words
