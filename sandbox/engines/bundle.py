"""Renders a launch profile as the config.json of an OCI bundle (https://github.com/opencontainers/runtime-spec)."""

from collections.abc import Mapping
from typing import Any

from sandbox.device import DeviceNode
from sandbox.image import Image
from sandbox.profile import LaunchProfile, Mount

CPU_PERIOD_US = 100_000


def render(profile: LaunchProfile, image: Image) -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2",
        **({} if profile.hostname is None else {"hostname": profile.hostname}),
        "root": {"path": str(image.rootfs), "readonly": profile.read_only_root},
        "process": {
            "terminal": False,
            "user": {"uid": profile.uid, "gid": profile.uid, "additionalGids": [], "umask": 0o022},
            "args": [image.python, *profile.arguments],
            "env": [f"{name}={value}" for name, value in profile.environment.items()],
            "cwd": "/lab",
            "capabilities": _capabilities(profile),
            "noNewPrivileges": profile.no_new_privileges,
            "oomScoreAdj": 500,
            "rlimits": [
                {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.value, "hard": limit.value}
                for limit in profile.rlimits
            ],
        },
        "mounts": _mounts(profile, image),
        "linux": {
            "namespaces": [{"type": kind} for kind in profile.namespaces],
            "cgroupsPath": f"/{profile.name}",
            "resources": _resources(profile),
            "sysctl": dict(profile.sysctls),
            "devices": [_device_node(node) for node in profile.devices],
            **({} if profile.seccomp is None else {"seccomp": _seccomp(profile.seccomp)}),
            "maskedPaths": list(profile.masked_paths),
            "readonlyPaths": list(profile.read_only_paths),
            "rootfsPropagation": "private",
        },
    }


def _capabilities(profile: LaunchProfile) -> dict[str, list[str]]:
    names = [f"CAP_{name}" for name in profile.capabilities]
    return dict.fromkeys(("bounding", "effective", "permitted"), names) | {"inheritable": [], "ambient": []}


def _resources(profile: LaunchProfile) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if profile.cpus is not None:
        cpu |= {"quota": int(profile.cpus * CPU_PERIOD_US), "period": CPU_PERIOD_US}
    if profile.cpu_shares is not None:
        cpu |= {"shares": profile.cpu_shares}
    if profile.cpuset is not None:
        cpu |= {"cpus": ",".join(map(str, profile.cpuset))}
    resources: dict[str, Any] = {"cpu": cpu, "devices": _device_rules(profile)}
    if profile.memory_bytes is not None:
        resources["memory"] = {"limit": profile.memory_bytes, "swap": profile.memory_bytes}
    if profile.pids is not None:
        resources["pids"] = {"limit": profile.pids}
    return resources


def _mounts(profile: LaunchProfile, image: Image) -> list[dict[str, Any]]:
    """The engine's own file systems, then the bind mounts, outer ones first: a virtual environment may lie below /tmp."""
    binds = [*image.mounts, *driver_mounts(profile), *profile.mounts]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        _tmpfs("/dev", 2**16, "0755", "noexec"),
        _tmpfs("/dev/shm", profile.shm_bytes, "1777", "nodev", "noexec"),
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
        _tmpfs("/tmp", profile.tmp_bytes, "1777", "nodev", "exec"),
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
    # `bind`, not `rbind`: file systems mounted below the source stay out. Docker has no words for nosuid and nodev, so
    # the profile does not count on them.
    access = ["ro"] if mount.read_only else ["rw", "noexec"]
    options = ["bind", "private", "nosuid", "nodev", *access]
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": options}


def _device_rules(profile: LaunchProfile) -> list[dict[str, Any]]:
    if profile.any_device is not None:
        return [{"allow": True, "access": "rwm"}]
    allowed = [
        {"allow": True, "type": "c", "major": node.major, "minor": node.minor, "access": "rw"}
        for node in profile.devices
    ]
    return [{"allow": False, "access": "rwm"}, *allowed]


def _device_node(node: DeviceNode) -> dict[str, Any]:
    return {"path": node.path, "type": "c", "major": node.major, "minor": node.minor, "fileMode": 0o666}


def _seccomp(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Docker's format in the OCI's words: the same rules without comments."""
    fields = ("names", "action", "errnoRet", "args")
    return {
        "defaultAction": rules["defaultAction"],
        "defaultErrnoRet": rules["defaultErrnoRet"],
        "architectures": rules["architectures"],
        "syscalls": [{key: rule[key] for key in fields if key in rule} for rule in rules["syscalls"]],
    }
