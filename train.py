"""One GPT, one file: the model, the optimiser and the training loop that the org edits.

    python prepare.py --corpus python --profile cpu
    python train.py

Trains for the dataset's time budget, then hands the model over. Read it from top to bottom: constants, model, optimiser,
schedules, loop.
"""

import copy
import functools
import gc
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from prepare import DEVICE, MAX_SEQ_LEN, PROFILE, SEED, VOCAB_SIZE, make_dataloader, report, start_clock, submit

# ----------------------------------------------------------------------------------------------------------------------
# Constants. PROFILE holds the sizes that the dataset suggests; a number in its place overrides one.

# model
DEPTH = PROFILE["depth"]  # layers; the width follows
ASPECT_RATIO = PROFILE["aspect_ratio"]  # width = depth × aspect ratio, rounded up to whole heads
HEAD_DIM = PROFILE["head_dim"]
MLP_RATIO = 4  # hidden units of the MLP per unit of width
WINDOW_PATTERN = PROFILE["window_pattern"]  # tiled over the layers: S sees half the context, L all of it; the last is L
SOFTCAP = 15.0  # logits are bounded to ± this
ROPE_BASE = 10_000.0

# optimiser
TOTAL_BATCH_TOKENS = PROFILE["total_batch_tokens"]  # per step
DEVICE_BATCH_SIZE = PROFILE["device_batch_size"]  # rows per forward pass
MATRIX_LR = 0.04  # Muon: every matrix of the blocks
EMBEDDING_LR = 0.6  # AdamW, as are the three below
UNEMBEDDING_LR = 0.004
SCALAR_LR = 0.5
WEIGHT_DECAY = 0.1  # of matrices, fading with the clock
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MOMENTUM = 0.95  # of Muon, reached after the first 300 steps
NEWTON_SCHULZ_STEPS = 5

# schedule, in parts of the clock
WARMUP = 0.0
WARMDOWN = 0.5
FINAL_LR = 0.05  # of the peak, at the end

# ----------------------------------------------------------------------------------------------------------------------
# Model

# float32 on a CPU: there attention and casts in bf16 cost more than its matrices win.
HAS_BF16 = DEVICE == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
COMPUTE_DTYPE = torch.bfloat16 if HAS_BF16 else torch.float32
WIDTH = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled on a GPU. At the first call, not at import: whoever only builds the model need not wait for the compiler."""
    return torch.compile(function, dynamic=False) if DEVICE == "cuda" else function


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def has_value_embedding(layer: int) -> bool:
    """Every other layer, the last one included."""
    return layer % 2 == (DEPTH - 1) % 2


def windows() -> list[int]:
    """Tokens that each layer looks back."""
    spans = [MAX_SEQ_LEN if WINDOW_PATTERN[i % len(WINDOW_PATTERN)] == "L" else MAX_SEQ_LEN // 2 for i in range(DEPTH)]
    return [*spans[:-1], MAX_SEQ_LEN]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [B, T, H, D]."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, layer: int, window: int) -> None:
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.window = window
        self.blocks = window_blocks(window) if DEVICE == "cuda" and window < MAX_SEQ_LEN else None
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        # How much of the value embedding each head takes: read off the first channels, between 0 and 2.
        self.gate = nn.Linear(min(32, WIDTH), self.heads, bias=False) if has_value_embedding(layer) else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, value_embedding: Tensor | None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, HEAD_DIM).unbind(2)
        if self.gate is not None and value_embedding is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate.in_features]))
            v = v + gate.unsqueeze(-1) * value_embedding.view(B, T, self.heads, HEAD_DIM)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = (heads.transpose(1, 2).to(COMPUTE_DTYPE) for heads in (q, k, v))
        y = attend(q, k, v, self.window, self.blocks)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


def window_blocks(window: int) -> BlockMask:
    """Which blocks of the attention matrix a causal window touches; the others are never computed."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    return create_block_mask(visible, None, None, MAX_SEQ_LEN, MAX_SEQ_LEN, device=DEVICE)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, blocks: BlockMask | None) -> Tensor:
    """Causal attention of [B, H, T, D] over the last `window` tokens."""
    T = q.size(2)
    if window >= T:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if blocks is not None and T == MAX_SEQ_LEN and torch.compiler.is_compiling():
        return flex_attention(q, k, v, block_mask=blocks)
    position = torch.arange(T, device=q.device)
    distance = position[:, None] - position[None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < window))


