"""What a mind is asked: the rendered prompt for those who read, and the same facts in structured form for those who compute."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agents.digest import Digest
from agents.prompt import Prompt
from agents.settings import CoderSettings, PlannerSettings, Profile, Settings
from records import Candidate, Experiment, Hypothesis, Preflighted


class PlanTask(NamedTuple):
    """Propose changes."""

    prompt: Prompt
    digest: Digest
    experiments: list[Experiment]
    """The whole campaign, oldest first."""
    settings: PlannerSettings
    profile: Profile
    seed: int
    """The campaign's seed; a mind that draws random numbers derives them from it."""
    objections: Callable[[Sequence[Hypothesis]], list[str | None]]
    """For each of some hypotheses why it cannot be proposed (it was tried, or its category has had its share), if so."""


class CodeTask(NamedTuple):
    """Edit train.py."""

    prompt: Prompt
    hypothesis: Hypothesis
    source: str
    """The champion's train.py."""
    start: str
    """The train.py that the campaign began with."""
    profile: Profile
    settings: CoderSettings
    complaint: Callable[[str], str | None]
    """What static checks have against a program (contract, lint, no change at all), if anything. Nothing of it is run."""
    preflight: Callable[[str], Preflighted] | None
    """Runs two tiny steps of a program in the sandbox, and says how that went. None where no sandbox can be had."""


class ReviewTask(NamedTuple):
    """Accept or refuse an edit."""

    prompt: Prompt
    hypothesis: Hypothesis
    candidate: Candidate
    parent_source: str
    profile: Profile
    settings: Settings


class LessonTask(NamedTuple):
    """Say what a result teaches."""

    prompt: Prompt
    experiment: Experiment
    settings: Settings
