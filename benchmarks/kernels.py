"""The operations of a training step on a GPU, each in the ways that pip installs, side by side: which kernel should train.py call?

    python benchmarks/kernels.py                                   # the sizes of profile h100
    python benchmarks/kernels.py --rows 16 --seq-len 1024 --heads 6 --head-dim 64 --vocab 4096

Every operation runs forward and backward, in turn with the other ways, on random bf16 tensors. Prints a table: ms of forward and
backward, TFLOP/s of useful work, and the error of outputs and gradients against float32 on a few rows. A way that is not installed
or does not run is named with its reason.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

Way = Callable[..., Tensor]
ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--only", choices=("ceilings", "attention", "mlp", "matrices"), nargs="+")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    print(torch.cuda.get_device_name(), "· torch", torch.__version__)
    for what in (ceilings, attention, mlp, matrices):
        if not options.only or what.__name__ in options.only:
            print(f"\n{what.__name__}")
            what(options)


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
    gradient = torch.randn_like(wanted).bfloat16()
    wanted.backward(gradient.float())
    forward_ms: dict[str, list[float]] = {}
    both_ms: dict[str, list[float]] = {}
    errors: dict[str, str] = {}

    def both(way: Way) -> Tensor:
        for x in inputs:
            x.grad = None
        out = way(*inputs)
        out.backward(gradient)
        return out.detach()

    for label, way in ways.items():
        try:
            found = [error(both(way), wanted), *(error(x.grad, y.grad) for x, y in zip(inputs, precise, strict=True))]
        except Exception as fault:
            print(f"  {name:<14} {label:<28} {type(fault).__name__}: {' '.join(str(fault).split())[:200]}")
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
            f"  {name:<14} {label:<28} forward {forward:7.3f} ms, with backward {whole:7.3f} ms,"
            f" {flops / whole / 1e9:4.0f} TFLOP/s, errors {errors[label]}",
            flush=True,
        )


def error(found: Tensor | None, wanted: Tensor | None) -> float:
    assert found is not None and wanted is not None
    return ((found.float() - wanted).norm() / wanted.norm()).item()


# ---- what the chip can do --------------------------------------------------------------------------------------------


def ceilings(options: argparse.Namespace) -> None:
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    time_ms(lambda: a @ b)
    product_ms = statistics.median(time_ms(lambda: a @ b) for _ in range(ROUNDS))
    print(f"  product of 8192 × 8192 bf16 matrices: {2 * 8192**3 / product_ms / 1e9:.0f} TFLOP/s")
    source = torch.randn(2**30, device="cuda")
    target = torch.empty_like(source)
    copy_ms = statistics.median(time_ms(lambda: target.copy_(source)) for _ in range(ROUNDS))
    print(f"  copy, bytes read and written: {2 * 4 * 2**30 / copy_ms / 1e9:.2f} TB/s")


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(options: argparse.Namespace) -> None:
    """[B, T, H, D] → the same, causal, over the whole context and over half of it."""
    shape = (options.rows, options.seq_len, options.heads, options.head_dim)
    inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    for window in (options.seq_len, options.seq_len // 2):
        pairs = sum(min(i + 1, window) for i in range(options.seq_len))
        flops = 12 * options.rows * options.heads * options.head_dim * pairs
        exact = partial(masked, window=window)
        ways: dict[str, Way] = {}
        if window == options.seq_len:
            backends = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
            ways = {f"SDPA {label}": partial(causal, backend=backend) for label, backend in backends.items()}
        ways["torch's own flash, windowed"] = partial(aten_flash, window=window)
        blocks = window_blocks(window, options.seq_len)
        for label, kernel_options in FLEX.items():
            ways[f"FlexAttention {label}".strip()] = partial(flex, blocks=blocks, kernel_options=kernel_options)
        ways["FlashAttention 4"] = partial(flash_4, window=window)
        compare(f"window {window}", ways, inputs, flops, exact)


def masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    position = torch.arange(q.size(1), device=q.device)
    distance = position[:, None] - position[None, :]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < window)).transpose(1, 2)


def causal(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def aten_flash(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    T = q.size(1)
    options = {} if window >= T else {"window_size_left": window - 1, "window_size_right": 0}
    found: Tensor = torch.ops.aten._flash_attention_forward(q, k, v, None, None, T, T, 0.0, True, False, **options)[0]
    return found


FLEX: dict[str, dict[str, Any]] = {
    "": {},
    "128×128 TMA": {
        "fwd_BLOCK_M": 128,
        "fwd_BLOCK_N": 128,
        "fwd_USE_TMA": True,
        "fwd_num_warps": 8,
        "fwd_num_stages": 2,
    },
    "128×64, 3 stages": {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_warps": 4, "fwd_num_stages": 3},
    "backward 64×128": {
        "bwd_BLOCK_M1": 64,
        "bwd_BLOCK_N1": 128,
        "bwd_BLOCK_M2": 128,
        "bwd_BLOCK_N2": 64,
        "bwd_num_warps": 8,
        "bwd_num_stages": 2,
    },
}


@torch.compile(dynamic=False)
def flex(q: Tensor, k: Tensor, v: Tensor, blocks: Any, kernel_options: dict[str, Any]) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out: Any = flex_attention(q, k, v, block_mask=blocks, kernel_options=kernel_options)  # type: ignore[arg-type]
    return out.transpose(1, 2)  # type: ignore[no-any-return]


def window_blocks(window: int, seq_len: int) -> Any:
    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    return create_block_mask(visible, None, None, seq_len, seq_len, device="cuda")


def flash_4(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    from flash_attn.cute import flash_attn_func

    sizes = (None, None) if window >= q.size(1) else (window - 1, 0)
    out = flash_attn_func(q, k, v, causal=window >= q.size(1), window_size=sizes)
    return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


# ---- squared ReLU between two matrices -------------------------------------------------------------------------------


def mlp(options: argparse.Namespace) -> None:
    width = options.heads * options.head_dim
    x = torch.randn(options.rows, options.seq_len, width, device="cuda", dtype=torch.bfloat16).requires_grad_()
    up = (torch.randn(4 * width, width, device="cuda") / width**0.5).bfloat16().requires_grad_()
    down = (torch.randn(width, 4 * width, device="cuda") / width**0.5).bfloat16().requires_grad_()
    ways = {
        "compiled": torch.compile(plain_mlp, dynamic=False),
        "QuACK": partial(quack_mlp, tuned=False),
        "QuACK, tuned": partial(quack_mlp, tuned=True),
    }
    compare("mlp", ways, [x, up, down], 6 * x.numel() // width * 8 * width**2, plain_mlp)


def plain_mlp(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, up)).square(), down)


def quack_mlp(x: Tensor, up: Tensor, down: Tensor, tuned: bool) -> Tensor:
    from quack.mlp import mlp_func

    return mlp_func(x, up, down, activation="relu_sq", tuned=tuned)  # type: ignore[no-any-return]


# ---- the other matrices ----------------------------------------------------------------------------------------------


def matrices(options: argparse.Namespace) -> None:
    width = options.heads * options.head_dim
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width), "unembedding": (width, options.vocab)}  # fmt: skip
    for name, (inner, outer) in shapes.items():
        x = torch.randn(options.rows, options.seq_len, inner, device="cuda", dtype=torch.bfloat16).requires_grad_()
        weight = (torch.randn(outer, inner, device="cuda") / inner**0.5).bfloat16().requires_grad_()
        ways: dict[str, Way] = {"cuBLAS": F.linear, "QuACK": quack_linear}
        compare(name, ways, [x, weight], 6 * x.numel() * outer, F.linear)


def quack_linear(x: Tensor, weight: Tensor) -> Tensor:
    from quack.linear import linear_func

    return linear_func(x, weight, tuned=False)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
