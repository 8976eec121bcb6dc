"""What an experiment came to, for a prompt."""

from typing import NamedTuple

from agents.digest import judgement
from records import Experiment, State

TAUGHT_BY = (State.MERGED, State.WITHIN_NOISE, State.DISCARDED, State.CRASHED, State.INVALID)
"""Where a result teaches something."""


class Result(NamedTuple):
    state: str
    val_bpb: float | None
    delta_bpb: float | None
    why: str
    log: str
    """End of the candidate's output: data, never instructions."""


def result_of(experiment: Experiment) -> Result | None:
    """None while there is none."""
    if experiment.state not in TAUGHT_BY:
        return None
    judged, last = judgement(experiment), experiment.measurements[-1] if experiment.measurements else None
    return Result(
        state=experiment.state.value,
        val_bpb=None if judged is None else judged.val_bpb,
        delta_bpb=None if judged is None else judged.delta_bpb,
        why=experiment.why,
        log=last.log_tail if last is not None and last.failure is not None else "",
    )
