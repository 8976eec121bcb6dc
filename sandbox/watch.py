"""Watches the machine while a candidate trains: was the run left alone, at full speed? If not it is void, and repeated.

A candidate must not be able to have itself run again, so nothing counts that it can bring about: its own processes, however short they
live, are never a stranger's, its own load takes nothing from it, and shares are of the whole budget, so that an early end makes none
of them larger. What it can do is heat a GPU that is badly cooled; see docs/threat-model.md.
"""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from records import GpuReading, HostFault
from sandbox.contention import Accounts, read_accounts, stolen_share
from sandbox.device import Device
from sandbox.engines import Container, cgroup
from sandbox.gpu import GpuProcess, GpuState, named, read_states

LOOKS = 20
"""In a budget …"""
LEAST_S = 0.25
"""… and never closer together."""
HELD_DOWN = frozenset({"hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"})
"""Heat and failing power supplies. A card at full load is at its power cap (`sw_power_cap`), and a person may set clocks."""
SLOWED_SHARE = 0.1
"""Of the budget, in which clocks may be held down: a look in twenty says little of a run, and a short one costs it little."""
EXITING = 0x4
"""PF_EXITING in the flags of /proc/PID/stat (include/linux/sched.h)."""


class Disturbed(HostFault):
    """A run was not left alone, or the machine was not at its full speed: what it came to says nothing."""


class GpuLook(NamedTuple):
    at: float
    """time.monotonic() when the driver had answered."""
    state: GpuState
    others: tuple[GpuProcess, ...]
    """Processes on the GPU that are provably not the run's."""


class Watch:
    """Looks at the machine every so often, from the side, until it is closed.

    Args:
        device: what the run is on.
        container: of the run; it has started.
        cpus: numbers of the CPUs that it may use.
        budget_s: seconds of training, which begin now.
    """

    def __init__(self, device: Device, container: Container, cpus: Sequence[int], budget_s: float):
        self.device = device
        self.cpus = cpus
        self.budget_s = budget_s
        self.began = time.monotonic()
        self.gpu: list[GpuLook] = []
        self.cpu: list[Accounts] = []
        pid = container.pid()
        self._groups = [] if pid is None else cgroup.of_process(pid)
        self._unified = None if pid is None else cgroup.unified_of_process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._look_at_cpu()
        self._thread.start()

    def close(self) -> None:
        """A last look at the CPU, and none after that."""
        self._over.set()
        self._thread.join()
        self._look_at_cpu()

    def _look_on(self) -> None:
        while not self._over.wait(max(LEAST_S, self.budget_s / LOOKS)):
            self._look_at_cpu()
            if self.device.gpu is not None:
                self._look_at_gpu()

    def _look_at_cpu(self) -> None:
        accounts = None if self._unified is None else read_accounts(self._unified, self.cpus)
        self.cpu += [] if accounts is None else [accounts]

    def _look_at_gpu(self) -> None:
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        for state in read_states():
            if state.uuid == self.device.id:
                others = tuple(p for p in state.processes if is_stranger(p.pid, self._groups, begun))
                self.gpu.append(GpuLook(time.monotonic(), state, others))

    # ---- what has been seen ------------------------------------------------------------------------------------------

    @property
    def stolen_cpu(self) -> float | None:
        """See sandbox/contention.py."""
        share = stolen_share(self.cpu, len(self.cpus), self.budget_s)
        return None if share is None else round(share, 4)

    def reading(self) -> GpuReading | None:
        """What the driver said; None without a look."""
        return summarise(self.gpu, self.began, self.budget_s)


def complaint(reading: GpuReading | None, stolen_cpu: float | None, *, on_gpu: bool, limit: float) -> str | None:
    """Why a run is void, in words; None when it is not.

    Args:
        reading: what the driver said of its GPU.
        stolen_cpu: share of its CPU time that others took.
        on_gpu: then training waits for the GPU, and what others took of the CPU is no reason.
        limit: what they may take.
    """
    if reading is not None and reading.others:
        return f"not alone on GPU {reading.uuid}: {', '.join(reading.others)} was there too while it trained"
    if reading is not None and reading.slowed_share is not None and reading.slowed_share > SLOWED_SHARE:
        causes = ", ".join(sorted(HELD_DOWN & set(reading.slowed_by)))
        return f"GPU {reading.uuid} was held down in {100 * reading.slowed_share:.0f} % of the budget ({causes}): see to its cooling and power"
    if not on_gpu and stolen_cpu is not None and stolen_cpu > limit:
        return f"other processes took {100 * stolen_cpu:.0f} % of its CPU time, more than the {100 * limit:g} % that they may (sandbox.stolen_cpu)"
    return None


def summarise(looks: Sequence[GpuLook], began: float, budget_s: float) -> GpuReading | None:
    """The extremes, and what speaks against the run; None without a look.

    Args:
        looks: in the order of time.
        began: time.monotonic() at the start of training.
        budget_s: seconds of training.
    """
    if not looks:
        return None
    states, one = [look.state for look in looks], looks[0].state
    others = {process: None for look in looks for process in look.others}
    return GpuReading(
        uuid=one.uuid,
        name=one.name,
        driver=one.driver,
        least_sm_clock_mhz=min((clock for state in states if (clock := state.sm_clock_mhz) is not None), default=None),
        max_sm_clock_mhz=one.max_sm_clock_mhz,
        most_power_w=max((power for state in states if (power := state.power_w) is not None), default=None),
        power_limit_w=one.power_limit_w,
        most_temperature_c=max((heat for state in states if (heat := state.temperature_c) is not None), default=None),
        slowed_by=sorted({reason for state in states for reason in state.slowed_by}),
        slowed_share=slowed_share(looks, began, budget_s),
        others=[named([process]) for process in others],
    )


def slowed_share(looks: Sequence[GpuLook], began: float, budget_s: float) -> float:
    """Share of the budget in which clocks were held down: a look stands for the time since the one before, and a single one
    for nothing."""
    spans = [after - before for before, after in pairwise([began, *(look.at for look in looks)])]
    slow = [span for look, span in zip(looks, spans, strict=True) if HELD_DOWN & set(look.state.slowed_by)]
    return round(sum(slow) / budget_s, 4) if len(slow) > 1 else 0.0


# ---- whose a process is ----------------------------------------------------------------------------------------------


def is_stranger(pid: int, groups: Iterable[Path], begun: float) -> bool:
    """Whether this process is provably not one of a container's.

    Not proven, and so no: it is gone, or about to go (cgroup v1 shows an exiting process in the root's group), or began after the look
    did (its number may have been another's when the driver gave it), or the container's groups are not known.

    Args:
        pid: as the driver numbers it.
        groups: directories of the container's control groups, as cgroup.of_process finds them.
        begun: time since boot, in seconds, when the look began.
    """
    own, its = list(groups), cgroup.of_process(pid)
    if not own or not its or any(path.is_relative_to(group) for path in its for group in own):
        return False
    with suppress(OSError, ValueError, IndexError):
        # After the name, which is in brackets and may hold any: state is field 3, flags 9, starttime 22 (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return not int(fields[6]) & EXITING and started <= begun
    return False
