"""What a measurement says of candidates that keep to the contract, and of those that do not."""

import math
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from records import SOURCE_LIMIT_BYTES, FailureKind, HostFault, Progress
from sandbox.dataset import Dataset, Rows
from sandbox.engines import Engine
from sandbox.measure import EarlyStop
from sandbox.receipt import Key
from sandbox.score import Rigour
from tests.sandbox.candidates import gate_probe, known_model, probe, trained_model
from tests.sandbox.fixtures import Measure


def direct_bpb(dataset: Dataset, split: Rows | None = None) -> float:
    """The score of the model with known weights, in float64 and without any code of the sandbox."""
    rows = torch.from_numpy(np.array(dataset.rows("val") if split is None else split, np.int64))
    size = dataset.vocab_size
    weights = torch.from_numpy(np.random.default_rng(7).standard_normal((size, size), np.float32)).double()
    lengths = torch.from_numpy(dataset.token_bytes().astype(np.int64))
    nats, length = 0.0, 0
    for before, after in zip(rows[:, :-1].flatten().tolist(), rows[:, 1:].flatten().tolist(), strict=True):
        if lengths[after] > 0:
            nats += float(torch.logsumexp(weights[before], 0) - weights[before, after])
            length += int(lengths[after])
    return nats / (math.log(2) * length)


def test_the_score_of_an_honest_run_is_that_of_its_weights(run: Measure, dataset: Dataset, state_dir: Path) -> None:
    phases: list[str] = []
    reports: list[Progress] = []
    measured = run(known_model(), on_phase=phases.append, on_progress=reports.append)
    assert measured.failure is None, measured
    assert measured.val_bpb == pytest.approx(direct_bpb(dataset), abs=1e-5)
    assert (measured.status, measured.exit_code, measured.num_params) == ("ok", 0, dataset.vocab_size**2)
    assert phases == ["starting", "training", "scoring", "auditing"]
    audit = measured.audit
    assert audit is not None and (audit.level, audit.cuts, audit.mismatches) == ("screen", 64, 0)
    assert measured.val_bpb == pytest.approx(audit.claimed_bpb + audit.correction_bpb, abs=1e-12)  # each is rounded
    assert measured.std_error_bpb is not None and measured.std_error_bpb < 1e-6
    assert Key.of(state_dir).complaint(measured) is None
    assert (reports[0].step, reports[0].tokens, reports[0].loss) == (1, 4 * 32, 5.0)
    assert (measured.num_steps, measured.num_tokens) == (1, 4 * 32)
    assert measured.epochs == pytest.approx(4 / len(dataset.rows("train")), abs=1e-4)
    assert measured.hashes.dataset == dataset.sha256
    assert measured.peak_memory_mb is not None and measured.peak_memory_mb > 50


def test_a_crash_is_told_by_its_last_line(run: Measure) -> None:
    failure = run(probe("raise ValueError('the learning rate is\\x1b[31m negative')")).failure
    assert failure is not None and failure.kind == FailureKind.CRASH
    assert failure.message.endswith("ValueError: the learning rate is negative")


def test_more_memory_than_allowed_is_oom(run: Measure) -> None:
    measured = run(probe("block = bytearray(600 * 2**20)"), limits={"memory_bytes": 256 * 2**20})
    assert measured.failure is not None and measured.failure.kind == FailureKind.OOM
    assert run(probe("block = bytearray(600 * 2**20)")).failure.kind == FailureKind.NO_SUBMIT  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (probe("pass"), FailureKind.NO_SUBMIT),
        (gate_probe("start()"), FailureKind.NO_SUBMIT),
        (gate_probe("start(); finish()"), FailureKind.NO_SUBMIT),
        (gate_probe("start(); os.symlink('/etc/passwd', '/out/model.safetensors'); finish()"), FailureKind.INVALID),
        (gate_probe("start(); os.mkfifo('/out/model.safetensors'); finish()"), FailureKind.INVALID),
        (gate_probe("start(); open('/out/model.safetensors', 'wb').write(b'\\x80\\x04' * 99); finish()"), FailureKind.INVALID),
    ],
    ids=[
        *("ends at once", "ends after go", "says done without weights"),
        *("weights are a symlink", "weights are a FIFO", "weights are a pickle"),
    ],
)  # fmt: skip
def test_a_broken_contract_is_typed(run: Measure, source: str, kind: FailureKind) -> None:
    measured = run(source)
    assert measured.failure is not None and (measured.failure.kind, measured.val_bpb) == (kind, None), measured


