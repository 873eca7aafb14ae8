"""The developers' side of a test: their keys, and packages of small releases.

The real build makes them. A release is given as its files; each is kept as a folder, so that a
later one can start from it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

from installer.bundle import Head
from installer.manifest import REMOVED, Accepted
from installer.tree import digest_of
from packager.build import _order, build, build_packages, sign_work
from packager.formats import FORMATS
from packager.formats.rpm import Rpm
from packager.project import load_project
from packager.release import assemble
from packager.sqljudge import Judge
from tests.keys import Keyring

PRODUCT = "crm"
TIMEOUT = 300

Files = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Developers:
    """Ada and Grace, whom policies know; Mallory, whom none knows; a folder for their work."""

    keys: Keyring
    folder: Path
    ada: str
    grace: str
    mallory: str

    @classmethod
    def create(cls, keys: Keyring, folder: Path) -> "Developers":
        names = ("Ada", "Grace", "Mallory")
        made = [keys.new_key(f"{name} <{name.lower()}@example.org>") for name in names]
        return cls(keys, folder, *made)

    def policy(self, *more: str, **required: int) -> str:
        """A policy that knows Ada and Grace as developers, who may change it.

        `required` has how many of them each environment requires; `more` are further tables.
        """
        known = [identity("Ada", "developer", self.ada), identity("Grace", "developer", self.grace)]
        requirements = [f"[require.{name}]\ndeveloper = {n}\n" for name, n in required.items()]
        rotation = "[rotation]\ndeveloper = 1\n"
        return "\n".join(["serial = 1\n", *known, *requirements, *more, rotation])

    def keyring(self, *more: str) -> bytes:
        """The binary keyring of Ada, Grace and `more`."""
        return self.keys.export([self.ada, self.grace, *more])

    def countersign(
        self, *arguments: str | Path, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the build side's command with the developers' keys."""
        command = [Path(sys.executable).with_name("countersign"), *arguments]
        done = subprocess.run(
            command,
            env=os.environ | {"GNUPGHOME": str(self.keys.home)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def package(self, release: "Draft") -> Path:
        """The release's RPM, signed by those whom the draft names; its DEB lies beside it."""
        output = self.folder / "dist" / release.name
        return self.build(self._write(release), output, release.signers)

    def build(self, release: Path, output: Path, signers: Sequence[str]) -> Path:
        """The RPM that a release.toml describes; its DEB lies beside it."""
        output.mkdir(parents=True, exist_ok=True)
        if not signers:
            return _unsigned(release, output)
        for key in signers:
            self.countersign("sign", "--release", release, "--output", output, "--key", key)
        both = ("--format", "all", "--json")
        built = self.countersign("build", "--release", release, "--output", output, *both)
        packages = [Path(package) for package in json.loads(built.stdout)["packages"]]
        return next(package for package in packages if package.suffix == ".rpm")

    def large_package(self, release: "Draft", max_in_header: int = 0) -> Path:
        """The release's RPM with its content in the payload, as of a release that is large."""
        package = self.package(release)
        project = load_project(self.folder / f"{release.name}.toml")
        home = {"GNUPGHOME": str(self.keys.home)}
        large = {"rpm": Rpm(max_in_header=max_in_header)}  # a DEB has no such limit
        with patch.dict(os.environ, home), patch.dict(FORMATS, large):
            build(assemble(project), package.parent)
        return package

    def package_past_the_check(self, release: "Draft") -> Path:
        """As `package`, of scripts with statements that the build refuses.

        The build's check is for developers. What protects a database is the host's own refusal, so
        tests need packages of a build that lacks the check: `Judge` finds nothing, and the real
        build goes on from there.
        """
        output = self.folder / "dist" / release.name
        return self.build_past_the_check(self._write(release), output, release.signers)

    def build_past_the_check(self, release: Path, output: Path, signers: Sequence[str]) -> Path:
        """As `build`; see `package_past_the_check`."""
        home = {"GNUPGHOME": str(self.keys.home)}
        with patch.dict(os.environ, home), patch.object(Judge, "judge", return_value=[]):
            made = assemble(load_project(release))
            for key in signers:
                sign_work(made, output, key)
            packages, _ = build_packages(made, output, ("rpm", "deb"))
        return packages[0]

    def _write(self, release: "Draft") -> Path:
        """The release as a folder of files and a release.toml."""
        tree = self.folder / release.name
        for path, content in release.files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(as_bytes(content))
            if file.parent.name == "bin":
                file.chmod(0o755)
        toml = self.folder / f"{release.name}.toml"
        toml.write_text(release.toml(), encoding="utf-8")
        return toml


def as_bytes(content: str | bytes) -> bytes:
    """What a file of a draft holds."""
    return content.encode() if isinstance(content, str) else content


def identity(name: str, role: str, *fingerprints: str, more: str = "") -> str:
    """Someone whom a policy names."""
    keys = ", ".join(f'"{fingerprint}"' for fingerprint in fingerprints)
    return f'[[identity]]\nname = "{name}"\nrole = "{role}"\nfingerprints = [{keys}]\n{more}\n'


def _unsigned(release: Path, output: Path) -> Path:
    """Packages that no signature is in; the command refuses to build one."""
    made = assemble(load_project(release))
    head = Head(made.raw, {})
    order = replace(_order(made, head, {}), package_key=None)
    FORMATS["deb"].write(order, output)
    return FORMATS["rpm"].write(order, output)


@dataclass(frozen=True, slots=True)
class Draft:
    """A release to be built. `starts` are names of earlier drafts, or `empty`.

    `online` has the scripts that run outside of the transaction, and when; `accept` the changes of
    released scripts that are accepted. Their digests in this release are those of its files.
    """

    version: str
    sequence: int
    files: Files
    signers: Sequence[str]
    starts: Sequence[str] = ("empty",)
    accept: Sequence[Accepted] = ()
    label: str = ""
    online: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.version}{self.label}"

    @property
    def has_application(self) -> bool:
        return any(path.startswith("app/") for path in self.files)

    @property
    def has_database(self) -> bool:
        return any(path.startswith("sql/") for path in self.files)

    def toml(self) -> str:
        source = f'vcs = "tree"\nto = "{self.name}"\n'
        starts = ", ".join(f'"{start}"' for start in self.starts)
        head = f'name = "{PRODUCT}"\nversion = "{self.version}"\nsequence = {self.sequence}\n'
        lines = [f'[release]\n{head}summary = "A release of {PRODUCT}"\n']
        if self.has_application:
            lines.append(
                f'[application]\n{source}path = "app"\nfrom = [{starts}]\nroot = "/opt/{PRODUCT}"\n'
            )
        if self.has_database:
            own = "" if self.has_application else source
            lines.append(f'[database]\n{own}name = "{PRODUCT}"\nscripts = ["sql/*.sql"]\n')
            if any(path.startswith("sql/verify/") for path in self.files):
                lines.append('verify = ["sql/verify/*.sql"]\n')
        lines.extend(map(self._accept, self.accept))
        for script, when in self.online.items():
            lines.append(f'[[database.online]]\nscript = "{script}"\nwhen = "{when}"\n')
        return "\n".join(lines)

    def _accept(self, entry: Accepted) -> str:
        lines = [
            "[[database.accept]]",
            f'script = "{entry.script}"',
            f'change = "{entry.change}"',
            f'reason = "{entry.reason}"',
        ]
        if entry.change != REMOVED:
            lines.append(f'digest = "{digest_of(as_bytes(self.files[entry.script]))}"')
        if entry.applied:
            lines.append(f"applied = {json.dumps(entry.applied)}")
        return "\n".join([*lines, ""])
