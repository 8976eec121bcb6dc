"""Is the ledger what happened? Its history, rows, signatures and merges, each checked against the others and against git.

Whoever can write to Redis can write anything into it, and a new history with it. What it cannot change are receipts, which it
cannot sign, and commits: each merge names the end of the history that led to it, and its id follows from that name.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from ledger.arbiter import HEAD_TRAILER
from ledger.champion import Champion, Commit
from ledger.rows import read_event, read_experiment
from ledger.store import REBUILT, RECORDS, VERDICTS, Ledger
from ledger.verdict import Evidence, comparable, conditions, decide
from records import Event, Experiment, Measurement, Policy, State, Verdict

COVERED = ("at", "experiment", "kind", "detail", "record", "digest")
"""Fields of an event that its hash covers, in this order."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    found: str
    """How much of it there was."""
    complaints: list[str]
    caveats: Sequence[str] = ()
    """What cannot be known, though nothing speaks against it."""


class Entry(NamedTuple):
    """An event, and the hash that it should have."""

    event: Event
    hash: str


class Snapshot(NamedTuple):
    """All that the ledger held at one moment."""

    ids: range
    """Of the experiments that were looked for: one that is proposed meanwhile has events here, and no row."""
    campaign: str
    """Its JSON."""
    experiments: list[Experiment]
    records: dict[int, dict[str, list[str]]]
    """By experiment and kind, the JSON of what its row holds; measurements all of them, oldest first."""
    torn: list[int]
    """Experiments that stand in two states at once."""
    entries: list[Entry]


def inspect(ledger: Ledger, champion: Champion, signature: Callable[[Measurement], str | None]) -> list[Check]:
    """All checks of one campaign, which may be running.

    Args:
        ledger: the campaign.
        champion: its branch.
        signature: why a measurement is not what the host signed; None when it is.
    """
    # In this order: what is on the branch now was intended before, so the ledger knows of it.
    campaign = ledger.campaign()
    commits = [] if campaign.imported_from else champion.since(campaign.base)
    held = look(ledger)
    return [
        check_history(held),
        check_rows(held),
        check_signatures(held.experiments, signature),
        check_git(ledger.name, held.experiments, commits, champion),
        check_anchors(held.entries, commits),
        check_verdicts(campaign.policy, held, signature),
    ]


def several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def look(ledger: Ledger) -> Snapshot:
    """Read everything in one transaction."""
    ids = range(1, ledger.last_id() + 1)
    with ledger.reader.pipeline(transaction=True) as pipe:
        pipe.lrange(ledger.prefix + "events", 0, -1)
        pipe.get(ledger.prefix + "campaign")
        if ids:
            ledger.ask_rows(ids, pipe)
        events, campaign, *answers = pipe.execute()
    stored = ledger.answered(ids, answers) if ids else []
    records: dict[int, dict[str, list[str]]] = {}
    for held in stored:
        names = RECORDS[1:] if held.of_branch else RECORDS  # see there
        written = held.row | held.verdict
        records[held.id] = {name: [written[name]] for name in names if name in written}
        records[held.id]["measurement"] = held.measurements
    experiments = [read_experiment(ledger.name, held) for held in stored]
    torn = [held.id for held in stored if len(held.states) > 1]
    return Snapshot(ids, campaign or "", experiments, records, torn, list(seal(events)))


# ---- history ---------------------------------------------------------------------------------------------------------


def hash_of(*texts: str) -> str:
    """As `hash_of` of lua/shared.lua: SHA-1 of the texts, each after its length in bytes.

    To put another text in place of a given one takes a second preimage: 105 to 160 bits for SHA-1 (NIST SP 800-107 r1, table 1).
    """
    return sha1("".join(f"{len(text.encode())}:{text}" for text in texts))


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def seal(events: Iterable[str]) -> Iterator[Entry]:
    """Each event, with the hash that follows from it and from those before."""
    before = ""
    for id, text in enumerate(events, 1):
        fields = json.loads(text)
        before = hash_of(before, *(fields[name] for name in COVERED))
        yield Entry(read_event(id, fields), before)


def check_history(held: Snapshot) -> Check:
    """Each event's hash is the one that follows. What is cut off the end, rows and anchors show."""
    wrong = next((entry.event for entry in held.entries if entry.event.hash != entry.hash), None)
    complaints = (
        [] if wrong is None else [f"event {wrong.id} ({wrong.kind}), or one before it, is not what was written"]
    )
    return Check("history", f"{several(len(held.entries), 'event')}, each sealed by the next", complaints)


