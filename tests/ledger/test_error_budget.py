"""How often a candidate without effect merges, and the threshold that keeps a campaign's promise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, norm

from ledger.error_budget import (
    CERTAIN,
    ErrorBudget,
    bound_factor,
    deviation_bound,
    null_merge_probability,
    solve,
    threshold_deviations,
)
from ledger.noise import Noise
from records import BadInput

DRAWS = 400_000


def test_the_designs_figure_is_507_in_ten_thousand_over_a_hundred() -> None:
    """c = 2.5, n_c = 4, K = 100: 5.07 % to three digits."""
    assert 100 * null_merge_probability(2.5, 4) == pytest.approx(0.0507, abs=0.00005)


def test_of_three_like_runs_the_champion_is_worst_in_a_third() -> None:
    assert null_merge_probability(0.0, 1) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("c", "runs"), [(2.5, 4), (1.0, 1), (5.0, 1), (4.0, 50)])
def test_the_formula_is_the_integral_of_the_design(c: float, runs: int) -> None:
    k = c * math.sqrt((1 + 1 / runs) / 1.25)
    peak = -2 * k * math.sqrt(runs) / (runs + 2)
    value, _ = quad(
        lambda u: norm.pdf(u) * norm.sf(k + u / math.sqrt(runs)) ** 2, -12, 12, points=[peak], epsabs=0, epsrel=1e-8
    )
    assert null_merge_probability(c, runs) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("c", "runs", "freedom"), [(1.0, 4, None), (0.5, 1, None), (1.2, 8, 7), (1.5, 4, 3)])
def test_drawn_nulls_merge_as_often_as_computed(c: float, runs: int, freedom: int | None) -> None:
    rng = np.random.default_rng(1)
    champion = rng.normal(size=(DRAWS, runs)).mean(axis=1)
    bound = 1.0 if freedom is None else np.sqrt(rng.chisquare(freedom, DRAWS) / freedom) * bound_factor(freedom)
    threshold = threshold_deviations(c, runs) * bound
    merged = (champion - rng.normal(size=(2, DRAWS)) >= threshold).all(axis=0).mean()
    computed = null_merge_probability(c, runs, freedom)
    assert merged == pytest.approx(computed, abs=4 * math.sqrt(computed / DRAWS))


@pytest.mark.parametrize("freedom", [None, 3, 7, 40])
@pytest.mark.parametrize("runs", [1, 3, 4, 8])
def test_the_solved_threshold_spends_the_budget_and_no_more(runs: int, freedom: int | None) -> None:
    spent = 100 * null_merge_probability(solve(0.05, 100, runs, freedom), runs, freedom)
    assert spent <= 0.05 and spent == pytest.approx(0.05, rel=1e-4)


def test_more_is_asked_for_where_more_is_judged_less_is_allowed_or_less_is_known() -> None:
    assert solve(0.05, 50, 4) < solve(0.05, 100, 4) < solve(0.05, 200, 4)
    assert solve(0.1, 100, 4) < solve(0.05, 100, 4) < solve(0.01, 100, 4)
    assert solve(0.05, 100, 4, 30) < solve(0.05, 100, 4, 7) < solve(0.05, 100, 4, 3)
    thresholds = [threshold_deviations(solve(0.05, 100, runs), runs) for runs in range(1, 9)]
    assert thresholds == sorted(thresholds, reverse=True)


def test_fewer_nulls_merge_as_the_threshold_grows() -> None:
    for freedom in (None, 5):
        chances = [null_merge_probability(c, 4, freedom) for c in (-2.0, 0.0, 1.0, 2.5, 4.0)]
        assert chances == sorted(chances, reverse=True) and len(set(chances)) == len(chances)


@pytest.mark.parametrize(("freedom", "below"), [(1, 0.25), (7, 0.25), (CERTAIN - 1, 0.25), (CERTAIN, 0.35), (80, 0.35)])
def test_sigma_is_bounded_with_75_percent_confidence_and_65_once_it_is_known_well(freedom: int, below: float) -> None:
    assert bound_factor(freedom) == pytest.approx(math.sqrt(freedom / chi2.ppf(below, freedom)))
    assert deviation_bound(Noise(0.002, freedom)) == pytest.approx(0.002 * bound_factor(freedom))


def test_the_bound_is_below_sigma_in_a_quarter_of_all_campaigns() -> None:
    deviations = np.random.default_rng(2).normal(size=(40_000, 8)).std(axis=1, ddof=1)
    assert (deviations * bound_factor(7) < 1).mean() == pytest.approx(0.25, abs=0.01)


def test_what_makes_no_sense_is_one_line() -> None:
    nonsense: list[Callable[[], object]] = [
        lambda: ErrorBudget(0.0, 10),
        lambda: ErrorBudget(1.0, 10),
        lambda: ErrorBudget(math.nan, 10),
        lambda: ErrorBudget(0.05, 0),
        lambda: ErrorBudget(0.05, 10, -1),
        lambda: solve(2.0, 100, 4),
        lambda: solve(0.05, 0, 4),
        lambda: solve(0.05, 100, 0),
        lambda: solve(0.05, 100, 4, 0),
        lambda: solve(1e-9, 10_000, 4, 1),
        lambda: null_merge_probability(math.inf, 4),
        lambda: deviation_bound(Noise(0.0, 7)),
        lambda: deviation_bound(Noise(math.nan, 7)),
        lambda: deviation_bound(Noise(0.1, 0)),
    ]
    for call in nonsense:
        with pytest.raises(BadInput) as refused:
            call()
        assert str(refused.value) and "\n" not in str(refused.value)


def test_an_error_budget_is_shared_equally_and_ends() -> None:
    assert ErrorBudget(0.05, 100).share == pytest.approx(0.0005)
    assert not ErrorBudget(0.05, 100, 99).spent and ErrorBudget(0.05, 100, 100).spent
