"""The sampler proposes the same from the same ledger, nothing twice, nothing out of range, and better than blindly."""

import math
from statistics import fmean

import pytest

from agents.contract import make_candidate
from agents.knobs import find, resolve
from agents.minds.sampler import Sampler, observations, study_of
from agents.minds.space import Axis, axes
from agents.settings import PlannerSettings
from records import BadInput, Hypothesis, Number, State
from tests.agents.sources import PROFILE, TRAIN, best_of, code_task, experiment, plan_task, play, proposal, review_task

SETTINGS = PlannerSettings(mind="sampler")


def axis(line: str, **settings: object) -> Axis:
    """The only axis of a one-line source."""
    found = axes(find(line, PROFILE), PlannerSettings.model_validate({"mind": "sampler", **settings}))
    assert len(found) == 1
    return found[0]


def bounds(found: Axis) -> list[Number]:
    return sorted([found.decode(found.low), found.decode(found.high)])


# ---- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "low", "high"),
    [
        ("X_LR = 0.03", 0.01, 0.09),
        ("X_LR = 0.6", 0.2, 1.8),
        ("X_RATIO = 0.6", 0.2, 1.0),
        ("X_BETA = 0.95", 0.85, 0.9833),
        ("X_BETA = 0.8", 0.4, 0.9333),
        ("X = 0.0", 0.0, 0.5),
        ("X = -0.3", -0.9, -0.1),
        ("BATCH = 2**14", 2**12, 2**16),
        ("DEPTH = 4", 2, 6),
        ("N_HEADS = 1", 1, 3),
        ("X = 12", 4, 36),
    ],
)
def test_a_range_is_derived_from_the_champions_value(line: str, low: float, high: float) -> None:
    assert bounds(axis(line)) == pytest.approx([low, high], rel=1e-3)


@pytest.mark.parametrize(
    ("line", "span"),
    [
        ("X = 0.03", [0.001, 0.5]),
        ("X = 0.95", [0.5, 0.99]),
        ("X = -0.3", [-1.0, 1.0]),
        ("X = 5", [3, 9]),
        ("X = 16", [4, 64]),
    ],
)
def test_a_range_of_the_role_file_goes_before_the_derived_one(line: str, span: list[float]) -> None:
    assert bounds(axis(line, space={"X": span})) == pytest.approx(span)


@pytest.mark.parametrize("line", ["INIT_SEED = 7", "X = 0", "X = -4", "X = 'text'"])
def test_seeds_and_numbers_without_a_sensible_range_are_left_alone(line: str) -> None:
    assert axes(find(line, PROFILE), SETTINGS) == []


def test_frozen_constants_and_those_computed_from_others_are_left_alone_unless_given_a_range() -> None:
    frozen = PlannerSettings(mind="sampler", frozen=["DEPTH", "MATRIX_LR"])
    names = [found.name for found in axes(find(TRAIN, PROFILE), frozen)]
    assert names == ["EMBED_LR", "MOMENTUM", "BATCH_TOKENS"]
    ranged = PlannerSettings(mind="sampler", space={"WIDTH": [64, 512]})
    assert "WIDTH" in [found.name for found in axes(find(TRAIN, PROFILE), ranged)]


@pytest.mark.parametrize("line", ["X_LR = 0.03", "X_BETA = 0.95", "X = -0.3", "BATCH = 2**14", "DEPTH = 4", "X = 12"])
def test_a_value_survives_the_way_to_its_coordinate_and_back(line: str) -> None:
    found = axis(line)
    at = found.encode(found.current)
    assert at is not None
    assert found.decode(at) == found.current


def test_a_value_outside_the_range_has_no_coordinate() -> None:
    assert axis("BATCH = 2**14").encode(5000) is None
    assert axis("BATCH = 2**14").encode(2**20) is None
    assert axis("X_LR = 0.03").encode(1.0) is None


@pytest.mark.parametrize(
    ("line", "value", "step"),
    [
        ("X_LR = 0.004", 0.004115, False),
        ("X_LR = 0.004", 0.0045, True),
        ("X_LR = 0.004", 1.0, False),
        ("X_BETA = 0.95", 0.951, False),
        ("X_BETA = 0.95", 0.96, True),
        ("DEPTH = 20", 21, True),
        ("X = 100", 101, False),
        ("X = 0.0", 0.01, True),
    ],
)
def test_a_step_is_in_range_and_larger_than_what_noise_would_hide(line: str, value: float, step: bool) -> None:
    assert axis(line).is_step(value) is step


# ---- proposals -------------------------------------------------------------------------------------------------------


def test_the_same_ledger_and_seed_give_the_same_proposal_and_another_seed_another() -> None:
    rows = play(quadratic, TRAIN, SETTINGS, rounds=8, seed=3)
    propose = Sampler().propose
    assert propose(plan_task(rows)) == propose(plan_task(rows))
    assert len({str(propose(plan_task(rows, seed=seed))) for seed in range(5)}) > 1


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
@pytest.mark.parametrize("size", [1, 3])
def test_no_value_is_proposed_twice_none_is_the_champions_and_all_stay_in_range(algorithm: str, size: int) -> None:
    settings = PlannerSettings.model_validate({"mind": "sampler", "algorithm": algorithm, "knobs_per_proposal": size})
    rows = play(lambda knobs: 2.0, TRAIN, settings, rounds=40, seed=1)
    ideas = [row.hypothesis for row in rows[1:]]
    assert len(ideas) == 40
    assert len({frozenset(idea.knobs.items()) for idea in ideas}) == 40
    start = resolve(TRAIN, PROFILE)
    ranges = {found.name: found for found in axes(find(TRAIN, PROFILE), settings)}
    for idea in ideas:
        assert len(idea.knobs) == size
        for name, value in idea.knobs.items():
            assert ranges[name].encode(value) is not None
            assert abs(value / start[name] - 1) > 0.005


