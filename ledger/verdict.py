"""When is better better? From measurements to a verdict: what is compared with what, and which run is missing. Pure functions.

The rules themselves, which know scores and nothing else, are in ledger/rules.py.
"""

import ast
import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean
from typing import NamedTuple

from ledger.error_budget import ErrorBudget, deviation_bound, solve, threshold_deviations
from ledger.noise import Noise, pool
from ledger.quantiles import student_t
from ledger.rules import Step, explain, make_rule
from records import Experiment, Measurement, Policy, Verdict

DRIFT_LEVEL = 0.01
"""Chance that a champion on a machine that holds still looks off, either way; two runs in a row have to, to the same side."""


class Evidence(NamedTuple):
    """The runs that a verdict rests on: scored, signed, and made under the same conditions."""

    champion: Sequence[Measurement]
    candidate: Sequence[Measurement]
    """In the order they were made."""
    noise: Sequence[Sequence[Measurement]]
    """Repeats of one program each, none of which selected anything."""


def decide(policy: Policy, evidence: Evidence, judged: int, allowed_bpb: float = 0.0) -> tuple[Step, Verdict]:
    """What the campaign's rule says of a candidate.

    Args:
        policy: the campaign's.
        evidence: at least one run of either.
        judged: verdicts that the campaign has spoken before.
        allowed_bpb: what the candidate may lose. The question is then whether it is better than a champion so much worse: one
            that truly loses that, or more, merges with the probability of a candidate without effect.

    Raises:
        BadInput: the noise is unknown to a rule that needs it, or there is nothing to compare.
    """
    rule = make_rule(policy.rule, policy.parameters)
    budget = ErrorBudget(policy.alpha, policy.judgements, judged)
    if not rule.needs_noise:  # it promises nothing, and need not stop
        budget = ErrorBudget(policy.alpha, ENDLESS, judged)
    champion, candidate = scores_of(evidence.champion), scores_of(evidence.candidate)
    noise = estimate(evidence.noise)
    judgement = rule.judge([score + allowed_bpb for score in champion], candidate, noise, budget)
    effect, threshold = judgement.effect_bpb - allowed_bpb, judgement.threshold_bpb - allowed_bpb
    reason = judgement.reason
    if allowed_bpb:
        reason = explain(rule, judgement.step, effect, threshold, len(candidate), budget)
        reason += f" ({allowed_bpb:.6f} may be lost, since it is simpler)"
    difference = fmean(champion) - fmean(candidate)
    return judgement.step, Verdict(
        merge=judgement.step is Step.MERGE,
        rule=rule.name,
        champion_bpb=fmean(champion),
        candidate_bpb=fmean(candidate),
        reason=reason,
        within_noise=judgement.step is Step.DISCARD
        and rule.needs_noise
        and not_worse(difference, policy, champion, noise),
        effect_bpb=effect,
        threshold_bpb=threshold if math.isfinite(threshold) else None,
        allowed_bpb=allowed_bpb,
        sigma_bpb=judgement.sigma_bpb,
        freedom=judgement.freedom,
        judged=judgement.judged,
        p1=judgement.p1,
        alpha_left=judgement.alpha_left if rule.needs_noise else None,
        champion_runs=[m.run_id for m in evidence.champion],
        candidate_runs=[m.run_id for m in evidence.candidate],
        noise_runs=[[m.run_id for m in group] for group in evidence.noise] if rule.needs_noise else [],
    )


ENDLESS = 10**9


def not_worse(difference: float, policy: Policy, champion: Sequence[float], noise: Noise | None) -> bool:
    """Whether a candidate is not evidently worse."""
    return noise is not None and difference > -evident(policy, len(champion), noise)


def evident(policy: Policy, champion_runs: int, noise: Noise) -> float:
    """What one run has to differ by from the champion's mean, in bits per byte: the threshold of two-run-min."""
    c = solve(policy.alpha, policy.judgements, champion_runs, noise.freedom)
    return threshold_deviations(c, champion_runs) * deviation_bound(noise)


def scores_of(measurements: Sequence[Measurement]) -> list[float]:
    return [m.val_bpb for m in measurements if m.val_bpb is not None]


def estimate(groups: Sequence[Sequence[Measurement]]) -> Noise | None:
    """The deviation of one run, pooled; None while nothing was run twice."""
    noise = pool([scores_of(group) for group in groups])
    return noise if noise is not None and noise.deviation_bpb > 0 else None


def comparable(a: Measurement, b: Measurement) -> bool:
    """Whether two scores may be compared: one kind of device, one dataset, one budget, one way of measuring."""
    return conditions(a) == conditions(b)


def conditions(m: Measurement) -> tuple[object, ...]:
    hashes = m.hashes
    measured_by = (hashes.prepare, hashes.image, hashes.dataset, hashes.tokenizer, hashes.scorer)
    return (m.device_name or m.device, m.budget_s, m.split, m.cpus, *measured_by)


# ---- which run is missing --------------------------------------------------------------------------------------------


