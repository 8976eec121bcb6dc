"""Minds: what answers a role's question. Each is a small sibling class; a role file picks one by name."""

from collections.abc import Sequence
from typing import Protocol

from agents.minds.command import Command
from agents.minds.desk import Desk
from agents.minds.script import Script
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.settings import PlannerSettings, Profile, Settings
from records import Hypothesis, Lesson, Review


class Mind(Protocol):
    """Answers typed requests. Returns text and records; runs nothing."""

    def ready(self, settings: Settings) -> None:
        """Raise BadInput if it could not answer under this role file: no key, say."""
        ...

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> object:
        """Raise BadInput if it could not plan for this train.py under this role file."""
        ...

    def propose(self, task: PlanTask) -> Sequence[Hypothesis]:
        """What to try next, none where it has no new idea."""
        ...

    def implement(self, task: CodeTask) -> str:
        """The champion's train.py with the hypothesis made real. Raises BadCandidate when it cannot be done."""
        ...

    def judge(self, task: ReviewTask) -> Review:
        """Whether the candidate deserves time on the device."""
        ...

    def learn(self, task: LessonTask) -> Lesson | None:
        """What a result teaches, or None of a mind that has no words."""
        ...


def load_mind(settings: Settings, desk: Desk) -> Mind:
    """The mind that a role file asks for, at its desk.

    Raises:
        BadInput: its script is missing or broken; names file and line.
    """
    match settings.mind:
        case "anthropic" | "hybrid":
            from agents.minds.anthropic import Anthropic  # the SDK takes half a second, and no other mind needs it

            return Anthropic(desk)
        case "command":
            return Command(desk)
        case "script":
            return Script.load(desk.lab / (settings.script or ""))
        case "sampler":
            from agents.minds.sampler import Sampler  # imports Optuna, for a third of a second

            return Sampler()
