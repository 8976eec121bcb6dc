"""Rows of a ledger for tests of what is shown: made by hand, in the shapes that campaigns leave behind."""

from records import Candidate, Experiment, Failure, FailureKind, Hashes, Hypothesis, Measurement, State, Verdict

HASHES = Hashes(
    source="a" * 64, prepare="b" * 64, image="c" * 64, dataset="d" * 64, tokenizer="e" * 64, scorer="f" * 64
)
NOW = "2026-03-08T22:00:00+00:00"


def measurement(bpb: float | None, failure: Failure | None = None) -> Measurement:
    return Measurement(
        run_id="r", status="ok" if failure is None else failure.kind, val_bpb=bpb, budget_s=5.0, num_steps=10, seed=1,
        engine="runc", device="cpu", failure=failure, hashes=HASHES, started_at=NOW, peak_memory_mb=1536.0,
    )  # fmt: skip


def experiment(id: int, state: State, bpb: float | None, title: str = "a change", **more: object) -> Experiment:
    crashed = Failure(kind=FailureKind.CRASH, message="ValueError: no")
    row: dict[str, object] = {
        "id": id,
        "campaign": "night",
        "lane": "baseline" if id == 0 else "improve",
        "state": state,
        "hypothesis": Hypothesis(title=title, change=title),
        "author": "planner/sampler",
        "candidate": Candidate(parent="p" * 40, source="x = 1\n", source_sha256="a" * 64, meaning_sha256="m" * 64, diff=""),
        "measurements": [measurement(bpb, None if bpb is not None else crashed)],
        "verdict": None if bpb is None else Verdict(merge=state == State.MERGED, rule="keep-if-lower", champion_bpb=2.5, candidate_bpb=bpb, reason="because"),
        "commit": "c" * 40 if state == State.MERGED else None,
        "attempts": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }  # fmt: skip
    return Experiment.model_validate(row | more)


NIGHT = [
    experiment(0, State.MERGED, 2.5, "start"),
    experiment(1, State.DISCARDED, 2.6),
    experiment(2, State.CRASHED, None, r"[red]evil[/red] \x1b[31m $\frac{1}{0}$ " + "very long " * 8),
    experiment(3, State.MERGED, 2.4, r"[link=file:///etc]click[/link] $\undefinedmacro{x}$"),
    experiment(4, State.DISCARDED, 9.9),
    experiment(5, State.REFUSED, None, "seed 2", measurements=[], note="only a seed differs", attempts=0),
]
