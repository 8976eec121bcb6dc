"""What runs leave behind on a host, if anything."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from sandbox.device import mount_points
from sandbox.engines import Engine
from sandbox.engines.cgroup import groups_with_prefix
from sandbox.profile import UIDS, lab_id, name_prefix

BEFORE = set(psutil.pids())
"""What ran when the tests began may belong to another lab's runs."""


def traces(engine: Engine, state_dir: Path) -> list[str]:
    """Whatever there is of runs of this lab: containers, cgroups, mounts, processes, directories."""
    prefix = name_prefix(lab_id(state_dir))
    mounts = [str(point) for point in mount_points() if state_dir.resolve() in point.parents]
    runs = [str(path) for path in (state_dir / "runs").iterdir()]
    return [*(left.name for left in engine.leftovers()), *groups_with_prefix(prefix), *mounts, *processes(), *runs]


def processes() -> Iterator[str]:
    """Those of users of runs. A dead one that pid 1 has yet to reap holds nothing but its number."""
    for process in psutil.process_iter(["pid", "name", "uids", "status"]):
        found = process.info
        if found["uids"] is None or found["pid"] in BEFORE or found["status"] == psutil.STATUS_ZOMBIE:
            continue
        if found["uids"].real in UIDS:
            yield f"process {found['pid']} {found['name']} ({found['status']})"
