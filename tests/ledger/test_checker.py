"""The checker says nothing of a good campaign, and notices what is wrong with any other."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.champion import Commit
from records import Event, Experiment, Measurement, Policy, State
from tests.ledger.checker import LEASED, LOOKS, Evidence, gather
from tests.ledger.samples import KEEP_IF_LOWER
from tests.ledger.schedules import MEMORY, RUNS_AGAIN
from tests.ledger.test_machine import Site


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """A campaign of several merges, one of them above a person's commit."""
    yield from good_campaign(KEEP_IF_LOWER)


@pytest.fixture(scope="module")
def evidence_of_noise() -> Iterator[Evidence]:
    """The same under a rule that knows the noise."""
    yield from good_campaign(RUNS_AGAIN.model_copy(update={"judgements": 100}))


def good_campaign(policy: Policy) -> Iterator[Evidence]:
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder:
        site = Site(Path(folder) / "0")
        night = site.night(b"good", 1000, policy)
        night.begin()
        for merges in (1, 3):
            for _ in range(100):
                if len(night.acknowledged.merges) < merges:
                    night.go_round()
            assert len(night.acknowledged.merges) >= merges, "no merges: of what is to be judged there is nothing"
            night.commit_by_hand()
        night.end()
        night.settle()
        yield gather(Ledger(night.client, night.campaign), night.champion, night.acknowledged, night.budget)
        site.close()


def complaints(evidence: Evidence) -> list[str]:
    return [line for look in LOOKS for line in look(evidence)]


def test_a_good_campaign_is_good(evidence: Evidence, evidence_of_noise: Evidence) -> None:
    assert complaints(evidence_of_noise) == []
    assert complaints(evidence) == []


def last_merge(evidence: Evidence) -> tuple[Experiment, Commit]:
    commit = next(c for c in reversed(evidence.commits) if "Experiment" in c.trailers)
    return evidence.experiments[int(commit.trailers["Experiment"])], commit


def with_commit(evidence: Evidence, old: Commit, new: Commit) -> Evidence:
    return evidence._replace(commits=[new if commit == old else commit for commit in evidence.commits])


def with_runs(evidence: Evidence, change: Callable[[list[Measurement]], list[Measurement]]) -> Evidence:
    experiment, _ = last_merge(evidence)
    changed = experiment.model_copy(update={"measurements": change(experiment.measurements)})
    return evidence._replace(experiments=evidence.experiments | {experiment.id: changed})


def merging(event: Event) -> bool:
    return event.kind == f"{State.MERGING}→{State.MERGED}"


# ---- one fault each --------------------------------------------------------------------------------------------------


def a_merge_with_two_parents(evidence: Evidence) -> Evidence:
    _, commit = last_merge(evidence)
    return with_commit(evidence, commit, commit._replace(parents=[*commit.parents, "f" * 40]))


def a_merge_above_another_commit_than_the_last(evidence: Evidence) -> Evidence:
    _, commit = last_merge(evidence)
    return with_commit(evidence, commit, commit._replace(parents=[evidence.base]))


