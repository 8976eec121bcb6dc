"""Every attack on the box, through the production launch: contained under all controls, and successful without those that stop it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.bench import LIMITS, NOTHING, Bench, Finding, set_up
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.profile import Control
from tests.redteam import attacks
from tests.redteam.attacks import ATTACKS
from tests.redteam.host import a_host_worth_attacking
from tests.sandbox.traces import traces

DEADLY = {name for name, (_, controls) in ATTACKS.items() if set(controls) & {"MEMORY", "PIDS"}}
"""May bring down the container that they run in, so each has one of its own."""


@pytest.fixture(scope="module")
def bench(engine: Engine, state_dir: Path) -> Iterator[Bench]:
    source = inspect.getsource(attacks)
    with a_host_worth_attacking(state_dir) as facts:
        facts["place_bytes"] = max(LIMITS.tmp_bytes, LIMITS.shm_bytes, LIMITS.out_bytes)
        with set_up(engine, find_device("cpu"), state_dir, more=source, facts=facts) as bench:
            yield bench
    assert traces(engine, state_dir) == []


@pytest.fixture(scope="module")
def under_all_controls(bench: Bench) -> dict[str, Finding]:
    """What all attacks came to, one after the other in one container, and the deadly ones each in its own."""
    found = bench.launch("all", [name for name in ATTACKS if name not in DEADLY])
    for name in DEADLY:
        found |= bench.launch(f"all_{name}", [name], may_die=True)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_achieves_nothing(under_all_controls: dict[str, Finding], name: str) -> None:
    assert under_all_controls[name] == NOTHING


@pytest.mark.parametrize("name", ATTACKS)
def test_without_what_stops_it_the_attack_succeeds(bench: Bench, name: str) -> None:
    without = [Control[control] for control in ATTACKS[name][1]]
    found = bench.launch(f"without_{name}", [name], without=without)[name]
    assert (bool(found.seen), found.error) == (True, None)


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 50
    assert {control for _, controls in ATTACKS.values() for control in controls} <= {
        control.name for control in Control
    }
