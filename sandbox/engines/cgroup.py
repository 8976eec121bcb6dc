"""Control groups as the host sees them: v1, v2, and hybrid (v1 with a v2 tree that has no controllers)."""

import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NEEDED_V2 = ("cpu", "memory", "pids")
NEEDED_V1 = ("cpu", "memory", "pids", "devices", "freezer")


def kind_of_hierarchy() -> str:
    """cgroup v1, v2 or hybrid."""
    if (ROOT / "cgroup.controllers").exists():
        return "cgroup v2"
    return "cgroup v1 (hybrid)" if (ROOT / "unified").is_dir() else "cgroup v1"


def missing_controllers() -> list[str]:
    """Controllers that are needed for the limits of a launch profile, and that this host does not offer."""
    try:
        if (ROOT / "cgroup.controllers").exists():
            offered = (ROOT / "cgroup.controllers").read_text().split()
            return [name for name in NEEDED_V2 if name not in offered]
        missing = [name for name in NEEDED_V1 if not (ROOT / name / "tasks").exists()]
    except OSError:
        return list(NEEDED_V1)
    # Without swap there is nothing that memory.memsw would have to count.
    if not missing and _has_swap() and not (ROOT / "memory" / "memory.memsw.limit_in_bytes").exists():
        return ["memory (swap accounting: boot with swapaccount=1 or turn swap off)"]
    return missing


def _has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


def groups_named(name: str) -> list[Path]:
    """Directories of the top-level cgroup `name`, one per hierarchy."""
    candidates = [ROOT / name, *(ROOT / tree / name for tree in _trees())]
    return [path for path in dict.fromkeys(p.resolve() for p in candidates) if path.is_dir()]


def groups_with_prefix(prefix: str) -> set[str]:
    """Names of top-level cgroups that begin with `prefix`."""
    trees = [ROOT, *(ROOT / tree for tree in _trees())]
    return {path.name for tree in trees for path in tree.glob(f"{prefix}*") if path.is_dir()}


def _trees() -> list[str]:
    if (ROOT / "cgroup.controllers").exists():
        return []
    return sorted(path.name for path in ROOT.iterdir() if path.is_dir())


def of_process(pid: int) -> list[Path]:
    """Directories of a process' memory cgroup (v1) or only cgroup (v2); empty when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return [ROOT / "memory" / path.lstrip("/")]
            if controllers == "" and (ROOT / "cgroup.controllers").exists():
                return [ROOT / path.lstrip("/")]
    return []


def unified_of_process(pid: int) -> Path | None:
    """Directory of a process' cgroup v2, hybrid hosts included; None when it is gone, or where there is none."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            root = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"
            # The root's is nobody's own: so an exiting process is shown by cgroup v1.
            if number == "0" and path != "/" and root.is_dir():
                return root / path.lstrip("/")
    return None


def cpu_seconds(group: Path) -> float | None:
    """CPU time that a group of cgroup v2 has used so far; None when it is gone."""
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6
    return None


def waiting_seconds(group: Path) -> float | None:
    """Time in which something in a group of cgroup v2 was ready and did not run; None without PSI, or when it is gone."""
    with suppress(OSError, ValueError):
        for line in (group / "cpu.pressure").read_text().splitlines():
            kind, *fields = line.split()
            if kind == "some":
                return int(dict(field.split("=") for field in fields)["total"]) / 1e6
    return None


def peak_memory_bytes(groups: list[Path]) -> int | None:
    """High-water mark of memory; None where the kernel keeps none (v2 before 5.19)."""
    for group in groups:
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with suppress(OSError, ValueError):
                return int((group / name).read_text())
    return None


def oom_kills(groups: list[Path]) -> int:
    """Processes that the kernel has killed there for memory."""
    for group in groups:
        for name in ("memory.oom_control", "memory.events"):
            with suppress(OSError, ValueError):
                fields = dict(line.split() for line in (group / name).read_text().splitlines())
                return int(fields.get("oom_kill", 0))
    return 0


def kill_and_remove(name: str, timeout_s: float = 5.0) -> bool:
    """Kill every process in the cgroup `name` and delete it; whether nothing of it is left."""
    deadline = time.monotonic() + timeout_s
    while groups := groups_named(name):
        for group in groups:
            _kill(group)
            with suppress(OSError):
                group.rmdir()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _kill(group: Path) -> None:
    with suppress(OSError):
        (group / "cgroup.kill").write_text("1")
        return
    with suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
