"""Container engines: two ways to enforce one launch profile. `pick_engine` takes the first that can enforce all of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from records import BadInput, MissingComponent
from sandbox.engines.logtail import LogTail
from sandbox.failure import Ending
from sandbox.outbox import Outbox
from sandbox.profile import LaunchProfile


class Container(Protocol):
    """A started container. Its methods raise EngineLost when the engine does not do what it should."""

    log: LogTail
    """The end of what it prints, also while it runs."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, at the latest after `timeout_s`."""
        ...

    def pid(self) -> int | None:
        """Its first process, as this host numbers it; None before that has started. Its control groups are the container's."""
        ...

    def kill(self) -> None:
        """End all its processes at once; returns when they are gone."""
        ...

    def ending(self) -> Ending:
        """How it ended; call it after that."""
        ...

    def remove(self) -> None:
        """Kill it if need be, and leave nothing of it behind."""
        ...


class Leftover(NamedTuple):
    """A container that was found, and the run it was started for."""

    name: str
    run_id: str


class Additions(NamedTuple):
    """What a container has that its profile does not name."""

    mounts: tuple[str, ...]
    """Where something is mounted."""
    devices: tuple[str, ...]
    variables: tuple[str, ...]
    """Names in its environment."""


class Engine(Protocol):
    name: str
    version: str

    @property
    def versions(self) -> Mapping[str, str]:
        """The programs that containers are run with, by name: what advisories.py asks about."""
        ...

    @property
    def image_hash(self) -> str:
        """SHA-256 that identifies the file system which containers start from."""
        ...

    def additions(self, profile: LaunchProfile) -> Additions:
        """What the image and the engine bring along, for the self-check: everything else is not allowed to be there."""
        ...

    def start(self, profile: LaunchProfile) -> Container:
        """Start a container under every control of the profile.

        Raises:
            EngineLost: it could not be started so.
        """
        ...

    def outbox(self, folder: Path, profile: LaunchProfile) -> Outbox:
        """A bounded place for what the container of this profile writes, read by the host when it is dead.

        Args:
            folder: a path that does not exist, for the engine to use.
            profile: whose user owns the place and whose limits.out_bytes bound it.
        """
        ...

    def leftovers(self) -> list[Leftover]:
        """All containers (and what belongs to them) of this lab, running or not."""
        ...

    def remove(self, name: str) -> None:
        """Kill and remove a container by its name."""
        ...


def pick_engine(name: str = "auto", *, state_dir: Path, image: str | None = None, runtime: str | None = None) -> Engine:
    """The engine of that name, or with `auto` the first that works: docker, else runc.

    Args:
        name: `auto`, `docker` or `runc`.
        state_dir: the lab's state directory; images and containers are kept apart by it.
        image: name of a Docker image to use instead of the host's own Python.
        runtime: one of the Docker daemon's runtimes, such as runsc, instead of its default.

    Raises:
        MissingComponent: no engine can enforce every control here; the message names what is missing and the fix.
        BadInput: there is no engine of that name, or it has no use for the image or the runtime.
    """
    from sandbox.engines.docker import DockerEngine
    from sandbox.engines.runc import RuncEngine

    if name not in ("auto", "docker", "runc"):
        raise BadInput(f"no container engine {name!r}: allowed are auto, docker, runc")
    only_docker = image is not None or runtime is not None
    if name == "runc":
        if only_docker:
            raise BadInput("image and runtime are Docker's: use engine docker, or neither")
        return RuncEngine.open(state_dir)
    try:
        return DockerEngine.open(state_dir, image, runtime)
    except MissingComponent as docker:
        if name == "docker" or only_docker:
            raise
        try:
            return RuncEngine.open(state_dir)
        except MissingComponent as runc:
            raise MissingComponent(f"no container engine can be used. docker: {docker}; runc: {runc}") from None