@pytest.mark.parametrize(
    "source",
    [
        gate_probe("gate.sendall(b'\\xff\\n'); time.sleep(60)"),
        gate_probe("gate.sendall(b'x' * 100_000); time.sleep(60)"),
        gate_probe("start(); say(type='ready'); time.sleep(60)"),
        gate_probe("say(type='done'); time.sleep(60)"),
        gate_probe("start()\nfor i in range(11_000): say(type='progress', step=i, tokens=i, loss=1.0)\ntime.sleep(60)"),
        "#" * (SOURCE_LIMIT_BYTES + 1),
    ],
    ids=["garbage", "endless line", "ready twice", "done before go", "too many messages", "source too large"],
)  # fmt: skip
def test_a_breach_that_the_host_itself_sees_is_invalid(run_once: Measure, source: str) -> None:
    measured = run_once(source)
    assert measured.failure is not None and measured.failure.kind == FailureKind.INVALID, measured
    assert measured.val_bpb is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (probe("time.sleep(60)"), "no start_clock() within 2 s"),
        (gate_probe("start()\ntime.sleep(60)"), "no complete weights 0.5 s after the budget of 0.3 s"),
    ],
    ids=["never starts the clock", "never submits"],
)
def test_the_hosts_clock_ends_a_run(run: Measure, source: str, says: str) -> None:
    limits = {"grace_s": 0.5} | ({"startup_s": 2.0} if "start_clock" in says else {})
    failure = run(source, budget_s=0.3, limits=limits).failure
    assert failure is not None and (failure.kind, failure.message) == (FailureKind.TIMEOUT, says)


def test_the_hosts_clock_ends_whoever_trains_past_the_deadline(run_once: Measure) -> None:
    source = known_model(train="import time; time.sleep(60)")
    failure = run_once(source, budget_s=0.3, limits={"grace_s": 0.5}).failure
    assert failure is not None
    says = "no complete weights 0.5 s after the budget of 0.3 s"
    assert (failure.kind, failure.message) == (FailureKind.TIMEOUT, says)


HANG_UP = """import contextlib, os, socket, time
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                socket.socket(fileno=os.dup(descriptor)).shutdown(socket.SHUT_RDWR)
        time.sleep(60)"""


