"""How fast train.py trains on this machine, and where the time goes. Runs by hand, outside any container.

    python benchmarks/training.py --dataset .autoresearch/datasets/python-cpu              # speed
    python benchmarks/training.py --dataset DIR --what start-up                            # seconds to start_clock(), by stage
    python benchmarks/training.py --dataset DIR --what kernels                             # GPU time of a step, by kind of kernel

`speed` takes turns: train.py as it is; train.py with one batch over and over in place of its loader; on a CPU, a plain PyTorch loop
of the same model (AdamW for everything, at the best of three constant rates; nothing fused or compiled). Each turn trains for some
seconds; ratios are of medians over the turns. Prints JSON.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PEAK_FLOPS = 989.5e12  # dense bf16 of an H100 SXM
RATES = (1e-3, 3e-3, 1e-2)  # of the plain loop's AdamW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--what", choices=("speed", "start-up", "kernels"), default="speed")
    parser.add_argument("--turn-s", type=float, default=10.0, help="seconds of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory-gb", type=float, help="of the GPU, as if it had no more: does the profile fit?")
    options = parser.parse_args()
    if options.memory_gb:
        torch.cuda.set_per_process_memory_fraction(
            options.memory_gb * 2**30 / torch.cuda.get_device_properties(0).total_memory
        )
    os.environ["AUTORESEARCH_DATASET"] = str(options.dataset.absolute())
    measured = {"speed": speed, "start-up": start_up, "kernels": kernels}[options.what]
    on_gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} cores of {platform.machine()}"
    print(json.dumps({"machine": machine, "torch": torch.__version__, **measured(options)}, indent=1))


# ---- speed -----------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> dict[str, Any]:
    import prepare
    import train

    ways: dict[str, Callable[[], dict[str, float]]] = {
        "as it is": lambda: turn(train, prepare, options.turn_s),
        "one batch over and over": lambda: turn(train, prepare, options.turn_s, loader=one_batch(prepare)),
        **{
            f"plain loop, {rate:g}": lambda rate=rate: plain_loop(train, prepare, options.turn_s, rate)
            for rate in RATES
        },
    }
    if prepare.DEVICE == "cuda":  # the logits of a plain loop do not fit
        ways = {way: run for way, run in ways.items() if not way.startswith("plain")}
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(options.turns):
        for way, run in ways.items():
            turns[way].append(run())
            print(way, turns[way][-1], file=sys.stderr, flush=True)
    median = {
        way: {name: statistics.median(turn[name] for turn in found) for name in found[0]}
        for way, found in turns.items()
    }
    rate = {way: found["tokens_s"] for way, found in median.items()}
    flops = train.flops_per_token(train.build_model())
    return {
        "median of turns": median,
        "cost of the loader, part of a step": 1 - rate["as it is"] / rate["one batch over and over"],
        "peak memory of the GPU, GiB": torch.cuda.max_memory_reserved() / 2**30 if prepare.DEVICE == "cuda" else 0,
        "mfu of an H100, percent": 100 * flops * rate["as it is"] / PEAK_FLOPS,
        "tokens a second, as it is / plain loop": [
            rate["as it is"] / rate[way] for way in rate if way.startswith("plain")
        ],
    }


def turn(train: Any, prepare: Any, budget_s: float, loader: Callable[[int], Any] | None = None) -> dict[str, float]:
    """Tokens a second and seconds a step of train.main() with another clock, and perhaps another loader."""
    ends: list[float] = []
    tokens, val_bpb = 0, 0.0

    def submit(model: torch.nn.Module, **_: Any) -> None:
        nonlocal val_bpb
        val_bpb = prepare.evaluate_bpb(model)

    def report(step: int, done: int, loss: float) -> None:
        nonlocal tokens
        ends.append(time.monotonic())
        tokens = done

    prepare._run = prepare._Run()
    prepare._settings.cache_clear()
    settings = prepare._settings()._replace(TIME_BUDGET=budget_s)
    others = {"report": report, "submit": submit, "make_dataloader": loader or train.make_dataloader}
    with patch.multiple(prepare, _settings=lambda: settings), patch.multiple(train, **others):
        train.main()
    return summary(ends, tokens // len(ends), val_bpb)


def summary(ends: list[float], step_tokens: int, val_bpb: float) -> dict[str, float]:
    """Of a turn, from the times at which its steps ended; the first may still be special."""
    steps = sorted(later - earlier for earlier, later in pairwise(ends[1:]))
    return {
        "steps": len(ends),
        "tokens_s": step_tokens / statistics.mean(steps),
        "step_p50_s": steps[len(steps) // 2],
        "step_p90_s": steps[len(steps) * 9 // 10],
        "val_bpb": val_bpb,
    }


def one_batch(prepare: Any) -> Callable[[int], Iterator[Any]]:
    return lambda batch_size: repeat(next(prepare.make_dataloader(batch_size)))


def plain_loop(train: Any, prepare: Any, budget_s: float, rate: float) -> dict[str, float]:
    torch.manual_seed(0)
    model = train.build_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    prepare._run = prepare._Run()
    prepare.start_clock()
    batches = prepare.make_dataloader(train.DEVICE_BATCH_SIZE)
    accumulation = max(1, train.TOTAL_BATCH_TOKENS // (train.DEVICE_BATCH_SIZE * train.MAX_SEQ_LEN))
    started, ends = time.monotonic(), []
    while time.monotonic() - started < budget_s:
        for _ in range(accumulation):
            inputs, targets = next(batches)
            (F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) / accumulation).backward()
        optimiser.step()
        optimiser.zero_grad()
        ends.append(time.monotonic())
    return summary(ends, accumulation * train.DEVICE_BATCH_SIZE * train.MAX_SEQ_LEN, prepare.evaluate_bpb(model))


# ---- start-up --------------------------------------------------------------------------------------------------------

STAGES = """
import json, time
stages, before = {}, time.monotonic()
def stage(name):
    global before
    if "torch" in globals() and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    now = time.monotonic()
    stages[name], before = round(now - before, 2), now
