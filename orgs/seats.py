"""The seats of an org: every worker is a Ray actor that does one step at a time and keeps no state that matters.

An actor opens its own connections from a `Site`, so it can be killed and restarted anywhere between two steps; what it
was doing is in the ledger.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import failpoint
from agents.coder import Coder
from agents.minds.desk import Desk
from agents.minds.pause import Unavailable
from agents.planner import Planner
from agents.reviewer import Reviewer
from agents.settings import COMMAND, LANGUAGE
from agents.upkeep import Upkeep
from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import hold
from ledger.purse import Purse
from ledger.relay import Relay, relay_lease
from ledger.server import join
from ledger.standing import Court
from orgs.errands import Errands
from orgs.lab import Lab
from orgs.orgfile import OrgFile, RoleName, SandboxSettings, to_micro
from orgs.preflight import Preflight
from orgs.runner import Runner, lift_quarantines
from sandbox.dataset import Dataset
from sandbox.device import Device
from sandbox.receipt import Key
from sandbox.sweep import sweep

LEASE_TTL_S = 15.0
"""A runner that dies blocks its device for at most this long."""


AGENT = ("agent", "reader")
USERS = {
    "planner": AGENT,
    "coder": AGENT,
    "reviewer": AGENT,
    "upkeep": AGENT,
    "runner": ("runner", "lease", "reader"),
    "arbiter": ("arbiter", "lease", "reader"),
}
"""As whom each role comes to the ledger (ledger/users.py)."""


class Worker(Protocol):
    def step(self) -> bool:
        """Do one unit of work; False when there was none."""
        ...


@dataclass(frozen=True)
class Site:
    """What an actor needs to open everything else. Picklable; holds no connection."""

    root: Path
    logins: Mapping[str, str]
    """URL of the ledger's Redis by user: of an actor's Site, those of its role."""
    campaign: str
    org: OrgFile
    engine: str
    device: Device
    budget_s: float
    ledger_weakness: str | None = None
    """How the Redis could lose what it acknowledges, if that was allowed."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """API keys by environment variable: of an actor's Site that asks a language model, and of no other's."""
    seat: str = ""
    """Name of the actor's seat, such as `coder-0`: no other living process has it."""

    def of(self, role: str) -> "Site":
        """As an actor of this role gets it."""
        keys = self.keys if role in ("planner", "coder", "reviewer") else {}
        return replace(self, logins={user: self.logins[user] for user in USERS[role]}, keys=keys)

    @property
    def lab(self) -> Lab:
        return Lab(self.root)

    def ledger(self, user: str) -> Ledger:
        return Ledger(join(self.logins[user]), self.campaign, join(self.logins["reader"]))

    def champion(self) -> Champion:
        return Champion(self.root, self.campaign)

    def desk(self, role: RoleName) -> Desk:
        """What a mind works with. Money that a dead predecessor in this seat had set aside is booked as spent first."""
        purse = Purse(self.ledger("agent"), self.org.money.limits(), self.seat)
        purse.settle()
        return Desk(
            role=role,
            lab=self.root,
            purse=purse,
            prices=self.org.prices(self.root),
            call_microdollars=to_micro(self.org.money.call_usd),
            transcripts=self.lab.transcripts(self.campaign),
            keys=self.keys,
            send=Errands.open(self.lab, self.sandbox) if self.mind(role) in COMMAND else None,
        )

    def preflight(self) -> Preflight | None:
        """Of a coder that asks a model."""
        if self.mind("coder") not in LANGUAGE:
            return None
        dataset = Dataset.open(self.lab.dataset(self.org.data), verify=False)
        return Preflight.open(self.lab, dataset, self.sandbox)

    def mind(self, role: RoleName) -> str:
        """Which mind a role has now. Raises BadInput."""
        return self.org.roles.settings(self.root)[role].mind

    @property
    def sandbox(self) -> SandboxSettings:
        """With what `auto` came to at launch."""
        return self.org.sandbox.model_copy(update={"engine": self.engine})


def profile_of(site: Site) -> Mapping[str, int | float | str]:
    """The sizes that the dataset suggests. The runner verifies the files; here the manifest is enough."""
    return Dataset.open(site.lab.dataset(site.org.data), verify=False).profile


def build_planner(site: Site, stack: ExitStack) -> Worker:
    return Planner(
        site.ledger("agent"),
        site.champion(),
        site.root,
        profile=profile_of(site),
        max_open=site.org.budget.queue_depth,
        desk=site.desk("planner"),
        role=site.org.roles.planner.role_file(site.root),
        program=site.root / site.org.program,
    )


