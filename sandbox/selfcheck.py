"""Proves from inside a real container that every control of the launch profile holds on this machine.

One launch under all controls runs every probe (inside/probes.py): none may see anything. The positive controls then launch
once more for each control, with that control alone taken away: now its probe must see what it looks for, or it proves nothing.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from records import MissingComponent
from sandbox.bench import Bench, Finding, set_up
from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.failure import EngineLost, one_line
from sandbox.profile import Control

AT_ONCE = 4
DEADLY = (Control.MEMORY, Control.PIDS)
"""Their probes may bring the whole container down, so each has one of its own."""
BATCHES: list[list[Control]] = [[control for control in Control if control != Control.CPU], [Control.CPU]]
"""Positive controls that may go on at the same time: the one that asks for every CPU needs the machine for itself."""
ATTEMPTS = 10
"""Of a positive control, at most: on a busy machine a probe may not get the CPU that nothing withholds any more."""
LONGEST_PAUSE_S = 5.0
"""Between two of these attempts, each a second longer than the one before: what takes the CPU may be over by then."""


class Check(NamedTuple):
    """What is known of one control on this machine."""

    control: Control
    holds: bool
    shown: bool | None
    """The same probe sees the forbidden thing once this control alone is gone. None: not tried."""
    says: str
    """What the probe saw, and where; empty when all is as it should be."""


def ensure_controls(engine: Engine, device: Device, state_dir: Path) -> None:
    """Refuse an engine under which a candidate could do something that the profile forbids.

    Raises:
        MissingComponent: naming each control that does not hold; or a container does not reach the gate.
        EngineLost: no container could be started.
    """
    broken = [check for check in self_check(engine, device, state_dir) if not check.holds]
    if broken:
        names = "; ".join(f"{check.control} ({check.says})" for check in broken)
        raise MissingComponent(
            f"{engine.name} {engine.version} does not enforce {names}: nothing is run here like that"
        )


def self_check(
    engine: Engine,
    device: Device,
    state_dir: Path,
    *,
    positive_controls: bool = False,
    on_check: Callable[[Control], None] = lambda _: None,
) -> list[Check]:
    """What each control is worth on this machine, in the order of the profile.

    Args:
        engine: engine to be checked, through the same launch that candidates go through.
        device: what the containers are given.
        state_dir: the lab's state directory.
        positive_controls: also show of each probe that it can see. Takes a launch for each control.
        on_check: told of each positive control when it has been tried.

    Raises:
        EngineLost: no container could be started under all controls.
        MissingComponent: a container does not reach the gate, without which no candidate can do anything.
    """
    with set_up(engine, device, state_dir) as bench, ThreadPoolExecutor(AT_ONCE) as pool:
        require_gate(bench)
        batches = [[control for control in Control if control not in DEADLY], *([control] for control in DEADLY)]
        launches = [pool.submit(under_all, bench, batch) for batch in batches]
        found = {control: finding for launch in launches for control, finding in launch.result().items()}
        shown: dict[Control, Finding] = {}
        for batch in BATCHES if positive_controls else []:
            for control, finding in zip(batch, pool.map(partial(without, bench), batch), strict=True):
                shown[control] = finding
                on_check(control)
    return [judge(control, found[control], shown.get(control)) for control in Control]


def require_gate(bench: Bench) -> None:
    finding = bench.launch("gate", ["gate"])["gate"]
    if finding.seen is None:
        raise MissingComponent(
            f"{bench.engine.name} does not let a container reach a Unix socket of the host ({finding.error}); "
            "gVisor needs the runtime argument --host-uds=open, or --fsgofer-host-uds in versions that do not know it"
        )


def under_all(bench: Bench, controls: list[Control]) -> dict[Control, Finding]:
    """What the probes of some controls see under all of them."""
    names = [control.name.lower() for control in controls]
    found = bench.launch(f"check_{names[0]}", names, may_die=set(controls) <= set(DEADLY))
    return {control: found[name] for control, name in zip(controls, names, strict=True)}


def without(bench: Bench, control: Control) -> Finding:
    """What the probe of a control sees when this control alone is gone."""
    name, finding = control.name.lower(), Finding(seen=None, error="not tried")
    for attempt in range(ATTEMPTS):
        if control == Control.CPU:
            time.sleep(min(attempt, LONGEST_PAUSE_S))
        try:
            finding = bench.launch(f"without_{name}{attempt}", [name], without=[control], may_die=control in DEADLY)[
                name
            ]
        except EngineLost as error:
            return Finding(seen=None, error=f"{bench.engine.name} does not start a container without it: {error}")
        if finding.seen is not None:
            break
    return finding


def judge(control: Control, under: Finding, without: Finding | None) -> Check:
    """Put together what a probe found under the control and, if that was tried, without it."""
    problem = under.seen or under.error
    if problem is not None:
        return Check(control, False, without.seen is not None if without else None, one_line(problem))
    if without is None or without.seen is not None:
        return Check(control, True, None if without is None else True, "")
    why = without.error or "nothing to see on this machine without it either"
    return Check(control, True, False, one_line(why))
