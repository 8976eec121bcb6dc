"""What an audited score costs beside a plain evaluation of the same weights, and by how much honest models miss their own claims.

    python benchmarks/scoring.py --train-s 30                                                  # this machine's standard library
    python benchmarks/scoring.py --profile h100 --engine runc --corpus local ~/texts --train-s 90

Trains once in the sandbox, then takes turns: a bare process that evaluates the split in the plain way, and the whole audited
score (both containers, from start to end). Prints one JSON object.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sandbox.dataset import Dataset  # noqa: E402
from sandbox.device import find_device  # noqa: E402
from sandbox.engines import pick_engine  # noqa: E402
from sandbox.measure import Job, Notes  # noqa: E402
from sandbox.profile import Limits  # noqa: E402
from sandbox.rundir import run_directory  # noqa: E402
from sandbox.score import Rigour, batch_rows  # noqa: E402

PLAIN = """
import json, sys, time
import numpy as np, torch
from safetensors.torch import load_file
import prepare, train
data, batch = sys.argv[1], int(sys.argv[2])
model = train.build_model()
model.load_state_dict(load_file("../weights/model.safetensors"))
model.to(prepare.DEVICE).eval()
rows = np.memmap(f"{data}/val.bin", prepare.row_dtype(prepare.VOCAB_SIZE), "r").reshape(-1, prepare.MAX_SEQ_LEN + 1)
loaded = time.monotonic()
bpb = prepare.bits_per_byte(model, rows, np.load(f"{data}/token_bytes.npy"), batch, prepare.DEVICE)
print(json.dumps({"bpb": bpb, "pass_s": time.monotonic() - loaded}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--train-s", type=float, default=30.0)
    parser.add_argument("--cuts", type=int, help="of the full audit; as many as the split has rows by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--corpus", nargs="+", default=["python"], help="corpus name, then its paths")
    parser.add_argument("--tolerance", action="store_true", help="also run tolerance.py on the weights")
    options, knobs = parser.parse_known_args()
    state = Path(tempfile.mkdtemp(prefix="autoresearch-bench-", dir=ROOT))
    directory = state / "dataset"
    corpus = [options.corpus[0], *(str(Path(path).absolute()) for path in options.corpus[1:])]
    prepare = [sys.executable, str(ROOT / "prepare.py"), "--corpus", *corpus, "--profile", options.profile]
    subprocess.run([*prepare, "--out", str(directory), *knobs], cwd=state, check=True, stdout=sys.stderr)
    dataset, device = Dataset.open(directory), find_device(options.device)
    rows = dataset.rows("val")
    cuts = options.cuts or len(rows)
    engine = pick_engine(options.engine, state_dir=state)
    size = batch_rows(dataset.max_seq_len, dataset.vocab_size, device)
    turns = []
    with run_directory(state, "scoring") as folder:
        source = (ROOT / "train.py").read_bytes()
        job = Job(source, dataset, engine, options.train_s, 1, device, Limits.of(), "scoring", state, threading.Event(), Rigour(screen_cuts=cuts))  # fmt: skip
        notes = Notes()
        job.train(folder, notes, lambda phase: say(phase), lambda _: None)
        say(f"trained {notes.timing.steps} steps")
        for turn in range(options.repeats):
            began = time.monotonic()
            answer = subprocess.run([sys.executable, "-c", PLAIN, str(directory), str(size)], cwd=folder / "lab", check=True, capture_output=True, text=True)  # fmt: skip
            plain_s, plain = time.monotonic() - began, json.loads(answer.stdout.splitlines()[-1])
            turn_folder = folder / f"turn-{turn}"
            turn_folder.mkdir()
            (turn_folder / "weights").symlink_to(folder / "weights")
            began = time.monotonic()
            score = job.score(turn_folder, notes, rows, lambda _: False, lambda _: None)
            audited_s = time.monotonic() - began
            turns.append(
                {"plain_s": plain_s, "plain_pass_s": plain["pass_s"], "audited_s": audited_s, "claims_s": notes.claim_s}
            )
            say(json.dumps(turns[-1]))
        if options.tolerance:
            count = min(256, len(rows))
            program = [sys.executable, str(ROOT / "benchmarks" / "tolerance.py"), str(directory), str(size), str(count)]
            subprocess.run([*program, str(4 * count)], cwd=folder / "lab", check=True, stdout=sys.stderr)
    if not turns:
        return
    figures = {
        "machine": {
            "device": device.name,
            "cpus": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "engine": f"{engine.name} {engine.version}",
        },
        "rows": len(rows),
        "tokens": score.tokens,
        "batch_rows": size,
        "turns": turns,
        "audited / plain": statistics.median(turn["audited_s"] / turn["plain_s"] for turn in turns),
        "plain_bpb": plain["bpb"],
        "audited_bpb": score.bpb,
        "difference_bpb": score.bpb - plain["bpb"],
        "std_error_bpb": score.std_error_bpb,
        "audit": score.audit.model_dump(),
        "cuts that meet the hardest lie with 99 %": math.ceil(math.log(0.01) / math.log1p(-score.audit.power) * cuts),
    }
    print(json.dumps(figures, indent=2))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
