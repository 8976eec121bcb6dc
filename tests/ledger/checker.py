"""Is what a campaign came to what was promised? Asked after every schedule and crowd, whatever was killed meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ledger import Ledger
from ledger.champion import Champion, Commit
from ledger.inspection import inspect
from ledger.lease import Lease
from ledger.store import RESULTS
from records import Event, Experiment, Measurement, State

LEASED = "leased"
"""Kind of the event that a runner of these tests writes when it has got a lease: `<device>/<fence>`."""
STARTED = (State.RUNNING, State.SCORED, State.MERGING, *RESULTS)
"""On a device, waiting for a verdict, or ended after a run."""


class Acknowledged(NamedTuple):
    """What the ledger said yes to: whoever asked may rely on it."""

    results: list[tuple[int, str]]
    """Experiment and run."""
    merges: list[tuple[int, str]]
    """Experiment and commit."""
    by_hand: list[str]
    """Commits that a person put on the branch."""


class Evidence(NamedTuple):
    """What a campaign left behind."""

    base: str
    experiments: dict[int, Experiment]
    events: list[Event]
    commits: list[Commit]
    acknowledged: Acknowledged
    budget: int
    """Experiments that might be started."""


def run_id(lease: Lease, number: int) -> str:
    """A run's name tells under which lease it was made."""
    return f"{lease.device}/{lease.fence}/{number}"


def complaints(
    ledger: Ledger,
    champion: Champion,
    acknowledged: Acknowledged,
    signature: Callable[[Measurement], str | None],
    budget: int,
) -> list[str]:
    """Everything that is not as promised; empty for a good campaign."""
    evidence = gather(ledger, champion, acknowledged, budget)
    found = [line for look in LOOKS for line in look(evidence)]
    return found + [f"{c.name}: {line}" for c in inspect(ledger, champion, signature) for line in c.complaints]


def gather(ledger: Ledger, champion: Champion, acknowledged: Acknowledged, budget: int) -> Evidence:
    base = ledger.campaign().base
    experiments = {e.id: e for e in ledger.experiments()}
    return Evidence(base, experiments, history(ledger), champion.since(base), acknowledged, budget)


def history(ledger: Ledger) -> list[Event]:
    events: list[Event] = []
    while page := ledger.events(after=len(events)):
        events += page
    return events


def line_of_commits(evidence: Evidence) -> Iterator[str]:
    """The branch is one line, with no experiment on it twice, each above the commit that it was measured against."""
    tip = evidence.base
    for commit in evidence.commits:
        if commit.parents != [tip]:
            yield f"{commit.id} stands on {commit.parents}, not on {tip}: the branch is no line"
        tip = commit.id
        experiment = evidence.experiments.get(int(commit.trailers.get("Experiment", 0)))
        if experiment and (experiment.candidate is None or [experiment.candidate.parent] != commit.parents):
            yield f"#{experiment.id} was measured against another champion than the one under its merge"
    times = Counter(c.trailers["Experiment"] for c in evidence.commits if "Experiment" in c.trailers)
    yield from (f"#{id} is on the branch {n} times" for id, n in times.items() if n > 1)


def line_of_champions(evidence: Evidence) -> Iterator[str]:
    """The history merges nothing twice, and each time above the champion before."""
    parents = {commit.id: commit.parents[0] for commit in evidence.commits}
    landed: Counter[int] = Counter()
    champion = None
    for event in evidence.events:
        before, _, after = event.kind.partition("→")
        if after == State.MERGED and event.experiment is not None:
            commit = evidence.experiments[event.experiment].commit or ""
            landed[event.experiment] += 1
            if before == State.MERGING and parents.get(commit) != champion:
                yield f"#{event.experiment} merged above {parents.get(commit)}, and the champion was {champion}"
            champion = commit
    yield from (f"#{id} merged {n} times" for id, n in landed.items() if n > 1)


def acknowledged_results(evidence: Evidence) -> Iterator[str]:
    """Every result that was accepted is in its row, once, and no other is."""
    accepted = Counter(evidence.acknowledged.results)
    stored = Counter((e.id, m.run_id) for e in evidence.experiments.values() for m in e.measurements)
    yield from (f"run {run} of #{id} was accepted and is lost" for id, run in accepted - stored)
    yield from (f"run {run} of #{id} is there and was never accepted, or twice" for id, run in stored - accepted)


def acknowledged_merges(evidence: Evidence) -> Iterator[str]:
    """Every merge that was confirmed is in its row and on the branch, and so is what people put there."""
    on_branch = {commit.id for commit in evidence.commits}
    for id, commit in evidence.acknowledged.merges:
        experiment = evidence.experiments.get(id)
        if experiment is None or experiment.state != State.MERGED or experiment.commit != commit:
            yield f"#{id} was merged as {commit}, and its row does not say so"
        if commit not in on_branch:
            yield f"#{id} was merged as {commit}, which is not on the branch"
    lost = set(evidence.acknowledged.by_hand) - on_branch
    yield from (f"somebody's commit {commit} is no longer on the branch" for commit in lost)


def fences(evidence: Evidence) -> Iterator[str]:
    """No result was accepted under a lease after the device's next one had begun."""
    runs = {id: iter(e.measurements) for id, e in evidence.experiments.items()}
    newest: defaultdict[str, int] = defaultdict(int)
    for event in evidence.events:
        if event.kind == LEASED:
            device, _, fence = event.detail.partition("/")
            newest[device] = max(newest[device], int(fence))
        elif event.record == "measurement" and event.experiment is not None:
            run = next(runs[event.experiment], None)
            device, fence, _ = run.run_id.split("/") if run else ("", "0", "")
            if int(fence) < newest[device]:
                yield f"#{event.experiment} has a result under fence {fence} of {device}, after {newest[device]} began"


def spending(evidence: Evidence) -> Iterator[str]:
    """At no moment had more experiments been started than the budget allows."""
    states: dict[int, State] = {}
    for event in evidence.events:
        id, to = event.experiment, event.kind.partition("→")[2]
        if id is None or not to or evidence.experiments[id].lane == "baseline":
            continue
        states[id] = State(to)
        started = sum(state in STARTED for state in states.values())
        if started > evidence.budget:
            yield f"{started} experiments had been started when #{id} was, and the budget is {evidence.budget}"
            return


LOOKS = (line_of_commits, line_of_champions, acknowledged_results, acknowledged_merges, fences, spending)
