from pathlib import Path

import pytest

from installer.errors import ConfigurationError
from installer.host_file import ApplicationTarget, BackupCheck, DatabaseTarget, parse_host_file
from installer.local import LocalPaths

FULL = """
environment = "QAT"

[database.crm]
service = "crm"
owner = "crm_owner"
search_path = "crm, public"
lock_timeout = 2
statement_timeout = 900
lock_wait = 0
superuser = true
restore_point = true

[database.crm.backup]
tool = "pgbackrest"
name = "main"
user = "pgbackrest"
max_age_hours = 8760

[application.crm]
root = "/opt/crm"
keep = 1
services = ["crm.service", "crm-worker@1.service"]
local = ["config/local.toml", "uploads/", "plugins/*.ini"]
"""
LEAST = """
environment = "PRD"
[database.crm]
conninfo = "host=/run/postgresql dbname=crm user=countersign"
owner = "crm_owner"
[application.crm]
root = "/opt/crm"
"""


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parse_host_file(text.encode())
    return str(refused.value)


def database(lines: str) -> str:
    return f'environment = "QAT"\n[database.crm]\n{lines}\n'


def backup(lines: str) -> str:
    return database(f'service = "crm"\nowner = "x"\n[database.crm.backup]\n{lines}')


def application(lines: str) -> str:
    return f'environment = "QAT"\n[application.crm]\n{lines}\n'


def test_a_full_host_file() -> None:
    host = parse_host_file(FULL.encode())
    assert host.environment == "QAT"
    assert host.database("crm") == DatabaseTarget(
        name="crm",
        connection="service=crm",
        owner="crm_owner",
        search_path="crm,public",
        lock_timeout=2,
        statement_timeout=900,
        lock_wait=0,
        superuser=True,
        restore_point=True,
        backup=BackupCheck("pgbackrest", "main", "pgbackrest", 8760),
    )
    assert host.application("crm", "/opt/crm") == ApplicationTarget(
        product="crm",
        root=Path("/opt/crm"),
        keep=1,
        services=("crm.service", "crm-worker@1.service"),
        local=LocalPaths(("uploads",), ("config/local.toml", "plugins/*.ini")),
    )


def test_what_is_left_out_has_a_default() -> None:
    host = parse_host_file(LEAST.encode())
    assert host.database("crm") == DatabaseTarget(
        name="crm",
        connection="host=/run/postgresql dbname=crm user=countersign",
        owner="crm_owner",
        search_path="public",
        lock_timeout=0.5,
        statement_timeout=0,
        lock_wait=60,
        superuser=False,
        restore_point=False,
        backup=None,
    )
    assert host.application("crm", "/opt/crm") == ApplicationTarget("crm", Path("/opt/crm"), 3, ())


@pytest.mark.parametrize("tool, user", [("pgbackrest", "postgres"), ("barman", "barman")])
def test_a_backup_tool_runs_as_the_account_that_its_package_made(tool: str, user: str) -> None:
    host = parse_host_file(backup(f'tool = "{tool}"\nname = "main"').encode())

    assert host.database("crm").backup == BackupCheck(tool, "main", user, 24)


def test_a_host_may_have_neither_database_nor_application() -> None:
    host = parse_host_file(b'environment = "DEV"')
    assert (host.environment, host.databases, host.applications) == ("DEV", {}, {})


def test_a_missing_database_says_which_table_to_add() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_host_file(FULL.encode()).database("billing")
    assert "/etc/countersign/host.toml has no [database.billing]" in str(refused.value)
    assert '[database.billing]\nservice = "billing"\nowner = ' in refused.value.detail


def test_a_missing_application_says_which_table_to_add() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_host_file(FULL.encode()).application("billing", "/srv/billing")
    assert "/etc/countersign/host.toml has no [application.billing]" in str(refused.value)
    assert '[application.billing]\nroot = "/srv/billing"' in refused.value.detail