# ---- rows ------------------------------------------------------------------------------------------------------------


def check_rows(held: Snapshot) -> Check:
    """Every record of a row is the one that an event wrote, and the row stands where its last event put it."""
    complaints: list[str] = []
    events: defaultdict[int | None, list[Event]] = defaultdict(list)
    for event, _ in held.entries:
        events[event.experiment].append(event)
    if [sha1(held.campaign)] != [event.digest for event in events[None] if event.record == "campaign"]:
        complaints.append("the campaign's own record is not what the history says")
    for experiment in held.experiments:
        own = events[experiment.id]
        for record, texts in held.records[experiment.id].items():
            written = [event.digest for event in own if event.record == record]
            stored = [sha1(text) for text in texts]
            # Of measurements all are kept, of other records the newest.
            if stored != (written if record == "measurement" else written[-1:]):
                complaints.append(f"#{experiment.id}: its {record} is not what the history says")
        steps = [event.kind.partition("→")[2] for event in own if "→" in event.kind]
        if steps[-1:] != [experiment.state]:
            complaints.append(f"#{experiment.id}: it is {experiment.state}, and no event says so")
    complaints += [f"#{id}: it stands in two states at once" for id in held.torn]
    missing = {event.experiment for event, _ in held.entries} & set(held.ids) - {e.id for e in held.experiments}
    complaints += [f"#{id}: its row is missing" for id in sorted(filter(None, missing))]
    records = sum(len(texts) for row in held.records.values() for texts in row.values())
    return Check(
        "rows", f"{several(len(held.experiments), 'experiment')} with {several(records, 'record')}", complaints
    )


def check_signatures(experiments: list[Experiment], signature: Callable[[Measurement], str | None]) -> Check:
    measured = [(e.id, m) for e in experiments for m in e.measurements]
    complaints = [f"#{id}, run {m.run_id}: {why}" for id, m in measured if (why := signature(m)) is not None]
    claims = sum(e.claim is not None for e in experiments)
    caveat = f"{several(claims, 'imported row')} of claims: unsigned, and never measured here"
    found = f"{several(len(measured), 'measurement')}, signed by this lab"
    return Check("receipts", found, complaints, [caveat] if claims else [])


# ---- git -------------------------------------------------------------------------------------------------------------


def check_git(campaign: str, experiments: list[Experiment], commits: list[Commit], champion: Champion) -> Check:
    """Merged experiments and merges of the branch are the same, one to one, and each landed as it was measured."""
    complaints = [f"commit {c.id[:10]} has {len(c.parents)} parents" for c in commits if len(c.parents) != 1]
    merged = {e.commit: e for e in experiments if e.state == State.MERGED and e.lane != "baseline"}
    under_way = {str(e.id) for e in experiments if e.state == State.MERGING}
    merges = [c for c in commits if c.trailers.get("Campaign") == campaign and "Experiment" in c.trailers]
    for merge in merges:
        id = merge.trailers["Experiment"]
        experiment = merged.pop(merge.id, None)
        if experiment is not None and id == str(experiment.id):
            complaints += as_measured(experiment, merge, champion)
        elif experiment is not None:
            complaints.append(f"commit {merge.id[:10]} says that it merges #{id}, the ledger #{experiment.id}")
        elif id not in under_way:
            complaints.append(f"commit {merge.id[:10]} says that it merges #{id}, and the ledger does not")
    complaints += [
        f"#{e.id}: its merge {commit and commit[:10]} is not on the branch"
        for commit, e in merged.items()
        if commit is None or not champion.contains(commit)
    ]
    by_hand = len(commits) - len(merges)
    return Check(
        "merges", f"{len(merges)} on {champion.branch}" + (f", {by_hand} by hand" if by_hand else ""), complaints
    )


