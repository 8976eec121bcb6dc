"""The arbiter: decides on scored experiments, one at a time. What won goes into the outbox, for the relay to land.

A merge is: intent in Redis, then the ref in git, then `merged` in Redis. The arbiter does the first, the relay the others.
"""

from collections.abc import Callable

import failpoint
from ledger.champion import Champion
from ledger.intent import Intent, Seal
from ledger.store import Ledger
from ledger.verdict import Rule
from ledger.witness import tell_merge
from records import Candidate, Experiment, Measurement, Verdict

HEAD_TRAILER = "Ledger-Head"
"""Of a merge: the hash of the newest event before it."""


class Arbiter:
    """Judges the experiments of a campaign.

    Args:
        ledger: the campaign.
        champion: its branch.
        rule: when a candidate merges.
        complaint: says why a measurement is not what the host signed; None when it is.
        seal: the lab's seal, without which the relay lands nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        rule: Rule,
        complaint: Callable[[Measurement], str | None],
        seal: Seal,
    ):
        self.ledger = ledger
        self.champion = champion
        self.rule = rule
        self.complaint = complaint
        self.seal = seal

    def step(self) -> bool:
        """Judge the oldest scored experiment; False when there was none, or while a merge is under way."""
        if self.ledger.outbox():
            return False
        champion = self.ledger.champion_commit()
        head = self.champion.head()
        experiment = self.ledger.next_scored()
        if experiment is not None and experiment.lane == "baseline":
            self.crown(experiment, head)
            failpoint.reach("arbiter.crowned")
            return True
        if experiment is not None and (experiment.candidate is None or experiment.candidate.parent != head):
            self.ledger.rebase(experiment.id, "rebase: champion moved")
            failpoint.reach("arbiter.rebased")
            return True
        if champion != head:
            # The start, or a commit that somebody else put on the branch: nothing can be judged until it is measured.
            failpoint.reach("arbiter.looked")
            self.measure_as_it_stands(head, champion)
            failpoint.reach("arbiter.baseline_asked")
            return False
        if experiment is None:
            return False
        failpoint.reach("arbiter.read")
        self.judge(experiment, head)
        return True

    def measure_as_it_stands(self, commit: str, champion: str | None) -> None:
        """Have a commit's train.py measured as a baseline, unless it is already waiting for that."""
        sha256 = self.champion.landed_source_sha256(commit)
        # What a program means is known to those who write them; the bytes serve as well for one that nobody wrote.
        self.ledger.propose_baseline(
            Candidate(
                parent=commit,
                source=self.champion.source(commit),
                source_sha256=sha256,
                meaning_sha256=sha256,
                diff="",
            ),
            champion or "",
        )

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

    def judge(self, experiment: Experiment, head: str) -> None:
        """Discard the experiment, or have it landed on the champion."""
        candidate, measurement = experiment.candidate, experiment.measurements[-1]
        assert candidate is not None, "a scored experiment has a candidate"
        verdict = self.rule([m for m in self.ledger.champion_score() if self.complaint(m) is None], measurement)
        if (complaint := self.complaint(measurement)) is not None:
            verdict = verdict.model_copy(update={"merge": False, "reason": f"its receipt does not count: {complaint}"})
        failpoint.reach("arbiter.judged")
        if not verdict.merge:
            self.ledger.discard(experiment.id, verdict)
            failpoint.reach("arbiter.discarded")
            return
        if measurement.audit is None or measurement.audit.level != "full":
            self.ledger.rebase(experiment.id, "rebase: it might merge, and was not audited for that")
            return
        text = message(experiment, verdict, measurement, self.ledger.head())
        beaten = self.ledger.champion_experiment()
        assert beaten is not None, "a verdict to merge is about a champion"
        commit = self.champion.prepare(head, candidate.source, text, tell_merge(experiment, verdict, beaten))
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


def message(experiment: Experiment, verdict: Verdict, measurement: Measurement, history: str) -> str:
    """Commit message: the title on one line, and trailers: what was measured, and the history that led to it."""
    title = " ".join("".join(c if c.isprintable() else " " for c in experiment.hypothesis.title).split())
    trailers = {
        "Experiment": experiment.id,
        "Campaign": experiment.campaign,
        "Val-Bpb": repr(measurement.val_bpb),
        "Parent-Val-Bpb": repr(verdict.champion_bpb),
        "Run-Id": measurement.run_id,
        "Source-Sha256": measurement.hashes.source,
        HEAD_TRAILER: history,
    }
    lines = [f"experiment {experiment.id}: {title}", "", *(f"{key}: {value}" for key, value in trailers.items())]
    return "\n".join(lines) + "\n"
