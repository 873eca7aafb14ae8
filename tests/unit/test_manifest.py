"""Manifests are written here by hand: what the reader takes for one must not depend on a writer."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from installer import strict_json
from installer.errors import MalformedError
from installer.manifest import (
    Accepted,
    Author,
    ConcurrentIndex,
    Copy,
    Gap,
    Online,
    Patch,
    Rehearsal,
    Script,
    parse_manifest,
)
from installer.openpgp import MAX_SIGNATURE_SIZE
from installer.strict_json import MAX_DEPTH, load_json, require_relative_path
from installer.tree import Digest, Entry, digest_of, tree_digest

A, B, C = (Digest(letter * 64) for letter in "abc")
ARMOUR = "-----BEGIN PGP SIGNATURE-----\n\naGVsbG8=\n-----END PGP SIGNATURE-----\n"
JSON = dict[str, Any]

FULL: JSON = {
    "type": "countersign-manifest",
    "format": 1,
    "release": {"name": "crm", "version": "1.4.0", "sequence": 14, "summary": "Order history"},
    "source": {
        "vcs": "git",
        "tag": "v1.4.0",
        "revision": "0" * 40,
        "committed": 1767225600,
        "tagger": "AB" * 20,
    },
    "application": {
        "root": "/opt/crm",
        "tree": [
            {"path": "bin/crm", "mode": "100755", "size": 3, "digest": A},
            {"path": "lib/new.py", "mode": "100644", "size": 4, "digest": B},
            {"path": "etc", "mode": "120000", "size": 5, "digest": C},
        ],
        "patches": [
            {
                "from": "v1.3.0",
                "digest": B,
                "size": 7,
                "before": [{"path": "bin/crm", "mode": "100644", "size": 2, "digest": C}],
                "added": ["lib/new.py"],
            },
            {
                "from": "empty",
                "digest": C,
                "size": 9,
                "before": [],
                "added": ["bin/crm", "lib/new.py", "etc"],
            },
        ],
    },
    "database": {
        "name": "crm",
        "scripts": [
            {
                "name": "sql/0001_orders.sql",
                "digest": A,
                "size": 20,
                "runs": [0, 12],
                "gaps": [
                    {
                        "start": 18,
                        "end": 20,
                        "copy": {
                            "table": '"orders"',
                            "columns": ["id"],
                            "options": {"format": "csv"},
                            "size": 1,
                        },
                    }
                ],
                "author": {"fingerprint": "CD" * 20, "signature": ARMOUR},
                "online": None,
            },
            {
                "name": "sql/0002_index.sql",
                "digest": B,
                "size": 9,
                "runs": [0],
                "gaps": [],
                "author": None,
                "online": {
                    "when": "after",
                    "repeat": False,
                    "indexes": [{"run": 0, "verb": "create", "name": '"orders_id"'}],
                },
            },
        ],
        "verify": [
            {
                "name": "sql/verify/orders.sql",
                "digest": C,
                "size": 10,
                "runs": [2],
                "gaps": [],
                "author": None,
                "online": None,
            }
        ],
        "accept": [
            {
                "script": "sql/0001_orders.sql",
                "change": "edited",
                "applied": [C],
                "reason": "a comment only",
            },
            {
                "script": "sql/0002_index.sql",
                "change": "late",
                "applied": [],
                "reason": "a hot fix, numbered late",
            },
        ],
        "rehearsal": {"major": 15, "starts": ["empty"]},
    },
    "content": {"compression": "xz", "digest": C, "size": 100},
}


ACCEPTED: Any = FULL["database"]["accept"][0]
GAP: Any = FULL["database"]["scripts"][0]["gaps"][0]
GAPS = [{"start": 14, "end": 15, "copy": None}, GAP]
TWICE = [{**GAP, "start": 14, "end": 17}, GAP]
ONLINE: Any = FULL["database"]["scripts"][1]["online"]
LISTS = ("starts", "columns")
ENTRY = FULL["application"]["patches"][0]["before"][0]


def raw(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def at(path: str, value: object) -> bytes:
    """FULL with `value` at `path`, such as `database/scripts/0/name`."""
    changed = copy.deepcopy(FULL)
    *folders, last = path.split("/")
    place: Any = changed
    for part in folders:
        place = place[int(part)] if part.isdigit() else place[part]
    place[int(last) if last.isdigit() else last] = value
    return raw(changed)


def refusal(content: bytes, read: Callable[[bytes], object] = parse_manifest) -> str:
    with pytest.raises(MalformedError) as refused:
        read(content)
    assert refused.value.exit_code == 21
    return str(refused.value)


# What a manifest says


def test_a_manifest_is_read_as_it_was_signed() -> None:
    content = raw(FULL)
    manifest = parse_manifest(content)
    assert manifest.digest == digest_of(content)
    assert manifest.title == "crm 1.4.0"
    assert (manifest.sequence, manifest.summary) == (14, "Order history")
    assert (manifest.source.vcs, manifest.source.tag) == ("git", "v1.4.0")
    assert (manifest.source.revision, manifest.source.committed) == ("0" * 40, 1767225600)
    assert (manifest.content.digest, manifest.content.size) == (C, 100)
    assert manifest.database is not None
    author = Author("CD" * 20, ARMOUR)
    rows = Copy('"orders"', ("id",), {"format": "csv"}, 1)
    assert manifest.database.scripts[0] == Script(
        "sql/0001_orders.sql", A, 20, (0, 12), (Gap(18, 20, rows),), author
    )
    assert manifest.database.scripts[1].author is None
    assert manifest.database.scripts[1].online == Online(
        "after", repeat=False, indexes=(ConcurrentIndex(0, "create", '"orders_id"'),)
    )
    assert manifest.database.rehearsal == Rehearsal(15, ("empty",))
    assert manifest.source.tagger == "AB" * 20
    assert manifest.database.accept == (
        Accepted("sql/0001_orders.sql", "edited", (C,), "a comment only"),
        Accepted("sql/0002_index.sql", "late", (), "a hot fix, numbered late"),
    )


def test_gaps_may_lie_anywhere_but_in_runs() -> None:
    after = [GAP | {"start": 16, "end": 18}, {"start": 18, "end": 20, "copy": None}]
    database = parse_manifest(at("database/scripts/0/gaps", after)).database
    assert database is not None
    assert [(gap.start, gap.end) for gap in database.scripts[0].gaps] == [(16, 18), (18, 20)]
    lines = [{"start": 0, "end": 3, "copy": None}, {"start": 3, "end": 9, "copy": None}]
    bare = {**FULL["database"]["scripts"][0], "runs": [], "gaps": lines}
    assert parse_manifest(at("database/scripts/0", bare)).database


ROWS = FULL["database"]["scripts"][0]["gaps"][0]["copy"]


def with_cuts(runs: list[int], *gaps: tuple[int, int, object]) -> bytes:
    cut = [{"start": start, "end": end, "copy": rows} for start, end, rows in gaps]
    return at("database/scripts/0", FULL["database"]["scripts"][0] | {"runs": runs, "gaps": cut})


def test_a_run_may_begin_where_a_gap_ends_and_the_rows_of_its_copy_behind_it() -> None:
    read = parse_manifest(with_cuts([0, 8, 14], (5, 8, None), (10, 14, ROWS), (18, 20, ROWS)))
    assert read.database is not None
    assert [gap.copy is not None for gap in read.database.scripts[0].gaps] == [False, True, True]


@pytest.mark.parametrize("run", [8, 9, 11])
def test_no_run_begins_within_a_gap(run: int) -> None:
    assert refusal(with_cuts([0, run], (8, 12, ROWS))).endswith(": a run begins within a gap")


@pytest.mark.parametrize(
    "runs, gaps",
    [
        ([], [(5, 10, ROWS)]),
        ([15], [(5, 10, ROWS)]),
        ([0], [(5, 8, ROWS), (10, 12, ROWS)]),
        ([0, 14], [(5, 8, None), (10, 12, ROWS)]),
    ],
)
def test_rows_follow_the_copy_that_reads_them(
    runs: list[int], gaps: list[tuple[int, int, object]]
) -> None:
    assert refusal(with_cuts(runs, *gaps)).endswith(": rows follow no COPY")


def test_content_comes_in_the_order_patches_scripts_verify_scripts() -> None:
    names = [blob.name for blob in parse_manifest(raw(FULL)).blobs]
    assert names == [
        "v1.3.0",
        "empty",
        "sql/0001_orders.sql",
        "sql/0002_index.sql",
        "sql/verify/orders.sql",
    ]


def test_the_tree_that_a_patch_starts_from_follows_from_the_manifest() -> None:
    application = parse_manifest(raw(FULL)).application
    assert application is not None
    upgrade, first = application.patches
    assert isinstance(upgrade, Patch)
    assert application.tree_before(upgrade) == {
        "bin/crm": Entry("bin/crm", "100644", 2, C),
        "etc": Entry("etc", "120000", 5, C),
    }
    assert application.tree_before(first) == {}


def test_the_digest_of_the_tree_does_not_depend_on_the_order_of_its_entries() -> None:
    turned = at("application/tree", FULL["application"]["tree"][::-1])
    one, other = parse_manifest(raw(FULL)), parse_manifest(turned)
    assert one.digest != other.digest
    assert one.tree_digest == other.tree_digest
    assert one.application is not None
    assert one.tree_digest == tree_digest(one.application.tree)


def test_a_release_may_have_no_application() -> None:
    manifest = parse_manifest(at("application", None))
    assert (manifest.application, manifest.tree_digest) == (None, None)
    assert manifest.blobs[0].name == "sql/0001_orders.sql"


def test_a_release_may_have_no_database() -> None:
    manifest = parse_manifest(at("database", None))
    assert manifest.database is None
    assert [blob.name for blob in manifest.blobs] == ["v1.3.0", "empty"]


def test_a_release_of_nothing_is_refused() -> None:
    nothing = {**FULL, "application": None, "database": None}
    assert "neither an application nor a database" in refusal(raw(nothing))


# Keys and types


def places(value: object, path: str = "") -> list[str]:
    """The path of every object below `value` whose keys are fixed: those of COPY's are not."""
    items: list[tuple[str, object]] = []
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(number), item) for number, item in enumerate(value)]
    found = [path] if isinstance(value, dict) and not path.endswith("/options") else []
    return found + [p for key, item in items for p in places(item, f"{path}/{key}".strip("/"))]


