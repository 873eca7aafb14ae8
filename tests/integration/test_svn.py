"""What is exported from a real Subversion repository is what its tag holds at one revision."""

import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from installer.tree import scan
from packager.errors import ProjectError, ToolError
from packager.vcs import open_repository

pytestmark = pytest.mark.integration


class Repo:
    """A Subversion repository with trunk, tags and a working copy of all."""

    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}/repository"
        self.top = folder / "copy @ work"
        self._folder = folder
        self.run("svnadmin", "create", str(folder / "repository"))
        self.run("svn", "mkdir", "-q", "-m", "layout", f"{self.url}/trunk", f"{self.url}/tags")
        self.run("svn", "checkout", "-q", self.url, str(self.top))
        self.trunk = self.top / "trunk"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            check=True,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), "LC_ALL": "C.UTF-8"},
        )
        return done.stdout.decode()

    def write(self, path: str, content: bytes, **properties: str) -> None:
        file = self.trunk / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.run("svn", "add", "-q", "--force", "--parents", f"{file}@")
        for name, value in properties.items():
            self.set(path, f"svn:{name.replace('_', '-')}", value)

    def set(self, path: str, name: str, value: str) -> None:
        self.run("svn", "propset", "-q", name, value, f"{self.trunk / path}@")

    def commit(self) -> None:
        self.run("svn", "commit", "-q", "-m", "work", f"{self.top}@")
        self.run("svn", "update", "-q", "--ignore-externals", f"{self.top}@")

    def tag(self, name: str) -> None:
        self.commit()
        self.run(
            "svn", "copy", "-q", "-m", name, f"{self.url}/trunk", f"{self.url}/tags/{quote(name)}@"
        )
        self.run("svn", "update", "-q", "--ignore-externals", f"{self.top}@")

    @property
    def uuid(self) -> str:
        return self.run("svn", "info", "--show-item", "repos-uuid", self.url).strip()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path)


def test_the_tree_of_a_tag_is_exported_with_modes_and_links(repo: Repo, tmp_path: Path) -> None:
    repo.write("app/main.py", b"print()\n")
    repo.write("app/run", b"#!/bin/sh\n", executable="*")
    repo.write("app/locked", b"x", needs_lock="*")
    repo.write("übung/a@b c.bin", bytes(range(256)))
    (repo.trunk / "link").symlink_to("./app//run")
    repo.run("svn", "add", "-q", str(repo.trunk / "link@"))
    repo.tag("1.4.0")
    previous = os.umask(0o077)
    try:
        source = open_repository("svn", repo.trunk).export("tags/1.4.0", tmp_path / "o@ut")
    finally:
        os.umask(previous)
    tree = scan(tmp_path / "o@ut")
    assert {path: entry.mode for path, entry in tree.items()} == {
        "app/main.py": "100644",
        "app/run": "100755",
        "app/locked": "100644",
        "übung/a@b c.bin": "100644",
        "link": "120000",
    }
    assert {path: e.digest for path, e in tree.items()} == {
        p: e.digest for p, e in scan(repo.trunk).items()
    }
    assert (tmp_path / "o@ut" / "app").stat().st_mode & 0o7777 == 0o755
    assert source.vcs == "svn"
    assert source.tag == "tags/1.4.0"
    assert source.revision == f"{repo.uuid}/tags/1.4.0@3"
    date = repo.run("svn", "propget", "--revprop", "-r3", "svn:date", repo.url)
    assert source.committed == int(
        subprocess.run(["date", "-d", date, "+%s"], check=True, capture_output=True).stdout
    )


def test_keywords_and_line_ends_come_out_as_they_are_stored(repo: Repo, tmp_path: Path) -> None:
    repo.write("id", b"$Id$ $Revision$\n", keywords="Id Revision")
    repo.write("native", b"1\n2\n", eol_style="native")
    repo.write("crlf", b"1\r\n2\r\n", eol_style="CRLF")
    repo.write("plain", b"1\r\n2\n3")
    repo.tag("1")
    open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    stored = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("id", "native", "crlf", "plain")
    }
    assert stored == {
        "id": b"$Id$ $Revision$\n",
        "native": b"1\n2\n",
        "crlf": b"1\r\n2\r\n",
        "plain": b"1\r\n2\n3",
    }


