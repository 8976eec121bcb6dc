"""A lab on which the agents work: a real Redis server, a real git repository, and a baseline at 2.0 bpb."""

from pathlib import Path
from typing import NamedTuple

from agents.coder import Coder
from agents.planner import Planner
from agents.reviewer import Reviewer
from ledger import Ledger
from ledger.champion import Champion
from records import Experiment, Hypothesis
from tests.agents.sources import PROFILE


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
