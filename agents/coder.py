"""The coder: turns a hypothesis into a whole train.py."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import failpoint
from agents.contract import make_candidate
from agents.minds import load_mind
from agents.minds.task import CodeTask
from agents.recombine import LANES, recombine
from agents.role import Role
from agents.settings import Settings
from agents.syntax import BadCandidate
from ledger import Ledger
from ledger.champion import Champion
from records import Candidate, Experiment


class Coder:
    """Writes one candidate per step, always on top of the present champion.

    No mind is asked where the program follows from earlier experiments (agents/recombine.py).

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with roles/.
        profile: the dataset's suggested sizes, by name.
        role: role file, if not `roles/coder.md` of the lab.
        worker: name under which ideas are claimed, if not `coder@host:pid`.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        lab: Path,
        *,
        profile: Mapping[str, int | float | str],
        role: Path | None = None,
        worker: str | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.lab = lab
        self.profile = dict(profile)
        self.role = role or lab / "roles" / "coder.md"
        self.worker = worker or f"coder@{socket.gethostname()}:{os.getpid()}"

    def step(self) -> bool:
        """Code the oldest idea. False when there is none.

        An idea that cannot be coded is refused with the reason. Whatever else goes wrong gives the idea back first.

        Raises:
            BadInput: the role file is not usable; the message names the line.
        """
        role = Role.load(self.role)
        experiment = self.ledger.claim(self.worker)
        if experiment is None:
            return False
        failpoint.reach("coder.claimed")
        hands = {} if experiment.lane in LANES else {"coder": role.sha256}
        try:
            candidate = self.candidate(role, experiment)
        except BadCandidate as error:
            self.ledger.refuse(experiment.id, str(error), hands)
            return True
        except BaseException:
            self.ledger.release(experiment.id)
            raise
        failpoint.reach("coder.written")
        self.ledger.code(experiment.id, candidate, hands)
        failpoint.reach("coder.coded")
        return True

    def candidate(self, role: Role, experiment: Experiment) -> Candidate:
        """The experiment's idea on top of the present champion. Raises BadCandidate."""
        parent = self.champion.head()
        source = self.champion.source(parent)
        if experiment.lane in LANES:
            rows = self.ledger.rows(experiment.hypothesis.of)
            program = recombine(experiment.lane, experiment.hypothesis, rows, self.champion, source, self.profile)
            return make_candidate(parent, source, program)
        prompt = role.render({"hypothesis": experiment.hypothesis, "source": source})
        start = self.champion.source(self.ledger.campaign().base)
        task = CodeTask(prompt, experiment.hypothesis, source, start, self.profile)
        return make_candidate(parent, source, load_mind(role.settings(Settings), self.lab).implement(task))
