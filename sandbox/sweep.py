"""Finds and removes what host processes of this lab left behind when they died: containers, mounts, cgroups, run directories."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sandbox.engines import Engine
from sandbox.rundir import is_abandoned, remove_directory, runs_dir


class Remains(NamedTuple):
    """One thing that belongs to nobody who lives."""

    what: str
    """For people."""
    remove: Callable[[], None]
    """Raises HostFault if it stays."""


def find_remains(engines: Iterable[Engine], state_dir: Path) -> Iterator[Remains]:
    """What dead runs of this lab left; nothing that belongs to a living process, or to another lab.

    Args:
        engines: engines of this lab that may hold containers.
        state_dir: the lab's state directory.
    """
    runs = runs_dir(state_dir)
    for engine in engines:
        # A run's directory is made before its containers and removed after them.
        for container in engine.leftovers():
            if is_abandoned(runs / container.run_id):
                yield Remains(f"{engine.name} container {container.name}", partial(engine.remove, container.name))
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        if is_abandoned(path):
            yield Remains(f"run directory {path.name}", partial(remove_directory, path))


def sweep(engines: Iterable[Engine], state_dir: Path) -> list[str]:
    """Remove it.

    Returns:
        What was removed, for people.

    Raises:
        HostFault: something could not be removed.
    """
    removed: list[str] = []
    for remains in find_remains(engines, state_dir):
        remains.remove()
        removed.append(remains.what)
    return removed
