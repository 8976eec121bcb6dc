"""prepare → train → score on this machine's device, once, in the sandbox: where the seconds of an experiment go.

    python benchmarks/whole_path.py --profile h100 --engine runc --corpus local ~/texts

Prints one JSON object: the machine, the preparation, the measurement.
"""

import argparse
import json
import os
import platform
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
from sandbox.kernels import compile_kernels  # noqa: E402
from sandbox.measure import measure  # noqa: E402
from sandbox.profile import Limits  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--budget-s", type=float)
    parser.add_argument(
        "--kernels", action="store_true", help="compile beforehand, as for a champion; by default all is cold"
    )
    parser.add_argument("--train", type=Path, default=ROOT / "train.py")
    parser.add_argument("--corpus", nargs="+", default=["python"], help="corpus name, then its paths")
    options, knobs = parser.parse_known_args()
    state = Path(tempfile.mkdtemp(prefix="autoresearch-bench-", dir=ROOT))
    directory = state / "dataset"
    started = time.monotonic()
    corpus = [options.corpus[0], *(str(Path(path).absolute()) for path in options.corpus[1:])]
    prepare = [sys.executable, str(ROOT / "prepare.py"), "--corpus", *corpus, "--profile", options.profile]
    subprocess.run([*prepare, "--out", str(directory), *knobs], cwd=state, check=True, stdout=sys.stderr)
    prepared_s = time.monotonic() - started
    dataset = Dataset.open(directory)
    device = find_device(options.device)
    engine, source = pick_engine(options.engine, state_dir=state), options.train.read_text()
    kernels = compile_kernels(source, dataset, engine, device=device, state_dir=state) if options.kernels else None
    started = time.monotonic()
    measurement = measure(
        source,
        dataset,
        engine,
        budget_s=options.budget_s or dataset.budget_s,
        seed=1,
        device=device,
        limits=Limits.of(),
        run_id="whole-path",
        state_dir=state,
        kernels=kernels,
        on_phase=lambda phase: print(f"{time.monotonic() - started:7.1f} s  {phase}", file=sys.stderr),
        on_progress=lambda progress: None,
        cancel=threading.Event(),
    )
    figures = {
        "machine": {
            "device": device.name,
            "cpus": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "prepare_seconds": round(prepared_s, 1),
        "whole_seconds": round(time.monotonic() - started, 1),
        "measurement": measurement.model_dump(exclude={"hashes"}),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
