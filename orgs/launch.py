"""A campaign from start to end: check everything, seat the org, go on until a budget is spent, leave nothing behind."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import redis
from rich.console import Console

from agents.role import Role
from ledger import Ledger
from ledger.champion import Champion
from ledger.lease import Keeper, hold
from ledger.server import open_redis
from orgs.data import ensure_dataset
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.pipeline import Pipeline, ray_session
from orgs.seats import Site
from orgs.view import View, watch
from records import BadInput, Campaign, HostFault, Refusal, State
from sandbox.device import find_device
from sandbox.engines import pick_engine
from sandbox.sweep import sweep

MAX_HOST_FAILURES = 3
"""Measurements in a row that failed for the host's own reasons; then the night is not worth going on with."""


class CandidateFailed(Refusal):
    """A candidate that had to succeed (the starting train.py) did not."""

    exit_code = 5


@dataclass(frozen=True)
class Outcome:
    """What a launch came to."""

    campaign: str
    reason: str
    """Why it ended."""
    finished: bool
    """False when it was interrupted: the next launch goes on."""


def campaign_name(org: OrgFile, taken: list[str], now: datetime) -> str:
    """`<org>-<month><day>-<hour><minute>`, with a number when that exists."""
    name = f"{org.name}-{now:%m%d-%H%M}"
    return next(n for i in range(1, len(taken) + 2) if (n := name if i == 1 else f"{name}-{i}") not in taken)


def unfinished(client: redis.Redis, org: OrgFile) -> str | None:
    """The newest campaign of this org that was interrupted, if its newest one was."""
    mine = [c for c in Ledger.campaigns(client) if Ledger(client, c).campaign().org == org.name]
    newest = max(mine, key=lambda name: Ledger(client, name).campaign().created_at, default=None)
    return newest if newest is not None and Ledger(client, newest).stop_reason() is None else None


def launch(
    lab: Lab, org_path: Path, *, redis_url: str | None, console: Console, new: bool = False, resume: str | None = None
) -> Outcome:
    """Run an org until a budget is spent, a signal comes, or the host fails.

    Args:
        lab: the clone.
        org_path: org file.
        redis_url: a Redis to use instead of the embedded one.
        console: where to show progress.
        new: start a new campaign even if the last one of this org was interrupted.
        resume: name of the campaign to go on with.

    Raises:
        BadInput, MissingComponent: before anything is started.
        CandidateFailed: the starting train.py could not be measured.
        HostFault: a seat or the host failed again and again; the ledger is intact.
    """
    org = OrgFile.load(org_path, lab.root)
    for role, seat in org.roles.items():
        Role.load(lab.root / seat.file).check(role)
    engine = pick_engine(org.sandbox.engine, state_dir=lab.state)
    device = find_device(org.sandbox.device)
    dataset = ensure_dataset(lab, org.data, console)
    with ExitStack() as stack:
        server = stack.enter_context(open_redis(lab.state, redis_url))
        client = server.client
        name = (
            resume
            or (None if new else unfinished(client, org))
            or campaign_name(org, Ledger.campaigns(client), datetime.now())
        )
        if resume and resume not in Ledger.campaigns(client):
            raise BadInput(
                f"no campaign {resume} in this ledger (there are: {', '.join(Ledger.campaigns(client)) or 'none'})"
            )
        lock = stack.enter_context(hold(client, f"launcher/{name}"))
        ledger, champion = Ledger(client, name), Champion(lab.root, name)
        view = stack.enter_context(watch(console))
        if name in Ledger.campaigns(client):
            ledger.clear_stop()
            view.say(f"going on with campaign {name}")
        else:
            begin(ledger, champion, lab, org, dataset.sha256, org.budget.train_s or dataset.budget_s)
        campaign = ledger.campaign()
        if campaign.dataset != dataset.sha256:
            raise BadInput(f"campaign {name} was measured on another dataset; start a new one with --new")
        for line in [*sweep([engine], lab.state), *ledger.recover()]:
            view.say(line)
        site = Site(lab.root, server.url, name, org, engine.name, device, campaign.budget_s)
        mode = stack.enter_context(ray_session())
        view.say(f"org {org.name} on {device.name} · {engine.name} sandbox · Ray {mode} · Redis {server.version}")
        pipeline = Pipeline(view.say)
        for role, seat in org.roles.items():
            pipeline.add(role, site, seat.seats)
        pipeline.add("runner", site)
        pipeline.add("arbiter", site)
        stack.callback(pipeline.close)
        return Shift(ledger, org, pipeline, view, lock).work()


