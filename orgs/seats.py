"""The seats of an org: every worker is a Ray actor that does one step at a time and keeps no state that matters.

An actor opens its own connections from a `Site`, so it can be killed and restarted anywhere between two steps; what it
was doing is in the ledger.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from agents.coder import Coder
from agents.planner import Planner
from agents.reviewer import Reviewer
from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import hold
from ledger.server import join
from ledger.verdict import RULES
from orgs.lab import Lab
from orgs.orgfile import OrgFile
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
    "runner": ("runner", "lease", "reader"),
    "arbiter": ("arbiter", "reader"),
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

    def of(self, role: str) -> "Site":
        """As an actor of this role gets it."""
        return replace(self, logins={user: self.logins[user] for user in USERS[role]})

    @property
    def lab(self) -> Lab:
        return Lab(self.root)

    def ledger(self, user: str) -> Ledger:
        return Ledger(join(self.logins[user]), self.campaign, join(self.logins["reader"]))

    def champion(self) -> Champion:
        return Champion(self.root, self.campaign)


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
        role=site.root / site.org.roles.planner.file,
        program=site.root / site.org.program,
    )


def build_coder(site: Site, stack: ExitStack) -> Worker:
    role = site.root / site.org.roles.coder.file
    return Coder(site.ledger("agent"), site.champion(), site.root, profile=profile_of(site), role=role)


def build_reviewer(site: Site, stack: ExitStack) -> Worker:
    role = site.root / site.org.roles.reviewer.file
    return Reviewer(site.ledger("agent"), site.champion(), site.root, profile=profile_of(site), role=role)


def build_arbiter(site: Site, stack: ExitStack) -> Worker:
    key = Key.of(site.lab.state)
    return Arbiter(site.ledger("arbiter"), site.champion(), RULES[site.org.merge.rule], key.complaint)


def build_runner(site: Site, stack: ExitStack) -> Worker:
    """Waits for the device's lease, then clears what a dead predecessor left: its container and its half-done run."""
    ledger, leases = site.ledger("runner"), join(site.logins["lease"])
    lift_quarantines(leases)
    dataset = Dataset.open(site.lab.dataset(site.org.data))
    keeper = stack.enter_context(hold(leases, site.device.id, LEASE_TTL_S))
    # Under the lease, so that the self-check disturbs nobody's run.
    settings = site.org.sandbox.model_copy(update={"engine": site.engine})  # what `auto` came to at launch
    engine = settings.ready_engine(site.device, site.lab.state)
    sweep([engine], site.lab.state)
    ledger.requeue_orphans()
    return Runner(
        ledger,
        site.champion(),
        keeper,
        engine,
        site.device,
        dataset,
        site.org.sandbox.limits(),
        site.org.audit.rigour(),
        RULES[site.org.merge.rule],
        site.budget_s,
        site.lab.state,
        site.ledger_weakness,
    )


BUILDERS: dict[str, Callable[[Site, ExitStack], Worker]] = {
    "planner": build_planner,
    "coder": build_coder,
    "reviewer": build_reviewer,
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

    def step(self) -> bool:
        try:
            self.worker = self.worker or BUILDERS[self.role](self.site, self.stack)
            return self.worker.step()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back what the seat holds: the runner's lease."""
        self.worker = None
        self.stack.close()

    def __repr__(self) -> str:
        return self.role
