"""The judgement of `tests.durability`, which finds orders that are wrong."""

import pytest

from tests.durability import (
    MAKE,
    REMOVE,
    RENAME,
    SEND,
    SYNC,
    WRITE,
    Event,
    Rule,
    parse,
    unsafe,
)

COMMIT = Event(SEND, "Q\0\0\0\x0bCOMMIT\0")
RULE = Rule("COMMIT", lambda event: event == COMMIT, lambda path: path.startswith("/d/"))
NEW, NAMED = Event(MAKE, "/d/.a.new"), Event(RENAME, "/d/a", "/d/.a.new")
WRITTEN, SYNCED, FOLDER = Event(WRITE, "/d/.a.new"), Event(SYNC, "/d/.a.new"), Event(SYNC, "/d")
TOO_EARLY = "renamed to /d/a: the content of /d/.a.new"
TREE = (Event(MAKE, "/d/.t"), Event(MAKE, "/d/.t/b"), Event(MAKE, "/d/.t/b/c"))
IN_TREE = Event(WRITE, "/d/.t/b/c")
TREE_NAMED = Event(RENAME, "/d/t", "/d/.t")
TREE_SYNCED = tuple(Event(SYNC, f"/d/.t{path}") for path in ("/b/c", "/b", ""))


def judged(*events: Event) -> list[str]:
    return unsafe(events, [RULE], ["/d"])


def test_content_then_its_name_then_the_folder_is_safe() -> None:
    assert judged(NEW, WRITTEN, SYNCED, NAMED, FOLDER, COMMIT) == []


@pytest.mark.parametrize(
    "events, found",
    [
        ((NEW, WRITTEN, NAMED, FOLDER), [TOO_EARLY, "COMMIT: the content of /d/a"]),
        ((NEW, SYNCED, WRITTEN, NAMED, FOLDER), [TOO_EARLY, "COMMIT: the content of /d/a"]),
        ((NEW, WRITTEN, NAMED, Event(SYNC, "/d/a"), FOLDER), [TOO_EARLY]),
        ((NEW, WRITTEN, SYNCED, NAMED), ["COMMIT: the name of /d/a"]),
        ((NEW, WRITTEN, SYNCED, FOLDER, NAMED), ["COMMIT: the name of /d/a"]),
        (
            (NEW, WRITTEN, SYNCED, NAMED, FOLDER, Event(WRITE, "/d/a")),
            ["COMMIT: the content of /d/a"],
        ),
    ],
    ids=["not", "before", "late", "folder not", "folder before", "written again"],
)
def test_a_file_that_could_be_lost_is_found(events: tuple[Event, ...], found: list[str]) -> None:
    assert judged(*events, COMMIT) == found


def test_what_is_on_the_disk_only_after_the_step_is_found() -> None:
    assert judged(NEW, WRITTEN, SYNCED, NAMED, COMMIT, FOLDER) == ["COMMIT: the name of /d/a"]


def test_a_tree_is_safe_with_all_files_and_folders_synced() -> None:
    assert judged(*TREE, IN_TREE, *TREE_SYNCED, TREE_NAMED, FOLDER, COMMIT) == []


@pytest.mark.parametrize(
    "left_out, found",
    [
        (0, ["renamed to /d/t: the content of /d/.t/b/c", "COMMIT: the content of /d/t/b/c"]),
        (1, ["COMMIT: the name of /d/t/b/c"]),
        (2, ["COMMIT: the name of /d/t/b"]),
    ],
)
def test_a_part_of_a_tree_that_is_not_synced_is_found(left_out: int, found: list[str]) -> None:
    synced = [event for index, event in enumerate(TREE_SYNCED) if index != left_out]

    assert judged(*TREE, IN_TREE, *synced, TREE_NAMED, FOLDER, COMMIT) == found


def test_a_file_that_was_removed_or_replaced_is_missed_by_nobody() -> None:
    assert judged(NEW, WRITTEN, Event(REMOVE, "/d/.a.new"), COMMIT) == []
    over = (Event(MAKE, "/d/a"), Event(WRITE, "/d/a"))
    assert judged(*over, NEW, WRITTEN, SYNCED, NAMED, FOLDER, COMMIT) == []


def test_a_step_that_never_happened_is_told() -> None:
    assert judged(NEW) == ["COMMIT: it never happened"]


def test_a_trace_is_read() -> None:
    trace = r"""
7 openat(AT_FDCWD</>, "na\303\257ve", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</d/na\303\257ve>
7 write(3</d/na\303\257ve>, "a \"<b>\", 4</d/other>"..., 123) = 123
7 fsync(3</d/na\303\257ve>)  = 0
7 openat(AT_FDCWD</>, "/d", O_RDWR|O_EXCL|O_CLOEXEC|O_TMPFILE, 0600) = 4</d/#1>(deleted)
7 write(4</d/#1>(deleted), "x", 1) = 1
7 sendfile(3</d/a>, 4</d/b>, [0] => [4], 8388608) = 4
7 copy_file_range(4</d/b>, NULL, 3</d/c>, NULL, 9, 0) = 9
7 write(1<pipe:[11602125]>, "x", 1) = 1
8 chdir("/e")                     = 0
8 mkdir("new", 0777)              = 0
8 unlink("old")                   = 0
7 rename("/d/a", "/d/b")          = 0
7 renameat(5</d/one>, "a", 6</d/two>, "b") = 0
7 symlinkat("../x", 6</d/two>, "link") = 0
7 symlink("releases/1.1", "/d/current") = 0
7 fchmod(3</d/a>, 0644)           = 0
7 chmod("/d/a", 0644)             = 0
7 sendto(7<socket:[1]>, "Q\0\0\0\vCOMMIT\0", 12, MSG_NOSIGNAL, NULL, 0) = 12
7 openat(AT_FDCWD</>, "/d/read", O_RDONLY|O_CLOEXEC) = 3</d/read>
7 +++ exited with 0 +++
"""
    assert list(parse(trace)) == [
        Event(MAKE, "/d/naïve"),
        Event(WRITE, "/d/naïve"),
        Event(WRITE, "/d/naïve"),
        Event(SYNC, "/d/naïve"),
        Event(WRITE, "/d/a"),
        Event(WRITE, "/d/c"),
        Event(MAKE, "/e/new"),
        Event(REMOVE, "/e/old"),
        Event(RENAME, "/d/b", "/d/a"),
        Event(RENAME, "/d/two/b", "/d/one/a"),
        Event(MAKE, "/d/two/link"),
        Event(MAKE, "/d/current"),
        Event(WRITE, "/d/a"),
        Event(WRITE, "/d/a"),
        COMMIT,
    ]
