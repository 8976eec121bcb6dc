"""The two steps that every container goes through, whoever starts it: a place to write to, then its life."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sandbox.engines import Container, Engine
from sandbox.outbox import Outbox
from sandbox.profile import LaunchProfile, Mount


@contextmanager
def with_outbox(
    engine: Engine, profile: LaunchProfile, folder: Path, target: str = "/out"
) -> Iterator[tuple[LaunchProfile, Outbox]]:
    """The profile with a bounded place to write to, and that place; gone after the block.

    Args:
        folder: the run's directory.
        target: where the container sees it.
    """
    outbox = engine.outbox(folder / f"out-{profile.phase}", profile)
    try:
        yield replace(profile, files=(*profile.files, Mount(outbox.source, target, read_only=False))), outbox
    finally:
        outbox.remove()


@contextmanager
def launched(engine: Engine, profile: LaunchProfile) -> Iterator[Container]:
    """A started container; nothing is left of it after the block.

    Raises:
        EngineLost: it could not be started under every control, or not be removed.
    """
    container = engine.start(profile)
    try:
        yield container
    finally:
        container.remove()