class Block(nn.Module):
    def __init__(self, layer: int, window: int) -> None:
        super().__init__()
        self.attention = Attention(layer, window)
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH, bias=False)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, value_embedding: Tensor | None) -> Tensor:
        x = x + self.attention(norm(x), cos, sin, value_embedding)
        return x + self.down(F.relu(self.up(norm(x))).square())


class GPT(nn.Module):
    """int64 [B, T] → logits, float32 [B, T, VOCAB_SIZE]."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.blocks = nn.ModuleList(Block(i, window) for i, window in enumerate(windows()))
        self.value_embeddings = nn.ModuleDict(
            {str(i): nn.Embedding(VOCAB_SIZE, WIDTH) for i in range(DEPTH) if has_value_embedding(i)}
        )
        self.unembedding = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
        # Each layer sees residual × a + embedding × b, so that what the token was is never far away.
        self.residual_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.embedding_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        frequencies = ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN), frequencies)[:, None, :]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Blocks begin as the identity: what writes into the residual stream starts at zero."""
        bound = math.sqrt(3 / WIDTH)  # uniform with the variance of a normal of 1/√WIDTH
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.qkv.weight.uniform_(-bound, bound)
            block.up.weight.uniform_(-bound, bound)
            block.attention.out.weight.zero_()
            block.down.weight.zero_()
            if block.attention.gate is not None:
                block.attention.gate.weight.zero_()
        self.embedding.weight.normal_()
        self.unembedding.weight.normal_(std=0.001)
        for table in self.value_embeddings.values():
            assert isinstance(table, nn.Embedding)
            table.weight.uniform_(-bound, bound)

    def forward(self, idx: Tensor) -> Tensor:
        with torch.autocast(DEVICE, COMPUTE_DTYPE, enabled=HAS_BF16):
            return self.logits(idx)

    def logits(self, idx: Tensor) -> Tensor:
        # The residual stream is in COMPUTE_DTYPE too: in float32 its traffic would cost more than the matrices.
        cos, sin = (table[: idx.size(1)].to(COMPUTE_DTYPE) for table in (self.cos, self.sin))
        x = first = norm(self.embedding(idx)).to(COMPUTE_DTYPE)
        for i, block in enumerate(self.blocks):
            x = self.residual_lambdas[i] * x + self.embedding_lambdas[i] * first
            value_embedding = self.value_embeddings[str(i)](idx).to(COMPUTE_DTYPE) if has_value_embedding(i) else None
            x = block(x, cos, sin, value_embedding)
        # Divided before they are logits: there are VOCAB_SIZE / WIDTH times as many of those.
        return SOFTCAP * torch.tanh(self.unembedding(norm(x) / SOFTCAP).float())


def build_model() -> nn.Module:
    """The model with fresh weights, on DEVICE."""
    return GPT().to(DEVICE)


# ----------------------------------------------------------------------------------------------------------------------
# Optimiser: Muon for the matrices of the blocks, AdamW for everything else


