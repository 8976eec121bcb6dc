"""Does a small machine tell good changes from bad ones? Known changes to train.py, trained by hand, against its noise.

    python benchmarks/ordering.py --dataset .autoresearch/datasets/python-cpu --budgets 20 40 60 --seeds 3
    python benchmarks/ordering.py --dataset DIR --files other_train.py another_train.py

Seeds are the outer loop, so that a machine that slows down meanwhile slows all changes alike. Prints a line a run, then a
table: val_bpb of each change (mean), how far it is from the unchanged file, and that distance in standard errors, with the
spread pooled over all changes. With --files, other train.py files are compared with this one instead.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHANGES = {
    "as it is": {},
    "depth 1": {"DEPTH": "1"},
    "depth 4": {"DEPTH": "4"},
    "matrix rate / 10": {"MATRIX_LR": "0.004"},
    "matrix rate × 10": {"MATRIX_LR": "0.4"},
    "embedding rate / 10": {"EMBEDDING_LR": "0.06"},
    "batch × 4": {"TOTAL_BATCH_TOKENS": "2**13"},
    "batch / 2": {"TOTAL_BATCH_TOKENS": "2**10", "DEVICE_BATCH_SIZE": "4"},
    "no warmdown": {"WARMDOWN": "0.0"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="prepared with the profile cpu")
    parser.add_argument("--budgets", type=float, nargs="+", default=[20.0, 60.0], help="seconds of training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--changes", nargs="+", choices=tuple(CHANGES), default=list(CHANGES))
    parser.add_argument("--files", type=Path, nargs="+")
    options = parser.parse_args()
    sources = {change: edited(ROOT / "train.py", CHANGES[change]) for change in options.changes}
    if options.files:
        sources = {"as it is": edited(ROOT / "train.py", {}), **{str(file): file.read_text() for file in options.files}}
    scores: dict[tuple[float, str], list[float]] = {}
    for seed in range(options.seeds):
        for budget_s in options.budgets:
            for change, source in sources.items():
                summary = train(options.dataset.absolute(), source, budget_s, seed)
                scores.setdefault((budget_s, change), []).append(float(summary["val_bpb"]))
                print(
                    f"{seed=} {budget_s=:g} {change}: {summary['val_bpb']} in {summary['num_steps']} steps", flush=True
                )
    for budget_s in options.budgets:
        print(f"\n{budget_s:g} s of training, {options.seeds} seeds")
        print_table({change: scores[budget_s, change] for change in sources})


def edited(path: Path, edits: dict[str, str]) -> str:
    """A train.py with some of its constants replaced."""
    lines = path.read_text().splitlines()
    return "\n".join(next((f"{name} = {value}" for name, value in edits.items() if line.startswith(f"{name} = ")), line) for line in lines) + "\n"  # fmt: skip


def train(dataset: Path, source: str, budget_s: float, seed: int) -> dict[str, str]:
    """The summary block of one run by hand."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), source, dataset, budget_s, seed, "cpu")
        environment = {**os.environ, "AUTORESEARCH_DATASET": str(dataset), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "train.py"]
        ran = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in ran.stdout.splitlines())}


def lay_out(folder: Path, source: str, dataset: Path, budget_s: float, seed: int, device: str) -> None:
    """A train.py with its prepare.py, and the settings that it runs by hand with."""
    shutil.copy(ROOT / "prepare.py", folder)
    (folder / "train.py").write_text(source)
    knobs = json.loads((dataset / "manifest.json").read_text())["knobs"]
    config = {"max_seq_len": knobs["max_seq_len"], "vocab_size": knobs["vocab_size"], "profile": knobs}
    (folder / "config.json").write_text(json.dumps({**config, "budget_s": budget_s, "device": device, "seed": seed}))


def print_table(scores: dict[str, list[float]]) -> None:
    unchanged = statistics.mean(next(iter(scores.values())))
    spreads = [statistics.variance(values) for values in scores.values() if len(values) > 1]
    deviation = math.sqrt(statistics.mean(spreads)) if spreads else math.nan
    print(f"standard deviation of one run, pooled: {deviation:.4f}")
    for change, values in sorted(scores.items(), key=lambda pair: statistics.mean(pair[1])):
        difference = statistics.mean(values) - unchanged
        error = deviation * math.sqrt(2 / len(values))
        print(f"{change:<22}{statistics.mean(values):.4f}  {difference:+.4f}  {difference / error:+6.1f}")


if __name__ == "__main__":
    main()