import torch
stage("import torch")
torch.zeros((), device="cuda" if torch.cuda.is_available() else "cpu")
stage("device")
import prepare, train
stage("import prepare and train")
model = train.build_model()
stage("build the model")
train.warm_up(model)
stage("compile and warm up")
from torch._dynamo.utils import calculate_time_spent
stages["of which the compiler"] = {what: round(s, 2) for what, s in calculate_time_spent().items()}
train.build_optimisers(model)
stage("optimisers")
prepare.start_clock()
next(prepare.make_dataloader(train.DEVICE_BATCH_SIZE))
stage("first batch")
print(json.dumps(stages))
"""


def start_up(options: argparse.Namespace) -> dict[str, Any]:
    """Each in a process of its own, the second with the compiler's cache that the first has left."""
    import prepare

    cache = options.dataset.absolute() / ".compiled"
    caches = {name: str(cache / name) for name in prepare._COMPILERS_CACHES}
    switches = ("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD")
    environment = {**os.environ, **caches, **dict.fromkeys(switches, "1")}  # as in the sandbox
    found: dict[str, Any] = {}
    for label in ("cold", "warm"):
        started = time.monotonic()
        command = [sys.executable, "-c", STAGES]
        ran = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found[label] = json.loads(ran.stdout) | {"whole process": round(time.monotonic() - started, 2)}
    return found


# ---- kernels ---------------------------------------------------------------------------------------------------------

KINDS = {
    "attention": ("flash", "fmha", "attn", "flex", "attention"),
    "matrices": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "triton_tem", "triton_mm", "splitk"),
    "reductions": ("triton_red", "triton_per", "reduce"),
    "elementwise": ("triton_poi", "elementwise", "triton_for"),
    "copies": ("memcpy", "memset", "copy"),
    "optimiser": ("multi_tensor", "adam", "foreach"),
}


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """GPU time of three steps, by kind of kernel and by kernel."""
    import prepare
    import train

    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    first, count = 8, 3

    def report(step: int, tokens: int, loss: float) -> None:
        torch.cuda.synchronize()
        if step == first:
            profiler.start()
        if step == first + count:
            profiler.stop()
            raise StopIteration

    settings = prepare._settings()._replace(TIME_BUDGET=600.0)
    with (
        patch.multiple(prepare, _settings=lambda: settings),
        patch.multiple(train, report=report),
        suppress(StopIteration),
    ):
        train.main()
    times = {event.key: event.self_device_time_total / 1e3 / count for event in profiler.key_averages()}
    by_kind: Counter[str] = Counter()
    for name, ms in times.items():
        kind = next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), "other")
        by_kind[kind] += ms  # type: ignore[assignment]
    top = sorted(times.items(), key=lambda pair: -pair[1])[:40]
    return {
        "ms a step": {kind: round(ms, 2) for kind, ms in by_kind.most_common()},
        "whole": round(sum(times.values()), 2),
        "kernels": {name[:110]: round(ms, 2) for name, ms in top},
    }


if __name__ == "__main__":
    main()
