"""What a planner sees of a campaign: the champion, what merged, what nearly did, what failed and why, what is under way."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from agents.fence import clean, one_line
from ledger import Ledger
from ledger.champion import Champion
from records import BadInput, Campaign, Experiment, Record, State

NEAR_MISSES = 10
DEAD_ENDS = 20
TEXT_LIMIT_CHARACTERS = 20_000
"""Of program.md and guidance.md, each."""

UNDER_WAY = (
    State.PROPOSED,
    State.CLAIMED,
    State.CODED,
    State.QUEUED,
    State.RUNNING,
    State.SCORED,
    State.CONFIRMING,
    State.MERGING,
)
MISSED = (State.WITHIN_NOISE, State.DISCARDED)
DEAD = (State.CRASHED, State.INVALID, State.REFUSED, State.STALE)


class Incumbent(Record):
    """The champion as a planner sees it."""

    commit: str
    val_bpb: float | None
    """Mean over its measurements; None until there is one."""
    source: str


class Judged(Record):
    """An experiment that got a number."""

    id: int
    title: str
    val_bpb: float
    delta_bpb: float
    """Against the champion it was judged against; negative is better."""


class DeadEnd(Record):
    """An experiment that never got a number."""

    id: int
    title: str
    state: str
    reason: str
    """One capped line. It may quote a candidate: data, never instructions."""


class Pending(Record):
    id: int
    title: str
    state: str


class Digest(Record):
    """Everything a planner's prompt may use, by field name."""

    program: str
    guidance: str
    """Text of guidance.md, or nothing."""
    campaign: str
    budget_s: float
    """Training seconds of each experiment."""
    champion: Incumbent
    merges: list[Judged]
    """Oldest first."""
    near_misses: list[Judged]
    """Best first."""
    dead_ends: list[DeadEnd]
    """Newest first."""
    in_flight: list[Pending]
    counts: dict[str, int]
    """Experiments by state."""


def gather(
    ledger: Ledger, champion: Champion, experiments: Sequence[Experiment], program: Path, guidance: Path
) -> Digest:
    """Read what the ledger, the branch and the user's files say now, and summarise it.

    Raises:
        BadInput: program.md is missing or not text.
    """
    commit = champion.head()
    scores = [m.val_bpb for m in ledger.champion_score() if m.val_bpb is not None]
    incumbent = Incumbent(commit=commit, val_bpb=fmean(scores) if scores else None, source=champion.source(commit))
    steering = read(guidance) if guidance.exists() else ""
    return summarise(ledger.campaign(), incumbent, experiments, read(program), steering)


def read(path: Path) -> str:
    """A text that the user wrote, capped. Raises BadInput."""
    try:
        return clean(path.read_text(encoding="utf-8"), TEXT_LIMIT_CHARACTERS)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); it says what to research") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def summarise(
    campaign: Campaign, champion: Incumbent, experiments: Sequence[Experiment], program: str, guidance: str
) -> Digest:
    """The digest of a campaign. Pure."""
    improving = [experiment for experiment in experiments if experiment.is_idea]
    judged = [(experiment.state, row) for experiment in improving if (row := judgement(experiment)) is not None]
    misses = sorted((row for state, row in judged if state in MISSED), key=lambda row: row.delta_bpb)
    dead = [experiment for experiment in reversed(improving) if experiment.state in DEAD]
    states = [experiment.state.value for experiment in experiments]
    return Digest(
        program=program,
        guidance=guidance,
        campaign=campaign.name,
        budget_s=campaign.budget_s,
        champion=champion,
        merges=[row for state, row in judged if state == State.MERGED],
        near_misses=misses[:NEAR_MISSES],
        dead_ends=[dead_end(experiment) for experiment in dead[:DEAD_ENDS]],
        in_flight=[
            Pending(id=e.id, title=one_line(e.hypothesis.title), state=e.state.value)
            for e in improving
            if e.state in UNDER_WAY
        ],
        counts={state: states.count(state) for state in sorted(set(states))},
    )


def judgement(experiment: Experiment) -> Judged | None:
    """The row of an experiment that was judged against a champion with a number."""
    verdict = experiment.verdict
    if verdict is None or verdict.champion_bpb is None or verdict.candidate_bpb is None:
        return None
    return Judged(
        id=experiment.id,
        title=one_line(experiment.hypothesis.title),
        val_bpb=verdict.candidate_bpb,
        delta_bpb=verdict.candidate_bpb - verdict.champion_bpb,
    )


def dead_end(experiment: Experiment) -> DeadEnd:
    """Why an experiment never got a number, in one capped line."""
    failure = next((m.failure for m in reversed(experiment.measurements) if m.failure is not None), None)
    refusal = experiment.review.reason if experiment.review and not experiment.review.approved else ""
    reason = experiment.note or (f"{failure.kind}: {failure.message}" if failure else refusal)
    return DeadEnd(
        id=experiment.id,
        title=one_line(experiment.hypothesis.title),
        state=experiment.state.value,
        reason=one_line(reason),
    )
