"""Builds companion packages: what a customer signed, as a package for the hosts it is meant for.

A folder of statements (`installer.approval`) is read as strictly as hosts read it: a file that has
no place in it, or a signature that does not fit, is refused, and at least one signature has to be
by a key that gpg's keyring holds. The package brings the folder to /etc/countersign/approvals and
does nothing else. It has no scriptlet, and its files are no configuration files: removing the
package removes the approval. The same folder gives the same package. Everything in it has the time
of the newest signature in the folder; its release number is that time and the number of signatures:
what was signed once more, or anew, is an upgrade.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from installer.approval import Approval, Withdrawal, parse_approval, parse_withdrawal
from installer.errors import MalformedError
from installer.openpgp import open_envelope
from installer.receipt import Receipt, parse_receipt
from installer.signatures import CLOCK_ERROR
from installer.strict_json import moment
from installer.tree import Digest, digest_of
from packager.errors import SigningError, StatementError
from packager.formats import deb, rpm
from packager.signing import Signer, UnknownSignerError, recognise
from packager.templates import render

APPROVALS = "/etc/countersign/approvals"
"""Where hosts look for folders of statements."""

FOLDERS = ("/etc/countersign", APPROVALS)
"""Above a folder of statements; other packages have them too."""

APPROVAL = "approval.json"
RECEIPT = "receipt.json"
WITHDRAWAL = "withdrawal.json"
FILE = re.compile(r"(approval|receipt|withdrawal)\.json((\.[0-9A-F]{40})?\.asc)?")
"""What a folder of statements may hold; plain gpg writes NAME.json.asc."""

SIGN_AGAIN = "Remove it and sign again, or obtain both files again from whoever signed."

Statement = Approval | Withdrawal


@dataclass(frozen=True, slots=True)
class Papers:
    """A folder of statements: its files by name, what the customer says in it, and who signed that.

    `unknown` are keys that signed too, and that gpg's keyring does not hold; `last_signed` is when
    the newest signature in the folder says that it was made, in seconds since 1970, and 0 where
    there is none.
    """

    files: Mapping[str, bytes]
    statement: Statement
    receipt: Receipt | None
    signers: tuple[Signer, ...]
    unknown: tuple[str, ...]
    last_signed: int

    @property
    def folder(self) -> str:
        """What the folder is called, wherever it is."""
        return folder_of(self.statement)

    @property
    def document(self) -> str:
        """The file that the customer signed."""
        return document_of(self.statement)


def folder_of(statement: Statement) -> str:
    """The name of the folder that a statement is kept in.

    That of a withdrawal names the approval too: there may be several of one release.
    """
    folder = f"{statement.product}-{statement.version}-{statement.environment}"
    if isinstance(statement, Approval):
        return folder
    return f"{folder}-withdrawal-{short(statement.approval)}"


def short(digest: Digest) -> str:
    """The beginning of a digest, to tell one approval from another in a name."""
    return digest[:12]


def document_of(statement: Statement) -> str:
    """The name of the file that holds a statement."""
    return APPROVAL if isinstance(statement, Approval) else WITHDRAWAL


def signatures(files: Mapping[str, bytes], document: str) -> Iterator[str]:
    """Names of those `files` that are signatures of `document`."""
    return (name for name in sorted(files) if name.startswith(document) and name != document)


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder of statements, by name.

    Raises:
        StatementError: it cannot be read, or holds something that has no place in it.
    """
    try:
        names = sorted(file.name for file in folder.iterdir())
        for name in names:
            if not FILE.fullmatch(name) or not (folder / name).is_file():
                raise StatementError(
                    f"{folder} has {name}, which is neither a statement nor a signature of one",
                    detail="Signatures are named approval.json.asc: gpg --armor --detach-sign.",
                )
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise StatementError(f"{error.filename or folder}: {error.strerror}") from None


def read_papers(folder: Path, now: int) -> Papers:
    """The statements in `folder`, as far as they fit together and are signed.

    Raises:
        StatementError: one is malformed, foreign, or signed by nobody who is known here.
        ToolError: gpg is missing.
    """
    return papers_of(read_files(folder), str(folder), now)


def papers_of(files: Mapping[str, bytes], where: str, now: int) -> Papers:
    """What `read_papers` returns, of files that messages say to be in `where`."""
    statement = statement_of(files, where)
    receipt = _receipt(files, statement, where)
    signers, unknown = signed_by(files, document_of(statement), where, now)
    if receipt:
        signed_by(files, RECEIPT, where, now)
    return Papers(files, statement, receipt, signers, unknown, _last_signed(files, where, now))


def require_signed(papers: Papers, where: str) -> None:
    """Refuse papers that nobody who is known here has signed.

    Raises:
        StatementError: there is no signature of a key that gpg's keyring holds.
    """
    if papers.signers:
        return
    if papers.unknown:
        raise StatementError(
            f"{where}: {papers.document} was signed with {papers.unknown[0]}, "
            "which is not in gpg's keyring",
            detail="Import the public key of whoever signed: gpg --import FILE",
        )
    raise StatementError(
        f"{where}: {papers.document} has no signature yet",
        detail=f"In that folder: gpg --armor --detach-sign {papers.document}",
    )