def test_a_release_for_another_root_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"has root /opt/crm, but .* below /srv/crm"):
        parse_host_file(FULL.encode()).application("crm", "/srv/crm")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "host.toml: environment is missing"),
        ("environment = 1", "environment must be text in quotes"),
        ('environment = "Q A"', "environment is 'Q A'"),
        ('enviroment = "QAT"', "unknown key 'enviroment'; did you mean 'environment'?"),
        (LEAST + "[zzz]", "unknown key 'zzz'; known are application, database, environment"),
        ('environment = "QAT"\ndatabase = 1', "database must be a table"),
        ('environment = "QAT"\ndatabase.crm = 1', "[database.crm]: must be a table"),
        ('environment = "QAT"\n[database."a b"]\n', "[database.a b]: the name does not match"),
        ('environment = "QAT"\n[application.CRM]\n', "[application.CRM]: the name does not match"),
        ('environment = "QAT"\nenvironment = "PRD"', "not TOML: Cannot overwrite a value"),
        ('\ufeffenvironment = "QAT"', "not TOML: Invalid statement (at line 1, column 1)"),
        ("environment = " + "[" * 100_000, "not TOML: "),
        (f"{LEAST}application = [{{{'a.' * 2000}a = 1}}]", "not TOML: nested deeper than 16"),
        (f"{LEAST}x = 0x{'f' * 5000}", "not TOML: an integer has more than 64 bits"),
        (database(f"lock_timeout = 0x{'f' * 400}"), "not TOML: an integer has more than 64 bits"),
        (database(""), "host.toml: [database.crm]: give either service or conninfo"),
        (database('service = "a"\nconninfo = "dbname=a"'), "give either service or conninfo"),
        (database('service = "a b"'), "service is 'a b'"),
        (database('service = "crm"'), "owner is missing"),
        (database('service = "crm"\nowner = ""'), "owner is ''"),
        (database('service = "crm"\nownr = "x"'), "unknown key 'ownr'; did you mean 'owner'?"),
        (database('service = "crm"\nowner = "x"\nlock_timeout = 0'), "lock_timeout is 0, outside"),
        (database('service = "crm"\nowner = "x"\nlock_timeout = true'), "a number of seconds"),
        (database('service = "crm"\nowner = "x"\nlock_timeout = nan'), "is nan, outside"),
        (database('service = "crm"\nowner = "x"\nlock_wait = 1.5'), "must be a whole number"),
        (database('service = "crm"\nowner = "x"\nlock_wait = -1'), "lock_wait is -1, outside"),
        (database('service = "c"\nowner = "x"\nsearch_path = "a;b"'), "search_path is 'a;b'"),
        (database('service = "c"\nowner = "x"\nsearch_path = "a,"'), "search_path is 'a,'"),
        (database('service = "c"\nowner = "x"\nsearch_path = "a\\n"'), "search_path is"),
        (database('service = "c"\nowner = "x"\nsuperuser = "yes"'), "must be true or false"),
        (database('service = "c"\nowner = "x"\nrestore_point = 1'), "must be true or false"),
        (database('service = "c"\nowner = "x"\nbackup = "main"'), "backup must be a table"),
        (backup('name = "main"'), "host.toml: [database.crm]: [backup]: tool is missing"),
        (backup('tool = "barman"'), "[backup]: name is missing"),
        (backup('tool = "cp"\nname = "main"'), "tool is 'cp', which does not match"),
        (backup('tool = "barman"\nname = "--help"'), "name is '--help'"),
        (backup('tool = "barman"\nname = "a b"'), "name is 'a b'"),
        (backup('tool = "barman"\nname = "m"\nuser = "-x"'), "user is '-x'"),
        (backup('tool = "barman"\nname = "m"\nmax_age_hours = 0'), "max_age_hours is 0"),
        (backup('tool = "barman"\nname = "m"\nmax_age_hours = 8761'), "outside 1..8760"),
        (backup('tool = "barman"\nname = "m"\nmax_age = 1'), "did you mean 'max_age_hours'?"),
        (application(""), "host.toml: [application.crm]: root is missing"),
        (application('root = "/opt/crm"\nowner = "crm"'), "unknown key 'owner'"),
        (application('root = "/opt/crm"\nkeep = 0'), "keep is 0, outside"),
        (application('root = "/opt/crm"\nservices = "crm.service"'), "services must be a list"),
        (application('root = "/opt/crm"\nservices = [1]'), "services holds 1"),
        (application('root = "/opt/crm"\nservices = ["crm"]'), "services holds 'crm'"),
        (application('root = "/opt/crm"\nservices = ["--no-block.service"]'), "services holds"),
        (application('root = "/opt/crm"\nservices = ["a.service", "a.service"]'), "twice"),
        (application('root = "/opt/crm"\nlocal = "config/"'), "local must be a list"),
        (application('root = "/opt/crm"\nlocal = [1]'), "local holds 1"),
        (application('root = "/opt/crm"\nlocal = ["a/", "a/"]'), "local holds something twice"),
    ],
)
def test_what_is_not_meant_is_refused_with_its_place(text: str, reason: str) -> None:
    assert reason in refusal(text)


@pytest.mark.parametrize(
    "root", ["", "/", "/opt", "opt/crm", "/opt/../etc", "/opt/crm/", "/opt//crm", "/opt/./crm"]
)
def test_a_root_that_is_no_plain_folder_of_its_own_is_refused(root: str) -> None:
    assert "not a plain absolute path" in refusal(application(f'root = "{root}"'))


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not TOML"):
        parse_host_file(b'environment = "\xff"')


