"""Campaigns on a virtual GPU: what a rule finds, misses and gets wrong in a world whose truth is known.

A night is a number of runs on one GPU. The rules are those of ledger/rules.py, called as a campaign calls them; all that is
virtual is the run, which returns the truth plus noise. What a rule needs beyond one run per candidate it pays from
the same night: the runs of the unchanged start that σ is estimated from, second runs, fresh runs of a new champion.
"""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple, TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray

from ledger.error_budget import ErrorBudget, check_alpha
from ledger.noise import Noise, pool
from ledger.rules import RULES, Rule, Step
from ledger.verdict import Incumbent, Missing, Need, find_missing
from orgs.effects import draw
from records import BadInput, Policy

LEAST_BASELINE_RUNS = 4
"""Below that many runs of the start σ is not worth the name."""
NIGHTS_AT_ONCE = 50
"""One piece of work for a core."""

Result = TypeVar("Result")
Work = TypeVarTuple("Work")


@dataclass(frozen=True)
class Simulation:
    """What is simulated.

    Raises:
        BadInput: a value makes no sense; names the flag.
    """

    effects: str | tuple[float, ...] = "mixed"
    """See orgs/effects.py."""
    sigma: float = 0.0005
    """Deviation of one run, in bits per byte."""
    tails: str = "normal"
    """Of the noise: normal, or Student's t with 5 degrees of freedom, scaled to the same deviation."""
    nights: int = 1000
    experiments: int = 100
    """Runs of a night: experiments, as the original counts them, and everything else a rule asks for."""
    baseline_runs: int = 8
    """Of the unchanged start, for σ, under rules that need it."""
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise BadInput(f"--sigma {self.sigma}: has to be a number above 0, in bits per byte")
        if self.tails not in ("normal", "t5"):
            raise BadInput(f"--tails {self.tails}: allowed are normal, t5")
        if self.nights < 1:
            raise BadInput(f"--nights {self.nights}: at least 1")
        if self.seed < 0:
            raise BadInput(f"--seed {self.seed}: cannot be negative")
        if self.baseline_runs < LEAST_BASELINE_RUNS:
            raise BadInput(
                f"--baseline-runs {self.baseline_runs}: at least {LEAST_BASELINE_RUNS}, to estimate the noise"
            )
        if self.experiments <= self.baseline_runs:
            raise BadInput(
                f"--experiments {self.experiments}: the first {self.baseline_runs} runs of a night measure the start, "
                "so there have to be more"
            )

    def policy(self, rule: Rule) -> Policy:
        """What a campaign under this rule promises: as many judgements as there may be runs."""
        measuring = self.baseline_runs if rule.needs_noise else 1
        return Policy(
            rule=rule.name,
            alpha=self.alpha,
            judgements=self.experiments - measuring,
            noise_runs=self.baseline_runs,
        )


class Night(NamedTuple):
    """What became of one night. Gains are in bits per byte, and positive for better."""

    gain_bpb: float
    """True, of the last champion over the start."""
    inflation_bpb: float
    """What is claimed for the best champion less what is true of it."""
    merges: int
    false_merges: int
    """Of changes that are no better in truth."""
    judged: int
    runs: int


class Summary(NamedTuple):
    """Means over the nights of one rule; `_se` is the standard error of the one before."""

    rule: str
    nights: int
    gain_bpb: float
    gain_bpb_se: float
    merges: float
    false_merges: float
    any_false_merge: float
    """The share of nights with at least one."""
    any_false_merge_se: float
    judged: float
    runs: float
    inflation_bpb: float
    inflation_bpb_se: float


class NightOver(Exception):
    """The night has no run left."""


class VirtualGpu:
    """Makes runs until the night is over."""

    def __init__(self, noise: NDArray[np.float64]) -> None:
        self._noise: list[float] = noise.tolist()
        self.runs = 0

    def run(self, true_bpb: float) -> float:
        """A score. Raises NightOver."""
        if self.runs == len(self._noise):
            raise NightOver
        self.runs += 1
        return true_bpb + self._noise[self.runs - 1]


@dataclass
class Contender:
    """The champion: its truth, the runs that made it win, and those made afterwards, which alone say how good it is."""

    true_bpb: float
    selecting: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    canaries: int = 0
    """How many of the fresh runs, the newest, are canaries."""

    @property
    def scores(self) -> list[float]:
        return self.selecting + self.fresh


def simulate(rules: Sequence[str], simulation: Simulation) -> list[Summary]:
    """Every rule in the same worlds. Raises BadInput: there is no such rule."""
    return [summarise_nights(name, nights) for name, nights in simulate_nights(rules, simulation).items()]


def simulate_nights(rules: Sequence[str], simulation: Simulation) -> dict[str, list[Night]]:
    """The nights of every rule, by its name, in the same worlds. The same seed gives the same nights on any number of cores.

    Raises:
        BadInput: there is no such rule.
    """
    if unknown := [name for name in rules if name not in RULES]:
        raise BadInput(f"--rule {unknown[0]}: allowed are {', '.join(RULES)}")
    starts = range(0, simulation.nights, NIGHTS_AT_ONCE)
    pieces = on_all_cores(some_nights, [(name, simulation, start) for name in rules for start in starts])
    each = len(starts)
    return {
        name: [night for piece in pieces[i * each : (i + 1) * each] for night in piece] for i, name in enumerate(rules)
    }


def on_all_cores(function: Callable[[*Work], Result], work: Sequence[tuple[*Work]]) -> list[Result]:
    """function(*piece) of every piece of work, in their order, on all cores that this process may use."""
    cores = min(len(os.sched_getaffinity(0)), len(work))
    if cores <= 1:
        return [function(*piece) for piece in work]
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as executor:
        return list(executor.map(function, *zip(*work, strict=True)))


