"""The state of a GPU: what runs on it, what it holds, how fast it may go. And that a run leaves it as it was."""

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from records import HostFault
from sandbox.device import Device, nvidia_smi

MEBIBYTE = 2**20
SLACK_BYTES = 64 * MEBIBYTE
"""The driver's own use of memory moves by a few MiB from one report to the next."""
IDLE_BYTES = 512 * MEBIBYTE
"""What a driver may hold for itself on a GPU that nobody uses."""
POLL_S = 0.25


class GpuDirty(HostFault):
    """A run is over, and something is still on its GPU."""


class GpuProcess(NamedTuple):
    pid: int
    name: str


class GpuState(NamedTuple):
    """One report of nvidia-smi. What a GPU does not report is None."""

    uuid: str
    name: str
    driver: str
    memory_bytes: int | None
    used_bytes: int | None
    processes: tuple[GpuProcess, ...]
    """Those that compute."""
    desktop: bool
    """Others draw on it, and hold memory for that."""
    sm_clock_mhz: int | None
    max_sm_clock_mhz: int | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: int | None
    persistent: bool
    """The driver stays loaded while nobody uses the GPU; otherwise each run waits for it."""
    slowed_by: tuple[str, ...]
    """Reasons for clocks below the maximum that are active now, such as `hw_thermal_slowdown`; idleness is none."""


def read_states() -> list[GpuState]:
    """All GPUs of this machine, in nvidia-smi's order; none without a driver."""
    report = nvidia_smi()
    if report is None:
        return []
    driver = report.findtext("driver_version", "")
    return [_read_state(element, driver) for element in report.iter("gpu")]


def _read_state(gpu: ElementTree.Element, driver: str) -> GpuState:
    return GpuState(
        uuid=gpu.findtext("uuid", ""),
        name=gpu.findtext("product_name", "NVIDIA GPU"),
        driver=driver,
        memory_bytes=_mebibytes(gpu, "fb_memory_usage/total"),
        used_bytes=_mebibytes(gpu, "fb_memory_usage/used"),
        processes=tuple(_processes(gpu)),
        desktop=any(kind.text == "G" for kind in gpu.iterfind("processes/process_info/type")),
        sm_clock_mhz=_integer(gpu, "clocks/sm_clock"),
        max_sm_clock_mhz=_integer(gpu, "max_clocks/sm_clock"),
        # The names differ between drivers: those of 580 and later first.
        power_w=_number(gpu, "gpu_power_readings/instant_power_draw", "gpu_power_readings/power_draw", "power_readings/power_draw"),
        power_limit_w=_number(gpu, "gpu_power_readings/current_power_limit", "power_readings/power_limit"),
        temperature_c=_integer(gpu, "temperature/gpu_temp"),
        persistent=gpu.findtext("persistence_mode", "") == "Enabled",
        slowed_by=tuple(_reasons(gpu)),
    )  # fmt: skip


def _processes(gpu: ElementTree.Element) -> Iterator[GpuProcess]:
    for process in gpu.iterfind("processes/process_info"):
        if "C" in process.findtext("type", ""):  # C, C+G, M+C
            yield GpuProcess(int(process.findtext("pid", "0")), process.findtext("process_name", "unknown"))


def _reasons(gpu: ElementTree.Element) -> Iterator[str]:
    for group in ("clocks_event_reasons", "clocks_throttle_reasons"):
        for reason in gpu.iterfind(f"{group}/*"):
            name = reason.tag.removeprefix("clocks_event_reason_").removeprefix("clocks_throttle_reason_")
            if reason.text == "Active" and name != "gpu_idle":
                yield name


def _number(gpu: ElementTree.Element, *paths: str) -> float | None:
    """The first of these that is a number; its unit is dropped."""
    for path in paths:
        try:
            return float(gpu.findtext(path, "").split()[0])
        except (IndexError, ValueError):  # absent, or N/A
            continue
    return None


def _integer(gpu: ElementTree.Element, path: str) -> int | None:
    number = _number(gpu, path)
    return None if number is None else int(number)


def _mebibytes(gpu: ElementTree.Element, path: str) -> int | None:
    number = _number(gpu, path)
    return None if number is None else int(number) * MEBIBYTE


# ---- left as it was --------------------------------------------------------------------------------------------------


@contextmanager
def left_empty(device: Device, patience_s: float) -> Iterator[None]:
    """Whatever the block starts on the GPU is gone when it ends: its processes, and the memory that they held.

    Args:
        device: nothing to do if it is the CPU.
        patience_s: for the driver to tear down the contexts of killed processes.

    Raises:
        GpuDirty: it is not, or the GPU does not answer any more; also when the block itself failed.
    """
    if device.gpu is None:
        yield
        return
    before = state_of(device.id)
    try:
        yield
    finally:
        await_state(lambda: left_behind(before, state_of(device.id)), patience_s)


def await_state(complaint: Callable[[], str | None], patience_s: float) -> None:
    """Wait until there is nothing to complain about. Raises GpuDirty with the last complaint."""
    deadline = time.monotonic() + patience_s
    while (said := complaint()) is not None:
        if time.monotonic() >= deadline:
            raise GpuDirty(said)
        time.sleep(POLL_S)


def in_use(state: GpuState) -> str | None:
    """Who uses a GPU, in words; None when nobody computes on it."""
    if state.processes:
        return f"used by {named(state.processes)}"
    if not state.desktop and (state.used_bytes or 0) > IDLE_BYTES:
        return f"{(state.used_bytes or 0) // MEBIBYTE} MiB are held, and by no process that can be seen"
    return None


def named(processes: Iterable[GpuProcess]) -> str:
    return ", ".join(f"{process.name} (pid {process.pid})" for process in processes)


def state_of(uuid: str) -> GpuState:
    """Raises GpuDirty if the GPU is not reported: it has fallen off the bus, or its driver is wedged."""
    for state in read_states():
        if state.uuid == uuid:
            return state
    raise GpuDirty(
        f"nvidia-smi does not report GPU {uuid} any more: see `dmesg | grep -i xid`, and restart the machine"
    )


def left_behind(before: GpuState, after: GpuState) -> str | None:
    """What is on a GPU that was not there before, in words; None when it is as it was."""
    new = [process for process in after.processes if process.pid not in {p.pid for p in before.processes}]
    if new:
        return f"GPU {after.uuid} is still used by {named(new)}"
    held = (after.used_bytes or 0) - (before.used_bytes or 0)
    if held > SLACK_BYTES:
        return f"{held // MEBIBYTE} MiB of GPU {after.uuid} are still held, and by no process that can be seen"
    return None
