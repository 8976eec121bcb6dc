"""What a mind works with: who it is, whose money it spends, whom it may send, and where its words are kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from agents.prices import Prices
from ledger.purse import Purse, calls, cost_of
from records import BadInput, Call, Errand, Experiment, Returned


class NoKey(BadInput):
    """There is no key for the API that a role file asks; with one, nothing is wrong with it."""


def new_id() -> str:
    return uuid4().hex[:16]


@dataclass(frozen=True)
class Desk:
    """The desk of one seat. `at` makes it that of one task."""

    role: str
    lab: Path
    """Folder that a role file's paths are relative to."""
    purse: Purse | None = None
    """None where nothing may be spent: a role file is only checked there, or its mind costs nothing."""
    prices: Prices = field(default_factory=Prices.load)
    call_microdollars: int = 0
    """What one call may cost at most, in millionths of a dollar."""
    transcripts: Path | None = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """API keys by the name of their environment variable: a worker's environment may be another than the launcher's."""
    send: Callable[[Errand], Returned] | None = None
    """Sends a command-line agent on an errand in the sandbox. None where no role has one."""
    experiment: int | None = None
    """What the task is about; None of a planner's."""
    talk: str = ""
    """The conversation that the task is."""

    def at(self, experiment: int | None = None) -> "Desk":
        """For one task."""
        return replace(self, experiment=experiment, talk=new_id())

    def calls(self) -> list[Call]:
        """What was booked of the task so far."""
        return [] if self.purse is None else self.purse.calls_in(self.talk)

    def spent(self, experiments: Sequence[Experiment]) -> dict[int, float]:
        """Dollars for tokens, by experiment."""
        return {} if self.purse is None else cost_of(experiments, calls(self.purse.ledger))
