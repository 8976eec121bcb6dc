"""From measurements to a verdict."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.error_budget import deviation_bound
from ledger.noise import pool
from ledger.rules import RULES, Step, make_rule
from ledger.verdict import (
    Evidence,
    Incumbent,
    Missing,
    Need,
    allowance,
    code_lines,
    comparable,
    decide,
    estimate,
    evident,
    find_drift,
    find_missing,
    loss_of,
    scores_of,
    simpler,
)
from records import BadInput, Candidate, Experiment, Hypothesis, Lane, Measurement, Policy, State, Verdict
from tests.ledger.samples import lower_or_not, program, scored

POLICY = Policy(rule="two-run-min")
START = [1.0, 1.001, 0.999, 1.0005, 0.9995, 1.002, 0.998, 1.0]
SIGMA = deviation_bound(pool([START]))  # type: ignore[arg-type]  # it has repeats


def runs(source: str, *scores: float) -> list[Measurement]:
    return [scored(source, score) for score in scores]


def evidence(*candidate: float, champion: list[float] | None = None) -> Evidence:
    measured = runs("start", *(champion or START))
    return Evidence(measured, runs("candidate", *candidate), [measured])


# ---- keep-if-lower -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bpb", "merge"), [(0.999999, True), (1.0, False), (1.000001, False)])
def test_only_a_lower_score_merges(bpb: float, merge: bool) -> None:
    verdict = lower_or_not([scored("a", 1.0)], scored("b", bpb))
    assert verdict.merge is merge
    assert verdict.champion_bpb == 1.0 and not verdict.within_noise


def test_the_mean_of_the_champion_is_to_beat() -> None:
    champion = [scored("a", 1.0), scored("a", 1.2)]
    assert lower_or_not(champion, scored("b", 1.05)).merge
    assert not lower_or_not(champion, scored("b", 1.11)).merge


@pytest.mark.parametrize("bpb", [math.nan, math.inf])
def test_what_is_no_number_is_not_judged(bpb: float) -> None:
    with pytest.raises(BadInput, match="not a finite number"):
        lower_or_not([scored("a", 1.0)], scored("b", bpb))


# ---- a verdict and its numbers -------------------------------------------------------------------------------------------


def test_two_good_runs_merge_and_every_number_is_told() -> None:
    given = evidence(0.98, 0.985)
    step, verdict = decide(POLICY, given, judged=4)
    assert step is Step.MERGE and verdict.merge
    assert verdict.champion_runs == [m.run_id for m in given.champion]
    assert verdict.candidate_runs == [m.run_id for m in given.candidate]
    assert verdict.noise_runs == [verdict.champion_runs]
    assert (verdict.freedom, verdict.judged, verdict.p1) == (7, 5, 0.05 / 100)
    assert verdict.sigma_bpb == SIGMA and verdict.alpha_left == pytest.approx(0.05 * 95 / 100)
    assert verdict.effect_bpb == pytest.approx(1.0 - 0.985) and verdict.candidate_bpb == pytest.approx(0.9825)
    assert verdict.threshold_bpb == pytest.approx(evident(POLICY, 8, pool([START])))  # type: ignore[arg-type]


def test_the_first_good_run_asks_for_another_and_spends_nothing() -> None:
    step, verdict = decide(POLICY, evidence(0.98), judged=4)
    assert step is Step.AGAIN and not verdict.merge and not verdict.within_noise and verdict.judged == 4


def test_one_lucky_run_of_two_is_within_the_noise() -> None:
    step, verdict = decide(POLICY, evidence(0.98, 0.999), judged=0)
    assert step is Step.DISCARD and verdict.within_noise


@pytest.mark.parametrize(("score", "within"), [(0.9999, True), (1.001, True), (1.02, False)])
def test_what_is_not_evidently_worse_is_within_the_noise(score: float, within: bool) -> None:
    step, verdict = decide(POLICY, evidence(score), judged=0)
    assert step is Step.DISCARD and verdict.within_noise is within


def test_nothing_merges_once_the_judgements_are_spent() -> None:
    step, verdict = decide(POLICY, evidence(0.5, 0.5), judged=100)
    assert step is Step.DISCARD and "all 100 judgements" in verdict.reason


def test_the_order_of_runs_does_not_matter() -> None:
    forward, backward = evidence(0.98, 0.985), evidence(0.98, 0.985)
    turned = Evidence(forward.champion[::-1], backward.candidate[::-1], [group[::-1] for group in forward.noise])
    one, other = decide(POLICY, forward, 0)[1], decide(POLICY, turned, 0)[1]
    lists = {"champion_runs", "candidate_runs", "noise_runs"}
    assert one.model_dump(exclude=lists) == other.model_dump(exclude=lists)


def test_a_rule_that_needs_the_noise_says_so() -> None:
    with pytest.raises(BadInput, match="needs the noise"):
        decide(POLICY, Evidence(runs("start", 1.0), runs("candidate", 0.9), []), 0)


@pytest.mark.parametrize(
    ("rule", "parameters", "wrong"),
    [
        ("two-run-min", {"tau": 1.0}, "two-run-min has none"),
        ("e-process", {"tua": 1.0}, "has tau, keep_on"),
        ("e-process", {"tau": -1.0}, "has to be a number above 0"),
        ("e-process", {"tau": [1.0]}, "has to be a number"),
        ("group-sequential", {"keep_on": 1.0}, "has to be a list of numbers"),
        ("group-sequential", {"keep_on": [1.0]}, "has to be 3 numbers"),
        ("best-of-three", {}, "allowed are two-run-min"),
    ],
)
def test_a_wrong_parameter_is_named(rule: str, parameters: dict[str, float | list[float]], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        make_rule(rule, parameters)


def test_parameters_change_what_a_rule_says() -> None:
    eager = Policy(rule="group-sequential", parameters={"keep_on": [-9.0, -9.0, -9.0]})
    assert decide(eager, evidence(1.001), 0)[0] is Step.AGAIN
    assert decide(Policy(rule="group-sequential"), evidence(1.001), 0)[0] is Step.DISCARD
    assert make_rule("e-process", {"tau": 2.0}) != RULES["e-process"] == make_rule("e-process", {})


# ---- what compares with what ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"device_name": "another GPU"}, {"budget_s": 2.0}, {"split": "test"}, {"cpus": 1.0}]
    + [{"hashes": {name: "x"}} for name in ("prepare", "image", "dataset", "tokenizer", "scorer")],
)
def test_runs_under_other_conditions_do_not_compare(change: dict[str, object]) -> None:
    one = scored("a", 1.0)
    hashes = change.get("hashes")
    other = {**change, "hashes": one.hashes.model_copy(update=hashes)} if isinstance(hashes, dict) else change
    assert not comparable(one, one.model_copy(update=other))
    assert comparable(one, scored("b", 2.0))


def test_the_noise_is_pooled_over_programs() -> None:
    groups = [runs("a", 1.0, 1.2), runs("b", 2.0, 2.2, 2.1), runs("c", 5.0)]
    noise = estimate(groups)
    assert noise == pool([scores_of(group) for group in groups]) and noise is not None and noise.freedom == 3
    assert estimate([runs("a", 1.0)]) is None and estimate([runs("a", 1.0, 1.0)]) is None


# ---- which run is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "scores", "fresh", "freedom", "confirming", "missing"),
    [
        (True, 1, 1, 0, False, 7),  # the start has its first run
        (True, 8, 8, 7, False, 0),
        (True, 8, 8, 7, True, 0),
        (True, 1, 1, 7, False, 3),  # a commit by hand: the noise is known, its level is not
        (False, 2, 0, 7, False, 1),  # a new champion
        (False, 3, 1, 7, False, 0),
        (False, 3, 1, 7, True, 1),
        (False, 2, 0, 0, False, 8),  # of a night whose first runs were lost
    ],
)
def test_the_champion_is_run_as_often_as_the_policy_asks_for(
    start: bool, scores: int, fresh: int, freedom: int, confirming: bool, missing: int
) -> None:
    others = [[1.0 + 0.001 * n for n in range(freedom - max(fresh - 1, 0) + 1)]]
    champion = Incumbent([1.0] * (0 if start else scores - fresh), START[:fresh], 0, others, 0)
    assert champion.freedom == freedom
    found = find_missing(POLICY, champion, judged=0, confirming=confirming)
    assert found == (Missing(Need.REPEAT, missing) if missing else None)


def test_a_rule_that_knows_no_noise_asks_for_one_run() -> None:
    assert find_missing(Policy(), Incumbent([], [], 0, [], 0), judged=0, confirming=False) == Missing(Need.REPEAT, 1)
    for champion in (Incumbent([], [1.0], 0, [], 0), Incumbent([1.0], [], 0, [], 0)):
        assert find_missing(Policy(), champion, judged=1000, confirming=False) is None


def test_a_canary_is_due_after_so_many_verdicts_and_again_when_it_is_off() -> None:
    def need(judged: int, fresh: list[float], canaries: int, asked: int) -> Need | None:
        found = find_missing(POLICY, Incumbent([], fresh, canaries, [], asked), judged=judged, confirming=False)
        return found and found.need

    assert need(19, START, 0, 0) is None
    assert need(20, START, 0, 0) is Need.CANARY
    assert need(20, [*START, 1.0], 1, 1) is None
    assert need(40, [*START, 1.0], 1, 1) is Need.CANARY
    assert need(20, [*START, 1.1], 1, 1) is Need.CANARY
    assert need(20, [*START, 1.1, 1.1], 2, 2) is Need.ANEW
    assert need(20, [*START, 1.1, 1.0], 2, 2) is None


# ---- drift ---------------------------------------------------------------------------------------------------------------


def test_a_canary_that_is_off_has_to_be_off_twice() -> None:
    assert find_drift([*START, 1.0], 1, []) is None
    once = find_drift([*START, 1.01], 1, [])
    assert once is not None and not once.confirmed
    twice = find_drift([*START, 1.01, 1.011], 2, [])
    assert twice is not None and twice.confirmed and twice.difference_bpb == pytest.approx(0.011)
    opposite = find_drift([*START, 1.01, 0.99], 2, [])
    assert opposite is not None and not opposite.confirmed
    assert find_drift([*START, 1.01, 1.0], 2, []) is None


def test_without_an_earlier_run_there_is_no_drift() -> None:
    assert find_drift([1.0], 1, []) is None
    assert find_drift([*START[:7], 5.0], 0, []) is None, "not a canary"
    later = find_drift([1.0, 1.01], 1, [START])
    assert later is not None, "the noise is known from earlier champions"


# ---- simplifications -----------------------------------------------------------------------------------------------------


def experiment(lane: Lane, source: str, num_params: int = 10) -> Experiment:
    measured = scored(source, 1.0).model_copy(update={"num_params": num_params})
    return Experiment(
        id=1,
        campaign="c",
        lane=lane,
        state=State.SCORED,
        hypothesis=Hypothesis(title="t", change="c"),
        author="a",
        candidate=Candidate.model_validate(program(source).model_dump()),
        measurements=[measured],
        created_at="2026-01-01T00:00:00Z",
        updated_at="2026-01-01T00:00:00Z",
    )


LONG = 'X = 1\nY = 2\n\n\ndef f():\n    """What it does."""\n    return X\n'


def test_simpler_is_fewer_lines_of_code_or_fewer_parameters() -> None:
    champion = experiment("baseline", LONG)
    assert simpler(experiment("simplify", "X = 1\n\n\ndef f():\n    return X\n"), champion)
    without_words = LONG.replace('    """What it does."""\n', "")
    assert not simpler(experiment("simplify", without_words), champion), "comments are no code"
    assert not simpler(experiment("simplify", LONG.replace("Y = 2\n\n\n", "Y = 2\n")), champion), "nor is layout"
    assert simpler(experiment("simplify", LONG, num_params=9), champion)
    assert not simpler(experiment("simplify", LONG + "Z = 3\n", num_params=9), champion)
    assert not simpler(experiment("simplify", "def f(:\n"), champion)
    assert code_lines("def f(:\n") is None and code_lines('"""Only words."""\n') == 1


def allowed(lane: Lane, lost: float = 0.0, source: str = "X = 1\n") -> float:
    return allowance(POLICY, experiment(lane, source), experiment("baseline", LONG), evidence(1.0), lost)


def test_only_what_is_simpler_may_lose_and_all_together_no_more_than_the_cap() -> None:
    assert allowed("improve") == allowed("combine") == 0.0
    assert allowed("simplify", source=LONG + "Z = 3\n") == 0.0
    assert allowed("simplify") == allowed("upkeep") == pytest.approx(3 * SIGMA)
    assert allowed("upkeep", source=LONG + "Z = 3\n") == pytest.approx(3 * SIGMA), "taking something out may add a line"
    assert allowed("simplify", lost=4 * SIGMA) == pytest.approx(2 * SIGMA)
    assert allowed("simplify", lost=7 * SIGMA) == 0.0


def test_a_simplification_merges_although_it_is_a_little_worse_and_says_what_it_cost() -> None:
    margin = 6 * SIGMA
    step, verdict = decide(POLICY, evidence(1.0 + SIGMA, 1.0 + SIGMA), 0, margin)
    assert step is Step.MERGE and verdict.allowed_bpb == margin
    assert (
        verdict.effect_bpb == pytest.approx(-SIGMA) and verdict.threshold_bpb is not None and verdict.threshold_bpb < 0
    )
    assert "may be lost, since it is simpler" in verdict.reason
    assert loss_of(verdict) == pytest.approx(SIGMA)
    assert decide(POLICY, evidence(1.0 + SIGMA, 1.0 + SIGMA), 0)[0] is Step.DISCARD
    assert loss_of(decide(POLICY, evidence(0.5, 0.5), 0)[1]) == 0.0


def test_a_simplification_that_costs_the_margin_merges_as_rarely_as_a_candidate_without_effect() -> None:
    margin = 3 * SIGMA
    for shift in (0.0, 1.5, 3.0):
        null = decide(POLICY, evidence(1.0 - shift * SIGMA, 1.0 - shift * SIGMA), 0)
        worse = decide(POLICY, evidence(1.0 + margin - shift * SIGMA, 1.0 + margin - shift * SIGMA), 0, margin)
        assert null[0] is worse[0]


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=2), st.integers(0, 120))
def test_no_verdict_contradicts_itself(candidate: list[float], judged: int) -> None:
    step, verdict = decide(POLICY, evidence(*candidate), judged)
    assert verdict.merge is (step is Step.MERGE)
    assert not (verdict.merge and verdict.within_noise)
    if verdict.merge:
        assert verdict.effect_bpb is not None and verdict.threshold_bpb is not None
        assert verdict.effect_bpb >= verdict.threshold_bpb > 0 and judged < 100


def test_a_verdict_of_an_older_version_is_read() -> None:
    old = '{"merge":true,"rule":"keep-if-lower","champion_bpb":1.0,"candidate_bpb":0.9,"reason":"lower"}'
    assert Verdict.model_validate_json(old).champion_runs == []