@pytest.mark.parametrize(
    ("forward", "kind", "says"),
    [
        ("return self.table(tokens) * float('nan')", "invalid", "row 0, position 0: the loss is nan"),
        ("return self.table(tokens).index_fill(2, torch.tensor(7), float('inf'))", "invalid", "position 0: the loss is nan"),
        ("return self.table(tokens).index_fill(2, torch.arange(300), -float('inf'))", "invalid", "the loss is nan"),
        ("x = self.table(tokens); x[5, 9] = float('nan'); return x", "invalid", "row 5, position 9: the loss is nan"),
        ("return self.table(tokens)[:, :, :7]", "invalid", "rows 0–63: logits have shape [64, 32, 7], not [64, 32, 300]"),
        ("return self.table(tokens)[:9]", "invalid", "rows 0–63: logits have shape [9, 32, 300], not [64, 32, 300]"),
        ("return self.table(tokens).long()", "invalid", "rows 0–63: logits are torch.int64, not floating point"),
        ("return self.table(tokens), None", "invalid", "rows 0–63: forward() returns tuple, not a tensor"),
        ("raise ValueError('no')", "crash", "exit code 1 while scoring rows 0–63: ValueError: no"),
        ("import os; os._exit(0)", "invalid", "rows 0–63: it ended instead of answering"),
        (HANG_UP, "invalid", "rows 0–63: it hung up instead of answering"),
        ("import time; time.sleep(60)", "timeout", "scoring took longer than 3 s; it was at rows 0–63"),
        ("self.all = getattr(self, 'all', []) + [bytearray(300 * 2**20) for _ in range(4)]; return self.table(tokens)", "oom", "out of memory while scoring rows 0–63: the kernel killed it at its memory limit"),
        ("assert len(tokens) == 64 and self.training is False; return self.table(tokens)", "", ""),
        ("return self.table(tokens).half()", "", ""),
        ("return self.table(tokens).index_fill(2, torch.tensor(299), -float('inf'))", "", ""),  # BOS, which is never counted
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_scored_is_typed_and_the_row_named(
    run_once: Measure, forward: str, kind: str, says: str
) -> None:
    limits = {"score_s": 3.0} if kind == "timeout" else {"score_s": 60.0}
    measured = run_once(trained_model(forward=forward), limits=limits)
    if not kind:
        assert measured.failure is None, measured.failure
        return
    assert measured.failure is not None and measured.failure.kind == kind, measured.failure
    assert says in measured.failure.message


def test_losses_among_which_a_lie_could_hide_do_not_pass_a_full_audit(run_once: Measure) -> None:
    """One in a thousand targets costs as much as all others together: there a lie of any worth fits into few positions."""
    forward = "x = self.table(tokens); x[0, 3] = torch.where(torch.arange(300) == 7, 1e6, 0.0); return x"
    failure = run_once(trained_model(forward=forward), full_audit=lambda _: True).failure
    assert failure is not None and failure.kind == "invalid" and "could hide from 500,000 cuts" in failure.message
    honest = run_once(trained_model(), full_audit=lambda _: True, rigour=Rigour(lie_bpb=0.05))
    assert honest.audit is not None and honest.audit.level == "full" and honest.audit.power >= 0.99


def test_the_second_process_fails_typed_too(run_once: Measure) -> None:
    """It is the one without the memory of having been asked before, and with a row that ends in other text."""
    find = "import sys\n        frame = sys._getframe()\n        while 'question' not in frame.f_locals: frame = frame.f_back\n        "
    tell = (
        "if frame.f_locals['question']['ask'] == 'logits': raise ValueError('blind')\n        return self.table(tokens)"
    )
    claims_only = find + tell
    failure = run_once(trained_model(forward=claims_only)).failure
    assert failure is not None and failure.kind == "crash"
    assert "of the audit: ValueError: blind" in failure.message


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (gate_probe("open('/out/model.safetensors', 'wb').write(b'x' * 99); time.sleep(2.5); start(); finish()"), "invalid", "written before the clock started"),
        (gate_probe("start(); open('/out/model.safetensors', 'wb').write(b'x' * 99); finish()"), "invalid", "not a safetensors file"),
        (known_model(train="prepare.start_clock()"), "crash", "start_clock() was called twice"),
        (gate_probe("for i in range(20_000): say(type='ready')\ntime.sleep(60)"), "invalid", "gate: a second 'ready'"),
        (gate_probe("for i in range(20_000): say(type='progress', step=i, tokens=0, loss=0.0)\ntime.sleep(60)"), "invalid", "gate: 'progress' before 'ready'"),
        (gate_probe("start(); say(type='progress', step=-1, tokens=0, loss=0.0); time.sleep(60)"), "invalid", "not a message of the protocol"),
        (gate_probe("start(); say(type='progress', step=1, tokens=0, loss=float('nan')); time.sleep(60)"), "invalid", "not a message of the protocol"),
        (gate_probe("start(); gate.sendall(b'\\0' * 10_000_000); time.sleep(60)"), "invalid", "a line of more than 4096 bytes"),
        (gate_probe("say(type='ready'); gate.shutdown(socket.SHUT_RDWR); time.sleep(60)"), "timeout", "no complete weights"),
        (gate_probe("start(); finish(); say(type='done')\nraise SystemExit(3)"), "no_submit", "it said it was done but left no model.safetensors"),
    ],
    ids=[
        *("weights before go", "junk after go", "clock twice", "ready flood", "progress flood before ready", "negative step"),
        *("loss is NaN", "a flood of zeros", "hangs up after ready", "done twice, without weights"),
    ],
)  # fmt: skip
def test_the_clock_and_the_gate_end_typed(run_once: Measure, source: str, kind: str, says: str) -> None:
    failure = run_once(source, limits={"grace_s": 3.0}).failure
    assert failure is not None and failure.kind == kind, failure
    assert says in failure.message


def test_the_test_split_is_touched_after_a_note_of_it_and_never_otherwise(run_once: Measure, dataset: Dataset) -> None:
    notes: list[str] = []
    assert run_once(trained_model()).split == "val"
    measured = run_once(trained_model(), unseal=notes.append)
    assert measured.failure is None and measured.split == "test"
    assert notes == [f"test split of dataset {dataset.sha256[:12]} read"]
    assert measured.val_bpb == pytest.approx(direct_bpb(dataset, dataset.unsealed(notes.append)), abs=1e-5)

    def full_disk(what: str) -> None:
        raise HostFault("no note can be made")

    refused = run_once(trained_model(), unseal=full_disk)
    assert refused.val_bpb is None and refused.failure is not None and refused.failure.message == "no note can be made"