def a_merge_above_another_champion_than_was_measured(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    assert experiment.candidate is not None
    other = experiment.candidate.model_copy(update={"parent": "f" * 40})
    changed = experiment.model_copy(update={"candidate": other})
    return evidence._replace(experiments=evidence.experiments | {experiment.id: changed})


def a_second_commit_of_one_experiment(evidence: Evidence) -> Evidence:
    _, commit = last_merge(evidence)
    again = Commit("f" * 40, [evidence.commits[-1].id], commit.trailers)
    return evidence._replace(commits=[*evidence.commits, again])


def a_second_merge_of_one_experiment(evidence: Evidence) -> Evidence:
    return evidence._replace(events=[*evidence.events, next(filter(merging, reversed(evidence.events)))])


def a_merge_that_forgot_the_one_before(evidence: Evidence) -> Evidence:
    *_, before, _ = filter(merging, evidence.events)
    return evidence._replace(events=[event for event in evidence.events if event != before])


def a_lost_result(evidence: Evidence) -> Evidence:
    return with_runs(evidence, lambda runs: runs[:-1])


def a_doubled_result(evidence: Evidence) -> Evidence:
    return with_runs(evidence, lambda runs: [*runs, runs[-1]])


def a_merge_that_its_row_forgot(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    changed = experiment.model_copy(update={"state": State.DISCARDED})
    return evidence._replace(experiments=evidence.experiments | {experiment.id: changed})


def a_merge_that_the_branch_forgot(evidence: Evidence) -> Evidence:
    _, commit = last_merge(evidence)
    return evidence._replace(commits=[c for c in evidence.commits if c != commit])


def a_lost_commit_of_a_person(evidence: Evidence) -> Evidence:
    return evidence._replace(commits=[c for c in evidence.commits if c.id != evidence.acknowledged.by_hand[0]])


def a_result_under_an_old_fence(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    device = experiment.measurements[-1].run_id.partition("/")[0]
    newer = evidence.events[0].model_copy(update={"kind": LEASED, "detail": f"{device}/999", "experiment": None})
    return evidence._replace(events=[newer, *evidence.events])


def an_experiment_too_many(evidence: Evidence) -> Evidence:
    return evidence._replace(budget=2)


FAULTS: dict[Callable[[Evidence], Evidence], str] = {
    a_merge_with_two_parents: "is no line",
    a_merge_above_another_commit_than_the_last: "is no line",
    a_merge_above_another_champion_than_was_measured: "measured against another champion",
    a_second_commit_of_one_experiment: "on the branch 2 times",
    a_second_merge_of_one_experiment: "merged 2 times",
    a_merge_that_forgot_the_one_before: "and the champion was",
    a_lost_result: "was accepted and is lost",
    a_doubled_result: "never accepted, or twice",
    a_merge_that_its_row_forgot: "its row does not say so",
    a_merge_that_the_branch_forgot: "which is not on the branch",
    a_lost_commit_of_a_person: "somebody's commit",
    a_result_under_an_old_fence: "has a result under fence",
    an_experiment_too_many: "and the budget is 2",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_checker_notices(fault: Callable[[Evidence], Evidence], evidence: Evidence) -> None:
    assert any(FAULTS[fault] in line for line in complaints(fault(evidence)))


# ---- where the noise counts ------------------------------------------------------------------------------------------


def with_verdict(evidence: Evidence, **changes: object) -> Evidence:
    experiment, _ = last_merge(evidence)
    assert experiment.verdict is not None
    verdict = experiment.verdict.model_copy(update=changes)
    changed = experiment.model_copy(update={"verdict": verdict})
    return evidence._replace(experiments=evidence.experiments | {experiment.id: changed})


def a_merge_by_its_first_run_alone(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    return with_verdict(evidence, candidate_runs=[experiment.runs[0].run_id])


def a_merge_of_what_was_written_again_after_its_first_run(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    coded = next(e for e in evidence.events if e.kind == "claimed→coded").model_copy(
        update={"experiment": experiment.id}
    )
    last = max(i for i, e in enumerate(evidence.events) if e.experiment == experiment.id and e.record == "measurement")
    return evidence._replace(events=[*evidence.events[:last], coded, *evidence.events[last:]])


def a_repeat_that_came_in_after_the_verdicts(evidence: Evidence) -> Evidence:
    return evidence._replace(events=[e for e in evidence.events if e.kind != "scored→pooled"])


def a_merge_by_no_run_of_the_champion_but_its_lucky_ones(evidence: Evidence) -> Evidence:
    experiment, _ = last_merge(evidence)
    return with_verdict(evidence, champion_runs=[m.run_id for m in experiment.runs])


def a_merge_by_one_run_of_the_champion(evidence: Evidence) -> Evidence:
    fresh = next(e.runs[0].run_id for e in evidence.experiments.values() if e.state == State.POOLED)
    return with_verdict(evidence, champion_runs=[fresh])


def a_merge_before_the_noise_was_known(evidence: Evidence) -> Evidence:
    return with_verdict(evidence, freedom=1)


def a_verdict_that_was_not_counted(evidence: Evidence) -> Evidence:
    return with_verdict(evidence, judged=0)


def a_merge_after_all_judgements(evidence: Evidence) -> Evidence:
    return evidence._replace(policy=evidence.policy.model_copy(update={"judgements": 1}))


def a_first_run_that_ended_as_a_second_one(evidence: Evidence) -> Evidence:
    first = next(e for e in evidence.events if e.kind == "running→scored")
    moved = first.model_copy(update={"kind": "running→confirming"})
    return evidence._replace(events=[moved if e is first else e for e in evidence.events])


NOISE_FAULTS: dict[Callable[[Evidence], Evidence], str] = {
    a_merge_by_its_first_run_alone: "and merged by",
    a_merge_of_what_was_written_again_after_its_first_run: "merged after 1 run of its program",
    a_repeat_that_came_in_after_the_verdicts: "were missing",
    a_merge_by_no_run_of_the_champion_but_its_lucky_ones: "by no run of the champion",
    a_merge_by_one_run_of_the_champion: "by 1 runs of the champion, not",
    a_merge_before_the_noise_was_known: "before the noise was known",
    a_verdict_that_was_not_counted: "was judged as number 0",
    a_merge_after_all_judgements: "and the error budget is for 1",
    a_first_run_that_ended_as_a_second_one: "after a run in vain",
}


@pytest.mark.parametrize("fault", NOISE_FAULTS, ids=lambda fault: fault.__name__)
def test_the_checker_notices_where_the_noise_counts(
    fault: Callable[[Evidence], Evidence], evidence_of_noise: Evidence
) -> None:
    assert any(NOISE_FAULTS[fault] in line for line in complaints(fault(evidence_of_noise)))
