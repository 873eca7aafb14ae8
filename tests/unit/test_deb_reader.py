"""The reader of DEBs against archives that no tool would write."""

from io import BytesIO

import pytest

from installer import deb
from installer.bundle import BLOCK
from installer.errors import MalformedError

END = bytes(2 * BLOCK)
LONG = deb.LONG_NAME


def ar(*members: tuple[str, bytes]) -> BytesIO:
    parts = (
        deb.ar_header(name, len(data), 0) + data + b"\n" * (len(data) % 2) for name, data in members
    )
    return BytesIO(deb.MAGIC + b"".join(parts))


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", mode: int = 0o644) -> bytes:
    header = deb._gnu_header(name, mode, len(data), 0, kind)
    return header + data + bytes(-len(data) % BLOCK)


def package(control: bytes, version: bytes = deb.VERSION) -> BytesIO:
    return ar(("debian-binary", version), ("control.tar", control), ("data.tar", END))


FILES = b"".join(member(name) for name in (b"./control", b"./preinst", b"./md5sums", b"./bundle"))


def test_the_files_beside_preinst_are_found() -> None:
    folder = member(b"./", kind=b"5", mode=0o755)

    parts = deb.control_parts(package(folder + FILES + END))

    assert list(parts) == ["control", "preinst", "md5sums", "bundle"]


def test_a_long_name_is_one_name() -> None:
    name = b"./" + b"long/" * 50
    archive = ar(
        *(("debian-binary", deb.VERSION), ("control.tar", END)),
        ("data.tar", member(LONG, name + b"\0", b"L") + member(name[:100], b"x") + END),
    )

    (found,) = deb.tar_parts(archive, deb.ar_parts(archive)["data.tar"])

    assert (found.name, deb.read_part(archive, found)) == (name.decode(), b"x")


@pytest.mark.parametrize(
    "control, words",
    [
        (b"", "truncated"),
        (FILES, "truncated"),
        (FILES + bytes(511), "truncated"),
        (FILES[:-1] + b"?", "another form"),
        (member(b"./bundle", b"x" * 600)[:1024], "truncated"),
        (FILES + END + b"?" * BLOCK, "does not end"),
        (FILES + bytes(24 * BLOCK), "does not end"),
        (FILES + member(b"./bundle") + END, "twice"),
        (FILES + member(b"./bundle", kind=b"5", mode=0o755) + END, "twice"),
        (FILES + member(b"bundle") + END, "twice"),
        (FILES + member(b"./../bundle") + END, "twice"),
        (FILES + member(b"./postinst") + END, "./postinst"),
        (FILES + member(b"./") + END, "'./'"),
        (FILES[BLOCK:] + END, "has no control"),
        (FILES + member(b"./link", kind=b"2") + END, "no file and no folder"),
        (FILES + member(b"./device", kind=b"3") + END, "no file and no folder"),
        (FILES + member(b"./global", kind=b"g") + END, "no file and no folder"),
        (FILES + member(b"./", b"content", b"5") + END, "two kinds"),
        (FILES + member(LONG) + END, "two kinds"),
        (FILES + member(b"./other", b"./name\0", b"L") + END, "two kinds"),
        (FILES + member(LONG, b"./name\0", b"L") + member(b"./other") + END, "two names"),
        (FILES + member(LONG, b"./name\0", b"L") + END, "does not end"),
        (FILES[:-BLOCK] + member(LONG, b"\0", b"L") + FILES[-BLOCK:] + END, "empty"),
        (FILES[:-BLOCK] + member(LONG, b"", b"L") + FILES[-BLOCK:] + END, "empty"),
        (FILES + member(LONG, b"./a\0b\0", b"L") + END, "a NUL in it"),
        (FILES + member(LONG, bytes(2000), b"L") + END, "2000 bytes"),
        (FILES.replace(b"root", b"evil") + END, "another form"),
        (FILES.replace(b"ustar  \0", b"ustar\x0000") + END, "another form"),
        (FILES.replace(b"0000644\x000000000", b"0000644\x000001750") + END, "root's"),
    ],
)
def test_control_files_in_another_form_are_refused(control: bytes, words: str) -> None:
    with pytest.raises(MalformedError) as refused:
        deb.control_parts(package(control))

    assert words in str(refused.value)


@pytest.mark.parametrize(
    "archive, words",
    [
        (BytesIO(), "truncated"),
        (BytesIO(b"!<arch>?"), "not a Debian package"),
        (BytesIO(deb.MAGIC), "consist of "),
        (package(FILES + END, b"2.1\n"), "another version"),
        (package(FILES + END, b"2.0\n2.0\n"), "another version"),
        (BytesIO(package(FILES + END).getvalue() + b"\n"), "truncated"),
        (BytesIO(package(FILES + END).getvalue()[:-1]), "truncated"),
        (ar(("debian-binary", deb.VERSION), ("data.tar", END)), "data.tar"),
        (ar(("control.tar", END), ("debian-binary", deb.VERSION), ("data.tar", END)), "consist"),
        (BytesIO(deb.MAGIC + b"debian-binary".ljust(59) + b"?"), "another form"),
        (BytesIO(deb.MAGIC + deb.ar_header("x", 0, 0).replace(b"x ", b"X ")), "another form"),
        (BytesIO(deb.MAGIC + deb.ar_header("x", 0, 0).replace(b"100644", b"0x1ff ")), "another"),
    ],
)
def test_an_archive_in_another_form_is_refused(archive: BytesIO, words: str) -> None:
    with pytest.raises(MalformedError) as refused:
        deb.ar_parts(archive)

    assert words in str(refused.value)


@pytest.mark.parametrize("size", [10**9, 10**10 - 1])
def test_a_size_that_is_a_lie_takes_no_memory(size: int) -> None:
    archive = BytesIO(deb.MAGIC + deb.ar_header("debian-binary", size, 0) + b"2.0\n")

    with pytest.raises(MalformedError):
        deb.ar_parts(archive)
