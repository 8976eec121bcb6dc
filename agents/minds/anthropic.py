"""A language model as planner, coder and reviewer, by Anthropic's Messages API or any server that speaks the same.

What it may do are the tools below; their arguments are records. It never runs anything: a coder's edits are text in memory, and
what it asks to be tried is tried in the sandbox.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from agents.contract import review
from agents.fence import fenced, numbered, one_line
from agents.minds.desk import Desk
from agents.minds.line import Line, TooDear
from agents.minds.pause import Unavailable
from agents.minds.talk import Done, NoAnswer, Tool, Unusable, converse
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.prompt import Prompt
from agents.settings import PlannerSettings, Profile, Settings
from agents.syntax import BadCandidate
from ledger.purse import Broke
from records import SOURCE_LIMIT_BYTES, Hypothesis, Idea, Lesson, Review

T = TypeVar("T")

PLAN_TURNS = 6
REVIEW_TURNS = 4
PREFLIGHT_LIMIT_CHARACTERS = 3000


class Arguments(BaseModel):
    """Of a tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Arguments):
    """A tool without arguments."""


class Proposals(Arguments):
    hypotheses: list[Idea] = Field(
        min_length=1, max_length=8, description="Each one change, independent of the others."
    )


class Lines(Arguments):
    first_line: int = Field(ge=1, description="1-based.")
    last_line: int = Field(ge=1, description="Included.")


class Replacement(Arguments):
    old: str = Field(min_length=1, description="Text that stands in the file exactly once, without line numbers.")
    new: str = Field(description="What to put in its place.")


class WholeFile(Arguments):
    source: str = Field(min_length=1, description="The whole train.py.")


class Summary(Arguments):
    summary: str = Field(max_length=1000, description="What was changed, in a sentence or two.")


class Surrender(Arguments):
    reason: str = Field(
        min_length=1, max_length=500, description="Why the hypothesis cannot be made real in this file."
    )


class Opinion(Arguments):
    approved: bool
    code: str = Field(
        pattern=r"^[a-z_]{2,40}$",
        description="ok, or why not: contract, no_op, seed_only, not_as_promised, confounded, not_worth_it.",
    )
    reason: str = Field(min_length=1, max_length=600, description="One sentence for people.")
    expected_delta_bpb: float = Field(description="Your forecast of the change of val_bpb; negative is better.")
    probability: float = Field(ge=0, le=1, description="Your probability that it merges.")


class Taught(Arguments):
    text: str = Field(min_length=1, max_length=600, description="One or two sentences for planners to come.")


@dataclass(frozen=True)
class Anthropic:
    """Asks a language model.

    Args:
        desk: whose money is spent, and on what.
    """

    desk: Desk

    def ready(self, settings: Settings) -> None:
        """Raise BadInput without a key, for a model without a price, and for what the API says no to. That costs nothing."""

        async def probe() -> None:
            async with Line(settings, self.desk) as line:
                await line.probe()

        asyncio.run(probe())

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> None:
        """It can read any train.py."""

    def propose(self, task: PlanTask) -> list[Hypothesis]:
        """Hypotheses that nobody had before.

        Raises:
            Unavailable: also where the model comes to none: asked again at once, it would only be paid again.
            BadInput, Broke: as agents/minds/line.py.
        """
        try:
            return self.talk(task.settings, task.prompt, [propose_tool(task)], PLAN_TURNS)
        except NoAnswer as error:
            wait_s = task.settings.longest_wait_s
            raise Unavailable(f"{task.settings.model} has no proposal that can be used: {error}", wait_s) from None

    def implement(self, task: CodeTask) -> str:
        """The champion's train.py with the hypothesis made real.

        Raises:
            BadCandidate: the model gave up, took too long, or spent what one experiment may cost; with the last error.
            Unavailable, BadInput, Broke: as agents/minds/line.py.
        """
        bench = Bench(task)
        try:
            return self.talk(task.settings, task.prompt, bench.tools(), task.settings.turns)
        except NoAnswer as error:
            raise BadCandidate(f"not implementable: {bench.last_error or error}") from None
        except TooDear as error:
            raise BadCandidate(f"not implementable: {error}") from None
        except Broke as error:
            if error.of == "experiment":
                raise BadCandidate(
                    "not implementable within the money of one experiment (money.experiment_usd)"
                ) from None
            raise

    def judge(self, task: ReviewTask) -> Review:
        """Whether the candidate deserves time on the device. What static checks refuse is never asked.

        Raises:
            Unavailable, BadInput: as agents/minds/line.py.
        """
        found = review(task.candidate, task.parent_source, task.hypothesis, task.profile)
        if not found.approved:
            return found
        try:
            opinion: Review = self.talk(task.settings, task.prompt, reviewer_tools("review"), REVIEW_TURNS)
            return opinion
        except (NoAnswer, Broke, TooDear):
            return found  # no opinion: the static checks have found nothing, and a measurement decides

    def learn(self, task: LessonTask) -> Lesson | None:
        """What a result teaches; None if the model does not say.

        Raises:
            Unavailable, BadInput, Broke: as agents/minds/line.py.
        """
        try:
            tools = reviewer_tools("lesson", self.desk.role)
            lesson: Lesson = self.talk(task.settings, task.prompt, tools, REVIEW_TURNS)
            return lesson
        except (NoAnswer, Broke, TooDear):
            return None

    def talk(self, settings: Settings, prompt: Prompt, tools: Sequence[Tool[T]], turns: int) -> T:
        """Raises NoAnswer, Unavailable, BadInput, Broke."""

        async def with_line() -> T:
            async with Line(settings, self.desk) as line:
                return await converse(line, prompt, tools, turns=turns)

        return asyncio.run(with_line())


