"""A campaign from start to end: check everything, seat the org, go on until a budget is spent, leave nothing behind."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import redis
from rich.console import Console

import failpoint
from agents.minds.desk import Desk
from agents.planner import check_planner
from ledger import Ledger
from ledger.champion import Champion, branches
from ledger.lease import Keeper, hold
from ledger.purse import MILLION, reopen, spending
from ledger.rules import make_rule
from ledger.server import RedisServer, join, open_redis
from ledger.witness import read_start, tell_start
from orgs.again import CandidateFailed, Conditions, cancelled_by_signals
from orgs.cluster import ray_session
from orgs.data import ensure_dataset
from orgs.headline import measure_headline, why_none
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.seats import Site
from orgs.view import View, watch
from records import BadInput, Campaign, HostFault, MissingComponent, Policy, State
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from sandbox.receipt import Key
from sandbox.sweep import sweep

if TYPE_CHECKING:
    from orgs.pipeline import Pipeline

PAID_FOR = (State.CODED, State.QUEUED, State.CONFIRMING, State.RUNNING, State.SCORED, State.MERGING)
"""What goes on without a language model."""
MAX_CHAMPION_FAILURES = 3
"""Repeats of one champion that crash by its own fault: its noise cannot be known."""


@dataclass(frozen=True)
class Outcome:
    """What a launch came to."""

    campaign: str
    reason: str
    """Why it ended."""
    finished: bool
    """False when it was interrupted: the next launch goes on."""


def launch(
    lab: Lab,
    org_path: Path,
    *,
    redis_url: str | None,
    allow_weak_redis: bool = False,
    console: Console,
    pick: Callable[[redis.Redis, OrgFile], str | None],
) -> Outcome:
    """Run an org until a budget is spent, a signal comes, or the host fails.

    Args:
        lab: the clone.
        org_path: org file.
        redis_url: a Redis to use instead of the embedded one.
        allow_weak_redis: even one that could lose writes, or that anybody may write to; every receipt says so.
        console: where to show progress.
        pick: which campaign to go on with: `unfinished`, `newest`, or one that returns a known name; a new one for None.

    Raises:
        BadInput, MissingComponent: before anything is started.
        CandidateFailed: the starting train.py could not be measured.
        HostFault: a seat or the host failed again and again; the ledger is intact.
    """
    org = OrgFile.load(org_path, lab.root)
    for role, seat in org.roles.items():
        seat.role_file(lab.root).load().check(role, Desk(role, lab.root, prices=org.prices(lab.root)))
    device = find_device(org.sandbox.device)
    engine = org.sandbox.ready_engine(device, lab.state)
    dataset = ensure_dataset(lab, org.data, console)
    with ExitStack() as stack:
        server = stack.enter_context(open_redis(lab.state, redis_url, allow_weak=allow_weak_redis))
        failpoint.reach("launcher.redis_opened")
        name = pick(server.client, org) or new_name(server.client, org, lab.root)
        lock = stack.enter_context(hold(join(server.logins["lease"]), f"launcher/{name}"))
        failpoint.reach("launcher.locked")
        view = stack.enter_context(watch(console))
        ledger = Ledger(server.client, name)  # the owner's, to set up the campaign
        if name in Ledger.campaigns(server.client):
            go_on(ledger, org, dataset, device)
            view.say(f"going on with campaign {name} (--new starts another)")
        else:
            begin(ledger, lab, org, dataset, device)
        for line in [*sweep([engine], lab.state), *ledger.recover()]:
            view.say(line)
        failpoint.reach("launcher.recovered")
        weakness = server.weakness or None
        site = Site(
            lab.root,
            server.logins,
            name,
            org,
            engine.name,
            device,
            ledger.campaign().budget_s,
            weakness,
            keys=org.keys(lab.root),
        )
        mode = stack.enter_context(ray_session())
        failpoint.reach("launcher.ray_started")
        view.say(f"org {org.name} on {device.name} · {engine.name} sandbox · Ray {mode} · Redis {server.version}")
        if weakness is not None:
            view.say(f"this Redis is weak, and every receipt will say so: {weakness}")
        owner = server.ledger(name, "lease")
        with seated(site, view) as pipeline:
            failpoint.reach("launcher.seated")
            ended = Shift(owner, org, pipeline, view, lock, needs_money=not org.goes_on_for_nothing(lab.root)).work()
        if ended.finished and org.headline.runs:
            limits, rigour = org.sandbox.limits(), org.audit.rigour()
            conditions = Conditions(lab, dataset, device, engine, limits, site.budget_s, rigour, weakness)
            ended = conclude(ended, server, conditions, org.headline.runs, view)
        if ended.finished:
            # Last of all: a launch that dies before goes on from here.
            refuse_if_lost(lock, name)
            owner.set_stop(ended.reason)
            failpoint.reach("launcher.stopped")
        return ended


# ---- the campaign ----------------------------------------------------------------------------------------------------


def new_name(client: redis.Redis, org: OrgFile, repository: Path) -> str:
    """`<org>-<month><day>-<hour><minute>` of now, with a number when there is such a campaign, or the branch of one."""
    name, taken = f"{org.name}-{datetime.now():%m%d-%H%M}", [*Ledger.campaigns(client), *branches(repository)]
    return next(n for i in range(1, len(taken) + 2) if (n := name if i == 1 else f"{name}-{i}") not in taken)


def newest(client: redis.Redis, org: OrgFile) -> str:
    """The last campaign of this org. Raises MissingComponent if it has none."""
    mine = [c for c in Ledger.campaigns(client) if Ledger(client, c).campaign().org == org.name]
    if not mine:
        raise MissingComponent(f"org {org.name} has no campaign yet: launch it first")
    return max(mine, key=lambda name: Ledger(client, name).campaign().created_at)


def unfinished(client: redis.Redis, org: OrgFile) -> str | None:
    """The last campaign of this org, if it was interrupted."""
    with suppress(MissingComponent):
        if Ledger(client, last := newest(client, org)).stop_reason() is None:
            return last
    return None


def begin(ledger: Ledger, lab: Lab, org: OrgFile, dataset: Dataset, device: Device) -> None:
    """Create the campaign: its branch first, then its row. The arbiter asks for the baseline."""
    check_planner(org.roles.planner.role_file(lab.root), Desk("planner", lab.root), lab.train_source, dataset.profile)
    campaign = Campaign(
        name=ledger.name,
        org=org.name,
        org_id=org.identity(lab.root),
        base="",  # the commit that carries this
        dataset=dataset.sha256,
        device=device.name,
        budget_s=seconds_of_training(org, dataset),
        seed=org.seed,
        policy=org.policy(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    champion = Champion(lab.root, ledger.name)
    champion.start(lab.train_source, tell_start(campaign))
    failpoint.reach("launcher.branched")
    begun = read_start(champion)
    if champion.head() != begun.base:
        raise BadInput(
            f"{champion.branch} has commits that this ledger does not know: autoresearch-org ledger rebuild -c {ledger.name}"
        )
    ledger.create(begun)
    failpoint.reach("launcher.created")


def seconds_of_training(org: OrgFile, dataset: Dataset) -> float:
    return org.budget.train_s or dataset.budget_s


def go_on(ledger: Ledger, org: OrgFile, dataset: Dataset, device: Device) -> None:
    """Reopen a campaign. Raises BadInput if new scores would not compare with those it has."""
    campaign = ledger.campaign()
    if campaign.imported_from:
        raise BadInput(f"campaign {campaign.name} was imported from a results.tsv, to look at: launch one of your own")
    if campaign.org != org.name:
        raise BadInput(
            f"campaign {campaign.name} belongs to org {campaign.org}, not to {org.name}: resume it with that"
        )
    if campaign.dataset != dataset.sha256:
        raise BadInput(f"campaign {campaign.name} was measured on another dataset: launch a new one with --new")
    if campaign.device != device.name:
        raise BadInput(
            f"campaign {campaign.name} was measured on {campaign.device}, not on {device.name}: "
            "go on there, or launch a new one with --new"
        )
    if campaign.budget_s != seconds_of_training(org, dataset):
        raise BadInput(
            f"campaign {campaign.name} trains {campaign.budget_s:g} s per experiment, and that cannot change: "
            "correct budget.train_s, or launch a new one with --new"
        )
    refuse_other_promise(campaign, org)
    ledger.clear_stop()
    reopen(ledger)
    failpoint.reach("launcher.reopened")


def refuse_other_promise(campaign: Campaign, org: OrgFile) -> None:
    """Raise BadInput if the org file promises something else than the campaign did when it began."""
    promised, now = campaign.policy, org.policy()
    differing = [key for key in Policy.model_fields if getattr(promised, key) != getattr(now, key)]
    if differing == ["judgements"] and org.merge.judgements is None:
        # The budget may be raised, the promise is still for as many verdicts as before.
        needs_noise = make_rule(promised.rule, promised.parameters).needs_noise
        differing = differing if needs_noise and org.budget.experiments > promised.judgements else []
        if differing:
            raise BadInput(
                f"campaign {campaign.name} promised its error rate for {promised.judgements} verdicts: set budget.experiments to that "
                "or less, or launch a new one with --new (merge.judgements says beforehand how many there may be)"
            )
    if differing:
        key = differing[0]
        raise BadInput(
            f"campaign {campaign.name} has merge.{key} = {getattr(promised, key)!r}, and what it promised cannot change: "
            f"correct merge.{key}, or launch a new one with --new"
        )


def conclude(ended: Outcome, server: RedisServer, conditions: Conditions, runs: int, view: View) -> Outcome:
    """Measure the headline of a campaign whose budget is spent; unfinished if it was interrupted.

    Raises:
        HostFault: as orgs.headline; the next launch goes on with the runs that are missing.
    """
    ledger = server.ledger(ended.campaign, "runner")
    if (reason := why_none(ledger.campaign(), ledger.champion_commit())) is not None:
        view.say(reason)
        return ended
    with cancelled_by_signals() as cancel:
        try:
            done = measure_headline(
                ledger,
                Champion(conditions.lab.root, ended.campaign),
                join(server.logins["lease"]),
                conditions,
                runs,
                complaint=Key.of(conditions.lab.state).complaint,
                by="launch",
                say=view.say,
                on_phase=lambda phase: view.update(ledger, None, phase),
                cancel=cancel,
            )
        except CandidateFailed as failed:
            # The campaign is over all the same, and the ledger has the run that failed.
            view.say(f"no headline: {failed}")
            return ended
    if not done:
        reason = "interrupted during the headline; `report --test` measures what is missing of it"
        return Outcome(ended.campaign, reason, finished=False)
    return ended


@contextmanager
def seated(site: Site, view: View) -> Iterator["Pipeline"]:
    """The org at work: every seat filled, and given back at the end."""
    from orgs.pipeline import Pipeline  # imports Ray, for half a second, which every command would wait for

    pipeline = Pipeline(view.say)
    try:
        for role, seat in site.org.roles.items():
            pipeline.add(role, site, seat.seats)
        if site.org.upkeep.combine or site.org.upkeep.leave_one_out:
            pipeline.add("upkeep", site)
        pipeline.add("runner", site)
        pipeline.add("arbiter", site)
        yield pipeline
    finally:
        pipeline.close()
        failpoint.reach("launcher.unseated")


# ---- its loop --------------------------------------------------------------------------------------------------------


class Shift:
    """The launcher's loop: who may step, when to drain, when it is over."""

    def __init__(
        self, ledger: Ledger, org: OrgFile, pipeline: "Pipeline", view: View, lock: Keeper, *, needs_money: bool = True
    ):
        self.ledger = ledger
        self.lock = lock
        self.org = org
        self.pipeline = pipeline
        self.view = view
        self.signals = 0
        self.started = time.monotonic()
        self.last_event = ledger.last_event()
        self.needs_money = needs_money
        self.failed = 0
        """Crashed and invalid experiments, when they were last looked at."""
        self.given_up = {e.id for e in ledger.experiments(states=[State.CRASHED]) if e.host_failed}
        """What the host failed before this launch, and is not tried again (ledger/lua/requeue_failed.lua)."""

    def work(self) -> Outcome:
        name = self.ledger.name
        with self.signals_counted():
            while True:
                draining = self.reason_to_drain()
                self.show(draining)
                refuse_if_lost(self.lock, name)
                if self.signals >= 2:
                    return Outcome(name, "stopped at once", finished=False)
                if draining and self.drained():
                    return Outcome(name, draining, finished=self.signals == 0)
                failpoint.reach("launcher.draining" if draining else "launcher.working")
                self.pipeline.advance(partial(self.may_step, draining=draining is not None))
                self.refuse_to_waste_the_night()

    @contextmanager
    def signals_counted(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain; the second one stops at once."""

        def count(signum: int, frame: FrameType | None) -> None:
            self.signals += 1

        before = {sign: signal.signal(sign, count) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)

    def reason_to_drain(self) -> str | None:
        """Why no further experiment should start, or None."""
        budget, spent = self.org.budget, self.ledger.spent()
        if self.signals:
            return "interrupted"
        if spent.judged >= budget.experiments:
            return f"{spent.judged} experiment{'s' if spent.judged > 1 else ''} judged"
        if budget.device_minutes and spent.device_s >= budget.device_minutes * 60:
            return f"{budget.device_minutes:g} device minutes spent"
        if budget.wall_minutes and time.monotonic() - self.started >= budget.wall_minutes * 60:
            return f"{budget.wall_minutes:g} minutes have passed"
        return self.out_of_money()

    def out_of_money(self) -> str | None:
        """That language models may be asked no more, and nothing is left to do that needs none of them."""
        money = spending(self.ledger)
        if not money.refused or not self.needs_money or any(self.ledger.counts().get(state) for state in PAID_FOR):
            return None
        return f"{money.paid / MILLION:.2f} of {self.org.money.campaign_usd:g} dollars spent, and the next call could cost more than is left"

    def may_step(self, role: str, *, draining: bool) -> bool:
        """Whether a seat of this role may start another step."""
        if role == "arbiter":
            return True
        if draining:
            return False
        spent = self.ledger.spent()
        room = self.org.budget.experiments - spent.started
        if role == "runner":
            return (room > self.pipeline.busy("runner") or runs_again(self.ledger)) and not verdict_first(self.ledger)
        if role == "planner":
            return room > spent.open and self.ledger.champion_experiment() is not None
        if role == "upkeep":
            return room > 0 and nothing_to_do(self.ledger)
        return True

    def drained(self) -> bool:
        """No seat but the arbiter's is at work, and the arbiter can decide nothing more."""
        if any(self.pipeline.busy(role) for role in ("planner", "coder", "reviewer", "upkeep", "runner")):
            return False
        return not verdict_first(self.ledger)

    def show(self, draining: str | None) -> None:
        for event in self.ledger.events(after=self.last_event):
            self.last_event = event.id
            self.view.event(event, self.ledger)
        notice = f"draining: {draining}; Ctrl-C again stops at once" if draining else None
        self.view.update(self.ledger, self.org.budget.experiments, notice)

    def refuse_to_waste_the_night(self) -> None:
        """Stop when the host fails what is run again and again, when the start itself fails, or when the champion does."""
        counts = self.ledger.counts()
        if (failed := counts.get(State.CRASHED, 0) + counts.get(State.INVALID, 0)) == self.failed:
            return
        self.failed = failed
        experiments = self.ledger.experiments(states=[State.CRASHED, State.INVALID])
        for experiment in experiments:
            if experiment.host_failed and experiment.id not in self.given_up:
                raise HostFault(
                    f"the host failed #{experiment.id} too often: {experiment.why}; `resume` goes on when that is mended"
                )
            if experiment.lane == "baseline" and not experiment.host_failed:
                raise CandidateFailed(
                    f"train.py itself fails in the sandbox ({experiment.why}); try: autoresearch-org run train.py, and launch it "
                    "with --new when it is mended"
                )
        repeats = Counter(e.repeats for e in experiments if e.repeats is not None and not e.host_failed)
        for id, times in repeats.items():
            if times >= MAX_CHAMPION_FAILURES:
                raise CandidateFailed(
                    f"the program of #{id}, which has to be compared with, failed in {times} of its repeats: ledger list --lane repeat"
                )


def nothing_to_do(ledger: Ledger) -> bool:
    """Whether the champion is measured, and neither an idea nor a run nor a verdict is under way."""
    return all(state.final for state in ledger.counts()) and ledger.champion_experiment() is not None


def refuse_if_lost(lock: Keeper, name: str) -> None:
    """Raise HostFault if the campaign is another launcher's by now."""
    if lock.lost.is_set():
        raise HostFault(f"another launcher took over campaign {name} while this one was asleep")


def verdict_first(ledger: Ledger) -> bool:
    """Whether to hold a device free for a moment: what waits for its verdict may be the next champion, and a candidate made
    from this one would run in vain. Not where the arbiter itself waits for runs of the champion."""
    waiting = ledger.experiments(states=[State.SCORED, State.MERGING, State.QUEUED, State.RUNNING])
    if any(e.state in (State.SCORED, State.MERGING) and not e.is_idea for e in waiting):
        return True
    decidable = any(e.state in (State.SCORED, State.MERGING) for e in waiting)
    return decidable and all(e.is_idea for e in waiting)


def runs_again(ledger: Ledger) -> bool:
    """Whether a run waits that begins no experiment: of the champion, or a candidate's second."""
    return any(
        e.state == State.CONFIRMING or not e.is_idea
        for e in ledger.experiments(states=[State.QUEUED, State.CONFIRMING])
    )
