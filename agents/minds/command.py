"""Your own agent as planner, coder or reviewer: a command that reads its task from one folder and answers in another.

It runs in a container (sandbox/errand.py), which `Desk.send` stands for: this side knows no sandbox. What comes back is text, and no
better trusted than a model's. The protocol is in docs/bring-your-own-agent.md.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from agents import transcript
from agents.contract import review
from agents.fence import one_line
from agents.minds.desk import Desk
from agents.minds.pause import Unavailable
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.patch import apply_patch
from agents.prompt import Prompt
from agents.settings import PlannerSettings, Profile, Settings
from agents.syntax import BadCandidate
from records import BadInput, Errand, Hypothesis, Idea, Lesson, Returned, Review

T = TypeVar("T")

RETRY_S = 60.0
"""Pause of a planner whose agent failed or had no idea."""
LAST_WORDS = 240
SECRET_CHARACTERS = 8
"""A variable with a shorter value is a setting, and no secret."""
IDEAS = TypeAdapter(list[Idea])


class Failed(Exception):
    """The agent gave no answer that can be used; why, on one line."""


@dataclass(frozen=True)
class Command:
    """Sends an agent.

    Args:
        desk: by which it is sent.
    """

    desk: Desk

    def ready(self, settings: Settings) -> None:
        """Raise BadInput where its folder or a variable is missing."""
        self.folder(settings)
        self.variables(settings)

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> None:
        """It can read any train.py."""

    def propose(self, task: PlanTask) -> list[Hypothesis]:
        """Hypotheses that nobody had before: those of its hypotheses.json that nothing is to be said against.

        Raises:
            Unavailable: it failed, or has none now.
            BadInput, HostFault: as `ask`.
        """
        try:
            files = {"train.py": task.digest.champion.source}
            found = self.ask(task.settings, task.prompt, files, ["hypotheses.json"])
            ideas = read(IDEAS, "hypotheses.json", found["hypotheses.json"])[: task.settings.proposals]
        except Failed as error:
            raise Unavailable(f"its command gave no answer: {error}", RETRY_S) from None
        hypotheses = [Hypothesis.model_validate(idea.model_dump()) for idea in ideas]
        fresh = [h for h, said in zip(hypotheses, task.objections(hypotheses), strict=True) if said is None]
        if not fresh:
            raise Unavailable("its command had no idea that was not tried before", RETRY_S)
        return fresh

    def implement(self, task: CodeTask) -> str:
        """The champion's train.py as the agent leaves it.

        Raises:
            BadCandidate: it failed, or what it left cannot be a candidate; with the end of its output.
            BadInput, HostFault: as `ask`.
        """
        try:
            files = {"train.py": task.source, "hypothesis.json": pretty(task.hypothesis)}
            found = self.ask(task.settings, task.prompt, files, ["train.py", "patch.diff"])
            if len(found) > 1:
                raise Failed("it left both train.py and patch.diff: which of them is it?")
            whole = found.get("train.py")
            source = apply_patch(task.source, found["patch.diff"], "train.py") if whole is None else whole
            if (complaint := task.complaint(source)) is not None:
                raise Failed(one_line(complaint, 400))
            return source
        except (Failed, BadCandidate) as error:
            raise BadCandidate(f"not implementable: {error}") from None

    def judge(self, task: ReviewTask) -> Review:
        """What its review.json says; the static checks alone where they refuse, or where it says nothing that can be used.

        Raises:
            BadInput, HostFault: as `ask`.
        """
        checked = review(task.candidate, task.parent_source, task.hypothesis, task.profile)
        if not checked.approved:
            return checked
        files = {
            "train.py": task.parent_source,
            "candidate.py": task.candidate.source,
            "hypothesis.json": pretty(task.hypothesis),
        }
        try:
            found = self.ask(task.settings, task.prompt, files, ["review.json"])
            said = read(TypeAdapter(Review), "review.json", found["review.json"])
        except Failed:
            return checked  # no opinion: a measurement decides
        return said if said.approved == (said.code == "ok") else checked

    def learn(self, task: LessonTask) -> Lesson | None:
        """It is not asked."""
        return None

    # ---- the errand --------------------------------------------------------------------------------------------------

    def ask(self, settings: Settings, prompt: Prompt, files: Mapping[str, str], answers: list[str]) -> dict[str, str]:
        """Send the agent with a prompt (task.md) and files; at least one of the answers, by name.

        Raises:
            Failed: it left none, or did not end well.
            BadInput: it cannot be sent under this role file.
            HostFault: the sandbox failed.
        """
        if self.desk.send is None:
            raise BadInput(f"the {self.desk.role} got `mind: command` while the org was running: stop it, and resume")
        errand = Errand(
            command=settings.command,
            agent=self.folder(settings),
            files={"task.md": prompt.text, **files},
            answers=answers,
            timeout_s=settings.timeout_s,
            hosts=settings.network,
            variables=self.variables(settings),
        )
        returned = self.desk.send(errand)
        secrets = [value for value in errand.variables.values() if len(value) >= SECRET_CHARACTERS]
        complaint = returned.complaint
        if complaint is None and any(secret in text for secret in secrets for text in returned.files.values()):
            complaint = "its answer holds a value of its environment"
        if complaint is None and not returned.files:
            complaint = f"it left no {' and no '.join(answers)} in /answer"
        self.keep(errand, returned, complaint, secrets)
        if complaint is not None:
            said = one_line(returned.log[-LAST_WORDS:], LAST_WORDS) or "nothing"
            raise Failed(transcript.redact(f"{one_line(complaint, 400)} (its last words: {said})", secrets))
        return returned.files

    def keep(self, errand: Errand, returned: Returned, complaint: str | None, secrets: list[str]) -> None:
        """Write down what it was asked and what it said."""
        if self.desk.transcripts is None:
            return
        about = "plan" if self.desk.experiment is None else str(self.desk.experiment)
        exchange = {
            "request": errand.model_dump(mode="json", exclude={"variables"}),
            "reply": {"files": returned.files, "log": returned.log},
            **({} if complaint is None else {"error": complaint}),
        }
        transcript.write(self.desk.transcripts, f"{self.desk.role}-{about}-{self.desk.talk}", exchange, secrets)

    def folder(self, settings: Settings) -> Path | None:
        """What is mounted as /agent. Raises BadInput for one that is not a folder of the lab, or hidden in it: our own are."""
        if settings.agent is None:
            return None
        lab = self.desk.lab.resolve()
        folder = (lab / settings.agent).resolve()
        if lab not in folder.parents or any(part.startswith(".") for part in folder.relative_to(lab).parts):
            raise BadInput(f"agent: {settings.agent} is no folder in {lab} that an agent may see: put it beside roles/")
        if not folder.is_dir():
            raise BadInput(f"agent: there is no folder {folder}")
        return folder

    def variables(self, settings: Settings) -> dict[str, str]:
        """Raises BadInput where one is missing."""
        found = {name: self.desk.keys.get(name, os.environ.get(name)) for name in settings.environment}
        if missing := [name for name, value in found.items() if value is None]:
            raise BadInput(f"environment: {', '.join(missing)} is not set: export it before you launch")
        return {name: value for name, value in found.items() if value is not None}


def pretty(record: BaseModel) -> str:
    return record.model_dump_json(indent=2) + "\n"


def read(adapter: TypeAdapter[T], name: str, text: str) -> T:
    """A JSON file of the agent's as a record. Raises Failed."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Failed(one_line(f"{name}: {key}: {first['msg']}", 300)) from None
