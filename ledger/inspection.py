"""Is the ledger what happened? Its history, rows, signatures and merges, each checked against the others and against git.

Whoever can write to Redis can write anything into it, and a new history with it. What it cannot change are receipts, which it
cannot sign, and commits: each merge names the end of the history that led to it, and its id follows from that name.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ledger.arbiter import HEAD_TRAILER
from ledger.champion import Champion, Commit
from ledger.rows import read_event, read_experiment
from ledger.store import REBUILT, RECORDS, Ledger
from ledger.verdict import RULES
from records import Event, Experiment, Measurement, State

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
        check_verdicts(held.experiments, signature),
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
        names = RECORDS[1:] if held.baseline else RECORDS  # see there
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
    elif merge.trailers.get("Val-Bpb") != repr(measurement.val_bpb):
        yield f"#{experiment.id}: the commit says {merge.trailers.get('Val-Bpb')} bpb, the receipt {measurement.val_bpb!r}"


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


def check_verdicts(experiments: list[Experiment], signature: Callable[[Measurement], str | None]) -> Check:
    """Each merge's numbers, from the signed measurements again: the rule says the same."""
    complaints: list[str] = []
    champions = {e.commit: e for e in experiments if e.state == State.MERGED}
    merged = [e for e in champions.values() if e.lane != "baseline"]
    for e in merged:
        before = champions.get(e.candidate.parent) if e.candidate else None
        if e.verdict is None or e.score is None or before is None or before.candidate is None:
            complaints.append(f"#{e.id}: a verdict, a score or the champion before it is missing")
            continue
        source = before.candidate.source_sha256
        scores = [m for m in before.measurements if m.val_bpb is not None and m.hashes.source == source]
        rule = RULES.get(e.verdict.rule)
        again = rule and rule([m for m in scores if signature(m) is None], e.score)
        if again != e.verdict or not e.verdict.merge:
            complaints.append(f"#{e.id}: its verdict is not what {e.verdict.rule} says of these measurements")
    return Check("verdicts", f"{several(len(merged), 'merge')}, decided again", complaints)
