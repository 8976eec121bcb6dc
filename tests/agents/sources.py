"""Small train.py files on which the agents are tried, and rows of a ledger made from them."""

from collections.abc import Callable, Sequence

from agents.contract import make_candidate
from agents.digest import Incumbent, summarise
from agents.knobs import resolve, set_knobs
from agents.minds.sampler import Sampler
from agents.minds.task import CodeTask, PlanTask, ReviewTask
from agents.prompt import Prompt
from agents.settings import CoderSettings, PlannerSettings, Profile, Settings
from records import Campaign, Candidate, Experiment, Hashes, Hypothesis, Measurement, State, Verdict

NOTHING_SAID = Prompt("", "")
PROFILE: Profile = {"depth": 4, "window_pattern": "SSSL", "warmdown_ratio": 0.5}

TRAIN = '''"""A train.py that keeps the contract and trains nothing."""

import torch
from prepare import PROFILE, SEED, start_clock, submit

MATRIX_LR = 0.04        # of the matrices
EMBED_LR: float = 3e-1  # of the embedding
MOMENTUM = 0.95
BATCH_TOKENS = 2**14
DEPTH = PROFILE["depth"]
WIDTH = DEPTH * 64
WINDOW = PROFILE["window_pattern"]
INIT_SEED = 7


def build_model():
    """The model."""
    torch.manual_seed(INIT_SEED)
    return torch.nn.Linear(WIDTH, 2)


def train(model):
    clock = start_clock()
    while clock.progress < 1:
        pass  # nothing to learn
    submit(model)


def main():
    train(build_model())


if __name__ == "__main__":
    main()
'''

CAMPAIGN = Campaign(
    name="night",
    org="test",
    org_id="0" * 64,
    base="a" * 40,
    dataset="0" * 64,
    device="2 × CPU",
    budget_s=20.0,
    seed=1,
    created_at="2026-01-01T00:00:00+00:00",
)
NOTHING = "0" * 64


def measurement(source_sha256: str, val_bpb: float | None = 2.0) -> Measurement:
    return Measurement(
        run_id="run",
        status="ok",
        val_bpb=val_bpb,
        budget_s=20.0,
        seed=1,
        engine="none",
        device="cpu",
        hashes=Hashes(
            source=source_sha256, prepare=NOTHING, image=NOTHING, dataset=NOTHING, tokenizer=NOTHING, scorer=NOTHING
        ),
        started_at="2026-01-01T00:00:00+00:00",
    )


def experiment(
    id: int,
    state: State,
    hypothesis: Hypothesis,
    *,
    source: str | None = None,
    bpb: float | None = None,
    champion: float = 2.0,
) -> Experiment:
    """A row as the ledger would hand it out."""
    candidate = make_candidate("a" * 40, TRAIN, source) if source else None
    verdict = None
    if bpb is not None and state in (State.MERGED, State.DISCARDED):
        verdict = Verdict(
            merge=state == State.MERGED,
            rule="keep-if-lower",
            champion_bpb=champion,
            candidate_bpb=bpb,
            reason="compared",
        )
    return Experiment(
        id=id,
        campaign="night",
        lane="baseline" if id == 1 else "improve",
        state=state,
        hypothesis=hypothesis,
        author="planner/sampler",
        candidate=candidate,
        measurements=[] if bpb is None else [measurement(candidate.source_sha256 if candidate else NOTHING, bpb)],
        verdict=verdict,
        created_at="2026-01-01T00:00:00+00:00",
        updated_at="2026-01-01T00:00:00+00:00",
    )


def plan_task(
    experiments: Sequence[Experiment],
    *,
    source: str = TRAIN,
    bpb: float | None = 2.0,
    settings: PlannerSettings | None = None,
    seed: int = 1,
) -> PlanTask:
    champion = Incumbent(commit="a" * 40, val_bpb=bpb, source=source)
    digest = summarise(CAMPAIGN, champion, experiments, "Lower val_bpb.", "")
    role = settings or PlannerSettings(mind="sampler")
    return PlanTask(
        NOTHING_SAID, digest, list(experiments), role, PROFILE, seed, lambda hypotheses: [None] * len(hypotheses)
    )


def proposal(task: PlanTask) -> Hypothesis:
    """The sampler's only one."""
    (hypothesis,) = Sampler().propose(task)
    return hypothesis


def code_task(hypothesis: Hypothesis, source: str, start: str = TRAIN) -> CodeTask:
    role = CoderSettings(mind="sampler")
    return CodeTask(NOTHING_SAID, hypothesis, source, start, PROFILE, role, lambda program: None, None)


def review_task(hypothesis: Hypothesis, candidate: Candidate) -> ReviewTask:
    return ReviewTask(NOTHING_SAID, hypothesis, candidate, TRAIN, PROFILE, Settings(mind="sampler"))


def play(
    loss: Callable[[dict[str, float]], float], source: str, settings: PlannerSettings, *, rounds: int, seed: int
) -> list[Experiment]:
    """A campaign in memory: the sampler proposes, `loss` of the constants is the score, lower merges."""
    best = loss(resolve(source, PROFILE))
    rows = [experiment(1, State.MERGED, Hypothesis(title="baseline", change=""), source=source, bpb=best)]
    for id in range(2, rounds + 2):
        ideas = Sampler().propose(plan_task(rows, source=source, bpb=best, settings=settings, seed=seed))
        if not ideas:
            break
        (idea,) = ideas
        edited = set_knobs(source, idea.knobs, PROFILE)
        score = loss(resolve(edited, PROFILE))
        state = State.MERGED if score < best else State.DISCARDED
        rows.append(experiment(id, state, idea, source=edited, bpb=score, champion=best))
        if score < best:
            source, best = edited, score
    return rows


def best_of(rows: Sequence[Experiment]) -> float:
    return min(m.val_bpb for row in rows for m in row.measurements if m.val_bpb is not None)
