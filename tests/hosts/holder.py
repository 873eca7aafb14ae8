"""Process 1 of a test host: mounts the host's tree, then waits for the end of its input.

Started by `Host.start` as `unshare … python3 -I -S holder.py NAME EMPTY…`. It prints its process
id, as the machine sees it, once the host is ready. Everything that the host owns hangs on this
process: mounts live in its mount namespace, the network in its network namespace, and the kernel
kills every process of its pid namespace with it. Its input ends when the test process ends, also
by SIGKILL, so nothing has to be cleaned up by anyone.

Only the standard library, and nothing of this package: it runs isolated, before there is a host.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
LIBC = ctypes.CDLL(None, use_errno=True)

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

# A directory of every Debian machine; the mount over it is seen in this namespace only.
SCRATCH = Path("/mnt")
MERGED = SCRATCH / "merged"


def main(name: str, empty: list[str]) -> None:
    """Make the host `name` whose directories `empty` have no content, and hold it."""
    # Read before the host's own /proc exists, where this process is number 1.
    pid = Path("/proc/self").readlink()
    make_private()
    mount("tmpfs", SCRATCH, "tmpfs", MS_NODEV, "mode=755")
    mount_tree([Path(directory) for directory in empty])
    mount_devices()
    mount("proc", MERGED / "proc", "proc", MS_NOSUID | MS_NODEV)
    for directory, mode in (("run", "755"), ("tmp", "1777"), ("var/tmp", "1777")):
        mount("tmpfs", MERGED / directory, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    (MERGED / "run/lock").mkdir()
    (MERGED / "run/lock").chmod(0o1777)
    raise_loopback()
    socket.sethostname(name)
    os.chroot(MERGED)
    os.chdir("/")
    # Orphans of the host become children of this process: the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


def make_private() -> None:
    """Keep what is mounted here from appearing on the machine.

    Where the machine is itself a chroot, its `/` need not be a mount, and what it lies on is out of
    reach. Entering the namespace anew leads to the namespace's own root, and then back.
    """
    root, namespace = os.open("/", os.O_PATH), os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if LIBC.setns(namespace, CLONE_NEWNS):
        raise_errno("setns", "/proc/self/ns/mnt")
    mount("", Path("/"), "", MS_REC | MS_PRIVATE)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    os.close(namespace)


def mount_tree(empty: list[Path]) -> None:
    """Overlay the machine's `/` with a writable layer in which each of `empty` has no content."""
    upper, work = SCRATCH / "upper", SCRATCH / "work"
    for directory in (upper, work, MERGED):
        directory.mkdir()
    copy_attributes(Path("/"), upper)
    for directory in empty:
        make_opaque(upper, directory)
    mount("overlay", MERGED, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")


def make_opaque(upper: Path, directory: Path) -> None:
    """Put into the layer `upper` an empty `directory` that hides what the machine has there."""
    for path in (*reversed(directory.parents), directory):
        made = upper / path.relative_to("/")
        if not made.exists():
            made.mkdir()
            if path.is_dir():
                copy_attributes(path, made)
    os.setxattr(upper / directory.relative_to("/"), "trusted.overlay.opaque", b"y")


def copy_attributes(source: Path, target: Path) -> None:
    """Give `target` the owner and the permissions of `source`."""
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(status.st_mode & 0o7777)


def mount_devices() -> None:
    """Make a minimal /dev: the harmless devices of the machine, terminals of its own."""
    devices = MERGED / "dev"
    mount("tmpfs", devices, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        (devices / name).touch()
        mount(f"/dev/{name}", devices / name, "", MS_BIND)
    for name, target in DEVICE_LINKS.items():
        (devices / name).symlink_to(target)
    for name in ("pts", "shm"):
        (devices / name).mkdir()
    mount("devpts", devices / "pts", "devpts", MS_NOSUID, "newinstance,mode=620,ptmxmode=666")
    mount("tmpfs", devices / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def raise_loopback() -> None:
    """Bring up `lo`, the only interface of the host's network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(probe, SIOCGIFFLAGS, request))
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    """Mount `source` on `target`.

    Raises:
        OSError: the kernel refused; the message names the target.
    """
    texts = (source, str(target), kind)
    if LIBC.mount(*(text.encode() for text in texts), ctypes.c_ulong(flags), options.encode()):
        raise_errno(f"mount {kind}", str(target))


def raise_errno(call: str, path: str) -> NoReturn:
    """Report that the system call `call` failed.

    Raises:
        OSError: always.
    """
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}", path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
