"""Was it tried before? What a planner is told of an idea that need not be tried again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from agents.digest import Digest, judgement
from agents.fence import one_line
from agents.knobs import KnobError, resolve, set_knobs
from agents.settings import PlannerSettings, Profile
from agents.syntax import BadCandidate, meaning_sha256
from records import Experiment, Hypothesis

ALIKE = 0.9
"""Similarity of two texts from which on they say the same (difflib: twice the matching characters, over all of both)."""
QUOTAS_FROM = 4
"""Proposals before which no category has had too large a share."""


def objections(
    hypotheses: Sequence[Hypothesis],
    experiments: Sequence[Experiment],
    digest: Digest,
    settings: PlannerSettings,
    profile: Profile,
) -> list[str | None]:
    """For each idea of one answer why it cannot be proposed now, as `objection`, or since the answer has it twice."""
    return [
        objection(hypothesis, experiments, digest, settings, profile) or twin(hypothesis, hypotheses[:i])
        for i, hypothesis in enumerate(hypotheses)
    ]


def twin(hypothesis: Hypothesis, others: Sequence[Hypothesis]) -> str | None:
    """Which of these says the same."""
    for other in others:
        if alike(hypothesis, other) or (hypothesis.knobs and hypothesis.knobs == other.knobs):
            return f"it says the same as {one_line(other.title, 120)}, of this very answer: propose it once"
    return None


def objection(
    hypothesis: Hypothesis,
    experiments: Sequence[Experiment],
    digest: Digest,
    settings: PlannerSettings,
    profile: Profile,
) -> str | None:
    """Why an idea cannot be proposed now, in a sentence for its planner; None if it can.

    Args:
        hypothesis: the idea.
        experiments: the whole campaign.
        digest: what the planner was shown.
        settings: of the planner's role.
        profile: what PROFILE[...] holds.
    """
    ideas = [e for e in experiments if e.is_idea]
    return (
        unsettable(hypothesis, digest.champion.source, profile)
        or same_program(hypothesis, experiments, digest.champion.source, profile)
        or same_words(hypothesis, ideas)
        or over_quota(hypothesis, ideas, settings.quotas)
        or on_plateau(hypothesis, digest)
    )


def unsettable(hypothesis: Hypothesis, source: str, profile: Profile) -> str | None:
    """Of a change of constants, that it cannot be made."""
    try:
        present = resolve(source, profile)
        set_knobs(source, hypothesis.knobs, profile)
    except KnobError as error:
        return f"{error}; leave knobs out for a change that is more than constants"
    except BadCandidate as error:
        return str(error)
    if hypothesis.knobs and all(present[name] == value for name, value in hypothesis.knobs.items()):
        return "the champion has these values already"
    return None


def same_program(
    hypothesis: Hypothesis, experiments: Sequence[Experiment], source: str, profile: Profile
) -> str | None:
    """Of a change of constants, which experiment had the program that it leads to."""
    if not hypothesis.knobs:
        return None
    meaning = meaning_sha256(set_knobs(source, hypothesis.knobs, profile))
    for e in experiments:
        waiting = e.candidate is None and not e.state.final and e.hypothesis.knobs == hypothesis.knobs
        if waiting or (e.candidate is not None and e.candidate.meaning_sha256 == meaning):
            return f"it is the program of {told(e)}"
    return None


def same_words(hypothesis: Hypothesis, ideas: Sequence[Experiment]) -> str | None:
    """Which idea reads the same, unless its author says what is different now."""
    for e in ideas:
        if alike(hypothesis, e.hypothesis) and not (e.state.final and f"#{e.id}" in hypothesis.not_duplicate):
            return (
                f"it reads like {told(e)}; propose something else, or say in not_duplicate how it differs from #{e.id}"
            )
    return None


def alike(one: Hypothesis, other: Hypothesis) -> bool:
    """Whether they read the same. Other values of the same constants read alike, and are not."""
    if one.knobs != other.knobs and (one.knobs or other.knobs):
        return False
    matcher = SequenceMatcher(None, wording(one), wording(other), autojunk=False)
    return matcher.real_quick_ratio() >= ALIKE and matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE


def wording(hypothesis: Hypothesis) -> str:
    return " ".join(f"{hypothesis.title} {hypothesis.change}".lower().split())[:1000]


def told(experiment: Experiment) -> str:
    """An experiment with its result, in a few words."""
    judged = judgement(experiment)
    delta = "" if judged is None else f", {judged.delta_bpb:+.6f}"
    return f"#{experiment.id} ({one_line(experiment.hypothesis.title, 120)}: {experiment.state}{delta})"


def over_quota(hypothesis: Hypothesis, ideas: Sequence[Experiment], quotas: Mapping[str, float]) -> str | None:
    """That its category has had its share of all proposals."""
    share = quotas.get(hypothesis.category)
    counts = Counter(e.hypothesis.category for e in ideas)
    if share is None or len(ideas) < QUOTAS_FROM or counts[hypothesis.category] + 1 <= share * (len(ideas) + 1):
        return None
    had = f"{counts[hypothesis.category]} of {len(ideas)} proposals"
    return f"category {hypothesis.category} has had its share ({had}, at most {share:.0%}): take another one"


def on_plateau(hypothesis: Hypothesis, digest: Digest) -> str | None:
    """That nothing has merged for long, and its category was tried all the while."""
    if hypothesis.category not in digest.stale_categories:
        return None
    stale = ", ".join(digest.stale_categories)
    return f"{digest.misses} misses in a row: take a category that was not tried meanwhile (tried were: {stale})"
