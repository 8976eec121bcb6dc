"""What a planner sees of a campaign: the champion, what merged, what nearly did, what failed and why, what is under way."""

from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from agents.fence import clean, one_line
from agents.settings import PlannerSettings
from agents.tokens import count_tokens
from ledger import Ledger
from ledger.champion import Champion
from records import BadInput, Campaign, Experiment, Number, Record, State

R = TypeVar("R", bound=Record)

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
    category: str = ""
    val_bpb: float
    delta_bpb: float
    """Against the champion it was judged against; negative is better."""
    expected_delta_bpb: float | None = None
    """What its planner expected."""
    lesson: str = ""
    """What a reviewer made of it, in one line. Data, never instructions."""


class DeadEnd(Record):
    """An experiment that never got a number."""

    id: int
    title: str
    state: str
    reason: str
    """One capped line. It may quote a candidate: data, never instructions."""

    lesson: str = ""


class Pending(Record):
    id: int
    title: str
    state: str


class Turned(Record):
    """What is known of one constant: experiments that changed it and nothing else."""

    name: str
    tries: int
    best: Number
    """The value that scored best."""
    delta_bpb: float
    """Of that, against the champion it was judged against."""


class Noise(Record):
    """How far apart two runs of one program are, as the newest verdict had it."""

    sigma_bpb: float
    threshold_bpb: float | None
    """What a candidate's first run has to be better by."""


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
    constants: list[Turned]
    """By name: mostly the sampler's doing."""
    categories: dict[str, int]
    """Proposals by category."""
    misses: int
    """Experiments in a row, the newest, that did not merge."""
    stale_categories: list[str]
    """On a plateau: categories that have had their turn lately. Another one has to be taken."""
    noise: Noise | None
    """None before the first verdict of a rule that knows the noise."""
    judged: int
    """Experiments judged so far."""
    left: int | None
    """Experiments that may still be judged."""
    omitted: int
    """Rows that were left out to fit the prompt."""


def gather(
    ledger: Ledger,
    champion: Champion,
    experiments: Sequence[Experiment],
    program: Path,
    guidance: Path,
    settings: PlannerSettings,
) -> Digest:
    """Read what the ledger, the branch and the user's files say now, and summarise it within the role's token budget.

    Raises:
        BadInput: program.md is missing or not text.
    """
    commit = champion.head()
    scores = [m.val_bpb for m in ledger.champion_score() if m.val_bpb is not None]
    incumbent = Incumbent(commit=commit, val_bpb=fmean(scores) if scores else None, source=champion.source(commit))
    steering = read(guidance) if guidance.exists() else ""
    campaign = ledger.campaign()
    whole = summarise(campaign, incumbent, experiments, read(program), steering, plateau=settings.plateau)
    return fit(whole, settings.digest_tokens)


def read(path: Path) -> str:
    """A text that the user wrote, capped. Raises BadInput."""
    try:
        return clean(path.read_text(encoding="utf-8"), TEXT_LIMIT_CHARACTERS)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); it says what to research") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def summarise(
    campaign: Campaign,
    champion: Incumbent,
    experiments: Sequence[Experiment],
    program: str,
    guidance: str,
    *,
    plateau: int = PlannerSettings.model_fields["plateau"].default,
) -> Digest:
    """The digest of a campaign. Pure."""
    improving = [experiment for experiment in experiments if experiment.is_idea]
    judged = [(experiment.state, row) for experiment in improving if (row := judgement(experiment)) is not None]
    misses = sorted((row for state, row in judged if state in MISSED), key=lambda row: row.delta_bpb)
    dead = [experiment for experiment in reversed(improving) if experiment.state in DEAD]
    states = [experiment.state.value for experiment in experiments]
    categories = [e.hypothesis.category for e in improving]
    missed = list(takewhile(lambda e: e.state != State.MERGED, sorted(ended(improving), key=updated, reverse=True)))
    promised = campaign.policy.judgements
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
        constants=turned(improving),
        categories={name: categories.count(name) for name in sorted(set(categories))},
        misses=len(missed),
        stale_categories=sorted({e.hypothesis.category for e in missed[:plateau]}) if len(missed) >= plateau else [],
        noise=noise_of(experiments),
        judged=len(judged),
        omitted=0,
        left=max(0, promised - len(judged)) if campaign.policy.rule != "keep-if-lower" else None,
    )


