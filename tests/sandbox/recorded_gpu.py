"""A GPU that says what one NVIDIA H100 said: reports of nvidia-smi recorded on 2026-11-24 (driver 580.159.04), idle and at work."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.device import Device, find_device

REPORTS = Path(__file__).with_name("reports")
UUID = "GPU-1519457c-0000-0000-0000-5ee7bba4b54e"
Say = Callable[[str], None]
BUSY_PID = 433


@contextmanager
def used_by(pid: int, folder: Path, slowed_by: str = "sw_power_cap") -> Iterator[None]:
    """`nvidia-smi` on the PATH says that a process is at work as long as it is there, and something then slows the GPU down."""
    with recorded_gpu(folder, "idle"):
        report = (REPORTS / "busy.xml").read_text().replace(f"<pid>{BUSY_PID}</pid>", f"<pid>{pid}</pid>")
        quick, slow = (f"reason_{slowed_by}>{state}<" for state in ("Not Active", "Active"))
        report = report.replace("reason_sw_power_cap>Active<", "reason_sw_power_cap>Not Active<").replace(quick, slow)
        (folder / "busy.xml").write_text(report)
        choice = (
            f'if kill -0 {pid} 2>/dev/null; then report=busy; else report=report; fi; exec cat "{folder}/$report.xml"'
        )
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{choice}\n")
        yield


@contextmanager
def recorded_gpu(folder: Path, first: str = "idle") -> Iterator[Say]:
    """`nvidia-smi` on the PATH prints a recorded report; calling what is yielded changes which: `idle`, `busy` or `lost`."""

    def say(name: str) -> None:
        (folder / "report.xml").unlink(missing_ok=True)
        if name != "lost":
            shutil.copy(REPORTS / f"{name}.xml", folder / "report.xml")

    say(first)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nexec cat {folder}/report.xml\n")
    program.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield say
    finally:
        os.environ["PATH"] = before


def h100() -> Device:
    """The recorded GPU, while it is on the PATH."""
    return find_device("cuda")
