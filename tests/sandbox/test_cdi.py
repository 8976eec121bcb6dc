"""Exactly the GPU of the lease is asked of Docker, and what its spec adds is known beforehand."""

import json
from pathlib import Path

import pytest
import yaml

from records import MissingComponent
from sandbox.engines.cdi import find_gpu

MINE, OTHER = "GPU-1519457c-0000-0000-0000-5ee7bba4b54e", "GPU-00000000-0000-0000-0000-000000000000"
SPEC = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/nvidia1"}]}},
        {"name": OTHER, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {"name": MINE, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}},
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{"path": "/dev/nvidiactl"}],
        "mounts": [{"hostPath": "/usr/lib/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1"}],
    },
}


@pytest.mark.parametrize(("name", "write"), [("nvidia.yaml", yaml.safe_dump), ("nvidia.json", json.dumps)])
def test_one_gpu_is_found_by_its_uuid_in_either_format(tmp_path: Path, name: str, write: object) -> None:
    (tmp_path / "other.yaml").write_text("kind: vendor.com/net\ndevices: [{name: " + MINE + "}]\n")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / name).write_text(write(SPEC))  # type: ignore[operator]
    found = find_gpu(MINE, ["/nowhere", str(tmp_path)])
    assert found.name == f"nvidia.com/gpu={MINE}"
    assert set(found.nodes) == {"/dev/nvidiactl", "/dev/nvidia1"}
    assert (found.mounts, found.variables) == (("/usr/lib/libcuda.so.1",), ("NVIDIA_VISIBLE_DEVICES",))


def test_a_gpu_that_no_spec_names_is_refused_with_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingComponent, match=f"no CDI spec names {MINE}: sudo nvidia-ctk cdi generate"):
        find_gpu(MINE, [str(tmp_path)])
