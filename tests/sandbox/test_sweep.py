"""A host process that is killed leaves a container behind; the next one removes it, and nothing that still lives."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine, pick_engine
from sandbox.engines.docker import DockerEngine
from sandbox.measure import measure
from sandbox.profile import Limits
from sandbox.sweep import sweep
from tests.sandbox.candidates import gate_probe
from tests.sandbox.traces import traces


def train_for_ever(engine_name: str, privileged: bool, dataset: Path, state_dir: Path, phases: Connection) -> None:
    engine = pick_engine(engine_name, state_dir=state_dir)
    if isinstance(engine, DockerEngine):
        engine.privileged = privileged
    measure(
        gate_probe("start(); time.sleep(600)"),
        Dataset.open(dataset),
        engine,
        budget_s=600,
        seed=1,
        device=find_device("cpu"),
        limits=Limits.of(memory_gb=0.5),
        state_dir=state_dir,
        on_phase=phases.send,
    )


def test_what_a_killed_host_leaves_is_swept_and_what_lives_is_not(
    engine: Engine, dataset: Dataset, state_dir: Path
) -> None:
    phases, theirs = multiprocessing.Pipe(duplex=False)
    arguments = (engine.name, getattr(engine, "privileged", True), dataset.path, state_dir, theirs)
    host = multiprocessing.get_context("spawn").Process(target=train_for_ever, args=arguments)
    host.start()
    try:
        assert phases.poll(60) and phases.recv() == "starting"
        assert phases.poll(60) and phases.recv() == "training"
        assert sweep([engine], state_dir) == []
        assert traces(engine, state_dir) != []
    finally:
        host.kill()
        host.join()
    assert any("container" in line for line in sweep([engine], state_dir))
    assert traces(engine, state_dir) == []
    assert sweep([engine], state_dir) == []
