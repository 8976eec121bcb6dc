"""What a campaign came to, in words and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text

from ledger.noise import Noise, Reproduction
from orgs.simulate import Summary
from records import Audit, Experiment, State

STYLE = {
    State.MERGED: "bold green",
    State.CONFIRMING: "green",
    State.WITHIN_NOISE: "dim",
    State.DISCARDED: "dim",
    State.POOLED: "dim",
    State.CRASHED: "red",
    State.INVALID: "red",
    State.REFUSED: "yellow",
    State.DUPLICATE: "yellow",
    State.STALE: "yellow",
}


def plain(text: str) -> Text:
    """Text from a mind or a candidate: never read as markup."""
    return Text("".join(c if c.isprintable() else " " for c in text), overflow="ellipsis", no_wrap=True)


def delta_bpb(experiment: Experiment) -> float | None:
    """Against the champion that it was judged by; None before, and without, a verdict on a score."""
    verdict = experiment.verdict
    if verdict is None or verdict.candidate_bpb is None or verdict.champion_bpb is None:
        return None
    return verdict.candidate_bpb - verdict.champion_bpb


def explain_state(experiment: Experiment) -> str:
    """Why it stands where it stands, as a sentence; for those under way, what it waits for."""
    score, claim, review = experiment.score, experiment.claim, experiment.review
    bpb = "" if score is None or score.val_bpb is None else f"{score.val_bpb:.6f} bpb"
    again = f" (before: {experiment.note})" if experiment.note else ""
    match experiment.state:
        case State.PROPOSED:
            return f"waits for a coder{again}"
        case State.CLAIMED:
            return f"a coder is writing it{again}"
        case State.CODED:
            return "waits for its review"
        case State.QUEUED:
            return f"waits for the device{again}"
        case State.RUNNING:
            return "is on the device"
        case State.SCORED:
            return f"measured {bpb}, and waits for its verdict"
        case State.CONFIRMING:
            return f"measured {bpb}, and waits for its next run: {experiment.why}"
        case State.MERGING:
            return f"won, and is on its way to the branch: {experiment.why}"
        case State.MERGED if experiment.lane == "baseline":
            return f"commit {(experiment.commit or '')[:10]} as it stands: {bpb} is what experiments had to beat"
        case State.MERGED:
            return f"won, and landed as {(experiment.commit or '')[:10]}: {experiment.why}"
        case State.WITHIN_NOISE:
            return f"neither better nor worse, as far as its runs can tell: {experiment.why}"
        case State.POOLED:
            return f"one more run of the champion of #{experiment.repeats}, {bpb}: says how good that is, and what the noise is"
        case State.DISCARDED:
            return f"lost: {experiment.why}"
        case State.CRASHED:
            return f"never came to a score: {experiment.why}"
        case State.INVALID:
            return f"its score does not count: {experiment.why}"
        case State.STALE:
            return f"given up, since the champion moved under it too often: {experiment.why}"
        case State.REFUSED if review is not None and not review.approved:
            return f"the reviewer refused it ({review.code}): {review.reason}"
        case State.REFUSED:
            return f"could not be carried out: {experiment.why}"
        case State.DUPLICATE:
            return f"not run again: {experiment.why}"
        case State.IMPORTED:
            figure = "a crash" if claim is None or claim.bpb is None else f"{claim.val_bpb} bpb"
            return f"{figure}, says a results.tsv ({claim and claim.status}); unsigned, and never measured here"


def explain_audit(audit: Audit) -> str:
    """What the audit of a score looked at, and what it would have noticed."""
    return (
        f"{audit.level}: {audit.cuts:,} cuts, {audit.mismatches} of them off by over {audit.tolerance_nats:g} nats "
        f"(most: {audit.largest_difference_nats:.2g}); the hardest lie worth {audit.lie_bpb:g} bpb "
        f"would have been noticed with {100 * audit.power:.2f} %"
    )


def explain_reproduction(result: Reproduction, noise: Noise | None) -> str:
    """What a replay came to."""
    came = f"{result.difference_bpb:+.6f} bpb when measured again"
    if noise is None or result.bound_bpb is None:
        return f"{came}; the noise is unknown, since no source was measured twice: use --runs 2 or more"
    says = "within" if result.within_noise else "NOT within"
    return f"{came}: {says} the noise (± {result.bound_bpb:.6f}, from {noise.freedom + 1} repeated runs or more)"


def scores_by_source(experiments: Sequence[Experiment]) -> list[list[float]]:
    """Validation scores of each source that was measured."""
    groups: dict[str, list[float]] = {}
    for measurement in (m for experiment in experiments for m in experiment.measurements):
        if measurement.val_bpb is not None:
            groups.setdefault(measurement.hashes.source, []).append(measurement.val_bpb)
    return list(groups.values())


def tabulate_headline(scores: Mapping[str, Sequence[float]]) -> Table:
    """Mean test scores of start and champion, and their difference with its 95 % interval where runs allow one."""
    from scipy.stats import ttest_ind  # takes a second to import, which every command would wait for

    table = Table(title="on the sealed test split, fresh seeds", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("", "runs", "test_bpb", "runs, lowest to highest"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in scores.items():
        table.add_row(name, str(len(found)), f"{fmean(found):.6f}", f"{min(found):.6f} … {max(found):.6f}")
    start, champion = scores["start"], scores["champion"]
    interval = ""
    if len(start) > 1 and len(champion) > 1:
        low, high = ttest_ind(champion, start, equal_var=False).confidence_interval(0.95)  # Welch
        interval = f"95 %: {low:+.6f} … {high:+.6f}"
    table.add_row("difference", "", f"{fmean(champion) - fmean(start):+.6f}", interval)
    return table


def tabulate_simulation(summaries: Sequence[Summary], title: str) -> Table:
    """A row for each rule: means over the nights, ± their standard error."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold", padding=0)
    table.add_column("rule", no_wrap=True, min_width=16)
    for column in ("true gain, bpb", "merges", "false", " any false", "judged", " overclaim"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in summaries:
        table.add_row(
            one.rule,
            f"{one.gain_bpb:.5f} ±{one.gain_bpb_se:.5f}",
            f"{one.merges:.2f}",
            f"{one.false_merges:.3f}",
            f"{100 * one.any_false_merge:.1f} ±{100 * one.any_false_merge_se:.1f} %",
            f"{one.judged:.1f}",
            f"{one.inflation_bpb:+.5f}",
        )
    return table


def figure(experiment: Experiment) -> str:
    """Its score; in brackets one that is only claimed."""
    score, claim = experiment.score, experiment.claim
    if claim is not None and claim.bpb is not None:
        return f"({claim.bpb:.4f})"
    return "–" if score is None or score.val_bpb is None else f"{score.val_bpb:.4f}"


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
        "" if delta is not None else experiment.why for experiment, delta in zip(experiments, deltas, strict=True)
    ]
    if any(reasons):
        table.add_column("why", ratio=3)
    for experiment, delta, reason in zip(experiments, deltas, reasons, strict=True):
        score = experiment.score
        started = experiment.lane == "baseline" and experiment.state == State.MERGED
        cells: list[str | Text] = [
            str(experiment.id),
            plain(experiment.hypothesis.title),
            figure(experiment),
            "–" if delta is None else f"{delta:+.4f}",
            "–" if score is None or score.num_steps is None else str(score.num_steps),
            Text("start" if started else experiment.state, STYLE.get(experiment.state, "")),
        ]
        table.add_row(*cells, *([plain(reason)] if any(reasons) else []))
    return table
