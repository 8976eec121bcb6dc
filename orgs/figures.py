"""What may be claimed of a program that won: the mean of fresh runs. Those that made it win were lower than others by choice."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from ledger.standing import selecting_runs
from ledger.verdict import comparable
from records import Experiment, Measurement, State


class Figure(NamedTuple):
    bpb: float
    """Mean."""
    runs: int
    fresh: bool
    """False for one that is claimed by the runs that selected it, for want of others."""


def figure_of(
    row: Experiment, repeats: Sequence[Experiment], good: Callable[[Measurement], bool] = lambda _: True
) -> Figure | None:
    """What is claimed of a champion of before or now; None without a score.

    Args:
        row: the experiment that made it champion.
        repeats: its repeats, in any state.
        good: whether a measurement counts.
    """
    runs = [m for one in (row, *repeats) for m in one.runs if good(m)]
    runs = [m for m in runs if comparable(m, runs[-1])]
    selected = selecting_runs(row)
    fresh = [m for m in runs if m.run_id not in selected]
    scores = [m.val_bpb for m in fresh or runs if m.val_bpb is not None]
    return Figure(fmean(scores), len(scores), bool(fresh)) if scores else None


def score_of(experiment: Experiment) -> float | None:
    """What an experiment scored: by its verdict the mean of the runs that were compared, before that its newest run."""
    if experiment.verdict is not None and experiment.verdict.candidate_bpb is not None:
        return experiment.verdict.candidate_bpb
    return None if experiment.score is None else experiment.score.val_bpb


def figures_of(experiments: Iterable[Experiment], repeats: Iterable[Experiment]) -> dict[int, Figure]:
    """By id, what is claimed of each of these that is, or was, champion."""
    of: dict[int, list[Experiment]] = {}
    for repeat in repeats:
        if repeat.repeats is not None:
            of.setdefault(repeat.repeats, []).append(repeat)
    champions = [row for row in experiments if row.state == State.MERGED]
    found = {row.id: figure_of(row, of.get(row.id, [])) for row in champions}
    return {id: figure for id, figure in found.items() if figure is not None}
