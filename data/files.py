"""Files and folders that are there whole or not at all."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray

from records import HostFault


class Entry(TypedDict):
    """What a manifest has of a file."""

    sha256: str
    bytes: int


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Sequence[Path]) -> str:
    """Over the hashes of all files, in order: the identity of a corpus."""
    return hashlib.sha256("".join(map(hash_file, paths)).encode()).hexdigest()


def no_space(folder: Path, needed_bytes: float) -> HostFault:
    free = shutil.disk_usage(folder).free
    return HostFault(f"{folder}: no space: needs {needed_bytes / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel drops the lock of one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `directory` at the end of the block, in place of what was there.

    A block that fails leaves nothing; a process that dies in it leaves a `.part`, which the next one removes.
    """
    part, old = directory.with_name(directory.name + ".part"), directory.with_name(directory.name + ".old")
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        sync(part)
        if directory.exists():
            directory.rename(old)
        part.rename(directory)
        sync(directory.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write(path: Path, blocks: Iterable[bytes | NDArray[Any]]) -> Entry:
    """Write the blocks one after the other, read-only and to the disk."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for block in blocks:
            view = memoryview(block if isinstance(block, bytes) else block.data).cast("B")
            file.write(view)
            digest.update(view)
            size += view.nbytes
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
    return {"sha256": digest.hexdigest(), "bytes": size}


def sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
