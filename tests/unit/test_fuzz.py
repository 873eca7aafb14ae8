"""The readers against the corpus, mutations of it, bombs, and some runs of the fuzzer itself."""

import importlib.util
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import main
from tests.fuzz.bombs import bombs
from tests.fuzz.inputs import CORPUS, corpus_of, minimised, name_of
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
RUNS = 200
HAS_WHEEL = (
    platform.machine() == "x86_64"
    and platform.python_implementation() == "CPython"
    and sys.version_info < (3, 14)
)
INPUTS = {name: corpus_of(name) for name in TARGETS}

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@every_target
def test_each_input_of_the_corpus_is_taken_or_refused(target: Target) -> None:
    assert {target.read(content) for content in INPUTS[target.name]} == {True, False}


@every_target
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_mutation_is_taken_or_refused(target: Target, data: st.DataObject) -> None:
    random = data.draw(st.randoms(use_true_random=False))
    content = data.draw(st.sampled_from(INPUTS[target.name]))
    changed = mutated(content, target.form, random)
    for one in (changed, target.repair(changed)):
        assert target.read(one) in {True, False}


@every_target
@settings(max_examples=20, deadline=None)
@given(content=st.binary(max_size=1024))
def test_any_bytes_are_taken_or_refused(target: Target, content: bytes) -> None:
    assert target.read(content) in {True, False}


def test_a_bomb_is_refused_with_512_mib() -> None:
    done = run("tests.fuzz.bombs")

    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    assert len(lines) == len(list(bombs()))
    taken = [line for line in lines if not line.endswith(": refused")]
    assert taken == ["content: 1 GiB of zeros for 3400 bytes: taken"]


def test_a_process_under_the_limit_cannot_have_more() -> None:
    limited = "from tests.fuzz.limit import *; limit_memory(); bytes({} * 2**20)"

    results = [
        subprocess.run(
            [sys.executable, "-c", limited.format(size)], cwd=ROOT, capture_output=True, check=False
        )
        for size in (400, 520)
    ]

    assert [done.returncode for done in results] == [0, 1]
    assert b"MemoryError" in results[1].stderr


@pytest.mark.skipif(not HAS_WHEEL, reason="there is no wheel of atheris for this Python")
def test_the_fuzzer_finds_nothing_in_some_runs(tmp_path: Path) -> None:
    done = run("tests.fuzz", "--runs", str(RUNS), "--seed", "1", "--work", str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = re.findall(r"^(\w+) +(\d+) .*  nothing found$", done.stdout, re.MULTILINE)
    assert [name for name, _ in outcomes] == list(TARGETS)
    assert all(int(executions) >= RUNS for _, executions in outcomes)


@pytest.mark.skipif(not HAS_WHEEL, reason="there is no wheel of atheris for this Python")
def test_what_the_fuzzer_finds_is_kept_and_told(tmp_path: Path) -> None:
    program = (
        "import sys; from tests.fuzz import targets as t;"
        "t.TARGETS['json'] = t.Target('json', lambda data: 1 // (len(data) < 60));"
        "sys.argv = ['engine', 'json', *sys.argv[1:]]; from tests.fuzz.engine import main; main()"
    )
    options = ["-runs=10000", f"-artifact_prefix={tmp_path}/", str(CORPUS / "json")]

    done = subprocess.run(
        [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode != 0
    assert b"ZeroDivisionError" in done.stdout
    (kept,) = tmp_path.iterdir()
    assert len(kept.read_bytes()) >= 60


def test_where_atheris_is_missing_the_fuzzer_says_so_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(SystemExit) as ended:
        main(["json", "--work", str(tmp_path)])

    assert ended.value.code == 2
    assert "atheris is not installed: there is a wheel for" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_not_known_is_refused_by_name() -> None:
    done = run("tests.fuzz", "bundles")

    assert done.returncode == 2
    assert "no target is called bundles; there are bundle, scriptlet" in done.stderr


def test_the_corpus_keeps_what_goes_another_way_and_nothing_twice() -> None:
    seed, same, other, longer = b'{"a": 1}', b'{"b": 1}', b"[]", b"[0]"

    assert minimised(TARGETS["json"], [seed], [seed, same, longer, other]) == [seed, other]


def test_the_corpus_is_small_public_and_named_by_digest() -> None:
    files = {path.name: path.read_bytes() for path in CORPUS.glob("*/*")}

    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(name == name_of(content) for name, content in files.items())
    assert sum(map(len, INPUTS.values())) <= 300
    assert sum(len(content) for inputs in INPUTS.values() for content in inputs) <= 500_000
    assert not [name for name, content in files.items() if b"PRIVATE KEY" in content]
