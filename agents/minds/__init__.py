"""Minds: what answers a role's question. Each is a small sibling class; a role file picks one by name."""

from typing import Protocol

from agents.minds.sampler import Sampler
from agents.minds.task import CodeTask, PlanTask, ReviewTask
from agents.settings import PlannerSettings, Profile
from records import BadInput, Hypothesis, Review


class Mind(Protocol):
    """Answers typed requests. Returns text and records; runs nothing."""

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> object:
        """Raise BadInput if it could not plan for this train.py under this role file."""
        ...

    def propose(self, task: PlanTask) -> Hypothesis | None:
        """The next change to try, or None when it has no new idea."""
        ...

    def implement(self, task: CodeTask) -> str:
        """The champion's train.py with the hypothesis made real. Raises BadCandidate when it cannot be done."""
        ...

    def judge(self, task: ReviewTask) -> Review:
        """Whether the candidate deserves time on the device."""
        ...


def load_mind(name: str) -> Mind:
    """The mind that a role file names. Raises BadInput."""
    if name != "sampler":
        raise BadInput(f"no mind is called {name!r}; there is: sampler")
    return Sampler()
