"""An engine with some controls taken away: for showing that what finds nothing would find something."""

from pathlib import Path

from sandbox.engines import Additions, Container, Engine, Leftover
from sandbox.outbox import Outbox
from sandbox.profile import Control, LaunchProfile


class Weakened:
    """Starts every container without these controls, through the engine's own production path."""

    def __init__(self, engine: Engine, *controls: Control):
        self.engine = engine
        self.controls = controls
        self.name = engine.name
        self.version = engine.version
        self.versions = engine.versions

    @property
    def image_hash(self) -> str:
        return self.engine.image_hash

    def additions(self, profile: LaunchProfile) -> Additions:
        return self.engine.additions(profile)

    def start(self, profile: LaunchProfile) -> Container:
        return self.engine.start(profile.without(*self.controls))

    def outbox(self, folder: Path, profile: LaunchProfile) -> Outbox:
        assert profile.controls == frozenset(Control), "production launches take nothing away"
        return self.engine.outbox(folder, profile.without(*self.controls))

    def leftovers(self) -> list[Leftover]:
        return self.engine.leftovers()

    def remove(self, name: str) -> None:
        self.engine.remove(name)
