"""An idle device is given near misses together, and the champion without one of its changes; both through ledger, arbiter and git."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import redis

from agents.contract import make_candidate
from agents.knobs import resolve, set_knobs
from agents.upkeep import NEAR_MISSES, groups, near_misses, removable
from ledger.arbiter import Arbiter
from ledger.lease import Keeper, acquire
from ledger.relay import Relay, relay_lease
from records import Experiment, Hypothesis, Lane, Number, Policy, State, Verdict
from tests.agents.lab import Lab, make_lab
from tests.agents.sources import PROFILE, TRAIN, experiment, measurement
from tests.ledger.samples import AUDIT, sha256_of

SIGMA = 0.001
POLICY = Policy(rule="two-run-min", noise_runs=8, judgements=20)
Truth = Callable[[dict[str, Number]], float]


class Org:
    """All of a campaign but its planner: coder, reviewer, a device that knows the truth, arbiter, relay, upkeep.

    Args:
        lab: where it works.
        truth: bits per byte of a program by its constants. Runs of the start scatter around it by SIGMA, others do not.
    """

    def __init__(self, lab: Lab, truth: Truth):
        self.lab = lab
        self.ledger = lab.ledger
        self.truth = truth
        self.lease = acquire(lab.ledger.client, f"device/{lab.root.name}", "test", 600.0)
        relay = Keeper(lab.ledger.client, acquire(lab.ledger.client, relay_lease(lab.root.name), "relay", 600.0), 600.0)
        self.relay = Relay(lab.ledger, lab.champion, relay, sha256_of)
        self.arbiter = Arbiter(lab.ledger, lab.champion, lambda measurement: None, sha256_of)
        self.upkeep = lab.upkeep()
        self.runs = itertools.count(1)

    def device(self) -> None:
        taken = self.ledger.take(self.lease, self.lab.champion.head())
        if taken is None or taken.candidate is None:
            return
        run, source = next(self.runs), taken.candidate.source
        noise = SIGMA * (-1) ** run if source == TRAIN else 0.0
        known = measurement(taken.candidate.source_sha256, self.truth(resolve(source, PROFILE)) + noise)
        self.ledger.record(
            taken.id, self.lease, known.model_copy(update={"run_id": f"run-{run}", "seed": run + 1, "audit": AUDIT})
        )

    def settle(self) -> None:
        """Go on until only a planner, or upkeep, could go on: until a round of everybody leaves no event."""
        events = -1
        while events != self.ledger.last_event():
            events = self.ledger.last_event()
            for step in (self.relay.step, self.arbiter.step, self.lab.coder.step, self.lab.reviewer.step, self.device):
                step()

    def tries(self, **knobs: float) -> Experiment:
        """A mind's idea, from proposal to verdict."""
        idea = self.lab.propose(**knobs)
        self.settle()
        return self.ledger.experiment(idea.id)

    def keeps_up(self) -> Experiment | None:
        """What upkeep proposes, from proposal to verdict."""
        before = self.ledger.last_id()
        if not self.upkeep.step():
            return None
        assert self.ledger.last_id() == before + 1
        self.settle()
        return self.ledger.experiment(before + 1)

    @property
    def constants(self) -> dict[str, Number]:
        """Those of the champion that differ from the start's."""
        start, now = (
            resolve(source, PROFILE) for source in (TRAIN, self.lab.champion.source(self.lab.champion.head()))
        )
        return {name: value for name, value in now.items() if value != start[name]}


@pytest.fixture
def noisy_lab(tmp_path: Path, server: redis.Redis) -> Lab:
    return make_lab(tmp_path, server, policy=POLICY)


# ---- through the ledger ----------------------------------------------------------------------------------------------


def test_near_misses_that_add_up_merge_together(noisy_lab: Lab) -> None:
    """Each gains 2.5 σ, which is within the noise; both together gain 5 σ."""
    org = Org(
        noisy_lab, lambda knobs: 2.0 - SIGMA * (2.5 * (knobs["MATRIX_LR"] == 0.05) + 2.4 * (knobs["EMBED_LR"] == 0.2))
    )
    first, second = org.tries(MATRIX_LR=0.05), org.tries(EMBED_LR=0.2)
    assert [row.state for row in (first, second)] == [State.WITHIN_NOISE] * 2 and org.constants == {}
    merged = org.keeps_up()
    assert merged is not None and merged.state == State.MERGED and merged.lane == "combine"
    assert merged.hypothesis.title == f"together: #{first.id} + #{second.id}" and merged.author == "upkeep"
    assert f"#{first.id} by hand" in merged.hypothesis.change and merged.hypothesis.of == [first.id, second.id]
    assert org.constants == {"MATRIX_LR": 0.05, "EMBED_LR": 0.2}
    assert merged.verdict is not None and merged.verdict.effect_bpb == pytest.approx(4.9 * SIGMA, abs=0.2 * SIGMA)
    assert merged.roles.keys() == {"reviewer"}, "no coder's mind was asked"
    assert org.keeps_up() is None, "both are in the champion, and it is the newest change"


