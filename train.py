"""One GPT, one file: the model, the optimiser and the training loop that the org edits.

    python prepare.py --corpus python --profile cpu
    python train.py

Trains for the dataset's time budget, then hands the model over. Read it from top to bottom: constants, model, optimiser,
schedules, loop. On a Hopper GPU attention, MLP and loss run as fused kernels while it trains, and as the plain lines when it is
scored: whoever changes what one of them computes takes out its `if HOPPER` too.
"""

import copy
import functools
import gc
import math
import sys
from collections import deque
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
WEIGHT_DECAY = 0.2  # of matrices, fading with the clock
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
MOMENTUM = 0.95  # of Muon, reached after the first 300 steps
MUON_BETA2 = 0.95  # of the running variance of its updates

# schedule, in parts of the clock
WARMUP = 0.0
WARMDOWN = 0.5
FINAL_LR = 0.0  # of the peak, at the end

# ----------------------------------------------------------------------------------------------------------------------
# Model

# float32 on a CPU: there attention and casts in bf16 cost more than its matrices win.
HAS_BF16 = DEVICE == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
COMPUTE_DTYPE = torch.bfloat16 if HAS_BF16 else torch.float32
WIDTH = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM
NORM_EPS = torch.finfo(torch.float32).eps
# Whether the kernels at the end of the section are used: pip install 'autoresearch-org[hopper]'. Nothing else depends on them, and
# where gradients are off, as in scoring, nobody waits for their imports.
HAS_HOPPER = DEVICE == "cuda" and torch.cuda.get_device_capability()[0] == 9
HOPPER = HAS_HOPPER and HEAD_DIM in (64, 128) and torch.is_grad_enabled()
if HOPPER:
    try:
        import cutlass.cute as cute
        import triton
        import triton.language as tl
        from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd
        from quack.activation import relu_sq
        from quack.epilogue import gemm_epilogue, pack, unpack
        from quack.epilogue.head_rmsnorm import HeadRstd
        from quack.epilogue.library import identity_epi, residual_epi
        from quack.epilogue.rotary import rotary_cos_sin_load
        from quack.gemm_config import GemmConfig
    except ImportError:
        HOPPER = False


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled on a GPU. At the first call, not at import: whoever only builds the model need not wait for the compiler."""
    return torch.compile(function, dynamic=False) if DEVICE == "cuda" else function


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),), eps=NORM_EPS)


class Mix(torch.autograd.Function):
    """norm(a x + b y) and the mix, which can be had from its norm, as can all that backward needs: one tensor is kept, not three.
    Without a and b, of x + y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed = x + y if a is None or b is None else a * x + b * y
        scale = torch.rsqrt(mixed.float().square().mean(-1, keepdim=True) + NORM_EPS)
        normed = (mixed * scale).to(x.dtype)
        ctx.save_for_backward(None if a is None else y, a, b, normed, scale)
        return normed, (normed / scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dnormed: Tensor, dmixed: Tensor) -> tuple[Tensor | None, ...]:
        y, a, b, normed, scale = ctx.saved_tensors
        along = (dnormed * normed).float().mean(-1, keepdim=True)
        dx = dmixed + (scale * (dnormed - normed * along)).to(dmixed.dtype)
        if a is None:
            return dx, dx, None, None
        dx = a * dx  # what else there is comes from this, so that it alone is written
        along_y, along_mixed = ((dx * z).float().sum() / a for z in (y, normed / scale))
        return dx, b / a * dx, (along_mixed - b * along_y) / a, along_y


