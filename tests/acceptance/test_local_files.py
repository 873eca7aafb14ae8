"""Configuration and uploads that are a host's own, on hosts that go from release to release."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance import releases
from tests.acceptance.test_faults import cut_between_commit_and_switch
from tests.developers import Developers, Draft
from tests.sites import Site, refused

pytestmark = pytest.mark.acceptance

CONFIG = "config/app.toml"
DECLARED = 'local = ["config/app.toml", "uploads/"]'
UPLOAD = "/opt/crm/current/uploads/picture.png"
OWNER = "1234"


def drafted(draft: Draft, port: int, starts: Sequence[str], label: str = "-local") -> Draft:
    """The release with a default configuration, and a folder for uploads."""
    files = {f"app/{CONFIG}": f"port = {port}\n", "app/uploads/.keep": ""}
    made = releases.with_files(draft, "local", files)
    return Draft(made.version, made.sequence, made.files, made.signers, starts, label=label)


@pytest.fixture(scope="session")
def chain(developers: Developers) -> tuple[Path, Path, Path]:
    """Releases 1.0, 1.1 and 1.2, each of which has another default configuration."""
    drafts = (
        drafted(releases.first(developers), 1, ["empty"]),
        drafted(releases.second(developers), 2, ["1.0-local"]),
        drafted(releases.third(developers), 3, ["1.1-local"]),
    )
    first, second, third = (developers.package(draft) for draft in drafts)
    return first, second, third


def declare(site: Site, line: str) -> None:
    """Add a line to the application's table, the last of the host file."""
    text = site.host.at("/etc/countersign/host.toml").read_text()
    site.host.write("/etc/countersign/host.toml", f"{text}{line}\n")


def use(site: Site) -> None:
    """What happens on a host in use: the configuration is edited, a user uploads something."""
    site.host.write(f"/opt/crm/current/{CONFIG}", "port = 8080\n", mode=0o640)
    site.host.write(UPLOAD, "a picture")
    for path in (f"/opt/crm/current/{CONFIG}", UPLOAD, "/opt/crm/current/uploads/."):
        site.host.run(["chown", OWNER, path], check=True)


def in_use(site: Site) -> None:
    """Assert that what `use` made is there, and whose it is."""
    assert site.read(CONFIG) == "port = 8080\n"
    assert site.read("uploads/picture.png") == "a picture"
    config, uploads = (
        site.host.at(f"/opt/crm/local/{path}").stat() for path in (CONFIG, "uploads")
    )
    assert (config.st_uid, config.st_mode & 0o777, uploads.st_uid) == (1234, 0o640, 1234)


def in_order(site: Site) -> None:
    """Assert that nothing disagrees with anything."""
    status = site.installer("status")
    assert status.returncode == 0, status.stdout
    if site.front.format == "rpm":
        verified = site.rpm("-V", "crm")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_configuration_and_uploads_survive_two_upgrades(
    site: Site, chain: tuple[Path, Path, Path]
) -> None:
    declare(site, DECLARED)
    first, second, third = chain
    site.install(first)
    use(site)
    in_order(site)

    for package, version, port in ((second, "1.1", 2), (third, "1.2", 3)):
        done = site.upgrade(package)

        assert done.returncode == 0, done.stdout + done.stderr
        assert site.read("VERSION") == f"{version}\n"
        in_use(site)
        in_order(site)
        assert site.host.at(f"/opt/crm/local/{CONFIG}.release").read_text() == f"port = {port}\n"
        log = site.host.at("/var/log/countersign/crm.log").read_text()
        told = rf"crm {version}: kept local: {CONFIG} \(the release has \w+…, here is \w+…\)"
        assert re.search(told, log)


def test_an_edit_that_is_not_declared_is_refused_with_digests_and_the_ways_out(
    site: Site, chain: tuple[Path, Path, Path]
) -> None:
    first, second, third = chain
    site.install(first)
    site.host.write(f"/opt/crm/current/{CONFIG}", "port = 8080\n", mode=0o640)
    site.host.write(UPLOAD, "a picture")
    site.host.run(["chown", OWNER, f"/opt/crm/current/{CONFIG}"], check=True)
    site.host.run(["chown", OWNER, "/opt/crm/current/uploads"], check=True)

    words = refused(site, second, 40)

    assert re.search(rf"{CONFIG}: expected [0-9a-f]{{16}}…, found [0-9a-f]{{16}}…", words)
    assert "uploads/picture.png: not part of the release" in words
    assert 'declare it in /etc/countersign/host.toml, below root = "/opt/crm"' in words
    assert f'local = ["{CONFIG}", "uploads/picture.png"]' in words
    assert "Restore the named files" in words

    declare(site, DECLARED)
    for package in (second, third):
        done = site.upgrade(package)
        assert done.returncode == 0, done.stdout + done.stderr
        in_use(site)
        in_order(site)


def test_a_release_that_fails_leaves_local_files_as_they_were(
    site: Site, developers: Developers, chain: tuple[Path, Path, Path]
) -> None:
    declare(site, DECLARED)
    site.install(chain[0])
    use(site)
    broken = releases.with_files(
        drafted(releases.second(developers), 2, ["1.0-local"]),
        "local-broken",
        {"sql/0004_notes.sql": "SELECT nope;\n", "app/uploads/new": "new\n"},
    )

    refused(site, developers.package(broken), 33)

    in_use(site)
    in_order(site)
    assert sorted(path.name for path in site.host.at("/opt/crm/local/uploads").iterdir()) == [
        ".keep",
        "picture.png",
    ]
    assert not site.host.at(f"/opt/crm/local/{CONFIG}.release").exists()


