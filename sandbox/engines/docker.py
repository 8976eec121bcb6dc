"""Containers by a Docker daemon on this machine, through the Docker SDK."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from docker.api.client import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, LogConfig, Ulimit
from docker.types import Mount as DockerMount
from requests.exceptions import RequestException

from records import MissingComponent
from sandbox.engines import Additions, Leftover, cgroup
from sandbox.engines.bundle import CPU_PERIOD_US, driver_mounts
from sandbox.engines.cdi import CdiDevice, find_gpu
from sandbox.engines.logtail import LogTail
from sandbox.engines.volume import VolumeOutbox
from sandbox.failure import Ending, EngineLost
from sandbox.image import Image, build_image
from sandbox.outbox import Outbox, TmpfsOutbox
from sandbox.profile import LaunchProfile, Mount, lab_id, run_of

DEFAULT_HOST = "unix:///var/run/docker.sock"
LABEL = "autoresearch.lab"
POLL_S = 0.05
KILL_S = 10.0

NEEDED = {
    "MemoryLimit": "memory limits",
    "PidsLimit": "pids limits",
    "CpuCfsQuota": "cpu limits",
}


class DockerImage(NamedTuple):
    id: str
    """Digest by which the daemon knows it."""
    sha256: str
    """What is recorded with a measurement."""
    python: str
    mounts: tuple[Mount, ...]
    variables: tuple[str, ...]
    """Names that the image itself sets in the environment."""

    @property
    def has_driver(self) -> bool:
        """The host's files are mounted, so the GPU driver's libraries are there: its device nodes are all that lacks."""
        return bool(self.mounts)


class DockerEngine:
    name = "docker"

    def __init__(
        self,
        client: APIClient,
        version: str,
        lab: str,
        image: DockerImage,
        *,
        privileged: bool,
        first_uid: int,
        runtime: str | None,
        cdi_folders: tuple[str, ...],
        versions: Mapping[str, str],
    ):
        self.client = client
        self.version = version
        self.lab = lab
        self.image = image
        self.privileged = privileged
        """This process may mount file systems."""
        self.first_uid = first_uid
        """User of the host that a container's root is: another one than 0 where the daemon has a user namespace."""
        self.runtime = runtime
        """What the daemon starts containers with; its default when None."""
        self.cdi_folders = cdi_folders
        """Where the daemon looks for CDI specs; none where it is too old or CDI is turned off."""
        self.versions = versions

    @classmethod
    def open(cls, state_dir: Path, image: str | None = None, runtime: str | None = None) -> "DockerEngine":
        """Connect to the daemon that DOCKER_HOST names.

        Args:
            state_dir: the lab's state directory.
            image: name of an image made from docker/Dockerfile; the host's own Python serves when None.
            runtime: name of one of the daemon's runtimes, such as runsc (gVisor); its default when None.

        Raises:
            MissingComponent: no daemon answers, it cannot enforce every control of a launch profile, or has no such
                image or runtime.
        """
        host = os.environ.get("DOCKER_HOST", DEFAULT_HOST)
        if not host.startswith("unix://"):
            raise MissingComponent(f"DOCKER_HOST is {host}: candidates need a daemon on this machine (unix://…)")
        try:
            client = APIClient(base_url=host, version="auto", timeout=60)
            info = cast(dict[str, Any], client.info())
        except (DockerException, RequestException):
            raise MissingComponent(
                f"no Docker daemon answers at {host} (start it, or add this user to group docker)"
            ) from None
        if missing := missing_controls(info):
            raise MissingComponent(
                f"the Docker daemon at {host} cannot enforce {', '.join(missing)} (rootless or no cgroups?)"
            )
        if runtime is not None and runtime not in info.get("Runtimes", {}):
            known = ", ".join(sorted(info.get("Runtimes", {})))
            raise MissingComponent(
                f"the Docker daemon at {host} has no runtime {runtime} (it has {known}): install it and name it in daemon.json"
            )
        try:
            found = import_image(client, build_image(state_dir)) if image is None else named_image(client, image)
        except (DockerException, RequestException) as error:
            raise MissingComponent(f"the Docker daemon does not take the image: {error}") from None
        return cls(
            client,
            str(info["ServerVersion"]),
            lab_id(state_dir),
            found,
            privileged=os.geteuid() == 0,
            first_uid=first_uid(info),
            runtime=runtime,
            cdi_folders=tuple(info.get("CDISpecDirs") or ()),
            versions=versions_of(client, info, runtime),
        )

    @property
    def image_hash(self) -> str:
        return self.image.sha256

    @property
    def labels(self) -> dict[str, str]:
        """By which this lab finds what is its own."""
        return {LABEL: self.lab}

    def host_uid(self, uid: int) -> int:
        """Who a container's user is on the host."""
        return self.first_uid + uid

    def additions(self, profile: LaunchProfile) -> Additions:
        mounts = (*(mount.target for mount in self._mounts(profile)), "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
        variables = ("HOSTNAME", *self.image.variables)
        if (gpu := self._cdi_device(profile)) is None:
            return Additions(mounts, (), variables)
        return Additions((*mounts, *gpu.mounts), gpu.nodes, (*variables, *gpu.variables))

    def _mounts(self, profile: LaunchProfile) -> tuple[Mount, ...]:
        """What the image needs of the host."""
        return (*self.image.mounts, *(driver_mounts(profile) if self.image.has_driver else ()))

    def _cdi_device(self, profile: LaunchProfile) -> CdiDevice | None:
        """The GPU with its driver, for an image that has none."""
        if profile.device.gpu is None or self.image.has_driver:
            return None
        return find_gpu(profile.device.gpu.uuid, self.cdi_folders)

    def start(self, profile: LaunchProfile) -> "DockerContainer":
        try:
            created = self.client.create_container(
                self.image.id,
                command=list(profile.arguments),
                entrypoint=[self.image.python],
                name=profile.name,
                hostname=profile.hostname,
                user=f"{profile.uid}:{profile.uid}",
                working_dir="/lab",
                environment=dict(profile.environment),
                labels=self.labels,
                host_config=self._host_config(profile),
            )
            container = DockerContainer(self, profile, str(created["Id"]))
            self.client.start(container.id)
        except (DockerException, RequestException) as error:
            self.remove(profile.name)
            raise EngineLost(f"docker did not start the container: {error}") from None
        return container

    def _host_config(self, profile: LaunchProfile) -> dict[str, Any]:
        security = ["no-new-privileges:true"] if profile.no_new_privileges else []
        # None would give the daemon's own filter.
        security.append(f"seccomp={'unconfined' if profile.seccomp is None else json.dumps(profile.seccomp)}")
        shared = {kind: None if kind in profile.namespaces else "host" for kind in ("pid", "ipc", "uts", "network")}
        cdi = self._cdi_device(profile)
        config = cast(
            dict[str, Any],
            self.client.create_host_config(
                mounts=[_mount(mount) for mount in (*self._mounts(profile), *profile.mounts)],
                tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={profile.tmp_bytes}"},
                shm_size=profile.shm_bytes,
                network_mode=shared["network"] or "none",
                ipc_mode=shared["ipc"] or "private",
                pid_mode=shared["pid"],
                uts_mode=shared["uts"],
                read_only=profile.read_only_root,
                sysctls=dict(profile.sysctls),
                cap_drop=["ALL"],
                cap_add=list(profile.capabilities),
                security_opt=security,
                mem_limit=profile.memory_bytes,
                memswap_limit=profile.memory_bytes,
                pids_limit=profile.pids,
                cpu_period=None if profile.cpus is None else CPU_PERIOD_US,
                cpu_quota=None if profile.cpus is None else int(profile.cpus * CPU_PERIOD_US),
                cpu_shares=profile.cpu_shares,
                cpuset_cpus=None if profile.cpuset is None else ",".join(map(str, profile.cpuset)),
                oom_score_adj=500,
                runtime=self.runtime,
                ulimits=[Ulimit(name=limit.name, soft=limit.value, hard=limit.value) for limit in profile.rlimits],
                log_config=LogConfig(type="none"),  # what it prints comes by `attach`, and is bounded there
                device_requests=[] if cdi is None else [DeviceRequest(driver="cdi", device_ids=[cdi.name])],
            ),
        )
        # The SDK has no arguments for these.
        config |= {
            "CgroupnsMode": "private" if "cgroup" in profile.namespaces else "host",
            "MaskedPaths": list(profile.masked_paths),
            "ReadonlyPaths": list(profile.read_only_paths),
            "Devices": [
                {"PathOnHost": node.path, "PathInContainer": node.path, "CgroupPermissions": "rw"}
                for node in profile.devices
                if cdi is None or node.path not in cdi.nodes
            ],
            "DeviceCgroupRules": [] if profile.any_device is None else ["a *:* rwm"],
        }
        if self.first_uid and not {"pid", "ipc", "network"} <= set(profile.namespaces):
            config["UsernsMode"] = "host"  # the daemon shares no namespace of the host with remapped users
        return config

    def outbox(self, folder: Path, profile: LaunchProfile) -> Outbox:
        if self.privileged:
            owner = self.host_uid(profile.uid)
            return TmpfsOutbox(folder, uid=owner, size_bytes=profile.out_bytes, files=profile.out_files)
        return VolumeOutbox(self, profile)

    def leftovers(self) -> list[Leftover]:
        ours = {"label": f"{LABEL}={self.lab}"}
        try:
            containers = self.client.containers(all=True, filters=ours)
            volumes = self.client.volumes(filters=ours)["Volumes"] or []
        except (DockerException, RequestException) as error:
            raise EngineLost(f"docker does not list what it holds: {error}") from None
        names = {str(c["Names"][0]).lstrip("/") for c in containers} | {str(v["Name"]) for v in volumes}
        return [Leftover(name, run_of(name, self.lab)) for name in sorted(names)]

    def remove(self, name: str) -> None:
        """Remove the container of that name, and the volume: either may not be there."""
        remove_container, remove_volume = self.client.remove_container, self.client.remove_volume
        for remove in (partial(remove_container, name, force=True, v=True), partial(remove_volume, name, force=True)):
            try:
                remove()
            except NotFound:
                continue
            except (DockerException, RequestException) as error:
                raise EngineLost(f"docker does not remove {name}: {error}") from None


def missing_controls(info: dict[str, Any]) -> list[str]:
    """Controls of a launch profile that a daemon with this `docker info` would ignore."""
    security = [str(option) for option in info.get("SecurityOptions") or []]
    missing = [control for key, control in NEEDED.items() if not info.get(key)]
    if not any(option.startswith("name=seccomp") for option in security):
        missing.append("seccomp")
    if info.get("CgroupDriver") in (None, "", "none"):
        missing.append("cgroups")
    # Where there is no swap, none has to be limited.
    if not info.get("SwapLimit") and len(Path("/proc/swaps").read_text().splitlines()) > 1:
        missing.append("swap limits")
    if (info.get("OSType"), info.get("Architecture")) != ("linux", "x86_64"):
        missing.append("the system calls of linux/x86_64")
    return missing


def versions_of(client: APIClient, info: dict[str, Any], runtime: str | None) -> dict[str, str]:
    """Programs that a daemon runs containers with, and their versions: what advisories.py asks about.

    The daemon tells the version of its default runtime only; another one is asked itself.
    """
    components = {str(part["Name"]): part for part in client.version().get("Components") or []}
    versions = {"docker": str(info["ServerVersion"])}
    versions |= {name: str(components[name]["Version"]) for name in ("containerd", "runc") if name in components}
    if runtime is not None and runtime != info.get("DefaultRuntime"):
        versions.pop("runc", None)
        path = str(info["Runtimes"][runtime].get("path") or runtime)
        versions |= {Path(path).name: version_line(path)}
    if shutil.which("nvidia-ctk"):  # its hooks run as root where a GPU is handed in
        versions |= {"nvidia-ctk": version_line("nvidia-ctk")}
    return versions


def version_line(program: str) -> str:
    """The first line of `program --version`; empty where this process cannot run it."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.splitlines()[0] if said else ""


def first_uid(info: dict[str, Any]) -> int:
    """User of the host that root in a container is, by `docker info`.

    A daemon with --userns-remap keeps its data in a folder named after the mapping, `UID.GID`
    (https://docs.docker.com/engine/security/userns-remap/).
    """
    if not any(str(option).startswith("name=userns") for option in info.get("SecurityOptions") or []):
        return 0
    uid, dot, gid = Path(str(info["DockerRootDir"])).name.partition(".")
    if not (dot and uid.isdigit() and gid.isdigit()):
        raise MissingComponent(
            f"the Docker daemon remaps users, but its data root {info['DockerRootDir']} does not tell how"
        )
    return int(uid)


def import_image(client: APIClient, image: Image) -> DockerImage:
    """Give the daemon the root directory as an image, once."""
    name = f"autoresearch-host:{image.rootfs.name}"
    try:
        found = client.inspect_image(name)
    except ImageNotFound:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(image.rootfs, arcname=".", filter=_owned_by_root)
        client.import_image_from_data(buffer.getvalue(), repository="autoresearch-host", tag=image.rootfs.name)
        found = client.inspect_image(name)
    return DockerImage(str(found["Id"]), image.sha256, image.python, image.mounts, ())


def named_image(client: APIClient, name: str) -> DockerImage:
    """An image that brings a Python of its own. It is started by its digest, whatever its name comes to mean later.

    Raises:
        MissingComponent: the daemon has none of that name.
    """
    try:
        found = client.inspect_image(name)
    except ImageNotFound:
        raise MissingComponent(f"no Docker image {name} (docker build -t {name} -f docker/Dockerfile .)") from None
    identifier, variables = str(found["Id"]), found["Config"].get("Env") or []
    names = tuple(str(variable).partition("=")[0] for variable in variables)
    return DockerImage(identifier, identifier.removeprefix("sha256:"), "python", (), names)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def _mount(mount: Mount) -> DockerMount:
    if not mount.source.is_absolute():
        return DockerMount(mount.target, str(mount.source), type="volume", read_only=mount.read_only, no_copy=True)
    rendered = DockerMount(
        mount.target, str(mount.source), type="bind", read_only=mount.read_only, propagation="rprivate"
    )
    # What is mounted below the source stays out: Docker would let it in, and writable.
    rendered["BindOptions"]["NonRecursive"] = True
    return rendered


class DockerContainer:
    """Attached to before it starts: the daemon passes on what it prints, keeps nothing, and waits while we do."""

    def __init__(self, engine: DockerEngine, profile: LaunchProfile, identifier: str):
        self.engine = engine
        self.name = profile.name
        self.id = identifier
        self._peak_bytes: int | None = None
        output = engine.client.attach(identifier, stream=True)
        self.log = LogTail(output, profile.output_bytes_s, output.close)

    def _state(self) -> dict[str, Any]:
        try:
            return cast(dict[str, Any], self.engine.client.inspect_container(self.id)["State"])
        except (DockerException, RequestException) as error:
            raise EngineLost(f"docker lost container {self.name}: {error}") from None

    def wait(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            state = self._state()
            if not state["Running"]:
                return True
            # Docker forgets the high-water mark at the end, so it is read while the container runs.
            peak = cgroup.peak_memory_bytes(cgroup.of_process(int(state["Pid"])))
            self._peak_bytes = max(peak or 0, self._peak_bytes or 0) or None
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(POLL_S, left_s))

    def pid(self) -> int | None:
        return int(self._state()["Pid"]) or None

    def kill(self) -> None:
        try:
            self.engine.client.kill(self.id)
        except APIError as error:
            if error.status_code not in (404, 409):  # 409: it has ended already
                raise EngineLost(f"docker does not kill container {self.name}: {error}") from None
        except (DockerException, RequestException) as error:
            raise EngineLost(f"docker does not kill container {self.name}: {error}") from None
        if not self.wait(KILL_S):
            raise EngineLost(f"container {self.name} survives SIGKILL")

    def ending(self) -> Ending:
        state = self._state()
        return Ending(int(state["ExitCode"]), bool(state["OOMKilled"]), self._peak_bytes, self.log.end())

    def remove(self) -> None:
        try:
            self.engine.remove(self.name)
        finally:
            self.log.close()