def begin(ledger: Ledger, champion: Champion, lab: Lab, org: OrgFile, dataset: str, budget_s: float) -> None:
    """Create the campaign: its branch first, found again if we die here, then its row. The arbiter asks for the baseline."""
    base = champion.start(lab.train_source)
    ledger.create(
        Campaign(
            name=ledger.name,
            org=org.name,
            org_id=org.identity(lab.root),
            base=base,
            dataset=dataset,
            budget_s=budget_s,
            seed=org.seed,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )


class Shift:
    """The launcher's loop: who may step, when to drain, when it is over."""

    def __init__(self, ledger: Ledger, org: OrgFile, pipeline: Pipeline, view: View, lock: Keeper):
        self.ledger = ledger
        self.lock = lock
        self.org = org
        self.pipeline = pipeline
        self.view = view
        self.signals = 0
        self.started = time.monotonic()
        self.last_event = ledger.last_event()

    def work(self) -> Outcome:
        name = self.ledger.name
        with self.signals_counted():
            while True:
                if self.lock.lost.is_set():
                    raise HostFault(f"another launcher took over campaign {name} while this one was asleep")
                draining = self.reason_to_drain()
                if self.signals >= 2:
                    return Outcome(name, "stopped at once", finished=False)
                if draining and self.drained():
                    finished = self.signals == 0
                    if finished:
                        self.ledger.set_stop(draining)
                    return Outcome(name, draining, finished)
                self.pipeline.advance(partial(self.may_step, draining=draining is not None))
                self.show(draining)
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
            return f"{spent.judged} experiments judged"
        if budget.device_minutes and spent.device_s >= budget.device_minutes * 60:
            return f"{budget.device_minutes:g} device minutes spent"
        if budget.wall_minutes and time.monotonic() - self.started >= budget.wall_minutes * 60:
            return f"{budget.wall_minutes:g} minutes have passed"
        return None

    def may_step(self, role: str, *, draining: bool) -> bool:
        """Whether a seat of this role may start another step."""
        if role == "arbiter":
            return True
        if draining:
            return False
        spent = self.ledger.spent()
        room = self.org.budget.experiments - spent.started
        if role == "runner":
            return room > self.pipeline.busy("runner")
        if role == "planner":
            return room > spent.open and self.ledger.champion_experiment() is not None
        return True

    def drained(self) -> bool:
        """No seat but the arbiter's is at work, and nothing waits for the arbiter."""
        if any(self.pipeline.busy(role) for role in ("planner", "coder", "reviewer", "runner")):
            return False
        counts = self.ledger.counts()
        return not counts.get(State.SCORED) and not counts.get(State.MERGING)

    def show(self, draining: str | None) -> None:
        for event in self.ledger.events(after=self.last_event):
            self.last_event = event.id
            self.view.event(event, self.ledger)
        self.view.update(self.ledger, self.org.budget.experiments, draining)

    def refuse_to_waste_the_night(self) -> None:
        """Stop when the start itself fails, or when the host fails every run."""
        experiments = self.ledger.experiments(states=[State.CRASHED, State.INVALID, State.QUEUED])
        for experiment in experiments:
            failures = [m.failure for m in experiment.measurements if m.failure is not None]
            if not failures:
                continue
            if experiment.lane == "baseline" and experiment.state.final:
                raise CandidateFailed(
                    f"train.py itself fails in the sandbox ({failures[-1].kind}: {failures[-1].message}); try: autoresearch-org run train.py"
                )
            if len(failures) >= MAX_HOST_FAILURES and all(f.kind.ours for f in failures):
                raise HostFault(
                    f"the host failed {len(failures)} runs of #{experiment.id}: {failures[-1].message}; `resume` goes on when that is mended"
                )
