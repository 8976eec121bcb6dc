"""Merge, run again or discard: four rules as pure functions of the scores so far.

Every rule compares a candidate with the mean ȳ_c of the champion's n_c runs. Effects are in bits per byte, and
positive where the candidate scored lower. All but `keep-if-lower` promise that a campaign of K judgements makes any
false merge with probability α at most, as ledger/error_budget.py says and with what it ignores. Runs that failed or
were disturbed are not scores: whoever calls leaves them out and measures again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from statistics import fmean
from typing import ClassVar, Protocol

from ledger.error_budget import ErrorBudget, deviation_bound, solve, threshold_deviations
from ledger.noise import Noise
from ledger.quantiles import student_t
from records import BadInput


class Step(StrEnum):
    DISCARD = "discard"
    AGAIN = "run again"
    MERGE = "merge"


@dataclass(frozen=True)
class Judgement:
    """What a rule decided, and every number that it decided by."""

    step: Step
    rule: str
    effect_bpb: float
    """What was compared with the threshold: how much lower the candidate is."""
    threshold_bpb: float
    """What the effect had to reach for the next step: another run, or the merge."""
    sigma_bpb: float | None
    """σ̂: the upper bound of the deviation of one run; None for a rule that knows no noise."""
    freedom: int | None
    """ν of σ̂."""
    champion_runs: int
    """n_c."""
    candidate_runs: int
    judged: int
    """K spent, this candidate included if this is its verdict."""
    p1: float
    """What a candidate without effect merges with at most."""
    alpha_left: float
    reason: str
    """One sentence for people."""


class Rule(Protocol):
    """One way to judge. Its fields are its parameters."""

    name: ClassVar[str]
    most_runs: ClassVar[int]
    """After so many runs of a candidate there is a verdict."""
    needs_noise: ClassVar[bool]
    """Whether the champion has to be measured repeatedly before anything is judged."""

    def judge(
        self, champion: Sequence[float], candidate: Sequence[float], noise: Noise | None, budget: ErrorBudget
    ) -> Judgement:
        """Judge a candidate by its runs so far, in the order they were made.

        Raises:
            BadInput: there is nothing to compare, a score is not finite, or the noise is unknown to a rule that needs it.
        """
        ...


@dataclass(frozen=True)
class TwoRunMin:
    """Two fresh runs, each of them better than the champion's mean by the threshold of the error budget."""

    name: ClassVar[str] = "two-run-min"
    most_runs: ClassVar[int] = 2
    needs_noise: ClassVar[bool] = True

    def judge(
        self, champion: Sequence[float], candidate: Sequence[float], noise: Noise | None, budget: ErrorBudget
    ) -> Judgement:
        to_beat, runs = compare(self, champion, candidate)
        sigma = deviation_bound(known(self, noise))
        c = solve(budget.alpha, budget.candidates, len(champion), known(self, noise).freedom)
        threshold = threshold_deviations(c, len(champion)) * sigma
        go_on, merge = (threshold, math.inf) if runs == 1 else (math.inf, threshold)
        return conclude(self, to_beat - max(candidate), go_on, merge, champion, candidate, noise, budget, budget.share)


@dataclass(frozen=True)
class GroupSequential:
    """Up to four runs; their mean is looked at after each, and may merge from the second on.

    The three looks that may merge spend a third of the candidate's share each (Bonferroni: a bound whatever their
    correlation), by Student's t with the ν of the noise. Giving up early never adds a false merge, so its bounds are
    free: `keep_on` standard errors.

    Raises:
        BadInput: a parameter is out of range.
    """

    keep_on: tuple[float, ...] = (1.5, 2.0, 2.5)
    """Standard errors by which the mean of one, two and three runs has to be better to be run again."""

    name: ClassVar[str] = "group-sequential"
    most_runs: ClassVar[int] = 4
    needs_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.keep_on) != self.most_runs - 1 or not all(map(math.isfinite, self.keep_on)):
            raise BadInput(f"keep_on {list(self.keep_on)}: has to be {self.most_runs - 1} numbers")

    def judge(
        self, champion: Sequence[float], candidate: Sequence[float], noise: Noise | None, budget: ErrorBudget
    ) -> Judgement:
        to_beat, runs = compare(self, champion, candidate)
        spread, freedom = known(self, noise)
        error = spread * math.sqrt(1 / len(champion) + 1 / runs)
        go_on = error * self.keep_on[runs - 1] if runs < self.most_runs else math.inf
        merge = error * upper_quantile(budget.share / (self.most_runs - 1), freedom) if runs > 1 else math.inf
        effect = to_beat - fmean(candidate)
        return conclude(self, effect, go_on, merge, champion, candidate, noise, budget, budget.share)


