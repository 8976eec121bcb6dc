"""The script: a mind that replays what another one decided. It needs no model, no key and no network.

A script is a file of JSON lines, each what `autoresearch-org ledger export night.jsonl` writes of an experiment, or by hand:

    {"hypothesis": {"title": "…", "change": "…"}, "source": "…", "base": "…"}

`base` is the program that `source` was made from; the campaign's start where it is left out. Ideas are proposed in the order of
their lines, each once. A program lands on the present champion as it would by a merge in git.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from agents.contract import review
from agents.fence import one_line
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.settings import PlannerSettings, Profile, Settings
from agents.syntax import BadCandidate
from agents.three_way import carry
from records import BadInput, Experiment, HeadlineRun, Hypothesis, Record, Review

LANES = ("improve", "simplify")
"""What minds decide; all else in a recorded night is made anew by the campaign that replays it."""


class Decision(Record):
    """One line: an idea, what became of it in code, and what a reviewer said of that."""

    hypothesis: Hypothesis
    source: str
    """The whole train.py."""
    base: str | None = None
    """What it was made from; None for the campaign's start."""
    review: Review | None = None
    """None where the static checks are to judge."""


class Numbered(NamedTuple):
    """A line of the file as it was read."""

    at: str
    """`file:line`."""
    row: Decision | Experiment | HeadlineRun


class Script:
    """Proposes, codes and reviews as it is written.

    Args:
        path: the file, for messages.
        decisions: its lines, by the key of their hypothesis, in order.
    """

    def __init__(self, path: Path, decisions: dict[str, Decision]):
        self.path = path
        self.decisions = decisions

    @classmethod
    def load(cls, path: Path) -> "Script":
        """Read a script.

        Raises:
            BadInput: it is missing, or a line is no decision; names file and line.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); `mind: script` replays what it says") from None
        except UnicodeDecodeError:
            raise BadInput(
                f"{path}: is not UTF-8 text; write it by: autoresearch-org ledger export night.jsonl"
            ) from None
        lines = enumerate(text.split("\n"), 1)  # not splitlines, to which more than "\n" is the end of a line
        rows = [Numbered(at := f"{path}:{n}", read_row(at, line)) for n, line in lines if line.strip()]
        programs = landed([row for _, row in rows if isinstance(row, Experiment)])
        decisions: dict[str, Decision] = {}
        for at, row in rows:
            decision = decision_of(at, row, programs)
            if decision is None:
                continue
            if (key := key_of(decision.hypothesis)) in decisions:
                raise BadInput(f"{at}: this hypothesis stands in an earlier line: each is proposed once")
            decisions[key] = decision
        if not decisions:
            raise BadInput(f"{path}: has no line with a hypothesis and its program: there is nothing to replay")
        return cls(path, decisions)

    def ready(self, settings: Settings) -> None:
        """Always."""

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> None:
        """A script that could be read can be planned from."""

    def propose(self, task: PlanTask) -> list[Hypothesis]:
        """The first idea that was not proposed in this campaign yet; none after the last."""
        proposed = {key_of(experiment.hypothesis) for experiment in task.experiments}
        return [found.hypothesis for key, found in self.decisions.items() if key not in proposed][:1]

    def implement(self, task: CodeTask) -> str:
        """The recorded program on top of the present champion. Raises BadCandidate where both changed the same lines."""
        found = self.decisions.get(key_of(task.hypothesis))
        if found is None:
            raise BadCandidate(f"{self.path} has no line with this hypothesis")
        base = task.start if found.base is None else found.base
        program = carry(base, task.source, found.source, found.hypothesis.knobs, task.profile)
        if program is None:
            raise BadCandidate(
                "the recorded program and the champion's changed the same lines of what it was made from"
            )
        return program

    def judge(self, task: ReviewTask) -> Review:
        """What the recorded reviewer said; the static checks, where there was none."""
        found = self.decisions.get(key_of(task.hypothesis))
        if found is not None and found.review is not None:
            return found.review
        return review(task.candidate, task.parent_source, task.hypothesis, task.profile)

    def learn(self, task: LessonTask) -> None:
        """What was taught then was about another result."""


def key_of(hypothesis: Hypothesis) -> str:
    """What an idea is known by: SHA-256 of its JSON."""
    return hashlib.sha256(hypothesis.model_dump_json().encode()).hexdigest()


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_row(at: str, line: str) -> Decision | Experiment | HeadlineRun:
    """One line, of any form. Raises BadInput."""
    try:
        value = json.loads(line)
        keys = value if isinstance(value, dict) else {}
        form = Experiment if "state" in keys else HeadlineRun if "program" in keys else Decision
        return form.model_validate(value)
    except json.JSONDecodeError as error:
        raise BadInput(f"{at}: not JSON: {error.msg} at column {error.colno}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadInput(f"{at}: {key}: {one_line(first['msg'][:1].lower() + first['msg'][1:])}") from None
    except RecursionError:
        raise BadInput(f"{at}: not JSON that anybody wrote: nested too deeply") from None


def landed(rows: Sequence[Experiment]) -> dict[str, str]:
    """Programs of a recorded night's commits: its merges, and what was measured as it stood on the branch."""
    programs: dict[str, str] = {}
    for row in rows:
        if row.candidate is not None and row.lane == "baseline":
            programs[row.candidate.parent] = row.candidate.source
        elif row.candidate is not None and row.commit is not None:
            programs[row.commit] = row.candidate.source
    return programs


def decision_of(at: str, row: Decision | Experiment | HeadlineRun, programs: dict[str, str]) -> Decision | None:
    """The decision that a line records; None for one that no mind took, or that never came to a program.

    Raises:
        BadInput: nothing says what the program was made from.
    """
    if isinstance(row, Decision):
        return row
    if isinstance(row, HeadlineRun) or row.lane not in LANES or row.candidate is None:
        return None
    base = programs.get(row.candidate.parent)
    if base is None:
        raise BadInput(
            f"{at}: #{row.id} was made from commit {row.candidate.parent[:10]}, and no line has its program: export the whole campaign"
        )
    return Decision(hypothesis=row.hypothesis, source=row.candidate.source, base=base, review=row.review)
