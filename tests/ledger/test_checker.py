"""The checker says nothing of a good campaign, and notices what is wrong with any other."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.champion import Commit
from records import Event, Experiment, Measurement, State
from tests.ledger.checker import LEASED, LOOKS, Evidence, gather
from tests.ledger.schedules import MEMORY
from tests.ledger.test_machine import Site


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """A campaign of several merges, one of them above a person's commit."""
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder:
        site = Site(Path(folder) / "0")
        night = site.night(b"good", budget=1000)
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


def test_a_good_campaign_is_good(evidence: Evidence) -> None:
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
