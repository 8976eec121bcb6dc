"""An engine that a candidate may be given to: one that is here, without known holes if so wanted, and proven from inside."""

from pathlib import Path

from sandbox.advisories import refuse_open_advisories
from sandbox.device import Device
from sandbox.engines import Engine, pick_engine
from sandbox.selfcheck import ensure_controls


def ready_engine(
    name: str, device: Device, *, state_dir: Path, image: str | None, runtime: str | None, strict: bool
) -> Engine:
    """Pick an engine, and refuse it unless it holds.

    Args:
        name: `auto`, `docker` or `runc`.
        device: what candidates are given.
        state_dir: the lab's state directory.
        image: name of a Docker image to use instead of the host's own Python.
        runtime: one of the Docker daemon's runtimes, such as runsc.
        strict: also refuse programs for whose version a way out has been published.

    Raises:
        MissingComponent: there is no such engine, or it does not enforce every control; names what is missing and the fix.
        BadInput: the choice makes no sense.
        EngineLost: it starts no containers.
    """
    engine = pick_engine(name, state_dir=state_dir, image=image, runtime=runtime)
    if strict:
        refuse_open_advisories(engine.versions)
    ensure_controls(engine, device, state_dir)
    return engine
