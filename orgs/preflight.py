"""The preflight as a coder calls it: a source in, a few lines out. Agents know no sandbox; they are given this callable."""

import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from orgs.lab import Lab
from orgs.orgfile import SandboxSettings
from records import Preflighted
from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.preflight import LIMITS, preflight
from sandbox.profile import Limits
from sandbox.sweep import sweep


@dataclass(frozen=True)
class Preflight:
    """Two tiny steps of a train.py on the CPU of this machine, in the sandbox (sandbox/preflight.py)."""

    dataset: Dataset
    engine: Engine
    state_dir: Path
    limits: Limits = LIMITS

    @classmethod
    def open(cls, lab: Lab, dataset: Dataset, sandbox: SandboxSettings) -> "Preflight":
        """Prove the sandbox on this machine, and clear what preflights of dead processes left.

        The proof takes CPU time from a run beside it: open one when no run is measured yet, such as when a seat is taken.

        Args:
            lab: whose train.py it is.
            dataset: the campaign's; need not be verified, since only its manifest is read.
            sandbox: engine, image and runtime; in a campaign with what `auto` came to. Its device is not used.

        Raises:
            MissingComponent: there is no such engine, or it does not enforce every control.
            HostFault: it starts no containers, or something of a dead process could not be removed.
        """
        engine = proven(sandbox, lab.state)
        sweep([engine], lab.state)
        # Where a run may lose all of its CPU time to others, there is no reason to step back.
        limits = replace(LIMITS, cpu_shares=None) if sandbox.stolen_cpu >= 1 else LIMITS
        return cls(dataset, engine, lab.state, limits)

    def __call__(self, source: str, cancel: threading.Event | None = None) -> Preflighted:
        """Whether this train.py trains, submits and can be scored, with a few lines for its author.

        Raises:
            HostFault: the machine failed, or `cancel` was set: nothing is known of it.
        """
        return preflight(source, self.dataset, self.engine, limits=self.limits, state_dir=self.state_dir, cancel=cancel)


@cache  # a seat is opened again after every step that failed; what was proven since this process began still holds
def proven(sandbox: SandboxSettings, state_dir: Path) -> Engine:
    return sandbox.ready_engine(find_device("cpu"), state_dir)
