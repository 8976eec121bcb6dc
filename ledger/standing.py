"""Where a campaign stands: the champion, all runs of it, what is known of the noise, and how much of the error budget is spent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ledger.rules import Step, make_rule
from ledger.store import Ledger
from ledger.verdict import (
    Drift,
    Evidence,
    allowance,
    comparable,
    decide,
    find_drift,
    loss_of,
    missing_runs,
    scores_of,
)
from records import Experiment, Measurement, Policy, State, Verdict

CANARY = "canary"
"""Category of a repeat that looks whether the machine still is what it was."""


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
    def freedom(self) -> int:
        return sum(len(group) - 1 for group in self.noise_groups)

    def missing(self, *, confirming: bool) -> int:
        """Runs of the champion that have to be made before anything is judged."""
        return missing_runs(
            self.policy,
            start=not self.selecting,
            scores=len(self.scores),
            fresh=len(self.fresh),
            freedom=self.freedom,
            confirming=confirming,
        )

    def canary_due(self) -> bool:
        """Whether so much was judged that the champion should be run again, or whether the last canary has to be looked at twice."""
        if not make_rule(self.policy.rule, self.policy.parameters).needs_noise or not self.fresh:
            return False
        drift = self.drift()
        return (
            drift is not None and not drift.confirmed
        ) or self.judged // self.policy.canary_every > self.canaries_asked

    def drift(self) -> Drift | None:
        return find_drift(scores_of(self.fresh), self.canaries, [scores_of(group) for group in self.others])

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
        if not self.scores or self.missing(confirming=False):
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
        self.past: dict[int, Experiment] = {}

    def standing(self, like: Measurement | None = None) -> Standing | None:
        """The standing by those runs that compare with `like`, or with the champion's newest; None without a champion."""
        champion = self.ledger.champion_experiment()
        if champion is None or champion.candidate is None:
            return None
        repeats = self.ledger.repeats()
        rows = {row.id: row for row in self.rows([*repeats, *self.ledger.champions()])}
        by_champion: dict[int, list[Experiment]] = {}
        for id, of in sorted(repeats.items()):
            if id in rows:
                by_champion.setdefault(of, []).append(rows[id])
        mine = by_champion.get(champion.id, [])
        ever = sorted((m for row in (champion, *mine) for m in self.good(row)), key=lambda m: m.started_at)
        newest = ever[-1] if ever else None
        like = like or newest
        fresh = self.fresh(champion, mine, like)
        own = {m.run_id for m in self.good(champion, like)} - {m.run_id for m in fresh}
        canary_runs = {m.run_id for row in mine if row.hypothesis.category == CANARY for m in row.measurements}
        canaries = next((i for i, m in enumerate(reversed(fresh)) if m.run_id not in canary_runs), len(fresh))
        earlier = [rows[id] for id in rows if id != champion.id and rows[id].lane != "repeat"]
        others = [self.fresh(row, by_champion.get(row.id, []), like) for row in earlier]
        verdicts = [row.verdict for row in rows.values() if row.verdict is not None and row.state == State.MERGED]
        return Standing(
            policy=self.policy,
            champion=champion,
            selecting=[m for m in champion.measurements if m.run_id in own],
            fresh=fresh,
            canaries=canaries,
            others=[group for group in others if len(group) > 1],
            open_repeats=sum(not row.state.final for row in mine),
            newest=newest,
            asked=len(mine),
            canaries_asked=sum(
                row.hypothesis.category == CANARY for rows_of in by_champion.values() for row in rows_of
            ),
            judged=self.ledger.spent().verdicts,
            lost_bpb=sum(map(loss_of, verdicts)),
        )

    def rows(self, ids: Sequence[int]) -> list[Experiment]:
        """These rows; of those that are over, as they were read the first time."""
        found = {row.id: row for row in self.ledger.rows(id for id in ids if id not in self.past)}
        self.past |= {id: row for id, row in found.items() if row.state.final}
        return [(self.past | found)[id] for id in ids if id in self.past or id in found]

    def good(self, row: Experiment, like: Measurement | None = None) -> list[Measurement]:
        """Its runs that count, oldest first."""
        return [m for m in row.runs if self.complaint(m) is None and (like is None or comparable(m, like))]

    def fresh(self, champion: Experiment, repeats: Sequence[Experiment], like: Measurement | None) -> list[Measurement]:
        """Runs of a champion that had no part in making it one, oldest first."""
        selected = set(champion.verdict.candidate_runs) if champion.verdict else set()
        selected |= {m.run_id for m in champion.runs} if champion.is_idea and not selected else set()
        own = [m for m in self.good(champion, like) if m.run_id not in selected]
        return own + [m for row in repeats for m in self.good(row, like)]
