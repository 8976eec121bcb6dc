"""What the training script promises before anyone edits it: on the CPU, alone, in a folder of its own."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ground import configure, copy_scripts, load, python, write_stories

PROFILE: dict[str, Any] = {
    "max_seq_len": 32,
    "vocab_size": 300,
    "eval_tokens": 4096,
    "time_budget_s": 6.0,
    "depth": 3,
    "aspect_ratio": 16,
    "head_dim": 16,
    "window_pattern": "SL",
    "device_batch_size": 8,
    "total_batch_tokens": 512,
}
FLAGS = [text for name, value in PROFILE.items() for text in ("--" + name.replace("_", "-"), str(value))]
SEQ_LEN, VOCAB_SIZE = PROFILE["max_seq_len"], PROFILE["vocab_size"]
law = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module, on the CPU."""
    return load(configure(copy_scripts(tmp_path_factory.mktemp("train")), PROFILE), "train")


@pytest.fixture(scope="module")
def model(train: Any) -> torch.nn.Module:
    """A model whose weights are all random: in a fresh one, what writes into the residual stream is zero."""
    torch.manual_seed(0)
    built: torch.nn.Module = train.build_model()
    return awake(built)


@torch.no_grad()
def awake(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    return module


# ---- by hand ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after prepare.py."""
    folder = copy_scripts(tmp_path_factory.mktemp("by_hand"))
    made = python("prepare.py", "--corpus", "local", write_stories(folder / "texts"), *FLAGS, cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


def byte_entropy(dataset: Path) -> float:
    """Bits per byte of val's text for a model that knows how often each byte occurs, and nothing else."""
    tokens = [base64.b64decode(t) for t in json.loads((dataset / "tokenizer.json").read_text())["mergeable_ranks"]]
    targets = np.fromfile(dataset / "val.bin", "<u2").reshape(-1, SEQ_LEN + 1)[:, 1:].ravel()
    text = np.frombuffer(b"".join(tokens[i] for i in targets if i < len(tokens)), np.uint8)
    shares = np.unique(text, return_counts=True)[1] / len(text)
    return float(-(shares * np.log2(shares)).sum())


def test_a_run_by_hand_ends_in_a_summary_and_has_learned_more_than_byte_frequencies(prepared: Path) -> None:
    ran = python("train.py", cwd=prepared)
    assert (ran.returncode, ran.stderr) == (0, "")
    heading, *lines = ran.stdout.splitlines()
    assert "self-reported" in heading
    summary = {name: float(value) for name, value in (line.split(":") for line in lines)}
    assert {
        *("val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent"),
        *("total_tokens_M", "num_steps", "num_params_M", "depth"),
    } == summary.keys() - {"unigram_bpb", "epochs"}
    entropy = byte_entropy(prepared / ".autoresearch/datasets/local-cpu")
    assert summary["unigram_bpb"] == pytest.approx(entropy, abs=1e-5)
    assert 0 < summary["val_bpb"] < entropy
    assert summary["depth"] == PROFILE["depth"]
    tokens_a_step = PROFILE["total_batch_tokens"]
    assert summary["total_tokens_M"] == pytest.approx(summary["num_steps"] * tokens_a_step / 1e6, abs=0.05)
    rows = (prepared / ".autoresearch/datasets/local-cpu/train.bin").stat().st_size // 2 // (SEQ_LEN + 1)
    assert summary["epochs"] == pytest.approx(summary["num_steps"] * tokens_a_step / (rows * SEQ_LEN), abs=0.01)
    assert summary["epochs"] > 1, "so little text is read more than once"
    assert 0 < summary["training_seconds"] <= summary["total_seconds"]


def test_a_run_that_diverges_ends_in_one_line(prepared: Path, tmp_path: Path) -> None:
    dataset = str(prepared / ".autoresearch/datasets/local-cpu")
    ran = python("train.py", cwd=copy_scripts(tmp_path, MATRIX_LR="1e20"), AUTORESEARCH_DATASET=dataset)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"diverged: the loss is \S+ at step \d+; lower a learning rate\n", ran.stderr)


def test_a_run_without_a_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    ran = python("train.py", cwd=copy_scripts(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"no dataset: run `python prepare.py .*`\n", ran.stderr)


# ---- importing -------------------------------------------------------------------------------------------------------

WATCHED = """
import json, os, sys, torch, prepare
import torch.nn.attention.flex_attention
torch.compile(lambda x: x, disable=True)  # loads what the decorator needs, and makes torch's own cache folder
touched = set()
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path, _, flags = arguments
        inside = os.path.dirname(os.path.abspath(path)) == os.getcwd()
        if inside or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            touched.add(os.path.relpath(path))
    if event.startswith(("os.rename", "os.remove", "socket.connect", "subprocess.")):
        touched.add(event)
sys.addaudithook(watch)
import train
print(json.dumps(sorted(touched)))
"""


@pytest.mark.parametrize(("appended", "more"), [("", []), ("open('a_trace', 'w')", ["a_trace"])])
def test_importing_reads_the_settings_and_does_nothing_else(tmp_path: Path, appended: str, more: list[str]) -> None:
    configure(copy_scripts(tmp_path), PROFILE)
    with (tmp_path / "train.py").open("a") as script:
        script.write(f"\n{appended}\n")
    ran = python("-c", WATCHED, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == [*more, "config.json", "train.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*more, "config.json", "prepare.py", "train.py"]


# ---- the model -------------------------------------------------------------------------------------------------------


@law
@given(st.integers(1, 4), st.integers(1, SEQ_LEN), st.integers(0, 2**32))
def test_every_token_gets_finite_logits_over_the_vocabulary(
    model: torch.nn.Module, rows: int, length: int, seed: int
) -> None:
    idx = torch.randint(VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))
    logits = model(idx)
    assert logits.shape == (rows, length, VOCAB_SIZE) and logits.dtype == torch.float32
    assert logits.isfinite().all()


@law
@given(st.integers(0, SEQ_LEN - 1), st.integers(1, VOCAB_SIZE - 1), st.integers(0, 2**32))
def test_a_token_changes_what_follows_and_nothing_before(
    model: torch.nn.Module, at: int, shift: int, seed: int
) -> None:
    idx = torch.randint(VOCAB_SIZE, (2, SEQ_LEN), generator=torch.Generator().manual_seed(seed))
    other = idx.clone()
    other[0, at] = (other[0, at] + shift) % VOCAB_SIZE
    difference = (model(idx) - model(other)).abs().amax(-1)
    assert (difference[0, :at] < 1e-5).all() and (difference[1] < 1e-5).all()
    assert difference[0, at] > 1e-3
    assert at == SEQ_LEN - 1 or difference[0, at + 1 :].max() > 1e-4


@pytest.mark.parametrize("window", [1, 5, SEQ_LEN])
def test_a_layer_looks_no_farther_back_than_its_window(train: Any, model: Any, window: int) -> None:
    torch.manual_seed(1)
    layer = awake(train.Attention(0, window))
    x = torch.randn(1, SEQ_LEN, train.WIDTH)
    other = x.clone()
    other[0, 7] = torch.randn(train.WIDTH)
    difference = (layer(x, model.rotation, None) - layer(other, model.rotation, None)).abs().amax(-1)
    reached = (difference[0] > 1e-5).nonzero().flatten().tolist()
    assert reached == list(range(7, min(7 + window, SEQ_LEN)))


def test_windows_follow_the_pattern_and_the_last_layer_sees_everything(train: Any) -> None:
    assert train.windows() == [SEQ_LEN // 2, SEQ_LEN, SEQ_LEN]
    assert [block.attention.window for block in train.build_model().blocks] == train.windows()


def test_two_builds_differ_in_their_weights_only(train: Any) -> None:
    one, other = (train.build_model().state_dict() for _ in range(2))
    assert [(name, weights.shape, weights.dtype) for name, weights in one.items()] == [
        (name, weights.shape, weights.dtype) for name, weights in other.items()
    ]
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


@law
@given(st.booleans(), st.floats(0.2, 2), st.floats(-2, 2), st.integers(0, 2**32))
def test_a_mix_that_keeps_only_its_norm_has_the_gradients_of_one_that_keeps_everything(
    train: Any, weighted: bool, a: float, b: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, *upstream = (torch.randn(3, 5, train.WIDTH, generator=generator, dtype=torch.float64) for _ in range(4))
    inputs = [x, y, *(torch.tensor(weight, dtype=torch.float64) for weight in (a, b))][: 4 if weighted else 2]
    found, wanted = (
        (outputs, torch.autograd.grad(outputs, inputs, upstream))
        for way in (train.Mix.apply, train.mix)
        for outputs in [way(*(tensor.requires_grad_() for tensor in inputs), *[None] * (4 - len(inputs)))]
    )
    for one, other in zip((*found[0], *found[1]), (*wanted[0], *wanted[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_model_compiles_in_one_piece_with_that_mix(train: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    idx = torch.randint(VOCAB_SIZE, (2, SEQ_LEN))
    plain = train.nats_per_token(model, idx, idx)
    monkeypatch.setattr(train, "mix", lambda x, y, a=None, b=None: train.Mix.apply(x, y, a, b))
    whole: Any = torch.compile(train.nats_per_token, backend="aot_eager", fullgraph=True)
    compiled = whole(model, idx, idx.clone())
    torch.autograd.backward(compiled)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4)
    model.zero_grad()


def test_channels_turn_in_pairs_and_keep_their_length(train: Any, model: Any) -> None:
    x = torch.randn(2, SEQ_LEN, 3, train.HEAD_DIM)
    turned = train.rotate(x, model.rotation)
    pairs, after = (z.unflatten(-1, (-1, 2)) for z in (x, turned))
    torch.testing.assert_close(after.norm(dim=-1), pairs.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])
    # What attention sees depends on how far two tokens are apart, not on where they are.
    same = x[:, :1].expand_as(x)
    scores = torch.einsum("bthd,bshd->bhts", *[train.rotate(same, model.rotation)] * 2)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1], rtol=1e-4, atol=1e-4)
    assert (scores[..., 0, 0] - scores[..., 0, 5]).abs().min() > 1e-2


# ---- the optimiser ---------------------------------------------------------------------------------------------------


def basis(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Orthonormal columns for the left and the right of a matrix."""
    torch.manual_seed(seed)
    rank = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(size, rank)).Q for size in (rows, columns))
    return left, right


@law
@given(st.integers(2, 48), st.integers(2, 48), st.integers(0, 2**32), st.floats(1e-3, 1e3))
@pytest.mark.parametrize("sign", [1, -1])
def test_orthogonalising_keeps_directions_and_evens_out_their_lengths(
    train: Any, sign: int, rows: int, columns: int, seed: int, scale: float
) -> None:
    left, right = basis(rows, columns, seed)
    lengths = torch.linspace(0.05, 1, min(rows, columns))
    matrix = sign * scale * (left * lengths) @ right.mT
    result = train.orthogonalise(matrix[None])[0]
    assert result.shape == matrix.shape
    along = sign * left.mT @ result @ right
    assert ((along.diagonal() > 0.8) & (along.diagonal() < 1.2)).all()
    assert (along - along.diagonal().diag()).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (32, 32)])
def test_only_orthogonalised_gradients_have_singular_values_near_one(train: Any, shape: tuple[int, int]) -> None:
    gradients = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(train.orthogonalise(gradients))
    assert values.min() > 0.3 and values.max() < 1.2
    normalised = torch.linalg.svdvals(gradients / gradients.norm(dim=(-2, -1), keepdim=True))
    assert normalised.min() < 0.3 and torch.linalg.svdvals(gradients).max() > 1.6


@law
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32))
def test_evening_out_makes_loud_neurons_quieter_and_keeps_the_whole_as_large(
    train: Any, rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    neurons = (max(rows, columns), 1) if rows >= columns else (1, max(rows, columns))
    loudness = torch.linspace(0.1, 10, max(rows, columns)).view(neurons)
    updates = torch.randn(3, rows, columns, generator=generator) * loudness
    variances = torch.zeros(3, *neurons)
    for _ in range(200):
        found = train.even_out(updates, variances)
    assert torch.allclose(found.norm(dim=(-2, -1)), updates.norm(dim=(-2, -1)), rtol=1e-4)
    along = -1 if rows >= columns else -2
    sizes, before = (x.square().mean(along).sqrt() for x in (found, updates))
    assert (sizes.amax(-1) / sizes.amin(-1) < 1.01).all() and (before.amax(-1) / before.amin(-1) > 2).all()


def stepped(train: Any, weight: Tensor, gradient: Tensor, **changed: float) -> Tensor:
    """What one step of Muon adds to a matrix, divided by its learning rate."""
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient
    muon = train.Muon([parameter])
    muon.param_groups[0].update(changed)
    muon.step()
    change: Tensor = (parameter.detach() - weight) / muon.param_groups[0]["lr"]
    return change


def test_queries_keys_and_values_are_orthogonalised_apart(train: Any) -> None:
    torch.manual_seed(0)
    width = train.WIDTH
    parts = [scale * torch.randn(width, width) for scale in (1.0, 10.0, 0.01)]
    qkv = stepped(train, torch.zeros(3 * width, width), torch.cat(parts))
    for part, found in zip(parts, qkv.chunk(3), strict=True):
        assert torch.allclose(found, stepped(train, torch.zeros(width, width), part), atol=1e-3)
    up = stepped(train, torch.zeros(4 * width, width), torch.cat([*parts, parts[0]]))
    assert not torch.allclose(up[:width] / 4**0.5, qkv[:width], atol=1e-3), "other matrices are one"


def test_weights_decay_only_where_the_update_pulls_the_same_way(train: Any) -> None:
    torch.manual_seed(0)
    weight, gradient = torch.randn(32, 8), torch.randn(32, 8)
    update = -stepped(train, weight, gradient, weight_decay=0.0)
    pull = -stepped(train, weight, gradient, weight_decay=0.5) - update
    agreed = update * weight >= 0
    assert 0 < agreed.sum() < agreed.numel()
    assert torch.allclose(pull[agreed], 0.5 * weight[agreed] * (32 / 8) ** 0.5, atol=1e-4)
    assert torch.allclose(pull[~agreed], torch.zeros(()), atol=1e-4)


def test_rounding_alone_does_not_move_the_scalars(train: Any) -> None:
    torch.manual_seed(0)
    model = train.build_model()
    adamw, _ = train.build_optimisers(model)
    for rounding, moved in ((1e-7, 0.01), (1e-2, 0.4)):
        for parameter in model.parameters():
            parameter.grad = None
        model.embedding_lambdas.grad = torch.full_like(model.embedding_lambdas, rounding)
        before = model.embedding_lambdas.detach().clone()
        adamw.step()
        step = (model.embedding_lambdas - before).abs()
        assert (step < moved).all() if moved < 0.1 else (step > moved).all()
        adamw.state.clear()


def test_every_parameter_has_one_optimiser(train: Any) -> None:
    built = train.build_model()
    groups = [group for optimiser in train.build_optimisers(built) for group in optimiser.param_groups]
    optimised = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(optimised) == sorted(map(id, built.parameters()))


def test_warming_up_trains_and_then_restores_every_bit(train: Any) -> None:
    warmed = train.build_model()
    fresh = {name: weights.clone() for name, weights in warmed.state_dict().items()}
    moved: list[bool] = []
    warmed.register_load_state_dict_pre_hook(
        lambda module, *_: moved.extend(not torch.equal(w, fresh[name]) for name, w in module.named_parameters())
    )
    train.warm_up(warmed)
    assert any(moved), "there was something to restore"
    assert all(torch.equal(weights, fresh[name]) for name, weights in warmed.state_dict().items())
    assert all(parameter.grad is None for parameter in warmed.parameters())


# ---- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "rate"), [(0, 0), (0.1, 0.5), (0.2, 1), (0.6, 1), (0.8, 0.55), (1, 0.1)])
def test_the_learning_rate_goes_up_stays_and_goes_down(tmp_path: Path, progress: float, rate: float) -> None:
    edits = {"WARMUP": "0.2", "WARMDOWN": "0.4", "FINAL_LR": "0.1"}
    train = load(configure(copy_scripts(tmp_path, **edits), PROFILE), "train")
    assert train.learning_rate(progress) == pytest.approx(rate)


@law
@given(st.lists(st.floats(0, 1), min_size=2))
def test_the_learning_rate_never_rises_after_the_warm_up(train: Any, progress: list[float]) -> None:
    rates = [train.learning_rate(p) for p in sorted(progress) if p >= train.WARMUP]
    assert rates == sorted(rates, reverse=True)
    assert train.learning_rate(train.WARMUP) == 1 and train.learning_rate(1) == pytest.approx(train.FINAL_LR)


def test_rates_decay_and_momentum_are_set_from_the_clock(train: Any) -> None:
    optimisers = train.build_optimisers(train.build_model())
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    for progress, step in ((0.0, 0), (0.75, 150), (1.0, 300)):
        train.set_schedule(optimisers, progress, step)
        assert all(g["lr"] == g["peak_lr"] * train.learning_rate(progress) for g in groups)
        assert all(g["lr"] > 0 for g in groups) or (progress == 1 and train.FINAL_LR == 0)
        muon = [(g["momentum"], g["weight_decay"]) for g in groups if "momentum" in g]
        momentum = 0.85 + (train.MOMENTUM - 0.85) * step / 300
        assert muon and all(m == pytest.approx((momentum, train.WEIGHT_DECAY * (1 - progress))) for m in muon)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("rows, length", [(3, 77), (4, 256)])
def test_the_kernels_for_hopper_compute_what_the_plain_lines_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, length: int
) -> None:
    sizes = {"max_seq_len": 256, "vocab_size": 1000, "depth": 4, "aspect_ratio": 64, "head_dim": 64}
    train = load(configure(copy_scripts(tmp_path), PROFILE | sizes, device="cuda"), "train")
    if not train.HOPPER:
        pytest.skip("needs a Hopper GPU and pip install 'autoresearch-org[hopper]'")
    torch.manual_seed(0)
    model = awake(train.build_model())
    inputs, targets = (torch.randint(1000, (rows, length), device="cuda") for _ in range(2))

    def gradients(hopper: bool, dtype: torch.dtype) -> dict[str, Tensor]:
        monkeypatch.setattr(train, "HOPPER", hopper)
        monkeypatch.setattr(train, "COMPUTE_DTYPE", dtype)
        model.zero_grad()
        loss = train.nats_per_token(model, inputs, targets)
        loss.backward()
        return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}  # fmt: skip

    exact = gradients(False, torch.float32)
    plain, fused = (
        {name: (found - exact[name]).norm() / exact[name].norm() for name, found in gradients(hopper, torch.bfloat16).items()}
        for hopper in (False, True)
    )  # fmt: skip
    assert fused.keys() == plain.keys() == exact.keys()
    for name, error in fused.items():
        assert error < 2 * plain[name] + 0.005, name


@pytest.mark.gpu
def test_a_run_by_hand_on_a_gpu_reports_every_step_that_it_queued(tmp_path: Path) -> None:
    folder = copy_scripts(tmp_path)
    flags = [*FLAGS, "--head-dim", "64", "--aspect-ratio", "64", "--max-seq-len", "256"]
    made = python("prepare.py", "--corpus", "local", write_stories(folder / "texts"), *flags, cwd=folder)
    assert made.returncode == 0, made.stderr
    ran = python("train.py", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    summary = {name: float(value) for name, value in (line.split(":") for line in ran.stdout.splitlines()[1:])}
    tokens_a_step = max(PROFILE["total_batch_tokens"], PROFILE["device_batch_size"] * 256)
    assert summary["num_steps"] > 10 and summary["training_seconds"] <= PROFILE["time_budget_s"] + 1
    assert summary["total_tokens_M"] == pytest.approx(summary["num_steps"] * tokens_a_step / 1e6, abs=0.05)
    assert 0 < summary["val_bpb"] < summary["unigram_bpb"]
