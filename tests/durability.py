"""What of a host's files a loss of power could take, judged by the system calls that were made.

A file's content and mode are on the disk once the file is synced, and its name once the folder that
has the name is: no more is promised (POSIX, fsync). Nothing here is about one file system's habits.
A removal that is lost only brings a file back, so that none is looked for.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

WRITE, MAKE, SYNC, RENAME, REMOVE, SEND = "write", "make", "sync", "rename", "remove", "send"
OPEN = frozenset({"open", "openat", "creat"})
BY_FILE = {  # their first argument is an open file, or the second such one is meant
    **dict.fromkeys(("fsync", "fdatasync"), SYNC),
    **dict.fromkeys(("write", "writev", "pwrite64", "pwritev", "ftruncate"), WRITE),
    **dict.fromkeys(("sendfile", "copy_file_range", "fchmod", "fchown"), WRITE),
}
BY_PATH = {  # it is their last argument that is a path
    **dict.fromkeys(("link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat"), MAKE),
    **dict.fromkeys(("rename", "renameat", "renameat2"), RENAME),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), REMOVE),
    **dict.fromkeys(("truncate", "chmod", "fchmodat", "chown", "lchown", "fchownat"), WRITE),
    "chdir": "",
}
CALLS = (*OPEN, *BY_FILE, *BY_PATH, "sendto")
STRACE = ("strace", "-f", "-y", "-z", "-qq", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}")
"""The command, before `-o FILE` and what is traced; `parse` reads what it writes."""

_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)\) += \w+(?P<result><.*)?")
_TOKEN = re.compile(
    r'"(?P<text>(?:[^"\\]|\\.)*)"|(?P<at>AT_FDCWD|\b\d+)<(?P<file>[^>]*)>(?P<gone>\(deleted\))?'
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to `path`, which had the name `old`; or sent, as `path`."""

    what: str
    path: str
    old: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to be on the disk before something is done."""

    name: str
    before: Callable[[Event], bool]
    paths: Callable[[str], bool]


@dataclass(slots=True)
class Memory:
    """What is not on the disk yet: content and modes by their file, and names."""

    content: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def take(self, event: Event) -> None:
        """What is so after an event."""
        if event.what == WRITE:
            self.content.add(event.path)
        elif event.what == MAKE:
            self.names.add(event.path)
        elif event.what == SYNC:
            self.content.discard(event.path)
            self.names = {name for name in self.names if folder_of(name) != event.path}
        elif event.what == REMOVE:
            self._forget(event.path)
        elif event.what == RENAME:
            self._forget(event.path)
            self.content = {renamed(path, event) for path in self.content}
            self.names = {renamed(path, event) for path in self.names} | {event.path}

    def lacks(self, paths: Callable[[str], bool]) -> list[str]:
        """What of these paths is not on the disk."""
        content = [f"the content of {path}" for path in self.content if paths(path)]
        return sorted(content + [f"the name of {path}" for path in self.names if paths(path)])

    def _forget(self, path: str) -> None:
        self.content = {other for other in self.content if not is_below(other, path)}
        self.names = {other for other in self.names if not is_below(other, path)}


def unsafe(events: Iterable[Event], rules: Sequence[Rule], watched: Sequence[str]) -> list[str]:
    """What is done before something else is on the disk; and each rule that nothing came under.

    Below `watched`, nothing gets a name by rename before its content is on the disk.
    """
    memory, found, unused = Memory(), list[str](), {rule.name for rule in rules}
    for event in events:
        for rule in rules:
            if rule.before(event):
                unused.discard(rule.name)
                found += [f"{rule.name}: {what}" for what in memory.lacks(rule.paths)]
        if event.what == RENAME and any(is_below(event.path, root) for root in watched):
            unwritten = [path for path in sorted(memory.content) if is_below(path, event.old)]
            found += [f"renamed to {event.path}: the content of {path}" for path in unwritten]
        memory.take(event)
    return found + [f"{name}: it never happened" for name in sorted(unused)]


def is_below(path: str, folder: str) -> bool:
    """Whether it is the folder, or in it."""
    return f"{path}/".startswith(f"{folder}/")


def folder_of(path: str) -> str:
    return str(PurePath(path).parent)


def renamed(path: str, event: Event) -> str:
    """A path after a rename of it, or of a folder that it is in."""
    return event.path + path.removeprefix(event.old) if is_below(path, event.old) else path


def parse(trace: str) -> Iterator[Event]:
    """The events in what `STRACE` has written. Files that have no name are left out."""
    folders = dict[str, str]()
    for line in trace.splitlines():
        found = _LINE.fullmatch(line)
        if found:
            pid, call = found["pid"], found["call"]
            tokens = list(_TOKEN.finditer(found["arguments"]))
            for token in tokens:
                if token["at"] == "AT_FDCWD":
                    folders[pid] = _plain(token["file"])
            paths = list(_paths(tokens, folders.get(pid, "/")))
            if call == "chdir":
                folders[pid] = paths[-1]
            elif call == "sendto":
                yield Event(SEND, _plain(tokens[-1]["text"] or ""))
            elif call in OPEN:
                yield from _opened(found["arguments"], found["result"] or "")
            elif call in BY_PATH:
                what = BY_PATH[call]
                yield Event(what, paths[-1], paths[0] if what == RENAME else "")
            else:
                files = [token for token in tokens if token["at"]]
                file = files[call == "copy_file_range"]
                if file["file"].startswith("/") and not file["gone"]:
                    yield Event(BY_FILE[call], _plain(file["file"]))


def _opened(arguments: str, result: str) -> Iterator[Event]:
    """A file that was made, or emptied."""
    file = result[1:].partition(">")
    if "O_CREAT" in arguments and file[0].startswith("/"):
        yield Event(MAKE, _plain(file[0]))
    if "O_TRUNC" in arguments and file[0].startswith("/"):
        yield Event(WRITE, _plain(file[0]))


def _paths(tokens: Iterable[re.Match[str]], folder: str) -> Iterator[str]:
    """Paths among the arguments: relative ones are in the open folder that comes before them."""
    start = folder
    for token in tokens:
        if token["at"]:
            start = _plain(token["file"])
        else:
            yield str(PurePath(start, _plain(token["text"])))
            start = folder


def _plain(text: str) -> str:
    """A text without strace's escapes."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
