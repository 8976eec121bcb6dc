"""Every step of an experiment, and who is refused it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from ledger import AlreadyRecorded, Ledger, Spent, StaleFence, WrongState, store
from ledger.lease import Lease, acquire, release
from ledger.server import connect
from records import BadInput, FailureKind, MissingComponent, Progress, State, Verdict
from tests.ledger.org import BASELINE, Org
from tests.ledger.samples import APPROVED, BASE, REFUSED, campaign, failed, idea, program, scored

YES = Verdict(merge=True, rule="test", champion_bpb=1.0, candidate_bpb=0.9, reason="lower")
NO = Verdict(merge=False, rule="test", champion_bpb=1.0, candidate_bpb=1.1, reason="higher")
NEXT = "c" * 40


# ---- campaigns -------------------------------------------------------------------------------------------------------


def test_a_campaign_is_read_back_as_it_was_written(client: redis.Redis) -> None:
    first, second = Ledger(client, "night-1"), Ledger(client, "night-2")
    first.create(campaign("night-1"))
    second.create(campaign("night-2"))
    assert first.campaign() == campaign("night-1")
    assert Ledger.campaigns(client) == ["night-1", "night-2"]


def test_a_campaign_is_begun_once(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match="night exists already"):
        ledger.create(campaign("night"))


def test_a_missing_campaign_is_said_to_be_missing(client: redis.Redis) -> None:
    with pytest.raises(MissingComponent, match="no campaign nowhere"):
        Ledger(client, "nowhere").campaign()


@pytest.mark.parametrize("name", ["", "a:b", "a b", "../x", "-x"])
def test_a_name_that_could_be_mistaken_for_something_else_is_refused(client: redis.Redis, name: str) -> None:
    with pytest.raises(BadInput, match="a name is letters"):
        Ledger(client, name).create(campaign(name))


def test_two_campaigns_in_one_server_do_not_see_each_other(org: Org, client: redis.Redis) -> None:
    other = Ledger(client, "other")
    other.create(campaign("other"))
    org.propose()
    assert other.experiments() == []
    assert other.claim("coder") is None


def test_a_stop_reason_is_kept_until_it_is_cleared(ledger: Ledger) -> None:
    assert ledger.stop_reason() is None
    ledger.set_stop("6 experiments judged")
    assert ledger.stop_reason() == "6 experiments judged"
    ledger.clear_stop()
    assert ledger.stop_reason() is None


# ---- ideas -----------------------------------------------------------------------------------------------------------


def test_an_idea_is_read_back_with_its_author_and_roles(org: Org) -> None:
    id = org.propose("MATRIX_LR 0.04 → 0.06")
    row = org.ledger.experiment(id)
    assert row.hypothesis == idea("MATRIX_LR 0.04 → 0.06")
    assert (row.state, row.lane, row.author, row.roles) == (
        State.PROPOSED,
        "improve",
        "planner/test",
        {"planner": "p1"},
    )
    assert row.created_at <= row.updated_at


def test_ideas_are_claimed_oldest_first(org: Org) -> None:
    first, second = org.propose(), org.propose()
    claims = [org.ledger.claim("coder"), org.ledger.claim("coder"), org.ledger.claim("coder")]
    assert [claim and claim.id for claim in claims] == [first, second, None]


def test_a_released_idea_keeps_its_turn(org: Org) -> None:
    first = org.claimed()
    org.propose()
    org.ledger.release(first)
    again = org.ledger.claim("coder")
    assert again is not None and again.id == first


def test_a_claim_of_a_worker_that_died_is_given_again(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    id = org.claimed()
    assert org.ledger.claim("another") is None
    monkeypatch.setattr(store, "CLAIM_PATIENCE_S", -1.0)
    again = org.ledger.claim("another")
    assert again is not None and again.id == id


def test_the_list_takes_no_more_ideas_than_it_may_hold_under_16_threads(org: Org, redis_url: str) -> None:
    def propose(_: int) -> int | None:
        mine = Ledger(connect(redis_url), "night")
        return mine.propose(idea(), author="planner/test", roles={}, max_open=5)

    ids = in_16_threads(propose)
    assert sum(id is not None for id in ids) == 5
    assert org.ledger.counts() == {State.PROPOSED: 5}


def test_an_experiment_on_a_device_makes_room_for_another_idea(org: Org) -> None:
    org.queued("a")
    assert org.ledger.propose(idea(), author="p", roles={}, max_open=1) is None
    org.take(BASE)
    assert org.ledger.propose(idea(), author="p", roles={}, max_open=1) is not None


def test_the_same_program_is_owned_by_exactly_one_of_16_experiments(org: Org, redis_url: str) -> None:
    ids = [org.claimed() for _ in range(16)]

    def code(index: int) -> int | None:
        return Ledger(connect(redis_url), "night").code(ids[index], program("same"), {})

    owners = in_16_threads(code)
    assert owners.count(None) == 1
    winner = ids[owners.index(None)]
    assert set(owners) == {None, winner}
    assert org.ledger.counts() == {State.CODED: 1, State.DUPLICATE: 15}
    loser = next(id for id in ids if id != winner)
    assert org.ledger.experiment(loser).note == f"same program as #{winner}"


def test_the_starting_program_is_never_measured_as_an_idea(org: Org) -> None:
    baseline = org.baseline()
    assert org.ledger.code(org.claimed(), program(BASELINE, NEXT), {}) == baseline


def test_a_program_coded_anew_gives_up_its_old_claim(org: Org) -> None:
    id = org.scored("old", 0.9)
    org.ledger.rebase(id, "rebase")
    org.ledger.claim("coder")
    assert org.ledger.code(id, program("new", NEXT), {}) is None
    assert org.ledger.code(org.claimed(), program("old"), {}) is None
    assert org.ledger.code(org.claimed(), program("new"), {}) == id


def test_an_idea_that_cannot_be_coded_is_refused_with_the_reason(org: Org) -> None:
    id = org.claimed()
    org.ledger.refuse(id, "no knob MATRIX_LR", {"coder": "c1"})
    row = org.ledger.experiment(id)
    assert (row.state, row.note, row.roles["coder"]) == (State.REFUSED, "no knob MATRIX_LR", "c1")


def test_the_reviewer_queues_or_refuses_the_oldest_program(org: Org) -> None:
    good, bad = org.coded("a"), org.coded("b")
    for expected, review in ((good, APPROVED), (bad, REFUSED)):
        oldest = org.ledger.next_coded()
        assert oldest is not None and oldest.id == expected
        org.ledger.review(expected, review, {"reviewer": "r1"})
    assert org.ledger.next_coded() is None
    assert org.ledger.experiment(good).state == State.QUEUED
    assert org.ledger.experiment(bad).state == State.REFUSED
    assert org.ledger.experiment(bad).note == "seed_only: only a seed differs"


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_a_runner_is_given_the_oldest_candidate_of_the_champion(org: Org) -> None:
    first, second = org.queued("a"), org.queued("b")
    assert org.take(BASE) == first
    org.ledger.record(first, org.lease, scored("a", 1.0))
    assert org.take(BASE) == second
    assert org.ledger.experiment(second).attempts == 1


def test_a_runner_that_lost_the_answer_is_given_the_same_experiment_again(org: Org) -> None:
    id = org.running("a")
    org.queued("b")
    assert org.take(BASE) == id
    assert org.ledger.experiment(id).attempts == 1


def test_candidates_of_an_older_champion_are_sent_back_not_run(org: Org) -> None:
    old, fresh = org.queued("a"), org.queued("b", NEXT)
    assert org.take(NEXT) == fresh
    row = org.ledger.experiment(old)
    assert (row.state, row.note, row.attempts) == (State.PROPOSED, "rebase: champion moved", 0)


def test_a_baseline_runs_first_whatever_the_champion_is(org: Org) -> None:
    org.queued("a")
    id = org.ledger.propose_baseline(program(BASELINE, NEXT))
    assert org.take("d" * 40) == id


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (FailureKind.CRASH, State.CRASHED),
        (FailureKind.OOM, State.CRASHED),
        (FailureKind.TIMEOUT, State.CRASHED),
        (FailureKind.NO_SUBMIT, State.CRASHED),
        (FailureKind.INVALID, State.INVALID),
        (FailureKind.HOPELESS, State.CRASHED),
        (FailureKind.DISTURBED, State.QUEUED),
        (FailureKind.ENGINE_LOST, State.QUEUED),
        (FailureKind.GPU_DIRTY, State.QUEUED),
        (FailureKind.HOST_ERROR, State.QUEUED),
    ],
)
def test_a_failure_leads_where_its_kind_says(org: Org, kind: FailureKind, state: State) -> None:
    id = org.running("a")
    org.ledger.record(id, org.lease, failed("a", kind))
    row = org.ledger.experiment(id)
    assert (row.state, row.note) == (state, f"{kind}: it went wrong")
    assert row.measurements == [failed("a", kind)]


def test_the_third_failure_of_the_host_ends_the_experiment(org: Org) -> None:
    id = org.queued("a")
    for expected in (State.QUEUED, State.QUEUED, State.CRASHED):
        assert org.take(BASE) == id
        org.ledger.record(id, org.lease, failed("a", FailureKind.ENGINE_LOST))
        assert org.ledger.experiment(id).state == expected
    assert org.ledger.experiment(id).note.startswith("host failed 3 times")


def test_a_score_is_read_back_to_the_last_bit(org: Org) -> None:
    value = 1.0000000000000002
    id = org.scored("a", value)
    score = org.ledger.experiment(id).score
    assert score is not None and score.val_bpb == value


def test_a_baseline_is_queued_once_and_becomes_the_champion(org: Org) -> None:
    id = org.ledger.propose_baseline(program(BASELINE))
    assert org.ledger.propose_baseline(program(BASELINE)) == id
    assert org.ledger.champion_experiment() is None
    assert org.ledger.champion_score() == []
    assert org.baseline(1.5) == id
    assert org.ledger.propose_baseline(program(BASELINE)) == id
    row = org.ledger.experiment(id)
    assert (row.state, row.commit, row.lane) == (State.MERGED, BASE, "baseline")
    assert org.ledger.champion_commit() == BASE
    assert [m.val_bpb for m in org.ledger.champion_score()] == [1.5]


def test_a_baseline_that_fails_makes_no_champion(org: Org) -> None:
    id = org.ledger.propose_baseline(program(BASELINE))
    org.take(BASE)
    org.ledger.record(id, org.lease, failed(BASELINE, FailureKind.CRASH))
    assert org.ledger.experiment(id).state == State.CRASHED
    assert org.ledger.champion_commit() is None


def test_a_runner_that_wakes_up_after_its_lease_changes_nothing(org: Org, client: redis.Redis) -> None:
    id = org.running("a")
    release(client, org.lease)
    with pytest.raises(StaleFence):
        org.ledger.record(id, org.lease, scored("a", 0.1))
    successor = acquire(client, "cpu", "successor", 60.0)
    with pytest.raises(StaleFence):
        org.ledger.record(id, org.lease, scored("a", 0.1))
    assert org.ledger.requeue_orphans() == [id]
    assert org.ledger.take(successor, BASE) is not None
    with pytest.raises(StaleFence):
        org.ledger.record(id, org.lease, scored("a", 0.1))
    with pytest.raises(StaleFence):
        org.ledger.take(org.lease, BASE)
    org.ledger.record(id, successor, scored("a", 0.9))
    row = org.ledger.experiment(id)
    assert [m.val_bpb for m in row.measurements] == [0.9]
    assert row.attempts == 1


def test_the_lease_of_another_device_cannot_record(org: Org, client: redis.Redis) -> None:
    id = org.running("a")
    other = acquire(client, "cuda:1", "runner", 60.0)
    assert other.fence == org.lease.fence
    with pytest.raises(StaleFence):
        org.ledger.record(id, other, scored("a", 0.1))


def test_a_result_is_recorded_once(org: Org) -> None:
    id = org.scored("a", 0.9)
    with pytest.raises(StaleFence):
        org.ledger.record(id, org.lease, scored("a", 0.1))
    assert len(org.ledger.experiment(id).measurements) == 1


def test_a_result_is_recorded_once_whoever_hands_it_in_again(org: Org) -> None:
    first, second = org.running("a"), org.queued("b")
    result = scored("a", 0.9)
    org.ledger.record(first, org.lease, result)
    with pytest.raises(AlreadyRecorded, match=f"for experiment #{first}"):
        org.ledger.record(first, org.lease, result)
    assert org.take(BASE) == second
    with pytest.raises(AlreadyRecorded):
        org.ledger.record(second, org.lease, result)
    assert org.ledger.experiment(second).measurements == []
    org.ledger.record(second, org.lease, scored("a", 0.9))
    assert org.ledger.spent().device_s == 2 * 1.75


def test_people_see_what_runs_and_how_far_it_is(org: Org) -> None:
    assert org.ledger.running() == []
    id = org.running("a")
    (running,) = org.ledger.running()
    assert (running.experiment, running.device, running.phase, running.progress) == (id, "cpu", "starting", None)
    progress = Progress(step=3, tokens=30, loss=2.5, elapsed_s=0.5)
    org.ledger.progress(id, org.lease, "training", progress)
    (running,) = org.ledger.running()
    assert (running.phase, running.progress) == ("training", progress)
    org.ledger.record(id, org.lease, scored("a", 0.9))
    assert org.ledger.running() == []


def test_progress_of_an_older_run_is_not_shown(org: Org, client: redis.Redis) -> None:
    id = org.running("a")
    release(client, org.lease)
    org.ledger.requeue_orphans()
    org.ledger.take(acquire(client, "cpu", "successor", 60.0), BASE)
    org.ledger.progress(id, org.lease, "training", None)
    assert org.ledger.running()[0].phase == "starting"


# ---- arbitration -----------------------------------------------------------------------------------------------------


def test_a_merge_makes_the_champion(org: Org) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    intent = org.intend(id, YES, NEXT)
    merging = org.ledger.next_merging()
    assert merging is not None and merging.id == id
    assert org.ledger.outbox() == {str(id): intent}
    org.ledger.merged(id, org.relay(), NEXT, intent)
    row = org.ledger.experiment(id)
    assert (row.state, row.commit, row.verdict) == (State.MERGED, NEXT, YES)
    assert org.ledger.champion_experiment() == row
    assert [m.val_bpb for m in org.ledger.champion_score()] == [0.9]
    assert org.ledger.outbox() == {}


def test_a_second_merge_waits_for_the_first(org: Org) -> None:
    org.baseline()
    first, second = org.scored("a", 0.9), org.scored("b", 0.8)
    org.intend(first, YES, NEXT)
    with pytest.raises(WrongState, match=f"#{first} is being merged"):
        org.intend(second, YES, "d" * 40)


def test_a_merge_onto_another_parent_than_the_champion_is_refused(org: Org) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    with pytest.raises(WrongState, match="the champion is not"):
        org.intend(id, YES, "d" * 40, NEXT)
    assert org.ledger.experiment(id).state == State.SCORED


def test_only_the_intended_commit_can_be_marked_merged(org: Org) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    org.intend(id, YES, NEXT)
    with pytest.raises(WrongState, match="no open intent"):
        org.ledger.merged(id, org.relay(), "d" * 40, "another intent")
    assert org.ledger.champion_commit() == BASE


def test_a_relay_whose_lease_is_over_marks_nothing(org: Org, client: redis.Redis) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    intent, asleep = org.intend(id, YES, NEXT), org.relay()
    release(client, asleep)
    awake = org.relay()
    for stale in (asleep, org.lease):
        with pytest.raises(StaleFence, match="another relay goes on"):
            org.ledger.merged(id, stale, NEXT, intent)
        with pytest.raises(StaleFence, match="another relay goes on"):
            org.ledger.abandon_merge(id, stale, "no")
    assert org.ledger.experiment(id).state == State.MERGING
    org.ledger.merged(id, awake, NEXT, intent)
    assert org.ledger.experiment(id).state == State.MERGED


def test_an_abandoned_merge_is_measured_again(org: Org) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    org.intend(id, YES, NEXT)
    org.ledger.abandon_merge(id, org.relay(), "the branch moved")
    row = org.ledger.experiment(id)
    assert (row.state, row.note, row.verdict) == (State.PROPOSED, "the branch moved", None)
    assert org.ledger.outbox() == {}


def test_an_arbiter_that_slept_since_it_looked_asks_for_no_baseline(org: Org) -> None:
    org.baseline()
    id = org.scored("a", 0.9)
    intent = org.intend(id, YES, NEXT)
    before = org.ledger.last_event()
    for commit, champion in ((NEXT, BASE), (NEXT, ""), ("e" * 40, NEXT)):
        with pytest.raises(WrongState, match="the champion has moved"):
            org.ledger.propose_baseline(program("by hand", commit), champion)
    org.ledger.merged(id, org.relay(), NEXT, intent)
    with pytest.raises(WrongState, match="the champion has moved"):
        org.ledger.propose_baseline(program(BASELINE, BASE), BASE)
    assert org.ledger.last_event() == before + 1
    org.ledger.propose_baseline(program("by hand", "e" * 40), NEXT)
    assert org.ledger.last_event() == before + 2


def test_the_fourth_rebase_makes_an_experiment_stale(org: Org) -> None:
    id = org.scored("0", 0.9)
    for round in range(1, 4):
        org.ledger.rebase(id, "champion moved")
        assert org.ledger.experiment(id).state == State.PROPOSED
        org.ledger.claim("coder")
        org.ledger.code(id, program(str(round)), {})
        org.ledger.review(id, APPROVED, {})
        org.take(BASE)
        org.ledger.record(id, org.lease, scored(str(round), 0.9))
    org.ledger.rebase(id, "champion moved")
    assert org.ledger.experiment(id).state == State.STALE


def test_steps_from_a_wrong_state_are_refused_and_change_nothing(org: Org) -> None:
    org.baseline()
    id = org.propose()
    relay = org.relay()
    before = (org.ledger.experiment(id), org.ledger.last_event())
    steps: list[Callable[[], object]] = [
        lambda: org.ledger.release(id),
        lambda: org.ledger.code(id, program("x"), {}),
        lambda: org.ledger.refuse(id, "no", {}),
        lambda: org.ledger.review(id, APPROVED, {}),
        lambda: org.ledger.discard(id, NO),
        lambda: org.ledger.rebase(id, "no"),
        lambda: org.intend(id, YES, NEXT),
        lambda: org.ledger.merged(id, relay, NEXT, ""),
        lambda: org.ledger.abandon_merge(id, relay, "no"),
    ]
    for step in steps:
        with pytest.raises(WrongState, match=f"#{id} (is not |has no open intent)"):
            step()
    with pytest.raises(StaleFence):
        org.ledger.record(id, org.lease, scored("x", 0.1))
    assert (org.ledger.experiment(id), org.ledger.last_event()) == before


def test_an_unknown_experiment_is_said_to_be_unknown(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match="no experiment #7"):
        ledger.experiment(7)
    with pytest.raises(BadInput, match="no experiment #7"):
        ledger.release(7)


# ---- reading and recovery --------------------------------------------------------------------------------------------


def test_every_transition_is_one_event(org: Org) -> None:
    start = org.ledger.last_event()
    id = org.scored("a", 0.9)
    org.ledger.discard(id, NO)
    events = org.ledger.events(after=start)
    assert [event.kind for event in events] == [
        "→proposed",
        "proposed→claimed",
        "claimed→coded",
        "coded→queued",
        "queued→running",
        "running→scored",
        "scored→discarded",
    ]
    assert {event.experiment for event in events} == {id}
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert org.ledger.events(after=events[-1].id) == []
    assert org.ledger.events()[0].kind == "created"


def test_rows_are_listed_by_state(org: Org) -> None:
    org.baseline()
    discarded, waiting = org.scored("a", 1.1), org.propose()
    org.ledger.discard(discarded, NO)
    assert [e.id for e in org.ledger.experiments()] == [1, discarded, waiting]
    assert [e.id for e in org.ledger.experiments(states=[State.DISCARDED])] == [discarded]
    assert org.ledger.counts() == {State.MERGED: 1, State.DISCARDED: 1, State.PROPOSED: 1}


def test_what_is_spent_counts_runs_and_seconds_but_not_the_baseline(org: Org) -> None:
    org.baseline()
    judged = org.scored("a", 1.1)
    org.ledger.discard(judged, NO)
    org.running("b")
    org.propose()
    assert org.ledger.spent() == Spent(started=2, judged=1, verdicts=1, open=1, device_s=2 * 1.75)


def test_an_experiment_sent_back_is_open_again_so_that_its_turn_can_come(org: Org) -> None:
    id = org.scored("a", 0.9)
    assert org.ledger.spent()[:4] == (1, 0, 0, 0)
    org.ledger.rebase(id, "champion moved")
    assert org.ledger.spent()[:4] == (0, 0, 0, 1)


def test_a_new_launcher_takes_back_what_dead_workers_held(org: Org, client: redis.Redis) -> None:
    running = org.running("a")
    claimed = org.claimed()
    release(client, org.lease)
    assert len(org.ledger.recover()) == 2
    assert org.ledger.experiment(claimed).state == State.PROPOSED
    row = org.ledger.experiment(running)
    assert (row.state, row.attempts) == (State.QUEUED, 0)
    assert org.ledger.recover() == []


def crash_by_the_host(org: Org, id: int, source: str) -> None:
    for i in range(3):
        assert org.take(BASE) == id
        org.ledger.record(id, org.lease, failed(source, FailureKind.DISTURBED, f"{source} {id} {i}"))
    assert org.ledger.experiment(id).state == State.CRASHED and org.ledger.experiment(id).host_failed


def test_a_start_that_the_host_failed_is_measured_again_by_every_new_launcher(org: Org) -> None:
    start = org.ledger.propose_baseline(program(BASELINE))
    for _ in range(3):
        crash_by_the_host(org, start, BASELINE)
        assert org.ledger.recover() == [f"#{start} crashed for the host's own reasons: it is tried again"]
        assert org.ledger.recover() == []
    assert org.take(BASE) == start
    org.ledger.record(start, org.lease, scored(BASELINE, 1.5))
    org.ledger.crown(start, BASE)
    assert org.ledger.champion_experiment() is not None and not org.ledger.experiment(start).host_failed


def test_an_idea_that_the_host_failed_is_tried_again_once(org: Org) -> None:
    """One that fails the host each time, whatever it does to it, would end every launch."""
    org.baseline(1.5)
    id = org.queued("a", BASE)
    crash_by_the_host(org, id, "a")
    assert len(org.ledger.recover()) == 1 and org.ledger.experiment(id).state == State.QUEUED
    crash_by_the_host(org, id, "a")
    assert org.ledger.recover() == [] and org.ledger.experiment(id).state == State.CRASHED


def test_what_crashed_by_its_own_fault_is_not_tried_again(org: Org) -> None:
    start = org.ledger.propose_baseline(program(BASELINE))
    for i, kind in enumerate((FailureKind.DISTURBED, FailureKind.DISTURBED, FailureKind.CRASH)):
        assert org.take(BASE) == start
        org.ledger.record(start, org.lease, failed(BASELINE, kind, f"run {i}"))
    assert org.ledger.recover() == [] and org.ledger.experiment(start).state == State.CRASHED


def test_a_run_whose_runner_lives_is_left_alone(org: Org) -> None:
    id = org.running("a")
    assert org.ledger.recover() == []
    org.ledger.record(id, org.lease, scored("a", 0.9))


def in_16_threads(step: Callable[[int], int | None]) -> list[int | None]:
    """What 16 threads that begin at the same moment return."""
    barrier = threading.Barrier(16)

    def go(index: int) -> int | None:
        barrier.wait()
        return step(index)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(go, range(16)))


def test_16_runners_take_16_different_experiments(org: Org, client: redis.Redis, redis_url: str) -> None:
    ids = [org.queued(str(i)) for i in range(16)]
    leases = [acquire(client, f"gpu{i}", "runner", 60.0) for i in range(16)]

    def take(index: int) -> int | None:
        experiment = Ledger(connect(redis_url), "night").take(leases[index], BASE)
        return experiment.id if experiment else None

    taken = in_16_threads(take)
    assert sorted(id for id in taken if id is not None) == ids


def test_a_lease_is_a_plain_value_that_crosses_processes() -> None:
    assert Lease("cpu", "me", 3) == ("cpu", "me", 3)
