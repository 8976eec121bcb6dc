"""How often a campaign may be wrong: the chance that a change without effect merges, and the threshold that keeps it small.

A campaign may judge K candidates and wants P(any false merge) ≤ α. Each candidate is allowed α/K, and by the union
bound (the chance of any is at most the sum of the chances) the campaign keeps its promise however the K decisions
depend on each other: they share the champion's runs and the estimate of the noise.

What that bound ignores:

* σ is estimated. p1(c, n) alone is for σ̂ = σ, and `deviation_bound` is below σ in a quarter of all campaigns (a third
  once ν ≥ 23). The rules therefore give `freedom`, and c is solved for p1 averaged over what ν degrees of freedom may
  have said of σ. That is the chance over all campaigns: one whose σ̂ happens to be low errs more often.
* Scores may have heavier tails than the normal distribution, such as Student's t with 5 degrees of freedom. Two
  runs have to be lucky, which dampens that, but no formula here knows of it.
* Drift: all runs of a campaign count as made under the same conditions.

`autoresearch-org simulate` measures the first two; docs/statistics.md has the figures.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from ledger.noise import Noise
from ledger.quantiles import chi_square_above
from records import BadInput

Floats = NDArray[np.float64]

CERTAIN = 23
"""Degrees of freedom from which σ is known so well that a bound of 65 % does, in place of 75 %."""


@dataclass(frozen=True)
class ErrorBudget:
    """P(any false merge) ≤ alpha over `candidates` judgements, of which `judged` are spent.

    Raises:
        BadInput: one of them is out of range.
    """

    alpha: float
    candidates: int
    """K: all that the campaign may judge."""
    judged: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.candidates < 1:
            raise BadInput(f"candidates {self.candidates}: a campaign judges at least one")
        if self.judged < 0:
            raise BadInput(f"judged {self.judged}: cannot be negative")

    @property
    def share(self) -> float:
        """The chance of a false merge that one candidate is allowed: α/K."""
        return self.alpha / self.candidates

    @property
    def spent(self) -> bool:
        """Whether nothing may be judged any more."""
        return self.judged >= self.candidates


def null_merge_probability(c: float, champion_runs: int, freedom: int | None = None) -> float:
    """P(a candidate without effect merges under two-run-min), for normal scores: p1(c, n), see `merge_probability`.

    Raises:
        BadInput: c is not finite, there is no champion's run, or ν is below 1.
    """
    return merge_probability(0.0, c, champion_runs, freedom)


def merge_probability(effect: float, c: float, champion_runs: int, freedom: int | None = None) -> float:
    """P(a candidate that is better by `effect`, in σ, merges under two-run-min), for normal scores.

    p(δ, c, n) = ∫ φ(u)·[1 − Φ(k − δ + u/√n)]² du with k = `threshold_deviations`: given the champion's mean, u standard
    errors off, both runs have to be k better than that, independently. This is for σ̂ = σ, which is what no `freedom`
    means; with ν of it, k is multiplied by σ̂/σ = `bound_factor`·√(χ²/ν) and p is averaged over χ².

    Raises:
        BadInput: δ or c is not finite, there is no champion's run, or ν is below 1.
    """
    from scipy.special import ndtr  # as ledger/quantiles.py says

    if not math.isfinite(effect):
        raise BadInput(f"effect {effect}: has to be a finite number of σ")
    k, root = threshold_deviations(c, champion_runs), math.sqrt(champion_runs)
    ratios, weights = (np.ones(1), np.ones(1)) if freedom is None else deviation_ratios(freedom)
    errors, mean_weights = mean_errors()
    both_better = ndtr(effect - (k * ratios[:, None] + errors / root)) ** 2
    return float(weights @ both_better @ mean_weights)


@cache
def mean_errors() -> tuple[Floats, Floats]:
    """u, by how many of its standard errors the champion's mean is off: nodes of Gauss and Hermite's quadrature, and their weights."""
    from scipy.special import roots_hermitenorm

    nodes, weights = roots_hermitenorm(100)
    return nodes, weights / weights.sum()


@lru_cache(maxsize=1024)
def deviation_ratios(freedom: int) -> tuple[Floats, Floats]:
    """Nodes of σ̂/σ and their weights, for ν degrees of freedom. Raises BadInput if ν is below 1."""
    from scipy.special import roots_legendre

    factor = bound_factor(freedom)
    # r = √(χ²/ν) has the density 2(ν/2)^(ν/2)/Γ(ν/2)·r^(ν−1)·exp(−νr²/2), and is 1 give or take 1/√(2ν). As r = x²,
    # because small ones matter most: that is where thresholds are far too low.
    reach = 10 / math.sqrt(2 * freedom)
    low, high = math.sqrt(max(0.0, 1 - reach)), math.sqrt(1 + reach)
    nodes, weights = roots_legendre(300)
    x = low + (high - low) * (nodes + 1) / 2
    r = x * x
    log_density = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
    density = np.exp(log_density + (freedom - 1) * np.log(r) - freedom * r * r / 2)
    return factor * r, weights * (high - low) / 2 * 2 * x * density


def threshold_deviations(c: float, champion_runs: int) -> float:
    """k = thr/σ̂ = c·√((1 + 1/n)/1.25): c is the threshold for n = 4, less sure means of the champion ask for more.

    Raises:
        BadInput: c is not finite, or there is no champion's run.
    """
    if not math.isfinite(c):
        raise BadInput(f"c {c}: has to be a finite number")
    if champion_runs < 1:
        raise BadInput(f"champion_runs {champion_runs}: the champion needs at least one run to be compared with")
    return c * math.sqrt((1 + 1 / champion_runs) / 1.25)


@lru_cache(maxsize=4096)
def solve(alpha: float, candidates: int, champion_runs: int, freedom: int | None = None) -> float:
    """The c with K·p1(c, n, ν) = α, to 1e-6 of itself and never below.

    Raises:
        BadInput: α is not between 0 and 1, K, n or ν is below 1, or no threshold can promise that.
    """
    from scipy.optimize import brentq  # a third of a second to import, which every command would wait for

    share = ErrorBudget(alpha, candidates).share

    def excess(c: float) -> float:
        return math.log(max(null_merge_probability(c, champion_runs, freedom), 1e-300) / share)

    low, high = -1.0, 4.0
    while excess(low) < 0:
        low *= 2
    while excess(high) > 0:
        high *= 2
        if high > 1000:
            raise BadInput(
                f"alpha {alpha} over {candidates} candidates: no threshold can promise that on so few runs of the champion"
            )
    c = float(brentq(excess, low, high, xtol=1e-9))
    return c + 1e-6 * abs(c)


@lru_cache(maxsize=4096)
def bound_factor(freedom: int) -> float:
    """σ̂/s = √(ν/χ²), χ² being what a χ² of ν degrees is below in 25 % of all cases (35 % once ν ≥ 23).

    Raises:
        BadInput: ν is below 1.
    """
    if freedom < 1:
        raise BadInput("the noise is unknown: run the champion at least twice")
    below = 0.25 if freedom < CERTAIN else 0.35
    return math.sqrt(freedom / chi_square_above(freedom, 1 - below))


def deviation_bound(noise: Noise) -> float:
    """σ̂ in bits per byte: what the deviation of one run is below with 75 % confidence (65 % once ν ≥ 23).

    Raises:
        BadInput: there is no deviation to bound.
    """
    if not (math.isfinite(noise.deviation_bpb) and noise.deviation_bpb > 0):
        raise BadInput(f"the deviation {noise.deviation_bpb} is no noise to compare with: it has to be above 0")
    return noise.deviation_bpb * bound_factor(noise.freedom)


def check_alpha(alpha: float) -> None:
    """Raises BadInput unless α is a probability that means something."""
    if not 0 < alpha < 1:
        raise BadInput(f"alpha {alpha}: has to be between 0 and 1")
