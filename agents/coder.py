"""The coder: turns a hypothesis into a whole train.py."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import failpoint
from agents.contract import complaint, make_candidate
from agents.knobs import set_knobs
from agents.minds import load_mind
from agents.minds.desk import Desk
from agents.minds.task import CodeTask
from agents.recombine import LANES, recombine
from agents.role import Role, RoleFile
from agents.settings import COMMAND, LANGUAGE, CoderSettings, Profile
from agents.syntax import BadCandidate
from agents.three_way import merge
from ledger import Ledger
from ledger.champion import Champion
from ledger.purse import Broke
from records import Candidate, Experiment, Hypothesis, Preflighted


class Coder:
    """Writes one candidate per step, always on top of the present champion.

    No mind is asked where the program follows from earlier experiments (agents/recombine.py).

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        lab: folder with roles/.
        desk: what a mind needs that costs money.
        profile: the dataset's suggested sizes, by name.
        preflight: runs two tiny steps of a program in the sandbox, where there is one.
        role: role file, if not `roles/coder.md` of the lab.
        worker: name under which ideas are claimed, if not `coder@host:pid`.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        lab: Path,
        *,
        desk: Desk | None = None,
        profile: Mapping[str, int | float | str],
        preflight: Callable[[str], Preflighted] | None = None,
        role: RoleFile | None = None,
        worker: str | None = None,
    ):
        self.ledger = ledger
        self.champion = champion
        self.desk = desk or Desk("coder", lab)
        self.profile = dict(profile)
        self.preflight = preflight
        self.role = role or RoleFile(lab / "roles" / "coder.md")
        self.worker = worker or f"coder@{socket.gethostname()}:{os.getpid()}"

    def step(self) -> bool:
        """Code the oldest idea. False when there is none.

        An idea that cannot be coded is refused with the reason. Whatever else goes wrong gives the idea back first.

        Raises:
            BadInput: the role file is not usable; the message names the line.
        """
        role = self.role.load()
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
        except Broke:
            # Given back, it would be the oldest again, and in the way of those that need no money.
            self.ledger.refuse(experiment.id, "there is no money left to code it ([money] of the org file)", hands)
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
        start = self.champion.source(self.ledger.campaign().base)
        task = code_task(role, experiment.hypothesis, source, start, self.profile, self.preflight)
        if (known := self.known(task, experiment.candidate)) is not None:
            return make_candidate(parent, source, known)
        mind = load_mind(task.settings, self.desk.at(experiment.id))
        return make_candidate(parent, source, mind.implement(task))

    def known(self, task: CodeTask, before: Candidate | None) -> str | None:
        """The program, where a mind that is paid need not be asked: a change of nothing but constants, or what it wrote for an earlier
        champion, unless both changed the same lines, or the checks have something against it. Raises BadCandidate for constants that
        cannot be set."""
        if task.settings.mind not in LANGUAGE | COMMAND:
            return None
        if task.hypothesis.knobs:
            return set_knobs(task.source, task.hypothesis.knobs, self.profile)
        if before is None:
            return None
        program = merge(self.champion.source(before.parent), task.source, before.source)
        return program if program is not None and task.complaint(program) is None else None


def code_task(
    role: Role,
    hypothesis: Hypothesis,
    source: str,
    start: str,
    profile: Profile,
    preflight: Callable[[str], Preflighted] | None,
) -> CodeTask:
    """What a coder's mind is asked: a hypothesis to be made real in this train.py. Raises BadInput, as the role file does."""
    return CodeTask(
        prompt=role.render({"hypothesis": hypothesis, "source": source}),
        hypothesis=hypothesis,
        source=source,
        start=start,
        profile=profile,
        settings=role.settings(CoderSettings),
        complaint=lambda program: complaint(program, source, hypothesis, profile),
        preflight=preflight,
    )
