"""One experiment and its measurements, in words and as tables for the terminal."""

from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orgs.figures import Figure
from orgs.report import explain_audit, explain_state, plain
from records import Experiment, Measurement, Review, Verdict


def summarise(experiment: Experiment, claimed: Figure | None) -> dict[str, Any]:
    """The row of `ledger list --json`; `claimed`: what is claimed of one that won."""
    score = experiment.score
    return {
        "id": experiment.id,
        "lane": experiment.lane,
        "state": experiment.state,
        "title": experiment.hypothesis.title,
        "author": experiment.author,
        "val_bpb": score.val_bpb if score else None,
        "claimed_bpb": experiment.claim and experiment.claim.bpb,
        "fresh_bpb": claimed.bpb if claimed and claimed.fresh else None,
        "fresh_runs": claimed.runs if claimed and claimed.fresh else 0,
        "repeats": experiment.repeats,
        "num_steps": score.num_steps if score else None,
        "commit": experiment.commit,
        "why": experiment.why,
        "created_at": experiment.created_at,
        "updated_at": experiment.updated_at,
    }


def facts_of(experiment: Experiment) -> Table:
    """Who, what and why of one experiment, as a two-column grid."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    hypothesis = experiment.hypothesis
    forecast = f"{hypothesis.expected_delta_bpb:+.4f} bpb, merges with probability {hypothesis.probability:.2f}"
    rows = [
        ("title", hypothesis.title),
        ("why", f"{experiment.state}: {explain_state(experiment)}"),
        ("change", hypothesis.change),
        ("rationale", hypothesis.rationale),
        ("forecast", "" if experiment.lane in ("baseline", "imported") else forecast),
        ("author", experiment.author),
        ("roles", " ".join(f"{role}@{sha[:10]}" for role, sha in experiment.roles.items())),
        ("parent", experiment.candidate.parent[:10] if experiment.candidate else ""),
        ("review", f"{experiment.review.code}: {experiment.review.reason}" if experiment.review else ""),
        ("its forecast", forecast_of(experiment.review) if experiment.review else ""),
        (
            "lesson",
            f"{experiment.lesson.text} ({experiment.lesson.author})"
            if experiment.lesson and experiment.lesson.text
            else "",
        ),
        ("verdict", f"{experiment.verdict.rule}: {experiment.verdict.reason}" if experiment.verdict else ""),
        *(numbers_of(experiment.verdict) if experiment.verdict else []),
        ("commit", experiment.commit or ""),
        ("note", experiment.note),
    ]
    for name, text in rows:
        if text:
            grid.add_row(name, Text("".join(c if c.isprintable() or c == "\n" else " " for c in text)))
    return grid


def forecast_of(review: Review) -> str:
    """What the reviewer expects; nothing of one that does not say."""
    if review.probability is None or review.expected_delta_bpb is None:
        return ""
    return f"{review.expected_delta_bpb:+.4f} bpb, merges with probability {review.probability:.2f}"


def numbers_of(verdict: Verdict) -> list[tuple[str, str]]:
    """What a verdict was decided by, as rows."""
    numbers: list[tuple[str, float | int | None, str]] = [
        ("effect", verdict.effect_bpb, ".6f"),
        ("threshold", verdict.threshold_bpb, ".6f"),
        ("may lose", verdict.allowed_bpb or None, ".6f"),
        ("σ̂", verdict.sigma_bpb, ".6f"),
        ("ν", verdict.freedom, "d"),
        ("n_c", len(verdict.champion_runs) or None, "d"),
        ("K spent", verdict.judged, "d"),
        ("p1", verdict.p1, ".3g"),
        ("α left", verdict.alpha_left, ".3g"),
    ]
    told = ", ".join(f"{name} {value:{form}}" for name, value, form in numbers if value is not None)
    return [
        ("numbers", told),
        ("its runs", " ".join(verdict.candidate_runs)),
        ("champion's", " ".join(verdict.champion_runs)),
        ("noise by", " | ".join(" ".join(group) for group in verdict.noise_runs)),
    ]


def describe(measurement: Measurement) -> Panel:
    """One measurement as a panel."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    if measurement.audit is not None:
        grid.add_row("audit", plain(explain_audit(measurement.audit)))
    left_out = {"hashes", "failure", "log_tail", "audit", "hmac"}
    for name, value in measurement.model_dump(exclude=left_out).items():
        if value not in (None, ""):
            grid.add_row(name, plain(f"{value:.6g}" if isinstance(value, float) else str(value)))
    if measurement.failure is not None:
        grid.add_row("failure", plain(f"{measurement.failure.kind}: {measurement.failure.message}"))
        grid.add_row("log (quoted)", Text(measurement.log_tail[-2000:], style="dim"))
    return Panel(
        grid,
        title=f"measurement {measurement.run_id}",
        title_align="left",
        border_style="green" if measurement.val_bpb is not None else "red",
    )
