"""Docker as others run it: with a user namespace, with gVisor. The same profile holds, and the same score comes out."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from records import MissingComponent
from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine, pick_engine
from sandbox.measure import measure
from sandbox.profile import Limits
from sandbox.selfcheck import ensure_controls, self_check
from tests.components import require
from tests.daemon import can_start_daemon, running_daemon
from tests.sandbox.candidates import known_model, probe
from tests.sandbox.test_measure import direct_bpb

CPU = find_device("cpu")
REACHABLE = ["--network=none", "--fsgofer-host-uds"]
"""Arguments of the runsc of Debian 12; newer ones say --host-uds=open."""


@contextmanager
def daemon(*options: str) -> Iterator[None]:
    """A Docker daemon that DOCKER_HOST names, in a folder that the users it maps to can enter."""
    require(can_start_daemon(), "no Docker daemon can be started (apt-get install docker.io, and run as root)")
    before = os.environ.get("DOCKER_HOST")
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        Path(folder).chmod(0o711)
        with running_daemon(Path(folder), *options) as address:
            os.environ["DOCKER_HOST"] = address
            yield
            del os.environ["DOCKER_HOST"]
            if before is not None:
                os.environ["DOCKER_HOST"] = before


def measured(source: str, dataset: Dataset, engine: Engine, state_dir: Path) -> tuple[str, float | None, str]:
    limits = Limits.of(memory_gb=1.0, stolen_cpu=1.0)
    found = measure(source, dataset, engine, budget_s=1.0, seed=3, device=CPU, limits=limits, state_dir=state_dir)
    return found.status, found.val_bpb, found.log_tail


def test_with_a_user_namespace_all_holds_and_root_is_nobody(tmp_path: Path, dataset: Dataset) -> None:
    with daemon("--userns-remap=default"):
        engine = pick_engine("docker", state_dir=tmp_path)
        assert [c for c in self_check(engine, CPU, tmp_path, positive_controls=True) if not (c.holds and c.shown)] == []
        status, bpb, _ = measured(known_model(), dataset, engine, tmp_path)
        assert status == "ok" and bpb == pytest.approx(direct_bpb(dataset), abs=1e-5)
        _, _, log = measured(probe("print(open('/proc/self/uid_map').read().split()[:2])"), dataset, engine, tmp_path)
        assert log != "['0', '0']\n" and log.startswith("['0', "), log


def test_under_gvisor_all_holds_and_the_kernel_is_not_the_hosts(tmp_path: Path, dataset: Dataset) -> None:
    with daemon(f"--config-file={with_runsc(tmp_path, REACHABLE)}"):
        engine = pick_engine("docker", state_dir=tmp_path, runtime="runsc")
        assert [check for check in self_check(engine, CPU, tmp_path) if not check.holds] == []
        status, bpb, _ = measured(known_model(), dataset, engine, tmp_path)
        assert status == "ok" and bpb == pytest.approx(direct_bpb(dataset), abs=1e-5)
        _, _, log = measured(probe("print(os.uname().version)"), dataset, engine, tmp_path)
        assert log and log.strip() != os.uname().version
        assert "runsc" in engine.versions and "runc" not in engine.versions


def test_gvisor_that_keeps_a_candidate_from_the_gate_is_refused_with_the_argument_to_give(tmp_path: Path) -> None:
    with daemon(f"--config-file={with_runsc(tmp_path, ['--network=none'])}"):
        engine = pick_engine("docker", state_dir=tmp_path, runtime="runsc")
        with pytest.raises(MissingComponent, match="--host-uds=open"):
            ensure_controls(engine, CPU, tmp_path)
        with pytest.raises(MissingComponent, match=r"has no runtime kata \(it has .*runsc"):
            pick_engine("docker", state_dir=tmp_path, runtime="kata")


def with_runsc(folder: Path, arguments: list[str]) -> Path:
    """A daemon.json that knows gVisor."""
    program = shutil.which("runsc")
    require(program is not None, "runsc is missing (apt-get install runsc)")
    path = folder / "daemon.json"
    path.write_text(json.dumps({"runtimes": {"runsc": {"path": program, "runtimeArgs": arguments}}}))
    return path
