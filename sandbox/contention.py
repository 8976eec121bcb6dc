"""How much of its CPUs' time a run lost to others, by accounts of the kernel that the run cannot forge.

Two figures bound it. What others took: the time of its CPUs that was neither idle, nor spent on interrupts, nor the run's own. And how
long something of the run was ready and had to wait (cpu.pressure, https://docs.kernel.org/accounting/psi.html). A run can make itself wait,
by more threads than CPUs, but nobody else take anything; others may take what the run did not want. The smaller of the two is
what it lost, and what a hypervisor took (steal) comes on top.

Nothing here counts by the ticks of a clock, which a process can dodge or attract: idle times, a group's CPU time and its waiting are
differences of exact times. Interrupts count for nobody, since a run can cause them.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sandbox.engines import cgroup

STAT = Path("/proc/stat")
TICK_S = 0.01
"""USER_HZ, in which /proc/stat counts, is 100 on every architecture that matters here (proc(5))."""


class Accounts(NamedTuple):
    """Totals since some start, at one moment; CPU times are sums over the run's CPUs."""

    at: float
    """time.monotonic()."""
    idle_s: float
    interrupts_s: float
    steal_s: float
    """The hypervisor ran something else."""
    own_s: float
    """CPU time of the run's processes, dead ones included."""
    waiting_s: float
    """Time in which at least one of them was ready and did not run."""


def read_accounts(group: Path, cpus: Sequence[int]) -> Accounts | None:
    """The accounts now; None where the kernel keeps none (no cgroup v2, no PSI), or when the group is gone.

    Args:
        group: directory of the run's cgroup v2.
        cpus: numbers of the CPUs that the run may use.
    """
    at = time.monotonic()
    own_s, waiting_s = cgroup.cpu_seconds(group), cgroup.waiting_seconds(group)
    if own_s is None or waiting_s is None:
        return None
    wanted = {f"cpu{number}" for number in cpus}
    lines = [line.split() for line in STAT.read_text().splitlines()]
    # user nice system idle iowait irq softirq steal …: iowait is idleness, too.
    rows = [[TICK_S * int(value) for value in line[1:9]] for line in lines if line[0] in wanted]
    idle_s, interrupts_s, steal_s = (
        sum(sum(row[first:end]) for row in rows) for first, end in ((3, 5), (5, 7), (7, 8))
    )
    return Accounts(at, idle_s, interrupts_s, steal_s, own_s, waiting_s)


def stolen_share(looks: Sequence[Accounts], cpus: int, budget_s: float) -> float | None:
    """Share of the CPU time of its budget that a run lost to others; None without two looks.

    A run that ends early cannot make its share larger: what it lost counts as a part of the whole budget.

    Args:
        looks: the accounts, in the order of time.
        cpus: how many CPUs the run may use.
        budget_s: seconds of training.
    """
    if len(looks) < 2:
        return None
    return sum(lost_s(before, after, cpus) for before, after in pairwise(looks)) / max(
        budget_s, looks[-1].at - looks[0].at
    )


def lost_s(before: Accounts, after: Accounts, cpus: int) -> float:
    """Seconds between two looks that a run lost: CPU time of others in units of all its CPUs, or its own waiting."""
    elapsed_s, idle_s, interrupts_s, steal_s, own_s, waiting_s = (b - a for a, b in zip(before, after, strict=True))
    others_s = elapsed_s - (idle_s + interrupts_s + steal_s + own_s) / cpus
    return max(0.0, min(others_s, waiting_s)) + steal_s / cpus
