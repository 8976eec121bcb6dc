"""What a campaign's language models may cost: money is set aside before a call, and what the call cost is booked after it.

As much is set aside as the call can cost at most. So the sum never exceeds a limit, however many seats call at the same time;
and whoever dies in between leaves a hold, which counts as spent until `settle` books it as such. What costs nothing here, an errand
or a model of your own, is booked in the same way, so that its transcript is found.
"""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ledger.scripts import AlreadyRecorded, Broke
from ledger.store import Ledger
from records import Call, Experiment, Usage

__all__ = ["Broke", "Hold", "Purse", "Spending", "cost_of"]

MILLION = 1_000_000
NOTHING = Usage()


class Limits(NamedTuple):
    """In millionths of a US dollar. What one call may cost is the caller's to see to (agents/minds/line.py)."""

    campaign: int
    experiment: int


class Hold(NamedTuple):
    """Money that is set aside for a call."""

    call: str
    talk: str
    seat: str
    role: str
    model: str
    experiment: int | None
    microdollars: int
    at: str
    errand: bool = False

    def ended(
        self, status: str, microdollars: int, usage: Usage = NOTHING, seconds: float = 0.0, sha256: str = ""
    ) -> Call:
        """The call that it was for, with what became of it."""
        return Call(
            id=self.call,
            talk=self.talk,
            role=self.role,
            model=self.model,
            errand=self.errand,
            experiment=self.experiment,
            status=status,
            usage=usage,
            microdollars=microdollars,
            seconds=seconds,
            at=self.at,
            sha256=sha256,
        )


class Spending(NamedTuple):
    """What a campaign has spent so far, in millionths of a US dollar."""

    paid: int
    held: int
    """Set aside for calls under way."""
    refused: bool
    """Whether a call had to be refused since the campaign's limit would not have held."""


class Purse:
    """A campaign's money, as one seat sees it.

    Args:
        ledger: the campaign's ledger.
        limits: of the campaign, and of each experiment.
        seat: who calls; no other living process has this name.
    """

    def __init__(self, ledger: Ledger, limits: Limits, seat: str):
        self.ledger = ledger
        self.limits = limits
        self.seat = seat

    def reserve(
        self,
        call: str,
        talk: str,
        role: str,
        model: str,
        experiment: int | None,
        microdollars: int,
        *,
        errand: bool = False,
    ) -> Hold:
        """Set money aside. Raises Broke where a limit would not hold; nothing is set aside then. What costs nothing is never refused."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        hold = Hold(call, talk, self.seat, role, model, experiment, microdollars, at, errand)
        limits = (self.limits.campaign, self.limits.experiment)
        self.ledger.run("reserve", call, microdollars, text(experiment), *limits, json.dumps(hold))
        return hold

    def book(self, hold: Hold, call: Call) -> None:
        """Book what a call cost. Raises AlreadyRecorded if that was done."""
        self.ledger.run(
            "book", hold.call, hold.microdollars, call.microdollars, text(hold.experiment), call.model_dump_json()
        )

    def last(self, model: str) -> Call | None:
        """The newest call of this seat's model, as far as the newest dozens go back."""
        newest = self.ledger.reader.lrange(self.ledger.prefix + "calls", -50, -1)
        found = (Call.model_validate_json(value) for value in reversed(newest))
        return next((call for call in found if call.model == model), None)

    def calls_in(self, talk: str) -> list[Call]:
        """What was booked of a conversation so far."""
        return [call for call in calls(self.ledger) if call.talk == talk]

    def settle(self) -> list[Call]:
        """Book the calls that a dead predecessor in this seat was waiting for, as dear as they can have been."""
        booked: list[Call] = []
        for hold in holds(self.ledger):
            if hold.seat != self.seat:
                continue
            lost = hold.ended("lost", hold.microdollars)
            try:
                self.book(hold, lost)
            except AlreadyRecorded:
                continue
            booked.append(lost)
        return booked


def text(experiment: int | None) -> str | int:
    return "" if experiment is None else experiment


# ---- reading ---------------------------------------------------------------------------------------------------------


def holds(ledger: Ledger) -> list[Hold]:
    """What is set aside at this moment."""
    return [Hold(*json.loads(value)) for value in ledger.reader.hgetall(ledger.prefix + "holds").values()]


def calls(ledger: Ledger) -> list[Call]:
    """Every call that was booked, oldest first."""
    return [Call.model_validate_json(value) for value in ledger.reader.lrange(ledger.prefix + "calls", 0, -1)]


def spending(ledger: Ledger) -> Spending:
    """Sums alone: this is asked several times a second."""
    names = ("campaign", "held:campaign", "refused")
    paid, held, refused = (ledger.reader.hget(ledger.prefix + "money", name) for name in names)
    return Spending(int(paid or 0), int(held or 0), refused is not None)


def reopen(ledger: Ledger) -> None:
    """Forget that a call was refused: the limit may have been raised."""
    ledger.client.hdel(ledger.prefix + "money", "refused")


def cost_of(experiments: Sequence[Experiment], booked: Sequence[Call]) -> dict[int, float]:
    """US dollars by experiment: its coder's and reviewer's calls, and an equal share of the conversation that it was proposed in."""
    talks = Counter(e.talk for e in experiments if e.talk)
    of_talk: Counter[str] = Counter()
    cost = {e.id: 0.0 for e in experiments}
    for call in booked:
        if call.experiment is None:
            of_talk[call.talk] += call.microdollars
        elif call.experiment in cost:
            cost[call.experiment] += call.microdollars / MILLION
    for e in experiments:
        if e.talk:
            cost[e.id] += of_talk[e.talk] / talks[e.talk] / MILLION
    return cost


class Total(NamedTuple):
    """What some calls came to."""

    calls: int
    failed: int
    errands: int
    """Of these, of command-line agents: what they cost is not in here."""
    usage: Usage
    dollars: float

    @property
    def cache_share(self) -> float:
        """Share of all prompt tokens that came out of the cache."""
        return self.usage.cache_read / self.usage.prompt if self.usage.prompt else 0.0


def total(booked: Sequence[Call]) -> Total:
    usage = sum((call.usage for call in booked), Usage())
    failed = sum(call.status != "ok" for call in booked)
    errands = sum(call.errand for call in booked)
    return Total(len(booked), failed, errands, usage, sum(call.microdollars for call in booked) / MILLION)
