"""What a host makes of a database alone: an install that was cut short, a ledger, a receipt."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest

from installer.approval import Approved
from installer.bundle import ContentReader, Head, Section
from installer.check import _measured, check_host
from installer.database import Database, connect
from installer.errors import ConfigurationError, ScriptFailedError
from installer.host_file import HostFile
from installer.install import Install, _keep_failure, _stands
from installer.machine import Machine
from installer.manifest import Database as Scripts
from installer.manifest import Script, parse_manifest
from installer.promotion import Measure
from installer.receipt import ScriptReceipt, write_receipt
from installer.receipts import Measurement, finish
from installer.recovery import recover
from installer.report import Report
from installer.site import Site
from installer.state import ProductState
from installer.status import status
from installer.transaction import ScriptRun
from installer.tree import digest_of
from packager.manifest_writer import write_manifest
from tests.cluster import Cluster
from tests.integration.test_database import ORIGIN, database_name, target
from tests.manifests import a_manifest
from tests.unit.test_check import MACHINE
from tests.unit.test_receipt import RECEIPT

pytestmark = pytest.mark.integration

RAW = write_manifest(a_manifest(database=Scripts("crm", (), ())))


@dataclass(frozen=True)
class Cut:
    """A host on which an install was cut short."""

    machine: Machine
    report: Report
    database: Database

    @property
    def state(self) -> ProductState:
        return ProductState(self.machine.state / "crm")

    def recover(self) -> str:
        outcome = recover("crm", self.machine, self.report)
        assert outcome is not None
        return outcome.result


@pytest.fixture
def cut(database: str, tmp_path: Path) -> Iterator[Cut]:
    (tmp_path / "crm").mkdir()
    (tmp_path / "receipts").mkdir()
    host = HostFile("QAT", {"crm": target(database)}, {})
    report = Report(tmp_path)
    report.be_quiet()
    with connect(target(database), "test") as opened:
        found = Cut(replace(MACHINE, host=host, state=tmp_path), report, opened)
        found.state.begin(Head(RAW, {}))
        yield found
    if report._open:
        report._open.close()


def problems(cut: Cut) -> list[str]:
    return [str(problem) for problem in status("crm", cut.machine).problems]


def test_what_was_not_committed_is_taken_back(cut: Cut) -> None:
    assert problems(cut) == ["the install of crm 1.0 was cut short"]

    assert cut.recover() == "taken back"

    assert cut.state.pending() is None
    assert cut.state.installed() is None
    assert problems(cut) == ["no release of crm was ever installed on this host"]
    assert cut.database.state("crm").releases == frozenset()


def test_what_was_committed_is_rolled_forward(cut: Cut) -> None:
    manifest = parse_manifest(RAW)
    origin = replace(ORIGIN, manifest=manifest.digest, version=manifest.version)
    with cut.database.transaction() as transaction:
        transaction.record("applied", origin, ())

    assert cut.recover() == "rolled forward"

    assert cut.state.pending() is None
    assert cut.state.installed() == manifest
    assert problems(cut) == []
    site = Site(manifest, cut.database, None, cut.state)
    assert _stands(site, ())
    assert not _stands(site, (Script("sql/1.sql", digest_of(b""), 0, ()),))
    assert recover("crm", cut.machine, cut.report) is None


def test_a_ledger_that_was_changed_is_told_of_by_check_and_by_status(
    cut: Cut, cluster: Cluster, database: str
) -> None:
    with cut.database.transaction() as transaction:
        transaction.record("applied", replace(ORIGIN, manifest=parse_manifest(RAW).digest), ())
    assert cut.recover() == "rolled forward"
    assert "database crm: reachable, scripts run as crm_owner" in check_host(cut.machine)

    edit = "UPDATE countersign.ledger SET host = 'x'"
    off = "ALTER TABLE countersign.ledger DISABLE TRIGGER ALL"
    cluster.psql(f"{off}; {edit}", database_name(database))

    with pytest.raises(ConfigurationError, match="database crm: the ledger's row 1 breaks its"):
        check_host(cut.machine)
    assert problems(cut) == ["the ledger was changed: row 1 breaks its chain"]


def test_a_receipt_that_knows_no_database_stays_as_it_is(cut: Cut) -> None:
    """Another host made the change, and online scripts end here."""
    draft = write_receipt(replace(RECEIPT, database=None))
    cut.state.keep_draft("crm.json", draft)

    finish(cut.state, cut.database.schema(), (), None)

    assert [file.read_bytes() for file in cut.state.drafts()] == [draft]


def test_a_change_that_has_begun_is_not_compared_with_the_schema_from_before_it(cut: Cut) -> None:
    one, two = (Script(f"sql/{n}.sql", digest_of(b""), 0, ()) for n in (1, 2))
    manifest = a_manifest(database=Scripts("crm", (one, two), ()))
    runs = [ScriptRun(script.name, script.digest, 0, 0) for script in (one, two)]
    with cut.database.transaction() as transaction:
        origin = replace(ORIGIN, manifest=manifest.digest)
        transaction.append(origin, [asdict(runs[0]) | {"event": "script applied"}])
    assert RECEIPT.database is not None
    scripts = tuple(ScriptReceipt(run.script, run.script_digest, 0, 0) for run in runs)
    tested = replace(RECEIPT, database=replace(RECEIPT.database, scripts=scripts))
    site = Site(manifest, cut.database, None, cut.state)

    assert _measured(Approved(tested, ()), cut.machine, site, (two,)) == [
        f"as tested: {tested.title}"
    ]


def test_a_failure_of_which_no_receipt_can_be_kept_is_told(
    cut: Cut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = parse_manifest(RAW)
    site = Site(manifest, cut.database, None, ProductState(tmp_path / "gone"))
    content = ContentReader(Section(BytesIO(), 0, 0), ())
    measured = Measurement(manifest, ORIGIN)
    this = Install(
        Head(RAW, {}), content, site, cut.machine, Measure(), measured, cut.report, frozenset()
    )

    _keep_failure(this, ScriptFailedError("sql/1.sql: it failed"))

    assert "no receipt tells of this failure: " in capsys.readouterr().err
    assert not list((tmp_path / "receipts").iterdir())
