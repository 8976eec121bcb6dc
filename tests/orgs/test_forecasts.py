"""Forecasts are scored by hand-computed examples, each under whoever made it."""

import json
from pathlib import Path

import pytest

from orgs.forecasts import Forecast, Reviewed, TrackRecord, Who, records_of, score
from records import Call, Experiment, Hypothesis, Review, State, Verdict
from tests.orgs.lab import run
from tests.orgs.minds_lab import played
from tests.orgs.rows import NOW, experiment


def call(talk: str, role: str, model: str, about: int | None = None) -> Call:
    return Call(
        id=f"{talk}-{role}", talk=talk, role=role, model=model, experiment=about, status="ok", microdollars=1, seconds=1.0, at=NOW
    )  # fmt: skip


def idea(id: int, state: State, probability: float, expected: float, bpb: float | None = None, **more: object) -> Experiment:  # fmt: skip
    """Judged against a champion at 2.5."""
    hypothesis = Hypothesis(title="t", change="c", probability=probability, expected_delta_bpb=expected)
    verdict = bpb and Verdict(merge=False, rule="r", champion_bpb=2.5, candidate_bpb=bpb, reason="so")
    return experiment(id, state, bpb, "t", hypothesis=hypothesis, verdict=verdict or None, **more)


def test_brier_and_the_base_rate_are_those_of_the_definition() -> None:
    found = score(
        [
            Forecast(0.8, -0.02, True, -0.01),  # (0.8 − 1)² = 0.04
            Forecast(0.5, -0.01, False, 0.03),  # 0.25
            Forecast(0.1, None, False, None),  # 0.01
            Forecast(0.2, -0.05, False, None),  # 0.04
        ]
    )
    assert (found.forecasts, found.merged) == (4, 1)
    assert found.brier == pytest.approx(0.34 / 4)
    assert found.base_brier == pytest.approx(0.25 * 0.75)
    assert found.expected_bpb == pytest.approx(-0.015) and found.delta_bpb == pytest.approx(0.01)


def test_without_a_forecast_there_is_no_score() -> None:
    assert score([]) == (0, 0, None, None, None, None)


def test_planners_are_told_apart_by_mind_and_by_the_model_of_their_conversation() -> None:
    rows = [
        experiment(0, State.MERGED, 2.5),
        idea(1, State.MERGED, 0.6, -0.1, 2.4, author="planner/anthropic", talk="a"),
        idea(2, State.WITHIN_NOISE, 0.4, -0.1, 2.5, author="planner/anthropic", talk="b"),
        idea(3, State.DISCARDED, 0.5, 0.0, 2.7, author="planner/sampler"),
        idea(4, State.CRASHED, 0.5, 0.0, author="planner/sampler"),
        idea(5, State.DISCARDED, 0.9, 0.0, 2.7, author="upkeep", lane="combine"),
        idea(6, State.DISCARDED, 0.9, 0.0, 2.7, author="planner/command", talk="c"),
    ]
    calls = [call("a", "planner", "large"), call("b", "planner", "small"), call("c", "planner", "my-agent")]
    found = {one.who: one.score for one in records_of(rows, calls)}
    assert set(found) == {
        Who("planner", "anthropic", "large"),
        Who("planner", "anthropic", "small"),
        Who("planner", "command", "my-agent"),
        Who("planner", "sampler", ""),
    }
    assert found[Who("planner", "anthropic", "large")].brier == pytest.approx(0.16)
    assert found[Who("planner", "anthropic", "large")].delta_bpb == pytest.approx(-0.1)
    sampler = found[Who("planner", "sampler", "")]
    assert (sampler.forecasts, sampler.merged, sampler.brier, sampler.base_brier) == (2, 0, 0.25, 0.0)
    assert sampler.delta_bpb == pytest.approx(0.2), "what crashed has no number, but is no merge either"


@pytest.mark.parametrize("state", [State.QUEUED, State.REFUSED, State.DUPLICATE, State.STALE, State.CONFIRMING])
def test_what_was_never_judged_says_nothing_of_a_forecast(state: State) -> None:
    (found,) = records_of([idea(1, state, 0.9, -0.1, author="planner/sampler")], [])
    assert found.score.forecasts == 0


def reviewed(id: int, state: State, review: Review, bpb: float | None = None) -> Experiment:
    return idea(id, state, 0.5, 0.0, bpb, review=review, author="upkeep")


def test_a_reviewer_is_scored_by_its_own_forecast_and_its_decisions_are_counted() -> None:
    def yes(probability: float) -> Review:
        return Review(approved=True, code="ok", reason="r", expected_delta_bpb=-0.1, probability=probability)

    def no(code: str) -> Review:
        return Review(approved=False, code=code, reason="r", expected_delta_bpb=0.0, probability=0.01)

    rows = [
        reviewed(1, State.MERGED, yes(0.7), 2.4),  # 0.09
        reviewed(2, State.DISCARDED, yes(0.3), 2.6),  # 0.09
        reviewed(3, State.REFUSED, no("confounded")),
        reviewed(4, State.REFUSED, no("confounded")),
        reviewed(5, State.REFUSED, no("not_worth_it")),
        reviewed(6, State.REFUSED, Review(approved=False, code="seed_only", reason="r")),
    ]
    calls = [call(f"t{id}", "reviewer", "large", id) for id in range(1, 6)] + [call("c", "coder", "small", 6)]
    model, checks = records_of(rows, calls)
    assert model.who == Who("reviewer", "", "large") and checks.who == Who("reviewer", "static checks", "")
    assert model.score.brier == pytest.approx(0.09) and model.score.base_brier == pytest.approx(0.25)
    assert model.score.delta_bpb == pytest.approx(0.0, abs=1e-12)
    assert model.reviews == Reviewed(2, 1, {"confounded": 2, "not_worth_it": 1})
    assert checks.reviews == Reviewed(0, 0, {"seed_only": 1}) and checks.score.forecasts == 0


def test_the_record_as_json_has_who_score_and_decisions() -> None:
    (found,) = records_of([idea(1, State.MERGED, 0.6, -0.1, 2.4, author="planner/sampler")], [])
    assert isinstance(found, TrackRecord)
    plain = found.plain()
    assert (plain["role"], plain["mind"], plain["forecasts"], plain["reviews"]) == ("planner", "sampler", 1, None)


def test_the_command_shows_everybody_who_forecast_in_a_played_campaign(tmp_path: Path) -> None:
    with played(tmp_path) as night:
        shown = run(tmp_path, "ledger", "forecasts")
        assert shown.returncode == 0, shown.stderr
        assert "reviewer claude-opus-5-5: 1 approved, 0 of them merged; refused: none" in shown.stdout
        planner, reviewer = json.loads(run(tmp_path, "ledger", "forecasts", "--json").stdout)
        assert len(night.calls) == 6
    assert (planner["mind"], planner["model"], planner["brier"]) == (
        "anthropic",
        "claude-opus-5-5",
        pytest.approx(0.04),
    )
    assert (reviewer["role"], reviewer["model"], reviewer["brier"]) == (
        "reviewer",
        "claude-opus-5-5",
        pytest.approx(0.01),
    )
    assert reviewer["expected_bpb"] == -0.001 and reviewer["delta_bpb"] == pytest.approx(0.1)