def mix(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """norm(a x + b y) and a x + b y; or of x + y."""
    if HOPPER:
        return Mix.apply(x, y, a, b)
    x = x + y if a is None or b is None else a * x + b * y
    return norm(x), x


class Linear(nn.Linear):
    """Weights in float32, for the optimiser; products in the dtype of what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def has_value_embedding(layer: int) -> bool:
    """Every other layer, the last one included."""
    return layer % 2 == (DEPTH - 1) % 2


def windows() -> list[int]:
    """Tokens that each layer looks back."""
    spans = [MAX_SEQ_LEN if WINDOW_PATTERN[i % len(WINDOW_PATTERN)] == "L" else MAX_SEQ_LEN // 2 for i in range(DEPTH)]
    return [*spans[:-1], MAX_SEQ_LEN]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary position embedding of [B, T, H, D]: each two channels are turned by cosine and sine of [T, 1, D / 2, 2]."""
    left, right = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.unbind(-1)
    return torch.stack([left * cos + right * sin, right * cos - left * sin], dim=-1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, layer: int, window: int) -> None:
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.window = window
        self.blocks = window_blocks(window) if DEVICE == "cuda" and not HOPPER and window < MAX_SEQ_LEN else None
        self.qkv = Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = Linear(WIDTH, WIDTH, bias=False)
        # How much of the value embedding each head takes: read off the first channels, between 0 and 2.
        self.gate = Linear(min(32, WIDTH), self.heads, bias=False) if has_value_embedding(layer) else None

    def forward(self, x: Tensor, rotation: Tensor, value_embedding: Tensor | None) -> Tensor:
        B, T, C = x.shape
        extra = None
        if self.gate is not None and value_embedding is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate.in_features]))
            extra = gate.unsqueeze(-1) * value_embedding.view(B, T, self.heads, HEAD_DIM)
        if HOPPER:
            y = fused_attention(x, self.qkv.weight.to(x.dtype), extra, rotation, self.window)[0]
        else:
            q, k, v = self.qkv(x).view(B, T, 3, self.heads, HEAD_DIM).unbind(2)
            q, k = rotate(norm(q), rotation), rotate(norm(k), rotation)
            y = attend(q, k, v if extra is None else v + extra, self.window, self.blocks)
        return self.out(y.reshape(B, T, C))


def window_blocks(window: int) -> BlockMask:
    """Which blocks of the attention matrix a causal window touches; the others are never computed."""
    length = MAX_SEQ_LEN
    return create_block_mask(
        lambda _, head, query, key: (query >= key) & (query - key < window), None, None, length, length, device=DEVICE
    )


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, blocks: BlockMask | None) -> Tensor:
    """Causal attention of [B, T, H, D] over the last `window` tokens."""
    T = q.size(1)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if window >= T:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif blocks is not None and T == MAX_SEQ_LEN and torch.compiler.is_compiling():
        y = flex_attention(q, k, v, block_mask=blocks)
    else:
        position = torch.arange(T, device=q.device)
        distance = position[:, None] - position[None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < window))
    return y.transpose(1, 2)


class Block(nn.Module):
    def __init__(self, layer: int, window: int) -> None:
        super().__init__()
        self.attention = Attention(layer, window)
        self.up = Linear(WIDTH, MLP_RATIO * WIDTH, bias=False)
        self.down = Linear(MLP_RATIO * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, first: Tensor, a: Tensor, b: Tensor, *context: Tensor | None) -> Tensor:
        """x and the embeddings, mixed by a and b, after attention and MLP."""
        normed, x = mix(x, first, a, b)
        normed, x = mix(x, self.attention(normed, *context))
        return x + self.mlp(normed)

    def mlp(self, x: Tensor) -> Tensor:
        if HOPPER:
            return fused_mlp(x.flatten(0, 1), self.up.weight.to(x.dtype), self.down.weight.to(x.dtype))[0].view_as(x)
        return self.down(F.relu(self.up(x)).square())


