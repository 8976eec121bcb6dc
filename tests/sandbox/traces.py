"""What runs leave behind on a host, if anything."""

from pathlib import Path

from sandbox.device import mount_points
from sandbox.engines import Engine
from sandbox.engines.cgroup import groups_with_prefix
from sandbox.profile import UIDS, lab_id, name_prefix


def traces(engine: Engine, state_dir: Path) -> list[str]:
    """Whatever there is of runs of this lab: containers, cgroups, mounts, processes, directories."""
    prefix = name_prefix(lab_id(state_dir))
    processes = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and owner(entry) in UIDS]
    mounts = [str(point) for point in mount_points() if state_dir.resolve() in point.parents]
    runs = [str(path) for path in (state_dir / "runs").iterdir()]
    return [*(left.name for left in engine.leftovers()), *groups_with_prefix(prefix), *mounts, *processes, *runs]


def owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except FileNotFoundError:
        return -1
