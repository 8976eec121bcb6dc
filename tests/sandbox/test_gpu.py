"""A GPU is read as its driver reports it, and a run that leaves something on it is told from one that does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from records import FailureKind
from sandbox.gpu import GpuDirty, GpuProcess, in_use, left_behind, left_empty, read_states, state_of
from tests.sandbox.candidates import gate_probe, probe
from tests.sandbox.fixtures import Measure
from tests.sandbox.recorded_gpu import UUID, Say, h100, recorded_gpu


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    with recorded_gpu(tmp_path) as say:
        yield say


def test_an_idle_gpu_is_read_and_nobody_uses_it(say: Say) -> None:
    (state,) = read_states()
    assert (state.uuid, state.name, state.driver) == (UUID, "NVIDIA H100 80GB HBM3", "580.159.04")
    assert (state.memory_bytes, state.used_bytes) == (81559 * 2**20, 0)
    assert (state.sm_clock_mhz, state.max_sm_clock_mhz, state.temperature_c) == (345, 1980, 50)
    assert (state.power_w, state.power_limit_w, state.persistent) == (75.0, 700.0, True)
    assert (state.processes, state.slowed_by, in_use(state)) == ((), (), None)


def test_a_gpu_at_work_says_by_whom_and_what_slows_it(say: Say) -> None:
    say("busy")
    (state,) = read_states()
    assert state.processes == (GpuProcess(433, "python3"),)
    assert state.slowed_by == ("sw_power_cap",)
    assert in_use(state) == "used by python3 (pid 433)"


def test_memory_that_no_process_holds_is_in_use_unless_a_desktop_draws_there(say: Say) -> None:
    say("busy")
    state = state_of(UUID)._replace(processes=())
    assert in_use(state) == "1011 MiB are held, and by no process that can be seen"
    assert in_use(state._replace(desktop=True)) is None


def test_what_was_there_before_is_not_left_behind(say: Say) -> None:
    idle = state_of(UUID)
    say("busy")
    busy = state_of(UUID)
    assert left_behind(idle, idle) is None
    assert left_behind(busy, busy) is None
    assert left_behind(idle, busy) == f"GPU {UUID} is still used by python3 (pid 433)"
    assert left_behind(idle, busy._replace(processes=())) == (
        f"1011 MiB of GPU {UUID} are still held, and by no process that can be seen"
    )
    assert left_behind(idle, idle._replace(used_bytes=20 * 2**20)) is None


def test_what_ends_in_time_was_not_left_behind(say: Say) -> None:
    with left_empty(h100(), patience_s=20.0):
        say("busy")
        say("idle")
    with pytest.raises(GpuDirty, match="still used by python3"), left_empty(h100(), patience_s=0.0):
        say("busy")


def test_a_gpu_that_is_gone_is_not_empty(say: Say) -> None:
    with pytest.raises(GpuDirty, match=r"does not report GPU .* any more"), left_empty(h100(), patience_s=0.0):
        say("lost")


def test_a_run_that_leaves_its_gpu_in_use_is_a_fault_of_ours_whatever_it_came_to(run: Measure, say: Say) -> None:
    clean = run(probe("raise SystemExit(3)"), device=h100())
    assert clean.failure is not None and clean.failure.kind == FailureKind.CRASH
    left = run(
        gate_probe("start(); raise SystemExit(3)"),
        device=h100(),
        limits={"gpu_empty_s": 0.0},
        on_phase=lambda phase: say("busy") if phase == "training" else None,
    )
    assert left.failure is not None and left.failure.kind == FailureKind.GPU_DIRTY and left.failure.kind.ours
    assert left.failure.message == f"GPU {UUID} is still used by python3 (pid 433)"
