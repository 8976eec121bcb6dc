"""An engine is given to a candidate only if it holds, and with `strict` only if its programs have no published way out."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from records import MissingComponent
from sandbox.advisories import open_advisories
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.ready import ready_engine


def opened(engine: Engine, state_dir: Path, *, strict: bool) -> Engine:
    return ready_engine(engine.name, find_device("cpu"), state_dir=state_dir, image=None, runtime=None, strict=strict)


def test_a_sound_engine_is_ready(engine: Engine, state_dir: Path) -> None:
    assert opened(engine, state_dir, strict=False).version == engine.version


def test_strict_refuses_exactly_what_the_doctor_warns_of(engine: Engine, state_dir: Path) -> None:
    found = open_advisories(engine.versions)
    refused = pytest.raises(MissingComponent, match=found[0].advisory.cve) if found else nullcontext()
    with refused:
        opened(engine, state_dir, strict=True)
