"""/out as a Docker volume, for users who may reach a daemon but not mount."""

import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from records import FailureKind
from sandbox.failure import EngineLost, Faulted
from sandbox.profile import LaunchProfile, Mount

if TYPE_CHECKING:
    from sandbox.engines.docker import DockerEngine


class VolumeOutbox:
    """A volume in memory, for users who may not mount: it lives as long as a container has it mounted.

    So a second container, of ours and idle, holds it until the host has read what the candidate's one left.
    """

    def __init__(self, engine: "DockerEngine", profile: LaunchProfile):
        self.engine = engine
        self.uid = profile.uid
        owner = engine.host_uid(profile.uid)
        holder = replace(profile, phase=f"{profile.phase}holder", arguments=("-c", "import signal; signal.pause()"))
        self.name = holder.name
        self.source = Path(holder.name)
        options = f"size={profile.out_bytes},nr_inodes={profile.out_files},uid={owner},gid={owner},mode=0700"
        tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": f"{options},nosuid,nodev,noexec"}
        try:
            engine.client.create_volume(self.name, driver="local", driver_opts=tmpfs, labels=engine.labels)
        except (DockerException, RequestException) as error:
            raise EngineLost(f"docker does not make a volume: {error}") from None
        self.holder = engine.start(replace(holder, files=(Mount(self.source, "/out", read_only=False),)))

    def collect(self, name: str, into: Path, limit_bytes: int) -> float:
        if self.holder.wait(0.0):
            raise EngineLost(f"container {self.name}, which held the volume, has ended")
        try:
            chunks, _ = self.engine.client.get_archive(self.name, f"/out/{name}")
        except NotFound:
            raise Faulted(FailureKind.NO_SUBMIT, f"it said it was done but left no {name}") from None
        except APIError:
            # A link that points at itself makes the daemon fail. Whoever can do that must not have itself run again, so the
            # fault is the engine's only if it does not answer otherwise either.
            if self.holder.wait(0.0):
                raise EngineLost(f"container {self.name}, which held the volume, has ended") from None
            raise Faulted(FailureKind.INVALID, f"the daemon cannot read {name}") from None
        except (DockerException, RequestException) as error:
            raise EngineLost(f"docker does not hand out {name}: {error}") from None
        with tempfile.TemporaryFile(dir=into.parent) as spool:
            for chunk in chunks:
                spool.write(chunk)
                if spool.tell() > limit_bytes + 2**20:
                    raise Faulted(FailureKind.INVALID, f"{name} is over the limit of {limit_bytes} bytes")
            spool.seek(0)
            return extract(spool, name, into, uid=self.uid, limit_bytes=limit_bytes)

    def remove(self) -> None:
        self.engine.remove(self.name)


def extract(spool: IO[bytes], name: str, into: Path, *, uid: int, limit_bytes: int) -> float:
    """Copy the one member of an archive that the daemon made to the new file `into`.

    Returns:
        When it was written, in seconds since 1970.

    Raises:
        Faulted: it is not a regular file of the run's user and of limited size (invalid).
    """
    try:
        with tarfile.open(fileobj=spool, mode="r:") as archive:
            member = archive.next()
            if member is None or not member.isreg() or member.uid != uid or member.size > limit_bytes:
                raise Faulted(
                    FailureKind.INVALID,
                    f"{name} is not a regular file of the run's user of at most {limit_bytes} bytes",
                )
            content = archive.extractfile(member)
            assert content is not None, "regular members have content"
            with into.open("xb") as copy:
                shutil.copyfileobj(content, copy)
            return float(member.mtime)
    except tarfile.TarError:
        raise Faulted(FailureKind.INVALID, f"{name} cannot be read") from None
