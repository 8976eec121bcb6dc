"""Whether a repeat is within the noise of earlier ones."""

import math

import numpy as np
import pytest

from ledger.noise import pool, reproduce


def test_deviations_are_pooled_over_sources_that_ran_more_than_once() -> None:
    assert pool([]) is None and pool([[1.0], [2.0]]) is None
    noise = pool([[1.0, 1.2], [5.0], [2.0, 2.1, 2.2]])
    assert noise is not None and noise.freedom == 1 + 2
    assert noise.deviation_bpb == pytest.approx(math.sqrt((0.02 + 2 * 0.01) / 3))


def test_without_repeats_nothing_can_be_said() -> None:
    result = reproduce(1.0, [1.5], None)
    assert (result.difference_bpb, result.bound_bpb, result.within_noise) == (0.5, None, None)


def test_honest_repeats_are_within_the_noise_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(2000):
        runs = rng.normal(1.0, 0.01, 6).tolist()
        result = reproduce(runs[0], runs[1:3], pool([runs[3:], [9.0]]))
        within += bool(result.within_noise)
    assert within / 2000 == pytest.approx(0.95, abs=0.015)


def test_another_score_is_not() -> None:
    result = reproduce(1.0, [1.1], pool([[1.0, 1.001, 0.999]]))
    assert result.within_noise is False
