"""How good planners and reviewers are at foretelling what becomes of a change.

A forecast is a probability that the change merges, and an expected change of val_bpb. It is scored by Brier's rule (1950): the mean
squared distance of the probability from what happened, 1 or 0; lower is better. Whoever always says the base rate r, the share
that merged, scores r·(1 − r): a forecast that knows nothing more does no better.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from agents.digest import judgement
from records import Call, Experiment, State

OUTCOMES = {
    State.MERGED: True,
    State.WITHIN_NOISE: False,
    State.DISCARDED: False,
    State.CRASHED: False,
    State.INVALID: False,
}
"""Whether it merged. What was refused, a duplicate or stale never had the chance."""


class Who(NamedTuple):
    """Who made a forecast."""

    role: str
    mind: str
    """Of a planner, as the row's author has it; of a review, `static checks` where no model was asked, else empty."""
    model: str
    """By the calls of the conversation; empty where none was made."""


class Forecast(NamedTuple):
    """One forecast and what came of it."""

    probability: float
    expected_bpb: float | None
    merged: bool
    delta_bpb: float | None
    """None where it never got a number."""


class Score(NamedTuple):
    """Of forecasts with an outcome."""

    forecasts: int
    merged: int
    brier: float | None
    """None without a forecast."""
    base_brier: float | None
    """Of always forecasting the base rate."""
    expected_bpb: float | None
    """Mean over those with a number, and so is the next."""
    delta_bpb: float | None


class Reviewed(NamedTuple):
    """What a reviewer decided."""

    approved: int
    approved_merged: int
    refused: dict[str, int]
    """By code."""


class TrackRecord(NamedTuple):
    who: Who
    score: Score
    reviews: Reviewed | None
    """None of a planner."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        reviews = None if self.reviews is None else self.reviews._asdict()
        return {**self.who._asdict(), **self.score._asdict(), "reviews": reviews}


def records_of(experiments: Sequence[Experiment], booked: Sequence[Call]) -> list[TrackRecord]:
    """The record of everybody who planned or reviewed, planners first. Ideas of the ledger's own (lanes combine, upkeep) have no forecast.

    Args:
        experiments: of a campaign.
        booked: its calls.
    """
    of_talk = {call.talk: call.model for call in booked}
    planned: dict[Who, list[Experiment]] = {}
    reviewed: dict[Who, list[Experiment]] = {}
    for e in experiments:
        role, _, mind = e.author.partition("/")
        if e.is_idea and mind:
            planned.setdefault(Who(role, mind, of_talk.get(e.talk, "")), []).append(e)
        if e.is_idea and e.review is not None:
            reviewed.setdefault(reviewer_of(e, booked), []).append(e)
    planners = [TrackRecord(who, score(forecasts_of_planner(some)), None) for who, some in sorted(planned.items())]
    reviewers = [
        TrackRecord(who, score(forecasts_of_reviewer(some)), reviews_of(some)) for who, some in sorted(reviewed.items())
    ]
    return planners + reviewers


def reviewer_of(experiment: Experiment, booked: Iterable[Call]) -> Who:
    """By its first call about the experiment: what the static checks decide costs none, and is never asked."""
    mine = (call for call in booked if call.role == "reviewer" and call.experiment == experiment.id)
    first = next(mine, None)
    return Who("reviewer", "static checks", "") if first is None else Who("reviewer", "", first.model)


def forecasts_of_planner(experiments: Iterable[Experiment]) -> list[Forecast]:
    return [
        Forecast(e.hypothesis.probability, e.hypothesis.expected_delta_bpb, OUTCOMES[e.state], delta_of(e))
        for e in experiments
        if e.state in OUTCOMES
    ]


def forecasts_of_reviewer(experiments: Iterable[Experiment]) -> list[Forecast]:
    """Of those that it approved, and made a forecast for."""
    return [
        Forecast(e.review.probability, e.review.expected_delta_bpb, OUTCOMES[e.state], delta_of(e))
        for e in experiments
        if e.state in OUTCOMES and e.review is not None and e.review.probability is not None
    ]


def delta_of(experiment: Experiment) -> float | None:
    """Change of val_bpb against the champion that it was judged by."""
    judged = judgement(experiment)
    return None if judged is None else judged.delta_bpb


def reviews_of(experiments: Sequence[Experiment]) -> Reviewed:
    reviews = [(e.review, e.state) for e in experiments if e.review is not None]
    return Reviewed(
        approved=sum(review.approved for review, _ in reviews),
        approved_merged=sum(review.approved and state == State.MERGED for review, state in reviews),
        refused=dict(Counter(review.code for review, _ in reviews if not review.approved).most_common()),
    )


def score(forecasts: Sequence[Forecast]) -> Score:
    """Brier's score and what it has to be compared with."""
    if not forecasts:
        return Score(0, 0, None, None, None, None)
    rate = fmean(f.merged for f in forecasts)
    measured = [(f.expected_bpb, f.delta_bpb) for f in forecasts if f.expected_bpb is not None and f.delta_bpb is not None]  # fmt: skip
    return Score(
        forecasts=len(forecasts),
        merged=sum(f.merged for f in forecasts),
        brier=fmean((f.probability - f.merged) ** 2 for f in forecasts),
        base_brier=rate * (1 - rate),
        expected_bpb=fmean(expected for expected, _ in measured) if measured else None,
        delta_bpb=fmean(delta for _, delta in measured) if measured else None,
    )
