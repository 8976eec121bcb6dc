"""Your own agent as planner, coder or reviewer: a command that reads its task from one folder and answers in another.

It runs in a container (sandbox/errand.py), which `Desk.send` stands for: this side knows no sandbox. What comes back is text, and no
better trusted than a model's. The protocol is in docs/bring-your-own-agent.md.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from agents import transcript
from agents.contract import review
from agents.fence import one_line
from agents.minds.desk import Desk, new_id
from agents.minds.pause import Unavailable
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.patch import apply_patch
from agents.prompt import Prompt
from agents.settings import PlannerSettings, Profile, Settings
from agents.syntax import BadCandidate
from ledger.purse import Hold
from records import BadInput, Errand, Hypothesis, Idea, Lesson, Refusal, Returned, Review

T = TypeVar("T")

RETRY_S = 60.0
"""Pause of a planner whose agent failed or had no idea."""
LAST_WORDS = 240
SECRET_CHARACTERS = 8
"""A variable with a shorter value is a setting, and no secret."""
IDEAS = TypeAdapter(list[Idea])


class Failed(Exception):
    """The agent gave no answer that can be used; why, on one line."""


class Ended(NamedTuple):
    """What became of an errand."""

    status: str
    """`ok`, `no_answer`, `secret`, or what became of the container: `timeout`, `crash`, `oom`, `invalid`."""
    complaint: str | None
    """Why nothing of it can be used, unless it is `ok`."""


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
        secrets = secrets_in(errand.variables)
        hold, began = self.reserve(settings), time.monotonic()
        exchange: dict[str, Any] = {"request": request_of(settings, prompt, files)}
        status = "cancelled"  # what is booked if this process is told to stop meanwhile
        try:
            returned = self.desk.send(errand)
            status, complaint = ended(returned, errand)
            exchange["reply"] = reply_of(returned)
            if complaint is not None:
                exchange["error"] = complaint
        except Refusal as refused:
            status, exchange["error"] = "not_sent", str(refused)
            raise
        finally:
            self.book(hold, status, exchange, time.monotonic() - began, secrets)
        if complaint is not None:
            said = one_line(transcript.redact(returned.log, secrets)[-LAST_WORDS:], LAST_WORDS) or "nothing"
            raise Failed(f"{one_line(transcript.redact(complaint, secrets), 400)} (its last words: {said})")
        return returned.files

    def reserve(self, settings: Settings) -> Hold | None:
        """Announce the errand, so that one is known of which nobody came back. None where there is no campaign."""
        desk = self.desk
        if desk.purse is None:
            return None
        name = one_line((settings.agent or Path(settings.command[0])).name, 100)
        return desk.purse.reserve(new_id(), desk.talk, desk.role, name, desk.experiment, 0, errand=True)

    def book(
        self, hold: Hold | None, status: str, exchange: dict[str, Any], seconds: float, secrets: Sequence[str]
    ) -> None:
        """Write down what it was asked, what it said and how it ended."""
        if self.desk.purse is None or hold is None:
            return
        sha256 = ""
        if self.desk.transcripts is not None:
            sha256 = transcript.write(self.desk.transcripts, hold.call, exchange, secrets)
        self.desk.purse.book(hold, hold.ended(status, 0, seconds=round(seconds, 3), sha256=sha256))

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


# ---- its transcript --------------------------------------------------------------------------------------------------


def request_of(settings: Settings, prompt: Prompt, files: Mapping[str, str]) -> dict[str, Any]:
    """What an agent is told, in the words of the Messages API. Of its environment the names."""
    given = {"command": settings.command, "network": settings.network, "environment": settings.environment}
    system = [block(prompt.stable)] if prompt.stable else []
    task = [block(prompt.task), *(block(text, f"/task/{name}") for name, text in files.items())]
    return {**given, "system": system, "messages": [{"role": "user", "content": task}]}


def reply_of(returned: Returned) -> dict[str, Any]:
    """What it left, and the end of its output."""
    left = [block(text, f"/answer/{name}") for name, text in returned.files.items()]
    return {"content": [*left, *([block(returned.log, "the end of its output")] if returned.log else [])]}


def block(text: str, title: str = "") -> dict[str, Any]:
    return {"type": "text", "text": f"{title}:\n{text}" if title else text}


def ended(returned: Returned, errand: Errand) -> Ended:
    """What became of it, as far as that can be said without reading the answer."""
    if returned.failure is not None:
        return Ended(returned.failure.kind.value, returned.failure.message)
    if any(value in text for value in values_in(errand.variables) for text in returned.files.values()):
        return Ended("secret", "its answer holds a value of its environment")
    if not returned.files:
        return Ended("no_answer", f"it left no {' and no '.join(errand.answers)} in /answer")
    return Ended("ok", None)


def values_in(variables: Mapping[str, str]) -> list[str]:
    """What nobody else may read."""
    return [value for value in variables.values() if len(value) >= SECRET_CHARACTERS]


def secrets_in(variables: Mapping[str, str]) -> list[str]:
    """What is blotted out: these, and each line of them, since the end of an output may begin within one. The longest first."""
    lines = {line for value in values_in(variables) for line in (value, *value.splitlines())}
    return sorted((line for line in lines if len(line) >= SECRET_CHARACTERS), key=lambda line: (-len(line), line))
