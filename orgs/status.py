"""A campaign at a glance: how good its champion is, what is left of its error budget, and whether the noise is what it seems."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from statistics import fmean
from typing import Any

from ledger import Ledger, Running
from ledger.error_budget import ErrorBudget, deviation_bound
from ledger.noise import Noise
from ledger.purse import MILLION, Total, calls, spending, total
from ledger.rules import make_rule
from ledger.standing import Court, Standing
from ledger.verdict import Need, distance, estimate, scores_of
from orgs.figures import Figure, figure_of
from orgs.headline import Headline, summarise_headline
from orgs.hopeless import miss_rate
from records import Campaign, Event, Experiment, FailureKind, Measurement, Policy, Progress, State

Complaint = Callable[[Measurement], str | None]

ENOUGH = 7
"""Degrees of freedom from which tails are looked at: fewer repeats look normal whatever they are."""
SUSPICIOUS = 0.01
"""Chance with which normal noise looks so little normal."""
EVENTS_AT_ONCE = 1000


@dataclass(frozen=True)
class Claimed:
    """Start or champion, and what is claimed of it."""

    experiment: int
    commit: str
    title: str
    bpb: float
    std_error_bpb: float | None
    """s/√n, by the pooled noise; None while that is unknown."""
    runs: int
    fresh: bool
    """False: it has no run but those that selected it."""


@dataclass(frozen=True)
class OnDevice:
    """What is being measured at this moment, as far as its runner tells."""

    experiment: int
    title: str
    device: str
    phase: str
    progress: Progress | None
    since: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Spending:
    """Of the error budget."""

    rule: str
    promises: bool
    """False for a rule that knows no noise, and merges half of all changes without effect; the rest is then None."""
    alpha: float | None
    judgements: int | None
    """K."""
    judged: int
    """Verdicts so far."""
    p1: float | None
    """What a candidate without effect merges with at most."""
    alpha_left: float | None


@dataclass(frozen=True)
class MoneySpent:
    """On language models."""

    usd: float
    held_usd: float
    """Set aside for calls under way."""
    calls: int
    failed: int
    errands: int
    """Of the calls, of command-line agents, which bear their costs themselves."""
    cache_share: float
    """Of all prompt tokens."""


@dataclass(frozen=True)
class NoiseFound:
    """Of one run, and what it is known from."""

    sigma_bpb: float
    """σ̂: its upper bound."""
    deviation_bpb: float
    """s."""
    freedom: int
    """ν."""
    start_runs: int
    """A/A: runs of the unchanged start."""
    later_runs: int
    """Canaries, and fresh runs of later champions."""
    device: str
    dataset: str
    """SHA-256 of its manifest."""


@dataclass(frozen=True)
class CanaryFound:
    """The last run that looked whether the machine still is what it was."""

    run_id: str
    difference_bpb: float
    """Less the mean of the champion's runs before."""
    bound_bpb: float
    """What it may differ by."""

    @property
    def off(self) -> bool:
        return abs(self.difference_bpb) > self.bound_bpb


@dataclass(frozen=True)
class Tails:
    """Of the repeats, whether they look as normal noise does: Shapiro and Wilk, 1965, on standardised residuals."""

    statistic: float
    p: float
    runs: int

    @property
    def heavy(self) -> bool:
        return self.p < SUSPICIOUS


@dataclass(frozen=True)
class EarlyStops:
    """How often the rule for hopeless runs was right, by those that it was not allowed to end (orgs/hopeless.py)."""

    ended: int
    """Runs that it ended."""
    finished: int
    """Runs that it would have ended, and that finished all the same."""
    missed: int
    """Of these, those that were worth it."""
    bound: float
    """Of the share that is missed: at most so much (95 %)."""


@dataclass(frozen=True)
class Checks:
    canary: CanaryFound | None
    drifts: list[str]
    """Each time that the champion was measured anew, since the machine had changed: when and why."""
    tails: Tails | None
    """None while there are too few repeats to tell."""
    void_runs: int
    """Measurements that failed for the host's own reasons, and count for nothing."""
    early_stops: EarlyStops | None
    """None where no run was hopeless."""
    lost_bpb: float
    """What simplifications have cost."""
    may_lose_bpb: float | None
    """What they may cost together; None while the noise is unknown."""


@dataclass(frozen=True)
class Results:
    """Ideas that have ended, by how."""

    verified: int
    """Merged."""
    within_noise: int
    worse: int
    """Discarded."""
    invalid: int
    """Their scores do not count, or they have none."""
    crashed: int
    """Of these."""