def test_the_user_s_configuration_does_not_change_an_export(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a", b"$Id$\n", keywords="Id")
    repo.tag("1")
    (tmp_path / "home/.subversion").mkdir(parents=True)
    (tmp_path / "home/.subversion/config").write_text(
        "[miscellany]\nuse-commit-times = yes\nenable-auto-props = yes\nglobal-ignores = a\n"
        "[auto-props]\n* = svn:executable\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"$Id$\n"
    assert scan(tmp_path / "out")["a"].mode == "100644"


def test_a_tag_that_is_changed_later_is_another_release(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.tag("1")
    repository = open_repository("svn", repo.trunk)
    first = repository.export("tags/1", tmp_path / "first")
    repo.write("a", b"2")
    repo.commit()
    assert repository.export("tags/1", tmp_path / "same") == first
    (repo.top / "tags/1/a").write_bytes(b"moved")
    repo.commit()
    second = repository.export("tags/1", tmp_path / "second")
    assert (first.revision, second.revision) == (f"{repo.uuid}/tags/1@3", f"{repo.uuid}/tags/1@5")
    assert (tmp_path / "same" / "a").read_bytes() == b"1"
    assert (tmp_path / "second" / "a").read_bytes() == b"moved"


def test_every_checkout_gives_the_same_revision(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.tag("1")
    other = repo.url.replace("file://", "file://localhost")
    repo.run("svn", "checkout", "-q", f"{other}/trunk", str(tmp_path / "other"))
    mine = open_repository("svn", repo.trunk).export("tags/1", tmp_path / "mine")
    theirs = open_repository("svn", tmp_path / "other").export("tags/1", tmp_path / "theirs")
    assert mine == theirs


def test_an_odd_name_of_a_tag_is_found(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.tag("ü%201@4 #x")
    source = open_repository("svn", repo.trunk).export("tags/ü%201@4 #x", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == {"a"}
    assert source.revision == f"{repo.uuid}/tags/ü%201@4 #x@3"


def test_an_existing_empty_folder_is_filled(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.tag("1")
    (tmp_path / "out").mkdir(mode=0o700)
    open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == {"a"}


@pytest.mark.parametrize(
    "tag,words",
    [
        ("tags/1.4", r"no folder 'tags/1\.4'; the nearest is 'tags/1\.4\.0'"),
        ("1.4.0", r"no folder '1\.4\.0'; the nearest is 'tags/1\.4\.0'"),
        ("nowhere/1", r"no folder 'nowhere/1'; the nearest is"),
        ("tags/../trunk", "plain relative path"),
        ("tags/1.4.0/", "plain relative path"),
        ("trunk/a", "is a file"),
    ],
)
def test_what_is_no_tag_is_refused(tag: str, words: str, repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.tag("1.4.0")
    with pytest.raises(ProjectError, match=words):
        open_repository("svn", repo.trunk).export(tag, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_externals_are_refused_by_name(repo: Repo, tmp_path: Path) -> None:
    repo.write("lib/a", b"1")
    repo.set("lib", "svn:externals", "^/tags shared")
    repo.tag("1")
    with pytest.raises(ProjectError, match="tags/1/lib has svn:externals"):
        open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_outside_any_working_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is not in a Subversion working copy"):
        open_repository("svn", tmp_path).export("tags/1", tmp_path / "out")
    with pytest.raises(ProjectError, match="is not in a Subversion working copy"):
        open_repository("svn", tmp_path).changes()


def test_a_repository_out_of_reach_is_told_in_svn_s_words(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "repository").rename(tmp_path / "moved")
    with pytest.raises(ToolError) as failed:
        open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    assert "Unable to open" in failed.value.detail


def test_a_clean_working_copy_has_no_changes(repo: Repo) -> None:
    repo.write("a", b"1")
    repo.tag("1")
    assert open_repository("svn", repo.trunk).changes() == []


def test_a_dirty_working_copy_is_told_and_not_exported(repo: Repo, tmp_path: Path) -> None:
    for name in ("edited", "removed", "property", "missing"):
        repo.write(name, b"1")
    repo.tag("1")
    (repo.trunk / "edited").write_bytes(b"dirty")
    repo.run("svn", "rm", "-q", str(repo.trunk / "removed@"))
    (repo.trunk / "missing").unlink()
    repo.set("property", "svn:executable", "*")
    repo.write("added", b"")
    (repo.trunk / "new\x1b").write_bytes(b"")
    assert sorted(open_repository("svn", repo.trunk).changes()) == [
        "trunk/added: added, not committed",
        "trunk/edited: modified, not committed",
        "trunk/missing: missing, not committed",
        "trunk/new?: unversioned, not committed",
        "trunk/property: properties modified, not committed",
        "trunk/removed: deleted, not committed",
    ]
    open_repository("svn", repo.trunk).export("tags/1", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == {"edited", "removed", "property", "missing"}
    assert (tmp_path / "out" / "edited").read_bytes() == b"1"
