"""Kernels that were compiled beforehand: what the compiler made in the start-up of the champion, for those that come after it.

Compiling is most of a start-up on a GPU, and few candidates change a graph. That is fair, since start-up is not timed: whose graphs
changed compiles them in its own. Kernels are made in a run of their own, which is never told `go` and so never sees a training byte;
they are one file, collected like weights, mounted read-only, and unpacked inside the next container. Scoring has none.
"""

import hashlib
import json
import secrets
import threading
from pathlib import Path

from sandbox.dataset import Dataset
from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.failure import Faulted
from sandbox.measure import PREPARE, Job
from sandbox.profile import Limits
from sandbox.rundir import run_directory
from sandbox.score import Rigour

KEPT = 8
"""Files of kernels of earlier champions and other devices."""


def compile_kernels(
    source: str,
    dataset: Dataset,
    engine: Engine,
    *,
    device: Device,
    limits: Limits | None = None,
    state_dir: Path,
    cancel: threading.Event | None = None,
) -> Path | None:
    """The kernels of a train.py, compiled now unless they have been before; None if it does not start up.

    Args:
        source: text of the train.py, a champion's.
        dataset: whose sizes its graphs have; none of its text is read.
        engine: what runs the container.
        device: what it compiles for: the CPU, or a GPU that the caller holds alone.
        limits: what it may use.
        state_dir: the lab's state directory.
        cancel: ends the start-up early when set.

    Raises:
        HostFault: the engine or the machine failed, or it was cancelled.
        GpuDirty: something is still on the GPU.
    """
    conditions = [source, PREPARE.read_text(), engine.image_hash, device.name, dataset.profile, dataset.max_seq_len]
    name = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:32]
    kept = state_dir / "kernels"
    path = kept / f"{name}.tar"
    if path.exists():
        return path
    run_id = f"compile-{secrets.token_hex(6)}"
    job = Job(source.encode(errors="replace"), dataset, engine, dataset.budget_s, 0, device, limits or Limits.of(), run_id, state_dir, cancel or threading.Event(), Rigour())  # fmt: skip
    with run_directory(state_dir, run_id) as folder:
        try:
            made = job.compile(folder)
        except Faulted:
            return None
        kept.mkdir(exist_ok=True)
        made.chmod(0o444)
        made.rename(path)
    for old in sorted(kept.glob("*.tar"), key=lambda old: old.stat().st_mtime)[:-KEPT]:
        old.unlink()
    return path
