"""How much the score of one source moves from run to run, and whether a repeat is within that."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from ledger.quantiles import student_t


class Noise(NamedTuple):
    deviation_bpb: float
    """Of single runs: pooled over sources that were run more than once."""
    freedom: int
    """Degrees of freedom: runs less sources."""


class Reproduction(NamedTuple):
    difference_bpb: float
    """Mean of the repeats less the original."""
    bound_bpb: float | None
    """95 % of honest repeats differ by less; None while the noise is unknown."""

    @property
    def within_noise(self) -> bool | None:
        return None if self.bound_bpb is None else abs(self.difference_bpb) <= self.bound_bpb


def pool(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pooled deviation of groups of scores, each of one source; None if no source has two."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if freedom == 0:
        return None
    squares = math.fsum((score - centre) ** 2 for group in repeated for centre in (fmean(group),) for score in group)
    return Noise(math.sqrt(squares / freedom), freedom)


def reproduce(original: float, repeats: Sequence[float], noise: Noise | None) -> Reproduction:
    """Compare the mean of repeats with one run, by Student's t at 95 %: s·t·√(1 + 1/n)."""
    difference = fmean(repeats) - original
    if noise is None:
        return Reproduction(difference, None)
    quantile = student_t(noise.freedom, 0.975)
    return Reproduction(difference, quantile * noise.deviation_bpb * math.sqrt(1 + 1 / len(repeats)))
