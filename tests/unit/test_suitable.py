"""What a database is refused for; that the catalog is asked rightly is in the integration tests."""

from dataclasses import replace

import pytest

from installer.errors import ConfigurationError, DatabaseUnavailableError, InstallerError
from installer.host_file import DatabaseTarget
from installer.suitable import Server, require_suitable

TARGET = DatabaseTarget("crm", "dbname=crm", "crm_owner", "public", 2, 0, 5, restore_point=True)
SERVER = Server(
    pid=1,
    is_standby=False,
    wal_level="replica",
    database="crm",
    login="countersign",
    owner="crm_owner",
    login_is_superuser=False,
    login_is_member=True,
    owner_is_superuser=False,
    owner_is_member=False,
    may_mark=True,
    beyond=None,
    event_triggers=None,
)


def test_a_primary_whose_roles_have_what_they_need_is_suitable() -> None:
    require_suitable(TARGET, SERVER, SERVER.pid)


@pytest.mark.parametrize(
    "server, error, reason",
    [
        (replace(SERVER, pid=2), DatabaseUnavailableError, "a connection pooler is in between"),
        (replace(SERVER, is_standby=True), DatabaseUnavailableError, "the server is a standby"),
        (replace(SERVER, owner_is_superuser=None), ConfigurationError, "crm_owner does not exist"),
        (replace(SERVER, owner_is_superuser=True), ConfigurationError, "could change the ledger"),
        (replace(SERVER, owner_is_member=True), ConfigurationError, "could change the ledger"),
        (replace(SERVER, beyond="postgres"), ConfigurationError, "by way of, postgres"),
        (replace(SERVER, event_triggers="t"), ConfigurationError, "by the event trigger t;"),
        (replace(SERVER, login_is_member=False), ConfigurationError, "GRANT crm_owner TO"),
        (replace(SERVER, login_is_superuser=True), ConfigurationError, "is a superuser, for whom"),
        (
            replace(SERVER, may_mark=False),
            ConfigurationError,
            "GRANT EXECUTE ON FUNCTION",
        ),
        (replace(SERVER, wal_level="minimal"), ConfigurationError, "wal_level = minimal"),
    ],
)
def test_a_database_that_is_not_suitable_is_refused_with_what_to_do(
    server: Server, error: type[InstallerError], reason: str
) -> None:
    with pytest.raises(error) as refused:
        require_suitable(TARGET, server, 1)
    assert str(refused.value).startswith("database crm: ")
    assert reason in str(refused.value)


def test_a_superuser_s_login_and_no_restore_point_are_the_host_file_s_to_choose() -> None:
    server = replace(SERVER, login_is_superuser=True, may_mark=False, wal_level="minimal")
    require_suitable(replace(TARGET, superuser=True, restore_point=False), server, 1)
