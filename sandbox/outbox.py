"""The only place that a candidate can write to and the host reads from: /out, bounded in bytes and files."""

from pathlib import Path
from typing import Protocol

from sandbox.collect import collect
from sandbox.mounts import mount_tmpfs, unmount_below


class Outbox(Protocol):
    @property
    def source(self) -> Path:
        """What the engine mounts as /out."""
        ...

    def collect(self, name: str, into: Path, limit_bytes: int) -> float:
        """Copy one expected file out, once the container is dead.

        Returns:
            When it was last written, in seconds since 1970; to the second at least.

        Raises:
            Faulted: it is missing, or not a plain file of limited size.
        """
        ...

    def remove(self) -> None: ...


class TmpfsOutbox:
    """A file system in memory that the host mounts, as root can: it outlives the container, and its size is its bound."""

    def __init__(self, folder: Path, *, uid: int, size_bytes: int, files: int):
        folder.mkdir()
        mount_tmpfs(folder, size_bytes=size_bytes, inodes=files, uid=uid)
        self.source = folder
        self.uid = uid

    def collect(self, name: str, into: Path, limit_bytes: int) -> float:
        return collect(self.source, name, into, uid=self.uid, limit_bytes=limit_bytes)

    def remove(self) -> None:
        unmount_below(self.source)
