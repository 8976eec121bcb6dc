"""The reviewer: refuses what is not worth time on the device."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import failpoint
from agents.minds import load_mind
from agents.minds.task import ReviewTask
from agents.role import Role
from agents.settings import Settings
from ledger import Ledger, WrongState
from ledger.champion import Champion


class Reviewer:
    """Judges one candidate per step.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with roles/.
        profile: the dataset's suggested sizes, by name.
        role: role file, if not `roles/reviewer.md` of the lab.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        lab: Path,
        *,
        profile: Mapping[str, int | float | str],
        role: Path | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.lab = lab
        self.profile = dict(profile)
        self.role = role or lab / "roles" / "reviewer.md"

    def step(self) -> bool:
        """Review the oldest candidate. False when there is none.

        Raises:
            BadInput: the role file is not usable; the message names the line.
        """
        experiment = self.ledger.next_coded()
        if experiment is None or experiment.candidate is None:
            return False
        role = Role.load(self.role)
        candidate = experiment.candidate
        prompt = role.render({"hypothesis": experiment.hypothesis, "diff": candidate.diff})
        parent_source = self.champion.source(candidate.parent)
        task = ReviewTask(prompt, experiment.hypothesis, candidate, parent_source, self.profile)
        review = load_mind(role.settings(Settings), self.lab).judge(task)
        failpoint.reach("reviewer.judged")
        with suppress(WrongState):  # another reviewer was faster
            self.ledger.review(experiment.id, review, {"reviewer": role.sha256})
        failpoint.reach("reviewer.reviewed")
        return True
