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