@dataclass(frozen=True)
class Status:
    campaign: str
    org: str
    created_at: str
    ended: str | None
    """Why; None while it is open."""
    champion: Claimed | None
    start: Claimed | None
    running: list[OnDevice]
    states: dict[str, int]
    """How many experiments, repeats included, stand in each state."""
    spending: Spending
    money: MoneySpent | None
    """None where no language model and no agent was asked."""
    noise: NoiseFound | None
    checks: Checks
    headline: Headline | None
    results: Results

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        values = asdict(self)
        for one in values["running"]:
            one["progress"] = one["progress"] and one["progress"].model_dump()
        values["headline"] = self.headline and self.headline._asdict()
        return values


def read_status(ledger: Ledger, complaint: Complaint) -> Status:
    """Everything, as the ledger has it now.

    Args:
        ledger: the campaign.
        complaint: why a measurement is not what the host signed; None when it is.
    """
    campaign, experiments = ledger.campaign(), ledger.experiments()
    court = Court(ledger, complaint)
    standing = court.standing()
    noise = None if standing is None else estimate(standing.noise_groups)
    champion, start = standing and standing.champion, start_of(campaign, experiments)
    runs = [run for run in ledger.headline_runs() if complaint(run.measurement) is None]
    return Status(
        campaign=campaign.name,
        org=campaign.org,
        created_at=campaign.created_at,
        ended=ledger.stop_reason(),
        champion=None if champion is None else claim(champion, experiments, complaint, noise),
        start=None if start is None else claim(start, experiments, complaint, noise),
        running=[on_device(running, experiments) for running in ledger.running()],
        states={state.value: count for state, count in ledger.counts().items()},
        spending=spend(campaign.policy, ledger.spent().verdicts),
        money=spend_money(total(calls(ledger)), spending(ledger).held),
        noise=None if standing is None or noise is None else explain_noise(campaign, standing, noise, experiments),
        checks=check(court, standing, noise, experiments, list(history(ledger))),
        headline=summarise_headline(runs, campaign.base, champion.commit, noise=noise)
        if champion and champion.commit
        else None,
        results=count_results(experiments),
    )


def on_device(running: Running, experiments: Sequence[Experiment]) -> OnDevice:
    """What is on a device, by its title."""
    title = next((e.hypothesis.title for e in experiments if e.id == running.experiment), "")
    return OnDevice(running.experiment, title, running.device, running.phase, running.progress, running.since)


def history(ledger: Ledger) -> Iterator[Event]:
    """All events, oldest first."""
    last = 0
    while events := ledger.events(after=last, count=EVENTS_AT_ONCE):
        yield from events
        last = events[-1].id


# ---- champion and start ----------------------------------------------------------------------------------------------


def start_of(campaign: Campaign, experiments: Sequence[Experiment]) -> Experiment | None:
    """The row of the commit that the campaign began with, once it is measured; after a drift, the one of since."""
    baselines = [e for e in experiments if e.lane == "baseline" and e.state == State.MERGED]
    return next((e for e in reversed(baselines) if e.commit == campaign.base), None)


def claim(
    row: Experiment, experiments: Sequence[Experiment], complaint: Complaint, noise: Noise | None
) -> Claimed | None:
    """What is claimed of a champion of before or now."""
    repeats = [e for e in experiments if e.repeats == row.id]
    figure: Figure | None = figure_of(row, repeats, lambda m: complaint(m) is None)
    if figure is None:
        return None
    error = None if noise is None else noise.deviation_bpb / math.sqrt(figure.runs)
    return Claimed(row.id, row.commit or "", row.hypothesis.title, figure.bpb, error, figure.runs, figure.fresh)


# ---- what is promised, and by what -----------------------------------------------------------------------------------


def spend(policy: Policy, judged: int) -> Spending:
    """What is left of the error budget after so many verdicts."""
    if not make_rule(policy.rule, policy.parameters).needs_noise:
        return Spending(policy.rule, False, None, None, judged, None, None)
    share = ErrorBudget(policy.alpha, policy.judgements).share
    left = max(0.0, policy.alpha - judged * share)
    return Spending(policy.rule, True, policy.alpha, policy.judgements, judged, share, left)


def spend_money(found: Total, held: int) -> MoneySpent | None:
    """What calls have cost; None without one.

    Args:
        found: of all calls.
        held: set aside, in millionths of a dollar.
    """
    if not found.calls and not held:
        return None
    return MoneySpent(found.dollars, held / MILLION, found.calls, found.failed, found.errands, found.cache_share)


