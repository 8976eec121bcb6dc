"""What runs leave behind on a host, if anything."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from sandbox.device import mount_points
from sandbox.engines import Engine, cgroup
from sandbox.engines.cgroup import groups_with_prefix
from sandbox.profile import UIDS, lab_id, name_prefix

BEFORE = set(psutil.pids())
"""What ran when the tests began may belong to another lab's runs."""
RESERVATION = re.compile(r" (\d+) @autoresearch-uid-(\d+)$", re.MULTILINE)
"""How proc(5) shows the abstract socket by which a run has its user for itself: its inode, and the user."""


def traces(engine: Engine, state_dir: Path) -> list[str]:
    """Whatever there is of runs of this lab: containers, cgroups, mounts, processes, directories."""
    prefix = name_prefix(lab_id(state_dir))
    mounts = [str(point) for point in mount_points() if state_dir.resolve() in point.parents]
    runs = [str(path) for path in (state_dir / "runs").iterdir()]
    return [
        *(left.name for left in engine.leftovers()),
        *groups_with_prefix(prefix),
        *mounts,
        *processes(prefix),
        *runs,
    ]


def processes(prefix: str) -> Iterator[str]:
    """Those of users of runs. A dead one that pid 1 has yet to reap holds nothing but its number."""
    others = users_of_others()
    found = [process.info for process in psutil.process_iter(["pid", "name", "uids", "status"])]
    others |= users_of_others()
    for process in found:
        if process["uids"] is None or process["pid"] in BEFORE or process["status"] == psutil.STATUS_ZOMBIE:
            continue
        if process["uids"].real not in UIDS or process["uids"].real in others:
            continue
        if not is_of_another_lab(process["pid"], prefix):
            yield f"process {process['pid']} {process['name']} ({process['status']})"


def is_of_another_lab(pid: int, prefix: str) -> bool:
    """Whether it is in a runc container of a lab whose host was killed, perhaps by another test, and which is yet to be swept."""
    names = [group.name for group in cgroup.of_process(pid)]
    return any(name.startswith("autoresearch-") and not name.startswith(prefix) for name in names)


def users_of_others() -> set[int]:
    """Those that another process on this machine has reserved for a run of its own (see `reserved_uid`)."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that this list was read through
            own.add(str(descriptor.readlink()))
    reserved = RESERVATION.findall(Path("/proc/net/unix").read_text(errors="replace"))
    return {int(uid) for inode, uid in reserved if f"socket:[{inode}]" not in own}