class GPT(nn.Module):
    """int64 [B, T] → logits, float32 [B, T, VOCAB_SIZE]."""

    rotation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.blocks = nn.ModuleList(Block(i, window) for i, window in enumerate(windows()))
        takers = [str(i) for i in range(DEPTH) if has_value_embedding(i)]
        self.value_embeddings = nn.ModuleDict({i: nn.Embedding(VOCAB_SIZE, WIDTH) for i in takers})
        self.unembedding = Linear(WIDTH, VOCAB_SIZE, bias=False)
        # Each layer sees residual × a + embedding × b, so that what the token was is never far away.
        self.residual_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.embedding_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        frequencies = ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = torch.outer(torch.arange(MAX_SEQ_LEN), frequencies)[:, None, :]
        self.register_buffer("rotation", torch.stack([angles.cos(), angles.sin()], dim=-1), persistent=False)
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
        for table in self.value_embeddings.parameters():
            table.uniform_(-bound, bound)

    def forward(self, idx: Tensor) -> Tensor:
        # softcap × tanh(z / softcap), with the scale taken before they are logits: there are VOCAB_SIZE / WIDTH times as many.
        return SOFTCAP * torch.tanh(self.unembedding(self.features(idx)).float())

    def features(self, idx: Tensor) -> Tensor:
        """int64 [B, T] → what the unembedding sees, [B, T, WIDTH]."""
        # The residual stream is in COMPUTE_DTYPE too: in float32 its traffic would cost more than the matrices.
        rotation = self.rotation[: idx.size(1)]
        first = norm(self.embedding(idx).to(COMPUTE_DTYPE))
        x = first.view_as(first)  # torch.compile gives up on a function that gets one tensor twice
        for i, block in enumerate(self.blocks):
            value_embedding = self.value_embeddings[str(i)](idx).to(COMPUTE_DTYPE) if has_value_embedding(i) else None
            x = block(x, first, self.residual_lambdas[i], self.embedding_lambdas[i], rotation, value_embedding)
        return norm(x) / SOFTCAP


def build_model() -> nn.Module:
    """The model with fresh weights, on DEVICE."""
    return GPT().to(DEVICE)


# ---- what torch.compile cannot fuse, for a Hopper GPU ----------------------------------------------------------------
# fused_attention(x, w, extra, …)[0] is attend(…) of normed and rotated q and k, and v + extra, of x wᵀ; fused_mlp(x, up, down)[0]
# is relu(x upᵀ)² downᵀ; fused_loss(x, w, targets)[0] is the cross-entropy of softcapped x wᵀ.

