"""A Docker daemon of the tests' own: no registry, no network, its data in a temporary folder."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker.api.client import APIClient
from docker.errors import DockerException
from requests.exceptions import RequestException

from sandbox.mounts import unmount_below


def can_start_daemon() -> bool:
    return shutil.which("dockerd") is not None and os.geteuid() == 0


@contextmanager
def running_daemon(folder: Path, *options: str) -> Iterator[str]:
    """Address of a fresh daemon that ends with the block; `options` of dockerd besides those of all tests."""
    address = f"unix://{folder}/docker.sock"
    command = [
        *("dockerd", "--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"),
        *("--host", address, "--iptables=false", "--ip6tables=false", "--bridge=none"),
        *("--storage-driver=overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs", *options),
    ]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_answer(daemon, address, folder / "log")
        yield address
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        unmount_below(folder)  # it leaves a network namespace mounted


def _await_answer(daemon: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and daemon.poll() is None:
        try:
            APIClient(base_url=address, version="auto", timeout=5).ping()
            return
        except (DockerException, RequestException):
            time.sleep(0.1)
    raise RuntimeError(f"dockerd does not answer: {log.read_text()[-2000:]}")
