"""The preflight: two tiny steps of a train.py on the CPU, so that a typo or a wrong shape costs its author seconds and no GPU.

Untrusted code runs in the containers of a real run, through the same code, and nothing of a real run is in reach of it: no GPU, no
text of the dataset (tokens are made up), no clock that matters, no receipt. The sizes of the profile are cut down to what a CPU does in
no time. What only a GPU runs (compilation, fused kernels, bfloat16) is not tried, so `passes` is no promise.

A candidate with sizes of its own in place of the profile's may need more time or memory than there is here and still be sound.
That is no failure but `unknown`: calling it one would turn away just those edits that are about sizes.
"""

import math
import re
import secrets
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from records import Failure, FailureKind, Preflighted, Progress
from sandbox.audit import Text
from sandbox.dataset import Dataset, Knobs, Rows
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.failure import LOG_CHARS, Ending, Faulted, clean
from sandbox.measure import EarlyStop, Job, Notes
from sandbox.oversee import Cancelled
from sandbox.profile import LEAST_SHARES, Limits
from sandbox.rundir import readable_folder, run_directory, write_readable
from sandbox.score import Exam, Rigour

SMALL = {"max_seq_len": 64, "depth": 2, "device_batch_size": 4, "total_batch_tokens": 512}
"""Knobs of the profile are at most that: two layers, and steps of two batches."""
TRAIN_ROWS = 64
SCORED_ROWS = 4
BUDGET_S = 1.0
"""Of training: a step takes some 10 ms at these sizes, and where it is slow train.py stops after the first."""
CPU_S = 60
"""Of each of the two processes, of which importing torch takes some 3."""
CAP_S = 300.0
"""Wall time for everything: beside a run that leaves no CPU idle a preflight has to wait for its gaps."""
GIBIBYTE = 2**30
LIMITS = Limits(
    cpus=1,
    memory_bytes=min(4 * GIBIBYTE, psutil.virtual_memory().total // 2),
    out_bytes=GIBIBYTE,
    startup_s=CAP_S,
    grace_s=CAP_S,
    import_s=CAP_S,
    score_s=CAP_S,
    stolen_cpu=math.inf,  # nothing is measured
    cpu_s=CPU_S,
    cpu_shares=LEAST_SHARES,  # somebody else's run may be measured beside it
)
"""Of a preflight. What it is asked for is counted in CPU time, or it would seem slow where others are at work."""

QUOTED_LINES = 16
LINE_CHARS = 160
FRAME = re.compile(r'\s*File "(?P<path>[^"]*)", line \d+')
MARKS = re.compile(r"[\s~^]*")
"""What Python underlines a part of the line above with."""


class Patience(threading.Event):
    """Is set when the caller's event is, or when the time is over.

    Args:
        cancel: the caller's.
        cap_s: seconds from now.
    """

    def __init__(self, cancel: threading.Event, cap_s: float):
        super().__init__()
        self._cancel = cancel
        self._deadline = time.monotonic() + cap_s

    def is_set(self) -> bool:
        return self._cancel.is_set() or time.monotonic() >= self._deadline


def preflight(
    source: str,
    dataset: Dataset,
    engine: Engine,
    *,
    limits: Limits = LIMITS,
    cap_s: float = CAP_S,
    state_dir: Path,
    cancel: threading.Event | None = None,
) -> Preflighted:
    """Train a train.py for a moment, collect its weights, and have them claim the loss of a few rows.

    Args:
        source: text of the train.py.
        dataset: whose profile it is written for; nothing but the manifest is read.
        engine: what runs the containers.
        limits: what it may use; always on the CPU.
        cap_s: seconds for everything.
        state_dir: the lab's state directory.
        cancel: ends it early when set.

    Raises:
        HostFault: the engine or the machine failed, or it was cancelled: nothing is known of the candidate.
    """
    cancel = cancel or threading.Event()
    run_id, notes, began = f"preflight-{secrets.token_hex(6)}", Notes(), time.monotonic()
    with run_directory(state_dir, run_id) as folder:
        small = shrink(dataset, readable_folder(folder / "made-up"))
        job = Job(source.encode(errors="replace"), small, engine, BUDGET_S, 0, find_device("cpu"), limits, run_id, state_dir, Patience(cancel, cap_s), Rigour())  # fmt: skip
        try:
            job.train(folder, notes, EarlyStop(not_finite, control=0.0), lambda _: None, lambda _: None)
            claim(job, folder, notes)
        except Faulted as fault:
            return tell(fault.failure, notes.scoring or notes.training, job)
        except Cancelled:
            if cancel.is_set():
                raise
            return unknown(f"took longer than {cap_s:g} s", job)
    if not notes.timing.steps:
        return unknown(f"submitted without having reported a step in {BUDGET_S:g} s", job)
    took_s = time.monotonic() - began
    text = f"started, trained for {notes.timing.steps} steps, submitted and was scored, all in {took_s:.0f} s"
    return Preflighted(outcome="passes", text=text)


def claim(job: Job, folder: Path, notes: Notes) -> None:
    """The collected weights claim the loss of a few rows. Raises Faulted if they cannot."""
    rows = job.dataset.rows("train")[:SCORED_ROWS]
    job.equip(folder, "claim", rows)
    every_token_counts = np.ones(job.dataset.vocab_size, np.int32)
    exam = Exam(Text(rows, every_token_counts), rows, len(rows), job.rigour)
    with job.scorer(folder, "claim") as scorer, job.at_work(scorer, notes) as respondent:
        exam.collect_claims(respondent)


def not_finite(reports: Sequence[Progress]) -> str | None:
    """See EarlyStop."""
    return None if math.isfinite(reports[-1].nats) else f"the loss is not finite at step {reports[-1].step}"


# ---- what it is given ------------------------------------------------------------------------------------------------


def shrink(dataset: Dataset, folder: Path) -> Dataset:
    """A dataset of made-up rows in `folder`, with the vocabulary of another one and its sizes cut down.

    Not its text: what a candidate prints here is read by its author, who has no business with it.
    """
    knobs = {name: min(value, SMALL.get(name, value)) for name, value in dataset.profile.items()}
    shape = (TRAIN_ROWS, knobs["max_seq_len"] + 1)
    rows: Rows = np.random.default_rng(0).integers(dataset.vocab_size, size=shape).astype(dataset.manifest.dtype)
    write_readable(folder / "train.bin", rows.astype(rows.dtype.newbyteorder("<")).tobytes())
    manifest = dataset.manifest.model_copy(
        update={"knobs": Knobs(**knobs), "rows": {"train": TRAIN_ROWS, "val": 0, "test": 0}}
    )
    return replace(dataset, path=folder, manifest=manifest)


# ---- what its author is told -----------------------------------------------------------------------------------------


def tell(failure: Failure, ending: Ending | None, job: Job) -> Preflighted:
    """A failure in a few lines: what it was, the sizes, and the end of what the candidate printed.

    Args:
        failure: the candidate's.
        ending: of the container in which it was running last.
        job: what was tried.
    """
    log = "" if ending is None else ending.log
    # The kernel ends so whoever is out of CPU time; whom the host ends has not crashed.
    if failure.kind == FailureKind.CRASH and ending is not None and ending.exit_code == 128 + signal.SIGKILL:
        return unknown(f"took more than {job.limits.cpu_s} s of CPU time", job, log)
    if failure.kind in (FailureKind.TIMEOUT, FailureKind.OOM):
        return unknown(failure.message, job, log)
    return Preflighted(outcome="fails", text=lines(f"{failure.kind}: {failure.message}", job, log))


def unknown(what: str, job: Job, log: str = "") -> Preflighted:
    return Preflighted(outcome="unknown", text=lines(f"{what}, on one CPU: not known whether it works", job, log))


def lines(first: str, job: Job, log: str) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in job.dataset.profile.items() if name in SMALL)
    quoted = "\n".join(line[:LINE_CHARS] for line in own_lines(clean(log, LOG_CHARS))[-QUOTED_LINES:])
    told = f"{first}\n(This was a preflight: on a CPU, with PROFILE cut down to {sizes}.)"
    return f"{told}\nIts last output:\n{quoted}" if quoted else told


def own_lines(log: str) -> list[str]:
    """The lines of a log, but of a traceback only the frames in /lab: train.py, prepare.py. Most others are torch's own."""
    found, ours = [], True
    for line in log.splitlines():
        if frame := FRAME.match(line):
            ours = frame["path"].startswith("/lab/")
        elif not line.startswith("    "):
            ours = True
        if ours and not MARKS.fullmatch(line):
            found.append(line)
    return found