def test_an_editor_that_writes_by_renaming_loses_nothing(
    site: Site, chain: tuple[Path, Path, Path]
) -> None:
    declare(site, DECLARED)
    first, second, _ = chain
    site.install(first)
    use(site)
    # sed writes another file, and gives it the name of the link.
    site.host.run(["sed", "-i", "s/8080/9090/", f"/opt/crm/current/{CONFIG}"], check=True)
    in_order(site)

    done = site.upgrade(second)

    assert done.returncode == 0, done.stdout + done.stderr
    assert site.read(CONFIG) == "port = 9090\n"
    assert site.host.at(f"/opt/crm/local/{CONFIG}").read_text() == "port = 9090\n"
    assert site.host.at(f"/opt/crm/local/{CONFIG}.before-1.1").read_text() == "port = 8080\n"
    in_order(site)


def test_check_tells_what_would_be_kept_and_apply_takes_the_release_s_where_told_to(
    rpm_site: Site, chain: tuple[Path, Path, Path]
) -> None:
    site = rpm_site
    declare(site, DECLARED)
    first, second, _ = chain
    site.install(first)
    use(site)
    before = site.state()

    kept = site.installer("check", second)
    replaced = site.installer("check", "--no-keep-local", second)

    assert f"would keep {CONFIG} (the release has " in kept.stdout
    assert f"would replace {CONFIG} (the release has " in replaced.stdout
    assert site.state() == before

    applied = site.installer("apply", "--no-keep-local", second)

    assert applied.returncode == 0, applied.stderr
    assert site.read(CONFIG) == "port = 2\n"
    assert site.read("uploads/picture.png") == "a picture"
    assert site.host.at(f"/opt/crm/local/{CONFIG}").stat().st_uid == int(OWNER)
    assert site.host.at(f"/opt/crm/local/{CONFIG}.before-1.1").read_text() == "port = 8080\n"
    assert site.upgrade(second).returncode == 0  # the package follows, and changes nothing more
    assert site.read(CONFIG) == "port = 2\n"
    in_order(site)


def test_killed_between_commit_and_switch_local_files_follow(
    rpm_site: Site, chain: tuple[Path, Path, Path]
) -> None:
    site = rpm_site
    declare(site, DECLARED)
    first, second, _ = chain
    site.install(first)
    use(site)

    cut_between_commit_and_switch(site, second)
    in_use(site)

    assert site.installer("recover").returncode == 0
    assert site.current() == "releases/1.1"
    in_use(site)
    assert site.upgrade(second).returncode == 0
    in_order(site)


@pytest.mark.parametrize(
    "mount, reason",
    [
        (("-t", "tmpfs", "tmpfs"), "it is a disk of its own"),
        (("--bind", "/srv/disk"), "Device or resource busy"),
    ],
)
def test_a_folder_on_a_disk_of_its_own_is_for_the_sysadmin_to_move(
    rpm_site: Site, chain: tuple[Path, Path, Path], mount: tuple[str, ...], reason: str
) -> None:
    site = rpm_site
    first, second, _ = chain
    site.install(first)
    site.host.run(["mkdir", "-p", "/srv/disk"], check=True)
    disk = ["mount", *mount]
    site.host.run([*disk, "/opt/crm/releases/1.0/uploads"], check=True)
    site.host.write(UPLOAD, "a picture")
    declare(site, DECLARED)

    before = site.state()
    done = site.upgrade(second)
    words, after = done.stdout + done.stderr, site.state()

    # An empty folder `local` may be new.
    assert replace(after, files="") == replace(before, files="")
    assert "exit status 40" in words
    assert site.read("uploads/picture.png") == "a picture"
    moved = "/opt/crm/releases/1.0/uploads cannot be moved to /opt/crm/local/uploads"
    assert f"{moved}: {reason}; move it there by hand" in words

    site.host.run(["umount", "/opt/crm/releases/1.0/uploads"], check=True)
    site.host.run(["mkdir", "-p", "/opt/crm/local/uploads"], check=True)
    site.host.run(["rm", "-r", "/opt/crm/releases/1.0/uploads"], check=True)
    site.host.run([*disk, "/opt/crm/local/uploads"], check=True)
    site.host.write("/opt/crm/local/uploads/picture.png", "a picture")
    done = site.upgrade(second)
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.read("uploads/picture.png") == "a picture"
    in_order(site)


def test_an_adopted_host_brings_its_local_files_along(
    rpm_site: Site, chain: tuple[Path, Path, Path]
) -> None:
    site = rpm_site
    first, second, _ = chain
    for path, content in {**releases.FIRST, f"app/{CONFIG}": "port = 8080\n"}.items():
        assert isinstance(content, str)
        if path.startswith("app/"):
            mode = 0o755 if "/bin/" in path else 0o644
            site.host.write(f"/srv/old/{path.removeprefix('app/')}", content, mode=mode)
        elif "verify" not in path:
            site.host.psql(f"SET ROLE crm_owner; {content}", "crm")
    site.host.write("/srv/old/uploads/picture.png", "a picture")
    site.host.run(["chmod", "640", f"/srv/old/{CONFIG}"], check=True)
    site.host.run(["chown", "-R", OWNER, f"/srv/old/{CONFIG}", "/srv/old/uploads"], check=True)
    declare(site, DECLARED)

    adopted = site.installer("adopt", first, "--tree", "/srv/old", "--reason", "by hand before")

    assert adopted.returncode == 0, adopted.stderr
    in_use(site)
    assert site.installer("status").returncode == 0
    assert site.host.at(f"/srv/old/{CONFIG}").read_text() == "port = 8080\n"
    done = site.upgrade(second)
    assert done.returncode == 0, done.stdout + done.stderr
    in_use(site)