@dataclass(frozen=True)
class EProcess:
    """Anytime-valid: merges once the evidence against "no effect" is K/α to one, whenever that is looked at.

    The evidence is a likelihood ratio, of what is left of all runs when their common level and scale are taken out:
    an effect from N(0, (τσ)²) against none. With D the difference of the means, V = 1/n_c + 1/n, s and ν the
    deviation pooled over the noise and the candidate's own runs, t² = D²/(V·s²) and a = V/(V + τ²),

        E = √a · [(1 + t²/ν) / (1 + a·t²/ν)]^((ν + 1)/2).

    Without an effect E is a nonnegative martingale that starts at 1, with σ unknown: P(E ever reaches K/α) ≤ α/K
    (Ville). For a candidate that is worse, any merge would also have happened had it been as good as the champion.
    The t-statistic's mixture is Lai's, 1976. One could stop at any time; to bound the cost this stops after six runs, or
    when an effect of the better sign has evidence below 2 to one.

    Raises:
        BadInput: a parameter is out of range.
    """

    tau: float = 5.0
    """Of the effects looked for, in σ. Large, because with few ν small ones cannot become evident at all."""
    keep_on: float = 2.0
    """Evidence below which another run is not worth it."""

    name: ClassVar[str] = "e-process"
    most_runs: ClassVar[int] = 6
    needs_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("tau", self.tau), ("keep_on", self.keep_on)):
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"{name} {value}: has to be a number above 0")

    def judge(
        self, champion: Sequence[float], candidate: Sequence[float], noise: Noise | None, budget: ErrorBudget
    ) -> Judgement:
        to_beat, runs = compare(self, champion, candidate)
        spread, freedom = pooled(known(self, noise), candidate)
        variance = 1 / len(champion) + 1 / runs
        go_on = merge = math.inf
        if runs < self.most_runs:
            go_on = evident_effect(self.keep_on, variance, freedom, self.tau) * spread
        if runs > 1:
            merge = evident_effect(1 / budget.share, variance, freedom, self.tau) * spread
        effect = to_beat - fmean(candidate)
        return conclude(self, effect, go_on, merge, champion, candidate, noise, budget, budget.share)


@dataclass(frozen=True)
class KeepIfLower:
    """The original's rule: merge whatever scored lower once. Promises nothing, and has no error budget.

    Half of all changes without effect merge; fewer once the champion is itself a lucky run, which then hides real ones.
    """

    name: ClassVar[str] = "keep-if-lower"
    most_runs: ClassVar[int] = 1
    needs_noise: ClassVar[bool] = False

    def judge(
        self, champion: Sequence[float], candidate: Sequence[float], noise: Noise | None, budget: ErrorBudget
    ) -> Judgement:
        to_beat, _ = compare(self, champion, candidate)
        above_zero = math.nextafter(0, 1)
        return conclude(
            self, to_beat - fmean(candidate), math.inf, above_zero, champion, candidate, None, budget, p1=0.5
        )


KINDS = (TwoRunMin, GroupSequential, EProcess, KeepIfLower)
RULES: dict[str, Rule] = {kind.name: kind() for kind in KINDS}
"""By name, each with its own parameters, the default first."""


def make_rule(name: str, parameters: Mapping[str, float | Sequence[float]]) -> Rule:
    """The rule of this name with other parameters.

    Raises:
        BadInput: there is no such rule or parameter, or a value is out of range.
    """
    kind = next((kind for kind in KINDS if kind.name == name), None)
    if kind is None:
        raise BadInput(f"rule {name!r}: allowed are {', '.join(RULES)}")
    known = {field.name: isinstance(field.default, tuple) for field in fields(kind)}
    given: dict[str, float | tuple[float, ...]] = {}
    for parameter, value in parameters.items():
        if parameter not in known:
            raise BadInput(f"parameter {parameter!r}: {name} has {', '.join(known) or 'none'}")
        if known[parameter] != isinstance(value, Sequence):
            raise BadInput(
                f"{parameter} {value!r}: has to be {'a list of numbers' if known[parameter] else 'a number'}"
            )
        given[parameter] = tuple(value) if isinstance(value, Sequence) else value
    return kind(**given)  # type: ignore[arg-type]  # checked above, against the kinds of the defaults