def as_measured(experiment: Experiment, merge: Commit, champion: Champion) -> Iterator[str]:
    """What is wrong with how a merged experiment landed."""
    candidate, measurement = experiment.candidate, experiment.score
    assert candidate is not None, "a merged experiment has a candidate"
    if merge.parents != [candidate.parent]:
        yield f"#{experiment.id}: it was measured over {candidate.parent[:10]}, and landed on another commit"
    landed = champion.landed_source_sha256(merge.id)
    if measurement is None or not landed == measurement.hashes.source == merge.trailers.get("Source-Sha256"):
        yield f"#{experiment.id}: what landed is not what was measured"
    elif experiment.verdict is None or merge.trailers.get("Val-Bpb") != repr(experiment.verdict.candidate_bpb):
        said = experiment.verdict and experiment.verdict.candidate_bpb
        yield f"#{experiment.id}: the commit says {merge.trailers.get('Val-Bpb')} bpb, the verdict {said!r}"


def check_anchors(entries: list[Entry], commits: list[Commit]) -> Check:
    """The history that each merge names is part of this one, or was lost before this one was rebuilt from git."""
    known = {event.hash for event, _ in entries}
    anchored = [c for c in commits if HEAD_TRAILER in c.trailers]
    first = entries[0].event if entries else None
    lost: list[Commit] = []
    if first is not None and first.kind == REBUILT:
        tip = next((i for i, c in enumerate(commits, 1) if c.id == first.detail), 0)
        lost = [c for c in commits[:tip] if c in anchored and c.trailers[HEAD_TRAILER] not in known]
    complaints = [
        f"commit {c.id[:10]} names a history that is not this one: it was written anew"
        for c in anchored
        if c.trailers[HEAD_TRAILER] not in known and c not in lost
    ]
    caveats = []
    if first is not None and first.kind == REBUILT:
        caveats.append(
            f"rebuilt from git on {first.at[:10]}: {several(len(lost), 'merge')} of a history that is lost, with all that did not merge"
        )
    return Check("anchors", f"{several(len(anchored), 'merge')} naming the history before", complaints, caveats)


# ---- verdicts --------------------------------------------------------------------------------------------------------


def check_verdicts(policy: Policy, held: Snapshot, signature: Callable[[Measurement], str | None]) -> Check:
    """Each verdict's numbers, from the signed measurements that it names: the campaign's rule says the same again."""
    judged = [
        e for e in held.experiments if e.is_idea and e.verdict is not None and e.state in (*VERDICTS, State.MERGING)
    ]
    bench = Bench.of(policy, held, signature)
    complaints = [f"#{e.id}: {wrong}" for e in judged if (wrong := bench.wrong(e)) is not None]
    merged = sum(e.verdict is not None and e.verdict.merge for e in judged)
    return Check(
        "verdicts", f"{several(len(judged), 'verdict')}, {several(merged, 'merge')}, decided again", complaints
    )