def keys() -> list[str]:
    """The path of every value that has a key."""
    return [f"{place}/{key}".strip("/") for place in places(FULL) for key in lookup(place)]


def lookup(path: str) -> JSON:
    place: Any = FULL
    for part in path.split("/") if path else []:
        place = place[int(part)] if part.isdigit() else place[part]
    found: JSON = place
    return found


@pytest.mark.parametrize("place", places(FULL))
def test_an_unknown_key_is_refused_wherever_it_is(place: str) -> None:
    changed = {**lookup(place), "not_before": 1}
    content = at(place, changed) if place else raw(changed)
    assert "unknown key 'not_before'" in refusal(content)


@pytest.mark.parametrize("place", keys())
def test_a_missing_key_is_refused_wherever_it_is(place: str) -> None:
    folder, _, key = place.rpartition("/")
    changed = {name: value for name, value in lookup(folder).items() if name != key}
    assert f"{key} is missing" in refusal(at(folder, changed) if folder else raw(changed))


OPTIONAL = {
    *("application", "database", "source/tagger", "database/rehearsal"),
    *(f"database/{s}/author" for s in ("scripts/0", "scripts/1", "verify/0")),
    *(f"database/{s}/online" for s in ("scripts/0", "scripts/1", "verify/0")),
    "database/scripts/0/gaps/0/copy",
}


