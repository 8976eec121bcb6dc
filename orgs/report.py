"""What a campaign came to, in words and as a table for the terminal."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType

from rich import box
from rich.table import Table
from rich.text import Text

from ledger.inspection import several
from ledger.noise import Noise, Reproduction
from orgs.figures import Figure, score_of
from orgs.headline import Headline, explain_headline
from orgs.simulate import Summary
from orgs.status import Claimed, MoneySpent, OnDevice, Spending, Status, counts_line
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
    why = experiment.why
    for said in ("merged: ", "discarded: ", "run again: "):  # by its state
        why = why.removeprefix(said)
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
            return f"measured {bpb}, and waits for its next run: {why}"
        case State.MERGING:
            return f"won, and is on its way to the branch: {why}"
        case State.MERGED if experiment.lane == "baseline":
            return f"commit {(experiment.commit or '')[:10]} as it stands: {bpb} is what experiments had to beat"
        case State.MERGED:
            return f"won, and landed as {(experiment.commit or '')[:10]}: {why}"
        case State.WITHIN_NOISE:
            return f"neither better nor worse, as far as its runs can tell: {why}"
        case State.POOLED:
            return f"one more run of the champion of #{experiment.repeats}, {bpb}: says how good that is, and what the noise is"
        case State.DISCARDED:
            return f"lost: {why}"
        case State.CRASHED:
            return f"never came to a score: {why}"
        case State.INVALID:
            return f"its score does not count: {why}"
        case State.STALE:
            return f"given up, since the champion moved under it too often: {why}"
        case State.REFUSED if review is not None and not review.approved:
            return f"the reviewer refused it ({review.code}): {review.reason}"
        case State.REFUSED:
            return f"could not be carried out: {why}"
        case State.DUPLICATE:
            return f"not run again: {why}"
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


def tabulate_headline(headline: Headline) -> Table:
    """Mean test scores of start and champion, and their difference with its 95 % interval where something says how wide that is."""
    table = Table(title="on the sealed test split, fresh seeds", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("", "runs", "test_bpb", "runs, lowest to highest"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in (("start", headline.start_bpb), ("champion", headline.champion_bpb)):
        table.add_row(name, str(len(found)), f"{fmean(found):.6f}", f"{min(found):.6f} … {max(found):.6f}")
    interval = ""
    if headline.low_bpb is not None and headline.high_bpb is not None:
        by = " by the noise of validation runs" if headline.interval_by == "noise" else ""
        interval = f"95 %{by}: {headline.low_bpb:+.6f} … {headline.high_bpb:+.6f}"
    table.add_row("difference", "", f"{headline.difference_bpb:+.6f}", interval)
    return table


def show_status(status: Status) -> Table:
    """A campaign at a glance."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    end = f"ended: {status.ended}" if status.ended else "open"
    rows = [
        ("campaign", Text(f"{status.campaign} · org {status.org} · {end}")),
        ("champion", explain_claim(status.champion, status.start) if status.champion else Text("not measured yet")),
        ("start", explain_claim(status.start) if status.start else Text("not measured yet")),
        *(("now", explain_running(running)) for running in status.running),
        (
            "states",
            Text(" · ".join(f"{count} {state}" for state, count in status.states.items()) or "no experiment yet"),
        ),
        ("budget", explain_spending(status.spending)),
        *([("spent", explain_money(status.money))] if status.money is not None else []),
        ("noise", explain_noise(status)),
        *(("checks" if i == 0 else "", line) for i, line in enumerate(explain_checks(status))),
        ("headline", Text("none yet" if status.headline is None else explain_headline(status.headline))),
        ("results", Text(counts_line(status.results, promised=status.spending.promises), style="bold")),
    ]
    for name, line in rows:
        grid.add_row(name, line)
    return grid


def explain_claim(claimed: Claimed, start: Claimed | None = None) -> Text:
    """Mean ± standard error, of which runs; for a champion also how far it is from the start."""
    error = "" if claimed.std_error_bpb is None else f" ± {claimed.std_error_bpb:.6f}"
    runs = f"{claimed.runs} fresh run{'s' if claimed.runs > 1 else ''}"
    if not claimed.fresh:
        runs = f"claimed by its {claimed.runs} selecting run{'s' if claimed.runs > 1 else ''}; it has no fresh one"
    line = Text(f"{claimed.bpb:.6f}{error} bpb ({runs})", style="bold green" if start is not None else "")
    if start is not None and start.experiment != claimed.experiment:
        line.append(f"  {claimed.bpb - start.bpb:+.6f} since the start  ", style="green")
        line.append_text(plain(f"(#{claimed.experiment} {claimed.title})"))
    return line


def explain_running(running: OnDevice) -> Text:
    """What is on a device."""
    progress = running.progress
    told = "" if progress is None else f", {progress.elapsed_s:.0f} s, step {progress.step}, loss {progress.loss:.3f}"
    return plain(f"#{running.experiment} {running.title} on {running.device}: {running.phase}{told}")


def explain_spending(spending: Spending) -> Text:
    """The error budget, or that there is none."""
    if spending.alpha is None or spending.p1 is None or spending.alpha_left is None:
        line = (
            f"{spending.rule} promises nothing: it merges what is lower once, noise included; {spending.judged} judged"
        )
        return Text(line, style="yellow")
    return Text(
        f"{spending.rule}: any false merge with {100 * spending.alpha:g} % at most; {spending.judged} of {spending.judgements} verdicts "
        f"spent, {100 * spending.p1:.3g} % each; {100 * spending.alpha_left:.3g} % left"
    )