class Bench(NamedTuple):
    """What is needed to decide again."""

    policy: Policy
    measured: dict[str, tuple[Experiment, Measurement, int]]
    """By run id: whose it is, and the event that recorded it. Only those that this lab signed."""
    merged: dict[int, Experiment]
    """All that are, or were, champion."""
    selecting: set[str]
    """Runs that made a program champion."""
    spoken: dict[int, int]
    """Experiment → the event of its verdict."""
    ended: list[int]
    """Events by which ideas came to their verdicts, in order."""
    rebuilt: bool

    @classmethod
    def of(cls, policy: Policy, held: Snapshot, signature: Callable[[Measurement], str | None]) -> "Bench":
        events = [entry.event for entry in held.entries]
        recorded = {(event.experiment, event.digest): event.id for event in events if event.record == "measurement"}
        measured = {
            m.run_id: (e, m, recorded.get((e.id, sha1(text)), 0))
            for e in held.experiments
            for m, text in zip(e.measurements, held.records[e.id]["measurement"], strict=True)
            if signature(m) is None
        }
        merged = {e.id: e for e in held.experiments if e.state == State.MERGED}
        ideas = {e.id for e in held.experiments if e.is_idea}
        return cls(
            policy=policy,
            measured=measured,
            merged=merged,
            selecting={run for e in merged.values() if e.verdict is not None for run in e.verdict.candidate_runs},
            spoken={e.experiment: e.id for e in events if e.record == "verdict" and e.experiment is not None},
            ended=[e.id for e in events if e.experiment in ideas and e.kind.partition("→")[2] in VERDICTS],
            rebuilt=bool(events) and events[0].kind == REBUILT,
        )

    def wrong(self, experiment: Experiment) -> str | None:
        """What is wrong with a verdict, in words."""
        verdict, candidate = experiment.verdict, experiment.candidate
        assert verdict is not None, "only what was judged is asked about"
        if experiment.state in (State.MERGED, State.MERGING) and not verdict.merge:
            return "it merged against its verdict"
        if not verdict.champion_runs:
            return self.wrong_of_old(experiment, verdict) if verdict.merge else None
        if candidate is None or verdict.rule != self.policy.rule:
            return f"its verdict is by {verdict.rule}, the campaign's rule is {self.policy.rule}"
        groups = [verdict.champion_runs, verdict.candidate_runs, *verdict.noise_runs]
        if unknown := [run for group in groups for run in group if run not in self.measured]:
            return f"its verdict rests on run {unknown[0]}, of which there is no good receipt"
        champion, runs, *noise = ([self.measured[run][1] for run in group] for group in groups)
        beaten = {
            e.candidate.source_sha256 for e in self.merged.values() if e.commit == candidate.parent and e.candidate
        }
        if {m.hashes.source for m in champion} != beaten or {m.hashes.source for m in runs} != {
            candidate.source_sha256
        }:
            return "its verdict is about other programs"
        if any(len({m.hashes.source for m in group}) > 1 for group in noise) or self.selecting & {
            m.run_id for group in noise for m in group
        }:
            return "its noise is not that of repeats"
        if len({conditions(m) for group in (champion, runs, *noise) for m in group}) > 1:
            return "its verdict compares what does not compare"
        if (left_out := self.left_out(experiment, champion)) is not None:
            return f"its verdict leaves out run {left_out} of the champion"
        limit = self.policy.simplify_margin * (verdict.sigma_bpb or 0.0) if experiment.lane in SIMPLER else 0.0
        if not 0 <= verdict.allowed_bpb <= limit:
            return f"its verdict allows a loss of {verdict.allowed_bpb:.6f} bpb"
        evidence = Evidence(champion, runs, noise)
        before = [n for n in ((verdict.judged or 0) - 1, verdict.judged or 0) if n >= self.before(experiment)]
        if not any(same(decide(self.policy, evidence, n, verdict.allowed_bpb)[1], verdict) for n in before):
            return f"its verdict is not what {verdict.rule} says of these measurements"
        return None

    def before(self, experiment: Experiment) -> int:
        """Verdicts that were spoken before this one, as far as the history knows."""
        return sum(event < self.spoken.get(experiment.id, 0) for event in self.ended)

    def left_out(self, experiment: Experiment, used: Sequence[Measurement]) -> str | None:
        """A run of the same champion that the verdict should have rested on too."""
        if self.rebuilt:  # the order in which they came is lost
            return None
        first, ids = used[0], {m.run_id for m in used}
        champion = self.measured[first.run_id][0]
        of = champion.repeats or champion.id
        spoken = self.spoken.get(experiment.id, 0)
        for row, m, recorded in self.measured.values():
            mine = row.id == of or row.repeats == of
            if mine and m in row.runs and recorded < spoken and m.run_id not in ids and comparable(m, first):
                return m.run_id
        return None

    def wrong_of_old(self, experiment: Experiment, verdict: Verdict) -> str | None:
        """The same of a merge by a version whose verdicts named no runs; it knew keep-if-lower alone."""
        before = next(
            (e for e in self.merged.values() if experiment.candidate and e.commit == experiment.candidate.parent), None
        )
        if experiment.score is None or before is None:
            return "a score or the champion before it is missing"
        scores = [m.val_bpb for m in before.runs if m.val_bpb is not None and m.run_id in self.measured]
        score = experiment.score.val_bpb
        if not scores or score is None or (verdict.champion_bpb, verdict.candidate_bpb) != (fmean(scores), score):
            return f"its verdict is not what {verdict.rule} says of these measurements"
        return None if score < fmean(scores) else "it was not lower"


SIMPLER = ("simplify", "upkeep")


def same(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts say the same, but for the last digits of numbers that another version of a library may compute."""
    a, b = one.model_dump(exclude={"reason"}), other.model_dump(exclude={"reason"})
    return all(
        math.isclose(a[key], b[key], rel_tol=1e-6, abs_tol=1e-12)
        if isinstance(a[key], float) and isinstance(b[key], float)
        else a[key] == b[key]
        for key in a
    )
