"""Which arm proposes next: Thompson sampling of what a dollar spent on each arm's ideas gains.

An arm's ideas merge with a probability that a Beta posterior describes (uniform prior: Beta(1 + merged, 1 + not merged)), each merge gains
some bits per byte, and each idea costs time on the device and tokens. A draw of the probability, times the gain of a merge, over the cost
of an idea is one draw of the gain per dollar; the arm with the highest draw is next. So an arm that earns little is asked
seldom and never not at all: the next merges may be its own. (Thompson 1933, doi:10.2307/2332286; Russo et al. 2018, doi:10.1561/2200000070.)
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from agents.minds.task import PlanTask
from ledger.store import device_seconds
from records import Experiment, State

ARMS = ("anthropic", "sampler")
"""Of mind `hybrid`: a language model for structure, the sampler for constants."""


class Arm(NamedTuple):
    """What came of the ideas of one arm."""

    ended: int
    """Ideas that came to an end, by a verdict or before it."""
    merged: int
    gain_bpb: float
    """Of its merges together, as their verdicts had it: how much lower than the champion before."""
    dollars: float
    """Of its ended ideas together: tokens, and time on the device."""


PRIOR = 1
"""Ideas of ordinary cost, and merges of ordinary gain, that every arm is credited with: the mean of all arms."""


def order_of_arms(task: PlanTask, spent: Callable[[Sequence[Experiment]], Mapping[int, float]]) -> list[str]:
    """The minds that a planner asks, one after the other until one has an idea. The same ledger gives the same order.

    Args:
        task: what is asked.
        spent: dollars for tokens, by experiment. Asked for where there are two arms only: it reads every call of the campaign.
    """
    if task.settings.mind != "hybrid":
        return [task.settings.mind]
    ideas = [e for e in task.experiments if e.is_idea]
    arms = arms_of(ideas, [f"planner/{mind}" for mind in ARMS], spent(ideas), task.settings.device_hour_usd)
    first = choose(arms, random.Random(f"arm/{task.seed}/{len(ideas)}"))
    return [ARMS[first], *(mind for mind in ARMS if mind != ARMS[first])]


def arms_of(
    experiments: Sequence[Experiment], authors: Sequence[str], dollars: Mapping[int, float], device_hour_usd: float
) -> list[Arm]:
    """The arms' records.

    Args:
        experiments: the campaign.
        authors: of each arm's ideas, as `planner/mind`.
        dollars: what tokens each experiment cost.
        device_hour_usd: price of the device.
    """
    return [
        arm_of([e for e in experiments if e.is_idea and e.author == author], dollars, device_hour_usd)
        for author in authors
    ]


def arm_of(ideas: Sequence[Experiment], dollars: Mapping[int, float], device_hour_usd: float) -> Arm:
    ended = [e for e in ideas if e.state.final]
    merged = [e for e in ended if e.state == State.MERGED]
    gains = [
        max(0.0, v.champion_bpb - v.candidate_bpb)
        for e in merged
        if (v := e.verdict) is not None and v.champion_bpb is not None and v.candidate_bpb is not None
    ]
    hours = sum(device_seconds(m) for e in ended for m in e.measurements) / 3600
    tokens = sum(dollars.get(e.id, 0.0) for e in ended)
    return Arm(len(ended), len(merged), sum(gains), tokens + hours * device_hour_usd)


def choose(arms: Sequence[Arm], rng: random.Random) -> int:
    """Index of the arm that proposes next."""
    draws = [draw(arm, arms, rng) for arm in arms]
    return max(range(len(arms)), key=lambda i: draws[i])


def draw(arm: Arm, arms: Sequence[Arm], rng: random.Random) -> float:
    """One draw of the gain per dollar of an arm's next idea, in any unit."""
    probability = rng.betavariate(1 + arm.merged, 1 + arm.ended - arm.merged)
    merges, ended = sum(a.merged for a in arms), sum(a.ended for a in arms)
    usual_gain = sum(a.gain_bpb for a in arms) / merges if merges else 1.0
    usual_cost = sum(a.dollars for a in arms) / ended if ended else 1.0
    gain = (arm.gain_bpb + PRIOR * usual_gain) / (arm.merged + PRIOR)
    cost = (arm.dollars + PRIOR * usual_cost) / (arm.ended + PRIOR)
    return probability * gain / max(cost, 1e-9)
