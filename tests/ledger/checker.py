"""Is what a campaign came to what was promised? Asked after every schedule and crowd, whatever was killed meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ledger import Ledger
from ledger.champion import Champion, Commit
from ledger.inspection import inspect
from ledger.lease import Lease
from ledger.rules import make_rule
from ledger.store import AT_WORK, RESULTS, VERDICTS
from records import Event, Experiment, Measurement, Policy, State

LEASED = "leased"
"""Kind of the event that a runner of these tests writes when it has got a lease: `<device>/<fence>`."""
STARTED = (*AT_WORK, *RESULTS)
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
    policy: Policy


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
    campaign = ledger.campaign()
    experiments = {e.id: e for e in ledger.experiments()}
    commits = champion.since(campaign.base)
    return Evidence(campaign.base, experiments, history(ledger), commits, acknowledged, budget, campaign.policy)


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
        if id is None or not to or not evidence.experiments[id].is_idea:
            continue
        states[id] = State(to)
        started = sum(state in STARTED for state in states.values())
        if started > evidence.budget:
            yield f"{started} experiments had been started when #{id} was, and the budget is {evidence.budget}"
            return


def second_runs(evidence: Evidence) -> Iterator[str]:
    """Where the noise counts, what merged was run twice since its program was written, and by nothing else it was judged."""
    if not needs_noise(evidence):
        return
    runs: defaultdict[int, list[str]] = defaultdict(list)
    measured = {id: iter(e.measurements) for id, e in evidence.experiments.items()}
    for event in evidence.events:
        id = event.experiment
        if id is None:
            continue
        experiment = evidence.experiments[id]
        if event.kind == f"{State.CLAIMED}→{State.CODED}":
            runs[id].clear()
        elif event.record == "measurement":
            run = next(measured[id], None)
            runs[id] += [run.run_id] if run is not None and run.val_bpb is not None else []
        elif event.kind == f"{State.MERGING}→{State.MERGED}":
            said = experiment.verdict.candidate_runs if experiment.verdict else []
            if len(runs[id]) < 2:
                yield f"#{id} merged after {len(runs[id])} run of its program"
            if said != runs[id]:
                yield f"#{id} was run as {runs[id]} and merged by {said}"


def runs_of_the_champion(evidence: Evidence) -> Iterator[str]:
    """No verdict while repeats of the champion were open, and none by fewer runs of it than the policy has."""
    champion: int | None = None
    open_repeats: defaultdict[int, set[int]] = defaultdict(set)
    for event in evidence.events:
        id, to = event.experiment, event.kind.partition("→")[2]
        if event.kind == "drift":
            champion = None
        if id is None or not to:
            continue
        experiment = evidence.experiments[id]
        if experiment.repeats is not None:
            (open_repeats[experiment.repeats].discard if State(to).final else open_repeats[experiment.repeats].add)(id)
        if experiment.is_idea and event.record == "verdict" and champion is not None and open_repeats[champion]:
            yield f"#{id} was judged while {len(open_repeats[champion])} runs of the champion #{champion} were missing"
        if to == State.MERGED:
            champion = id
    if needs_noise(evidence):
        policy, ideas = evidence.policy, [e for e in evidence.experiments.values() if e.is_idea and e.verdict]
        selecting = {run for e in ideas if e.state == State.MERGED and e.verdict for run in e.verdict.candidate_runs}
        for experiment in ideas:
            verdict = experiment.verdict
            if verdict is None or not verdict.champion_runs:
                continue
            fresh = set(verdict.champion_runs) - selecting
            if not fresh:
                yield f"#{experiment.id} was judged by no run of the champion but those that made it one"
            if (verdict.freedom or 0) < policy.noise_runs - 1:
                yield f"#{experiment.id} was judged before the noise was known"
            again, by_place = len(verdict.candidate_runs) > 1, len(fresh) == len(verdict.champion_runs)
            least = min(policy.champion_runs, policy.noise_runs) if again or by_place else 1
            if len(verdict.champion_runs) < least:
                yield f"#{experiment.id} was judged by {len(verdict.champion_runs)} runs of the champion, not {least}"


def places(evidence: Evidence) -> Iterator[str]:
    """What was on a device in vain goes back to where it was taken from."""
    taken_from: dict[int, str] = {}
    for event in evidence.events:
        before, _, after = event.kind.partition("→")
        if event.experiment is None:
            continue
        if after == State.RUNNING:
            taken_from[event.experiment] = before
        in_vain = before == State.RUNNING and after in (State.QUEUED, State.CONFIRMING)
        if in_vain and after != taken_from[event.experiment]:
            yield f"#{event.experiment} was {taken_from[event.experiment]}, and is {after} after a run in vain"


def error_budget(evidence: Evidence) -> Iterator[str]:
    """Each verdict is counted, whoever forgot what; and nothing merges once all judgements are spent."""
    spoken = {e.experiment: i for i, e in enumerate(evidence.events) if e.record == "verdict"}
    ended = [
        i
        for i, e in enumerate(evidence.events)
        if e.experiment is not None
        and evidence.experiments[e.experiment].is_idea
        and e.kind.partition("→")[2] in VERDICTS
    ]
    most = evidence.policy.judgements if needs_noise(evidence) else 10**9
    for experiment in evidence.experiments.values():
        verdict = experiment.verdict
        if verdict is None or verdict.judged is None or not experiment.is_idea:
            continue
        before = sum(i < spoken[experiment.id] for i in ended)
        counts = before < most and experiment.state in (*VERDICTS, State.MERGING)
        if verdict.judged != before + counts:
            yield f"#{experiment.id} was judged as number {verdict.judged}, after {before} others"
        if verdict.merge and before >= most:
            yield f"#{experiment.id} merged after {before} verdicts, and the error budget is for {most}"


def needs_noise(evidence: Evidence) -> bool:
    return make_rule(evidence.policy.rule, evidence.policy.parameters).needs_noise


LOOKS = (
    *(line_of_commits, line_of_champions, acknowledged_results, acknowledged_merges, fences, spending),
    *(second_runs, runs_of_the_champion, places, error_budget),
)
