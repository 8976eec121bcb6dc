"""The planner: reads the ledger, proposes the next change."""

from collections.abc import Mapping
from pathlib import Path

import failpoint
from agents.digest import gather
from agents.minds import load_mind
from agents.minds.task import PlanTask
from agents.role import Role
from agents.settings import PlannerSettings
from ledger import Ledger
from ledger.champion import Champion
from records import State

OPEN = (State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED)
"""Ideas that wait for a result and are not on a device yet."""


def check_planner(role: Path, source: str, profile: Mapping[str, int | float | str]) -> None:
    """Raise BadInput if nothing could be planned for this train.py under this role file."""
    settings = Role.load(role).settings(PlannerSettings)
    load_mind(settings.mind).check(source, settings, dict(profile))


class Planner:
    """Proposes one hypothesis per step. Holds no state: a killed planner loses nothing.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with program.md, roles/ and, if somebody steers, guidance.md.
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
        profile: Mapping[str, int | float | str],
        max_open: int,
        role: Path | None = None,
        program: Path | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.lab = lab
        self.profile = dict(profile)
        self.max_open = max_open
        self.role = role or lab / "roles" / "planner.md"
        self.program = program or lab / "program.md"

    def step(self) -> bool:
        """Propose once. False when enough ideas wait, or when the mind has no new one.

        Raises:
            BadInput: the role file, program.md or train.py is not usable; the message names the line.
        """
        counts = self.ledger.counts()
        if sum(counts.get(state, 0) for state in OPEN) >= self.max_open:
            return False
        role = Role.load(self.role)
        task = self.task(role)
        mind = role.settings(PlannerSettings).mind
        hypothesis = load_mind(mind).propose(task)
        if hypothesis is None:
            return False
        failpoint.reach("planner.answered")
        number = self.ledger.propose(
            hypothesis,
            author=f"planner/{mind}",
            lane=hypothesis.lane,
            roles={"planner": role.sha256},
            max_open=self.max_open,
        )
        failpoint.reach("planner.proposed")
        return number is not None

    def task(self, role: Role) -> PlanTask:
        """What the mind is asked, as the ledger stands now."""
        experiments = self.ledger.experiments()
        digest = gather(self.ledger, self.champion, experiments, self.program, self.lab / "guidance.md")
        return PlanTask(
            prompt=role.render(dict(digest)),
            digest=digest,
            experiments=experiments,
            settings=role.settings(PlannerSettings),
            profile=self.profile,
            seed=self.ledger.campaign().seed,
        )
