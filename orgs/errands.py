"""Errands as a mind sends them: a task in, an answer out. Agents know no sandbox; they are given this callable."""

from dataclasses import dataclass
from pathlib import Path

from orgs.lab import Lab
from orgs.orgfile import SandboxSettings
from orgs.preflight import proven
from records import Errand, Returned
from sandbox.engines import Engine
from sandbox.errand import LIMITS, run_errand
from sandbox.profile import Limits
from sandbox.sweep import sweep


@dataclass(frozen=True)
class Errands:
    """Command-line agents in containers of this machine (sandbox/errand.py)."""

    engine: Engine
    state_dir: Path
    limits: Limits = LIMITS

    @classmethod
    def open(cls, lab: Lab, sandbox: SandboxSettings) -> "Errands":
        """Prove the sandbox on this machine, and clear what errands of dead processes left. As `Preflight.open`, also in what it raises."""
        engine = proven(sandbox, lab.state)
        sweep([engine], lab.state)
        return cls(engine, lab.state)

    def __call__(self, errand: Errand) -> Returned:
        """Raises HostFault if the machine failed."""
        return run_errand(errand, self.engine, limits=self.limits, state_dir=self.state_dir)
