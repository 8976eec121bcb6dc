"""The operations of a training step on a GPU, each in the ways that pip installs, side by side: which one should train.py call?

    python benchmarks/kernels.py --dataset .autoresearch/datasets/local-h100
    python benchmarks/kernels.py --dataset DIR --only attention mlp

Sizes are those of train.py on this dataset. Every way runs forward and backward, in turn with the others, on the same random bf16
tensors. Prints a line each: ms of forward, and of both; TFLOP/s of useful work; and how far the output and each gradient are from
float32, as a part of their length. A way that is not installed or does not run is named with its reason.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
Way = Callable[..., Tensor]
ROUNDS = 7


def main() -> None:
    groups = {group.__name__: group for group in (ceilings, attention, attention_of_products, mlp, loss, matrices)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--only", choices=tuple(groups), nargs="+", default=tuple(groups))
    options = parser.parse_args()
    os.environ["AUTORESEARCH_DATASET"] = str(options.dataset.absolute())
    import train

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    print(torch.cuda.get_device_name(), "· torch", torch.__version__)
    for name in options.only:
        print(f"\n{name}: {groups[name].__doc__}")
        groups[name](train)


def time_ms(run: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(3):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 3


def compare(name: str, ways: dict[str, Way], inputs: list[Tensor], flops: float, exact: Way) -> None:
    """Forward and backward of each way on the same inputs, in turn; `exact` is what they should compute."""
    precise = [x.detach().float().requires_grad_() for x in inputs]
    wanted = exact(*precise)
    gradient = torch.randn_like(wanted)
    wanted.backward(gradient)
    forward_ms: dict[str, list[float]] = {}
    both_ms: dict[str, list[float]] = {}
    errors: dict[str, str] = {}

    def both(way: Way) -> Tensor:
        for x in inputs:
            x.grad = None
        out = way(*inputs)
        out.backward(gradient.to(out.dtype))
        return out.detach()

    for label, way in ways.items():
        try:
            found = [error(both(way), wanted), *(error(x.grad, y.grad) for x, y in zip(inputs, precise, strict=True))]
        except Exception as fault:
            print(f"  {name:<12} {label:<26} {type(fault).__name__}: {' '.join(str(fault).split())[:200]}")
            continue
        errors[label] = " ".join(f"{e:.1e}" for e in found)
        forward_ms[label], both_ms[label] = [], []
    del precise, wanted
    for _ in range(ROUNDS):
        for label in errors:
            forward_ms[label].append(time_ms(partial(ways[label], *inputs)))
            both_ms[label].append(time_ms(partial(both, ways[label])))
    for label in errors:
        forward, whole = statistics.median(forward_ms[label]), statistics.median(both_ms[label])
        print(
            f"  {name:<12} {label:<26} forward {forward:7.3f} ms, with backward {whole:7.3f} ms,"
            f" {flops / whole / 1e9:4.0f} TFLOP/s, errors {errors[label]}",
            flush=True,
        )


def error(found: Tensor | None, wanted: Tensor | None) -> float:
    assert found is not None and wanted is not None
    return ((found.float() - wanted).norm() / wanted.norm()).item()


def random(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, device="cuda")).bfloat16().requires_grad_()


# ---- what the chip can do --------------------------------------------------------------------------------------------


def ceilings(train: Any) -> None:
    """the fastest product and the fastest copy"""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    time_ms(lambda: a @ b)
    product_ms = statistics.median(time_ms(lambda: a @ b) for _ in range(ROUNDS))
    print(f"  product of 8192 × 8192 bf16 matrices: {2 * 8192**3 / product_ms / 1e9:.0f} TFLOP/s")
    source = torch.randn(2**30, device="cuda")
    target = torch.empty_like(source)
    copy_ms = statistics.median(time_ms(lambda: target.copy_(source)) for _ in range(ROUNDS))
    print(f"  copy, bytes read and written: {2 * 4 * 2**30 / copy_ms / 1e9:.2f} TB/s")


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(train: Any) -> None:
    """q, k, v [B, T, H, D] → y, over the whole context and over half of it"""
    T, heads = train.MAX_SEQ_LEN, train.WIDTH // train.HEAD_DIM
    inputs = [random(train.DEVICE_BATCH_SIZE, T, heads, train.HEAD_DIM) for _ in range(3)]
    for window in (T, T // 2):
        ways: dict[str, Way] = {}
        if window == T:
            ways["SDPA, cuDNN"] = partial(causal, backend=SDPBackend.CUDNN_ATTENTION)
            ways["SDPA, flash"] = partial(causal, backend=SDPBackend.FLASH_ATTENTION)
        ways["flash of torch's own"] = partial(aten_flash, window=window)
        for label, kernel_options in FLEX.items():
            ways[label] = partial(flex, blocks=train.window_blocks(window), kernel_options=kernel_options)
        ways["FlashAttention 4"] = partial(flash_4, window=window)
        exact = partial(train.attend, window=window, blocks=None)
        compare(f"window {window}", ways, inputs, attention_flops(train, window), exact)


def attention_flops(train: Any, window: int) -> float:
    """Of the pairs that are not masked, forward and backward: 12 per pair and channel."""
    pairs = sum(min(i + 1, window) for i in range(train.MAX_SEQ_LEN))
    return float(12 * train.DEVICE_BATCH_SIZE * train.WIDTH * pairs)


def causal(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def aten_flash(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    T = q.size(1)
    span = {} if window >= T else {"window_size_left": window - 1, "window_size_right": 0}
    found: Tensor = torch.ops.aten._flash_attention_forward(q, k, v, None, None, T, T, 0.0, True, False, **span)[0]
    return found


FLEX: dict[str, dict[str, Any]] = {
    "FlexAttention": {},
    "FlexAttention, TMA": {
        "fwd_BLOCK_M": 128,
        "fwd_BLOCK_N": 128,
        "fwd_USE_TMA": True,
        "fwd_num_warps": 8,
        "fwd_num_stages": 2,
    },
}


@torch.compile(dynamic=False)
def flex(q: Tensor, k: Tensor, v: Tensor, blocks: Any, kernel_options: dict[str, Any]) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out: Any = flex_attention(q, k, v, block_mask=blocks, kernel_options=kernel_options)  # type: ignore[arg-type]
    return out.transpose(1, 2)  # type: ignore[no-any-return]


def flash_4(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    from flash_attn.cute import flash_attn_func

    span = (None, None) if window >= q.size(1) else (window - 1, 0)
    out = flash_attn_func(q, k, v, causal=window >= q.size(1), window_size=span)
    return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


def attention_of_products(train: Any) -> None:
    """x, w → y of normed and rotated q and k, and v, of x wᵀ: all of train.py's attention but its last matrix"""
    width, length = train.WIDTH, train.MAX_SEQ_LEN
    x, w = random(train.DEVICE_BATCH_SIZE, length, width), random(3 * width, width, scale=width**-0.5)
    rotation = train.build_model().rotation

    def plain(x: Tensor, w: Tensor, window: int, blocks: Any) -> Tensor:
        q, k, v = (x @ w.T).view(*x.shape[:2], 3, -1, train.HEAD_DIM).unbind(2)
        q, k = (train.rotate(train.norm(x), rotation) for x in (q, k))
        return train.attend(q, k, v, window, blocks)  # type: ignore[no-any-return]

    def fused(x: Tensor, w: Tensor, window: int) -> Tensor:
        return train.fused_attention(x, w, None, rotation, window)[0]  # type: ignore[no-any-return]

    for window in (train.MAX_SEQ_LEN, train.MAX_SEQ_LEN // 2):
        compiled = torch.compile(plain, dynamic=False)
        ways: dict[str, Way] = {
            "compiled": partial(compiled, window=window, blocks=train.window_blocks(window)),
            "train.py": partial(fused, window=window),
        }
        exact = partial(plain, window=window, blocks=None)
        flops = attention_flops(train, window) + 18 * train.DEVICE_BATCH_SIZE * length * width**2
        compare(f"window {window}", ways, [x, w], flops, exact)


# ---- what lies around matrices ---------------------------------------------------------------------------------------


def mlp(train: Any) -> None:
    """x → relu(x upᵀ)² downᵀ"""
    width, rows = train.WIDTH, train.DEVICE_BATCH_SIZE * train.MAX_SEQ_LEN
    x, up = random(rows, width), random(4 * width, width, scale=width**-0.5)
    down = random(width, 4 * width, scale=width**-0.5)

    def plain(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(x, up)).square(), down)

    def quack(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        from quack.mlp import mlp_func

        return mlp_func(x, up, down, activation="relu_sq", tuned=False)  # type: ignore[no-any-return]

    ways: dict[str, Way] = {
        "compiled": torch.compile(plain, dynamic=False),
        "QuACK": quack,
        "train.py": lambda *inputs: train.fused_mlp(*inputs)[0],
    }
    compare("mlp", ways, [x, up, down], 48 * rows * width**2, plain)


def loss(train: Any) -> None:
    """x, unembedding, targets → nats per token; of a quarter of the rows, since float32 takes so much memory"""
    rows = train.DEVICE_BATCH_SIZE * train.MAX_SEQ_LEN // 4
    x, w = random(rows, train.WIDTH, scale=1 / train.SOFTCAP), random(train.VOCAB_SIZE, train.WIDTH, scale=0.2)
    targets = torch.randint(train.VOCAB_SIZE, (rows,), device="cuda")

    def plain(x: Tensor, w: Tensor) -> Tensor:
        return F.cross_entropy(train.SOFTCAP * torch.tanh((x @ w.T).float()), targets)

    ways: dict[str, Way] = {
        "compiled": torch.compile(plain, dynamic=False),
        "train.py": lambda x, w: train.fused_loss(x, w, targets)[0],
    }
    compare("loss", ways, [x, w], 6 * rows * train.WIDTH * train.VOCAB_SIZE, plain)


def matrices(train: Any) -> None:
    """x → x wᵀ of every shape in the model"""
    width, rows = train.WIDTH, train.DEVICE_BATCH_SIZE * train.MAX_SEQ_LEN
    shapes = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        "unembedding": (width, train.VOCAB_SIZE),
    }
    for name, (inner, outer) in shapes.items():
        x, weight = random(rows, inner), random(outer, inner, scale=inner**-0.5)
        ways: dict[str, Way] = {"cuBLAS": F.linear, "QuACK forward, cuBLAS backward": partial(Product.apply, train)}
        compare(name, ways, [x, weight], 6 * rows * inner * outer, F.linear)


class Product(torch.autograd.Function):
    """x wᵀ by train.py's product(), and the gradient of x; that of w, where cuBLAS splits the long sum, by torch."""

    @staticmethod
    def forward(ctx: Any, train: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.product = train.product
        ctx.save_for_backward(x, w)
        return train.product(x, w)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return None, ctx.product(dy, w.T), dy.T @ x


if __name__ == "__main__":
    main()