def test_a_change_that_pays_no_longer_is_taken_out_and_one_that_pays_stays(noisy_lab: Lab) -> None:
    """The first gains 9 σ as long as the second is not there, which gains 9 σ more with the first or without it."""

    def truth(knobs: dict[str, Number]) -> float:
        second = knobs["EMBED_LR"] == 0.2
        return 2.0 - SIGMA * (18 if second else 9 if knobs["MATRIX_LR"] == 0.05 else 0)

    org = Org(noisy_lab, truth)
    first, second = org.tries(MATRIX_LR=0.05), org.tries(EMBED_LR=0.2)
    assert [row.state for row in (first, second)] == [State.MERGED] * 2
    out = org.keeps_up()
    assert out is not None and out.state == State.MERGED and out.lane == "upkeep"
    assert out.hypothesis.title == f"without #{first.id}: by hand" and out.hypothesis.of == [first.id]
    assert org.constants == {"EMBED_LR": 0.2}
    kept = org.keeps_up()
    assert kept is not None and kept.hypothesis.of == [second.id] and kept.state in (State.DISCARDED, State.DUPLICATE)
    assert org.keeps_up() is None and org.constants == {"EMBED_LR": 0.2}


def test_each_change_is_left_out_once_for_every_champion(noisy_lab: Lab) -> None:
    """Three that all pay: the second champion is tried without the first change, the third without both before it."""
    names: dict[str, Number] = {"MATRIX_LR": 0.05, "EMBED_LR": 0.2, "MOMENTUM": 0.9}
    org = Org(noisy_lab, lambda knobs: 2.0 - 9 * SIGMA * sum(knobs[name] == value for name, value in names.items()))
    merged = []
    left_out: list[list[int]] = []
    for name, value in names.items():
        merged.append(org.tries(**{name: value}).id)
        while (row := org.keeps_up()) is not None:
            assert row.state in (State.DISCARDED, State.DUPLICATE)
            left_out.append(row.hypothesis.of)
    first, second, _ = merged
    assert left_out == [[first], [first], [second]]
    assert org.constants == names


def test_a_removal_that_was_measured_on_a_later_champion_is_not_proposed_for_it_again(noisy_lab: Lab) -> None:
    names: dict[str, Number] = {"MATRIX_LR": 0.05, "EMBED_LR": 0.2, "MOMENTUM": 0.9}
    org = Org(noisy_lab, lambda knobs: 2.0 - 9 * SIGMA * sum(knobs[name] == value for name, value in names.items()))
    first, second = org.tries(MATRIX_LR=0.05), org.tries(EMBED_LR=0.2)
    third = noisy_lab.propose(MOMENTUM=0.9)
    assert noisy_lab.coder.step() and noisy_lab.reviewer.step()
    org.device()
    assert org.upkeep.step(), "the launcher looked before"
    early = org.ledger.last_id()
    org.settle()
    assert org.ledger.experiment(third.id).state == State.MERGED
    assert [row.id for row in removable(noisy_lab.champion.head(), org.ledger.experiments())] == [second.id]
    assert org.ledger.experiment(early).hypothesis.of == [first.id]


def test_a_change_that_conflicts_is_skipped_and_noted_once(noisy_lab: Lab) -> None:
    """The second merge changes what the first one set, so the first cannot be taken out; it is its own to take out later."""
    org = Org(noisy_lab, lambda knobs: 2.0 - 900 * SIGMA * (knobs["MATRIX_LR"] - 0.04))
    first = org.tries(MATRIX_LR=0.05)
    second = org.tries(MATRIX_LR=0.06)
    assert [row.state for row in (first, second)] == [State.MERGED] * 2
    for _ in range(3):
        assert org.keeps_up() is None
    notes = [event.detail for event in org.ledger.events() if event.kind == "upkeep"]
    assert notes == [
        f"without #{first.id}: by hand: not on champion {str(second.commit)[:10]}: what #{first.id} changed was changed again since"
    ]


def test_it_does_what_the_org_file_says(noisy_lab: Lab) -> None:
    org = Org(
        noisy_lab, lambda knobs: 2.0 - SIGMA * (2.5 * (knobs["MATRIX_LR"] == 0.05) + 2.4 * (knobs["EMBED_LR"] == 0.2))
    )
    org.tries(MATRIX_LR=0.05), org.tries(EMBED_LR=0.2)
    assert not noisy_lab.upkeep(combine=False).step()
    assert noisy_lab.upkeep(leave_one_out=False).step()