def build_coder(site: Site, stack: ExitStack) -> Worker:
    """Gives back first what a dead predecessor in this seat was writing."""
    ledger = site.ledger("agent")
    ledger.take_back(site.seat)
    return Coder(
        ledger,
        site.champion(),
        site.root,
        desk=site.desk("coder"),
        profile=profile_of(site),
        preflight=site.preflight(),
        role=site.org.roles.coder.role_file(site.root),
        worker=site.seat,
    )


def build_reviewer(site: Site, stack: ExitStack) -> Worker:
    return Reviewer(
        site.ledger("agent"),
        site.champion(),
        site.root,
        desk=site.desk("reviewer"),
        profile=profile_of(site),
        role=site.org.roles.reviewer.role_file(site.root),
    )


def build_upkeep(site: Site, stack: ExitStack) -> Worker:
    return Upkeep(site.ledger("agent"), site.champion(), profile=profile_of(site), **site.org.upkeep.model_dump())


@dataclass(frozen=True)
class Arbitration:
    """The arbiter's seat: what was decided is landed before anything else is judged."""

    relay: Relay
    arbiter: Arbiter

    def step(self) -> bool:
        return self.relay.step() or self.arbiter.step()


def build_arbiter(site: Site, stack: ExitStack) -> Worker:
    """Waits for the relay's lease: a predecessor that was paused may still wake up."""
    key, ledger, champion = Key.of(site.lab.state), site.ledger("arbiter"), site.champion()
    keeper = stack.enter_context(hold(join(site.logins["lease"]), relay_lease(site.campaign), LEASE_TTL_S))
    failpoint.reach("relay.leased")
    arbiter = Arbiter(ledger, champion, key.complaint, key.seal)
    return Arbitration(Relay(ledger, champion, keeper, key.seal), arbiter)


def build_runner(site: Site, stack: ExitStack) -> Worker:
    """Waits for the device's lease, then clears what a dead predecessor left: its container and its half-done run."""
    ledger, leases = site.ledger("runner"), join(site.logins["lease"])
    lift_quarantines(leases)
    dataset = Dataset.open(site.lab.dataset(site.org.data))
    keeper = stack.enter_context(hold(leases, site.device.id, LEASE_TTL_S))
    failpoint.reach("runner.leased")
    # Under the lease, so that the self-check disturbs nobody's run.
    engine = site.sandbox.ready_engine(site.device, site.lab.state)
    sweep([engine], site.lab.state)
    failpoint.reach("runner.swept")
    ledger.requeue_orphans()
    failpoint.reach("runner.requeued")
    return Runner(
        ledger,
        site.champion(),
        keeper,
        engine,
        site.device,
        dataset,
        site.org.sandbox.limits(),
        site.org.audit.rigour(),
        Court(ledger, Key.of(site.lab.state).complaint),
        site.org.budget.experiments,
        site.budget_s,
        site.lab.state,
        site.ledger_weakness,
        site.org.early_stop,
    )


BUILDERS: dict[str, Callable[[Site, ExitStack], Worker]] = {
    "planner": build_planner,
    "coder": build_coder,
    "reviewer": build_reviewer,
    "upkeep": build_upkeep,
    "runner": build_runner,
    "arbiter": build_arbiter,
}


class Seat:
    """One actor of the org, whatever its role. Ray restarts it when it dies.

    A step that fails drops everything that the seat had opened: the next one starts afresh, as after a kill.
    """

    def __init__(self, role: str, site: Site):
        self.role = role
        self.site = site
        self.stack = ExitStack()
        self.worker: Worker | None = None
        self.paused = False

    def step(self) -> bool:
        try:
            self.worker = self.worker or BUILDERS[self.role](self.site, self.stack)
            worked = self.worker.step()
        except Unavailable as error:
            self.note_pause(str(error))
            raise
        except BaseException:
            self.close()
            raise
        if worked:
            self.note_pause(None)
        return worked

    def note_pause(self, why: str | None) -> None:
        """Put the begin and the end of a pause into the history, once each."""
        if self.paused != (why is not None):
            self.paused = why is not None
            kind, detail = ("paused", f": {why}") if why is not None else ("goes on", "")
            self.site.ledger("agent").note(kind, f"{self.site.seat}{detail}")

    def close(self) -> None:
        """Give back what the seat holds: the runner's lease."""
        self.worker = None
        self.stack.close()

    def __repr__(self) -> str:
        return self.role
