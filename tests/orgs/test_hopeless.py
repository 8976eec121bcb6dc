"""A run is ended early only if its loss is far above those of champion and start, and how often that is wrong is counted."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from benchmarks.early_stop import BUDGET_S, CURVES, Run, read_run, receipt
from orgs.hopeless import LEAST_NATS, PATIENCE, Band, hopeless, miss_rate
from records import Experiment, Measurement, Progress, State, Verdict
from tests.ledger.samples import idea, program, scored

RUNS = [read_run(line) for line in CURVES.read_text().splitlines()]
START = [run for run in RUNS if "SEED" in run.name]
CHANGED = {run.name: run for run in RUNS if "SEED" not in run.name}


def reports(*losses: float | None, until_s: float = 50.0) -> list[Progress]:
    """A report a second, the last one at `until_s`."""
    first = until_s - len(losses) + 1
    return [Progress(step=i, tokens=i, loss=loss, elapsed_s=first + i) for i, loss in enumerate(losses)]


def flat(*losses: float | None) -> list[Measurement]:
    """Runs that report the same loss for the 100 s of their budget."""
    return [receipt([Progress(step=i, tokens=i, loss=loss, elapsed_s=i) for i in range(101)]) for loss in losses]


def told(
    champion: Sequence[Measurement], start: Sequence[Measurement], said: Sequence[Progress], margin: float = 6.0
) -> str | None:
    band = Band.of(champion, start, from_s=30.0)
    return hopeless(band, said, budget_s=100.0, after=0.3, margin=margin)


def test_a_loss_far_above_every_run_of_champion_and_start_is_hopeless() -> None:
    champion = flat(1.0, 1.1)
    assert told(champion, champion, reports(1.0, 1.0, 1.0)) is None
    assert told(champion, champion, reports(1.52, 1.52, 1.52)) is None, "six spreads of 0.0707 above 1.1 are 1.524"
    why = told(champion, champion, reports(1.53, 1.53, 1.53))
    assert why == (
        "the loss is 1.530 after 50 of 100 s, where champion and start reported at most 1.100; "
        "more than 0.424 above that is hopeless (spread 0.071, 3 reports in a row)"
    )
    assert told(champion, champion, reports(1.53, 1.53, 1.53), margin=7.0) is None


def test_runs_that_lie_close_together_leave_the_least_margin() -> None:
    champion = flat(1.0, 1.0)
    assert told(champion, champion, reports(*[1.0 + LEAST_NATS - 0.001] * 3)) is None
    assert told(champion, champion, reports(*[1.0 + LEAST_NATS + 0.001] * 3)) is not None


def test_it_takes_reports_in_a_row_after_a_share_of_the_budget_and_two_runs_of_the_champion() -> None:
    champion = flat(1.0, 1.1)
    high = [9.0] * PATIENCE
    assert told(champion, champion, reports(*high)) is not None
    assert told(champion, champion, reports(9.0, 9.0, 1.0, 9.0, 9.0)) is None
    assert told(champion, champion, reports(9.0, 9.0)) is None
    assert told(champion, champion, reports(*high, until_s=30.0 + PATIENCE - 1)) is not None
    assert told(champion, champion, reports(*high, until_s=30.0 + PATIENCE - 1.01)) is None, "the first came too early"
    assert told(champion[:1], champion[:1], reports(*high)) is None
    assert told([], [], reports(*high)) is None


def test_a_loss_that_is_not_finite_is_hopeless_too() -> None:
    champion = flat(1.0, 1.1)
    assert told(champion, champion, reports(1.0, None, None)) is None
    why = told(champion, champion, reports(1.0, None, None, None))
    assert why == "the loss is not finite after 50 of 100 s (3 reports in a row)"
    assert told(champion, champion, reports(None, None, 9.0)) is None
    assert told(champion[:1], champion, reports(None, None, None)) is None


def test_a_champion_that_reported_too_low_a_loss_stops_nobody() -> None:
    """It was a candidate once. What a person's train.py reported is the measure then."""
    liar, start = flat(0.0, 0.0), flat(1.0)
    assert told(liar, start, reports(1.0 + LEAST_NATS - 0.01, 1.0, 1.0)) is None
    assert told(liar, start, reports(*[1.0 + LEAST_NATS + 0.01] * 3)) is not None
    assert told(liar, [], reports(9.0, 9.0, 9.0)) is None, "nothing is known that a person wrote"
    assert told(flat(None, None), start, reports(9.0, 9.0, 9.0)) is None


