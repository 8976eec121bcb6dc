"""Keeps the seats of an org busy: one step at a time each, restarted when they die, until told to drain."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions

from agents.minds.pause import Rejected, Unavailable
from ledger import Quarantined
from ledger.purse import Broke
from orgs.seats import Seat, Site
from records import BadInput, HostFault, Refusal

IDLE_S = 0.3
"""Pause of a seat that found nothing to do."""
FAILURE_PAUSE_S = 2.0
MENDING_PAUSE_S = 5.0
"""Pause of a seat that cannot use a file that a person is editing, or a device in quarantine."""
REJECTED_PAUSE_S = 60.0
"""Pause of a seat whose API says no: each time is a call that is written down."""
CLOSE_TIMEOUT_S = 5.0
MAX_FAILURES = 5
"""Failed steps of one seat in a row that end the campaign."""


@dataclass
class Chair:
    """A seat as the pipeline sees it: the actor, and when it may step next."""

    role: str
    name: str
    actor: Any
    ready_at: float = 0.0
    failures: int = 0
    complaint: str = ""
    """What a seat waits for, said once."""


@dataclass
class Pipeline:
    """All the seats. `advance` is called in a loop; it starts steps, gathers results and never blocks for long."""

    say: Callable[[str], None]
    chairs: list[Chair] = field(default_factory=list)
    pending: dict[Any, Chair] = field(default_factory=dict)

    def add(self, role: str, site: Site, count: int = 1) -> None:
        """Seat `count` actors in a role."""
        actor_class = ray.remote(Seat)
        for i in range(count):
            name = f"{site.campaign}/{role}-{i}"
            actor = actor_class.options(num_cpus=0, max_restarts=-1, name=name, namespace="autoresearch-org").remote(
                role, replace(site.of(role), seat=f"{role}-{i}")
            )
            self.chairs.append(Chair(role, f"{role}-{i}", actor))

    def close(self) -> None:
        """End all seats; the idle ones give back what they hold first."""
        busy = list(self.pending.values())
        closing = [chair.actor.close.remote() for chair in self.chairs if chair not in busy]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for chair in self.chairs:
            ray.kill(chair.actor)

    def busy(self, role: str) -> int:
        """Steps of a role that are under way."""
        return sum(chair.role == role for chair in self.pending.values())

    def advance(self, may_step: Callable[[str], bool], timeout_s: float = 0.25) -> None:
        """Start a step at every idle seat that may, then gather the steps that have ended.

        Raises:
            HostFault: a seat failed MAX_FAILURES times in a row.
        """
        idle = [chair for chair in self.chairs if chair not in self.pending.values()]
        for chair in idle:
            if chair.ready_at <= time.monotonic() and may_step(chair.role):
                self.pending[chair.actor.step.remote()] = chair
        if not self.pending:
            time.sleep(timeout_s)
            return
        ended, _ = ray.wait(list(self.pending), num_returns=1, timeout=timeout_s)
        for reference in ended:
            self.settle(self.pending.pop(reference), reference)

    def settle(self, chair: Chair, reference: Any) -> None:
        """Note how a step ended. A failure pauses the seat, too many end the campaign; a role file that a person has broken
        and a GPU in quarantine are waited for."""
        try:
            worked = ray.get(reference)
        except ray.exceptions.RayError as error:
            cause = cause_of(error)
            if isinstance(cause, Unavailable):
                self.pause(chair.role, cause)
            elif isinstance(cause, Broke):
                self.await_mending(chair, f"the {cause.of}'s money is spent ([money] of the org file)")
            elif isinstance(cause, BadInput | Quarantined):
                self.await_mending(
                    chair, str(cause), REJECTED_PAUSE_S if isinstance(cause, Rejected) else MENDING_PAUSE_S
                )
            else:
                self.count_failure(chair, explain(error))
            return
        chair.failures = 0
        if worked and chair.complaint:
            self.say(f"{chair.name} goes on")
            chair.complaint = ""
        chair.ready_at = 0.0 if worked else time.monotonic() + IDLE_S

    def pause(self, role: str, cause: Unavailable) -> None:
        """The language model of a role does not answer: its seats rest for a while, the others go on."""
        seats = [chair for chair in self.chairs if chair.role == role]
        if not any(chair.complaint for chair in seats):
            self.say(f"the {role} pauses, and asks again every {cause.retry_after_s:.0f} s: {cause}")
        for chair in seats:
            chair.complaint = str(cause)
            chair.ready_at = max(chair.ready_at, time.monotonic() + cause.retry_after_s)

    def await_mending(self, chair: Chair, complaint: str, pause_s: float = MENDING_PAUSE_S) -> None:
        chair.ready_at = time.monotonic() + pause_s
        if chair.complaint != complaint:
            chair.complaint = complaint
            self.say(f"{chair.name} waits until this is mended: {complaint}")

    def count_failure(self, chair: Chair, reason: str) -> None:
        chair.failures += 1
        chair.ready_at = time.monotonic() + FAILURE_PAUSE_S
        self.say(f"{chair.name} failed ({chair.failures}/{MAX_FAILURES}): {reason}")
        if chair.failures >= MAX_FAILURES:
            raise HostFault(f"{chair.name} failed {MAX_FAILURES} times in a row; `resume` goes on: {reason}")


def cause_of(error: ray.exceptions.RayError) -> BaseException:
    """What a step raised, where it was the step that failed and not Ray."""
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        return error.cause
    return error


def explain(error: ray.exceptions.RayError) -> str:
    """One line for a failed step."""
    cause = cause_of(error)
    if isinstance(cause, Refusal):
        return str(cause)
    if isinstance(cause, ray.exceptions.RayActorError):
        return "its process died and is restarted"
    return f"{type(cause).__name__}: {cause}".splitlines()[0]
