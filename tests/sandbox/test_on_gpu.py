"""What only a machine with an NVIDIA GPU can show: `pytest -m gpu`, as root, with Docker or runc."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from records import FailureKind
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device, list_gpus
from sandbox.engines import Engine, pick_engine
from sandbox.gpu import GpuDirty, left_empty
from sandbox.measure import measure
from sandbox.profile import Control, Limits
from sandbox.selfcheck import self_check
from tests.components import require
from tests.sandbox.candidates import gate_probe, known_model, probe
from tests.sandbox.fixtures import Measure
from tests.sandbox.test_measure import direct_bpb
from tests.sandbox.weakened import Weakened

pytestmark = pytest.mark.gpu

# The driver's own interface: no torch, so that an image without one will do.
DRIVER = """
import ctypes, json
cuda = ctypes.CDLL("libcuda.so.1")
def ask(name, *arguments):
    assert getattr(cuda, name)(*arguments) == 0, name
count, uuid, context, address = ctypes.c_int(), (ctypes.c_ubyte * 16)(), ctypes.c_void_p(), ctypes.c_uint64()
ask("cuInit", 0)
ask("cuDeviceGetCount", ctypes.byref(count))
ask("cuDeviceGetUuid", uuid, 0)
"""
TELL = (
    DRIVER
    + """
import os
nodes = sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))
print(json.dumps({"count": count.value, "uuid": bytes(uuid).hex(), "nodes": nodes}))
"""
)
HOLD = (
    DRIVER
    + """
