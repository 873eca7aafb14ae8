"""What a database says of itself: written by an install, kept, and set anew by a refresh."""

from importlib.resources import files
from pathlib import Path
from subprocess import run

import pytest

from installer.database import Database, connect
from installer.host_file import DatabaseTarget
from installer.host_key import HostKey
from installer.session import Session
from installer.transaction import Origin
from refresher.identity import identity_of, set_environment
from refresher.report import Report, write_report
from refresher.safeguards import Identity
from tests.cluster import Cluster, private_cluster

pytestmark = pytest.mark.integration

ENVIRONMENT = "SELECT environment FROM countersign.database"


def origin(environment: str) -> Origin:
    return Origin(
        product="crm",
        version="1.0",
        sequence=3,
        manifest="0" * 64,  # type: ignore[arg-type]
        signers=(),
        environment=environment,
        host="h",
        package="p",
        installer="0",
    )


def target(conninfo: str) -> DatabaseTarget:
    return DatabaseTarget("crm", conninfo, "crm_owner", "public", 1, 0, 1)


def name_of(conninfo: str) -> str:
    return conninfo.split("dbname=")[1].split(maxsplit=1)[0]


def record(database: Database, verb: str, environment: str) -> None:
    with database.transaction() as transaction:
        transaction.record(verb, origin(environment))


@pytest.mark.parametrize("verb", ["applied", "adopted"])
def test_the_first_install_says_which_environment_it_is(
    cluster: Cluster, database: str, verb: str
) -> None:
    with connect(target(database), "test") as opened:
        record(opened, verb, "QAT")

    with Session.open(database) as session:
        found = identity_of(session)
    assert (found.environment, found.releases) == ("QAT", {"crm": 3})
    assert found.database == name_of(database)
    assert cluster.psql("SELECT count(*) FROM countersign.database", name_of(database)) == "1"


def test_a_copy_of_prd_says_prd_whatever_host_installs_there(
    cluster: Cluster, database: str
) -> None:
    with connect(target(database), "test") as opened:
        record(opened, "applied", "PRD")
        record(opened, "applied", "QAT")

    assert cluster.psql(ENVIRONMENT, name_of(database)) == "PRD"


def test_a_ledger_of_before_says_it_from_the_next_install_on(
    cluster: Cluster, database: str
) -> None:
    ledger = files("installer").joinpath("ledger.sql").read_text(encoding="utf-8")
    cluster.psql(ledger, name_of(database), user="countersign")

    with connect(target(database), "test") as opened:
        record(opened, "applied", "PRD")

    assert cluster.psql(ENVIRONMENT, name_of(database)) == "PRD"


def test_a_refresh_of_a_ledger_of_before_leaves_it_to_the_installer(
    cluster: Cluster, database: str
) -> None:
    ledger = files("installer").joinpath("ledger.sql").read_text(encoding="utf-8")
    cluster.psql(ledger, name_of(database), user="countersign")

    with Session.open(cluster.conninfo(name_of(database), "postgres")) as session:
        assert set_environment(session, "QAT")
        assert set_environment(session, "DEV")

    assert cluster.psql(ENVIRONMENT, name_of(database)) == "DEV"
    with connect(target(database), "test") as opened:  # which refuses what another role owns
        record(opened, "applied", "DEV")


def test_a_database_without_a_ledger_says_nothing(database: str) -> None:
    with Session.open(database) as session:
        assert not set_environment(session, "QAT")
        assert identity_of(session).environment is None


def test_databases_of_one_server_are_known_as_such_and_its_next_start_is_not() -> None:
    found = []
    with private_cluster() as own:
        for _ in range(2):
            for name in ("postgres", "template1"):
                with Session.open(own.conninfo(name)) as session:
                    found.append(identity_of(session))
            own.crash()
            own.start()

    one, other, later, _ = found
    assert (one.system, one.started) == (other.system, other.started)
    assert (one.system, one.started < later.started) == (later.system, True)


def test_a_report_is_signed_by_the_hosts_key(tmp_path: Path) -> None:
    key = HostKey(tmp_path / "key")
    key.create("qat1")
    nothing = Identity("1", "crm")
    report = Report(
        run="20260131000000", mode="copy", environment="QAT", source=nothing, target=nothing,
        rows={}, bytes=0, sequences=0, large_objects=0, materialized_views=(), left_out=(),
        constraints={}, not_valid=(), fingerprints=None, dropped=(), kept=None, seconds={},
    )  # fmt: skip

    file = write_report(tmp_path, report, key)

    command = ["gpg", "--homedir", str(tmp_path / "key"), "--verify", f"{file}.asc", str(file)]
    assert run(command, capture_output=True, timeout=60, check=False).returncode == 0
    file.write_bytes(file.read_bytes().replace(b"QAT", b"DEV"))
    assert run(command, capture_output=True, timeout=60, check=False).returncode == 1
    run(["gpgconf", "--homedir", str(tmp_path / "key"), "--kill", "all"], check=True, timeout=60)
