"""Puts packages into signed repositories, for dnf and for apt, of one environment.

- Packages are copied, never changed: what PRD's repository has is, byte for byte, what QAT's has.
- A package that is there stays. Another one of the same name and version is refused.
- The index names what was given, now or before: a file that is in the folder, and that no index of
  the same signer names, is refused, not signed.
- Every run signs the index of every kind that is there anew, with one key. The same packages give
  the same index; only signatures differ.
- All is made in a temporary folder before anything is moved: a run that fails changes nothing.

What readers see while things are moved: packages come first, then the parts of the index that are
named after their content, then what is asked for by fixed names; each file by one rename, and what
the index before this one named stays until the next run. InRelease is one file, so apt has the old
index or the new one. dnf asks twice, for repomd.xml and for its signature: if the index is replaced
in between, the two do not fit, and dnf refuses them and has to be run again. Two runs on one folder
wait for each other. A run that is killed while it moves is made good by running it again.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from installer.manifest import ENVIRONMENT
from installer.tree import Digest
from packager.errors import OutputError
from packager.repositories import repositories
from packager.repositories.interface import Repository
from packager.repositories.packages import Package, examine
from packager.signing import Signer, choose_key, export_keys
from packager.templates import render
from packager.tools import run

URL = re.compile(r"(https?|file)://[!-~]*")
KEY = Path("countersign-repository.asc")
"""The public key of the index, as rpm and dnf read it; apt reads the binary one, `.gpg`."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A package in a repository. `accepted` is whether gpgcheck=1 takes it with KEY alone."""

    path: Path
    digest: Digest
    accepted: bool


@dataclass(frozen=True, slots=True)
class Published:
    """What was done: who signed, which packages were given, which files tell hosts of them."""

    signer: Signer
    packages: tuple[Placed, ...]
    sources: tuple[Path, ...]


def publish(
    files: Sequence[Path], output: Path, environment: str, key: str | None, url: str | None
) -> Published:
    """Put the packages `files` into the repositories in the folder `output`, and sign those.

    `url` is where hosts find `output`; without it, in the file system.

    Raises:
        DigestError: the content of a package is not the one that was signed.
        MalformedError: a package is damaged, or nothing that countersign builds.
        OutputError: one is there with other bytes, has no place, or is for another environment;
            or nothing can be written.
        SigningError: no key is chosen, or gpg made no good signature.
        StatementError: an approval or a withdrawal is not signed, or the signatures do not fit.
        ToolError: a tool is missing or failed.
    """
    signer = choose_key(key)
    place = _address(url or output.resolve().as_uri(), environment)
    packages = [examine(file, int(time.time())) for file in files]
    _require_own_environment(packages, environment)
    with _working_in(output) as stage:
        _export_key(signer, stage)
        made = []
        for repository in repositories(output, environment, signer):
            mine = [package for package in packages if package.kind == repository.kind]
            if mine or repository.indexed_environments():
                _prepare(repository, mine, stage / repository.kind)
                _describe(repository, place, stage)
                made.append(repository)
        placed = [found for r in made for found in _placed(r, packages, stage)]
        for repository in made:
            _move(repository, stage / repository.kind)
        for file in [file for file in stage.iterdir() if file.is_file()]:
            file.replace(output / file.name)
    return Published(signer, tuple(placed), tuple(output / r.source for r in made))


def _require_own_environment(packages: Sequence[Package], environment: str) -> None:
    """Refuse the approval for another environment: the hosts that wait for it look elsewhere."""
    for package in packages:
        if package.environment not in {None, environment}:
            raise OutputError(f"{package.path} is for {package.environment}, not for {environment}")


def _address(url: str, environment: str) -> str:
    if not ENVIRONMENT.fullmatch(environment):
        raise OutputError(f"an environment's name matches {ENVIRONMENT.pattern}: {environment!r}")
    if not URL.fullmatch(url):
        raise OutputError(f"an address begins with http://, https:// or file://: {url!r}")
    return url.rstrip("/")