def test_a_cancelled_run_ends_as_a_host_error(run: Measure) -> None:
    cancel = threading.Event()

    def on_phase(phase: str) -> None:
        if phase == "training":
            cancel.set()

    measured = run(
        gate_probe("start(); time.sleep(60)"),
        budget_s=60,
        cancel=cancel,
        on_phase=on_phase,
    )
    assert measured.failure is not None and measured.failure.kind == FailureKind.HOST_ERROR
    assert measured.failure.message == "cancelled" and measured.failure.kind.ours


TELLS = """
start()
for i, loss in enumerate(LOSSES):
    say(type="progress", step=i, tokens=10 * i, loss=loss)
    time.sleep(0.05)
time.sleep(PAUSE)
"""


def telling(losses: list[float | None], pause_s: float = 0.0) -> str:
    """Reports these losses, waits, and ends without a model."""
    return gate_probe(TELLS.replace("LOSSES", repr(losses)).replace("PAUSE", str(pause_s)))


def too_high(reports: Sequence[Progress]) -> str | None:
    """Two in a row."""
    return "far too high" if all(report.nats > 5 for report in reports[-2:]) and len(reports) > 1 else None


def test_a_hopeless_run_is_ended_and_that_is_its_own_fault(run: Measure, engine: Engine) -> None:
    measured = run(telling([1.0, 9.0, 9.0], pause_s=600), budget_s=600, early_stop=EarlyStop(too_high, control=0.0))
    assert measured.failure is not None and not measured.failure.kind.ours
    assert (measured.failure.kind, measured.failure.message) == (FailureKind.HOPELESS, "far too high")
    assert (measured.status, measured.val_bpb, measured.flagged) == ("hopeless", None, None)
    assert [point.loss for point in measured.curve] == [1.0, 9.0, 9.0]
    assert engine.leftovers() == []


def test_a_run_that_is_not_hopeless_is_scored_as_ever(run_once: Measure) -> None:
    measured = run_once(known_model(), early_stop=EarlyStop(too_high, control=0.0))
    assert measured.failure is None and measured.flagged is None
    assert [(point.tokens, point.loss) for point in measured.curve] == [(4 * 32, 5.0)]


def test_a_share_of_the_hopeless_runs_may_finish_and_says_so(run_once: Measure, state_dir: Path) -> None:
    train = "[(prepare.report(i, 1, 9.0), __import__('time').sleep(0.3)) for i in range(4)]"
    flagged = run_once(known_model(train=train), budget_s=3.0, early_stop=EarlyStop(too_high, control=1.0))
    assert flagged.failure is None and flagged.val_bpb is not None and flagged.flagged == "far too high"
    assert Key.of(state_dir).complaint(flagged) is None
    stopped = run_once(known_model(train=train), budget_s=3.0, early_stop=EarlyStop(too_high, control=0.0))
    assert stopped.failure is not None and stopped.failure.kind == FailureKind.HOPELESS


def test_a_loss_that_is_not_finite_is_reported_as_none(run_once: Measure) -> None:
    def lost(reports: Sequence[Progress]) -> str | None:
        return "not finite" if math.isnan(reports[-1].nats) else None

    train = "prepare._run.last_report = -1.0; prepare.report(2, 2, float('inf')); __import__('time').sleep(60)"
    measured = run_once(known_model(train=train), budget_s=60.0, early_stop=EarlyStop(lost, control=0.0))
    assert measured.failure is not None and measured.failure.kind == FailureKind.HOPELESS, measured
    assert [point.loss for point in measured.curve] == [5.0, None]


def test_the_receipt_keeps_a_thin_curve_with_both_ends(run_once: Measure) -> None:
    losses: list[float | None] = [float(i) for i in range(200)]
    measured = run_once(telling(losses).replace("0.05", "0.001"), budget_s=5.0)
    kept = [point.loss for point in measured.curve if point.loss is not None]
    assert len(kept) == 32 and (kept[0], kept[-1]) == (0.0, 199.0)
    gaps = {b - a for a, b in pairwise(kept)}
    assert gaps <= {6.0, 7.0}, "evenly"
    assert [point.tokens for point in measured.curve] == [10 * loss for loss in kept]


def test_endless_output_is_bounded(run: Measure) -> None:
    measured = run(probe("for _ in range(20): sys.stdout.write('spam ' * 2**18)\nprint('the end')"))
    assert measured.log_tail.endswith("the end\n") and len(measured.log_tail) <= 8000
