import os
import socket
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from installer.errors import ConfigurationError
from installer.trusted_files import LIMIT, read_trusted

ME = os.getuid()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "etc" / "countersign").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "etc", tmp_path / "etc" / "countersign"):
        folder.chmod(0o755)
    return tmp_path


@pytest.fixture
def policy(top: Path) -> Path:
    path = top / "etc" / "countersign" / "policy.toml"
    path.write_bytes(b"serial = 1\n")
    path.chmod(0o644)
    return path


def refusal(path: Path, top: Path, **limits: int) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read_trusted(path, ME, top=top, **limits)
    return str(refused.value)


def test_a_file_that_only_its_owner_can_write_is_read(policy: Path, top: Path) -> None:
    assert read_trusted(policy, ME, top=top) == b"serial = 1\n"


def test_a_relative_path_is_read_from_the_working_folder(
    policy: Path, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(policy.parent)
    assert read_trusted(Path("policy.toml"), ME, top=top) == b"serial = 1\n"


def test_without_a_top_every_folder_from_the_root_is_checked() -> None:
    # Sticky or not: who may write to /tmp may put a folder of that name there first.
    with (
        NamedTemporaryFile(dir="/tmp") as file,
        pytest.raises(ConfigurationError, match=r"/tmp is writable by others \(mode 1777\)"),
    ):
        read_trusted(Path(file.name), ME)


def test_a_file_of_the_system_is_trusted_from_the_root_down() -> None:
    assert b"root:" in read_trusted(Path("/etc/passwd"))


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_file_writable_by_others_is_refused(policy: Path, top: Path, mode: int) -> None:
    policy.chmod(mode)
    message = refusal(policy, top)
    assert f"{policy} is writable by others (mode {mode:04o})" in message
    assert f"chmod go-w {policy}" in message


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
@pytest.mark.parametrize("folder", [".", "etc", "etc/countersign"])
def test_a_folder_above_that_others_may_write_to_is_refused(
    policy: Path, top: Path, folder: str, mode: int
) -> None:
    (top / folder).chmod(mode)
    assert f"chmod go-w {top / folder}" in refusal(policy, top)


def test_a_path_with_a_space_is_quoted_in_the_command_to_run(top: Path) -> None:
    path = top / "my policy.toml"
    path.touch()
    path.chmod(0o666)
    assert f"chmod go-w '{path}'" in refusal(path, top)


def test_a_file_of_another_user_is_refused(policy: Path, top: Path) -> None:
    os.chown(policy, 1, -1)
    message = refusal(policy, top)
    assert f"{policy} belongs to user 1" in message
    assert f"chown root {policy}" in message


def test_a_folder_of_another_user_is_refused(policy: Path, top: Path) -> None:
    os.chown(policy.parent, 1, -1)
    assert f"chown root {policy.parent}" in refusal(policy, top)


def test_a_file_of_the_named_owner_is_read(policy: Path, top: Path) -> None:
    os.chown(policy, 1, -1)
    assert read_trusted(policy, 1, top=top) == b"serial = 1\n"


def test_a_symbolic_link_is_refused_although_its_target_is_good(policy: Path, top: Path) -> None:
    link = top / "link.toml"
    link.symlink_to(policy)
    assert refusal(link, top) == f"{link} cannot be read: it is a symbolic link"


def test_a_linked_folder_above_is_refused(policy: Path, top: Path) -> None:
    (top / "link").symlink_to(policy.parent)
    message = refusal(top / "link" / "policy.toml", top)
    assert message == f"{top / 'link'} cannot be read: it is a symbolic link, or not a folder"


def test_a_missing_file_is_named(policy: Path, top: Path) -> None:
    policy.unlink()
    assert refusal(policy, top) == f"{policy} cannot be read: No such file or directory"


def test_a_folder_in_the_place_of_the_file_is_refused(policy: Path, top: Path) -> None:
    assert "is not a regular file" in refusal(policy.parent, top)


def test_a_fifo_is_refused_and_does_not_hang(top: Path) -> None:
    fifo = top / "policy.toml"
    os.mkfifo(fifo, 0o600)
    assert "is not a regular file" in refusal(fifo, top)


def test_a_socket_is_refused(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(top)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (top / "socket").chmod(0o600)
        assert "cannot be read" in refusal(top / "socket", top)


def test_a_file_of_exactly_the_limit_is_read(policy: Path, top: Path) -> None:
    policy.write_bytes(bytes(LIMIT))
    assert len(read_trusted(policy, ME, top=top)) == LIMIT


def test_a_file_beyond_the_limit_is_refused(policy: Path, top: Path) -> None:
    policy.write_bytes(bytes(11))
    assert f"{policy} is larger than 10 bytes" in refusal(policy, top, limit=10)


def test_no_descriptor_is_left_open(policy: Path, top: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208  names alone, no paths
    read_trusted(policy, ME, top=top)
    refusal(top / "missing", top)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
