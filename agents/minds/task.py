"""What a mind is asked: the rendered prompt for those who read, and the same facts in structured form for those who compute."""

from typing import NamedTuple

from agents.digest import Digest
from agents.settings import PlannerSettings, Profile
from records import Candidate, Experiment, Hypothesis


class PlanTask(NamedTuple):
    """Propose one change."""

    prompt: str
    digest: Digest
    experiments: list[Experiment]
    """The whole campaign, oldest first."""
    settings: PlannerSettings
    profile: Profile
    seed: int
    """The campaign's seed; a mind that draws random numbers derives them from it."""


class CodeTask(NamedTuple):
    """Edit train.py."""

    prompt: str
    hypothesis: Hypothesis
    source: str
    """The champion's train.py."""
    start: str
    """The train.py that the campaign began with."""
    profile: Profile


class ReviewTask(NamedTuple):
    """Accept or refuse an edit."""

    prompt: str
    hypothesis: Hypothesis
    candidate: Candidate
    parent_source: str
    profile: Profile
