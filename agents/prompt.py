"""A rendered role file."""

from typing import NamedTuple


class Prompt(NamedTuple):
    """What a mind is told, in two parts."""

    stable: str
    """The same from task to task, as long as the champion is: what an API may keep. Empty if nothing parts it."""
    task: str

    @property
    def text(self) -> str:
        return self.stable + self.task
