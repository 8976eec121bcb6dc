"""A run that was not left alone, or not at full speed, is void; and no candidate can have itself run again."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records import FailureKind, Measurement
from sandbox.contention import Accounts, lost_s, stolen_share
from sandbox.engines import cgroup
from sandbox.gpu import GpuProcess, state_of
from sandbox.watch import GpuLook, is_stranger, slowed_share, summarise
from tests.components import require
from tests.sandbox.candidates import gate_probe
from tests.sandbox.fixtures import Measure
from tests.sandbox.recorded_gpu import UUID, h100, recorded_gpu, used_by

CPUS = 2
"""Of every candidate here (tests/sandbox/fixtures.py)."""


# ---- others on the CPU -----------------------------------------------------------------------------------------------


def accounts(**seconds: float) -> Accounts:
    return Accounts(**{**dict.fromkeys(Accounts._fields, 0.0), **seconds})


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (accounts(at=10, own_s=20), 0.0),
        (accounts(at=10, own_s=20, waiting_s=10), 0.0),  # more threads than CPUs: they wait for each other
        (accounts(at=10, own_s=10, idle_s=10), 0.0),
        (accounts(at=10, own_s=10, waiting_s=0.2), 0.2),  # others had a CPU that it hardly wanted
        (accounts(at=10, own_s=10, waiting_s=9), 5.0),  # half of the CPU time, while it wanted all
        (accounts(at=10, own_s=10, interrupts_s=10, waiting_s=9), 0.0),
        (accounts(at=10, own_s=16, steal_s=4), 2.0),
        (accounts(at=10, own_s=20, steal_s=4), 2.0),  # where the kernel bills the run for what the hypervisor took
    ],
)
def test_what_a_run_lost_is_what_others_took_while_it_wanted_it(after: Accounts, lost: float) -> None:
    assert lost_s(accounts(), after, CPUS) == pytest.approx(lost)


SECONDS = st.floats(0, 100)


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_no_waiting_of_its_own_and_no_early_end_makes_it_more(
    own: float, idle: float, waiting: float, left: float
) -> None:
    looks = [accounts(), accounts(at=100, own_s=CPUS * own, idle_s=CPUS * idle, waiting_s=waiting)]
    share = stolen_share(looks, CPUS, budget_s=100 + left)
    assert share is not None and share <= max(0.0, 100 - own - idle) / (100 + left) + 1e-9


LOAD = "while True: pass"


@contextmanager
def load_on_every_cpu_of_a_run() -> Iterator[None]:
    """A busy loop on each CPU that a candidate may use."""
    cpus = set(sorted(os.sched_getaffinity(0))[:CPUS])
    loops = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in cpus]
    for loop in loops:
        os.sched_setaffinity(loop.pid, cpus)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def hungry(processes: int) -> str:
    """Wants all that its CPUs have for three seconds; says how long that took, and how much of it it got."""
    return gate_probe(f"""
        start()
        began = time.monotonic()
        children = []
        while len(children) < {processes - 1}:
            children.append(os.fork())
            if not children[-1]:
                children = None
                break
        while time.monotonic() < began + 3:
            pass
        if children is None:
            os._exit(0)
        for _ in children:
            os.wait()
        print(time.monotonic() - began, sum(os.times()[:4]))
    """)


def needs_pressure() -> None:
    group = cgroup.unified_of_process(1) or Path("/sys/fs/cgroup/unified")
    roots = (group, Path("/sys/fs/cgroup"))
    require(any((root / "cpu.pressure").exists() for root in roots), "the kernel keeps no PSI (boot with psi=1)")


def test_a_run_beside_a_load_is_void_beyond_what_others_may_take(run: Measure) -> None:
    needs_pressure()
    with load_on_every_cpu_of_a_run():
        told = run(hungry(CPUS), budget_s=4.0)
        void = run(hungry(CPUS), budget_s=4.0, limits={"stolen_cpu": 0.05})
    assert told.failure is not None and told.failure.kind == FailureKind.NO_SUBMIT, told
    assert told.stolen_cpu is not None and told.stolen_cpu > 0.1
    assert void.failure is not None and void.failure.kind == FailureKind.DISTURBED and void.failure.kind.ours, void
    assert void.failure.message.startswith("other processes took ")
    assert "; it ended so: ended while training without submitting a model" in void.failure.message


def test_a_run_that_crowds_its_own_cpus_was_not_robbed(run: Measure) -> None:
    """It waits all the time, and for itself: what it got itself is no part of what others took, be the machine busy or not."""
    needs_pressure()
    crowded = run(hungry(16), budget_s=4.0)
    assert crowded.failure is not None and crowded.failure.kind == FailureKind.NO_SUBMIT, crowded
    elapsed_s, own_s = map(float, crowded.log_tail.split())
    assert crowded.stolen_cpu is not None
    assert crowded.stolen_cpu * 4.0 <= max(0.0, elapsed_s - own_s / CPUS) + 0.5


# ---- others on the GPU -----------------------------------------------------------------------------------------------


TRAINS = "open('/proc/self/comm', 'w').write(NAME); start(); time.sleep(3)"


def at_work(name: str) -> int:
    """The process of that name, as this host numbers it."""
    return next(p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == name)


def measured_beside(
    run: Measure, folder: Path, source: str, pid: Callable[[], int], slowed_by: str = "sw_power_cap"
) -> Measurement:
    """Measure on a GPU where, from the start of training on, the driver reports a process for as long as it lives."""
    with ExitStack() as stack:
        stack.enter_context(recorded_gpu(folder))

        def on_phase(phase: str) -> None:
            if phase == "training":
                stack.enter_context(used_by(pid(), folder, slowed_by))

        return run(source, budget_s=4.0, device=h100(), on_phase=on_phase)


def test_a_run_that_has_its_gpu_to_itself_is_judged(run: Measure, tmp_path: Path) -> None:
    name = f"own-{os.getpid()}"
    measured = measured_beside(run, tmp_path, gate_probe(TRAINS.replace("NAME", repr(name))), lambda: at_work(name))
    assert measured.failure is not None and measured.failure.kind == FailureKind.NO_SUBMIT, measured
    assert measured.gpu is not None and (measured.gpu.others, measured.gpu.slowed_share) == ([], 0.0)
    assert measured.gpu.slowed_by == ["sw_power_cap"], "the looks saw the report of a GPU at work"


def test_a_process_that_comes_and_goes_makes_a_run_void(run: Measure, tmp_path: Path) -> None:
    def intrude() -> int:
        intruder = subprocess.Popen(["sleep", "2"])
        threading.Thread(target=intruder.wait).start()
        return intruder.pid

    measured = measured_beside(run, tmp_path, gate_probe("start(); time.sleep(3)"), intrude)
    assert measured.failure is not None and measured.failure.kind == FailureKind.DISTURBED, measured
    assert measured.failure.message.startswith(f"not alone on GPU {UUID}: python3 (pid ")
    assert measured.gpu is not None and len(measured.gpu.others) == 1


def test_a_process_that_was_there_before_makes_a_run_void(run_once: Measure, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as before, used_by(before.pid, tmp_path):
        measured = run_once(gate_probe("start(); time.sleep(2)"), budget_s=3.0, device=h100())
        before.kill()
    assert measured.failure is not None and measured.failure.kind == FailureKind.DISTURBED, measured


def test_a_child_that_has_ended_is_not_taken_for_a_stranger(run: Measure, tmp_path: Path) -> None:
    """cgroup v1 shows a zombie in the root's group: a candidate that leaves one about would be run again whenever it likes."""
    name = f"zombie-{os.getpid()}"[:15]
    fork = f"if not os.fork():\n    open('/proc/self/comm', 'w').write({name!r}); os._exit(0)\n"
    measured = measured_beside(
        run, tmp_path, gate_probe(f"{fork}time.sleep(1)\nstart(); time.sleep(3)"), lambda: at_work(name)
    )
    assert measured.failure is not None and measured.failure.kind == FailureKind.NO_SUBMIT, measured
    assert measured.gpu is not None and (measured.gpu.others, measured.gpu.slowed_by) == ([], ["sw_power_cap"])


