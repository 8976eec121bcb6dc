"""The arbiter: decides on scored experiments, one at a time. What won goes into the outbox, for the relay to land.

A merge is: intent in Redis, then the ref in git, then `merged` in Redis. The arbiter does the first, the relay the others.
Before it decides, it has the champion run as often as the campaign's policy asks for.
"""

from collections.abc import Callable

import failpoint
from ledger.champion import Champion
from ledger.intent import Intent, Seal
from ledger.rules import Step
from ledger.standing import Court, Standing
from ledger.store import Ledger
from ledger.verdict import Missing, Need, comparable
from ledger.witness import tell_merge
from records import Candidate, Experiment, Measurement, State, Verdict

HEAD_TRAILER = "Ledger-Head"
"""Of a merge: the hash of the newest event before it."""


class Arbiter:
    """Judges the experiments of a campaign.

    Args:
        ledger: the campaign.
        champion: its branch.
        complaint: says why a measurement is not what the host signed; None when it is.
        seal: the lab's seal, without which the relay lands nothing.
    """

    def __init__(self, ledger: Ledger, champion: Champion, complaint: Callable[[Measurement], str | None], seal: Seal):
        self.ledger = ledger
        self.champion = champion
        self.complaint = complaint
        self.seal = seal
        self.court = Court(ledger, complaint)

    def step(self) -> bool:
        """Decide on the oldest scored experiment; False when there was none, while a merge is under way, or while runs of the
        champion are missing."""
        if self.ledger.outbox():
            return False
        champion = self.ledger.champion_commit()
        head = self.champion.head()
        experiment = self.ledger.next_scored()
        if experiment is not None and experiment.lane == "baseline":
            self.crown(experiment, head)
            failpoint.reach("arbiter.crowned")
            return True
        if experiment is not None and experiment.lane == "repeat":
            self.ledger.pool(experiment.id)
            failpoint.reach("arbiter.pooled")
            return True
        moved = experiment if experiment is not None and parent_of(experiment) != head else self.moved_meanwhile(head)
        if moved is not None:
            self.ledger.rebase(moved.id, "rebase: champion moved")
            failpoint.reach("arbiter.rebased")
            return True
        if champion != head:
            # The start, or a commit that somebody else put on the branch: nothing can be judged until it is measured.
            failpoint.reach("arbiter.looked")
            self.measure_as_it_stands(head, champion)
            failpoint.reach("arbiter.baseline_asked")
            return False
        standing = self.court.standing(experiment.runs[0] if experiment is not None and experiment.runs else None)
        if standing is None or standing.open_repeats:
            return False
        missing = standing.missing(confirming=experiment is not None and len(experiment.runs) > 1)
        if missing is not None and missing.need is Need.ANEW:
            self.begin_anew(standing, missing)
            return True
        if missing is not None:
            self.run_champion(standing, head, missing)
            return False
        if experiment is None:
            return False
        failpoint.reach("arbiter.read")
        self.judge(experiment, head, standing)
        return True

    def begin_anew(self, standing: Standing, missing: Missing) -> None:
        """The machine is not what it was, so no score of before compares with one of now: candidates that have any are measured
        again, and so is the champion."""
        for experiment in self.ledger.experiments(states=[State.SCORED, State.CONFIRMING]):
            self.ledger.rebase(experiment.id, f"rebase: {missing.drift}")
        failpoint.reach("arbiter.sent_back")
        self.ledger.unseat(standing.champion.id, str(missing.drift))
        failpoint.reach("arbiter.unseated")

    def moved_meanwhile(self, head: str) -> Experiment | None:
        """One that waits for its next run, and was made from a commit that is the champion no more."""
        waiting = self.ledger.experiments(states=[State.CONFIRMING])
        return next((experiment for experiment in waiting if parent_of(experiment) != head), None)

    def run_champion(self, standing: Standing, head: str, missing: Missing) -> None:
        """Ask for runs of the champion, unless somebody else did since."""
        for number in range(standing.asked, standing.asked + missing.runs):
            self.ledger.propose_repeat(self.as_it_stands(head), standing.champion.id, number, missing.need)
            failpoint.reach("arbiter.repeat_asked")

    def measure_as_it_stands(self, commit: str, champion: str | None) -> None:
        """Have a commit's train.py measured as a baseline, unless it is already waiting for that."""
        self.ledger.propose_baseline(self.as_it_stands(commit), champion or "")

    def as_it_stands(self, commit: str) -> Candidate:
        """The program of a commit, as something to measure."""
        sha256 = self.champion.landed_source_sha256(commit)
        # What a program means is known to those who write them; the bytes serve as well for one that nobody wrote.
        source = self.champion.source(commit)
        return Candidate(parent=commit, source=source, source_sha256=sha256, meaning_sha256=sha256, diff="")

    def crown(self, baseline: Experiment, head: str) -> None:
        """Make a measured baseline the champion, if its commit still is the head, and has what was measured."""
        candidate, measurement = baseline.candidate, baseline.measurements[-1]
        assert candidate is not None, "a baseline has a candidate"
        if candidate.parent != head:
            reason = "the branch moved on before its commit was measured"
        elif measurement.hashes.source != self.champion.landed_source_sha256(head):
            reason = "what was measured is not the program of the commit"
        else:
            self.ledger.crown(baseline.id, head)
            return
        self.ledger.discard(baseline.id, Verdict(merge=False, rule="baseline", champion_bpb=None, candidate_bpb=measurement.val_bpb, reason=reason))  # fmt: skip

    def judge(self, experiment: Experiment, head: str, standing: Standing) -> None:
        """Discard the experiment, have it run again, or have it landed on the champion."""
        candidate, runs = experiment.candidate, experiment.runs
        assert candidate is not None, "a scored experiment has a candidate"
        if (wrong := self.why_not(experiment, runs, standing)) is not None:
            self.ledger.discard(experiment.id, wrong)
            return
        if (again := why_again(runs, standing)) is not None:
            self.ledger.rebase(experiment.id, f"rebase: {again}")
            return
        step, verdict = standing.judge(experiment, runs)
        failpoint.reach("arbiter.judged")
        if step is Step.DISCARD:
            self.ledger.discard(experiment.id, verdict)
            failpoint.reach("arbiter.discarded")
            return
        if any(run.audit is None or run.audit.level != "full" for run in runs):
            self.ledger.rebase(experiment.id, "rebase: it might merge, and was not audited for that")
            return
        if step is Step.AGAIN:
            self.ledger.confirm(experiment.id, verdict)
            failpoint.reach("arbiter.confirming")
            return
        measurement = runs[-1]
        text = message(experiment, verdict, measurement, self.ledger.head())
        record = tell_merge(experiment, verdict, standing.told())
        commit = self.champion.prepare(head, candidate.source, text, record)
        failpoint.reach("arbiter.prepared")
        # A commit's id fixes its tree: what is checked here is what lands, whenever that happens.
        hashes = {candidate.source_sha256, measurement.hashes.source, self.champion.landed_source_sha256(commit)}
        if len(hashes) > 1:
            reason = "the program that was measured is not the one that would land"
            self.ledger.discard(experiment.id, verdict.model_copy(update={"merge": False, "reason": reason}))
            return
        intent = Intent(
            campaign=self.ledger.name,
            experiment=experiment.id,
            parent=head,
            commit=commit,
            source_sha256=measurement.hashes.source,
        )
        self.ledger.intend_merge(verdict, intent.sealed(self.seal))
        failpoint.reach("arbiter.intended")

    def why_not(self, experiment: Experiment, runs: list[Measurement], standing: Standing) -> Verdict | None:
        """A verdict without the rule's: a receipt of the candidate is not ours."""
        complaint = next((why for m in experiment.measurements if (why := self.complaint(m)) is not None), None)
        if complaint is None and runs:
            return None
        return Verdict(
            merge=False,
            rule=standing.policy.rule,
            champion_bpb=None,
            candidate_bpb=None,
            reason=f"its receipt does not count: {complaint or 'what was measured is not the program that would land'}",
        )


