"""The rules as pure functions: what merges, what is run again, and what they say of it."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import norm, t

from ledger.error_budget import ErrorBudget, deviation_bound, null_merge_probability, solve
from ledger.noise import Noise, pool
from ledger.rules import RULES, EProcess, Judgement, Step, evident_effect
from records import BadInput

SIGMA = 0.001
NOISE = Noise(SIGMA, 7)
CHAMPION = [1.0] * 8
BUDGET = ErrorBudget(0.05, 100)
CAREFUL = [name for name, rule in RULES.items() if rule.needs_noise]


def judge(name: str, candidate: Sequence[float], budget: ErrorBudget = BUDGET) -> Judgement:
    return RULES[name].judge(CHAMPION, candidate, NOISE, budget)


def campaign(name: str, effect: float, rng: np.random.Generator) -> Step:
    """The verdict on one candidate by drawn runs of both sides, each time with noise of its own."""
    champion = rng.normal(0.0, SIGMA, 8).tolist()
    noise, runs, step = pool([champion]), list[float](), Step.AGAIN
    while step is Step.AGAIN:
        runs.append(float(rng.normal(-effect, SIGMA)))
        step = RULES[name].judge(champion, runs, noise, ErrorBudget(0.05, 1)).step
    return step


def test_the_default_is_two_run_min_and_each_has_its_name() -> None:
    assert next(iter(RULES)) == "two-run-min"
    for name, rule in RULES.items():
        assert rule.name == name == judge(name, [0.9]).rule


def test_two_run_min_wants_both_runs_beyond_the_threshold() -> None:
    threshold = judge("two-run-min", [0.9]).threshold_bpb
    good, bad = 1 - 1.01 * threshold, 1 - 0.99 * threshold
    assert judge("two-run-min", [bad]).step is Step.DISCARD
    assert judge("two-run-min", [good]).step is Step.AGAIN
    assert judge("two-run-min", [good, bad]).step is Step.DISCARD
    assert judge("two-run-min", [0.5, bad]).step is Step.DISCARD  # one brilliant run does not help the other
    assert judge("two-run-min", [good, good]).step is Step.MERGE


def test_the_threshold_is_the_designs_formula() -> None:
    c = solve(0.05, 100, 8, 7)
    expected = c * deviation_bound(NOISE) * math.sqrt((1 + 1 / 8) / 1.25)
    assert judge("two-run-min", [0.9]).threshold_bpb == pytest.approx(expected)
    assert 100 * null_merge_probability(c, 8, 7) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("name", CAREFUL)
def test_what_is_clearly_better_merges_and_what_is_clearly_worse_costs_one_run(name: str) -> None:
    assert judge(name, [0.9]).step is Step.AGAIN
    steps = [judge(name, [0.9] * runs).step for runs in range(2, RULES[name].most_runs + 1)]
    assert Step.MERGE in steps and Step.DISCARD not in steps
    assert judge(name, [1.1]).step is judge(name, [1.0]).step is Step.DISCARD


@pytest.mark.parametrize("name", CAREFUL)
def test_a_single_run_never_merges_and_the_last_allowed_run_is_never_run_again(name: str) -> None:
    last = RULES[name].most_runs
    for score in np.linspace(0.98, 1.01, 61):
        assert judge(name, [float(score)]).step is not Step.MERGE
        assert judge(name, [float(score)] * last).step is not Step.AGAIN


@pytest.mark.parametrize("name", CAREFUL)
def test_nulls_merge_within_the_promise_and_improvements_do_merge(name: str) -> None:
    """α = 5 % for a single candidate, with σ from 8 runs; the control is an effect of 8 σ."""
    rng = np.random.default_rng(5)
    nulls = sum(campaign(name, 0.0, rng) is Step.MERGE for _ in range(3000))
    worse = sum(campaign(name, -0.5 * SIGMA, rng) is Step.MERGE for _ in range(1000))
    better = sum(campaign(name, 8 * SIGMA, rng) is Step.MERGE for _ in range(200))
    assert nulls / 3000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)
    assert worse / 1000 <= 0.05
    assert better > 180


def test_two_run_min_spends_its_promise_exactly() -> None:
    rng = np.random.default_rng(6)
    nulls = sum(campaign("two-run-min", 0.0, rng) is Step.MERGE for _ in range(6000))
    assert nulls / 6000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 6000))


def test_keep_if_lower_merges_half_of_the_nulls() -> None:
    rng = np.random.default_rng(7)
    nulls = sum(campaign("keep-if-lower", 0.0, rng) is Step.MERGE for _ in range(2000))
    assert nulls / 2000 == pytest.approx(0.5, abs=0.05)
    assert judge("keep-if-lower", [1.0]).step is Step.DISCARD


def test_group_sequential_asks_for_students_t_at_a_third_of_the_share() -> None:
    asked = t.isf(0.0005 / 3, 7) * SIGMA * math.sqrt(1 / 8 + 1 / 2)
    assert judge("group-sequential", [1 - 1.001 * asked] * 2).step is Step.MERGE
    assert judge("group-sequential", [1 - 0.999 * asked] * 2).step is not Step.MERGE


@pytest.mark.parametrize(("variance", "freedom"), [(0.625, 8), (0.375, 10), (0.3, 40)])
def test_evidence_is_a_fair_bet_on_nothing(variance: float, freedom: int) -> None:
    """E is a ratio of densities: its mean under no effect is 1. By the distribution of t, on a grid in E."""

    a = variance / (variance + 25)
    grid = np.geomspace(math.sqrt(a) * 1.000001, a ** (-freedom / 2) * 0.999, 5_000)
    effects = np.array([evident_effect(float(evidence), variance, freedom, 5.0) for evidence in grid])
    chances = 2 * t.sf(effects / math.sqrt(variance), freedom)  # that E reaches each
    assert grid[0] + np.trapezoid(chances, grid) == pytest.approx(1.0, abs=0.01)


def test_evidence_for_known_noise_is_the_normal_mixture() -> None:
    variance, tau, d = 0.375, 5.0, 3.0
    ratio = norm.pdf(d, scale=math.sqrt(variance + tau**2)) / norm.pdf(d, scale=math.sqrt(variance))
    assert evident_effect(float(ratio), variance, 10_000_000, tau) == pytest.approx(d, rel=1e-4)


def test_scattered_runs_are_less_evident() -> None:
    assert judge("e-process", [0.99, 0.95]).threshold_bpb > 2 * judge("e-process", [0.97, 0.97]).threshold_bpb
    assert evident_effect(2000.0, 0.625, 1, EProcess.tau) == math.inf


def test_a_judgement_counts_itself_only_when_it_is_a_verdict() -> None:
    again = judge("two-run-min", [0.9], ErrorBudget(0.05, 100, 9))
    merged = judge("two-run-min", [0.9, 0.9], ErrorBudget(0.05, 100, 9))
    assert (again.judged, merged.judged) == (9, 10)
    assert merged.alpha_left == pytest.approx(0.045) and merged.p1 == pytest.approx(0.0005)
    assert (merged.champion_runs, merged.candidate_runs, merged.freedom) == (8, 2, 7)
    assert merged.sigma_bpb == pytest.approx(deviation_bound(NOISE))


@pytest.mark.parametrize("name", RULES)
def test_nothing_merges_once_the_budget_is_spent(name: str) -> None:
    for candidate in ([0.5], [0.5] * RULES[name].most_runs):
        judgement = judge(name, candidate, ErrorBudget(0.05, 100, 100))
        assert judgement.step is Step.DISCARD and "spent" in judgement.reason and judgement.judged == 100


def test_the_reason_says_what_was_seen_and_what_was_asked_for() -> None:
    threshold = judge("two-run-min", [0.9]).threshold_bpb
    assert judge("two-run-min", [0.9, 0.95]).reason == (
        f"merged: 0.050000 bpb lower after 2 runs, and {threshold:.6f} was asked for"
    )
    assert judge("two-run-min", [0.999]).reason.endswith("within the noise")
    assert judge("two-run-min", [1.01]).reason.startswith("discarded: 0.010000 bpb not lower after 1 run,")
    assert "run again" in judge("two-run-min", [0.9]).reason


@pytest.mark.parametrize("name", RULES)
def test_what_cannot_be_compared_is_one_line(name: str) -> None:
    rule = RULES[name]
    for champion, candidate in (([], [1.0]), ([1.0], []), ([1.0], [math.nan]), ([math.inf], [1.0]), ([1.0], [1.0] * 9)):
        with pytest.raises(BadInput) as refused:
            rule.judge(champion, candidate, NOISE, BUDGET)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", CAREFUL)
def test_without_noise_nothing_is_judged(name: str) -> None:
    with pytest.raises(BadInput, match="needs the noise"):
        RULES[name].judge(CHAMPION, [0.9], None, BUDGET)
