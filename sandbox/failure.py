"""How a measurement can end without a score, and how each way is recognised.

The first question is always whose fault it was. What a candidate causes counts against its idea; what the machine causes
is repeated. In doubt it is the candidate's, or a candidate could have itself re-run by imitating a broken host. So every
kind that is ours (`engine_lost`, `gpu_dirty`, `disturbed`, `host_error`) is raised by the host's own calls, never read from a log.
`disturbed` goes before whatever the candidate came to, since it may be why; what counts for it no candidate can bring about (watch.py).

Among the candidate's own, the host's evidence goes before the candidate's words:

    the host ended it               `timeout` at a deadline, `invalid` for a breach of the gate or for unusable files,
                                    `hopeless` for what it reported itself (off unless the org file says otherwise)
    the kernel killed for memory    `oom`, even if only a child died and the rest then fell over
    it ended by itself, non-zero    `oom` if its last words are an allocator's, else `crash` with its last line
    it ended by itself, zero        `no_submit`
"""

import re
import signal
from typing import NamedTuple

from records import Failure, FailureKind, HostFault

MESSAGE_CHARS = 400
LOG_CHARS = 8000

# Allocation failures as torch (CUDA and CPU) and Python put them in the last line.
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|CUDA out of memory|DefaultCPUAllocator|^MemoryError\b|std::bad_alloc")
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# C0 and C1 controls but newline and tab, and the characters that reorder or hide text.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class EngineLost(HostFault):
    """The container engine did not do what it was told."""


class Faulted(Exception):
    """The candidate ended its run without a score."""

    def __init__(self, kind: FailureKind, message: str):
        super().__init__(message)
        self.failure = fail(kind, message)


class Ending(NamedTuple):
    """How a container ended."""

    exit_code: int
    oom_killed: bool
    """The kernel killed one of its processes for memory."""
    peak_memory_bytes: int | None
    log: str


def classify(ending: Ending, doing: str) -> Faulted:
    """What it means that a container ended by itself before it had done its duty.

    Args:
        ending: how it ended.
        doing: what it was at, for the message ("before start_clock()").
    """
    last = last_line(ending.log)
    if ending.oom_killed:
        return Faulted(FailureKind.OOM, f"out of memory {doing}: the kernel killed it at its memory limit")
    if ending.exit_code == 0:
        return Faulted(FailureKind.NO_SUBMIT, f"ended {doing} without submitting a model")
    if OUT_OF_MEMORY.search(last):
        return Faulted(FailureKind.OOM, f"out of memory {doing}: {last}")
    return Faulted(FailureKind.CRASH, f"{describe_exit(ending.exit_code)} {doing}: {last or 'no output'}")


def describe_exit(code: int) -> str:
    if code > 128 and code - 128 in signal.valid_signals():
        return f"killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"


def fail(kind: FailureKind, message: str) -> Failure:
    return Failure(kind=kind, message=one_line(message))


def clean(text: str, limit_chars: int) -> str:
    """The end of a hostile text, without terminal escapes and control characters."""
    text = CONTROLS.sub("", ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return text[-limit_chars:]


def one_line(text: str) -> str:
    line = " ".join(clean(text, 16 * MESSAGE_CHARS).split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


def last_line(log: str) -> str:
    lines = [line.strip() for line in clean(log, LOG_CHARS).splitlines() if line.strip()]
    return lines[-1] if lines else ""
