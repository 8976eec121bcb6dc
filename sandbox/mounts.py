"""Mounting and unmounting on the host: size-limited folders for what candidates write."""

import ctypes
import os
from pathlib import Path

from records import HostFault
from sandbox.device import mount_points

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8  # mount(2)
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8  # umount2(2)

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(target: Path, *, size_bytes: int, inodes: int, uid: int) -> None:
    """Mount an empty file system in memory on `target`, owned by `uid`; nothing on it can be executed.

    Raises:
        HostFault: mounting failed.
    """
    options = f"size={size_bytes},nr_inodes={inodes},uid={uid},gid={uid},mode=0700"
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options.encode()) != 0:
        raise HostFault(f"cannot mount a tmpfs on {target}: {os.strerror(ctypes.get_errno())}")


def unmount_below(path: Path) -> None:
    """Unmount whatever is mounted on `path` or below it, the deepest first.

    Raises:
        HostFault: something stays mounted.
    """
    path = path.resolve()
    for point in sorted((p for p in mount_points() if p == path or path in p.parents), reverse=True):
        if _libc.umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
            raise HostFault(f"cannot unmount {point}: {os.strerror(ctypes.get_errno())}")
