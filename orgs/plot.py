"""The original's progress plot. A file of its own: matplotlib takes half a second to import, and no other command needs it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from orgs.figures import figures_of, score_of
from records import Experiment, State

KEPT, DISCARDED = "#2ca02c", "#b8b8b8"


class Point(NamedTuple):
    x: int
    bpb: float
    experiment: Experiment


def plot(experiments: Sequence[Experiment], path: Path, title: str) -> None:
    """Write the progress plot: scored experiments in the order in which they ended, merged ones named, the champion as a staircase.

    Each idea is one point, however often it was run. One that won lies where its fresh runs say, if it has any; these are
    drawn above one another, as small marks. Scores far above the champion's start would flatten everything else: they are drawn as
    arrows at the upper edge.

    Args:
        experiments: rows of one campaign; at least one has a score.
        path: PNG to write.
        title: heading.
    """
    ideas, repeats = points_of(experiments)
    points = [*ideas, *repeats]
    kept = [point for point in ideas if point.experiment.state == State.MERGED]
    bottom, top = vertical_range([point.bpb for point in points], [point.bpb for point in kept])
    others = [point for point in ideas if point not in kept]
    shown, beyond = [p for p in others if p.bpb <= top], [p for p in others if p.bpb > top]
    end = len(ideas) - 0.5

    figure, axes = plt.subplots(figsize=(12, 6), dpi=120)
    axes.scatter([p.x for p in shown], [p.bpb for p in shown], s=28, color=DISCARDED, label="not merged", zorder=2)
    if beyond:
        edge = [top - 0.01 * (top - bottom)] * len(beyond)
        axes.scatter([p.x for p in beyond], edge, s=36, marker="^", color=DISCARDED, label="off the scale", zorder=2)
    if repeats:
        xs, ys = [p.x for p in repeats], [min(p.bpb, top) for p in repeats]
        axes.scatter(xs, ys, s=10, marker="_", color=KEPT, label="champion again", zorder=3)
    if kept:
        xs, ys = [p.x for p in kept], [p.bpb for p in kept]
        axes.scatter(xs, ys, s=60, color=KEPT, edgecolor="black", linewidth=0.6, label="merged", zorder=4)
        axes.step([*xs, end], [*ys, ys[-1]], where="post", color=KEPT, alpha=0.7, label="champion", zorder=3)
    for point in kept:
        name = f"#{point.experiment.id} {point.experiment.hypothesis.title}"
        left = point.x > 0.7 * end  # no room to the right of it
        axes.annotate(
            name if len(name) <= 45 else name[:44] + "…",
            (point.x, point.bpb),
            xytext=(-6, 6) if left else (6, 6),
            textcoords="offset points",
            ha="right" if left else "left",
            rotation=-25 if left else 25,
            rotation_mode="anchor",
            fontsize=8,
            color="#1a661a",
            parse_math=False,
        )
    axes.set_xlim(-0.5, end)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("scored experiment, in the order in which they ended")
    axes.set_ylabel("val_bpb (lower is better)")
    axes.set_title(title, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def points_of(experiments: Sequence[Experiment]) -> tuple[list[Point], list[Point]]:
    """Ideas and baselines in the order in which they ended; and repeats, each beside the champion whose they are."""
    again = [e for e in experiments if e.repeats is not None]
    figures = figures_of(experiments, again)
    ended = sorted((e for e in experiments if e.repeats is None), key=lambda e: e.updated_at)
    scored = {e.id: bpb for e in ended if (bpb := score_of(e)) is not None}
    scores = scored | {id: figure.bpb for id, figure in figures.items()}
    ideas = [Point(i, scores[e.id], e) for i, e in enumerate(e for e in ended if e.id in scores)]
    places = {point.experiment.id: point.x for point in ideas}
    runs = [(e, m.val_bpb) for e in again for m in e.runs]
    repeats = [Point(places[e.repeats], bpb, e) for e, bpb in runs if bpb is not None and e.repeats in places]
    return ideas, repeats


def vertical_range(scores: Sequence[float], kept: Sequence[float]) -> tuple[float, float]:
    """Bottom and top of the plot: all that was kept, and the better nine tenths of the rest."""
    low, high = min(scores), max([*kept, sorted(scores)[int(0.9 * (len(scores) - 1))]])
    margin = max(high - low, 1e-3) * 0.15
    return low - margin, high + 2 * margin
