"""Removes what host processes of this lab left behind when they died: containers, mounts, cgroups, run directories."""

from collections.abc import Iterable
from pathlib import Path

from sandbox.engines import Engine
from sandbox.rundir import is_abandoned, remove_directory, runs_dir


def sweep(engines: Iterable[Engine], state_dir: Path) -> list[str]:
    """Clean up after dead runs; whatever belongs to a living process, or to another lab, is left alone.

    Args:
        engines: engines of this lab that may hold containers.
        state_dir: the lab's state directory.

    Returns:
        What was removed, for people.

    Raises:
        HostFault: something could not be removed.
    """
    removed: list[str] = []
    runs = runs_dir(state_dir)
    for engine in engines:
        # A run's directory is made before its containers and removed after them.
        for container in engine.leftovers():
            if is_abandoned(runs / container.run_id):
                engine.remove(container.name)
                removed.append(f"{engine.name} container {container.name}")
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        if is_abandoned(path):
            remove_directory(path)
            removed.append(f"run directory {path.name}")
    return removed
