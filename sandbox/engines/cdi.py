"""What a Container Device Interface spec gives a container with one GPU, so that the self-check knows what may be there.

Format: https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from records import MissingComponent

KIND = "nvidia.com/gpu"


class CdiDevice(NamedTuple):
    name: str
    """Fully qualified: what an engine is asked for."""
    nodes: tuple[str, ...]
    """Device nodes, by their paths in the container."""
    mounts: tuple[str, ...]
    variables: tuple[str, ...]


def find_gpu(uuid: str, folders: Iterable[str]) -> CdiDevice:
    """The GPU of that UUID, and no other, in the specs of a daemon.

    Args:
        uuid: as nvidia-smi prints it.
        folders: where the daemon looks for specs.

    Raises:
        MissingComponent: none of them names it.
    """
    for spec in _specs(folders):
        for device in spec.get("devices", []):
            if device.get("name") == uuid:
                edits = [spec.get("containerEdits", {}), device.get("containerEdits", {})]
                return CdiDevice(
                    f"{KIND}={uuid}",
                    tuple(node["path"] for edit in edits for node in edit.get("deviceNodes", [])),
                    tuple(mount["containerPath"] for edit in edits for mount in edit.get("mounts", [])),
                    tuple(str(variable).partition("=")[0] for edit in edits for variable in edit.get("env", [])),
                )
    raise MissingComponent(
        f"no CDI spec names {uuid}: sudo nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml "
        '(and Docker 25 or later with {"features": {"cdi": true}} in daemon.json)'
    )


def _specs(folders: Iterable[str]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for path in sorted([*Path(folder).glob("*.yaml"), *Path(folder).glob("*.json")]):
            try:
                spec = yaml.safe_load(path.read_text())
            except (OSError, yaml.YAMLError):
                continue
            if isinstance(spec, dict) and spec.get("kind") == KIND:
                yield spec
