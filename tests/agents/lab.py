"""A lab on which the agents work: a real Redis server, a real git repository, and a baseline at 2.0 bpb."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import redis

from agents.coder import Coder
from agents.contract import make_candidate
from agents.planner import Planner
from agents.reviewer import Reviewer
from agents.upkeep import Upkeep
from ledger import Ledger
from ledger.champion import Champion
from ledger.lease import acquire
from records import Campaign, Experiment, Hypothesis
from tests.agents.sources import CAMPAIGN, PROFILE, TRAIN, measurement
from tests.components import require

ROOT = Path(__file__).parents[2]


class Lab(NamedTuple):
    root: Path
    ledger: Ledger
    champion: Champion

    @property
    def planner(self) -> Planner:
        return Planner(self.ledger, self.champion, self.root, profile=PROFILE, max_open=2)

    @property
    def coder(self) -> Coder:
        return Coder(self.ledger, self.champion, self.root, profile=PROFILE)

    @property
    def reviewer(self) -> Reviewer:
        return Reviewer(self.ledger, self.champion, self.root, profile=PROFILE)

    def upkeep(self, *, combine: bool = True, leave_one_out: bool = True) -> Upkeep:
        return Upkeep(self.ledger, self.champion, profile=PROFILE, combine=combine, leave_one_out=leave_one_out)

    def propose(self, **knobs: float) -> Experiment:
        idea = Hypothesis(title="by hand", change="c", knobs=dict(knobs))
        number = self.ledger.propose(idea, author="planner/test", roles={})
        assert number is not None
        return self.ledger.experiment(number)

    def land(self, source: str) -> str:
        """Put a commit on the branch, as if it had merged."""
        head = self.champion.head()
        commit = self.champion.prepare(head, source, "by hand\n")
        assert self.champion.land(head, commit)
        return commit


def make_lab(root: Path, server: redis.Redis, source: str = TRAIN, **campaign: object) -> Lab:
    """A lab whose baseline is measured at 2.0 bpb.

    Args:
        root: an empty folder; the campaign is named after it.
        server: a ledger's Redis.
        source: its train.py.
        campaign: of its record, in place of CAMPAIGN's.
    """
    require(shutil.which("git") is not None, "git is missing: apt-get install git")
    shutil.copytree(ROOT / "roles", root / "roles")
    shutil.copy(ROOT / "program.md", root / "program.md")
    (root / "train.py").write_text(source)
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "start")):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    champion = Champion(root, root.name)
    ledger = Ledger(server, root.name)
    base = champion.start(source)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    ledger.create(
        Campaign.model_validate({**dict(CAMPAIGN), "name": root.name, "base": base, "created_at": now, **campaign})
    )
    baseline = make_candidate(base, source, source)
    number = ledger.propose_baseline(baseline)
    lease = acquire(ledger.client, f"cpu/{root.name}", "test", 60.0)
    assert ledger.take(lease, base) is not None
    ledger.record(number, lease, measurement(baseline.source_sha256))
    ledger.crown(number, base)
    return Lab(root, ledger, champion)
