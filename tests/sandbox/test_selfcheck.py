"""The self-check finds every control in place, sees what it looks for once one is gone, and then nothing is run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from records import MissingComponent
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.profile import Control
from sandbox.selfcheck import Check, ensure_controls, self_check
from tests.sandbox.traces import traces
from tests.sandbox.weakened import Weakened

CPU = find_device("cpu")


@pytest.fixture(scope="module")
def checks(engine: Engine, state_dir: Path) -> Iterator[dict[Control, Check]]:
    yield {check.control: check for check in self_check(engine, CPU, state_dir, positive_controls=True)}
    assert traces(engine, state_dir) == []


@pytest.mark.parametrize("control", Control, ids=[control.name.lower() for control in Control])
def test_a_control_holds_and_its_probe_can_see(checks: dict[Control, Check], control: Control) -> None:
    assert checks[control] == Check(control, True, True, "")


@pytest.mark.parametrize("control", [Control.SECCOMP, Control.MEMORY, Control.NETWORK, Control.OUT])
def test_an_engine_without_a_control_is_refused_by_its_name(engine: Engine, state_dir: Path, control: Control) -> None:
    with pytest.raises(MissingComponent, match=f"{engine.name} .* does not enforce {control} \\("):
        ensure_controls(Weakened(engine, control), CPU, state_dir)
    assert traces(engine, state_dir) == []


def test_an_engine_that_enforces_everything_is_accepted(engine: Engine, state_dir: Path) -> None:
    ensure_controls(engine, CPU, state_dir)
