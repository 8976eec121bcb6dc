import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import require
from tests.daemon import can_start_daemon, running_daemon

pytest_plugins = ["tests.sandbox.fixtures"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads that spin while they wait for each other come to a standstill beside those of another worker.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's, by a short name: sockets lie in it, whose paths have 107 bytes at most (unix(7))."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Docker daemon for this test run; DOCKER_HOST names it meanwhile."""
    require(can_start_daemon(), "no Docker daemon can be started (apt-get install docker.io, and run as root)")
    before = os.environ.get("DOCKER_HOST")
    with running_daemon(tmp_path_factory.mktemp("d")) as address:
        os.environ["DOCKER_HOST"] = address
        yield address
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    require(mounted, "cannot mount a tmpfs (run as root, with CAP_SYS_ADMIN)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
