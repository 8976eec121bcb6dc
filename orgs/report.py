"""What a campaign came to: a table for the terminal and the original's progress plot."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table
from rich.text import Text

from records import Experiment, State

KEPT, DISCARDED = "#2ca02c", "#b8b8b8"
STYLE = {
    State.MERGED: "bold green",
    State.DISCARDED: "dim",
    State.CRASHED: "red",
    State.INVALID: "red",
    State.REFUSED: "yellow",
    State.DUPLICATE: "yellow",
    State.STALE: "yellow",
}


def plain(text: str) -> Text:
    """Text from a mind or a candidate: never read as markup."""
    return Text("".join(c if c.isprintable() else " " for c in text), overflow="ellipsis", no_wrap=True)


def outcome(experiment: Experiment) -> str:
    """Why an experiment stands where it stands, in a few words."""
    if experiment.verdict is not None and experiment.state in (State.MERGED, State.DISCARDED, State.MERGING):
        return experiment.verdict.reason
    if experiment.state == State.REFUSED and experiment.review is not None:
        return experiment.review.reason
    failure = experiment.measurements[-1].failure if experiment.measurements else None
    if failure is not None and experiment.state in (State.CRASHED, State.INVALID):
        return f"{failure.kind}: {failure.message}"
    return experiment.note


def tabulate(experiments: Sequence[Experiment], title: str | None = None) -> Table:
    """A row for each experiment: id, title, score, state, why."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("hypothesis", max_width=44)
    table.add_column("val_bpb", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("state")
    table.add_column("why", ratio=1)
    for experiment in experiments:
        score = experiment.score
        style = STYLE.get(experiment.state, "")
        table.add_row(
            str(experiment.id),
            plain(experiment.hypothesis.title),
            f"{score.val_bpb:.4f}" if score and score.val_bpb is not None else "–",
            str(score.num_steps) if score and score.num_steps is not None else "–",
            Text(
                "start" if experiment.lane == "baseline" and experiment.state == State.MERGED else experiment.state,
                style,
            ),
            plain(outcome(experiment)),
        )
    return table


def plot(experiments: Sequence[Experiment], path: Path, title: str) -> None:
    """Write the progress plot: every scored experiment in order, merged ones marked and named, best so far as a staircase.

    Args:
        experiments: rows of one campaign, oldest first.
        path: PNG to write.
        title: heading.
    """
    scored = [e for e in experiments if e.score is not None]
    order = list(range(len(scored)))
    bpb = [e.score.val_bpb for e in scored if e.score is not None and e.score.val_bpb is not None]
    kept = [i for i in order if scored[i].state == State.MERGED]
    figure, axes = plt.subplots(figsize=(12, 6), dpi=120)
    axes.scatter(order, bpb, s=28, color=DISCARDED, label="not merged", zorder=2)
    axes.scatter(
        kept, [bpb[i] for i in kept], s=60, color=KEPT, edgecolor="black", linewidth=0.6, label="merged", zorder=4
    )
    if kept:
        end = max(order[-1], kept[-1]) + 0.5
        axes.step(
            [*kept, end],
            [*(bpb[i] for i in kept), bpb[kept[-1]]],
            where="post",
            color=KEPT,
            alpha=0.7,
            label="champion",
            zorder=3,
        )
        low, high = min(bpb), max(max(bpb[i] for i in kept), sorted(bpb)[int(0.9 * (len(bpb) - 1))])
        margin = max(high - low, 1e-3) * 0.15
        axes.set_ylim(low - margin, high + 2 * margin)
    for i in kept:
        name = scored[i].hypothesis.title
        axes.annotate(
            name if len(name) <= 45 else name[:44] + "…",
            (i, bpb[i]),
            xytext=(6, 6),
            textcoords="offset points",
            rotation=25,
            fontsize=8,
            color="#1a661a",
            parse_math=False,
        )
    axes.set_xlabel("experiment")
    axes.set_ylabel("val_bpb (lower is better)")
    axes.set_title(title, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
