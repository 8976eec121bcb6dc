"""Where a campaign stands: the champion, all runs of it, what is known of the noise, and how much of the error budget is spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from ledger.rules import Step
from ledger.store import Ledger
from ledger.verdict import (
    Evidence,
    Incumbent,
    Missing,
    Need,
    allowance,
    comparable,
    decide,
    find_missing,
    loss_of,
    scores_of,
)
from records import Experiment, Measurement, Policy, Verdict


class Standing(NamedTuple):
    """What a candidate is compared with at this moment. Only runs count that compare with one another, and whose receipts are good."""

    policy: Policy
    champion: Experiment
    selecting: Sequence[Measurement]
    """The champion's runs that made it win: lower than others by choice, so they say nothing of the noise."""
    fresh: Sequence[Measurement]
    """Its other runs, oldest first."""
    canaries: int
    """How many of the fresh ones, the newest, are canaries."""
    others: Sequence[Sequence[Measurement]]
    """Fresh runs of each earlier champion."""
    open_repeats: int
    """Runs of the champion that have been asked for, and are not in yet."""
    newest: Measurement | None
    """The champion's newest run, under whatever conditions."""
    asked: int
    """Repeats of this champion, whatever became of them."""
    canaries_asked: int
    """In the whole campaign."""
    judged: int
    """Verdicts so far: K spent."""
    lost_bpb: float
    """What simplifications have cost so far."""

    @property
    def scores(self) -> list[Measurement]:
        return [*self.selecting, *self.fresh]

    @property
    def noise_groups(self) -> list[Sequence[Measurement]]:
        return [group for group in (self.fresh, *self.others) if len(group) > 1]

    @property
    def incumbent(self) -> Incumbent:
        """The champion, by its scores."""
        others = [scores_of(group) for group in self.others]
        return Incumbent(scores_of(self.selecting), scores_of(self.fresh), self.canaries, others, self.canaries_asked)

    def missing(self, *, confirming: bool) -> Missing | None:
        """What has to be run before anything is judged."""
        return find_missing(self.policy, self.incumbent, judged=self.judged, confirming=confirming)

    def judge(self, experiment: Experiment, runs: Sequence[Measurement]) -> tuple[Step, Verdict]:
        """What the rule says of a candidate by these runs. Raises BadInput while the noise is unknown to a rule that needs it."""
        evidence = Evidence(self.scores, runs, self.noise_groups)
        allowed = allowance(self.policy, experiment, self.champion, evidence, self.lost_bpb)
        return decide(self.policy, evidence, self.judged, allowed)

    def told(self) -> Experiment:
        """The champion's row with all that was measured of it, for the commit of a merge."""
        known = {m.run_id for m in self.champion.measurements}
        repeated = [m for m in self.fresh if m.run_id not in known]
        return self.champion.model_copy(update={"measurements": [*self.champion.measurements, *repeated]})

    def might_count(self, experiment: Experiment, run: Measurement) -> bool:
        """Whether a run would not be the candidate's last, or would merge it: asked while it can still be audited for that."""
        if not self.scores or self.missing(confirming=False) is not None:
            return True
        return self.judge(experiment, [*experiment.runs, run])[0] is not Step.DISCARD


class Court:
    """Reads standings. What cannot change any more is read once.

    Args:
        ledger: the campaign.
        complaint: says why a measurement is not what the host signed; None when it is.
    """

    def __init__(self, ledger: Ledger, complaint: Callable[[Measurement], str | None]):
        self.ledger = ledger
        self.complaint = complaint
        self.policy = ledger.campaign().policy
        self.past: dict[int, Reading] = {}

    def standing(self, like: Measurement | None = None) -> Standing | None:
        """The standing by those runs that compare with `like`, or with the champion's newest; None without a champion."""
        champion = self.ledger.champion_experiment()
        if champion is None or champion.candidate is None:
            return None
        history = self.histories()
        mine = history[champion.id]
        ever = [*mine.champion.runs, *(m for repeat in mine.repeats for m in repeat.runs)]
        newest = max(ever, key=lambda m: m.started_at, default=None)
        like = like or newest
        selecting, fresh = mine.split(like)
        merged = [one.champion.row.verdict for one in history.values()]
        return Standing(
            policy=self.policy,
            champion=champion,
            selecting=selecting,
            fresh=fresh,
            canaries=mine.last_canaries(fresh),
            others=[one.settled(like) for one in history.values() if one is not mine],
            open_repeats=sum(not repeat.row.state.final for repeat in mine.repeats),
            newest=newest,
            asked=len(mine.repeats),
            canaries_asked=sum(repeat.is_canary for one in history.values() for repeat in one.repeats),
            judged=self.ledger.spent().verdicts,
            lost_bpb=sum(loss_of(verdict) for verdict in merged if verdict is not None),
        )

    def histories(self) -> dict[int, "History"]:
        """Of all that are, or were, champion, by id."""
        repeats = self.ledger.repeats()
        read = self.read([*repeats, *self.ledger.champions()])
        found = {id: History(read[id]) for id in read if id not in repeats}
        for id, of in sorted(repeats.items()):
            if id in read and of in found:
                found[of].repeats.append(read[id])
        return found

    def read(self, ids: Sequence[int]) -> dict[int, "Reading"]:
        """These rows, with the runs that count; of those that are over, as they were read the first time."""
        found = {
            row.id: Reading(row, [m for m in row.runs if self.complaint(m) is None])
            for row in self.ledger.rows(id for id in ids if id not in self.past)
        }
        self.past |= {id: reading for id, reading in found.items() if reading.row.state.final}
        known = self.past | found
        return {id: known[id] for id in ids if id in known}


class Reading(NamedTuple):
    """A row, and those of its runs whose receipts are good, oldest first."""

    row: Experiment
    runs: list[Measurement]

    @property
    def is_canary(self) -> bool:
        return self.row.hypothesis.category == Need.CANARY


@dataclass
class History:
    """A champion and what was measured of it afterwards."""

    champion: Reading
    repeats: list[Reading] = field(default_factory=list)

    def split(self, like: Measurement | None) -> tuple[list[Measurement], list[Measurement]]:
        """Its runs that made it win, and the others, as far as they compare with `like`."""
        selected = selecting_runs(self.champion.row)
        runs = [*self.champion.runs, *(m for repeat in self.repeats for m in repeat.runs)]
        compared = [m for m in runs if like is None or comparable(m, like)]
        return [m for m in compared if m.run_id in selected], [m for m in compared if m.run_id not in selected]

    def last_canaries(self, fresh: Sequence[Measurement]) -> int:
        """How many of these, the newest, are canaries."""
        looks = {m.run_id for repeat in self.repeats if repeat.is_canary for m in repeat.runs}
        return len(list(takewhile(lambda m: m.run_id in looks, reversed(fresh))))

    def settled(self, like: Measurement | None) -> list[Measurement]:
        """Of a former champion, its fresh runs without the last two canaries: if these unseated it, how far they are off says
        nothing of the noise. They are left out whatever they said, or the noise would seem smaller than it is."""
        _, fresh = self.split(like)
        return fresh[: len(fresh) - min(2, self.last_canaries(fresh))]


def selecting_runs(champion: Experiment) -> set[str]:
    """Ids of the runs that made it win: lower than others by choice. None of a commit that nothing chose."""
    named = set(champion.verdict.candidate_runs) if champion.verdict is not None else set()
    if champion.is_idea and not named:  # merged by a version whose verdicts named no runs
        return {m.run_id for m in champion.runs}
    return named
