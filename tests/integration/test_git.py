"""What is exported from a real git repository is what its tag holds, byte for byte."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer.manifest import parse_manifest
from installer.tree import scan
from packager import show
from packager.errors import PackagerError, ProjectError, SigningError, ToolError
from packager.project import load_project
from packager.release import Release, assemble, examine
from packager.vcs import git as module
from packager.vcs import open_repository
from packager.vcs.signed_tag import SignedTagError, tagger_of
from tests.keys import Keyring

pytestmark = pytest.mark.integration

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


class Repo:
    """A git repository that a test fills."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"", **environment: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=Dev", "-c", "user.email=dev@example.org", *arguments],
            cwd=self.top,
            input=stdin,
            check=True,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.top.parent),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_COMMITTER_DATE": "1700000000 +0900",
                **environment,
            },
        )
        return done.stdout.decode().strip()

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    def release(self, tag: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", tag)
        self.git("tag", tag)
        return self.git("rev-parse", "HEAD")

    def release_objects(self, tag: str, *lines: str, content: bytes = b"x") -> None:
        """Tag a tree made of objects, which `git add` would not make like this."""
        blob = self.git("hash-object", "-w", "--stdin", stdin=content)
        listing = "".join(lines).replace("BLOB", blob).encode("utf-8", "surrogateescape")
        tree = self.git("mktree", "--missing", "-z", stdin=listing)
        self.git("tag", tag, self.git("commit-tree", tree, "-m", tag))


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


@pytest.fixture
def _tight_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    yield
    os.umask(previous)


def test_the_tree_of_a_tag_is_exported_with_modes_and_links(repo: Repo, tmp_path: Path) -> None:
    repo.write("app/main.py", b"print()\n", 0o640)
    repo.write("app/run", b"#!/bin/sh\n", 0o700)
    repo.write("app/empty", b"")
    repo.write("übung/a b.bin", bytes(range(256)))
    (repo.top / "link").symlink_to("./app//run")
    commit = repo.release("v1.0")
    expected = {path: entry.digest for path, entry in scan(repo.top).items() if ".git/" not in path}

    source = open_repository("git", repo.top).export("v1.0", tmp_path / "out")

    tree = scan(tmp_path / "out")
    assert {path: entry.digest for path, entry in tree.items()} == expected
    assert {path: entry.mode for path, entry in tree.items()} == {
        "app/main.py": "100644",
        "app/run": "100755",
        "app/empty": "100644",
        "übung/a b.bin": "100644",
        "link": "120000",
    }
    assert (source.vcs, source.tag, source.revision) == ("git", "v1.0", commit)
    assert source.committed == 1700000000


@pytest.mark.usefixtures("_tight_umask")
def test_a_tight_umask_does_not_reach_an_export(repo: Repo, tmp_path: Path) -> None:
    repo.write("a/b/run", b"x", 0o755)
    repo.write("a/c", b"x")
    repo.release("v1")
    open_repository("git", repo.top).export("v1", tmp_path / "deep" / "out")
    modes = {
        str(p.relative_to(tmp_path)): p.stat().st_mode & 0o7777
        for p in (tmp_path / "deep").rglob("*")
    }
    assert modes == {
        "deep/out": 0o755,
        "deep/out/a": 0o755,
        "deep/out/a/b": 0o755,
        "deep/out/a/b/run": 0o755,
        "deep/out/a/c": 0o644,
    }


def test_attributes_neither_convert_nor_leave_out_anything(repo: Repo, tmp_path: Path) -> None:
    files = {
        "crlf.txt": b"1\r\n2\n",
        "lf.txt": b"1\n2\n",
        "ident.c": b"$Id$\n",
        "subst": b"$Format:%H$\n",
        "secret": b"left out by git archive\n",
        "utf16": b"1\n",
    }
    for path, content in files.items():
        repo.write(path, content)
    repo.release("v0")
    attributes = (
        b"*.txt text eol=crlf\n*.c ident\nsubst export-subst\nsecret export-ignore\n"
        b"utf16 working-tree-encoding=UTF-16\nlf.txt filter=shout\n"
    )
    blob = repo.git("hash-object", "-w", "--stdin", stdin=attributes)
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},.gitattributes")
    repo.git("config", "filter.shout.smudge", "tr a-z A-Z")
    repo.git("commit", "--quiet", "--message", "attributes")
    repo.git("tag", "v1")
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    exported = {path: (tmp_path / "out" / path).read_bytes() for path in files}
    assert exported == files
    assert (tmp_path / "out" / ".gitattributes").read_bytes() == attributes


