"""The launch profile: every control that a container runs under, stated once. Engines render it and add nothing to it.

A profile enforces all controls. `without` takes some away, which only `selfcheck.py` and the attack suite do: a probe that
finds nothing proves something only if the same probe finds what it looks for once the control is gone.
"""

import hashlib
import json
import math
import os
import resource
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from records import HostFault
from sandbox.device import Device, DeviceNode, device_node


class Control(StrEnum):
    """One thing that keeps a candidate in. Its name in lower case is that of its probe in inside/probes.py."""

    USER = "an unprivileged user of its own"
    CAPABILITIES = "no capabilities"
    NO_NEW_PRIVILEGES = "no new privileges"
    SECCOMP = "system calls by allow-list"
    NETWORK = "no network"
    PROCESSES = "processes of its own"
    IPC = "shared memory of its own"
    HOSTNAME = "a host name of its own"
    CGROUP = "a view of its own control groups only"
    READ_ONLY_ROOT = "a read-only root"
    MASKED_PATHS = "masked kernel files"
    READ_ONLY_PATHS = "read-only kernel settings"
    MOUNTS = "no files of the host but those named"
    DEVICES = "no devices but those of the lease"
    ENVIRONMENT = "a fixed environment"
    MEMORY = "bounded memory, swap included"
    PIDS = "bounded processes"
    CPU = "bounded CPU time"
    CPUSET = "CPUs of its own"
    NOFILE = "bounded open files"
    FSIZE = "bounded file size"
    CORE = "no core dumps"
    TMP = "a bounded /tmp"
    SHM = "a bounded /dev/shm"
    OUT = "a bounded /out"
    OUT_FILES = "a bounded number of files in /out"
    OUTPUT = "bounded output"


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
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
)
"""By number, see capabilities(7); those of Linux 5.8 and later, which Docker 20.10 does not know, are parts of SYS_ADMIN."""

UIDS = range(60_000, 65_000)
"""Users of runs: none of them 0, nor 65534, which may use the reserved blocks of some file systems."""

OUT_FILES = 1000
OUTPUT_BYTES_S = 8 * 2**20
"""Of stdout and stderr together; who prints more waits. A training script prints kilobytes."""

STOLEN_CPU = 0.25
"""Measured on two CPUs: 0.00 when nobody else works, 0.33 and more beside one busy loop (docs/design-notes.md, "Void runs")."""

LEAST_SHARES = 2
"""Engines make the least weight of cgroup v2 of it, 1 of 10,000 where everybody has 100."""

UNBOUNDED = 2**40
"""In place of a bound that was taken away, where an engine must be given one."""


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
    import_s: float = 120.0
    """Time for a scorer to import torch, before anything of the candidate's is in it."""
    score_s: float = 900.0
    """Cap on a pass over the rows that a model is scored on."""
    gpu_empty_s: float = 15.0
    """Time after the end of a container in which its GPU must be as it was before."""
    stolen_cpu: float = STOLEN_CPU
    """Share of its CPU time that others may take from a run on the CPU; beyond that the run is void."""
    cpu_s: int | None = None
    """CPU time of each process; the kernel kills whoever takes more."""
    cpu_shares: int | None = None
    """Its weight where CPUs are contended, in cgroup v1's unit: everybody has 1024, LEAST_SHARES is the least. None: as everybody."""

    @classmethod
    def of(cls, cpus: float | None = None, memory_gb: float | None = None, stolen_cpu: float = STOLEN_CPU) -> "Limits":
        """All CPUs and half of the machine's memory, unless said otherwise."""
        memory_bytes = psutil.virtual_memory().total // 2 if memory_gb is None else int(memory_gb * 2**30)
        return cls(cpus or len(os.sched_getaffinity(0)), memory_bytes, stolen_cpu=stolen_cpu)

    def startup_cap_s(self, device: Device) -> float:
        if self.startup_s is not None:
            return self.startup_s
        return 120.0 if device.gpu is None else 300.0


