"""When is better better? Pure functions from measurements to a verdict."""

from statistics import fmean
from typing import Protocol

from records import Measurement, Verdict


class Rule(Protocol):
    """Judges a candidate against every scored measurement of the champion."""

    def __call__(self, champion: list[Measurement], candidate: Measurement) -> Verdict: ...


def keep_if_lower(champion: list[Measurement], candidate: Measurement) -> Verdict:
    """Merge whatever scored lower than the champion's mean: the original's rule, blind to noise."""
    scores = [m.val_bpb for m in champion if m.val_bpb is not None]
    to_beat, score = fmean(scores) if scores else None, candidate.val_bpb
    merge = to_beat is not None and score is not None and score < to_beat
    return Verdict(
        merge=merge,
        rule="keep-if-lower",
        champion_bpb=to_beat,
        candidate_bpb=score,
        reason=explain(to_beat, score),
    )


def may_merge(rule: Rule, champion: list[Measurement], bpb: float) -> bool:
    """Whether a run that scores so would merge: asked while it can still be audited as a merge requires."""
    return bool(champion) and rule(champion, champion[-1].model_copy(update={"val_bpb": bpb})).merge


def explain(to_beat: float | None, score: float | None) -> str:
    """One sentence for people."""
    if score is None:
        return "the candidate has no score"
    if to_beat is None:
        return "the champion has no score to compare with"
    word = "lower than" if score < to_beat else "not lower than"
    return f"{score:.6f} bpb is {word} the champion's {to_beat:.6f} ({score - to_beat:+.6f})"


RULES: dict[str, Rule] = {"keep-if-lower": keep_if_lower}
"""By the name that an org file gives them."""