@pytest.mark.parametrize("wrong", [True, False, 1.5, None, "1", 1, [], {}, [1], ["x"], [None]])
@pytest.mark.parametrize("place", keys())
def test_a_value_of_another_type_is_refused_wherever_it_is(place: str, wrong: object) -> None:
    folder, _, key = place.rpartition("/")
    right = lookup(folder)[key]
    if wrong is None and place in OPTIONAL:
        return
    fine: list[object] = [[], "1", 1, False]
    fine += [[1]] if key == "runs" else [["x"]] if key in LISTS else []
    if type(right) is type(wrong) and (wrong in fine or (key == "options" and wrong == {})):
        return  # of the right type: what is wrong with those is tested below
    assert refusal(at(place, wrong))


@pytest.mark.parametrize(
    "place, wrong, reason",
    [
        ("type", "countersign-approval", "not a countersign-manifest of format 1"),
        ("format", 2, "a newer countersign-installer may know it"),
        ("format", 0, "format is 0, outside"),
        ("release/name", "CRM", "name is 'CRM', which does not match"),
        ("release/name", "crm\n", "does not match"),
        ("release/name", "../crm", "does not match"),
        ("release/name", "c" * 65, "does not match"),
        ("release/version", "1.0-1", "version is '1.0-1'"),
        ("release/version", "v1", "version is 'v1'"),
        ("release/version", "1/../..", "version is"),
        ("release/sequence", 0, "sequence is 0, outside"),
        ("release/sequence", -1, "sequence is -1, outside"),
        ("release/sequence", 2**53 + 1, "sequence is 9007199254740993, outside"),
        ("release/summary", "", "summary is not one line of text"),
        ("release/summary", "  ", "summary is not one line of text"),
        ("release/summary", "two\nlines", "summary is not one line of text"),
        ("release/summary", "clear\x1b[2J", "summary is not one line of text"),
        ("release/summary", "para\u2029graph", "summary is not one line of text"),
        ("source/vcs", "hg", "vcs is 'hg'"),
        ("source/committed", -1, "committed is -1, outside"),
        ("source/tagger", "", "tagger is '', no fingerprint"),
        ("source/tagger", "AB" * 4, "tagger is 'ABABABAB', no fingerprint"),
        ("source/tagger", "ab" * 20, "no fingerprint"),
        ("source/tagger", "AB" * 20 + "\n", "no fingerprint"),
        ("source/tagger", "0x" + "AB" * 19, "no fingerprint"),
        ("source/vcs", "svn", "tagger is there, but only git has signed tags"),
        ("source/vcs", "tree", "tagger is there, but only git has signed tags"),
        ("application/root", "/", "root is '/'"),
        ("application/root", "/opt", "root is '/opt'"),
        ("application/root", "opt/crm", "root is 'opt/crm'"),
        ("application/root", "/opt/../etc", "root is '/opt/../etc'"),
        ("application/root", "/opt/crm/", "root is '/opt/crm/'"),
        ("application/root", "/opt//crm", "root is '/opt//crm'"),
        ("application/root", "/opt/crm\n", "root is '/opt/crm\\n'"),
        ("application/tree/0/mode", "104755", "mode '104755' is none of 100644, 100755, 120000"),
        ("application/tree/0/mode", "100664", "mode '100664' is none of"),
        ("application/tree/0/mode", "040000", "mode '040000' is none of"),
        ("application/tree/0/size", -1, "size is -1, outside"),
        ("application/tree/0/size", 2**60, "outside 0..17179869184"),
        ("application/tree/0/digest", "A" * 64, "digest is"),
        ("application/tree/0/digest", "a" * 63, "digest is"),
        ("application/tree/1/path", "bin/crm", "differ at most in case or Unicode form"),
        ("application/tree/1/path", "BIN/crm", "differ at most in case or Unicode form"),
        ("application/tree/1/path", "bin", "'bin' is both a file and a folder"),
        ("application/tree/1/path", "bin/crm/x", "'bin/crm' is both a file and a folder"),
        ("application/tree/1/path", "lib/other.py", "adds what the tree does not have"),
        ("application/patches/1/from", "v1.3.0", "two patches start from the same release"),
        ("application/patches/0/from", "", "from is not one line of text"),
        ("application/patches/0/before/0/path", "../x", "is not a plain relative path"),
        ("application/patches/0/before/0/path", "ETC", "differ at most in case or Unicode form"),
        ("application/patches/0/before", [ENTRY, ENTRY | {"path": "BIN/crm"}], "at most in case"),
        ("application/patches/0/before/0/path", "etc/x", "'etc' is both a file and a folder"),
        ("application/patches/0/added", ["lib/none.py"], "adds what the tree does not have"),
        ("application/patches/0/added", ["bin/crm"], "adds what is there before"),
        ("application/patches/0/added", [1], "added holds something that is not of type str"),
        ("database/name", "Crm", "name is 'Crm'"),
        ("database/scripts/0/runs", [12, 0], "runs are not rising offsets"),
        ("database/scripts/0/runs", [0, 0], "runs are not rising offsets"),
        ("database/scripts/0/runs", [-1], "runs are not rising offsets"),
        ("database/scripts/0/runs", [20], "runs are not rising offsets"),
        ("database/scripts/0/runs", [False], "runs holds something that is not of type int"),
        ("database/scripts/1/runs", [9], "runs are not rising offsets"),
        ("database/scripts/1/runs", [], "an online script has gaps, or indexes of runs"),
        ("database/scripts/1/gaps", [{"start": 7, "end": 9, "copy": None}], "online script has"),
        ("database/scripts/0/gaps", GAPS[::-1], "gaps are not rising ranges"),
        ("database/scripts/0/gaps/0/start", 20, "size is 1, outside 0..0"),
        ("database/scripts/0/gaps", [{"start": 9, "end": 9, "copy": None}], "not rising ranges"),
        ("database/scripts/0/gaps/0/end", 21, "gaps are not rising ranges"),
        ("database/scripts/0/gaps/0/start", 10, "a run begins within a gap"),
        ("database/scripts/0/runs", [], "rows follow no COPY"),
        ("database/scripts/0/gaps", TWICE, "rows follow no COPY"),
        ("database/scripts/0/gaps/0/copy/size", 3, "size is 3, outside 0..2"),
        ("database/scripts/0/gaps/0/copy/columns", [], "COPY without columns"),
        ("database/scripts/0/gaps/0/copy/table", "a\nb", "table is not one line of text"),
        ("database/scripts/0/gaps/0/copy/options", {"where": "true"}, "else than texts for format"),
        ("database/scripts/0/gaps/0/copy/options", {"null": 1}, "something else than texts"),
        ("database/scripts/1/online/when", "during", "when is 'during'"),
        ("database/scripts/1/online/indexes/0/run", 1, "indexes of runs that it has not"),
        ("database/scripts/1/online/indexes/0/verb", "move", "verb is 'move'"),
        ("database/verify/0/online", ONLINE, "a script that verifies is online"),
        ("database/scripts/1/name", "sql/0001_orders.sql", "differ at most in case"),
        ("database/scripts/1/name", "sql/0001_ORDERS.sql", "differ at most in case"),
        ("database/verify/0/name", "sql/0001_orders.sql", "differ at most in case"),
        ("database/scripts/0/author/fingerprint", "CD" * 4, "fingerprint is 'CDCDCDCD'"),
        ("database/scripts/0/author/fingerprint", "cd" * 20, "does not match"),
        ("database/scripts/0/author/fingerprint", "CD" * 20 + "\n", "does not match"),
        ("database/scripts/0/author/signature", "", "signature is no ASCII text"),
        ("database/scripts/0/author/signature", "é" + ARMOUR, "signature is no ASCII text"),
        ("database/scripts/0/author/signature", "\x1b" + ARMOUR, "signature is no ASCII text"),
        ("database/scripts/0/author/signature", "\0" + ARMOUR, "signature is no ASCII text"),
        ("database/scripts/0/author/signature", "x" * 16385, "of up to 16384 bytes"),
        ("database/accept/0/script", "sql/0009.sql", "about a script that this release does not"),
        ("database/accept/0/change", "removed", "about a script that this release does not have"),
        ("database/accept/0/change", "moved", "change is 'moved'"),
        ("database/accept/0/change", "late", "has applied, or lacks it"),
        ("database/accept/0/applied", [], "has applied, or lacks it"),
        ("database/accept/0/applied", ["C" * 64], "something else than digests in applied"),
        ("database/accept/1", {**ACCEPTED, "reason": "again"}, "edited, is there twice"),
        ("source/committed", 2**40 + 1, "committed is 1099511627777, outside"),
        ("database/rehearsal/major", 0, "major is 0, outside"),
        ("database/rehearsal/major", 1000, "major is 1000, outside"),
        ("database/accept/0/reason", "", "reason is not one line of text"),
        ("content/compression", "gzip", "compression is 'gzip'"),
        ("content/size", 2**40, "size is 1099511627776, outside"),
    ],
)
def test_a_value_that_no_build_writes_is_refused_by_name(
    place: str, wrong: object, reason: str
) -> None:
    assert reason in refusal(at(place, wrong))


