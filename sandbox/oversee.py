"""Oversees a container while it trains or scores: the host's clock decides when it has had its time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from records import FailureKind, HostFault, Progress
from sandbox.engines import Container
from sandbox.failure import Faulted, classify
from sandbox.gate import Done, Gate, GateError, Incoming, Ready, Report, Submit

POLL_S = 0.05
FORWARD_S = 0.2
"""Progress is passed on no more often than this."""
FAREWELL_S = 1.0
"""A candidate that is done may take this long to exit by itself."""


class Cancelled(HostFault):
    """The caller ended the run."""


@dataclass
class Timing:
    """What is known of a training run so far. Steps and tokens are the candidate's own claims."""

    startup_s: float | None = None
    go: float | None = None
    """time.monotonic() when the clock started."""
    train_s: float | None = None
    steps: int | None = None
    tokens: int | None = None
    reports: list[Progress] = field(default_factory=list)
    """All of them, as many as the gate lets through."""


class Training:
    """One training run, from container start to complete weights.

    Args:
        container: just started.
        gate: where it will report.
        cancel: ends the run early when set.
        timing: is filled in on the way, so that a failed run tells how far it came.
    """

    def __init__(self, container: Container, gate: Gate, cancel: threading.Event, timing: Timing):
        self.container = container
        self.gate = gate
        self.cancel = cancel
        self.timing = timing
        self.started = time.monotonic()

    def await_ready(self, cap_s: float) -> None:
        """Wait for start_clock().

        Raises:
            Faulted: it did not call it in time, said something else, or ended.
        """
        message = self._next(self.started + cap_s, "before start_clock()", f"no start_clock() within {cap_s:g} s")
        if not isinstance(message, Ready):
            raise Faulted(FailureKind.INVALID, f"gate: {message.type!r} before 'ready'")
        self.timing.startup_s = time.monotonic() - self.started

    def await_weights(
        self,
        budget_s: float,
        grace_s: float,
        data_seed: int,
        on_progress: Callable[[Progress], None],
        on_report: Callable[[Sequence[Progress]], None] = lambda _: None,
    ) -> None:
        """Start the clock and wait until the weights are complete; then see the process off.

        Args:
            budget_s: seconds of training.
            grace_s: seconds after those in which the weights must be complete.
            data_seed: what the order of the data follows from.
            on_progress: told what the candidate reports, a few times a second.
            on_report: told all that it has reported so far, at each report; may raise Faulted.

        Raises:
            Faulted: the time was over first, it broke the protocol, or it ended.
        """
        self.timing.go = go = time.monotonic()
        self.gate.go(budget_s, data_seed)
        deadline, forwarded = go + budget_s + grace_s, 0.0
        late = f"no complete weights {grace_s:g} s after the budget of {budget_s:g} s"
        while True:
            message = self._next(deadline, "while training", late)
            now = time.monotonic()
            match message:
                case Report():
                    self.timing.steps, self.timing.tokens = message.step, message.tokens
                    progress = Progress(step=message.step, tokens=message.tokens, loss=message.loss, elapsed_s=now - go)
                    self.timing.reports.append(progress)
                    if now - forwarded >= FORWARD_S:
                        forwarded = now
                        on_progress(progress)
                    on_report(self.timing.reports)
                case Submit():
                    self.timing.steps, self.timing.tokens = message.step, message.tokens
                case Done():
                    self.timing.train_s = now - go
                    self.gate.acknowledge()
                    self.container.wait(max(0.0, min(FAREWELL_S, deadline - now)))
                    return
                case Ready():
                    raise Faulted(FailureKind.INVALID, "gate: a second 'ready'")

    def _next(self, deadline: float, doing: str, late: str) -> Incoming:
        ended = False
        while True:
            if self.cancel.is_set():
                raise Cancelled("cancelled")
            if time.monotonic() >= deadline:
                raise Faulted(FailureKind.TIMEOUT, late)
            try:
                message = self.gate.receive(0.0 if ended else POLL_S)
            except GateError as error:
                raise Faulted(FailureKind.INVALID, f"gate: {error}") from None
            if message is not None:
                return message
            if ended:  # and all that it had said before is read
                raise classify(self.container.ending(), doing)
            ended = self.container.wait(0.0)