def test_it_waits_for_planners_and_for_a_measured_champion_and_says_nothing_twice(noisy_lab: Lab) -> None:
    org = Org(
        noisy_lab, lambda knobs: 2.0 - SIGMA * (2.5 * (knobs["MATRIX_LR"] == 0.05) + 2.4 * (knobs["EMBED_LR"] == 0.2))
    )
    org.tries(MATRIX_LR=0.05), org.tries(EMBED_LR=0.2)
    waiting = noisy_lab.propose(MOMENTUM=0.9)
    assert not noisy_lab.upkeep().step()
    org.settle()
    assert org.ledger.experiment(waiting.id).state.final
    noisy_lab.land(TRAIN + "# by hand\n")
    assert not noisy_lab.upkeep().step(), "the branch has a commit that nobody measured"
    org.settle()
    assert noisy_lab.upkeep().step() and not noisy_lab.upkeep().step(), "as if it were killed in between"
    org.settle()
    together = [row for row in org.ledger.experiments() if row.lane == "combine"]
    assert len(together) == 1


# ---- the coder, without a mind ---------------------------------------------------------------------------------------


def proposed(lab: Lab, lane: Literal["combine", "upkeep"], *of: int) -> Experiment:
    idea = Hypothesis(title="t", change="c", of=list(of))
    id = lab.ledger.propose(idea, author="upkeep", lane=lane, roles={})
    assert id is not None
    return lab.ledger.experiment(id)


@pytest.mark.parametrize("lane", ["combine", "upkeep"])
@pytest.mark.parametrize("of", [[], [999], [1, 999]])
def test_an_idea_of_upkeep_that_names_no_experiment_is_refused_with_the_reason(
    lab: Lab, lane: Literal["combine", "upkeep"], of: list[int]
) -> None:
    row = proposed(lab, lane, *of)
    assert lab.coder.step()
    refused = lab.ledger.experiment(row.id)
    assert refused.state == State.REFUSED and f"lane {lane} takes ids of experiments in `of`, not {of}" in refused.note


def test_an_idea_of_upkeep_about_one_that_was_never_written_is_refused(lab: Lab) -> None:
    gone = lab.propose(GONE=1.0)
    row = proposed(lab, "combine", gone.id)
    assert lab.coder.step() and lab.coder.step()
    assert f"#{gone.id} never became a program" in lab.ledger.experiment(row.id).note


def test_changes_that_conflict_by_the_time_they_are_written_are_refused(lab: Lab) -> None:
    first, second = lab.propose(MATRIX_LR=0.05), lab.propose(MATRIX_LR=0.06)
    assert all(lab.coder.step() for _ in range(2))
    row = proposed(lab, "combine", first.id, second.id)
    assert lab.coder.step()
    refused = lab.ledger.experiment(row.id)
    assert refused.state == State.REFUSED and f"what #{second.id} changes was changed since" in refused.note


def test_a_reviewer_refuses_what_changes_nothing(lab: Lab) -> None:
    """The change is in the champion already: together with it, that is what there is."""
    change = lab.propose(MATRIX_LR=0.05)
    assert lab.coder.step()
    written = lab.ledger.experiment(change.id).candidate
    assert written is not None
    lab.land(written.source)
    row = proposed(lab, "combine", change.id)
    assert lab.coder.step()
    assert lab.ledger.experiment(row.id).state == State.DUPLICATE


# ---- what is tried, and in which order -------------------------------------------------------------------------------


def row_of(
    id: int, state: State, lane: Lane = "improve", *, effect: float = 0.0, of: list[int] | None = None
) -> Experiment:
    hypothesis = Hypothesis(title=f"idea {id}", change="c", of=of or [])
    verdict = Verdict(
        merge=state == State.MERGED, rule="r", champion_bpb=2.0, candidate_bpb=2.0, reason="", effect_bpb=effect
    )
    candidate = make_candidate("a" * 40, TRAIN, set_knobs(TRAIN, {"MATRIX_LR": id / 1000}, PROFILE))
    given = {"lane": lane, "verdict": verdict, "candidate": candidate, "commit": f"{id:040x}"}
    return experiment(id, state, hypothesis).model_copy(update=given)


def misses(*effects: float) -> list[Experiment]:
    return [row_of(id, State.WITHIN_NOISE, effect=effect) for id, effect in enumerate(effects, 10)]


def ids(found: Iterator[tuple[Experiment, ...]]) -> list[list[int]]:
    return [[row.id for row in group] for group in found]


def test_pairs_come_before_triples_and_the_largest_sum_first() -> None:
    assert ids(iter(groups(misses(0.1, 0.3, 0.2)))) == [[11, 12], [11, 10], [12, 10], [11, 12, 10]]


