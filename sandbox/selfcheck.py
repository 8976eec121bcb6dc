"""Proves from inside a real container that every control of the launch profile holds on this machine.

One launch under all controls runs every probe (inside/probes.py): none may see anything. The positive controls then launch
once more for each control, with that control alone taken away: now its probe must see what it looks for, or it proves nothing.
"""

import json
import os
import secrets
import socket
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from records import MissingComponent
from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.failure import EngineLost, one_line
from sandbox.launch import launched, with_outbox
from sandbox.profile import Control, LaunchProfile, Limits, Mount, lab_id, reserved_uid
from sandbox.rundir import run_directory

PROBES = Path(__file__).with_name("inside") / "probes.py"
PATIENCE_S = 120.0
AT_ONCE = 4
BEGIN = "probing"
"""What a program of probes prints first."""
DEADLY = {Control.MEMORY, Control.PIDS}
"""Their probes may bring the whole container down (under gVisor they do): that, too, is being stopped."""
ATTEMPTS = 3
"""Of a positive control: on a busy machine a probe may not get the CPU that nothing withholds any more."""
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


class Check(NamedTuple):
    """What is known of one control on this machine."""

    control: Control
    holds: bool
    shown: bool | None
    """The same probe sees the forbidden thing once this control alone is gone. None: not tried."""
    says: str
    """What the probe saw, and where; empty when all is as it should be."""


class Finding(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    seen: str | None
    """What a probe could do or see."""
    error: str | None
    """Why it cannot tell."""


FINDINGS: TypeAdapter[dict[str, Finding]] = TypeAdapter(dict[str, Finding])


def ensure_controls(engine: Engine, device: Device, state_dir: Path) -> None:
    """Refuse an engine under which a candidate could do something that the profile forbids.

    Raises:
        MissingComponent: naming each control that does not hold.
        EngineLost: no container could be started.
    """
    broken = [check for check in self_check(engine, device, state_dir) if not check.holds]
    if broken:
        names = "; ".join(f"{check.control} ({check.says})" for check in broken)
        raise MissingComponent(
            f"{engine.name} {engine.version} does not enforce {names}: nothing is run here like that"
        )


def self_check(engine: Engine, device: Device, state_dir: Path, *, positive_controls: bool = False) -> list[Check]:
    """What each control is worth on this machine, in the order of the profile.

    Args:
        engine: engine to be checked, through the same launch that candidates go through.
        device: what the containers are given.
        state_dir: the lab's state directory.
        positive_controls: also show of each probe that it can see. Takes a launch for each control.

    Raises:
        EngineLost: no container could be started under all controls.
    """
    with run_directory(state_dir, f"check-{secrets.token_hex(6)}") as folder, abstract_listener() as address:
        lab = folder / "lab"
        lab.mkdir()
        bench = Bench(engine, device, state_dir, folder, address)
        bench.write_program()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            batches = [[c for c in Control if c not in DEADLY], *([c] for c in DEADLY)]
            launches = [pool.submit(bench.launch, f"check_{probe_of(batch[0])}", batch) for batch in batches]
            found = {control: finding for launch in launches for control, finding in launch.result().items()}
            tried = list(Control) if positive_controls else []
            shown = dict(zip(tried, pool.map(bench.without, tried), strict=True))
        return [judge(control, found[control], shown.get(control)) for control in Control]


def judge(control: Control, under: Finding, without: Finding | None) -> Check:
    """Put together what a probe found under the control and, if that was tried, without it."""
    problem = under.seen or under.error
    if problem is not None:
        return Check(control, False, without.seen is not None if without else None, one_line(problem))
    if without is None or without.seen is not None:
        return Check(control, True, None if without is None else True, "")
    why = without.error or "nothing to see on this machine without it either"
    return Check(control, True, False, one_line(why))


class Bench(NamedTuple):
    """Where the launches of one check are made from."""

    engine: Engine
    device: Device
    state_dir: Path
    folder: Path
    address: str
    """Of a socket that lives in the host's network."""

    def write_program(self) -> None:
        facts = json.dumps(self.facts())
        program = f"{PROBES.read_text()}\n\nimport sys\n\nmain(sys.argv[1:], json.loads({facts!r}))\n"
        (self.folder / "lab").chmod(0o755)
        path = self.folder / "lab" / "probes.py"
        path.write_text(program)
        path.chmod(0o444)

    def without(self, control: Control) -> Finding:
        """What the probe of a control sees when this control alone is gone."""
        finding = Finding(seen=None, error="not tried")
        for attempt in range(ATTEMPTS):
            phase = f"without_{probe_of(control)}{attempt}"
            try:
                finding = self.launch(phase, [control], without=[control])[control]
            except EngineLost as error:
                return Finding(seen=None, error=f"{self.engine.name} does not start a container without it: {error}")
            if finding.seen is not None:
                break
        return finding

    def launch(
        self, phase: str, probes: Collection[Control], without: Collection[Control] = ()
    ) -> dict[Control, Finding]:
        """Start a container, and run some probes in it."""
        with reserved_uid() as uid:
            profile = self.profile(uid, phase, *map(probe_of, probes)).without(*without)
            with (
                with_outbox(self.engine, profile, self.folder) as (profile, _),
                launched(self.engine, profile) as container,
            ):
                ended = container.wait(PATIENCE_S)
                container.kill()
                log = container.ending().log
        if not ended:
            raise EngineLost(f"the self-check did not end within {PATIENCE_S:.0f} s")
        if set(probes) <= DEADLY and log.strip() == BEGIN:
            return {control: Finding(seen=None, error=None) for control in probes}
        found = read_findings(log)
        return {control: found[probe_of(control)] for control in probes}

    def profile(self, uid: int, phase: str, *arguments: str) -> LaunchProfile:
        return LaunchProfile(
            lab_id(self.state_dir),
            self.folder.name,
            phase,
            uid,
            ("-I", "-S", "-B", "/lab/probes.py", *arguments),
            (Mount(self.folder / "lab", "/lab"),),
            self.device,
            LIMITS,
        )

    def facts(self) -> dict[str, Any]:
        """What the probes compare with: the profile's own values, and the host's namespaces."""
        return facts_of(self.profile(0, "facts"), self.engine, self.address)


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


def probe_of(control: Control) -> str:
    return control.name.lower()


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