def test_an_annotated_tag_is_exported_as_the_commit_it_names(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    commit = repo.release("light")
    repo.git(
        "tag", "--annotate", "--message", "1.0", "heavy", GIT_COMMITTER_DATE="1800000000 +0000"
    )
    source = open_repository("git", repo.top).export("heavy", tmp_path / "out")
    assert (source.revision, source.committed) == (commit, 1700000000)


def test_from_a_subfolder_the_whole_repository_is_exported(repo: Repo, tmp_path: Path) -> None:
    repo.write("deploy/release.toml", b"")
    repo.write("app/a", b"1")
    repo.release("v1")
    open_repository("git", repo.top / "deploy").export("v1", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == {"app/a", "deploy/release.toml"}


def test_content_is_read_in_parts(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_SIZE", 10)
    contents = {str(number): b"x\n" * number for number in range(12)}
    for path, content in contents.items():
        repo.write(path, content)
    repo.release("v1")
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in contents} == contents


def test_a_missing_tag_is_named_with_the_nearest(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    for tag in ("v1.4.0", "release/9", "w"):
        repo.release(tag)
    with pytest.raises(ProjectError, match=r"'v1\.4'; the nearest is 'v1\.4\.0'"):
        open_repository("git", repo.top).export("v1.4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "tag", ["main", "HEAD", "v1~0", "v1^{}", "refs/tags/v1", "--help", "v1\n", ""]
)
def test_only_the_very_name_of_a_tag_is_a_tag(tag: str, repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"1")
    repo.release("v1")
    with pytest.raises(ProjectError, match="has no git tag"):
        open_repository("git", repo.top).export(tag, tmp_path / "out")


def test_a_branch_of_the_same_name_is_not_taken_for_the_tag(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"tagged")
    repo.release("v1")
    repo.git("checkout", "--quiet", "-b", "v1")
    repo.write("a", b"branch")
    repo.release("other")
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"tagged"


def test_a_repository_without_tags_says_so(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="'v1'; there is none"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_a_tag_that_names_no_commit_is_refused(repo: Repo, tmp_path: Path) -> None:
    repo.git("tag", "blob", repo.git("hash-object", "-w", "--stdin", stdin=b"x"))
    with pytest.raises(ProjectError, match="does not name a commit"):
        open_repository("git", repo.top).export("blob", tmp_path / "out")


def test_a_folder_outside_any_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="is not in a git repository"):
        open_repository("git", tmp_path).export("v1", tmp_path / "out")
    with pytest.raises(ProjectError, match="is not in a git repository"):
        open_repository("git", tmp_path).changes()


def test_a_damaged_repository_is_told_in_git_s_words(repo: Repo, tmp_path: Path) -> None:
    (repo.top / ".git/config").write_text("[core\n")
    with pytest.raises(ToolError) as failed:
        open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert "bad config line 1" in failed.value.detail


def test_a_submodule_is_refused_by_name(repo: Repo, tmp_path: Path) -> None:
    repo.release_objects("v1", "160000 commit " + "1" * 40 + "\tlib\0", "100644 blob BLOB\ta\0")
    with pytest.raises(ProjectError, match="lib is a git submodule"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_an_lfs_pointer_is_refused_by_name(repo: Repo, tmp_path: Path) -> None:
    repo.write("img/logo.png", POINTER)
    repo.release("v1")
    with pytest.raises(ProjectError, match=r"logo\.png is a Git LFS pointer"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_a_text_about_lfs_pointers_is_no_pointer(repo: Repo, tmp_path: Path) -> None:
    repo.write("long", POINTER + b"x" * 1000)
    repo.write("other", b"version https://git-lfs.github.com/spec/v1\nis how they begin\n")
    repo.release("v1")
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert (tmp_path / "out" / "long").read_bytes().startswith(POINTER)


@pytest.mark.parametrize(
    "name,words",
    [
        ("a\nb", "plain relative path"),
        ("a\x1b[31m", "plain relative path"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_name_that_no_release_may_carry_is_refused(
    name: str, words: str, repo: Repo, tmp_path: Path
) -> None:
    repo.release_objects("v1", f"100644 blob BLOB\t{name}\0")
    with pytest.raises(ProjectError, match=words):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 5000])
def test_a_link_that_cannot_be_made_is_refused(target: bytes, repo: Repo, tmp_path: Path) -> None:
    repo.release_objects("v1", "120000 blob BLOB\tlink\0", content=target)
    with pytest.raises(ProjectError, match="link: not a symbolic link"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_nothing_is_written_through_a_link_of_the_tree(repo: Repo, tmp_path: Path) -> None:
    """Git itself makes no such tree; who forges one reaches nothing outside the export."""
    (tmp_path / "victim").mkdir()
    link = repo.git("hash-object", "-w", "--stdin", stdin=str(tmp_path / "victim").encode())
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"evil")
    folder = repo.git("mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    tree = repo.git("mktree", stdin=f"120000 blob {link}\td\n040000 tree {folder}\td\n".encode())
    repo.git("tag", "v1", repo.git("commit-tree", tree, "-m", "v1"))
    with pytest.raises(ProjectError):
        open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_file_that_a_tree_has_twice_is_refused(repo: Repo, tmp_path: Path) -> None:
    repo.release_objects("v1", "100644 blob BLOB\ta\0", "100755 blob BLOB\ta\0")
    with pytest.raises(ProjectError, match="twice"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_content_that_is_missing_is_named(repo: Repo, tmp_path: Path) -> None:
    repo.write("gone", b"content")
    repo.release("v1")
    name = repo.git("rev-parse", "v1:gone")
    (repo.top / ".git/objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(ToolError, match="does not have the content of gone"):
        open_repository("git", repo.top).export("v1", tmp_path / "out")


def test_a_replaced_object_has_no_effect(repo: Repo, tmp_path: Path) -> None:
    repo.write("a", b"honest")
    commit = repo.release("v1")
    repo.write("a", b"replaced")
    repo.git("replace", commit, repo.release("v2"))
    source = open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"honest"
    assert source.revision == commit


def test_a_repository_of_another_user_can_be_built_from(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a", b"1")
    repo.release("v1")
    monkeypatch.setitem(module._ENVIRONMENT, "GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == {"a"}


def test_nobody_s_configuration_changes_an_export(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.write("a/é", b"1\n")
    commit = repo.release("v1")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\nautocrlf = true\n[log]\nshowSignature = true\nbroken\n["
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(home))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(home))
    source = open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert (source.revision, set(scan(tmp_path / "out"))) == (commit, {"a/é"})


def test_a_clean_working_copy_has_no_changes(repo: Repo) -> None:
    repo.write("a", b"1")
    repo.write(".gitignore", b"*.o\n")
    repo.release("v1")
    repo.write("ignored.o", b"")
    assert open_repository("git", repo.top).changes() == []


def test_a_dirty_working_copy_is_told_and_not_exported(repo: Repo, tmp_path: Path) -> None:
    for name in ("edited", "removed", "renamed", "mode", "staged"):
        repo.write(name, name.encode() * 50)
    repo.release("v1")
    tagged = {path for path in scan(repo.top) if ".git/" not in path}
    repo.write("edited", b"dirty")
    repo.write("staged", b"dirty")
    repo.git("add", "staged")
    repo.git("mv", "renamed", "new name")
    (repo.top / "removed").unlink()
    (repo.top / "mode").chmod(0o755)
    repo.write("sub/untracked\x1b", b"")
    assert open_repository("git", repo.top).changes() == [
        "edited: modified, not committed",
        "mode: modified, not committed",
        "new name: added, not committed",
        "removed: deleted, not committed",
        "renamed: deleted, not committed",
        "staged: modified, not committed",
        "sub/: not in version control",
    ]
    open_repository("git", repo.top).export("v1", tmp_path / "out")
    assert set(scan(tmp_path / "out")) == tagged
    assert (tmp_path / "out" / "edited").read_bytes() == b"edited" * 50


def test_a_name_cannot_steer_the_terminal_that_shows_changes(repo: Repo) -> None:
    repo.write("a\x1b[31m\n", b"")
    assert open_repository("git", repo.top).changes() == ["a\\x1b[31m\\x0a: not in version control"]


def test_looking_for_changes_runs_nothing_that_the_repository_configures(
    repo: Repo, tmp_path: Path
) -> None:
    repo.write("a", b"1")
    repo.release("v1")
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    repo.git("config", "core.fsmonitor", str(trap))
    index = (repo.top / ".git/index").read_bytes()
    repo.write("a", b"2")
    assert open_repository("git", repo.top).changes() == ["a: modified, not committed"]
    assert not (tmp_path / "sprung").exists()
    assert (repo.top / ".git/index").read_bytes() == index


def test_an_unknown_kind_of_repository_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="'gti' is not known; the nearest is 'git'"):
        open_repository("gti", tmp_path)


# Signed tags

RELEASE = """\
[release]
name = "crm"
version = "1.0.0"
sequence = 1
summary = "First"

[database]
vcs = "git"
to = "v1"
signed_tag = true
name = "crm"
scripts = ["sql/*.sql"]
"""
ADA = "Ada Developer <ada@example.org>"


@pytest.fixture(scope="module")
def keyring() -> Iterator[Keyring]:
    with Keyring.create() as made:
        yield made


@pytest.fixture
def keys(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    monkeypatch.setenv("GNUPGHOME", str(keyring.home))
    return keyring


@pytest.fixture(scope="module")
def ada(keyring: Keyring) -> str:
    return keyring.new_key(ADA)


@pytest.fixture
def commit(repo: Repo) -> str:
    """A commit that is released, and is not tagged yet."""
    repo.write("sql/1.sql", b"SELECT 1;\n")
    repo.write("release.toml", RELEASE.encode())
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--message", "first")
    return repo.git("rev-parse", "HEAD")


def sign_tag(repo: Repo, keys: Keyring, key: str, name: str = "v1", *options: str) -> None:
    arguments = ("tag", "--local-user", key, "--message", f"Release {name}", *options, name)
    repo.git(*arguments, GNUPGHOME=str(keys.home))


def tag_object(repo: Repo, content: bytes, name: str = "v1") -> None:
    """Make a tag of an object that git itself would not write."""
    made = repo.git("hash-object", "-t", "tag", "-w", "--stdin", "--literally", stdin=content)
    repo.git("update-ref", f"refs/tags/{name}", made)


def tag_content(commit: str, *, kind: str = "commit", name: str = "v1") -> bytes:
    tagger = "tagger Dev <dev@example.org> 1700000000 +0900"
    return f"object {commit}\ntype {kind}\ntag {name}\n{tagger}\n\nRelease\n".encode()


def tagger(repo: Repo, commit: str, tag: str = "v1") -> str:
    return tagger_of(repo.top, tag, commit, int(time.time())).fingerprint


def assembled(repo: Repo) -> Release:
    return assemble(load_project(repo.top / "release.toml"))


def refused_tag(repo: Repo, commit: str, tag: str = "v1") -> str:
    with pytest.raises(SignedTagError) as caught:
        tagger(repo, commit, tag)
    assert caught.value.exit_code == SigningError.exit_code == 53
    assert "`git tag -s TAG COMMIT`" in caught.value.hint
    return f"{caught.value}\n{caught.value.detail}"


def test_the_manifest_names_who_signed_the_tag(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    sign_tag(repo, keys, ada)

    release = assembled(repo)

    source = parse_manifest(release.raw).source
    assert (source.tag, source.revision, source.tagger) == ("v1", commit, ada)
    shown = [line for section in show.show_plan(release) for line in section.lines]
    assert f"signed tag by {ada}" in shown


def test_a_tag_with_a_folder_in_its_name_can_be_signed(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    sign_tag(repo, keys, ada, "crm/größe-1")

    assert tagger(repo, commit, "crm/größe-1") == ada


@pytest.mark.usefixtures("commit")
def test_where_no_signed_tag_is_demanded_nobody_is_named(
    repo: Repo, keys: Keyring, ada: str
) -> None:
    (repo.top / "release.toml").write_text(RELEASE.replace("signed_tag = true\n", ""))
    sign_tag(repo, keys, ada)
    signed = assembled(repo)
    repo.git("tag", "--delete", "v1")
    repo.git("tag", "v1")

    assert signed.manifest.source.tagger is None
    assert assembled(repo).raw == signed.raw


@pytest.mark.usefixtures("commit")
def test_only_the_released_tag_has_to_be_signed(repo: Repo, keys: Keyring, ada: str) -> None:
    repo.release("v0")
    application = '[application]\nvcs = "git"\nto = "v1"\nsigned_tag = true\nroot = "/opt/crm"\n'
    database = RELEASE.replace('vcs = "git"\nto = "v1"\nsigned_tag = true\n', "")
    text = database.replace("[database]", f'{application}from = ["v0"]\n\n[database]')
    (repo.top / "release.toml").write_text(text)
    repo.write("more", b"1")
    repo.git("add", "more")
    repo.git("commit", "--quiet", "--message", "second")
    sign_tag(repo, keys, ada)

    assert assembled(repo).manifest.source.tagger == ada


def test_a_lightweight_tag_is_refused(repo: Repo, commit: str) -> None:
    repo.git("tag", "v1")

    assert "the git tag 'v1' is a lightweight one" in refused_tag(repo, commit)


def test_an_annotated_tag_that_nobody_signed_is_refused(repo: Repo, commit: str) -> None:
    repo.git("tag", "--annotate", "--message", "Release", "v1")

    assert "the git tag 'v1' has no OpenPGP signature" in refused_tag(repo, commit)


def test_check_says_that_the_tag_is_not_signed_and_by_whom_it_is(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    project = load_project(repo.top / "release.toml")
    repo.git("tag", "v1")
    (error,) = (found for found in examine(project) if isinstance(found, PackagerError))
    assert isinstance(error, SignedTagError)

    sign_tag(repo, keys, ada, "v1", "--force")

    assert f"tag v1: {commit}, signed by {ada}" in examine(project)


def test_a_tag_that_was_changed_after_it_was_signed_is_refused(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    sign_tag(repo, keys, ada, "v1")
    content = repo.git("cat-file", "tag", "v1") + "\n"
    tag_object(repo, content.replace("Release v1", "Release v2").encode())

    assert "the signature does not match" in refused_tag(repo, commit)


@pytest.mark.usefixtures("keys")
def test_a_tag_by_a_key_that_gpg_does_not_know_is_refused(repo: Repo, commit: str) -> None:
    with Keyring.create() as elsewhere:
        eve = elsewhere.new_key("Eve Stranger <eve@example.org>")
        sign_tag(repo, elsewhere, eve)

    told = refused_tag(repo, commit)

    assert f"the git tag 'v1' was made with {eve}, which is not in gpg's keyring" in told
    assert "gpg --import" in told


def test_a_tag_by_a_revoked_key_is_refused(repo: Repo, keys: Keyring, commit: str) -> None:
    revoked = keys.new_key("Bob Developer <bob@example.org>")
    sign_tag(repo, keys, revoked)
    keys.revoke(revoked)

    assert "the key that made the signature is revoked" in refused_tag(repo, commit)


def test_a_signed_tag_under_another_name_is_refused(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    sign_tag(repo, keys, ada, "v0")
    repo.git("update-ref", "refs/tags/v1", repo.git("rev-parse", "refs/tags/v0"))

    assert "what was signed as the git tag 'v1' says 'tag v0', not 'tag v1'" in refused_tag(
        repo, commit
    )


def test_a_signed_tag_of_another_commit_is_refused(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    sign_tag(repo, keys, ada)
    other = repo.release("v2")

    assert f"says 'object {commit}', not 'object {other}'" in refused_tag(repo, other)


def test_a_tag_of_a_signed_tag_is_refused(repo: Repo, keys: Keyring, ada: str, commit: str) -> None:
    sign_tag(repo, keys, ada, "v0")
    inner = repo.git("rev-parse", "refs/tags/v0")
    content = tag_content(inner, kind="tag")
    tag_object(repo, content + keys.sign(content, ada))

    assert f"says 'object {inner}', not 'object {commit}'" in refused_tag(repo, commit)


def test_a_tag_object_without_the_lines_that_say_what_it_is_of_is_refused(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    content = f"object {commit}\n\ntype commit\ntag v1\n".encode()
    made = repo.git(
        *("hash-object", "-t", "tag", "-w", "--stdin", "--literally"),
        stdin=content + keys.sign(content, ada),
    )
    (repo.top / ".git/refs/tags/v1").write_text(f"{made}\n")  # git itself makes no ref to it

    assert "says '', not 'type commit'" in refused_tag(repo, commit)


def test_a_signature_that_the_message_quotes_is_not_the_tags(
    repo: Repo, keys: Keyring, ada: str, commit: str
) -> None:
    good = tag_content(commit, name="v0")
    quoted = tag_content(commit) + keys.sign(good, ada)
    tag_object(repo, quoted + keys.sign(quoted, ada))
    assert tagger(repo, commit) == ada

    tag_object(repo, good + keys.sign(good, ada) + b"and more\n")
    assert "says 'tag v0', not 'tag v1'" in refused_tag(repo, commit)

    content = tag_content(commit)
    tag_object(repo, content + keys.sign(content, ada) + b"and more\n")
    assert "not one armoured detached signature" in refused_tag(repo, commit)


@pytest.mark.usefixtures("keys")
def test_a_tag_that_only_git_was_made_to_believe_in_is_refused(
    repo: Repo, commit: str, tmp_path: Path
) -> None:
    liar = tmp_path / "gpg"
    liar.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\necho '[GNUPG:] GOODSIG x y'\n")
    liar.chmod(0o755)
    repo.git("config", "gpg.program", str(liar))
    armour = b"-----BEGIN PGP SIGNATURE-----\n\naGVsbG8=\n-----END PGP SIGNATURE-----\n"
    tag_object(repo, tag_content(commit) + armour)

    assert "hosts would refuse it" in refused_tag(repo, commit)
    assert not (tmp_path / "was-run").exists()


def test_a_tag_signed_with_an_ssh_key_is_refused(repo: Repo, commit: str) -> None:
    armour = b"-----BEGIN SSH SIGNATURE-----\naGVsbG8=\n-----END SSH SIGNATURE-----\n"
    tag_object(repo, tag_content(commit) + armour)

    assert "has no OpenPGP signature" in refused_tag(repo, commit)
