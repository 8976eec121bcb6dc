"""train.py beside the one of karpathy/autoresearch: same dataset, same GPU, same seconds, one after the other.

    git clone https://github.com/karpathy/autoresearch ~/autoresearch
    python benchmarks/original.py --original ~/autoresearch --dataset .autoresearch/datasets/climbmix-h100

The original's train.py runs unchanged, with two stand-ins for what it imports: a prepare.py that gives it this dataset (through this
project's loader, which costs it less than its own), and a kernels.py in place of the FlashAttention 3 that it fetches from a hub: FlexAttention,
and FlashAttention 4 where that is installed. Both are scored by the same function on the same rows. Prints JSON: of each run what its
own summary says, MFU by the original's count of operations, and ratios to the first.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ordering import lay_out

ROOT = Path(__file__).parents[1]

PREPARE = """
import importlib.util, json, os
from pathlib import Path

spec = importlib.util.spec_from_file_location("ours", ROOT + "/prepare.py")
ours = importlib.util.module_from_spec(spec)
import sys
sys.modules["ours"] = ours
spec.loader.exec_module(ours)
KNOBS = json.loads(Path(os.environ["AUTORESEARCH_DATASET"], "manifest.json").read_text())["knobs"]
MAX_SEQ_LEN, TIME_BUDGET = KNOBS["max_seq_len"], SECONDS

class Tokenizer:
    @classmethod
    def from_directory(cls):
        return cls()

    def get_vocab_size(self):
        return KNOBS["vocab_size"]

def make_dataloader(tokenizer, B, T, split):
    rows = ours._read_rows(Path(os.environ["AUTORESEARCH_DATASET"], split + ".bin"))
    batches = ours.Batches(rows, B, SEED, "cuda")
    for inputs, targets in batches:
        yield inputs, targets, batches.epoch

def evaluate_bpb(model, tokenizer, batch_size):
    return ours.evaluate_bpb(getattr(model, "_orig_mod", model))
"""

KERNELS = '''
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

if ATTENTION == "flash":
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd

    def span(window, T):
        return dict(causal=True) if window >= T else dict(window_size_left=window, window_size_right=0)

    @torch.library.custom_op("original::attention", mutates_args=())
    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        return _flash_attn_fwd(q, k, v, return_lse=True, **span(window, q.size(1)))[:2]

    @attention.register_fake
    def _(q, k, v, window):
        B, T, H, _ = q.shape
        return torch.empty_like(q), q.new_empty(B, H, T, dtype=torch.float32)

    @torch.library.custom_op("original::backward", mutates_args=())
    def backward(
        dy: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, y: torch.Tensor, lse: torch.Tensor, window: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return _flash_attn_bwd(q, k, v, y, dy.contiguous(), lse, **span(window, q.size(1)))[:3]

    backward.register_fake(lambda dy, q, k, v, *_: tuple(map(torch.empty_like, (q, k, v))))

    def keep(ctx, inputs, output):
        *qkv, ctx.window = inputs
        ctx.save_for_backward(*qkv, *output)

    attention.register_autograd(
        lambda ctx, dy, _: (*backward(dy, *ctx.saved_tensors, ctx.window), None), setup_context=keep
    )

BLOCKS = {}

def flash_attn_func(q, k, v, causal, window_size):
    """[B, T, H, D]; each token sees itself and window_size[0] before it."""
    T, window = q.size(1), window_size[0]
    q, k = q.to(v.dtype), k.to(v.dtype)
    if ATTENTION == "flash":
        return attention(q.contiguous(), k.contiguous(), v.contiguous(), window)[0]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if window >= T:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif torch.compiler.is_compiling():
        y = flex_attention(q, k, v, block_mask=BLOCKS[window])
    else:
        position = torch.arange(T, device=q.device)
        distance = position[:, None] - position[None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance <= window))
    return y.transpose(1, 2)

def get_kernel(repository):
    from prepare import MAX_SEQ_LEN as T

    window = T // 2
    def visible(batch, head, query, key):
        return (query >= key) & (query - key <= window)

    BLOCKS[window] = create_block_mask(visible, None, None, T, T, device="cuda")
    return SimpleNamespace(flash_attn_interface=SimpleNamespace(flash_attn_func=flash_attn_func))
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="its folder")
    parser.add_argument("--dataset", type=Path, required=True, help="prepared with the profile h100")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--runs", nargs="+", choices=("flex", "flash", "ours"), default=["flex", "flash", "ours"])
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for run in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            if run == "ours":
                source = (ROOT / "train.py").read_text()
                lay_out(Path(folder), source, options.dataset, options.seconds, options.seed, "cuda")
            else:
                lay_out_original(options, Path(folder), run)
            environment = {**os.environ, "AUTORESEARCH_DATASET": str(options.dataset.absolute())}
            command = [sys.executable, "train.py"]
            ran = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found[run] = summary(ran.stdout)
        print(run, found[run], file=sys.stderr, flush=True)
    first = found[options.runs[0]]
    ratios = {
        run: {name: of[name] / first[name] for name in ("total_tokens_M", "val_bpb")} for run, of in found.items()
    }
    import torch

    machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}"
    print(json.dumps({"machine": machine, "runs": found, "ratio to the first": ratios}, indent=1))


def lay_out_original(options: argparse.Namespace, folder: Path, attention: str) -> None:
    shutil.copy(options.original / "train.py", folder)
    given = f"ROOT, SECONDS, SEED = {str(ROOT)!r}, {options.seconds}, {options.seed}\n"
    (folder / "prepare.py").write_text(given + PREPARE)
    (folder / "kernels.py").write_text(f"ATTENTION = {attention!r}\n" + KERNELS)


def summary(printed: str) -> dict[str, float]:
    """Both print the same block at the end."""
    lines = printed[printed.rindex("---") :].splitlines()
    return {name: float(value) for name, _, value in (line.partition(":") for line in lines) if value}


if __name__ == "__main__":
    main()