# ---- what they share -------------------------------------------------------------------------------------------------


def compare(rule: Rule, champion: Sequence[float], candidate: Sequence[float]) -> tuple[float, int]:
    """The champion's mean and the number of the candidate's runs. Raises BadInput if they cannot be compared."""
    if not champion:
        raise BadInput("the champion has no run to compare with")
    if not 1 <= len(candidate) <= rule.most_runs:
        raise BadInput(f"{rule.name} judges by 1 to {rule.most_runs} runs of a candidate, not by {len(candidate)}")
    if not all(map(math.isfinite, (*champion, *candidate))):
        raise BadInput("a score is not a finite number: such a run is invalid, and is not judged")
    return fmean(champion), len(candidate)


def known(rule: Rule, noise: Noise | None) -> Noise:
    """The noise. Raises BadInput if nothing is known of it."""
    if noise is None:
        raise BadInput(f"{rule.name} needs the noise: run the champion at least twice")
    deviation_bound(noise)  # checks
    return noise


def pooled(noise: Noise, candidate: Sequence[float]) -> Noise:
    """The noise and what a candidate's own runs say of it."""
    centre, freedom = fmean(candidate), noise.freedom + len(candidate) - 1
    squares = noise.freedom * noise.deviation_bpb**2 + math.fsum((score - centre) ** 2 for score in candidate)
    return Noise(math.sqrt(squares / freedom), freedom)


def conclude(
    rule: Rule,
    effect: float,
    go_on: float,
    merge: float,
    champion: Sequence[float],
    candidate: Sequence[float],
    noise: Noise | None,
    budget: ErrorBudget,
    p1: float,
) -> Judgement:
    """Merge where the effect reaches `merge`, run again where it reaches `go_on`, otherwise discard."""
    if budget.spent:
        step = Step.DISCARD
    elif effect >= merge:
        step = Step.MERGE
    else:
        step = Step.AGAIN if effect >= go_on else Step.DISCARD
    threshold = merge if step is Step.MERGE or math.isinf(go_on) else go_on
    judged = budget.judged + (step is not Step.AGAIN and not budget.spent)
    return Judgement(
        step=step,
        rule=rule.name,
        effect_bpb=effect,
        threshold_bpb=threshold,
        sigma_bpb=None if noise is None else deviation_bound(noise),
        freedom=None if noise is None else noise.freedom,
        champion_runs=len(champion),
        candidate_runs=len(candidate),
        judged=judged,
        p1=p1,
        alpha_left=max(0.0, budget.alpha - judged * p1),
        reason=explain(rule, step, effect, threshold, len(candidate), budget),
    )


def explain(rule: Rule, step: Step, effect: float, threshold: float, runs: int, budget: ErrorBudget) -> str:
    """One sentence for people."""
    if budget.spent:
        return f"discarded: all {budget.candidates} judgements of the error budget are spent"
    seen = f"{abs(effect):.6f} bpb {'lower' if effect > 0 else 'not lower'} after {runs} run{'s' if runs > 1 else ''}"
    if not rule.needs_noise:
        return f"{'merged' if step is Step.MERGE else 'discarded'}: {seen}"
    if step is Step.MERGE:
        return f"merged: {seen}, and {threshold:.6f} was asked for"
    if step is Step.AGAIN:
        return f"run again: {seen}, at least {threshold:.6f}, which one lucky run may be"
    within = "; within the noise" if effect > 0 else ""
    return f"discarded: {seen}, and {threshold:.6f} was asked for{within}"


@lru_cache(maxsize=1024)
def upper_quantile(p: float, freedom: int) -> float:
    """What Student's t with ν degrees of freedom exceeds with probability p."""
    return -student_t(freedom, p)


def evident_effect(evidence: float, variance: float, freedom: int, tau: float) -> float:
    """The difference of means, in s, whose E (see EProcess) is `evidence`; infinite where no difference has as much."""
    a = variance / (variance + tau * tau)
    ratio = (evidence / math.sqrt(a)) ** (2 / (freedom + 1))
    if a * ratio >= 1:
        return math.inf
    return math.sqrt(variance * freedom * (ratio - 1) / (1 - a * ratio))