@contextmanager
def _working_in(output: Path) -> Iterator[Path]:
    """A temporary folder in `output`, which no other run works in meanwhile."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with TemporaryDirectory(prefix=".countersign-", dir=output) as folder:
                yield Path(folder)
        finally:
            os.close(lock)
    except OSError as error:
        raise OutputError(f"{output}: {error}") from None


def _export_key(signer: Signer, stage: Path) -> None:
    command = ("gpg", "--batch", "--armor", "--export-options", "export-minimal", "--export")
    (stage / KEY).write_bytes(run([*command, signer.fingerprint]))
    (stage / KEY.with_suffix(".gpg")).write_bytes(export_keys((signer,)))


def _prepare(repository: Repository, packages: Sequence[Package], stage: Path) -> None:
    """Make the repository as it will be in the folder `stage`; what is there now, as links."""
    if others := repository.indexed_environments() - {repository.environment}:
        raise OutputError(f"{repository.root} is the repository of {', '.join(sorted(others))}")
    pool, now = stage / repository.pool, int(time.time())
    pool.mkdir(parents=True)
    for package in packages:
        _add(package, repository.root / repository.pool / package.file_name, pool)
    indexed = repository.indexed_packages(now)
    for file in sorted((repository.root / repository.pool).glob(f"*.{repository.kind}")):
        if not (pool / file.name).exists():
            if indexed.get(file.name) != _digest(file):
                _refuse_stray(file, repository.signer)
            (pool / file.name).symlink_to(file.resolve())
    # Packages have the time of their build here: the newest one's is that of the index.
    epoch = max((int(file.stat().st_mtime) for file in pool.iterdir()), default=0)
    repository.write_index(stage, epoch, now)


def _add(package: Package, place: Path, pool: Path) -> None:
    """Put `package` into the `pool` that is being made, unless it is in its `place` already."""
    made = pool / package.file_name
    for present in (made, place):
        if present.exists() and _digest(present) != _digest(package.path):
            raise OutputError(f"{package.path} is another {package.file_name} than {present}")
    if place.exists() and not made.exists():
        made.symlink_to(place.resolve())
    elif not made.exists():
        shutil.copyfile(package.path, made)
        os.utime(made, (package.built, package.built))


def _refuse_stray(file: Path, signer: Signer) -> NoReturn:
    what = f"{file} was not put there by this command: no index of {signer.title} names it"
    raise OutputError(what, detail="If it belongs there, give it as an argument too.")


def _describe(repository: Repository, place: str, stage: Path) -> None:
    values = {"url": place, "environment": repository.environment, "key": KEY}
    text = render(f"repository/{repository.source}.j2", **values)
    (stage / repository.source).write_text(text, encoding="utf-8")


def _placed(repository: Repository, packages: Sequence[Package], stage: Path) -> Iterator[Placed]:
    for name in dict.fromkeys(p.file_name for p in packages if p.kind == repository.kind):
        made = stage / repository.kind / repository.pool / name
        accepted = repository.accepts(made, stage / KEY)
        yield Placed(repository.root / repository.pool / name, _digest(made), accepted)


def _move(repository: Repository, stage: Path) -> None:
    """Move what was made into place; what neither the old nor the new index names is removed."""
    root = repository.root
    named = _entries(root, repository) + _entries(stage, repository)
    files = [file.relative_to(stage) for file in stage.rglob("*") if not file.is_symlink()]
    files = [file for file in files if (stage / file).is_file() and file not in repository.entries]
    files.sort(key=lambda file: file.is_relative_to(repository.index))
    for file in (*files, *repository.entries):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (stage / file).replace(root / file)
    for old in [file for file in (root / repository.index).rglob("*") if file.is_file()]:
        if old.relative_to(root) not in repository.entries and old.name not in named:
            old.unlink()


def _entries(root: Path, repository: Repository) -> str:
    """What the entries say, which is also what names the rest."""
    files = [root / entry for entry in repository.entries]
    return "".join(file.read_text("utf-8") for file in files if file.exists())


def _digest(file: Path) -> Digest:
    with file.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())