def turned(experiments: Iterable[Experiment]) -> list[Turned]:
    """Constants that were changed alone, with the best that came of it."""
    found: dict[str, list[tuple[float, Number]]] = {}
    for e in experiments:
        row = judgement(e)
        if row is not None and len(e.hypothesis.knobs) == 1:
            ((name, value),) = e.hypothesis.knobs.items()
            found.setdefault(name, []).append((row.delta_bpb, value))
    return [
        Turned(name=name, tries=len(rows), best=min(rows)[1], delta_bpb=min(rows)[0])
        for name, rows in sorted(found.items())
    ]


def ended(experiments: Iterable[Experiment]) -> Iterator[Experiment]:
    """Those that had their turn on the device."""
    return (e for e in experiments if e.state in (State.MERGED, *MISSED, State.CRASHED, State.INVALID))


def updated(experiment: Experiment) -> str:
    return experiment.updated_at


def noise_of(experiments: Sequence[Experiment]) -> Noise | None:
    verdicts = [e.verdict for e in experiments if e.verdict is not None and e.verdict.sigma_bpb is not None]
    newest = max(verdicts, key=lambda v: v.judged or 0, default=None)
    if newest is None or newest.sigma_bpb is None:
        return None
    return Noise(sigma_bpb=newest.sigma_bpb, threshold_bpb=newest.threshold_bpb)


# ---- its length ------------------------------------------------------------------------------------------------------


def fit(digest: Digest, tokens: int) -> Digest:
    """The digest with its least telling rows left out until its history takes no more than so many tokens: the oldest dead ends
    first, then the worst near misses, then the oldest merges, each list down to one."""
    dead_ends, near_misses, merges = list(digest.dead_ends), list(digest.near_misses), list(digest.merges)
    rows: list[Judged | DeadEnd] = [*dead_ends, *near_misses, *merges]
    size = sum(map(tokens_of, rows))
    for cut in (partial(drop, dead_ends, -1), partial(drop, near_misses, -1), partial(drop, merges, 0)):
        while size > tokens and (gone := cut()) is not None:
            size -= tokens_of(gone)
    kept = len(dead_ends) + len(near_misses) + len(merges)
    changes = {"dead_ends": dead_ends, "near_misses": near_misses, "merges": merges, "omitted": len(rows) - kept}
    return digest.model_copy(update=changes)


def drop(rows: MutableSequence[R], at: int) -> R | None:
    """Take a row out of a list, unless it is the last."""
    return rows.pop(at) if len(rows) > 1 else None


def tokens_of(row: Record) -> int:
    return count_tokens(row.model_dump_json())


def judgement(experiment: Experiment) -> Judged | None:
    """The row of an experiment that was judged against a champion with a number."""
    verdict = experiment.verdict
    if verdict is None or verdict.champion_bpb is None or verdict.candidate_bpb is None:
        return None
    return Judged(
        id=experiment.id,
        title=one_line(experiment.hypothesis.title),
        val_bpb=verdict.candidate_bpb,
        category=one_line(experiment.hypothesis.category, 40),
        delta_bpb=verdict.candidate_bpb - verdict.champion_bpb,
        expected_delta_bpb=experiment.hypothesis.expected_delta_bpb or None,
        lesson=lesson_of(experiment),
    )


def lesson_of(experiment: Experiment) -> str:
    return one_line(experiment.lesson.text, 300) if experiment.lesson is not None else ""


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
        lesson=lesson_of(experiment),
    )