@pytest.mark.parametrize(
    "place, value",
    [
        ("application/patches/0/size", 0),
        ("database/rehearsal/major", 1),
        ("database/rehearsal/major", 999),
        ("source/committed", 0),
        ("source/committed", 2**40),
    ],
)
def test_the_least_and_the_greatest_value_are_read(place: str, value: int) -> None:
    manifest = parse_manifest(at(place, value))
    assert manifest.application is not None
    assert manifest.database is not None
    assert manifest.database.rehearsal is not None
    assert value in {
        manifest.application.patches[0].size,
        manifest.database.rehearsal.major,
        manifest.source.committed,
    }


def test_a_signature_of_the_greatest_size_is_read() -> None:
    longest = "x" * MAX_SIGNATURE_SIZE
    database = parse_manifest(at("database/scripts/0/author/signature", longest)).database
    assert database is not None
    assert database.scripts[0].author == Author("CD" * 20, longest)


def test_a_release_whose_tag_nobody_had_to_sign_has_no_tagger() -> None:
    assert parse_manifest(at("source/tagger", None)).source.tagger is None


def test_names_that_differ_in_unicode_form_alone_are_refused() -> None:
    tree = [
        {"path": path, "mode": "100644", "size": 1, "digest": A}
        for path in ("caf\u00e9", "cafe\u0301")
    ]
    application = {"root": "/opt/crm", "tree": tree, "patches": []}
    assert "differ at most in case or Unicode form" in refusal(at("application", application))


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\x1bb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
    ],
)
@pytest.mark.parametrize(
    "place",
    ["application/tree/0/path", "database/scripts/0/name", "database/accept/0/script"],
)
def test_a_path_that_leads_elsewhere_is_refused(place: str, path: str) -> None:
    assert "is not a plain relative path" in refusal(at(place, path))


