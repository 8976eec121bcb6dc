"""Takes one expected file out of a directory that a hostile program has filled.

By now the program is dead, so nothing changes any more; but whatever it left may be a trap. Only a regular file with one
link, of the run's user and of limited size is copied, and no link on the way to it is followed.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

from records import FailureKind
from sandbox.failure import Faulted

SYS_OPENAT2 = 437  # x86-64
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_NO_XDEV = 0x02, 0x04, 0x08, 0x01  # openat2(2)
CHUNK_BYTES = 2**20

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def collect(directory: Path, name: str, into: Path, *, uid: int, limit_bytes: int) -> float:
    """Copy file `name` of `directory` to the new file `into`.

    Args:
        directory: what the container saw as /out.
        name: a plain file name.
        into: where the copy goes, on the host's side.
        uid: the run's user, who must own the file.
        limit_bytes: largest size accepted.

    Returns:
        When it was last changed, in seconds since 1970.

    Raises:
        Faulted: the file is not there (no_submit) or not what it should be (invalid).
        OSError: the host cannot write the copy.
    """
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = _open_beneath(folder, name)
    finally:
        os.close(folder)
    try:
        status = os.fstat(descriptor)
        size = _check(status, name, uid, limit_bytes)
        with into.open("xb") as copy:
            _copy(descriptor, copy.fileno(), size, name)
        return status.st_ctime
    finally:
        os.close(descriptor)


def _open_beneath(folder: int, name: str) -> int:
    # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer for ever.
    how = _OpenHow(
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
        0,
        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    )
    call = _libc.syscall
    call.restype = ctypes.c_long
    descriptor = int(call(SYS_OPENAT2, folder, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how)))
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        raise Faulted(FailureKind.NO_SUBMIT, f"it said it was done but left no {name}")
    if number in (errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.ENOTDIR):
        raise Faulted(FailureKind.INVALID, f"{name} is a link or a special file")
    raise OSError(number, os.strerror(number), name)


def _check(status: os.stat_result, name: str, uid: int, limit_bytes: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise Faulted(FailureKind.INVALID, f"{name} is not a regular file")
    if status.st_nlink != 1:
        raise Faulted(FailureKind.INVALID, f"{name} has {status.st_nlink} links")
    if status.st_uid != uid:
        raise Faulted(FailureKind.INVALID, f"{name} does not belong to the run's user")
    if status.st_blocks * 512 < status.st_size:  # it would grow by the copy
        raise Faulted(FailureKind.INVALID, f"{name} has holes: {status.st_size} bytes, of which it holds fewer")
    if status.st_size > limit_bytes:
        raise Faulted(FailureKind.INVALID, f"{name} has {status.st_size} bytes, over the limit of {limit_bytes}")
    return status.st_size


def _copy(source: int, target: int, size: int, name: str) -> None:
    left = size
    while left > 0:
        chunk = os.read(source, min(left, CHUNK_BYTES))
        if not chunk:
            raise Faulted(FailureKind.INVALID, f"{name} is shorter than its size")
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        left -= len(chunk)