def some_nights(name: str, simulation: Simulation, start: int) -> list[Night]:
    """NIGHTS_AT_ONCE of them from `start` on, each from a seed of its own that is the same for every rule."""
    stop = min(start + NIGHTS_AT_ONCE, simulation.nights)
    return [one_night(RULES[name], simulation, np.random.default_rng((simulation.seed, n))) for n in range(start, stop)]


def one_night(rule: Rule, simulation: Simulation, rng: np.random.Generator) -> Night:
    """A campaign from the runs of the start to the last run of the night."""
    ideas = draw(simulation.effects, simulation.sigma, simulation.experiments, rng).tolist()
    campaign = VirtualCampaign(simulation.policy(rule), rule, VirtualGpu(draw_noise(simulation, rng)))
    merges = false_merges = 0
    try:
        campaign.begin()
        for effect in ideas:
            if campaign.try_out(campaign.champion.true_bpb - effect):
                merges += 1
                false_merges += effect <= 0
    except NightOver:
        pass
    champion = campaign.champion
    inflation = claim(campaign.start_bpb, champion) if merges and champion.scores else 0.0
    return Night(-champion.true_bpb, inflation, merges, false_merges, campaign.judged, campaign.gpu.runs)


@dataclass
class VirtualCampaign:
    """What an arbiter does, with the same functions, where a run costs nothing."""

    policy: Policy
    rule: Rule
    gpu: VirtualGpu
    champion: Contender = field(default_factory=lambda: Contender(0.0))
    others: list[list[float]] = field(default_factory=list)
    """Fresh runs of each champion before."""
    judged: int = 0
    canaries_asked: int = 0
    start_bpb: float = 0.0
    noise: Noise | None = None

    def begin(self) -> None:
        """Measure the start."""
        self.champion.fresh.append(self.gpu.run(0.0))
        self.complete(confirming=False)
        self.start_bpb = fmean(self.champion.fresh)

    def try_out(self, true_bpb: float) -> bool:
        """Measure and judge a candidate; whether it is the champion now. Raises NightOver."""
        scores: list[float] = []
        step = Step.AGAIN
        while step is Step.AGAIN:
            scores.append(self.gpu.run(true_bpb))
            if self.complete(confirming=len(scores) > 1):
                scores.clear()  # the machine is not what it was
                continue
            budget = ErrorBudget(self.policy.alpha, self.policy.judgements, self.judged)
            judgement = self.rule.judge(self.champion.scores, scores, self.noise, budget)
            self.judged, step = judgement.judged, judgement.step
        if step is Step.MERGE:
            self.others.append(self.champion.fresh)
            self.champion = Contender(true_bpb, selecting=scores)
            self.complete(confirming=False)
        return step is Step.MERGE

    def complete(self, *, confirming: bool) -> bool:
        """Make the champion's missing runs; whether it had to be measured anew. Raises NightOver."""
        anew = False
        while (
            missing := find_missing(self.policy, self.incumbent, judged=self.judged, confirming=confirming)
        ) is not None:
            if missing.need is Need.ANEW:
                anew = True
                self.others.append(self.champion.fresh)
                self.champion = Contender(self.champion.true_bpb)
                missing = Missing(Need.REPEAT, 1)
            is_canary = missing.need is Need.CANARY
            self.canaries_asked += is_canary
            self.champion.canaries = self.champion.canaries + 1 if is_canary else 0
            self.champion.fresh += [self.gpu.run(self.champion.true_bpb) for _ in range(missing.runs)]
            self.noise = None
        if self.noise is None and self.rule.needs_noise:
            self.noise = pool([self.champion.fresh, *self.others])
        return anew

    @property
    def incumbent(self) -> Incumbent:
        champion = self.champion
        return Incumbent(champion.selecting, champion.fresh, champion.canaries, self.others, self.canaries_asked)


def claim(start_bpb: float, champion: Contender) -> float:
    """What is claimed less what is true: by fresh runs, or by the run that won where a rule makes no others."""
    return start_bpb - fmean(champion.fresh or champion.selecting) + champion.true_bpb


def draw_noise(simulation: Simulation, rng: np.random.Generator) -> NDArray[np.float64]:
    """What each run of the night is off by."""
    return noise_of_runs(simulation.experiments, simulation.tails, rng) * simulation.sigma


def noise_of_runs(runs: int, tails: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """What so many runs are off by, in σ. `tails` as in `Simulation`."""
    if tails == "normal":
        return rng.standard_normal(runs)
    return rng.standard_t(5, runs) * math.sqrt(3 / 5)


def summarise_nights(rule: str, nights: Sequence[Night]) -> Summary:
    gain, gain_se = mean_and_error([night.gain_bpb for night in nights])
    inflation, inflation_se = mean_and_error([night.inflation_bpb for night in nights])
    count, wrong = len(nights), sum(night.false_merges > 0 for night in nights)
    shrunk = (wrong + 1) / (count + 2)  # none seen is not none possible: an error of 0 would say so
    return Summary(
        rule=rule,
        nights=count,
        gain_bpb=gain,
        gain_bpb_se=gain_se,
        merges=average(night.merges for night in nights),
        false_merges=average(night.false_merges for night in nights),
        any_false_merge=wrong / count,
        any_false_merge_se=math.sqrt(shrunk * (1 - shrunk) / count),
        judged=average(night.judged for night in nights),
        runs=average(night.runs for night in nights),
        inflation_bpb=inflation,
        inflation_bpb_se=inflation_se,
    )


def average(values: Iterable[float]) -> float:
    return fmean(list(values))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; no error can be given for a single night, which makes it 0."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return fmean(values), error
