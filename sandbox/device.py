"""What a candidate trains on: the CPU, or exactly one GPU."""

import os
import platform
import shutil
import stat
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from records import MissingComponent


class DeviceNode(NamedTuple):
    path: str
    major: int
    minor: int


@dataclass(frozen=True)
class Gpu:
    """What a container needs in order to use one NVIDIA GPU."""

    uuid: str
    memory_bytes: int
    nodes: tuple[DeviceNode, ...]
    """/dev/nvidiaN of this GPU and the control nodes that all GPUs share."""
    libraries: tuple[Path, ...]
    """Folders that hold libcuda.so.1."""
    mounts: tuple[Path, ...]
    """Driver files and folders that are mounts of their own on the host: a bind mount of /usr does not carry them along."""

    @property
    def environment(self) -> Mapping[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self.uuid, "LD_LIBRARY_PATH": ":".join(map(str, self.libraries))}


@dataclass(frozen=True)
class Device:
    id: str
    """`cpu`, or the UUID of the GPU."""
    name: str
    """For people."""
    gpu: Gpu | None = None

    @property
    def torch_name(self) -> str:
        return "cpu" if self.gpu is None else "cuda"


def find_device(wanted: str = "auto") -> Device:
    """The device that `wanted` names: `cpu`, `cuda` (the first GPU), the UUID of a GPU, or `auto` (a GPU, else the CPU).

    Raises:
        MissingComponent: there is no such GPU.
    """
    if wanted == "cpu":
        return Device("cpu", f"{len(os.sched_getaffinity(0))} × {_cpu_model()}")
    found = [gpu for gpu in list_gpus() if wanted in ("auto", "cuda", gpu.id)]
    if found:
        return found[0]
    if wanted == "auto":
        return find_device("cpu")
    known = ", ".join(gpu.id for gpu in list_gpus()) or "none"
    raise MissingComponent(
        f"no GPU answers to device {wanted!r} (nvidia-smi lists: {known}); use --device cpu or one of these"
    )


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def list_gpus() -> list[Device]:
    """The machine's NVIDIA GPUs in nvidia-smi's order; none without a driver."""
    report = nvidia_smi()
    return [] if report is None else [_read_gpu(element) for element in report.iter("gpu")]


def nvidia_smi() -> ElementTree.Element | None:
    """The report of the driver's own tool; None when there is none, or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        report = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, timeout=60, check=True).stdout
        return ElementTree.fromstring(report)
    except (subprocess.SubprocessError, ElementTree.ParseError):
        return None


def _read_gpu(element: ElementTree.Element) -> Device:
    uuid = element.findtext("uuid", "")
    memory = element.findtext("fb_memory_usage/total", "0 MiB")
    nodes = (f"nvidia{element.findtext('minor_number', '0')}", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
    libraries = tuple(_library_folders())
    gpu = Gpu(
        uuid,
        int(memory.split()[0]) * 2**20,
        tuple(node for name in nodes if (node := device_node(Path("/dev") / name))),
        libraries,
        tuple(_driver_mounts(libraries)),
    )
    return Device(uuid, element.findtext("product_name", "NVIDIA GPU"), gpu)


def device_node(path: Path) -> DeviceNode | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISCHR(status.st_mode):
        return None
    return DeviceNode(str(path), os.major(status.st_rdev), os.minor(status.st_rdev))


def _library_folders() -> list[Path]:
    """Folders with libcuda.so.1: those that the loader knows, and those of the environment and of mounts that it does not."""
    command = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        cached = subprocess.run([command, "-p"], capture_output=True, text=True, timeout=60, check=False).stdout
    except OSError:
        cached = ""
    lines = (
        line.partition("=> ")[2].strip() for line in cached.splitlines() if "libcuda.so.1 " in line and "x86-64" in line
    )
    folders = [Path(line).parent for line in lines]
    folders += [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part.startswith("/")]
    folders += [path for path in mount_points() if "nvidia" in str(path).lower() and path.is_dir()]
    # Resolved: /lib is a link to /usr/lib nowadays, and to mount it would put all of /usr/lib over itself.
    return [folder for folder in dict.fromkeys(map(Path.resolve, folders)) if (folder / "libcuda.so.1").exists()]


def _driver_mounts(libraries: tuple[Path, ...]) -> list[Path]:
    """Mount points with files of the driver, in the order in which they must be mounted.

    A folder of libraries on a mount of its own counts, and single files that a container toolkit has mounted.
    """
    points = [
        path for path in mount_points() if not str(path).startswith(("/dev", "/proc", "/sys", "/run", "/etc", "/tmp"))
    ]
    own = [p for p in points if p != Path("/") and any(p == folder or p in folder.parents for folder in libraries)]
    files = [
        p for p in points if p.is_file() and p.name.lower().startswith(("libnv", "libcuda", "nvidia", "libnvidia"))
    ]
    outside = [folder for folder in libraries if not str(folder).startswith("/usr/")]
    return sorted(dict.fromkeys([*own, *files, *outside]))


def mount_points() -> list[Path]:
    """Where something is mounted in this process' view, from /proc/self/mountinfo (proc(5): field 5, octal escapes)."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [Path(_unescape(line.split(" ")[4])) for line in lines]


def _unescape(path: str) -> str:
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escaped, plain)
    return path
