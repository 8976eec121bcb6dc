"""An engine that could not enforce every control is refused, in a line that says what to do."""

from pathlib import Path

import pytest

from records import BadInput, MissingComponent
from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import pick_engine
from sandbox.engines.docker import DockerEngine, missing_controls
from sandbox.measure import measure
from sandbox.profile import Limits
from tests.sandbox.candidates import probe

CAPABLE = {
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SwapLimit": True,
    "CgroupDriver": "cgroupfs",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "OSType": "linux",
    "Architecture": "x86_64",
}


def test_a_daemon_that_enforces_everything_is_accepted() -> None:
    assert missing_controls(CAPABLE) == []


@pytest.mark.parametrize(
    ("lacking", "control"),
    [
        ({"MemoryLimit": False}, "memory limits"),
        ({"PidsLimit": None}, "pids limits"),
        ({"CpuCfsQuota": False}, "cpu limits"),
        ({"CgroupDriver": "none"}, "cgroups"),
        ({"SecurityOptions": ["name=rootless"]}, "seccomp"),
        ({"Architecture": "aarch64"}, "the system calls of linux/x86_64"),
    ],
)
def test_a_daemon_that_lacks_a_control_is_refused_by_its_name(lacking: dict[str, object], control: str) -> None:
    assert missing_controls(CAPABLE | lacking) == [control]


def test_a_rootless_daemon_without_control_groups_is_refused() -> None:
    """With what Docker 20.10 said of itself when started by rootlesskit on a host with cgroup v1 (2026-11-24)."""
    rootless = {
        "MemoryLimit": False,
        "PidsLimit": False,
        "CpuCfsQuota": False,
        "SwapLimit": False,
        "CgroupDriver": "none",
    }
    rootless |= {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}
    assert missing_controls(CAPABLE | rootless) == ["memory limits", "pids limits", "cpu limits", "cgroups"]


@pytest.mark.parametrize(
    ("name", "host", "says"),
    [
        ("docker", "unix:///nowhere/docker.sock", "no Docker daemon answers at unix:///nowhere/docker.sock"),
        ("docker", "tcp://10.0.0.1:2375", "a daemon on this machine"),
    ],
)
def test_docker_that_does_not_answer_is_named(
    name: str, host: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(MissingComponent, match=says):
        pick_engine(name, state_dir=tmp_path)


def test_names_and_combinations_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="allowed are auto, docker, runc"):
        pick_engine("podman", state_dir=tmp_path)
    with pytest.raises(BadInput, match="image and runtime are Docker's"):
        pick_engine("runc", state_dir=tmp_path, image="lab")


def test_an_image_of_the_users_own_is_started_without_anything_of_the_host(
    bare_image: str, dataset: Dataset, tmp_path: Path
) -> None:
    engine = pick_engine("docker", state_dir=tmp_path, image=bare_image)
    assert isinstance(engine, DockerEngine)
    source = probe("print(os.getuid() > 0, os.path.exists('/usr/bin/env'), sorted(os.listdir('/lab')))")
    limits = Limits.of(memory_gb=0.5)
    measured = measure(
        source, dataset, engine, budget_s=1, seed=1, device=find_device("cpu"), limits=limits, state_dir=tmp_path
    )
    assert measured.log_tail.startswith("True False ['config.json', 'prepare.py', 'train.py']"), measured
    assert Path("/usr/bin/env").exists()
    assert measured.hashes.image == engine.client.inspect_image(bare_image)["Id"].removeprefix("sha256:")
    with pytest.raises(MissingComponent, match="docker build -t nobody"):
        pick_engine("docker", state_dir=tmp_path, image="nobody")