def test_what_looked_worse_or_was_evidently_worse_is_no_near_miss() -> None:
    rows = [*misses(0.1, -0.1, 0.0), row_of(20, State.DISCARDED, effect=0.5), row_of(21, State.MERGED, effect=0.5)]
    assert [row.id for row in near_misses(rows)] == [10]
    assert groups(rows) == []


def test_results_of_upkeep_are_not_combined_further() -> None:
    rows = [*misses(0.1), *(row_of(20 + i, State.WITHIN_NOISE, lane, effect=0.5) for i, lane in enumerate(LANES))]
    assert [row.id for row in near_misses(rows)] == [20, 10]


LANES: list[Lane] = ["simplify", "combine", "upkeep"]


def test_no_group_is_tried_twice_whatever_became_of_it_and_what_merged_is_no_miss_any_more() -> None:
    rows = misses(0.3, 0.2, 0.1)
    rows.append(row_of(20, State.REFUSED, "combine", of=[11, 10]))
    assert ids(iter(groups(rows))) == [[10, 12], [11, 12], [10, 11, 12]]
    rows.append(row_of(21, State.MERGED, "combine", of=[10, 12]))
    assert groups(rows) == []


def test_only_the_best_near_misses_are_combined() -> None:
    found = ids(iter(groups(misses(*(i / 100 for i in range(1, 30))))))
    assert len(found) == 10 + 10
    assert len({id for group in found for id in group}) == NEAR_MISSES


def test_neither_the_newest_change_nor_a_simplification_nor_what_is_out_already_is_left_out() -> None:
    rows = [row_of(1, State.MERGED, "baseline"), row_of(2, State.MERGED), row_of(3, State.MERGED, "simplify")]
    rows += [row_of(4, State.MERGED, "combine", of=[10, 11]), row_of(5, State.MERGED), row_of(6, State.DISCARDED)]
    newest = str(rows[4].commit)
    assert [row.id for row in removable(newest, rows)] == [2, 4]
    rows.append(row_of(7, State.MERGED, "upkeep", of=[2]))
    assert [row.id for row in removable(str(rows[-1].commit), rows)] == [4, 5]


def test_what_made_the_champion_shorter_is_not_put_back(noisy_lab: Lab) -> None:
    shorter = (
        TRAIN.replace("    pass  # nothing to learn\n", "    pass\n")
        .replace("INIT_SEED = 7\n", "")
        .replace("    torch.manual_seed(INIT_SEED)\n", "")
    )
    champion = noisy_lab.land(shorter)
    after = noisy_lab.land(shorter.replace("MOMENTUM = 0.95", "MOMENTUM = 0.9"))
    removed = row_of(2, State.MERGED).model_copy(
        update={"candidate": make_candidate(noisy_lab.ledger.campaign().base, TRAIN, shorter), "commit": champion}
    )
    assert [row.id for row in removable(after, [removed])] == [2]
    assert noisy_lab.upkeep().next_idea(after, [removed]) is None
    longer = removed.model_copy(update={"candidate": make_candidate(champion, shorter, shorter + "print()\n")})
    noisy_lab.land(noisy_lab.champion.source(after) + "print()\n")
    idea = noisy_lab.upkeep().next_idea(noisy_lab.champion.head(), [longer])
    assert idea is not None and idea.hypothesis.of == [2]


def test_forecasts_are_the_lanes_own_rate_of_merges(noisy_lab: Lab) -> None:
    rows = [*misses(0.002, 0.001), row_of(20, State.DISCARDED, "combine", of=[1, 2])]
    rows[:2] = [
        row.model_copy(
            update={"candidate": make_candidate(noisy_lab.champion.head(), TRAIN, set_knobs(TRAIN, knobs, PROFILE))}
        )
        for row, knobs in zip(rows, ({"MATRIX_LR": 0.05}, {"MOMENTUM": 0.9}), strict=False)
    ]
    idea = noisy_lab.upkeep().next_idea(noisy_lab.champion.head(), rows)
    assert idea is not None and idea.hypothesis.probability == pytest.approx(1 / 3)
    assert idea.hypothesis.expected_delta_bpb == pytest.approx(-0.003)


def test_a_long_title_is_cut(noisy_lab: Lab) -> None:
    long = row_of(2, State.MERGED).model_copy(update={"hypothesis": Hypothesis(title="x" * 120, change="c")})
    base = noisy_lab.champion.head()
    written = make_candidate(base, TRAIN, set_knobs(TRAIN, {"MATRIX_LR": 0.05}, PROFILE))
    row = long.model_copy(update={"candidate": written, "commit": noisy_lab.land(written.source)})
    after = noisy_lab.land(set_knobs(written.source, {"MOMENTUM": 0.9}, PROFILE))
    idea = noisy_lab.upkeep().next_idea(after, [row])
    assert idea is not None and len(idea.hypothesis.title) == 120 and idea.hypothesis.title.endswith("…")
