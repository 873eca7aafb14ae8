"""What is fuzzed: the readers of bytes that a host did not write, and what holds of each.

A target takes an input or refuses it with the errors that the reader's docstring names. Whatever
else comes out is a finding: another exception, or an AssertionError where something that was taken
does not have the property that the target states.
"""

import json
import lzma
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from installer import deb, rpm_payload, signatures
from installer.approval import (
    Approval,
    Withdrawal,
    parse_approval,
    parse_withdrawal,
    write_approval,
    write_withdrawal,
)
from installer.bundle import (
    BLOCK,
    MAX_ARMOURED_SIZE,
    PIECE,
    Bundle,
    ContentReader,
    Section,
    dearmour,
    read_bundle,
    read_carried,
)
from installer.errors import ConfigurationError, DigestError, MalformedError, SignatureError
from installer.fingerprint import schema_of
from installer.host_file import parse_host_file
from installer.manifest import MAX_MANIFEST_SIZE, Blob, Script, parse_manifest
from installer.openpgp import (
    DIGESTS,
    SIGNATURE_PACKET,
    Envelope,
    Signature,
    open_envelope,
    packets,
)
from installer.policy import HOST, Signer, authorise, parse_policy, require_signers
from installer.receipt import Receipt, parse_receipt, write_receipt
from installer.revocation import soft_revocation
from installer.rotation import Candidate, NotAcceptedError, judge
from installer.runs import Part, cuts
from installer.runs import place as place_of
from installer.strict_json import MAX_DEPTH, load_json
from installer.tree import digest_of
from packager.bundle_writer import write_bundle
from packager.manifest_writer import write_manifest
from tests.fuzz.mutations import Form, with_checksums
from tests.fuzz.seeds import ADA, HEAD, MOMENT, POLICY

Signed = TypeVar("Signed", Receipt, Approval, Withdrawal)

_MOMENTS = (0, MOMENT, 2**31, 2**32 - 1)
_ENVELOPE = Envelope(b"", ADA, MOMENT, None)
_GENUINE = re.compile(
    rf"\[GNUPG:\] VALIDSIG {ADA} [^ ]* {MOMENT}( [^ ]*){{4}} (?:8|9|10) 00 ([0-9A-F]{{40}})"
)
"""The line of gpgv's that vouches for the signature of the envelope (GnuPG, doc/DETAILS)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A reader. `read` says whether it took the input; `repair` makes seals over an input good."""

    name: str
    read: Callable[[bytes], bool]
    form: Form = Form.BYTES
    repair: Callable[[bytes], bytes] = bytes


class _File(BytesIO):
    """A file of which nobody may read as much as they are told, unless they know a bound."""

    def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[explicit-override]  # 3.12
        assert size is not None
        assert 0 <= size <= MAX_MANIFEST_SIZE + BLOCK, f"a read of {size} bytes"
        return super().read(size)


def _content(found: Bundle) -> bytes:
    return b"".join(found.compressed.pieces())


def bundle(data: bytes) -> bool:
    """What is taken is canonical: written again, it is the same."""
    try:
        found = read_bundle(_File(data))
    except MalformedError:
        return False
    assert write_bundle(found.head, _content(found)) == data
    return True


def scriptlet(data: bytes) -> bool:
    """As `bundle`, in base64, and a head alone."""
    into = _File()
    try:
        dearmour(BytesIO(data), into)
        found = read_carried(into)
    except MalformedError:
        return False
    carried = into.getvalue()
    assert len(carried) <= MAX_ARMOURED_SIZE
    if isinstance(found, Bundle):
        assert write_bundle(found.head, _content(found)) == carried
    else:
        assert found.serialise() == carried
    return True


def content(data: bytes) -> bool:
    """Blobs of the sizes that the input says come out as xz has them, or are refused."""
    count = min(data[0] % 5 if data else 0, (len(data) - 1) // 2)
    numbers = data[1 : 1 + 2 * count]
    sizes = [int.from_bytes(numbers[i : i + 2]) for i in range(0, 2 * count, 2)]
    stream, offset = data[1 + 2 * count :], 0
    whole = _decompressed(stream, sum(sizes))
    blobs = []
    for number, size in enumerate(sizes):
        digest = digest_of(whole[offset : offset + size])
        blobs.append(Blob(str(number), digest, size))
        offset += size
    reader = ContentReader(Section(_File(stream), 0, len(stream)), tuple(blobs))
    try:
        read = {blob.name: reader.read(blob) for blob in reversed(blobs)}
    except DigestError:
        assert len(whole) < sum(sizes)
        return False
    assert b"".join(read[blob.name] for blob in blobs) == whole
    return True


def _decompressed(stream: bytes, most: int) -> bytes:
    """The first `most` bytes of an xz stream, as far as it is good."""
    decoder, found = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**27), b""
    try:
        while len(found) < most and not decoder.eof:
            piece = decoder.decompress(stream, min(most - len(found), PIECE))
            if not piece and decoder.needs_input:
                break
            found, stream = found + piece, b""
    except lzma.LZMAError:
        pass
    return found


