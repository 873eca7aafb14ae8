"""A manifest that was not made by a build: whether it runs scripts as they are written."""

from dataclasses import replace

import pytest

from installer.manifest import (
    AFTER,
    Application,
    Blob,
    ConcurrentIndex,
    Copy,
    Database,
    Online,
    Patch,
    Script,
)
from installer.tree import Digest, digest_of
from packager.sqlcheck import CutsError, check_script, require_cuts
from tests.manifests import a_manifest

SCRIPT = b"-- c\nCREATE TABLE t ();\nCOPY t (a) FROM stdin;\n1\n\\.\nSELECT 1;\nSELECT 2;\n"
ONLINE = b"UPDATE t SET a = 1;\nCREATE INDEX CONCURRENTLY i ON t (a);\n"


def made(**changes: object) -> Script:
    cuts = check_script("sql/1.sql", SCRIPT)
    script = Script("sql/1.sql", digest_of(SCRIPT), len(SCRIPT), cuts.runs, cuts.gaps)
    return replace(script, **changes)  # type: ignore[arg-type]


def made_online(**changes: object) -> Script:
    cuts = check_script("sql/2.sql", ONLINE, online=Online(AFTER, repeat=False, indexes=()))
    assert cuts.online
    online = replace(cuts.online, **changes)  # type: ignore[arg-type]
    return Script("sql/2.sql", digest_of(ONLINE), len(ONLINE), cuts.runs, online=online)


def require(*scripts: Script, patches: tuple[Patch, ...] = ()) -> list[str]:
    """Hold a manifest against what is written; returns the names of all that was read."""
    read: list[str] = []
    contents = {"sql/1.sql": SCRIPT, "sql/2.sql": ONLINE, "sql/3.sql": b"SELEC", "v1": b"?"}

    def content(blob: Blob) -> bytes:
        read.append(blob.name)
        return contents[blob.name]

    manifest = a_manifest(
        application=Application("/opt/crm", {}, patches),
        database=Database("crm", scripts[:1], scripts[1:]),
    )
    require_cuts(manifest, content)
    return read


def test_a_manifest_that_runs_scripts_as_they_are_written_is_accepted() -> None:
    patch = Patch("v1", Digest("0" * 64), 1, (), ())
    assert require(made(), made_online(), patches=(patch,)) == ["v1", "sql/1.sql", "sql/2.sql"]


(GAP,) = made().gaps
INDEX = ConcurrentIndex(1, "create", '"i"')


@pytest.mark.parametrize(
    "script",
    [
        made(runs=()),
        made(runs=(5, 24, 52)),
        made(runs=(5, 24, 62)),
        made(runs=(5, 24, 53, 62)),
        made(gaps=()),
        made(gaps=(replace(GAP, copy=None),)),
        made(gaps=(replace(GAP, end=62),), runs=(5, 24, 62)),
        made(gaps=(replace(GAP, copy=Copy('"u"', ("a",), {}, 2)),)),
        made(gaps=(replace(GAP, copy=Copy('"t"', ("b",), {}, 2)),)),
        made(gaps=(replace(GAP, copy=Copy('"t"', ("a",), {"null": "1"}, 2)),)),
        made(gaps=(replace(GAP, copy=Copy('"t"', ("a",), {}, 0)),)),
        made_online(indexes=()),
        made_online(indexes=(replace(INDEX, name='"j"'),)),
        made_online(indexes=(replace(INDEX, verb="drop"),)),
    ],
)
def test_a_manifest_that_runs_a_script_otherwise_is_refused(script: Script) -> None:
    with pytest.raises(CutsError) as caught:
        require(made(), script)
    assert caught.value.exit_code == 56
    assert str(caught.value) == f"the manifest runs {script.name} otherwise than the script says"


def test_a_manifest_of_what_is_no_sql_is_refused() -> None:
    with pytest.raises(CutsError, match=r"how sql/3\.sql runs is not clear: sql/3\.sql:1:1: "):
        require(made(name="sql/3.sql"))
