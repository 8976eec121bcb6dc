"""What the sandbox costs while a model trains: steps of train.py's own model in a container against a bare process.

    python benchmarks/throughput.py --turns 150                  # --device cuda on a GPU

A bare process and a container, alike but for that, live at the same time and take turns of a second by the clock that they
share: a machine's slow moods meet both. Nothing is compiled: what is compared is the machine. Prints one JSON object.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from records import MissingComponent  # noqa: E402
from sandbox.device import Device, find_device  # noqa: E402
from sandbox.engines import Engine, pick_engine  # noqa: E402
from sandbox.launch import launched  # noqa: E402
from sandbox.profile import LaunchProfile, Limits, Mount, lab_id, reserved_uid  # noqa: E402

PROFILES = {
    "cpu": {"max_seq_len": 256, "vocab_size": 1024, "depth": 2, "device_batch_size": 8, "total_batch_tokens": 2048},
    "cuda": {"max_seq_len": 1024, "vocab_size": 4096, "depth": 8, "device_batch_size": 48, "total_batch_tokens": 49152},
}
PROGRAM = """
import os
os.environ["TORCHDYNAMO_DISABLE"] = "1"
import json, time, torch, train
model = train.build_model()
optimisers = train.build_optimisers(model)
shape = (train.DEVICE_BATCH_SIZE, train.MAX_SEQ_LEN)
inputs, targets = (torch.randint(train.VOCAB_SIZE, shape, device=train.DEVICE) for _ in range(2))

def step():
    train.nats_per_token(model, inputs, targets).backward()
    for optimiser in optimisers:
        optimiser.step()
    model.zero_grad(set_to_none=True)
    if train.DEVICE == "cuda":
        torch.cuda.synchronize()

for _ in range(5):
    step()
rates = []
for turn in range({turns}):
    begins = {begins} + (2 * turn + {parity}) * {turn_s}
    time.sleep(max(0.0, begins - time.monotonic()))
    steps, began = 0, time.monotonic()
    while time.monotonic() < begins + 0.8 * {turn_s}:  # the last step must not reach into the other's turn
        step()
        steps += 1
    rates.append(steps / (time.monotonic() - began) if steps else None)  # a turn may be missed
print(json.dumps(rates))
"""
START_S = {"cpu": 15.0, "cuda": 30.0}
"""For both to import torch and to make a few steps before their turns begin."""


def write_lab(folder: Path, device: Device) -> Path:
    """What a candidate finds in /lab."""
    knobs = PROFILES[device.torch_name]
    settings = {"max_seq_len": knobs["max_seq_len"], "vocab_size": knobs["vocab_size"], "budget_s": 60.0, "seed": 1}
    known = {"aspect_ratio": 64, "head_dim": 64, "window_pattern": "L"}
    lab = folder / "lab"
    lab.mkdir()
    lab.chmod(0o755)
    for name in ("train.py", "prepare.py"):
        shutil.copy(ROOT / name, lab)
    (lab / "config.json").write_text(json.dumps({**settings, "device": device.torch_name, "profile": knobs | known}))
    for path in lab.iterdir():
        path.chmod(0o444)
    return lab


def bare(profile: LaunchProfile, lab: Path) -> "subprocess.Popen[str]":
    """A process that nothing holds in, but for its CPUs."""
    environment = {**profile.environment, "PYTHONPATH": str(lab)}
    command = [sys.executable, *profile.arguments]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=lab,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, profile.cpuset or ()),
    )


def benchmark(engine: Engine, device: Device, folder: Path, lab: Path, turns: int, turn_s: float) -> dict[str, object]:
    begins = time.monotonic() + START_S[device.torch_name]

    def profile(parity: int) -> LaunchProfile:
        program = PROGRAM.format(turns=turns, turn_s=turn_s, begins=begins, parity=parity)
        arguments, mounts = ("-B", "-s", "-c", program), (Mount(lab, "/lab"),)
        return LaunchProfile(lab_id(folder), "turns", "bench", uid, arguments, mounts, device, Limits.of())

    with reserved_uid() as uid, launched(engine, profile(1)) as container, bare(profile(0), lab) as process:
        free = json.loads(process.communicate()[0])
        while not container.wait(1.0):
            pass
        contained = json.loads(container.ending().log)
    pairs = [pair for pair in zip(contained, free, strict=True) if None not in pair]
    ratios = [ours / theirs for ours, theirs in pairs]
    return {
        "engine": f"{engine.name} {engine.version}",
        "turns": len(ratios),
        "bare steps/s": round(statistics.median(theirs for _, theirs in pairs), 2),
        "container / bare": round(statistics.median(ratios), 4),
        "95 % of the median": [round(bound, 4) for bound in interval_of_median(ratios)],
    }


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """95 % confidence interval of a median, by resampling; some turns are disturbed, and means would tell of those."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(4000))
    return medians[100], medians[-101]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["runc", "docker"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=150)
    parser.add_argument("--turn-s", type=float, default=1.0)
    options = parser.parse_args()
    device, results = find_device(options.device), []
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        lab = write_lab(folder, device)
        for wanted in options.engines:
            try:
                engine = pick_engine(wanted, state_dir=folder)
            except MissingComponent as missing:
                print(f"{wanted} is left out: {missing}", file=sys.stderr)
                continue
            results.append(benchmark(engine, device, folder, lab, options.turns, options.turn_s))
    print(json.dumps({"device": device.name, "engines": results}, indent=2))


if __name__ == "__main__":
    main()
