"""Single judgements on a virtual GPU: how often a rule merges a candidate whose effect is known, and any of many without.

Everything is in σ, the deviation of one run. Each trial has a champion of its own, and what is known of the noise comes from
the champion's runs; a rule that needs no noise compares with one run. Rules are called as a campaign calls them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from ledger.error_budget import ErrorBudget, merge_probability, solve
from ledger.noise import Noise, pool
from ledger.rules import RULES, Judgement, Rule, Step
from orgs.simulate import Simulation, noise_of_runs, on_all_cores

EFFECTS = tuple(n / 2 for n in range(17))
"""In σ: 0 to 8."""
JUDGED = (10, 20, 50, 100, 200, 300)
"""Candidates of a night, K."""
TRIALS_AT_ONCE = 500
"""One piece of work for a core."""
MOST_RUNS = max(rule.most_runs for rule in RULES.values())

Point = TypeVar("Point")


class Chance(NamedTuple):
    """What happened in `seen` of `trials`."""

    seen: int
    trials: int

    @property
    def estimate(self) -> float:
        return self.seen / self.trials

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's, by default for 95 %: it is never empty, also where none was seen."""
        n, p = self.trials, self.estimate
        centre, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


class Standing(NamedTuple):
    """What a candidate is judged against."""

    champion: list[float]
    noise: Noise | None


def simulate_power(rule: str, simulation: Simulation) -> list[Chance]:
    """That a candidate merges, for each of EFFECTS: one candidate in each of the simulation's nights."""
    return estimate(merged_candidates, rule, simulation, EFFECTS)


def compute_power(simulation: Simulation) -> list[float]:
    """That a candidate merges under two-run-min, for each of EFFECTS, by quadrature: for normal noise."""
    runs = simulation.baseline_runs
    c = solve(simulation.alpha, judgements(simulation), runs, runs - 1)
    return [merge_probability(effect, c, runs, runs - 1) for effect in EFFECTS]


def simulate_false_merges(rule: str, simulation: Simulation) -> list[Chance]:
    """That any of K candidates without effect merges, for each K of JUDGED, with the threshold that this K asks for."""
    return estimate(nights_with_a_merge, rule, simulation, JUDGED)


def judgements(simulation: Simulation) -> int:
    """K: what the error budget of a night is for."""
    return simulation.experiments - simulation.baseline_runs


def estimate(
    count: Callable[[str, Simulation, Point, int], int], rule: str, simulation: Simulation, points: Sequence[Point]
) -> list[Chance]:
    """The chance at each point, from as many trials as the simulation has nights."""
    starts = range(0, simulation.nights, TRIALS_AT_ONCE)
    counts = on_all_cores(count, [(rule, simulation, point, start) for point in points for start in starts])
    each = len(starts)
    return [Chance(sum(counts[i * each : (i + 1) * each]), simulation.nights) for i in range(len(points))]


# ---- one piece of work -----------------------------------------------------------------------------------------------


def merged_candidates(name: str, simulation: Simulation, effect: float, start: int) -> int:
    """Of one candidate of that effect in each of TRIALS_AT_ONCE nights from `start` on."""
    rule, budget, merged = RULES[name], ErrorBudget(simulation.alpha, judgements(simulation)), 0
    for rng in generators(simulation, start):
        standing = stand(rule, simulation, rng)
        scores: list[float] = (noise_of_runs(MOST_RUNS, simulation.tails, rng) - effect).tolist()
        merged += conclusion(rule, standing, scores, budget).step is Step.MERGE
    return merged


def nights_with_a_merge(name: str, simulation: Simulation, candidates: int, start: int) -> int:
    """Of TRIALS_AT_ONCE nights from `start` on, in which so many candidates do nothing."""
    rule, budget = RULES[name], ErrorBudget(simulation.alpha, candidates)
    return sum(
        any_merges(rule, stand(rule, simulation, rng), draw_nulls(candidates, simulation, rng), budget)
        for rng in generators(simulation, start)
    )


def generators(simulation: Simulation, start: int) -> Iterator[np.random.Generator]:
    """One for each night of a piece of work: the same for every rule and point."""
    stop = min(start + TRIALS_AT_ONCE, simulation.nights)
    return (np.random.default_rng((simulation.seed, n)) for n in range(start, stop))


def stand(rule: Rule, simulation: Simulation, rng: np.random.Generator) -> Standing:
    runs: list[float] = noise_of_runs(simulation.baseline_runs, simulation.tails, rng).tolist()
    return Standing(runs, pool([runs])) if rule.needs_noise else Standing(runs[:1], None)


def draw_nulls(candidates: int, simulation: Simulation, rng: np.random.Generator) -> list[list[float]]:
    """The runs of each candidate, in the order they would be made."""
    noise = noise_of_runs(candidates * MOST_RUNS, simulation.tails, rng)
    drawn: list[list[float]] = noise.reshape(candidates, MOST_RUNS).tolist()
    return drawn


def any_merges(rule: Rule, standing: Standing, candidates: Sequence[list[float]], budget: ErrorBudget) -> bool:
    """Whether one of these would merge.

    Until one does, each is judged against the same champion, so their order is free: by the first run, the best
    first. Where a first run is discarded a worse one would be too, so nobody has to ask.
    """
    for scores in sorted(candidates):
        judgement = conclusion(rule, standing, scores, budget)
        if judgement.step is Step.MERGE:
            return True
        if judgement.candidate_runs == 1:
            return False
    return False


def conclusion(rule: Rule, standing: Standing, scores: Sequence[float], budget: ErrorBudget) -> Judgement:
    """The verdict on a candidate of which these are the runs, of which the rule sees as many as it asks for."""
    runs, step = 0, Step.AGAIN
    while step is Step.AGAIN:
        runs += 1
        judgement = rule.judge(standing.champion, scores[:runs], standing.noise, budget)
        step = judgement.step
    return judgement