def debian(data: bytes) -> bool:
    """Python's own reader of tar archives finds the same files at the same places."""
    file = _File(data)
    try:
        parts = deb.control_parts(file)
        found = deb.bundle_in(file)
    except MalformedError:
        return False
    archive = deb.ar_parts(file)[deb.CONTROL]
    control = data[archive.offset : archive.offset + archive.size]
    with tarfile.open(fileobj=BytesIO(control), mode="r:") as other:
        theirs = {
            member.name.removeprefix("./"): (archive.offset + member.offset_data, member.size)
            for member in other
            if member.isfile()
        }
    assert theirs == {name: (part.offset, part.size) for name, part in parts.items()}
    offset, size = theirs["bundle"]
    assert write_bundle(found.head, _content(found)) == data[offset : offset + size]
    return True


def rpm(data: bytes) -> bool:
    """The bundle that is found is one with the head that was looked for."""
    try:
        found = rpm_payload.bundle_in(_File(data), HEAD)
    except MalformedError:
        return False
    assert write_bundle(HEAD, _content(found)) in data
    return True


def strict_json(data: bytes) -> bool:
    """What is taken means the same to `json`, and survives being written and read again."""
    try:
        found = load_json(data, "fuzz.json")
    except MalformedError:
        return False
    assert found == json.loads(data)
    written = json.dumps(found, ensure_ascii=False).encode()
    assert load_json(written, "fuzz.json") == found
    level: list[object] = [found]
    for _ in range(MAX_DEPTH):
        level = [item for value in level for item in _inside(value)]
    assert not level
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def manifest(data: bytes) -> bool:
    """What is taken can be written again, and is then read as the same release."""
    try:
        found = parse_manifest(data)
    except MalformedError:
        return False
    again = parse_manifest(write_manifest(found))
    assert replace(again, digest=found.digest) == found
    if found.database:
        for script in (*found.database.scripts, *found.database.verify):
            _require_whole(script)
    return True


def _require_whole(script: Script) -> None:
    """The cuts of a script follow one another from its start to its end, each run once."""
    found = list(cuts(script))
    ends = [0, *(end for cut in found for end in cut.ends)]
    assert all(before <= after for before, after in pairwise(ends))
    assert ends[-1] == script.size
    began = [offset for cut in found if not cut.gap or cut.gap.copy for offset in cut.offsets[:-1]]
    assert began == list(script.runs)


def receipt(data: bytes) -> bool:
    """What is taken can be written again, and is then read as the same receipt."""
    return same_when_written_again(data, parse_receipt, write_receipt)


def with_fingerprints(data: bytes) -> bytes:
    """A receipt whose fingerprints are those of its objects, where it has any."""
    try:
        document = json.loads(data)
        schema = document["database"]["schema"]
        keys = ("layer", "kind", "name", "definition")
        rows = [[row[key] for key in keys] for row in schema["objects"]]
        schema["before"] = dict(schema_of(1, rows).fingerprints)
        return json.dumps(document).encode()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return data


def approval(data: bytes) -> bool:
    """What is taken can be written again, and is then read as the same approval."""
    return same_when_written_again(data, parse_approval, write_approval)


def withdrawal(data: bytes) -> bool:
    """What is taken can be written again, and is then read as the same withdrawal."""
    return same_when_written_again(data, parse_withdrawal, write_withdrawal)


def same_when_written_again(
    data: bytes, parse: Callable[[bytes], Signed], write: Callable[[Signed], bytes]
) -> bool:
    """What a statement's reader takes is the same statement when it was written again."""
    try:
        found = parse(data)
    except MalformedError:
        return False
    assert replace(parse(write(found)), digest=found.digest) == found
    return True


def envelope(data: bytes) -> bool:
    """What is let in is one armoured block of one packet, which names its issuer and its time."""
    try:
        found = open_envelope(data)
    except SignatureError:
        return False
    assert data.count(b"-----BEGIN") == data.count(b"-----END") == 1
    ((tag, body),) = packets(found.packet)
    assert tag == SIGNATURE_PACKET
    assert body[:2] == b"\x04\0"
    assert body[3] in DIGESTS
    assert b"\x04" + bytes.fromhex(found.issuer) in body
    assert found.created.to_bytes(4) in body
    assert found.expires is None or found.expires > found.created
    return True


def revocation(data: bytes) -> bool:
    """Nothing is raised, whatever the keyring; a soft revocation has a time and a soft reason."""
    primary, keyring = data[:20].hex().upper(), data[20:]
    since = soft_revocation(keyring, primary)
    if since is None:
        return False
    assert since.to_bytes(4) in keyring
    assert b"\x1d\1" in keyring or b"\x1d\3" in keyring or b"\x9d" in keyring
    return True


