"""What a customer is about to sign, in words for people.

Pure: a case (`packager.approval`) becomes titles and lines.
"""

from collections.abc import Iterable, Iterator

from installer.manifest import EMPTY, Application, Database, Manifest
from installer.receipt import MeasuredDatabase, Receipt
from installer.strict_json import moment
from packager import show
from packager.approval import Case, Witness
from packager.schema_words import locks, number, schema_changes
from packager.show import Section, printable, shortened


def briefing(case: Case) -> Iterator[Section]:
    """What is signed, in words for the customer."""
    approval, receipt = case.approval, case.receipt
    yield Section(
        f"You approve {case.manifest.title} for {approval.environment}",
        (
            printable(case.manifest.summary),
            f"sequence  {approval.sequence}",
            f"manifest  {approval.manifest}",
            *((show.rehearsal_words(case.manifest),) if case.manifest.database else ()),
            f"good from {moment(approval.not_before)}",
            f"until     {moment(approval.expires)}",
        ),
    )
    yield Section("The package is signed by", _names(case.developers))
    yield Section(
        f"It was installed on {printable(receipt.host)} in {receipt.environment}",
        (
            f"package   {printable(receipt.package)}",
            f"from      {moment(receipt.started)}",
            f"until     {moment(receipt.finished)}, {receipt.finished - receipt.started} s in all",
            f"receipt   {receipt.digest}",
            "signed by",
            *(f"  {name}" for name in _names(case.hosts)),
        ),
    )
    if case.manifest.database:
        yield from _warnings(case.manifest.database, receipt)
    if receipt.database:
        yield from database_sections(receipt.database, case.manifest)
    if case.manifest.application:
        yield _application(case.manifest.application)
    if case.signed:
        yield Section("Signed before by", tuple(signer.title for signer in case.signed))


def _warnings(database: Database, receipt: Receipt) -> Iterator[Section]:
    """What of the release is not as releases are: accepted changes, and online scripts."""
    if changed := tuple(show.accepted_changes(database)):
        yield Section("Released scripts were changed, which this release accepts", changed)
    ran = {script.name for script in receipt.database.scripts} if receipt.database else set()
    new = (script for script in database.scripts if script.name in ran)
    yield from show.online_scripts("This release is not one transaction", new)


def doubts(case: Case) -> Iterator[str]:
    """What could not be verified here, and has to be by the hosts' policy."""
    environment = case.approval.environment
    for who, witnesses in (("package", case.developers), ("receipt", case.hosts)):
        for witness in witnesses:
            if witness.name is None:
                yield (
                    f"the {who} is signed with {witness.fingerprint}, which is not known here: not "
                    f"verified. Whether it counts is decided by the policy of {environment}"
                )


def _names(witnesses: Iterable[Witness]) -> tuple[str, ...]:
    return tuple(
        f"{'not verified: a key that is not known here' if w.name is None else printable(w.name)}"
        f" {w.fingerprint}"
        for w in witnesses
    )


def database_sections(
    database: MeasuredDatabase, manifest: Manifest, whole: str = "the receipt"
) -> Iterator[Section]:
    """What happened to the database: scripts, objects, locks; `whole` has what is cut."""
    name, took = printable(database.name), _duration(database.milliseconds)
    released = len(manifest.database.scripts) if manifest.database else 0
    yield Section(
        f"Database {name}: {len(database.scripts)} of the release's "
        f"{number(released, 'script')} ran, in {took}",
        tuple(
            f"{printable(script.name)}: {_duration(script.milliseconds)}, "
            f"{number(script.rows, 'row')}"
            for script in database.scripts
        )
        or ("none: they had all been applied before",),
    )
    changed = schema_changes(database.start, database.end, whole)
    yield Section(f"Database {name}: what changed in the schema", tuple(changed))
    yield Section(
        f"Database {name}: locks on what was there before, for at most {took}",
        tuple(locks(database)) or ("none",),
    )
    if database.retries:
        lines = (f"{_duration(r.milliseconds)}: {printable(r.reason)}" for r in database.retries)
        yield Section(f"Database {name}: it had to wait", tuple(lines))


def _application(application: Application) -> Section:
    """Which files change, from each starting point."""
    lines = [number(len(application.tree), "file")]
    for patch in application.patches:
        found = show.changes(application, patch)
        counts = ", ".join(f"{len(paths)} {word}" for word, paths in found.items())
        lines.append(f"from {printable(patch.name)}: {counts}")
        if patch.name != EMPTY:
            paths = [f"{word} {path}" for word, paths in found.items() for path in paths]
            lines += [f"  {line}" for line in shortened(paths)]
    return Section(f"Application {application.root}", tuple(lines))


def _duration(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f} s"
