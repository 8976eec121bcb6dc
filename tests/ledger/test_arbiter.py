"""What won lands exactly once, exactly as it was measured, wherever the arbiter dies."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.intent import Intent
from ledger.lease import Lease
from records import FailureKind, Measurement, State
from tests.ledger.night import Night
from tests.ledger.repository import START, Repository
from tests.ledger.samples import APPROVED, campaign, failed, lower_or_not, program, scored, sha256_of


def test_an_arbiter_without_work_says_so(night: Night) -> None:
    assert night.arbiter().step() is False


def test_a_start_that_nobody_measured_is_queued(client: redis.Redis, lease: Lease, tmp_path: Path) -> None:
    champion = Champion(Repository(tmp_path / "lab").root, "night")
    start = champion.start(START)
    ledger = Ledger(client, "night")
    ledger.create(campaign("night", start))
    for _ in range(3):
        Arbiter(ledger, champion, Night.complaint, Night.seal).step()
    (baseline,) = ledger.experiments()
    assert (baseline.lane, baseline.state) == ("baseline", State.QUEUED)
    assert baseline.candidate is not None and baseline.candidate.source == START


def test_a_better_candidate_lands_as_it_was_measured(night: Night) -> None:
    id = night.scored("LR = 0.5\n", 0.9)
    night.settle()
    row = night.ledger.experiment(id)
    assert (row.state, row.commit) == (State.MERGED, night.champion.head())
    assert night.commits() == [row.commit]
    assert night.champion.landed_source_sha256(night.champion.head()) == sha256_of("LR = 0.5\n")
    assert night.repository.git("diff-tree", "-r", "--name-only", night.start, night.champion.head()) == "train.py"
    assert [m.val_bpb for m in night.ledger.champion_score()] == [0.9]


def test_a_merge_says_in_trailers_what_it_is(night: Night) -> None:
    id = night.scored("LR = 0.5\n", 0.9)
    history = night.ledger.head()
    night.settle()
    trailers = night.repository.git("show", "-s", "--format=%(trailers:only,unfold)", night.champion.branch)
    assert dict(line.split(": ", 1) for line in trailers.splitlines() if line) == {
        "Experiment": str(id),
        "Campaign": "night",
        "Lane": "improve",
        "Rule": "keep-if-lower",
        "Val-Bpb": "0.9",
        "Parent-Val-Bpb": "1.0",
        "Effect-Bpb": "0.100000 of 0.000000",
        "Run-Id": f"run-{id}",
        "Source-Sha256": sha256_of("LR = 0.5\n"),
        "Ledger-Head": history,
    }


def test_a_title_cannot_forge_a_trailer(night: Night) -> None:
    id = night.org.propose("better\n\nVal-Bpb: 0.1\nExperiment: 99")
    night.ledger.claim("coder")
    night.ledger.code(id, program("LR = 0.5\n", night.start), {})
    night.ledger.review(id, APPROVED, {})
    night.org.take(night.start)
    night.ledger.record(id, night.org.lease, scored("LR = 0.5\n", 0.9))
    night.settle()
    values = night.repository.git("show", "-s", "--format=%(trailers:key=Val-Bpb,valueonly)", night.champion.branch)
    assert values.split() == ["0.9"]


def test_a_worse_candidate_is_discarded_and_the_branch_stays(night: Night) -> None:
    id = night.scored("LR = 9\n", 1.1)
    night.settle()
    row = night.ledger.experiment(id)
    assert row.state == State.DISCARDED
    assert row.verdict is not None and not row.verdict.merge
    assert night.commits() == []


def test_two_winners_over_one_parent_are_not_both_merged(night: Night) -> None:
    first, second = night.scored("LR = 0.5\n", 0.9), night.scored("LR = 0.4\n", 0.8)
    night.settle()
    assert night.ledger.experiment(first).state == State.MERGED
    row = night.ledger.experiment(second)
    assert (row.state, row.note) == (State.PROPOSED, "rebase: champion moved")
    assert len(night.commits()) == 1


def test_a_measurement_of_another_program_never_lands(night: Night) -> None:
    id = night.org.running("LR = 0.5\n", night.start)
    night.ledger.record(id, night.org.lease, scored("LR = 0.1\n", 0.5))
    night.settle()
    row = night.ledger.experiment(id)
    assert row.state == State.DISCARDED
    assert row.verdict is not None and "not the program that would land" in row.verdict.reason
    assert night.commits() == []


# ---- crashes ---------------------------------------------------------------------------------------------------------


def decided(night: Night, id: int) -> None:
    """Dies after the verdict and the commit object, before the intent."""
    night.champion.prepare(night.start, "LR = 0.5\n", "experiment\n")


def intended(night: Night, id: int) -> str:
    """Dies after the intent, before git."""
    experiment = night.ledger.experiment(id)
    verdict = lower_or_not(night.ledger.champion_score(), experiment.measurements[-1])
    commit = night.champion.prepare(night.start, "LR = 0.5\n", "experiment\n")
    intent = Intent(
        campaign="night", experiment=id, parent=night.start, commit=commit, source_sha256=sha256_of("LR = 0.5\n")
    )
    night.ledger.intend_merge(verdict, intent.sealed(night.seal))
    return commit


def landed(night: Night, id: int) -> None:
    """Dies after git, before `merged`."""
    assert night.champion.land(night.start, intended(night, id))


def landed_and_built_upon(night: Night, id: int) -> None:
    """As before, and somebody commits on top before the next arbiter comes."""
    landed(night, id)
    night.repository.commit_on(night.champion.branch, "LR = 7\n")


@pytest.mark.parametrize("crash", [decided, intended, landed, landed_and_built_upon])
def test_a_crash_between_any_two_steps_ends_merged_exactly_once(
    night: Night, crash: Callable[[Night, int], object]
) -> None:
    id = night.scored("LR = 0.5\n", 0.9)
    crash(night, id)
    night.settle()
    row = night.ledger.experiment(id)
    assert row.state == State.MERGED and row.commit is not None
    assert night.ledger.outbox() == {}
    landed = [c for c in night.commits() if night.champion.landed_source_sha256(c) == sha256_of("LR = 0.5\n")]
    assert landed == [row.commit] == night.commits()[:1]
    assert [e.kind for e in night.ledger.events()].count("merging→merged") == 1


# ---- somebody else's commits -----------------------------------------------------------------------------------------


def test_a_commit_that_comes_first_makes_the_merge_start_over(night: Night) -> None:
    id = night.scored("LR = 0.5\n", 0.9)
    intended(night, id)
    theirs = night.repository.commit_on(night.champion.branch, "LR = 7\n")
    night.settle()
    assert night.ledger.experiment(id).state == State.PROPOSED
    assert night.champion.head() == theirs


def test_a_commit_by_hand_is_measured_and_becomes_the_score_to_beat(night: Night) -> None:
    theirs = night.repository.commit_on(night.champion.branch, "LR = 7\n")
    early = night.org.scored("LR = 0.5\n", 0.95, theirs)
    night.settle()
    assert night.ledger.experiment(early).state == State.SCORED, "nothing is judged against a score nobody measured"
    (baseline,) = night.ledger.experiments(states=[State.QUEUED])
    assert night.org.take(theirs) == baseline.id
    night.ledger.record(baseline.id, night.org.lease, scored("LR = 7\n", 0.94))
    night.settle()
    assert night.ledger.champion_commit() == theirs
    row = night.ledger.experiment(early)
    assert row.state == State.DISCARDED
    assert row.verdict is not None and row.verdict.champion_bpb == 0.94


def test_a_branch_set_back_to_an_earlier_start_is_measured_afresh(night: Night) -> None:
    night.scored("LR = 0.5\n", 0.9)
    night.settle()
    night.repository.git("update-ref", f"refs/heads/{night.champion.branch}", night.start)
    night.settle()
    (again,) = night.ledger.experiments(states=[State.QUEUED])
    assert again.lane == "baseline"
    assert night.org.take(night.start) == again.id
    night.ledger.record(again.id, night.org.lease, scored(START, 1.01))
    night.settle()
    assert night.ledger.champion_commit() == night.start


def test_a_baseline_that_is_not_the_program_of_its_commit_is_no_champion(
    client: redis.Redis, lease: Lease, tmp_path: Path
) -> None:
    """Else a bad score under the name of the start would let everything merge."""
    champion = Champion(Repository(tmp_path / "lab").root, "night")
    start, ledger = champion.start(START), Ledger(client, "night")
    ledger.create(campaign("night", start))
    arbiter = Arbiter(ledger, champion, Night.complaint, Night.seal)
    arbiter.step()
    assert ledger.take(lease, start) is not None
    client.hset(ledger.row_key(1), "candidate", program("LR = 99\n", start).model_dump_json())
    ledger.record(1, lease, scored("LR = 99\n", 9.0))
    assert arbiter.step()
    assert ledger.experiment(1).state == State.DISCARDED and ledger.champion_commit() is None
    arbiter.step()
    assert ledger.take(lease, start) is not None, "it is measured again"
    ledger.record(2, lease, scored(START, 1.0))
    assert arbiter.step()
    assert ledger.champion_commit() == start


def test_scores_of_earlier_programs_do_not_count_for_the_champion(night: Night) -> None:
    first = night.scored("LR = 0.5\n", 0.9)
    second = night.scored("LR = 0.4\n", 0.5)
    night.settle()
    night.ledger.claim("coder")
    head = night.champion.head()
    night.ledger.code(second, program("LR = 0.3\n", head), {})
    night.ledger.review(second, APPROVED, {})
    night.org.take(head)
    night.ledger.record(second, night.org.lease, failed("LR = 0.3\n", FailureKind.ENGINE_LOST))
    night.org.take(head)
    night.ledger.record(second, night.org.lease, scored("LR = 0.3\n", 0.8))
    night.settle()
    assert night.ledger.experiment(first).state == State.MERGED
    assert night.ledger.experiment(second).state == State.MERGED
    assert [m.val_bpb for m in night.ledger.champion_score()] == [0.8]


def put(night: Night, source: str, measurement: Measurement) -> int:
    """A candidate whose measurement is this one."""
    id = night.org.propose()
    night.ledger.claim("coder")
    night.ledger.code(id, program(source, night.champion.head()), {})
    night.ledger.review(id, APPROVED, {})
    night.org.take(night.champion.head())
    night.ledger.record(id, night.org.lease, measurement)
    return id


def test_a_score_that_the_host_did_not_sign_does_not_merge(night: Night) -> None:
    id = put(night, "LR = 0.5\n", scored("LR = 0.5\n", 0.1, "forged"))
    night.settle()
    row = night.ledger.experiment(id)
    assert row.state == State.DISCARDED and row.verdict is not None
    assert row.verdict.reason == "its receipt does not count: it is forged"
    assert night.commits() == []


def test_a_forged_score_of_the_champion_counts_for_nothing(night: Night) -> None:
    champion = night.ledger.champion_experiment()
    assert champion is not None
    forged = scored(START, 9.0, "forged")  # so bad that everything would merge
    night.ledger.client.rpush(f"{night.ledger.prefix}measurements:{champion.id}", forged.model_dump_json())
    id = night.scored("LR = 0.5\n", 1.5)
    night.settle()
    assert night.ledger.experiment(id).state == State.DISCARDED


@pytest.mark.parametrize("screened", [True, False], ids=["screened only", "not audited at all"])
def test_what_would_merge_is_measured_again_until_it_is_audited_for_that(night: Night, screened: bool) -> None:
    measurement = scored("LR = 0.5\n", 0.9)
    assert measurement.audit is not None
    audit = measurement.audit.model_copy(update={"level": "screen"}) if screened else None
    id = put(night, "LR = 0.5\n", measurement.model_copy(update={"audit": audit}))
    night.settle()
    row = night.ledger.experiment(id)
    assert row.state == State.PROPOSED and "was not audited for that" in row.note
    assert night.commits() == []


def test_what_would_not_merge_needs_no_full_audit(night: Night) -> None:
    measurement = scored("LR = 9\n", 1.1).model_copy(update={"audit": None})
    id = put(night, "LR = 9\n", measurement)
    night.settle()
    assert night.ledger.experiment(id).state == State.DISCARDED
