"""What a database says of itself: its cluster, its environment, the releases in its ledger."""

from importlib.resources import files

from installer.session import Session
from refresher.safeguards import Identity

_SYSTEM = """
SELECT system_identifier::text, current_database(), pg_catalog.pg_is_in_recovery(),
    extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text
FROM pg_catalog.pg_control_system()
"""
_THERE = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"
_ENVIRONMENT = "SELECT environment FROM countersign.database"
_RELEASES = """
SELECT product, max(sequence) FROM countersign.ledger
WHERE event IN ('release applied', 'release adopted') GROUP BY product ORDER BY product
"""
_LEDGER_OWNER = """
SELECT quote_ident(pg_catalog.pg_get_userbyid(relowner)) FROM pg_catalog.pg_class
WHERE oid = pg_catalog.to_regclass('countersign.ledger')
"""
_SET_ENVIRONMENT = """
INSERT INTO countersign.database (environment) VALUES (%s)
ON CONFLICT (single) DO UPDATE SET environment = excluded.environment, since = excluded.since
"""


def identity_of(session: Session) -> Identity:
    """The identity of the database that `session` is connected to.

    Raises:
        ServerError: the server refused a query, such as for a role that may not read the ledger.
    """
    system, database, is_standby, started = session.rows(_SYSTEM)[0]
    says = session.one(_THERE, ["countersign.database"])
    has_ledger = session.one(_THERE, ["countersign.ledger"])
    return Identity(
        system=system,
        database=database,
        environment=session.one(_ENVIRONMENT) if says else None,
        releases=dict(session.rows(_RELEASES)) if has_ledger else {},
        is_standby=is_standby,
        started=started,
    )


def set_environment(session: Session, environment: str) -> bool:
    """Let the database say which environment it is; false where it has no ledger to say it in.

    Raises:
        ServerError: the server refused.
    """
    owner = session.one(_LEDGER_OWNER)
    if owner is None:
        return False
    if not session.one(_THERE, ["countersign.database"]):  # a ledger of before there was that table
        make = files("installer").joinpath("environment.sql").read_text(encoding="utf-8")
        session.execute(f"SET ROLE {owner}; {make}; RESET ROLE".encode())
    session.rows(_SET_ENVIRONMENT, [environment])
    return True
