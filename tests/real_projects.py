"""A real project as a product: its repository, its release.toml, and hosts that are set up for it.

Each host has a second database, `plain`, that psql fills with the project's own files, to compare.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installer.tree import Entry, scan
from tests.hosts import Host
from tests.hosts.cluster import SOCKETS, program
from tests.product import Product
from tests.sites import Site

RELEASE = """\
[release]
name = "{product}"
version = "{version}"
sequence = {sequence}
summary = "The database of {product}"
license = "MIT"

[application]
vcs = "git"
path = "app"
to = "v{version}"
from = {starts}
root = "/opt/{product}"

[database]
name = "{product}"
scripts = ["{scripts}"]
order = "{order}"
"""
HOST_FILE = """\
environment = "{environment}"

[database.{product}]
conninfo = "host=/run/postgresql dbname={product} user=countersign"
owner = "{product}_owner"

[application.{product}]
root = "/opt/{product}"
"""
SET_UP_DATABASES = """
CREATE ROLE {product}_owner;
CREATE ROLE countersign LOGIN IN ROLE {product}_owner;
CREATE DATABASE {product} OWNER {product}_owner;
CREATE DATABASE plain OWNER {product}_owner;
GRANT CREATE ON DATABASE {product} TO countersign;
"""
RESTRICTION = re.compile(r"^\\(?:un)?restrict \w+\n", re.MULTILINE)


def describe(
    product: str,
    version: str,
    sequence: int,
    *,
    starts: Sequence[str],
    scripts: str,
    order: str = "name",
) -> str:
    """A release.toml. `starts` are tags or `empty`; `scripts` is a pattern."""
    return RELEASE.format(
        product=product,
        version=version,
        sequence=sequence,
        starts=json.dumps(list(starts)),
        scripts=scripts,
        order=order,
    )


def repository(folder: Path, contents: Mapping[str, Path]) -> Product:
    """A git repository in the new folder `folder`: for each tag, what its folder `app` has."""
    folder.mkdir()
    product = Product(folder)
    product.git("init", "--quiet", "--initial-branch=main")
    for tag, tree in contents.items():
        shutil.rmtree(folder / "app", ignore_errors=True)
        shutil.copytree(tree, folder / "app")
        product.git("add", "--all", "--force", "app")
        product.git("commit", "--quiet", "--message", tag)
        product.git("tag", tag)
    return product


@contextmanager
def empty_site(installer: Path, product: str, environment: str = "QAT") -> Iterator[Site]:
    """A host with the product's empty database, the installer, and as yet no policy."""
    with Host.start(environment.lower()) as host:
        host.start_cluster()
        host.psql(SET_UP_DATABASES.format(product=product))
        host.copy_in(installer, "/srv/countersign-installer.rpm")
        host.run(["rpm", "-i", "/srv/countersign-installer.rpm"], check=True)
        host_file = HOST_FILE.format(product=product, environment=environment)
        host.write("/etc/countersign/host.toml", host_file)
        yield Site(host)


@dataclass(frozen=True, slots=True)
class State:
    """What is on a host: the package, the whole database, the application's trees."""

    package: str
    database: str
    application: Mapping[str, Entry]


def state(site: Site, product: str) -> State:
    """What a refused install must leave alone."""
    root = site.host.at(f"/opt/{product}")
    return State(
        package=site.host.run(["rpm", "-q", product]).stdout.strip(),
        database=dump(site.host, product),
        application=scan(root) if root.exists() else {},
    )


def dump(host: Host, database: str) -> str:
    """Schema and data as pg_dump writes them, owners and privileges too, without the ledger.

    pg_dump orders objects by name, so that equal databases have equal dumps, apart from the random
    word with which its newer versions keep psql's own commands out of a restore.
    """
    options = ["-h", SOCKETS, "-U", "postgres", "--exclude-schema=countersign"]
    return RESTRICTION.sub(
        "", host.run([program("pg_dump"), *options, database], check=True).stdout
    )


def psql_files(site: Site, product: str, files: Sequence[str], database: str = "plain") -> None:
    """Run files of the host with plain psql, one after the other, as the database's owner."""
    command = (
        f"{program('psql')} -X -q -v ON_ERROR_STOP=1 -h {SOCKETS} -U countersign -d {database}"
    )
    loop = f'for file; do {command} -f "$file" || exit; done'
    owner = {"PGOPTIONS": f"-c role={product}_owner -c search_path=public"}
    site.host.run(["sh", "-c", loop, "sh", *files], env=owner, check=True)


def ledger(site: Site, product: str) -> list[dict[str, Any]]:
    """The ledger's rows."""
    done = site.installer("--json", "history", product)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["ledger"]
    return rows
