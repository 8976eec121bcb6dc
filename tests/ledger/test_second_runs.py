"""What an arbiter asks for before it judges: runs of the champion, second runs, canaries; and what it makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from ledger.inspection import inspect
from ledger.lease import Lease, acquire
from ledger.rebuild import rebuild
from ledger.scripts import WrongState
from ledger.standing import Court
from records import Experiment, Hashes, Lane, Policy, State, Verdict
from tests.ledger.night import Night
from tests.ledger.org import AGAIN
from tests.ledger.repository import START, Repository
from tests.ledger.samples import APPROVED, idea, program, scored, sha256_of

POLICY = Policy(rule="two-run-min", judgements=20, noise_runs=4, champion_runs=3, canary_every=100)
NOISE = (1.001, 0.999, 1.0005)
"""Of the start, whose first run was 1.0."""
Begin = Callable[..., Night]


@pytest.fixture
def begin(client: redis.Redis, lease: Lease, tmp_path: Path) -> Begin:
    """A night under a rule that needs the noise, with changes to its policy."""

    def begun(**changes: Any) -> Night:
        return Night(client, lease, Repository(tmp_path / "lab"), policy=POLICY.model_copy(update=changes))

    return begun


def run_next(night: Night, val_bpb: float, **changes: Any) -> Experiment:
    """Measure what is next, and let the arbiter look at it."""
    taken = night.ledger.take(night.org.lease, night.champion.head())
    assert taken is not None and taken.candidate is not None, "nothing waits for the device"
    measurement = scored(taken.candidate.source, val_bpb).model_copy(update=changes)
    night.ledger.record(taken.id, night.org.lease, measurement)
    night.settle()
    return night.ledger.experiment(taken.id)


def with_known_noise(night: Night) -> Night:
    night.settle()
    for score in NOISE:
        assert run_next(night, score).state == State.POOLED
    return night


def tried(night: Night, source: str, val_bpb: float) -> int:
    """A candidate with its first run, looked at."""
    id = night.scored(source, val_bpb)
    night.settle()
    return id


def merge(night: Night, source: str, val_bpb: float) -> int:
    id = tried(night, source, val_bpb)
    assert run_next(night, val_bpb).id == id and night.ledger.experiment(id).state == State.MERGED
    return id


def waiting(night: Night) -> list[Experiment]:
    """Runs of the champion that were asked for."""
    return [e for e in night.ledger.experiments(states=[State.QUEUED]) if e.lane == "repeat"]


def verdict_of(night: Night, id: int) -> Verdict:
    verdict = night.ledger.experiment(id).verdict
    assert verdict is not None
    return verdict


def complaints(night: Night) -> list[str]:
    return [line for check in inspect(night.ledger, night.champion, night.complaint) for line in check.complaints]


# ---- the noise, and second runs --------------------------------------------------------------------------------------


def test_nothing_is_judged_before_the_noise_is_known(begin: Begin) -> None:
    night = begin()
    id = tried(night, "LR = 0.5\n", 0.5)
    assert [e.repeats for e in waiting(night)] == [1, 1, 1]
    for score in NOISE:
        assert night.ledger.experiment(id).state == State.SCORED
        run_next(night, score)
    assert night.ledger.experiment(id).state == State.CONFIRMING
    assert waiting(night) == []


def test_what_is_better_twice_merges_and_says_by_which_numbers(begin: Begin) -> None:
    night = with_known_noise(begin())
    id = tried(night, "LR = 0.5\n", 0.9)
    assert night.ledger.experiment(id).state == State.CONFIRMING and night.commits() == []
    row = run_next(night, 0.91)
    assert (row.id, row.state) == (id, State.MERGED)
    verdict, runs = verdict_of(night, id), [m.run_id for m in row.runs]
    assert len(runs) == 2 and verdict.candidate_runs == runs
    assert verdict.champion_runs == [m.run_id for e in night.ledger.experiments() if not e.is_idea for m in e.runs]
    assert verdict.noise_runs == [verdict.champion_runs]
    assert (verdict.judged, verdict.freedom) == (1, 3)
    assert verdict.candidate_bpb == pytest.approx(0.905) and verdict.champion_bpb == pytest.approx(1.000125)
    assert verdict.effect_bpb == pytest.approx(1.000125 - 0.91), "the worse of the two runs"
    assert verdict.threshold_bpb is not None and 0 < verdict.threshold_bpb < 0.05
    assert verdict.sigma_bpb is not None and verdict.alpha_left == pytest.approx(0.05 * 19 / 20)
    trailers = night.repository.git("show", "-s", "--format=%(trailers:only,unfold)", night.champion.branch)
    told = dict(line.split(": ", 1) for line in trailers.splitlines() if line)
    assert told["Rule"] == "two-run-min" and told["Run-Id"].split() == runs
    assert told["Val-Bpb"] == repr(verdict.candidate_bpb) and told["Parent-Val-Bpb"] == repr(verdict.champion_bpb)
    assert told["Effect-Bpb"] == f"{verdict.effect_bpb:.6f} of {verdict.threshold_bpb:.6f}"
    assert complaints(night) == []


def test_what_was_lucky_once_ends_within_the_noise(begin: Begin) -> None:
    night = with_known_noise(begin())
    id = tried(night, "LR = 0.5\n", 0.9)
    assert run_next(night, 1.0).state == State.WITHIN_NOISE
    assert len(verdict_of(night, id).candidate_runs) == 2 and night.commits() == []
    assert complaints(night) == []


def test_what_is_evidently_worse_has_one_run(begin: Begin) -> None:
    night = with_known_noise(begin())
    id = tried(night, "LR = 9\n", 1.2)
    assert night.ledger.experiment(id).state == State.DISCARDED


def test_a_new_champion_is_run_afresh_and_topped_up_for_a_second_run(begin: Begin) -> None:
    night = with_known_noise(begin(champion_runs=4))
    first = merge(night, "LR = 0.5\n", 0.9)
    (fresh,) = waiting(night)
    assert fresh.repeats == first and run_next(night, 0.901).id == fresh.id
    assert waiting(night) == []
    second = tried(night, "LR = 0.4\n", 0.8)
    assert night.ledger.experiment(second).state == State.CONFIRMING and waiting(night) == []
    assert run_next(night, 0.8).state == State.SCORED, "three runs of the champion, and the policy has four"
    assert [e.repeats for e in waiting(night)] == [first]
    run_next(night, 0.899)
    assert night.ledger.experiment(second).state == State.MERGED
    assert len(verdict_of(night, second).champion_runs) == 4
    assert complaints(night) == []


def test_a_repeat_with_a_forged_receipt_does_not_count_and_is_asked_for_again(begin: Begin) -> None:
    night = begin()
    id = tried(night, "LR = 0.5\n", 0.9)
    for score in NOISE[:2]:
        run_next(night, score)
    run_next(night, 9.0, run_id="forged")
    assert night.ledger.experiment(id).state == State.SCORED
    assert len(waiting(night)) == 1
    run_next(night, NOISE[2])
    assert night.ledger.experiment(id).state == State.CONFIRMING
    assert "forged" not in verdict_of(night, id).champion_runs


def test_an_arbiter_that_slept_does_not_have_it_run_a_third_time(begin: Begin) -> None:
    night = with_known_noise(begin(champion_runs=4))
    merge(night, "LR = 0.5\n", 0.9)
    run_next(night, 0.901)
    id, before = night.scored("LR = 0.4\n", 0.8), night.ledger.decisions()
    night.settle()
    assert run_next(night, 0.8).state == State.SCORED  # the champion's last run is missing
    for late in (night.ledger.confirm, night.ledger.discard):
        with pytest.raises(WrongState):
            late(id, AGAIN, before)
    assert night.ledger.experiment(id).state == State.SCORED


# ---- does the machine hold still? ------------------------------------------------------------------------------------


def test_after_so_many_verdicts_the_champion_is_run_again(begin: Begin) -> None:
    night = with_known_noise(begin(canary_every=2))
    tried(night, "LR = 9\n", 1.2)
    assert waiting(night) == []
    tried(night, "LR = 8\n", 1.2)
    (canary,) = waiting(night)
    assert canary.hypothesis.category == "canary"
    assert run_next(night, 1.0).state == State.POOLED
    assert waiting(night) == [] and night.ledger.champion_commit() == night.start


def drift(night: Night, by: float = 0.2) -> None:
    """The canary that was asked for is off, and so is the next."""
    for _ in range(2):
        (canary,) = waiting(night)
        assert run_next(night, 1.0 + by).id == canary.id


def test_a_machine_that_was_off_once_is_looked_at_again_and_goes_on(begin: Begin) -> None:
    night = with_known_noise(begin(canary_every=1))
    tried(night, "LR = 9\n", 1.5)
    run_next(night, 1.2)
    assert len(waiting(night)) == 1
    run_next(night, 1.0)
    assert night.ledger.champion_commit() == night.start


def test_a_machine_that_is_off_twice_has_everything_measured_anew(begin: Begin) -> None:
    night = with_known_noise(begin(canary_every=1))
    worse, good = night.scored("LR = 9\n", 1.5), night.scored("LR = 0.5\n", 0.9)
    night.settle()
    assert [night.ledger.experiment(id).state for id in (worse, good)] == [State.DISCARDED, State.SCORED]
    drift(night)
    row = night.ledger.experiment(good)
    assert (row.state, row.runs) == (State.PROPOSED, []) and "off by +0.19" in row.note
    assert night.ledger.champion_commit() is None
    assert run_next(night, 1.2).lane == "baseline"
    assert night.ledger.champion_commit() == night.start
    for score in (1.201, 1.199):
        assert run_next(night, score).lane == "repeat"
    assert waiting(night) == []
    assert night.ledger.claim("coder") is not None
    night.ledger.code(good, program("LR = 0.5\n", night.start), {})
    night.ledger.review(good, APPROVED, {})
    row = run_next(night, 0.9)
    assert (row.id, row.state) == (good, State.CONFIRMING), "one run, though it was run before"
    verdict = verdict_of(night, good)
    assert verdict.candidate_runs == [row.measurements[-1].run_id]
    assert verdict.sigma_bpb is not None and verdict.sigma_bpb < 0.01, "the drift is no noise"
    assert complaints(night) == []


def test_a_second_run_that_is_under_way_is_waited_for_and_not_added_to_the_first(begin: Begin) -> None:
    night = with_known_noise(begin(canary_every=1))
    good, head = tried(night, "LR = 0.5\n", 0.9), night.champion.head()
    other = acquire(night.ledger.client, "gpu-2", "runner", 60.0)
    taken = night.ledger.take(other, head)
    assert taken is not None and taken.id == good
    tried(night, "LR = 9\n", 1.5)
    drift(night)
    assert night.ledger.champion_commit() == night.start
    night.ledger.record(good, other, scored("LR = 0.5\n", 1.1))
    night.settle()
    assert night.ledger.champion_commit() is None
    assert night.ledger.experiment(good).state == State.PROPOSED


# ---- other conditions ------------------------------------------------------------------------------------------------

OTHER_SCORER = Hashes(source=sha256_of("LR = 0.5\n"), prepare="", image="", dataset="", tokenizer="", scorer="2")
CONDITIONS = [{"device_name": "another GPU"}, {"hashes": OTHER_SCORER}]
LATER, LATEST = {"started_at": "2026-01-02T00:00:00Z"}, {"started_at": "2026-01-03T00:00:00Z"}


@pytest.mark.parametrize("changes", CONDITIONS, ids=["GPU", "scorer"])
def test_a_run_under_other_conditions_is_never_compared(begin: Begin, changes: dict[str, Any]) -> None:
    night = with_known_noise(begin())
    id = night.org.queued("LR = 0.5\n", night.start)
    assert run_next(night, 0.1, **changes, **LATER).state == State.SCORED
    assert len(waiting(night)) == 4, "the champion has no run like that"
    for score in (1.0, *NOISE):
        run_next(night, score, **LATEST)
    row = night.ledger.experiment(id)
    assert row.state == State.PROPOSED and "run under other conditions since" in row.note
    assert waiting(night) == []


@pytest.mark.parametrize("changes", CONDITIONS, ids=["GPU", "scorer"])
def test_two_runs_under_unlike_conditions_are_not_judged_together(begin: Begin, changes: dict[str, Any]) -> None:
    night = with_known_noise(begin())
    tried(night, "LR = 0.5\n", 0.9)
    row = run_next(night, 0.9, **changes)
    assert row.state == State.PROPOSED and "same conditions" in row.note
    assert night.commits() == []


# ---- what is simpler may lose a little -------------------------------------------------------------------------------


def in_lane(night: Night, lane: Lane, source: str, val_bpb: float) -> Experiment:
    """A candidate of another lane, run until there is a verdict."""
    assert lane in ("improve", "simplify", "upkeep")
    id = night.ledger.propose(idea(), author="planner/test", lane=lane, roles={})
    assert id is not None and night.ledger.claim("coder") is not None
    night.ledger.code(id, program(source, night.champion.head()), {})
    night.ledger.review(id, APPROVED, {})
    assert run_next(night, val_bpb).id == id
    while night.ledger.experiment(id).state in (State.CONFIRMING, State.SCORED):
        run_next(night, val_bpb)
    return night.ledger.experiment(id)


def test_what_is_simpler_may_lose_a_margin_until_the_cap_is_reached(begin: Begin) -> None:
    night = with_known_noise(begin(simplify_margin=30.0, simplify_cap=30.0))
    simple = "# nothing\n"
    lost = in_lane(night, "improve", "# none\n", 1.01)
    assert lost.state != State.MERGED, "an improvement may lose nothing"
    verdict = verdict_of(night, lost.id)
    assert verdict.sigma_bpb is not None and verdict.threshold_bpb is not None and verdict.allowed_bpb == 0.0
    room = 30.0 * verdict.sigma_bpb - verdict.threshold_bpb
    assert room > 0.005, "or there is nothing to try"
    longer = in_lane(night, "simplify", "LR = 1.0\nA = 1\n", 1.0 + room * 0.8)
    assert longer.state != State.MERGED and verdict_of(night, longer.id).allowed_bpb == 0.0, "it is not simpler"
    worse = in_lane(night, "simplify", "# too much\n", 1.0 + room * 1.3)
    assert worse.state != State.MERGED
    simpler = in_lane(night, "simplify", simple, 1.0 + room * 0.8)
    assert simpler.state == State.MERGED
    verdict = verdict_of(night, simpler.id)
    assert verdict.allowed_bpb == pytest.approx(30.0 * (verdict.sigma_bpb or 0.0))
    run_next(night, 1.0 + room * 0.8)  # the new champion's fresh one
    again = in_lane(night, "upkeep", "LR = 2\n", 1.0 + room * 1.6)
    assert again.state != State.MERGED
    lost_bpb = verdict_of(night, simpler.id).candidate_bpb or 0.0
    verdict = verdict_of(night, again.id)
    assert verdict.allowed_bpb == pytest.approx(30.0 * (verdict.sigma_bpb or 0.0) - (lost_bpb - 1.000125), rel=1e-3)
    assert complaints(night) == []


# ---- the error budget ------------------------------------------------------------------------------------------------


def test_after_a_rebuild_the_error_budget_does_not_start_over(begin: Begin, client: redis.Redis) -> None:
    night = with_known_noise(begin(champion_runs=2))
    for source in ("LR = 9\n", "LR = 8\n"):
        tried(night, source, 1.2)
    merge(night, "LR = 0.5\n", 0.9)
    assert night.ledger.spent().verdicts == 3
    client.flushall()
    rebuild(night.ledger, night.champion)
    night.org.lease = acquire(client, "cpu", "runner", 60.0)
    standing = Court(night.ledger, night.complaint).standing()
    assert standing is not None and standing.judged == 3
    night.keeper.lease = night.org.relay()
    night.settle()
    while waiting(night):
        run_next(night, 0.9005)
    id = tried(night, "LR = 7\n", 1.2)
    assert verdict_of(night, id).judged == 4 and night.ledger.spent().verdicts == 4


def test_once_all_judgements_are_spent_nothing_merges(begin: Begin) -> None:
    night = with_known_noise(begin(judgements=2))
    for source in ("LR = 9\n", "LR = 8\n"):
        tried(night, source, 1.2)
    id = tried(night, "LR = 0.5\n", 0.5)
    row = night.ledger.experiment(id)
    assert row.state in (State.DISCARDED, State.WITHIN_NOISE) and "all 2 judgements" in verdict_of(night, id).reason
    assert START in night.champion.source(night.champion.head())