def why_again(runs: list[Measurement], standing: Standing) -> str | None:
    """Why runs of a candidate cannot be judged together."""
    if not all(comparable(run, standing.scores[0]) for run in runs):
        return "its runs were not all made under the champion's conditions"
    return None


def parent_of(experiment: Experiment) -> str | None:
    return None if experiment.candidate is None else experiment.candidate.parent


def message(experiment: Experiment, verdict: Verdict, measurement: Measurement, history: str) -> str:
    """Commit message: the title on one line, and trailers: what was measured and decided, and the history that led to it."""
    title = " ".join("".join(c if c.isprintable() else " " for c in experiment.hypothesis.title).split())
    trailers = {
        "Experiment": experiment.id,
        "Campaign": experiment.campaign,
        "Lane": experiment.lane,
        "Rule": verdict.rule,
        "Val-Bpb": repr(verdict.candidate_bpb),
        "Parent-Val-Bpb": repr(verdict.champion_bpb),
        "Effect-Bpb": f"{verdict.effect_bpb:.6f} of {verdict.threshold_bpb:.6f}",
        "Run-Id": " ".join(verdict.candidate_runs),
        "Source-Sha256": measurement.hashes.source,
        HEAD_TRAILER: history,
    }
    lines = [f"experiment {experiment.id}: {title}", "", *(f"{key}: {value}" for key, value in trailers.items())]
    return "\n".join(lines) + "\n"
