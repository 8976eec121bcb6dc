"""When a run cannot come to anything any more, and how often that is a mistake.

Pure functions of what candidates report, and a report is no evidence. Whoever reports too low a loss is merely not stopped, and whoever
reports too high a one is stopped itself. A champion was a candidate once, and one that reported too low a loss must not have all
others stopped: so a loss has to be far above the start's too, whose train.py a person wrote.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, variance
from typing import NamedTuple

from ledger.quantiles import beta_quantile
from records import Experiment, Measurement, Progress, State

PATIENCE = 3
"""Reports in a row that all have to say so: one step's loss is noisy."""
LEAST_CURVES = 2
"""Of the champion's runs; with fewer nobody knows how far apart two runs of one source lie."""
LEAST_NATS = 0.2
"""That a loss must lie above the champion's, however close together its runs lie: docs/statistics.md, "Early stop"."""
LEAST_POINTS = 3
"""With a loss that is finite, of a curve that is to be compared with."""

Curve = Sequence[tuple[float, float]]
"""Seconds since `go` and loss in nats, in the order of time."""


class Band(NamedTuple):
    """What the runs of champion and start reported."""

    curves: Sequence[Curve]
    spread: float
    """Standard deviation of the champion's losses at the same elapsed time, in nats, pooled over the times that are judged."""

    @classmethod
    def of(cls, champion: Sequence[Measurement], start: Sequence[Measurement], from_s: float) -> "Band | None":
        """None while too few runs have a curve.

        Args:
            champion: its runs.
            start: runs of the train.py that the campaign began with.
            from_s: seconds since `go` at which judging begins.
        """
        curves, trusted = usable(champion), usable(start)
        if not trusted:
            return None
        times = [at for curve in curves for at, _ in curve if at >= from_s]
        squares = [variance(losses) for at in times if len(losses := losses_at(curves, at)) >= LEAST_CURVES]
        return cls([*curves, *trusted], math.sqrt(fmean(squares))) if squares else None

    def highest(self, at: float) -> float | None:
        """The highest of their losses at that time; None before they all had reported one."""
        losses = losses_at(self.curves, at)
        return max(losses) if len(losses) == len(self.curves) else None


def hopeless(
    band: Band | None, reports: Sequence[Progress], *, budget_s: float, after: float, margin: float
) -> str | None:
    """Why a run need not train to its end, in words; None while it may.

    Args:
        band: of champion and start; without one nothing is hopeless.
        reports: all that the candidate has reported, oldest first.
        budget_s: seconds of training.
        after: share of the budget before which nothing is hopeless.
        margin: spreads by which its loss has to lie above the highest of theirs.
    """
    last = reports[-PATIENCE:]
    if band is None or len(last) < PATIENCE or last[0].elapsed_s < after * budget_s:
        return None
    now = f"after {last[-1].elapsed_s:.0f} of {budget_s:g} s"
    if all(not math.isfinite(report.nats) for report in last):
        return f"the loss is not finite {now} ({PATIENCE} reports in a row)"
    least = max(margin * band.spread, LEAST_NATS)
    highest = [band.highest(report.elapsed_s) for report in last]
    # A loss that is not finite is above nothing here: the row must be all of one kind.
    if any(top is None or not report.nats > top + least for report, top in zip(last, highest, strict=True)):
        return None
    return (
        f"the loss is {last[-1].nats:.3f} {now}, where champion and start reported at most {highest[-1]:.3f}; "
        f"more than {least:.3f} above that is hopeless (spread {band.spread:.3f}, {PATIENCE} reports in a row)"
    )


def usable(runs: Iterable[Measurement]) -> list[Curve]:
    """The curves of those runs that have one, without points that have no number."""
    curves = [[(p.elapsed_s, p.loss) for p in run.curve if p.loss is not None] for run in runs]
    return [curve for curve in curves if len(curve) >= LEAST_POINTS]


def losses_at(curves: Sequence[Curve], at: float) -> list[float]:
    """The losses of those curves that had begun by then."""
    return [loss for curve in curves if (loss := interpolated(curve, at)) is not None]


def interpolated(curve: Curve, at: float) -> float | None:
    """The loss at that time, between two points on the line through them; after the last point its loss, before the first None."""
    for (before, high), (after, low) in pairwise(curve):
        if before <= at < after:
            return high + (low - high) * (at - before) / (after - before)
    return curve[-1][1] if at >= curve[-1][0] else None


# ---- how often that is a mistake -------------------------------------------------------------------------------------


class Misses(NamedTuple):
    finished: int
    """Runs that would have been stopped, were allowed to finish, and have been judged."""
    missed: int
    """Of them, those that would have been missed."""
    bound: float
    """Of the share that is missed: at most so much, with 95 % confidence (Clopper and Pearson, 1934; one-sided)."""


def miss_rate(experiments: Sequence[Experiment]) -> Misses:
    """How often the rule is wrong, by the runs that it was not allowed to stop.

    A flagged run would have been missed if it scored below the mean of the champion that it was judged by, or if it was run a second
    time or merged.
    """
    finished = missed = 0
    for experiment in experiments:
        scored = [m for m in experiment.measurements if m.val_bpb is not None]
        flagged = [m for m in scored if m.flagged is not None]
        verdict = experiment.verdict
        if not flagged or verdict is None or verdict.champion_bpb is None:
            continue
        went_on = len(scored) > 1 or experiment.state in (State.CONFIRMING, State.MERGING, State.MERGED)
        below = any(m.val_bpb is not None and m.val_bpb < verdict.champion_bpb for m in flagged)
        finished += 1
        missed += went_on or below
    bound = 1.0 if missed == finished else beta_quantile(missed + 1, finished - missed, 0.95)
    return Misses(finished, missed, bound)