def orthogonalise(g: Tensor, steps: int) -> Tensor:
    """The nearest matrix with all singular values near 1, for each of [N, rows, columns], by a quintic Newton–Schulz
    iteration (Jordan et al., Muon, 2024)."""
    x = g.to(COMPUTE_DTYPE)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    for _ in range(steps):  # x ← 3.4445 x + (-4.7750 a + 2.0315 a²) x, with a = x xᵀ
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; matrices of one shape are stepped together."""

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        shapes = sorted({tuple(p.shape) for p in matrices})
        groups = [{"params": [p for p in matrices if tuple(p.shape) == shape]} for shape in shapes]
        super().__init__(groups, {"lr": MATRIX_LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = group["params"]
            gradients = torch.stack([p.grad for p in params])
            buffer = self.state[params[0]].setdefault("momentum", torch.zeros_like(gradients))
            buffer.lerp_(gradients, 1 - group["momentum"])
            update = compiled(orthogonalise)(gradients.lerp(buffer, group["momentum"]), NEWTON_SCHULZ_STEPS)
            # A tall matrix maps to more outputs than it has inputs; its update is scaled so that outputs change as much.
            scale = max(1.0, params[0].size(0) / params[0].size(1)) ** 0.5
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, update.unbind(), alpha=-group["lr"] * scale)


def build_optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    assert isinstance(model, GPT)
    # AdamW's rates were tuned at a width of 768 and go with its inverse root.
    scale = (WIDTH / 768) ** -0.5
    adam = [
        {"params": [model.embedding.weight, *model.value_embeddings.parameters()], "lr": EMBEDDING_LR * scale},
        {"params": [model.unembedding.weight], "lr": UNEMBEDDING_LR * scale},
        {"params": [model.residual_lambdas], "lr": SCALAR_LR * 0.01},
        {"params": [model.embedding_lambdas], "lr": SCALAR_LR},
    ]
    options: dict[str, Any] = {
        "betas": (ADAM_BETA1, ADAM_BETA2),
        "eps": 1e-10,
        "weight_decay": 0.0,
        "fused": DEVICE == "cuda",
    }
    optimisers = [torch.optim.AdamW(adam, **options), Muon(list(model.blocks.parameters()))]
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["peak_lr"] = group["lr"]
    return optimisers


def set_schedule(optimisers: list[torch.optim.Optimizer], progress: float, step: int) -> None:
    """Learning rates, decay and momentum, as functions of the used part of the clock."""
    rate = learning_rate(progress)
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["lr"] = group["peak_lr"] * rate
        if "momentum" in group:
            group["momentum"] = 0.85 + (MOMENTUM - 0.85) * min(step / 300, 1)
            group["weight_decay"] = WEIGHT_DECAY * (1 - progress)


def learning_rate(progress: float) -> float:
    """Part of the peak rate: up for WARMUP, flat, down to FINAL_LR for WARMDOWN."""
    if progress < WARMUP:
        return progress / WARMUP
    left = (1 - progress) / WARMDOWN if WARMDOWN else 1.0
    return FINAL_LR + (1 - FINAL_LR) * min(left, 1.0)


# ----------------------------------------------------------------------------------------------------------------------
# Training


# Compiled together with the model: 2^18 tokens × 8,192 logits in float32 are 8 GiB for every copy that is not fused away.
def nats_per_token(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    model = build_model()
    warm_up(model)
    optimisers = build_optimisers(model)
    accumulation = max(1, TOTAL_BATCH_TOKENS // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN))
    gc.collect()
    gc.freeze()  # what exists now lives to the end; collecting it again and again costs up to half a second a time
    gc.disable()

    clock = start_clock()
    batches = make_dataloader(DEVICE_BATCH_SIZE)
    batch = next(batches)
    step, step_s = 0, 0.0
    while clock.elapsed_s + step_s < clock.budget_s:  # as long as one more step like the last one fits
        began_s = clock.elapsed_s
        set_schedule(optimisers, clock.progress, step)
        total = torch.zeros((), device=DEVICE)
        for _ in range(accumulation):
            loss = compiled(nats_per_token)(model, *batch) / accumulation
            loss.backward()
            batch = next(batches)  # gathered by the CPU while the GPU works on what is queued
            total += loss.detach()
        for optimiser in optimisers:
            optimiser.step()
        model.zero_grad(set_to_none=True)
        step += 1
        nats = total.item()  # also waits for the GPU, so that the clock is read at the end of the step
        if not math.isfinite(nats):
            sys.exit(f"diverged: the loss is {nats} at step {step}; lower a learning rate")
        report(step, step * accumulation * DEVICE_BATCH_SIZE * MAX_SEQ_LEN, nats)
        step_s = clock.elapsed_s - began_s
    submit(model, depth=DEPTH, flops_per_token=flops_per_token(model))


def warm_up(model: nn.Module) -> None:
    """Compile everything on made-up tokens, then put the weights back. The clock does not run yet, and there is no data."""
    fresh = copy.deepcopy(model.state_dict())
    optimisers = build_optimisers(model)
    for _ in range(2):
        # Two tensors, as in training: for one that served as both, torch would compile another program than it needs later.
        shape = (DEVICE_BATCH_SIZE, MAX_SEQ_LEN)
        inputs, targets = (torch.randint(VOCAB_SIZE, shape, device=DEVICE) for _ in range(2))
        compiled(nats_per_token)(model, inputs, targets).backward()
        for optimiser in optimisers:
            optimiser.step()
    model.load_state_dict(fresh)
    model.zero_grad(set_to_none=True)


def flops_per_token(model: nn.Module) -> float:
    """Of forward and backward: 6 per weight of a matrix, 12 × width per token that attention looks at (Chowdhery et al.,
    PaLM, 2022, appendix B)."""
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and not is_embedding(name))
    return 6 * matrices + 12 * WIDTH * sum(windows())


def is_embedding(name: str) -> bool:
    return name.startswith(("embedding.", "value_embeddings."))


if __name__ == "__main__":
    try:
        main()
    except torch.OutOfMemoryError as error:
        sys.exit(f"out of memory: {str(error).splitlines()[0]}; lower DEVICE_BATCH_SIZE or DEPTH")
