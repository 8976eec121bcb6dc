"""The launch profile: every control that a container runs under, stated once. Engines render it and add nothing to it."""

import hashlib
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from sandbox.device import Device

SECCOMP = Path(__file__).parents[1] / "docker" / "seccomp.json"
"""System calls that are allowed, in Docker's format."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/cgroup",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

UIDS = range(60_000, 65_000)
"""Users of runs: none of them 0, nor 65534, which may use the reserved blocks of some file systems."""


@dataclass(frozen=True)
class Limits:
    """What one candidate may use."""

    cpus: float
    memory_bytes: int
    """Memory and swap together; /tmp, /dev/shm and /out count too."""
    pids: int = 1024
    nofile: int = field(default_factory=lambda: min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    tmp_bytes: int = 4 * 2**30
    shm_bytes: int = 2**30
    out_bytes: int = 4 * 2**30
    startup_s: float | None = None
    """Cap on container start to `ready`; None: 120 s on a CPU, 300 s on a GPU, which compiles."""
    grace_s: float = 5.0
    """Time after the budget in which the weights must be complete."""
    score_s: float = 900.0
    """Cap on scoring."""

    @classmethod
    def of(cls, cpus: float | None = None, memory_gb: float | None = None) -> "Limits":
        """All CPUs and half of the machine's memory, unless said otherwise."""
        memory_bytes = psutil.virtual_memory().total // 2 if memory_gb is None else int(memory_gb * 2**30)
        return cls(cpus or len(os.sched_getaffinity(0)), memory_bytes)

    def startup_cap_s(self, device: Device) -> float:
        if self.startup_s is not None:
            return self.startup_s
        return 120.0 if device.gpu is None else 300.0


class Mount(NamedTuple):
    """A bind mount, always nosuid, nodev and private."""

    source: Path
    """A relative one is the name of a Docker volume."""
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class LaunchProfile:
    """One container: what runs in it, what it sees, what it may use.

    Beyond the fields, for every container: no network, read-only root, no capabilities, no new privileges, seccomp by
    allow-list, private pid, ipc, uts, mount and cgroup namespaces, no core files, /tmp the only place to execute own files.
    """

    lab: str
    """Id of the lab, see `lab_id`: whose container this is."""
    run_id: str
    phase: str
    """Without a dash."""
    arguments: tuple[str, ...]
    """After the interpreter."""
    mounts: tuple[Mount, ...]
    device: Device
    limits: Limits

    @property
    def name(self) -> str:
        """Name of the container and of its cgroup."""
        return f"{name_prefix(self.lab)}{self.run_id}-{self.phase}"

    @property
    def uid(self) -> int:
        """User and group, different from run to run and from phase to phase."""
        return uid_of(self.run_id, self.phase)

    @property
    def environment(self) -> Mapping[str, str]:
        """All that the container's environment holds: nothing of the host's own leaks into it."""
        threads = str(max(1, int(self.limits.cpus)))
        return {
            "AUTORESEARCH_GATE": "/gate/gate.sock",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "LOGNAME": "lab",
            "MKL_NUM_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": "/lab",
            "PYTHONUNBUFFERED": "1",
            "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
            "TRITON_CACHE_DIR": "/tmp/triton",
            "USER": "lab",
            **({} if self.device.gpu is None else self.device.gpu.environment),
        }

    @property
    def file_bytes(self) -> int:
        """RLIMIT_FSIZE."""
        return max(self.limits.tmp_bytes, self.limits.out_bytes)


def uid_of(run_id: str, phase: str) -> int:
    digest = hashlib.sha256(f"{run_id}/{phase}".encode()).digest()
    return UIDS[int.from_bytes(digest[:8], "big") % len(UIDS)]


def lab_id(state_dir: Path) -> str:
    """Short name of a lab, so that labs on one machine keep their hands off each other's containers."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:10]


def name_prefix(lab: str) -> str:
    """What the names of all containers of a lab begin with."""
    return f"autoresearch-{lab}-"


def run_of(name: str, lab: str) -> str:
    """The run that a container of this lab was started for."""
    return name.removeprefix(name_prefix(lab)).rpartition("-")[0]