def test_every_constant_gets_its_turn_before_any_gets_a_second() -> None:
    rows = play(lambda knobs: 2.0, TRAIN, SETTINGS, rounds=5, seed=1)
    assert sorted(name for row in rows[1:] for name in row.hypothesis.knobs) == [
        "BATCH_TOKENS",
        "DEPTH",
        "EMBED_LR",
        "MATRIX_LR",
        "MOMENTUM",
    ]


def test_values_that_are_still_in_flight_are_not_proposed_again() -> None:
    settings = PlannerSettings(
        mind="sampler", space={"DEPTH": [3, 5]}, frozen=["MATRIX_LR", "EMBED_LR", "MOMENTUM", "BATCH_TOKENS"]
    )
    first = proposal(plan_task([], settings=settings))
    waiting = [experiment(2, State.QUEUED, first)]
    second = proposal(plan_task(waiting, settings=settings))
    assert {first.knobs["DEPTH"], second.knobs["DEPTH"]} == {3, 5}
    both = [*waiting, experiment(3, State.PROPOSED, second)]
    assert Sampler().propose(plan_task(both, settings=settings)) == []


def test_nothing_to_tune_and_settings_for_constants_that_are_not_there_are_said_in_one_line() -> None:
    with pytest.raises(BadInput, match="no numeric constant to tune"):
        Sampler().propose(plan_task([], source="X = 'text'\n"))
    with pytest.raises(BadInput, match=r"names MATRX_LR, no numeric constant of train\.py; there are: MATRIX_LR"):
        Sampler().propose(plan_task([], settings=PlannerSettings(mind="sampler", frozen=["MATRX_LR"])))


def test_a_hypothesis_says_what_changes_and_forecasts_the_campaigns_base_rate() -> None:
    first = proposal(plan_task([]))
    (name, value), before = next(iter(first.knobs.items())), resolve(TRAIN, PROFILE)
    assert first.title == f"{name} {before[name]} → {value}"
    assert (first.probability, first.expected_delta_bpb) == (0.5, 0.0)
    rows = [experiment(id, State.DISCARDED, first, bpb=2.1) for id in (2, 3)]
    rows.append(experiment(4, State.MERGED, first, bpb=1.9))
    later = proposal(plan_task(rows))
    assert later.probability == pytest.approx(2 / 5)
    assert later.expected_delta_bpb == pytest.approx(0.1)


def test_a_crash_counts_as_the_worst_score_and_a_refusal_as_none() -> None:
    idea = Hypothesis(title="t", change="c", knobs={"MATRIX_LR": 0.1})
    rows = [
        experiment(2, State.CRASHED, idea),
        experiment(3, State.REFUSED, idea),
        experiment(4, State.DISCARDED, idea, bpb=2.2),
    ]
    assert [(values, score) for values, score in observations(plan_task(rows))][1:] == [
        ({"MATRIX_LR": 0.1}, math.inf),
        ({"MATRIX_LR": 0.1}, 2.2),
    ]
    chosen = [found for found in axes(find(TRAIN, PROFILE), SETTINGS) if found.name == "MATRIX_LR"]
    assert len(study_of(plan_task(rows), chosen, 1).trials) == 3


def quadratic(knobs: dict[str, float]) -> float:
    """A smooth bowl in the logarithm of two constants, with its bottom away from the start."""
    return 2 + math.log(knobs["MATRIX_LR"] / 0.09) ** 2 + math.log(knobs["EMBED_LR"] / 0.12) ** 2


def test_on_a_quadratic_the_estimator_beats_blind_draws_on_average() -> None:
    others = ["MOMENTUM", "BATCH_TOKENS", "DEPTH"]
    space = {"MATRIX_LR": [0.004, 0.4], "EMBED_LR": [0.03, 3.0]}
    means: dict[str, float] = {}
    for algorithm in ("tpe", "random"):
        settings = PlannerSettings.model_validate(
            {"mind": "sampler", "algorithm": algorithm, "frozen": others, "space": space}
        )
        means[algorithm] = fmean(best_of(play(quadratic, TRAIN, settings, rounds=24, seed=seed)) for seed in range(12))
    assert means["tpe"] < means["random"] < quadratic({"MATRIX_LR": 0.04, "EMBED_LR": 0.3})


# ---- edits and reviews -----------------------------------------------------------------------------------------------


def test_what_the_sampler_proposes_and_writes_it_approves() -> None:
    mind = Sampler()
    for row in play(quadratic, TRAIN, SETTINGS, rounds=10, seed=2)[1:]:
        source = mind.implement(code_task(row.hypothesis, TRAIN))
        candidate = make_candidate("a" * 40, TRAIN, source)
        assert mind.judge(review_task(row.hypothesis, candidate)).approved
