"""The doctor: looks at everything that a night depends on, and says of each thing how it is and what to do about it."""

import importlib.metadata
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ledger.lease import quarantines
from ledger.server import open_redis, shown
from orgs.cluster import running_cluster
from orgs.lab import Lab
from orgs.orgfile import SandboxSettings
from orgs.runner import lift_quarantines
from records import MissingComponent, Refusal
from sandbox.advisories import latest_fix, open_advisories
from sandbox.dataset import FILES, Dataset
from sandbox.device import Device, find_device
from sandbox.engines import Engine, pick_engine
from sandbox.engines.cgroup import kind_of_hierarchy
from sandbox.failure import describe_exit, last_line, one_line
from sandbox.gpu import GpuState, in_use, read_states
from sandbox.launch import launched
from sandbox.profile import Control, LaunchProfile, lab_id, reserved_uid
from sandbox.rundir import run_directory
from sandbox.selfcheck import self_check
from sandbox.sweep import find_remains

GIBIBYTE = 2**30
DISK_LOW_BYTES, DISK_SHORT_BYTES = 20 * GIBIBYTE, 5 * GIBIBYTE
"""A candidate may hand over 4 GiB of weights (Limits.out_bytes), beside which the ledger must be able to grow."""
KEYS = ("ANTHROPIC_API_KEY",)
ENGINES = ("docker", "runc")


