"""Renders a launch profile as the config.json of an OCI bundle (https://github.com/opencontainers/runtime-spec)."""

import json
from typing import Any

from sandbox.device import Gpu
from sandbox.image import Image
from sandbox.profile import MASKED_PATHS, READONLY_PATHS, SECCOMP, LaunchProfile, Mount

CPU_PERIOD_US = 100_000


def render(profile: LaunchProfile, image: Image) -> dict[str, Any]:
    limits = profile.limits
    no_capabilities: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    return {
        "ociVersion": "1.0.2",
        "hostname": "lab",
        "root": {"path": str(image.rootfs), "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": profile.uid, "gid": profile.uid, "additionalGids": [], "umask": 0o022},
            "args": [image.python, *profile.arguments],
            "env": [f"{name}={value}" for name, value in profile.environment.items()],
            "cwd": "/lab",
            "capabilities": no_capabilities,
            "noNewPrivileges": True,
            "oomScoreAdj": 500,
            "rlimits": [
                _rlimit("RLIMIT_NOFILE", limits.nofile),
                _rlimit("RLIMIT_FSIZE", profile.file_bytes),
                _rlimit("RLIMIT_CORE", 0),
            ],
        },
        "mounts": _mounts(profile, image),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "cgroupsPath": f"/{profile.name}",
            "resources": {
                "memory": {"limit": limits.memory_bytes, "swap": limits.memory_bytes},
                "cpu": {"quota": int(limits.cpus * CPU_PERIOD_US), "period": CPU_PERIOD_US},
                "pids": {"limit": limits.pids},
                "devices": [{"allow": False, "access": "rwm"}, *_device_rules(profile.device.gpu)],
            },
            "devices": _device_nodes(profile.device.gpu),
            "seccomp": seccomp(),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "rootfsPropagation": "private",
        },
    }


def _rlimit(kind: str, value: int) -> dict[str, Any]:
    return {"type": kind, "soft": value, "hard": value}


def _mounts(profile: LaunchProfile, image: Image) -> list[dict[str, Any]]:
    """The engine's own file systems, then the bind mounts, outer ones first: a virtual environment may lie below /tmp."""
    limits = profile.limits
    binds = [*image.mounts, *driver_mounts(profile), *profile.mounts]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        _tmpfs("/dev", 2**16, "0755", "noexec"),
        _tmpfs("/dev/shm", limits.shm_bytes, "1777", "nodev", "noexec"),
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
        _tmpfs("/tmp", limits.tmp_bytes, "1777", "nodev", "exec"),
        *(_bind(mount) for mount in sorted(binds, key=lambda mount: mount.target.count("/"))),
    ]


def driver_mounts(profile: LaunchProfile) -> tuple[Mount, ...]:
    gpu = profile.device.gpu
    return () if gpu is None else tuple(Mount(path, str(path)) for path in gpu.mounts)


def _tmpfs(target: str, size_bytes: int, mode: str, *options: str) -> dict[str, Any]:
    return {
        "destination": target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", *options, f"mode={mode}", f"size={size_bytes}"],
    }


def _bind(mount: Mount) -> dict[str, Any]:
    # `bind`, not `rbind`: file systems mounted below the source stay out.
    access = ["ro"] if mount.read_only else ["rw", "noexec"]
    options = ["bind", "private", "nosuid", "nodev", *access]
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": options}


def _device_rules(gpu: Gpu | None) -> list[dict[str, Any]]:
    nodes = () if gpu is None else gpu.nodes
    return [{"allow": True, "type": "c", "major": n.major, "minor": n.minor, "access": "rw"} for n in nodes]


def _device_nodes(gpu: Gpu | None) -> list[dict[str, Any]]:
    nodes = () if gpu is None else gpu.nodes
    return [{"path": n.path, "type": "c", "major": n.major, "minor": n.minor, "fileMode": 0o666} for n in nodes]


def seccomp() -> dict[str, Any]:
    """docker/seccomp.json in the OCI's words: the same rules without comments."""
    rules = json.loads(SECCOMP.read_text())
    fields = ("names", "action", "errnoRet", "args")
    return {
        "defaultAction": rules["defaultAction"],
        "defaultErrnoRet": rules["defaultErrnoRet"],
        "architectures": rules["architectures"],
        "syscalls": [{key: rule[key] for key in fields if key in rule} for rule in rules["syscalls"]],
    }
