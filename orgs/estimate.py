"""What a night of language models would cost, before it begins: real prompts and prices, and assumptions about the rest.

The assumptions are the constants on top. `ledger cost` shows what a campaign really spent.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from agents.prices import Price
from agents.settings import LANGUAGE, PlannerSettings
from agents.tokens import BYTES_PER_TOKEN
from ledger.purse import MILLION
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.prompts import Rendered, Sizes, render_code, render_plan, render_review
from records import Usage


class Habit(NamedTuple):
    """What is assumed of a kind of task."""

    answers: int
    """Of the model, until it is done."""
    output_tokens: int
    """Of each answer, thinking included."""
    result_tokens: int
    """That its tools give back after each answer."""
    more_tokens: int
    """Of its prompt, beside what is rendered here: the hypothesis, the diff and the log are those of a sample."""


HABITS = {
    "plan": Habit(answers=1, output_tokens=6_000, result_tokens=0, more_tokens=0),
    "code": Habit(answers=7, output_tokens=1_000, result_tokens=500, more_tokens=300),
    "review": Habit(answers=1, output_tokens=1_500, result_tokens=0, more_tokens=1_000),
    "lesson": Habit(answers=1, output_tokens=1_000, result_tokens=0, more_tokens=1_500),
}
"""By kind of task."""
IDEAS_PER_EXPERIMENT = 1.2
"""That are proposed, coded and reviewed for each that is judged: some are refused, or cannot be coded."""
HISTORY_SHARE = 0.5
"""Of the planner's `digest_tokens`, on the average of a night: it begins with none."""
WARM_SHARE = {"1h": 0.9, "5m": 0.5}
"""Of conversations that find the stable part of their prompt in the API's cache, by how long it is kept there: a merge changes it,
and a run of five minutes outlives the shorter time."""


class TaskCost(NamedTuple):
    """One kind of task of one role."""

    role: str
    task: str
    model: str
    prompt_tokens: int
    """Of its first call: stable part, task and tools."""
    conversations: float
    """For each experiment that is judged."""
    calls: float
    """For each experiment that is judged."""
    cached: float
    """Share of its prompt tokens that comes out of the cache."""
    usd: float
    """For each experiment that is judged."""
    call_at_most_usd: float
    """What is set aside for its longest call."""


@dataclass(frozen=True)
class Estimate:
    """Of one night."""

    tasks: list[TaskCost]
    """None where no role asks a language model."""
    experiments: int
    """`budget.experiments`."""
    campaign_usd: float
    experiment_usd: float
    call_usd: float
    """Caps of the org file."""

    @property
    def each_usd(self) -> float:
        """For each experiment that is judged."""
        return math.fsum(task.usd for task in self.tasks)

    @property
    def night_usd(self) -> float:
        return self.each_usd * self.experiments

    @property
    def dearest(self) -> TaskCost | None:
        """The task whose longest call could cost most."""
        return max(self.tasks, key=lambda task: task.call_at_most_usd, default=None)

    @property
    def lasts(self) -> int | None:
        """Experiments after which the campaign's money is spent, as far as calls are let through; None if nothing costs anything."""
        if self.dearest is None or not self.each_usd:
            return None
        return max(0, math.floor((self.campaign_usd - self.dearest.call_at_most_usd) / self.each_usd))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        assumed = {name: habit._asdict() for name, habit in HABITS.items()}
        shares = {
            "ideas_per_experiment": IDEAS_PER_EXPERIMENT,
            "history_share": HISTORY_SHARE,
            "warm_share": WARM_SHARE,
        }
        return {
            "tasks": [task._asdict() for task in self.tasks],
            "experiment_usd": self.each_usd,
            "experiments": self.experiments,
            "night_usd": self.night_usd,
            "caps": {
                "campaign_usd": self.campaign_usd,
                "experiment_usd": self.experiment_usd,
                "call_usd": self.call_usd,
            },
            "experiments_within_the_cap": self.lasts,
            "assumed": {**assumed, **shares},
        }


def estimate(lab: Lab, org: OrgFile) -> Estimate:
    """By the working copy's train.py, the lab's role files and the table of prices. Raises BadInput, as these do."""
    plan = render_plan(lab, org, None)
    assert isinstance(plan.settings, PlannerSettings)
    asked = [
        ("plan", IDEAS_PER_EXPERIMENT / plan.settings.proposals, plan),
        ("code", IDEAS_PER_EXPERIMENT, render_code(lab, org, None)),
        ("review", IDEAS_PER_EXPERIMENT, render_review(lab, org, None)),
        ("lesson", 1.0, render_review(lab, org, None, lesson=True)),
    ]
    prices, money = org.prices(lab.root), org.money
    tasks = [
        cost_task(name, conversations, rendered, prices.price(rendered.settings.model or ""))
        for name, conversations, rendered in asked
        if rendered.settings.mind in LANGUAGE
    ]
    return Estimate(tasks, org.budget.experiments, money.campaign_usd, money.experiment_usd, money.call_usd)


def cost_task(name: str, conversations: float, rendered: Rendered, price: Price) -> TaskCost:
    """What a kind of task costs, so many conversations for each experiment."""
    habit, settings, sizes = HABITS[name], rendered.settings, rendered.sizes
    history = settings.digest_tokens if isinstance(settings, PlannerSettings) else 0
    sizes = sizes._replace(task=sizes.task + habit.more_tokens + round(HISTORY_SHARE * history))
    warm = WARM_SHARE[settings.cache]
    usd = read = prompt = 0.0
    for share, found in ((warm, True), (1 - warm, False)):
        calls = conversation(sizes, habit, settings.cache, found)
        usd += share * sum(price.of(usage) for usage in calls) / MILLION
        read += share * sum(usage.cache_read for usage in calls)
        prompt += share * sum(usage.prompt for usage in calls)
    grown = habit.more_tokens + history + (habit.answers - 1) * (habit.output_tokens + habit.result_tokens)
    longest = rendered.request().size_tokens + round(grown * BYTES_PER_TOKEN)
    return TaskCost(
        role=rendered.role,
        task=name,
        model=settings.model or "",
        prompt_tokens=sizes.whole,
        conversations=conversations,
        calls=conversations * habit.answers,
        cached=read / prompt,
        usd=conversations * usd,
        call_at_most_usd=price.at_most(longest, settings.max_tokens) / MILLION,
    )


def conversation(sizes: Sizes, habit: Habit, cache: str, found: bool) -> list[Usage]:
    """What each call of a conversation is billed for: every prompt begins with all of the one before.

    Args:
        sizes: of the first prompt.
        habit: of this kind of task.
        cache: how long the stable part is kept, `5m` or `1h`; all else is kept for five minutes (agents/minds/talk.py).
        found: whether the stable part is in the cache already.
    """
    stable, turn = sizes.stable + sizes.tools, habit.output_tokens + habit.result_tokens
    kept = {"1h": "cache_write_1h", "5m": "cache_write"}[cache]
    first = Usage(cache_write=sizes.task, output=habit.output_tokens)
    first += Usage(cache_read=stable) if found else Usage(**{kept: stable})
    later = (
        Usage(cache_read=sizes.whole + before * turn, cache_write=turn, output=habit.output_tokens)
        for before in range(habit.answers - 1)
    )
    return [first, *later]
