"""Small records to put into a ledger."""

import hashlib
import itertools

from ledger.verdict import Evidence, decide
from records import (
    Audit,
    Campaign,
    Candidate,
    Failure,
    FailureKind,
    Hashes,
    Hypothesis,
    Measurement,
    Policy,
    Review,
    Verdict,
)

BASE = "b" * 40
APPROVED = Review(approved=True, code="ok", reason="one change, as promised")
REFUSED = Review(approved=False, code="seed_only", reason="only a seed differs")


AUDIT = Audit(
    level="full",
    cuts=100,
    mismatches=0,
    tolerance_nats=0.25,
    largest_difference_nats=1e-7,
    claimed_bpb=1.0,
    correction_bpb=0.0,
    lie_bpb=0.0005,
    power=0.99,
    claims_sha256="0" * 64,
    seed="f" * 32,
)


KEEP_IF_LOWER = Policy()
"""One run each: what these tests are mostly about goes on without the noise."""


def lower_or_not(champion: list[Measurement], candidate: Measurement) -> Verdict:
    """The verdict of a campaign that keeps whatever is lower."""
    return decide(KEEP_IF_LOWER, Evidence(champion, [candidate], []), 0)[1]


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def campaign(name: str, base: str = BASE, policy: Policy = KEEP_IF_LOWER) -> Campaign:
    return Campaign(
        name=name,
        org="test",
        org_id="0",
        base=base,
        dataset="1",
        device="2 × CPU",
        budget_s=1.0,
        seed=0,
        policy=policy,
        created_at="2026-01-01T00:00:00Z",
    )


def idea(title: str = "MATRIX_LR 0.04 → 0.06") -> Hypothesis:
    return Hypothesis(title=title, change="set MATRIX_LR to 0.06", knobs={"MATRIX_LR": 0.06})


def program(source: str, parent: str = BASE) -> Candidate:
    sha256 = sha256_of(source)
    return Candidate(parent=parent, source=source, source_sha256=sha256, meaning_sha256=sha256, diff="")


SEEDS = itertools.count(1)


def scored(source: str, val_bpb: float, run_id: str = "") -> Measurement:
    """With a fresh seed and an id, as every run has them."""
    seed = next(SEEDS)
    return Measurement(
        run_id=run_id or f"r{seed}",
        status="ok",
        val_bpb=val_bpb,
        budget_s=1.0,
        startup_seconds=0.5,
        train_seconds=1.0,
        score_seconds=0.25,
        peak_memory_mb=2048.0,
        seed=seed,
        engine="runc",
        device="cpu",
        audit=AUDIT,
        hashes=Hashes(source=sha256_of(source), prepare="", image="", dataset="", tokenizer="", scorer=""),
        started_at="2026-01-01T00:00:00Z",
    )


def failed(source: str, kind: FailureKind, run_id: str = "failed") -> Measurement:
    failure = Failure(kind=kind, message="it went wrong")
    changes = {"status": kind.value, "val_bpb": None, "failure": failure, "seed": 0}
    return scored(source, 0.0, run_id).model_copy(update=changes)
