"""Bundles are built here by hand, header by header, so that the reader is not its own judge."""

import hashlib
import io
import json
import lzma
import tarfile
import tracemalloc
from base64 import encodebytes
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer import bundle as bundle_module
from installer.bundle import (
    MAX_SIGNATURE_SIZE,
    MAX_SIGNATURES,
    Bundle,
    Head,
    Section,
    tar_header,
)
from installer.errors import DigestError, InstallerError, MalformedError
from installer.manifest import MAX_MANIFEST_SIZE, Manifest, parse_manifest

ADA, BOB = "A" * 40, "B" * 40
CONTENTS = (b"CREATE TABLE orders ();\n", b"", b"SELECT 1;\n" * 500, b"-- the last\n")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_of(contents: Sequence[bytes], compressed: bytes, **content: Any) -> bytes:
    scripts: list[dict[str, object]] = [
        {
            "name": f"sql/{number}.sql",
            "digest": digest(text),
            "size": len(text),
            "runs": [],
            "gaps": [],
            "author": None,
            "online": None,
        }
        for number, text in enumerate(contents)
    ]
    return json.dumps(
        {
            "type": "countersign-manifest",
            "format": 1,
            "release": {"name": "crm", "version": "1", "sequence": 1, "summary": "One"},
            "source": {
                "vcs": "git",
                "tag": "v1",
                "revision": "0" * 40,
                "committed": 1,
                "tagger": None,
            },
            "application": None,
            "database": {
                "name": "crm",
                "scripts": scripts,
                "verify": [],
                "accept": [],
                "rehearsal": None,
            },
            "content": {
                "compression": "xz",
                "digest": digest(compressed),
                "size": len(compressed),
                **content,
            },
        }
    ).encode()


