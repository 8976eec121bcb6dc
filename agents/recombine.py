"""Programs that follow from earlier experiments, without a mind: the champion with several changes, or without one of them."""

from collections.abc import Sequence
from typing import NamedTuple

from agents.settings import Profile
from agents.syntax import BadCandidate
from agents.three_way import carry
from ledger.champion import Champion
from records import Experiment, Hypothesis, MissingComponent

LANES = ("combine", "upkeep")
"""Whose hypotheses name experiments in `of`, and whose programs are made here."""


class Change(NamedTuple):
    """What an experiment did to the program that it was made from."""

    id: int
    before: str
    after: str
    knobs: Sequence[str]
    """Constants that it is about, if it is about nothing else."""


def change_of(experiment: Experiment, champion: Champion) -> Change:
    """The change of an experiment. Raises BadCandidate if it has no program, or git no longer has its parent's."""
    if experiment.candidate is None:
        raise BadCandidate(f"#{experiment.id} never became a program")
    try:
        before = champion.source(experiment.candidate.parent)
    except MissingComponent:
        parent = experiment.candidate.parent[:10]
        raise BadCandidate(f"#{experiment.id} was made from commit {parent}, which git has no longer") from None
    return Change(experiment.id, before, experiment.candidate.source, list(experiment.hypothesis.knobs))


def recombine(
    lane: str, hypothesis: Hypothesis, rows: Sequence[Experiment], champion: Champion, source: str, profile: Profile
) -> str:
    """The program of a hypothesis of lane `combine` or `upkeep`.

    Args:
        lane: which of them.
        hypothesis: names the experiments.
        rows: those experiments, as far as they exist, in any order.
        champion: the branch, for the programs they were made from.
        source: the champion's train.py.
        profile: what PROFILE[...] holds.

    Raises:
        BadCandidate: it names none, an unknown one, or changes that conflict; says which.
    """
    known = {row.id: row for row in rows}
    if not hypothesis.of or any(id not in known for id in hypothesis.of):
        raise BadCandidate(f"lane {lane} takes ids of experiments in `of`, not {hypothesis.of}")
    for id in hypothesis.of:
        change = change_of(known[id], champion)
        source = apply(change, source, profile) if lane == "combine" else take_out(change, source, profile)
    return source


def apply(change: Change, source: str, profile: Profile) -> str:
    """A program with a change made. Raises BadCandidate where what it changes is no longer there, or is changed already."""
    made = carry(change.before, source, change.after, change.knobs, profile)
    if made is None:
        raise BadCandidate(f"what #{change.id} changes was changed since, or is changed by another one")
    return made


def take_out(change: Change, source: str, profile: Profile) -> str:
    """A program with a change taken back. Raises BadCandidate where later ones build on it."""
    without = carry(change.after, source, change.before, change.knobs, profile)
    if without is None:
        raise BadCandidate(f"what #{change.id} changed was changed again since")
    return without