@pytest.mark.parametrize(
    "conninfo",
    [
        "password=s3cret",
        "dbname=crm password = s3cret",
        "dbname=crm password='s3cret'",
        "dbname=crm sslpassword=s3cret",
        r"dbname='c\' rm' password=s3cret",
        "postgresql://me:s3cret@host/crm",
        "postgres://host/crm?password=s3cret",
        "dbname=crm s3cret",
        "dbname=crm 's3cret'",
        "dbname='crm'password=s3cret",
        "dbname=crm PASSWORD=s3cret",
        "dbname=s3cret'",
    ],
)
def test_a_password_in_the_host_file_is_refused_and_never_printed(conninfo: str) -> None:
    message = refusal(database(f'conninfo = """{conninfo}"""'.replace("\\", "\\\\")))
    assert "conninfo" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("conninfo", ["", " ", "crm"])
def test_a_conninfo_without_settings_is_refused(conninfo: str) -> None:
    assert "not a list of keyword=value" in refusal(database(f'conninfo = "{conninfo}"'))


def test_options_in_a_conninfo_are_refused_because_others_replace_them() -> None:
    assert "holds options" in refusal(database("conninfo = \"dbname=crm options='-c x=y'\""))


@pytest.mark.parametrize(
    "conninfo",
    ["dbname=crm", " host = /run/pg\tport=5433 ", "dbname='c r m' user=x", "dbname=a\\'b"],
)
def test_settings_as_libpq_reads_them_are_accepted(conninfo: str) -> None:
    text = database(f"conninfo = '''{conninfo}'''\nowner = \"x\"")
    assert parse_host_file(text.encode()).database("crm").connection == conninfo


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "./",
        "..",
        "../",
        "/etc/passwd",
        "../other",
        "a/../b",
        "a//b",
        "uploads//",
        "./a",
        "a/.",
        "a\\nb",
        "a\\u0000b",
        "a\\u2028b",
        "a\\u001b[2Jb",
    ],
)
def test_a_local_path_that_is_none_in_the_tree_is_refused(path: str) -> None:
    words = refusal(application(f'root = "/opt/crm"\nlocal = ["{path}"]'))

    assert "not a path below the application's tree, such as config/local.toml" in words


@pytest.mark.parametrize("path", ["*", "?", "*/*", "?*/*", "**/x", "a/**"])
def test_a_local_path_that_would_be_for_any_file_is_refused(path: str) -> None:
    words = refusal(application(f'root = "/opt/crm"\nlocal = ["{path}"]'))

    assert f"local holds {path!r}: it would be for any file" in words


@pytest.mark.parametrize("path", ["*/", "up*/", "a/?/", "a/*/uploads/"])
def test_a_local_folder_with_wildcards_is_refused(path: str) -> None:
    words = refusal(application(f'root = "/opt/crm"\nlocal = ["{path}"]'))

    assert f"local holds {path!r}: a folder is named without * and ?" in words


@pytest.mark.parametrize("path", ["data/x", "data/x/", "data", "data/*.ini"])
def test_a_local_path_in_a_folder_that_is_local_is_refused(path: str) -> None:
    words = refusal(application(f'root = "/opt/crm"\nlocal = ["{path}", "data/"]'))

    assert f"local holds {path!r}, and a folder that it is in" in words


LOCAL = LocalPaths(("uploads",), ("config/local.toml", "plugins/*.ini", "conf.d/?0[x]"))


@pytest.mark.parametrize(
    "path",
    [
        "uploads",
        "uploads/a",
        "uploads/a/b/c.release",
        "config/local.toml",
        "plugins/a.ini",
        "plugins/.ini",
        "plugins/a\nb.ini",
        "conf.d/10[x]",
    ],
)
def test_what_is_local(path: str) -> None:
    assert LOCAL.has(path)


@pytest.mark.parametrize(
    "path",
    [
        "uploads2",
        "x/uploads/a",
        "config",
        "config/local.toml/x",
        "config/local.toml.release",
        "config/local.toml.before-1.1",
        "config/localxtoml",
        "plugins/a/b.ini",
        "plugins/A.INI",
        "x/plugins/a.ini",
        "conf.d/10x",
        "conf.d/0[x]",
    ],
)
def test_what_is_not_local(path: str) -> None:
    assert not LOCAL.has(path)


@pytest.mark.parametrize("name", ["a.ini.release", "a.ini.before-1.1", "a.before-1.ini"])
def test_what_the_installer_puts_beside_a_file_is_not_local_itself(name: str) -> None:
    assert not LocalPaths((), ("plugins/a*",)).has(f"plugins/{name}")