def status(data: bytes) -> bool:
    """A signer is one in the only VALIDSIG line, which is of the genuine format."""
    code, said = data[0] if data else 1, data[1:]
    try:
        found = signatures._conclude(code, said, _ENVELOPE)
    except signatures.RevokedKeyError as error:
        _require_genuine(error.signature, code, said, "REVKEYSIG")
        return False
    except SignatureError:
        return False
    _require_genuine(found, code, said, "GOODSIG")
    return True


def _require_genuine(found: Signature, code: int, said: bytes, word: str) -> None:
    lines = said.decode("utf-8", "replace").removesuffix("\n").split("\n")
    valid = [line for line in lines if "[GNUPG:] VALIDSIG" in line[:17]]
    assert code == 0
    assert len(valid) == 1
    match = _GENUINE.fullmatch(valid[0])
    assert match
    assert found == Signature(match[2], ADA, MOMENT)
    assert sum(line.split(" ")[:2] == ["[GNUPG:]", word] for line in lines) == 1


def policy(data: bytes) -> bool:
    """Whom a policy counts is whom it names, and no policy follows another unsigned."""
    try:
        found = parse_policy(data)
    except ConfigurationError:
        return False
    keys = [key for identity in found.identities for key in identity.fingerprints]
    for moment in _MOMENTS:
        signed = [Signature(key, key, moment) for key in keys]
        for environment, requirement in found.requirements.items():
            count = partial(authorise, found, environment, signed)
            _require_named(count, keys, requirement.signers)
        count = partial(require_signers, found, found.rotation, "the next policy", signed)
        _require_named(count, keys, found.rotation)
    candidate = Candidate(Path("policy.toml"), data, {})
    try:
        judge(POLICY.encode(), candidate, Path("/nonexistent"), MOMENT)
    except NotAcceptedError:
        return True
    assert data == POLICY.encode()
    return True


def _require_named(
    count: Callable[[], tuple[Signer, ...]], keys: list[str], required: Mapping[str, int]
) -> None:
    try:
        signers = count()
    except SignatureError:
        return
    roles = [signer.role for signer in signers]
    assert {signer.fingerprint for signer in signers} <= set(keys)
    assert len({signer.name for signer in signers}) == len(signers)
    assert required
    assert all(roles.count(role) >= number > 0 for role, number in required.items())
    assert HOST not in required


def host_file(data: bytes) -> bool:
    """To libpq there is no password and no option in a connection; roots are absolute."""
    # 150 ms, which the processes of other targets need not spend.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        found = parse_host_file(data)
    except ConfigurationError:
        return False
    for database in found.databases.values():
        try:
            settings = conninfo_to_dict(database.connection)
        except ProgrammingError:
            settings = {}  # libpq refuses it, too late to be read as anything
        assert not {"password", "sslpassword", "options"} & settings.keys()
        assert 0.001 <= database.lock_timeout <= 86400
        assert " " not in database.search_path
    for application in found.applications.values():
        assert application.root.is_absolute()
        assert len(application.root.parts) > 2
        application.local.has("config/local.toml")
    return True


def place(data: bytes) -> bool:
    """Where an error is can be said, or not, of whatever a server's answer holds."""
    context, query, sql = (*data.split(b"\x1e", 2), b"", b"")[:3]
    half = sql.find(b";") + 1
    part = Part(sql, (0, half, len(sql)) if half else (0, len(sql)), 3)
    try:
        where, line = place_of(
            part,
            context.decode("utf-8", "replace"),
            query.decode("utf-8", "replace"),
            len(data) % 7,
        )
    except MalformedError:
        return False
    assert re.fullmatch(r"(:\d+(:\d+)?)?", where)
    assert where or not line
    return True


TARGETS = {
    target.name: target
    for target in (
        Target("bundle", bundle, Form.ARCHIVE, with_checksums),
        Target("scriptlet", scriptlet, Form.BASE64),
        Target("content", content),
        Target("deb", debian, Form.ARCHIVE, with_checksums),
        Target("rpm", rpm, Form.ARCHIVE, with_checksums),
        Target("json", strict_json, Form.JSON),
        Target("manifest", manifest, Form.JSON),
        Target("receipt", receipt, Form.JSON, with_fingerprints),
        Target("approval", approval, Form.JSON),
        Target("withdrawal", withdrawal, Form.JSON),
        Target("envelope", envelope, Form.ARMOUR),
        Target("revocation", revocation),
        Target("status", status),
        Target("policy", policy, Form.TOML),
        Target("host_file", host_file, Form.TOML),
        Target("place", place),
    )
}