def member(name: str, data: bytes) -> bytes:
    """A member as Python's tarfile writes it, with no owner and no time."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    # tarfile leaves the device numbers empty or writes zeros, by its version: ours are empty.
    header = header[:329] + bytes(16) + header[345:]
    checksum = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    header = header[:148] + b"%06o\0 " % checksum + header[156:]
    return header + data + bytes(-len(data) % 512)


def pack(*members: tuple[str, bytes]) -> bytes:
    return b"".join(member(*item) for item in members) + bytes(1024)


COMPRESSED = lzma.compress(b"".join(CONTENTS))
MANIFEST = manifest_of(CONTENTS, COMPRESSED)
MEMBERS = (
    ("manifest.json", MANIFEST),
    (f"signatures/{ADA}.asc", b"signature of Ada"),
    (f"signatures/{BOB}.asc", b"signature of Bob" * 40),
    ("content.xz", COMPRESSED),
)
GOOD = pack(*MEMBERS)
HEAD = b"".join(member(*item) for item in MEMBERS[:3])


def read_bundle(raw: bytes) -> Bundle:
    return bundle_module.read_bundle(io.BytesIO(raw))


def read_head(raw: bytes) -> Head:
    return bundle_module.read_head(io.BytesIO(raw))


def dearmour(text: bytes) -> bytes:
    found = io.BytesIO()
    bundle_module.dearmour(io.BytesIO(text), found)
    return found.read()


def section(compressed: bytes) -> Section:
    """The compressed content in the middle of a file."""
    return Section(io.BytesIO(b"before" + compressed + b"after"), 6, len(compressed))


def refusal(raw: bytes, read: Callable[[bytes], object] = read_bundle) -> str:
    with pytest.raises(MalformedError) as refused:
        read(raw)
    assert refused.value.exit_code == 21
    return str(refused.value)


def release(
    contents: Sequence[bytes], compressed: bytes, **content: Any
) -> tuple[Bundle, Manifest]:
    manifest = manifest_of(contents, compressed, **content)
    return Bundle(Head(manifest, {}), section(compressed)), parse_manifest(manifest)


# A good bundle


def test_a_bundle_is_taken_apart_as_it_was_put_together() -> None:
    bundle = read_bundle(GOOD)
    assert bundle.head.manifest == MANIFEST
    assert dict(bundle.head.signatures) == {
        ADA: b"signature of Ada",
        BOB: b"signature of Bob" * 40,
    }
    assert b"".join(bundle.compressed.pieces()) == COMPRESSED


def test_a_bundle_is_an_archive_that_tar_can_read() -> None:
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as archive:
        assert archive.getnames() == [name for name, _ in MEMBERS]


@pytest.mark.parametrize("name, size", [("manifest.json", 0), (f"signatures/{ADA}.asc", 8**11 - 1)])
def test_a_header_is_the_one_that_tar_writes(name: str, size: int) -> None:
    info = tarfile.TarInfo.frombuf(tar_header(name, size), "ascii", "strict")
    assert (info.name, info.size, info.mode, info.type) == (name, size, 0o644, tarfile.REGTYPE)
    assert (info.uid, info.gid, info.mtime, info.uname) == (0, 0, 0, "")
    if size == 0:
        assert tar_header(name, size) == member(name, b"")


def test_a_head_is_read_back_as_it_was_serialised() -> None:
    head = read_bundle(GOOD).head
    assert head.serialise() == HEAD
    assert read_head(HEAD) == head


def test_signatures_are_serialised_in_the_order_of_their_names() -> None:
    head = Head(MANIFEST, {BOB: b"b", ADA: b"a"})
    assert list(read_head(head.serialise()).signatures) == [ADA, BOB]


def test_an_unsigned_bundle_can_be_read_so_that_its_lack_can_be_told() -> None:
    assert not read_bundle(pack(MEMBERS[0], MEMBERS[3])).head.signatures


def test_a_bundle_may_lie_within_a_file_where_its_size_is_known() -> None:
    file = io.BytesIO(b"before" + GOOD + b"after")
    file.seek(6)
    bundle = bundle_module.read_bundle(file, len(GOOD))
    assert (bundle.head, b"".join(bundle.compressed.pieces())) == (read_head(HEAD), COMPRESSED)


@pytest.mark.parametrize("size", [len(GOOD) - 1, len(GOOD) + 1, 0])
def test_a_bundle_that_has_not_the_size_that_is_known_is_refused(size: int) -> None:
    file = io.BytesIO(b"before" + GOOD + b"after")
    file.seek(6)
    with pytest.raises(MalformedError, match="truncated, or something follows"):
        bundle_module.read_bundle(file, size)


def test_a_bundle_and_the_head_of_one_are_told_apart() -> None:
    file = io.BytesIO(b"before" + GOOD)
    file.seek(6)
    carried = bundle_module.read_carried(file)
    assert isinstance(carried, Bundle)
    assert b"".join(carried.compressed.pieces()) == COMPRESSED
    assert bundle_module.read_carried(io.BytesIO(HEAD)) == read_head(HEAD)


def test_base64_is_taken_off() -> None:
    assert dearmour(encodebytes(GOOD)) == GOOD


# Another form


@pytest.mark.parametrize("end", [*range(0, len(GOOD), 512), 1, 511, 513, len(GOOD) - 1])
def test_a_truncated_bundle_is_refused(end: int) -> None:
    assert refusal(GOOD[:end])


@given(st.integers(0, len(GOOD) - 1))
def test_a_bundle_truncated_anywhere_is_refused(end: int) -> None:
    assert refusal(GOOD[:end])


@pytest.mark.parametrize("end", [*range(0, len(HEAD), 256), len(HEAD) - 1])
def test_a_truncated_head_is_refused_or_lacks_whole_signatures(end: int) -> None:
    whole = {512 + 512 * -(-len(MANIFEST) // 512), len(HEAD) - 512 * 3}
    if end in whole:
        assert len(read_head(HEAD[:end]).signatures) < 2
    else:
        assert refusal(HEAD[:end], read_head)


def header_offsets() -> list[int]:
    offsets, position = [], 0
    for _, data in MEMBERS:
        offsets.append(position)
        position += 512 + len(data) + -len(data) % 512
    return offsets


@pytest.mark.parametrize("offset", header_offsets())
def test_each_changed_byte_of_a_header_is_refused(offset: int) -> None:
    for position in range(offset, offset + 512):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(GOOD)
            changed[position] ^= flip
            assert refusal(bytes(changed)), position - offset


def test_each_changed_byte_of_padding_is_refused() -> None:
    start = 512 + len(MANIFEST)
    for position in range(start, start + -len(MANIFEST) % 512):
        changed = bytearray(GOOD)
        changed[position] = 1
        assert refusal(bytes(changed)) == (
            "'manifest.json': the bundle is truncated, or not a canonical tar archive"
        )


@pytest.mark.parametrize("extra", [b"\0", b"x", bytes(512), b"x" * 512, GOOD])
def test_trailing_bytes_are_refused(extra: bytes) -> None:
    assert "something follows content.xz" in refusal(GOOD + extra)
    assert refusal(HEAD + extra, read_head)


def test_a_bundle_is_no_head() -> None:
    assert "something follows the signatures" in refusal(GOOD, read_head)


@pytest.mark.parametrize(
    "order",
    [
        (1, 0, 2, 3),
        (0, 3, 1, 2),
        (0, 1, 3, 2),
        (3, 0, 1, 2),
        (0, 2, 1, 3),
        (0, 1, 1, 2, 3),
        (0, 0, 1, 2, 3),
        (0, 1, 2, 3, 3),
        (0, 1, 2),
        (1, 2, 3),
        (3,),
        (),
    ],
)
def test_members_in_another_order_missing_or_twice_are_refused(order: tuple[int, ...]) -> None:
    assert refusal(pack(*(MEMBERS[number] for number in order)))


@pytest.mark.parametrize(
    "name",
    [
        "extra",
        "./manifest.json",
        "../etc/passwd",
        "/etc/passwd",
        "signatures/",
        f"signatures/{'a' * 40}.asc",
        f"signatures/{'A' * 39}.asc",
        f"signatures/{'A' * 40}.asc\n",
        f"signatures/../{'A' * 40}.asc",
    ],
)
def test_a_member_of_another_name_is_refused(name: str) -> None:
    for position in range(5):
        members = [*MEMBERS]
        members.insert(position, (name, b"x"))
        assert refusal(pack(*members))


@pytest.mark.parametrize(
    "kind", [b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"g", b"L"]
)
def test_links_devices_folders_and_extensions_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("manifest.json")
    info.size, info.type = len(MANIFEST), kind
    header = info.tobuf(tarfile.USTAR_FORMAT)
    assert refusal(header + GOOD[512:])


def test_a_set_user_id_member_is_refused() -> None:
    info = tarfile.TarInfo("manifest.json")
    info.size, info.mode = len(MANIFEST), 0o4755
    assert refusal(info.tobuf(tarfile.USTAR_FORMAT) + GOOD[512:])


def test_a_member_that_claims_more_than_there_is_is_refused_without_reserving_it() -> None:
    tracemalloc.start()
    try:
        assert "bounded size" in refusal(tar_header("manifest.json", 8**11 - 1) + b"{}")
        assert "truncated" in refusal(tar_header("manifest.json", MAX_MANIFEST_SIZE) + b"{}")
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_signature_too_large_is_refused() -> None:
    name, size = MEMBERS[1][0], MAX_SIGNATURE_SIZE
    largest = read_bundle(pack(MEMBERS[0], (name, bytes(size)), MEMBERS[3]))
    assert largest.head.signatures == {ADA: bytes(size)}
    assert "too large" in refusal(pack(MEMBERS[0], (name, bytes(size + 1)), MEMBERS[3]))


@pytest.mark.parametrize(
    "raw, reason",
    [
        (b"x" * 512, "the bundle is truncated, or not a canonical tar archive"),
        (GOOD[:100] + b"0000600" + GOOD[107:], "'manifest.json': not a member of a canonical tar"),
        (HEAD, "the bundle does not end with content.xz"),
        (
            GOOD.replace(b"Ada" + bytes(400), b"Ada" + b"x" * 400),
            f"'signatures/{ADA}.asc': the bundle is truncated",
        ),
    ],
)
def test_it_is_said_what_is_not_canonical(raw: bytes, reason: str) -> None:
    assert refusal(raw).startswith(reason)


def test_signatures_in_another_order_are_refused_by_name() -> None:
    swapped = pack(*(MEMBERS[number] for number in (0, 2, 1, 3)))
    assert refusal(swapped) == f"{MEMBERS[1][0]}: signatures are not in the order of their names"


def test_a_signature_too_many_is_refused() -> None:
    many = [(f"signatures/{number:040X}.asc", b"s") for number in range(MAX_SIGNATURES + 1)]
    assert len(read_bundle(pack(MEMBERS[0], *many[:-1], MEMBERS[3])).head.signatures) == 64
    assert "one signature too many" in refusal(pack(MEMBERS[0], *many, MEMBERS[3]))


def test_a_manifest_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_MANIFEST_SIZE", len(MANIFEST) - 1)
    assert "manifest.json of bounded size" in refusal(GOOD)


def test_base64_of_a_bundle_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = encodebytes(GOOD)
    monkeypatch.setattr(bundle_module, "MAX_ARMOURED_SIZE", len(GOOD))
    assert dearmour(text) == GOOD
    monkeypatch.setattr(bundle_module, "MAX_ARMOURED_SIZE", len(GOOD) - 1)
    assert "the bundle is larger than" in refusal(text, dearmour)


@pytest.mark.parametrize(
    "text", [b"A", b"AA=A", b"====", b"AAAA\0", b"AAAA AAAA", b"AA==AA==", b"-A=="]
)
def test_what_is_not_base64_is_refused(text: bytes) -> None:
    assert "not base64" in refusal(text, dearmour)


@given(st.binary(max_size=2048))
def test_no_bytes_make_the_reader_fail_in_another_way(raw: bytes) -> None:
    for read in (read_bundle, read_head, dearmour):
        for content in (raw, HEAD + raw):
            with suppress(InstallerError):
                read(content)


# Content


def test_each_blob_is_read_and_in_any_order() -> None:
    manifest = parse_manifest(MANIFEST)
    reader = read_bundle(GOOD).open_content(manifest)
    assert [reader.read(blob) for blob in manifest.blobs] == list(CONTENTS)
    assert [reader.read(blob) for blob in manifest.blobs[::-1]] == list(CONTENTS[::-1])
    assert reader.read(manifest.blobs[2]) == reader.read(manifest.blobs[2])


def test_a_blob_is_given_in_parts_that_are_the_whole() -> None:
    contents = (bytes(range(256)) * 12_000, b"the next")
    bundle, manifest = release(contents, lzma.compress(b"".join(contents)))
    reader = bundle.open_content(manifest)
    ends = [0, 1, 1_500_000, 1_500_000, len(contents[0])]
    parts = list(reader.parts(manifest.blobs[0], ends))
    assert [len(part) for part in parts] == [0, 1, 1_499_999, 0, len(contents[0]) - 1_500_000]
    assert b"".join(parts) == contents[0]
    assert reader.read(manifest.blobs[0]) == contents[0]
    assert list(reader.parts(manifest.blobs[1], [8])) == [b"the next"]


def test_the_last_part_of_a_blob_that_was_changed_is_refused() -> None:
    bundle, manifest = release((b"-- one\n-- two\n",), lzma.compress(b"-- one\n-- tow\n"))
    parts = bundle.open_content(manifest).parts(manifest.blobs[0], [7, 14])
    assert next(parts) == b"-- one\n"
    with pytest.raises(DigestError, match="its digest is not the one"):
        list(parts)


def test_parts_that_leave_something_out_are_refused() -> None:
    bundle, manifest = release(CONTENTS, COMPRESSED)
    with pytest.raises(DigestError, match="longer than its parts"):
        list(bundle.open_content(manifest).parts(manifest.blobs[2], [4]))


def test_content_that_ends_before_the_file_says_is_refused() -> None:
    manifest = parse_manifest(MANIFEST)
    cut = Section(io.BytesIO(COMPRESSED[:-1]), 0, len(COMPRESSED))
    with pytest.raises(MalformedError, match="truncated"):
        Bundle(Head(MANIFEST, {}), cut).open_content(manifest)


def test_blobs_that_are_not_wanted_are_passed_over() -> None:
    contents = (bytes(3_000_000), b"wanted")
    bundle, manifest = release(contents, lzma.compress(b"".join(contents)))
    assert bundle.open_content(manifest).read(manifest.blobs[1]) == b"wanted"


def test_every_changed_byte_of_the_content_is_refused() -> None:
    bundle, manifest = release(CONTENTS, COMPRESSED)
    for position in range(len(COMPRESSED)):
        changed = bytearray(COMPRESSED)
        changed[position] ^= 1
        with pytest.raises(DigestError, match="its digest is not the one that was signed"):
            Bundle(bundle.head, section(bytes(changed))).open_content(manifest)


@pytest.mark.parametrize("compressed", [b"", COMPRESSED[:-1], COMPRESSED + b"\0", COMPRESSED * 2])
def test_content_of_another_size_is_refused(compressed: bytes) -> None:
    bundle, manifest = release(CONTENTS, COMPRESSED)
    with pytest.raises(DigestError, match="bytes, not as signed"):
        Bundle(bundle.head, section(compressed)).open_content(manifest)


def test_two_exchanged_contents_are_refused() -> None:
    one, other = b"-- one\n", b"-- two\n"
    bundle, manifest = release((one, other), lzma.compress(other + one))
    reader = bundle.open_content(manifest)
    for blob in manifest.blobs:
        with pytest.raises(DigestError, match=rf"{blob.name}: its digest is not the one"):
            reader.read(blob)


def test_a_stream_that_ends_early_is_refused() -> None:
    bundle, manifest = release((b"-- whole\n",), lzma.compress(b"-- who"))
    with pytest.raises(DigestError, match=r"content\.xz: ends before the content"):
        bundle.open_content(manifest).read(manifest.blobs[0])


def test_reading_on_after_the_stream_has_ended_is_refused() -> None:
    bundle, manifest = release((b"-- one\n", b"-- two\n"), lzma.compress(b"-- one\n"))
    reader = bundle.open_content(manifest)
    assert reader.read(manifest.blobs[0]) == b"-- one\n"
    with pytest.raises(DigestError):
        reader.read(manifest.blobs[1])


@pytest.mark.parametrize(
    "compressed",
    [
        b"not xz at all",
        lzma.compress(b"".join(CONTENTS), lzma.FORMAT_ALONE),
        COMPRESSED[: len(COMPRESSED) // 2],
        b"",
    ],
)
def test_a_stream_that_was_signed_but_is_not_xz_is_refused(compressed: bytes) -> None:
    bundle, manifest = release(CONTENTS, compressed)
    with pytest.raises(DigestError, match=r"content\.xz: "):
        bundle.open_content(manifest).read(manifest.blobs[2])


def test_a_bomb_is_cut_at_the_size_that_was_signed() -> None:
    bomb = lzma.compress(bytes(300_000_000), preset=1)
    bundle, manifest = release((b"-- small\n", b"-- text\n"), bomb)
    reader = bundle.open_content(manifest)
    tracemalloc.start()
    try:
        for blob in manifest.blobs:
            with pytest.raises(DigestError, match="its digest is not the one"):
                reader.read(blob)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_stream_that_asks_for_much_memory_is_refused() -> None:
    text = b"-- text\n"
    # Only the header asks: to compress with such a dictionary would cost this test the memory.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1024 * 1024}]
    small = bytearray(lzma.compress(text, filters=filters))
    assert small[16] == 16  # 1 MiB, in the notation of the LZMA2 filter's only property
    small[16] = 34  # 512 MiB
    small[20:24] = (crc32(bytes(small[12:20]))).to_bytes(4, "little")
    bundle, manifest = release((text,), bytes(small))
    with pytest.raises(DigestError, match=r"[Mm]emory"):
        bundle.open_content(manifest).read(manifest.blobs[0])
