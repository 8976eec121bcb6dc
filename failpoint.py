"""Failpoints: named places between two steps, at which a test has a process die, stop or wait.

    AUTORESEARCH_FAILPOINT="runner.recorded:kill"                       kill -9 of the process that gets there
    AUTORESEARCH_FAILPOINT="relay.landed:stop"                          SIGSTOP, until somebody sends SIGCONT
    AUTORESEARCH_FAILPOINT="relay.landed:sleep=5,arbiter.judged:kill"   several
    AUTORESEARCH_FAILPOINT="runner.recorded:kill:at=3"                  the third time that this process gets there
    AUTORESEARCH_FAILPOINT="runner.recorded:kill:once=/tmp/mark"        once for all processes; the file then holds the pid

Without the variable, a failpoint is one look-up in an empty dictionary. docs/failpoints.md says what has happened at each.
"""

import os
import signal
import time

VARIABLE = "AUTORESEARCH_FAILPOINT"

NAMES = frozenset(
    f"{process}.{step}"
    for process, steps in {
        "launcher": (
            "redis_opened locked branched created reopened released recovered ray_started seated working draining stopped "
            "unseated"
        ),
        "planner": "answered proposed",
        "coder": "claimed written coded",
        "reviewer": "judged reviewed",
        "runner": "leased swept requeued taken measured quarantined recorded",
        "measure": "begun staged started ready trained collected claimed audited signed",
        "lease": "acquired renewing renewed closing released",
        "arbiter": (
            "looked read rebased baseline_asked crowned repeat_asked pooled sent_back unseated judged discarded confirming "
            "prepared intended"
        ),
        "relay": "leased read checked renewed landed verified merged abandoned",
        "git": "blob_written tree_written commit_written ref_moving ref_moved",
        "redis": "starting spawned stopping stopped",
    }.items()
    for step in steps.split()
)


class Failpoint:
    """What is to happen at one place. Raises ValueError for a name or an action that does not exist."""

    def __init__(self, text: str):
        name, action, *options = text.split(":")
        self.name = name
        self.action, _, seconds = action.partition("=")
        self.sleep_s = float(seconds or 0)
        values = dict(option.split("=", 1) for option in options)
        self.wait_for = int(values.pop("at", 1))
        self.mark = values.pop("once", None)
        if name not in NAMES or self.action not in ("kill", "stop", "sleep") or values:
            raise ValueError(f"{VARIABLE}: {text!r}: no such failpoint, action or option; see failpoint.py")

    def fire(self) -> None:
        self.wait_for -= 1
        if self.wait_for > 0 or not self.first():
            return
        if self.action == "sleep":
            time.sleep(self.sleep_s)
        else:
            os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)

    def first(self) -> bool:
        """Whether no process was here before, where that matters."""
        if self.mark is None:
            return True
        part = f"{self.mark}.{os.getpid()}"
        with open(part, "w") as file:  # noqa: PTH123 - this module imports next to nothing
            file.write(str(os.getpid()))
        try:
            os.link(part, self.mark)  # there with its content, or not at all
        except FileExistsError:
            return False
        finally:
            os.unlink(part)  # noqa: PTH108
        return True


ARMED: dict[str, Failpoint] = {}


def arm(text: str) -> None:
    """Do what the variable asks for, in place of what was asked for before."""
    found = [Failpoint(part) for part in text.split(",") if part]
    ARMED.clear()
    ARMED.update({failpoint.name: failpoint for failpoint in found})


def reach(name: str) -> None:
    """The process is here."""
    failpoint = ARMED.get(name)
    if failpoint is not None:
        failpoint.fire()


arm(os.environ.get(VARIABLE, ""))
