"""Containers by runc alone: an OCI bundle and no daemon. Needs root."""

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from records import MissingComponent
from sandbox.engines import Additions, Leftover, cgroup
from sandbox.engines.bundle import driver_mounts, render
from sandbox.engines.logtail import LogTail
from sandbox.failure import Ending, EngineLost
from sandbox.image import Image, build_image
from sandbox.outbox import Outbox, TmpfsOutbox
from sandbox.profile import LaunchProfile, lab_id, name_prefix, run_of

CHUNK_BYTES = 64 * 1024
KILL_S = 10.0


class RuncEngine:
    name = "runc"

    def __init__(self, program: str, version: str, lab: str, root: Path, image: Image):
        self.program = program
        self.version = version
        self.versions = {"runc": version}
        self.lab = lab
        self.root = root
        self.image = image

    @classmethod
    def open(cls, state_dir: Path) -> "RuncEngine":
        """Raises MissingComponent when runc, or a control that it would have to enforce, is not there."""
        program = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/usr/local/sbin:/sbin")
        if program is None:
            raise MissingComponent("runc is not installed (Debian, Ubuntu: apt-get install runc)")
        if os.geteuid() != 0:
            raise MissingComponent("runc needs root here (run as root, or use Docker)")
        if missing := cgroup.missing_controllers():
            raise MissingComponent(
                f"the host offers no cgroup controller {', '.join(missing)} (enable it, or use Docker)"
            )
        about = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
        if "libseccomp" not in about:
            raise MissingComponent("this runc was built without seccomp (install your distribution's package)")
        root = state_dir.resolve() / "runc"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(program, about.split()[2], lab_id(state_dir), root, build_image(state_dir))

    @property
    def image_hash(self) -> str:
        return self.image.sha256

    def additions(self, profile: LaunchProfile) -> Additions:
        return Additions(tuple(mount.target for mount in (*self.image.mounts, *driver_mounts(profile))), (), ())

    def start(self, profile: LaunchProfile) -> "RuncContainer":
        bundle = self.bundles / profile.name
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(render(profile, self.image)))
        return RuncContainer(self, profile, bundle)

    def outbox(self, folder: Path, profile: LaunchProfile) -> Outbox:
        return TmpfsOutbox(folder, uid=profile.uid, size_bytes=profile.out_bytes, files=profile.out_files)

    def leftovers(self) -> list[Leftover]:
        prefix = name_prefix(self.lab)
        folders = [path.name for folder in (self.bundles, self.states) for path in folder.glob(f"{prefix}*")]
        return [
            Leftover(name, run_of(name, self.lab)) for name in sorted({*folders, *cgroup.groups_with_prefix(prefix)})
        ]

    def remove(self, name: str) -> None:
        """Raises EngineLost when something of the container stays."""
        self.call("delete", "--force", name)
        if not cgroup.kill_and_remove(name):
            raise EngineLost(f"processes of container {name} cannot be killed")
        shutil.rmtree(self.states / name, ignore_errors=True)
        shutil.rmtree(self.bundles / name, ignore_errors=True)

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def states(self) -> Path:
        """Where runc keeps its own state."""
        return self.root / "containers"

    def call(self, *arguments: str) -> bool:
        """Run a command of runc; whether it succeeded."""
        try:
            return (
                subprocess.run(self.command(*arguments), capture_output=True, check=False, timeout=30).returncode == 0
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineLost(f"runc {arguments[0]} does not work: {error}") from None

    def command(self, *arguments: str) -> list[str]:
        return [self.program, "--root", str(self.states), *arguments]


class RuncContainer:
    """`runc run` in the foreground: a process of ours that ends when the container does."""

    def __init__(self, engine: RuncEngine, profile: LaunchProfile, bundle: Path):
        self.engine = engine
        self.name = profile.name
        self.pid_file = bundle / "pid"
        self.runc_log = bundle / "runc.log"
        # --keep: the cgroup stays after the end, for its memory figures.
        options = ("--keep", "--bundle", str(bundle), "--pid-file", str(self.pid_file))
        command = engine.command("--log", str(self.runc_log), "--log-format", "json", "run", *options, self.name)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the launcher
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except OSError as error:
            raise EngineLost(f"runc cannot be started: {error.strerror}") from None
        assert self.process.stdout is not None
        read = partial(os.read, self.process.stdout.fileno(), CHUNK_BYTES)
        self.log = LogTail(iter(read, b""), profile.output_bytes_s, self.process.stdout.close)

    def wait(self, timeout_s: float) -> bool:
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if not self.pid_file.exists():
            raise EngineLost(f"runc did not start the container: {self._complaint()}")
        return True

    def _complaint(self) -> str:
        with suppress(OSError, ValueError, IndexError, KeyError):
            return str(json.loads(self.runc_log.read_text().splitlines()[-1])["msg"])
        return self.log.end() or "no reason given"

    def pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int(self.pid_file.read_text())
        return None

    def kill(self) -> None:
        deadline = time.monotonic() + KILL_S
        while self.process.poll() is None:
            self.engine.call("kill", self.name, "KILL")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
            if time.monotonic() > deadline:
                raise EngineLost(f"container {self.name} survives SIGKILL")

    def ending(self) -> Ending:
        groups = cgroup.groups_named(self.name)
        code = self.process.wait()
        return Ending(
            code if code >= 0 else 128 - code,
            cgroup.oom_kills([g for g in groups if _counts_memory(g)]) > 0,
            cgroup.peak_memory_bytes([g for g in groups if _counts_memory(g)]),
            self.log.end(),
        )

    def remove(self) -> None:
        try:
            self.kill()
        finally:
            self.engine.remove(self.name)
            self.log.close()


def _counts_memory(group: Path) -> bool:
    return (group / "memory.oom_control").exists() or (group / "memory.events").exists()