class Mount(NamedTuple):
    """A private bind mount, without what is mounted below its source."""

    source: Path
    """A relative one is the name of a Docker volume."""
    target: str
    read_only: bool = True


class Rlimit(NamedTuple):
    name: str
    """As in setrlimit(2), lower case, without RLIMIT_."""
    value: int


@dataclass(frozen=True)
class LaunchProfile:
    """One container: what runs in it, what it sees, what it may use. The properties are what engines render."""

    lab: str
    """Id of the lab, see `lab_id`: whose container this is."""
    run_id: str
    phase: str
    """Without a dash."""
    user: int
    """One of UIDS, see `reserved_uid`."""
    arguments: tuple[str, ...]
    """After the interpreter."""
    files: tuple[Mount, ...]
    device: Device
    limits: Limits
    controls: frozenset[Control] = frozenset(Control)

    def without(self, *controls: Control) -> "LaunchProfile":
        """The same container with some controls taken away: for proving that a probe can see. Never for a candidate."""
        return replace(self, controls=self.controls - frozenset(controls))

    @property
    def name(self) -> str:
        """Name of the container and of its cgroup."""
        return f"{name_prefix(self.lab)}{self.run_id}-{self.phase}"

    # ---- who it is ---------------------------------------------------------------------------------------------------

    @property
    def uid(self) -> int:
        """User and group."""
        return self.user if Control.USER in self.controls else 0

    @property
    def capabilities(self) -> tuple[str, ...]:
        """As in capabilities(7), without CAP_: none, or all that this process could hand on."""
        return () if Control.CAPABILITIES in self.controls else own_capabilities()

    @property
    def no_new_privileges(self) -> bool:
        return Control.NO_NEW_PRIVILEGES in self.controls

    @property
    def seccomp(self) -> Mapping[str, Any] | None:
        """docker/seccomp.json."""
        return json.loads(SECCOMP.read_text()) if Control.SECCOMP in self.controls else None

    # ---- what it sees ------------------------------------------------------------------------------------------------

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Kinds of namespaces of its own, in the OCI's words."""
        removable = {
            Control.PROCESSES: "pid",
            Control.NETWORK: "network",
            Control.IPC: "ipc",
            Control.HOSTNAME: "uts",
            Control.CGROUP: "cgroup",
        }
        return ("mount", *(kind for control, kind in removable.items() if control in self.controls))

    @property
    def hostname(self) -> str | None:
        return "lab" if Control.HOSTNAME in self.controls else None

    @property
    def read_only_root(self) -> bool:
        return Control.READ_ONLY_ROOT in self.controls

    @property
    def masked_paths(self) -> tuple[str, ...]:
        return MASKED_PATHS if Control.MASKED_PATHS in self.controls else ()

    @property
    def read_only_paths(self) -> tuple[str, ...]:
        return READ_ONLY_PATHS if Control.READ_ONLY_PATHS in self.controls else ()

    @property
    def mounts(self) -> tuple[Mount, ...]:
        return self.files if Control.MOUNTS in self.controls else (*self.files, Mount(Path("/etc"), "/rows"))

    @property
    def devices(self) -> tuple[DeviceNode, ...]:
        """Nodes of /dev besides null, zero, full, random, urandom and tty: all that it may open."""
        nodes = () if self.device.gpu is None else self.device.gpu.nodes
        return nodes if self.any_device is None else (*nodes, self.any_device)

    @property
    def any_device(self) -> DeviceNode | None:
        """A device of the host that is in sight, all others being allowed too, when devices are not controlled."""
        if Control.DEVICES in self.controls:
            return None
        return next(
            node for name in ("kmsg", "loop-control", "fuse", "mem") if (node := device_node(Path("/dev", name)))
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """All that the container's environment holds: nothing of the host's own leaks into it."""
        threads = str(max(1, int(self.limits.cpus)))
        return {
            **({} if Control.ENVIRONMENT in self.controls else os.environ),
            "AUTORESEARCH_GATE": "/gate/gate.sock",
            "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": "/tmp/flash",
            "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1",
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
            "QUACK_CACHE_DIR": "/tmp/quack",
            "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD": "1",
            "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
            "TRITON_CACHE_DIR": "/tmp/triton",
            "USER": "lab",
            **({} if self.device.gpu is None else self.device.gpu.environment),
        }

    # ---- what it may use ---------------------------------------------------------------------------------------------

    @property
    def memory_bytes(self) -> int | None:
        """Of memory and swap together."""
        return self.limits.memory_bytes if Control.MEMORY in self.controls else None

    @property
    def pids(self) -> int | None:
        return self.limits.pids if Control.PIDS in self.controls else None

    @property
    def cpus(self) -> float | None:
        return self.limits.cpus if Control.CPU in self.controls else None

    @property
    def cpu_shares(self) -> int | None:
        return self.limits.cpu_shares

    @property
    def cpuset(self) -> tuple[int, ...] | None:
        """As many CPUs as it may use, the runs of different GPUs beginning at different ones."""
        if Control.CPUSET not in self.controls:
            return None
        available = sorted(os.sched_getaffinity(0))
        count = min(math.ceil(self.limits.cpus), len(available))
        first = 0 if self.device.gpu is None or not self.device.gpu.nodes else self.device.gpu.nodes[0].minor * count
        return tuple(sorted(available[(first + i) % len(available)] for i in range(count)))

    @property
    def rlimits(self) -> tuple[Rlimit, ...]:
        limits = {
            Control.NOFILE: Rlimit("nofile", self.limits.nofile),
            Control.FSIZE: Rlimit("fsize", max(self.limits.tmp_bytes, self.limits.out_bytes)),
            # Not 0: where core_pattern names a program, the host starts it as root all the same. 1 stops that too (core(5)).
            Control.CORE: Rlimit("core", 1),
        }
        cpu_time = () if self.limits.cpu_s is None else (Rlimit("cpu", self.limits.cpu_s),)
        return (*(limit for control, limit in limits.items() if control in self.controls), *cpu_time)

    @property
    def tmp_bytes(self) -> int:
        return self.limits.tmp_bytes if Control.TMP in self.controls else UNBOUNDED

    @property
    def shm_bytes(self) -> int:
        return self.limits.shm_bytes if Control.SHM in self.controls else UNBOUNDED

    @property
    def out_bytes(self) -> int:
        return self.limits.out_bytes if Control.OUT in self.controls else UNBOUNDED

    @property
    def out_files(self) -> int:
        return OUT_FILES if Control.OUT_FILES in self.controls else UNBOUNDED

    @property
    def output_bytes_s(self) -> float:
        return OUTPUT_BYTES_S if Control.OUTPUT in self.controls else math.inf


def own_capabilities() -> tuple[str, ...]:
    """Those in this process' bounding set."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    held = int(line.split()[1], 16)
    return tuple(name for number, name in enumerate(CAPABILITIES) if held >> number & 1)


# ---- names and users -------------------------------------------------------------------------------------------------


@contextmanager
def reserved_uid() -> Iterator[int]:
    """A user that no other run on this machine has meanwhile.

    The reservation is an abstract Unix socket (unix(7)): it belongs to no folder or lab, and ends with this process.

    Raises:
        HostFault: all are taken.
    """
    first = secrets.randbelow(len(UIDS))
    with socket.socket(socket.AF_UNIX) as reservation:
        for uid in (*UIDS[first:], *UIDS[:first]):
            try:
                reservation.bind(f"\0autoresearch-uid-{uid}")
            except OSError:
                continue
            yield uid
            return
    raise HostFault(f"all {len(UIDS)} users for runs are taken: is this machine full of runs?")


def lab_id(state_dir: Path) -> str:
    """Short name of a lab, so that labs on one machine keep their hands off each other's containers."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:10]


def name_prefix(lab: str) -> str:
    """What the names of all containers of a lab begin with."""
    return f"autoresearch-{lab}-"


def run_of(name: str, lab: str) -> str:
    """The run that a container of this lab was started for."""
    return name.removeprefix(name_prefix(lab)).rpartition("-")[0]
