"""A bench for hostile programs: runs them in containers of the production launch, and hears what each could do.

The self-check puts its probes on it, the attack suite its attacks. What runs is inside/probes.py, with more functions
appended if need be; each is called by its name, in a process of its own.
"""

import json
import os
import secrets
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.failure import EngineLost, one_line
from sandbox.gate import Gate
from sandbox.launch import launched, with_outbox
from sandbox.profile import Control, LaunchProfile, Limits, Mount, lab_id, reserved_uid
from sandbox.rundir import readable_folder, run_directory, write_readable

PROBES = Path(__file__).with_name("inside") / "probes.py"
PATIENCE_S = 120.0
BEGIN = "probing"
"""What a program of probes prints first."""
MEBIBYTE = 2**20
LIMITS = Limits(
    cpus=0.5,
    memory_bytes=256 * MEBIBYTE,
    pids=256,
    nofile=128,
    tmp_bytes=16 * MEBIBYTE,
    shm_bytes=8 * MEBIBYTE,
    out_bytes=8 * MEBIBYTE,
)
"""Small enough to be reached in no time; engines treat them like any others."""


class Finding(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seen: str | None
    """What a probe could do or see."""
    error: str | None
    """Why it cannot tell."""


NOTHING = Finding(seen=None, error=None)
FINDINGS: TypeAdapter[dict[str, Finding]] = TypeAdapter(dict[str, Finding])


class Bench(NamedTuple):
    """Where launches are made from: an engine, a device, and a program that lies ready."""

    engine: Engine
    device: Device
    state_dir: Path
    folder: Path

    def launch(
        self, phase: str, names: Collection[str], *, without: Collection[Control] = (), may_die: bool = False
    ) -> dict[str, Finding]:
        """Start a container, and run some of the program's functions in it.

        Args:
            phase: names the container; another one for each launch.
            names: the functions.
            without: controls that are taken away for once.
            may_die: the container may be brought down by what is tried (under gVisor it is): that, too, is being stopped.

        Raises:
            EngineLost: it could not be started so, or did not answer.
        """
        with reserved_uid() as uid:
            profile = profile_of(self.state_dir, self.folder, self.device, uid, phase, *names).without(*without)
            with (
                with_outbox(self.engine, profile, self.folder) as (profile, _),
                launched(self.engine, profile) as container,
            ):
                ended = container.wait(PATIENCE_S)
                container.kill()
                log = container.ending().log
        if not ended:
            raise EngineLost(f"the self-check did not end within {PATIENCE_S:.0f} s")
        if may_die and log.strip() == BEGIN:
            return dict.fromkeys(names, NOTHING)
        return read_findings(log)


@contextmanager
def set_up(
    engine: Engine, device: Device, state_dir: Path, *, more: str = "", facts: Mapping[str, Any] | None = None
) -> Iterator[Bench]:
    """A bench with the probes on it; nothing of it is left after the block.

    Args:
        engine: what starts the containers.
        device: what they are given.
        state_dir: the lab's state directory.
        more: Python text to append to the probes.
        facts: to be told to every function, besides those of `facts_of`.
    """
    with (
        run_directory(state_dir, f"check-{secrets.token_hex(6)}") as folder,
        abstract_listener() as address,
        gate_listener(folder / "gate"),
    ):
        known = facts_of(profile_of(state_dir, folder, device, 0, "facts"), engine, address) | dict(facts or {})
        program = (
            f"{PROBES.read_text()}\n{more}\n\nimport sys\n\nmain(sys.argv[1:], json.loads({json.dumps(known)!r}))\n"
        )
        write_readable(readable_folder(folder / "lab") / "probes.py", program.encode())
        yield Bench(engine, device, state_dir, folder)


def profile_of(state_dir: Path, folder: Path, device: Device, uid: int, phase: str, *arguments: str) -> LaunchProfile:
    return LaunchProfile(
        lab_id(state_dir),
        folder.name,
        phase,
        uid,
        ("-I", "-S", "-B", "/lab/probes.py", *arguments),
        (Mount(folder / "lab", "/lab"), Mount(folder / "gate", "/gate")),
        device,
        LIMITS,
    )


def facts_of(profile: LaunchProfile, engine: Engine, address: str) -> dict[str, Any]:
    """What the probes must know of a launch, and of the host that they look for.

    Args:
        profile: under all controls.
        engine: which brings mounts and variables of its own.
        address: abstract name of a socket in the host's network.
    """
    limits = {limit.name: limit.value for limit in profile.rlimits}
    added = engine.additions(profile)
    return {
        "kernel": os.uname().version,
        "abstract_socket": address,
        "namespaces": {
            kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("cgroup", "ipc", "net", "pid", "uts")
        },
        "masked_paths": profile.masked_paths,
        "read_only_paths": profile.read_only_paths,
        "mounts": ["/", "/tmp", "/out", *(mount.target for mount in profile.mounts), *added.mounts],
        "devices": [*(node.path for node in profile.devices), *added.devices],
        "environment": [*profile.environment, *added.variables],
        "memory_bytes": profile.memory_bytes,
        "pids": profile.pids,
        "cpus": profile.cpus,
        "cpuset": profile.cpuset,
        "nofile": limits["nofile"],
        "file_bytes": limits["fsize"],
        "tmp_bytes": profile.tmp_bytes,
        "shm_bytes": profile.shm_bytes,
        "out_bytes": profile.out_bytes,
        "out_files": profile.out_files,
        "output_bytes_s": profile.output_bytes_s,
    }


def read_findings(log: str) -> dict[str, Finding]:
    """The last line that the probes printed. Raises EngineLost when there is none: then nothing is known."""
    try:
        return FINDINGS.validate_json(log.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        raise EngineLost(f"the self-check ended without an answer: {one_line(log) or 'no output'}") from None


@contextmanager
def abstract_listener() -> Iterator[str]:
    """Name of a socket that listens in this process' network, without a place in any file system (unix(7))."""
    name = f"autoresearch-check-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        yield name


@contextmanager
def gate_listener(folder: Path) -> Iterator[None]:
    """A socket where the gate of a training run is."""
    with Gate(readable_folder(folder)):
        yield