@given(
    st.lists(st.floats(0.5, 8.0), min_size=2, max_size=4),
    st.lists(st.floats(0.5, 8.0), min_size=1, max_size=2),
    st.data(),
)
def test_nobody_below_the_highest_run_is_stopped_whatever_is_reported(
    champion: list[float], start: list[float], data: st.DataObject
) -> None:
    top = max(*champion, *start)
    said = data.draw(st.lists(st.floats(-1e300, top), min_size=1, max_size=9))
    assert told(flat(*champion), flat(*start), reports(*said), margin=1.0) is None


def test_a_curve_is_compared_at_the_same_elapsed_time_between_its_points() -> None:
    falling = [receipt([Progress(step=0, tokens=0, loss=4.0 - at / 50, elapsed_s=at) for at in (0.0, 50.0, 100.0)])] * 2
    band = Band.of(falling, falling, 30.0)
    assert band is not None and band.spread == 0.0
    assert [band.highest(at) for at in (0.0, 25.0, 75.0, 100.0, 104.0)] == pytest.approx([4.0, 3.5, 2.5, 2.0, 2.0])
    late = [receipt([Progress(step=0, tokens=0, loss=4.0, elapsed_s=at) for at in (40.0, 50.0, 60.0)])]
    both = Band.of(falling, late, 30.0)
    assert both is not None and both.highest(35.0) is None


# ---- real runs -------------------------------------------------------------------------------------------------------


def stopped(run: Run, champion: Sequence[Run]) -> bool:
    runs = [receipt(one.reports) for one in champion]
    band = Band.of(runs, runs, 0.3 * BUDGET_S)
    ends = range(1, len(run.reports) + 1)
    return any(hopeless(band, run.reports[:end], budget_s=BUDGET_S, after=0.3, margin=6.0) for end in ends)


def test_of_real_runs_the_one_that_diverges_is_stopped_and_none_that_came_close() -> None:
    assert stopped(CHANGED["MATRIX_LR = 1.0"], START[:2])
    start = max(run.final for run in START)
    close = [run for run in CHANGED.values() if run.final < start + 0.03]
    assert len(close) > 7
    assert not any(stopped(run, START[:2]) for run in close)
    assert not any(stopped(run, [other for other in START if other is not run]) for run in START)


# ---- how often it is wrong -------------------------------------------------------------------------------------------


def judged(
    *bpb: float, flagged: str | None = "too high", state: State = State.DISCARDED, beaten: float = 1.0
) -> Experiment:
    measurements = [scored(f"x{value}", value).model_copy(update={"flagged": flagged}) for value in bpb]
    verdict = Verdict(merge=False, rule="r", champion_bpb=beaten, candidate_bpb=bpb[-1], reason="")
    return Experiment(id=1, campaign="c", lane="improve", state=state, hypothesis=idea(), author="p", candidate=program("x"), measurements=measurements, verdict=verdict, created_at="", updated_at="")  # fmt: skip


def test_a_flagged_run_is_missed_if_it_was_better_or_went_on() -> None:
    hopeless_ones = [judged(1.5) for _ in range(7)]
    assert miss_rate(hopeless_ones)[:2] == (7, 0)
    wrong = [judged(0.99), judged(1.2, 1.1), judged(1.2, state=State.MERGED)]
    assert miss_rate([*hopeless_ones, *wrong])[:2] == (10, 3)
    unflagged = [judged(0.9, flagged=None), judged(1.5).model_copy(update={"verdict": None, "state": State.SCORED})]
    assert miss_rate([*hopeless_ones, *unflagged])[:2] == (7, 0)


@pytest.mark.parametrize(("finished", "missed"), [(0, 0), (1, 0), (7, 0), (10, 3), (4, 4)])
def test_the_bound_is_that_of_clopper_and_pearson(finished: int, missed: int) -> None:
    bound = miss_rate([judged(0.9)] * missed + [judged(1.5)] * (finished - missed)).bound
    expected = 1.0 if missed == finished else beta.ppf(0.95, missed + 1, finished - missed)
    assert bound == pytest.approx(expected)
    assert finished != 7 or bound == pytest.approx(1 - 0.05 ** (1 / 7))


def test_curves_are_telemetry_of_a_signed_receipt_and_survive_json() -> None:
    curve = receipt(reports(1.0, None, 3.0)).curve
    text = receipt(reports(1.0, None, 3.0)).model_dump_json()
    assert Measurement.model_validate_json(text).curve == curve and json.loads(text)["curve"][1]["loss"] is None
