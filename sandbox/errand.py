"""One errand of a command-line agent that somebody else wrote: a container with a task to read and a folder to answer in.

Every control of a candidate's container holds here too, on the CPU alone, with the least weight, since a run may be measured beside it.
It finds /task and /agent (read-only), may write to /answer and /tmp, and reaches the hosts that were named for it (doors.py), as a
rule none. What it leaves is taken as a candidate's weights are (collect.py), when every process of it is dead.
"""

import json
import math
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from records import Errand, FailureKind, HostFault, Returned
from sandbox.device import find_device
from sandbox.doors import Door, doors_to, hosts_file, open_doors
from sandbox.engines import Container, Engine
from sandbox.failure import LOG_CHARS, Ending, Faulted, clean, describe_exit, last_line
from sandbox.launch import launched, with_outbox
from sandbox.outbox import Outbox
from sandbox.oversee import Cancelled
from sandbox.profile import LEAST_SHARES, LaunchProfile, Limits, Mount, lab_id, reserved_uid
from sandbox.rundir import readable_folder, run_directory, write_readable

START = Path(__file__).with_name("inside") / "start.py"
CERTIFICATES = Path("/etc/ssl/certs")
ANSWER_BYTES = 256 * 1024
"""Of one file."""
POLL_S = 0.2
GIBIBYTE = 2**30
LIMITS = Limits(
    cpus=1,
    memory_bytes=min(4 * GIBIBYTE, psutil.virtual_memory().total // 2),
    pids=512,
    tmp_bytes=GIBIBYTE,
    shm_bytes=GIBIBYTE // 8,
    out_bytes=GIBIBYTE // 64,
    stolen_cpu=math.inf,  # nothing is measured
    cpu_shares=LEAST_SHARES,
)


def run_errand(
    errand: Errand,
    engine: Engine,
    *,
    limits: Limits = LIMITS,
    state_dir: Path,
    cancel: threading.Event | None = None,
) -> Returned:
    """Send an agent on an errand. Whatever it does wrong is in what is returned.

    Args:
        errand: the command, and all that it is given.
        engine: what runs the container.
        limits: what it may use.
        state_dir: the lab's state directory.
        cancel: ends it early when set.

    Raises:
        HostFault: the engine or the machine failed, or it was cancelled.
    """
    try:
        return run(errand, engine, limits, state_dir, cancel or threading.Event())
    except OSError as error:
        raise HostFault(f"an agent's container could not be served: {error}") from None


def run(errand: Errand, engine: Engine, limits: Limits, state_dir: Path, cancel: threading.Event) -> Returned:
    doors = doors_to(errand.hosts)
    with run_directory(state_dir, f"errand-{secrets.token_hex(6)}") as folder, reserved_uid() as uid:
        plain = LaunchProfile(
            lab_id(state_dir),
            folder.name,
            "agent",
            uid,
            ("-I", "-S", "-B", "/lab/start.py"),
            tuple(equip(folder, errand, doors)),
            find_device("cpu"),
            limits,
            variables=errand.variables,
            loopback=bool(doors),
        )
        with with_outbox(engine, plain, folder, "/answer") as (profile, outbox):
            with open_doors(doors, folder / "gate"), launched(engine, profile) as container:
                in_time = wait(container, errand.timeout_s, cancel)
                container.kill()
                ending = container.ending()
            log = clean(ending.log, LOG_CHARS)
            try:
                check(ending, in_time, errand.timeout_s)
                return Returned(files=dict(collect(outbox, folder, errand)), failure=None, log=log)
            except Faulted as fault:
                return Returned(files={}, failure=fault.failure, log=log)


def equip(folder: Path, errand: Errand, doors: list[Door]) -> Iterator[Mount]:
    """What the container sees of the host besides its image."""
    lab, task, gate = (readable_folder(folder / name) for name in ("lab", "task", "gate"))
    leading = [(door.address, door.port, f"/gate/{door.socket}") for door in doors]
    orders = {"command": errand.command, "doors": leading, "timeout_s": errand.timeout_s}
    write_readable(lab / "start.py", START.read_bytes())
    write_readable(lab / "errand.json", json.dumps(orders).encode())
    for name, text in errand.files.items():
        write_readable(task / name, text.encode(errors="replace"))
    yield from (Mount(lab, "/lab"), Mount(task, "/task"), Mount(gate, "/gate"))
    if errand.agent is not None:
        yield Mount(errand.agent, "/agent")
    if doors:
        write_readable(folder / "hosts", hosts_file(doors).encode())
        yield Mount(folder / "hosts", "/etc/hosts")
        if CERTIFICATES.is_dir():
            yield Mount(CERTIFICATES, str(CERTIFICATES))


def wait(container: Container, timeout_s: float, cancel: threading.Event) -> bool:
    """Whether it ended in time. Raises Cancelled."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if container.wait(min(POLL_S, left_s)):
            return True
        if cancel.is_set():
            raise Cancelled("cancelled")
    return False


def check(ending: Ending, in_time: bool, timeout_s: float) -> None:
    """Raises Faulted if it did not end well by itself."""
    if not in_time:
        raise Faulted(FailureKind.TIMEOUT, f"took longer than {timeout_s:g} s")
    if ending.exit_code == 0:
        return
    if ending.oom_killed:
        raise Faulted(FailureKind.OOM, "out of memory: the kernel killed it at its memory limit")
    said = last_line(ending.log) or "no output"
    raise Faulted(FailureKind.CRASH, f"{describe_exit(ending.exit_code)}: {said}")


def collect(outbox: Outbox, folder: Path, errand: Errand) -> Iterator[tuple[str, str]]:
    """Name and text of each answer that it left. Raises Faulted for one that is no plain text file of limited size."""
    taken = readable_folder(folder / "taken")
    for name in errand.answers:
        try:
            outbox.collect(name, taken / name, ANSWER_BYTES)
        except Faulted as fault:
            if fault.failure.kind == FailureKind.NO_SUBMIT:
                continue
            raise
        try:
            yield name, (taken / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise Faulted(FailureKind.INVALID, f"{name} is not UTF-8 text") from None