def statement_of(files: Mapping[str, bytes], where: str) -> Statement:
    """The one statement of a customer among `files`.

    Raises:
        StatementError: there is none, or more than one, or it is malformed.
    """
    parsers: dict[str, Callable[[bytes], Statement]] = {
        APPROVAL: parse_approval,
        WITHDRAWAL: parse_withdrawal,
    }
    found = [name for name in parsers if name in files]
    if len(found) != 1:
        what = "both" if found else "neither"
        raise StatementError(f"{where} has {what} of {APPROVAL} and {WITHDRAWAL}; it has to be one")
    try:
        return parsers[found[0]](files[found[0]])
    except MalformedError as error:
        raise StatementError(f"{where}: {error}") from None


def signed_by(
    files: Mapping[str, bytes], document: str, where: str, now: int
) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    """Who signed `document`; and the keys that did and are not known here.

    Raises:
        StatementError: a signature does not fit.
        ToolError: gpg is missing.
    """
    signers, unknown = set(), set()
    for name in signatures(files, document):
        what = f"{where}: {name}"
        try:
            signer, _ = recognise(files[name], files[document], now, what, document)
        except UnknownSignerError as error:
            unknown.add(error.fingerprint)
        except SigningError as error:
            raise StatementError(str(error), detail=SIGN_AGAIN) from None
        else:
            signers.add(signer)
    return tuple(sorted(signers)), tuple(sorted(unknown))


def _last_signed(files: Mapping[str, bytes], where: str, now: int) -> int:
    """When the newest signature was made.

    Those by keys that are not known here count as well: who builds the package must not matter.
    One that claims to be of the future would be the newest for ever, and hosts would refuse it.
    """
    times = {n: open_envelope(files[n]).created for n in sorted(files) if n.endswith(".asc")}
    for name, time in times.items():
        if time > now + CLOCK_ERROR:
            raise StatementError(
                f"{where}: {name} was made in the future, at {moment(time)}", detail=SIGN_AGAIN
            )
    return max(times.values(), default=0)


def _receipt(files: Mapping[str, bytes], statement: Statement, where: str) -> Receipt | None:
    """The receipt that an approval names, which has to be there with a signature."""
    wanted = statement.receipt if isinstance(statement, Approval) else None
    raw = files.get(RECEIPT)
    for name in (APPROVAL, RECEIPT, WITHDRAWAL):
        if name not in files and (stray := next(signatures(files, name), None)):
            raise StatementError(f"{where}: {stray} is there, but no {name}")
    if (digest_of(raw) if raw is not None else None) != wanted:
        raise StatementError(
            f"{where}: {RECEIPT} is not the one that {document_of(statement)} names",
            detail="Copy the receipt and its signature there again, without changing a byte.",
        )
    if raw is None:
        return None
    if next(signatures(files, RECEIPT), None) is None:
        raise StatementError(f"{where}: {RECEIPT} has no signature of the host beside it")
    try:
        return parse_receipt(raw)
    except MalformedError as error:
        raise StatementError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True)
class Companion:
    """A companion package, as its templates say it.

    `epoch` is the time of everything in it, in seconds since 1970.
    """

    name: str
    version: str
    environment: str
    summary: str
    description: str
    folder: str
    files: Mapping[str, bytes]
    signers: tuple[Signer, ...]
    epoch: int

    @property
    def release(self) -> str:
        """What tells packages of one version apart; the one with more to say is the higher number.

        The time comes first, since a new approval counts for more than many signatures of an old.
        """
        signatures = sum(name.endswith(".asc") for name in self.files)
        return f"{datetime.fromtimestamp(self.epoch, UTC):%Y%m%d%H%M%S}.{signatures}"

    @property
    def file_names(self) -> Mapping[str, str]:
        """What its packages are called, by the names that `packager.formats` has."""
        full = f"{self.version}-{self.release}"
        return {"rpm": f"{self.name}-{full}.noarch.rpm", "deb": f"{self.name}_{full}_all.deb"}

    @property
    def author(self) -> str:
        """Whom a package names as the one who made it."""
        return self.signers[0].user_id

    @property
    def payload(self) -> dict[str, bytes]:
        """What it installs, by path."""
        return {f"{self.folder}/{name}": content for name, content in self.files.items()}


def build_packages(
    papers: Papers, kinds: Sequence[str], into: Path, package_key: str | None
) -> tuple[Path, ...]:
    """Build the packages of `papers` in the folder `into`; `kinds` are names in `BUILDERS`.

    Raises:
        OutputError: a reason cannot be written into a package.
        SigningError: gpg has no such key to sign the packages with.
        ToolError: a tool is missing or failed.
    """
    if not kinds:
        return ()
    companion = companion_of(papers)
    return tuple(BUILDERS[kind](companion, into, package_key) for kind in kinds)