@pytest.mark.parametrize(
    "path", ["a", "a/b", ".hidden", "..a", "a b", "-x", "ü/ñ.sql", "a\\b", "…"]
)
def test_an_ordinary_path_is_accepted(path: str) -> None:
    assert require_relative_path(path, "here") == path


# Strict JSON


def load(content: bytes) -> object:
    return load_json(content, "manifest.json")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "not strict JSON"),
        (b"\xef\xbb\xbf{}", "not strict JSON"),
        (b"{} {}", "Extra data"),
        (b"{}\0", "Extra data"),
        (b"{} // comment", "Extra data"),
        (b"{'a': 1}", "not strict JSON"),
        (b'{"a": 1,}', "not strict JSON"),
        (b'{"a": 1, "a": 1}', "the same key twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "the same key twice"),
        (b'{"a": NaN}', "NaN is not an integer"),
        (b'{"a": Infinity}', "Infinity is not an integer"),
        (b'{"a": -Infinity}', "-Infinity is not an integer"),
        (b'{"a": 1e999}', "1e999 is not an integer"),
        (b'{"a": 1.0}', "1.0 is not an integer"),
        (b'{"a": 1' + b"0" * 20 + b"}", "more than 20 digits"),
        (b'{"a": 1' + b"0" * 100_000 + b"}", "more than 20 digits"),
        (b'{"a": 01}', "not strict JSON"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b'{"a": "\xed\xa0\x80"}', "can't decode byte 0xed"),
        (b'{"a": "\n"}', "Invalid control character"),
        (b'{"a": "\0"}', "Invalid control character"),
        ('{"a": 1}'.encode("utf-16"), "not strict JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"1", "not a JSON object"),
    ],
)
def test_what_is_not_strict_json_is_refused(content: bytes, reason: str) -> None:
    assert reason in refusal(content, load)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": "\\"", "b": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'"\\\n' * 100_001 + b"[" * 100_000,
    ],
)
def test_deep_nesting_is_refused_before_it_is_followed(content: bytes) -> None:
    assert f"nested deeper than {MAX_DEPTH}" in refusal(content, load)


def test_brackets_within_text_are_no_nesting() -> None:
    assert load(b'{"a": "[[[[[[[[[[[[[[[[[[[[\\"[[[[{{{{"}')


def test_an_unclosed_text_is_refused_whatever_it_holds() -> None:
    for rest in (b"", b"[" * 1000, b"\\", b"}"):
        assert refusal(b'{"a": "' + rest, load)


def test_nesting_up_to_the_limit_is_read() -> None:
    lists = MAX_DEPTH - 1
    assert load(b'{"a": ' + b"[" * lists + b"]" * lists + b"}")
    assert "nested deeper" in refusal(b'{"a": ' + b"[" * (lists + 1), load)


def test_a_manifest_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_DOCUMENT_SIZE", 10)
    assert refusal(b'{"a": "bc"}', load) == "manifest.json: larger than 10 bytes"


def test_every_cut_of_a_manifest_is_refused() -> None:
    content = raw(FULL)
    for end in range(len(content)):
        assert refusal(content[:end])
