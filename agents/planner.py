"""The planner: reads the ledger, proposes the next change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import failpoint
from agents.bandit import order_of_arms
from agents.digest import Digest, gather
from agents.duplicates import objections
from agents.minds import load_mind
from agents.minds.desk import Desk
from agents.minds.pause import Unavailable
from agents.minds.task import PlanTask
from agents.role import Role, RoleFile
from agents.settings import PlannerSettings, Profile
from ledger import Ledger
from ledger.champion import Champion
from ledger.purse import Broke
from records import Experiment, Hypothesis, State

OPEN = (State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED)
"""Ideas that wait for a result and are not on a device yet."""


class Answer(NamedTuple):
    """What a planner's mind said."""

    mind: str
    desk: Desk
    """At which it was asked."""
    hypotheses: Sequence[Hypothesis]


def check_planner(role: RoleFile, desk: Desk, source: str, profile: Mapping[str, int | float | str]) -> None:
    """Raise BadInput if nothing could be planned for this train.py under this role file."""
    settings = role.load().settings(PlannerSettings)
    load_mind(settings, desk).check(source, settings, dict(profile))


class Planner:
    """Asks its mind once per step. Holds no state: a killed planner loses nothing.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with program.md, roles/ and, if somebody steers, guidance.md.
        desk: what a mind needs that costs money.
        profile: the dataset's suggested sizes, by name.
        max_open: proposals that may wait at a time, all planners together.
        role: role file, if not `roles/planner.md` of the lab.
        program: the user's text, if not `program.md` of the lab.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        lab: Path,
        *,
        desk: Desk | None = None,
        profile: Mapping[str, int | float | str],
        max_open: int,
        role: RoleFile | None = None,
        program: Path | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.lab = lab
        self.desk = desk or Desk("planner", lab)
        self.profile = dict(profile)
        self.max_open = max_open
        self.role = role or RoleFile(lab / "roles" / "planner.md")
        self.program = program or lab / "program.md"

    def step(self) -> bool:
        """Propose once. False when enough ideas wait, or when the mind has no new one.

        Raises:
            BadInput: the role file, program.md or train.py is not usable; the message names the line.
        """
        counts = self.ledger.counts()
        if sum(counts.get(state, 0) for state in OPEN) >= self.max_open:
            return False
        role = self.role.load()
        answer = self.ask(self.task(role))
        failpoint.reach("planner.answered")
        proposed, calls = 0, answer.desk.calls()
        cost = sum(call.microdollars for call in calls)
        for hypothesis in answer.hypotheses:
            number = self.ledger.propose(
                hypothesis,
                author=f"planner/{answer.mind}",
                lane=hypothesis.lane,
                roles={"planner": role.sha256},
                # What one answer holds was asked for when there was room.
                max_open=self.max_open + len(answer.hypotheses) - 1,
                talk=answer.desk.talk if calls else "",
                microdollars=cost // len(answer.hypotheses),
            )
            proposed += number is not None
            failpoint.reach("planner.proposed")
        return proposed > 0

    def ask(self, task: PlanTask) -> Answer:
        """What the first mind says that has ideas; each is asked in a conversation of its own, whose price is borne by no other's ideas.
        Raises Broke or Unavailable if none had, and one might have for money or later."""
        failed: Broke | Unavailable | None = None
        minds = order_of_arms(task, self.desk.spent)
        for mind in minds:
            settings, desk = task.settings.model_copy(update={"mind": mind}), self.desk.at()
            try:
                if hypotheses := load_mind(settings, desk).propose(task):
                    return Answer(mind, desk, hypotheses)
            except (Broke, Unavailable) as error:
                failed = error
        if failed is not None:
            raise failed
        return Answer(minds[0], self.desk.at(), [])

    def task(self, role: Role) -> PlanTask:
        """What the mind is asked, as the ledger stands now."""
        experiments = self.ledger.experiments()
        settings = role.settings(PlannerSettings)
        guidance = self.lab / "guidance.md"
        digest = gather(self.ledger, self.champion, experiments, self.program, guidance, settings)
        return plan_task(role, settings, digest, experiments, self.profile, self.ledger.campaign().seed)


def plan_task(
    role: Role, settings: PlannerSettings, digest: Digest, experiments: list[Experiment], profile: Profile, seed: int
) -> PlanTask:
    """What a planner's mind is asked. Raises BadInput, as the role file does."""
    return PlanTask(
        prompt=role.render({**dict(digest), "proposals": settings.proposals}),
        digest=digest,
        experiments=experiments,
        settings=settings,
        profile=profile,
        seed=seed,
        objections=lambda hypotheses: objections(hypotheses, experiments, digest, settings, profile),
    )
