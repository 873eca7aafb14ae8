"""From a project to its signed package, which is read back before it is called built.

Everything is made under a temporary name beside its destination, and renamed into place at the
end: a failed build leaves no package behind.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from installer.bundle import CONTENT, MANIFEST, Head
from installer.errors import InstallerError
from installer.manifest import Manifest
from installer.tree import digest_of
from packager.advice import advise, sections
from packager.bundle_writer import write_bundle
from packager.checks import run_checks
from packager.errors import OutputError, SigningError
from packager.formats import FORMATS
from packager.formats.interface import BUNDLE, Order
from packager.lint import require_within
from packager.output import place, temporary_folder, write
from packager.package_reader import read_package
from packager.release import Release
from packager.report import write_report
from packager.signing import (
    SIGNATURES,
    Signer,
    choose_key,
    identify,
    require_good,
    sign,
    signature_file,
)


class NotSignedError(SigningError):
    """Nobody has signed the manifest yet."""

    hint = "Run `countersign sign`, or `countersign manifest` and then gpg --armor --detach-sign."


def build(release: Release, output: Path, kind: str = "rpm") -> tuple[Path, tuple[Signer, ...]]:
    """Build one package of `release`; see `build_packages`."""
    (package,), signers = build_packages(release, output, (kind,))
    return package, signers


def build_packages(
    release: Release, output: Path, kinds: Sequence[str]
) -> tuple[tuple[Path, ...], tuple[Signer, ...]]:
    """Build packages of `release` with the signatures in its work folder; also says whose.

    `kinds` are names in `FORMATS`. There are all packages, with the same bundle, or none.

    Raises:
        OutputError: it cannot be written, is too large, or does not read back as it was meant.
        SigningError: there is no signature, or one does not fit the manifest.
        ToolError: a tool is missing or failed.
    """
    signatures = collect_signatures(work_folder(output, release.manifest), release.raw)
    head = Head(release.raw, {s.fingerprint: signatures[s] for s in signatures})
    order = _order(release, head, signatures)
    write_work(release, output)
    with temporary_folder(output) as folder:
        made = [FORMATS[kind].write(order, folder) for kind in kinds]
        for package in made:
            _require_as_meant(package, order, head)
        for package in made:
            place(package, output / package.name)
    return tuple(output / package.name for package in made), order.signers


def work_folder(output: Path, manifest: Manifest) -> Path:
    """Where a release's manifest, signatures and content are put for its developers."""
    return output / f"{manifest.product}-{manifest.version}"


def write_work(release: Release, output: Path) -> Path:
    """Write the manifest, for its developers to sign, and the content; returns the manifest.

    Beside it is a report of what is to be told about the scripts.

    Raises:
        InstallerError: a check of another program refuses the release.
        LintError: that is more than release.toml allows.
        OutputError: they cannot be written.
        ToolError: release.toml has a threshold, and squawk is missing or failed.
    """
    advice = advise(release)
    require_within(advice.lint, release.project.lint)
    run_checks(release)
    folder = work_folder(output, release.manifest)
    files = {CONTENT: release.compressed, MANIFEST: release.raw}
    with temporary_folder(folder) as temporary:
        for name, content in files.items():
            write(temporary / name, content)
            place(temporary / name, folder / name)
    write_report(folder, sections(advice))
    return folder / MANIFEST


def sign_work(release: Release, output: Path, key: str | None) -> tuple[Path, Signer]:
    """Write the manifest and sign it; returns the signature's file, and who signed.

    Raises:
        OutputError: the files cannot be written.
        SigningError: no key is chosen, or gpg made no signature that hosts accept.
        ToolError: gpg is missing.
    """
    signer = choose_key(key)
    manifest = write_work(release, output)
    file = manifest.with_name(signature_file(signer))
    write(file, sign(release.raw, signer, _now()))
    return file, signer


def collect_signatures(folder: Path, raw: bytes) -> dict[Signer, bytes]:
    """The signatures in a work folder, by who made them; each fits the manifest `raw`.

    Raises:
        NotSignedError: there is none.
        SigningError: one does not fit.
        ToolError: gpg is missing.
    """
    found: dict[Signer, bytes] = {}
    for file in sorted(folder.glob(SIGNATURES)):
        found.setdefault(identify(file, raw, _now()), file.read_bytes())
    if not found:
        raise NotSignedError(f"{folder / MANIFEST} has no signature yet")
    return found


def _order(release: Release, head: Head, signatures: Mapping[Signer, bytes]) -> Order:
    bundle = write_bundle(head, release.compressed)
    files = {signature_file(signer): signature for signer, signature in signatures.items()}
    return Order(
        manifest=release.manifest,
        head=head.serialise(),
        bundle=bundle,
        payload={MANIFEST: release.raw, BUNDLE: bundle, **files},
        signers=tuple(sorted(signatures)),
        description=release.project.description,
        license=release.project.license,
        package_key=release.project.package_key,
    )


def _require_as_meant(package: Path, order: Order, meant: Head) -> None:
    """Read the package as a host will, and compare it with what went in."""
    try:
        info, bundle = read_package(package)
        content = bundle.open_content(order.manifest)
        for blob in order.manifest.blobs:
            content.read(blob)
    except InstallerError as error:
        raise OutputError(f"{package.name} does not read back: {error}") from None
    for signer in order.signers:
        signature = bundle.head.signatures[signer.fingerprint]
        require_good(signature, bundle.head.manifest, signer, _now(), package.name)
    payload = {f"{order.folder}/{name}": digest_of(data) for name, data in order.payload.items()}
    if bundle.head != meant or info.payload != payload:
        raise OutputError(f"{package.name} reads back as something else than was meant")


def _now() -> int:
    return int(time.time())