def test_heat_makes_a_run_void_and_the_power_cap_does_not(run_once: Measure, tmp_path: Path) -> None:
    name = f"hot-{os.getpid()}"
    source = gate_probe(TRAINS.replace("NAME", repr(name)))
    hot = measured_beside(run_once, tmp_path, source, lambda: at_work(name), "hw_thermal_slowdown")
    assert hot.failure is not None and hot.failure.kind == FailureKind.DISTURBED, hot
    assert "of the budget (hw_thermal_slowdown): see to its cooling and power" in hot.failure.message
    assert hot.gpu is not None and hot.gpu.slowed_share is not None and hot.gpu.slowed_share > 0.1


def test_a_stranger_is_one_that_provably_is_not_of_the_container() -> None:
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    mine = cgroup.of_process(os.getpid())
    elsewhere = [group / "elsewhere" for group in mine]
    with subprocess.Popen(["sleep", "600"]) as other:
        later = time.clock_gettime(time.CLOCK_BOOTTIME) + 0.02
        assert is_stranger(other.pid, elsewhere, later)
        assert not is_stranger(other.pid, mine, later), "one of the container's"
        assert not is_stranger(other.pid, [], later), "nobody knows the container's groups"
        assert not is_stranger(other.pid, elsewhere, begun - 1), "the number was another's when the look began"
        other.kill()
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_stranger(other.pid, elsewhere, later), "it has ended"
    assert not is_stranger(other.pid, elsewhere, later), "it is gone"


def look(at: float, *slowed_by: str) -> GpuLook:
    return GpuLook(at, state_of(UUID)._replace(slowed_by=slowed_by), ())


def test_a_look_stands_for_the_time_before_it_and_a_single_one_for_nothing(tmp_path: Path) -> None:
    with recorded_gpu(tmp_path):
        heat = "sw_thermal_slowdown"
        assert slowed_share([look(10), look(15, heat), look(20)], 5.0, 100.0) == 0.0
        assert slowed_share([look(10), look(15, heat, "sw_power_cap"), look(30, "hw_slowdown")], 5.0, 100.0) == 0.2
        assert slowed_share([look(10, "sw_power_cap"), look(15, "applications_clocks_setting")], 5.0, 100.0) == 0.0
        stranger = GpuProcess(7, "game")
        reading = summarise(
            [look(10, heat), look(15)._replace(others=(stranger,)), look(20)._replace(others=(stranger,))], 5.0, 100.0
        )
        assert reading is not None and (reading.others, reading.slowed_by) == (["game (pid 7)"], [heat])
        assert summarise([], 5.0, 100.0) is None