def explain_money(money: MoneySpent) -> Text:
    """What language models have cost, and how often agents were sent."""
    held = f", {money.held_usd:.2f} set aside" if money.held_usd else ""
    failed = f", {money.failed} of them failed" if money.failed else ""
    own = f", {several(money.errands, 'errand')} of agents at their own expense" if money.errands else ""
    cached = (
        f", {100 * money.cache_share:.0f} % of their prompts out of the cache" if money.errands < money.calls else ""
    )
    return Text(f"{money.usd:.2f} dollars{held}; {several(money.calls, 'call')}{failed}{own}{cached}")


def explain_noise(status: Status) -> Text:
    """What is known of the noise, and from what."""
    noise = status.noise
    if noise is None:
        return Text("unknown: no program was run twice", style="yellow")
    return Text(
        f"σ̂ {noise.sigma_bpb:.6f} bpb (s {noise.deviation_bpb:.6f}, ν {noise.freedom}), by {noise.start_runs} A/A runs of the start and "
        f"{noise.later_runs} later repeats on {noise.device}, dataset {noise.dataset[:12]}"
    )


def explain_checks(status: Status) -> list[Text]:
    """A line for each thing that was looked at; yellow where the promise may not hold."""
    checks = status.checks
    canary, tails = checks.canary, checks.tails
    if canary is None:
        drift = Text("drift: no canary yet" if status.spending.promises else "drift: no canaries under this rule")
    else:
        bound = f"{canary.difference_bpb:+.6f} bpb, and may be off by {canary.bound_bpb:.6f}"
        drift = Text(f"drift: the last canary is off by {bound}", style="yellow" if canary.off else "")
    lines = [drift, *(Text(f"drift: {told}", style="yellow") for told in checks.drifts)]
    if tails is None:
        lines.append(Text("tails: too few repeats to tell"))
    else:
        lines.append(Text(f"tails: {tails.runs} repeats, Shapiro–Wilk p = {tails.p:.2g}"))
        if tails.heavy:
            lines[-1] = Text(f"{lines[-1]}; {HEAVY}", style="yellow")
    void = f"void: {checks.void_runs} measurement{'' if checks.void_runs == 1 else 's'} failed for the host's reasons"
    lines.append(Text(void, style="yellow" if checks.void_runs else ""))
    if (stops := checks.early_stops) is not None:
        told = (
            f"{several(stops.ended, 'hopeless run')} ended before time; of {stops.finished} that finished all the same"
        )
        share = f" (at most {100 * stops.bound:.0f} %, 95 %)" if stops.finished else ""
        lines.append(Text(f"early stop: {told} {stops.missed} would have been missed{share}"))
    if checks.may_lose_bpb is not None:
        lines.append(Text(f"simplifications: cost {checks.lost_bpb:.6f} of {checks.may_lose_bpb:.6f} bpb"))
    return lines


HEAVY = (
    "that is not normal noise, for which the promise is: with Student's t of 5 degrees of freedom 4.7 % of simulated nights had a false "
    "merge under two-run-min and 4.6 % under group-sequential, in place of 2.9 and 0.8 % (docs/statistics.md)"
)


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


UNCONFIRMED = "*"
"""Mark of a figure that is claimed by the runs that selected it."""


def figure(experiment: Experiment, claimed: Figure | None = None) -> str:
    """Its score; of what won, what is claimed of it; in brackets what somebody else claims."""
    score, claim = score_of(experiment), experiment.claim
    if claim is not None and claim.bpb is not None:
        return f"({claim.bpb:.4f})"
    if claimed is not None:
        return f"{claimed.bpb:.4f}" + ("" if claimed.fresh else UNCONFIRMED)
    return "–" if score is None else f"{score:.4f}"


def name_state(experiment: Experiment) -> str:
    """Its state, with the number of the run that it waits for or is at, if that is not its first."""
    if experiment.lane == "baseline" and experiment.state == State.MERGED:
        return "start"
    run = len(experiment.runs) + 1
    at_it = experiment.state in (State.CONFIRMING, State.RUNNING) and experiment.is_idea and run > 1
    return f"{experiment.state} (run {run})" if at_it else experiment.state


def tabulate(
    experiments: Sequence[Experiment], title: str | None = None, figures: Mapping[int, Figure] = MappingProxyType({})
) -> Table:
    """A row for each experiment: id, hypothesis, score, distance from the champion, steps, state; why, where a number does not say it.

    Args:
        experiments: the rows, in this order.
        title: heading.
        figures: by id, what is claimed of those that won.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("hypothesis", ratio=2, overflow="ellipsis", no_wrap=True)
    table.add_column("val_bpb", justify="right")
    table.add_column("Δ champion", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("state")
    deltas = [delta_bpb(experiment) for experiment in experiments]
    reasons = [
        "" if delta is not None or (experiment.lane == "repeat" and experiment.score) else experiment.why
        for experiment, delta in zip(experiments, deltas, strict=True)
    ]
    if any(reasons):
        table.add_column("why", ratio=3)
    for experiment, delta, reason in zip(experiments, deltas, reasons, strict=True):
        score = experiment.score
        cells: list[str | Text] = [
            str(experiment.id),
            plain(experiment.hypothesis.title),
            figure(experiment, figures.get(experiment.id)),
            "–" if delta is None else f"{delta:+.4f}",
            "–" if score is None or score.num_steps is None else str(score.num_steps),
            Text(name_state(experiment), STYLE.get(experiment.state, "")),
        ]
        style = "dim" if experiment.lane == "repeat" else None
        table.add_row(*cells, *([plain(reason)] if any(reasons) else []), style=style)
    if any(not figures[e.id].fresh for e in experiments if e.id in figures):
        table.caption = f"{UNCONFIRMED} claimed by the runs that selected it; it has no fresh one"
        table.caption_justify = "left"
    return table