if HOPPER:
    TILES = GemmConfig(tile_m=192, tile_n=128, cluster_m=1, cluster_n=2, is_dynamic_persistent=False)

    def product(x: Tensor, w: Tensor, epilogue: Any = identity_epi, *c: Tensor, **operands: Any) -> Tensor:
        """x wᵀ, or what an epilogue makes of it before it is written."""
        return epilogue(x, w.mT, *c, config=TILES, tuned=False, **operands)["D"]

    @gemm_epilogue()
    def square_relu(acc):
        return {"D": relu_sq(acc)}

    @gemm_epilogue()
    def square_relu_backward(acc, c):
        """c is what forward made; the derivative of x² at x > 0 is 2 √x²."""
        return {"D": acc * (2.0 * cute.math.sqrt(c, fastmath=True))}

    HEAD_SCALE = HeadRstd("scale", eps=NORM_EPS)

    @gemm_epilogue(
        mode="acc_pair", prepass=lambda acc: {"scale": acc * acc}, prepass_outs=("scale",),
        ops={"scale": HEAD_SCALE, "rotation": rotary_cos_sin_load("rotation")}, extra_ops=(HEAD_SCALE.out("scales"),),
    )  # fmt: skip
    def norm_and_rotate(acc, scale, rotation):
        left, right = unpack(acc * scale)
        cos, sin = unpack(rotation)
        return {"D": pack(left * cos + right * sin, right * cos - left * sin)}

    @triton.jit
    def rotate_and_norm(dqkv, qk, scales, rotation, N, T, QK: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr):
        """Gradients of q and k after norm and rotation, in [N, 3, H, D] → of those before, in place; N = B × T tokens, QK = 2 H.
        What came out, [N, 2, H, D], and by how much each was scaled is all it takes: turning keeps lengths."""
        row, channel = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)[None, :]
        live = (row < N * QK)[:, None]
        gradient = dqkv + (row // QK * (QK * 3 // 2) + row % QK)[:, None] * D + channel
        x = tl.load(qk + row[:, None] * D + channel, live, 0.0).to(tl.float32)
        dx = tl.load(gradient, live, 0.0).to(tl.float32)
        dx = (dx - x * (tl.sum(dx * x, axis=1)[:, None] / D)) * tl.load(scales + row, row < N * QK, 0.0)[:, None]
        left, right = tl.split(tl.reshape(dx, (ROWS, D // 2, 2)))
        turn = tl.load(rotation + (row // QK % T)[:, None] * D + channel)
        cos, sin = tl.split(tl.reshape(turn, (ROWS, D // 2, 2)))
        turned = tl.join(left * cos - right * sin, right * cos + left * sin)
        tl.store(gradient, tl.reshape(turned, (ROWS, D)).to(tl.bfloat16), live)

    def span(window: int, T: int) -> dict[str, Any]:
        return {"causal": True} if window >= T else {"window_size_left": window - 1, "window_size_right": 0}

    @torch.library.custom_op("train::attention", mutates_args=())
    def fused_attention(
        x: Tensor, w: Tensor, extra: Tensor | None, rotation: Tensor, window: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """bf16 [B, T, C], [3 C, C], [B, T, H, D], float32 [T, 1, D / 2, 2] → y, [B, T, H, D], and what backward needs."""
        B, T, C = x.shape
        D = 2 * rotation.size(-2)
        scales = x.new_empty(B, T, 2 * C // D, dtype=torch.float32)
        operands = {"scale": D, "scales": scales, "rotation": rotation.view(T, D)}
        qk = product(x, w[: 2 * C].expand(B, -1, -1), norm_and_rotate, **operands).view(B, T, 2, -1, D)
        added = {} if extra is None else {"epilogue": residual_epi, "res": extra.view(B * T, C)}
        v = product(x.flatten(0, 1), w[2 * C :], **added).view(B, T, -1, D)
        return *_flash_attn_fwd(*qk.unbind(2), v, return_lse=True, **span(window, T))[:2], qk, v, scales

    @fused_attention.register_fake
    def _(x: Tensor, w: Tensor, extra: Tensor | None, rotation: Tensor, window: int) -> tuple[Tensor, ...]:
        B, T, C = x.shape
        H = C // (2 * rotation.size(-2))
        y, qk, v = (x.new_empty(B, T, *shape, C // H) for shape in ((H,), (2, H), (H,)))
        return y, x.new_empty(B, H, T, dtype=torch.float32), qk, v, x.new_empty(B, T, 2 * H, dtype=torch.float32)

    @torch.library.custom_op("train::attention_backward", mutates_args=())
    def fused_attention_backward(dy: Tensor, found: list[Tensor], window: int) -> tuple[Tensor, Tensor, Tensor]:
        x, w, rotation, y, lse, qk, v, scales = found
        B, T, H, D = v.shape
        dqkv = v.new_empty(B, T, 3, H, D)
        into = dict(zip(("dq", "dk", "dv"), dqkv.unbind(2), strict=True))
        _flash_attn_bwd(*qk.unbind(2), v, y, dy.contiguous(), lse, **span(window, T), **into)
        rows = 64  # of one head of one token each, per program
        grid = (triton.cdiv(scales.numel(), rows),)
        rotate_and_norm[grid](dqkv, qk, scales, rotation, B * T, T, 2 * H, D, rows, num_warps=8)
        flat = dqkv.view(B * T, -1)
        return product(flat, w.T).view_as(x), flat.T @ x.flatten(0, 1), dqkv

    fused_attention_backward.register_fake(
        lambda dy, found, window: (*map(torch.empty_like, found[:2]), dy.new_empty(*dy.shape[:2], 3, *dy.shape[2:]))
    )

    def keep_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, w, _, rotation, ctx.window = inputs
        ctx.save_for_backward(x, w, rotation, *output)

    def differentiate_attention(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        dx, dw, dqkv = fused_attention_backward(dy, list(ctx.saved_tensors), ctx.window)
        return dx, dw, dqkv[:, :, 2] if ctx.needs_input_grad[2] else None, None, None

    fused_attention.register_autograd(differentiate_attention, setup_context=keep_attention)

    @torch.library.custom_op("train::mlp", mutates_args=())
    def fused_mlp(x: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """bf16 [N, WIDTH] → the same, and the hidden layer for backward."""
        hidden = product(x, up, square_relu)
        return product(hidden, down), hidden

    @torch.library.custom_op("train::mlp_backward", mutates_args=())
    def fused_mlp_backward(dy: Tensor, found: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x, up, down, hidden = found
        dhidden = product(dy.contiguous(), down.T, square_relu_backward, hidden)
        return product(dhidden, up.T), dhidden.T @ x, dy.T @ hidden

    fused_mlp.register_fake(lambda x, up, down: (torch.empty_like(x), x.new_empty(len(x), len(up))))
    fused_mlp_backward.register_fake(lambda dy, found: tuple(map(torch.empty_like, found[:3])))
    fused_mlp.register_autograd(
        lambda ctx, dy, _: fused_mlp_backward(dy, list(ctx.saved_tensors)),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output[1]),
    )

    @triton.jit
    def tanh(x):
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x.to(tl.float32)], tl.float32, True, 1)

    @triton.jit
    def cross_entropy_and_gradient(logits, targets, nats, V: tl.constexpr, CAP: tl.constexpr, BLOCK: tl.constexpr):
        """Nats of each row of [N, V], where CAP × tanh of it are the logits; the row becomes the gradient of its nats. What is
        capped needs no maximum taken off before it is exponentiated."""
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        target = tl.load(targets + row)
        aim = tanh(tl.load(logits + row * V + target))
        capped = tanh(tl.load(logits + row * V + column, column < V, 0.0))
        odds = tl.where(column < V, tl.exp(CAP * capped), 0.0)
        total = tl.sum(odds)
        gradient = (odds * (CAP / total) - tl.where(column == target, CAP, 0.0)) * (1 - capped * capped)
        tl.store(nats + row, tl.log(total) - CAP * aim)
        tl.store(logits + row * V + column, gradient.to(tl.bfloat16), column < V)

    @torch.library.custom_op("train::loss", mutates_args=())
    def fused_loss(x: Tensor, w: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nats per token of bf16 [N, WIDTH], and the gradients of their sum: made at once, so that no logits are kept."""
        logits, nats = product(x, w), torch.empty_like(targets, dtype=torch.float32)
        block = triton.next_power_of_2(len(w))
        cross_entropy_and_gradient[nats.shape](logits, targets, nats, len(w), SOFTCAP, block, num_warps=16)
        return nats.mean(), product(logits, w.T), logits.T @ x

    fused_loss.register_fake(lambda x, w, _: (x.float().mean(), torch.empty_like(x), torch.empty_like(w)))
    fused_loss.register_autograd(
        lambda ctx, dloss, *_: (*(g * (dloss / len(ctx.saved_tensors[0])) for g in ctx.saved_tensors), None),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*output[1:]),
    )


# ----------------------------------------------------------------------------------------------------------------------
# Optimiser: Muon for the matrices of the blocks, AdamW for everything else

# x ← a x + (b g + c g²) x with g = x xᵀ, tuned step by step (Amsel et al., The Polar Express, 2025)
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(g: Tensor) -> Tensor:
    """The nearest matrix with all singular values near 1, for each of [N, rows, columns]."""
    x = g.to(COMPUTE_DTYPE)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def neuron_sizes(updates: Tensor) -> Tensor:
    """Mean square of each neuron's update; neurons are the longer side of [N, rows, columns]."""
    return updates.square().mean(-1 if updates.size(-2) >= updates.size(-1) else -2, keepdim=True)


def even_out(updates: Tensor, variances: Tensor) -> Tensor:
    """Each neuron's update divided by the running size of its updates, with the whole as large as before (Li et al., NorMuon,
    2025). `variances` is brought up to date."""
    sizes = neuron_sizes(updates)
    variances.lerp_(sizes, 1 - MUON_BETA2)
    scale = variances.clamp_min(1e-10).rsqrt()
    whole, scaled = (x.sum((-2, -1), keepdim=True) for x in (sizes, sizes * scale.square()))
    return updates * (scale * (whole / scaled.clamp_min(1e-20)).sqrt())


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al., Muon, 2024), with decay only where an update goes the same way (Chen et al.,
    Cautious Weight Decay, 2025). Matrices of one shape are stepped together; q, k and v are three matrices."""

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        shapes = sorted({tuple(p.shape) for p in matrices})
        groups = [{"params": [p for p in matrices if tuple(p.shape) == shape]} for shape in shapes]
        super().__init__(groups, {"lr": MATRIX_LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params, state = group["params"], self.state[group["params"][0]]
            rows, columns = shape = params[0].shape
            parts = (-1, WIDTH, WIDTH) if shape == (3 * WIDTH, WIDTH) else (-1, rows, columns)
            weights = torch.stack(params).view(parts)
            gradients = torch.stack([p.grad for p in params]).view(parts)
            if not state:
                state["momenta"] = torch.zeros_like(gradients)
                state["variances"] = torch.zeros_like(neuron_sizes(gradients))
            momenta, variances = state["momenta"], state["variances"]
            momenta.lerp_(gradients, 1 - group["momentum"])
            updates = even_out(orthogonalise(gradients.lerp(momenta, group["momentum"])), variances)
            updates += group["weight_decay"] * weights * (updates * weights >= 0)
            # A tall matrix maps to more outputs than it has inputs; its update is scaled so that outputs change as much.
            weights -= group["lr"] * max(1.0, weights.size(-2) / weights.size(-1)) ** 0.5 * updates
            torch._foreach_copy_(params, weights.view(-1, *shape).unbind())


def build_optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    assert isinstance(model, GPT)
    # AdamW's rates were tuned at a width of 768 and go with its inverse root.
    scale = (WIDTH / 768) ** -0.5
    adam = [
        {"params": [model.embedding.weight, *model.value_embeddings.parameters()], "lr": EMBEDDING_LR * scale},
        {"params": [model.unembedding.weight], "lr": UNEMBEDDING_LR * scale},
        # At first the loss does not depend on these: what their gradients are then, 1e-6 of rounding, must not make whole steps.
        {"params": [model.residual_lambdas], "lr": SCALAR_LR * 0.01, "eps": 1e-5},
        {"params": [model.embedding_lambdas], "lr": SCALAR_LR, "betas": (0.96, ADAM_BETA2), "eps": 1e-5},
    ]
    options: dict[str, Any] = {"betas": (ADAM_BETA1, ADAM_BETA2), "eps": 1e-10, "weight_decay": 0.0}
    adamw = torch.optim.AdamW(adam, **options, fused=DEVICE == "cuda")
    optimisers = [adamw, Muon(list(model.blocks.parameters()))]
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
def nats_per_token(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    if HOPPER:
        x, w = model.features(inputs).flatten(0, 1), model.unembedding.weight
        return fused_loss(x, w.to(x.dtype), targets.flatten())[0]
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
    ahead = 1 if DEVICE == "cuda" else 0  # steps queued while the GPU works on one, so that it never waits for Python

    clock = start_clock()
    batches = make_dataloader(DEVICE_BATCH_SIZE)
    batch = next(batches)
    queue: deque[Step] = deque()
    step, step_s = 0, 0.0
    while clock.elapsed_s + (1 + ahead) * step_s < clock.budget_s:  # as long as one more step like the last one fits
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
        queue.append(Step(step, step * accumulation * DEVICE_BATCH_SIZE * MAX_SEQ_LEN, total))
        if len(queue) > ahead:
            queue.popleft().finish()
        step_s = clock.elapsed_s - began_s
    for last in queue:
        last.finish()
    submit(model, depth=DEPTH, flops_per_token=flops_per_token(model))


class Step:
    """A step that the GPU may still be at. Its loss comes over by itself: to ask for it would wait for all that is queued."""

    def __init__(self, number: int, tokens: int, nats: Tensor) -> None:
        self.number, self.tokens = number, tokens
        self.nats = torch.empty((), pin_memory=DEVICE == "cuda").copy_(nats, non_blocking=True)
        self.done = torch.cuda.current_stream().record_event() if DEVICE == "cuda" else None

    def finish(self) -> None:
        """Wait for its end, so that the clock can be read, and report it."""
        if self.done is not None:
            self.done.synchronize()
        nats = self.nats.item()
        if not math.isfinite(nats):
            sys.exit(f"diverged: the loss is {nats} at step {self.number}; lower a learning rate")
        report(self.number, self.tokens, nats)


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
    matrices = sum(matrix.weight.numel() for matrix in model.modules() if isinstance(matrix, Linear))
    return 6 * matrices + 12 * WIDTH * sum(windows())


if __name__ == "__main__":
    try:
        main()
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[:2])  # the rest is advice on the allocator
        sys.exit(f"out of memory: {asked}; lower DEVICE_BATCH_SIZE or DEPTH")
