"""The bandit asks the arm that gains more for its money, and the other one now and then."""

import random

import pytest

from agents.bandit import Arm, arms_of, choose
from records import Experiment, State
from tests.agents.sources import experiment, measurement
from tests.agents.test_digest import IDEA


def share_of_first(first: Arm, second: Arm, draws: int = 2000) -> float:
    rng = random.Random(1)
    return sum(choose([first, second], rng) == 0 for _ in range(draws)) / draws


def test_arms_that_are_not_known_yet_take_turns() -> None:
    none = Arm(0, 0, 0.0, 0.0)
    assert share_of_first(none, none) == pytest.approx(0.5, abs=0.05)


def test_the_arm_with_more_merges_is_asked_more_and_the_other_still_is() -> None:
    good, bad = Arm(20, 6, 0.06, 10.0), Arm(20, 1, 0.01, 10.0)
    assert 0.9 < share_of_first(good, bad) < 1.0


def test_as_many_merges_for_a_tenth_of_the_money_are_worth_more() -> None:
    cheap, dear = Arm(20, 3, 0.03, 1.0), Arm(20, 3, 0.03, 10.0)
    assert share_of_first(cheap, dear) > 0.9


def test_larger_merges_are_worth_more_than_as_many_small_ones() -> None:
    large, small = Arm(30, 5, 0.10, 10.0), Arm(30, 5, 0.01, 10.0)
    assert share_of_first(large, small) > 0.9


def test_in_the_long_run_an_arm_that_never_merges_is_left_for_the_one_that_does() -> None:
    """Two arms of known truth: 20 % and 2 % of their ideas merge."""
    rng, truth = random.Random(7), (0.2, 0.02)
    arms = [Arm(0, 0, 0.0, 0.0), Arm(0, 0, 0.0, 0.0)]
    for _ in range(300):
        i = choose(arms, rng)
        merged = rng.random() < truth[i]
        arms[i] = Arm(
            arms[i].ended + 1, arms[i].merged + merged, arms[i].gain_bpb + 0.01 * merged, arms[i].dollars + 1.0
        )
    assert arms[0].ended > 3 * arms[1].ended > 0


def test_an_arm_is_known_by_what_became_of_its_ideas() -> None:
    def by(author: str, row: Experiment) -> Experiment:
        return row.model_copy(update={"author": author})

    run = measurement("0" * 64, 1.9).model_copy(
        update={"startup_seconds": 60.0, "train_seconds": 300.0, "score_seconds": None}
    )
    merged = experiment(2, State.MERGED, IDEA, bpb=1.9).model_copy(update={"measurements": [run, run]})
    rows = [
        by("planner/anthropic", merged),
        by("planner/anthropic", experiment(3, State.REFUSED, IDEA)),
        by("planner/anthropic", experiment(4, State.QUEUED, IDEA)),
        by("planner/sampler", experiment(5, State.DISCARDED, IDEA, bpb=2.2)),
    ]
    language, sampler = arms_of(rows, ["planner/anthropic", "planner/sampler"], {2: 0.5, 3: 0.25, 4: 9.0}, 5.0)
    assert (language.ended, language.merged) == (2, 1)
    assert language.gain_bpb == pytest.approx(0.1)
    assert language.dollars == pytest.approx(0.75 + 720 / 3600 * 5.0)
    assert (sampler.ended, sampler.merged, sampler.gain_bpb) == (1, 0, 0.0)
