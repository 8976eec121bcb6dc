"""What language models are told, what they cost, and how well they foretell, in words and as tables for the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from agents.fence import clean
from ledger.inspection import several
from orgs.cost import Cap, Cost
from orgs.estimate import HABITS, HISTORY_SHARE, IDEAS_PER_EXPERIMENT, WARM_SHARE, Estimate
from orgs.forecasts import TrackRecord
from orgs.prompts import Rendered
from orgs.report import plain


def table_of(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Columns of text, then columns of numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold", padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


# ---- prompts ---------------------------------------------------------------------------------------------------------


def explain_prompt(rendered: Rendered, lab_path: str, org: str | None, counted: int | None) -> Table:
    """What stands above a prompt that is shown.

    Args:
        rendered: the prompt.
        lab_path: its role file, relative to the lab.
        org: its org file.
        counted: tokens by the API's own counter, if that was asked.
    """
    settings, sizes = rendered.settings, rendered.sizes
    values = {"mind": settings.mind, **settings.model_dump(mode="json", exclude_unset=True)}
    given = ", ".join(f"{name} {value}" for name, value in values.items())
    source = f"of {org}, in place of the front matter" if rendered.instead else "of the front matter"
    tokens = (
        f"stable {sizes.stable:,} · task {sizes.task:,} · tools {sizes.tools:,} · together {sizes.whole:,}, estimated"
    )
    rows = [
        ("role", f"{rendered.role} by {lab_path}@{rendered.sha256[:10]}"),
        ("settings", f"{given} ({source})"),
        ("campaign", rendered.campaign or "none yet: the working copy's train.py"),
        ("about", rendered.about),
        ("tokens", tokens if counted is None else f"{tokens}; {counted:,} by the API's own counter"),
    ]
    if not rendered.tools:
        rows.append(
            ("", f"mind {settings.mind} asks no language model: this is what one would be told, without its tools")
        )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    for name, text in rows:
        grid.add_row(name, Text(clean(text, len(text))))
    return grid


def parts_of(rendered: Rendered) -> Iterator[str]:
    """The prompt itself, with a mark above each part; without what a terminal would obey."""
    prompt = rendered.prompt
    if prompt.stable:
        yield "──── stable part: the same from task to task while the champion is, and kept by the API ────"
        yield clean(prompt.stable, len(prompt.stable))
    yield "──── task part ────"
    yield clean(prompt.task, len(prompt.task))


# ---- money -----------------------------------------------------------------------------------------------------------


def tabulate_estimate(found: Estimate) -> Table:
    """A row for each kind of task."""
    names = ("prompt", "calls", "cached", "dollars", "a call at most")
    table = table_of("what a night would cost, for each experiment judged", ("role", "task", "model"), names)
    for one in found.tasks:
        table.add_row(
            one.role,
            one.task,
            plain(one.model),
            f"{one.prompt_tokens:,}",
            f"{one.calls:.1f}",
            f"{100 * one.cached:.0f} %",
            f"{one.usd:.4f}",
            f"{one.call_at_most_usd:.2f}",
        )
    return table


def explain_assumptions() -> str:
    """What an estimate rests on, beside prompts and prices."""
    habits = "; ".join(
        f"{name}: {several(habit.answers, 'answer')} of {habit.output_tokens:,} tokens"
        for name, habit in HABITS.items()
    )
    return (
        f"assumed: {habits}; {IDEAS_PER_EXPERIMENT:g} ideas for each experiment judged, none of them only constants, which would cost no coder, nor from the sampler of a hybrid planner; the planner's history {100 * HISTORY_SHARE:.0f} % full; "
        f"the stable part found in the cache {100 * WARM_SHARE['1h']:.0f} % of the time with `cache: 1h` and {100 * WARM_SHARE['5m']:.0f} % with 5m "
        "(orgs/estimate.py). What a campaign really spends: autoresearch-org ledger cost"
    )


def tabulate_cost(cost: Cost) -> Table:
    """A row for each role and model."""
    names = ("dollars", "calls", "failed", "prompt", "from cache", "to cache", "output")
    table = table_of(f"campaign {cost.campaign}: language models and agents", ("role", "model"), names)
    rows = [(one.role, one.model, one.total) for one in cost.by_role]
    for role, model, found in [*rows, ("all", "", cost.total)]:
        usage = found.usage
        table.add_row(
            plain(role),
            plain(model),
            f"{found.dollars:.4f}",
            str(found.calls),
            str(found.failed),
            f"{usage.prompt:,}",
            f"{usage.cache_read:,} ({100 * found.cache_share:.0f} %)",
            f"{usage.cache_write + usage.cache_write_1h:,}",
            f"{usage.output:,}",
        )
    return table


def tabulate_dearest(cost: Cost) -> Table:
    """A row for each of the dearest experiments."""
    table = table_of("dearest experiments", ("#", "hypothesis", "state"), ("dollars",))
    for one in cost.dearest:
        table.add_row(str(one.id), plain(one.title), one.state, f"{one.usd:.4f}")
    return table


def explain_cost(cost: Cost, cap: Cap | None) -> Iterator[str]:
    """The sums, a line each."""
    limit = "" if cap is None else f" of {cap.usd:g} (money.campaign_usd of {cap.file}, as it is now)"
    held = f", {cost.held_usd:.4f} set aside for calls under way" if cost.held_usd else ""
    yield f"spent: {cost.total.dollars:.4f} dollars{limit}{held}"
    if errands := cost.total.errands:
        yield f"not in here: {several(errands, 'errand')} of agents on the command line, which bear their costs themselves"
    if cost.failures:
        yield "failed calls: " + ", ".join(f"{count} {kind}" for kind, count in cost.failures.items())
    each = [
        f"{usd:.4f} for each of {several(count, noun)}"
        for usd, count, noun in ((cost.judged_usd, cost.judged, "experiment"), (cost.merged_usd, cost.merged, "merge"))
        if usd is not None
    ]
    yield f"dollars: {', '.join(each) or 'no experiment is judged yet'}"


# ---- forecasts -------------------------------------------------------------------------------------------------------


def tabulate_forecasts(records: Sequence[TrackRecord], title: str) -> Table:
    """A row for each planner and reviewer."""
    names = ("forecasts", "merged", "Brier", "base rate's", "expected Δ", "real Δ")
    table = table_of(title, ("who", "model"), names)
    for one in records:
        found = one.score
        table.add_row(
            plain(f"{one.who.role}/{one.who.mind}".rstrip("/")),
            plain(one.who.model),
            str(found.forecasts),
            str(found.merged),
            number(found.brier, ".4f"),
            number(found.base_brier, ".4f"),
            number(found.expected_bpb, "+.5f"),
            number(found.delta_bpb, "+.5f"),
        )
    return table


def explain_reviews(records: Sequence[TrackRecord]) -> Iterator[str]:
    """What reviewers decided, a line each."""
    for one in records:
        if one.reviews is not None:
            who = " ".join(part for part in (one.who.mind, one.who.model) if part)
            refused = ", ".join(f"{count} {code}" for code, count in one.reviews.refused.items()) or "none"
            yield f"reviewer {who}: {one.reviews.approved} approved, {one.reviews.approved_merged} of them merged; refused: {refused}"


def number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