class Level(StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    """A night can go on like that; somebody should look at it."""
    RED = "red"
    """A launch is refused, or would fail."""


class Line(NamedTuple):
    subject: str
    level: Level
    says: str
    fix: str = ""
    """What to do, unless it is green."""


@dataclass
class Examination:
    """What is examined, and what has been found on the way that later checks build on.

    Args:
        lab: the clone.
        settings: the sandbox that is wanted, as an org file says it.
        redis_url: a Redis in place of the embedded one.
        clean: remove what dead hosts left behind, and lift quarantines that are over.
        on_control: told of each control whose probe has been shown to see.
    """

    lab: Lab
    settings: SandboxSettings
    redis_url: str | None
    clean: bool
    on_control: Callable[[Control], None] = lambda _: None
    engine: Engine | None = None
    """The one that a launch would take."""
    engines: dict[str, Engine] = field(default_factory=dict)
    """All that are here: either may hold leftovers."""

    def lines(self) -> Iterator[Line]:
        """Everything in turn, as it is found. A check that fails becomes a line itself."""
        for check in CHECKS:
            try:
                yield from check(self)
            except Refusal as refusal:
                yield Line(check.__name__, Level.RED, str(refusal))
            except OSError as error:
                yield Line(check.__name__, Level.RED, f"{error.filename or 'the machine'}: {error.strerror or error}")

    @cached_property
    def device(self) -> Device:
        return find_device(self.settings.device)


# ---- programs --------------------------------------------------------------------------------------------------------


def python(examination: Examination) -> Iterator[Line]:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        yield Line("python", Level.GREEN, f"{version} in {sys.prefix}")
    else:
        yield Line("python", Level.RED, version, "use Python 3.11 or 3.12: PYTHON=/path/to/python ./setup.sh demo")


def torch(examination: Examination) -> Iterator[Line]:
    try:
        import torch as library
    except ImportError as error:
        yield Line("torch", Level.RED, f"cannot be imported: {error}", "./setup.sh demo")
        return
    cuda, gpus = library.version.cuda, read_states()
    if cuda is None and gpus:
        fix = f".venv/bin/pip install --force-reinstall --no-deps torch=={library.__version__.partition('+')[0]}"
        yield Line("torch", Level.YELLOW, f"{library.__version__} is a CPU build, and there is a GPU", fix)
    else:
        yield Line("torch", Level.GREEN, f"{library.__version__} ({f'CUDA {cuda}' if cuda else 'CPU'} build)")


def engine(examination: Examination) -> Iterator[Line]:
    """The engine that a launch would take, and whether the other one is there too."""
    settings, state = examination.settings, examination.lab.state
    chosen: Engine | None = None
    try:
        chosen = pick_engine(settings.engine, state_dir=state, image=settings.image, runtime=settings.runtime)
        examination.engine = examination.engines[chosen.name] = chosen
    except MissingComponent as missing:
        fix = "start Docker (and let this user reach it), or: apt-get install runc, run as root, and take engine auto"
        yield Line("engine", Level.RED, str(missing), fix)
    others: list[str] = []
    for name in (name for name in ENGINES if name not in examination.engines):
        try:
            other = examination.engines[name] = pick_engine(name, state_dir=state)
            others.append(f"{name} {other.version} too")
        except MissingComponent as missing:
            others.append(f"{name}: {missing}")
    if chosen is not None:
        runtime = "" if settings.runtime is None else f" with {settings.runtime}"
        says = f"{chosen.name} {chosen.version}{runtime}, {kind_of_hierarchy()} ({'; '.join(others)})"
        yield Line("engine", Level.GREEN, says)


def escapes(examination: Examination) -> Iterator[Line]:
    """Published ways out, by the versions of what runs containers."""
    if examination.engine is None:
        return
    for program, version in examination.engine.versions.items():
        found = open_advisories({program: version})
        if not found:
            yield Line("escapes", Level.GREEN, f"{program} {version}: none is known")
            continue
        level = Level.RED if examination.settings.strict else Level.YELLOW
        says = f"{program} {version or '(unknown version)'}: {', '.join(problem.advisory.cve for problem in found)}"
        yield Line("escapes", level, says, latest_fix(found))


def controls(examination: Examination) -> Iterator[Line]:
    """Each control of the sandbox, from inside, and that its probe can see."""
    chosen = examination.engine
    if chosen is None:
        return
    checks = self_check(
        chosen, examination.device, examination.lab.state, positive_controls=True, on_check=examination.on_control
    )
    for check in checks:
        if not check.holds:
            fix = "nothing is run like that: mend the engine or the kernel, or take another engine"
            yield Line("controls", Level.RED, f"{check.control} does not hold: {check.says}", fix)
        elif not check.shown:
            fix = "nothing to do if this machine cannot show it (a second CPU, say)"
            yield Line(
                "controls", Level.YELLOW, f"{check.control}: the probe cannot be shown to see: {check.says}", fix
            )
    good = sum(check.holds and bool(check.shown) for check in checks)
    if good:
        says = f"{good} of {len(checks)} hold in a real launch, and their probes see once the control is gone"
        yield Line("controls", Level.GREEN, says)


INSIDE = """
import torch
on = torch.ones(8, device="{device}")
name = torch.cuda.get_device_name() if on.is_cuda else "the CPU"
print(f"torch {{torch.__version__}} adds up to {{int(on.sum())}} on {{name}}, {{torch.cuda.device_count()}} GPU in sight")
"""


def inside(examination: Examination) -> Iterator[Line]:
    """Whether a candidate finds its libraries, and its device."""
    chosen, device, state = examination.engine, examination.device, examination.lab.state
    if chosen is None:
        return
    program = ("-c", INSIDE.format(device=device.torch_name))
    with run_directory(state, f"check-{secrets.token_hex(6)}") as folder, reserved_uid() as uid:
        limits = examination.settings.limits()
        profile = LaunchProfile(lab_id(state), folder.name, "inside", uid, program, (), device, limits)
        with launched(chosen, profile) as container:
            in_time = container.wait(limits.startup_cap_s(device))
            container.kill()
            ending = container.ending()
    if in_time and ending.exit_code == 0:
        yield Line("inside", Level.GREEN, last_line(ending.log))
    else:
        says = (
            f"a candidate's Python {describe_exit(ending.exit_code)}: {one_line(last_line(ending.log)) or 'no output'}"
        )
        fix = "torch must fit the driver, or the image must hold torch: see the README on sandbox.image"
        yield Line("inside", Level.RED, says if in_time else "a candidate's Python does not start in time", fix)


def redis(examination: Examination) -> Iterator[Line]:
    with open_redis(examination.lab.state, examination.redis_url) as server:
        where = "embedded" if examination.redis_url is None else f"at {shown(examination.redis_url)}"
        yield Line("redis", Level.GREEN, f"{server.version} {where}, keeps every write that it acknowledges")
        for uuid in lift_quarantines(server.client) if examination.clean else []:
            yield Line("quarantine", Level.GREEN, f"lifted from GPU {uuid}: nothing uses it any more")
        for device, reason in quarantines(server.client).items():
            fix = "end what holds it (or restart the machine), then: autoresearch-org doctor --clean"
            yield Line("quarantine", Level.RED, f"{device} cannot be leased: {reason}", fix)


def ray(examination: Examination) -> Iterator[Line]:
    version, address = importlib.metadata.version("ray"), running_cluster()
    yield Line("ray", Level.GREEN, f"{version}, {f'cluster at {address}' if address else 'a launch starts its own'}")


# ---- the machine -----------------------------------------------------------------------------------------------------


def gpu(examination: Examination) -> Iterator[Line]:
    states = read_states()
    if not states:
        level = Level.RED if examination.settings.device not in ("auto", "cpu") else Level.GREEN
        fix = "" if level == Level.GREEN else "install the NVIDIA driver, or use device cpu"
        yield Line("gpu", level, f"none; experiments run on {find_device('cpu').name}", fix)
    for state in states:
        yield from _gpu(state)


def _gpu(state: GpuState) -> Iterator[Line]:
    says = f"{state.name}, driver {state.driver}"
    if state.memory_bytes is not None and state.used_bytes is not None:
        says += f", {(state.memory_bytes - state.used_bytes) / GIBIBYTE:.1f} of {state.memory_bytes / GIBIBYTE:.1f} GiB free"
    if state.sm_clock_mhz is not None and state.max_sm_clock_mhz is not None:
        says += f", {state.sm_clock_mhz} of {state.max_sm_clock_mhz} MHz"
    if state.power_w is not None and state.power_limit_w is not None:
        says += f", {state.power_w:.0f} of {state.power_limit_w:.0f} W"
    if state.temperature_c is not None:
        says += f", {state.temperature_c} °C"
    yield Line("gpu", Level.GREEN, f"{says} · {state.uuid}")
    if (busy := in_use(state)) is not None:
        fix = "end it: what shares a GPU with an experiment changes its score"
        yield Line("gpu", Level.YELLOW, busy, fix)
    slow = [reason for reason in state.slowed_by if reason.startswith("hw_") or "thermal" in reason]
    if slow:
        fix = "look at cooling and power: a slow GPU makes every candidate look worse"
        yield Line("gpu", Level.YELLOW, f"slowed down by {', '.join(slow)}", fix)
    if not state.persistent:
        fix = "sudo nvidia-smi --persistence-mode=1"
        yield Line("gpu", Level.YELLOW, "the driver is unloaded between runs: each start waits for it", fix)


def disk(examination: Examination) -> Iterator[Line]:
    folder = examination.lab.state if examination.lab.state.exists() else examination.lab.root
    free = shutil.disk_usage(folder).free
    level = Level.GREEN if free >= DISK_LOW_BYTES else Level.YELLOW if free >= DISK_SHORT_BYTES else Level.RED
    fix = "" if level == Level.GREEN else "make room: a ledger that cannot be written stops the night"
    yield Line("disk", level, f"{free / GIBIBYTE:.1f} GiB free for {folder}", fix)


def leftovers(examination: Examination) -> Iterator[Line]:
    found = list(find_remains(examination.engines.values(), examination.lab.state))
    for remains in found:
        if examination.clean:
            remains.remove()
            yield Line("leftovers", Level.GREEN, f"removed {remains.what}")
        else:
            yield Line(
                "leftovers", Level.YELLOW, f"{remains.what} of a host that died", "autoresearch-org doctor --clean"
            )
    if not found:
        yield Line("leftovers", Level.GREEN, "none")


# ---- the lab ---------------------------------------------------------------------------------------------------------


def datasets(examination: Examination) -> Iterator[Line]:
    manifests = sorted(examination.lab.state.glob("datasets/*/manifest.json"))
    if not manifests:
        yield Line("datasets", Level.GREEN, "none yet: a launch prepares what its org file names")
    for manifest in manifests:
        name = manifest.parent.name
        try:
            dataset = Dataset.open(manifest.parent)
        except Refusal as refusal:
            yield Line("datasets", Level.RED, str(refusal), f"rm -r {manifest.parent}, and launch again")
        else:
            rows = ", ".join(f"{count:,} {split}" for split, count in dataset.manifest.rows.items())
            says = f"{name}: {len(FILES)} files match their hashes ({rows} rows of {dataset.max_seq_len} tokens)"
            yield Line("datasets", Level.GREEN, says)


def git(examination: Examination) -> Iterator[Line]:
    root = examination.lab.root
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        branch, changed = _git(root, "branch", "--show-current"), _git(root, "status", "--porcelain", "train.py")
    except FileNotFoundError:
        yield Line("git", Level.RED, "is not installed", "apt-get install git")
        return
    if top is None or Path(top).resolve() != root:
        fix = "git init && git add -A && git commit -m start"
        yield Line("git", Level.RED, f"{root} is not the root of a git repository that this user may use", fix)
    elif (branch or "").startswith("autoresearch/"):
        yield Line("git", Level.RED, f"{branch} is checked out, where a campaign commits", "git checkout main")
    else:
        says = "differs from the last commit; a campaign starts from it as it is" if changed else "is as committed"
        yield Line("git", Level.GREEN, f"on {branch or 'no branch'}; train.py {says}")


def _git(root: Path, *arguments: str) -> str | None:
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60)
    return ended.stdout.strip() if ended.returncode == 0 else None


def keys(examination: Examination) -> Iterator[Line]:
    for name in KEYS:
        says = "is set (and never shown)" if os.environ.get(name) else "is not set: the sampler needs none"
        yield Line("keys", Level.GREEN, f"{name} {says}")


CHECKS = (python, torch, engine, escapes, controls, inside, gpu, redis, ray, disk, leftovers, datasets, git, keys)


# ---- on the screen ---------------------------------------------------------------------------------------------------


def render(line: Line) -> RenderableType:
    """A line of the screen, and below it what to do."""
    sign = {Level.GREEN: "✓", Level.YELLOW: "!", Level.RED: "✗"}[line.level]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=10)
    grid.add_column(overflow="fold")
    says: RenderableType = Text(line.says)
    if line.fix:
        says = Group(says, Text(f"→ {line.fix}", style="bold"))
    grid.add_row(Text(sign, style=f"bold {line.level}"), Text(line.subject), says)
    return grid