ask("cuCtxCreate_v2", ctypes.byref(context), 0, 0)
ask("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(4 * 2**30))
"""
)


@pytest.fixture(scope="module")
def gpu() -> Device:
    found = list_gpus()
    require(bool(found), "no NVIDIA GPU on this machine (nvidia-smi lists none)")
    return found[-1]


def test_every_control_holds_with_a_gpu(engine: Engine, gpu: Device, state_dir: Path) -> None:
    assert [c for c in self_check(engine, gpu, state_dir, positive_controls=True) if not (c.holds and c.shown)] == []


def test_a_candidate_has_the_gpu_of_its_lease_and_no_other(run: Measure, gpu: Device) -> None:
    measured = run(probe(TELL), device=gpu, limits={"memory_bytes": 4 * 2**30})
    found = json.loads(measured.log_tail)
    assert (found["count"], found["uuid"]) == (1, gpu.id.removeprefix("GPU-").replace("-", ""))
    assert gpu.gpu is not None
    assert found["nodes"] == sorted(Path(node.path).name for node in gpu.gpu.nodes)


REACH = """
import os, stat
def reached():
    for minor in range(16):
        try:
            os.mknod(f"FOLDER/made{minor}", stat.S_IFCHR | 0o666, os.makedev(195, minor))
        except OSError:
            pass
        for path in (f"/dev/nvidia{minor}", f"FOLDER/made{minor}"):
            try:
                os.close(os.open(path, os.O_RDWR))
                yield minor
            except OSError:
                continue
print(json.dumps(sorted(set(reached()))))
"""


def test_another_gpu_of_the_machine_is_out_of_reach(
    run: Measure, gpu: Device, dataset: Dataset, engine: Engine, state_dir: Path
) -> None:
    assert gpu.gpu is not None
    mine = gpu.gpu.nodes[0].minor
    assert json.loads(run(probe(REACH.replace("FOLDER", "/tmp")), device=gpu).log_tail) == [mine]
    others = [device.gpu.nodes[0].minor for device in list_gpus() if device.gpu is not None and device.id != gpu.id]
    if not others:
        return  # on a machine with one GPU there is nothing that the positive control could reach
    weak = Weakened(engine, Control.DEVICES, Control.CAPABILITIES, Control.USER)
    limits = Limits(cpus=1, memory_bytes=2**30, tmp_bytes=2**20, out_bytes=2**20)
    source = probe(REACH.replace("FOLDER", "/dev"))
    seen = measure(source, dataset, weak, budget_s=1, seed=1, device=gpu, limits=limits, state_dir=state_dir)
    assert set(others) <= set(json.loads(seen.log_tail))


def test_a_model_is_trained_and_scored_on_the_gpu(run: Measure, gpu: Device, dataset: Dataset) -> None:
    limits = {"memory_bytes": 16 * 2**30, "startup_s": 120.0}
    measured = run(known_model(train="import time; time.sleep(2)"), device=gpu, limits=limits, budget_s=4)
    assert measured.failure is None, measured
    assert measured.val_bpb == pytest.approx(direct_bpb(dataset), abs=1e-4)
    assert measured.gpu is not None and measured.gpu.uuid == gpu.id
    assert measured.gpu.least_sm_clock_mhz is not None and measured.gpu.driver


LEAVES = {
    "memory of a process that is killed": "start(); time.sleep(600)",
    "memory of a daemon": "start()\nif os.fork() == 0:\n    os.setsid(); time.sleep(600)\nraise SystemExit(3)",
    "memory at the end": "start(); raise SystemExit(3)",
}


@pytest.mark.parametrize("ending", LEAVES.values(), ids=LEAVES)
def test_nothing_of_a_run_stays_on_the_gpu(run: Measure, gpu: Device, ending: str) -> None:
    limits = {"memory_bytes": 8 * 2**30, "grace_s": 0.5}
    with left_empty(gpu, patience_s=0.0):
        measured = run(gate_probe(HOLD + ending), device=gpu, limits=limits)
    assert measured.failure is not None and not measured.failure.kind.ours, measured


def test_a_process_that_stays_on_the_gpu_is_noticed(gpu: Device) -> None:
    environment = {**os.environ, **(gpu.gpu.environment if gpu.gpu else {})}
    with contextlib.ExitStack() as stack, pytest.raises(GpuDirty, match="still"), left_empty(gpu, patience_s=1.0):
        command = [sys.executable, "-c", HOLD + "print(flush=True); input()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        holder = stack.enter_context(subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]
        stack.callback(holder.kill)
        holder.stdout.readline()


def test_a_run_beside_which_somebody_takes_the_gpu_is_a_fault_of_ours(run: Measure, gpu: Device) -> None:
    environment = {**os.environ, **(gpu.gpu.environment if gpu.gpu else {})}
    holders: list[subprocess.Popen[bytes]] = []

    def on_phase(phase: str) -> None:
        if phase == "training":
            command = [sys.executable, "-c", HOLD + "import time; time.sleep(600)"]
            holders.append(subprocess.Popen(command, env=environment))
            time.sleep(3.0)

    limits = {"memory_bytes": 8 * 2**30, "gpu_empty_s": 1.0}
    measured = run(
        gate_probe("start(); time.sleep(4); raise SystemExit(3)"),
        budget_s=5.0,
        device=gpu,
        limits=limits,
        on_phase=on_phase,
    )
    for holder in holders:
        holder.kill()
        holder.wait()
    assert measured.failure is not None and measured.failure.kind == FailureKind.GPU_DIRTY, measured


def test_an_image_of_the_users_own_gets_the_gpu_by_cdi(
    bare_image: str, gpu: Device, dataset: Dataset, state_dir: Path
) -> None:
    """With the spec that nvidia-ctk would write, as far as this image needs it."""
    assert gpu.gpu is not None
    engine = pick_engine("docker", state_dir=state_dir, image=bare_image)
    require(bool(getattr(engine, "cdi_folders", ())), "this Docker daemon has no CDI (Docker 25+, features.cdi)")
    spec = Path("/etc/cdi/autoresearch-test.yaml")
    spec.parent.mkdir(exist_ok=True)
    edits = {
        "deviceNodes": [{"path": node.path} for node in gpu.gpu.nodes],
        "mounts": [
            {"hostPath": str(path), "containerPath": str(path), "options": ["ro", "bind"]}
            for path in gpu.gpu.libraries[:1]
        ],
    }
    spec.write_text(
        yaml.safe_dump(
            {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": gpu.id, "containerEdits": edits}]}
        )
    )
    try:
        assert [c for c in self_check(engine, gpu, state_dir) if not c.holds] == []
        limits = Limits.of(memory_gb=4)
        measured = measure(
            probe(TELL), dataset, engine, budget_s=1, seed=1, device=gpu, limits=limits, state_dir=state_dir
        )
        assert measured.exit_code == 0, measured
        found = json.loads(measured.log_tail)
        assert (found["count"], found["uuid"]) == (1, gpu.id.removeprefix("GPU-").replace("-", ""))
    finally:
        spec.unlink()


def test_the_first_gpu_is_what_cuda_names(gpu: Device) -> None:
    assert find_device("cuda").id == list_gpus()[0].id
