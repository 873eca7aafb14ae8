"""A product in a real git repository: an application, ordered SQL, and two released tags.

    product = Product.create(folder)
    product.tag("v1.2.0", {"sql/0003_more.sql": "CREATE TABLE more ();"})

Version 1.1.0 changes, adds and removes files of 1.0.0, and has one more script.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

RELEASE = """\
[release]
name = "crm"
version = "1.1.0"
sequence = 2
summary = "Orders get a history"
license = "GPL-3.0-or-later"

[application]
vcs = "git"
path = "app"
to = "v1.1.0"
from = ["empty", "v1.0.0"]
root = "/opt/crm"

[database]
name = "crm"
scripts = ["sql/*.sql"]
verify = ["sql/verify/*.sql"]
"""
FIRST = {
    "app/bin/crm": "#!/bin/sh\necho 1.0.0\n",
    "app/README": "Read me\r\nwith two kinds of line ends",
    "app/old.txt": "goes away\n",
    "sql/0001_customers.sql": "CREATE TABLE customers (id bigint PRIMARY KEY);\n",
    "sql/verify/customers.sql": "SELECT 1 / (count(*) + 1) FROM customers;\n",
}
SECOND = {
    "app/bin/crm": "#!/bin/sh\necho 1.1.0\n",
    "app/größe.txt": "7\n",
    "sql/0002_orders.sql": "CREATE TABLE orders (id bigint);\nCREATE INDEX ON orders (id);\n",
}
ENVIRONMENT = {
    "GIT_AUTHOR_DATE": "2026-01-31T12:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-31T12:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}
COMMITTED = 1769860800
"""The time of every commit, 2026-01-31T12:00:00Z."""


@dataclass(frozen=True)
class Product:
    """A working copy, and the release.toml in it."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the repository, with the tags v1.0.0 and v1.1.0."""
        folder.mkdir()
        product = cls(folder)
        product.git("init", "--quiet", "--initial-branch=main")
        product.tag("v1.0.0", FIRST)
        product.git("rm", "--quiet", "app/old.txt")
        (folder / "app/current").symlink_to("bin/crm")
        product.tag("v1.1.0", SECOND)
        product.describe(RELEASE)
        return product

    @property
    def release(self) -> Path:
        """The file that describes the release."""
        return self.folder / "release.toml"

    def describe(self, release: str, **changes: str) -> None:
        """Write release.toml; each of `changes` is a text that takes the place of `KEY = …`."""
        for key, value in changes.items():
            lines = release.splitlines()
            release = "\n".join(f"{key} = {value}" if x.startswith(f"{key} ") else x for x in lines)
        self.release.write_text(release)

    def tag(self, name: str, files: Mapping[str, str]) -> None:
        """Write `files`, commit them and tag the commit."""
        for path, content in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode())
            file.chmod(0o755 if path.startswith("app/bin/") else 0o644)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", name)
        self.git("tag", name)

    def git(self, *arguments: str) -> str:
        """Run git in the working copy.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *arguments]
        environment = os.environ | ENVIRONMENT
        done = subprocess.run(
            command, cwd=self.folder, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()
