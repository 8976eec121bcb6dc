"""What a measurement says of candidates that keep to the contract, and of those that do not."""

import math
import threading

import numpy as np
import pytest
import torch

from records import SOURCE_LIMIT_BYTES, FailureKind, Progress
from sandbox.dataset import Dataset
from tests.sandbox.candidates import gate_probe, known_model, probe
from tests.sandbox.fixtures import Measure


def direct_bpb(dataset: Dataset) -> float:
    """The score of the model with known weights, in float64 and without any code of the sandbox."""
    rows = torch.from_numpy(np.array(dataset.rows("val"), np.int64))
    weights = torch.randn(dataset.vocab_size, dataset.vocab_size, generator=torch.Generator().manual_seed(7)).double()
    lengths = torch.from_numpy(dataset.token_bytes().astype(np.int64))
    nats, size = 0.0, 0
    for before, after in zip(rows[:, :-1].flatten().tolist(), rows[:, 1:].flatten().tolist(), strict=True):
        if lengths[after] > 0:
            nats += float(torch.logsumexp(weights[before], 0) - weights[before, after])
            size += int(lengths[after])
    return nats / (math.log(2) * size)


def test_the_score_of_an_honest_run_is_that_of_its_weights(run: Measure, dataset: Dataset) -> None:
    phases: list[str] = []
    reports: list[Progress] = []
    measured = run(known_model(), on_phase=phases.append, on_progress=reports.append)
    assert measured.failure is None, measured
    assert measured.val_bpb == pytest.approx(direct_bpb(dataset), abs=1e-5)
    assert (measured.status, measured.exit_code, measured.num_params) == ("ok", 0, dataset.vocab_size**2)
    assert phases == ["starting", "training", "scoring"]
    assert (reports[0].step, reports[0].tokens, reports[0].loss) == (1, 4 * 32, 5.0)
    assert (measured.num_steps, measured.num_tokens) == (1, 4 * 32)
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
        (gate_probe("gate.sendall(b'\\xff\\n'); time.sleep(60)"), FailureKind.INVALID),
        (gate_probe("gate.sendall(b'x' * 100_000); time.sleep(60)"), FailureKind.INVALID),
        (gate_probe("start(); say(type='ready'); time.sleep(60)"), FailureKind.INVALID),
        (gate_probe("say(type='done'); time.sleep(60)"), FailureKind.INVALID),
        (gate_probe("start()\nfor i in range(11_000): say(type='progress', step=i, tokens=i, loss=1.0)\ntime.sleep(60)"), FailureKind.INVALID),
        (gate_probe("start(); os.symlink('/etc/passwd', '/out/model.safetensors'); finish()"), FailureKind.INVALID),
        (gate_probe("start(); os.mkfifo('/out/model.safetensors'); finish()"), FailureKind.INVALID),
        (gate_probe("start(); open('/out/model.safetensors', 'wb').write(b'\\x80\\x04' * 99); finish()"), FailureKind.INVALID),
        ("#" * (SOURCE_LIMIT_BYTES + 1), FailureKind.INVALID),
    ],
    ids=[
        *("ends at once", "ends after go", "says done without weights"),
        *("garbage", "endless line", "ready twice", "done before go", "too many messages"),
        *("weights are a symlink", "weights are a FIFO", "weights are a pickle", "source too large"),
    ],
)  # fmt: skip
def test_a_broken_contract_is_typed(run: Measure, source: str, kind: FailureKind) -> None:
    measured = run(source)
    assert measured.failure is not None and (measured.failure.kind, measured.val_bpb) == (kind, None), measured


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (probe("time.sleep(60)"), "no start_clock() within 2 s"),
        (gate_probe("start()\ntime.sleep(60)"), "no complete weights 0.5 s after the budget of 1 s"),
        (known_model(train="import time; time.sleep(60)"), "no complete weights 0.5 s after the budget of 1 s"),
    ],
    ids=["never starts the clock", "never submits", "trains past the deadline"],
)
def test_the_hosts_clock_ends_a_run(run: Measure, source: str, says: str) -> None:
    limits = {"grace_s": 0.5} | ({"startup_s": 2.0} if "start_clock" in says else {})
    failure = run(source, limits=limits).failure
    assert failure is not None and (failure.kind, failure.message) == (FailureKind.TIMEOUT, says)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (known_model(forward="return self.table(tokens) * float('nan')"), FailureKind.INVALID),
        (known_model(forward="return self.table(tokens)[:, :, :7]"), FailureKind.CRASH),
    ],
    ids=["loss is not a number", "logits of a wrong shape"],
)
def test_a_model_that_cannot_be_scored_is_typed(run: Measure, source: str, kind: FailureKind) -> None:
    failure = run(source).failure
    assert failure is not None and failure.kind == kind, failure


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


def test_endless_output_is_bounded(run: Measure) -> None:
    measured = run(probe("for _ in range(20): sys.stdout.write('spam ' * 2**18)\nprint('the end')"))
    assert measured.log_tail.endswith("the end\n") and len(measured.log_tail) <= 8000
