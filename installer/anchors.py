"""What a host knows of the ledger outside of its database, and whether the ledger agrees.

Opens nothing. An anchor is the hash of the ledger's last row after an install, as its receipt has
it. It has to be the hash of a row. Where it is not, times say what was done, with `CLOCK_ERROR` for
the clocks of the host and of its database (docs/decisions/0021).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from installer.ledger_chain import Chain, Finding, Row
from installer.receipt import FAILED, Receipt
from installer.signatures import CLOCK_ERROR
from installer.strict_json import moment
from installer.tree import Digest

APPLIED, ADOPTED, REFUSED = "release applied", "release adopted", "release failed"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The hash of the ledger's last row after an install. Times are in seconds since 1970."""

    where: str
    title: str
    ledger: Digest
    install: tuple[str, str, str]
    started: int
    finished: int

    @property
    def latest(self) -> str:
        """When its row was written at the latest, as rows have their times."""
        return moment(self.finished + CLOCK_ERROR)


def anchor_of(where: str, receipt: Receipt) -> Anchor | None:
    """The anchor in a receipt; None where the install did not reach a database."""
    if receipt.database is None:
        return None
    install = (
        REFUSED if receipt.outcome == FAILED else APPLIED,
        receipt.manifest,
        receipt.host,
    )
    return Anchor(
        where, receipt.title, receipt.database.ledger, install, receipt.started, receipt.finished
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Whose ledger it is. `copied` is since when it may be a copy of another environment's.

    That is a time as rows have it, and empty where the database cannot be a copy.
    """

    host: str
    environment: str
    copied: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a ledger does not agree with, and how many anchors it was compared with.

    `before_copy` are anchors from before the database became a copy, `without` releases that this
    host applied and has no receipt of.
    """

    findings: tuple[Finding, ...]
    compared: int
    before_copy: int
    without: int


class Comparison:
    """Compares rows, as they come, with anchors."""

    def __init__(self, ledger: Ledger, anchors: Iterable[Anchor]) -> None:
        self._ledger = ledger
        self._anchors = sorted(anchors, key=lambda anchor: anchor.finished)
        self._hashes = {anchor.ledger for anchor in self._anchors}
        self._installs = defaultdict[tuple[str, str, str], list[Anchor]](list)
        for anchor in self._anchors:
            self._installs[anchor.install].append(anchor)
        self._found: set[str] = set()
        self._alike: dict[str, int] = {}
        self._is_copy = False
        self._without = 0
        self.manifests: dict[str, str] = {}
        """Title of each release that was applied or adopted, by its manifest."""

    def see(self, row: Row) -> None:
        """Take the next row."""
        install = (row["event"], row["manifest"], row["host"])
        anchors = self._installs.get(install, ())
        self._is_copy |= row["environment"] != self._ledger.environment
        if row["event"] in {APPLIED, ADOPTED}:
            self.manifests[row["manifest"]] = f"{row['product']}-{row['version']}"
        if row["event"] == APPLIED and row["host"] == self._ledger.host and not anchors:
            self._without += 1
        if row["hash"] in self._hashes:
            self._found.add(row["hash"])
            return
        for anchor in anchors:
            if moment(anchor.started - CLOCK_ERROR) <= row["at"] <= anchor.latest:
                self._alike.setdefault(anchor.ledger, row["id"])

    def verdict(self, chain: Chain, installed: Iterable[tuple[str, Digest]]) -> Verdict:
        """What the ledger does not agree with; `chain` was followed to its end.

        `installed` are releases that the host has: their titles, and their manifests.
        """
        copied = self._ledger.copied if self._is_copy else ""
        lost = [anchor for anchor in self._anchors if anchor.ledger not in self._found]
        here = [anchor for anchor in lost if moment(anchor.finished) >= copied]
        findings = [self._lost(anchor, chain) for anchor in here]
        findings += [
            Finding("absent", f"{title} is installed here, and no row says that it was applied")
            for title, manifest in installed
            if manifest not in self.manifests and not copied
        ]
        counts = len(self._anchors) - len(lost) + len(here), len(lost) - len(here)
        return Verdict(tuple(findings), *counts, self._without)

    def _lost(self, anchor: Anchor, chain: Chain) -> Finding:
        what = f"{anchor.where} ({anchor.title}): no row has the hash {anchor.ledger[:16]}…"
        later = {a.ledger for a in self._anchors if a.finished > anchor.finished}
        if row := self._alike.get(anchor.ledger):
            words = f"row {row}, of that install, has another: the chain was computed anew"
            return Finding("rewritten", f"{what}, and {words}")
        if chain.is_sound and later & self._found:
            words = "that of a later receipt is there: an old backup was restored, and used since"
            return Finding("restored", f"{what}, and {words}")
        if not later & (self._found | self._alike.keys()) and chain.at <= anchor.latest:
            end = (
                f"ends before it, with row {chain.last} of {chain.at}" if chain.last else "is empty"
            )
            words = "its tail was cut, or an old backup was restored"
            return Finding("cut", f"{what}, and the ledger {end}: {words}")
        words = "it was taken out, or an old backup was restored, and used since"
        return Finding("gone", f"{what}, and there are rows after it: {words}")
