"""What a campaign came to, in words and as a table for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from records import Experiment, State

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


def delta_bpb(experiment: Experiment) -> float | None:
    """Against the champion that it was judged by; None before, and without, a verdict on a score."""
    verdict = experiment.verdict
    if verdict is None or verdict.candidate_bpb is None or verdict.champion_bpb is None:
        return None
    return verdict.candidate_bpb - verdict.champion_bpb


def tabulate(experiments: Sequence[Experiment], title: str | None = None) -> Table:
    """A row for each experiment: id, hypothesis, score, distance from the champion, steps, state; why, where a number does not say it."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("hypothesis", ratio=2, overflow="ellipsis", no_wrap=True)
    table.add_column("val_bpb", justify="right")
    table.add_column("Δ champion", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("state")
    deltas = [delta_bpb(experiment) for experiment in experiments]
    reasons = [
        "" if delta is not None else outcome(experiment) for experiment, delta in zip(experiments, deltas, strict=True)
    ]
    if any(reasons):
        table.add_column("why", ratio=3)
    for experiment, delta, reason in zip(experiments, deltas, reasons, strict=True):
        score = experiment.score
        started = experiment.lane == "baseline" and experiment.state == State.MERGED
        cells: list[str | Text] = [
            str(experiment.id),
            plain(experiment.hypothesis.title),
            "–" if score is None or score.val_bpb is None else f"{score.val_bpb:.4f}",
            "–" if delta is None else f"{delta:+.4f}",
            "–" if score is None or score.num_steps is None else str(score.num_steps),
            Text("start" if started else experiment.state, STYLE.get(experiment.state, "")),
        ]
        table.add_row(*cells, *([plain(reason)] if any(reasons) else []))
    return table