# ---- tools -----------------------------------------------------------------------------------------------------------


def propose_tool(task: PlanTask) -> Tool[list[Hypothesis]]:
    def take(found: Proposals) -> Done[list[Hypothesis]] | str:
        if len(found.hypotheses) > task.settings.proposals:
            raise Unusable(f"at most {task.settings.proposals} hypotheses at a time")
        ideas = [Hypothesis.model_validate(idea.model_dump()) for idea in found.hypotheses]
        objected = zip(ideas, task.objections(ideas), strict=True)
        if wrong := [f"{one_line(idea.title, 120)}: {said}" for idea, said in objected if said is not None]:
            raise Unusable("\n".join(wrong))
        return Done(ideas)

    text = "Propose hypotheses. This ends your task unless one of them was tried before."
    return Tool("propose", text, Proposals, take)


def reviewer_tools(wanted: Literal["review", "lesson"], role: str = "reviewer") -> list[Tool[Any]]:
    """Both tools of a reviewer, whichever is wanted: a prompt begins with its tools, and so both tasks share what the API keeps of it."""

    def opine(opinion: Opinion) -> Done[Review] | str:
        if opinion.approved != (opinion.code == "ok"):
            raise Unusable("code is `ok` exactly where approved is true")
        return Done(Review.model_validate(opinion.model_dump()))

    def teach(taught: Taught) -> Done[Lesson] | str:
        return Done(Lesson(text=one_line(taught.text, 600), author=f"{role}/anthropic"))

    def decline(_: Arguments) -> Done[Any] | str:
        raise Unusable(f"that is not your task now: call {wanted}")

    before = "Before a run: say whether the edit is worth the device's time, and what you expect of it."
    after = "After a run: write down what its result teaches."
    return [
        Tool("review", before, Opinion, opine if wanted == "review" else decline),
        Tool("lesson", after, Taught, teach if wanted == "lesson" else decline),
    ]


@dataclass
class Bench:
    """A coder's edit while it works on it, and the tools it has for that."""

    task: CodeTask
    source: str = ""
    last_error: str = ""
    preflights: int = 0

    def __post_init__(self) -> None:
        self.source = self.task.source

    def tools(self) -> list[Tool[str]]:
        described: list[tuple[str, str, type[BaseModel], Callable[[Any], Done[str] | str]]] = [
            ("view", "Lines of the file as it is now, numbered.", Lines, self.view),
            ("edit", "Replace a text that stands in the file exactly once.", Replacement, self.edit),
            ("write", "Replace the whole file.", WholeFile, self.write),
            ("check", "Syntax, contract and lint of the file as it is now. Costs nothing.", Nothing, self.check),
        ]
        if self.task.preflight is not None and self.task.settings.preflights:
            described.append(
                (
                    "preflight",
                    "Run the file in a sandbox for two tiny steps on the CPU. Takes seconds.",
                    Nothing,
                    self.preflight,
                )
            )
        described += [
            ("submit", "Hand in the file as it is now. This ends your task.", Summary, self.submit),
            ("give_up", "Say that it cannot be done, and why. This ends your task.", Surrender, self.give_up),
        ]
        return [Tool(name, text, takes, partial(self.noting, use)) for name, text, takes, use in described]

    def noting(self, use: Any, arguments: Any) -> Done[str] | str:
        """Use a tool, and remember what went wrong: it is what the ledger says of an idea that could not be coded."""
        try:
            found: Done[str] | str = use(arguments)
            return found
        except Unusable as error:
            self.last_error = one_line(str(error), 400)
            raise

    def view(self, lines: Lines) -> str:
        shown = self.source.split("\n")[lines.first_line - 1 : lines.last_line]
        return fenced(numbered("\n".join(shown), lines.first_line), SOURCE_LIMIT_BYTES + 20_000)

    def edit(self, change: Replacement) -> str:
        count = self.source.count(change.old)
        if count != 1:
            found = "is not in the file" if count == 0 else f"stands {count} times in the file: give more of its lines"
            raise Unusable(f"the text to replace {found}; nothing was changed")
        line = self.source.count("\n", 0, self.source.index(change.old)) + 1
        return self.replace(self.source.replace(change.old, change.new), f"changed at line {line}")

    def write(self, whole: WholeFile) -> str:
        return self.replace(whole.source, "the file is as you wrote it")

    def replace(self, source: str, done: str) -> str:
        size_bytes = len(source.encode(errors="replace"))
        if size_bytes > SOURCE_LIMIT_BYTES:
            raise Unusable(
                f"the file would have {size_bytes} bytes, more than {SOURCE_LIMIT_BYTES}; nothing was changed"
            )
        self.source = source
        return done

    def check(self, _: Nothing) -> str:
        if (complaint := self.task.complaint(self.source)) is not None:
            raise Unusable(complaint)
        return "nothing to complain about"

    def preflight(self, _: Nothing) -> str:
        assert self.task.preflight is not None
        self.check(_)
        if self.preflights >= self.task.settings.preflights:
            raise Unusable("no preflight is left; submit, or give up")
        self.preflights += 1
        tried = self.task.preflight(self.source)
        said = fenced(tried.text, PREFLIGHT_LIMIT_CHARACTERS)
        if tried.outcome == "fails":
            self.last_error = one_line(tried.text[-400:], 400)
        return f"{tried.outcome}:\n{said}"

    def submit(self, _: Summary) -> Done[str]:
        if (complaint := self.task.complaint(self.source)) is not None:
            raise Unusable(f"not accepted: {complaint}")
        return Done(self.source)

    def give_up(self, surrender: Surrender) -> Done[str]:
        raise BadCandidate(f"not implementable: {one_line(surrender.reason, 400)}")