def companion_of(papers: Papers) -> Companion:
    """The package of `papers`, which somebody has signed.

    An approval's takes the place of the one before, a withdrawal's that of no other: its name has
    the approval that it takes back.
    """
    statement = papers.statement
    environment = statement.environment.lower().replace("_", "-")
    name = f"{statement.product}-approval-{environment}"
    what = "Approval"
    if isinstance(statement, Withdrawal):
        name = f"{statement.product}-withdrawal-{environment}-{short(statement.approval)}"
        what = "Withdrawal of the approval"
    title = f"{statement.product} {statement.version} for {statement.environment}"
    return Companion(
        name=name,
        version=statement.version,
        environment=statement.environment,
        summary=f"{what} of {title}",
        description="\n".join(_description(papers)),
        folder=f"{APPROVALS}/{papers.folder}",
        files=papers.files,
        signers=papers.signers,
        epoch=papers.last_signed,
    )


def _description(papers: Papers) -> Iterator[str]:
    statement = papers.statement
    title = f"{statement.product} {statement.version}"
    if isinstance(statement, Approval):
        yield f"The customer approves {title}, number {statement.sequence} in the sequence of"
        yield f"releases, for {statement.environment}."
        yield ""
        yield f"Good from {moment(statement.not_before)} until {moment(statement.expires)}"
        yield "SHA-256 of the manifest:"
        yield f"  {statement.manifest}"
    else:
        yield f"The approval of {title} for {statement.environment} does not hold any more:"
        yield f"  {statement.reason}"
        yield ""
        yield "SHA-256 of the approval:"
        yield f"  {statement.approval}"
    if papers.receipt:
        yield f"SHA-256 of the receipt, of {papers.receipt.host} in {papers.receipt.environment}:"
        yield f"  {papers.receipt.digest}"
    yield "Signed by:"
    for signer in papers.signers:
        yield f"  {signer.user_id}"
        yield f"    {signer.fingerprint}"
    for key in papers.unknown:
        yield "  a key that was not known where this package was built"
        yield f"    {key}"
    yield ""
    yield "Whether the signatures count is decided by the policy of the host. Removing"
    yield "this package removes what it brought, and so takes it back on this host."


def _rpm(companion: Companion, into: Path, package_key: str | None) -> Path:
    made = datetime.fromtimestamp(companion.epoch, UTC)
    text = render(
        "approval.spec.j2",
        package=companion,
        parents=FOLDERS,
        installer_version=rpm.MIN_INSTALLER,
        date=max(made, rpm.OLDEST_CHANGELOG).strftime("%a %b %d %Y"),
    )
    with TemporaryDirectory(prefix="countersign-rpm-") as name:
        folder = Path(name)
        deb.write_files(folder / "payload", companion.payload)
        for path in (folder / "payload").rglob("*"):
            os.utime(path, (companion.epoch, companion.epoch))
        (folder / "package.spec").write_text(text, encoding="utf-8")
        package = rpm.rpmbuild(folder, companion.epoch)
        if package_key:
            rpm.sign_package(package, package_key, folder)
        return Path(shutil.copy(package, into / companion.file_names["rpm"]))


def _deb(companion: Companion, into: Path, package_key: str | None) -> Path:
    version = f"{companion.version}-{companion.release}"
    made = datetime.fromtimestamp(companion.epoch, UTC)
    values = {
        "package": companion,
        "version": version,
        "maintainer": deb.maintainer(companion.signers),
        "date": format_datetime(made),
        "year": made.year,
    }
    with TemporaryDirectory(prefix="countersign-deb-") as name:
        root = Path(name) / "root"
        legal, changes, overrides = deb.documents(companion.name)
        documents = {
            legal: render("deb/approval-copyright.j2", **values).encode(),
            changes: deb.gzip(render("deb/approval-changelog.j2", **values).encode()),
            overrides: render("deb/approval-lintian-overrides.j2", **values).encode(),
        }
        deb.write_files(root, documents | companion.payload)
        control = render(
            "deb/approval-control.j2",
            installed_size=deb.installed_size(root),
            installer_version=deb.MIN_INSTALLER,
            **values,
        )
        # No conffiles: dpkg would leave the approval on the host when the package is removed.
        files = {"control": control.encode(), "md5sums": deb.md5sums(root, configuration="")}
        deb.write_control(root, files)
        package = deb.dpkg_deb(root, companion.epoch, "-Znone")
        if package_key:
            deb.sign_package(package, package_key, companion.epoch)
        return Path(shutil.copy(package, into / companion.file_names["deb"]))


BUILDERS: Mapping[str, Callable[[Companion, Path, str | None], Path]] = {"rpm": _rpm, "deb": _deb}
"""By the names that `packager.formats` has."""
