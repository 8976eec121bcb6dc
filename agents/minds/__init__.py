"""Minds: what answers a role's question. Each is a small sibling class; a role file picks one by name."""

from pathlib import Path
from typing import Protocol

from agents.minds.sampler import Sampler
from agents.minds.script import Script
from agents.minds.task import CodeTask, PlanTask, ReviewTask
from agents.settings import PlannerSettings, Profile, Settings
from records import Hypothesis, Review


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


def load_mind(settings: Settings, lab: Path) -> Mind:
    """The mind that a role file asks for.

    Args:
        settings: front matter of the role file.
        lab: folder that a script's path is relative to.

    Raises:
        BadInput: its script is missing or broken; names file and line.
    """
    match settings.mind:
        case "script":
            return Script.load(lab / (settings.script or ""))
        case "sampler":
            return Sampler()