def explain_noise(
    campaign: Campaign, standing: Standing, noise: Noise, experiments: Sequence[Experiment]
) -> NoiseFound:
    """The noise that verdicts rest on, and where it is from."""
    start = start_of(campaign, experiments)
    of_start = [e for e in experiments if start is not None and start.id in (e.id, e.repeats)]
    first = {m.run_id for e in of_start if e.hypothesis.category != Need.CANARY for m in e.measurements}
    used = [m.run_id for group in standing.noise_groups for m in group]
    start_runs = sum(run in first for run in used)
    return NoiseFound(
        sigma_bpb=deviation_bound(noise),
        deviation_bpb=noise.deviation_bpb,
        freedom=noise.freedom,
        start_runs=start_runs,
        later_runs=len(used) - start_runs,
        device=campaign.device,
        dataset=campaign.dataset,
    )


# ---- whether it holds ------------------------------------------------------------------------------------------------


def check(
    court: Court,
    standing: Standing | None,
    noise: Noise | None,
    experiments: Sequence[Experiment],
    events: Sequence[Event],
) -> Checks:
    """What could make the promise untrue."""
    failures = [m.failure for e in experiments for m in e.measurements if m.failure is not None]
    return Checks(
        canary=last_canary(court),
        drifts=[f"{event.at[:16]} {event.detail}" for event in events if event.kind == "drift"],
        tails=None if standing is None else look_at_tails([scores_of(group) for group in standing.noise_groups]),
        void_runs=sum(failure.kind.ours for failure in failures),
        early_stops=look_at_early_stops(experiments),
        lost_bpb=0.0 if standing is None else standing.lost_bpb,
        may_lose_bpb=None if noise is None else court.policy.simplify_cap * deviation_bound(noise),
    )


def look_at_early_stops(experiments: Sequence[Experiment]) -> EarlyStops | None:
    """What the rule for hopeless runs has ended, and what of the rest it would have missed."""
    measurements = [m for e in experiments for m in e.measurements]
    ended = sum(m.failure is not None and m.failure.kind == FailureKind.HOPELESS for m in measurements)
    misses = miss_rate(experiments)
    return EarlyStops(ended, *misses) if ended or misses.finished else None


def last_canary(court: Court) -> CanaryFound | None:
    """How far the campaign's newest canary was off, as `ledger.verdict.find_drift` saw it; None while there is none to compare."""
    histories = court.histories()
    canaries = [one for history in histories.values() for one in history.repeats if one.is_canary and one.runs]
    if not canaries:
        return None
    newest = max(canaries, key=lambda one: one.row.id)
    run, ids = newest.runs[-1], {m.run_id for one in canaries for m in one.runs}
    groups = {id: history.split(run)[1] for id, history in histories.items()}
    fresh = groups.pop(newest.row.repeats or 0, [])
    before = list(takewhile(lambda m: m.run_id != run.run_id, fresh))
    if before and before[-1].run_id in ids:  # it may have been off, and must not hide this one
        before.pop()
    others = [scores_of(group) for group in groups.values() if len(group) > 1]
    found = distance(scores_of(before), run.val_bpb, others) if run.val_bpb is not None else None
    return None if found is None else CanaryFound(run.run_id, *found)


def residuals(groups: Sequence[Sequence[float]]) -> list[float]:
    """How far each run is from the mean of its own program's, all on one scale whatever the number of runs."""
    return [
        (score - fmean(group)) / math.sqrt(1 - 1 / len(group)) for group in groups if len(group) > 1 for score in group
    ]


def look_at_tails(groups: Sequence[Sequence[float]]) -> Tails | None:
    """Whether repeats look normal; None while there are too few of them, or if they do not differ."""
    freedom, found = sum(len(group) - 1 for group in groups if group), residuals(groups)
    if freedom < ENOUGH or len(set(found)) < 3:
        return None
    from scipy.stats import shapiro  # takes a second to import, which every command would wait for

    statistic, p = shapiro(found)
    return Tails(float(statistic), float(p), len(found))


# ---- what came of it -------------------------------------------------------------------------------------------------


def count_results(experiments: Sequence[Experiment]) -> Results:
    """How the ideas ended."""
    ended = Counter(e.state for e in experiments if e.is_idea)
    crashed = ended[State.CRASHED]
    return Results(
        verified=ended[State.MERGED],
        within_noise=ended[State.WITHIN_NOISE],
        worse=ended[State.DISCARDED],
        invalid=ended[State.INVALID] + crashed,
        crashed=crashed,
    )


def counts_line(results: Results, *, promised: bool) -> str:
    """One line for people.

    Args:
        results: the counts.
        promised: whether the rule bounds how often a merge is none.
    """
    crashed = f" ({results.crashed} of them crashed)" if results.crashed else ""
    verified = f"{results.verified} verified" if promised else f"{results.verified} merged, unverified"
    return f"{verified}, {results.within_noise} within noise, {results.worse} worse, {results.invalid} invalid{crashed}"
