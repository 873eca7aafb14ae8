import io
import tarfile

from installer.bundle import CONTENT, Head, dearmour, read_bundle
from packager.bundle_writer import armour, write_bundle

ADA, BOB = "A" * 40, "B" * 40
HEAD = Head(b'{"manifest": 1}\n', {ADA: b"signature of Ada", BOB: b"signature of Bob"})
CONTENTS = bytes(range(256)) * 9


def test_a_host_reads_what_was_written() -> None:
    bundle = read_bundle(io.BytesIO(write_bundle(HEAD, CONTENTS)))

    assert bundle.head == HEAD
    assert b"".join(bundle.compressed.pieces()) == CONTENTS


def test_the_order_in_which_developers_signed_leaves_no_trace() -> None:
    turned = Head(HEAD.manifest, {BOB: HEAD.signatures[BOB], ADA: HEAD.signatures[ADA]})

    assert write_bundle(turned, CONTENTS) == write_bundle(HEAD, CONTENTS)


def test_any_tar_lists_a_bundle() -> None:
    with tarfile.open(fileobj=io.BytesIO(write_bundle(HEAD, CONTENTS))) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        contents = {name: file.read() for name, file in members.items() if file}

    assert list(contents) == [
        "manifest.json",
        f"signatures/{ADA}.asc",
        f"signatures/{BOB}.asc",
        CONTENT,
    ]
    assert contents[CONTENT] == CONTENTS


def test_a_scriptlet_can_carry_the_armoured_bundle() -> None:
    bundle = write_bundle(HEAD, CONTENTS)
    text = armour(bundle)

    found = io.BytesIO()
    dearmour(io.BytesIO(text), found)
    assert found.getvalue() == bundle
    assert b"%" not in text
    assert max(map(len, text.splitlines())) == 76
