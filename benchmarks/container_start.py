"""What a container costs: from start to the first line of Python, from a kill to the end, and what launches leave behind.

    python benchmarks/container_start.py --launches 500

Starts go through the production engines, alternating with bare processes in one run. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from records import MissingComponent  # noqa: E402
from sandbox.device import find_device, mount_points  # noqa: E402
from sandbox.engines import Engine, pick_engine  # noqa: E402
from sandbox.engines.cgroup import groups_with_prefix  # noqa: E402
from sandbox.launch import launched  # noqa: E402
from sandbox.profile import UIDS, LaunchProfile, Limits, lab_id, name_prefix, reserved_uid  # noqa: E402

# One clock for host and container: CLOCK_MONOTONIC is not namespaced here.
PROGRAM = ("-I", "-S", "-c", "import time; print(time.monotonic())")

# A hundred daemons: two forks each, sessions of their own, deaf to polite signals, busy.
DAEMONS = """
import os, signal, time
for _ in range(100):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                time.sleep(0.001)
        os._exit(0)
    os.wait()
print("ready", flush=True)
time.sleep(600)
"""


def bare_start_s() -> float:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, *PROGRAM], capture_output=True, text=True, check=True)
    return float(ended.stdout) - began


def container_start_s(engine: Engine, state: Path, run_id: str) -> float:
    """Seconds from the call to the first line of Python in a container of the production profile."""
    limits = Limits.of(memory_gb=0.5)
    with reserved_uid() as uid:
        profile = LaunchProfile(lab_id(state), run_id, "bench", uid, PROGRAM, (), find_device("cpu"), limits)
        began = time.monotonic()
        with launched(engine, profile) as container:
            while not container.wait(0.5):
                pass
            return float(container.ending().log) - began


def kill_s(engine: Engine, state: Path, run_id: str) -> float:
    """Seconds from the call to kill a container with daemons in it until no process of it is alive."""
    limits = Limits.of(memory_gb=0.5)
    with reserved_uid() as uid:
        program = ("-I", "-S", "-c", DAEMONS)
        profile = LaunchProfile(lab_id(state), run_id, "bench", uid, program, (), find_device("cpu"), limits)
        with launched(engine, profile) as container:
            while "ready" not in container.log.text(0.05):
                pass
            alive = sum(owner_of(process) == uid for process in Path("/proc").iterdir() if process.name.isdigit())
            assert alive >= 100, alive
            began = time.monotonic()
            container.kill()
            while any(owner_of(process) == uid for process in Path("/proc").iterdir() if process.name.isdigit()):
                pass
            return time.monotonic() - began


def traces(engine: Engine, state: Path) -> dict[str, int]:
    """Countable things that a launch could leave behind on the host."""
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "mounts": len(mount_points()),
        "cgroups": len(groups_with_prefix(name_prefix(lab_id(state)))),
        "containers": len(engine.leftovers()),
        "processes of runs": sum(owner_of(process) in UIDS for process in processes),
        "bundles": len(list((state / "runc").rglob("config.json"))),
    }


def owner_of(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:
        return -1


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median_s": round(statistics.median(seconds), 3), "max_s": round(max(seconds), 3), "starts": len(seconds)}


def all_at_once(engine: Engine, state: Path, name: str, at_once: int) -> list[float]:
    with ThreadPoolExecutor(at_once) as pool:
        runs = [pool.submit(container_start_s, engine, state, f"{name}-{i}") for i in range(2 * at_once)]
        return [run.result() for run in runs]


def benchmark(engine: Engine, state: Path, launches: int, at_once: int) -> dict[str, object]:
    bare, contained = [], []
    for i in range(30):  # until the Docker SDK has the connections that it keeps, for each of the last 25 addresses
        container_start_s(engine, state, f"warm-up-{i}")
    all_at_once(engine, state, "warm-up-parallel", at_once)
    before = traces(engine, state)
    for i in range(20):
        bare.append(bare_start_s())
        contained.append(container_start_s(engine, state, f"alternating-{i}"))
    parallel = all_at_once(engine, state, "parallel", at_once)
    for i in range(launches):
        container_start_s(engine, state, f"row-{i}")
    return {
        "engine": f"{engine.name} {engine.version}",
        "bare": summary(bare),
        "container": summary(contained),
        "overhead_s": round(statistics.median(contained) - statistics.median(bare), 3),
        f"{at_once} at once": summary(parallel),
        "kill of 100 daemons": summary([kill_s(engine, state, f"kill-{i}") for i in range(10)]),
        "launches in a row": launches,
        "before": before,
        "after": traces(engine, state),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["runc", "docker"])
    parser.add_argument("--launches", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as folder:
        for name in options.engines:
            try:
                engine = pick_engine(name, state_dir=Path(folder))
            except MissingComponent as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                continue
            results.append(benchmark(engine, Path(folder), options.launches, options.at_once))
    print(json.dumps({"cpus": len(os.sched_getaffinity(0)), "engines": results}, indent=2))


if __name__ == "__main__":
    main()
