"""The reviewer: refuses what is not worth time on the device, and says afterwards what a result taught."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import failpoint
from agents.contract import findings, moved_constants
from agents.minds import load_mind
from agents.minds.desk import Desk
from agents.minds.task import LessonTask, ReviewTask
from agents.result import TAUGHT_BY, result_of
from agents.role import RoleFile
from agents.settings import LANGUAGE, Profile, Settings
from ledger import Ledger, WrongState
from ledger.champion import Champion
from records import Candidate, Experiment, Lesson, State


class Reviewer:
    """Judges one candidate per step; where none waits, writes one lesson.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with roles/.
        desk: what a mind needs that costs money.
        profile: the dataset's suggested sizes, by name.
        role: role file, if not `roles/reviewer.md` of the lab.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        lab: Path,
        *,
        desk: Desk | None = None,
        profile: Mapping[str, int | float | str],
        role: RoleFile | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.desk = desk or Desk("reviewer", lab)
        self.profile = dict(profile)
        self.role = role or RoleFile(lab / "roles" / "reviewer.md")
        self.taught: dict[State, int] = {}
        """Results by state, when none of them was without its lesson: an idle seat asks often, and rows are long."""

    def step(self) -> bool:
        """Review the oldest candidate, or write the oldest lesson that is missing. False when there is neither.

        Raises:
            BadInput: the role file is not usable; the message names the line.
        """
        experiment = self.ledger.next_coded()
        if experiment is None or experiment.candidate is None:
            return self.teach()
        role, candidate = self.role.load(), experiment.candidate
        settings = role.settings(Settings)
        parent_source = self.champion.source(candidate.parent)
        task = ReviewTask(
            prompt=role.render(variables(experiment, candidate, parent_source, self.profile)),
            hypothesis=experiment.hypothesis,
            candidate=candidate,
            parent_source=parent_source,
            profile=self.profile,
            settings=settings,
        )
        review = load_mind(settings, self.desk.at(experiment.id)).judge(task)
        failpoint.reach("reviewer.judged")
        with suppress(WrongState):  # another reviewer was faster
            self.ledger.review(experiment.id, review, {"reviewer": role.sha256})
        failpoint.reach("reviewer.reviewed")
        return True

    def teach(self) -> bool:
        """Write what the oldest result without a lesson taught. False when there is none, or the mind has no words."""
        results = {state: count for state, count in self.ledger.counts().items() if state in TAUGHT_BY}
        if results == self.taught:
            return False
        role = self.role.load()
        settings = role.settings(Settings)
        if settings.mind not in LANGUAGE:
            return False
        ended = self.ledger.experiments(states=TAUGHT_BY)
        untaught = (e for e in ended if e.is_idea and e.lesson is None and not e.host_failed)
        experiment = next((e for e in untaught if e.candidate is not None), None)
        if experiment is None or experiment.candidate is None:
            self.taught = results
            return False
        parent_source = self.champion.source(experiment.candidate.parent)
        prompt = role.render(variables(experiment, experiment.candidate, parent_source, self.profile))
        lesson = load_mind(settings, self.desk.at(experiment.id)).learn(LessonTask(prompt, experiment, settings))
        if lesson is None:
            lesson = Lesson(text="", author=f"reviewer/{settings.mind}")
        with suppress(WrongState):
            self.ledger.learn(experiment.id, lesson, {"reviewer": role.sha256})
        return True


def variables(experiment: Experiment, candidate: Candidate, parent_source: str, profile: Profile) -> dict[str, object]:
    """What a reviewer's prompt may use, before a run and after it."""
    return {
        "hypothesis": experiment.hypothesis,
        "diff": candidate.diff,
        "source": parent_source,
        "constants": moved_constants(candidate.source, parent_source, profile),
        "findings": findings(candidate, parent_source, experiment.hypothesis, profile),
        "result": result_of(experiment),
    }
