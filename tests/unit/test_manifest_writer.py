import json
from dataclasses import replace

import pytest

from installer.manifest import (
    Accepted,
    Application,
    Author,
    Content,
    Database,
    Manifest,
    Patch,
    Script,
    Source,
    parse_manifest,
)
from installer.tree import Digest, Entry, by_path, digest_of
from packager.errors import ProjectError
from packager.manifest_writer import UNSIGNED, compress, describe_content, write_manifest

D = Digest("0123456789abcdef" * 4)
TREE = by_path([Entry("größe.txt", "100644", 2, D), Entry("bin/crm", "100755", 21, D)])
APPLICATION = Application(
    root="/opt/crm",
    tree=TREE,
    patches=(
        Patch("empty", D, 99, (), ("bin/crm", "größe.txt")),
        Patch("v1.0.0", D, 7, (Entry("old.txt", "100644", 5, D),), ("größe.txt",)),
    ),
)
DATABASE = Database(
    name="crm",
    scripts=(
        Script("sql/2.sql", D, 10, (0, 4), (), Author("CD" * 20, "armour\n")),
        Script("sql/1.sql", D, 3, ()),
    ),
    verify=(Script("sql/verify/1.sql", D, 10, (0,)),),
    accept=(Accepted("sql/1.sql", "late", (), "agreed — with the customer"),),
)
MANIFEST = Manifest(
    digest=UNSIGNED,
    product="crm",
    version="1.1.0",
    sequence=2,
    summary="Orders get a history",
    source=Source("git", "v1.1.0", "ceb489e2", 1769860800, "AB" * 20),
    application=APPLICATION,
    database=DATABASE,
    content=Content("xz", D, 652),
)


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, replace(MANIFEST, application=None), replace(MANIFEST, database=None)],
    ids=["both", "database", "application"],
)
def test_a_host_reads_what_was_meant(manifest: Manifest) -> None:
    raw = write_manifest(manifest)

    assert parse_manifest(raw) == replace(manifest, digest=digest_of(raw))


def test_the_bytes_depend_on_the_release_alone() -> None:
    turned = replace(APPLICATION, tree=dict(reversed(TREE.items())))

    assert write_manifest(replace(MANIFEST, application=turned)) == write_manifest(MANIFEST)
    assert write_manifest(replace(MANIFEST, digest=D)) == write_manifest(MANIFEST)


def test_a_signer_can_read_what_is_signed() -> None:
    raw = write_manifest(MANIFEST)

    assert raw.endswith(b"\n}\n")
    assert "größe.txt" in raw.decode()
    assert list(json.loads(raw)) == sorted(json.loads(raw))


def test_the_order_of_scripts_is_kept() -> None:
    scripts = json.loads(write_manifest(MANIFEST))["database"]["scripts"]

    assert [script["name"] for script in scripts] == ["sql/2.sql", "sql/1.sql"]


@pytest.mark.parametrize(
    "broken, words",
    [
        (replace(MANIFEST, summary="two\nlines"), "one line"),
        (replace(MANIFEST, summary="half a \ud83d"), "surrogate"),
        (replace(MANIFEST, application=None, database=None), "neither"),
        (
            replace(MANIFEST, database=replace(DATABASE, accept=(Accepted("x", "late", (), "y"),))),
            "accept",
        ),
        (
            replace(
                MANIFEST,
                application=replace(
                    APPLICATION, tree=TREE | by_path([Entry("BIN/crm", "100644", 1, D)])
                ),
            ),
            "case",
        ),
    ],
)
def test_what_hosts_would_refuse_is_refused_before_it_is_signed(
    broken: Manifest, words: str
) -> None:
    with pytest.raises(ProjectError, match=words):
        write_manifest(broken)


def test_content_compresses_to_the_same_bytes_however_it_is_cut() -> None:
    whole = compress([b"ab" * 5000])

    assert whole == compress([b"ab" * 2500, b"", b"ab" * 2500])
    assert describe_content(whole) == Content("xz", digest_of(whole), len(whole))