class Incumbent(NamedTuple):
    """The champion, by its scores."""

    selecting: Sequence[float]
    """Of the runs that made it win: lower than others by choice, so they say nothing of the noise."""
    fresh: Sequence[float]
    """Of its other runs, oldest first."""
    canaries: int
    """How many of the fresh ones, the newest, are canaries."""
    others: Sequence[Sequence[float]]
    """Fresh runs of each earlier champion."""
    canaries_asked: int
    """In the whole campaign."""

    @property
    def scores(self) -> list[float]:
        return [*self.selecting, *self.fresh]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of what is known of the noise."""
        return sum(len(group) - 1 for group in (self.fresh, *self.others) if group)


class Need(StrEnum):
    """What has to happen before anything is judged."""

    REPEAT = "repeat"
    """The champion has too few runs to be compared with."""
    CANARY = "canary"
    """It is time to see whether the machine still is what it was."""
    ANEW = "anew"
    """It is not: no score of before compares with one of now."""


class Missing(NamedTuple):
    need: Need
    runs: int
    drift: "Drift | None" = None


def find_missing(policy: Policy, champion: Incumbent, *, judged: int, confirming: bool) -> Missing | None:
    """What has to be run before anything is judged, if so.

    Args:
        policy: the campaign's.
        champion: of which there is one run at least under a rule that knows no noise.
        judged: verdicts so far.
        confirming: whether the candidate that waits has been run again.
    """
    if not make_rule(policy.rule, policy.parameters).needs_noise:
        return None if champion.scores else Missing(Need.REPEAT, 1)
    drift = find_drift(champion.fresh, champion.canaries, champion.others)
    if drift is not None and drift.confirmed:
        return Missing(Need.ANEW, policy.noise_runs, drift)
    if repeats := missing_repeats(policy, champion, confirming=confirming):
        return Missing(Need.REPEAT, repeats)
    if drift is not None or judged // policy.canary_every > champion.canaries_asked:
        return Missing(Need.CANARY, 1, drift)
    return None


def missing_repeats(policy: Policy, champion: Incumbent, *, confirming: bool) -> int:
    """How many runs the champion is short of."""
    scores, fresh = len(champion.scores), len(champion.fresh)
    if champion.freedom < policy.noise_runs - 1:
        # Not yet known what one run is off by: all of it from this champion.
        return max(1, policy.noise_runs - fresh)
    if not champion.selecting:  # the start, or a commit by hand
        return max(0, min(policy.champion_runs, policy.noise_runs) - scores)
    if not fresh:
        return 1
    return max(0, policy.champion_runs - scores) if confirming else 0


# ---- does the machine hold still -------------------------------------------------------------------------------------


class Drift(NamedTuple):
    """How far the champion's newest run is from those before."""

    difference_bpb: float
    bound_bpb: float
    confirmed: bool
    """The canary before was off to the same side."""

    def __str__(self) -> str:
        return f"the champion is off by {self.difference_bpb:+.6f} bpb, the second time in a row; the bound is {self.bound_bpb:.6f}"


def find_drift(fresh: Sequence[float], canaries: int, others: Sequence[Sequence[float]]) -> Drift | None:
    """Whether the newest canary is off, by Student's t of a single run against the mean of earlier ones.

    Args:
        fresh: runs of the champion, oldest first.
        canaries: how many of them, the newest, are canaries.
        others: fresh runs of earlier champions, which know of the noise as well.
    """
    # A canary that is off must not hide the next one: both are compared with what was before.
    before = fresh[: -min(canaries, 2)] if canaries else ()
    newest = off(before, fresh[-1], others) if before else None
    if newest is None:
        return None
    last = off(before, fresh[-2], others) if canaries > 1 else None
    return Drift(*newest, confirmed=last is not None and last[0] * newest[0] > 0)


def off(before: Sequence[float], score: float, others: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Difference and bound of a run that is off; None of one that is not, or while nothing can be said."""
    found = distance(before, score, others)
    return found if found is not None and abs(found[0]) > found[1] else None


def distance(before: Sequence[float], score: float, others: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """How far a run is from the mean of those before, and how far it may be; None while nothing can be said."""
    noise = pool([before, *others])
    if not before or noise is None:
        return None
    quantile = -student_t(noise.freedom, DRIFT_LEVEL / 2)
    bound = quantile * noise.deviation_bpb * math.sqrt(1 + 1 / len(before))
    return score - fmean(before), bound


# ---- what a simplification may lose ----------------------------------------------------------------------------------


def allowance(
    policy: Policy, experiment: Experiment, champion: Experiment, evidence: Evidence, lost_bpb: float
) -> float:
    """What a candidate may lose, in bits per byte: something for one that makes the program simpler, otherwise nothing.

    Args:
        policy: the campaign's.
        experiment: the candidate.
        champion: what it would replace.
        evidence: the runs of both.
        lost_bpb: what simplifications have cost the campaign so far.
    """
    noise = estimate(evidence.noise)
    if noise is None or not (
        experiment.lane == "upkeep" or (experiment.lane == "simplify" and simpler(experiment, champion))
    ):
        return 0.0
    sigma = deviation_bound(noise)
    return max(0.0, min(policy.simplify_margin * sigma, policy.simplify_cap * sigma - lost_bpb))


def loss_of(verdict: Verdict) -> float:
    """What a merge has cost, as measured."""
    if verdict.candidate_bpb is None or verdict.champion_bpb is None or not verdict.allowed_bpb:
        return 0.0
    return max(0.0, verdict.candidate_bpb - verdict.champion_bpb)


def simpler(experiment: Experiment, champion: Experiment) -> bool:
    """Whether a program has fewer lines of code than another, or its model fewer parameters."""
    if experiment.candidate is None or champion.candidate is None:
        return False
    lines, before = (code_lines(e.candidate.source) for e in (experiment, champion) if e.candidate is not None)
    if lines is None or before is None:
        return False
    here, there = (e.score.num_params if e.score else None for e in (experiment, champion))
    fewer_parameters = here is not None and there is not None and here < there
    return lines < before or (lines == before and fewer_parameters)


def code_lines(source: str) -> int | None:
    """Lines of a program, written in one way for all and without comments and docstrings; None if it is none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return len(ast.unparse(tree).splitlines())
