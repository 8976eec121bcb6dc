"""What a campaign's language models have cost, and on what."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ledger import Ledger
from ledger.purse import MILLION, Total, calls, cost_of, spending, total
from ledger.store import RESULTS
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from records import BadInput, Call, Experiment, State

K = TypeVar("K", bound=Hashable)

DEAREST = 10
"""Experiments that are shown."""


class OfRole(NamedTuple):
    role: str
    model: str
    total: Total


class OfExperiment(NamedTuple):
    id: int
    title: str
    state: str
    usd: float
    """Its coder's and reviewer's calls, and its share of the conversation in which it was proposed."""


class Cap(NamedTuple):
    """What may be spent, as the org file has it now."""

    usd: float
    file: str


@dataclass(frozen=True)
class Cost:
    campaign: str
    total: Total
    by_role: list[OfRole]
    """Dearest first."""
    failures: dict[str, int]
    """Calls that failed, by how."""
    dearest: list[OfExperiment]
    held_usd: float
    """Set aside for calls under way."""
    judged: int
    """Experiments that ended by their result."""
    merged: int

    @property
    def judged_usd(self) -> float | None:
        """Everything spent, for each experiment judged; None before the first."""
        return self.total.dollars / self.judged if self.judged else None

    @property
    def merged_usd(self) -> float | None:
        """Everything spent, for each merge; None before the first."""
        return self.total.dollars / self.merged if self.merged else None

    def plain(self, cap: Cap | None) -> dict[str, Any]:
        """For JSON."""
        return {
            "campaign": self.campaign,
            **plain_total(self.total),
            "held_usd": self.held_usd,
            "cap_usd": cap and cap.usd,
            "judged": self.judged,
            "merged": self.merged,
            "usd_per_judged": self.judged_usd,
            "usd_per_merge": self.merged_usd,
            "failures": self.failures,
            "by_role": [{"role": one.role, "model": one.model, **plain_total(one.total)} for one in self.by_role],
            "dearest": [one._asdict() for one in self.dearest],
        }


def plain_total(found: Total) -> dict[str, Any]:
    counts = {
        "calls": found.calls,
        "failed": found.failed,
        "errands": found.errands,
        "tokens": found.usage.model_dump(),
    }
    return {"usd": found.dollars, **counts, "cache_share": found.cache_share}


def read_cost(ledger: Ledger) -> Cost:
    """As the ledger has it now."""
    return summarise_cost(ledger.name, ledger.experiments(), calls(ledger), spending(ledger).held)


def summarise_cost(campaign: str, experiments: Sequence[Experiment], booked: Sequence[Call], held: int) -> Cost:
    """Pure.

    Args:
        campaign: its name.
        experiments: all of it.
        booked: its calls.
        held: set aside, in millionths of a dollar.
    """
    ideas = Counter(e.state for e in experiments if e.is_idea)
    costs = cost_of(experiments, booked)
    dearest = sorted((e for e in experiments if costs[e.id]), key=lambda e: -costs[e.id])[:DEAREST]
    groups = group(booked, lambda call: (call.role, call.model))
    by_role = [OfRole(role, model, total(some)) for (role, model), some in groups.items()]
    return Cost(
        campaign=campaign,
        total=total(booked),
        by_role=sorted(by_role, key=lambda one: -one.total.dollars),
        failures=dict(Counter(call.status for call in booked if call.status != "ok").most_common()),
        dearest=[OfExperiment(e.id, e.hypothesis.title, e.state.value, costs[e.id]) for e in dearest],
        held_usd=held / MILLION,
        judged=sum(ideas[state] for state in RESULTS),
        merged=ideas[State.MERGED],
    )


def group(booked: Iterable[Call], key: Callable[[Call], K]) -> dict[K, list[Call]]:
    """Calls by key, in the order in which the keys appear."""
    found: dict[K, list[Call]] = {}
    for call in booked:
        found.setdefault(key(call), []).append(call)
    return found


def find_cap(lab: Lab, org: str) -> Cap | None:
    """What the org file of this name in orgs/ allows a campaign now; None if there is none. The ledger does not keep it."""
    for path in sorted((lab.root / "orgs").glob("*.toml")):
        try:
            found = OrgFile.load(path, lab.root)
        except BadInput:
            continue
        if found.name == org:
            return Cap(found.money.campaign_usd, str(Path("orgs") / path.name))
    return None
