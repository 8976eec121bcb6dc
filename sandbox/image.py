"""The container's file system, made from the host's own Python where no registry of images can be reached.

A nearly empty root directory, plus read-only bind mounts of /usr, the interpreter's prefix and the virtual environment,
each at its own path. Nothing else of the host is there. Both engines use the same root and the same mounts.
"""

import hashlib
import json
import platform
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from records import HostFault
from sandbox.profile import UIDS, Mount

MOUNT_POINTS = (
    *("dev", "proc", "sys", "tmp", "lab", "gate", "data", "cache", "out", "weights", "rows", "etc", "usr"),
    *("task", "answer", "agent", "etc/ssl/certs"),
)
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Image:
    """What a container is started from."""

    sha256: str
    """Hash over the interpreter, every installed distribution with its version, and the OS release."""
    python: str
    """Path of the interpreter inside."""
    mounts: tuple[Mount, ...]
    rootfs: Path
    """Root directory, to be mounted read-only."""


def build_image(state_dir: Path) -> Image:
    """Make (or find, if it was made before) the image of this very interpreter.

    Raises:
        HostFault: the state directory cannot be written.
    """
    mounts = tuple(_host_mounts())
    facts = json.dumps([describe_host(), MOUNT_POINTS, [m.target for m in mounts], _files()], sort_keys=True)
    rootfs = state_dir.resolve() / "image" / hashlib.sha256(facts.encode()).hexdigest()[:16]
    if not rootfs.is_dir():
        try:
            _build_rootfs(rootfs, mounts)
        except OSError as error:
            raise HostFault(f"cannot build the container image in {rootfs}: {error.strerror}") from None
    identity = hashlib.sha256(json.dumps(describe_host(), sort_keys=True).encode()).hexdigest()
    return Image(identity, sys.executable, mounts, rootfs)


def describe_host() -> dict[str, object]:
    """What the image's hash covers. Not what happens to be on this process' path: Ray puts packages of its own there."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *map(str, _torch_folder())}
    found = {(d.metadata["Name"] or "").lower(): d.version for d in metadata.distributions(path=sorted(places))}
    return {"python": sys.version, "distributions": found, "os": platform.freedesktop_os_release()}


def _host_mounts() -> list[Mount]:
    """/usr, what is beside it where it is not merged, and all prefixes that hold the interpreter and torch."""
    wanted = [Path("/usr"), *(Path("/") / name for name in MERGED if _is_real_folder(Path("/") / name))]
    python = [Path(sys.base_prefix), Path(sys.prefix), Path(sys.executable).resolve().parents[1], *_torch_folder()]
    for path in python:
        wanted += [path.absolute(), path.resolve()]
    kept: list[Path] = []
    for path in sorted(set(wanted), key=lambda path: len(path.parts)):
        if path != Path("/") and not any(path == other or other in path.parents for other in kept):
            kept.append(path)
    return [Mount(path, str(path)) for path in kept]


def _torch_folder() -> list[Path]:
    """Where torch and its like are installed, if they are."""
    torch = find_spec("torch")
    return [] if torch is None or torch.origin is None else [Path(torch.origin).parents[1]]


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _files() -> dict[str, str]:
    """The few files of /etc without which libc and compilers do not find their way; no file of the host's users."""
    users = "".join(f"lab:x:{uid}:{uid}:candidate:/tmp:/usr/sbin/nologin\n" for uid in UIDS)
    groups = "".join(f"lab:x:{uid}:\n" for uid in UIDS)
    return {
        "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n" + users,
        "etc/group": "root:x:0:\n" + groups,
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "etc/hosts": "127.0.0.1 localhost\n",
    }


def _build_rootfs(rootfs: Path, mounts: tuple[Mount, ...]) -> None:
    rootfs.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=rootfs.parent))
    building.chmod(0o755)
    for target in (*MOUNT_POINTS, *(m.target.lstrip("/") for m in mounts)):
        (building / target).mkdir(parents=True, exist_ok=True)
    for name in MERGED:
        if (Path("/") / name).is_symlink():
            (building / name).symlink_to((Path("/") / name).readlink())
    for name, text in _files().items():
        (building / name).write_text(text)
    if Path("/etc/ld.so.cache").exists():
        shutil.copy("/etc/ld.so.cache", building / "etc" / "ld.so.cache")
    if Path("/etc/alternatives").is_dir():  # the links by which compilers and BLAS libraries are found
        shutil.copytree("/etc/alternatives", building / "etc" / "alternatives", symlinks=True)
    for path in (p for p in building.rglob("*") if not p.is_symlink()):  # whatever the umask was
        path.chmod(0o755 if path.is_dir() else 0o644)
    (building / "tmp").chmod(0o1777)  # runc gives a tmpfs the mode of the folder beneath it
    try:
        building.rename(rootfs)
    except OSError:
        shutil.rmtree(building)
        if not rootfs.is_dir():  # otherwise somebody else has built the same
            raise
